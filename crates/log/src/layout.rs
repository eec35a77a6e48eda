//! The keys of what this crate keeps in the bucket. All of them stand here.
//!
//! | key | what | life |
//! | --- | --- | --- |
//! | `wal/{shard}/{node}/{incarnation}/log/{n}` | WAL chain entries | until a checkpoint covers them and names them not; fences and slot 0 stay |
//! | `…/checkpoint/{n}`, `…/body/{id}` | markers; roots and leaves | until superseded |
//! | `…/bundle/{round}-{id}` | sealed small data | until no partition needs it |
//! | `…/estate/{id}` | root of a fenced incarnation's state | until its successor has checkpointed |
//! | `topic/{shard}/{topic}/{partition}/segment/{base}-{epoch}-{incarnation}-{id}.log` | a Kafka log segment | until retention |
//! | `topic/…/manifest/{epoch}-{incarnation}-{round}-{id}` | manifest roots and leaves | until folded anew |
//! | `topic/…/snapshot/{offset}-{epoch}-{incarnation}` | a coordinator's state up to that offset; its own business | with the topic, or when its owner has newer ones |
//!
//! `{shard}` is the low byte, in hex, of the CRC32C of what follows it.

use drumlin_objects::chain::{ChainId, ChainName};

use crate::types::{Identity, TopicPartition};

fn shard(rest: &str) -> String {
    format!("{:02x}", crc32c::crc32c(rest.as_bytes()) & 0xff)
}

/// The prefix under which one incarnation keeps its chain, bundles and estates.
pub(crate) fn wal_prefix(node: i32, incarnation: u64) -> String {
    let rest = format!("{node}/{incarnation}");
    format!("wal/{}/{rest}", shard(&rest))
}

