//! Sets of partitions: what a member is to own, and what it owns and since which epoch.

use std::collections::BTreeMap;

use drumlin_wire::Uuid;
use drumlin_wire::messages::{consumer_group_heartbeat_request, consumer_group_heartbeat_response};

/// What a member is to own: for each topic its partitions, ascending and at least one.
pub type Target = BTreeMap<Uuid, Vec<i32>>;

/// What a member owns: for each topic, each partition (at least one) and the assignment epoch at which the
/// member got it. A commit at an older member epoch than that is stale (KIP-1251).
pub type Owned = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// The partitions of a member as it says them in a heartbeat.
pub type Reported = [consumer_group_heartbeat_request::TopicPartitions];

/// The epoch at which a partition was assigned, if it is in the set.
pub(super) fn epoch_of(owned: &Owned, topic: Uuid, partition: i32) -> Option<i32> {
    owned.get(&topic)?.get(&partition).copied()
}

/// Whether a member says that it owns any partition of the set.
pub(super) fn reports_any(reported: &Reported, set: &Owned) -> bool {
    reported.iter().any(|topic| {
        set.get(&topic.topic_id)
            .is_some_and(|partitions| topic.partitions.iter().any(|p| partitions.contains_key(p)))
    })
}

/// Whether all partitions that a member says it owns are in the set.
pub(super) fn reports_only(reported: &Reported, set: &Owned) -> bool {
    reported.iter().all(|topic| {
        set.get(&topic.topic_id)
            .is_some_and(|partitions| topic.partitions.iter().all(|p| partitions.contains_key(p)))
    })
}

/// The set as a heartbeat's answer carries it.
pub(super) fn to_response(owned: &Owned) -> consumer_group_heartbeat_response::Assignment {
    use consumer_group_heartbeat_response::{Assignment, TopicPartitions};
    let topics = owned.iter().map(|(topic, partitions)| TopicPartitions {
        topic_id: *topic,
        partitions: partitions.keys().copied().collect(),
        ..TopicPartitions::default()
    });
    Assignment {
        topic_partitions: topics.collect(),
        ..Assignment::default()
    }
}

/// The set with one epoch for every partition.
pub(super) fn at_epoch(target: &Target, epoch: i32) -> Owned {
    let topic = |(topic, partitions): (&Uuid, &Vec<i32>)| {
        (
            *topic,
            partitions.iter().map(|partition| (*partition, epoch)).collect(),
        )
    };
    target.iter().map(topic).collect()
}
