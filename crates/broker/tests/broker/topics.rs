//! Creating, finding, growing and deleting topics.

use drumlin_broker::error_code::ErrorCode;
use drumlin_wire::messages as m;
use drumlin_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use drumlin_wire::{Str, Uuid};

use crate::harness::*;

fn plain(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: Str::from(name),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    }
}

async fn create(client: &mut Client, topics: Vec<CreatableTopic>, validate_only: bool) -> Vec<i16> {
    let request = CreateTopicsRequest {
        topics,
        timeout_ms: 5_000,
        validate_only,
        ..Default::default()
    };
    client
        .call(7, &request)
        .await
        .topics
        .iter()
        .map(|topic| topic.error_code)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_created_is_told() {
    use ErrorCode::{
        InvalidConfig, InvalidPartitions, InvalidReplicaAssignment, InvalidReplicationFactor, InvalidRequest,
        InvalidTopic, PolicyViolation, TopicAlreadyExists,
    };
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("a.b", 1, &[]).await;
    let config = |name: &str, value: Option<&str>| CreatableTopicConfig {
        name: Str::from(name),
        value: value.map(Str::from),
        ..Default::default()
    };
    let assign = |partition, brokers: &[i32]| CreatableReplicaAssignment {
        partition_index: partition,
        broker_ids: brokers.to_vec(),
        ..Default::default()
    };
    let assigned = |assignments| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments,
        ..plain("n")
    };
    for (topic, code) in [
        (plain(""), InvalidTopic),
        (plain(".."), InvalidTopic),
        (plain("a b"), InvalidTopic),
        (plain(&"x".repeat(250)), InvalidTopic),
        (plain("a_b"), InvalidTopic),
        (plain("a.b"), TopicAlreadyExists),
        (plain("__cluster_metadata"), InvalidRequest),
        (
            CreatableTopic {
                num_partitions: 0,
                ..plain("n")
            },
            InvalidPartitions,
        ),
        (
            CreatableTopic {
                num_partitions: -2,
                ..plain("n")
            },
            InvalidPartitions,
        ),
        (
            CreatableTopic {
                num_partitions: i32::MAX,
                ..plain("n")
            },
            PolicyViolation,
        ),
        (
            CreatableTopic {
                replication_factor: 0,
                ..plain("n")
            },
            InvalidReplicationFactor,
        ),
        (
            CreatableTopic {
                replication_factor: i16::MIN,
                ..plain("n")
            },
            InvalidReplicationFactor,
        ),
        (
            CreatableTopic {
                configs: vec![config("retention.msec", Some("1"))],
                ..plain("n")
            },
            InvalidConfig,
        ),
        (
            CreatableTopic {
                configs: vec![config("retention.ms", Some("x"))],
                ..plain("n")
            },
            InvalidConfig,
        ),
        (
            CreatableTopic {
                configs: vec![config("retention.ms", None)],
                ..plain("n")
            },
            InvalidConfig,
        ),
        (
            CreatableTopic {
                assignments: vec![assign(0, &[1])],
                ..plain("n")
            },
            InvalidRequest,
        ),
        (assigned(vec![assign(1, &[1])]), InvalidReplicaAssignment),
        (
            assigned(vec![assign(0, &[1]), assign(0, &[1])]),
            InvalidReplicaAssignment,
        ),
        (assigned(vec![assign(0, &[])]), InvalidReplicaAssignment),
        (assigned(vec![assign(0, &[2])]), InvalidReplicaAssignment),
        (assigned(vec![assign(0, &[1, 1])]), InvalidReplicaAssignment),
        (assigned(vec![assign(1, &[1]), assign(0, &[1])]), ErrorCode::None),
    ] {
        for validate_only in [true, false] {
            let shown = format!("{topic:?}");
            assert_eq!(
                create(&mut client, vec![topic.clone()], validate_only).await,
                [code.code()],
                "{shown}"
            );
        }
    }
    assert_eq!(
        create(
            &mut client,
            vec![plain("twice"), plain("twice"), plain("once")],
            false
        )
        .await,
        [42, 0]
    );
    assert_eq!(
        create(&mut client, vec![plain("c.d"), plain("c_d")], false).await,
        [0, 17]
    );
}

