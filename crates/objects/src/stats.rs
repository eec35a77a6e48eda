//! Counters of every request, by operation and reason. Read by metrics; they cost a few atomic adds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Why the store is asked, the second label of its metrics.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// Entries of a WAL.
    Wal,
    /// Bundles of small partitions.
    Bundle,
    /// Segments.
    Segment,
    /// Manifests.
    Manifest,
    /// The metadata log.
    Meta,
    /// Checkpoints: bodies and markers.
    Checkpoint,
    /// Fetches of what is in no cache.
    ColdRead,
    /// Fencing, and reading a chain after its owner.
    Recovery,
    /// Deletion and the search for orphans.
    Sweep,
    /// Compaction of topics: what it reads and what it writes.
    Compaction,
    /// The test of put-if-absent.
    Probe,
    /// `drumlin store check` and its kind.
    Check,
}

impl Reason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Reason; 12] = [
        Reason::Wal,
        Reason::Bundle,
        Reason::Segment,
        Reason::Manifest,
        Reason::Meta,
        Reason::Checkpoint,
        Reason::ColdRead,
        Reason::Recovery,
        Reason::Sweep,
        Reason::Compaction,
        Reason::Probe,
        Reason::Check,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Bundle => "bundle",
            Self::Segment => "segment",
            Self::Manifest => "manifest",
            Self::Meta => "meta",
            Self::Checkpoint => "checkpoint",
            Self::ColdRead => "cold_read",
            Self::Recovery => "recovery",
            Self::Sweep => "sweep",
            Self::Compaction => "compaction",
            Self::Probe => "probe",
            Self::Check => "check",
        }
    }
}

/// What is asked of the store, the first label of its metrics.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// Put-if-absent.
    PutNew,
    /// Put of a uniquely named object.
    Put,
    /// Whole or ranged get.
    Get,
    /// List.
    List,
    /// Delete.
    Delete,
}

impl Operation {
    /// All of them, in the order of their declaration.
    pub const ALL: [Operation; 5] = [
        Operation::PutNew,
        Operation::Put,
        Operation::Get,
        Operation::List,
        Operation::Delete,
    ];

    /// The metric label, also used in errors ("could not … key").
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PutNew => "create",
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// Upper bounds of the latency histogram, in microseconds; one more bucket counts what is above the last.
pub const LATENCY_BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 125_000, 250_000, 500_000, 1_000_000,
    4_000_000, 16_000_000, 64_000_000,
];

#[derive(Debug, Default)]
struct Cell {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    latency_us: AtomicU64,
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
}

/// Counters of one store.
#[derive(Debug, Default)]
pub struct StoreStats {
    cells: [[Cell; Reason::ALL.len()]; Operation::ALL.len()],
}

/// The counters of one (operation, reason).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// What was asked.
    pub operation: Operation,
    /// Why.
    pub reason: Reason,
    /// Requests, retries included.
    pub requests: u64,
    /// Requests that failed. A missing object, or one that exists already, is an answer, not a failure.
    pub errors: u64,
    /// Bytes of bodies sent or received.
    pub bytes: u64,
    /// Sum of latencies.
    pub latency: Duration,
    /// Requests by latency: `buckets[i]` counts those of at most [`LATENCY_BOUNDS_US`]`[i]`, not cumulative.
    pub buckets: [u64; LATENCY_BOUNDS_US.len() + 1],
}

impl StoreStats {
    pub(crate) fn record(
        &self,
        operation: Operation,
        reason: Reason,
        bytes: u64,
        failed: bool,
        took: Duration,
    ) {
        let cell = &self.cells[operation as usize][reason as usize];
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        cell.requests.fetch_add(1, Ordering::Relaxed);
        cell.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        cell.bytes.fetch_add(bytes, Ordering::Relaxed);
        cell.latency_us.fetch_add(us, Ordering::Relaxed);
        cell.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Counters of one (operation, reason).
    pub fn get(&self, operation: Operation, reason: Reason) -> Counters {
        let cell = &self.cells[operation as usize][reason as usize];
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            operation,
            reason,
            requests: load(&cell.requests),
            errors: load(&cell.errors),
            bytes: load(&cell.bytes),
            latency: Duration::from_micros(load(&cell.latency_us)),
            buckets: std::array::from_fn(|i| load(&cell.buckets[i])),
        }
    }

    /// All counters that are not zero.
    pub fn snapshot(&self) -> Vec<Counters> {
        let pairs = Operation::ALL
            .into_iter()
            .flat_map(|o| Reason::ALL.into_iter().map(move |r| (o, r)));
        pairs
            .map(|(o, r)| self.get(o, r))
            .filter(|counters| counters.requests > 0)
            .collect()
    }

    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.snapshot().iter().map(|counters| counters.requests).sum()
    }
}
