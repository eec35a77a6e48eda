//! The write path: the open WAL object, its puts, and their commits in order.
//!
//! Locks are taken in the order partition, open object, in flight, congestion. An append copies its batch once, into the open
//! object; that copy is what is checksummed, put, cached and served. One task closes objects and dispatches them
//! to the chain; another takes commits, in order, moves high watermarks, and only then settles the acks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use drumlin_objects::chain::{AppendRefused, ChainEnd, ChainName, ChainWriter, ENTRY_HEADER_LEN, EntryKind};
use drumlin_objects::crc::Crc;
use drumlin_objects::{Bucket, BucketKind, Env};
use drumlin_records::{BatchHeader, patch_attributes_and_max_timestamp, patch_offset_and_epoch};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::arena::{ALIGNMENT, Arenas};
use crate::backlog::Backlog;
use crate::commit::{Commit, CommitError};
use crate::congestion::Congestion;
use crate::footer::{Edit, ExtentRecord, ProducerBatch, encode_edits, encode_footer};
use crate::metrics::Counters;
use crate::object::{Extent, WalObject};
use crate::partition::{Partition, PendingExtent};
use crate::policy::{Decision, PutPolicy};
use crate::types::{LogOptions, TopicPartition};

/// A run of batches is cut here, so that a reader verifies and walks little at a time.
const EXTENT_BYTES: u64 = 256 << 10;
/// What an arena has beyond a full object: room for its footer.
const FOOTER_ROOM: usize = 512 << 10;
/// A WAL has one owner for its whole life: all its entries carry this epoch.
pub(crate) const WAL_EPOCH: u64 = 0;
/// Room is counted in units of this many bytes.
const ROOM_UNIT: usize = 1024;

/// Why a log takes no more appends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEnd {
    /// A newer start took over this broker's log.
    Fenced,
    /// The store broke a promise that durability rests on.
    Failed(String),
    /// It was shut down.
    Stopped,
}

impl std::fmt::Display for LogEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fenced => f.write_str("a newer start of this node took over the log"),
            Self::Failed(why) => write!(f, "the log failed: {why}"),
            Self::Stopped => f.write_str("the log was shut down"),
        }
    }
}

struct Closed {
    buf: BytesMut,
    extents: Vec<PendingExtent>,
    commit: Commit,
    permits: usize,
}

struct Open {
    arenas: Arenas,
    /// Empty while nothing is open.
    buf: BytesMut,
    extents: Vec<PendingExtent>,
    commit: Commit,
    permits: usize,
    since: Instant,
    closed: VecDeque<Closed>,
    /// The flusher waits for so many bytes, or a time that it keeps itself.
    wake_at: usize,
    stopped: bool,
}

/// An entry on its way, and what its commit changes.
enum InFlight {
    Data {
        extents: Vec<PendingExtent>,
        commit: Commit,
        bytes: Bytes,
        permits: usize,
        dispatched: Instant,
    },
    Edits {
        moves: Vec<(Arc<Partition>, i64)>,
        commit: Commit,
    },
}

impl InFlight {
    fn settle(self, outcome: Result<(), CommitError>) {
        match self {
            Self::Data { commit, .. } | Self::Edits { commit, .. } => commit.settle(outcome),
        }
    }
}

/// Committed objects that are not sealed yet, and those whose memory is still held.
#[derive(Default)]
pub(crate) struct Unsealed {
    pub objects: VecDeque<Arc<WalObject>>,
    pub bytes: u64,
    pub since: Option<Instant>,
    /// Partitions whose stored state is behind.
    pub dirty: std::collections::BTreeSet<TopicPartition>,
    /// A log start moved since the last round.
    pub edited: bool,
    /// Entries below this slot have taken effect in memory.
    pub processed: u64,
    /// The keeper wants to look again when there are so many bytes.
    pub look_at: u64,
    resident: VecDeque<Arc<WalObject>>,
    resident_bytes: usize,
}

/// How far a round goes.
#[derive(Debug)]
pub(crate) struct RoundCut {
    /// It seals the entries below this slot.
    pub below: u64,
    /// WAL objects that it seals, and their bytes.
    pub objects: usize,
    pub bytes: u64,
    /// More was committed when it began.
    pub is_partial: bool,
}

