//! Sound requests of the APIs of groups.

use bytes::Bytes;
use drumlin_wire::messages as m;
use drumlin_wire::{ApiKey, Str, Uuid};
use rand::RngExt;
use rand::rngs::StdRng;

use super::templates::{TOPIC, bytes};

/// Few groups and few members, so that broken requests meet state that sound ones have made.
fn group(rng: &mut StdRng) -> Str {
    Str::from(format!("hostile-{}", rng.random_range(0..8)))
}

fn member(rng: &mut StdRng) -> Str {
    match rng.random_range(0..4) {
        0 => Str::default(),
        n => Str::from(format!("member-{n}")),
    }
}

/// A request's body; none for an API that is not about groups.
pub fn of(rng: &mut StdRng, key: ApiKey, v: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::FindCoordinator => find(rng, v),
        ApiKey::JoinGroup => join(rng, v),
        ApiKey::SyncGroup => sync(rng, v),
        ApiKey::Heartbeat => bytes(
            m::heartbeat_request::HeartbeatRequest {
                group_id: group(rng),
                generation_id: rng.random_range(-1..3),
                member_id: member(rng),
                ..Default::default()
            },
            v,
        ),
        ApiKey::LeaveGroup => leave(rng, v),
        ApiKey::OffsetCommit => commit(rng, v),
        ApiKey::OffsetFetch => fetch(rng, v),
        ApiKey::OffsetDelete => delete_offsets(rng, v),
        ApiKey::ListGroups => list(rng, v),
        ApiKey::DescribeGroups => bytes(
            m::describe_groups_request::DescribeGroupsRequest {
                groups: vec![group(rng), group(rng)],
                ..Default::default()
            },
            v,
        ),
        ApiKey::DeleteGroups => bytes(
            m::delete_groups_request::DeleteGroupsRequest {
                groups_names: vec![group(rng)],
                ..Default::default()
            },
            v,
        ),
        ApiKey::ConsumerGroupHeartbeat => consumer_heartbeat(rng, v),
        ApiKey::ConsumerGroupDescribe => bytes(
            m::consumer_group_describe_request::ConsumerGroupDescribeRequest {
                group_ids: vec![group(rng), group(rng)],
                ..Default::default()
            },
            v,
        ),
        _ => return None,
    })
}

fn find(rng: &mut StdRng, v: i16) -> Bytes {
    use m::find_coordinator_request::FindCoordinatorRequest;
    let key_type = if v >= 1 { rng.random_range(0..3) } else { 0 };
    let mut request = FindCoordinatorRequest {
        key_type,
        ..Default::default()
    };
    match v {
        4.. => request.coordinator_keys = vec![group(rng), group(rng)],
        _ => request.key = group(rng),
    }
    bytes(request, v)
}

fn join(rng: &mut StdRng, v: i16) -> Bytes {
    use m::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
    let protocol = JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Bytes::from_static(b"\0\x01\0\0\0\x01\0\x07hostile\xff\xff\xff\xff\0\0\0\0"),
        ..Default::default()
    };
    let request = JoinGroupRequest {
        group_id: group(rng),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: if v >= 1 { 6_000 } else { -1 },
        member_id: member(rng),
        group_instance_id: (v >= 5 && rng.random_bool(0.3)).then(|| "instance".into()),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    };
    bytes(request, v)
}

fn sync(rng: &mut StdRng, v: i16) -> Bytes {
    use m::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
    let assignment = SyncGroupRequestAssignment {
        member_id: member(rng),
        assignment: Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\0"),
        ..Default::default()
    };
    let request = SyncGroupRequest {
        group_id: group(rng),
        generation_id: rng.random_range(0..3),
        member_id: member(rng),
        protocol_type: (v >= 5).then(|| "consumer".into()),
        protocol_name: (v >= 5).then(|| "range".into()),
        assignments: vec![assignment],
        ..Default::default()
    };
    bytes(request, v)
}

fn leave(rng: &mut StdRng, v: i16) -> Bytes {
    use m::leave_group_request::{LeaveGroupRequest, MemberIdentity};
    let mut request = LeaveGroupRequest {
        group_id: group(rng),
        ..Default::default()
    };
    match v {
        3.. => {
            request.members = vec![MemberIdentity {
                member_id: member(rng),
                group_instance_id: None,
                ..Default::default()
            }];
        }
        _ => request.member_id = member(rng),
    }
    bytes(request, v)
}

