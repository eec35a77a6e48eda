//! What a pass reads: sealed pieces in order of offsets, by verified stretches.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use drumlin_objects::Reason;

use crate::cold::Object;
use crate::log::Log;
use crate::manifest::{BLOCK_BYTES, LeafPointer, LeafRow, Segment, Span};
use crate::partition::Sealed;
use crate::read::{Failure, ReadError, Source};
use crate::types::TopicPartition;

/// A pass reads by this much.
const STRETCH: u64 = 8 * BLOCK_BYTES as u64;

/// Where a piece is described.
#[derive(Debug, Clone)]
enum Place {
    Row(Arc<LeafPointer>, Box<LeafRow>),
    Segment(Arc<Segment>),
    Span(Arc<Span>),
}

/// A sealed piece of a partition: a segment, or a span of a bundle.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub base_offset: i64,
    /// Exclusive.
    pub end_offset: i64,
    pub size: u64,
    pub sealed_ms: i64,
    place: Place,
}

/// Which piece a replacement takes the place of, whatever was sealed, folded or dropped around it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// A segment, by its key.
    Segment(String),
    Span {
        bundle: Arc<str>,
        position: u64,
    },
}

impl Replaced {
    pub(crate) fn segment(id: &TopicPartition, segment: &Segment) -> Self {
        Self::Segment(segment.key(id))
    }

    pub(crate) fn span(span: &Span) -> Self {
        Self::Span {
            bundle: Arc::clone(&span.bundle),
            position: span.position,
        }
    }
}

impl Input {
    fn row(leaf: &Arc<LeafPointer>, row: &LeafRow) -> Self {
        Self {
            place: Place::Row(Arc::clone(leaf), Box::new(row.clone())),
            ..Self::segment(&Arc::new(row.segment.clone()))
        }
    }

    fn segment(segment: &Arc<Segment>) -> Self {
        Self {
            base_offset: segment.base_offset,
            end_offset: segment.end_offset,
            size: segment.size,
            sealed_ms: segment.sealed_ms,
            place: Place::Segment(Arc::clone(segment)),
        }
    }

    fn span(span: &Arc<Span>) -> Self {
        Self {
            base_offset: span.base_offset,
            end_offset: span.end_offset,
            size: span.length,
            sealed_ms: span.sealed_ms,
            place: Place::Span(Arc::clone(span)),
        }
    }

    pub(crate) fn is_segment(&self) -> bool {
        !matches!(self.place, Place::Span(_))
    }

    pub(crate) fn replaced(&self, id: &TopicPartition) -> Replaced {
        match &self.place {
            Place::Row(_, row) => Replaced::segment(id, &row.segment),
            Place::Segment(segment) => Replaced::segment(id, segment),
            Place::Span(span) => Replaced::span(span),
        }
    }

    /// The piece with its checksums.
    pub(crate) async fn source(&self, log: &Log) -> Result<Source, Failure> {
        Ok(match &self.place {
            Place::Row(leaf, row) => Source::Segment(log.cold().leaf_segment(log, leaf, row).await?),
            Place::Segment(segment) => Source::Segment(Arc::clone(segment)),
            Place::Span(span) => Source::Span(Arc::clone(span)),
        })
    }
}

/// All sealed pieces that reach above the log start.
pub(crate) async fn inputs(log: &Log, sealed: &Sealed, log_start: i64) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for leaf in &sealed.leaves {
        let table = log.cold().leaf_table(log, leaf).await?;
        inputs.extend(table.iter().map(|row| Input::row(leaf, row)));
    }
    inputs.extend(sealed.segments().map(Input::segment));
    inputs.extend(sealed.spans.iter().map(Input::span));
    inputs.retain(|input| input.end_offset > log_start);
    Ok(inputs)
}

/// Reads a piece from its start to its end, past the cache: a pass is a backfill, and would evict what readers need.
pub(crate) struct Stretches<'a> {
    log: &'a Log,
    id: TopicPartition,
    source: &'a Source,
    at: u64,
}

impl<'a> Stretches<'a> {
    pub(crate) fn new(log: &'a Log, id: TopicPartition, source: &'a Source) -> Self {
        Self {
            log,
            id,
            source,
            at: 0,
        }
    }

    /// The next stretch, verified; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let object = Object::of(&self.id, self.source);
        let end = object.length.min(self.at + STRETCH);
        if self.at >= end {
            return Ok(None);
        }
        let range: Range<u64> = object.position + self.at..object.position + end;
        let read = self
            .log
            .bucket()
            .get_range(&object.key, range, Reason::Compaction)
            .await;
        let bytes = read.map_err(Failure::of)?;
        let first = usize::try_from(self.at).unwrap_or(usize::MAX) / BLOCK_BYTES;
        for (block, part) in bytes.chunks(BLOCK_BYTES).enumerate() {
            if object.detail.block_crcs.get(first + block) != Some(&crc32c::crc32c(part)) {
                let at = object.position + ((first + block) * BLOCK_BYTES) as u64;
                return Err(Failure::Error(ReadError::Corrupt {
                    what: format!("{} at byte {at}", object.key),
                }));
            }
        }
        self.at = end;
        Ok(Some(bytes))
    }
}
