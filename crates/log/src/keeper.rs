//! The task that changes what partitions consist of: sealing rounds, retention, topic deletion, trash.
//!
//! One task does all of it, so that there is one writer of sealed state. A round uploads segments, bundles and
//! leaves, then commits one checkpoint entry, which makes all of it true at once (N1, N2); only what a committed
//! entry dropped is deleted (D3), after a grace for slow readers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use drumlin_objects::chain::{CheckpointError, ENTRY_HEADER_LEN};
use drumlin_objects::sabotage::{self, Sabotage};
use drumlin_objects::{BucketKind, Reason, StoreError};
use thiserror::Error;
use tokio::time::Instant;

use crate::cleaner::replace::Replacement;
use crate::layout;
use crate::leaves::{LeafLoad, LeafWriter, write_leaves};
use crate::log::Log;
use crate::lost::LostLeaf;
use crate::partition::{Inner, Partition, Sealed};
use crate::read::ReadError;
use crate::recover::Recovered;
use crate::state::{LeafRef, StateRoot, encode_state_root};
use crate::types::{TopicId, TopicPartition};
use crate::wal::{Unsealed, WAL_EPOCH, Wal};

/// With more partitions than this behind, rounds keep to their time.
const EARLY_PARTITIONS: usize = 256;
/// Swept topics that are told of; of those before, the next start tells again while their tombstones stand.
const SWEPT_TOPICS: usize = 10_000;
/// How long a failed round waits before it tries again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

#[derive(Debug, Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

pub(crate) struct Keeper {
    pub(crate) log: Log,
    pub(crate) leaves: Vec<LeafRef>,
    pub(crate) round: u64,
    /// The newest checkpoint covers the slots below this.
    covered: u64,
    /// The root of the newest checkpoint.
    pub(crate) root: Option<String>,
    /// Partitions whose stored state is behind, beyond what the WAL knows of.
    pub(crate) behind: BTreeSet<TopicPartition>,
    /// Partitions with damaged data in a bundle or a WAL object, which is left alone, and where the last of it ends.
    pub(crate) damaged: BTreeMap<TopicPartition, i64>,
    /// Leaves of the checkpoint that the start could not read.
    pub(crate) lost: Vec<LostLeaf>,
    /// Entries below this, but above the first with damaged data, are deleted.
    pub(crate) trimmed_around: u64,
    /// It is not known whether the last checkpoint was committed; and what it names, if it was.
    pub(crate) in_doubt: bool,
    pub(crate) doubtful: Vec<String>,
    /// Topics deleted, by partition, until their objects are gone.
    dropped: BTreeSet<TopicPartition>,
    /// Of these, what compaction may still have objects of on their way.
    dropped_later: BTreeSet<TopicPartition>,
    /// What compaction finished and no round has committed yet, in order; and since when there is any.
    pub(crate) replacements: Vec<Replacement>,
    pub(crate) replaced_since: Option<Instant>,
    /// Bundles written since the last merge, and those that were there at the start.
    pub(crate) recent_bundles: BTreeSet<Arc<str>>,
    /// Partitions whose log starts moved since their data was last looked through.
    pub(crate) prune_due: BTreeSet<TopicPartition>,
    /// Where each partition's dropped segments have been taken care of.
    pub(crate) pruned: BTreeMap<TopicPartition, i64>,
    pub(crate) trash: VecDeque<(Instant, String)>,
    /// Manifest objects that the round replaces; deleted only once it is committed.
    pub(crate) folded_away: Vec<String>,
    trims: VecDeque<(Instant, u64)>,
    /// What earlier incarnations left is to be swept once their data is sealed here.
    pub(crate) sweep_due: bool,
    /// That holds for earlier incarnations of all nodes: none of them is alive.
    pub(crate) sole: bool,
    next_retention: Instant,
    last_round: Instant,
    retry: Duration,
}

/// What of the hot log a round seals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Bytes.
    pub bytes: u64,
    /// The offset up to which all is sealed then; exclusive.
    pub end: i64,
}

/// A partition, its new sealed state, and what of the hot log that covers.
pub(crate) type Resealed = (Arc<Partition>, Sealed, Taken);

