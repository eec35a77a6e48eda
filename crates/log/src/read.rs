//! Reads: an offset to bytes. Lookups by time are in [`lookup`](crate::lookup).
//!
//! Data is looked for in the order hot log, bundle spans, segments. What lies in memory is answered without
//! suspending and without a copy; what was loaded from elsewhere is verified against the checksums of its
//! extent or block before it leaves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_objects::{Reason, StoreError};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use thiserror::Error;

use crate::log::Log;
use crate::manifest::{AbortedTransaction, Segment, Span};
use crate::object::Extent;
use crate::partition::{Inner, Partition, Sealed};
use crate::rope::{Rope, cut, ends_before};

/// Sources that one read may go through before it answers with what it has.
const SOURCES_PER_READ: usize = 16;
/// Objects of the hot log that one read loads at a time.
const LOADS_PER_READ: usize = 8;
/// A reader that has something to go on with is not kept longer than this for more.
const PATIENCE: Duration = Duration::from_millis(500);
/// A read that raced with sealing or retention looks again this often.
pub(crate) const ATTEMPTS: usize = 4;

/// Why a read failed.
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// The offset lies before the log's start or beyond its end.
    #[error("offset {offset} is outside of {log_start}..={high_watermark}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: i64,
        /// The log start offset.
        log_start: i64,
        /// The high watermark.
        high_watermark: i64,
    },
    /// The topic was deleted.
    #[error("the partition was deleted")]
    Deleted,
    /// An object that leads to the partition's records is damaged or missing: none of it is served.
    #[error("the partition cannot be served: {what}")]
    Unavailable {
        /// Which object, and how.
        what: String,
    },
    /// The store does not answer.
    #[error("the store: {0}")]
    Store(String),
    /// Stored bytes are not what was written.
    #[error("damaged data: {what}")]
    Corrupt {
        /// Which object, and how.
        what: String,
    },
}

/// Records that were read, and where the log stands.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Whole batches in order of offsets; the first may begin below the offset asked for.
    pub records: Vec<Bytes>,
    /// Their length together, bytes.
    pub bytes: usize,
    /// Where to read on: there is nothing from the end of the records to here, which compaction may have emptied.
    pub next_offset: i64,
    /// The end of what consumers see.
    pub high_watermark: i64,
    /// The end of what `read_committed` consumers see.
    pub last_stable_offset: i64,
    /// The first offset of the log.
    pub log_start_offset: i64,
}

/// A record found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The record's offset.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds.
    pub timestamp: i64,
    /// The leader epoch under which it was written.
    pub leader_epoch: i32,
}

/// Where the data at an offset lies.
enum Place {
    Hot(Vec<Extent>),
    Sealed(Arc<Sealed>),
    End,
}

/// A piece of sealed data with all that reading it needs.
#[derive(Clone)]
pub(crate) enum Source {
    Segment(Arc<Segment>),
    Span(Arc<Span>),
}

fn place(inner: &Inner, offset: i64, max_bytes: usize) -> Place {
    if offset >= inner.high_watermark {
        return Place::End;
    }
    if inner.hot.front().is_none_or(|first| offset < first.base_offset) {
        return Place::Sealed(Arc::clone(&inner.sealed));
    }
    let from = inner.hot.partition_point(|extent| extent.last_offset < offset);
    let gone = |extent: &Extent| extent.last_offset < inner.sealed_end && extent.object.memory().is_none();
    if inner.hot.get(from).is_some_and(gone) {
        return Place::Sealed(Arc::clone(&inner.sealed));
    }
    let mut extents = Vec::with_capacity(8);
    let mut bytes = 0usize;
    for extent in inner.hot.iter().skip(from) {
        extents.push(extent.clone());
        bytes += extent.length as usize;
        // One more than fits, since the first may be used in part.
        if bytes >= max_bytes + extents[0].length as usize {
            break;
        }
    }
    Place::Hot(extents)
}

