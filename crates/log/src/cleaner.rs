//! Compaction of topics whose `cleanup.policy` names `compact`: the task that does it, and what it works on next.
//!
//! One task, one partition at a time, beside the keeper and at its leisure. A pass ([`pass`]) learns the newest
//! offset of each key in the dirty part of the log, reads all that is sealed below and writes anew what changes,
//! as segments in place of segments and bundle spans. It changes nothing itself: it hands replacements to the
//! keeper ([`replace`]), which makes them true with its next round, as it does with sealing (N1, N2); so a crash
//! leaves the old manifest or the new one. Where the last pass ended stands in the partition's state.
//!
//! Kafka's rules for what stays are in [`filter`]; what must be true of the log for a pass to begin, here.

pub(crate) mod filter;
pub(crate) mod inputs;
pub(crate) mod map;
mod pass;
pub(crate) mod replace;
mod transactions;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use drumlin_objects::BucketKind;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::log::Log;
use crate::partition::{Partition, Sealed};
use crate::read::{Failure, ReadError};
use crate::types::{PartitionConfig, TopicPartition};

/// Compaction says at most this often what it did.
const REPORT_INTERVAL: Duration = Duration::from_secs(600);
/// A partition whose data cannot be read is tried again after this long.
const DAMAGED_AGAIN: Duration = Duration::from_secs(600);

/// Why a pass did not come to its end. Nothing is lost by it, and what it handed over before stands.
#[derive(Debug)]
enum CleanError {
    /// The topic was deleted, or is not to be compacted any more.
    Cancelled,
    Read(ReadError),
}

impl From<ReadError> for CleanError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<Failure> for CleanError {
    fn from(failure: Failure) -> Self {
        Self::Read(failure.into())
    }
}

/// What a pass over a partition would be for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Prospect {
    /// The part of the bytes that no pass has seen: Kafka's cleanable ratio.
    ratio: f64,
    dirty_bytes: u64,
    /// Where the dirty part begins.
    first_dirty: i64,
    /// Where it ends as far as it may be compacted now; exclusive.
    until: i64,
    /// When the oldest of it was sealed, and its oldest piece's newest record written, Unix milliseconds.
    sealed_ms: i64,
    oldest_ms: i64,
}

impl Prospect {
    /// None if there is nothing that may be compacted.
    fn of(
        config: &PartitionConfig,
        sealed: &Sealed,
        log_start: i64,
        stable: i64,
        now_ms: i64,
    ) -> Option<Self> {
        let leaves = sealed.leaves.iter().map(|leaf| {
            // Without timestamps it is as old as can be: leaves hold what is not among the newest segments.
            let sealed_ms = leaf.max_timestamp.max(0);
            let offsets = (leaf.base_offset, leaf.end_offset);
            (offsets, leaf.bytes, leaf.max_timestamp, sealed_ms)
        });
        let segments = sealed.segments().map(|segment| {
            let offsets = (segment.base_offset, segment.end_offset);
            (offsets, segment.size, segment.max_timestamp, segment.sealed_ms)
        });
        let spans = sealed.spans.iter().map(|span| {
            let offsets = (span.base_offset, span.end_offset);
            (offsets, span.length, span.max_timestamp, span.sealed_ms)
        });
        let first_dirty = sealed.cleaned_to.max(log_start);
        let (mut clean, mut found) = (0u64, None::<Self>);
        for ((_, end), bytes, max_timestamp, sealed_ms) in leaves.chain(segments).chain(spans) {
            if end <= log_start {
                continue;
            }
            if end <= first_dirty {
                clean += bytes;
                continue;
            }
            let newest = if max_timestamp >= 0 {
                max_timestamp
            } else {
                sealed_ms
            };
            let young = config.min_compaction_lag_ms > 0
                && newest > now_ms.saturating_sub(config.min_compaction_lag_ms);
            if end > stable || young {
                break;
            }
            let dirty = found.get_or_insert(Self {
                ratio: 0.0,
                dirty_bytes: 0,
                first_dirty,
                until: first_dirty,
                sealed_ms,
                oldest_ms: newest,
            });
            dirty.dirty_bytes += bytes;
            dirty.until = end;
            dirty.sealed_ms = dirty.sealed_ms.min(sealed_ms);
            dirty.oldest_ms = dirty.oldest_ms.min(newest.min(sealed_ms));
        }
        found.map(|dirty| Self {
            ratio: dirty.dirty_bytes as f64 / (clean + dirty.dirty_bytes).max(1) as f64,
            ..dirty
        })
    }

