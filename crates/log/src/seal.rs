//! Building sealed objects: batches in, a segment's or a span's description and bytes out.

use std::sync::Arc;

use bytes::Bytes;
use drumlin_objects::sabotage::{self, Sabotage};
use drumlin_objects::{Reason, TaskKind};

use crate::codec::Decoder;
use crate::codec::{Encoder, FormatError};
use crate::log::Log;
use crate::manifest::{BLOCK_BYTES, INDEX_INTERVAL, IndexEntry, SegmentDetail, Span};
use crate::object::Extent;
use crate::read::ReadError;
use crate::rope::Rope;
use crate::types::{TopicId, TopicPartition};

const BUNDLE_MAGIC: [u8; 4] = *b"DRBN";
const BUNDLE_VERSION: u8 = 1;

/// Data that is to be sealed, in order of offsets.
#[derive(Clone)]
pub(crate) enum Piece {
    Span(Arc<Span>),
    Extent(Extent),
}

impl Piece {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Span(span) => span.length,
            Self::Extent(extent) => extent.length.into(),
        }
    }

    pub(crate) fn extent(&self) -> Option<&Extent> {
        match self {
            Self::Span(_) => None,
            Self::Extent(extent) => Some(extent),
        }
    }

    /// Since when it has waited in a bundle, Unix milliseconds.
    pub(crate) fn sealed_ms(&self) -> Option<i64> {
        match self {
            Self::Span(span) => Some(span.sealed_ms),
            Self::Extent(_) => None,
        }
    }
}

/// Describes bytes as they are put one after the other.
pub(crate) struct Builder {
    pub parts: Vec<Bytes>,
    pub size: u64,
    pub base_offset: i64,
    pub end_offset: i64,
    pub max_timestamp: i64,
    pub crc: u32,
    pub detail: SegmentDetail,
    indexed: u64,
    block_crc: u32,
    block_filled: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            parts: Vec::new(),
            size: 0,
            base_offset: -1,
            end_offset: -1,
            max_timestamp: -1,
            crc: 0,
            detail: SegmentDetail::default(),
            indexed: 0,
            block_crc: 0,
            block_filled: 0,
        }
    }

    /// Takes whole batches.
    pub(crate) fn push(&mut self, rope: &Rope) -> Result<(), ReadError> {
        let mut at = 0;
        while at < rope.len() {
            let header = rope.header(at).ok_or_else(|| ReadError::Corrupt {
                what: "a batch is cut short".to_owned(),
            })??;
            let position = self.size + at as u64;
            if self.base_offset < 0 {
                self.base_offset = header.base_offset;
            }
            if self.detail.index.is_empty() || position - self.indexed >= INDEX_INTERVAL as u64 {
                self.detail.index.push(IndexEntry {
                    offset_delta: (header.base_offset - self.base_offset) as u64,
                    position,
                    max_timestamp_before: self.max_timestamp,
                });
                self.indexed = position;
            }
            self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
            self.end_offset = header.last_offset() + 1;
            at += header.size_in_bytes();
        }
        if at != rope.len() {
            return Err(ReadError::Corrupt {
                what: "a batch is cut short".to_owned(),
            });
        }
        let mut parts = Vec::new();
        rope.slice(0, rope.len(), &mut parts);
        for part in parts {
            self.checksum(&part);
            self.size += part.len() as u64;
            self.parts.push(part);
        }
        Ok(())
    }

    fn checksum(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block_filled));
            self.block_crc = crc32c::crc32c_append(self.block_crc, head);
            self.block_filled += head.len();
            if self.block_filled == BLOCK_BYTES {
                self.end_block();
            }
            bytes = tail;
        }
    }

    fn end_block(&mut self) {
        self.crc = crc32c::crc32c_combine(self.crc, self.block_crc, self.block_filled);
        self.detail.block_crcs.push(self.block_crc);
        (self.block_crc, self.block_filled) = (0, 0);
    }

    /// Ends the last block.
    pub(crate) fn finish(&mut self) {
        if self.block_filled > 0 {
            self.end_block();
        }
    }
}

impl Log {
    /// Puts a finished object's parts.
    pub(crate) async fn put_parts(&self, key: &str, parts: Vec<Bytes>, why: Reason) -> Result<(), ReadError> {
        if sabotage::on(Sabotage::NameBeforeDurable) {
            let (bucket, key) = (self.bucket().clone(), key.to_owned());
            let late = async move {
                tokio::time::sleep(std::time::Duration::from_millis(400)).await;
                bucket.put(&key, parts, why).await
            };
            self.bucket().env().spawn(TaskKind::Test, late);
            return Ok(());
        }
        let put = self.bucket().put(key, parts, why).await;
        put.map_err(|error| ReadError::Store(error.to_string()))
    }
}

/// One row of the table at a bundle's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleRow {
    pub id: TopicPartition,
    pub base_offset: i64,
    pub end_offset: i64,
    pub position: u64,
    pub length: u64,
    pub crc: u32,
}

/// The end of a bundle: the table (frame `DRBN`), then its length (4 bytes). Readers need it only to check.
pub(crate) fn encode_bundle_table(rows: &[BundleRow]) -> Vec<u8> {
    let mut out = Encoder::framed(BUNDLE_MAGIC, BUNDLE_VERSION);
    out.len(rows.len());
    for row in rows {
        out.raw(&row.id.topic.0);
        out.uvar(row.id.partition as u64);
        out.uvar(row.base_offset as u64);
        out.uvar((row.end_offset - row.base_offset) as u64);
        out.uvar(row.position);
        out.uvar(row.length);
        out.u32(row.crc);
    }
    let mut bytes = out.finish();
    let length = bytes.len() as u32;
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

/// Reads the table out of a whole bundle.
pub(crate) fn decode_bundle_table(bundle: &[u8]) -> Result<Vec<BundleRow>, FormatError> {
    let (rest, length) = bundle.split_last_chunk::<4>().ok_or(FormatError::Short)?;
    let length = u32::from_be_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).ok_or(FormatError::Short)?;
    let (_, mut input) = Decoder::framed(&rest[start..], BUNDLE_MAGIC, "bundle", BUNDLE_VERSION)?;
    let rows = input.list(25, |input| {
        let topic = TopicId(input.array()?);
        let partition = i32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("partition"))?;
        let base_offset = input.offset()?;
        let end_offset = base_offset
            .checked_add(input.offset()?)
            .ok_or(FormatError::Invalid("offset"))?;
        let (position, length) = (input.uvar()?, input.uvar()?);
        let crc = input.u32()?;
        if position.checked_add(length).is_none_or(|end| end > start as u64) {
            return Err(FormatError::Invalid("position"));
        }
        Ok(BundleRow {
            id: TopicPartition { topic, partition },
            base_offset,
            end_offset,
            position,
            length,
            crc,
        })
    })?;
    input.finish()?;
    Ok(rows)
}

#[cfg(test)]
mod tests;
