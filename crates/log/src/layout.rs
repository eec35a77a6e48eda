//! The keys of what this crate keeps in the bucket. All of them stand here.
//!
//! | key | what | life |
//! | --- | --- | --- |
//! | `wal/{shard}/{node}/{incarnation}/log/{n}` | WAL chain entries | until a checkpoint covers them; fences and slot 0 stay |
//! | `…/checkpoint/{n}`, `…/body/{id}` | markers; roots and leaves | until superseded |
//! | `…/bundle/{round}-{id}` | sealed small data | until no partition needs it |
//! | `…/estate/{id}` | root of a fenced incarnation's state | until its successor has checkpointed |
//! | `topic/{shard}/{topic}/{partition}/segment/{base}-{epoch}-{incarnation}-{id}.log` | a Kafka log segment | until retention |
//! | `topic/…/manifest/{epoch}-{incarnation}-{round}-{id}` | manifest roots and leaves | until folded anew |
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

/// A bundle's key.
pub(crate) fn bundle_key(wal_prefix: &str, round: u64, unique: u64) -> String {
    format!("{wal_prefix}/bundle/{round:020}-{unique:016x}")
}

/// A checkpoint's root or leaf.
pub(crate) fn body_key(wal_prefix: &str, id: [u8; 16]) -> String {
    format!("{wal_prefix}/body/{}", hex(&id))
}

/// An estate's root.
pub(crate) fn estate_key(wal_prefix: &str, id: [u8; 16]) -> String {
    format!("{wal_prefix}/estate/{}", hex(&id))
}
