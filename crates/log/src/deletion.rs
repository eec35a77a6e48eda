//! Deleting what committed entries dropped.
//!
//! The keeper decides what may go, and why (D3). It hands each key over with the time at which the grace of slow readers
//! ends. This task deletes, in small steps, so that a topic of ten thousand segments holds up neither sealing nor
//! anything else: WAL entries below a checkpoint first, then objects whose grace is over, then deleted topics, then what
//! earlier starts left. Objects and topics share a budget of deletions per second; WAL entries have none, because they
//! must go as fast as new ones come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drumlin_objects::chain::ChainError;
use drumlin_objects::{BucketKind, Reason, StoreError};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::layout;
use crate::log::Log;
use crate::sweep::Sweep;
use crate::types::{TopicId, TopicPartition};

/// Objects that one step deletes at most.
const STEP: usize = 256;
/// Deletions per second: what a store takes without a visible effect on others.
const BUDGET: Budget = Budget {
    local: 500,
    remote: 1_000,
};
/// How long a deletion that failed waits.
const RETRY: Duration = Duration::from_secs(30);

struct Budget {
    local: u32,
    remote: u32,
}

/// Entries of this incarnation's chain that a committed checkpoint covers.
#[derive(Debug, Clone)]
pub(crate) struct Trim {
    /// All entries below this slot may go,
    pub below: u64,
    /// but for these: corrupt data lies in them, which the checkpoint names.
    pub kept: BTreeSet<u64>,
}

/// What waits to be deleted. The keeper adds to it; one task works on it.
#[derive(Default)]
pub(crate) struct Deletions {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    trims: BTreeMap<Instant, Trim>,
    objects: BTreeMap<Instant, Vec<String>>,
    object_count: usize,
    /// Partitions of deleted topics, which no checkpoint names any more.
    partitions: BTreeSet<TopicPartition>,
    /// Topics of which the keeper still holds partitions back.
    held_topics: BTreeSet<TopicId>,
    partitions_at: Option<Instant>,
    sweep: Option<(Instant, Sweep)>,
    /// Answered when nothing is due any more.
    waiters: Vec<oneshot::Sender<()>>,
}

/// The next thing to do.
enum Step {
    Trim(Trim),
    Objects(Vec<String>),
    Answer(Vec<oneshot::Sender<()>>),
    Partition(TopicPartition),
    Sweep(Sweep),
    WaitUntil(Option<Instant>),
}

impl Queue {
    fn push_objects(&mut self, at: Instant, keys: Vec<String>) {
        if !keys.is_empty() {
            self.object_count += keys.len();
            self.objects.entry(at).or_default().extend(keys);
        }
    }

    fn next_step(&mut self, now: Instant) -> Step {
        if let Some(trim) = self.trims.first_entry().filter(|trim| *trim.key() <= now) {
            return Step::Trim(trim.remove());
        }
        if let Some(mut due) = self.objects.first_entry().filter(|due| *due.key() <= now) {
            let keys = due.get_mut();
            let step = keys.split_off(keys.len().saturating_sub(STEP));
            if keys.is_empty() {
                due.remove();
            }
            self.object_count -= step.len();
            return Step::Objects(step);
        }
        if self.partitions_at.is_none_or(|at| at <= now)
            && let Some(id) = self.partitions.first()
        {
            return Step::Partition(*id);
        }
        if let Some((_, sweep)) = self.sweep.take_if(|(at, _)| *at <= now) {
            return Step::Sweep(sweep);
        }
        if !self.waiters.is_empty() {
            return Step::Answer(std::mem::take(&mut self.waiters));
        }
        let times = [
            self.trims.keys().next().copied(),
            self.objects.keys().next().copied(),
            self.partitions_at.filter(|_| !self.partitions.is_empty()),
            self.sweep.as_ref().map(|(at, _)| *at),
        ];
        Step::WaitUntil(times.into_iter().flatten().min())
    }
}

impl Deletions {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the objects once `at` has come.
    pub(crate) fn delete_at(&self, at: Instant, keys: Vec<String>) {
        self.lock().push_objects(at, keys);
        self.wake.notify_one();
    }

    /// Deletes chain entries once `at` has come. A later trim covers what earlier ones name.
    pub(crate) fn trim_at(&self, at: Instant, trim: Trim) {
        self.lock().trims.insert(at, trim);
        self.wake.notify_one();
    }

    /// Removes all objects of partitions that no checkpoint names any more. Other partitions of the topics in
    /// `held` follow: these topics are not gone yet.
    pub(crate) fn remove_partitions(&self, ids: BTreeSet<TopicPartition>, held: BTreeSet<TopicId>) {
        let mut queue = self.lock();
        queue.partitions.extend(ids);
        queue.held_topics = held;
        drop(queue);
        self.wake.notify_one();
    }

    /// Removes what earlier incarnations left and the newest checkpoint does not name.
    pub(crate) fn sweep(&self, now: Instant, sweep: Sweep) {
        self.lock().sweep = Some((now, sweep));
        self.wake.notify_one();
    }

    /// Answers when nothing is due any more: all that was, is deleted, or has failed once.
    pub(crate) fn answer_when_idle(&self, waiters: Vec<oneshot::Sender<()>>) {
        if !waiters.is_empty() {
            self.lock().waiters.extend(waiters);
            self.wake.notify_one();
        }
    }

    /// Objects that wait for their deletion, those in their grace included. Objects of deleted topics count when
    /// their partition is listed.
    pub(crate) fn pending(&self) -> u64 {
        let queue = self.lock();
        (queue.object_count + queue.partitions.len()) as u64
    }
}

