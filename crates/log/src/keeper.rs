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

use crate::cleaner::replace::{Replacement, Replacing};
use crate::fold::fold;
use crate::layout;
use crate::leaves::{LeafLoad, write_leaves};
use crate::log::Log;
use crate::manifest::{Segment, Span};
use crate::object::Extent;
use crate::partition::{Partition, Sealed};
use crate::read::ReadError;
use crate::recover::Recovered;
use crate::seal::{Builder, BundleRow, Piece, encode_bundle_table};
use crate::state::{LeafRef, StateRoot, encode_state_root};
use crate::types::{TopicId, TopicPartition};
use crate::wal::{Unsealed, WAL_EPOCH, Wal};

/// A bundle's size, about; a round that holds more writes several.
const BUNDLE_BYTES: u64 = 64 << 20;
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
    round: u64,
    /// The newest checkpoint covers the slots below this.
    covered: u64,
    /// The root of the newest checkpoint.
    pub(crate) root: Option<String>,
    /// Partitions whose stored state is behind, beyond what the WAL knows of.
    pub(crate) behind: BTreeSet<TopicPartition>,
    /// Topics deleted, by partition, until their objects are gone.
    dropped: BTreeSet<TopicPartition>,
    /// Of these, what compaction may still have objects of on their way.
    dropped_later: BTreeSet<TopicPartition>,
    /// What compaction finished and no round has committed yet, in order; and since when there is any.
    pub(crate) replacements: Vec<Replacement>,
    pub(crate) replaced_since: Option<Instant>,
    /// Bundles written since the last merge.
    recent_bundles: BTreeSet<Arc<str>>,
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
    next_retention: Instant,
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
type Resealed = (Arc<Partition>, Sealed, Taken);

/// What a round does to one partition.
struct Work {
    partition: Arc<Partition>,
    sealed: Sealed,
    taken: Taken,
    pieces: Vec<Piece>,
    segment_bytes: u64,
    to_segments: bool,
}

