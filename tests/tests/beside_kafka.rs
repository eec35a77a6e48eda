//! The same requests to Apache Kafka and to Drumlin, each alone and without authorizer, quotas or users: the answers are
//! the same, but for what names a broker, a topic's id or the time.

use std::fmt::Debug;
use std::time::Duration;

use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::client::Connection;
use drumlin_tests::kafka::Kafka;
use drumlin_tests::scratch::Scratch;
use drumlin_wire::messages as m;
use drumlin_wire::{Request, Str, Uuid};

const PATIENCE: Duration = Duration::from_secs(30);

/// Both brokers, and what they answered differently.
struct Both {
    kafka: Connection,
    drumlin: Connection,
    asked: usize,
    differences: Vec<String>,
}

impl Both {
    /// Asks both, and compares what is left after `normalise`.
    fn compare<M: Request + Debug>(&mut self, version: i16, request: &M, normalise: impl Fn(&mut M::Response))
    where
        M::Response: PartialEq + Debug,
    {
        let mut kafkas = self.kafka.call(request, version).expect("Kafka answers");
        let mut ours = self.drumlin.call(request, version).expect("Drumlin answers");
        normalise(&mut kafkas);
        normalise(&mut ours);
        self.asked += 1;
        if kafkas != ours {
            let name = M::KEY;
            self.differences.push(format!(
                "{name} {version}: {request:?}\n  Kafka:   {kafkas:?}\n  Drumlin: {ours:?}"
            ));
        }
    }

    fn compare_all<M: Request + Debug>(&mut self, version: i16, request: &M)
    where
        M::Response: PartialEq + Debug,
    {
        self.compare(version, request, |_| {});
    }
}

fn start(scratch: &Scratch) -> (Kafka, Broker, Both) {
    let options = Options::local(&scratch.join("broker")).set("node.id", "1");
    let broker = Broker::start(options).expect("a broker");
    let kafka = Kafka::start(&scratch.join("kafka"), &[]).expect("Kafka");
    let connect = |bootstrap: &str| Connection::open(bootstrap, PATIENCE).expect("a connection");
    let mut both = Both {
        kafka: connect(&kafka.bootstrap()),
        drumlin: connect(&broker.bootstrap()),
        asked: 0,
        differences: Vec::new(),
    };
    for connection in [&mut both.kafka, &mut both.drumlin] {
        connection.create_topic("t", 3, &[]).expect("a topic");
    }
    (kafka, broker, both)
}

