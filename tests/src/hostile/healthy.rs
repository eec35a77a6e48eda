//! The client beside the hostile ones: one small batch at a time, written and read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::bail;

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
    let produced = connection.produce(TOPIC, 0, value.as_bytes(), 10_000)?;
    if produced != (0, offset) {
        bail!("produce at {offset}: error and offset {produced:?}");
    }
    let (error, found) = connection.fetch(TOPIC, 0, offset, 10_000)?;
    match found.first() {
        Some(r) if error == 0 && r.offset == offset && r.value.as_deref() == Some(value.as_bytes()) => Ok(()),
        other => bail!("fetch at {offset}: error {error}, {other:?}"),
    }
}
