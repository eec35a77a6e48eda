//! Segments, bundle spans and manifests: what a partition's sealed data consists of, and its bytes.
//!
//! A manifest folds a partition's edits. Its root (frame `DRMF`) holds the newest segments whole and points to
//! immutable leaves (frame `DRML`) of up to 1,000 older ones. A leaf is a table of fixed-size rows and, behind it,
//! one block a segment with its checksums and sparse index, so that a reader takes the table and one block by
//! two ranged reads, however long the history is.

use std::sync::Arc;

use crate::codec::{Decoder, Encoder, FormatError};
use crate::layout;
use crate::types::TopicPartition;

const ROOT_MAGIC: [u8; 4] = *b"DRMF";
const LEAF_MAGIC: [u8; 4] = *b"DRML";
/// The oldest version, and the one that is written as long as nothing needs more.
const VERSION: u8 = 1;
/// Has flags for each segment; written only where one is set, so that what was never compacted stays readable by
/// releases that know no more.
const VERSION_FLAGS: u8 = 2;
/// Flag: compaction wrote the segment, so that offsets may be missing from it.
const FLAG_CLEANED: u8 = 1;

/// Sealed bytes are checksummed, read and cached by the block.
pub(crate) const BLOCK_BYTES: usize = 512 << 10;
/// One sparse index entry for each this many bytes.
pub(crate) const INDEX_INTERVAL: usize = 64 << 10;

/// A batch's place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// The batch's base offset less the segment's.
    pub offset_delta: u64,
    /// Where it starts in the segment, bytes.
    pub position: u64,
    /// The largest timestamp of the batches before it.
    pub max_timestamp_before: i64,
}

/// A transaction that was aborted in a segment; none are written until transactions exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
    pub last_offset: i64,
    pub last_stable_offset: i64,
}

/// A segment object: byte for byte a Kafka log segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub base_offset: i64,
    /// Exclusive: where the next one starts.
    pub end_offset: i64,
    pub size: u64,
    pub max_timestamp: i64,
    /// Unix milliseconds; retention falls back to it where records carry no timestamp.
    pub sealed_ms: i64,
    /// The writer's leader epoch and incarnation, and a random part: they make the name unique.
    pub epoch: i32,
    pub incarnation: u64,
    pub unique: u64,
    /// Compaction wrote it: offsets may be missing, and its batches may begin after `base_offset` and end before
    /// `end_offset`, which are those of what it replaced.
    pub cleaned: bool,
    pub crc: u32,
    pub detail: SegmentDetail,
}

/// The part of a segment's description that only its readers need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SegmentDetail {
    /// CRC32C of each block.
    pub block_crcs: Vec<u32>,
    pub index: Vec<IndexEntry>,
    pub aborted: Vec<AbortedTransaction>,
}

impl SegmentDetail {
    /// Memory of its lists, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.block_crcs.capacity() * size_of::<u32>()
            + self.index.capacity() * size_of::<IndexEntry>()
            + self.aborted.capacity() * size_of::<AbortedTransaction>()
    }
}

impl Segment {
    pub(crate) fn key(&self, id: &TopicPartition) -> String {
        layout::segment_key(id, self.base_offset, self.epoch, self.incarnation, self.unique)
    }
}

impl SegmentDetail {
    /// The indexed position at or before `offset`.
    pub(crate) fn position_of_offset(&self, base_offset: i64, offset: i64) -> u64 {
        let delta = u64::try_from(offset - base_offset).unwrap_or(0);
        let after = self.index.partition_point(|entry| entry.offset_delta <= delta);
        after.checked_sub(1).map_or(0, |at| self.index[at].position)
    }

