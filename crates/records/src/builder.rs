//! Making batches: for load generators and tests, for the coordinators' own records, and transaction markers.

use std::io::Write;

use bytes::{Bytes, BytesMut};

use crate::codec::{Compression, Encoder};
use crate::error::{BatchError, Flaw};
use crate::header::{
    APPEND_TIME_BIT, BatchHeader, CONTROL_BIT, HEADER_LEN, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
    NO_TIMESTAMP, TRANSACTIONAL_BIT, TimestampType,
};
use crate::record::{Limits, RecordReader, RecordView};
use crate::varint;

/// A header to write: key and value, `None` for null.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Gathers records and makes one batch of them.
///
/// Without further calls: base offset 0, leader epoch -1, CreateTime, no producer, as a plain client sends it.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    header: BatchHeader,
    codec: Compression,
    level: Option<i32>,
    records: Vec<u8>,
    body: Vec<u8>,
    next_delta: i32,
}

impl BatchBuilder {
    /// An empty batch in the given codec.
    pub fn new(codec: Compression) -> BatchBuilder {
        BatchBuilder {
            header: BatchHeader {
                base_offset: 0,
                batch_length: 0,
                partition_leader_epoch: -1,
                magic: 2,
                crc: 0,
                attributes: codec.id(),
                last_offset_delta: -1,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                base_sequence: NO_SEQUENCE,
                records_count: 0,
            },
            codec,
            level: None,
            records: Vec::new(),
            body: Vec::new(),
            next_delta: 0,
        }
    }

    /// The codec's level; clamped to what it knows, without effect for lz4 and snappy.
    pub fn level(mut self, level: i32) -> BatchBuilder {
        self.level = Some(level);
        self
    }

    /// The first record's offset.
    pub fn base_offset(mut self, offset: i64) -> BatchBuilder {
        self.header.base_offset = offset;
        self
    }

    /// The leader epoch.
    pub fn leader_epoch(mut self, epoch: i32) -> BatchBuilder {
        self.header.partition_leader_epoch = epoch;
        self
    }

    /// Makes it an idempotent producer's batch.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> BatchBuilder {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes it part of a transaction; goes with [`BatchBuilder::producer`].
    pub fn transactional(mut self) -> BatchBuilder {
        self.header.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// Makes it a control batch.
    pub fn control(mut self) -> BatchBuilder {
        self.header.attributes |= CONTROL_BIT;
        self
    }

    /// Makes it a LogAppendTime batch of that time, whatever the records say.
    pub fn append_time(mut self, now_ms: i64) -> BatchBuilder {
        self.header.attributes |= APPEND_TIME_BIT;
        self.header.max_timestamp = now_ms;
        self
    }

    /// Adds a record at the next offset.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> &mut BatchBuilder {
        self.push_at(self.next_delta, timestamp, key, value, headers)
    }

    /// Adds a record at an offset delta of its own, such as after compaction. Deltas ought to ascend; nothing checks it,
    /// so that tests can make what clients get wrong.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> &mut BatchBuilder {
        if self.header.records_count == 0 {
            self.header.base_timestamp = timestamp;
        }
        if self.header.timestamp_type() == TimestampType::CreateTime {
            self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        }
        self.body.clear();
        self.body.push(0);
        varint::write(&mut self.body, timestamp.wrapping_sub(self.header.base_timestamp));
        varint::write(&mut self.body, i64::from(offset_delta));
        write_field(&mut self.body, key);
        write_field(&mut self.body, value);
        varint::write(&mut self.body, headers.len() as i64);
        for (key, value) in headers {
            write_field(&mut self.body, Some(key));
            write_field(&mut self.body, *value);
        }
        varint::write(&mut self.records, self.body.len() as i64);
        self.records.extend_from_slice(&self.body);
        self.header.records_count = self.header.records_count.saturating_add(1);
        self.header.last_offset_delta = self.header.last_offset_delta.max(offset_delta);
        self.next_delta = offset_delta.wrapping_add(1);
        self
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.header.records_count as usize
    }

    /// Without records so far.
    pub fn is_empty(&self) -> bool {
        self.header.records_count == 0
    }

    /// The batch's size so far, before compression.
    pub fn uncompressed_size(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// Compresses and seals the batch. A batch without records, or of 2 GiB, is refused.
    pub fn build(&self) -> Result<Bytes, BatchError> {
        if self.is_empty() {
            return Err(Flaw::NoRecords.into());
        }
        // Lengths inside are 31 bits too, however well the whole compresses.
        if i32::try_from(self.uncompressed_size()).is_err() {
            return Err(Flaw::Overflow.into());
        }
        let mut out = BatchWriter::new(self.codec, self.level)?;
        out.write(&self.records)?;
        Ok(out.finish(self.header)?.freeze())
    }
}

