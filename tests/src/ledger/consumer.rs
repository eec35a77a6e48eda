//! A consumer that reads on over every lost connection. Half of them tail; the other
//! half jump back to where others have been, to see whether it is still the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use drumlin_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use drumlin_wire::messages::fetch_response::PartitionData;
use rand::RngExt;
use rand::rngs::StdRng;

use super::account::Account;
use super::record::fingerprint;
use crate::broker::against_kafka;
use crate::client::{Connection, decoded};

const VERSION: i16 = 12;
const PATIENCE: Duration = Duration::from_secs(20);
const OFFSET_OUT_OF_RANGE: i16 = 1;

pub struct Consumer {
    jumps: bool,
    bootstrap: String,
    rng: StdRng,
    account: Arc<Account>,
    positions: Vec<i64>,
}

impl Consumer {
    pub fn new(
        jumps: bool,
        bootstrap: String,
        partitions: i32,
        rng: StdRng,
        account: Arc<Account>,
    ) -> Consumer {
        Consumer {
            jumps,
            bootstrap,
            rng,
            account,
            positions: vec![0; partitions as usize],
        }
    }

    /// Reads until told to stop.
    pub fn run(mut self) {
        let mut connection = None;
        while !self.account.stop_consuming.load(Ordering::Relaxed) && !self.account.is_broken() {
            let opened = match connection.take() {
                Some(open) => Ok(open),
                None => Connection::open(&self.bootstrap, PATIENCE),
            };
            let round = opened.and_then(|mut open| {
                self.round(&mut open)?;
                Ok(open)
            });
            match round {
                Ok(open) => connection = Some(open),
                Err(_) => std::thread::sleep(Duration::from_millis(self.rng.random_range(5..60))),
            }
        }
    }

    fn round(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        if self.jumps {
            for partition in 0..self.positions.len() {
                let end = self.account.seen_end(partition as i32);
                if self.rng.random_bool(0.1) && end > 0 {
                    self.positions[partition] = self.rng.random_range(0..end);
                }
            }
        }
        // What others saw before this request was sent must be there when it is answered.
        let seen: Vec<i64> = (0..self.positions.len())
            .map(|p| self.account.seen_end(p as i32))
            .collect();
        let answer = connection.call(&fetch(&self.positions, 500), VERSION)?;
        if answer.error_code != 0 {
            bail!("fetch: error {}", answer.error_code);
        }
        let mut failed = false;
        for partition in answer.responses.iter().flat_map(|t| &t.partitions) {
            failed |= !self.take(partition, &seen)?;
        }
        if failed {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn take(&mut self, answer: &PartitionData, seen: &[i64]) -> anyhow::Result<bool> {
        let index = answer.partition_index;
        let (Some(position), Some(&seen)) =
            (self.positions.get_mut(index as usize), seen.get(index as usize))
        else {
            bail!("an answer for partition {index}");
        };
        if answer.error_code == OFFSET_OUT_OF_RANGE {
            self.account.broken(format!(
                "partition {index}: offset {position} is out of range (0 to {}), though consumers have been there",
                answer.high_watermark
            ));
            return Ok(false);
        }
        if answer.error_code != 0 {
            self.account.add("fetch_errors", 1);
            return Ok(false);
        }
        // Apache Kafka finds its high watermark again only a moment after it answers.
        if answer.high_watermark < seen && !against_kafka() {
            self.account.broken(format!(
                "partition {index}: the high watermark is {}, though consumers saw up to {seen}",
                answer.high_watermark
            ));
        }
        let bytes = answer.records.clone().map(|r| r.into_bytes()).unwrap_or_default();
        for record in decoded(&bytes)? {
            if record.offset < *position {
                continue;
            }
            if record.offset != *position {
                self.account.broken(format!(
                    "partition {index}: offset {} where {position} is next",
                    record.offset
                ));
            }
            *position = record.offset + 1;
            self.account.saw(index, record.offset, fingerprint(&record));
        }
        Ok(true)
    }
}

/// A fetch of every partition from these positions, without a session.
pub fn fetch(positions: &[i64], max_wait_ms: i32) -> FetchRequest {
    let partition = |(n, &fetch_offset): (usize, &i64)| FetchPartition {
        partition: n as i32,
        current_leader_epoch: -1,
        fetch_offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let partitions = positions.iter().enumerate().map(partition).collect();
    FetchRequest {
        replica_id: -1,
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 8 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: super::TOPIC.into(),
            partitions,
            ..Default::default()
        }],
        ..Default::default()
    }
}
