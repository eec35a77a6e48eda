//! Writing the leaves of a checkpoint: only those in which something changed.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use drumlin_objects::{Bucket, Env, Reason, StoreError};

use crate::layout;
use crate::state::{LeafRef, PartitionState, encode_state_leaf};
use crate::types::TopicPartition;

/// Partitions in a leaf.
const LEAF_PARTITIONS: usize = 1000;

/// A range of partitions.
pub(crate) type Range = (Bound<TopicPartition>, Bound<TopicPartition>);
/// Gives the states of a range, in order; partitions without any are left out.
pub(crate) type LeafLoad<'a> = &'a (dyn Fn(Range) -> Vec<PartitionState> + Send + Sync);
/// Hears of each key before it is put.
pub(crate) type OnPut<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Where leaves go.
#[derive(Clone, Copy)]
pub(crate) struct LeafWriter<'a> {
    pub env: &'a Env,
    pub bucket: &'a Bucket,
    /// Of the chain.
    pub prefix: &'a str,
    /// Leaves that cannot be read: they stay where they are, each with one beside it for what is known of its range.
    pub lost: &'a BTreeSet<Arc<str>>,
    pub on_put: OnPut<'a>,
    pub why: Reason,
}

/// Writes anew the leaves in whose range a partition of `changed` lies, and returns the whole new list.
pub(crate) async fn write_leaves(
    writer: LeafWriter<'_>,
    leaves: &[LeafRef],
    changed: &BTreeSet<TopicPartition>,
    load: LeafLoad<'_>,
) -> Result<Vec<LeafRef>, StoreError> {
    let mut written = Vec::new();
    for (range, old) in ranges(leaves) {
        if changed.range(range).next().is_none() {
            written.extend(old.iter().cloned());
            continue;
        }
        let kept = old.iter().filter(|leaf| writer.lost.contains(&leaf.key)).cloned();
        let before = written.len();
        written.extend(kept);
        let beside = written.get(before).map(|lost: &LeafRef| lost.first);
        // That it belongs to the lost one shows by where it begins, so that it is not divided.
        let most = beside.map_or(LEAF_PARTITIONS, |_| usize::MAX);
        for states in load(range).chunks(most) {
            let key = layout::body_key(writer.prefix, writer.env.random_id());
            let bytes = encode_state_leaf(states);
            let names: BTreeSet<Arc<str>> = states.iter().flat_map(PartitionState::names).cloned().collect();
            let Some(first) = states.first() else { continue };
            written.push(LeafRef {
                key: key.as_str().into(),
                length: bytes.len() as u64,
                first: beside.unwrap_or(first.id),
                partitions: states.len() as u32,
                names: names.into_iter().collect(),
            });
            (writer.on_put)(&key);
            let put = writer.bucket.put(&key, vec![bytes.into()], writer.why);
            put.await?;
        }
    }
    Ok(written)
}

/// The ranges that leaves stand for: each from its first partition to the next leaf's; the first from the start. Those
/// that begin with the same partition have one together.
fn ranges(leaves: &[LeafRef]) -> Vec<(Range, &[LeafRef])> {
    if leaves.is_empty() {
        return vec![((Bound::Unbounded, Bound::Unbounded), leaves)];
    }
    let groups: Vec<&[LeafRef]> = leaves.chunk_by(|a, b| a.first == b.first).collect();
    let start = |at: usize| {
        if at == 0 {
            Bound::Unbounded
        } else {
            Bound::Included(groups[at][0].first)
        }
    };
    let end = |at: usize| {
        groups
            .get(at + 1)
            .map_or(Bound::Unbounded, |next| Bound::Excluded(next[0].first))
    };
    groups
        .iter()
        .enumerate()
        .map(|(at, group)| ((start(at), end(at)), *group))
        .collect()
}