fn commit(rng: &mut StdRng, v: i16) -> Bytes {
    use m::offset_commit_request::*;
    let partition = OffsetCommitRequestPartition {
        partition_index: rng.random_range(0..3),
        committed_offset: rng.random_range(-1..100),
        committed_leader_epoch: -1,
        committed_metadata: rng.random_bool(0.5).then(|| "metadata".into()),
        ..Default::default()
    };
    let mut topic = OffsetCommitRequestTopic {
        partitions: vec![partition],
        ..Default::default()
    };
    match v {
        10.. => topic.topic_id = Uuid(rng.random()),
        _ => topic.name = TOPIC.into(),
    }
    let simple = rng.random_bool(0.7);
    let request = OffsetCommitRequest {
        group_id: group(rng),
        generation_id_or_member_epoch: if simple { -1 } else { rng.random_range(0..3) },
        member_id: if simple { Str::default() } else { member(rng) },
        topics: vec![topic],
        ..Default::default()
    };
    bytes(request, v)
}

fn fetch(rng: &mut StdRng, v: i16) -> Bytes {
    use m::offset_fetch_request::*;
    let all = v >= 2 && rng.random_bool(0.3);
    let mut request = OffsetFetchRequest {
        require_stable: v >= 7,
        ..Default::default()
    };
    match v {
        8.. => {
            let mut topic = OffsetFetchRequestTopics {
                partition_indexes: vec![0, 1, 2],
                ..Default::default()
            };
            match v {
                10.. => topic.topic_id = Uuid(rng.random()),
                _ => topic.name = TOPIC.into(),
            }
            request.groups = vec![OffsetFetchRequestGroup {
                group_id: group(rng),
                topics: (!all).then(|| vec![topic]),
                ..Default::default()
            }];
        }
        _ => {
            request.group_id = group(rng);
            request.topics = (!all).then(|| {
                vec![OffsetFetchRequestTopic {
                    name: TOPIC.into(),
                    partition_indexes: vec![0, 1, 2],
                    ..Default::default()
                }]
            });
        }
    }
    bytes(request, v)
}

fn delete_offsets(rng: &mut StdRng, v: i16) -> Bytes {
    use m::offset_delete_request::*;
    let topic = OffsetDeleteRequestTopic {
        name: TOPIC.into(),
        partitions: vec![OffsetDeleteRequestPartition {
            partition_index: rng.random_range(0..3),
        }],
    };
    let request = OffsetDeleteRequest {
        group_id: group(rng),
        topics: vec![topic],
    };
    bytes(request, v)
}

fn list(rng: &mut StdRng, v: i16) -> Bytes {
    let request = m::list_groups_request::ListGroupsRequest {
        states_filter: if v >= 4 && rng.random_bool(0.5) {
            vec!["Stable".into(), "Empty".into()]
        } else {
            Vec::new()
        },
        types_filter: if v >= 5 {
            vec!["classic".into()]
        } else {
            Vec::new()
        },
        ..Default::default()
    };
    bytes(request, v)
}

fn consumer_heartbeat(rng: &mut StdRng, v: i16) -> Bytes {
    use m::consumer_group_heartbeat_request::{ConsumerGroupHeartbeatRequest, TopicPartitions};
    let epoch = rng.random_range(-2..3);
    let owned = TopicPartitions {
        topic_id: Uuid(rng.random()),
        partitions: vec![0, 1],
        ..Default::default()
    };
    let request = ConsumerGroupHeartbeatRequest {
        group_id: group(rng),
        member_id: member(rng),
        member_epoch: epoch,
        instance_id: rng.random_bool(0.2).then(|| "instance".into()),
        rebalance_timeout_ms: if epoch == 0 { 6_000 } else { -1 },
        subscribed_topic_names: Some(vec![TOPIC.into()]),
        subscribed_topic_regex: (v >= 1 && rng.random_bool(0.3)).then(|| "(host|il)+e?".into()),
        server_assignor: rng.random_bool(0.3).then(|| "range".into()),
        topic_partitions: Some(if epoch == 0 { Vec::new() } else { vec![owned] }),
        ..Default::default()
    };
    bytes(request, v)
}