impl Unsealed {
    /// Cuts a round after at most `limit` bytes of what is committed, but after one object at least.
    pub(crate) fn cut_round(&self, limit: u64) -> RoundCut {
        let mut cut = RoundCut {
            below: self.processed,
            objects: 0,
            bytes: 0,
            is_partial: false,
        };
        for object in self
            .objects
            .iter()
            .take_while(|object| object.slot < self.processed)
        {
            if cut.objects > 0 && cut.bytes + object.length > limit {
                (cut.below, cut.is_partial) = (object.slot, true);
                break;
            }
            cut.objects += 1;
            cut.bytes += object.length;
        }
        cut
    }

    /// Lets go of the objects that a committed round has sealed, and returns them.
    pub(crate) fn forget_sealed(&mut self, cut: &RoundCut, now: Instant) -> Vec<Arc<WalObject>> {
        let count = cut.objects.min(self.objects.len());
        let sealed: Vec<_> = self.objects.drain(..count).collect();
        self.bytes = self.bytes.saturating_sub(cut.bytes);
        self.look_at = 0;
        // What a cut round left behind is as old as it was.
        if !cut.is_partial {
            self.since = (!self.objects.is_empty()).then_some(now);
        }
        sealed
    }
}

/// One incarnation's WAL.
pub(crate) struct Wal {
    pub env: Env,
    pub bucket: Bucket,
    pub options: LogOptions,
    pub name: Arc<ChainName>,
    pub chain: ChainWriter,
    open: Mutex<Open>,
    in_flight: Mutex<BTreeMap<u64, InFlight>>,
    in_flight_puts: AtomicUsize,
    congestion: Mutex<Congestion>,
    /// The size at which the open object is closed, as the congestion has it.
    object_bytes: AtomicUsize,
    room: Semaphore,
    room_total: usize,
    flush: Notify,
    unsealed: Mutex<Unsealed>,
    pub backlog: Backlog,
    pub seal: Notify,
    pub over_budget: Notify,
    ended: watch::Sender<Option<LogEnd>>,
    pub counters: Arc<Counters>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wal {
    pub(crate) fn new(
        env: &Env,
        bucket: &Bucket,
        options: LogOptions,
        name: ChainName,
        chain: ChainWriter,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let room_total = (options.unflushed_max_bytes / ROOM_UNIT).clamp(1, u32::MAX as usize / 2);
        // Two full objects: one that is still referred to keeps little beside it in memory.
        let arena = 2 * (options.flush_bytes + FOOTER_ROOM);
        Arc::new(Self {
            env: env.clone(),
            bucket: bucket.clone(),
            name: Arc::new(name),
            chain,
            open: Mutex::new(Open {
                arenas: Arenas::new(arena),
                buf: BytesMut::new(),
                extents: Vec::new(),
                commit: Commit::default(),
                permits: 0,
                since: env.instant(),
                closed: VecDeque::new(),
                wake_at: 0,
                stopped: false,
            }),
            in_flight: Mutex::default(),
            in_flight_puts: AtomicUsize::new(0),
            congestion: Mutex::new(Congestion::new(
                options.flush_bytes,
                options.window,
                env.instant(),
            )),
            object_bytes: AtomicUsize::new(options.flush_bytes),
            room: Semaphore::new(room_total),
            room_total,
            flush: Notify::new(),
            unsealed: Mutex::default(),
            backlog: Backlog::new(options.round_bytes, env.instant()),
            seal: Notify::new(),
            over_budget: Notify::new(),
            ended: watch::Sender::new(None),
            counters,
            options,
        })
    }

    pub(crate) fn ended(&self) -> watch::Receiver<Option<LogEnd>> {
        self.ended.subscribe()
    }

    pub(crate) fn unsealed(&self) -> MutexGuard<'_, Unsealed> {
        lock(&self.unsealed)
    }

    pub(crate) fn unflushed_bytes(&self) -> usize {
        (self.room_total - self.room.available_permits().min(self.room_total)) * ROOM_UNIT
    }

