//! The records inside a batch, read one by one.
//!
//! ```text
//! length varint (of what follows)   attributes i8   timestamp_delta varlong   offset_delta varint
//! key_length varint, key            value_length varint, value               (a negative length is null)
//! headers varint, each: key_length varint, key, value_length varint, value
//! ```
//! [`RecordReader`] lends records out of its own window and copies nothing that is not compressed; [`records`] gives
//! records that own their bytes. Neither checks the batch's CRC, nor that offset deltas ascend: under
//! `record.validation=header` a log may hold what a lying client sent.

use bytes::Bytes;

use crate::error::{BatchError, Flaw};
use crate::header::{BatchHeader, TimestampType};
use crate::payload::Payload;
use crate::varint::{self, MAX_VARINT};

/// The shortest record: seven fields of one byte.
pub(crate) const MIN_RECORD: usize = 7;

/// Bounds on what one batch may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that decompression may yield for one batch; beyond, [`BatchError::TooLarge`].
    pub max_decompressed: u64,
    /// Bytes that one record of a compressed batch may have, its length field left out; beyond,
    /// [`Flaw::RecordTooLarge`]. A reader holds one record at a time, so this bounds its memory. Kafka's
    /// `max.decompressed.message.bytes` is the same bound at the same place.
    pub max_record: u64,
}

impl Limits {
    /// For walks, which hold no record: any number of bytes, and records as long as Kafka takes them, which is as long
    /// as Java makes arrays.
    pub const WALK: Limits = Limits {
        max_decompressed: u64::MAX,
        max_record: i32::MAX as u64 - 8,
    };

    /// For readers that hold one record at a time and end at some time: records of up to 128 MiB.
    pub const ONE_RECORD: Limits = Limits {
        max_decompressed: u64::MAX,
        max_record: 128 << 20,
    };

    /// Checks the length of a compressed record, before a byte of it is decompressed.
    pub(crate) fn check_record(&self, index: i32, length: usize) -> Result<(), BatchError> {
        let (length, max) = (length as u64, self.max_record);
        if length > max {
            return Err(Flaw::RecordTooLarge { index, length, max }.into());
        }
        Ok(())
    }
}

impl Default for Limits {
    /// 128 MiB: a batch of `max.message.bytes` (1 MiB) at a ratio that logs of real text do not reach.
    fn default() -> Limits {
        Limits {
            max_decompressed: 128 << 20,
            max_record: 128 << 20,
        }
    }
}

/// A record, borrowed from the reader that gave it.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Absolute offset.
    pub offset: i64,
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// In ms since the epoch: the batch's append time, or base timestamp plus delta.
    pub timestamp: i64,
    /// As stored.
    pub timestamp_delta: i64,
    /// Unused by Kafka so far.
    pub attributes: i8,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers, well-formed.
    pub headers: Headers<'a>,
    /// The whole record as stored, length and all.
    pub raw: &'a [u8],
    /// The part of `raw` from the key's length on.
    pub(crate) tail: &'a [u8],
}

/// A record's headers in order; yields key and value, `None` for null.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let key = take_field(&mut self.rest)??;
        let value = take_field(&mut self.rest)?;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Reads a length and so many bytes; outer `None` when they are not there, inner `None` for null.
fn take_field<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, used) = varint::read_i32(input)?;
    let rest = input.get(used..)?;
    let Ok(length) = usize::try_from(length) else {
        *input = rest;
        return Some(None);
    };
    let (field, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(Some(field))
}

/// Reads records of one batch, decompressing as it goes.
pub struct RecordReader<'a> {
    header: BatchHeader,
    payload: Payload<'a>,
    limits: Limits,
    next: i32,
    failed: bool,
}

