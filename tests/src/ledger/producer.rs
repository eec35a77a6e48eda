//! A producer with acks=all that never gives up: up to five batches in flight a
//! partition, sent again in order over every lost connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drumlin_records::{BatchBuilder, Compression};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use drumlin_wire::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use rand::RngExt;
use rand::rngs::StdRng;

use super::account::{Account, Acked};
use super::record::Identity;
use crate::client::Connection;

/// As many as a broker must remember by producer and partition.
const IN_FLIGHT: usize = 5;
const VERSION: i16 = 9;
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a producer tries to get its last batches acknowledged when all else is over.
const DRAIN: Duration = Duration::from_secs(120);

const CORRUPT_MESSAGE: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER_ID: i16 = 59;
const INVALID_RECORD: i16 = 87;

struct Batch {
    first: u64,
    count: u64,
    bytes: Bytes,
}

/// One partition, as this producer sees it.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Batch>,
    next: u64,
}

pub struct Producer {
    id: u32,
    idempotent: bool,
    bootstrap: String,
    rng: StdRng,
    account: Arc<Account>,
    lanes: BTreeMap<i32, Lane>,
    producer_id: Option<(i64, i16)>,
    connection: Option<Connection>,
    acked: Vec<Acked>,
}

impl Producer {
    pub fn new(
        id: u32,
        idempotent: bool,
        bootstrap: String,
        partitions: i32,
        mut rng: StdRng,
        account: Arc<Account>,
    ) -> Producer {
        let mut lanes = BTreeMap::new();
        for _ in 0..3 {
            lanes.insert(rng.random_range(0..partitions), Lane::default());
        }
        let (producer_id, connection, acked) = (None, None, Vec::new());
        Producer {
            id,
            idempotent,
            bootstrap,
            rng,
            account,
            lanes,
            producer_id,
            connection,
            acked,
        }
    }

    /// Produces until told to stop and everything is acknowledged.
    pub fn run(mut self) -> Vec<Acked> {
        let mut give_up = None;
        loop {
            if self.account.stop_producing.load(Ordering::Relaxed) {
                let end = *give_up.get_or_insert_with(|| Instant::now() + DRAIN);
                if self.lanes.values().all(|l| l.queue.is_empty()) {
                    break;
                }
                if Instant::now() > end {
                    self.account.broken(format!(
                        "producer {}: batches unanswered after {DRAIN:?}",
                        self.id
                    ));
                    break;
                }
            }
            if self.account.is_broken() {
                break;
            }
            if let Err(e) = self.round(give_up.is_none()) {
                self.account.add("connections_lost", 1);
                if std::env::var_os("DRUMLIN_LEDGER_VERBOSE").is_some() {
                    println!("producer {}: {e:#}", self.id);
                }
                self.connection = None;
                std::thread::sleep(Duration::from_millis(self.rng.random_range(5..60)));
            }
            std::thread::sleep(Duration::from_millis(self.rng.random_range(0..80)));
        }
        self.acked
    }