impl Log {
    /// Reads whole batches from the one that holds `offset`, up to `max_bytes`; with `at_least_one` a first batch
    /// that is larger still comes whole. Nothing at or beyond the high watermark is ever returned.
    ///
    /// # Errors
    /// [`ReadError`]; nothing is returned in part.
    pub async fn read(
        &self,
        partition: &Arc<Partition>,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Read, ReadError> {
        let mut read = Read::default();
        let mut next = offset;
        let mut races = 0;
        let began = self.bucket().env().instant();
        for _ in 0..SOURCES_PER_READ {
            if !read.records.is_empty() && began.elapsed() > PATIENCE {
                break;
            }
            let place = {
                let inner = partition.lock();
                if read.records.is_empty() {
                    check_range(&inner, offset)?;
                    read.high_watermark = inner.high_watermark;
                    read.last_stable_offset = inner.high_watermark;
                    read.log_start_offset = inner.log_start;
                }
                place(&inner, next, max_bytes - read.bytes.min(max_bytes))
            };
            let room = max_bytes.saturating_sub(read.bytes);
            let first = at_least_one && read.records.is_empty();
            if room == 0 && !first {
                break;
            }
            let outcome = match place {
                Place::End => break,
                Place::Hot(extents) => self.read_hot(&extents, next, room, first, &mut read).await,
                Place::Sealed(sealed) => {
                    self.read_sealed(partition, &sealed, next, room, first, &mut read)
                        .await
                }
            };
            match outcome {
                Ok(Some(after)) => next = after,
                Ok(None) => break,
                // Sealing or retention moved the data while it was being read.
                Err(Failure::Moved(_)) if races < ATTEMPTS => races += 1,
                Err(failure) if read.records.is_empty() => return Err(failure.into()),
                Err(_) => break,
            }
        }
        read.next_offset = next;
        Ok(read)
    }

    async fn read_hot(
        &self,
        extents: &[Extent],
        offset: i64,
        room: usize,
        first: bool,
        read: &mut Read,
    ) -> Result<Option<i64>, Failure> {
        let mut runs = extents
            .chunk_by(|a, b| {
                Arc::ptr_eq(&a.object, &b.object) && a.position + u64::from(a.length) == b.position
            })
            .peekable();
        let mut rope = Rope::default();
        while let Some(run) = runs.next_if(|run| run[0].object.memory().is_some()) {
            self.load_run(run, &mut rope).await?;
        }
        // What left memory may lie in many small objects.
        let began = self.bucket().env().instant();
        let mut loads = FuturesOrdered::new();
        let mut failure = None;
        loop {
            while loads.len() < LOADS_PER_READ
                && let Some(run) = runs.next()
            {
                loads.push_back(self.load_alone(run));
            }
            let loaded = if rope.len() > 0 {
                tokio::time::timeout_at(began + PATIENCE, loads.next())
                    .await
                    .unwrap_or(None)
            } else {
                loads.next().await
            };
            let Some((more, outcome)) = loaded else { break };
            rope.append(more);
            // What lies before it is served all the same.
            if let Err(error) = outcome {
                failure = Some(error);
                break;
            }
        }
        drop(loads);
        let Some(cut) = cut(&rope, 0, offset, room, first)? else {
            return failure.map_or(Ok(None), Err);
        };
        let before = read.records.len();
        rope.slice(cut.from, cut.to, &mut read.records);
        debug_assert!(read.records.len() > before);
        read.bytes += cut.to - cut.from;
        self.counters().add_hot(cut.to - cut.from);
        Ok(Some(cut.next_offset))
    }

    /// One extent's bytes, verified unless they are in memory.
    pub(crate) async fn load_extent(&self, extent: &Extent) -> Result<Rope, Failure> {
        self.load_extents(std::slice::from_ref(extent)).await
    }

    /// As [`Log::load_extent`], of extents that lie back to back in one object.
    pub(crate) async fn load_extents(&self, run: &[Extent]) -> Result<Rope, Failure> {
        let mut rope = Rope::default();
        self.load_run(run, &mut rope).await?;
        Ok(rope)
    }

    /// [`Log::load_run`] into a rope of its own.
    async fn load_alone(&self, run: &[Extent]) -> (Rope, Result<(), Failure>) {
        let mut rope = Rope::default();
        let outcome = self.load_run(run, &mut rope).await;
        (rope, outcome)
    }

    /// Loads extents that lie back to back in one object. On damage `rope` has those before it.
    async fn load_run(&self, run: &[Extent], rope: &mut Rope) -> Result<(), Failure> {
        let (Some(head), Some(tail)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let range = head.position..tail.position + u64::from(tail.length);
        let object = &head.object;
        if let Some(memory) = object.memory() {
            rope.push(memory.slice(range.start as usize..range.end as usize));
            return Ok(());
        }
        let bytes = object
            .load(self.bucket(), range.clone(), Reason::ColdRead)
            .await
            .map_err(Failure::of)?;
        let bytes = self.counters().read_back.track(bytes);
        let bytes = match damaged(run, &bytes) {
            None => bytes,
            Some(_) => {
                // A torn or flipped local copy; the store has the truth.
                let again = object
                    .load_from_store(self.bucket(), range, Reason::ColdRead)
                    .await;
                let again = self.counters().read_back.track(again.map_err(Failure::of)?);
                if let Some(extent) = damaged(run, &again) {
                    rope.push(again.slice(..((extent.position - head.position) as usize).min(again.len())));
                    let (key, first, last) = (object.key(), extent.base_offset, extent.last_offset);
                    return Err(Failure::Error(ReadError::Corrupt {
                        what: format!("{key}, offsets {first} to {last}"),
                    }));
                }
                again
            }
        };
        rope.push(bytes);
        Ok(())
    }

    async fn read_sealed(
        &self,
        partition: &Partition,
        sealed: &Sealed,
        offset: i64,
        room: usize,
        first: bool,
        read: &mut Read,
    ) -> Result<Option<i64>, Failure> {
        let Some(source) = self.source_at(sealed, offset).await? else {
            return Err(Failure::Moved(ReadError::Corrupt {
                what: format!("no object holds offset {offset}"),
            }));
        };
        let id = partition.id();
        let size = source.size();
        let start = source.position_of_offset(offset);
        let mut want = room.max(1);
        let ahead = self.cold().stream(id, offset);
        loop {
            // The indexed position may lie up to an index interval before the batch.
            let end = size.min(start + want as u64 + crate::manifest::INDEX_INTERVAL as u64);
            let mut rope = Rope::default();
            let loaded = self
                .cold()
                .load_into(&mut rope, self, &id, &source, start..end, ahead)
                .await;
            match cut(&rope, 0, offset, room, first)? {
                Some(cut) => {
                    rope.slice(cut.from, cut.to, &mut read.records);
                    read.bytes += cut.to - cut.from;
                    self.cold().read_to(id, offset, cut.next_offset, ahead);
                    return Ok(Some(cut.next_offset));
                }
                None if loaded.is_err() => return loaded.map(|()| None),
                None if end < size && first => want = want.saturating_mul(4),
                // Compaction left nothing from here to the end of the segment: the next batch is in what follows.
                None if end == size && source.has_holes() && ends_before(&rope, offset)? => {
                    return Ok(Some(source.end_offset()));
                }
                None => return Ok(None),
            }
        }
    }

    /// The sealed source that holds `offset`, or the first after it.
    pub(crate) async fn source_at(&self, sealed: &Sealed, offset: i64) -> Result<Option<Source>, Failure> {
        let at = sealed.leaves.partition_point(|leaf| leaf.end_offset <= offset);
        if let Some(leaf) = sealed.leaves.get(at) {
            let rows = self.cold().leaf_table(self, leaf).await?;
            let row = rows.partition_point(|row| row.segment.end_offset <= offset);
            if let Some(row) = rows.get(row) {
                return Ok(Some(Source::Segment(
                    self.cold().leaf_segment(self, leaf, row).await?,
                )));
            }
        }
        for list in [&sealed.folded, &sealed.added] {
            let at = list.partition_point(|segment| segment.end_offset <= offset);
            if let Some(segment) = list.get(at) {
                return Ok(Some(Source::Segment(Arc::clone(segment))));
            }
        }
        let at = sealed.spans.partition_point(|span| span.end_offset <= offset);
        Ok(sealed.spans.get(at).map(|span| Source::Span(Arc::clone(span))))
    }
}

/// Why a step of a read failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The object is gone: what it held is elsewhere by now, unless it is lost.
    Moved(ReadError),
    Error(ReadError),
}

impl Failure {
    pub(crate) fn of(error: StoreError) -> Self {
        let what = error.to_string();
        match error {
            error if is_bad_sector(&error) => Self::Error(ReadError::Corrupt { what }),
            StoreError::NotFound { .. } => Self::Moved(ReadError::Store(what)),
            // Shorter than it was written.
            StoreError::Invalid { .. } => Self::Error(ReadError::Corrupt { what }),
            _ => Self::Error(ReadError::Store(what)),
        }
    }

