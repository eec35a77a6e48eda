//! What clients do: produce in the ways that real ones do, follow, read back, look for times.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_log::{Partition, ReadError, TopicPartition, Waiter};
use drumlin_records::{BatchBuilder, BatchHeader, Compression, iter_batches};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use super::ledger::{Key, Sent};
use super::node::{Node, Produced};
use super::plan::TopicPlan;
use super::trace::lock;
use super::world::World;

/// A batch on its way.
#[derive(Clone)]
struct Batch {
    sequence: i32,
    records: i32,
    key: Key,
    bytes: Bytes,
    tried: bool,
}

pub(super) struct Client {
    world: Arc<World>,
    rng: StdRng,
    id: TopicPartition,
    every: Duration,
    batch_bytes: usize,
}

impl Client {
    pub(super) fn new(world: &Arc<World>, seed: u64, id: TopicPartition, plan: &TopicPlan) -> Self {
        Self {
            world: Arc::clone(world),
            rng: StdRng::seed_from_u64(seed),
            id,
            every: plan.every,
            batch_bytes: plan.batch_bytes,
        }
    }

    fn batch(&mut self, producer: i64, sequence: i32, number: i64) -> Batch {
        let records = self.rng.random_range(1..=4);
        let size = self.rng.random_range(1..=2 * self.batch_bytes) / records as usize;
        let mut stamp = self.world.wall_ms() + self.rng.random_range(-50..=50);
        if self.rng.random_bool(0.02) {
            stamp -= self.rng.random_range(0..20_000);
        }
        loop {
            let mut builder = BatchBuilder::new(Compression::None);
            if producer >= 0 {
                builder = builder.producer(producer, 0, sequence);
            }
            for record in 0..records {
                let fill = self.rng.random::<u8>();
                let mut value = vec![fill; size + 8];
                value[..8].copy_from_slice(&number.to_be_bytes());
                builder.push(stamp + i64::from(record), None, Some(&value), &[]);
            }
            let bytes = builder.build().expect("a small batch that has records");
            let header = BatchHeader::parse(&bytes).expect("just built");
            let sent = Sent {
                producer,
                sequence,
                records: records.into(),
                first_ms: stamp,
                last_ms: stamp + i64::from(records) - 1,
            };
            if lock(&self.world.ledger).sending(&self.id, &header, sent) {
                let key = Key::of(&header);
                return Batch {
                    sequence,
                    records,
                    key,
                    bytes,
                    tried: false,
                };
            }
            stamp += 1;
        }
    }

    fn pause(&mut self) -> Duration {
        let most = 2 * self.every.as_millis() as u64;
        Duration::from_millis(self.rng.random_range(0..=most))
    }

