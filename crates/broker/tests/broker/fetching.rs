//! Fetch: waiting, limits, sessions, epochs.

use std::time::Duration;

use drumlin_broker::error_code::ErrorCode;
use drumlin_wire::messages as m;
use drumlin_wire::messages::fetch_request::FetchRequest;
use drumlin_wire::{Str, Uuid};
use tokio::time::Instant;

use crate::harness::*;

fn bytes_of(answer: &m::fetch_response::FetchResponse) -> Vec<(i32, usize)> {
    let parts = answer.responses.iter().flat_map(|topic| &topic.partitions);
    parts
        .map(|part| {
            (
                part.partition_index,
                part.records.as_ref().map_or(0, |records| records.len()),
            )
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_empty_fetch_waits_and_ends_with_the_first_record() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let began = Instant::now();
    let empty = client.call(11, &fetch_request("t", &[(0, 0)], 500, 1)).await;
    assert_eq!(bytes_of(&empty), [(0, 0)]);
    assert!(began.elapsed() >= Duration::from_millis(500) && began.elapsed() < Duration::from_millis(600));

    let mut consumer = test.connect();
    let id = consumer.send(11, &fetch_request("t", &[(0, 0)], 60_000, 1)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    client.produce("t", 0, batch(&["x"])).await;
    let full = consumer.receive::<FetchRequest>(11, id).await;
    assert!(bytes_of(&full)[0].1 > 0);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_its_minimum() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 2, &[]).await;
    let one = batch(&["x"]).len() as i32;
    let mut consumer = test.connect();
    let id = consumer
        .send(11, &fetch_request("t", &[(0, 0), (1, 0)], 60_000, 2 * one))
        .await;
    client.produce("t", 0, batch(&["x"])).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began = Instant::now();
    client.produce("t", 1, batch(&["y"])).await;
    let both = consumer.receive::<FetchRequest>(11, id).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(bytes_of(&both), [(0, one as usize), (1, one as usize)]);
}

#[tokio::test(start_paused = true)]
async fn at_least_one_batch_comes_whatever_the_limits() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 40, &[]).await;
    let big = "x".repeat(5_000);
    for partition in [3, 25] {
        for _ in 0..3 {
            client.produce("t", partition, batch(&[&big])).await;
        }
    }
    let partitions: Vec<(i32, i64)> = (0..40).map(|partition| (partition, 0)).collect();
    let mut request = fetch_request("t", &partitions, 0, 1);
    request.max_bytes = 10;
    let sizes = |answer: &_| -> Vec<_> {
        bytes_of(answer)
            .into_iter()
            .filter(|(_, size)| *size > 0)
            .collect()
    };
    let one = batch(&[&big]).len();
    assert_eq!(sizes(&client.call(11, &request).await), [(3, one)]);
    request.max_bytes = 1 << 20;
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = one as i32 + 5;
    }
    assert_eq!(sizes(&client.call(11, &request).await), [(3, one), (25, one)]);
}

#[tokio::test(start_paused = true)]
async fn offsets_out_of_range_and_strange_numbers() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    client.produce("t", 0, batch(&["a", "b", "c"])).await;
    assert_eq!(client.fetch("t", 0, 3).await.error_code, 0);
    for offset in [4, -1, i64::MAX, i64::MIN] {
        let part = client.fetch("t", 0, offset).await;
        assert_eq!(part.error_code, ErrorCode::OffsetOutOfRange.code(), "{offset}");
    }
    // The whole batch that contains the offset.
    let part = client.fetch("t", 0, 2).await;
    assert_eq!(part.records.unwrap().len(), batch(&["a", "b", "c"]).len());
    let mut request = fetch_request("t", &[(0, 0)], i32::MIN, i32::MIN);
    request.max_bytes = i32::MIN;
    request.topics[0].partitions[0].partition_max_bytes = i32::MIN;
    assert!(bytes_of(&client.call(11, &request).await)[0].1 > 0);
    for (topic, partition) in [("t", 1), ("t", -1), ("nowhere", 0)] {
        let part = client.fetch(topic, partition, 0).await;
        assert_eq!(part.error_code, ErrorCode::UnknownTopicOrPartition.code());
    }
    let mut request = fetch_request("", &[(0, 0)], 0, 0);
    request.topics[0].topic_id = Uuid([1; 16]);
    let answer = client.call(13, &request).await;
    assert_eq!(
        answer.responses[0].partitions[0].error_code,
        ErrorCode::UnknownTopicId.code()
    );
}

