//! Damaged data that was not sealed yet: it stays in the WAL object in which it lies, and costs its own offsets.
//!
//! The WAL object of a batch is the store's only copy until the batch is sealed. Where that copy cannot be read, or is
//! gone, sealing it is impossible for ever; waiting for it would hold up every partition, and drop nothing of the WAL
//! again. So its range is sealed *in place*: the partition's state gets a span that names the WAL object instead of a
//! bundle, with the checksum that its footer had. Reads of the range fail by name, as those of a damaged bundle do, and
//! come back with the object; what is named is not deleted (D3), and goes when retention passes it.

use std::sync::Arc;

use drumlin_objects::chain::number_of;

use crate::deletion::Trim;
use crate::keeper::Keeper;
use crate::layout;
use crate::manifest::{BLOCK_BYTES, SegmentDetail, Span};
use crate::object::Extent;
use crate::partition::Sealed;
use crate::types::TopicPartition;

/// A span that lies in a WAL object. An extent has one checksum, where a span has one for each block: it stands for each,
/// and a longer one, a batch beyond 512 KiB, is verified as a whole.
pub(crate) fn in_place(extent: &Extent, now_ms: i64) -> Span {
    Span {
        bundle: extent.object.key().into(),
        sealed_ms: now_ms,
        base_offset: extent.base_offset,
        end_offset: extent.last_offset + 1,
        position: extent.position,
        length: extent.length.into(),
        max_timestamp: extent.max_timestamp,
        detail: SegmentDetail {
            block_crcs: vec![extent.crc; (extent.length as usize).div_ceil(BLOCK_BYTES)],
            ..SegmentDetail::default()
        },
    }
}

impl Keeper {
    /// Takes note of a piece that cannot be sealed, and says so once.
    pub(crate) fn note_damage(&mut self, id: TopicPartition, span: &Arc<Span>, what: &str) {
        let known = self.damaged.entry(id).or_insert(i64::MIN);
        if span.end_offset > *known || layout::is_wal_entry(&span.bundle) {
            tracing::error!(
                partition = %id, damage = %what, from = span.base_offset, to = span.end_offset - 1,
                "data is damaged and cannot be sealed: it stays where it is, reads of these offsets fail, and all \
                 others are served"
            );
        }
        *known = span.end_offset.max(*known);
    }

    /// Where nothing that is new was damaged, something in a bundle is, of those that are left as they are.
    pub(crate) fn note_damaged_bundle(&mut self, id: TopicPartition, left: &Sealed, what: &str) {
        if let Some(last) = left.spans.last()
            && !self.damaged.contains_key(&id)
        {
            tracing::error!(partition = %id, damage = %what, "sealed data is damaged, and stays where it is");
            self.damaged.insert(id, last.end_offset);
        }
    }

    /// What a trim of this chain below `below`, which a committed checkpoint covers, may delete: all but the entries
    /// that the checkpoint names, in which corrupt data lies.
    pub(crate) fn trim_of(&self, below: u64) -> Trim {
        let own = format!("{}/", self.log.shared().wal.name.prefix);
        let names = self.leaves.iter().flat_map(|leaf| &leaf.names);
        let kept = names
            .filter(|name| layout::is_wal_entry(name) && name.starts_with(&own))
            .filter_map(|name| number_of(name))
            .filter(|slot| *slot < below)
            .collect();
        Trim { below, kept }
    }
}