/// What is left of a deleted topic's partition.
struct Listing {
    id: TopicPartition,
    keys: Vec<String>,
}

/// The task that deletes.
pub(crate) struct Deleter {
    log: Log,
    listing: Option<Listing>,
    /// The budget allows the next deletion from here on.
    free_at: Instant,
    /// Slots below this, but above the first that was kept, are deleted.
    trimmed_around: u64,
}

impl Deleter {
    pub(crate) fn new(log: Log) -> Self {
        let free_at = log.shared().wal.env.instant();
        Self {
            log,
            listing: None,
            free_at,
            trimmed_around: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        let log = self.log.clone();
        let deletions = &log.shared().deletions;
        loop {
            let now = log.shared().wal.env.instant();
            let step = deletions.lock().next_step(now);
            match step {
                Step::Trim(trim) => self.trim(trim).await,
                Step::Objects(keys) => self.delete_objects(keys).await,
                Step::Answer(waiters) => waiters.into_iter().for_each(|waiter| {
                    let _ = waiter.send(());
                }),
                Step::Partition(id) => self.remove_partition(id).await,
                Step::Sweep(sweep) => self.sweep(sweep).await,
                Step::WaitUntil(Some(at)) => tokio::select! {
                    biased;
                    () = deletions.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                Step::WaitUntil(None) => deletions.wake.notified().await,
            }
        }
    }

    async fn trim(&mut self, trim: Trim) {
        if let Err(error) = self.trim_entries(&trim).await {
            let below = trim.below;
            tracing::warn!(%error, below, "sealed WAL objects were not deleted; trying again later");
            let at = self.log.shared().wal.env.instant() + RETRY;
            self.log.shared().deletions.trim_at(at, trim);
        }
    }

    async fn trim_entries(&mut self, trim: &Trim) -> Result<(), ChainError> {
        let log = self.log.clone();
        let wal = &log.shared().wal;
        let Some(first) = trim.kept.first().copied() else {
            return wal.chain.trim(trim.below).await.map(drop);
        };
        wal.chain.trim(first).await?;
        // All of these are this writer's own: what lies below a committed checkpoint holds no fence that counts.
        let slots = (self.trimmed_around.max(first)..trim.below).filter(|slot| !trim.kept.contains(slot));
        let keys: Vec<String> = slots.map(|slot| wal.name.entry_key(slot)).collect();
        wal.bucket.delete_many(&keys, Reason::Sweep).await?;
        self.trimmed_around = self.trimmed_around.max(trim.below);
        Ok(())
    }

    async fn delete_objects(&mut self, keys: Vec<String>) {
        if let Err(error) = self.delete(&keys).await {
            tracing::warn!(%error, objects = keys.len(), "dropped objects were not deleted; trying again later");
            let at = self.log.shared().wal.env.instant() + RETRY;
            self.log.shared().deletions.lock().push_objects(at, keys);
        }
    }

    /// Deletes at most [`STEP`] objects, when the budget allows it.
    async fn delete(&mut self, keys: &[String]) -> Result<(), StoreError> {
        let bucket = self.log.bucket();
        tokio::time::sleep_until(self.free_at).await;
        let per_second = match bucket.kind() {
            BucketKind::Remote => BUDGET.remote,
            BucketKind::Local | BucketKind::Memory => BUDGET.local,
        };
        let cost = Duration::from_secs(keys.len() as u64) / per_second;
        self.free_at = bucket.env().instant() + cost;
        bucket.delete_many(keys, Reason::Sweep).await
    }

    /// Removes some of a partition's objects, and says so once the last of its topic are gone.
    async fn remove_partition(&mut self, id: TopicPartition) {
        let log = self.log.clone();
        let deletions = &log.shared().deletions;
        if let Err(error) = self.remove_step_of(id).await {
            tracing::warn!(%error, partition = %id, "objects of a deleted topic were not removed; trying again later");
            self.listing = None;
            deletions.lock().partitions_at = Some(log.shared().wal.env.instant() + RETRY);
            return;
        }
        if self
            .listing
            .as_ref()
            .is_some_and(|listing| !listing.keys.is_empty())
        {
            return;
        }
        self.listing = None;
        let is_gone = {
            let mut queue = deletions.lock();
            queue.partitions.remove(&id);
            queue.partitions_at = None;
            let mut left = queue.partitions.iter().map(|left| left.topic);
            !left.any(|topic| topic == id.topic) && !queue.held_topics.contains(&id.topic)
        };
        if is_gone {
            log.shared().swept.send_modify(|known| known.push(id.topic));
        }
    }

    async fn remove_step_of(&mut self, id: TopicPartition) -> Result<(), StoreError> {
        let mut listing = match self.listing.take().filter(|listing| listing.id == id) {
            Some(listing) => listing,
            None => {
                let prefix = layout::partition_prefix(&id);
                let listed = self.log.bucket().list(&prefix, None, Reason::Sweep).await?;
                let keys = listed.into_iter().map(|listed| listed.key).collect();
                Listing { id, keys }
            }
        };
        let rest = listing.keys.len().saturating_sub(STEP);
        let step = listing.keys.split_off(rest);
        self.delete(&step).await?;
        self.listing = Some(listing);
        Ok(())
    }

    async fn sweep(&mut self, sweep: Sweep) {
        if let Err(error) = sweep.run().await {
            tracing::warn!(%error, "what earlier starts left was not removed; trying again later");
            let at = self.log.shared().wal.env.instant() + RETRY;
            self.log.shared().deletions.sweep(at, sweep);
        }
    }
}
