//! Configs that are refused: the error codes and words of Kafka 4.3.1, which tools show and clients act upon.

use drumlin_wire::messages as m;
use drumlin_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use crate::harness::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;

/// Code and words of the answer to one change.
async fn change(
    client: &mut Client,
    (kind, name): (i8, &str),
    (key, op, value): (&str, i8, Option<&str>),
    validate_only: bool,
) -> (i16, String) {
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: vec![AlterableConfig {
            name: key.into(),
            config_operation: op,
            value: value.map(Into::into),
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        validate_only,
        ..Default::default()
    };
    let answer = client.call(1, &request).await.responses.remove(0);
    let words = answer.error_message.map(|words| words.to_string());
    (answer.error_code, words.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn values_are_refused_in_kafkas_words() {
    let test = Test::new(&[("node.id", "1")]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let replicas = |shown: &str| {
        let name = "leader.replication.throttled.replicas";
        format!(
            "Invalid value [{shown}] for configuration {name}: {name} must be the literal '*' or a list of replicas in \
             the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        )
    };
    let invalid = |value: &str, key: &str, reason: &str| {
        format!("Invalid value {value} for configuration {key}: {reason}")
    };
    for (key, value, words) in [
        ("retention.ms", "abc", invalid("abc", "retention.ms", "Not a number of type LONG")),
        ("retention.ms", "-7", invalid("-7", "retention.ms", "Value must be at least -1")),
        ("segment.bytes", "99999999999", invalid("99999999999", "segment.bytes", "Not a number of type INT")),
        ("preallocate", "no", invalid("no", "preallocate", "Expected value to be either true or false")),
        ("segment.index.bytes", "3", invalid("3", "segment.index.bytes", "Value must be at least 4")),
        (
            "compression.type",
            "foo",
            invalid(
                "foo",
                "compression.type",
                "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
        ),
        ("cleanup.policy", "foo", invalid("foo", "cleanup.policy", "String must be one of: compact, delete")),
        (
            "cleanup.policy",
            "compact,,delete",
            "Configuration 'cleanup.policy' values must not be empty.".to_owned(),
        ),
        (
            "compression.gzip.level",
            "99",
            invalid("99", "compression.gzip.level", "Value must be between 1 and 9 or equal to -1"),
        ),
        (
            "compression.zstd.level",
            "99",
            invalid("99", "compression.zstd.level", "Value must be no more than 22"),
        ),
        (
            "min.cleanable.dirty.ratio",
            "9",
            invalid("9.0", "min.cleanable.dirty.ratio", "Value must be no more than 1"),
        ),
        ("leader.replication.throttled.replicas", "none", replicas("none")),
        ("leader.replication.throttled.replicas", "0:1,*", replicas("0:1, *")),
        ("leader.replication.throttled.replicas", "a:1", replicas("a:1")),
        (
            "remote.storage.enable",
            "true",
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
                .to_owned(),
        ),
    ] {
        let told = change(&mut client, (TOPIC, "t"), (key, SET, Some(value)), true).await;
        assert_eq!(told, (INVALID_CONFIG, words), "{key}={value}");
    }
    for (key, value) in [
        ("leader.replication.throttled.replicas", "*"),
        ("follower.replication.throttled.replicas", "0:1,1:2"),
        ("cleanup.policy", "compact,compact"),
    ] {
        let told = change(&mut client, (TOPIC, "t"), (key, SET, Some(value)), true).await;
        assert_eq!(told.0, 0, "{key}={value}: {}", told.1);
    }
    // Kafka has another code for brokers.
    for (key, value, words) in [
        (
            "leader.replication.throttled.rate",
            "-1",
            invalid(
                "-1",
                "leader.replication.throttled.rate",
                "Value must be at least 0",
            ),
        ),
        (
            "num.io.threads",
            "0",
            invalid("0", "num.io.threads", "Value must be at least 1"),
        ),
        (
            "num.partitions",
            "3",
            "Cannot update these configs dynamically: [num.partitions]".to_owned(),
        ),
    ] {
        let told = change(&mut client, (BROKER, "1"), (key, SET, Some(value)), true).await;
        assert_eq!(told, (INVALID_REQUEST, words), "{key}={value}");
    }
    let told = change(
        &mut client,
        (TOPIC, "t"),
        ("retention.ms", APPEND, Some("1")),
        true,
    )
    .await;
    let words = "Can't APPEND to key retention.ms because its type is not LIST.";
    assert_eq!(told, (INVALID_CONFIG, words.to_owned()));
    let told = change(
        &mut client,
        (BROKER, "1"),
        ("log.retention.ms", APPEND, Some("1")),
        true,
    )
    .await;
    let words = "Config value append is not allowed for config key: log.retention.ms";
    assert_eq!(told, (INVALID_CONFIG, words.to_owned()));
    let told = change(
        &mut client,
        (GROUP, "g"),
        ("consumer.session.timeout.ms", SET, Some("1")),
        true,
    )
    .await;
    let words =
        "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms";
    assert_eq!(told, (INVALID_CONFIG, words.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn names_of_resources_are_checked() {
    let test = Test::new(&[("node.id", "1")]).await;
    let mut client = test.connect();
    for (resource, words) in [
        ((TOPIC, ""), "Default topic resources are not allowed."),
        ((BROKER, "7"), "Unexpected broker id, expected 1, but received 7"),
        ((BROKER, "x"), "Node id must be an integer, but it is: x"),
        ((LOGGER, "7"), "Unexpected node id. Expected 1, but received 7"),
        ((LOGGER, ""), "Node id must be an integer, but it is: "),
        ((METRICS, ""), "Subscription name can't be empty"),
        ((GROUP, ""), "Default group resources are not allowed."),
        ((99, "1"), "Unknown resource type 99"),
    ] {
        let told = change(&mut client, resource, ("retention.ms", SET, Some("1")), true).await;
        assert_eq!(told, (INVALID_REQUEST, words.to_owned()), "{resource:?}");
    }
    let told = change(&mut client, (TOPIC, "no"), ("retention.ms", SET, Some("1")), true).await;
    assert_eq!(told, (3, "The topic 'no' does not exist.".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn no_logger_has_a_level_that_can_be_changed() {
    let test = Test::new(&[("node.id", "1")]).await;
    let mut client = test.connect();
    for (key, op, value, code, words) in [
        (
            "kafka.x",
            SET,
            Some("INFO"),
            INVALID_CONFIG,
            "Logger kafka.x does not exist!",
        ),
        (
            "root",
            SET,
            Some("LOUD"),
            INVALID_CONFIG,
            "Cannot set the log level of root to LOUD as it is not a supported log level. Valid log levels are DEBUG, \
             ERROR, FATAL, INFO, TRACE, WARN",
        ),
        (
            "root",
            DELETE,
            None,
            INVALID_REQUEST,
            "Removing the log level of the root logger is not allowed",
        ),
        (
            "root",
            APPEND,
            Some("INFO"),
            INVALID_REQUEST,
            "APPEND operation is not allowed for the BROKER_LOGGER resource",
        ),
        (
            "root",
            SET,
            None,
            INVALID_REQUEST,
            "Null value not supported for : root",
        ),
    ] {
        let told = change(&mut client, (LOGGER, "1"), (key, op, value), false).await;
        assert_eq!(told, (code, words.to_owned()));
    }
    assert_eq!(describe(&mut client, LOGGER, "1").await, []);
}

/// The options of a resource: name, value, source.
async fn describe(client: &mut Client, kind: i8, name: &str) -> Vec<(String, String, i8)> {
    use m::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let result = client.call(4, &request).await.results.remove(0);
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let text = |config: &m::describe_configs_response::DescribeConfigsResourceResult| {
        let value = config.value.as_ref().map(|value| value.to_string());
        (
            config.name.to_string(),
            value.unwrap_or_default(),
            config.config_source,
        )
    };
    result.configs.iter().map(text).collect()
}

/// The names of client metrics subscriptions.
async fn subscriptions(client: &mut Client) -> Vec<String> {
    let request = m::list_config_resources_request::ListConfigResourcesRequest::default();
    let answer = client.call(0, &request).await;
    let names = answer
        .config_resources
        .iter()
        .map(|r| r.resource_name.to_string());
    names.collect()
}

#[tokio::test(start_paused = true)]
async fn client_metrics_subscriptions_are_kept() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let row = |name: &str, value: &str, source| (name.to_owned(), value.to_owned(), source);
    let defaults = [
        row("interval.ms", "300000", 5),
        row("match", "", 5),
        row("metrics", "", 5),
    ];
    assert_eq!(describe(&mut client, METRICS, "m").await, defaults);
    for (key, value) in [
        ("interval.ms", "1000"),
        ("match", "client_id=a.*"),
        ("metrics", "a,b"),
    ] {
        let told = change(&mut client, (METRICS, "m"), (key, SET, Some(value)), false).await;
        assert_eq!(told, (0, String::new()));
    }
    let store = test.kill();
    let test = Test::on(store, &[]).await;
    let mut client = test.connect();
    let set = [
        row("interval.ms", "1000", 7),
        row("match", "client_id=a.*", 7),
        row("metrics", "a,b", 7),
    ];
    assert_eq!(describe(&mut client, METRICS, "m").await, set);
    assert_eq!(subscriptions(&mut client).await, ["m"]);
    for key in ["interval.ms", "match", "metrics"] {
        assert_eq!(
            change(&mut client, (METRICS, "m"), (key, DELETE, None), false)
                .await
                .0,
            0
        );
    }
    assert!(subscriptions(&mut client).await.is_empty());
    let bounds = "interval must be between 100 and 3600000 (1 hour)";
    for (key, op, value, code, words) in [
        (
            "interval.ms",
            SET,
            "10",
            INVALID_REQUEST,
            format!("Invalid value 10 for interval.ms, {bounds}"),
        ),
        (
            "interval.ms",
            SET,
            "x",
            INVALID_CONFIG,
            "Invalid value x for configuration interval.ms: Not a number of type INT".to_owned(),
        ),
        (
            "nope",
            SET,
            "x",
            INVALID_REQUEST,
            "Unknown client metrics configuration: nope".to_owned(),
        ),
        (
            "match",
            SET,
            "nope",
            INVALID_CONFIG,
            "Illegal client matching pattern: nope".to_owned(),
        ),
        (
            "match",
            SET,
            "foo=b",
            INVALID_CONFIG,
            "Illegal client matching pattern: foo=b".to_owned(),
        ),
        (
            "match",
            SET,
            "client_id=((",
            INVALID_CONFIG,
            "Illegal client matching pattern: client_id=((".to_owned(),
        ),
        (
            "metrics",
            APPEND,
            "c",
            INVALID_CONFIG,
            "Can't APPEND to key metrics because its type is not LIST.".to_owned(),
        ),
    ] {
        let told = change(&mut client, (METRICS, "m"), (key, op, Some(value)), false).await;
        assert_eq!(told, (code, words), "{key}={value}");
    }
}
