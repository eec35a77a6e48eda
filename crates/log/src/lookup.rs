//! Lookups by time: a timestamp to the offset of a record.
//!
//! What an object or a batch says of its greatest timestamp leads to it, the records decide. A batch that cannot be
//! decoded holds no record that anybody could read: lookups go past it, and say so once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use drumlin_records::{OffsetAndTime, find_first_since, find_newest};

use crate::log::Log;
use crate::manifest::{BLOCK_BYTES, LeafPointer};
use crate::object::Extent;
use crate::partition::{Inner, Partition, Sealed};
use crate::read::{ATTEMPTS, Failure, ReadError, Source, TimestampOffset, check_served, whole_batches};
use crate::rope::Rope;

/// Where a greatest timestamp may be found.
enum Piece {
    Leaf(Arc<LeafPointer>),
    Source(Source),
    Hot(Extent),
}

/// Pieces by what they say of their greatest timestamp, those of one timestamp by offset.
#[derive(Default)]
struct Candidates {
    pieces: Vec<Piece>,
    order: BinaryHeap<(i64, Reverse<i64>, usize)>,
}

impl Candidates {
    fn push(&mut self, max_timestamp: i64, base_offset: i64, piece: Piece) {
        self.order
            .push((max_timestamp, Reverse(base_offset), self.pieces.len()));
        self.pieces.push(piece);
    }

    fn push_source(&mut self, source: Source) {
        let (max_timestamp, base_offset) = match &source {
            Source::Segment(segment) => (segment.max_timestamp, segment.base_offset),
            Source::Span(span) => (span.max_timestamp, span.base_offset),
        };
        self.push(max_timestamp, base_offset, Piece::Source(source));
    }

    fn of(inner: &Inner) -> Self {
        let mut all = Self::default();
        let (sealed, log_start) = (&inner.sealed, inner.log_start);
        for leaf in sealed.leaves.iter().filter(|leaf| leaf.end_offset > log_start) {
            all.push(
                leaf.max_timestamp,
                leaf.base_offset,
                Piece::Leaf(Arc::clone(leaf)),
            );
        }
        for source in sources(sealed).filter(|source| source.end_offset() > log_start) {
            all.push_source(source);
        }
        for extent in inner.hot.iter().filter(|extent| extent.last_offset >= log_start) {
            all.push(
                extent.max_timestamp,
                extent.base_offset,
                Piece::Hot(extent.clone()),
            );
        }
        all
    }

    /// The one that says the most; none if no other can say more than `found`, or as much at a lower offset.
    fn next(&mut self, found: Option<OffsetAndTime>) -> Option<(i64, Piece)> {
        let (max_timestamp, _, at) = self.order.pop()?;
        if max_timestamp < 0 || found.is_some_and(|found| max_timestamp < found.timestamp) {
            return None;
        }
        let piece = match &self.pieces[at] {
            Piece::Leaf(leaf) => Piece::Leaf(Arc::clone(leaf)),
            Piece::Source(source) => Piece::Source(source.clone()),
            Piece::Hot(extent) => Piece::Hot(extent.clone()),
        };
        Some((max_timestamp, piece))
    }
}

/// Sealed pieces that are not in leaves.
fn sources(sealed: &Sealed) -> impl Iterator<Item = Source> {
    let segments = sealed
        .segments()
        .map(|segment| Source::Segment(Arc::clone(segment)));
    segments.chain(sealed.spans.iter().map(|span| Source::Span(Arc::clone(span))))
}

