//! Every API in every version: asked, answered, decoded whole, without an error.

use std::collections::BTreeSet;

use drumlin_broker::error_code::ErrorCode;
use drumlin_wire::messages as m;
use drumlin_wire::registry::APIS;
use drumlin_wire::{Request, Str, Uuid};

use crate::harness::*;

#[derive(Default)]
struct Asked(BTreeSet<(i16, i16)>);

impl Asked {
    async fn ask<M: Request>(&mut self, client: &mut Client, version: i16, request: &M) -> M::Response {
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
