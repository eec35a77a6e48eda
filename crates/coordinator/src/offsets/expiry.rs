//! Offsets that nobody wants any more: expired (KIP-211), or of a topic that was deleted.

use std::collections::BTreeMap;

use drumlin_wire::{Str, Uuid};

use super::{Committed, Offsets, offset_key};
use crate::{Record, keys};

/// Since when an offset has been unused, which its group decides by its state (KIP-211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpiryBase {
    /// Never: the group is at work.
    Never,
    /// Since it was committed.
    Commit,
    /// Since the group became empty; since the commit, where that is not known.
    Emptied(Option<i64>),
}

impl ExpiryBase {
    fn is_over(self, committed: &Committed, wall_ms: i64, retention_ms: i64) -> bool {
        let since = match self {
            ExpiryBase::Never => return false,
            ExpiryBase::Commit | ExpiryBase::Emptied(None) => committed.commit_ms,
            // Kafka takes the group's time alone, and so deletes what was committed to a group that had been
            // empty for long, a reset by an administrator, at once.
            ExpiryBase::Emptied(Some(since)) => since.max(committed.commit_ms),
        };
        match committed.expire_ms {
            -1 => wall_ms.saturating_sub(since) >= retention_ms,
            at => wall_ms >= at,
        }
    }
}

impl Offsets {
    /// Deletes a group's expired offsets, but for topics that it is subscribed to. How many.
    pub fn expire(
        &mut self,
        group: &Str,
        base: ExpiryBase,
        subscribed: impl Fn(&Str) -> bool,
        (wall_ms, retention_ms): (i64, i64),
        records: &mut Vec<Record>,
    ) -> usize {
        if base == ExpiryBase::Never {
            return 0;
        }
        let Some(topics) = self.groups.get_mut(group) else {
            return 0;
        };
        let before = records.len();
        topics.retain(|topic, partitions| {
            if !subscribed(topic) {
                partitions.retain(|partition, committed| {
                    let keep = !base.is_over(committed, wall_ms, retention_ms);
                    if !keep {
                        records.push(keys::tombstone(&offset_key(group, topic, *partition)));
                    }
                    keep
                });
            }
            !partitions.is_empty()
        });
        if topics.is_empty() {
            self.groups.remove(group);
        }
        let expired = records.len() - before;
        self.count -= expired;
        expired
    }

    /// Deletes all offsets of a topic that is gone; those that are of another topic of the same name stay. How many.
    pub fn delete_topic(&mut self, id: Uuid, name: &Str, records: &mut Vec<Record>) -> usize {
        let before = records.len();
        self.groups.retain(|group, topics| {
            if let Some(partitions) = topics.get_mut(name) {
                partitions.retain(|partition, committed| {
                    let keep = !committed.topic_id.is_zero() && committed.topic_id != id;
                    if !keep {
                        records.push(keys::tombstone(&offset_key(group, name, *partition)));
                    }
                    keep
                });
                if partitions.is_empty() {
                    topics.remove(name);
                }
            }
            !topics.is_empty()
        });
        let deleted = records.len() - before;
        self.count -= deleted;
        deleted
    }

    /// Deletes the offsets of topics that are gone, by their ids; where none is known they stay. How many.
    pub fn delete_gone(&mut self, gone: impl Fn(Uuid) -> bool, records: &mut Vec<Record>) -> usize {
        let before = records.len();
        let mut known: BTreeMap<Uuid, bool> = BTreeMap::new();
        self.groups.retain(|group, topics| {
            topics.retain(|topic, partitions| {
                partitions.retain(|partition, committed| {
                    let id = committed.topic_id;
                    let keep = id.is_zero() || !*known.entry(id).or_insert_with(|| gone(id));
                    if !keep {
                        records.push(keys::tombstone(&offset_key(group, topic, *partition)));
                    }
                    keep
                });
                !partitions.is_empty()
            });
            !topics.is_empty()
        });
        let deleted = records.len() - before;
        self.count -= deleted;
        deleted
    }
}
