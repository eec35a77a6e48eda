//! Topics and their configurations.

use drumlin_wire::Uuid;
use drumlin_wire::messages::alter_configs_request::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig,
};
use drumlin_wire::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use drumlin_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use drumlin_wire::messages::create_topics_response::CreateTopicsResponse;
use drumlin_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use drumlin_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use drumlin_wire::messages::describe_log_dirs_request::{DescribableLogDirTopic, DescribeLogDirsRequest};
use drumlin_wire::messages::describe_topic_partitions_request::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use drumlin_wire::messages::incremental_alter_configs_request as incremental;
use drumlin_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};

use super::{NO_SUCH_ID, Pair, Side};

/// Type of the resource that a topic's configuration is.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

pub(super) fn ask_all(pair: &mut Pair) -> anyhow::Result<()> {
    pair.create_topic("topics", 2, &[])?;
    create(pair)?;
    create_partitions(pair)?;
    metadata(pair)?;
    describe_topic_partitions(pair)?;
    alter_incrementally(pair)?;
    alter_configs(pair)?;
    describe_configs(pair)?;
    log_dirs(pair)?;
    delete(pair)
}

fn new_topic(name: String) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    }
}

fn create(pair: &mut Pair) -> anyhow::Result<()> {
    type Change = fn(&mut CreatableTopic);
    let config = |name: &'static str, value: Option<&'static str>| CreatableTopicConfig {
        name: name.into(),
        value: value.map(Into::into),
        ..Default::default()
    };
    let cases: [(&str, bool, Change); 9] = [
        ("a topic", false, |_| {}),
        ("a topic, only to validate", true, |_| {}),
        ("a topic that exists", false, |t| t.name = "topics".into()),
        ("an illegal name", false, |t| t.name = "no/name".into()),
        ("an empty name", false, |t| t.name = "".into()),
        ("no partitions", false, |t| t.num_partitions = 0),
        ("no replicas", false, |t| t.replication_factor = 0),
        ("an assignment beside a number", false, |t| {
            t.assignments = vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![1],
                ..Default::default()
            }];
        }),
        ("an assignment to no broker there is", false, |t| {
            (t.num_partitions, t.replication_factor) = (-1, -1);
            t.assignments = vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![99],
                ..Default::default()
            }];
        }),
    ];
    // Each broker has options of its own; those that both list are compared by DescribeConfigs.
    let leave_out = |answer: &mut CreateTopicsResponse| {
        for topic in &mut answer.topics {
            if let Some(configs) = &mut topic.configs {
                configs.retain(|config| config.name.as_str() == "retention.ms");
            }
        }
    };
    for (n, (what, validate_only, change)) in cases.into_iter().enumerate() {
        let request = |_: &Side, version: i16| {
            let mut topic = new_topic(format!("created-{n}-{version}"));
            change(&mut topic);
            CreateTopicsRequest {
                topics: vec![topic],
                timeout_ms: 20_000,
                validate_only,
                ..Default::default()
            }
        };
        pair.ask_but(what, request, leave_out)?;
    }
    let refused = [
        ("an option that is none", config("no.such.option", Some("1"))),
        ("a value that is none", config("retention.ms", Some("much"))),
        ("a null value", config("retention.ms", None)),
    ];
    for (n, (what, config)) in refused.into_iter().enumerate() {
        let request = |_: &Side, version: i16| {
            let mut topic = new_topic(format!("refused-{n}-{version}"));
            topic.configs = vec![config.clone()];
            CreateTopicsRequest {
                topics: vec![topic],
                timeout_ms: 20_000,
                ..Default::default()
            }
        };
        pair.ask_but(what, request, leave_out)?;
    }
    let request = |_: &Side, _: i16| CreateTopicsRequest {
        topics: vec![new_topic("twice".to_owned()), new_topic("twice".to_owned())],
        timeout_ms: 20_000,
        ..Default::default()
    };
    pair.ask_but("a topic twice", request, leave_out)?;
    Ok(())
}

