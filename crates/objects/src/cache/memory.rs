//! A block cache in memory alone: least recently used goes first. Backfills have half of it at most, in the order in
//! which they came, so that read-ahead lasts until it is used and never drives out what is worth keeping.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{BlockCache, CacheHint, CacheStats};

/// What an entry costs beside its bytes.
const OVERHEAD: usize = 200;

type Key = (Box<str>, u64);

/// See the module.
#[derive(Debug)]
pub struct MemoryBlockCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<Key, Block>,
    /// By last use. Walked in its order only, so that simulations replay.
    kept: BTreeMap<u64, Key>,
    backfill: BTreeMap<u64, Key>,
    clock: u64,
    used: usize,
    backfill_used: usize,
    stats: CacheStats,
}

#[derive(Debug)]
struct Block {
    bytes: Bytes,
    used_at: u64,
    hint: CacheHint,
}

fn cost(key: &Key, bytes: &Bytes) -> usize {
    key.0.len() + bytes.len() + OVERHEAD
}

impl State {
    fn order(&mut self, hint: CacheHint) -> &mut BTreeMap<u64, Key> {
        match hint {
            CacheHint::Keep => &mut self.kept,
            CacheHint::Backfill => &mut self.backfill,
        }
    }

    fn take(&mut self, key: &Key) -> Option<Block> {
        let block = self.blocks.remove(key)?;
        self.order(block.hint).remove(&block.used_at);
        self.used -= cost(key, &block.bytes);
        if block.hint == CacheHint::Backfill {
            self.backfill_used -= cost(key, &block.bytes);
        }
        Some(block)
    }

    fn put(&mut self, key: Key, bytes: Bytes, hint: CacheHint) {
        self.clock += 1;
        let used_at = self.clock;
        self.used += cost(&key, &bytes);
        if hint == CacheHint::Backfill {
            self.backfill_used += cost(&key, &bytes);
        }
        self.order(hint).insert(used_at, key.clone());
        self.blocks.insert(key, Block { bytes, used_at, hint });
    }

    fn evict(&mut self, capacity: usize) {
        while self.used > capacity {
            let (backfill, kept) = (self.backfill.first_key_value(), self.kept.first_key_value());
            let oldest = if self.backfill_used > capacity / 2 {
                backfill.or(kept)
            } else {
                kept.or(backfill)
            };
            let Some(key) = oldest.map(|(_, key)| key.clone()) else {
                return;
            };
            self.take(&key);
        }
    }
}

impl MemoryBlockCache {
    /// Holds up to `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get_now(&self, object: &str, block: u64) -> Option<Bytes> {
        let mut state = self.state();
        let key = (object.into(), block);
        let found = state
            .blocks
            .get(&key)
            .map(|block| (block.hint, block.bytes.clone()));
        let Some((hint, bytes)) = found else {
            state.stats.misses += 1;
            return None;
        };
        state.stats.hits += 1;
        // A backfill's reader comes by once; its block keeps its place in the queue.
        if hint == CacheHint::Keep && state.take(&key).is_some() {
            state.put(key, bytes.clone(), hint);
        }
        Some(bytes)
    }

    pub(super) fn clear(&self) {
        let mut state = self.state();
        let (clock, stats) = (state.clock, state.stats);
        *state = State {
            clock,
            stats,
            ..State::default()
        };
    }
}

#[async_trait::async_trait]
impl BlockCache for MemoryBlockCache {
    async fn get(&self, object: &str, block: u64) -> Option<Bytes> {
        self.get_now(object, block)
    }

    fn insert(&self, object: &str, block: u64, bytes: Bytes, hint: CacheHint) {
        let mut state = self.state();
        let key = (object.into(), block);
        state.take(&key);
        state.stats.inserts += 1;
        if cost(&key, &bytes) <= self.capacity {
            state.put(key, bytes, hint);
            state.evict(self.capacity);
        }
    }

    fn remove(&self, object: &str, block: u64) {
        self.state().take(&(object.into(), block));
    }

    fn stats(&self) -> CacheStats {
        let state = self.state();
        CacheStats {
            memory_bytes: state.used as u64,
            ..state.stats
        }
    }

    async fn close(&self) {}
}