    /// Fills up what may be in flight, sends it all, and reads all answers.
    fn round(&mut self, fill: bool) -> anyhow::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.bootstrap, PATIENCE)?,
        };
        if self.idempotent && self.producer_id.is_none() {
            self.producer_id = Some(connection.init_producer()?);
        }
        if fill {
            self.fill()?;
        }
        let requests = self.requests();
        for request in &requests {
            connection.send(request, VERSION)?;
        }
        // Per partition: how many batches are answered well, and whether one was not.
        let mut done: BTreeMap<i32, (usize, bool)> = BTreeMap::new();
        let mut lost = None;
        for _ in &requests {
            match connection.receive::<ProduceRequest>() {
                Ok(answer) => self.take(&answer, &mut done),
                Err(e) => {
                    lost = Some(e);
                    break;
                }
            }
        }
        if let Some(e) = lost {
            return Err(e);
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        for (&partition, lane) in &mut self.lanes {
            while lane.queue.len() < IN_FLIGHT && self.rng.random_bool(0.7) {
                let count = self.rng.random_range(1..10);
                let codecs = [
                    Compression::None,
                    Compression::Gzip,
                    Compression::Snappy,
                    Compression::Lz4,
                    Compression::Zstd,
                ];
                let mut builder = BatchBuilder::new(codecs[self.rng.random_range(0..codecs.len())]);
                if let Some((id, epoch)) = self.producer_id {
                    builder = builder.producer(id, epoch, lane.next as i32);
                }
                let now = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)?
                    .as_millis() as i64;
                for n in 0..count {
                    let identity = Identity {
                        producer: self.id,
                        partition,
                        counter: lane.next + n,
                    };
                    builder.push(now, None, Some(&identity.value()), &[]);
                }
                lane.queue.push_back(Batch {
                    first: lane.next,
                    count,
                    bytes: builder.build()?,
                });
                lane.next += count;
            }
        }
        Ok(())
    }

    /// The k-th request holds the k-th waiting batch of each partition.
    fn requests(&self) -> Vec<ProduceRequest> {
        let depth = self.lanes.values().map(|l| l.queue.len()).max().unwrap_or(0);
        let request = |k: usize| {
            let data = |(&index, lane): (&i32, &Lane)| {
                let records = Some(lane.queue.get(k)?.bytes.clone().into());
                Some(PartitionProduceData {
                    index,
                    records,
                    ..Default::default()
                })
            };
            let partition_data = self.lanes.iter().filter_map(data).collect();
            let topic = TopicProduceData {
                name: super::TOPIC.into(),
                partition_data,
                ..Default::default()
            };
            ProduceRequest {
                acks: -1,
                timeout_ms: 10_000,
                topic_data: vec![topic],
                ..Default::default()
            }
        };
        (0..depth).map(request).collect()
    }

    fn take(&mut self, answer: &ProduceResponse, done: &mut BTreeMap<i32, (usize, bool)>) {
        for partition in answer.responses.iter().flat_map(|t| &t.partition_responses) {
            let (good, failed) = done.entry(partition.index).or_default();
            let after_failure = *failed;
            if self.answered(partition, after_failure) {
                *good += 1;
            } else {
                *failed = true;
            }
        }
    }

    /// Takes the answer to the oldest batch of a partition that waits for one in this
    /// round. Returns whether the batch is settled.
    fn answered(&mut self, answer: &PartitionProduceResponse, after_failure: bool) -> bool {
        let (id, index, code) = (self.id, answer.index, answer.error_code);
        let Some(lane) = self.lanes.get_mut(&index) else {
            self.account.broken(format!(
                "producer {id}: an answer for partition {index}, to which nothing was sent"
            ));
            return false;
        };
        match code {
            // The one before may have timed out, yet be on its way to the store: both are sent
            // again, in order, and are duplicates then, at least to an idempotent producer's broker.
            0 | DUPLICATE_SEQUENCE_NUMBER if after_failure => false,
            0 | DUPLICATE_SEQUENCE_NUMBER => {
                if let Some(batch) = lane.queue.pop_front() {
                    let offset = (code == 0 && answer.base_offset >= 0).then_some(answer.base_offset);
                    let Batch { first, count, .. } = batch;
                    self.acked.push(Acked {
                        producer: id,
                        partition: index,
                        first,
                        count,
                        offset,
                    });
                    self.account.add_acked(count);
                    if offset.is_none() {
                        self.account.add("acks_without_offset", 1);
                    }
                }
                true
            }
            OUT_OF_ORDER_SEQUENCE_NUMBER if after_failure => false,
            OUT_OF_ORDER_SEQUENCE_NUMBER
            | UNKNOWN_PRODUCER_ID
            | INVALID_PRODUCER_EPOCH
            | CORRUPT_MESSAGE
            | MESSAGE_TOO_LARGE
            | INVALID_RECORD => {
                let first = lane.queue.front().map(|b| b.first);
                let message = answer.error_message.as_ref().map(|m| m.as_str().to_owned());
                self.account.broken(format!(
                    "producer {id}, partition {index}, record {first:?}: error {code} {message:?} for the oldest batch"
                ));
                false
            }
            _ => {
                self.account.add("retriable_errors", 1);
                false
            }
        }
    }
}
