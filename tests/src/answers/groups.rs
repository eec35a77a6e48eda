//! Groups, classic and of KIP-848, and their offsets.

use bytes::Bytes;
use drumlin_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use drumlin_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use drumlin_wire::messages::delete_groups_request::DeleteGroupsRequest;
use drumlin_wire::messages::describe_groups_request::DescribeGroupsRequest;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use drumlin_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use drumlin_wire::messages::list_groups_request::ListGroupsRequest;
use drumlin_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use drumlin_wire::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use drumlin_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use drumlin_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::{NO_SUCH_ID, Pair, Side};

const NOBODY: &str = "nobody-0123";

pub(super) fn ask_all(pair: &mut Pair) -> anyhow::Result<()> {
    pair.create_topic("grouped", 2, &[])?;
    join_refused(pair)?;
    classic(pair)?;
    commit_offsets(pair)?;
    fetch_offsets(pair)?;
    delete_offsets(pair)?;
    consumer(pair)?;
    describe(pair)
}

fn join(group: &str, version: i16) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: if version >= 1 { 30_000 } else { -1 },
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            // A subscription to nothing, in version 0.
            metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn join_refused(pair: &mut Pair) -> anyhow::Result<()> {
    type Change = fn(&mut JoinGroupRequest);
    let cases: [(&str, Change); 5] = [
        ("an empty group", |r| r.group_id = "".into()),
        ("an unknown member", |r| r.member_id = NOBODY.into()),
        ("a session too short", |r| r.session_timeout_ms = 1),
        ("a session too long", |r| r.session_timeout_ms = i32::MAX),
        ("no protocols", |r| r.protocols.clear()),
    ];
    for (n, (what, change)) in cases.into_iter().enumerate() {
        let request = |_: &Side, version: i16| {
            let mut request = join(&format!("refused-{n}-{version}"), version);
            change(&mut request);
            request
        };
        pair.ask(what, request)?;
    }
    // From version 4 on a new member is told its id first.
    for version in 4..=9 {
        let request = |_: &Side, version: i16| join(&format!("told-{version}"), version);
        pair.ask_in(version, "a new member", &request, &|_| {})?;
    }
    Ok(())
}

/// Groups with one member each, one for each version of JoinGroup.
fn classic(pair: &mut Pair) -> anyhow::Result<()> {
    for version in 0..=9 {
        let group = format!("classic-{version}");
        let request = |side: &Side, version: i16| JoinGroupRequest {
            member_id: side.named(&group).into(),
            group_instance_id: (version >= 5).then(|| "instance".into()),
            ..join(&group, version)
        };
        let Some((ours, kafkas)) = pair.ask_in(version, "the first member", &request, &|_| {})? else {
            continue;
        };
        // Version 4 has no static members, so that it is told its id first.
        let again = ours.error_code == 79;
        pair.drumlin
            .names
            .insert(group.clone(), String::from(&ours.member_id));
        pair.kafka
            .names
            .insert(group.clone(), String::from(&kafkas.member_id));
        if again {
            pair.ask_in(version, "the first member, with its id", &request, &|_| {})?;
        }
    }
    for version in 0..=5 {
        let sync = |group: String, member: Option<&'static str>, generation: i32| {
            move |side: &Side, version: i16| SyncGroupRequest {
                group_id: group.as_str().into(),
                generation_id: generation,
                member_id: member.unwrap_or_else(|| side.named(&group)).into(),
                protocol_type: (version >= 5).then(|| "consumer".into()),
                protocol_name: (version >= 5).then(|| "range".into()),
                assignments: vec![SyncGroupRequestAssignment {
                    member_id: side.named(&group).into(),
                    assignment: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                    ..Default::default()
                }],
                ..Default::default()
            }
        };
        let group = || format!("classic-{version}");
        pair.ask_in(
            version,
            "an unknown member",
            &sync(group(), Some(NOBODY), 1),
            &|_| {},
        )?;
        pair.ask_in(version, "another generation", &sync(group(), None, 7), &|_| {})?;
        pair.ask_in(version, "the leader", &sync(group(), None, 1), &|_| {})?;
        pair.ask_in(
            version,
            "an unknown group",
            &sync("no-group".to_owned(), Some(NOBODY), 1),
            &|_| {},
        )?;
        pair.ask_in(
            version,
            "an empty group",
            &sync(String::new(), Some(NOBODY), 1),
            &|_| {},
        )?;
    }
    for (what, group, member, generation) in [
        ("a member", "classic-3", None, 1),
        ("an unknown member", "classic-3", Some(NOBODY), 1),
        ("another generation", "classic-3", None, 7),
        ("an unknown group", "no-group", Some(NOBODY), 1),
        ("an empty group", "", Some(NOBODY), 1),
    ] {
        let request = |side: &Side, _: i16| HeartbeatRequest {
            group_id: group.into(),
            generation_id: generation,
            member_id: member.unwrap_or_else(|| side.named(group)).into(),
            ..Default::default()
        };
        pair.ask(what, request)?;
    }
    for (what, group) in [
        ("an unknown member", "classic-3"),
        ("an unknown group", "no-group"),
        ("an empty group", ""),
    ] {
        pair.ask(what, |_, version| leave(group, NOBODY, version))?;
    }
    // A group that is left has no members any more; that of version 5 keeps its own.
    for version in 0..=4 {
        let group = format!("classic-{version}");
        let request = |side: &Side, version: i16| leave(&group, side.named(&group), version);
        pair.ask_in(version, "the only member", &request, &|_| {})?;
    }
    Ok(())
}

