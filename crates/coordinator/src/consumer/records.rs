//! The changes of a consumer group and the records that say them, in the versions that Kafka 4.3.1 writes.
//!
//! | type | record | change |
//! | --- | --- | --- |
//! | 3 | ConsumerGroupMetadata | [`Change::Epoch`] |
//! | 4 | ConsumerGroupPartitionMetadata (written by Kafka before 4.1) | [`Change::PartitionMetadata`] |
//! | 5 | ConsumerGroupMemberMetadata | [`Change::Member`] |
//! | 6 | ConsumerGroupTargetAssignmentMetadata | [`Change::AssignmentEpoch`] |
//! | 7 | ConsumerGroupTargetAssignmentMember | [`Change::Target`] |
//! | 8 | ConsumerGroupCurrentMemberAssignment | [`Change::Current`] |
//! | 16 | ConsumerGroupRegularExpression | [`Change::Regex`] |
//!
//! A value of `None` is a tombstone. Collections are written sorted, so that the same state gives the same
//! bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use drumlin_wire::coordinator_records::consumer_group_current_member_assignment_key::ConsumerGroupCurrentMemberAssignmentKey as CurrentKey;
use drumlin_wire::coordinator_records::consumer_group_current_member_assignment_value::{
    ConsumerGroupCurrentMemberAssignmentValue as CurrentValue, TopicPartitions,
};
use drumlin_wire::coordinator_records::consumer_group_member_metadata_key::ConsumerGroupMemberMetadataKey as MemberKey;
use drumlin_wire::coordinator_records::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupMemberMetadataValue as MemberValue,
};
use drumlin_wire::coordinator_records::consumer_group_metadata_key::ConsumerGroupMetadataKey as EpochKey;
use drumlin_wire::coordinator_records::consumer_group_metadata_value::ConsumerGroupMetadataValue as EpochValue;
use drumlin_wire::coordinator_records::consumer_group_partition_metadata_key::ConsumerGroupPartitionMetadataKey as PartitionMetadataKey;
use drumlin_wire::coordinator_records::consumer_group_partition_metadata_value::ConsumerGroupPartitionMetadataValue as PartitionMetadataValue;
use drumlin_wire::coordinator_records::consumer_group_regular_expression_key::ConsumerGroupRegularExpressionKey as RegexKey;
use drumlin_wire::coordinator_records::consumer_group_regular_expression_value::ConsumerGroupRegularExpressionValue as RegexValue;
use drumlin_wire::coordinator_records::consumer_group_target_assignment_member_key::ConsumerGroupTargetAssignmentMemberKey as TargetKey;
use drumlin_wire::coordinator_records::consumer_group_target_assignment_member_value::{
    ConsumerGroupTargetAssignmentMemberValue as TargetValue, TopicPartition,
};
use drumlin_wire::coordinator_records::consumer_group_target_assignment_metadata_key::ConsumerGroupTargetAssignmentMetadataKey as AssignmentEpochKey;
use drumlin_wire::coordinator_records::consumer_group_target_assignment_metadata_value::ConsumerGroupTargetAssignmentMetadataValue as AssignmentEpochValue;
use drumlin_wire::{CoordinatorRecord, DecodeError, Message, Reader, Str, Uuid, Writer};

use super::assignment::{Owned, Target};
use super::member::{ClassicMember, Current, MemberState, Metadata};
use crate::Record;

/// Every value has one version so far.
const VALUE_VERSION: i16 = 0;
/// Keys carry their type in two bytes instead of a version, and are written as version 0.
const KEY_VERSION: i16 = 0;

/// The longest group id, member id or regular expression that the key of a record can hold.
pub const MAX_KEY_STRING: usize = i16::MAX as usize;

/// The longest record of what a member says of itself: below Kafka's default `message.max.bytes`, at which it
/// refuses to write one.
pub const MAX_METADATA_BYTES: usize = 1_000_000;

/// What a regular expression matched when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// The names of the topics.
    pub topics: BTreeSet<Str>,
    /// The version of the metadata.
    pub version: i64,
    /// When, by the wall clock.
    pub timestamp: i64,
}

