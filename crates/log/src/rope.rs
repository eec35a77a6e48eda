//! Bytes in several pieces, walked batch by batch without joining them.

use bytes::Bytes;
use drumlin_records::BatchHeader;

use crate::read::ReadError;

/// A batch header's length: enough to learn a batch's size and offsets.
const HEADER_BYTES: usize = 61;

/// Consecutive bytes in several pieces.
#[derive(Debug, Default)]
pub(crate) struct Rope {
    parts: Vec<Bytes>,
    length: usize,
}

impl Rope {
    pub(crate) fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.length += part.len();
            self.parts.push(part);
        }
    }

    /// What `more` holds comes after what is here.
    pub(crate) fn append(&mut self, more: Rope) {
        self.length += more.length;
        self.parts.extend(more.parts);
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Copies up to `out.len()` bytes from `position`; returns how many there were.
    fn copy(&self, position: usize, out: &mut [u8]) -> usize {
        let (mut skip, mut filled) = (position, 0);
        for part in &self.parts {
            if skip >= part.len() {
                skip -= part.len();
                continue;
            }
            let count = (part.len() - skip).min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&part[skip..skip + count]);
            (skip, filled) = (0, filled + count);
            if filled == out.len() {
                break;
            }
        }
        filled
    }

    /// The header of the batch at `position`; none where less than a header is left.
    pub(crate) fn header(&self, position: usize) -> Option<Result<BatchHeader, ReadError>> {
        let mut head = [0u8; HEADER_BYTES];
        (self.copy(position, &mut head) == HEADER_BYTES).then(|| {
            BatchHeader::parse(&head).map_err(|error| ReadError::Corrupt {
                what: error.to_string(),
            })
        })
    }

    /// A range, without copying.
    pub(crate) fn slice(&self, mut from: usize, to: usize, out: &mut Vec<Bytes>) {
        let mut start = 0;
        for part in &self.parts {
            let end = start + part.len();
            if end > from && start < to {
                out.push(part.slice(from - start..to.min(end) - start));
                from = to.min(end);
            }
            start = end;
            if from >= to {
                break;
            }
        }
    }

    /// One range in one piece, copied only where it spans two.
    pub(crate) fn contiguous(&self, from: usize, to: usize) -> Bytes {
        let mut parts = Vec::new();
        self.slice(from, to, &mut parts);
        if parts.len() == 1 {
            parts.remove(0)
        } else {
            parts.concat().into()
        }
    }
}

/// Whole batches out of a rope.
pub(crate) struct Cut {
    pub from: usize,
    pub to: usize,
    /// The offset after the last batch taken.
    pub next_offset: i64,
}

/// Takes whole batches, from the one that holds `offset`, up to `max_bytes`; one at least if `at_least_one`.
/// None if there is no whole batch to take.
pub(crate) fn cut(
    rope: &Rope,
    start: usize,
    offset: i64,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<Option<Cut>, ReadError> {
    let mut position = start;
    let mut taken: Option<Cut> = None;
    while let Some(header) = rope.header(position) {
        let header = header?;
        let end = position + header.size_in_bytes();
        if end > rope.len() {
            break;
        }
        if header.last_offset() >= offset {
            let from = taken.as_ref().map_or(position, |cut| cut.from);
            if end - from > max_bytes && !(at_least_one && taken.is_none()) {
                break;
            }
            taken = Some(Cut {
                from,
                to: end,
                next_offset: header.last_offset() + 1,
            });
        }
        position = end;
    }
    Ok(taken)
}

/// Whether a rope holds whole batches only, all of which end before `offset`.
pub(crate) fn ends_before(rope: &Rope, offset: i64) -> Result<bool, ReadError> {
    let mut position = 0;
    while let Some(header) = rope.header(position) {
        let header = header?;
        if header.last_offset() >= offset {
            return Ok(false);
        }
        position += header.size_in_bytes();
    }
    Ok(position == rope.len())
}
