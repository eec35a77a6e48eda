//! The cache of blocks read from the store.
//!
//! A block is a fixed stretch of an object, whose size its reader chooses. What the cache gives is what was put
//! in, or nothing: damaged local files are found by their CRC and count as a miss. It is never a source of truth
//! (rule I2), and everything works without it. Who reads what, read-ahead and single flight belong to the log.

mod hybrid;
mod memory;
mod watch;

use bytes::Bytes;

pub use hybrid::{CacheConfig, HybridBlockCache};
pub use memory::MemoryBlockCache;

/// Why a block is put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheHint {
    /// Worth keeping: near the tail, or asked for by itself.
    Keep,
    /// A part of a long sequential read: kept in memory for a moment, evicted before all others, never written
    /// to disk, so that a backfill never evicts the tail.
    Backfill,
}

/// What a cache has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Blocks found.
    pub hits: u64,
    /// Blocks not found.
    pub misses: u64,
    /// Blocks whose local copy was damaged or unreadable; they count as misses too.
    pub damaged: u64,
    /// Blocks put in.
    pub inserts: u64,
    /// Bytes held in memory.
    pub memory_bytes: u64,
    /// Bytes of blocks in memory that came from the disk, as long as anybody refers to them; the others are their
    /// reader's.
    pub from_disk_bytes: u64,
}

/// A cache of blocks.
#[async_trait::async_trait]
pub trait BlockCache: Send + Sync + std::fmt::Debug {
    /// Block number `block` of `object`, if it is here and whole. May read a local disk, never the store.
    async fn get(&self, object: &str, block: u64) -> Option<Bytes>;

    /// Offers a block; whether it is kept is the cache's business. Never blocks. The bytes must be final:
    /// objects are immutable, and `object` names one for ever.
    fn insert(&self, object: &str, block: u64, bytes: Bytes, hint: CacheHint);

    /// Forgets a block, e.g. one whose contents turned out to be wrong.
    fn remove(&self, object: &str, block: u64);

    /// Counters.
    fn stats(&self) -> CacheStats;

    /// Writes out what is on its way to disk. The cache still answers afterwards, from memory at best.
    async fn close(&self);
}

#[cfg(test)]
mod tests;