/// The epoch of a group: raised whenever a new assignment is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupEpoch {
    /// The epoch.
    pub epoch: i32,
    /// What the subscribed topics looked like; see `metadata_hash`.
    pub metadata_hash: i64,
}

/// The epoch that the target assignment was computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignmentEpoch {
    /// The group epoch; -1 before the first assignment.
    pub epoch: i32,
    /// When, by the wall clock; 0 if unknown.
    pub timestamp: i64,
}

impl Default for AssignmentEpoch {
    fn default() -> AssignmentEpoch {
        AssignmentEpoch {
            epoch: -1,
            timestamp: 0,
        }
    }
}

/// One change of a group's lasting state. `None` takes something away.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The group epoch; its tombstone ends the group.
    Epoch(Option<GroupEpoch>),
    /// Whether a record of this kind, which older brokers wrote, is still there.
    PartitionMetadata(bool),
    /// A member.
    Member(Str, Option<Metadata>),
    /// The epoch of the target assignment.
    AssignmentEpoch(Option<AssignmentEpoch>),
    /// What a member is to own.
    Target(Str, Option<Target>),
    /// What a member owns.
    Current(Str, Option<Current>),
    /// What a regular expression matches.
    Regex(Str, Option<Resolved>),
}

impl Change {
    /// Whether a key of this type is one of a consumer group.
    pub fn is_key_type(key_type: i16) -> bool {
        matches!(
            key_type,
            EpochKey::TYPE
                | PartitionMetadataKey::TYPE
                | MemberKey::TYPE
                | AssignmentEpochKey::TYPE
                | TargetKey::TYPE
                | CurrentKey::TYPE
                | RegexKey::TYPE
        )
    }

