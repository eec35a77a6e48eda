//! Configs of topics and brokers: described, altered, in force at once and after a restart.

use drumlin_wire::Str;
use drumlin_wire::messages as m;
use drumlin_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use crate::harness::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn alter(
    client: &mut Client,
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
    validate_only: bool,
) -> i16 {
    let configs = changes
        .iter()
        .map(|(key, op, value)| AlterableConfig {
            name: Str::from(*key),
            config_operation: *op,
            value: value.map(Str::from),
            ..Default::default()
        })
        .collect();
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configs,
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        validate_only,
        ..Default::default()
    };
    client.call(1, &request).await.responses[0].error_code
}

/// Value and source of one option.
async fn value(client: &mut Client, kind: i8, name: &str, key: &str) -> Option<(String, i8)> {
    use m::describe_configs_request::*;
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configuration_keys: Some(vec![Str::from(key)]),
        ..Default::default()
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    let answer = client.call(4, &request).await;
    assert_eq!(answer.results[0].error_code, 0);
    let found = answer.results[0].configs.first()?;
    Some((found.value.as_ref()?.to_string(), found.config_source))
}

#[tokio::test(start_paused = true)]
async fn a_topics_configs_take_effect_at_once_and_stay() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    assert_eq!(
        value(&mut client, TOPIC, "t", "max.message.bytes").await,
        Some(("1048588".into(), 5))
    );
    assert_eq!(
        alter(
            &mut client,
            TOPIC,
            "t",
            &[("max.message.bytes", 0, Some("100"))],
            true
        )
        .await,
        0
    );
    assert_eq!(
        client.produce("t", 0, batch(&[&"x".repeat(200)])).await.0,
        0,
        "only validated"
    );
    assert_eq!(
        alter(
            &mut client,
            TOPIC,
            "t",
            &[("max.message.bytes", 0, Some("100"))],
            false
        )
        .await,
        0
    );
    assert_eq!(client.produce("t", 0, batch(&[&"x".repeat(200)])).await.0, 10);
    assert_eq!(
        value(&mut client, TOPIC, "t", "max.message.bytes").await,
        Some(("100".into(), 1))
    );

    let test = Test::on(test.kill(), &[]).await;
    let mut client = test.connect();
    assert_eq!(client.produce("t", 0, batch(&[&"x".repeat(200)])).await.0, 10);
    assert_eq!(
        alter(&mut client, TOPIC, "t", &[("max.message.bytes", 1, None)], false).await,
        0
    );
    assert_eq!(client.produce("t", 0, batch(&[&"x".repeat(200)])).await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn lists_grow_and_shrink() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    assert_eq!(
        alter(
            &mut client,
            TOPIC,
            "t",
            &[("cleanup.policy", 2, Some("compact"))],
            false
        )
        .await,
        0
    );
    assert_eq!(
        value(&mut client, TOPIC, "t", "cleanup.policy").await,
        Some(("delete,compact".into(), 1))
    );
    assert_eq!(
        alter(
            &mut client,
            TOPIC,
            "t",
            &[("cleanup.policy", 3, Some("delete"))],
            false
        )
        .await,
        0
    );
    assert_eq!(
        value(&mut client, TOPIC, "t", "cleanup.policy").await,
        Some(("compact".into(), 1))
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_altered_is_told() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    for (kind, name, key, op, given, code) in [
        (TOPIC, "t", "retention.msec", 0, Some("1"), 40),
        (TOPIC, "t", "retention.ms", 0, Some("soon"), 40),
        (TOPIC, "t", "retention.ms", 0, None, 42),
        (TOPIC, "t", "retention.ms", 2, Some("1"), 40),
        (TOPIC, "t", "retention.ms", 9, Some("1"), 42),
        (TOPIC, "u", "retention.ms", 0, Some("1"), 3),
        (BROKER, "1", "node.id", 0, Some("2"), 42),
        (BROKER, "2", "log.retention.ms", 0, Some("1"), 42),
        (BROKER, "x", "log.retention.ms", 0, Some("1"), 42),
        (8, "1", "root", 0, Some("INFO"), 40),
        (99, "1", "root", 0, Some("INFO"), 42),
    ] {
        let found = alter(&mut client, kind, name, &[(key, op, given)], false).await;
        assert_eq!(found, code, "{kind} {name} {key} {op} {given:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_brokers_configs_give_topics_their_defaults() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    for (name, size, source) in [("", "300", 3), ("1", "200", 2)] {
        assert_eq!(
            alter(
                &mut client,
                BROKER,
                name,
                &[("message.max.bytes", 0, Some(size))],
                false
            )
            .await,
            0
        );
        assert_eq!(
            value(&mut client, TOPIC, "t", "max.message.bytes").await,
            Some((size.into(), source))
        );
    }
    assert_eq!(
        value(&mut client, BROKER, "", "message.max.bytes").await,
        Some(("300".into(), 3))
    );
    assert_eq!(client.produce("t", 0, batch(&[&"x".repeat(200)])).await.0, 10);
    assert_eq!(
        alter(&mut client, BROKER, "1", &[("message.max.bytes", 1, None)], false).await,
        0
    );
    assert_eq!(client.produce("t", 0, batch(&[&"x".repeat(180)])).await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn altering_all_replaces_all() {
    use m::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource, AlterableConfig};
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client
        .create("t", 1, &[("retention.ms", "5"), ("segment.bytes", "2000000")])
        .await;
    let config = |name: &str, value: &str| AlterableConfig {
        name: Str::from(name),
        value: Some(Str::from(value)),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: Str::from("t"),
        configs: vec![config("retention.ms", "7")],
        ..Default::default()
    };
    let request = AlterConfigsRequest {
        resources: vec![resource.clone()],
        ..Default::default()
    };
    assert_eq!(client.call(2, &request).await.responses[0].error_code, 0);
    assert_eq!(
        value(&mut client, TOPIC, "t", "retention.ms").await,
        Some(("7".into(), 1))
    );
    assert_eq!(
        value(&mut client, TOPIC, "t", "segment.bytes").await.unwrap().1,
        5
    );
    let twice = AlterConfigsRequest {
        resources: vec![resource.clone(), resource],
        ..Default::default()
    };
    assert!(
        client
            .call(2, &twice)
            .await
            .responses
            .iter()
            .all(|response| response.error_code == 42)
    );
}
