//! Committed offsets: by group, topic and partition.
//!
//! Owns what is stored and its records. Whether a commit is allowed is the group's to say; requests are
//! served in [`request`], deletion by time and by topic in [`expiry`].

mod expiry;
mod request;

use std::collections::BTreeMap;

use drumlin_wire::coordinator_records::legacy_offset_commit_key::LegacyOffsetCommitKey;
use drumlin_wire::coordinator_records::offset_commit_key::OffsetCommitKey;
use drumlin_wire::coordinator_records::offset_commit_value::OffsetCommitValue;
use drumlin_wire::{DecodeError, Str, Uuid};

pub(crate) use expiry::ExpiryBase;
pub(crate) use request::{Admitted, deletable};

use crate::{CommittedOffset, Record, keys};

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next record to read.
    pub offset: i64,
    /// The epoch of the leader that the consumer read from; -1 if it did not say.
    pub leader_epoch: i32,
    /// What the client stored along with it.
    pub metadata: Str,
    /// When it was committed.
    pub commit_ms: i64,
    /// When it expires, if the commit said so (versions 2 to 4); -1 if the broker's retention holds.
    pub expire_ms: i64,
    /// The topic's id; zero in records from before they had one.
    pub topic_id: Uuid,
}

type Partitions = BTreeMap<i32, Committed>;
type TopicOffsets = BTreeMap<Str, Partitions>;

/// All committed offsets of a shard.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<Str, TopicOffsets>,
    count: usize,
}

impl Committed {
    /// Whether a commit of `newer` changes nothing that a client or a restart could see, but for the time of the commit.
    ///
    /// Offsets expire by that time, so it is written again when it is older than a hundredth of the retention, and an
    /// hour at most: an offset expires by no more than that earlier than if each commit were written. An offset with an
    /// expiry of its own is always written.
    fn is_current(&self, newer: &Committed, retention_ms: i64) -> bool {
        let lasts_ms = (retention_ms / 100).min(60 * 60 * 1000);
        let age_ms = newer.commit_ms.saturating_sub(self.commit_ms);
        (0..lasts_ms).contains(&age_ms)
            && (self.expire_ms, newer.expire_ms) == (-1, -1)
            && self.offset == newer.offset
            && self.leader_epoch == newer.leader_epoch
            && self.metadata == newer.metadata
            && self.topic_id == newer.topic_id
    }
}

impl Offsets {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether a group has any.
    pub fn has(&self, group: &Str) -> bool {
        self.groups.contains_key(group)
    }

    fn get(&self, group: &Str, topic: &Str, partition: i32) -> Option<&Committed> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    fn put(&mut self, group: &Str, topic: &Str, partition: i32, committed: Committed) {
        // Looked up first, so that names that are known need no copies.
        if !self.groups.contains_key(group) {
            self.groups.insert(group.detach(), TopicOffsets::new());
        }
        let topics = self.groups.get_mut(group).expect("just inserted");
        if !topics.contains_key(topic) {
            topics.insert(topic.detach(), Partitions::new());
        }
        let partitions = topics.get_mut(topic).expect("just inserted");
        if partitions.insert(partition, committed).is_none() {
            self.count += 1;
        }
    }

    fn remove(&mut self, group: &Str, topic: &Str, partition: i32) -> bool {
        let Some(topics) = self.groups.get_mut(group) else {
            return false;
        };
        let Some(partitions) = topics.get_mut(topic) else {
            return false;
        };
        let removed = partitions.remove(&partition).is_some();
        if removed {
            self.count -= 1;
        }
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
        removed
    }

    /// Takes a record of type 0 or 1. The group of an offset that was set, `None` for a tombstone.
    pub fn replay(
        &mut self,
        kind: i16,
        key: &bytes::Bytes,
        value: Option<&bytes::Bytes>,
    ) -> Result<Option<Str>, DecodeError> {
        let (group, topic, partition) = if kind == 0 {
            let key: LegacyOffsetCommitKey = keys::read_key(key)?;
            (key.group, key.topic, key.partition)
        } else {
            let key: OffsetCommitKey = keys::read_key(key)?;
            (key.group, key.topic, key.partition)
        };
        let Some(value) = value else {
            self.remove(&group, &topic, partition);
            return Ok(None);
        };
        // A key of type 0 has values of version 0, which is the same in both schemas.
        let value: OffsetCommitValue = keys::read_value(value)?;
        self.put(&group, &topic, partition, Committed::from(value));
        Ok(Some(group))
    }

    /// The record that sets this offset.
    fn record(group: &Str, topic: &Str, partition: i32, committed: &Committed) -> Record {
        let value = OffsetCommitValue {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
            commit_timestamp: committed.commit_ms,
            expire_timestamp: committed.expire_ms,
            topic_id: committed.topic_id,
            ..OffsetCommitValue::default()
        };
        // Only version 1 has a time of expiry, and Kafka writes it for that alone.
        let version = if committed.expire_ms >= 0 { 1 } else { 4 };
        keys::record(&offset_key(group, topic, partition), &value, version)
    }

    /// Sets an offset: the state and its record.
    pub fn commit(
        &mut self,
        group: &Str,
        topic: &Str,
        partition: i32,
        committed: Committed,
        records: &mut Vec<Record>,
    ) {
        records.push(Offsets::record(group, topic, partition, &committed));
        // As a replay of the record would have it: version 1 carries neither epoch nor id.
        let committed = if committed.expire_ms >= 0 {
            Committed {
                leader_epoch: -1,
                topic_id: Uuid::ZERO,
                ..committed
            }
        } else {
            committed
        };
        self.put(group, topic, partition, committed);
    }

    /// Deletes every offset of a group. How many there were.
    pub fn delete_group(&mut self, group: &Str, records: &mut Vec<Record>) -> usize {
        let Some(topics) = self.groups.remove(group) else {
            return 0;
        };
        let before = records.len();
        for (topic, partitions) in &topics {
            for partition in partitions.keys() {
                records.push(keys::tombstone(&offset_key(group, topic, *partition)));
            }
        }
        let deleted = records.len() - before;
        self.count -= deleted;
        deleted
    }

    /// Every offset, in order.
    pub fn iter(&self) -> impl Iterator<Item = CommittedOffset<'_>> {
        self.groups.iter().flat_map(|(group, topics)| {
            topics.iter().flat_map(move |(topic, partitions)| {
                partitions
                    .iter()
                    .map(move |(partition, committed)| CommittedOffset {
                        group,
                        topic,
                        partition: *partition,
                        offset: committed.offset,
                    })
            })
        })
    }

    /// The records that make this state, in order.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.groups.iter().flat_map(|(group, topics)| {
            topics.iter().flat_map(move |(topic, partitions)| {
                partitions
                    .iter()
                    .map(move |(partition, committed)| Offsets::record(group, topic, *partition, committed))
            })
        })
    }
}

fn offset_key(group: &Str, topic: &Str, partition: i32) -> OffsetCommitKey {
    OffsetCommitKey {
        group: group.clone(),
        topic: topic.clone(),
        partition,
    }
}

impl From<OffsetCommitValue> for Committed {
    fn from(value: OffsetCommitValue) -> Committed {
        Committed {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.detach(),
            commit_ms: value.commit_timestamp,
            expire_ms: value.expire_timestamp,
            topic_id: value.topic_id,
        }
    }
}