#[tokio::test(start_paused = true)]
async fn leader_epochs_are_checked() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    client.produce("t", 0, batch(&["x"])).await;
    let store = test.kill();
    let test = Test::on(store, &[]).await;
    let mut client = test.connect();
    for (epoch, code) in [
        (-1, ErrorCode::None),
        (0, ErrorCode::FencedLeaderEpoch),
        (1, ErrorCode::None),
        (2, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut request = fetch_request("t", &[(0, 0)], 0, 1);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = client.call(11, &request).await;
        assert_eq!(
            answer.responses[0].partitions[0].error_code,
            code.code(),
            "epoch {epoch}"
        );
    }
    client.produce("t", 0, batch(&["y"])).await;
    let mut request = fetch_request("t", &[(0, 5)], 0, 1);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let answer = client.call(12, &request).await;
    let diverging = &answer.responses[0].partitions[0].diverging_epoch;
    assert_eq!((diverging.epoch, diverging.end_offset), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn sessions_tell_only_what_is_new() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let id = client.create("t", 3, &[]).await;
    let in_session = |session, epoch, partitions: &[(i32, i64)]| {
        let mut request = fetch_request("", partitions, 0, 0);
        request.topics[0].topic_id = id;
        if partitions.is_empty() {
            request.topics.clear();
        }
        request.session_id = session;
        request.session_epoch = epoch;
        request
    };
    let full = client
        .call(13, &in_session(0, 0, &[(0, 0), (1, 0), (2, 0)]))
        .await;
    let session = full.session_id;
    assert_ne!(session, 0);
    assert_eq!(bytes_of(&full), [(0, 0), (1, 0), (2, 0)]);
    let same = client.call(13, &in_session(session, 1, &[])).await;
    assert_eq!(
        (same.error_code, same.session_id, bytes_of(&same)),
        (0, session, vec![])
    );
    client.produce("t", 1, batch(&["x"])).await;
    let news = client.call(13, &in_session(session, 2, &[])).await;
    assert_eq!(bytes_of(&news), [(1, batch(&["x"]).len())]);
    // Told again until the client moves on.
    let again = client.call(13, &in_session(session, 3, &[(1, 1)])).await;
    assert_eq!(bytes_of(&again), []);
    let mut forget = in_session(session, 4, &[]);
    forget.forgotten_topics_data = vec![m::fetch_request::ForgottenTopic {
        topic_id: id,
        partitions: vec![1],
        ..Default::default()
    }];
    client.call(13, &forget).await;
    client.produce("t", 1, batch(&["y"])).await;
    assert_eq!(bytes_of(&client.call(13, &in_session(session, 5, &[])).await), []);

    let stale = client.call(13, &in_session(session, 5, &[])).await;
    assert_eq!(
        (stale.error_code, stale.session_id),
        (ErrorCode::InvalidFetchSessionEpoch.code(), 0)
    );
    let unknown = client.call(13, &in_session(session ^ 1, 1, &[])).await;
    assert_eq!(unknown.error_code, ErrorCode::FetchSessionIdNotFound.code());
    let named = FetchRequest {
        session_id: session,
        session_epoch: 6,
        ..fetch_request("t", &[(0, 0)], 0, 0)
    };
    assert_eq!(
        client.call(12, &named).await.error_code,
        ErrorCode::FetchSessionTopicIdError.code()
    );
    client.call(13, &in_session(session, -1, &[])).await;
    let ended = client.call(13, &in_session(session, 6, &[])).await;
    assert_eq!(ended.error_code, ErrorCode::FetchSessionIdNotFound.code());
}

#[tokio::test(start_paused = true)]
async fn partitions_take_turns() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 3, &[]).await;
    let big = "x".repeat(1_000);
    for partition in 0..3 {
        for _ in 0..5 {
            client.produce("t", partition, batch(&[&big])).await;
        }
    }
    let mut request = fetch_request("t", &[(0, 0), (1, 0), (2, 0)], 0, 1);
    request.max_bytes = 10;
    request.session_epoch = 0;
    let mut answer = client.call(11, &request).await;
    let mut served = Vec::new();
    for epoch in 1..=6 {
        served.extend(
            bytes_of(&answer)
                .into_iter()
                .filter(|(_, size)| *size > 0)
                .map(|(partition, _)| partition),
        );
        let next = FetchRequest {
            session_id: answer.session_id,
            session_epoch: epoch,
            topics: Vec::new(),
            ..request.clone()
        };
        answer = client.call(11, &next).await;
    }
    assert_eq!(served, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_ends_waiting() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let mut consumer = test.connect();
    let id = consumer
        .send(11, &fetch_request("t", &[(0, 0)], 600_000, 1))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let request = m::delete_topics_request::DeleteTopicsRequest {
        topic_names: vec![Str::from("t")],
        timeout_ms: 1_000,
        ..Default::default()
    };
    assert_eq!(client.call(5, &request).await.responses[0].error_code, 0);
    let began = Instant::now();
    let answer = consumer.receive::<FetchRequest>(11, id).await;
    assert_eq!(
        answer.responses[0].partitions[0].error_code,
        ErrorCode::UnknownTopicOrPartition.code()
    );
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn fetches_of_very_many_partitions_take_turns() {
    let test = Test::new(&[]).await;
    test.connect().create("t", 1, &[]).await;
    let partitions: Vec<(i32, i64)> = (0..100_000).map(|partition| (partition, 0)).collect();
    let mut clients: Vec<Client> = (0..8).map(|_| test.connect()).collect();
    let request = fetch_request("t", &partitions, i32::MAX, 1);
    let mut ids = Vec::new();
    for client in &mut clients {
        ids.push(client.send(11, &request).await);
    }
    for (client, id) in clients.iter_mut().zip(ids) {
        let answer = client.receive::<FetchRequest>(11, id).await;
        assert_eq!(answer.responses[0].partitions.len(), partitions.len());
    }
    let part = test.connect().fetch("t", 0, 0).await;
    assert_eq!(part.error_code, 0);
}
