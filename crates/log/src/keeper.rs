//! The task that changes what partitions consist of: sealing rounds, retention, topic deletion, trash.
//!
//! One task does all of it, so that there is one writer of sealed state. A round uploads segments, bundles and
//! leaves, then commits one checkpoint entry, which makes all of it true at once (N1, N2); only what a committed
//! entry dropped is deleted (D3), after a grace for slow readers.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::object::WalObject;
use crate::partition::{Inner, Partition, Sealed};
use crate::read::ReadError;
use crate::recover::Recovered;
use crate::state::{LeafRef, StateRoot, encode_state_root};
use crate::sweep::Sweep;
use crate::types::TopicPartition;
use crate::wal::{RoundCut, Unsealed, WAL_EPOCH, Wal};

/// With more partitions than this behind, rounds keep to their time.
const EARLY_PARTITIONS: usize = 256;
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
    /// It is not known whether the last checkpoint was committed; and what it names, if it was.
    pub(crate) in_doubt: bool,
    pub(crate) doubtful: Vec<String>,
    /// Partitions of deleted topics, until a checkpoint has left them out; and since when there are any.
    dropped: BTreeSet<TopicPartition>,
    dropped_since: Option<Instant>,
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
    /// Manifest objects that the round replaces; deleted only once it is committed.
    pub(crate) folded_away: Vec<String>,
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
            in_doubt: false,
            doubtful: Vec::new(),
            dropped,
            dropped_since: None,
            dropped_later: BTreeSet::new(),
            replacements: Vec::new(),
            replaced_since: None,
            recent_bundles,
            prune_due: BTreeSet::new(),
            pruned,
            folded_away: Vec::new(),
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
            // What compaction made and what was deleted waits for the next round, and makes none come early: small rounds
            // write more bundles, which are read back and written again.
            let waits_since = [self.replaced_since, self.dropped_since]
                .into_iter()
                .flatten()
                .min();
            let waits_until = waits_since.map(|since| since + wal.options.round_interval);
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
                [due, inherited_at, waits_until].into_iter().flatten().min()
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
            if !asked.is_empty() || round_at.is_some_and(|at| at <= now) {
                let mut answers = Vec::new();
                match self.round(!asked.is_empty()).await {
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
                self.keep_house(&wal).await;
                self.log.shared().deletions.answer_when_idle(answers);
                continue;
            }
            self.note_dirty(&mut wal.unsealed());
            self.keep_house(&wal).await;
            let wake = [round_at, retry_at_last].into_iter().flatten();
            let wake = wake.fold(self.next_retention, Instant::min);
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
    }

    /// Deletes what a committed entry dropped, once `at` has come.
    pub(crate) fn delete_at(&self, at: Instant, keys: Vec<String>) {
        self.log.shared().deletions.delete_at(at, keys);
    }

    /// Whether to seal at once what is still in memory, rather than read it back when the round's time has come. Where
    /// requests are free, and nearly all of it is whole segments, so that nothing is written more often for it.
    fn worth_an_early_round(&mut self, wal: &Wal) -> bool {
        // Looking costs a walk over what is unsealed; where that is many partitions, most of it goes to bundles.
        if wal.bucket.kind() == BucketKind::Remote || self.behind.len() > EARLY_PARTITIONS {
            wal.unsealed().look_at = u64::MAX;
            wal.backlog.set_limits(None);
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
        wal.backlog.set_limits(whole.then_some(memory));
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
        if !self.dropped.is_empty() {
            self.dropped_since
                .get_or_insert(self.log.shared().wal.env.instant());
        }
        std::mem::take(&mut *wal_requests(&self.log))
    }

    /// One round, and what follows from its outcome. `whole`: it seals all that is committed, whatever that takes.
    async fn round(&mut self, whole: bool) -> Result<(), KeepError> {
        match self.seal_round(whole).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                self.round_failed(&error);
                return Err(error);
            }
        }
        self.release_dropped();
        if std::mem::take(&mut self.sweep_due) {
            let (log, leaves, sole) = (self.log.clone(), self.leaves.clone(), self.sole);
            let now = log.shared().wal.env.instant();
            self.log
                .shared()
                .deletions
                .sweep(now, Sweep { log, leaves, sole });
        }
        Ok(())
    }

    /// Seals what is committed, as far as a few seconds suffice, and commits the checkpoint that says so; false if there
    /// was nothing to say.
    async fn seal_round(&mut self, whole: bool) -> Result<bool, KeepError> {
        let log = self.log.clone();
        let wal = &log.shared().wal;
        // Everything below the cut is committed, and its effects are in memory: the commit loop put them there.
        self.note_dirty(&mut wal.unsealed());
        self.prune().await;
        // The last checkpoint's own entry lies above what it covered; its commit may not have been counted yet.
        while wal.unsealed().processed <= self.covered {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let began = wal.env.instant();
        let cut = {
            let mut unsealed = wal.unsealed();
            self.note_dirty(&mut unsealed);
            unsealed.cut_round(if whole {
                u64::MAX
            } else {
                wal.backlog.round_limit()
            })
        };
        self.behind.extend(&self.dropped);
        self.behind.extend(self.untold_in_lost_ranges());
        self.folded_away.clear();
        self.take_replacements();
        let replacing = self.apply_replacements(self.round + 1).await?;
        // With nothing new to say the first checkpoint takes the estate's place all the same: then the chains before
        // this one can be swept.
        // Nobody is behind either where the last partitions of WAL objects were deleted, and the objects are to go.
        if self.behind.is_empty() && !self.sweep_due && cut.objects == 0 {
            self.settle_replacements();
            return Ok(false);
        }
        let works = self.plan(cut.below, replacing);
        let sealed = self.upload(works).await?;
        let changed = self.behind.clone();
        let leaves = self.write_state(&sealed, &changed).await?;
        let root_key = layout::body_key(&wal.name.prefix, wal.env.random_id());
        self.round += 1;
        let root = StateRoot {
            cluster_id: log.shared().identity.cluster_id.clone(),
            node: log.shared().identity.node,
            incarnation: log.shared().identity.incarnation,
            covers_below: cut.below,
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
        wal.chain
            .checkpoint(cut.below, &root_key, WAL_EPOCH, entry)
            .await?;
        self.covered = cut.below;
        self.round_committed();
        let objects = self.install(sealed, leaves, root_key, &cut);
        // The first round of a start has inherited data besides, which its bytes do not tell of.
        if !self.sweep_due {
            wal.backlog
                .note_sealed(cut.bytes, wal.env.instant().saturating_duration_since(began));
        }
        log.forget_cached(objects).await;
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

    /// Makes a committed round visible, and marks what it replaced for deletion. Returns the WAL objects that are
    /// sealed now.
    fn install(
        &mut self,
        sealed: Vec<Resealed>,
        leaves: Vec<LeafRef>,
        root: String,
        cut: &RoundCut,
    ) -> Vec<Arc<WalObject>> {
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
        let bundles = bundles_before.difference(&bundles_now).map(|key| key.to_string());
        let replaced = self.leaves.iter().filter(|leaf| !kept.contains(&leaf.key));
        let replaced = bundles.chain(replaced.map(|leaf| leaf.key.to_string()));
        let replaced = replaced.chain(self.root.take()).collect();
        self.delete_at(wal_at, replaced);
        self.root = Some(root);
        self.recent_bundles.retain(|bundle| bundles_now.contains(bundle));
        self.leaves = leaves;
        // A round that was cut leaves some of the partitions' data for the next one.
        self.behind.retain(|id| {
            let partition = log.partition(id);
            partition.is_some_and(|partition| partition.lock().has_unsealed())
        });
        self.last_round = now;
        let objects = {
            let mut unsealed = wal.unsealed();
            let objects = unsealed.forget_sealed(cut, now);
            wal.backlog.note_unsealed(unsealed.bytes);
            objects
        };
        objects.iter().for_each(|object| object.set_sealed());
        wal.counters.add_round();
        wal.backlog.note_round_end();
        log.shared().deletions.trim_at(wal_at, self.trim_of(cut.below));
        let segments_at = now + self.grace(wal.options.segment_grace);
        let folded_away = std::mem::take(&mut self.folded_away);
        self.delete_at(segments_at, folded_away);
        objects
    }

    /// Readers of a local directory are this process's, and look again when an object is gone.
    pub(crate) fn grace(&self, remote: Duration) -> Duration {
        match self.log.bucket().kind() {
            BucketKind::Remote => remote,
            BucketKind::Local | BucketKind::Memory => Duration::ZERO,
        }
    }

    /// Hands over deleted topics, whose partitions no checkpoint names any more.
    fn release_dropped(&mut self) {
        self.dropped_since = None;
        let dropped = std::mem::take(&mut self.dropped);
        if dropped.is_empty() {
            return;
        }
        for id in &dropped {
            self.pruned.remove(id);
            self.damaged.remove(id);
        }
        let held = self.dropped_later.iter().map(|id| id.topic).collect();
        self.log.shared().deletions.remove_partitions(dropped, held);
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