    /// Whether it takes something away: replaying that into a group that does not exist changes nothing.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Change::Epoch(value) => value.is_none(),
            Change::PartitionMetadata(there) => !there,
            Change::Member(_, value) => value.is_none(),
            Change::AssignmentEpoch(value) => value.is_none(),
            Change::Target(_, value) => value.is_none(),
            Change::Current(_, value) => value.is_none(),
            Change::Regex(_, value) => value.is_none(),
        }
    }

    /// The record that says it.
    pub fn record(&self, group: &Str) -> Record {
        let group_id = group.clone();
        match self {
            Change::Epoch(value) => Record {
                key: key(&EpochKey { group_id }),
                value: value.as_ref().map(|v| {
                    encode(&EpochValue {
                        epoch: v.epoch,
                        metadata_hash: v.metadata_hash,
                        ..EpochValue::default()
                    })
                }),
            },
            Change::PartitionMetadata(there) => Record {
                key: key(&PartitionMetadataKey { group_id }),
                value: there.then(|| encode(&PartitionMetadataValue::default())),
            },
            Change::Member(member_id, value) => Record {
                key: key(&MemberKey {
                    group_id,
                    member_id: member_id.clone(),
                }),
                value: value.as_ref().map(|metadata| encode(&member_value(metadata))),
            },
            Change::AssignmentEpoch(value) => Record {
                key: key(&AssignmentEpochKey { group_id }),
                value: value.as_ref().map(|v| {
                    encode(&AssignmentEpochValue {
                        assignment_epoch: v.epoch,
                        assignment_timestamp: v.timestamp,
                        ..AssignmentEpochValue::default()
                    })
                }),
            },
            Change::Target(member_id, value) => Record {
                key: key(&TargetKey {
                    group_id,
                    member_id: member_id.clone(),
                }),
                value: value.as_ref().map(|v| encode(&target_value(v))),
            },
            Change::Current(member_id, value) => Record {
                key: key(&CurrentKey {
                    group_id,
                    member_id: member_id.clone(),
                }),
                value: value.as_ref().map(|v| encode(&current_value(v))),
            },
            Change::Regex(expression, value) => Record {
                key: key(&RegexKey {
                    group_id,
                    regular_expression: expression.clone(),
                }),
                value: value.as_ref().map(|v| {
                    encode(&RegexValue {
                        topics: v.topics.iter().cloned().collect(),
                        version: v.version,
                        timestamp: v.timestamp,
                        ..RegexValue::default()
                    })
                }),
            },
        }
    }

    /// The group and the change that a record says; `None` if it is no record of a consumer group, or its
    /// value has a version from the future.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<(Str, Change)>, DecodeError> {
        let Some((key_type, key)) = split(key) else {
            return Ok(None);
        };
        let value = match value.map(split) {
            None => None,
            Some(None) => return Err(DecodeError::Truncated),
            Some(Some((VALUE_VERSION, value))) => Some(value),
            Some(Some(_)) => return Ok(None),
        };
        let change = match key_type {
            EpochKey::TYPE => {
                let key: EpochKey = read(&key, KEY_VERSION)?;
                let value = read_value::<EpochValue>(value.as_ref())?.map(|v| GroupEpoch {
                    epoch: v.epoch,
                    metadata_hash: v.metadata_hash,
                });
                (key.group_id, Change::Epoch(value))
            }
            PartitionMetadataKey::TYPE => {
                let key: PartitionMetadataKey = read(&key, KEY_VERSION)?;
                (key.group_id, Change::PartitionMetadata(value.is_some()))
            }
            MemberKey::TYPE => {
                let key: MemberKey = read(&key, KEY_VERSION)?;
                let value = value
                    .as_ref()
                    .map(|body| read(body, VALUE_VERSION).map(metadata_of))
                    .transpose()?;
                (key.group_id, Change::Member(key.member_id.detach(), value))
            }
            AssignmentEpochKey::TYPE => {
                let key: AssignmentEpochKey = read(&key, KEY_VERSION)?;
                let value = read_value::<AssignmentEpochValue>(value.as_ref())?.map(|v| AssignmentEpoch {
                    epoch: v.assignment_epoch,
                    timestamp: v.assignment_timestamp,
                });
                (key.group_id, Change::AssignmentEpoch(value))
            }
            TargetKey::TYPE => {
                let key: TargetKey = read(&key, KEY_VERSION)?;
                let value = read_value(value.as_ref())?.map(target_of);
                (key.group_id, Change::Target(key.member_id.detach(), value))
            }
            CurrentKey::TYPE => {
                let key: CurrentKey = read(&key, KEY_VERSION)?;
                let value = read_value(value.as_ref())?.map(current_of);
                (key.group_id, Change::Current(key.member_id.detach(), value))
            }
            RegexKey::TYPE => {
                let key: RegexKey = read(&key, KEY_VERSION)?;
                let value = read_value::<RegexValue>(value.as_ref())?.map(|v| Resolved {
                    topics: v.topics.iter().map(Str::detach).collect(),
                    version: v.version,
                    timestamp: v.timestamp,
                });
                (
                    key.group_id,
                    Change::Regex(key.regular_expression.detach(), value),
                )
            }
            _ => return Ok(None),
        };
        Ok(Some((change.0.detach(), change.1)))
    }
}

fn split(bytes: &[u8]) -> Option<(i16, Bytes)> {
    let mut rest = bytes;
    let head = rest.try_get_i16().ok()?;
    Some((head, Bytes::copy_from_slice(rest)))
}

/// Decodes without asking for the end: Kafka's reader leaves bytes that a version does not know.
fn read<M: Message>(body: &Bytes, version: i16) -> Result<M, DecodeError> {
    M::read(&mut Reader::new(body, M::DECODE_CAP), version)
}

fn read_value<M: Message>(body: Option<&Bytes>) -> Result<Option<M>, DecodeError> {
    body.map(|body| read(body, VALUE_VERSION)).transpose()
}

fn key<K: CoordinatorRecord>(key: &K) -> Bytes {
    framed(K::TYPE, key, KEY_VERSION)
}

fn encode<V: CoordinatorRecord>(value: &V) -> Bytes {
    framed(VALUE_VERSION, value, VALUE_VERSION)
}

fn framed<M: Message>(head: i16, message: &M, version: i16) -> Bytes {
    let mut writer = Writer::contiguous();
    writer.i16(head);
    message
        .encode(version, &mut writer)
        .expect("ids are at most MAX_KEY_STRING long: that is checked where they come in");
    writer.into_bytes()
}

