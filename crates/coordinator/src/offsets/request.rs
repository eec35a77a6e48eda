//! OffsetCommit, OffsetFetch and OffsetDelete: what concerns topics and offsets in them.
//!
//! What Kafka's `KafkaApis` checks against the metadata is checked here, before the group is asked.

use drumlin_wire::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition};
use drumlin_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use drumlin_wire::messages::offset_delete_request::OffsetDeleteRequest;
use drumlin_wire::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use drumlin_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use drumlin_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use drumlin_wire::{Str, Uuid};

use super::{Committed, Offsets, offset_key};
use crate::{ErrorCode, GroupConfig, Record, Topics, keys};

/// From this version on OffsetCommit and OffsetFetch name topics by id (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

/// An OffsetCommit whose topics were looked up: the answer so far, and the partitions that may be committed
/// if the group agrees.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    response: OffsetCommitResponse,
    accepted: Vec<Accepted<'a>>,
}

#[derive(Debug)]
struct Accepted<'a> {
    /// Where it is in the response.
    at: (usize, usize),
    name: Str,
    id: Uuid,
    partition: &'a OffsetCommitRequestPartition,
}

impl<'a> Admitted<'a> {
    /// Looks the topics of a request up.
    pub fn new(request: &'a OffsetCommitRequest, version: i16, topics: &dyn Topics) -> Admitted<'a> {
        let by_id = version >= TOPIC_IDS_FROM;
        let mut admitted = Admitted {
            response: OffsetCommitResponse::default(),
            accepted: Vec::new(),
        };
        for (t, topic) in request.topics.iter().enumerate() {
            let view = if by_id {
                topics.by_id(topic.topic_id)
            } else {
                topics.by_name(&topic.name)
            };
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for (p, partition) in topic.partitions.iter().enumerate() {
                let error = match &view {
                    None if by_id => ErrorCode::UnknownTopicId,
                    None => ErrorCode::UnknownTopicOrPartition,
                    Some(view) if !(0..view.partitions).contains(&partition.partition_index) => {
                        ErrorCode::UnknownTopicOrPartition
                    }
                    Some(view) => {
                        admitted.accepted.push(Accepted {
                            at: (t, p),
                            name: view.name.clone(),
                            id: view.id,
                            partition,
                        });
                        ErrorCode::None
                    }
                };
                answers.push(OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: error.code(),
                    ..OffsetCommitResponsePartition::default()
                });
            }
            admitted.response.topics.push(OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: answers,
                ..OffsetCommitResponseTopic::default()
            });
        }
        admitted
    }

    /// Whether there is nothing to commit: then the group is not asked at all.
    pub fn is_empty(&self) -> bool {
        self.accepted.is_empty()
    }

    /// The partitions that could be committed: the topic's id, and the index.
    pub fn partitions(&self) -> impl Iterator<Item = (Uuid, i32)> {
        self.accepted.iter().map(|a| (a.id, a.partition.partition_index))
    }

    /// The answer as it is.
    pub fn answer(self) -> OffsetCommitResponse {
        self.response
    }

    /// The answer where the group refused.
    pub fn refuse(mut self, error: ErrorCode) -> OffsetCommitResponse {
        for accepted in std::mem::take(&mut self.accepted) {
            self.set(accepted.at, error);
        }
        self.response
    }

    fn set(&mut self, (topic, partition): (usize, usize), error: ErrorCode) {
        self.response.topics[topic].partitions[partition].error_code = error.code();
    }

    /// Refuses what is too large to store, so that [`Admitted::is_empty`] tells whether anything is left.
    pub fn limit_metadata(&mut self, config: &GroupConfig) {
        // Kafka counts UTF-16 units; a record's string is bounded in bytes.
        let limit = usize::try_from(config.offset_metadata_max_bytes).unwrap_or(0);
        let fits = |text: &Str| text.len() <= keys::MAX_STRING && text.encode_utf16().count() <= limit;
        for accepted in std::mem::take(&mut self.accepted) {
            match &accepted.partition.committed_metadata {
                Some(text) if !fits(text) => self.set(accepted.at, ErrorCode::OffsetMetadataTooLarge),
                _ => self.accepted.push(accepted),
            }
        }
    }

    /// Commits them all; those that change nothing without a record. How many there were.
    pub fn commit(
        &self,
        request: &OffsetCommitRequest,
        wall_ms: i64,
        retention_ms: i64,
        offsets: &mut Offsets,
        records: &mut Vec<Record>,
    ) -> usize {
        // Versions 2 to 4 may say how long to keep it.
        let expire_ms = match request.retention_time_ms {
            -1 => -1,
            retention => wall_ms.saturating_add(retention).max(0),
        };
        for accepted in &self.accepted {
            let partition = accepted.partition;
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition
                    .committed_metadata
                    .as_ref()
                    .map(Str::detach)
                    .unwrap_or_default(),
                // Version 1 may bring a time of its own; -1 is the time of receipt. Offsets expire by it.
                commit_ms: match partition.commit_timestamp {
                    -1 => wall_ms,
                    at => at,
                },
                expire_ms,
                topic_id: accepted.id,
            };
            let index = partition.partition_index;
            let stored = offsets.get(&request.group_id, &accepted.name, index);
            if stored.is_some_and(|stored| stored.is_current(&committed, retention_ms)) {
                continue;
            }
            offsets.commit(
                &request.group_id,
                &accepted.name,
                partition.partition_index,
                committed,
                records,
            );
        }
        self.accepted.len()
    }
}