impl<'a> RecordReader<'a> {
    /// A reader of the batch at the front of `batch`; bytes after it are left alone. Nothing is decompressed yet.
    pub fn new(batch: &'a [u8], limits: Limits) -> Result<RecordReader<'a>, BatchError> {
        let (header, batch) = BatchHeader::parse_whole(batch)?;
        if header.records_count < 0 {
            return Err(Flaw::Count {
                count: header.records_count,
                last_offset_delta: header.last_offset_delta,
            }
            .into());
        }
        let payload = Payload::new(&header, batch, limits)?;
        Ok(RecordReader {
            header,
            payload,
            limits,
            next: 0,
            failed: false,
        })
    }

    /// The batch's header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The next record; `None` after the last. After an error, `None` for ever.
    pub fn next_record(&mut self) -> Result<Option<RecordView<'_>>, BatchError> {
        if self.failed {
            return Ok(None);
        }
        // Until the record is known to be whole, a return is a failure.
        self.failed = true;
        let index = self.next;
        if index >= self.header.records_count {
            if self.payload.fill(1)? > 0 {
                return Err(Flaw::TrailingRecords.into());
            }
            return Ok(None);
        }
        let flaw = |what| BatchError::from(Flaw::Record { index, what });
        self.payload.fill(MAX_VARINT)?;
        let (length, used) = varint::read_i32(self.payload.available()).ok_or_else(|| flaw("length cut"))?;
        let size = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(used))
            .ok_or_else(|| flaw("negative length"))?;
        if matches!(self.payload, Payload::Packed(_)) {
            self.limits.check_record(index, size - used)?;
        }
        if self.payload.fill(size)? < size {
            return Err(flaw("longer than the batch"));
        }
        self.failed = false;
        self.next += 1;
        let header = &self.header;
        match parse(header, self.payload.take(size), used) {
            Some(view) => Ok(Some(view)),
            None => {
                self.failed = true;
                Err(flaw("malformed fields"))
            }
        }
    }
}

/// Parses `raw`, exactly one record, whose length field takes `used` bytes.
fn parse<'b>(header: &BatchHeader, raw: &'b [u8], used: usize) -> Option<RecordView<'b>> {
    let body = raw.get(used..)?;
    let (&attributes, body) = body.split_first()?;
    let (timestamp_delta, used) = varint::read_i64(body)?;
    let body = body.get(used..)?;
    let (offset_delta, used) = varint::read_i32(body)?;
    let tail = body.get(used..)?;
    let mut rest = tail;
    let key = take_field(&mut rest)?;
    let value = take_field(&mut rest)?;
    let (count, used) = varint::read_i32(rest)?;
    let headers = Headers {
        rest: rest.get(used..)?,
        left: usize::try_from(count).ok()?,
    };
    let mut rest = headers.rest;
    for _ in 0..headers.left {
        take_field(&mut rest)??;
        take_field(&mut rest)?;
    }
    if !rest.is_empty() {
        return None;
    }
    let timestamp = match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
    };
    Some(RecordView {
        offset: header.base_offset.wrapping_add(i64::from(offset_delta)),
        offset_delta,
        timestamp,
        timestamp_delta,
        attributes: attributes as i8,
        key,
        value,
        headers,
        raw,
        tail,
    })
}

/// A record that owns its bytes: one allocation holds key, value and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Absolute offset.
    pub offset: i64,
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// In ms since the epoch: the batch's append time, or base timestamp plus delta.
    pub timestamp: i64,
    /// As stored.
    pub timestamp_delta: i64,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
    /// Header keys and values, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl From<RecordView<'_>> for Record {
    fn from(view: RecordView<'_>) -> Record {
        let owned = Bytes::copy_from_slice(view.tail);
        let base = view.tail.as_ptr() as usize;
        let slice = |part: &[u8]| {
            let from = (part.as_ptr() as usize).wrapping_sub(base);
            match from.checked_add(part.len()) {
                Some(to) if to <= owned.len() => owned.slice(from..to),
                _ => Bytes::copy_from_slice(part),
            }
        };
        Record {
            offset: view.offset,
            offset_delta: view.offset_delta,
            timestamp: view.timestamp,
            timestamp_delta: view.timestamp_delta,
            key: view.key.map(slice),
            value: view.value.map(slice),
            headers: view
                .headers
                .map(|(key, value)| (slice(key), value.map(slice)))
                .collect(),
        }
    }
}

/// The records of the batch at the front of `batch`, each with its own bytes. Ends after the first error.
pub fn records(batch: &[u8], limits: Limits) -> Records<'_> {
    Records(Some(RecordReader::new(batch, limits)))
}

/// Iterator of [`records`].
pub struct Records<'a>(Option<Result<RecordReader<'a>, BatchError>>);

impl Iterator for Records<'_> {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.take()? {
            Err(error) => Some(Err(error)),
            Ok(mut reader) => {
                let item = reader
                    .next_record()
                    .map(|view| view.map(Record::from))
                    .transpose()?;
                if item.is_ok() {
                    self.0 = Some(Ok(reader));
                }
                Some(item)
            }
        }
    }
}