impl Keeper {
    pub(crate) fn new(log: Log, recovered: Recovered) -> Self {
        let now = log.shared().wal.env.instant();
        let mut behind = BTreeSet::new();
        let mut pruned = BTreeMap::new();
        let partitions = log
            .shared()
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for (id, partition) in partitions.iter() {
            let inner = partition.lock();
            pruned.insert(*id, inner.log_start);
            if !inner.hot.is_empty() {
                behind.insert(*id);
            }
        }
        drop(partitions);
        let dropped: BTreeSet<TopicPartition> = recovered.partitions.keys().copied().collect();
        let next_retention = now + log.shared().wal.options.retention_interval;
        Self {
            log,
            leaves: recovered.leaves,
            round: 0,
            covered: 0,
            root: None,
            behind,
            dropped,
            dropped_later: BTreeSet::new(),
            replacements: Vec::new(),
            replaced_since: None,
            recent_bundles: BTreeSet::new(),
            prune_due: BTreeSet::new(),
            pruned,
            trash: VecDeque::new(),
            folded_away: Vec::new(),
            trims: VecDeque::new(),
            sweep_due: recovered.estate.is_some(),
            next_retention,
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
                match self.round().await {
                    Ok(()) => {
                        (retry_at, inherited_at, self.retry) = (None, None, RETRY.0);
                        asked.into_iter().for_each(|done| {
                            let _ = done.send(());
                        });
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
                continue;
            }
            if self.next_retention <= now {
                self.next_retention = now + wal.options.retention_interval;
                if sabotage::on(Sabotage::DeleteByAge) {
                    self.delete_by_age().await;
                }
                self.retention().await;
                self.expire_producers();
            }
            self.note_dirty(&mut wal.unsealed());
            self.prune().await;
            self.empty_trash().await;
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

    /// Whether to seal at once what is still in memory, rather than read it back when the round's time has come. Where
    /// requests are free, and nearly all of it is whole segments, so that nothing is written more often for it.
    fn worth_an_early_round(&mut self, wal: &Wal) -> bool {
        if wal.bucket.kind() == BucketKind::Remote {
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
        let (mut in_segments, mut nearly_full) = (0, false);
        for id in &self.behind {
            let Some(partition) = self.log.partition(id) else {
                continue;
            };
            let inner = partition.lock();
            let segment = inner.config.segment_bytes;
            if inner.hot_bytes >= wal.options.segment_min_bytes.min(segment) {
                in_segments += inner.hot_bytes;
                nearly_full |= inner.hot_bytes >= segment / 8 * 7;
            }
        }
        let early = in_segments >= bytes / 10 * 9 && (nearly_full || bytes >= memory / 2);
        if early {
            wal.unsealed().look_at = 0;
        }
        early
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

    /// One round: seals what is committed, and commits the checkpoint that says so.
    async fn round(&mut self) -> Result<(), KeepError> {
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
        self.folded_away.clear();
        self.take_replacements();
        let replacing = self.apply_replacements(self.round + 1).await?;
        if self.behind.is_empty() {
            self.settle_replacements();
            return Ok(());
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
        self.install(sealed, leaves, root_key, cut, objects);
        self.settle_replacements();
        self.remove_dropped().await?;
        if self.sweep_due {
            self.sweep().await?;
            self.sweep_due = false;
        }
        Ok(())
    }

    /// Decides what becomes of each partition's unsealed data.
    fn plan(&self, cut: u64, mut replacing: Replacing) -> Vec<Work> {
        let wal = &self.log.shared().wal;
        let now_ms = wal.env.now_ms();
        let merge = self.recent_bundles.len() >= wal.options.bundle_merge_count;
        let own: &str = &wal.name.prefix;
        let mut works = Vec::new();
        let candidates: Vec<Arc<Partition>> = {
            let partitions = self
                .log
                .shared()
                .partitions
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            partitions
                .iter()
                .filter(|(id, partition)| {
                    let inner = partition.lock();
                    inner.broken.is_none() && (self.behind.contains(id) || !inner.sealed.spans.is_empty())
                })
                .map(|(_, partition)| Arc::clone(partition))
                .collect()
        };
        for partition in candidates {
            let inner = partition.lock();
            let sealed_end = inner.sealed_end;
            let unsealed = inner.hot.iter().take_while(|extent| {
                extent.last_offset < sealed_end
                    || extent.object.chain.prefix != own
                    || extent.object.slot < cut
            });
            let fresh: Vec<Extent> = unsealed
                .filter(|extent| extent.base_offset >= sealed_end)
                .cloned()
                .collect();
            let taken = Taken {
                bytes: fresh.iter().map(|extent| u64::from(extent.length)).sum(),
                end: fresh.last().map_or(sealed_end, |extent| extent.last_offset + 1),
            };
            let log_start = inner.log_start;
            let live = fresh.into_iter().filter(|extent| extent.last_offset >= log_start);
            let replaced = replacing.remove(&partition.id());
            let mut sealed = replaced.unwrap_or_else(|| Sealed::clone(&inner.sealed));
            let spans: u64 = sealed.spans.iter().map(|span| span.length).sum();
            let extents: Vec<Piece> = live.map(Piece::Extent).collect();
            let bytes: u64 = extents.iter().map(Piece::length).sum();
            let age = wal.options.bundle_max_age.as_millis() as i64;
            // Jittered by the partition, so that a day's small data does not leave all at once.
            let jitter = age / 8 * i64::from(crc32c::crc32c(&inner_seed(partition.id())) % 64) / 64;
            let old = sealed
                .spans
                .first()
                .is_some_and(|span| now_ms - span.sealed_ms > age - jitter);
            let least = wal.options.segment_min_bytes.min(inner.config.segment_bytes);
            let to_segments = old || (spans + bytes >= least && bytes + spans > 0);
            let keep_spans = if to_segments {
                0
            } else if merge {
                sealed
                    .spans
                    .partition_point(|span| !self.recent_bundles.contains(&span.bundle))
            } else {
                sealed.spans.len()
            };
            let mut pieces: Vec<Piece> = sealed.spans.drain(keep_spans..).map(Piece::Span).collect();
            pieces.extend(extents);
            let merges_one = pieces.len() == 1 && matches!(pieces[0], Piece::Span(_)) && !to_segments;
            let idle = pieces.is_empty() || merges_one;
            if idle && !self.behind.contains(&partition.id()) {
                continue;
            }
            if merges_one && let Some(Piece::Span(span)) = pieces.pop() {
                sealed.spans.push(span);
            }
            let segment_bytes = inner.config.segment_bytes;
            drop(inner);
            works.push(Work {
                partition,
                sealed,
                taken,
                pieces,
                segment_bytes,
                to_segments,
            });
        }
        works
    }

    /// Uploads segments and bundles; returns each partition's new sealed state.
    async fn upload(&mut self, works: Vec<Work>) -> Result<Vec<Resealed>, KeepError> {
        let mut done = Vec::new();
        let mut bundle = BundleWriter::default();
        for work in works {
            let Work {
                partition,
                mut sealed,
                taken,
                pieces,
                segment_bytes,
                to_segments,
            } = work;
            if !pieces.is_empty() {
                self.behind.insert(partition.id());
            }
            if to_segments {
                self.upload_segments(&partition, &pieces, segment_bytes, &mut sealed)
                    .await?;
            } else if !pieces.is_empty() {
                if bundle.size >= BUNDLE_BYTES {
                    std::mem::take(&mut bundle).write(self, &mut done).await?;
                }
                let sealed_ms = pieces.iter().find_map(|piece| match piece {
                    Piece::Span(span) => Some(span.sealed_ms),
                    Piece::Extent(_) => None,
                });
                let mut builder = Builder::new();
                for piece in &pieces {
                    builder.push(&self.log.load_piece(&partition, piece).await?)?;
                }
                builder.finish();
                bundle.add(done.len(), partition.id(), builder, sealed_ms);
            }
            let wal = &self.log.shared().wal;
            if sealed.added.len() >= wal.options.manifest_fold {
                let old = fold(&self.log, &partition, &mut sealed, self.round + 1).await?;
                self.folded_away.extend(old);
            }
            done.push((partition, sealed, taken));
        }
        bundle.write(self, &mut done).await?;
        Ok(done)
    }

    async fn upload_segments(
        &self,
        partition: &Arc<Partition>,
        pieces: &[Piece],
        segment_bytes: u64,
        sealed: &mut Sealed,
    ) -> Result<(), KeepError> {
        let total: u64 = pieces.iter().map(Piece::length).sum();
        let count = total.div_ceil(segment_bytes.max(1)).max(1);
        let target = total.div_ceil(count);
        let mut builder = Builder::new();
        for (at, piece) in pieces.iter().enumerate() {
            builder.push(&self.log.load_piece(partition, piece).await?)?;
            let next = pieces.get(at + 1).map_or(0, Piece::length);
            if builder.size >= target || builder.size + next > segment_bytes {
                let full = std::mem::replace(&mut builder, Builder::new());
                sealed.added.push(self.put_segment(partition, full).await?);
            }
        }
        if builder.size > 0 {
            sealed.added.push(self.put_segment(partition, builder).await?);
        }
        Ok(())
    }

    async fn put_segment(
        &self,
        partition: &Partition,
        mut builder: Builder,
    ) -> Result<Arc<Segment>, KeepError> {
        builder.finish();
        let wal = &self.log.shared().wal;
        let segment = Segment {
            base_offset: builder.base_offset,
            end_offset: builder.end_offset,
            size: builder.size,
            max_timestamp: builder.max_timestamp,
            sealed_ms: wal.env.now_ms(),
            epoch: partition.leader_epoch(),
            incarnation: self.log.shared().identity.incarnation,
            unique: wal.env.random_u64(),
            cleaned: false,
            crc: builder.crc,
            detail: builder.detail,
        };
        self.log
            .put_parts(&segment.key(&partition.id()), builder.parts, Reason::Segment)
            .await?;
        wal.counters.add_sealed(segment.size);
        Ok(Arc::new(segment))
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
        let load: LeafLoad<'_> = &|range| {
            let partitions = shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
            let states = partitions.range(range).filter_map(|(id, partition)| {
                let inner = partition.lock();
                let sealed = new.get(id).copied().unwrap_or(&inner.sealed);
                (inner.high_watermark > 0).then(|| inner.stored(*id, sealed))
            });
            states.collect()
        };
        let prefix = &wal.name.prefix;
        Ok(write_leaves(
            &wal.env,
            &wal.bucket,
            prefix,
            &self.leaves,
            changed,
            load,
            Reason::Checkpoint,
        )
        .await?)
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
            named.filter(|name| name.contains("/bundle/")).collect()
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
            if let Err(error) = wal.chain.trim(below).await {
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
            topics.insert(id.topic);
        }
        // Those that are gone are told of whatever befell the others.
        let pending: BTreeSet<TopicId> = self.dropped.iter().map(|id| id.topic).collect();
        let swept: Vec<TopicId> = topics.difference(&pending).copied().collect();
        if !swept.is_empty() {
            self.log.shared().swept.send_modify(|known| known.extend(swept));
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

fn inner_seed(id: TopicPartition) -> [u8; 20] {
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(&id.topic.0);
    seed[16..].copy_from_slice(&id.partition.to_be_bytes());
    seed
}

fn wal_requests(log: &Log) -> std::sync::MutexGuard<'_, Vec<tokio::sync::oneshot::Sender<()>>> {
    log.shared()
        .keeper
        .seal_requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// A bundle in the making.
#[derive(Default)]
struct BundleWriter {
    spans: Vec<(usize, TopicPartition, Builder, Option<i64>)>,
    size: u64,
}

impl BundleWriter {
    /// `at` is the place of the partition in the list of results.
    fn add(&mut self, at: usize, id: TopicPartition, builder: Builder, sealed_ms: Option<i64>) {
        self.size += builder.size;
        self.spans.push((at, id, builder, sealed_ms));
    }

    async fn write(self, keeper: &mut Keeper, done: &mut [Resealed]) -> Result<(), KeepError> {
        if self.spans.is_empty() {
            return Ok(());
        }
        let wal = Arc::clone(&keeper.log.shared().wal);
        let key: Arc<str> =
            layout::bundle_key(&wal.name.prefix, keeper.round + 1, wal.env.random_u64()).into();
        let now_ms = wal.env.now_ms();
        let (mut parts, mut rows, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        let mut position = 0;
        for (at, id, builder, sealed_ms) in self.spans {
            rows.push(BundleRow {
                id,
                base_offset: builder.base_offset,
                end_offset: builder.end_offset,
                position,
                length: builder.size,
                crc: builder.crc,
            });
            let span = Span {
                bundle: Arc::clone(&key),
                sealed_ms: sealed_ms.unwrap_or(now_ms),
                base_offset: builder.base_offset,
                end_offset: builder.end_offset,
                position,
                length: builder.size,
                max_timestamp: builder.max_timestamp,
                detail: builder.detail,
            };
            spans.push((at, Arc::new(span)));
            position += builder.size;
            parts.extend(builder.parts);
        }
        parts.push(encode_bundle_table(&rows).into());
        keeper.log.put_parts(&key, parts, Reason::Bundle).await?;
        wal.counters.add_sealed(position);
        for (at, span) in spans {
            done[at].1.spans.push(span);
        }
        keeper.recent_bundles.insert(key);
        Ok(())
    }
}