    /// An idempotent producer as the Java client is one: up to five in flight, order kept, every failure tried
    /// again until the answer is yes.
    pub(super) async fn idempotent(mut self) {
        let Some(producer) = self.world.producer_id().await else {
            return;
        };
        let (mut sequence, mut number) = (0, 0);
        let mut waiting: VecDeque<Batch> = VecDeque::new();
        let mut unanswered: Vec<(i32, i64)> = Vec::new();
        let mut flying = FuturesUnordered::new();
        let mut connection = self.world.connect().await;
        let most = self.rng.random_range(1..=5);
        let mut next_at = Instant::now();
        // A broker that was replaced before then does not know of it.
        let mut acked_by = 0;
        loop {
            let stopping = self.world.is_stopping();
            if stopping && waiting.is_empty() && flying.is_empty() {
                return;
            }
            while flying.len() < most
                && let Some(batch) = waiting.front_mut()
                && (!batch.tried
                    || unanswered
                        .first()
                        .is_some_and(|(open, _)| *open == batch.sequence))
            {
                // What was tried before goes again only when all before it are answered, and nothing overtakes it.
                batch.tried = true;
                let batch = waiting.pop_front().expect("just looked");
                let patience = Duration::from_secs(self.rng.random_range(1..15));
                let told = [producer, batch.sequence.into(), connection.incarnation as i64];
                self.world.trace.note("sends", &told);
                flying.push(attempt(Arc::clone(&connection), self.id, batch, patience));
            }
            // Five from the oldest that is not answered, as over one connection: the broker remembers no more.
            let oldest = unanswered.first().map_or(number, |(_, number)| *number);
            let room = number - oldest < most as i64 && !stopping;
            tokio::select! {
                biased;
                Some((batch, answer)) = flying.next(), if !flying.is_empty() => {
                    self.world.trace.note(&format!("{answer:?}"), &[producer, i64::from(batch.sequence)]);
                    match answer {
                        Some(Produced::Acked { base, incarnation }) => {
                            acked_by = acked_by.max(incarnation);
                            unanswered.retain(|(open, _)| *open != batch.sequence);
                            lock(&self.world.ledger).acked(&self.id, base, batch.key);
                        }
                        Some(Produced::Gone) => return,
                        Some(Produced::OutOfOrder { incarnation })
                            if unanswered.first().is_some_and(|(open, _)| *open == batch.sequence) && incarnation >= acked_by =>
                        {
                            // With none acknowledged, a later one may have been taken for the first (as in Kafka).
                            if acked_by > 0 && !self.world.is_deleted(&self.id) {
                                let what = format!(
                                    "{}: producer {producer} had all before {} acknowledged, and was told it is out of order",
                                    self.id, batch.sequence
                                );
                                self.world.trace.violation(what);
                            }
                            return;
                        }
                        _ => {
                            self.world.trace.count("retries of idempotent producers");
                            connection = self.retry(connection, answer).await;
                            let at = waiting.partition_point(|other| other.sequence < batch.sequence);
                            waiting.insert(at, batch);
                            if self.world.is_deleted(&self.id) {
                                return;
                            }
                        }
                    }
                }
                () = tokio::time::sleep_until(next_at), if room => {
                    let batch = self.batch(producer, sequence, number);
                    (sequence, number) = (sequence + batch.records, number + 1);
                    unanswered.push((batch.sequence, number - 1));
                    waiting.push_back(batch);
                    next_at = Instant::now() + self.pause();
                    // Bursts fill the window.
                    if self.rng.random_bool(0.4) {
                        next_at = Instant::now();
                    }
                }
            }
        }
    }

    /// What a client does after a failure: waits a little, looks who leads.
    async fn retry(&mut self, connection: Arc<Node>, answer: Option<Produced>) -> Arc<Node> {
        sleep(Duration::from_millis(self.rng.random_range(1..150))).await;
        // A connection that only timed out may be to a broker that lives, or to one that has long been replaced.
        if answer.is_none() || self.rng.random_bool(0.7) {
            self.world.connect().await
        } else {
            connection
        }
    }

    /// A plain producer: one at a time, tries again on failure, may so write twice.
    pub(super) async fn plain(mut self, all: bool) {
        let mut number = 0;
        let mut connection = self.world.connect().await;
        while !self.world.is_stopping() {
            sleep(self.pause()).await;
            let batch = self.batch(-1, -1, number);
            number += 1;
            for _ in 0..3 {
                let patience = Duration::from_secs(self.rng.random_range(1..10));
                let asked = connection.produce(self.id, batch.bytes.clone(), all);
                let answer = timeout(patience, asked).await.ok().flatten();
                match answer {
                    Some(Produced::Acked { base, incarnation }) => {
                        let mut ledger = lock(&self.world.ledger);
                        if all {
                            ledger.acked(&self.id, base, batch.key);
                        } else {
                            ledger.acked_softly(&self.id, incarnation, base, batch.key);
                        }
                        break;
                    }
                    Some(Produced::Gone) => return,
                    _ => connection = self.retry(connection, answer).await,
                }
            }
            if self.world.is_deleted(&self.id) {
                return;
            }
        }
    }

