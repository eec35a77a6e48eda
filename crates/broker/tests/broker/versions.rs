//! Every API in every version: asked, answered, decoded whole, without an error.

use std::collections::BTreeSet;

use drumlin_broker::error_code::ErrorCode;
use drumlin_wire::messages as m;
use drumlin_wire::registry::APIS;
use drumlin_wire::{Request, Str, Uuid};

use crate::harness::*;

/// The versions that were asked for.
#[derive(Default)]
pub struct Asked(BTreeSet<(i16, i16)>);

impl Asked {
    /// Asks, and notes it.
    pub async fn ask<M: Request>(&mut self, client: &mut Client, version: i16, request: &M) -> M::Response {
        self.0.insert((M::KEY.as_i16(), version));
        client.call(version, request).await
    }
}

#[tokio::test(start_paused = true)]
async fn every_version_of_every_api_is_answered() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let mut asked = Asked::default();
    let id = client.create("t", 2, &[]).await;
    assert_eq!(client.produce("t", 0, batch(&["a", "b", "c"])).await, (0, 0));
    about_the_cluster(&mut asked, &mut client, id).await;
    about_topics(&mut asked, &mut client).await;
    about_records(&mut asked, &mut client, id).await;
    about_configs(&mut asked, &mut client).await;
    about_groups(&mut asked, &mut client, id).await;
    crate::lone::about_what_is_off(&mut asked, &mut client).await;
    crate::lone::about_replicas(&mut asked, &mut client).await;
    crate::lone::about_the_quorum(&mut asked, &mut client).await;
    let advertised: BTreeSet<(i16, i16)> = APIS
        .iter()
        .flat_map(|api| (api.min..=api.max).map(|version| (api.key.as_i16(), version)))
        .collect();
    let left: Vec<_> = advertised.difference(&asked.0).collect();
    assert!(left.is_empty(), "advertised and not tested: {left:?}");
    assert_eq!(panics(), 0);
}

async fn about_the_cluster(asked: &mut Asked, client: &mut Client, id: Uuid) {
    for version in 0..=4 {
        let request = m::api_versions_request::ApiVersionsRequest {
            client_software_name: if version >= 3 {
                Str::from("test")
            } else {
                Str::default()
            },
            client_software_version: if version >= 3 {
                Str::from("1.0")
            } else {
                Str::default()
            },
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!((answer.error_code, answer.api_keys.len()), (0, APIS.len()));
        if version >= 3 {
            let named = |name: &str| {
                answer
                    .finalized_features
                    .iter()
                    .any(|feature| feature.name == *name)
            };
            assert!(named("metadata.version") && named("drumlin.format") && !named("transaction.version"));
            assert!(answer.finalized_features_epoch >= 0);
        }
    }
    for version in 0..=13 {
        use m::metadata_request::{MetadataRequest, MetadataRequestTopic};
        let named = MetadataRequestTopic {
            name: Some(Str::from("t")),
            ..Default::default()
        };
        let mut topics = vec![named];
        if version >= 12 {
            topics.push(MetadataRequestTopic {
                topic_id: id,
                name: None,
                ..Default::default()
            });
        }
        let request = MetadataRequest {
            topics: Some(topics),
            allow_auto_topic_creation: version < 4,
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.brokers.len(), 1);
        assert!(
            answer
                .topics
                .iter()
                .all(|topic| topic.error_code == 0 && topic.partitions.len() == 2)
        );
        assert_eq!(answer.topics.len(), if version >= 12 { 2 } else { 1 });
    }
    for version in 0..=2 {
        let request = m::describe_cluster_request::DescribeClusterRequest::default();
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(
            (answer.error_code, answer.brokers.len(), answer.cluster_id.len()),
            (0, 1, 22)
        );
    }
    let request = m::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest::default();
    let answer = asked.ask(client, 0, &request).await;
    assert_ne!(answer.client_instance_id, Uuid::default());
    assert!(answer.requested_metrics.is_empty());
    let request = m::push_telemetry_request::PushTelemetryRequest {
        client_instance_id: answer.client_instance_id,
        subscription_id: answer.subscription_id,
        ..Default::default()
    };
    assert_eq!(asked.ask(client, 0, &request).await.error_code, 0);
    for version in 1..=5 {
        let request = m::describe_log_dirs_request::DescribeLogDirsRequest {
            topics: None,
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.results[0].topics[0].partitions.len(), 2);
        assert!(answer.results[0].topics[0].partitions[0].partition_size > 0);
    }
}

async fn about_topics(asked: &mut Asked, client: &mut Client) {
    use m::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
    use m::create_topics_request::{CreatableTopic, CreateTopicsRequest};
    use m::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
    for version in 2..=7 {
        let topic = CreatableTopic {
            name: Str::from(format!("made-{version}")),
            num_partitions: if version >= 4 { -1 } else { 1 },
            replication_factor: if version >= 4 { -1 } else { 3 },
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 1_000,
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.topics[0].error_code, 0, "version {version}");
        assert_eq!(version >= 7, answer.topics[0].topic_id != Uuid::default());
        assert_eq!(
            version >= 5,
            answer.topics[0]
                .configs
                .as_ref()
                .is_some_and(|configs| configs.len() > 20)
        );
    }
    for version in 0..=3 {
        let topic = CreatePartitionsTopic {
            name: Str::from(format!("made-{}", version + 2)),
            count: 3,
            assignments: None,
            ..Default::default()
        };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: 1_000,
            ..Default::default()
        };
        assert_eq!(
            asked.ask(client, version, &request).await.results[0].error_code,
            0
        );
    }
    let request = m::describe_topic_partitions_request::DescribeTopicPartitionsRequest {
        response_partition_limit: 100,
        ..Default::default()
    };
    let answer = asked.ask(client, 0, &request).await;
    assert_eq!((answer.topics.len(), answer.next_cursor), (7, None));
    for version in 1..=6 {
        let name = Str::from(format!("made-{}", version + 1));
        let request = if version >= 6 {
            let topics = vec![DeleteTopicState {
                name: Some(name),
                ..Default::default()
            }];
            DeleteTopicsRequest {
                topics,
                timeout_ms: 1_000,
                ..Default::default()
            }
        } else {
            DeleteTopicsRequest {
                topic_names: vec![name],
                timeout_ms: 1_000,
                ..Default::default()
            }
        };
        assert_eq!(
            asked.ask(client, version, &request).await.responses[0].error_code,
            0
        );
    }
}

