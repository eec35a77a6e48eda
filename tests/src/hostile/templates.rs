//! Sound requests of every served API and version, for [`super::mutate`] to break.

use bytes::Bytes;
use drumlin_records::{BatchBuilder, Compression};
use drumlin_wire::messages as m;
use drumlin_wire::registry::APIS;
use drumlin_wire::{ApiKey, Message, Str, Uuid};
use rand::RngExt;
use rand::rngs::StdRng;

pub(super) const TOPIC: &str = "hostile";

/// An API that is served, one of its versions, and a request's body.
pub fn body(rng: &mut StdRng) -> (ApiKey, i16, Bytes) {
    let api = APIS[rng.random_range(0..APIS.len())];
    let version = rng.random_range(api.min..=api.max);
    (api.key, version, of(rng, api.key, version))
}

/// The message with its fields filled in; bare, where this version lacks one of them.
pub(super) fn bytes<M: Message>(full: M, version: i16) -> Bytes {
    full.to_bytes(version)
        .or_else(|_| M::default().to_bytes(version))
        .unwrap_or_default()
}

fn of(rng: &mut StdRng, key: ApiKey, v: i16) -> Bytes {
    match key {
        ApiKey::Produce => produce(rng, v),
        ApiKey::Fetch => fetch(rng, v),
        ApiKey::ListOffsets => list_offsets(rng, v),
        ApiKey::Metadata => metadata(rng, v),
        ApiKey::CreateTopics | ApiKey::DeleteTopics | ApiKey::CreatePartitions | ApiKey::DeleteRecords => {
            topics(rng, key, v)
        }
        ApiKey::DescribeConfigs | ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
            configs(rng, key, v)
        }
        _ => others(rng, key, v),
    }
}

fn produce(rng: &mut StdRng, v: i16) -> Bytes {
    use m::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let mut batch = BatchBuilder::new(codecs[rng.random_range(0..codecs.len())]);
    if rng.random_bool(0.5) {
        batch = batch.producer(rng.random_range(0..2000), 0, rng.random_range(0..3));
    }
    for n in 0..rng.random_range(1..5) {
        batch.push(
            n,
            Some(b"key"),
            Some(b"value value value value"),
            &[(b"h", Some(b"1"))],
        );
    }
    let records = batch.build().ok().map(Into::into);
    let data = PartitionProduceData {
        index: rng.random_range(0..2),
        records,
        ..Default::default()
    };
    let mut topic = TopicProduceData {
        partition_data: vec![data],
        ..Default::default()
    };
    match v {
        13.. => topic.topic_id = Uuid(rng.random()),
        _ => topic.name = TOPIC.into(),
    }
    let acks = if rng.random_bool(0.02) { 0 } else { -1 };
    bytes(
        ProduceRequest {
            acks,
            timeout_ms: 1000,
            topic_data: vec![topic],
            ..Default::default()
        },
        v,
    )
}

fn fetch(rng: &mut StdRng, v: i16) -> Bytes {
    use m::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
    let partition = FetchPartition {
        partition: rng.random_range(0..2),
        fetch_offset: rng.random_range(0..50),
        partition_max_bytes: 1 << 20,
        current_leader_epoch: -1,
        log_start_offset: -1,
        last_fetched_epoch: -1,
        ..Default::default()
    };
    let mut topic = FetchTopic {
        partitions: vec![partition],
        ..Default::default()
    };
    match v {
        13.. => topic.topic_id = Uuid(rng.random()),
        _ => topic.topic = TOPIC.into(),
    }
    let request = FetchRequest {
        max_wait_ms: rng.random_range(0..20),
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_id: rng.random_range(0..3),
        session_epoch: if v >= 7 { rng.random_range(-1..3) } else { -1 },
        topics: vec![topic],
        ..Default::default()
    };
    // The replica id moved into a tagged field; a consumer leaves both at their defaults.
    bytes(request, v)
}