#[test]
fn a_lone_broker_answers_as_kafka_does() {
    let scratch = Scratch::new("beside-kafka").expect("a folder");
    let (_kafka, _broker, mut both) = start(&scratch);
    authorized_operations(&mut both);
    replicas(&mut both);
    what_is_off(&mut both);
    credentials(&mut both);
    quotas(&mut both);
    the_quorum(&mut both);
    config_resources(&mut both);
    let Both {
        asked, differences, ..
    } = both;
    assert!(asked > 60, "{asked}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn authorized_operations(both: &mut Both) {
    use m::metadata_request::{MetadataRequest, MetadataRequestTopic};
    for asked in [true, false] {
        for version in [8, 10, 12, 13] {
            let named = |name: &str| MetadataRequestTopic {
                name: Some(name.into()),
                ..Default::default()
            };
            let request = MetadataRequest {
                topics: Some(vec![named("t"), named("nope")]),
                allow_auto_topic_creation: false,
                include_topic_authorized_operations: asked,
                include_cluster_authorized_operations: asked && version <= 10,
                ..Default::default()
            };
            both.compare(version, &request, |answer| {
                answer.brokers.clear();
                answer.cluster_id = None;
                for topic in &mut answer.topics {
                    topic.topic_id = Uuid::default();
                    for partition in &mut topic.partitions {
                        partition.leader_epoch = 0;
                    }
                }
            });
        }
        for endpoint_type in [1, 2, 3] {
            let request = m::describe_cluster_request::DescribeClusterRequest {
                include_cluster_authorized_operations: asked,
                endpoint_type,
                ..Default::default()
            };
            both.compare(1, &request, |answer| {
                answer.brokers.clear();
                answer.cluster_id = Str::EMPTY;
            });
        }
    }
    let request = m::describe_topic_partitions_request::DescribeTopicPartitionsRequest {
        topics: vec![m::describe_topic_partitions_request::TopicRequest {
            name: "nope".into(),
            ..Default::default()
        }],
        response_partition_limit: 10,
        ..Default::default()
    };
    both.compare_all(0, &request);
}

fn replicas(both: &mut Both) {
    use m::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
    let topic = |name: &str, partitions: &[i32]| TopicPartitions {
        topic: name.into(),
        partitions: partitions.to_vec(),
        ..Default::default()
    };
    let named = Some(vec![
        topic("t", &[0, 1, 7, 0]),
        topic("nope", &[0]),
        topic("", &[-1]),
    ]);
    for (version, election_type) in [(0, 0), (1, 1), (2, 0), (2, 1), (2, 5)] {
        for topic_partitions in [named.clone(), None, Some(Vec::new())] {
            let request = ElectLeadersRequest {
                election_type,
                topic_partitions,
                timeout_ms: 1_000,
                ..Default::default()
            };
            both.compare_all(version, &request);
        }
    }
    use m::list_partition_reassignments_request as list;
    let named = list::ListPartitionReassignmentsTopics {
        name: "t".into(),
        partition_indexes: vec![0, 9],
        ..Default::default()
    };
    for topics in [None, Some(Vec::new()), Some(vec![named])] {
        let request = list::ListPartitionReassignmentsRequest {
            topics,
            ..Default::default()
        };
        both.compare_all(0, &request);
    }
    use m::alter_partition_reassignments_request as alter;
    let partition = |partition_index, replicas: Option<&[i32]>| alter::ReassignablePartition {
        partition_index,
        replicas: replicas.map(<[i32]>::to_vec),
        ..Default::default()
    };
    let partitions = vec![
        partition(0, None),
        partition(0, Some(&[1])),
        partition(1, Some(&[2])),
        partition(1, Some(&[1, 1])),
        partition(1, Some(&[])),
        partition(1, Some(&[-1])),
        partition(9, Some(&[1])),
        partition(9, None),
    ];
    for (version, name) in [(0, "t"), (1, "t"), (1, "nope")] {
        let request = alter::AlterPartitionReassignmentsRequest {
            topics: vec![alter::ReassignableTopic {
                name: name.into(),
                partitions: partitions.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        both.compare_all(version, &request);
    }
    use m::alter_replica_log_dirs_request as dirs;
    let request = dirs::AlterReplicaLogDirsRequest {
        dirs: vec![dirs::AlterReplicaLogDir {
            path: "/nowhere".into(),
            topics: vec![dirs::AlterReplicaLogDirTopic {
                name: "t".into(),
                partitions: vec![0, 9],
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    both.compare_all(2, &request);
}

fn what_is_off(both: &mut Both) {
    let request = m::describe_acls_request::DescribeAclsRequest {
        resource_type_filter: 2,
        pattern_type_filter: 3,
        operation: 3,
        permission_type: 3,
        ..Default::default()
    };
    both.compare_all(1, &request);
    both.compare_all(3, &request);
    let request = m::create_acls_request::CreateAclsRequest {
        creations: vec![
            m::create_acls_request::AclCreation {
                resource_type: 2,
                resource_name: "t".into(),
                resource_pattern_type: 3,
                principal: "User:a".into(),
                host: "*".into(),
                operation: 3,
                permission_type: 3,
                ..Default::default()
            };
            2
        ],
        ..Default::default()
    };
    both.compare_all(3, &request);
    let request = m::delete_acls_request::DeleteAclsRequest {
        filters: vec![
            m::delete_acls_request::DeleteAclsFilter {
                resource_type_filter: 2,
                pattern_type_filter: 3,
                operation: 3,
                permission_type: 3,
                ..Default::default()
            };
            2
        ],
        ..Default::default()
    };
    both.compare_all(3, &request);
    for version in 1..=3 {
        both.compare_all(
            version,
            &m::create_delegation_token_request::CreateDelegationTokenRequest::default(),
        );
        both.compare_all(
            version,
            &m::describe_delegation_token_request::DescribeDelegationTokenRequest::default(),
        );
    }
    both.compare_all(
        2,
        &m::renew_delegation_token_request::RenewDelegationTokenRequest::default(),
    );
    both.compare_all(
        2,
        &m::expire_delegation_token_request::ExpireDelegationTokenRequest::default(),
    );
    both.compare_all(1, &m::sasl_handshake_request::SaslHandshakeRequest::default());
    both.compare_all(
        2,
        &m::sasl_authenticate_request::SaslAuthenticateRequest::default(),
    );
    for pattern in ["", "a.*", "(("] {
        let request = m::list_transactions_request::ListTransactionsRequest {
            state_filters: vec!["Ongoing".into(), "Sleeping".into()],
            transactional_id_pattern: Some(pattern.into()),
            ..Default::default()
        };
        both.compare_all(2, &request);
    }
}

fn credentials(both: &mut Both) {
    use m::describe_user_scram_credentials_request::{DescribeUserScramCredentialsRequest, UserName};
    let user = |name: &str| UserName {
        name: name.into(),
        ..Default::default()
    };
    for users in [
        None,
        Some(Vec::new()),
        Some(["a", "b", "b", ""].map(user).to_vec()),
    ] {
        let request = DescribeUserScramCredentialsRequest {
            users,
            ..Default::default()
        };
        both.compare(0, &request, |answer| {
            answer.results.sort_by(|a, b| a.user.cmp(&b.user))
        });
    }
    use m::alter_user_scram_credentials_request as alter;
    let deletion = |name: &str, mechanism| alter::ScramCredentialDeletion {
        name: name.into(),
        mechanism,
        ..Default::default()
    };
    let upsertion = |name: &str, mechanism, iterations| alter::ScramCredentialUpsertion {
        name: name.into(),
        mechanism,
        iterations,
        ..Default::default()
    };
    let request = alter::AlterUserScramCredentialsRequest {
        deletions: vec![
            deletion("a", 1),
            deletion("b", 9),
            deletion("", 1),
            deletion("h", 1),
        ],
        upsertions: vec![
            upsertion("c", 1, 4_095),
            upsertion("d", 2, 16_385),
            upsertion("e", 7, 5_000),
            upsertion("f", 1, 5_000),
            upsertion("f", 1, 5_000),
            upsertion("h", 1, 5_000),
        ],
        ..Default::default()
    };
    both.compare(0, &request, |answer| {
        answer.results.sort_by(|a, b| a.user.cmp(&b.user))
    });
}

fn quotas(both: &mut Both) {
    use m::describe_client_quotas_request::{ComponentData, DescribeClientQuotasRequest};
    let component = |kind: &str, match_type, name: Option<&str>| ComponentData {
        entity_type: kind.into(),
        match_type,
        r#match: name.map(Str::from),
        ..Default::default()
    };
    for components in [
        vec![],
        vec![component("user", 0, Some("a"))],
        vec![component("user", 1, None), component("client-id", 2, None)],
        vec![component("foo", 0, Some("a"))],
        vec![component("user", 0, None)],
        vec![component("user", 1, Some("a"))],
        vec![component("user", 7, Some("a"))],
        vec![component("", 0, Some("a"))],
        vec![component("user", 0, Some("a")), component("user", 0, Some("b"))],
        vec![component("user", 0, Some("a")), component("ip", 0, Some("b"))],
    ] {
        let request = DescribeClientQuotasRequest {
            components,
            ..Default::default()
        };
        both.compare_all(1, &request);
    }
    use m::alter_client_quotas_request::{AlterClientQuotasRequest, EntityData, EntryData, OpData};
    let entry = |entity: &[(&str, Option<&str>)], key: &str, value, remove| EntryData {
        entity: entity
            .iter()
            .map(|(kind, name)| EntityData {
                entity_type: (*kind).into(),
                entity_name: name.map(Str::from),
                ..Default::default()
            })
            .collect(),
        ops: vec![OpData {
            key: key.into(),
            value,
            remove,
            ..Default::default()
        }],
        ..Default::default()
    };
    let user = [("user", Some("a"))];
    for entry in [
        entry(&user, "producer_byte_rate", 1.0, true),
        entry(&user, "foo", 1.0, false),
        entry(&user, "producer_byte_rate", -1.0, false),
        entry(&user, "consumer_byte_rate", 1.5, false),
        entry(&user, "connection_creation_rate", 1.0, false),
        entry(&[("foo", Some("a"))], "producer_byte_rate", 1.0, false),
        entry(&[], "producer_byte_rate", 1.0, false),
        entry(&[("user", Some(""))], "producer_byte_rate", 1.0, false),
        entry(
            &[("ip", Some("not an ip"))],
            "connection_creation_rate",
            1.0,
            false,
        ),
        entry(
            &[("ip", None), ("user", Some("a"))],
            "connection_creation_rate",
            1.0,
            false,
        ),
    ] {
        let request = AlterClientQuotasRequest {
            entries: vec![entry],
            validate_only: true,
            ..Default::default()
        };
        both.compare_all(1, &request);
    }
}

fn the_quorum(both: &mut Both) {
    use m::describe_quorum_request::{DescribeQuorumRequest, PartitionData, TopicData};
    for (topic, partition_index) in [("t", 0), ("__cluster_metadata", 1), ("__cluster_metadata", 0)] {
        let request = DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: topic.into(),
                partitions: vec![PartitionData {
                    partition_index,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        both.compare(2, &request, |answer| {
            for node in &mut answer.nodes {
                node.listeners.clear();
            }
            for partition in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                (partition.leader_epoch, partition.high_watermark) = (0, 0);
                for voter in &mut partition.current_voters {
                    voter.log_end_offset = 0;
                    (voter.last_fetch_timestamp, voter.last_caught_up_timestamp) = (0, 0);
                }
            }
        });
    }
    both.compare_all(
        0,
        &m::unregister_broker_request::UnregisterBrokerRequest {
            broker_id: 7,
            ..Default::default()
        },
    );
    use m::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
    for (feature, max_version_level, upgrade_type) in [
        ("group.version", 1, 1),
        ("group.version", 0, 1),
        ("group.version", 9, 1),
        ("group.version", -1, 1),
        ("group.version", 1, 7),
        ("foo", 1, 1),
    ] {
        let request = UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: feature.into(),
                max_version_level,
                upgrade_type,
                ..Default::default()
            }],
            validate_only: true,
            ..Default::default()
        };
        both.compare_all(1, &request);
        both.compare_all(2, &request);
    }
}

/// Changes of resources of all kinds, sound ones and others, which neither broker makes.
fn config_resources(both: &mut Both) {
    for (kind, name, key, op, value) in [
        (2, "", "retention.ms", 0, Some("1")),
        (2, "nope", "retention.ms", 0, Some("1")),
        (2, "t", "retention.ms", 0, None),
        (2, "t", "retention.ms", 2, Some("1")),
        (2, "t", "retention.ms", 3, Some("1")),
        (4, "7", "log.retention.ms", 0, Some("1")),
        (4, "x", "log.retention.ms", 0, Some("1")),
        (4, "1", "log.retention.ms", 2, Some("1")),
        (4, "1", "num.partitions", 0, Some("3")),
        (4, "", "advertised.listeners", 0, Some("PLAINTEXT://127.0.0.1:1")),
        (4, "", "ssl.keystore.location", 0, Some("x")),
        (8, "1", "no.such.logger", 0, Some("INFO")),
        (8, "1", "root", 0, Some("LOUD")),
        (8, "1", "root", 1, None),
        (8, "1", "root", 2, Some("INFO")),
        (8, "7", "root", 0, Some("INFO")),
        (8, "", "root", 0, Some("INFO")),
        (16, "", "interval.ms", 0, Some("1000")),
        (16, "m", "interval.ms", 0, Some("1000")),
        (16, "m", "interval.ms", 0, Some("10")),
        (16, "m", "interval.ms", 0, Some("abc")),
        (16, "m", "nope", 0, Some("1")),
        (16, "m", "match", 0, Some("client_id=a.*,client_software_name=b")),
        (16, "m", "match", 0, Some("foo=b")),
        (16, "m", "match", 0, Some("client_id=((")),
        (16, "m", "metrics", 2, Some("c")),
        (32, "", "consumer.session.timeout.ms", 0, Some("50000")),
        (32, "g", "consumer.session.timeout.ms", 0, Some("1")),
        (32, "g", "consumer.session.timeout.ms", 0, Some("99999999")),
        (99, "x", "foo", 0, Some("1")),
    ] {
        both.compare_all(1, &incremental(kind, name, key, op, value));
    }
    let describe = |kind, name: &str| m::describe_configs_request::DescribeConfigsRequest {
        resources: vec![m::describe_configs_request::DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    for (kind, name) in [
        (4, "7"),
        (4, "x"),
        (8, "7"),
        (8, ""),
        (16, ""),
        (16, "m"),
        (32, ""),
    ] {
        both.compare(4, &describe(kind, name), |answer| {
            for result in &mut answer.results {
                result.error_message = result.error_message.take().filter(|words| !words.is_empty());
            }
        });
    }
}

fn incremental(
    kind: i8,
    name: &str,
    key: &str,
    op: i8,
    value: Option<&str>,
) -> m::incremental_alter_configs_request::IncrementalAlterConfigsRequest {
    use m::incremental_alter_configs_request::*;
    IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configs: vec![AlterableConfig {
                name: key.into(),
                config_operation: op,
                value: value.map(Str::from),
                ..Default::default()
            }],
            ..Default::default()
        }],
        validate_only: true,
        ..Default::default()
    }
}

/// Values that some option or other does not take.
const VALUES: [&str; 20] = [
    "",
    "abc",
    "-2",
    "-1",
    "0",
    "1",
    "3",
    "0.5",
    "1.5",
    "99999999999",
    "9223372036854775808",
    "true",
    "TRUE",
    "no",
    "*",
    "0:1",
    "0:1,*",
    "delete",
    "compact,,delete",
    "zstd",
];

/// What differs, and is meant to: option, and why.
const MEANT: [(&str, &str); 2] = [
    (
        "retention.bytes",
        "Kafka takes any negative number, and all of them mean what -1 means",
    ),
    (
        "max.decompressed.message.bytes",
        "Kafka has it from the version after 4.3 on",
    ),
];

#[test]
fn values_of_topic_configs_are_taken_and_refused_as_by_kafka() {
    let scratch = Scratch::new("beside-kafka-values").expect("a folder");
    let (_kafka, _broker, mut both) = start(&scratch);
    let request = m::describe_configs_request::DescribeConfigsRequest {
        resources: vec![m::describe_configs_request::DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configuration_keys: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let options = both
        .drumlin
        .call(&request, 4)
        .expect("configs")
        .results
        .remove(0)
        .configs;
    assert!(options.len() > 25, "{}", options.len());
    for option in options {
        if MEANT.iter().any(|(name, _)| option.name == **name) {
            continue;
        }
        for value in VALUES {
            both.compare_all(1, &incremental(2, "t", &option.name, 0, Some(value)));
        }
    }
    let Both {
        asked, differences, ..
    } = both;
    assert!(
        differences.is_empty(),
        "{} of {asked}:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
