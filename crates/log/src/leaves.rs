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

/// Writes anew the leaves in whose range a partition of `changed` lies, and returns the whole new list.
pub(crate) async fn write_leaves(
    env: &Env,
    bucket: &Bucket,
    prefix: &str,
    leaves: &[LeafRef],
    changed: &BTreeSet<TopicPartition>,
    load: LeafLoad<'_>,
    on_put: OnPut<'_>,
    why: Reason,
) -> Result<Vec<LeafRef>, StoreError> {
    let mut written = Vec::new();
    for (range, leaf) in ranges(leaves) {
        let touched = changed.range(range).next().is_some();
        match leaf {
            Some(leaf) if !touched => written.push(leaf.clone()),
            _ => {
                if !touched {
                    continue;
                }
                for states in load(range).chunks(LEAF_PARTITIONS) {
                    let key = layout::body_key(prefix, env.random_id());
                    let bytes = encode_state_leaf(states);
                    let names: BTreeSet<Arc<str>> =
                        states.iter().flat_map(PartitionState::names).cloned().collect();
                    let Some(first) = states.first() else { continue };
                    written.push(LeafRef {
                        key: key.as_str().into(),
                        length: bytes.len() as u64,
                        first: first.id,
                        partitions: states.len() as u32,
                        names: names.into_iter().collect(),
                    });
                    on_put(&key);
                    bucket.put(&key, vec![bytes.into()], why).await?;
                }
            }
        }
    }
    Ok(written)
}

/// The ranges that leaves stand for: each from its first partition to the next leaf's; the first from the start.
fn ranges(leaves: &[LeafRef]) -> Vec<(Range, Option<&LeafRef>)> {
    if leaves.is_empty() {
        return vec![((Bound::Unbounded, Bound::Unbounded), None)];
    }
    let start = |at: usize| {
        if at == 0 {
            Bound::Unbounded
        } else {
            Bound::Included(leaves[at].first)
        }
    };
    let end = |at: usize| {
        leaves
            .get(at + 1)
            .map_or(Bound::Unbounded, |next| Bound::Excluded(next.first))
    };
    leaves
        .iter()
        .enumerate()
        .map(|(at, leaf)| ((start(at), end(at)), Some(leaf)))
        .collect()
}