    /// A consumer: at the tail, or again and again from somewhere before it.
    pub(super) async fn consumer(mut self, tailing: bool) {
        let mut connection = self.world.connect().await;
        let mut position = 0;
        // Whoever told the position; an older broker need not know of it.
        let mut told_by = 0;
        while !self.world.is_stopping() && !self.world.is_deleted(&self.id) {
            let Some(partition) = connection.partition(&self.id) else {
                sleep(Duration::from_millis(200)).await;
                connection = self.world.connect().await;
                continue;
            };
            self.world.look(&connection, &partition);
            if !tailing && self.rng.random_bool(0.2) {
                let (from, to) = (partition.log_start_offset(), partition.high_watermark());
                position = self.rng.random_range(from..=to);
                told_by = connection.incarnation;
            }
            if self.rng.random_bool(0.1) {
                self.look_for_time(&connection, &partition).await;
            }
            let waiter = Waiter::new();
            partition.register(&waiter);
            let max = self.rng.random_range(1..20_000);
            match self.fetch(&connection, &partition, position, max).await {
                Fetched::Next(next) => {
                    position = next;
                    told_by = connection.incarnation;
                }
                Fetched::Nothing => {
                    let _ = timeout(Duration::from_secs(1), waiter.notified()).await;
                    if self.rng.random_bool(0.2) {
                        connection = self.world.connect().await;
                    }
                }
                Fetched::OutOfRange(start, high) => {
                    if position > high && connection.incarnation >= told_by {
                        let what = format!(
                            "{}: incarnation {} ends at {high}, and {position} was read from {told_by}",
                            self.id, connection.incarnation
                        );
                        self.world.trace.violation(what);
                        return;
                    }
                    if position < start {
                        position = start;
                    } else {
                        connection = self.world.connect().await;
                    }
                }
                Fetched::Failed => {
                    sleep(Duration::from_millis(100)).await;
                    connection = self.world.connect().await;
                }
                Fetched::Gone => return,
            }
            if !tailing {
                let pause = self.pause();
                sleep(pause).await;
            } else {
                sleep(Duration::from_millis(self.rng.random_range(0..20))).await;
            }
        }
    }

    async fn fetch(
        &mut self,
        node: &Arc<Node>,
        partition: &Arc<Partition>,
        offset: i64,
        max: usize,
    ) -> Fetched {
        let (log, target) = (node.log.clone(), Arc::clone(partition));
        let request = node.call(async move { log.read(&target, offset, max, true).await });
        let read = match timeout(Duration::from_secs(20), request).await {
            Ok(Some(Ok(read))) => read,
            Ok(Some(Err(ReadError::OffsetOutOfRange {
                log_start,
                high_watermark,
                ..
            }))) => return Fetched::OutOfRange(log_start, high_watermark),
            Ok(Some(Err(ReadError::Deleted))) => return Fetched::Gone,
            Ok(Some(Err(ReadError::Corrupt { what }))) => {
                self.world.trace.count("reads that found damage");
                self.world.trace.note(&format!("damage: {what}"), &[offset]);
                return Fetched::Failed;
            }
            Ok(Some(Err(ReadError::Unavailable { what }))) => {
                self.world
                    .trace
                    .count("reads of partitions that cannot be served");
                self.world.trace.note(&format!("unavailable: {what}"), &[offset]);
                return Fetched::Failed;
            }
            Ok(Some(Err(ReadError::Store(what)))) => {
                self.world.trace.count("reads that failed in the store");
                self.world.trace.note(&format!("read failed: {what}"), &[offset]);
                return Fetched::Failed;
            }
            _ => return Fetched::Failed,
        };
        let bytes = read.records.concat();
        if bytes.is_empty() {
            return Fetched::Nothing;
        }
        let mut next = offset;
        for item in iter_batches(&bytes) {
            let Ok((at, header)) = item else {
                self.world
                    .trace
                    .violation(format!("{}: bytes at {next} are no batch", self.id));
                return Fetched::Failed;
            };
            let joins = header.base_offset == next || next == offset && header.base_offset <= next;
            // What lies between was deleted meanwhile.
            let skipped = header.base_offset <= partition.log_start_offset();
            if !(joins && header.last_offset() >= next || skipped) {
                let what = format!(
                    "{}: after {next} came {} to {} from incarnation {}",
                    self.id,
                    header.base_offset,
                    header.last_offset(),
                    node.incarnation
                );
                self.world.trace.violation(what);
            }
            next = header.last_offset() + 1;
            if next > partition.high_watermark() {
                let what = format!("{}: a read went beyond the high watermark, to {next}", self.id);
                self.world.trace.violation(what);
            }
            lock(&self.world.ledger).seen(&self.id, &header, &bytes[at..at + header.size_in_bytes()]);
        }
        Fetched::Next(next)
    }