    /// Whether it is worth a pass. What costs is requests, so that on a remote store little data waits for more; but
    /// not for ever, or small topics would grow in bundles without end.
    fn is_due(&self, config: &PartitionConfig, small: Option<(u64, Duration)>, now_ms: i64) -> bool {
        if now_ms.saturating_sub(self.oldest_ms) > config.max_compaction_lag_ms {
            return true;
        }
        let waits = small.is_some_and(|(bytes, wait)| {
            let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            self.dirty_bytes < bytes && now_ms.saturating_sub(self.sealed_ms) < wait
        });
        self.ratio > config.min_cleanable_dirty_ratio && !waits
    }
}

pub(crate) struct Cleaner {
    log: Log,
    /// Partitions whose replacements the keeper has not committed yet.
    busy: BTreeMap<TopicPartition, oneshot::Receiver<bool>>,
    /// Partitions that are left alone until then; true: their data is damaged.
    put_off: BTreeMap<TopicPartition, (Instant, bool)>,
    /// When what was read and written so far is within the budget again.
    paid_until: Instant,
    report: PassReport,
}

/// Passes since the last line about them. Small internal partitions have many: a line for each would drown the log.
struct PassReport {
    passes: u64,
    dirty_bytes: u64,
    records_in: u64,
    records_out: u64,
    since: Instant,
}

impl PassReport {
    fn new(since: Instant) -> Self {
        Self {
            passes: 0,
            dirty_bytes: 0,
            records_in: 0,
            records_out: 0,
            since,
        }
    }

    fn add(&mut self, tally: &filter::Tally, dirty_bytes: u64) {
        self.passes += 1;
        self.dirty_bytes += dirty_bytes;
        self.records_in += tally.records_in;
        self.records_out += tally.records_out;
    }

    /// Says what was compacted, if there was anything and the last line is old enough.
    fn tell(&mut self, now: Instant) {
        if self.passes == 0 || now.saturating_duration_since(self.since) < REPORT_INTERVAL {
            return;
        }
        tracing::info!(
            passes = self.passes,
            dirty_bytes = self.dirty_bytes,
            records_in = self.records_in,
            records_out = self.records_out,
            "compacted since the last such line"
        );
        *self = Self::new(now);
    }
}

impl Cleaner {
    pub(crate) fn new(log: Log) -> Self {
        let now = log.shared().wal.env.instant();
        Self {
            log,
            busy: BTreeMap::new(),
            put_off: BTreeMap::new(),
            paid_until: now,
            report: PassReport::new(now),
        }
    }

    pub(crate) async fn run(mut self) {
        let log = self.log.clone();
        let shared = log.shared();
        while shared.wal.ended().borrow().is_none() {
            let asked = std::mem::take(&mut *shared.keeper.clean_requests());
            if !asked.is_empty() {
                self.put_off.retain(|_, (_, damaged)| *damaged);
            }
            self.work(!asked.is_empty()).await;
            asked.into_iter().for_each(|done| {
                let _ = done.send(());
            });
            self.report.tell(shared.wal.env.instant());
            tokio::select! {
                biased;
                () = shared.keeper.clean.notified() => {}
                () = tokio::time::sleep(shared.wal.options.cleaner.interval) => {}
            }
        }
    }

    /// Passes until nothing is due. Hurried: little data does not wait, and rounds are asked for.
    async fn work(&mut self, hurried: bool) {
        loop {
            self.settle();
            if hurried && !self.busy.is_empty() {
                self.log.seal_now().await;
                self.settle();
            }
            let Some((partition, prospect)) = self.choose(hurried) else {
                if hurried && !self.busy.is_empty() {
                    // A round that began before the replacements came.
                    continue;
                }
                return;
            };
            self.clean(&partition, &prospect).await;
        }
    }

    /// Takes note of what the keeper has committed or refused.
    fn settle(&mut self) {
        let now = self.log.shared().wal.env.instant();
        let again = now + self.log.shared().wal.options.cleaner.interval;
        let put_off = &mut self.put_off;
        self.busy.retain(|id, done| match done.try_recv() {
            Ok(true) => false,
            Err(oneshot::error::TryRecvError::Empty) => true,
            Ok(false) | Err(oneshot::error::TryRecvError::Closed) => {
                put_off.insert(*id, (again, false));
                false
            }
        });
        self.put_off.retain(|_, (until, _)| *until > now);
    }

