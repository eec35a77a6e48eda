//! The footer of a WAL object and the body of an edit entry.
//!
//! A WAL object is a chain entry of kind `Data`: header, batches of many partitions back to back, footer.
//! The footer says per extent all that a new leader needs, so that takeover reads no record data.
//!
//! Footer, version 1 (varints unless said; `z` is zig-zag): frame `DWFT`; topics: count, 16 bytes each;
//! extents: count, each `topic index · partition · z leader epoch · base offset · last − base · position in
//! the object · length · z max timestamp · CRC32C (4 bytes) · batches · producers: count, each z producer id ·
//! z epoch · z first sequence · z last sequence · base − extent base · last − base · z timestamp · flags`.

use bytes::Bytes;

use crate::codec::{Decoder, Encoder, FormatError};
use crate::types::{TopicId, TopicPartition};

const FOOTER_MAGIC: [u8; 4] = *b"DWFT";
const FOOTER_VERSION: u8 = 1;
const EDITS_MAGIC: [u8; 4] = *b"DWED";
const EDITS_VERSION: u8 = 1;

/// One batch of an idempotent or transactional producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    pub producer_id: i64,
    pub epoch: i16,
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
    pub timestamp: i64,
    /// Bit 0: part of a transaction; bit 1: a control batch, a transaction's end. None are written yet.
    pub flags: u8,
}

/// A run of batches of one partition inside a WAL object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtentRecord {
    pub id: TopicPartition,
    pub leader_epoch: i32,
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub position: u64,
    pub length: u64,
    pub max_timestamp: i64,
    pub crc: u32,
    pub batches: u32,
    pub producers: Vec<ProducerBatch>,
}

/// Encodes a footer.
pub(crate) fn encode_footer<'a>(extents: impl ExactSizeIterator<Item = &'a ExtentRecord> + Clone) -> Vec<u8> {
    let mut topics: Vec<TopicId> = extents.clone().map(|extent| extent.id.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut out = Encoder::framed(FOOTER_MAGIC, FOOTER_VERSION);
    out.len(topics.len());
    topics.iter().for_each(|topic| out.raw(&topic.0));
    out.len(extents.len());
    for extent in extents {
        let index = topics
            .binary_search(&extent.id.topic)
            .expect("every extent's topic was just listed");
        out.len(index);
        out.uvar(extent.id.partition as u64);
        out.var(extent.leader_epoch.into());
        out.uvar(extent.base_offset as u64);
        out.uvar((extent.last_offset - extent.base_offset) as u64);
        out.uvar(extent.position);
        out.uvar(extent.length);
        out.var(extent.max_timestamp);
        out.u32(extent.crc);
        out.uvar(extent.batches.into());
        out.len(extent.producers.len());
        for batch in &extent.producers {
            encode_producer_batch(&mut out, batch, extent.base_offset);
        }
    }
    out.finish()
}

pub(crate) fn encode_producer_batch(out: &mut Encoder, batch: &ProducerBatch, origin: i64) {
    out.var(batch.producer_id);
    out.var(batch.epoch.into());
    out.var(batch.first_sequence.into());
    out.var(batch.last_sequence.into());
    out.var(batch.base_offset - origin);
    out.uvar((batch.last_offset - batch.base_offset) as u64);
    out.var(batch.timestamp);
    out.u8(batch.flags);
}

pub(crate) fn decode_producer_batch(
    input: &mut Decoder<'_>,
    origin: i64,
) -> Result<ProducerBatch, FormatError> {
    let producer_id = input.var()?;
    let epoch = input.i16()?;
    let first_sequence = input.i32()?;
    let last_sequence = input.i32()?;
    let base_offset = origin
        .checked_add(input.var()?)
        .ok_or(FormatError::Invalid("offset"))?;
    let last_offset = base_offset
        .checked_add(input.offset()?)
        .ok_or(FormatError::Invalid("offset"))?;
    Ok(ProducerBatch {
        producer_id,
        epoch,
        first_sequence,
        last_sequence,
        base_offset,
        last_offset,
        timestamp: input.var()?,
        flags: input.u8()?,
    })
}

/// Decodes a footer.
pub(crate) fn decode_footer(bytes: &[u8]) -> Result<Vec<ExtentRecord>, FormatError> {
    let (_, mut input) = Decoder::framed(bytes, FOOTER_MAGIC, "WAL footer", FOOTER_VERSION)?;
    let topics = input.list(16, |input| Ok(TopicId(input.array()?)))?;
    let extents = input.list(13, |input| {
        let index = usize::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("topic index"))?;
        let topic = *topics.get(index).ok_or(FormatError::Invalid("topic index"))?;
        let partition = i32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("partition"))?;
        let leader_epoch = input.i32()?;
        let base_offset = input.offset()?;
        let last_offset = base_offset
            .checked_add(input.offset()?)
            .ok_or(FormatError::Invalid("offset"))?;
        let position = input.uvar()?;
        let length = input.uvar()?;
        position
            .checked_add(length)
            .ok_or(FormatError::Invalid("position"))?;
        let max_timestamp = input.var()?;
        let crc = input.u32()?;
        let batches = u32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("batches"))?;
        let producers = input.list(8, |input| decode_producer_batch(input, base_offset))?;
        Ok(ExtentRecord {
            id: TopicPartition { topic, partition },
            leader_epoch,
            base_offset,
            last_offset,
            position,
            length,
            max_timestamp,
            crc,
            batches,
            producers,
        })
    })?;
    input.finish()?;
    Ok(extents)
}

/// A change to what a partition consists of (N1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// The log starts here now: by DeleteRecords or retention. Never goes back.
    LogStart { id: TopicPartition, offset: i64 },
}

/// Encodes the body of an edit entry: frame `DWED`; count, each `kind (1 = log start) · topic (16) · partition · offset`.
pub(crate) fn encode_edits(edits: &[Edit]) -> Vec<u8> {
    let mut out = Encoder::framed(EDITS_MAGIC, EDITS_VERSION);
    out.len(edits.len());
    for edit in edits {
        match edit {
            Edit::LogStart { id, offset } => {
                out.u8(1);
                out.raw(&id.topic.0);
                out.uvar(id.partition as u64);
                out.uvar(*offset as u64);
            }
        }
    }
    out.finish()
}

/// Decodes the body of an edit entry.
pub(crate) fn decode_edits(bytes: &Bytes) -> Result<Vec<Edit>, FormatError> {
    let (_, mut input) = Decoder::framed(bytes, EDITS_MAGIC, "edit entry", EDITS_VERSION)?;
    let edits = input.list(19, |input| match input.u8()? {
        1 => {
            let topic = TopicId(input.array()?);
            let partition = i32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("partition"))?;
            Ok(Edit::LogStart {
                id: TopicPartition { topic, partition },
                offset: input.offset()?,
            })
        }
        _ => Err(FormatError::Invalid("edit kind")),
    })?;
    input.finish()?;
    Ok(edits)
}

#[cfg(test)]
pub(crate) mod tests;
