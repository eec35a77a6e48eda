//! The client beside the hostile ones: one small batch at a time, written and read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::bail;
use drumlin_records::{BatchBuilder, Compression};
use drumlin_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::Counters;
use crate::client::Connection;

const TOPIC: &str = "healthy";
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// Starts it; it works until the counters say stop, and fails when anything goes wrong.
pub fn start(
    bootstrap: &str,
    counters: Arc<Counters>,
) -> anyhow::Result<JoinHandle<anyhow::Result<BTreeMap<&'static str, u64>>>> {
    let mut connection = Connection::open(bootstrap, PATIENCE)?;
    connection.create_topic(TOPIC, 1, &[])?;
    Ok(std::thread::spawn(move || {
        let (mut turns, mut slowest, mut total) = (0, 0, 0);
        while !counters.stop.load(Ordering::Relaxed) || turns == 0 {
            let began = Instant::now();
            turn(&mut connection, turns)?;
            let took = began.elapsed().as_micros() as u64;
            slowest = slowest.max(took);
            total += took;
            turns += 1;
            std::thread::sleep(PAUSE);
        }
        let mean = total / (turns as u64).max(1);
        Ok(BTreeMap::from([
            ("healthy_turns", turns as u64),
            ("max_healthy_turn_us", slowest),
            ("max_healthy_turn_mean_us", mean),
        ]))
    }))
}

fn turn(connection: &mut Connection, offset: i64) -> anyhow::Result<()> {
    let value = format!("turn {offset}");
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1, None, Some(value.as_bytes()), &[]);
    let data = PartitionProduceData {
        records: Some(batch.build()?.into()),
        ..Default::default()
    };
    let topic = TopicProduceData {
        name: TOPIC.into(),
        partition_data: vec![data],
        ..Default::default()
    };
    let produce = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![topic],
        ..Default::default()
    };
    let answer = connection.call(&produce, 9)?;
    match answer
        .responses
        .first()
        .and_then(|t| t.partition_responses.first())
    {
        Some(p) if p.error_code == 0 && p.base_offset == offset => {}
        other => bail!("produce at {offset}: {other:?}"),
    }
    let partition = FetchPartition {
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let fetch = FetchRequest {
        replica_id: -1,
        max_wait_ms: 10_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: TOPIC.into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = connection.call(&fetch, 12)?;
    let data = answer.responses.first().and_then(|t| t.partitions.first());
    let bytes = data
        .and_then(|p| p.records.clone())
        .map(|r| r.into_bytes())
        .unwrap_or_default();
    let found = crate::ledger::decoded(&bytes)?;
    match found.first() {
        Some(r) if r.offset == offset && r.value.as_deref() == Some(value.as_bytes()) => Ok(()),
        other => bail!("fetch at {offset}: {other:?}"),
    }
}
