//! Sealed data through the block cache.
//!
//! Blocks of 512 KiB are verified by their checksum when they arrive, cached, and handed out by reference. Loads
//! of the same place wait for one another, have a byte budget of their own, and reach further ahead the longer a
//! reader proves sequential.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use drumlin_objects::Reason;
use drumlin_objects::cache::{BlockCache, CacheHint};
use tokio::sync::Semaphore;

use crate::layout;
use crate::log::Log;
use crate::manifest::{
    BLOCK_BYTES, LeafPointer, LeafRow, Segment, SegmentDetail, decode_leaf_detail, decode_leaf_table,
};
use crate::read::{Failure, ReadError, Source};
use crate::rope::Rope;
use crate::types::TopicPartition;

/// Load no more than was asked for.
pub(crate) const NO_READ_AHEAD: usize = 0;
/// A reader that got this far ahead is a backfill: what it reads is not worth evicting the tail for.
const BACKFILL_FROM: usize = 1 << 20;
/// Sequential readers that are told apart on one partition.
const STREAMS: usize = 8;
/// Manifest tables and segment details kept decoded.
const DECODED: usize = 64;
/// Loads of one object wait for each other within ranges of this many blocks.
const LOAD_STRIPE: u64 = 32;

/// Held while a stretch of an object is being loaded.
type Gate = Arc<tokio::sync::Mutex<()>>;
/// A leaf's key and its table.
type Table = (Arc<str>, Arc<Vec<LeafRow>>);
/// A leaf's key, a segment's base offset, and the segment whole.
type Detail = (Arc<str>, i64, Arc<Segment>);

struct Stream {
    id: TopicPartition,
    next: i64,
    ahead: usize,
}

/// Reading sealed data.
pub(crate) struct Cold {
    cache: Arc<dyn BlockCache>,
    budget: Semaphore,
    budget_total: usize,
    ahead_max: usize,
    streams: Mutex<VecDeque<Stream>>,
    loading: Mutex<BTreeMap<(Arc<str>, u64), Gate>>,
    tables: Mutex<VecDeque<Table>>,
    details: Mutex<VecDeque<Detail>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cold {
    pub(crate) fn new(cache: Arc<dyn BlockCache>, inflight_bytes: usize, ahead_max: usize) -> Self {
        let budget_total = (inflight_bytes / 1024).clamp(1, u32::MAX as usize / 2);
        Self {
            cache,
            budget: Semaphore::new(budget_total),
            budget_total,
            ahead_max,
            streams: Mutex::default(),
            loading: Mutex::default(),
            tables: Mutex::default(),
            details: Mutex::default(),
        }
    }

    /// Bytes that are being read.
    pub(crate) fn loading_bytes(&self) -> usize {
        (self.budget_total - self.budget.available_permits().min(self.budget_total)) * 1024
    }

    /// How far ahead a reader at `offset` may load, bytes.
    pub(crate) fn stream(&self, id: TopicPartition, offset: i64) -> usize {
        let streams = lock(&self.streams);
        let known = streams
            .iter()
            .find(|stream| stream.id == id && stream.next == offset);
        known.map_or(BLOCK_BYTES, |stream| stream.ahead)
    }

    /// Notes that a reader came from `offset` to `next`.
    pub(crate) fn read_to(&self, id: TopicPartition, offset: i64, next: i64, ahead: usize) {
        let mut streams = lock(&self.streams);
        let known = streams
            .iter()
            .position(|stream| stream.id == id && stream.next == offset);
        let ahead = if known.is_some() {
            (2 * ahead).min(self.ahead_max)
        } else {
            BLOCK_BYTES
        };
        if let Some(at) = known {
            streams.remove(at);
        }
        streams.push_back(Stream { id, next, ahead });
        if streams.len() > STREAMS * 8 {
            streams.pop_front();
        }
    }

    /// The bytes of `range` of a source. Verified; by reference into cached blocks.
    pub(crate) async fn load(
        &self,
        log: &Log,
        id: &TopicPartition,
        source: &Source,
        range: Range<u64>,
        ahead: usize,
    ) -> Result<Rope, Failure> {
        let mut rope = Rope::default();
        self.load_into(&mut rope, log, id, source, range, ahead).await?;
        Ok(rope)
    }

    /// As [`Cold::load`]. On a failure `rope` has what lies before it: damage is an error for its own range.
    pub(crate) async fn load_into(
        &self,
        rope: &mut Rope,
        log: &Log,
        id: &TopicPartition,
        source: &Source,
        range: Range<u64>,
        ahead: usize,
    ) -> Result<(), Failure> {
        let object = Object::of(id, source);
        let block = BLOCK_BYTES as u64;
        let (first, last) = (range.start / block, (range.end.max(1) - 1) / block);
        let mut at = first;
        while at <= last {
            if let Some(bytes) = self.cached(log, &object, at).await {
                push_part(rope, bytes, at * block, &range);
                at += 1;
                continue;
            }
            let entrance = self.entrance(&object.key, at / LOAD_STRIPE);
            let guard = entrance.gate.lock().await;
            if let Some(bytes) = self.cached(log, &object, at).await {
                push_part(rope, bytes, at * block, &range);
                at += 1;
                continue;
            }
            let hint = if ahead > BACKFILL_FROM {
                CacheHint::Backfill
            } else {
                CacheHint::Keep
            };
            let ahead_blocks = (ahead as u64 / block).saturating_sub(1);
            let until = (last.max(at + ahead_blocks) + 1)
                .min(object.blocks())
                .min((at / LOAD_STRIPE + 1) * LOAD_STRIPE);
            let blocks = if object.has_one_checksum() {
                0..object.blocks()
            } else {
                at..until
            };
            let skipped = (at - blocks.start) as usize;
            let loaded = self.fetch(log, &object, blocks, hint).await;
            drop(guard);
            for bytes in loaded?.into_iter().skip(skipped) {
                if at <= last {
                    push_part(rope, bytes, at * block, &range);
                }
                at += 1;
            }
        }
        Ok(())
    }

    async fn cached(&self, log: &Log, object: &Object<'_>, block: u64) -> Option<Bytes> {
        let bytes = self.cache.get(&object.key, object.first_block() + block).await?;
        if bytes.len() as u64 != object.block_length(block) {
            return None;
        }
        log.counters().add_cached(bytes.len());
        Some(bytes)
    }

    fn entrance(&self, key: &Arc<str>, stripe: u64) -> Entrance<'_> {
        let stretch = (Arc::clone(key), stripe);
        let gate = Arc::clone(lock(&self.loading).entry(stretch.clone()).or_default());
        Entrance {
            cold: self,
            stretch,
            gate,
        }
    }