    /// The error of those who replace objects themselves: what is gone at `key` did not move, it is lost.
    pub(crate) fn lost(self, key: &str) -> ReadError {
        match self {
            Self::Moved(error) => ReadError::Corrupt {
                what: format!("{key}: {error}"),
            },
            Self::Error(error) => error,
        }
    }
}

/// Whether a store's failure says that an object is damaged or gone, and not that the store is in trouble.
pub(crate) fn is_lost(error: &StoreError) -> bool {
    is_bad_sector(error) || matches!(error, StoreError::NotFound { .. } | StoreError::Invalid { .. })
}

/// Linux' number of the error of a disk that cannot read.
const EIO: i32 = 5;

/// Whether a local disk cannot read what lies there. It says so each time it is asked, so that this is damage, and no
/// trouble of the store's. A directory's failures have the system's text alone; remote stores put theirs around it.
fn is_bad_sector(error: &StoreError) -> bool {
    let text = std::io::Error::from_raw_os_error(EIO).to_string();
    matches!(error, StoreError::Unavailable { what, .. } if *what == text)
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Moved(error) | Failure::Error(error) => error,
        }
    }
}

pub(crate) fn check_served(inner: &Inner) -> Result<(), ReadError> {
    match &inner.broken {
        None => Ok(()),
        Some(broken) => Err(ReadError::Unavailable {
            what: broken.what.clone(),
        }),
    }
}