fn member_value(metadata: &Metadata) -> MemberValue {
    let protocol = |(name, metadata): &(Str, Bytes)| ClassicProtocol {
        name: name.clone(),
        metadata: metadata.clone(),
        ..ClassicProtocol::default()
    };
    MemberValue {
        instance_id: metadata.instance_id.clone(),
        rack_id: metadata.rack_id.clone(),
        client_id: metadata.client_id.clone(),
        client_host: metadata.client_host.clone(),
        subscribed_topic_names: metadata.topics.iter().cloned().collect(),
        subscribed_topic_regex: Some(metadata.regex.clone()),
        rebalance_timeout_ms: metadata.rebalance_timeout_ms,
        server_assignor: metadata.assignor.clone(),
        // Null and not the field's default, which is an empty structure.
        classic_member_metadata: metadata.classic.as_ref().map(|classic| ClassicMemberMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            supported_protocols: classic.protocols.iter().map(protocol).collect(),
            ..ClassicMemberMetadata::default()
        }),
        ..MemberValue::default()
    }
}

fn metadata_of(value: MemberValue) -> Metadata {
    let detach = |text: Option<Str>| text.map(|text| text.detach());
    let protocol = |p: &ClassicProtocol| (p.name.detach(), Bytes::copy_from_slice(&p.metadata));
    Metadata {
        instance_id: detach(value.instance_id),
        rack_id: detach(value.rack_id),
        client_id: value.client_id.detach(),
        client_host: value.client_host.detach(),
        topics: value.subscribed_topic_names.iter().map(Str::detach).collect(),
        regex: detach(value.subscribed_topic_regex).unwrap_or_default(),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        assignor: detach(value.server_assignor),
        classic: value.classic_member_metadata.map(|classic| ClassicMember {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic.supported_protocols.iter().map(protocol).collect(),
        }),
    }
}

fn target_value(target: &Target) -> TargetValue {
    let topic = |(topic, partitions): (&Uuid, &Vec<i32>)| TopicPartition {
        topic_id: *topic,
        partitions: partitions.clone(),
        ..TopicPartition::default()
    };
    TargetValue {
        topic_partitions: target.iter().map(topic).collect(),
        ..TargetValue::default()
    }
}

fn target_of(value: TargetValue) -> Target {
    let mut target = Target::new();
    for topic in value.topic_partitions {
        target.entry(topic.topic_id).or_default().extend(topic.partitions);
    }
    target.retain(|_, partitions| {
        partitions.sort_unstable();
        partitions.dedup();
        !partitions.is_empty()
    });
    target
}

fn current_value(current: &Current) -> CurrentValue {
    CurrentValue {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: current.state.code(),
        assigned_partitions: owned_value(&current.assigned),
        partitions_pending_revocation: owned_value(&current.revoking),
        ..CurrentValue::default()
    }
}

fn current_of(value: CurrentValue) -> Current {
    Current {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: MemberState::from_code(value.state),
        assigned: owned_of(value.assigned_partitions, value.member_epoch),
        revoking: owned_of(value.partitions_pending_revocation, value.member_epoch),
    }
}

fn owned_value(owned: &Owned) -> Vec<TopicPartitions> {
    let topic = |(topic, partitions): (&Uuid, &BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: *topic,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
        ..TopicPartitions::default()
    };
    owned.iter().map(topic).collect()
}

/// Records from before assignment epochs were kept (KIP-1251) stand for the member's own epoch.
fn owned_of(topics: Vec<TopicPartitions>, member_epoch: i32) -> Owned {
    let mut owned = Owned::new();
    for topic in topics {
        let epochs = topic.assignment_epochs.unwrap_or_default();
        let known = epochs.len() == topic.partitions.len();
        let partitions = owned.entry(topic.topic_id).or_default();
        for (index, partition) in topic.partitions.iter().enumerate() {
            let epoch = if known { epochs[index] } else { member_epoch.max(0) };
            partitions.insert(*partition, epoch);
        }
    }
    owned.retain(|_, partitions| !partitions.is_empty());
    owned
}