#[tokio::test(start_paused = true)]
async fn any_replication_factor_is_taken() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    for factor in [-1, 1, 3, i16::MAX] {
        let topic = CreatableTopic {
            replication_factor: factor,
            ..plain(&format!("t{factor}"))
        };
        assert_eq!(create(&mut client, vec![topic], false).await, [0]);
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_metadata_creates_topics_where_that_is_wanted() {
    use m::metadata_request::{MetadataRequest, MetadataRequestTopic};
    let named = |name: &str| MetadataRequestTopic {
        name: Some(Str::from(name)),
        ..Default::default()
    };
    let test = Test::new(&[("num.partitions", "3")]).await;
    let mut client = test.connect();
    let request = |names: &[&str], create| MetadataRequest {
        topics: Some(names.iter().map(|name| named(name)).collect()),
        allow_auto_topic_creation: create,
        ..Default::default()
    };
    let codes = |answer: m::metadata_response::MetadataResponse| -> Vec<(i16, usize)> {
        answer
            .topics
            .iter()
            .map(|topic| (topic.error_code, topic.partitions.len()))
            .collect()
    };
    assert_eq!(codes(client.call(12, &request(&["a"], false)).await), [(3, 0)]);
    assert_eq!(
        codes(client.call(12, &request(&["a", "b c", "a"], true)).await),
        [(0, 3), (17, 0)]
    );
    assert_eq!(client.produce("a", 2, batch(&["at once"])).await, (0, 0));
    assert_eq!(codes(client.call(0, &request(&["old"], true)).await), [(0, 3)]);
    let all = client
        .call(
            12,
            &MetadataRequest {
                topics: None,
                ..Default::default()
            },
        )
        .await;
    assert_eq!(codes(all), [(0, 3), (0, 3)]);
    assert_eq!(codes(client.call(12, &request(&[], true)).await), []);
    let by_id = MetadataRequestTopic {
        topic_id: Uuid([3; 16]),
        name: None,
        ..Default::default()
    };
    let unknown = MetadataRequest {
        topics: Some(vec![by_id.clone()]),
        ..Default::default()
    };
    assert_eq!(codes(client.call(12, &unknown).await), [(100, 0)]);
    // Version 10 has ids in its fields and no meaning for them yet.
    let early = MetadataRequestTopic {
        name: Some(Str::from("x")),
        ..by_id
    };
    let early = MetadataRequest {
        topics: Some(vec![early]),
        ..Default::default()
    };
    assert_eq!(codes(client.call(10, &early).await), [(42, 0)]);

    let test = Test::new(&[("auto.create.topics.enable", "false")]).await;
    assert_eq!(
        codes(test.connect().call(12, &request(&["a"], true)).await),
        [(3, 0)]
    );
}

#[tokio::test(start_paused = true)]
async fn topics_grow_and_never_shrink() {
    use m::create_partitions_request::*;
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 2, &[]).await;
    let assignment = |brokers: &[i32]| CreatePartitionsAssignment {
        broker_ids: brokers.to_vec(),
        ..Default::default()
    };
    for (name, count, assignments, validate_only, code) in [
        ("t", 2, None, false, 37),
        ("t", 1, None, false, 37),
        ("t", -1, None, false, 37),
        ("t", i32::MAX, None, false, 37),
        ("u", 3, None, false, 3),
        ("t", 4, Some(vec![assignment(&[1])]), false, 39),
        ("t", 3, Some(vec![assignment(&[7])]), false, 39),
        ("t", 4, None, true, 0),
        ("t", 3, Some(vec![assignment(&[1])]), false, 0),
        ("t", 4, None, false, 0),
    ] {
        let topic = CreatePartitionsTopic {
            name: Str::from(name),
            count,
            assignments,
            ..Default::default()
        };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: 1_000,
            validate_only,
            ..Default::default()
        };
        assert_eq!(
            client.call(3, &request).await.results[0].error_code,
            code,
            "{name} {count}"
        );
    }
    assert_eq!(client.produce("t", 3, batch(&["x"])).await, (0, 0));
    assert_eq!(client.produce("t", 4, batch(&["x"])).await.0, 3);
}

