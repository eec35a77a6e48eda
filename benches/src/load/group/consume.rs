//! Reads a topic in a group, and the same by partition without one: once as many readers as partitions, each with one.

use std::time::{Duration, Instant};

use super::Group;
use super::member::Order;
use super::scenes::with_members;
use crate::load::fetch::{Fetcher, Source};
use crate::load::summary::Summary;
use crate::process::cpu_seconds;

/// Between the order and its start, so that all are ready.
const READY: Duration = Duration::from_millis(50);

/// The end of each partition.
pub type Ends = Vec<i64>;

/// Members of a group, with heartbeats and a commit each second and at the end. The join is not counted.
pub fn grouped(group: &Group, ends: &Ends, passes: u32, pid: Option<u32>) -> anyhow::Result<Summary> {
    with_members(group, ends.len(), |stage| {
        stage.first_records()?;
        stage.calm(0)?;
        let from = Instant::now() + READY;
        let before = (broker_cpu(pid)?, cpu_seconds(std::process::id())?);
        for member in stage.members {
            let ends = ends.clone();
            member.order(Order::Read { from, ends, passes });
        }
        let end = stage.until(
            "reading",
            || {
                let done: Option<Vec<Instant>> = stage.members.iter().map(|m| m.seen().done).collect();
                done?.into_iter().max()
            },
            Duration::from_millis(5),
        )?;
        let bytes = stage.members.iter().map(|m| m.seen().bytes).sum();
        summary(from, end, bytes, before, pid)
    })
}

/// Readers without a group.
pub fn by_partition(
    bootstrap: &str,
    topic: &str,
    ends: &Ends,
    passes: u32,
    pid: Option<u32>,
) -> anyhow::Result<Summary> {
    let from = Instant::now() + READY;
    let before = (broker_cpu(pid)?, cpu_seconds(std::process::id())?);
    let read = |partition: i32, end: i64| -> anyhow::Result<u64> {
        std::thread::sleep(from.saturating_duration_since(Instant::now()));
        let mut fetcher = Fetcher::open(bootstrap)?;
        let source = Source::new(topic, partition);
        let mut bytes = 0;
        for _ in 0..passes {
            let mut offset = 0;
            while offset < end {
                let got = fetcher.fetch(&source, offset)?;
                (offset, bytes) = (got.next, bytes + got.bytes);
            }
        }
        Ok(bytes)
    };
    let bytes = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let readers: Vec<_> = (0..)
            .zip(ends)
            .map(|(partition, end)| scope.spawn(move || read(partition, *end)))
            .collect();
        let mut bytes = 0;
        for reader in readers {
            bytes += reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        Ok(bytes)
    })?;
    summary(from, Instant::now(), bytes, before, pid)
}

fn broker_cpu(pid: Option<u32>) -> anyhow::Result<f64> {
    Ok(pid.map(cpu_seconds).transpose()?.unwrap_or(0.0))
}

fn summary(
    from: Instant,
    end: Instant,
    bytes: u64,
    before: (f64, f64),
    pid: Option<u32>,
) -> anyhow::Result<Summary> {
    Ok(Summary {
        seconds: end.saturating_duration_since(from).as_secs_f64(),
        bytes,
        total_bytes: bytes,
        cpu_seconds: broker_cpu(pid)? - before.0,
        client_cpu_seconds: cpu_seconds(std::process::id())? - before.1,
        ..Summary::default()
    })
}