impl Keeper {
    pub(crate) fn new(log: Log, recovered: Recovered) -> Self {
        let now = log.shared().wal.env.instant();
        let mut behind = BTreeSet::new();
        let mut pruned = BTreeMap::new();
        for partition in log.open_partitions() {
            let inner = partition.lock();
            pruned.insert(partition.id(), inner.log_start);
            if !inner.hot.is_empty() {
                behind.insert(partition.id());
            }
        }
        let dropped: BTreeSet<TopicPartition> = recovered.partitions.keys().copied().collect();
        let next_retention = now + log.shared().wal.options.retention_interval;
        // Bundles of starts before this one are merged as its own are: each keeps a whole chain's prefix in use.
        let names = recovered.leaves.iter().flat_map(|leaf| &leaf.names);
        let bundles = names.filter(|name| layout::is_bundle(name));
        let recent_bundles = bundles.cloned().collect();
        Self {
            log,
            leaves: recovered.leaves,
            round: 0,
            covered: 0,
            root: None,
            behind,
            damaged: BTreeMap::new(),
            lost: recovered.lost,
            trimmed_around: 0,
            in_doubt: false,
            doubtful: Vec::new(),
            dropped,
            dropped_later: BTreeSet::new(),
            replacements: Vec::new(),
            replaced_since: None,
            recent_bundles,
            prune_due: BTreeSet::new(),
            pruned,
            trash: VecDeque::new(),
            folded_away: Vec::new(),
            trims: VecDeque::new(),
            sweep_due: recovered.inherited,
            sole: recovered.sole,
            next_retention,
            last_round: now,
            retry: RETRY.0,
        }
    }

