//! The log of one broker: its partitions over one WAL, and the tasks that keep them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use drumlin_objects::cache::BlockCache;
use drumlin_objects::chain::{BirthOutcome, ChainEnd, ChainError, ChainOptions, ChainWriter, put_birth};
use drumlin_objects::sabotage::{self, Sabotage};
use drumlin_objects::{Bucket, BucketKind, Env, Reason, TaskKind};
use drumlin_records::BatchHeader;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cleaner::Cleaner;
use crate::cleaner::replace::Replacement;
use crate::cold::Cold;
use crate::commit::{Commit, CommitError};
use crate::deletion::{Deleter, Deletions};
use crate::hotcache::HotCache;
use crate::keeper::Keeper;
use crate::layout;
use crate::metrics::{Counters, LogMemory, LogMetrics};
use crate::object::WalObject;
use crate::partition::Partition;
use crate::producers::{SequenceError, Verdict};
use crate::recover::{Recovered, birth_body};
use crate::types::{
    Identity, LogOptions, PartitionConfig, PartitionSpec, SweptChains, TopicId, TopicPartition,
};
use crate::wal::{LogEnd, NewBatch, Wal};

/// The largest read-ahead where the store is this machine, bytes.
const LOCAL_READ_AHEAD: usize = 2 << 20;
/// How often memory budgets are enforced.
const TIDY_INTERVAL: Duration = Duration::from_millis(200);
/// Disk space that lay unused for this long is given back: longer than a round, which is what fills it.
const DISK_TIDY_INTERVAL: Duration = Duration::from_secs(150);

/// A broker's log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub wal: Arc<Wal>,
    pub cold: Cold,
    pub identity: Identity,
    pub partitions: RwLock<BTreeMap<TopicPartition, Arc<Partition>>>,
    pub swept: watch::Sender<Vec<TopicId>>,
    pub swept_chains: watch::Sender<SweptChains>,
    pub keeper: KeeperHandle,
    pub deletions: Deletions,
    hotcache: Option<HotCache>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// What other tasks ask of the keeper, and of the cleaner.
#[derive(Default)]
pub(crate) struct KeeperHandle {
    pub dropped: std::sync::Mutex<Vec<TopicPartition>>,
    pub seal_requests: std::sync::Mutex<Vec<tokio::sync::oneshot::Sender<()>>>,
    /// What compaction has finished, in order.
    pub replacements: std::sync::Mutex<Vec<Replacement>>,
    /// What the round at hand uploads, or tries to: named only if it is committed.
    pub uploads: std::sync::Mutex<Vec<String>>,
    /// What compaction uploaded for nothing; its uploads are over.
    pub strays: std::sync::Mutex<Vec<String>>,
    /// The partition that is being compacted.
    pub cleaning: std::sync::Mutex<Option<TopicPartition>>,
    /// Wakes the cleaner.
    pub clean: tokio::sync::Notify,
    pub clean_requests: std::sync::Mutex<Vec<tokio::sync::oneshot::Sender<()>>>,
}

/// Why a log did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A newer start was faster.
    #[error("a newer start of this node has taken over")]
    Fenced,
    /// The store failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// How a batch is to be appended.
#[derive(Debug, Clone, Copy)]
pub struct AppendOptions {
    /// The leader epoch that the client believes in, if it said so.
    pub expected_epoch: Option<i32>,
    /// For `message.timestamp.type=LogAppendTime`: the time to stamp, Unix milliseconds.
    pub log_append_time: Option<i64>,
    /// When to give up waiting for room.
    pub deadline: Instant,
}