/// The chain of one incarnation. Its id binds it to the cluster, so that entries of a bucket that was
/// copied or mixed up are refused.
pub(crate) fn wal_chain(identity: &Identity) -> ChainName {
    let mut id = [0u8; 16];
    id[..4].copy_from_slice(&crc32c::crc32c(identity.cluster_id.as_bytes()).to_be_bytes());
    id[4..8].copy_from_slice(&identity.node.to_be_bytes());
    id[8..].copy_from_slice(&identity.incarnation.to_be_bytes());
    ChainName {
        prefix: wal_prefix(identity.node, identity.incarnation),
        id: ChainId(id),
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The prefix of a partition's objects, without a trailing slash.
pub(crate) fn partition_prefix(id: &TopicPartition) -> String {
    let rest = format!("{}/{}", id.topic, id.partition);
    format!("topic/{}/{rest}", shard(&rest))
}

/// A segment's key.
pub(crate) fn segment_key(
    id: &TopicPartition,
    base: i64,
    epoch: i32,
    incarnation: u64,
    unique: u64,
) -> String {
    format!(
        "{}/segment/{base:020}-{epoch}-{incarnation}-{unique:016x}.log",
        partition_prefix(id)
    )
}

/// The key of a manifest's root or leaf.
pub(crate) fn manifest_key(
    id: &TopicPartition,
    epoch: i32,
    incarnation: u64,
    round: u64,
    unique: u64,
) -> String {
    format!(
        "{}/manifest/{epoch}-{incarnation}-{round:020}-{unique:016x}",
        partition_prefix(id)
    )
}

/// Where a coordinator keeps snapshots of its state of a partition, without a trailing slash. A snapshot is a shortcut:
/// nothing names it, and without it replay gives the same state.
pub fn snapshot_prefix(id: &TopicPartition) -> String {
    format!("{}/snapshot", partition_prefix(id))
}

/// A snapshot's name below [`snapshot_prefix`]: it sorts by offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SnapshotName {
    /// It covers the records below this offset.
    pub offset: i64,
    /// The leader epoch of its writer.
    pub epoch: i32,
    /// The incarnation of its writer.
    pub incarnation: u64,
}

impl SnapshotName {
    /// The whole key.
    pub fn key(&self, id: &TopicPartition) -> String {
        format!(
            "{}/{:020}-{}-{}",
            snapshot_prefix(id),
            self.offset,
            self.epoch,
            self.incarnation
        )
    }

    /// From a key, or its last part; nothing for what this release does not write.
    pub fn parse(key: &str) -> Option<Self> {
        let name = key.rsplit('/').next()?;
        let mut fields = name.split('-');
        let parsed = Self {
            offset: fields.next().filter(|field| field.len() == 20)?.parse().ok()?,
            epoch: fields.next()?.parse().ok()?,
            incarnation: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(parsed)
    }
}

/// A bundle's key.
pub(crate) fn bundle_key(wal_prefix: &str, round: u64, unique: u64) -> String {
    format!("{wal_prefix}/bundle/{round:020}-{unique:016x}")
}

/// Whether a name is that of a start's object of a kind. A whole chain's prefix is of none.
fn is_of_chain(name: &str, kind: &str) -> bool {
    name.starts_with("wal/") && name.contains(kind)
}

/// Whether a name that a checkpoint has is a WAL entry's, in which damaged data lies.
pub(crate) fn is_wal_entry(name: &str) -> bool {
    is_of_chain(name, "/log/")
}

/// Whether a name is a bundle's.
pub(crate) fn is_bundle(name: &str) -> bool {
    is_of_chain(name, "/bundle/")
}

/// Whether a name is that of a checkpoint's root or leaf, or of an estate's leaf.
pub(crate) fn is_body(name: &str) -> bool {
    is_of_chain(name, "/body/")
}

/// A checkpoint's root or leaf.
pub(crate) fn body_key(wal_prefix: &str, id: [u8; 16]) -> String {
    format!("{wal_prefix}/body/{}", hex(&id))
}

/// An estate's root.
pub(crate) fn estate_key(wal_prefix: &str, id: [u8; 16]) -> String {
    format!("{wal_prefix}/estate/{}", hex(&id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TopicId;

    #[test]
    fn names_are_of_the_kind_that_they_were_made_as() {
        let id = TopicPartition {
            topic: TopicId([7; 16]),
            partition: 3,
        };
        let identity = Identity {
            cluster_id: "one".into(),
            node: 1,
            incarnation: 300,
        };
        let (prefix, chain) = (wal_prefix(1, 300), wal_chain(&identity));
        let kinds = |name: &str| [is_wal_entry(name), is_bundle(name), is_body(name)];
        assert_eq!(kinds(&chain.entry_key(7)), [true, false, false]);
        assert_eq!(kinds(&bundle_key(&prefix, 5, 6)), [false, true, false]);
        assert_eq!(kinds(&body_key(&prefix, [8; 16])), [false, false, true]);
        let others = [
            estate_key(&prefix, [8; 16]),
            chain.marker_key(7),
            manifest_key(&id, 1, 2, 3, 4),
            segment_key(&id, 1, 2, 3, 4),
            prefix,
            // The metadata log's.
            "meta/log/00000000000000000007".to_owned(),
            "meta/body/08".to_owned(),
        ];
        for other in others {
            assert_eq!(kinds(&other), [false; 3], "{other}");
        }
    }

    #[test]
    fn names_of_snapshots_are_read_as_they_were_written() {
        let id = TopicPartition {
            topic: TopicId([7; 16]),
            partition: 3,
        };
        let name = SnapshotName {
            offset: 12_345,
            epoch: 6,
            incarnation: 78,
        };
        assert_eq!(SnapshotName::parse(&name.key(&id)), Some(name));
        for other in [
            "",
            "1-2-3",
            "00000000000000000001-2",
            "00000000000000000001-2-3-4",
            "x",
        ] {
            assert_eq!(SnapshotName::parse(other), None, "{other}");
        }
    }
}