fn list_offsets(rng: &mut StdRng, v: i16) -> Bytes {
    use m::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
    let partition = ListOffsetsPartition {
        partition_index: rng.random_range(0..2),
        current_leader_epoch: -1,
        timestamp: rng.random_range(-7..100),
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: TOPIC.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    bytes(
        ListOffsetsRequest {
            replica_id: -1,
            topics: vec![topic],
            ..Default::default()
        },
        v,
    )
}

fn metadata(rng: &mut StdRng, v: i16) -> Bytes {
    use m::metadata_request::{MetadataRequest, MetadataRequestTopic};
    let topic = MetadataRequestTopic {
        name: Some(TOPIC.into()),
        ..Default::default()
    };
    let topics = if rng.random_bool(0.8) {
        Some(vec![topic])
    } else {
        None
    };
    bytes(
        MetadataRequest {
            topics,
            allow_auto_topic_creation: true,
            ..Default::default()
        },
        v,
    )
}

fn topics(rng: &mut StdRng, key: ApiKey, v: i16) -> Bytes {
    let timeout_ms = 1000;
    let name = || Str::from(TOPIC);
    // Mostly a dry run: the broker is to be attacked by its requests, not by ten thousand topics.
    let validate_only = rng.random_bool(0.95);
    match key {
        ApiKey::CreateTopics => {
            use m::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
            let config = CreatableTopicConfig {
                name: "retention.ms".into(),
                value: Some("100000".into()),
                ..Default::default()
            };
            let topic = CreatableTopic {
                name: name(),
                num_partitions: 2,
                replication_factor: 1,
                configs: vec![config],
                ..Default::default()
            };
            bytes(
                CreateTopicsRequest {
                    topics: vec![topic],
                    timeout_ms,
                    validate_only,
                    ..Default::default()
                },
                v,
            )
        }
        ApiKey::DeleteTopics => {
            use m::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
            let mut request = DeleteTopicsRequest {
                timeout_ms,
                ..Default::default()
            };
            match v {
                6.. => {
                    request.topics = vec![DeleteTopicState {
                        name: Some(name()),
                        ..Default::default()
                    }]
                }
                _ => request.topic_names = vec![name()],
            }
            bytes(request, v)
        }
        ApiKey::CreatePartitions => {
            use m::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
            let topic = CreatePartitionsTopic {
                name: name(),
                count: 3,
                assignments: None,
                ..Default::default()
            };
            bytes(
                CreatePartitionsRequest {
                    topics: vec![topic],
                    timeout_ms,
                    validate_only,
                    ..Default::default()
                },
                v,
            )
        }
        _ => {
            use m::delete_records_request::{
                DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
            };
            let partition = DeleteRecordsPartition {
                offset: rng.random_range(-1..5),
                ..Default::default()
            };
            let topic = DeleteRecordsTopic {
                name: name(),
                partitions: vec![partition],
                ..Default::default()
            };
            bytes(
                DeleteRecordsRequest {
                    topics: vec![topic],
                    timeout_ms,
                    ..Default::default()
                },
                v,
            )
        }
    }
}

fn configs(rng: &mut StdRng, key: ApiKey, v: i16) -> Bytes {
    let resource_type = if rng.random_bool(0.8) { 2 } else { 4 };
    let resource_name = Str::from(TOPIC);
    let (name, value) = (Str::from("retention.ms"), Some(Str::from("1000000")));
    match key {
        ApiKey::DescribeConfigs => {
            use m::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
            let resource = DescribeConfigsResource {
                resource_type,
                resource_name,
                ..Default::default()
            };
            bytes(
                DescribeConfigsRequest {
                    resources: vec![resource],
                    ..Default::default()
                },
                v,
            )
        }
        ApiKey::AlterConfigs => {
            use m::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource, AlterableConfig};
            let configs = vec![AlterableConfig {
                name,
                value,
                ..Default::default()
            }];
            let resource = AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
                ..Default::default()
            };
            bytes(
                AlterConfigsRequest {
                    resources: vec![resource],
                    ..Default::default()
                },
                v,
            )
        }
        _ => {
            use m::incremental_alter_configs_request as i;
            let config_operation = rng.random_range(0..4);
            let configs = vec![i::AlterableConfig {
                name,
                value,
                config_operation,
                ..Default::default()
            }];
            let resource = i::AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
                ..Default::default()
            };
            bytes(
                i::IncrementalAlterConfigsRequest {
                    resources: vec![resource],
                    ..Default::default()
                },
                v,
            )
        }
    }
}

