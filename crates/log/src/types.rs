//! The words of this crate's interface: ids, identity, options.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A topic's id, unique for ever (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// One partition of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Who writes: one incarnation of one node of one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster's id, from the metadata chain's birth object.
    pub cluster_id: String,
    /// `node.id`.
    pub node: i32,
    /// The number of this registration; never reused.
    pub incarnation: u64,
}

/// The incarnation whose partitions a new one takes over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Previous {
    /// Who it was.
    pub identity: Identity,
    /// The state it had itself started from, if any: the key of an estate.
    pub estate: Option<String>,
}

/// Chains of earlier incarnations of which nothing is left in the bucket but slot 0 and fences.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SweptChains {
    /// Those of this node; or of all.
    pub(crate) node: Option<i32>,
    /// All below this incarnation,
    pub(crate) below: u64,
    /// but for these, under whose prefixes something lies that is still needed.
    pub(crate) kept: BTreeSet<u64>,
}

impl SweptChains {
    /// Whether the chain of this incarnation of a node is one of them.
    pub fn contains(&self, node: i32, incarnation: u64) -> bool {
        self.node.is_none_or(|swept| swept == node)
            && incarnation < self.below
            && !self.kept.contains(&incarnation)
    }
}

/// What storage needs to know of a topic's configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct PartitionConfig {
    /// `segment.bytes`: a segment object's size at most, bytes.
    pub segment_bytes: u64,
    /// `retention.ms`; none is for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; none is unbounded.
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy` names `delete`.
    pub delete: bool,
    /// `cleanup.policy` names `compact`.
    pub compact: bool,
    /// `min.cleanable.dirty.ratio`: compaction begins when more than this part of the log has not been through it.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: records are left alone for so long.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: records older than this are compacted whatever the ratio.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones stay after the pass that removed what they delete.
    pub delete_retention_ms: i64,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            delete: true,
            compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3_600_000,
        }
    }
}

/// A partition that this broker leads.
#[derive(Clone, Debug)]
pub struct PartitionSpec {
    /// Which.
    pub id: TopicPartition,
    /// The epoch of this leadership; higher than any before it (I3).
    pub leader_epoch: i32,
    /// Its configuration.
    pub config: Arc<PartitionConfig>,
}

/// How a broker's log works; sizes in bytes.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `wal.flush.bytes`: a WAL object is put when it holds this much.
    pub flush_bytes: usize,
    /// `wal.linger.max.ms`: the longest that a WAL object waits for company.
    pub linger_max: Duration,
    /// `wal.puts.per.second`: the put budget of a remote store.
    pub puts_per_second: f64,
    /// WAL puts in flight.
    pub window: u64,
    /// Bytes appended and not yet committed; beyond it produce waits.
    pub unflushed_max_bytes: usize,
    /// WAL objects kept in memory after their commit.
    pub memory_bytes: usize,
    /// The longest time between the first unsealed byte and the end of its round.
    pub round_interval: Duration,
    /// Unsealed bytes that end a round.
    pub round_bytes: u64,
    /// Unsealed WAL objects that end a round.
    pub round_objects: usize,
    /// Unsealed data from which a partition gets a segment of its own.
    pub segment_min_bytes: u64,
    /// How long unsealed small data waits in bundles before it becomes a segment whatever its size.
    pub bundle_max_age: Duration,
    /// Bundles that are merged into one.
    pub bundle_merge_count: usize,
    /// Segments added since the last manifest after which it is folded anew.
    pub manifest_fold: usize,
    /// Segments that a manifest's root keeps whole.
    pub manifest_root_segments: usize,
    /// Segments in a manifest's leaf.
    pub manifest_leaf_segments: usize,
    /// How long dropped WAL objects and bundles stay for slow readers of a remote store.
    pub wal_grace: Duration,
    /// The same for segments and manifests.
    pub segment_grace: Duration,
    /// How often retention looks (`log.retention.check.interval.ms`).
    pub retention_interval: Duration,
    /// `producer.id.expiration.ms`.
    pub producer_expiration: Duration,
    /// Bytes that cold reads may have in flight.
    pub cold_inflight_bytes: usize,
    /// The largest read-ahead of a sequential cold reader.
    pub read_ahead_max: usize,
    /// Where WAL objects of a remote store are kept after they leave memory.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of WAL objects kept there.
    pub cache_disk_bytes: u64,
    /// How compacted topics are compacted.
    pub cleaner: CleanerOptions,
}

/// How compaction works.
#[derive(Clone, Debug)]
pub struct CleanerOptions {
    /// `log.cleaner.enable`.
    pub enabled: bool,
    /// `log.cleaner.backoff.ms`: how often it looks for something to do.
    pub interval: Duration,
    /// `log.cleaner.dedupe.buffer.size`: bytes of the map from keys to offsets. What a pass can take is bounded by it.
    pub map_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: read and written together; none is unlimited.
    pub io_bytes_per_second: Option<u64>,
    /// On a remote store, where a pass costs requests: fewer dirty bytes than this wait for
    /// [`CleanerOptions::small_wait`].
    pub small_bytes: u64,
    /// How long little dirty data waits for company.
    pub small_wait: Duration,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(15),
            map_bytes: 128 << 20,
            io_bytes_per_second: None,
            small_bytes: 1 << 20,
            small_wait: Duration::from_secs(600),
        }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            flush_bytes: 8 << 20,
            linger_max: Duration::from_millis(100),
            puts_per_second: 10.0,
            window: 16,
            unflushed_max_bytes: 64 << 20,
            memory_bytes: 64 << 20,
            round_interval: Duration::from_secs(60),
            round_bytes: 2 << 30,
            round_objects: 2_000,
            segment_min_bytes: 16 << 20,
            bundle_max_age: Duration::from_secs(24 * 3600),
            bundle_merge_count: 60,
            manifest_fold: 64,
            manifest_root_segments: 64,
            manifest_leaf_segments: 1000,
            wal_grace: Duration::from_secs(600),
            segment_grace: Duration::from_secs(3600),
            retention_interval: Duration::from_secs(300),
            producer_expiration: Duration::from_secs(24 * 3600),
            cold_inflight_bytes: 64 << 20,
            read_ahead_max: 16 << 20,
            cache_dir: None,
            cache_disk_bytes: 4 << 30,
            cleaner: CleanerOptions::default(),
        }
    }
}