fn create_partitions(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, topic, count, validate_only) in [
        ("only to validate", "topics", 3, true),
        ("as many as there are", "topics", 2, false),
        ("fewer than there are", "topics", 1, false),
        ("a negative number", "topics", -1, false),
        ("an unknown topic", "nowhere", 3, false),
    ] {
        let request = |_: &Side, _: i16| CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: topic.into(),
                count,
                ..Default::default()
            }],
            timeout_ms: 20_000,
            validate_only,
            ..Default::default()
        };
        pair.ask(what, request)?;
    }
    pair.create_topic("growing", 1, &[])?;
    let request = |_: &Side, version: i16| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: "growing".into(),
            count: 2 + i32::from(version),
            ..Default::default()
        }],
        timeout_ms: 20_000,
        ..Default::default()
    };
    pair.ask("more partitions", request)?;
    Ok(())
}

fn metadata(pair: &mut Pair) -> anyhow::Result<()> {
    for name in ["topics", "nowhere", "no/name", ""] {
        let request = |_: &Side, version: i16| MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(name.into()),
                ..Default::default()
            }]),
            allow_auto_topic_creation: version < 4,
            ..Default::default()
        };
        pair.ask(&format!("topic {name:?}"), request)?;
    }
    for version in 12..=13 {
        for (what, of) in [
            (
                "a topic by its id",
                (|side| side.topic_id("topics")) as fn(&Side) -> Uuid,
            ),
            ("an id that no topic has", |_| NO_SUCH_ID),
        ] {
            let request = move |side: &Side, _: i16| MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    topic_id: of(side),
                    name: None,
                    ..Default::default()
                }]),
                ..Default::default()
            };
            pair.ask_in(version, what, &request, &|_| {})?;
        }
    }
    let none = |_: &Side, version: i16| MetadataRequest {
        // No topics at all; version 0 has no way to ask for none.
        topics: (version >= 1)
            .then(Vec::new)
            .or_else(|| Some(vec![named("topics")])),
        ..Default::default()
    };
    pair.ask("no topics", none)?;
    Ok(())
}

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: Some(name.into()),
        ..Default::default()
    }
}

fn describe_topic_partitions(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, topics, limit, cursor) in [
        ("all of a topic", vec!["topics"], 100, None),
        ("one of two partitions", vec!["topics"], 1, None),
        ("the rest", vec!["topics"], 100, Some(("topics", 1))),
        ("an unknown topic", vec!["nowhere"], 100, None),
        ("an illegal name", vec!["no/name"], 100, None),
    ] {
        let request = |_: &Side, _: i16| DescribeTopicPartitionsRequest {
            topics: topics
                .iter()
                .map(|name| TopicRequest {
                    name: (*name).into(),
                    ..Default::default()
                })
                .collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(topic, partition)| Cursor {
                topic_name: topic.into(),
                partition_index: partition,
                ..Default::default()
            }),
            ..Default::default()
        };
        pair.ask(what, request)?;
    }
    Ok(())
}

fn alter_incrementally(pair: &mut Pair) -> anyhow::Result<()> {
    let set_retention =
        |_: &Side, _: i16| incremental_of(TOPIC, "topics", "retention.ms", 0, Some("7200000"));
    pair.ask("set", set_retention)?;
    for (what, kind, resource, option, operation, value) in [
        ("delete", TOPIC, "topics", "segment.ms", 1, None),
        (
            "append to what is no list",
            TOPIC,
            "topics",
            "retention.ms",
            2,
            Some("1"),
        ),
        (
            "a value that is none",
            TOPIC,
            "topics",
            "retention.ms",
            0,
            Some("much"),
        ),
        ("a null value", TOPIC, "topics", "retention.ms", 0, None),
        (
            "an option that is none",
            TOPIC,
            "topics",
            "no.such.option",
            0,
            Some("1"),
        ),
        ("an unknown topic", TOPIC, "nowhere", "retention.ms", 0, Some("1")),
        (
            "an unknown broker",
            BROKER,
            "99",
            "log.retention.ms",
            0,
            Some("1"),
        ),
        (
            "a broker that is no number",
            BROKER,
            "x",
            "log.retention.ms",
            0,
            Some("1"),
        ),
        ("a type that is none", 99, "x", "x", 0, Some("1")),
    ] {
        let request = |_: &Side, _: i16| incremental_of(kind, resource, option, operation, value);
        pair.ask(what, request)?;
    }
    Ok(())
}