    /// The indexed position at or before the first batch that may hold `timestamp` or a later one.
    pub(crate) fn position_of_timestamp(&self, timestamp: i64) -> u64 {
        let after = self
            .index
            .partition_point(|entry| entry.max_timestamp_before < timestamp);
        after.checked_sub(1).map_or(0, |at| self.index[at].position)
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.len(self.block_crcs.len());
        self.block_crcs.iter().for_each(|crc| out.u32(*crc));
        out.len(self.index.len());
        let mut before = IndexEntry {
            offset_delta: 0,
            position: 0,
            max_timestamp_before: 0,
        };
        for entry in &self.index {
            out.uvar(entry.offset_delta.wrapping_sub(before.offset_delta));
            out.uvar(entry.position.wrapping_sub(before.position));
            out.var(
                entry
                    .max_timestamp_before
                    .wrapping_sub(before.max_timestamp_before),
            );
            before = *entry;
        }
        out.len(self.aborted.len());
        for aborted in &self.aborted {
            out.var(aborted.producer_id);
            out.uvar(aborted.first_offset as u64);
            out.uvar(aborted.last_offset as u64);
            out.uvar(aborted.last_stable_offset as u64);
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let block_crcs = input.list(4, Decoder::u32)?;
        let mut before = IndexEntry {
            offset_delta: 0,
            position: 0,
            max_timestamp_before: 0,
        };
        let index = input.list(3, |input| {
            before = IndexEntry {
                offset_delta: before.offset_delta.wrapping_add(input.uvar()?),
                position: before.position.wrapping_add(input.uvar()?),
                max_timestamp_before: before.max_timestamp_before.wrapping_add(input.var()?),
            };
            Ok(before)
        })?;
        let aborted = input.list(4, |input| {
            Ok(AbortedTransaction {
                producer_id: input.var()?,
                first_offset: input.offset()?,
                last_offset: input.offset()?,
                last_stable_offset: input.offset()?,
            })
        })?;
        if index
            .windows(2)
            .any(|pair| pair[0].offset_delta > pair[1].offset_delta || pair[0].position > pair[1].position)
        {
            return Err(FormatError::Invalid("sparse index"));
        }
        Ok(Self {
            block_crcs,
            index,
            aborted,
        })
    }
}

/// The version that these segments need.
pub(crate) fn version_of<'a>(mut segments: impl Iterator<Item = &'a Segment>) -> u8 {
    if segments.any(|segment| segment.cleaned) {
        VERSION_FLAGS
    } else {
        VERSION
    }
}

impl Segment {
    /// `version` is 1, or 2 with flags.
    pub(crate) fn encode(&self, out: &mut Encoder, version: u8) {
        if version >= VERSION_FLAGS {
            out.u8(if self.cleaned { FLAG_CLEANED } else { 0 });
        }
        out.uvar(self.base_offset as u64);
        out.uvar((self.end_offset - self.base_offset) as u64);
        out.uvar(self.size);
        out.var(self.max_timestamp);
        out.var(self.sealed_ms);
        out.var(self.epoch.into());
        out.uvar(self.incarnation);
        out.uvar(self.unique);
        out.u32(self.crc);
        self.detail.encode(out);
    }

    pub(crate) fn decode(input: &mut Decoder<'_>, version: u8) -> Result<Self, FormatError> {
        Self::decode_unchecked(input, version)?.check()
    }

    /// In a leaf's table the details are empty and stand elsewhere.
    fn decode_unchecked(input: &mut Decoder<'_>, version: u8) -> Result<Self, FormatError> {
        let flags = if version >= VERSION_FLAGS { input.u8()? } else { 0 };
        if flags & !FLAG_CLEANED != 0 {
            return Err(FormatError::Invalid("segment's flags"));
        }
        let base_offset = input.offset()?;
        let end_offset = base_offset
            .checked_add(input.offset()?)
            .ok_or(FormatError::Invalid("offset"))?;
        Ok(Self {
            base_offset,
            end_offset,
            size: input.uvar()?,
            max_timestamp: input.var()?,
            sealed_ms: input.var()?,
            epoch: input.i32()?,
            incarnation: input.uvar()?,
            unique: input.uvar()?,
            cleaned: flags & FLAG_CLEANED != 0,
            crc: input.u32()?,
            detail: SegmentDetail::decode(input)?,
        })
    }