fn leave(group: &str, member: &str, version: i16) -> LeaveGroupRequest {
    let identity = MemberIdentity {
        member_id: member.into(),
        ..Default::default()
    };
    LeaveGroupRequest {
        group_id: group.into(),
        member_id: if version < 3 { member.into() } else { "".into() },
        members: if version < 3 { Vec::new() } else { vec![identity] },
        ..Default::default()
    }
}

fn commit_offsets(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, group, member, generation, topic, metadata) in [
        (
            "from outside of a group",
            "committed",
            "",
            -1,
            "grouped",
            Some("note"),
        ),
        ("without metadata", "committed", "", -1, "grouped", None),
        ("an unknown topic", "committed", "", -1, "nowhere", None),
        ("an unknown member", "classic-6", NOBODY, 1, "grouped", None),
        ("an unknown group", "no-group", NOBODY, 1, "grouped", None),
        ("an empty group", "", "", -1, "grouped", None),
    ] {
        let request = |side: &Side, version: i16| OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: generation,
            member_id: member.into(),
            topics: vec![OffsetCommitRequestTopic {
                name: if version < 10 { topic.into() } else { "".into() },
                topic_id: match (version, topic) {
                    (10.., "nowhere") => NO_SUCH_ID,
                    (10.., topic) => side.topic_id(topic),
                    _ => Default::default(),
                },
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: 5,
                    committed_metadata: metadata.map(Into::into),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        pair.ask(what, request)?;
    }
    Ok(())
}

fn fetch_offsets(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, group, topic) in [
        ("what is committed, and what is not", "committed", Some("grouped")),
        ("all", "committed", None),
        ("an unknown topic", "committed", Some("nowhere")),
        ("an unknown group", "no-group", Some("grouped")),
        ("all of an unknown group", "no-group", None),
        ("an empty group", "", Some("grouped")),
    ] {
        let request = |side: &Side, version: i16| {
            // Null stands for all from version 2 on.
            let topic = topic.or((version < 2).then_some("grouped"));
            let id = |topic: &str| match topic {
                _ if version < 10 => Default::default(),
                "nowhere" => NO_SUCH_ID,
                topic => side.topic_id(topic),
            };
            OffsetFetchRequest {
                group_id: if version < 8 { group.into() } else { "".into() },
                topics: topic.filter(|_| version < 8).map_or(
                    if version < 8 { None } else { Some(Vec::new()) },
                    |topic| {
                        Some(vec![OffsetFetchRequestTopic {
                            name: topic.into(),
                            partition_indexes: vec![0, 1],
                            ..Default::default()
                        }])
                    },
                ),
                groups: if version < 8 {
                    Vec::new()
                } else {
                    vec![OffsetFetchRequestGroup {
                        group_id: group.into(),
                        topics: topic.map(|topic| {
                            vec![OffsetFetchRequestTopics {
                                name: if version < 10 { topic.into() } else { "".into() },
                                topic_id: id(topic),
                                partition_indexes: vec![0, 1],
                                ..Default::default()
                            }]
                        }),
                        ..Default::default()
                    }]
                },
                ..Default::default()
            }
        };
        pair.ask(what, request)?;
    }
    Ok(())
}

fn delete_offsets(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, group, topic) in [
        ("an offset", "committed", "grouped"),
        ("an unknown topic", "committed", "nowhere"),
        ("an unknown group", "no-group", "grouped"),
        ("an empty group", "", "grouped"),
        ("of a group with members", "classic-6", "grouped"),
    ] {
        let request = |_: &Side, _: i16| OffsetDeleteRequest {
            group_id: group.into(),
            topics: vec![OffsetDeleteRequestTopic {
                name: topic.into(),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: 1 }],
            }],
        };
        pair.ask(what, request)?;
    }
    Ok(())
}

