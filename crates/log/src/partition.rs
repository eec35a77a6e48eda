//! One partition's state: what is appended, what is committed, and where its data lies.
//!
//! *Appended* and *committed* are kept apart everywhere (A3). Offsets grow in three steps: `log_start ≤`
//! sealed data `≤` hot extents `≤ high watermark ≤ log end`. Only the write path appends, only the commit
//! loop moves the high watermark, only a committed round changes what is sealed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use drumlin_records::{BatchError, BatchHeader};
use tokio::sync::Notify;

use crate::commit::{Commit, CommitError};
use crate::footer::ExtentRecord;
use crate::keeper::Taken;
use crate::manifest::{LeafPointer, Segment, Span};
use crate::object::Extent;
use crate::producers::{ActiveProducer, Producers};
use crate::state::{ManifestRef, PartitionState};
use crate::types::{PartitionConfig, TopicPartition};

/// Batches of a partition that are named in the log of the broker because they cannot be decoded.
const MAX_UNDECODABLE_NOTED: usize = 100;

/// What a partition takes beside its lists: the structures themselves, entries of tables, names; an estimate.
const PARTITION_BYTES: usize = 1 << 10;

/// Somebody who waits for data on any of several partitions.
#[derive(Debug, Default)]
pub struct Waiter(Notify);

impl Waiter {
    /// A waiter to register with partitions.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns once a partition that it was registered with has moved since the registration.
    pub async fn notified(&self) {
        self.0.notified().await;
    }

    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Sealed data, in order of offsets: segments in leaves, segments, bundle spans. Replaced as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sealed {
    pub manifest: Option<ManifestRef>,
    pub leaves: Vec<Arc<LeafPointer>>,
    /// Segments that the manifest's root holds whole.
    pub folded: Vec<Arc<Segment>>,
    /// Segments added since.
    pub added: Vec<Arc<Segment>>,
    pub spans: Vec<Arc<Span>>,
    /// Compaction has seen all records below this offset; 0: none.
    pub cleaned_to: i64,
    /// Compaction has dropped tombstones below this offset, and none from it on; 0: none. It never goes back.
    pub tombstones_from: i64,
}

impl Sealed {
    /// Where sealed data ends; exclusive.
    pub(crate) fn end(&self) -> Option<i64> {
        let spans = self.spans.last().map(|span| span.end_offset);
        let segments = self
            .added
            .last()
            .or(self.folded.last())
            .map(|segment| segment.end_offset);
        spans
            .or(segments)
            .or_else(|| self.leaves.last().map(|leaf| leaf.end_offset))
    }

    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.folded.iter().chain(&self.added)
    }

    /// Lets go of what lies wholly below `offset`.
    pub(crate) fn drop_below(&mut self, offset: i64) {
        self.leaves.retain(|leaf| leaf.end_offset > offset);
        self.folded.retain(|segment| segment.end_offset > offset);
        self.added.retain(|segment| segment.end_offset > offset);
        self.spans.retain(|span| span.end_offset > offset);
    }

    pub(crate) fn bytes(&self) -> u64 {
        let leaves: u64 = self.leaves.iter().map(|leaf| leaf.bytes).sum();
        let segments: u64 = self.segments().map(|segment| segment.size).sum();
        leaves + segments + self.spans.iter().map(|span| span.length).sum::<u64>()
    }
}

/// Why a partition is not served, and what is known of it.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What is damaged or missing.
    pub what: String,
    /// Its state as it was found; every checkpoint carries it on unchanged, so that a repaired object heals it.
    pub carried: PartitionState,
}

/// The mutable part, under one short lock.
#[derive(Debug)]
pub(crate) struct Inner {
    pub leader_epoch: i32,
    pub deleted: bool,
    /// Nothing is read, appended, dropped or compacted while this is set.
    pub broken: Option<Arc<Broken>>,
    pub config: Arc<PartitionConfig>,
    pub log_start: i64,
    /// The offset that the next batch gets.
    pub log_end: i64,
    /// The end of what is committed.
    pub high_watermark: i64,
    pub epochs: Vec<(i32, i64)>,
    pub producers: Producers,
    /// The commit of what was appended last.
    pub last_commit: Commit,
    pub sealed: Arc<Sealed>,
    /// Extents below this offset are sealed, or were deleted; it never goes back.
    pub sealed_end: i64,
    pub hot: VecDeque<Extent>,
    pub hot_bytes: u64,
    waiters: Vec<Weak<Waiter>>,
}

/// A partition that this broker leads. Getters are cheap and never wait.
#[derive(Debug)]
pub struct Partition {
    id: TopicPartition,
    inner: Mutex<Inner>,
    undecodable: Mutex<BTreeSet<i64>>,
    /// The newest timestamps of sealed pieces whose records retention has read, by their offsets.
    newest_read: Mutex<BTreeMap<(i64, i64), i64>>,
}

