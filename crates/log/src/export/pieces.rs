//! A partition's data in order, and its bytes, verified.

use bytes::Bytes;
use drumlin_objects::chain::entry_key;
use drumlin_objects::{Bucket, Reason, StoreError};

use super::ExportError;
use crate::check::names::{ManifestError, read_leaf, read_roots};
use crate::manifest::{BLOCK_BYTES, Segment, SegmentDetail, Span};
use crate::state::{PartitionState, StoredExtent};
use crate::types::TopicPartition;

/// Sealed data is read by this much.
const STRETCH: u64 = 16 * BLOCK_BYTES as u64;

/// An object was deleted since the state was read: what it held is elsewhere, unless it is lost.
#[derive(Debug)]
pub(super) struct Moved(pub StoreError);

/// Some of a partition's data in one object.
pub(super) enum Piece {
    Segment(Segment),
    Span(Span),
    /// Back to back in one WAL object.
    Extents(Vec<StoredExtent>),
}

impl Piece {
    /// Whether compaction wrote it, so that offsets may be missing.
    pub(super) fn holes(&self) -> bool {
        matches!(self, Self::Segment(segment) if segment.cleaned)
    }

    /// The offset after it.
    pub(super) fn end_offset(&self) -> i64 {
        match self {
            Self::Segment(segment) => segment.end_offset,
            Self::Span(span) => span.end_offset,
            Self::Extents(extents) => extents.last().map_or(0, |extent| extent.last_offset + 1),
        }
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Segment(segment) => segment.size,
            Self::Span(span) => span.length,
            Self::Extents(extents) => extents.iter().map(|extent| extent.length).sum(),
        }
    }
}

fn failed(id: TopicPartition, error: ManifestError) -> Result<Moved, ExportError> {
    match error {
        ManifestError::Store(_, error) if error.is_not_found() => Ok(Moved(error)),
        ManifestError::Store(_, error) => Err(error.into()),
        ManifestError::Damaged(key, what) => Err(ExportError::Damaged {
            id,
            what: format!("{key}: {what}"),
        }),
        ManifestError::Disagrees(key, what) => Err(ExportError::Damaged {
            id,
            what: format!("{key}: {what}"),
        }),
    }
}

/// Data from `from` on, in order.
pub(super) async fn pieces(
    bucket: &Bucket,
    state: &PartitionState,
    from: i64,
) -> Result<Result<Vec<Piece>, Moved>, ExportError> {
    let roots = match read_roots(bucket, state).await {
        Ok(roots) => roots,
        Err(error) => return failed(state.id, error).map(Err),
    };
    let mut pieces = Vec::new();
    for leaf in roots.leaves.iter().filter(|leaf| leaf.end_offset > from) {
        match read_leaf(bucket, leaf).await {
            Ok(segments) => pieces.extend(segments.into_iter().map(Piece::Segment)),
            Err(error) => return failed(state.id, error).map(Err),
        }
    }
    pieces.extend(roots.segments.into_iter().map(Piece::Segment));
    pieces.extend(state.spans.iter().cloned().map(Piece::Span));
    pieces.retain(|piece| match piece {
        Piece::Segment(segment) => segment.end_offset > from,
        Piece::Span(span) => span.end_offset > from,
        Piece::Extents(_) => true,
    });
    let mut run: Vec<StoredExtent> = Vec::new();
    for extent in state.extents.iter().filter(|extent| extent.last_offset >= from) {
        let joins = run.last().is_some_and(|last| {
            last.chain == extent.chain
                && last.slot == extent.slot
                && last.position + last.length == extent.position
                && extent.position + extent.length - run[0].position <= STRETCH
        });
        if !joins && !run.is_empty() {
            pieces.push(Piece::Extents(std::mem::take(&mut run)));
        }
        run.push(extent.clone());
    }
    if !run.is_empty() {
        pieces.push(Piece::Extents(run));
    }
    Ok(Ok(pieces))
}

/// A stretch of a piece that starts at `at`, which is 0 or the end of another stretch. Verified.
pub(super) async fn read(
    bucket: &Bucket,
    id: TopicPartition,
    piece: &Piece,
    at: u64,
) -> Result<Result<Bytes, Moved>, ExportError> {
    let end = piece.length().min(at + STRETCH);
    let (key, range) = match piece {
        Piece::Segment(segment) => (segment.key(&id), at..end),
        Piece::Span(span) => (span.bundle.to_string(), span.position + at..span.position + end),
        Piece::Extents(run) => {
            let (first, length) = (&run[0], piece.length());
            let key = entry_key(&first.chain, first.slot);
            (key, first.position..first.position + length)
        }
    };
    let bytes = match bucket.get_range(&key, range, Reason::Check).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Err(Moved(error))),
        Err(error) => return Err(error.into()),
    };
    let whole = match piece {
        Piece::Segment(segment) => blocks_match(&segment.detail, at, &bytes),
        Piece::Span(span) => blocks_match(&span.detail, at, &bytes),
        Piece::Extents(run) => extents_match(run, &bytes),
    };
    if whole {
        Ok(Ok(bytes))
    } else {
        Err(ExportError::Damaged {
            id,
            what: format!("{key} does not match its checksums"),
        })
    }
}

fn blocks_match(detail: &SegmentDetail, at: u64, bytes: &Bytes) -> bool {
    let first = usize::try_from(at).unwrap_or(usize::MAX) / BLOCK_BYTES;
    let mut blocks = bytes.chunks(BLOCK_BYTES).enumerate();
    blocks.all(|(block, bytes)| detail.block_crcs.get(first + block) == Some(&crc32c::crc32c(bytes)))
}

fn extents_match(run: &[StoredExtent], bytes: &Bytes) -> bool {
    let mut rest: &[u8] = bytes;
    run.iter().all(|extent| {
        let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
        let Some((head, tail)) = rest.split_at_checked(length) else {
            return false;
        };
        rest = tail;
        crc32c::crc32c(head) == extent.crc
    })
}