async fn about_records(asked: &mut Asked, client: &mut Client, id: Uuid) {
    for version in 0..=13 {
        let mut request = produce_request("t", 1, batch(&["x"]), -1);
        if version >= 13 {
            request.topic_data[0].name = Str::default();
            request.topic_data[0].topic_id = id;
        }
        let answer = asked.ask(client, version, &request).await;
        let part = &answer.responses[0].partition_responses[0];
        let expected = if version < 3 {
            (ErrorCode::UnsupportedVersion.code(), -1)
        } else {
            (0, i64::from(version) - 3)
        };
        assert_eq!((part.error_code, part.base_offset), expected, "version {version}");
    }
    for version in 4..=18 {
        let mut request = fetch_request("t", &[(1, 2)], 0, 1);
        if version >= 13 {
            request.topics[0].topic = Str::default();
            request.topics[0].topic_id = id;
        }
        if version >= 15 {
            request.replica_id = -1;
        }
        let answer = asked.ask(client, version, &request).await;
        let part = &answer.responses[0].partitions[0];
        assert_eq!(
            (part.error_code, part.high_watermark),
            (0, 11),
            "version {version}"
        );
        assert!(part.records.as_ref().is_some_and(|records| !records.is_empty()));
    }
    for version in 1..=11 {
        for (timestamp, from, offset) in [
            (-1, 1, 11),
            (-2, 1, 0),
            (-3, 7, 0),
            (-4, 8, 0),
            (-5, 9, -1),
            (-6, 11, -1),
            (NOW_MS, 1, 0),
            (i64::MAX, 1, -1),
        ] {
            use m::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
            let part = ListOffsetsPartition {
                partition_index: 1,
                current_leader_epoch: -1,
                timestamp,
                ..Default::default()
            };
            let topic = ListOffsetsTopic {
                name: Str::from("t"),
                partitions: vec![part],
                ..Default::default()
            };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![topic],
                ..Default::default()
            };
            let answer = asked.ask(client, version, &request).await;
            let part = &answer.topics[0].partitions[0];
            let error = if version < from {
                ErrorCode::UnsupportedVersion
            } else {
                ErrorCode::None
            };
            assert_eq!(part.error_code, error.code(), "version {version} at {timestamp}");
            if version >= from {
                assert_eq!(part.offset, offset, "version {version} at {timestamp}");
            }
        }
    }
    for version in 2..=4 {
        use m::offset_for_leader_epoch_request::*;
        let part = OffsetForLeaderPartition {
            partition: 1,
            current_leader_epoch: 0,
            leader_epoch: 0,
            ..Default::default()
        };
        let topic = OffsetForLeaderTopic {
            topic: Str::from("t"),
            partitions: vec![part],
            ..Default::default()
        };
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let part = &answer.topics[0].partitions[0];
        assert_eq!((part.error_code, part.leader_epoch, part.end_offset), (0, 0, 11));
    }
    for version in 0..=2 {
        use m::delete_records_request::*;
        let part = DeleteRecordsPartition {
            partition_index: 1,
            offset: i64::from(version) + 1,
            ..Default::default()
        };
        let topic = DeleteRecordsTopic {
            name: Str::from("t"),
            partitions: vec![part],
            ..Default::default()
        };
        let request = DeleteRecordsRequest {
            topics: vec![topic],
            timeout_ms: 1_000,
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let part = &answer.topics[0].partitions[0];
        assert_eq!((part.error_code, part.low_watermark), (0, i64::from(version) + 1));
    }
    let mut given = BTreeSet::new();
    for version in 0..=5 {
        let request = m::init_producer_id_request::InitProducerIdRequest {
            transactional_id: None,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        assert!(given.insert(answer.producer_id), "an id is given out once");
    }
    let request = m::describe_producers_request::DescribeProducersRequest {
        topics: vec![m::describe_producers_request::TopicRequest {
            name: Str::from("t"),
            partition_indexes: vec![0],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(
        asked.ask(client, 0, &request).await.topics[0].partitions[0].error_code,
        0
    );
}

async fn about_configs(asked: &mut Asked, client: &mut Client) {
    for version in 1..=4 {
        use m::describe_configs_request::*;
        let resource = |kind, name: &str| DescribeConfigsResource {
            resource_type: kind,
            resource_name: Str::from(name),
            configuration_keys: None,
            ..Default::default()
        };
        let request = DescribeConfigsRequest {
            resources: vec![
                resource(2, "t"),
                resource(4, "1"),
                resource(4, ""),
                resource(8, "1"),
            ],
            include_synonyms: true,
            include_documentation: version >= 3,
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert!(answer.results.iter().all(|result| result.error_code == 0));
        assert!(answer.results[0].configs.len() > 20 && answer.results[1].configs.len() > 100);
    }
    for version in 0..=2 {
        use m::alter_configs_request::*;
        let config = AlterableConfig {
            name: Str::from("retention.ms"),
            value: Some(Str::from("5000")),
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: Str::from("t"),
            configs: vec![config],
            ..Default::default()
        };
        let request = AlterConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        assert_eq!(
            asked.ask(client, version, &request).await.responses[0].error_code,
            0
        );
    }
    for version in 0..=1 {
        use m::incremental_alter_configs_request::*;
        let config = AlterableConfig {
            name: Str::from("retention.ms"),
            config_operation: 1,
            value: None,
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: Str::from("t"),
            configs: vec![config],
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        assert_eq!(
            asked.ask(client, version, &request).await.responses[0].error_code,
            0
        );
    }
    for version in 0..=1 {
        let request = m::list_config_resources_request::ListConfigResourcesRequest::default();
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.error_code, 0);
        assert_eq!(answer.config_resources.is_empty(), version == 0);
    }
}

async fn about_groups(asked: &mut Asked, client: &mut Client, id: Uuid) {
    for version in 0..=6 {
        use m::find_coordinator_request::FindCoordinatorRequest;
        let key = Str::from("g");
        let request = if version >= 4 {
            FindCoordinatorRequest {
                coordinator_keys: vec![key],
                ..Default::default()
            }
        } else {
            FindCoordinatorRequest {
                key,
                ..Default::default()
            }
        };
        let answer = asked.ask(client, version, &request).await;
        let (code, node) = match answer.coordinators.first() {
            Some(found) => (found.error_code, found.node_id),
            None => (answer.error_code, answer.node_id),
        };
        assert_eq!((code, node), (0, 1), "version {version}");
    }
    for version in 0..=9 {
        let group = format!("classic-{version}");
        members(asked, client, &group, version).await;
    }
    offsets(asked, client, id).await;
    consumers(asked, client).await;
    for version in 0..=5 {
        let request = m::list_groups_request::ListGroupsRequest::default();
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.error_code, 0);
        assert!(
            answer.groups.iter().any(|group| group.group_id == *"simple"),
            "version {version}"
        );
    }
    for version in 0..=6 {
        let request = m::describe_groups_request::DescribeGroupsRequest {
            groups: vec![Str::from("simple"), Str::from("nobody")],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let told: Vec<_> = answer
            .groups
            .iter()
            .map(|group| (group.error_code, group.group_state.as_str()))
            .collect();
        let unknown = if version >= 6 {
            ErrorCode::GroupIdNotFound.code()
        } else {
            0
        };
        assert_eq!(told, [(0, "Empty"), (unknown, "Dead")], "version {version}");
    }
    for version in 0..=2 {
        let name = format!("simple-{version}");
        commit(asked, client, 2, &name, 1, Uuid::default()).await;
        let request = m::delete_groups_request::DeleteGroupsRequest {
            groups_names: vec![Str::from(name), Str::from("nobody")],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let codes: Vec<i16> = answer.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [0, ErrorCode::GroupIdNotFound.code()], "version {version}");
    }
}

/// A member joins, is assigned, heartbeats and leaves: JoinGroup of this version, the others of the newest they have
/// that is not above it.
async fn members(asked: &mut Asked, client: &mut Client, group: &str, version: i16) {
    use m::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
    use m::leave_group_request::{LeaveGroupRequest, MemberIdentity};
    use m::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
    let mut join = JoinGroupRequest {
        group_id: Str::from(group),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: if version >= 1 { 10_000 } else { -1 },
        protocol_type: Str::from("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from("range"),
            metadata: vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut joined = asked.ask(client, version, &join).await;
    if version >= 4 {
        assert_eq!(joined.error_code, ErrorCode::MemberIdRequired.code());
        join.member_id = joined.member_id.clone();
        joined = asked.ask(client, version, &join).await;
    }
    assert_eq!(
        (joined.error_code, joined.generation_id),
        (0, 1),
        "JoinGroup {version}"
    );
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.leader, joined.member_id);
    let sync_version = version.min(5);
    let member = joined.member_id;
    let sync = SyncGroupRequest {
        group_id: Str::from(group),
        generation_id: 1,
        member_id: member.clone(),
        protocol_type: (sync_version >= 5).then(|| Str::from("consumer")),
        protocol_name: (sync_version >= 5).then(|| Str::from("range")),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: member.clone(),
            assignment: b"mine".to_vec().into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let synced = asked.ask(client, sync_version, &sync).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"mine"[..]));
    let beat = m::heartbeat_request::HeartbeatRequest {
        group_id: Str::from(group),
        generation_id: 1,
        member_id: member.clone(),
        ..Default::default()
    };
    assert_eq!(asked.ask(client, version.min(4), &beat).await.error_code, 0);
    let leave = if version >= 3 {
        LeaveGroupRequest {
            group_id: Str::from(group),
            members: vec![MemberIdentity {
                member_id: member,
                group_instance_id: None,
                ..Default::default()
            }],
            ..Default::default()
        }
    } else {
        LeaveGroupRequest {
            group_id: Str::from(group),
            member_id: member,
            ..Default::default()
        }
    };
    let left = asked.ask(client, version.min(5), &leave).await;
    assert_eq!(left.error_code, 0);
    assert!(left.members.iter().all(|member| member.error_code == 0));
}

/// Commits an offset of `t` for a group without members.
async fn commit(asked: &mut Asked, client: &mut Client, version: i16, group: &str, offset: i64, id: Uuid) {
    use m::offset_commit_request::*;
    let partition = OffsetCommitRequestPartition {
        partition_index: 1,
        committed_offset: offset,
        committed_leader_epoch: -1,
        committed_metadata: Some(Str::from("note")),
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: if version >= 10 {
                Str::default()
            } else {
                Str::from("t")
            },
            topic_id: if version >= 10 { id } else { Uuid::default() },
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = asked.ask(client, version, &request).await;
    assert_eq!(
        answer.topics[0].partitions[0].error_code, 0,
        "OffsetCommit {version}"
    );
}

async fn offsets(asked: &mut Asked, client: &mut Client, id: Uuid) {
    use m::offset_fetch_request::*;
    for version in 0..=10 {
        commit(asked, client, version, "simple", 100 + i64::from(version), id).await;
    }
    for version in 0..=10 {
        let request = if version >= 8 {
            let topic = OffsetFetchRequestTopics {
                name: if version >= 10 {
                    Str::default()
                } else {
                    Str::from("t")
                },
                topic_id: if version >= 10 { id } else { Uuid::default() },
                partition_indexes: vec![1, 0],
                ..Default::default()
            };
            let group = |topics| OffsetFetchRequestGroup {
                group_id: Str::from("simple"),
                topics,
                ..Default::default()
            };
            let nobody = OffsetFetchRequestGroup {
                group_id: Str::from("nobody"),
                topics: None,
                ..Default::default()
            };
            OffsetFetchRequest {
                groups: vec![group(Some(vec![topic])), nobody],
                ..Default::default()
            }
        } else {
            OffsetFetchRequest {
                group_id: Str::from("simple"),
                topics: Some(vec![OffsetFetchRequestTopic {
                    name: Str::from("t"),
                    partition_indexes: vec![1, 0],
                    ..Default::default()
                }]),
                ..Default::default()
            }
        };
        let answer = asked.ask(client, version, &request).await;
        let found: Vec<(i32, i64, String)> = if version >= 8 {
            assert_eq!(
                (answer.groups[0].error_code, answer.groups[1].topics.len()),
                (0, 0)
            );
            let partitions = &answer.groups[0].topics[0].partitions;
            let one = |p: &m::offset_fetch_response::OffsetFetchResponsePartitions| {
                (
                    p.partition_index,
                    p.committed_offset,
                    p.metadata.as_deref().unwrap().to_owned(),
                )
            };
            partitions.iter().map(one).collect()
        } else {
            let one = |p: &m::offset_fetch_response::OffsetFetchResponsePartition| {
                (
                    p.partition_index,
                    p.committed_offset,
                    p.metadata.as_deref().unwrap().to_owned(),
                )
            };
            answer.topics[0].partitions.iter().map(one).collect()
        };
        let expected = [(1, 110, "note".to_owned()), (0, -1, String::new())];
        assert_eq!(found, expected, "OffsetFetch {version}");
    }
    // No topics stands for all.
    let all = OffsetFetchRequest {
        group_id: Str::from("simple"),
        topics: None,
        ..Default::default()
    };
    let answer = client.call(7, &all).await;
    assert_eq!((answer.topics.len(), answer.topics[0].partitions.len()), (1, 1));
    use m::offset_delete_request::*;
    commit(asked, client, 9, "spare", 5, id).await;
    let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
    let request = OffsetDeleteRequest {
        group_id: Str::from("spare"),
        topics: vec![OffsetDeleteRequestTopic {
            name: Str::from("t"),
            partitions: vec![partition(1), partition(7)],
        }],
    };
    let answer = asked.ask(client, 0, &request).await;
    let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!((answer.error_code, codes), (0, vec![0, 3]));
}

/// A member of a consumer group joins, is described, and leaves.
async fn consumers(asked: &mut Asked, client: &mut Client) {
    use m::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
    for version in 0..=1 {
        let group = Str::from(format!("consumer-{version}"));
        let request = ConsumerGroupHeartbeatRequest {
            group_id: group.clone(),
            member_id: if version >= 1 {
                Str::from("AAAAAAAAAAAAAAAAAAAAAQ")
            } else {
                Str::default()
            },
            member_epoch: 0,
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec![Str::from("t")]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        assert!(answer.member_epoch > 0 && answer.heartbeat_interval_ms == 5_000);
        let describe = m::consumer_group_describe_request::ConsumerGroupDescribeRequest {
            group_ids: vec![group.clone()],
            ..Default::default()
        };
        let described = asked.ask(client, version, &describe).await;
        assert_eq!(
            (described.groups[0].error_code, described.groups[0].members.len()),
            (0, 1)
        );
        let leave = ConsumerGroupHeartbeatRequest {
            group_id: group,
            member_id: answer.member_id.unwrap(),
            member_epoch: -1,
            ..Default::default()
        };
        assert_eq!(asked.ask(client, version, &leave).await.error_code, 0);
    }
}