fn consumer(pair: &mut Pair) -> anyhow::Result<()> {
    // When a member is given partitions depends on when the coordinator computes the assignment.
    let leave_out = |answer: &mut ConsumerGroupHeartbeatResponse| answer.heartbeat_interval_ms = 0;
    type Change = fn(&mut ConsumerGroupHeartbeatRequest);
    let cases: [(&str, Change); 8] = [
        ("an empty group", |r| r.group_id = "".into()),
        ("an unknown member", |r| {
            (r.member_id, r.member_epoch) = (NOBODY.into(), 5)
        }),
        ("a member that leaves an unknown group", |r| r.member_epoch = -1),
        ("no rebalance timeout", |r| r.rebalance_timeout_ms = -1),
        ("no topics", |r| r.subscribed_topic_names = None),
        ("an assignor that is none", |r| {
            r.server_assignor = Some("none".into())
        }),
        ("an empty rack", |r| r.rack_id = Some("".into())),
        ("an epoch that is none", |r| r.member_epoch = -5),
    ];
    for (n, (what, change)) in cases.into_iter().enumerate() {
        let request = |_: &Side, version: i16| {
            let mut request = heartbeat(&format!("beat-{n}-{version}"), version);
            change(&mut request);
            request
        };
        pair.ask_but(what, request, leave_out)?;
    }
    let request = |_: &Side, version: i16| heartbeat(&format!("consumer-{version}"), version);
    pair.ask_but("the first member", request, leave_out)?;
    let wrong = |_: &Side, version: i16| ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("(".into()),
        subscribed_topic_names: None,
        ..heartbeat("regex", version)
    };
    pair.ask_in(1, "a regular expression that is none", &wrong, &leave_out)?;
    Ok(())
}

fn heartbeat(group: &str, version: i16) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: group.into(),
        // From version 1 on the client makes the id.
        member_id: if version >= 1 {
            format!("member-of-{group}").into()
        } else {
            "".into()
        },
        member_epoch: 0,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["grouped".into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

fn describe(pair: &mut Pair) -> anyhow::Result<()> {
    // The group of the newest version of JoinGroup has a member still.
    for (what, group) in [
        ("a group with a member", "classic-9"),
        ("a group without members", "committed"),
        ("a group that was left", "classic-3"),
        ("an unknown group", "no-group"),
        ("an empty group", ""),
        ("a group of the other protocol", "consumer-1"),
    ] {
        pair.ask(what, |_, _| DescribeGroupsRequest {
            groups: vec![group.into()],
            ..Default::default()
        })?;
        // Its target is computed in the background.
        pair.ask_but(
            what,
            |_, _| ConsumerGroupDescribeRequest {
                group_ids: vec![group.into()],
                ..Default::default()
            },
            |answer| {
                for group in &mut answer.groups {
                    group.group_state = "".into();
                    group.assignment_epoch = 0;
                    for member in &mut group.members {
                        member.assignment.topic_partitions.clear();
                        member.target_assignment.topic_partitions.clear();
                    }
                }
            },
        )?;
    }
    for (what, states, types) in [
        ("all", vec![], vec![]),
        ("by a state that is none", vec!["none"], vec![]),
        ("by a type that is none", vec![], vec!["none"]),
        ("by a state", vec!["Empty"], vec![]),
        ("by a type", vec![], vec!["classic"]),
    ] {
        let request = |_: &Side, version: i16| {
            let texts = |of: &[&str], from: i16| {
                of.iter()
                    .filter(|_| version >= from)
                    .map(|text| (*text).into())
                    .collect()
            };
            ListGroupsRequest {
                states_filter: texts(&states, 4),
                types_filter: texts(&types, 5),
                ..Default::default()
            }
        };
        pair.ask_but(what, request, |answer| {
            // Kafka keeps an empty group of a member that it refused.
            answer
                .groups
                .retain(|g| !g.group_id.starts_with("refused") && !g.group_id.starts_with("beat"));
            answer
                .groups
                .sort_by(|a, b| a.group_id.as_str().cmp(b.group_id.as_str()));
            // It depends on when the coordinator computes the assignment.
            for group in &mut answer.groups {
                if group.group_type.as_str() == "consumer" {
                    group.group_state = "".into();
                }
            }
        })?;
    }
    for group in ["classic-9", "no-group", ""] {
        pair.ask(&format!("group {group:?}"), |_, _| DeleteGroupsRequest {
            groups_names: vec![group.into()],
            ..Default::default()
        })?;
    }
    let request = |_: &Side, version: i16| DeleteGroupsRequest {
        groups_names: vec![format!("classic-{version}").into()],
        ..Default::default()
    };
    pair.ask("a group that was left", request)?;
    Ok(())
}
