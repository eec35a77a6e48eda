//! Counters of the log, and the snapshot that metrics are made from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drumlin_objects::BufferCount;

/// Upper bounds of the commit latency histogram, microseconds; one more bucket takes the rest.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_000_000,
    5_000_000,
];

/// Counters that the log's parts share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    commits: AtomicU64,
    commit_us: AtomicU64,
    commit_buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    throttled: AtomicU64,
    hot_bytes: AtomicU64,
    cached_bytes: AtomicU64,
    cold_bytes: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    rounds: AtomicU64,
    sealed_bytes: AtomicU64,
    cleaner_passes: AtomicU64,
    cleaner_failures: AtomicU64,
    cleaner_refused: AtomicU64,
    cleaner_read_bytes: AtomicU64,
    cleaner_written_bytes: AtomicU64,
    /// Percent.
    cleaner_dirty: AtomicU64,
    cleaner_damaged: AtomicU64,
    /// Blocks of sealed data that came from the store.
    pub blocks: BufferCount,
    /// Parts of WAL objects that had left memory and were read again.
    pub read_back: BufferCount,
}

/// What the log's memory is used for, in bytes. No byte is in two parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogMemory {
    /// WAL objects: open, on their way, and kept for readers of the tail.
    pub arenas: u64,
    /// Blocks of sealed data that came from the store and are in memory, cached or referred to.
    pub blocks: u64,
    /// Reads of blocks that are on their way.
    pub loading: u64,
    /// Parts of WAL objects that had left memory and were read again, to be sealed or served.
    pub read_back: u64,
    /// What is known of partitions; an estimate.
    pub partitions: u64,
}

/// A snapshot of the log's counters. Totals since start unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogMetrics {
    /// WAL objects put.
    pub wal_puts: u64,
    /// Their bytes.
    pub wal_put_bytes: u64,
    /// WAL objects committed.
    pub wal_commits: u64,
    /// Sum of the times from dispatch to commit, microseconds.
    pub wal_commit_us: u64,
    /// Commits by latency: bounds in [`LATENCY_BOUNDS_US`], not cumulative.
    pub wal_commit_buckets: Vec<u64>,
    /// Appends that had to wait for room.
    pub throttled: u64,
    /// Bytes appended and not committed, now.
    pub unflushed_bytes: u64,
    /// Bytes committed and not sealed, now.
    pub unsealed_bytes: u64,
    /// Dropped objects that wait for their deletion, those in their grace included, and partitions of deleted topics, now.
    pub pending_deletions: u64,
    /// Bytes served from WAL objects.
    pub hot_bytes: u64,
    /// Bytes of sealed data served from the block cache.
    pub cached_bytes: u64,
    /// Bytes of sealed data read from the store.
    pub cold_bytes: u64,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks that were not.
    pub cache_misses: u64,
    /// Sealing rounds committed.
    pub rounds: u64,
    /// Bytes sealed into segments and bundles.
    pub sealed_bytes: u64,
    /// Passes of compaction that came to their end.
    pub cleaner_passes: u64,
    /// Passes that did not.
    pub cleaner_failures: u64,
    /// Segments that compaction made for nothing, because the log had changed under it.
    pub cleaner_refused: u64,
    /// Bytes that compaction read; what is dirty is read twice.
    pub cleaner_read_bytes: u64,
    /// Bytes that it wrote.
    pub cleaner_written_bytes: u64,
    /// The largest part of a compacted partition that no pass has seen, now, in percent (Kafka's
    /// `max-dirty-percent`).
    pub cleaner_max_dirty_percent: u64,
    /// Partitions that are not compacted because their data is damaged, now (Kafka's `uncleanable-partitions-count`).
    pub cleaner_uncleanable_partitions: u64,
}

impl Counters {
    pub(crate) fn add_put(&self, bytes: usize) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_commit(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_us.fetch_add(us, Ordering::Relaxed);
        self.commit_buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_throttled(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_hot(&self, bytes: usize) {
        self.hot_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_cached(&self, bytes: usize) {
        self.cache_hits.fetch_add(1, Ordering::Relaxed);
        self.cached_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_cold(&self, bytes: usize) {
        self.cache_misses.fetch_add(1, Ordering::Relaxed);
        self.cold_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_sealed(&self, bytes: u64) {
        self.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_cleaner_pass(&self) {
        self.cleaner_passes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_cleaner_failure(&self) {
        self.cleaner_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_cleaner_refused(&self, segments: usize) {
        self.cleaner_refused.fetch_add(segments as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_cleaner_read(&self, bytes: usize) {
        self.cleaner_read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_cleaner_written(&self, bytes: u64) {
        self.cleaner_written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_cleaner(&self, dirtiest: f64, damaged: u64) {
        self.cleaner_dirty
            .store((dirtiest * 100.0) as u64, Ordering::Relaxed);
        self.cleaner_damaged.store(damaged, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, unflushed: usize, unsealed: u64, pending_deletions: u64) -> LogMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogMetrics {
            wal_puts: load(&self.puts),
            wal_put_bytes: load(&self.put_bytes),
            wal_commits: load(&self.commits),
            wal_commit_us: load(&self.commit_us),
            wal_commit_buckets: self.commit_buckets.iter().map(load).collect(),
            throttled: load(&self.throttled),
            unflushed_bytes: unflushed as u64,
            unsealed_bytes: unsealed,
            pending_deletions,
            hot_bytes: load(&self.hot_bytes),
            cached_bytes: load(&self.cached_bytes),
            cold_bytes: load(&self.cold_bytes),
            cache_hits: load(&self.cache_hits),
            cache_misses: load(&self.cache_misses),
            rounds: load(&self.rounds),
            sealed_bytes: load(&self.sealed_bytes),
            cleaner_passes: load(&self.cleaner_passes),
            cleaner_failures: load(&self.cleaner_failures),
            cleaner_refused: load(&self.cleaner_refused),
            cleaner_read_bytes: load(&self.cleaner_read_bytes),
            cleaner_written_bytes: load(&self.cleaner_written_bytes),
            cleaner_max_dirty_percent: load(&self.cleaner_dirty),
            cleaner_uncleanable_partitions: load(&self.cleaner_damaged),
        }
    }
}