    /// Waits for room for `bytes`; what is returned is to be handed to [`Wal::push`], or back.
    pub(crate) async fn admit(&self, bytes: usize, deadline: Instant) -> Option<usize> {
        let permits = bytes.div_ceil(ROOM_UNIT).clamp(1, self.room_total);
        if !self.backlog.is_open() {
            self.counters.add_throttled();
            let turn = self.backlog.wait_turn(bytes);
            tokio::time::timeout_at(deadline, turn).await.ok()?;
        }
        let count = u32::try_from(permits).unwrap_or(u32::MAX);
        let permit = match self.room.try_acquire_many(count) {
            Ok(permit) => permit,
            Err(_) => {
                self.counters.add_throttled();
                tokio::time::timeout_at(deadline, self.room.acquire_many(count))
                    .await
                    .ok()?
                    .ok()?
            }
        };
        permit.forget();
        Some(permits)
    }

    pub(crate) fn give_back(&self, permits: usize) {
        self.room.add_permits(permits);
    }

    /// Copies a batch into the open object and patches its offset and epoch there. The caller holds the
    /// partition's lock, so that offsets and places in the log come in one order. `producer` is called with
    /// the commit that the batch will share. None: the log has stopped.
    pub(crate) fn push(
        &self,
        partition: &Arc<Partition>,
        batch: NewBatch<'_>,
        producer: impl FnOnce(&Commit) -> Option<ProducerBatch>,
    ) -> Option<Commit> {
        let NewBatch {
            bytes,
            header,
            leader_epoch,
            base_offset,
            append_time,
            permits,
        } = batch;
        let mut open = lock(&self.open);
        if open.stopped {
            return None;
        }
        let length = bytes.len();
        let holds = open.buf.len();
        let object_bytes = self.object_bytes.load(Ordering::Relaxed);
        if holds > 0 && holds + length > object_bytes.max(ENTRY_HEADER_LEN + length) {
            self.close(&mut open);
        }
        let now = self.env.instant();
        if open.buf.is_empty() {
            let room = ENTRY_HEADER_LEN + length.max(self.options.flush_bytes) + FOOTER_ROOM;
            open.buf = open.arenas.take(room, now);
            open.buf.resize(ENTRY_HEADER_LEN, 0);
            open.since = now;
        }
        let position = open.buf.len();
        open.buf.extend_from_slice(bytes);
        let copy = &mut open.buf[position..];
        patch_offset_and_epoch(copy, base_offset, leader_epoch);
        patch_attributes_and_max_timestamp(copy, header);
        let mut max_timestamp = header.max_timestamp;
        if let Some(now_ms) = append_time {
            drumlin_records::patch_append_time(copy, now_ms);
            max_timestamp = now_ms;
        }
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        let commit = open.commit.clone();
        let producer = producer(&commit);
        let joins = open.extents.last_mut().filter(|extent| {
            let record = &extent.record;
            Arc::ptr_eq(&extent.partition, partition)
                && record.leader_epoch == leader_epoch
                && record.position + record.length == position as u64
                && record.length + length as u64 <= EXTENT_BYTES
        });
        match joins {
            Some(PendingExtent { record, .. }) => {
                record.last_offset = last_offset;
                record.length += length as u64;
                record.max_timestamp = record.max_timestamp.max(max_timestamp);
                record.batches += 1;
                record.producers.extend(producer);
            }
            None => open.extents.push(PendingExtent {
                partition: Arc::clone(partition),
                record: ExtentRecord {
                    id: partition.id(),
                    leader_epoch,
                    base_offset,
                    last_offset,
                    position: position as u64,
                    length: length as u64,
                    max_timestamp,
                    crc: 0,
                    batches: 1,
                    producers: producer.into_iter().collect(),
                },
            }),
        }
        open.permits += permits;
        if open.buf.len() >= object_bytes {
            self.close(&mut open);
        }
        // A wake-up costs as much as the copy of a small batch.
        let wake = position == ENTRY_HEADER_LEN || !open.closed.is_empty() || open.buf.len() >= open.wake_at;
        drop(open);
        if wake {
            self.flush.notify_one();
        }
        Some(commit)
    }

    /// Ends the open object: what comes next goes to another.
    fn close(&self, open: &mut Open) {
        if open.buf.is_empty() {
            return;
        }
        let mut buf = std::mem::take(&mut open.buf);
        let extents = std::mem::take(&mut open.extents);
        // The footer is written by the flusher, outside this lock: leave it room, and give back the rest.
        let footer: usize = extents
            .iter()
            .map(|extent| 80 + 60 * extent.record.producers.len())
            .sum();
        let keep = (buf.len() + footer + 64).next_multiple_of(ALIGNMENT);
        if keep < buf.capacity() {
            let rest = buf.split_off(keep);
            open.arenas.give_back(rest);
        }
        open.closed.push_back(Closed {
            buf,
            extents,
            commit: std::mem::take(&mut open.commit),
            permits: std::mem::take(&mut open.permits),
        });
    }