    /// Loads blocks from the store: all, or those before the first that is damaged; one at least.
    async fn fetch(
        &self,
        log: &Log,
        object: &Object<'_>,
        blocks: Range<u64>,
        hint: CacheHint,
    ) -> Result<Vec<Bytes>, Failure> {
        let start = blocks.start * BLOCK_BYTES as u64;
        let end = (blocks.end * BLOCK_BYTES as u64).min(object.length);
        let units = ((end - start) as usize)
            .div_ceil(1024)
            .clamp(1, self.budget_total);
        let permit = self
            .budget
            .acquire_many(u32::try_from(units).unwrap_or(u32::MAX))
            .await;
        let range = object.position + start..object.position + end;
        let whole = log
            .bucket()
            .get_range(&object.key, range, Reason::ColdRead)
            .await
            .map_err(Failure::of)?;
        drop(permit);
        let whole = log.counters().blocks.track(whole);
        log.counters().add_cold(whole.len());
        let mut parts = Vec::with_capacity((blocks.end - blocks.start) as usize);
        let one_checksum = object.has_one_checksum();
        let as_a_whole = one_checksum && object.detail.block_crcs.first() == Some(&crc32c::crc32c(&whole));
        for block in blocks.clone() {
            let from = ((block - blocks.start) as usize) * BLOCK_BYTES;
            let bytes = whole.slice(from..(from + object.block_length(block) as usize));
            let expected = object.detail.block_crcs.get(block as usize).copied();
            if !as_a_whole && (one_checksum || expected != Some(crc32c::crc32c(&bytes))) {
                // Whoever wants this block will hear of it, and nobody else.
                if !parts.is_empty() {
                    break;
                }
                let at = object.position + block * BLOCK_BYTES as u64;
                return Err(Failure::Error(ReadError::Corrupt {
                    what: format!("{} at byte {at}", object.key),
                }));
            }
            self.cache
                .insert(&object.key, object.first_block() + block, bytes.clone(), hint);
            parts.push(bytes);
        }
        Ok(parts)
    }

    /// The table of a manifest leaf.
    pub(crate) async fn leaf_table(
        &self,
        log: &Log,
        leaf: &LeafPointer,
    ) -> Result<Arc<Vec<LeafRow>>, Failure> {
        let known = lock(&self.tables)
            .iter()
            .find(|(key, _)| *key == leaf.key)
            .map(|(_, table)| Arc::clone(table));
        if let Some(table) = known {
            return Ok(table);
        }
        let bytes = log
            .bucket()
            .get_range(&leaf.key, 0..leaf.table_length, Reason::Manifest)
            .await;
        let bytes = bytes.map_err(Failure::of)?;
        let rows = decode_leaf_table(&bytes).map_err(|error| ReadError::Corrupt {
            what: format!("{}: {error}", leaf.key),
        })?;
        let table = Arc::new(rows);
        let mut tables = lock(&self.tables);
        tables.push_back((Arc::clone(&leaf.key), Arc::clone(&table)));
        if tables.len() > DECODED {
            tables.pop_front();
        }
        Ok(table)
    }