fn check_range(inner: &Inner, offset: i64) -> Result<(), ReadError> {
    if inner.deleted {
        return Err(ReadError::Deleted);
    }
    check_served(inner)?;
    if offset < inner.log_start || offset > inner.high_watermark {
        return Err(ReadError::OffsetOutOfRange {
            offset,
            log_start: inner.log_start,
            high_watermark: inner.high_watermark,
        });
    }
    Ok(())
}

/// The first extent of a run whose bytes do not match its checksum.
fn damaged<'a>(run: &'a [Extent], bytes: &Bytes) -> Option<&'a Extent> {
    let origin = run.first()?.position;
    run.iter().find(|extent| {
        let start = (extent.position - origin) as usize;
        let found = bytes.get(start..start + extent.length as usize);
        found.is_none_or(|found| crc32c::crc32c(found) != extent.crc)
    })
}

/// Length of the whole batches at a rope's start.
pub(crate) fn whole_batches(rope: &Rope) -> Result<usize, ReadError> {
    let mut position = 0;
    while let Some(header) = rope.header(position) {
        let end = position + header?.size_in_bytes();
        if end > rope.len() {
            break;
        }
        position = end;
    }
    Ok(position)
}

impl Source {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Segment(segment) => segment.size,
            Self::Span(span) => span.length,
        }
    }

    pub(crate) fn end_offset(&self) -> i64 {
        match self {
            Self::Segment(segment) => segment.end_offset,
            Self::Span(span) => span.end_offset,
        }
    }

    /// The aborted transactions that it tells of.
    pub(crate) fn aborted(&self) -> &[AbortedTransaction] {
        match self {
            Self::Segment(segment) => &segment.detail.aborted,
            Self::Span(span) => &span.detail.aborted,
        }
    }

    /// Whether offsets may be missing from it.
    fn has_holes(&self) -> bool {
        matches!(self, Self::Segment(segment) if segment.cleaned)
    }

    fn position_of_offset(&self, offset: i64) -> u64 {
        match self {
            Self::Segment(segment) => segment.detail.position_of_offset(segment.base_offset, offset),
            Self::Span(span) => span.detail.position_of_offset(span.base_offset, offset),
        }
    }

    pub(crate) fn position_of_timestamp(&self, timestamp: i64) -> u64 {
        match self {
            Self::Segment(segment) => segment.detail.position_of_timestamp(timestamp),
            Self::Span(span) => span.detail.position_of_timestamp(timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_cannot_read_is_damaged_and_what_a_store_cannot_now_is_not() {
        let failed = |what: String| {
            let (operation, key) = ("get", "segment".to_owned());
            Failure::of(StoreError::Unavailable {
                operation,
                key,
                attempts: 3,
                what,
            })
        };
        let disk = std::io::Error::from_raw_os_error(EIO).to_string();
        let remote = format!("error sending request: {disk}");
        assert!(
            matches!(failed(disk), Failure::Error(ReadError::Corrupt { what }) if what.contains("segment"))
        );
        for other in [remote, "timed out".to_owned()] {
            assert!(matches!(failed(other), Failure::Error(ReadError::Store(_))));
        }
    }
}
