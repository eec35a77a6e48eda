//! The protocol that consumers speak inside the classic group protocol: subscriptions and assignments as
//! opaque bytes in JoinGroup and SyncGroup, each with its version in two bytes before it.
//!
//! As in Kafka's ConsumerProtocol a version above the newest known is read as the newest known, and bytes
//! that follow are left.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use drumlin_wire::messages::consumer_group_heartbeat_request;
use drumlin_wire::messages::consumer_protocol_assignment::{ConsumerProtocolAssignment, TopicPartition};
use drumlin_wire::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use drumlin_wire::{Message, Reader, Str, Writer};

use super::assignment::Target;
use super::{ErrorCode, GroupError};
use crate::Topics;

/// The protocol type of consumers.
pub const PROTOCOL_TYPE: &str = "consumer";

/// What a classic consumer is subscribed to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subscription {
    /// The version that the consumer wrote.
    pub version: i16,
    /// The topics' names.
    pub topics: Vec<Str>,
    /// What it owns, for topics that exist.
    pub owned: Vec<consumer_group_heartbeat_request::TopicPartitions>,
    /// Its rack.
    pub rack: Option<Str>,
}

fn read<M: Message>(bytes: &Bytes) -> Option<(i16, M)> {
    let mut rest = bytes.clone();
    let version = rest.try_get_i16().ok()?;
    let known = version.clamp(M::MIN_VERSION, M::MAX_VERSION);
    if version < 0 {
        return None;
    }
    let message = M::read(&mut Reader::new(&rest, M::DECODE_CAP), known).ok()?;
    Some((version, message))
}

/// Reads a subscription; `None` if the bytes are none.
pub fn read_subscription(bytes: &Bytes, topics: &dyn Topics) -> Option<Subscription> {
    let (version, message) = read::<ConsumerProtocolSubscription>(bytes)?;
    let owned = message.owned_partitions.into_iter().filter_map(|topic| {
        Some(consumer_group_heartbeat_request::TopicPartitions {
            topic_id: topics.by_name(&topic.topic)?.id,
            partitions: topic.partitions,
            ..Default::default()
        })
    });
    Some(Subscription {
        version,
        owned: owned.collect(),
        topics: message.topics,
        rack: message.rack_id.filter(|rack| !rack.is_empty()),
    })
}

/// Reads an assignment, with the topics that exist; no bytes are no partitions. `None` if the bytes are no
/// assignment. The second says whether an assignor has put data of its own into it.
pub fn read_assignment(bytes: &Bytes, topics: &dyn Topics) -> Option<(Target, bool)> {
    if bytes.is_empty() {
        return Some((Target::new(), false));
    }
    let (_, message) = read::<ConsumerProtocolAssignment>(bytes)?;
    let mut target = Target::new();
    for topic in message.assigned_partitions {
        if let Some(view) = topics.by_name(&topic.topic) {
            target.entry(view.id).or_default().extend(topic.partitions);
        }
    }
    target.retain(|_, partitions| {
        partitions.sort_unstable();
        partitions.dedup();
        !partitions.is_empty()
    });
    let custom = message.user_data.is_some_and(|data| !data.is_empty());
    Some((target, custom))
}

/// Writes an assignment in the version that the member's subscription has. Topics that no longer exist are
/// left out.
pub fn write_assignment(target: &Target, version: i16, topics: &dyn Topics) -> Bytes {
    let named: BTreeMap<Str, &Vec<i32>> = target
        .iter()
        .filter_map(|(id, partitions)| Some((topics.by_id(*id)?.name, partitions)))
        .collect();
    let assigned = named.into_iter().map(|(topic, partitions)| TopicPartition {
        topic,
        partitions: partitions.clone(),
    });
    let message = ConsumerProtocolAssignment {
        assigned_partitions: assigned.collect(),
        user_data: None,
    };
    let version = version.clamp(
        ConsumerProtocolAssignment::MIN_VERSION,
        ConsumerProtocolAssignment::MAX_VERSION,
    );
    let mut writer = Writer::contiguous();
    writer.i16(version);
    message
        .encode(version, &mut writer)
        .expect("names of topics that exist are short");
    writer.into_bytes()
}

/// Kafka throws an IllegalStateException here, which becomes this.
pub(super) fn malformed(what: &str) -> GroupError {
    GroupError::new(
        ErrorCode::UnknownServerError,
        format!("Malformed embedded consumer protocol in {what} deserialization."),
    )
}