    /// The partition that has the most to gain, as Kafka chooses.
    fn choose(&self, hurried: bool) -> Option<(Arc<Partition>, Prospect)> {
        let wal = &self.log.shared().wal;
        let now_ms = wal.env.now_ms();
        let options = &wal.options.cleaner;
        let remote = wal.bucket.kind() == BucketKind::Remote;
        let small = (remote && !hurried).then_some((options.small_bytes, options.small_wait));
        let mut best: Option<(Arc<Partition>, Prospect)> = None;
        let mut dirtiest = 0.0f64;
        for partition in self.log.open_partitions() {
            let (config, sealed, log_start, stable) = {
                let inner = partition.lock();
                if !inner.config.compact || inner.deleted || inner.broken.is_some() {
                    continue;
                }
                let (config, sealed) = (Arc::clone(&inner.config), Arc::clone(&inner.sealed));
                (config, sealed, inner.log_start, inner.high_watermark)
            };
            let Some(prospect) = Prospect::of(&config, &sealed, log_start, stable, now_ms) else {
                continue;
            };
            let id = partition.id();
            dirtiest = dirtiest.max(prospect.ratio);
            let free = !self.busy.contains_key(&id) && !self.put_off.contains_key(&id);
            let better = best.as_ref().is_none_or(|(_, best)| prospect.ratio > best.ratio);
            if free && better && prospect.is_due(&config, small, now_ms) {
                best = Some((partition, prospect));
            }
        }
        let damaged = self.put_off.values().filter(|(_, damaged)| *damaged).count();
        wal.counters.set_cleaner(dirtiest, damaged as u64);
        best
    }

    async fn clean(&mut self, partition: &Arc<Partition>, prospect: &Prospect) {
        let id = partition.id();
        let log = self.log.clone();
        let wal = &log.shared().wal;
        let (done, committed) = oneshot::channel();
        let began = wal.env.instant();
        let outcome = self.pass(partition, prospect, done).await;
        let again = wal.options.cleaner.interval;
        match outcome {
            Ok(tally) => {
                wal.counters.add_cleaner_pass();
                self.report.add(&tally, prospect.dirty_bytes);
                tracing::debug!(
                    partition = %id, ratio = prospect.ratio, dirty_bytes = prospect.dirty_bytes,
                    records_in = tally.records_in, records_out = tally.records_out,
                    keyless = tally.keyless, unreadable_batches = tally.unreadable,
                    ms = wal.env.instant().saturating_duration_since(began).as_millis() as u64,
                    "compacted"
                );
            }
            Err(CleanError::Cancelled) => {
                self.put_off.insert(id, (wal.env.instant() + again, false));
            }
            Err(CleanError::Read(error)) => {
                wal.counters.add_cleaner_failure();
                let damaged = matches!(error, ReadError::Corrupt { .. });
                let wait = if damaged { DAMAGED_AGAIN } else { again };
                tracing::warn!(%error, partition = %id, "a partition was not compacted; trying again later");
                self.put_off.insert(id, (wal.env.instant() + wait, damaged));
            }
        }
        self.busy.insert(id, committed);
    }

    /// Waits until `bytes` more are within the budget.
    async fn pay(&mut self, bytes: usize) {
        let wal = &self.log.shared().wal;
        if let Some(limit) = wal.options.cleaner.io_bytes_per_second {
            let now = wal.env.instant();
            let cost = Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
            self.paid_until = self.paid_until.max(now) + cost;
            tokio::time::sleep_until(self.paid_until).await;
        }
    }
}

impl crate::log::KeeperHandle {
    fn clean_requests(&self) -> std::sync::MutexGuard<'_, Vec<oneshot::Sender<()>>> {
        self.clean_requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Compacts all that is due now, and returns when that is committed. For tests, tools and benchmarks.
    pub async fn clean_now(&self) {
        if !self.shared().wal.options.cleaner.enabled {
            return;
        }
        let (done, wait) = oneshot::channel();
        self.shared().keeper.clean_requests().push(done);
        self.shared().keeper.clean.notify_one();
        let _ = wait.await;
    }
}

#[cfg(test)]
mod tests;