fn write_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::write(out, -1),
        Some(field) => {
            varint::write(out, field.len() as i64);
            out.extend_from_slice(field);
        }
    }
}

/// Writes records, as they are stored, into a new batch: what the builder and the rewrites share.
pub(crate) struct BatchWriter {
    codec: Compression,
    encoder: Encoder,
    scratch: Vec<u8>,
}

impl BatchWriter {
    pub(crate) fn new(codec: Compression, level: Option<i32>) -> Result<BatchWriter, BatchError> {
        let encoder =
            Encoder::new(codec, level, BytesMut::zeroed(HEADER_LEN)).map_err(|_| Flaw::Payload(codec))?;
        Ok(BatchWriter {
            codec,
            encoder,
            scratch: Vec::new(),
        })
    }

    pub(crate) fn write(&mut self, records: &[u8]) -> Result<(), BatchError> {
        self.encoder
            .write_all(records)
            .map_err(|_| Flaw::Payload(self.codec).into())
    }

    /// Writes a record with another timestamp delta.
    pub(crate) fn write_shifted(&mut self, record: &RecordView<'_>, delta: i64) -> Result<(), BatchError> {
        let mut body = Vec::with_capacity(record.raw.len() + varint::MAX_VARLONG);
        body.push(record.attributes as u8);
        varint::write(&mut body, delta);
        varint::write(&mut body, i64::from(record.offset_delta));
        body.extend_from_slice(record.tail);
        self.scratch.clear();
        varint::write(&mut self.scratch, body.len() as i64);
        let length = std::mem::take(&mut self.scratch);
        self.write(&length)?;
        self.scratch = length;
        self.write(&body)
    }

    /// Ends the batch under `header`, whose codec bits, length and CRC are filled in.
    pub(crate) fn finish(self, mut header: BatchHeader) -> Result<BytesMut, BatchError> {
        use crate::header::CODEC_MASK;
        let mut out = self.encoder.finish().map_err(|_| Flaw::Payload(self.codec))?;
        header.attributes = (header.attributes & !CODEC_MASK) | self.codec.id();
        header.seal(&mut out)?;
        Ok(out)
    }
}

/// How a transaction ended, as its marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndMarker {
    /// Control record type 0.
    Abort,
    /// Control record type 1.
    Commit,
}

/// A transaction marker: a control batch of one record, key `version 0, type`, value `version 0, coordinator epoch`.
pub fn end_marker_batch(
    marker: EndMarker,
    producer_id: i64,
    producer_epoch: i16,
    coordinator_epoch: i32,
    now_ms: i64,
) -> Result<Bytes, BatchError> {
    let mut key = [0u8; 4];
    key[3] = match marker {
        EndMarker::Abort => 0,
        EndMarker::Commit => 1,
    };
    let mut value = [0u8; 6];
    value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
    BatchBuilder::new(Compression::None)
        .producer(producer_id, producer_epoch, NO_SEQUENCE)
        .transactional()
        .control()
        .push(now_ms, Some(&key), Some(&value), &[])
        .build()
}

/// The marker in a control batch and its coordinator epoch. `None` for a control batch of another type, which readers
/// skip, and for one that the cleaner emptied.
pub fn end_marker(batch: &[u8]) -> Result<Option<(EndMarker, i32)>, BatchError> {
    let mut reader = RecordReader::new(batch, Limits::default())?;
    if !reader.header().is_control() {
        return Err(Flaw::Marker.into());
    }
    let Some(record) = reader.next_record()? else {
        return Ok(None);
    };
    // Later versions may be longer; the fields known here stay in front.
    let marker = match record.key {
        Some([_, _, 0, 0, ..]) => EndMarker::Abort,
        Some([_, _, 0, 1, ..]) => EndMarker::Commit,
        Some([_, _, _, _, ..]) => return Ok(None),
        _ => return Err(Flaw::Marker.into()),
    };
    match record.value {
        Some([_, _, a, b, c, d, ..]) => Ok(Some((marker, i32::from_be_bytes([*a, *b, *c, *d])))),
        _ => Err(Flaw::Marker.into()),
    }
}