impl Partition {
    pub(crate) fn new(id: TopicPartition, leader_epoch: i32, config: Arc<PartitionConfig>) -> Arc<Self> {
        Arc::new(Self {
            id,
            inner: Mutex::new(Inner {
                leader_epoch,
                deleted: false,
                broken: None,
                config,
                log_start: 0,
                log_end: 0,
                high_watermark: 0,
                epochs: Vec::new(),
                producers: Producers::default(),
                last_commit: Commit::done(),
                sealed: Arc::default(),
                sealed_end: 0,
                hot: VecDeque::new(),
                hot_bytes: 0,
                waiters: Vec::new(),
            }),
            undecodable: Mutex::default(),
            newest_read: Mutex::default(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of a batch whose records cannot be decoded that it is passed over: once, and of so many batches at most.
    pub(crate) fn note_undecodable(&self, base_offset: i64, error: &BatchError) {
        let mut noted = self.undecodable.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MAX_UNDECODABLE_NOTED && noted.insert(base_offset) {
            tracing::warn!(
                partition = %self.id, base_offset, %error,
                "a batch cannot be decoded and is passed over: lookups by time find nothing in it, compaction keeps it whole, \
                 retention goes by its header"
            );
        }
    }

    fn lock_newest_read(&self) -> MutexGuard<'_, BTreeMap<(i64, i64), i64>> {
        self.newest_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest timestamp of a sealed piece's records, if they were read.
    pub(crate) fn newest_read(&self, offsets: (i64, i64)) -> Option<i64> {
        self.lock_newest_read().get(&offsets).copied()
    }

    pub(crate) fn note_newest_read(&self, offsets: (i64, i64), newest: i64) {
        self.lock_newest_read().insert(offsets, newest);
    }

    pub(crate) fn forget_read_below(&self, log_start: i64) {
        self.lock_newest_read().retain(|(_, end), _| *end > log_start);
    }

    /// About how much memory is taken by what is known of the partition, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let inner = self.lock();
        let sealed = &inner.sealed;
        let details: usize = sealed
            .segments()
            .map(|segment| segment.detail.memory_bytes())
            .sum();
        PARTITION_BYTES
            + inner.hot.capacity() * size_of::<Extent>()
            + sealed.segments().count() * size_of::<Segment>()
            + details
            + sealed.spans.len() * size_of::<Span>()
            + sealed.leaves.len() * size_of::<LeafPointer>()
    }

    /// Which partition this is.
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// The epoch of this broker's leadership.
    pub fn leader_epoch(&self) -> i32 {
        self.lock().leader_epoch
    }

    /// The end of what is durable; consumers see up to it.
    pub fn high_watermark(&self) -> i64 {
        self.lock().high_watermark
    }

    /// Waits until all that is appended now is durable and visible: with `acks=1` a producer is told of it before. At
    /// once where nothing is on its way.
    ///
    /// # Errors
    /// [`CommitError`]: some of it may never be visible, and this broker must not speak for the partition any more.
    pub async fn wait_appended_visible(&self) -> Result<(), CommitError> {
        let commit = {
            let inner = self.lock();
            if inner.high_watermark >= inner.log_end {
                return Ok(());
            }
            inner.last_commit.clone()
        };
        commit.wait().await
    }

    /// The first offset that no open transaction may still reach; the high watermark while there are none.
    pub fn last_stable_offset(&self) -> i64 {
        self.high_watermark()
    }

    /// The first offset that the log holds.
    pub fn log_start_offset(&self) -> i64 {
        self.lock().log_start
    }

    /// Compaction has dropped tombstones below this offset, and none from it on; 0: none at all. It never goes back,
    /// and becomes true with the very commit that drops them: whoever knows what the log held below an offset knows
    /// what it holds now by reading on from there, if that offset is not below this one.
    pub fn tombstones_from(&self) -> i64 {
        self.lock().sealed.tombstones_from
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.lock().log_end
    }

    /// What keeps the partition from being served, if anything does: an object that leads to its records is
    /// damaged or missing. Reads and appends are refused; all else that the broker has goes on.
    pub fn unavailable(&self) -> Option<String> {
        self.lock().broken.as_ref().map(|broken| broken.what.clone())
    }

    /// Bytes of the partition's committed data.
    pub fn size_bytes(&self) -> u64 {
        let inner = self.lock();
        inner.sealed.bytes() + inner.hot_bytes
    }

    /// Idempotent producers that the partition remembers.
    pub fn producers(&self) -> Vec<ActiveProducer> {
        self.lock().producers.active()
    }

    /// The largest known epoch at or below `epoch`, and the end offset of its records (KIP-101, KIP-320);
    /// none if every known epoch is above. Speaks of committed records only (R3).
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let inner = self.lock();
        if epoch == inner.leader_epoch {
            return Some((epoch, inner.high_watermark));
        }
        if epoch > inner.leader_epoch {
            return None;
        }
        let after = inner.epochs.partition_point(|(known, _)| *known <= epoch);
        let end = inner
            .epochs
            .get(after)
            .map_or(inner.high_watermark, |(_, start)| *start);
        match after.checked_sub(1) {
            Some(at) => Some((inner.epochs[at].0, end)),
            // Kafka answers the asked epoch itself with the start of the log when it is older than all.
            None => Some((
                epoch,
                inner
                    .epochs
                    .first()
                    .map_or(inner.high_watermark, |(_, start)| *start),
            )),
        }
    }

    /// The epoch under which the record at `offset` was written.
    pub fn epoch_at(&self, offset: i64) -> i32 {
        let inner = self.lock();
        let after = inner.epochs.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map_or(-1, |at| inner.epochs[at].0)
    }

    /// Wakes `waiter` when the high watermark or the log start moves, or the partition is deleted. Registering
    /// does not look at the present state: look after registering.
    pub fn register(&self, waiter: &Arc<Waiter>) {
        let mut inner = self.lock();
        if inner.waiters.len() == inner.waiters.capacity() {
            inner.waiters.retain(|waiter| waiter.strong_count() > 0);
        }
        inner.waiters.push(Arc::downgrade(waiter));
    }
}

impl Inner {
    pub(crate) fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.wake();
            }
        }
        self.waiters.shrink_to(64);
    }

    /// Whether something is committed and not sealed.
    pub(crate) fn has_unsealed(&self) -> bool {
        self.broken.is_none() && self.high_watermark > self.sealed_end
    }

    /// Moves the end past an appended batch.
    pub(crate) fn advance(&mut self, header: &BatchHeader) {
        self.log_end += i64::from(header.last_offset_delta) + 1;
    }

    /// Takes over a committed extent.
    pub(crate) fn commit(&mut self, extent: Extent) {
        debug_assert_eq!(
            extent.base_offset, self.high_watermark,
            "commits join without a gap"
        );
        self.note_epoch(extent.leader_epoch, extent.base_offset);
        self.high_watermark = extent.last_offset + 1;
        self.hot_bytes += u64::from(extent.length);
        self.hot.push_back(extent);
    }

    pub(crate) fn note_epoch(&mut self, epoch: i32, start: i64) {
        if self.epochs.last().is_none_or(|(newest, _)| *newest < epoch) {
            self.epochs.push((epoch, start));
        }
    }

    /// Raises the log start; it never goes back. Returns whether it moved.
    pub(crate) fn raise_log_start(&mut self, offset: i64) -> bool {
        if offset <= self.log_start {
            return false;
        }
        self.log_start = offset;
        // One epoch at or below the start stays: it says where the first record belongs.
        let keep = self
            .epochs
            .partition_point(|(_, start)| *start <= offset)
            .saturating_sub(1);
        self.epochs.drain(..keep);
        if let Some(first) = self.epochs.first_mut() {
            first.1 = first.1.max(offset);
        }
        true
    }

    /// More of the hot log is sealed. Extents stay while they are in memory, where reading
    /// them is cheapest.
    pub(crate) fn forget_sealed_extents(&mut self, taken: Taken) {
        self.hot_bytes = self.hot_bytes.saturating_sub(taken.bytes);
        self.sealed_end = self.sealed_end.max(taken.end);
        while let Some(first) = self.hot.front() {
            let below_start = first.last_offset < self.log_start;
            if first.last_offset >= self.sealed_end || !(below_start || first.object.memory().is_none()) {
                break;
            }
            self.hot.pop_front();
        }
    }

    /// What is sealed below this offset was compacted: what memory has of before is not to be read any more.
    pub(crate) fn forget_hot_below(&mut self, offset: i64) {
        let end = offset.min(self.sealed_end);
        while self.hot.front().is_some_and(|first| first.last_offset < end) {
            self.hot.pop_front();
        }
    }

    /// Committed state as a checkpoint holds it, without what only the caller knows: segments and spans are
    /// those of `sealed`.
    pub(crate) fn stored(&self, id: TopicPartition, sealed: &Sealed) -> PartitionState {
        if let Some(broken) = &self.broken {
            return broken.carried.clone();
        }
        PartitionState {
            id,
            log_start: self.log_start,
            log_end: self.high_watermark,
            cleaned_to: sealed.cleaned_to,
            tombstones_from: sealed.tombstones_from,
            epochs: self.epochs.clone(),
            producers: self.producers.committed(self.high_watermark),
            manifest: sealed.manifest.clone(),
            segments: sealed
                .added
                .iter()
                .map(|segment| Segment::clone(segment))
                .collect(),
            spans: sealed.spans.iter().map(|span| Span::clone(span)).collect(),
            extents: Vec::new(),
        }
    }
}

/// An extent of the open WAL object, before it has a slot.
#[derive(Debug)]
pub(crate) struct PendingExtent {
    pub partition: Arc<Partition>,
    pub record: ExtentRecord,
}