    pub(crate) async fn run(mut self) {
        let wal = Arc::clone(&self.log.shared().wal);
        // Inherited data is sealed early: until then its old chains must stay.
        let mut retry_at = None;
        let mut inherited_at = (!self.behind.is_empty() || !self.dropped.is_empty() || self.sweep_due)
            .then(|| wal.env.instant() + wal.options.round_interval);
        loop {
            let now = wal.env.instant();
            self.take_replacements();
            let replaced_at = self
                .replaced_since
                .map(|since| since + wal.options.round_interval);
            let round_at = {
                let early = self.worth_an_early_round(&wal);
                let unsealed = wal.unsealed();
                let full = early
                    || unsealed.bytes >= wal.options.round_bytes
                    || unsealed.objects.len() >= wal.options.round_objects;
                let due = unsealed.since.map(|since| {
                    if full {
                        now
                    } else {
                        since + wal.options.round_interval
                    }
                });
                [due, inherited_at, replaced_at].into_iter().flatten().min()
            };
            let round_at = match (round_at, retry_at) {
                (Some(due), Some(retry)) => Some(due.max(retry)),
                (due, _) => due,
            };
            // A round that failed waits its time, whoever asks for one.
            let retry_at_last = retry_at.filter(|at| *at > now);
            let asked = match retry_at_last {
                Some(_) => Vec::new(),
                None => self.take_requests(),
            };
            let round_due = retry_at_last.is_none() && (!asked.is_empty() || !self.dropped.is_empty());
            if round_due || round_at.is_some_and(|at| at <= now) {
                let mut answers = Vec::new();
                match self.round().await {
                    Ok(()) => {
                        (retry_at, inherited_at, self.retry) = (None, None, RETRY.0);
                        answers = asked;
                    }
                    Err(KeepError::Checkpoint(CheckpointError::Ended(_))) => return,
                    Err(error) => {
                        tracing::warn!(%error, retry_ms = self.retry.as_millis() as u64, "sealing round failed");
                        retry_at = Some(wal.env.instant() + self.retry + wal.env.jitter(self.retry / 4));
                        self.retry = (2 * self.retry).min(RETRY.1);
                        let mut requests = wal_requests(&self.log);
                        requests.extend(asked);
                    }
                }
                // Under full load one round follows the other; what they dropped must go all the same.
                self.keep_house(&wal).await;
                answers.into_iter().for_each(|done| {
                    let _ = done.send(());
                });
                continue;
            }
            self.note_dirty(&mut wal.unsealed());
            self.keep_house(&wal).await;
            let trash_at = self.trash.front().map(|(at, _)| *at);
            let trim_at = self.trims.front().map(|(at, _)| *at);
            let wake = [
                round_at,
                retry_at_last,
                trash_at,
                trim_at,
                Some(self.next_retention),
            ]
            .into_iter()
            .flatten()
            .min();
            let wake = wake.unwrap_or(self.next_retention);
            tokio::select! {
                biased;
                () = wal.seal.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// What goes on beside sealing: retention when it is due, and deletions.
    async fn keep_house(&mut self, wal: &Wal) {
        let now = wal.env.instant();
        if self.next_retention <= now {
            self.next_retention = now + wal.options.retention_interval;
            if sabotage::on(Sabotage::DeleteByAge) {
                self.delete_by_age().await;
            }
            self.retention().await;
            self.expire_producers();
        }
        self.prune().await;
        self.empty_trash().await;
    }

    /// Whether to seal at once what is still in memory, rather than read it back when the round's time has come. Where
    /// requests are free, and nearly all of it is whole segments, so that nothing is written more often for it.
    fn worth_an_early_round(&mut self, wal: &Wal) -> bool {
        // Looking costs a walk over what is unsealed; where that is many partitions, most of it goes to bundles.
        if wal.bucket.kind() == BucketKind::Remote || self.behind.len() > EARLY_PARTITIONS {
            wal.unsealed().look_at = u64::MAX;
            return false;
        }
        let memory = wal.options.memory_bytes as u64;
        let bytes = {
            let mut unsealed = wal.unsealed();
            if unsealed.bytes < unsealed.look_at.max(memory / 8) {
                unsealed.look_at = unsealed.look_at.max(memory / 8);
                return false;
            }
            self.note_dirty(&mut unsealed);
            unsealed.look_at = unsealed.bytes + (memory / 16).max(1);
            unsealed.bytes
        };
        let (mut in_segments, mut in_bundles, mut nearly_full) = (0, 0, false);
        for id in &self.behind {
            let Some(partition) = self.log.partition(id) else {
                continue;
            };
            let inner = partition.lock();
            let segment = inner.config.segment_bytes;
            if inner.hot_bytes >= wal.options.segment_min_bytes.min(segment) {
                in_segments += inner.hot_bytes;
                nearly_full |= inner.hot_bytes >= segment / 8 * 7;
            } else {
                in_bundles += inner.hot_bytes;
            }
        }
        // Bundles are merged by their number: not many times a minute for a little in each.
        let soon = wal.env.instant() < self.last_round + wal.options.round_interval / 6;
        let whole = in_segments >= bytes / 10 * 9 && !(soon && in_bundles > 0);
        whole && (nearly_full || bytes >= memory / 2)
    }

    /// Takes note of what commits changed: partitions whose stored state is behind, and those whose log starts moved.
    fn note_dirty(&mut self, unsealed: &mut Unsealed) {
        let dirty = std::mem::take(&mut unsealed.dirty);
        if std::mem::take(&mut unsealed.edited) {
            self.prune_due.extend(&dirty);
        }
        self.behind.extend(dirty);
    }

    fn take_requests(&mut self) -> Vec<tokio::sync::oneshot::Sender<()>> {
        let keeper = &self.log.shared().keeper;
        let mut dropped = keeper.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        self.dropped_later.extend(dropped.drain(..));
        drop(dropped);
        // What is on its way when the rest is removed would stay for ever.
        let cleaning = keeper.cleaning();
        let (later, now) = std::mem::take(&mut self.dropped_later)
            .into_iter()
            .partition(|id| Some(*id) == cleaning);
        self.dropped_later = later;
        let now: BTreeSet<TopicPartition> = now;
        self.dropped.extend(now);
        std::mem::take(&mut *wal_requests(&self.log))
    }

    /// One round, and what follows from its outcome.
    async fn round(&mut self) -> Result<(), KeepError> {
        match self.seal_round().await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                self.round_failed(&error);
                return Err(error);
            }
        }
        self.remove_dropped().await?;
        if self.sweep_due {
            match self.sweep().await {
                Ok(()) => self.sweep_due = false,
                // The round is committed, whatever becomes of what earlier starts left.
                Err(error) => {
                    tracing::warn!(%error, "the sweep was broken off; trying again after another round")
                }
            }
        }
        Ok(())
    }

    /// Seals what is committed, and commits the checkpoint that says so; false if there was nothing to say.
    async fn seal_round(&mut self) -> Result<bool, KeepError> {
        let log = self.log.clone();
        let wal = &log.shared().wal;
        // Everything below the cut is committed, and its effects are in memory: the commit loop put them there.
        self.note_dirty(&mut wal.unsealed());
        self.prune().await;
        // The last checkpoint's own entry lies above what it covered; its commit may not have been counted yet.
        while wal.unsealed().processed <= self.covered {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (cut, objects) = {
            let mut unsealed = wal.unsealed();
            let cut = unsealed.processed;
            let objects = unsealed
                .objects
                .iter()
                .take_while(|object| object.slot < cut)
                .count();
            self.note_dirty(&mut unsealed);
            (cut, objects)
        };
        self.behind.extend(&self.dropped);
        self.behind.extend(self.untold_in_lost_ranges());
        self.folded_away.clear();
        self.take_replacements();
        let replacing = self.apply_replacements(self.round + 1).await?;
        // With nothing new to say the first checkpoint takes the estate's place all the same: then the chains before
        // this one can be swept.
        if self.behind.is_empty() && !self.sweep_due {
            self.settle_replacements();
            return Ok(false);
        }
        let works = self.plan(cut, replacing);
        let sealed = self.upload(works).await?;
        let changed = self.behind.clone();
        let leaves = self.write_state(&sealed, &changed).await?;
        let root_key = layout::body_key(&wal.name.prefix, wal.env.random_id());
        self.round += 1;
        let root = StateRoot {
            cluster_id: log.shared().identity.cluster_id.clone(),
            node: log.shared().identity.node,
            incarnation: log.shared().identity.incarnation,
            covers_below: cut,
            round: self.round,
            leaves: leaves.clone(),
        };
        log.shared().keeper.note_upload(&root_key);
        wal.bucket
            .put(
                &root_key,
                vec![encode_state_root(&root).into()],
                Reason::Checkpoint,
            )
            .await?;
        let entry = BytesMut::zeroed(ENTRY_HEADER_LEN);
        if sabotage::on(Sabotage::DeleteBeforeCommit) {
            self.delete_dropped_early(&leaves).await?;
        }
        wal.chain.checkpoint(cut, &root_key, WAL_EPOCH, entry).await?;
        self.covered = cut;
        self.round_committed();
        self.install(sealed, leaves, root_key, cut, objects);
        self.settle_replacements();
        Ok(true)
    }

    /// Writes the leaves that changed.
    async fn write_state(
        &self,
        sealed: &[Resealed],
        changed: &BTreeSet<TopicPartition>,
    ) -> Result<Vec<LeafRef>, KeepError> {
        let wal = &self.log.shared().wal;
        let new: BTreeMap<TopicPartition, &Sealed> = sealed
            .iter()
            .map(|(partition, sealed, _)| (partition.id(), sealed))
            .collect();
        let shared = self.log.shared();
        let lost = self.lost_leaves();
        // In the range of a lost leaf what has no state is taken for lost with it.
        let told = |id: &TopicPartition, inner: &Inner| {
            inner.high_watermark > 0 || inner.broken.is_some() || self.is_in_lost_range(id)
        };
        let load: LeafLoad<'_> = &|range| {
            let partitions = shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
            let states = partitions.range(range).filter_map(|(id, partition)| {
                let inner = partition.lock();
                let sealed = new.get(id).copied().unwrap_or(&inner.sealed);
                told(id, &inner).then(|| inner.stored(*id, sealed))
            });
            states.collect()
        };
        let writer = LeafWriter {
            env: &wal.env,
            bucket: &wal.bucket,
            prefix: &wal.name.prefix,
            lost: &lost,
            on_put: &|key| shared.keeper.note_upload(key),
            why: Reason::Checkpoint,
        };
        Ok(write_leaves(writer, &self.leaves, changed, load).await?)
    }

    /// Makes a committed round visible, and marks what it replaced for deletion.
    fn install(
        &mut self,
        sealed: Vec<Resealed>,
        leaves: Vec<LeafRef>,
        root: String,
        covers_below: u64,
        objects: usize,
    ) {
        let log = self.log.clone();
        let wal = &log.shared().wal;
        let now = wal.env.instant();
        for (partition, sealed, taken) in sealed {
            let mut inner = partition.lock();
            inner.sealed = Arc::new(sealed);
            inner.forget_sealed_extents(taken);
        }
        let wal_at = now + self.grace(wal.options.wal_grace);
        let names = |leaves: &[LeafRef]| -> BTreeSet<Arc<str>> {
            let named = leaves.iter().flat_map(|leaf| leaf.names.iter().cloned());
            named.filter(|name| layout::is_bundle(name)).collect()
        };
        let kept: BTreeSet<Arc<str>> = leaves.iter().map(|leaf| Arc::clone(&leaf.key)).collect();
        let (bundles_before, bundles_now) = (names(&self.leaves), names(&leaves));
        for bundle in bundles_before.difference(&bundles_now) {
            self.trash.push_back((wal_at, bundle.to_string()));
        }
        for leaf in self.leaves.iter().filter(|leaf| !kept.contains(&leaf.key)) {
            self.trash.push_back((wal_at, leaf.key.to_string()));
        }
        if let Some(old) = self.root.replace(root) {
            self.trash.push_back((wal_at, old));
        }
        self.recent_bundles.retain(|bundle| bundles_now.contains(bundle));
        self.leaves = leaves;
        self.behind.clear();
        self.last_round = now;
        let mut sealed_bytes = 0;
        {
            let mut unsealed = wal.unsealed();
            for _ in 0..objects {
                if let Some(object) = unsealed.objects.pop_front() {
                    sealed_bytes += object.length;
                    log.forget_cached(&object);
                }
            }
            unsealed.bytes = unsealed.bytes.saturating_sub(sealed_bytes);
            unsealed.look_at = 0;
            unsealed.since = (!unsealed.objects.is_empty()).then_some(now);
            wal.note_unsealed_bytes(unsealed.bytes);
        }
        wal.counters.add_round();
        wal.sealed.notify_waiters();
        self.trims.push_back((wal_at, covers_below));
        let segments_at = now + self.grace(wal.options.segment_grace);
        self.trash
            .extend(self.folded_away.drain(..).map(|key| (segments_at, key)));
    }

    /// Readers of a local directory are this process's, and look again when an object is gone.
    pub(crate) fn grace(&self, remote: Duration) -> Duration {
        match self.log.bucket().kind() {
            BucketKind::Remote => remote,
            BucketKind::Local | BucketKind::Memory => Duration::ZERO,
        }
    }

    /// Deletes what is due.
    async fn empty_trash(&mut self) {
        let log = self.log.clone();
        let wal = &log.shared().wal;
        let now = wal.env.instant();
        while let Some((at, below)) = self.trims.front().copied().filter(|(at, _)| *at <= now) {
            self.trims.pop_front();
            if let Err(error) = self.trim(below).await {
                tracing::warn!(%error, below, "sealed WAL objects were not deleted; trying again later");
                self.trims.push_back((at.max(now) + RETRY.1, below));
                break;
            }
        }
        // Graces differ, so that the order of due times is not that of the queue.
        let mut later = VecDeque::new();
        let mut failed = false;
        while let Some((at, key)) = self.trash.pop_front() {
            if at > now || failed {
                later.push_back((at, key));
            } else if let Err(error) = wal.bucket.delete(&key, Reason::Sweep).await {
                tracing::warn!(%error, key, "a dropped object was not deleted; trying again later");
                later.push_back((now + RETRY.1, key));
                failed = true;
            }
        }
        later.make_contiguous().sort_by_key(|(at, _)| *at);
        self.trash = later;
    }

    /// Removes the objects of deleted topics, whose partitions no checkpoint names any more.
    async fn remove_dropped(&mut self) -> Result<(), KeepError> {
        let bucket = self.log.bucket().clone();
        let mut topics: BTreeSet<TopicId> = BTreeSet::new();
        let mut failed = None;
        while let Some(id) = self.dropped.first().copied() {
            if self.log.partition(&id).is_some() {
                self.dropped.remove(&id);
                continue;
            }
            let prefix = layout::partition_prefix(&id);
            let removed = async {
                for listed in bucket.list(&prefix, None, Reason::Sweep).await? {
                    bucket.delete(&listed.key, Reason::Sweep).await?;
                }
                Ok::<(), StoreError>(())
            };
            failed = removed.await.err();
            if failed.is_some() {
                break;
            }
            self.dropped.remove(&id);
            self.pruned.remove(&id);
            self.damaged.remove(&id);
            topics.insert(id.topic);
        }
        // Those that are gone are told of whatever befell the others.
        let pending: BTreeSet<TopicId> = self.dropped.iter().map(|id| id.topic).collect();
        let swept: Vec<TopicId> = topics.difference(&pending).copied().collect();
        if !swept.is_empty() {
            self.log.shared().swept.send_modify(|known| {
                known.extend(swept);
                known.drain(..known.len().saturating_sub(SWEPT_TOPICS));
            });
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn expire_producers(&self) {
        let wal = &self.log.shared().wal;
        let now = wal.env.instant();
        let partitions = self.log.open_partitions();
        for partition in partitions {
            let mut inner = partition.lock();
            if !inner.producers.is_empty() {
                let committed = inner.high_watermark;
                inner
                    .producers
                    .expire(committed, now, wal.options.producer_expiration);
            }
        }
    }
}

fn wal_requests(log: &Log) -> std::sync::MutexGuard<'_, Vec<tokio::sync::oneshot::Sender<()>>> {
    log.shared()
        .keeper
        .seal_requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
