//! Starts, stops and takeovers.

use std::sync::Arc;
use std::time::Duration;

use drumlin_broker::ExitReason;
use drumlin_objects::object_store::memory::InMemory;
use drumlin_wire::messages as m;

use crate::harness::*;

/// A start on what the life before left, if there was one.
async fn next_life(store: Option<Arc<InMemory>>) -> Test {
    match store {
        Some(store) => Test::on(store, &[]).await,
        None => Test::new(&[]).await,
    }
}

async fn values(client: &mut Client, topic: &str) -> usize {
    let part = client.fetch(topic, 0, 0).await;
    assert_eq!(part.error_code, 0);
    usize::try_from(part.high_watermark).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_outlives_the_process() {
    let mut store = None;
    let mut written = 0;
    for life in 0..5 {
        let test = next_life(store.take()).await;
        let mut client = test.connect();
        if life == 0 {
            client.create("t", 1, &[]).await;
        }
        assert_eq!(values(&mut client, "t").await, written);
        for _ in 0..3 {
            assert_eq!(client.produce("t", 0, batch(&["x"])).await, (0, written as i64));
            written += 1;
        }
        let part = client.fetch("t", 0, 0).await;
        assert_eq!(part.records.unwrap().len(), written * batch(&["x"]).len());
        if life % 2 == 0 {
            assert!(test.broker.shutdown().await);
        }
        store = Some(test.kill());
    }
    assert_eq!(panics(), 0);
}

/// Each start is an incarnation of its own, of which the metadata knows until nothing of it is needed.
#[tokio::test(start_paused = true)]
async fn the_metadata_does_not_grow_with_starts() {
    let mut store = None;
    let (mut written, mut most) = (0, 0);
    for life in 0..150 {
        let test = next_life(store.take()).await;
        let mut client = test.connect();
        if life == 0 {
            client.create("t", 1, &[]).await;
        }
        assert_eq!(values(&mut client, "t").await, written, "life {life}");
        // Lives with and without new records, clean stops and crashes; and some that are too short for a sweep.
        if life % 3 != 0 {
            assert_eq!(client.produce("t", 0, batch(&["x"])).await, (0, written as i64));
            written += 1;
        }
        if life % 4 != 3 {
            tokio::time::sleep(Duration::from_secs(150)).await;
        }
        most = most.max(test.broker.shared().metadata.image().incarnations.len());
        if life % 2 == 0 {
            assert!(test.broker.shutdown().await);
        }
        store = Some(test.kill());
    }
    // Sixty bundles, each in the folder of the start that wrote it, are merged into one.
    assert!((30..=65).contains(&most), "{most} incarnations");
    let test = Test::on(store.unwrap(), &[]).await;
    // After a day what is in bundles becomes a segment.
    tokio::time::sleep(Duration::from_secs(26 * 3600)).await;
    let mut client = test.connect();
    assert_eq!(client.produce("t", 0, batch(&["x"])).await, (0, written as i64));
    tokio::time::sleep(Duration::from_secs(150)).await;
    let test = Test::on(test.kill(), &[]).await;
    tokio::time::sleep(Duration::from_secs(150)).await;
    let left = test.broker.shared().metadata.image().incarnations.len();
    assert!(left <= 2, "{left} incarnations");
    let mut client = test.connect();
    let part = client.fetch("t", 0, 0).await;
    assert_eq!(part.records.unwrap().len(), (written + 1) * batch(&["x"]).len());
    assert_eq!(panics(), 0);
}

/// A broker in which nothing is ever written, and a crowd of starts too short for a sweep.
#[tokio::test(start_paused = true)]
async fn the_metadata_forgets_many_short_starts_at_once() {
    let mut store = None;
    for _ in 0..300 {
        let test = next_life(store.take()).await;
        store = Some(test.kill());
    }
    let test = Test::on(store.unwrap(), &[]).await;
    let image = || test.broker.shared().metadata.image();
    assert_eq!(image().incarnations.len(), 301);
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(image().incarnations.len(), 1);
    let live: Vec<u64> = image().live_incarnations().map(|(number, _)| number).collect();
    assert_eq!(live.len(), 1);
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_it_took() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(client.send(9, &produce_request("t", 0, batch(&["x"]), -1)).await);
    }
    // Until the broker has read them.
    tokio::time::sleep(Duration::from_micros(100)).await;
    let began = tokio::time::Instant::now();
    assert!(test.broker.shutdown().await);
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut acknowledged = 0;
    while let Some(_answer) = client.frame().await {
        acknowledged += 1;
    }
    let test = Test::on(test.kill(), &[]).await;
    let kept = values(&mut test.connect(), "t").await;
    assert!(kept >= acknowledged, "{acknowledged} acknowledged, {kept} kept");
    assert_eq!(acknowledged, ids.len());
}

#[tokio::test(start_paused = true)]
async fn a_newer_start_fences_the_older() {
    let older = Test::new(&[]).await;
    let mut zombie = older.connect();
    zombie.create("t", 1, &[]).await;
    assert_eq!(zombie.produce("t", 0, batch(&["by the older"])).await, (0, 0));
    let newer = Test::on(older.store.clone(), &[]).await;
    let mut client = newer.connect();
    assert_eq!(client.produce("t", 0, batch(&["by the newer"])).await, (0, 1));
    let (error, _) = zombie.produce("t", 0, batch(&["by a zombie"])).await;
    assert_ne!(error, 0);
    assert!(matches!(older.broker.ended().await, ExitReason::Fenced(_)));
    assert_eq!(values(&mut client, "t").await, 2);
}

#[tokio::test(start_paused = true)]
async fn producer_ids_are_never_given_out_again() {
    let request = m::init_producer_id_request::InitProducerIdRequest {
        transactional_id: None,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let first = Test::new(&[]).await;
    let a = first.connect().call(4, &request).await.producer_id;
    let second = Test::on(first.kill(), &[]).await;
    let b = second.connect().call(4, &request).await.producer_id;
    assert!(b > a, "{a} then {b}");
    let transactional = m::init_producer_id_request::InitProducerIdRequest {
        transactional_id: Some("tx".into()),
        ..request.clone()
    };
    assert_eq!(second.connect().call(4, &transactional).await.error_code, 35);
    let half = m::init_producer_id_request::InitProducerIdRequest {
        producer_id: 3,
        ..request
    };
    assert_eq!(second.connect().call(4, &half).await.error_code, 42);
}