    /// Asks for the first record since some time, and compares with what is known.
    async fn look_for_time(&mut self, node: &Arc<Node>, partition: &Arc<Partition>) {
        let ms = self.world.wall_ms() - self.rng.random_range(0..60_000);
        let high = partition.high_watermark();
        let (log, target) = (node.log.clone(), Arc::clone(partition));
        let request = node.call(async move { log.offset_for_timestamp(&target, ms).await });
        let Ok(Some(Ok(found))) = timeout(Duration::from_secs(20), request).await else {
            return;
        };
        self.world.trace.count("look-ups by time");
        let start = partition.log_start_offset();
        let ledger = lock(&self.world.ledger);
        let Some(account) = ledger.accounts.get(&self.id) else {
            return;
        };
        let known = account.first_since(ms, start, high);
        let found_at = found.map(|found| found.offset);
        let bad = match (found_at, known) {
            (Some(found), Some(known)) => found > known,
            (None, Some(_)) => true,
            _ => false,
        };
        let bad = bad || found.is_some_and(|found| found.timestamp < ms);
        drop(ledger);
        if bad {
            let what = format!(
                "{}: the first record since {ms} is at {known:?} at the latest, and {found:?} was answered",
                self.id
            );
            self.world.trace.violation(what);
        }
    }

    /// An administrator: deletes records now and then.
    pub(super) async fn deleter(mut self) {
        while !self.world.is_stopping() && !self.world.is_deleted(&self.id) {
            let pause = Duration::from_millis(self.rng.random_range(2_000..30_000));
            sleep(pause).await;
            let node = self.world.connect().await;
            let Some(partition) = node.partition(&self.id) else {
                continue;
            };
            let (from, to) = (partition.log_start_offset(), partition.high_watermark());
            let offset = if self.rng.random_bool(0.1) {
                -1
            } else {
                self.rng.random_range(from..=to)
            };
            // -1 stands for the high watermark when the broker looks, which may be later.
            let furthest = if offset < 0 { i64::MAX } else { offset };
            if offset >= 0 {
                lock(&self.world.ledger).asks_deletion(&self.id, furthest);
            }
            if offset < 0 {
                lock(&self.world.ledger).asks_deletion(&self.id, to);
            }
            let offset = if offset < 0 { to } else { offset };
            let log = node.log.clone();
            let request = node.call(async move { log.delete_records(vec![(partition, offset)]).await });
            if let Ok(Some(answers)) = timeout(Duration::from_secs(20), request).await
                && let Some(Ok(low)) = answers.into_iter().next()
                && !self.world.is_deleted(&self.id)
            {
                lock(&self.world.ledger).records_deleted(&self.id, low);
            }
        }
    }
}

enum Fetched {
    Next(i64),
    Nothing,
    OutOfRange(i64, i64),
    Failed,
    Gone,
}

async fn attempt(
    node: Arc<Node>,
    id: TopicPartition,
    batch: Batch,
    patience: Duration,
) -> (Batch, Option<Produced>) {
    let asked = node.produce(id, batch.bytes.clone(), true);
    let answer = timeout(patience, asked).await.ok().flatten();
    (batch, answer)
}