impl Log {
    /// The first record at or after the log start whose timestamp is `timestamp` or later; committed records only.
    ///
    /// # Errors
    /// [`ReadError`] where the store or its data fail.
    pub async fn offset_for_timestamp(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.find_timestamp(partition, timestamp).await {
                Ok(found) => return Ok(found.map(|found| with_epoch(partition, found))),
                Err(Failure::Moved(error)) => last = Some(error),
                Err(Failure::Error(error)) => return Err(error),
            }
        }
        Err(last.unwrap_or(ReadError::Deleted))
    }

    /// The first record that carries the largest timestamp of those at or after the log start.
    ///
    /// # Errors
    /// As [`Log::offset_for_timestamp`].
    pub async fn max_timestamp(
        &self,
        partition: &Arc<Partition>,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.find_max_timestamp(partition).await {
                Ok(found) => return Ok(found.map(|found| with_epoch(partition, found))),
                Err(Failure::Moved(error)) => last = Some(error),
                Err(Failure::Error(error)) => return Err(error),
            }
        }
        Err(last.unwrap_or(ReadError::Deleted))
    }

    async fn find_max_timestamp(&self, partition: &Arc<Partition>) -> Result<Option<OffsetAndTime>, Failure> {
        let (mut candidates, log_start) = {
            let inner = partition.lock();
            if inner.deleted {
                return Err(Failure::Error(ReadError::Deleted));
            }
            check_served(&inner)?;
            (Candidates::of(&inner), inner.log_start)
        };
        let mut found: Option<OffsetAndTime> = None;
        while let Some((claimed, piece)) = candidates.next(found) {
            let newest = match piece {
                Piece::Leaf(leaf) => {
                    let rows = self.cold().leaf_table(self, &leaf).await?;
                    for row in rows.iter().filter(|row| row.segment.end_offset > log_start) {
                        let segment = self.cold().leaf_segment(self, &leaf, row).await?;
                        candidates.push_source(Source::Segment(segment));
                    }
                    continue;
                }
                Piece::Hot(extent) => {
                    let rope = self.load_extent(&extent).await?;
                    self.search(partition, rope, Wanted::newest(log_start)).await?
                }
                // The index leads to a record that is as new as the piece says. If there is none, because it was deleted
                // or because a batch's header says what its records do not, all of the piece is gone through.
                Piece::Source(source) => {
                    let wanted = Wanted::since(claimed, log_start);
                    match self.search_source(partition, &source, wanted).await? {
                        Some(found) => Some(found),
                        None => {
                            self.search_source(partition, &source, Wanted::newest(log_start))
                                .await?
                        }
                    }
                }
            };
            found = newer(found, newest);
        }
        Ok(found)
    }

    async fn find_timestamp(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
    ) -> Result<Option<OffsetAndTime>, Failure> {
        let (sealed, hot, log_start) = {
            let inner = partition.lock();
            if inner.deleted {
                return Err(Failure::Error(ReadError::Deleted));
            }
            check_served(&inner)?;
            let hot: Vec<Extent> = inner
                .hot
                .iter()
                .filter(|extent| extent.max_timestamp >= timestamp)
                .cloned()
                .collect();
            (Arc::clone(&inner.sealed), hot, inner.log_start)
        };
        let wanted = Wanted::since(timestamp, log_start);
        for leaf in sealed
            .leaves
            .iter()
            .filter(|leaf| leaf.max_timestamp >= timestamp)
        {
            let rows = self.cold().leaf_table(self, leaf).await?;
            for row in rows.iter().filter(|row| row.segment.max_timestamp >= timestamp) {
                let segment = self.cold().leaf_segment(self, leaf, row).await?;
                let source = Source::Segment(segment);
                if let Some(found) = self.search_source(partition, &source, wanted).await? {
                    return Ok(Some(found));
                }
            }
        }
        let newer = |source: &Source| match source {
            Source::Segment(segment) => segment.max_timestamp >= timestamp,
            Source::Span(span) => span.max_timestamp >= timestamp,
        };
        for source in sources(&sealed).filter(newer) {
            if let Some(found) = self.search_source(partition, &source, wanted).await? {
                return Ok(Some(found));
            }
        }
        for extent in hot {
            let rope = self.load_extent(&extent).await?;
            if let Some(found) = self.search(partition, rope, wanted).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn search_source(
        &self,
        partition: &Arc<Partition>,
        source: &Source,
        wanted: Wanted,
    ) -> Result<Option<OffsetAndTime>, Failure> {
        if source.end_offset() <= wanted.from_offset {
            return Ok(None);
        }
        let size = source.size();
        let mut position = wanted
            .since
            .map_or(0, |timestamp| source.position_of_timestamp(timestamp));
        let mut want = BLOCK_BYTES as u64;
        let mut best = None;
        while position < size {
            let end = size.min(position + want);
            let id = partition.id();
            let rope = self
                .cold()
                .load(self, &id, source, position..end, crate::cold::NO_READ_AHEAD)
                .await?;
            let whole = whole_batches(&rope)?;
            if whole == 0 {
                if end == size {
                    break;
                }
                want *= 4;
                continue;
            }
            best = newer(best, self.search(partition, rope, wanted).await?);
            if best.is_some() && wanted.since.is_some() {
                break;
            }
            position += whole as u64;
        }
        Ok(best)
    }

    /// Looks through the whole batches of a rope. What is compressed may take long, and is looked into on a thread of
    /// its own.
    async fn search(
        &self,
        partition: &Arc<Partition>,
        rope: Rope,
        wanted: Wanted,
    ) -> Result<Option<OffsetAndTime>, Failure> {
        let partition = Arc::clone(partition);
        let env = &self.shared().wal.env;
        let found = env.blocking(move || wanted.search(&partition, &rope)).await;
        Ok(found?)
    }
}

fn with_epoch(partition: &Partition, found: OffsetAndTime) -> TimestampOffset {
    TimestampOffset {
        offset: found.offset,
        timestamp: found.timestamp,
        leader_epoch: partition.epoch_at(found.offset),
    }
}

/// The newer of two, the first of two that are equally new.
fn newer(a: Option<OffsetAndTime>, b: Option<OffsetAndTime>) -> Option<OffsetAndTime> {
    let rank = |found: &OffsetAndTime| (found.timestamp, Reverse(found.offset));
    a.into_iter().chain(b).max_by_key(rank)
}

/// What a lookup looks for, in order of offsets.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The first record that is as new as this; none: the newest of all.
    since: Option<i64>,
    from_offset: i64,
}

impl Wanted {
    fn since(timestamp: i64, from_offset: i64) -> Self {
        Self {
            since: Some(timestamp),
            from_offset,
        }
    }

    fn newest(from_offset: i64) -> Self {
        Self {
            since: None,
            from_offset,
        }
    }

    fn search(self, partition: &Partition, rope: &Rope) -> Result<Option<OffsetAndTime>, ReadError> {
        let (mut position, mut best) = (0, None::<OffsetAndTime>);
        while let Some(header) = rope.header(position) {
            let header = header?;
            let end = position + header.size_in_bytes();
            if end > rope.len() {
                break;
            }
            let claimed = header.max_timestamp;
            let promises = match self.since {
                Some(timestamp) => claimed >= timestamp,
                None => best.is_none_or(|best| claimed > best.timestamp),
            };
            if promises && header.last_offset() >= self.from_offset && !header.is_control() {
                let batch = rope.contiguous(position, end);
                let found = match self.since {
                    Some(timestamp) => find_first_since(&batch, timestamp, self.from_offset),
                    None => find_newest(&batch, self.from_offset),
                };
                match found {
                    Ok(found) => best = newer(best, found),
                    Err(error) => partition.note_undecodable(header.base_offset, &error),
                }
                if best.is_some() && self.since.is_some() {
                    break;
                }
            }
            position = end;
        }
        Ok(best)
    }
}