fn others(rng: &mut StdRng, key: ApiKey, v: i16) -> Bytes {
    let name = || Str::from(TOPIC);
    match key {
        ApiKey::ApiVersions => {
            let request = m::api_versions_request::ApiVersionsRequest {
                client_software_name: "hostile".into(),
                client_software_version: "1.0".into(),
                ..Default::default()
            };
            bytes(request, v)
        }
        ApiKey::InitProducerId => {
            let transactional_id = rng.random_bool(0.3).then(name);
            let request = m::init_producer_id_request::InitProducerIdRequest {
                transactional_id,
                transaction_timeout_ms: 1000,
                producer_id: -1,
                producer_epoch: -1,
                ..Default::default()
            };
            bytes(request, v)
        }
        ApiKey::OffsetForLeaderEpoch => {
            use m::offset_for_leader_epoch_request as o;
            let partition = o::OffsetForLeaderPartition {
                current_leader_epoch: -1,
                ..Default::default()
            };
            let topic = o::OffsetForLeaderTopic {
                topic: name(),
                partitions: vec![partition],
                ..Default::default()
            };
            let topics = vec![topic];
            bytes(
                o::OffsetForLeaderEpochRequest {
                    replica_id: -1,
                    topics,
                    ..Default::default()
                },
                v,
            )
        }
        ApiKey::DescribeLogDirs => {
            use m::describe_log_dirs_request::{DescribableLogDirTopic, DescribeLogDirsRequest};
            let topic = DescribableLogDirTopic {
                topic: name(),
                partitions: vec![0, 1],
                ..Default::default()
            };
            bytes(
                DescribeLogDirsRequest {
                    topics: Some(vec![topic]),
                    ..Default::default()
                },
                v,
            )
        }
        ApiKey::DescribeProducers => {
            use m::describe_producers_request::{DescribeProducersRequest, TopicRequest};
            let topic = TopicRequest {
                name: name(),
                partition_indexes: vec![0, 1],
                ..Default::default()
            };
            bytes(
                DescribeProducersRequest {
                    topics: vec![topic],
                    ..Default::default()
                },
                v,
            )
        }
        ApiKey::DescribeTopicPartitions => {
            use m::describe_topic_partitions_request::{DescribeTopicPartitionsRequest, TopicRequest};
            let topics = vec![TopicRequest {
                name: name(),
                ..Default::default()
            }];
            let response_partition_limit = 100;
            bytes(
                DescribeTopicPartitionsRequest {
                    topics,
                    response_partition_limit,
                    ..Default::default()
                },
                v,
            )
        }
        ApiKey::DescribeCluster => bytes(m::describe_cluster_request::DescribeClusterRequest::default(), v),
        ApiKey::ListConfigResources => {
            let resource_types = if v > 0 { vec![2, 4, 16] } else { Vec::new() };
            let request = m::list_config_resources_request::ListConfigResourcesRequest {
                resource_types,
                ..Default::default()
            };
            bytes(request, v)
        }
        ApiKey::PushTelemetry => {
            let request = m::push_telemetry_request::PushTelemetryRequest {
                client_instance_id: Uuid(rng.random()),
                metrics: Bytes::from_static(b"metrics"),
                ..Default::default()
            };
            bytes(request, v)
        }
        ApiKey::GetTelemetrySubscriptions => bytes(
            m::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest::default(),
            v,
        ),
        key => super::groups::of(rng, key, v).unwrap_or_else(|| Bytes::from_static(&[0; 16])),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// A template that cannot be written would quietly be an empty request.
    #[test]
    fn every_served_version_has_a_body() {
        let mut rng = StdRng::seed_from_u64(1);
        for api in APIS {
            for version in api.min..=api.max {
                let body = of(&mut rng, api.key, version);
                let may_be_empty = [
                    ApiKey::ApiVersions,
                    ApiKey::ListConfigResources,
                    ApiKey::ListGroups,
                ]
                .contains(&api.key);
                assert!(!body.is_empty() || may_be_empty, "{:?} {version}", api.key);
                if api.key == ApiKey::Produce && version >= 3 {
                    assert!(body.len() > 80, "a bare Produce {version}");
                }
            }
        }
    }
}