/// A batch that stands in the log, durable once `commit` says so.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The offset of the batch's first record.
    pub base_offset: i64,
    /// The first offset of the log.
    pub log_start_offset: i64,
    /// The time that was stamped, or -1.
    pub log_append_time: i64,
    /// When it is durable.
    pub commit: Commit,
}

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
    /// An object that leads to the partition's records is damaged or missing: see [`Partition::unavailable`].
    #[error("the partition cannot be served: {0}")]
    Unavailable(String),
    /// The client speaks of an older leadership.
    #[error("leader epoch {found} is older than {current}")]
    FencedEpoch {
        /// The client's.
        found: i32,
        /// This broker's.
        current: i32,
    },
    /// The client speaks of a leadership that this broker does not know of.
    #[error("leader epoch {found} is newer than {current}")]
    UnknownEpoch {
        /// The client's.
        found: i32,
        /// This broker's.
        current: i32,
    },
    /// Sequence numbers of an idempotent producer do not fit.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// No room until the deadline: the store does not take what was appended before.
    #[error("no room for the batch until the deadline: the store is behind")]
    NoRoom,
    /// This broker was fenced, or is shutting down.
    #[error("the log takes no more appends")]
    Stopped,
}

/// Why records were not deleted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeleteRecordsError {
    /// The offset lies beyond the high watermark.
    #[error("offset {offset} is beyond the high watermark {high_watermark}")]
    OutOfRange {
        /// What was asked for.
        offset: i64,
        /// The high watermark.
        high_watermark: i64,
    },
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
    /// An object that leads to the partition's records is damaged or missing: see [`Partition::unavailable`].
    #[error("the partition cannot be served: {0}")]
    Unavailable(String),
    /// The deletion may or may not have happened.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Log {
    /// Starts the log of a new incarnation: its chain is born, its partitions stand as `recovered` left them.
    ///
    /// What `recovered` knows of partitions that are not in `partitions` belongs to deleted topics. A partition
    /// whose data is damaged, or missing in part, is open and refuses its service: [`Partition::unavailable`].
    ///
    /// # Errors
    /// [`StartError`]; nothing was acknowledged then.
    pub async fn start(
        env: &Env,
        bucket: &Bucket,
        cache: Arc<dyn BlockCache>,
        options: LogOptions,
        identity: Identity,
        recovered: Option<Recovered>,
        partitions: Vec<PartitionSpec>,
    ) -> Result<Self, StartError> {
        let name = layout::wal_chain(&identity);
        let estate = recovered
            .as_ref()
            .and_then(|recovered| recovered.estate.as_deref());
        let birth = birth_body(estate);
        match put_birth(bucket, &name, 0, birth, Reason::Wal).await? {
            BirthOutcome::Created => {}
            BirthOutcome::Exists(_) => return Err(StartError::Fenced),
        }
        let first_slot = 1;
        let chain_options = ChainOptions {
            window: options.window,
            ..ChainOptions::default()
        };
        let chain = ChainWriter::start(env, bucket, name.clone(), first_slot, chain_options);
        let counters = Arc::new(Counters::default());
        let hotcache = match (&options.cache_dir, bucket.kind()) {
            (Some(dir), BucketKind::Remote) => HotCache::open(env, dir, options.cache_disk_bytes).await,
            _ => None,
        };
        let ahead = match bucket.kind() {
            BucketKind::Remote => options.read_ahead_max,
            // The system reads ahead by itself, and blocks of one read stay in memory together.
            BucketKind::Local | BucketKind::Memory => options.read_ahead_max.min(LOCAL_READ_AHEAD),
        };
        let cold = Cold::new(cache, options.cold_inflight_bytes, ahead);
        let wal = Wal::new(env, bucket, options, name, chain, counters);
        let mut recovered = recovered.unwrap_or_default();
        let mut open = BTreeMap::new();
        for lost in &recovered.lost {
            tracing::error!(object = %lost.leaf.key, damage = %lost.what, "part of the last checkpoint cannot be read");
        }
        for spec in partitions {
            let partition = Partition::new(spec.id, spec.leader_epoch, spec.config);
            if let Some(state) = recovered.partition(&spec.id) {
                if let Some(broken) = &state.broken {
                    tracing::error!(
                        partition = %spec.id, damage = %broken.what,
                        "this partition cannot be served, all others are; nothing of it is changed or deleted: \
                         bring the object back and start again, or delete the topic"
                    );
                }
                state.fill(&partition, env.instant());
            }
            open.insert(spec.id, partition);
        }
        let shared = Arc::new(Shared {
            wal,
            cold,
            identity,
            partitions: RwLock::new(open),
            swept: watch::Sender::new(Vec::new()),
            swept_chains: watch::Sender::default(),
            keeper: KeeperHandle::default(),
            deletions: Deletions::default(),
            hotcache,
            tasks: std::sync::Mutex::default(),
        });
        let log = Self { shared };
        log.spawn_tasks(first_slot, recovered);
        Ok(log)
    }

    fn spawn_tasks(&self, first_slot: u64, recovered: Recovered) {
        let wal = &self.shared.wal;
        let env = &wal.env;
        let keeper = Keeper::new(self.clone(), recovered);
        let cleaner = Cleaner::new(self.clone());
        let tidy = self.clone();
        let mut tasks = vec![
            self.spawn_service(TaskKind::WalFlusher, Arc::clone(wal).run_flusher()),
            self.spawn_service(TaskKind::WalCommits, Arc::clone(wal).run_commits(first_slot)),
            self.spawn_service(TaskKind::LogKeeper, keeper.run()),
            self.spawn_service(TaskKind::LogDeleter, Deleter::new(self.clone()).run()),
            self.spawn_service(TaskKind::LogTidy, async move { tidy.tidy_memory().await }),
            env.spawn(TaskKind::LogEnd, Arc::clone(wal).end_with_broker()),
        ];
        if wal.options.cleaner.enabled {
            tasks.push(self.spawn_service(TaskKind::LogCleaner, cleaner.run()));
        }
        *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }

    /// Spawns a task that runs as long as the log. One that has found the chain's end lasts until the log's is told:
    /// why a log ended is said by its end, and not by the tasks that end with it.
    fn spawn_service(
        &self,
        kind: TaskKind,
        service: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (wal, log) = (Arc::clone(&self.shared.wal), Arc::clone(&self.shared.wal));
        let is_over = move || log.chain.state().borrow().end.is_some();
        self.bucket().env().spawn_until(kind, is_over, async move {
            service.await;
            if wal.chain.state().borrow().end.is_some() {
                wal.until_ended().await;
            }
        })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn bucket(&self) -> &Bucket {
        &self.shared.wal.bucket
    }

    pub(crate) fn cold(&self) -> &Cold {
        &self.shared.cold
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.wal.counters
    }

    /// Opens a partition, or returns it if it is open.
    pub fn open_partition(&self, spec: PartitionSpec) -> Arc<Partition> {
        let mut partitions = self
            .shared
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let new = || Partition::new(spec.id, spec.leader_epoch, spec.config.clone());
        Arc::clone(partitions.entry(spec.id).or_insert_with(new))
    }

    /// Changes what storage knows of a topic's configuration.
    pub fn configure(&self, id: &TopicPartition, config: Arc<PartitionConfig>) {
        if let Some(partition) = self.partition(id) {
            partition.lock().config = config;
        }
    }

    /// Lets go of a partition whose topic was deleted; its objects are removed in the background.
    pub fn drop_partition(&self, id: TopicPartition) {
        let removed = self
            .shared
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Some(partition) = removed {
            let mut inner = partition.lock();
            inner.deleted = true;
            inner.wake();
        }
        self.shared
            .keeper
            .dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
        self.shared.wal.seal.notify_one();
    }

    /// Topics of which no object is left in the bucket, as they become so.
    pub fn swept(&self) -> watch::Receiver<Vec<TopicId>> {
        self.shared.swept.subscribe()
    }

    /// Forgets swept topics: the metadata knows of them now.
    pub fn forget_swept(&self, topics: &[TopicId]) {
        self.shared.swept.send_if_modified(|known| {
            known.retain(|topic| !topics.contains(topic));
            // Nobody has to hear of it.
            false
        });
    }

    /// What this node's earlier incarnations left of their chains, once it was swept: after the first round, whose
    /// checkpoint names all that is needed of them.
    pub fn swept_chains(&self) -> watch::Receiver<SweptChains> {
        self.shared.swept_chains.subscribe()
    }

    /// A partition that is open.
    pub fn partition(&self, id: &TopicPartition) -> Option<Arc<Partition>> {
        self.shared
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// All partitions that are open, in order of their ids; who walks them holds no lock.
    pub(crate) fn open_partitions(&self) -> Vec<Arc<Partition>> {
        let partitions = self
            .shared
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.values().cloned().collect()
    }

    /// Appends a batch that [`drumlin_records::validate`] passed, under the header that it gave. Waits for room only; the
    /// batch is durable, and visible to consumers, when the returned commit says so.
    ///
    /// A duplicate of an idempotent producer returns the first copy's offset and commit (A4).
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then.
    pub async fn append(
        &self,
        partition: &Arc<Partition>,
        header: &BatchHeader,
        batch: &Bytes,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let wal = &self.shared.wal;
        let Some(permits) = wal.admit(batch.len(), options.deadline).await else {
            if wal.ended().borrow().is_some() {
                return Err(AppendError::Stopped);
            }
            if header.has_producer_id() {
                partition.lock().producers.turn_away(header);
            }
            return Err(AppendError::NoRoom);
        };
        let appended = self.append_admitted(partition, header, batch, &options, permits);
        if !matches!(appended, Ok((_, true))) {
            wal.give_back(permits);
        }
        appended.map(|(appended, _)| appended)
    }

    /// The synchronous part; says whether the room was used.
    fn append_admitted(
        &self,
        partition: &Arc<Partition>,
        header: &BatchHeader,
        batch: &Bytes,
        options: &AppendOptions,
        permits: usize,
    ) -> Result<(Appended, bool), AppendError> {
        let wal = &self.shared.wal;
        let mut inner = partition.lock();
        if inner.deleted {
            return Err(AppendError::Deleted);
        }
        if let Some(broken) = &inner.broken {
            return Err(AppendError::Unavailable(broken.what.clone()));
        }
        let current = inner.leader_epoch;
        match options.expected_epoch {
            Some(found) if found < current => return Err(AppendError::FencedEpoch { found, current }),
            Some(found) if found > current => return Err(AppendError::UnknownEpoch { found, current }),
            _ => {}
        }
        let log_append_time = options.log_append_time.unwrap_or(-1);
        if header.has_producer_id()
            && let Verdict::Duplicate {
                base_offset,
                timestamp,
                commit,
            } = inner.producers.judge(header)?
        {
            let commit = commit
                .filter(|_| !sabotage::on(Sabotage::DuplicateBeforeCommit))
                .unwrap_or_else(Commit::done);
            let log_append_time = if log_append_time >= 0 { timestamp } else { -1 };
            let log_start_offset = inner.log_start;
            return Ok((
                Appended {
                    base_offset,
                    log_start_offset,
                    log_append_time,
                    commit,
                },
                false,
            ));
        }
        let base_offset = inner.log_end;
        let (high_watermark, epoch) = (inner.high_watermark, inner.leader_epoch);
        let stamped = BatchHeader {
            max_timestamp: options.log_append_time.unwrap_or(header.max_timestamp),
            ..*header
        };
        let producers = &mut inner.producers;
        let now = wal.env.instant();
        let remember = |commit: &Commit| {
            header
                .has_producer_id()
                .then(|| producers.appended(&stamped, base_offset, high_watermark, now, commit.clone()))
        };
        let batch = NewBatch {
            bytes: batch,
            header,
            leader_epoch: epoch,
            base_offset,
            append_time: options.log_append_time,
            permits,
        };
        let commit = wal.push(partition, batch, remember).ok_or(AppendError::Stopped)?;
        inner.advance(header);
        inner.last_commit = commit.clone();
        let commit = if sabotage::on(Sabotage::AckBeforeCommit) {
            Commit::done()
        } else {
            commit
        };
        Ok((
            Appended {
                base_offset,
                log_start_offset: inner.log_start,
                log_append_time,
                commit,
            },
            true,
        ))
    }

    /// Moves log starts up, durably (N4). The answers are the log start offsets afterwards; -1 as an offset stands
    /// for the high watermark, once all that was appended before is below it.
    pub async fn delete_records(
        &self,
        edits: Vec<(Arc<Partition>, i64)>,
    ) -> Vec<Result<i64, DeleteRecordsError>> {
        let mut outcomes = Vec::with_capacity(edits.len());
        let mut moves = Vec::new();
        for (partition, offset) in edits {
            if offset == -1
                && let Err(error) = partition.wait_appended_visible().await
            {
                outcomes.push(Err(error.into()));
                continue;
            }
            let inner = partition.lock();
            let high_watermark = inner.high_watermark;
            let offset = if offset == -1 { high_watermark } else { offset };
            let outcome = if inner.deleted {
                Err(DeleteRecordsError::Deleted)
            } else if let Some(broken) = &inner.broken {
                Err(DeleteRecordsError::Unavailable(broken.what.clone()))
            } else if offset < 0 || offset > high_watermark {
                Err(DeleteRecordsError::OutOfRange {
                    offset,
                    high_watermark,
                })
            } else {
                Ok(inner.log_start.max(offset))
            };
            let wanted = outcome
                .as_ref()
                .ok()
                .filter(|start| **start > inner.log_start)
                .copied();
            drop(inner);
            if let Some(start) = wanted {
                moves.push((partition, start));
            }
            outcomes.push(outcome);
        }
        if !moves.is_empty()
            && let Err(error) = self.shared.wal.append_edits(moves).await
        {
            for outcome in &mut outcomes {
                if outcome.is_ok() {
                    *outcome = Err(error.into());
                }
            }
        }
        outcomes
    }

    /// Says when and why the log ended.
    pub fn ended(&self) -> watch::Receiver<Option<LogEnd>> {
        self.shared.wal.ended()
    }

    /// A snapshot of the log's counters.
    pub fn metrics(&self) -> LogMetrics {
        let wal = &self.shared.wal;
        let pending = self.shared.deletions.pending();
        wal.counters
            .snapshot(wal.unflushed_bytes(), wal.unsealed().bytes, pending)
    }

    /// What the log's memory is used for.
    pub fn memory(&self) -> LogMemory {
        let counters = self.counters();
        let partitions: usize = self.open_partitions().iter().map(|p| p.memory_bytes()).sum();
        LogMemory {
            arenas: self.shared.wal.arena_bytes() as u64,
            blocks: counters.blocks.bytes() as u64,
            loading: self.cold().loading_bytes() as u64,
            read_back: counters.read_back.bytes() as u64,
            partitions: partitions as u64,
        }
    }

    /// Seals what is committed now, and returns when that is durable, and what it replaced is deleted where no grace
    /// is to be given. For tests, tools and planned stops.
    pub async fn seal_now(&self) {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.shared
            .keeper
            .seal_requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(done);
        self.shared.wal.seal.notify_one();
        let _ = wait.await;
    }

    /// Takes no more appends, puts what is open and waits until all is committed or `deadline` has come.
    /// Returns whether all was. The log's tasks end.
    pub async fn shutdown(&self, deadline: Instant) -> bool {
        let wal = &self.shared.wal;
        wal.stop();
        let mut ended = wal.ended();
        let drained = async {
            loop {
                if wal.is_drained() || ended.borrow_and_update().is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout_at(deadline, drained).await.is_ok();
        let tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        wal.chain.stop();
        let clean = in_time && wal.ended().borrow().is_none();
        // Whoever still waits for a commit is told.
        wal.end(&ChainEnd::Stopped);
        clean
    }

    async fn tidy_memory(&self) {
        let wal = &self.shared.wal;
        let mut ticks = tokio::time::interval(TIDY_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut disk_tidied = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = wal.over_budget.notified() => {}
                _ = ticks.tick() => {}
            }
            if disk_tidied.elapsed() > DISK_TIDY_INTERVAL {
                disk_tidied = Instant::now();
                wal.bucket.release_unused().await;
            }
            for object in wal.over_memory_budget() {
                if let Some(cache) = &self.shared.hotcache {
                    cache.keep(&object).await;
                }
                object.evict();
            }
            wal.release_memory();
        }
    }

    /// Removes the local copies of WAL objects that are sealed.
    pub(crate) async fn forget_cached(&self, objects: Vec<Arc<WalObject>>) {
        if let Some(cache) = &self.shared.hotcache {
            cache.forget(&objects).await;
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("identity", &self.shared.identity)
            .finish_non_exhaustive()
    }
}