    /// Puts what is open now, without waiting for company.
    pub(crate) fn flush_now(&self) {
        self.close(&mut lock(&self.open));
        self.flush.notify_one();
    }

    /// Takes no more appends.
    pub(crate) fn stop(&self) {
        lock(&self.open).stopped = true;
        self.flush_now();
    }

    /// True when all that was appended is settled.
    pub(crate) fn is_drained(&self) -> bool {
        // Room is given back after the commit only.
        self.unflushed_bytes() == 0 && lock(&self.in_flight).is_empty()
    }

    /// The task that dispatches objects.
    pub(crate) async fn run_flusher(self: Arc<Self>) {
        let remote = self.bucket.kind() == BucketKind::Remote;
        let options = &self.options;
        let mut policy = PutPolicy::new(
            remote,
            options.flush_bytes,
            options.linger_max,
            options.puts_per_second,
            self.env.instant(),
        );
        loop {
            let woken = self.flush.notified();
            let wait = {
                let mut open = lock(&self.open);
                if !open.closed.is_empty() {
                    None
                } else if open.buf.is_empty() {
                    Some(None)
                } else {
                    let in_flight = self.in_flight_puts.load(Ordering::Relaxed);
                    match policy.decide(self.env.instant(), open.buf.len(), open.since, in_flight) {
                        Decision::Put => None,
                        Decision::WaitUntil(at) => {
                            open.wake_at = policy.enough(in_flight);
                            Some(Some(at))
                        }
                    }
                }
            };
            match wait {
                Some(None) => {
                    woken.await;
                    continue;
                }
                Some(Some(at)) => {
                    tokio::select! {
                        biased;
                        () = woken => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                    continue;
                }
                None => {}
            }
            if self.chain.ready().await.is_err() {
                return;
            }
            let closed = {
                let mut open = lock(&self.open);
                if open.closed.is_empty() {
                    self.close(&mut open);
                }
                let fits = |closed: &mut Closed| lock(&self.congestion).has_room(closed.buf.len());
                open.closed.pop_front_if(fits)
            };
            if let Some(closed) = closed {
                policy.put(self.env.instant(), closed.buf.len());
                if !self.dispatch(closed).await {
                    return;
                }
            } else {
                // A commit makes room, and so does the end of the chain.
                woken.await;
            }
        }
    }

    async fn dispatch(&self, closed: Closed) -> bool {
        let Closed {
            mut buf,
            mut extents,
            commit,
            permits,
        } = closed;
        // Each byte is read once: the object's checksum follows from those of its extents, which fill it without a gap.
        let mut body_crc = Crc::new();
        for extent in &mut extents {
            let start = extent.record.position as usize;
            debug_assert_eq!(start as u64, ENTRY_HEADER_LEN as u64 + body_crc.length());
            extent.record.crc = crc32c::crc32c(&buf[start..start + extent.record.length as usize]);
            body_crc.add(extent.record.crc, extent.record.length);
        }
        let extents_end = buf.len();
        let footer = encode_footer(extents.iter().map(|extent| &extent.record));
        if self.bucket.kind() == BucketKind::Local {
            // Whole blocks are written from where they lie, and the file needs no cutting to its length.
            let padded = (buf.len() + footer.len()).next_multiple_of(ALIGNMENT);
            buf.resize(padded - footer.len(), 0);
        }
        let footer_at = buf.len() as u64;
        buf.extend_from_slice(&footer);
        body_crc.update(&buf[extents_end..]);
        self.counters.add_put(buf.len());
        loop {
            // The lock is held over the append, so that the commit finds the entry registered.
            let refused = {
                let mut in_flight = lock(&self.in_flight);
                let crc = Some(body_crc.value());
                match self
                    .chain
                    .append_summed(EntryKind::Data, WAL_EPOCH, &mut buf, footer_at, crc)
                {
                    Ok(appended) => {
                        self.in_flight_puts.fetch_add(1, Ordering::Relaxed);
                        let (bytes, dispatched) = (appended.bytes, self.env.instant());
                        lock(&self.congestion).sent(dispatched, bytes.len());
                        let data = InFlight::Data {
                            extents,
                            commit,
                            bytes,
                            permits,
                            dispatched,
                        };
                        in_flight.insert(appended.slot, data);
                        return true;
                    }
                    Err(refused) => refused,
                }
            };
            // A checkpoint or an edit was faster with the slot that was free.
            let again = refused == AppendRefused::Full && self.chain.ready().await.is_ok();
            if !again {
                commit.settle(Err(CommitError::Stopped));
                return false;
            }
        }
    }

    /// Commits new log starts, which take effect in the order of slots, as data does.
    pub(crate) async fn append_edits(&self, moves: Vec<(Arc<Partition>, i64)>) -> Result<(), CommitError> {
        let edits: Vec<Edit> = moves
            .iter()
            .map(|(partition, offset)| Edit::LogStart {
                id: partition.id(),
                offset: *offset,
            })
            .collect();
        let body = encode_edits(&edits);
        let commit = Commit::default();
        let mut moves = Some(moves);
        loop {
            self.chain.ready().await.map_err(|end| outcome_of(&end))?;
            let mut buf = BytesMut::with_capacity(ENTRY_HEADER_LEN + body.len());
            buf.resize(ENTRY_HEADER_LEN, 0);
            buf.extend_from_slice(&body);
            let mut in_flight = lock(&self.in_flight);
            match self.chain.append(EntryKind::Edit, WAL_EPOCH, buf, 0) {
                Ok(appended) => {
                    let moves = moves.take().unwrap_or_default();
                    in_flight.insert(
                        appended.slot,
                        InFlight::Edits {
                            moves,
                            commit: commit.clone(),
                        },
                    );
                    break;
                }
                // The flusher was faster with the slot that was free.
                Err(AppendRefused::Full) => {}
                Err(_) => return Err(CommitError::Stopped),
            }
        }
        commit.wait().await
    }

    /// The task that takes commits, in the order of slots.
    pub(crate) async fn run_commits(self: Arc<Self>, first_slot: u64) {
        let mut state = self.chain.state();
        let mut next = first_slot;
        lock(&self.unsealed).processed = first_slot;
        loop {
            let (committed, end) = {
                let state = state.borrow_and_update();
                (state.committed, state.end.clone())
            };
            while next < committed {
                let entry = lock(&self.in_flight).remove(&next);
                match entry {
                    Some(InFlight::Data {
                        extents,
                        commit,
                        bytes,
                        permits,
                        dispatched,
                    }) => {
                        self.commit(next, &extents, bytes, dispatched);
                        commit.settle(Ok(()));
                        self.give_back(permits);
                        self.flush.notify_one();
                    }
                    Some(InFlight::Edits { moves, commit }) => {
                        self.commit_edits(next, &moves);
                        commit.settle(Ok(()));
                    }
                    None => lock(&self.unsealed).processed = next + 1,
                }
                next += 1;
            }
            if let Some(end) = end {
                return self.end(&end);
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    fn commit_edits(&self, slot: u64, moves: &[(Arc<Partition>, i64)]) {
        for (partition, offset) in moves {
            let mut inner = partition.lock();
            if inner.raise_log_start(*offset) {
                inner.wake();
            }
        }
        let mut unsealed = lock(&self.unsealed);
        unsealed
            .dirty
            .extend(moves.iter().map(|(partition, _)| partition.id()));
        unsealed.edited = true;
        unsealed.processed = slot + 1;
        self.seal.notify_one();
    }

    fn commit(&self, slot: u64, extents: &[PendingExtent], bytes: Bytes, dispatched: Instant) {
        self.in_flight_puts.fetch_sub(1, Ordering::Relaxed);
        let size = bytes.len();
        {
            let now = self.env.instant();
            let mut congestion = lock(&self.congestion);
            congestion.committed(now, size, now.saturating_duration_since(dispatched));
            self.object_bytes
                .store(congestion.object_bytes(), Ordering::Relaxed);
        }
        let stored = WalObject::new(Arc::clone(&self.name), slot, size as u64, Some(bytes));
        for pending in extents {
            let mut inner = pending.partition.lock();
            inner.commit(Extent::of(&stored, &pending.record));
            inner.wake();
        }
        {
            let mut unsealed = lock(&self.unsealed);
            let now = self.env.instant();
            unsealed.since.get_or_insert(now);
            unsealed.processed = slot + 1;
            unsealed
                .dirty
                .extend(extents.iter().map(|pending| pending.record.id));
            unsealed.bytes += size as u64;
            unsealed.objects.push_back(Arc::clone(&stored));
            unsealed.resident.push_back(stored);
            unsealed.resident_bytes += size;
            if unsealed.resident_bytes > self.options.memory_bytes {
                self.over_budget.notify_one();
            }
            self.backlog.note_unsealed(unsealed.bytes);
            let full = unsealed.bytes >= self.options.round_bytes
                || unsealed.objects.len() >= self.options.round_objects;
            if full || unsealed.objects.len() == 1 || unsealed.bytes >= unsealed.look_at {
                self.seal.notify_one();
            }
        }
        self.counters
            .add_commit(self.env.instant().saturating_duration_since(dispatched));
    }

    /// Objects whose memory is beyond the budget, oldest first; the caller lets go of them.
    pub(crate) fn over_memory_budget(&self) -> Vec<Arc<WalObject>> {
        let mut unsealed = lock(&self.unsealed);
        let mut over = Vec::new();
        while unsealed.resident_bytes > self.options.memory_bytes {
            let Some(object) = unsealed.resident.pop_front() else {
                break;
            };
            let size = object.memory().map_or(0, |bytes| bytes.len());
            unsealed.resident_bytes = unsealed.resident_bytes.saturating_sub(size);
            over.push(object);
        }
        over
    }

    /// Gives memory of arenas that nobody uses back to the system.
    pub(crate) fn release_memory(&self) {
        let now = self.env.instant();
        lock(&self.open).arenas.release_unused(now);
    }

    /// Memory of the arenas, bytes.
    pub(crate) fn arena_bytes(&self) -> usize {
        lock(&self.open).arenas.bytes()
    }

    pub(crate) async fn until_ended(&self) {
        // The sender lives as long as this.
        let _ = self.ended().wait_for(Option::is_some).await;
    }

    /// The task that ends the log when the broker has failed: what waits for a commit must not wait for a task that is
    /// no more.
    pub(crate) async fn end_with_broker(self: Arc<Self>) {
        let mut failed = self.env.failed();
        let Ok(failure) = failed
            .wait_for(Option::is_some)
            .await
            .map(|failure| failure.clone())
        else {
            return;
        };
        let what = failure.map(|failure| failure.to_string()).unwrap_or_default();
        self.chain.fail(&what);
        self.end(&ChainEnd::Failed {
            slot: self.chain.next_slot(),
            what,
        });
    }

    /// Takes no more appends, and fails all that was not committed.
    pub(crate) fn end(&self, end: &ChainEnd) {
        let outcome = outcome_of(end);
        {
            let mut open = lock(&self.open);
            open.stopped = true;
            self.close(&mut open);
            for closed in open.closed.drain(..) {
                closed.commit.settle(Err(outcome));
            }
        }
        let in_flight = std::mem::take(&mut *lock(&self.in_flight));
        for object in in_flight.into_values() {
            object.settle(Err(outcome));
        }
        self.room.close();
        self.flush.notify_one();
        let end = match (outcome, end) {
            (CommitError::Fenced, _) => LogEnd::Fenced,
            (_, ChainEnd::Stopped) => LogEnd::Stopped,
            (_, end) => LogEnd::Failed(end.to_string()),
        };
        self.ended.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(end);
            first
        });
    }
}

/// A batch as it came, and what its copy in the log is to say.
pub(crate) struct NewBatch<'a> {
    pub bytes: &'a [u8],
    pub header: &'a BatchHeader,
    pub leader_epoch: i32,
    pub base_offset: i64,
    /// LogAppendTime: the timestamp to set.
    pub append_time: Option<i64>,
    /// Room that was granted for it.
    pub permits: usize,
}

pub(crate) fn outcome_of(end: &ChainEnd) -> CommitError {
    match end {
        ChainEnd::Fenced { .. } => CommitError::Fenced,
        _ => CommitError::Stopped,
    }
}