    fn check(self) -> Result<Self, FormatError> {
        if self.end_offset <= self.base_offset || self.size == 0 {
            return Err(FormatError::Invalid("segment"));
        }
        if self.detail.block_crcs.len() as u64 != self.size.div_ceil(BLOCK_BYTES as u64) {
            return Err(FormatError::Invalid("segment's block checksums"));
        }
        Ok(self)
    }
}

/// A run of one partition's batches inside a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// The bundle's key.
    pub bundle: Arc<str>,
    /// When the data was first sealed, Unix milliseconds; merging keeps the oldest.
    pub sealed_ms: i64,
    pub base_offset: i64,
    /// Exclusive.
    pub end_offset: i64,
    /// Where it starts in the bundle, bytes.
    pub position: u64,
    pub length: u64,
    pub max_timestamp: i64,
    /// Blocks and index entries are counted from `position`.
    pub detail: SegmentDetail,
}

/// A leaf, as the root knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeafPointer {
    pub key: Arc<str>,
    pub base_offset: i64,
    pub end_offset: i64,
    pub max_timestamp: i64,
    pub bytes: u64,
    pub segments: u32,
    /// The table's length, so that it is read by one exact range.
    pub table_length: u64,
    pub length: u64,
}

/// A manifest root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ManifestRoot {
    pub leaves: Vec<LeafPointer>,
    pub segments: Vec<Segment>,
}

pub(crate) fn encode_root(root: &ManifestRoot) -> Vec<u8> {
    let version = version_of(root.segments.iter());
    let mut out = Encoder::framed(ROOT_MAGIC, version);
    out.len(root.leaves.len());
    for leaf in &root.leaves {
        out.str(&leaf.key);
        out.uvar(leaf.base_offset as u64);
        out.uvar(leaf.end_offset as u64);
        out.var(leaf.max_timestamp);
        out.uvar(leaf.bytes);
        out.uvar(leaf.segments.into());
        out.uvar(leaf.table_length);
        out.uvar(leaf.length);
    }
    out.len(root.segments.len());
    root.segments
        .iter()
        .for_each(|segment| segment.encode(&mut out, version));
    out.finish()
}

pub(crate) fn decode_root(bytes: &[u8]) -> Result<ManifestRoot, FormatError> {
    let (version, mut input) = Decoder::framed(bytes, ROOT_MAGIC, "manifest", VERSION_FLAGS)?;
    let leaves = input.list(8, |input| {
        Ok(LeafPointer {
            key: input.str()?.into(),
            base_offset: input.offset()?,
            end_offset: input.offset()?,
            max_timestamp: input.var()?,
            bytes: input.uvar()?,
            segments: u32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("count"))?,
            table_length: input.uvar()?,
            length: input.uvar()?,
        })
    })?;
    let segments = input.list(16, |input| Segment::decode(input, version))?;
    input.finish()?;
    Ok(ManifestRoot { leaves, segments })
}

/// A row of a leaf's table: a segment without its detail, and where the detail stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeafRow {
    pub segment: Segment,
    pub detail_position: u64,
    pub detail_length: u64,
}

/// Encodes a leaf; returns its bytes and the length of its table.
pub(crate) fn encode_leaf(segments: &[Segment]) -> (Vec<u8>, u64) {
    let details: Vec<Vec<u8>> = segments
        .iter()
        .map(|segment| {
            let mut out = Encoder::framed(LEAF_MAGIC, VERSION);
            segment.detail.encode(&mut out);
            out.finish()
        })
        .collect();
    let version = version_of(segments.iter());
    let mut table = Encoder::framed(LEAF_MAGIC, version);
    table.len(segments.len());
    let mut position = 0u64;
    for (segment, detail) in segments.iter().zip(&details) {
        let bare = Segment {
            detail: SegmentDetail::default(),
            ..segment.clone()
        };
        bare.encode(&mut table, version);
        table.uvar(position);
        table.uvar(detail.len() as u64);
        position += detail.len() as u64;
    }
    let mut bytes = table.finish();
    let table_length = bytes.len() as u64;
    details.iter().for_each(|detail| bytes.extend_from_slice(detail));
    (bytes, table_length)
}

