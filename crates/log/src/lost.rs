//! Leaves of a checkpoint that cannot be read: they cost the partitions whose state they hold, and no start.
//!
//! A root says from which partition on a leaf goes, and the next leaf where it ends. Who is in between and has no state
//! elsewhere may have one in the leaf: it is open, refuses everything, and nothing of it is changed or deleted, as
//! where a manifest is damaged. The leaf stays in every list of leaves from then on, with the names of all that must be
//! kept for it, and beside it, from the same first partition on, goes a leaf with what is known of its range:
//!
//! - what entries above the checkpoint told of its partitions: *partial* states, marked by the lost leaf's key where
//!   else the manifest's is, so that they are never taken for whole ones;
//! - whole states of partitions that came later.
//!
//! A start that can read the leaf again puts both together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use drumlin_objects::{Bucket, Reason};

use crate::codec::FormatError;
use crate::keeper::Keeper;
use crate::layout;
use crate::leaves::Range;
use crate::producers::replay_stored;
use crate::read::is_lost;
use crate::recover::RecoverError;
use crate::state::{LeafRef, ManifestRef, PartitionState, decode_state_leaf};
use crate::types::TopicPartition;

/// What a reader of the state does about leaves that it cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lose {
    /// It fails.
    Nothing,
    /// It goes on without those that are damaged. One that is gone may have been replaced meanwhile.
    Damaged,
    /// It goes on without those that are gone as well.
    Gone,
}

/// A leaf that could not be read.
#[derive(Debug, Clone)]
pub(crate) struct LostLeaf {
    pub leaf: LeafRef,
    pub range: Range,
    pub what: String,
}

impl LostLeaf {
    pub(crate) fn contains(&self, id: &TopicPartition) -> bool {
        self.range.contains(id)
    }

    /// The state of a partition of which nothing else is known.
    pub(crate) fn partial(&self, id: TopicPartition) -> PartitionState {
        PartitionState {
            manifest: Some(ManifestRef {
                key: self.leaf.key.clone(),
                length: self.leaf.length,
            }),
            ..PartitionState::empty(id)
        }
    }
}

impl Keeper {
    pub(crate) fn is_in_lost_range(&self, id: &TopicPartition) -> bool {
        self.lost.iter().any(|lost| lost.contains(id))
    }

    /// Lost leaves that hold the state of a partition that is still there.
    pub(crate) fn lost_leaves(&self) -> BTreeSet<Arc<str>> {
        if self.lost.is_empty() {
            return BTreeSet::new();
        }
        let partitions = self.log.open_partitions().into_iter();
        let keys = partitions.filter_map(|partition| {
            let inner = partition.lock();
            let broken = inner.broken.as_ref()?;
            lost_key(&broken.carried).cloned()
        });
        keys.collect()
    }

    /// Sound partitions in the range of a lost leaf in which nothing was ever written: that has to be told, or the next
    /// start takes them for lost.
    pub(crate) fn untold_in_lost_ranges(&self) -> Vec<TopicPartition> {
        if self.lost.is_empty() {
            return Vec::new();
        }
        let partitions = self.log.open_partitions().into_iter();
        let untold = partitions.filter(|partition| {
            let inner = partition.lock();
            inner.high_watermark == 0 && inner.broken.is_none() && self.is_in_lost_range(&partition.id())
        });
        untold.map(|partition| partition.id()).collect()
    }
}

/// The lost leaf that holds what a partial state lacks.
pub(crate) fn lost_key(state: &PartitionState) -> Option<&Arc<str>> {
    let key = state.manifest.as_ref().map(|manifest| &manifest.key);
    key.filter(|key| layout::is_body(key))
}

/// A leaf's states; or why it is lost.
pub(crate) async fn read_leaf(
    bucket: &Bucket,
    leaf: &LeafRef,
    lose: Lose,
) -> Result<Result<Vec<PartitionState>, String>, RecoverError> {
    let damaged = |what| RecoverError::Damaged {
        key: leaf.key.to_string(),
        what,
    };
    let bytes = match bucket.get(&leaf.key, Reason::Recovery).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let may_lose = match lose {
                Lose::Nothing => false,
                Lose::Damaged => !error.is_not_found(),
                Lose::Gone => true,
            };
            return match is_lost(&error) && may_lose {
                true => Ok(Err(error.to_string())),
                false => Err(error.into()),
            };
        }
    };
    match decode_state_leaf(&bytes) {
        Ok(states) => Ok(Ok(states)),
        // It is whole, and wants another release.
        Err(what @ FormatError::Version(_)) => Err(damaged(what)),
        Err(what) if lose == Lose::Nothing => Err(damaged(what)),
        Err(what) => Ok(Err(damaged(what).to_string())),
    }
}

/// The range of the leaf at `at`, which nobody can ask.
pub(crate) fn range_of(leaves: &[LeafRef], at: usize) -> Range {
    let first = leaves[at].first;
    // Its companion begins where it does.
    let next = leaves[at..].iter().find(|leaf| leaf.first > first);
    let end = next.map_or(Bound::Unbounded, |next| Bound::Excluded(next.first));
    (Bound::Included(first), end)
}

/// Puts partial states and those of leaves that can be read (again) together.
pub(crate) fn joined(
    found: impl Iterator<Item = PartitionState>,
    leaves: &[LeafRef],
    whole: &[bool],
) -> States {
    let mut states = States::new();
    let mut partial = Vec::new();
    for state in found {
        match lost_key(&state) {
            None => drop(states.insert(state.id, state)),
            Some(_) => partial.push(state),
        }
    }
    for state in partial {
        let readable = |key: &str| {
            let at = leaves.iter().position(|leaf| *leaf.key == *key);
            at.is_some_and(|at| whole[at])
        };
        let state = match lost_key(&state) {
            Some(key) if readable(key) => {
                let before = states.remove(&state.id);
                overlaid(before.unwrap_or_else(|| PartitionState::empty(state.id)), state)
            }
            _ => state,
        };
        states.insert(state.id, state);
    }
    states
}

/// States by partition.
pub(crate) type States = BTreeMap<TopicPartition, PartitionState>;

/// A leaf's state, and over it what the entries above its checkpoint told.
fn overlaid(mut base: PartitionState, news: PartitionState) -> PartitionState {
    let known = base.log_end;
    base.log_start = base.log_start.max(news.log_start);
    base.log_end = base.log_end.max(news.log_end);
    let newest = base.epochs.last().map_or(i32::MIN, |(epoch, _)| *epoch);
    base.epochs
        .extend(news.epochs.into_iter().filter(|(epoch, _)| *epoch > newest));
    let mut batches: Vec<_> = news
        .producers
        .into_iter()
        .flat_map(|producer| producer.batches)
        .filter(|batch| batch.base_offset >= known)
        .collect();
    batches.sort_by_key(|batch| batch.base_offset);
    replay_stored(&mut base.producers, batches.into_iter());
    base.extents.extend(news.extents);
    base
}