fn alter_configs(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, resource, option, value) in [
        ("set", "topics", "retention.ms", Some("7200000")),
        ("a value that is none", "topics", "retention.ms", Some("much")),
        ("a null value", "topics", "retention.ms", None),
        ("an option that is none", "topics", "no.such.option", Some("1")),
        ("an unknown topic", "nowhere", "retention.ms", Some("1")),
    ] {
        let request = |_: &Side, _: i16| AlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: resource.into(),
                configs: vec![AlterableConfig {
                    name: option.into(),
                    value: value.map(Into::into),
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

fn describe_configs(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, kind, resource, option) in [
        ("a topic's option", TOPIC, "topics", "retention.ms"),
        ("a topic's option of a list", TOPIC, "topics", "cleanup.policy"),
        (
            "an option without a default",
            TOPIC,
            "topics",
            "leader.replication.throttled.replicas",
        ),
        ("an option that is none", TOPIC, "topics", "no.such.option"),
        ("an unknown topic", TOPIC, "nowhere", "retention.ms"),
        ("an illegal name", TOPIC, "no/name", "retention.ms"),
        ("a broker's option", BROKER, "1", "auto.create.topics.enable"),
        ("an unknown broker", BROKER, "99", "auto.create.topics.enable"),
        (
            "a broker that is no number",
            BROKER,
            "x",
            "auto.create.topics.enable",
        ),
        ("a type that is none", 99, "x", "x"),
    ] {
        let request = |_: &Side, version: i16| DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: kind,
                resource_name: resource.into(),
                configuration_keys: Some(vec![option.into()]),
                ..Default::default()
            }],
            include_synonyms: version == 2,
            ..Default::default()
        };
        pair.ask_but(what, request, |answer| {
            // For an option with several units Kafka does not list the default of the others.
            for config in answer.results.iter_mut().flat_map(|result| &mut result.configs) {
                config
                    .synonyms
                    .retain(|s| s.name.as_str() != "log.retention.hours");
            }
        })?;
    }
    Ok(())
}

fn incremental_of(
    kind: i8,
    resource: &str,
    option: &str,
    operation: i8,
    value: Option<&str>,
) -> incremental::IncrementalAlterConfigsRequest {
    incremental::IncrementalAlterConfigsRequest {
        resources: vec![incremental::AlterConfigsResource {
            resource_type: kind,
            resource_name: resource.into(),
            configs: vec![incremental::AlterableConfig {
                name: option.into(),
                config_operation: operation,
                value: value.map(Into::into),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn log_dirs(pair: &mut Pair) -> anyhow::Result<()> {
    for topic in ["topics", "nowhere"] {
        let request = |_: &Side, _: i16| DescribeLogDirsRequest {
            topics: Some(vec![DescribableLogDirTopic {
                topic: topic.into(),
                partitions: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        };
        pair.ask(&format!("topic {topic}"), request)?;
    }
    Ok(())
}

fn delete(pair: &mut Pair) -> anyhow::Result<()> {
    for version in 1..=6 {
        pair.create_topic(&format!("doomed-{version}"), 1, &[])?;
    }
    let by_name = |name: String, version: i16| {
        let state = DeleteTopicState {
            name: Some(name.as_str().into()),
            ..Default::default()
        };
        DeleteTopicsRequest {
            topics: if version >= 6 { vec![state] } else { Vec::new() },
            topic_names: if version < 6 {
                vec![name.into()]
            } else {
                Vec::new()
            },
            timeout_ms: 20_000,
            ..Default::default()
        }
    };
    pair.ask("a topic", |_, version| {
        by_name(format!("doomed-{version}"), version)
    })?;
    pair.ask("an unknown topic", |_, version| {
        by_name("nowhere".to_owned(), version)
    })?;
    let by_id = |_: &Side, _: i16| DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: None,
            topic_id: NO_SUCH_ID,
            ..Default::default()
        }],
        timeout_ms: 20_000,
        ..Default::default()
    };
    pair.ask_in(6, "an id that no topic has", &by_id, &|_| {})?;
    Ok(())
}
