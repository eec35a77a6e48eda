//! From a start to the first acknowledged record.

use std::time::{Duration, Instant};

use anyhow::bail;
use drumlin_tests::client::Connection;

/// Tries until one record is acknowledged with acks=all; returns the time since `started`.
///
/// The topic is created, unless it is there.
pub fn acknowledged(
    bootstrap: &str,
    topic: &str,
    started: Instant,
    patience: Duration,
) -> anyhow::Result<Duration> {
    let mut last = None;
    while started.elapsed() < patience {
        match attempt(bootstrap, topic) {
            Ok(()) => return Ok(started.elapsed()),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    bail!("no record was acknowledged within {patience:?}: {last:?}")
}

fn attempt(bootstrap: &str, topic: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(bootstrap, Duration::from_secs(10))?;
    let mut code = -1;
    // A topic that was just created may not be known everywhere yet; the connection is good all the same.
    for _ in 0..2_000 {
        (code, _) = connection.produce(topic, 0, b"first", 10_000)?;
        match code {
            0 => return Ok(()),
            // UNKNOWN_TOPIC_OR_PARTITION: an answer that it exists already is as good as any.
            3 => drop(connection.create_topic(topic, 1, &[])),
            _ => {}
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    bail!("error {code}")
}