/// Decodes a leaf's table; positions become absolute in the object.
pub(crate) fn decode_leaf_table(bytes: &[u8]) -> Result<Vec<LeafRow>, FormatError> {
    let (version, mut input) = Decoder::framed(bytes, LEAF_MAGIC, "manifest leaf", VERSION_FLAGS)?;
    let table_length = bytes.len() as u64;
    let rows = input.list(16, |input| {
        let segment = Segment::decode_unchecked(input, version)?;
        let detail_position = table_length
            .checked_add(input.uvar()?)
            .ok_or(FormatError::Invalid("position"))?;
        Ok(LeafRow {
            segment,
            detail_position,
            detail_length: input.uvar()?,
        })
    })?;
    input.finish()?;
    Ok(rows)
}

/// Decodes a whole leaf.
pub(crate) fn decode_leaf(bytes: &[u8], table_length: u64) -> Result<Vec<Segment>, FormatError> {
    let table = usize::try_from(table_length)
        .ok()
        .and_then(|length| bytes.get(..length));
    let rows = decode_leaf_table(table.ok_or(FormatError::Short)?)?;
    let segments = rows.into_iter().map(|row| {
        let start = usize::try_from(row.detail_position).map_err(|_| FormatError::Short)?;
        let length = usize::try_from(row.detail_length).map_err(|_| FormatError::Short)?;
        let end = start.checked_add(length).ok_or(FormatError::Short)?;
        let detail = decode_leaf_detail(bytes.get(start..end).ok_or(FormatError::Short)?)?;
        Ok(Segment {
            detail,
            ..row.segment
        })
    });
    segments.collect()
}

/// Decodes one segment's detail out of a leaf.
pub(crate) fn decode_leaf_detail(bytes: &[u8]) -> Result<SegmentDetail, FormatError> {
    let (_, mut input) = Decoder::framed(bytes, LEAF_MAGIC, "manifest leaf", VERSION)?;
    let detail = SegmentDetail::decode(&mut input)?;
    input.finish()?;
    Ok(detail)
}

pub(crate) fn encode_span(out: &mut Encoder, bundle: usize, span: &Span) {
    out.len(bundle);
    out.var(span.sealed_ms);
    out.uvar(span.base_offset as u64);
    out.uvar((span.end_offset - span.base_offset) as u64);
    out.uvar(span.position);
    out.uvar(span.length);
    out.var(span.max_timestamp);
    span.detail.encode(out);
}

pub(crate) fn decode_span(input: &mut Decoder<'_>, keys: &[Arc<str>]) -> Result<Span, FormatError> {
    let bundle = usize::try_from(input.uvar()?)
        .ok()
        .and_then(|index| keys.get(index));
    let bundle = bundle.ok_or(FormatError::Invalid("key index"))?.clone();
    let sealed_ms = input.var()?;
    let base_offset = input.offset()?;
    let end_offset = base_offset
        .checked_add(input.offset()?)
        .ok_or(FormatError::Invalid("offset"))?;
    let span = Span {
        bundle,
        sealed_ms,
        base_offset,
        end_offset,
        position: input.uvar()?,
        length: input.uvar()?,
        max_timestamp: input.var()?,
        detail: SegmentDetail::decode(input)?,
    };
    let fits = span.position.checked_add(span.length).is_some();
    if !fits || span.detail.block_crcs.len() as u64 != span.length.div_ceil(BLOCK_BYTES as u64) {
        return Err(FormatError::Invalid("bundle span"));
    }
    Ok(span)
}

#[cfg(test)]
pub(crate) mod tests;