#[tokio::test(start_paused = true)]
async fn deleting_takes_names_or_ids_and_frees_the_name() {
    use m::delete_topics_request::*;
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let id = client.create("t", 1, &[]).await;
    client.produce("t", 0, batch(&["old"])).await;
    let named = |name: Option<&str>, id| DeleteTopicState {
        name: name.map(Str::from),
        topic_id: id,
        ..Default::default()
    };
    let codes = |answer: m::delete_topics_response::DeleteTopicsResponse| -> Vec<i16> {
        answer.responses.iter().map(|topic| topic.error_code).collect()
    };
    let delete = |topics| DeleteTopicsRequest {
        topics,
        timeout_ms: 1_000,
        ..Default::default()
    };
    let zero = Uuid::default();
    let bad = vec![
        named(Some("u"), zero),
        named(None, Uuid([5; 16])),
        named(Some("t"), id),
        named(None, zero),
    ];
    assert_eq!(codes(client.call(6, &delete(bad)).await), [3, 100, 42, 42]);
    let twice = vec![named(Some("t"), zero), named(None, id)];
    assert_eq!(codes(client.call(6, &delete(twice)).await), [42, 42]);
    let answer = client.call(6, &delete(vec![named(None, id)])).await;
    assert_eq!(answer.responses[0].name, Some(Str::from("t")));
    assert_eq!(codes(answer), [0]);
    assert_eq!(client.produce("t", 0, batch(&["x"])).await.0, 3);
    let again = client.create("t", 1, &[]).await;
    assert_ne!(again, id);
    assert_eq!(
        client.produce("t", 0, batch(&["new"])).await,
        (0, 0),
        "nothing of the old topic is left"
    );

    let test = Test::new(&[("delete.topic.enable", "false")]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    assert_eq!(
        codes(client.call(6, &delete(vec![named(Some("t"), zero)])).await),
        [73]
    );
}

#[tokio::test(start_paused = true)]
async fn topics_are_described_page_by_page() {
    use m::describe_topic_partitions_request::*;
    let test = Test::new(&[("max.request.partition.size.limit", "5")]).await;
    let mut client = test.connect();
    for (name, partitions) in [("a", 3), ("b", 3), ("c", 1)] {
        client.create(name, partitions, &[]).await;
    }
    let mut cursor = None;
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 2_000,
            cursor: cursor.take(),
            ..Default::default()
        };
        let answer = client.call(0, &request).await;
        pages += 1;
        for topic in &answer.topics {
            let name = topic.name.clone().unwrap();
            seen.extend(
                topic
                    .partitions
                    .iter()
                    .map(|part| (name.to_string(), part.partition_index)),
            );
        }
        match answer.next_cursor {
            None => break,
            Some(next) => {
                cursor = Some(Cursor {
                    topic_name: next.topic_name,
                    partition_index: next.partition_index,
                    ..Default::default()
                });
            }
        }
    }
    let expected = [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
        ("b", 2),
        ("c", 0),
    ];
    assert_eq!(
        seen,
        expected.map(|(name, partition)| (name.to_owned(), partition))
    );
    assert_eq!(pages, 2);
    let unknown = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest {
            name: Str::from("nowhere"),
            ..Default::default()
        }],
        response_partition_limit: i32::MIN,
        ..Default::default()
    };
    assert_eq!(client.call(0, &unknown).await.topics[0].error_code, 3);
}
