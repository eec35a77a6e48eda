//! Folding a partition's segments into a manifest.

use std::sync::Arc;

use drumlin_objects::Reason;

use crate::layout;
use crate::log::Log;
use crate::manifest::{LeafPointer, ManifestRoot, Segment, decode_leaf, encode_leaf, encode_root};
use crate::partition::{Partition, Sealed};
use crate::read::{Failure, ReadError};
use crate::state::ManifestRef;

/// Writes a manifest of all segments of `sealed` and points `sealed` to it. Returns the keys that it replaces.
///
/// The newest segments stay in the root; older ones fill the last leaf, which is written anew until it is full.
pub(crate) async fn fold(
    log: &Log,
    partition: &Partition,
    sealed: &mut Sealed,
    round: u64,
) -> Result<Vec<String>, ReadError> {
    let options = &log.shared().wal.options;
    let mut old: Vec<String> = sealed
        .manifest
        .iter()
        .map(|manifest| manifest.key.to_string())
        .collect();
    let mut segments: Vec<Arc<Segment>> = sealed.folded.iter().chain(&sealed.added).cloned().collect();
    let overflow = segments.len().saturating_sub(options.manifest_root_segments);
    let mut spilled: Vec<Segment> = segments
        .drain(..overflow)
        .map(|segment| Segment::clone(&segment))
        .collect();
    if !spilled.is_empty() {
        let open_leaf = sealed
            .leaves
            .last()
            .filter(|leaf| (leaf.segments as usize) < options.manifest_leaf_segments);
        if let Some(leaf) = open_leaf.cloned() {
            match load_leaf(log, &leaf).await {
                Ok(mut older) => {
                    older.append(&mut spilled);
                    spilled = older;
                    sealed.leaves.pop();
                    old.push(leaf.key.to_string());
                }
                // Sealing goes on: the damaged leaf stays as it is, and what comes fills another.
                Err(ReadError::Corrupt { what }) => tracing::error!(
                    partition = %partition.id(), damage = %what,
                    "segments that this leaf of a manifest describes cannot be read"
                ),
                Err(error) => return Err(error),
            }
        }
        for chunk in spilled.chunks(options.manifest_leaf_segments) {
            let pointer = put_leaf(log, partition, chunk, round).await?;
            sealed.leaves.push(Arc::new(pointer));
        }
    }
    let root = ManifestRoot {
        leaves: sealed
            .leaves
            .iter()
            .map(|leaf| LeafPointer::clone(leaf))
            .collect(),
        segments: segments.iter().map(|segment| Segment::clone(segment)).collect(),
    };
    let bytes = encode_root(&root);
    let key = new_key(log, partition, round);
    let length = bytes.len() as u64;
    log.shared().keeper.note_upload(&key);
    log.put_parts(&key, vec![bytes.into()], Reason::Manifest).await?;
    sealed.manifest = Some(ManifestRef {
        key: key.into(),
        length,
    });
    sealed.folded = segments;
    sealed.added.clear();
    Ok(old)
}

/// All segments of a leaf. A leaf that is gone is as bad as a damaged one.
pub(crate) async fn load_leaf(log: &Log, leaf: &LeafPointer) -> Result<Vec<Segment>, ReadError> {
    let bytes = log.bucket().get(&leaf.key, Reason::Manifest).await;
    let bytes = bytes.map_err(|error| Failure::of(error).lost(&leaf.key))?;
    decode_leaf(&bytes, leaf.table_length).map_err(|error| ReadError::Corrupt {
        what: format!("{}: {error}", leaf.key),
    })
}

fn new_key(log: &Log, partition: &Partition, round: u64) -> String {
    let shared = log.shared();
    let unique = shared.wal.env.random_u64();
    layout::manifest_key(
        &partition.id(),
        partition.leader_epoch(),
        shared.identity.incarnation,
        round,
        unique,
    )
}

pub(crate) async fn put_leaf(
    log: &Log,
    partition: &Partition,
    segments: &[Segment],
    round: u64,
) -> Result<LeafPointer, ReadError> {
    let (bytes, table_length) = encode_leaf(segments);
    let key = new_key(log, partition, round);
    let pointer = LeafPointer {
        key: key.as_str().into(),
        base_offset: segments.first().map_or(0, |segment| segment.base_offset),
        end_offset: segments.last().map_or(0, |segment| segment.end_offset),
        max_timestamp: segments
            .iter()
            .map(|segment| segment.max_timestamp)
            .max()
            .unwrap_or(-1),
        bytes: segments.iter().map(|segment| segment.size).sum(),
        segments: segments.len() as u32,
        table_length,
        length: bytes.len() as u64,
    };
    log.shared().keeper.note_upload(&key);
    log.put_parts(&key, vec![bytes.into()], Reason::Manifest).await?;
    Ok(pointer)
}

#[cfg(test)]
mod tests;
