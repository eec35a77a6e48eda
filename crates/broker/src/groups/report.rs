//! Figures of all shards for metrics: what they hold, what they did, what they have committed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drumlin_coordinator::ShardFigures;
use drumlin_wire::Str;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Hub;
use super::driver::Mail;

/// A shard that does not answer in this time is left out: it loads, or waits for the store.
const PATIENCE: Duration = Duration::from_secs(1);

/// A committed offset.
#[derive(Clone, Debug)]
pub struct GroupOffset {
    /// The group.
    pub group: Str,
    /// The topic.
    pub topic: Str,
    /// The partition.
    pub partition: i32,
    /// The next record that the group is to read.
    pub offset: i64,
}

/// What one shard tells.
pub struct ShardReport {
    /// Its counts.
    pub figures: ShardFigures,
    /// Its committed offsets, up to the limit that was asked for.
    pub offsets: Vec<GroupOffset>,
}

/// What all of them tell.
#[derive(Default, Debug)]
pub struct GroupsReport {
    /// Shards that are loaded.
    pub loaded: usize,
    /// Shards that load.
    pub loading: usize,
    /// Their counts, added up. Counters include those of shards that were unloaded since the start.
    pub figures: ShardFigures,
    /// Committed offsets, in order of group, topic and partition.
    pub offsets: Vec<GroupOffset>,
    /// Loads since the start.
    pub loads: u64,
    /// The time that they took, together.
    pub load_time: Duration,
    /// Records that they replayed.
    pub replayed: u64,
    /// Loads that began with a snapshot.
    pub restored: u64,
    /// Snapshots put.
    pub snapshots: u64,
    /// Their bytes.
    pub snapshot_bytes: u64,
    /// Records written to `__consumer_offsets`.
    pub records: u64,
    /// Batches that they were written in.
    pub batches: u64,
}

/// Counters that outlive a shard.
#[derive(Default)]
pub(crate) struct Totals {
    loads: AtomicU64,
    load_us: AtomicU64,
    replayed: AtomicU64,
    restored: AtomicU64,
    snapshots: AtomicU64,
    snapshot_bytes: AtomicU64,
    records: AtomicU64,
    batches: AtomicU64,
    /// Counters of all shards there were: one that does not answer, or is gone, must not make them go back.
    counters: std::sync::Mutex<ShardFigures>,
}

impl Totals {
    pub fn loaded(&self, took: Duration, records: u64) {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.load_us.fetch_add(us, Ordering::Relaxed);
        self.replayed.fetch_add(records, Ordering::Relaxed);
    }

    pub fn restored(&self) {
        self.restored.fetch_add(1, Ordering::Relaxed);
    }

    pub fn snapshot(&self, bytes: usize) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        self.snapshot_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn wrote(&self, records: u64, batches: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.batches.fetch_add(batches, Ordering::Relaxed);
    }

    /// A shard has got from these counters to those.
    pub fn counted(&self, before: &ShardFigures, after: &ShardFigures) {
        let mut sum = self.counters();
        let add = |sum: &mut u64, before: u64, after: u64| *sum += after.saturating_sub(before);
        add(
            &mut sum.classic_rebalances,
            before.classic_rebalances,
            after.classic_rebalances,
        );
        add(
            &mut sum.consumer_rebalances,
            before.consumer_rebalances,
            after.consumer_rebalances,
        );
        add(&mut sum.commits, before.commits, after.commits);
        add(&mut sum.expirations, before.expirations, after.expirations);
        add(&mut sum.deletions, before.deletions, after.deletions);
        add(
            &mut sum.skipped_records,
            before.skipped_records,
            after.skipped_records,
        );
    }

    fn counters(&self) -> std::sync::MutexGuard<'_, ShardFigures> {
        self.counters
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn add_gauges(sum: &mut ShardFigures, more: &ShardFigures) {
    sum.classic_empty += more.classic_empty;
    sum.classic_preparing += more.classic_preparing;
    sum.classic_completing += more.classic_completing;
    sum.classic_stable += more.classic_stable;
    sum.consumer_empty += more.consumer_empty;
    sum.consumer_assigning += more.consumer_assigning;
    sum.consumer_reconciling += more.consumer_reconciling;
    sum.consumer_stable += more.consumer_stable;
    sum.members += more.members;
    sum.offsets += more.offsets;
}

/// Asks the shards, all at once.
///
/// Their figures first, then the offsets: how many each is to tell follows from how many there are, so that all of them
/// together make no more copies than are wanted. Over the limit it is the later shards' that are left out.
pub(super) async fn gather(hub: &Hub, shards: Vec<mpsc::Sender<Mail>>, limit: usize) -> GroupsReport {
    let totals = &hub.totals;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut all = GroupsReport {
        figures: *totals.counters(),
        loads: count(&totals.loads),
        load_time: Duration::from_micros(count(&totals.load_us)),
        replayed: count(&totals.replayed),
        restored: count(&totals.restored),
        snapshots: count(&totals.snapshots),
        snapshot_bytes: count(&totals.snapshot_bytes),
        records: count(&totals.records),
        batches: count(&totals.batches),
        ..GroupsReport::default()
    };
    let deadline = hub.env.instant() + PATIENCE;
    let mut left = limit;
    let mut wanted = Vec::new();
    let told = ask(shards.iter().map(|mail| (mail, 0)), deadline).await;
    for (mail, told) in shards.iter().zip(told) {
        // One that loads lets go of the question.
        let Some(shard) = told else {
            all.loading += 1;
            continue;
        };
        all.loaded += 1;
        add_gauges(&mut all.figures, &shard.figures);
        let share = usize::try_from(shard.figures.offsets)
            .unwrap_or(usize::MAX)
            .min(left);
        if share > 0 {
            left -= share;
            wanted.push((mail, share));
        }
    }
    for shard in ask(wanted.into_iter(), deadline).await.into_iter().flatten() {
        all.offsets.extend(shard.offsets);
    }
    all.offsets
        .sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
    all
}

/// Asks each for so many offsets, all at once; none from one that does not answer.
async fn ask(
    shards: impl Iterator<Item = (&mpsc::Sender<Mail>, usize)>,
    deadline: Instant,
) -> Vec<Option<ShardReport>> {
    let asked: Vec<_> = shards
        .map(|(mail, limit)| {
            let (answer, answered) = oneshot::channel();
            let sent = mail.try_send(Mail::Report { limit, answer });
            (sent.is_ok()).then_some(answered)
        })
        .collect();
    let mut told = Vec::with_capacity(asked.len());
    for answered in asked {
        told.push(match answered {
            Some(answered) => (tokio::time::timeout_at(deadline, answered).await.ok()).and_then(Result::ok),
            None => None,
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_do_not_go_back_when_a_shard_is_loaded_anew() {
        let totals = Totals::default();
        let commits = |commits| ShardFigures {
            commits,
            ..ShardFigures::default()
        };
        totals.counted(&commits(0), &commits(5));
        totals.counted(&commits(5), &commits(9));
        totals.counted(&commits(0), &commits(2));
        assert_eq!(*totals.counters(), commits(11));
    }
}