/// No committed offset.
fn none(partition: i32, error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(Str::EMPTY),
        error_code: error.code(),
        ..OffsetFetchResponsePartitions::default()
    }
}

fn some(partition: i32, committed: &Committed) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: committed.offset,
        committed_leader_epoch: committed.leader_epoch,
        metadata: Some(committed.metadata.clone()),
        ..OffsetFetchResponsePartitions::default()
    }
}

impl Offsets {
    /// Answers an OffsetFetch for a group that is `known`; one that is not has no offsets.
    pub fn fetch(
        &self,
        request: &OffsetFetchRequestGroup,
        version: i16,
        known: bool,
        topics: &dyn Topics,
    ) -> OffsetFetchResponseGroup {
        let by_id = version >= TOPIC_IDS_FROM;
        let answers = match &request.topics {
            Some(asked) => asked
                .iter()
                .map(|topic| self.fetch_topic(&request.group_id, topic, by_id, known, topics))
                .collect(),
            None if known => self.fetch_all(&request.group_id, by_id, topics),
            None => Vec::new(),
        };
        OffsetFetchResponseGroup {
            group_id: request.group_id.clone(),
            topics: answers,
            ..OffsetFetchResponseGroup::default()
        }
    }

    fn fetch_topic(
        &self,
        group: &Str,
        asked: &OffsetFetchRequestTopics,
        by_id: bool,
        known: bool,
        topics: &dyn Topics,
    ) -> OffsetFetchResponseTopics {
        let name = if by_id {
            topics.by_id(asked.topic_id).map(|view| view.name)
        } else {
            Some(asked.name.clone())
        };
        let answer = |partition: &i32| {
            let Some(name) = &name else {
                return none(*partition, ErrorCode::UnknownTopicId);
            };
            let committed = self.get(group, name, *partition).filter(|_| known);
            match committed {
                // An offset of a topic of the same name that is gone is none of this one's.
                Some(c) if by_id && !c.topic_id.is_zero() && c.topic_id != asked.topic_id => {
                    none(*partition, ErrorCode::None)
                }
                Some(c) => some(*partition, c),
                None => none(*partition, ErrorCode::None),
            }
        };
        OffsetFetchResponseTopics {
            name: asked.name.clone(),
            topic_id: asked.topic_id,
            partitions: asked.partition_indexes.iter().map(answer).collect(),
            ..OffsetFetchResponseTopics::default()
        }
    }

    fn fetch_all(&self, group: &Str, by_id: bool, topics: &dyn Topics) -> Vec<OffsetFetchResponseTopics> {
        let stored = self.groups.get(group).into_iter().flatten();
        stored
            .filter_map(|(name, partitions)| {
                // By id, what has none any more cannot be named.
                let topic_id = match by_id {
                    true => topics.by_name(name)?.id,
                    false => Uuid::ZERO,
                };
                // Nor may what is left of a topic of the same name pass for this one's.
                let own = |c: &Committed| !by_id || c.topic_id.is_zero() || c.topic_id == topic_id;
                let partitions = partitions.iter().filter(|(_, c)| own(c));
                let partitions: Vec<_> = partitions.map(|(p, c)| some(*p, c)).collect();
                (!partitions.is_empty()).then(|| OffsetFetchResponseTopics {
                    name: name.clone(),
                    topic_id,
                    partitions,
                    ..OffsetFetchResponseTopics::default()
                })
            })
            .collect()
    }

    /// Deletes one offset, if it is there. Whether it was.
    pub fn delete(&mut self, group: &Str, topic: &Str, partition: i32, records: &mut Vec<Record>) -> bool {
        let removed = self.remove(group, topic, partition);
        if removed {
            records.push(keys::tombstone(&offset_key(group, topic, partition)));
        }
        removed
    }
}

/// Answers an OffsetDelete partition by partition; `delete` is asked for those that exist.
pub(crate) fn deletable(
    request: &OffsetDeleteRequest,
    topics: &dyn Topics,
    mut delete: impl FnMut(&Str, i32) -> ErrorCode,
) -> OffsetDeleteResponse {
    let answer_topic = |topic: &drumlin_wire::messages::offset_delete_request::OffsetDeleteRequestTopic| {
        let view = topics.by_name(&topic.name);
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let error = match &view {
                Some(view) if (0..view.partitions).contains(&index) => delete(&topic.name, index),
                _ => ErrorCode::UnknownTopicOrPartition,
            };
            OffsetDeleteResponsePartition {
                partition_index: index,
                error_code: error.code(),
            }
        });
        OffsetDeleteResponseTopic {
            name: topic.name.clone(),
            partitions: partitions.collect(),
        }
    };
    OffsetDeleteResponse {
        topics: request.topics.iter().map(answer_topic).collect(),
        ..OffsetDeleteResponse::default()
    }
}