    /// A segment of a leaf, with its checksums and index.
    pub(crate) async fn leaf_segment(
        &self,
        log: &Log,
        leaf: &LeafPointer,
        row: &LeafRow,
    ) -> Result<Arc<Segment>, Failure> {
        let base = row.segment.base_offset;
        let known = {
            let details = lock(&self.details);
            let known = details
                .iter()
                .find(|(key, at, _)| *key == leaf.key && *at == base);
            known.map(|(_, _, segment)| Arc::clone(segment))
        };
        if let Some(segment) = known {
            return Ok(segment);
        }
        let range = row.detail_position..row.detail_position + row.detail_length;
        let bytes = log
            .bucket()
            .get_range(&leaf.key, range, Reason::Manifest)
            .await
            .map_err(Failure::of)?;
        let detail = decode_leaf_detail(&bytes).map_err(|error| ReadError::Corrupt {
            what: format!("{}: {error}", leaf.key),
        })?;
        let segment = Arc::new(Segment {
            detail,
            ..row.segment.clone()
        });
        let mut details = lock(&self.details);
        details.push_back((Arc::clone(&leaf.key), base, Arc::clone(&segment)));
        if details.len() > DECODED {
            details.pop_front();
        }
        Ok(segment)
    }
}

/// A reader's stand at the gate of a stretch. The last one to leave takes the gate away, also one whose read was
/// abandoned.
struct Entrance<'a> {
    cold: &'a Cold,
    stretch: (Arc<str>, u64),
    gate: Gate,
}

impl Drop for Entrance<'_> {
    fn drop(&mut self) {
        let mut loading = lock(&self.cold.loading);
        // This one's and the table's.
        if Arc::strong_count(&self.gate) == 2 {
            loading.remove(&self.stretch);
        }
    }
}

/// The stored object behind a source.
pub(crate) struct Object<'a> {
    pub key: Arc<str>,
    /// Where it starts in the object, bytes.
    pub position: u64,
    pub length: u64,
    pub detail: &'a SegmentDetail,
}

impl<'a> Object<'a> {
    pub(crate) fn of(id: &TopicPartition, source: &'a Source) -> Self {
        match source {
            Source::Segment(segment) => Self {
                key: segment.key(id).into(),
                position: 0,
                length: segment.size,
                detail: &segment.detail,
            },
            Source::Span(span) => Self {
                key: Arc::clone(&span.bundle),
                position: span.position,
                length: span.length,
                detail: &span.detail,
            },
        }
    }

    fn blocks(&self) -> u64 {
        self.length.div_ceil(BLOCK_BYTES as u64)
    }

    /// What was left in a WAL object, which has a checksum for each extent, of whatever length.
    fn has_one_checksum(&self) -> bool {
        self.blocks() > 1 && layout::is_wal_entry(&self.key)
    }

    fn block_length(&self, block: u64) -> u64 {
        (BLOCK_BYTES as u64).min(self.length - (block * BLOCK_BYTES as u64).min(self.length))
    }

    /// Cache numbers of a span's blocks: a bundle holds many spans, none of which starts at another's byte.
    fn first_block(&self) -> u64 {
        self.position << 16
    }
}

fn push_part(rope: &mut Rope, bytes: Bytes, start: u64, range: &Range<u64>) {
    let from = range.start.saturating_sub(start).min(bytes.len() as u64) as usize;
    let to = (range.end.saturating_sub(start)).min(bytes.len() as u64) as usize;
    if from < to {
        rope.push(bytes.slice(from..to));
    }
}

#[cfg(test)]
mod tests {
    use drumlin_objects::cache::MemoryBlockCache;

    use super::*;

    #[tokio::test]
    async fn a_gate_goes_with_the_last_reader_that_stands_at_it_also_an_abandoned_one() {
        let cold = Cold::new(Arc::new(MemoryBlockCache::new(1 << 20)), 1 << 20, 1 << 20);
        let key: Arc<str> = "segment".into();
        let first = cold.entrance(&key, 3);
        let guard = first.gate.lock().await;
        let abandoned = async {
            let second = cold.entrance(&key, 3);
            let _guard = second.gate.lock().await;
        };
        let waited = tokio::time::timeout(std::time::Duration::from_millis(5), abandoned).await;
        assert!(waited.is_err(), "the first one holds the gate");
        assert_eq!(lock(&cold.loading).len(), 1);
        drop(guard);
        drop(first);
        assert_eq!(lock(&cold.loading).len(), 0);
    }
}
