//! The batch header: parsing, writing, the fields that a broker patches in place, and walking a run of batches.
//!
//! ```text
//!  0 base_offset i64        8 batch_length i32 (bytes after this field)   12 partition_leader_epoch i32
//! 16 magic i8              17 crc u32 (CRC32C of byte 21 to the end)      21 attributes i16
//! 23 last_offset_delta i32 27 base_timestamp i64   35 max_timestamp i64   43 producer_id i64
//! 51 producer_epoch i16    53 base_sequence i32    57 records_count i32   61 records
//! ```
//! Attributes: bits 0–2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon (`base_timestamp` then
//! holds it, KIP-534). Base offset and leader epoch are outside the CRC, so a broker assigns them for free.

use crate::codec::Compression;
use crate::crc;
use crate::error::{BatchError, Corruption};

/// Length of the header, and of the shortest batch.
pub const HEADER_LEN: usize = 61;
/// `base_offset` and `batch_length`, which `batch_length` does not count.
pub(crate) const LENGTH_PREFIX: usize = 12;
/// Where the bytes under the CRC begin.
pub(crate) const CRC_FROM: usize = 21;
/// `producer_id` of a producer that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// `producer_epoch` of a producer that is not idempotent.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// `base_sequence` of a batch that has none.
pub const NO_SEQUENCE: i32 = -1;
/// A timestamp that was not set.
pub const NO_TIMESTAMP: i64 = -1;

pub(crate) const CODEC_MASK: i16 = 0x07;
pub(crate) const APPEND_TIME_BIT: i16 = 0x08;
pub(crate) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(crate) const CONTROL_BIT: i16 = 0x20;
pub(crate) const HORIZON_BIT: i16 = 0x40;

/// Whose clock a batch's timestamps come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer's; each record has its own.
    #[default]
    CreateTime,
    /// The broker's; every record has `max_timestamp`.
    LogAppendTime,
}

/// The 61 bytes in front of a batch's records, in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; 0 from a client.
    pub base_offset: i64,
    /// Bytes after this field: the batch's size less 12.
    pub batch_length: i32,
    /// Epoch of the leader that appended it.
    pub partition_leader_epoch: i32,
    /// Format, always 2.
    pub magic: i8,
    /// CRC32C from the attributes to the end.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: i16,
    /// Last offset less base offset. Compaction keeps it when it removes records.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas are relative to: the first record's, or the delete horizon.
    pub base_timestamp: i64,
    /// Greatest timestamp in the batch, or the append time.
    pub max_timestamp: i64,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Records in the batch; fewer than offsets after compaction.
    pub records_count: i32,
}

#[inline]
fn be<const N: usize>(input: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&input[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header at the front of `input`, which may be longer or hold no more than the header.
    ///
    /// Only what is needed to walk on is checked: 61 bytes, magic 2, a length that a header fits in. The records and the
    /// CRC are not looked at.
    pub fn parse(input: &[u8]) -> Result<BatchHeader, BatchError> {
        // Formats 0 and 1 have shorter headers with the magic at the same place: say so before asking for 61 bytes.
        if let Some(&magic) = input.get(16)
            && magic != 2
        {
            return Err(BatchError::UnsupportedFormat { magic: magic as i8 });
        }
        let Some(raw) = input.first_chunk::<HEADER_LEN>() else {
            return Err(Corruption::Truncated {
                have: input.len(),
                need: HEADER_LEN,
            }
            .into());
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(be(raw, 0)),
            batch_length: i32::from_be_bytes(be(raw, 8)),
            partition_leader_epoch: i32::from_be_bytes(be(raw, 12)),
            magic: raw[16] as i8,
            crc: u32::from_be_bytes(be(raw, 17)),
            attributes: i16::from_be_bytes(be(raw, 21)),
            last_offset_delta: i32::from_be_bytes(be(raw, 23)),
            base_timestamp: i64::from_be_bytes(be(raw, 27)),
            max_timestamp: i64::from_be_bytes(be(raw, 35)),
            producer_id: i64::from_be_bytes(be(raw, 43)),
            producer_epoch: i16::from_be_bytes(be(raw, 51)),
            base_sequence: i32::from_be_bytes(be(raw, 53)),
            records_count: i32::from_be_bytes(be(raw, 57)),
        };
        // The whole batch, prefix included, must have a size that fits an i32.
        if header.batch_length < (HEADER_LEN - LENGTH_PREFIX) as i32
            || header.batch_length > i32::MAX - LENGTH_PREFIX as i32
        {
            return Err(Corruption::Length(header.batch_length).into());
        }
        Ok(header)
    }

    /// The header and exactly the bytes of its batch; what follows is left out.
    pub(crate) fn parse_whole(input: &[u8]) -> Result<(BatchHeader, &[u8]), BatchError> {
        let header = BatchHeader::parse(input)?;
        let need = header.size_in_bytes();
        match input.get(..need) {
            Some(batch) => Ok((header, batch)),
            None => Err(Corruption::Truncated {
                have: input.len(),
                need,
            }
            .into()),
        }
    }

    /// Writes all fields to the first 61 bytes of `out`.
    pub(crate) fn write(&self, out: &mut [u8; HEADER_LEN]) {
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.records_count.to_be_bytes());
    }

    /// Completes a batch whose records stand behind 61 bytes left free: length, header, CRC.
    pub(crate) fn seal(mut self, buf: &mut [u8]) -> Result<BatchHeader, BatchError> {
        use crate::error::Flaw;
        let size = buf.len();
        self.batch_length = i32::try_from(size)
            .ok()
            .and_then(|size| size.checked_sub(LENGTH_PREFIX as i32))
            .ok_or(Flaw::Overflow)?;
        let front = buf.first_chunk_mut::<HEADER_LEN>().ok_or(Flaw::Overflow)?;
        self.write(front);
        self.crc = crc32c::crc32c(&buf[CRC_FROM..]);
        buf[17..21].copy_from_slice(&self.crc.to_be_bytes());
        Ok(self)
    }

    /// The codec of the records; an error for the three numbers that have none.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let codec = self.attributes & CODEC_MASK;
        Compression::from_id(codec).ok_or(BatchError::UnsupportedCompression { codec })
    }

    /// The attributes that it would have in another codec.
    pub fn attributes_in(&self, codec: Compression) -> i16 {
        (self.attributes & !CODEC_MASK) | codec.id()
    }

    /// Whose clock the timestamps come from.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & APPEND_TIME_BIT != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Holds a marker (commit, abort, …) and no client's records.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// The cleaner has set when the batch's tombstones or marker may go.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & HORIZON_BIT != 0
    }

    /// When its tombstones or marker may go, in ms since the epoch.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Written by an idempotent or transactional producer.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }

    /// Offset of the last record, or of where it stood before compaction.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the last record; sequences wrap from 2^31-1 to 0. -1 without a base sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        self.base_sequence.wrapping_add(self.last_offset_delta) & i32::MAX
    }

    /// Size of the whole batch, header and all.
    pub fn size_in_bytes(&self) -> usize {
        LENGTH_PREFIX + usize::try_from(self.batch_length).unwrap_or(0)
    }
}

/// Assigns offsets and leader epoch in place. The CRC stays right: neither is under it.
///
/// `buf` begins with a batch; a buffer shorter than a header is left as it is.
pub fn patch_offset_and_epoch(buf: &mut [u8], base_offset: i64, epoch: i32) {
    if let Some(front) = buf.first_chunk_mut::<HEADER_LEN>() {
        front[0..8].copy_from_slice(&base_offset.to_be_bytes());
        front[12..16].copy_from_slice(&epoch.to_be_bytes());
    }
}

/// Makes a batch a LogAppendTime one: sets the attribute bit and `max_timestamp`, and keeps the CRC right.
///
/// `buf` begins with a batch that was validated; a buffer that holds none is left as it is.
pub fn patch_append_time(buf: &mut [u8], now_ms: i64) {
    patch_under_crc(buf, |header| {
        header[1] |= APPEND_TIME_BIT as u8;
        header[14..22].copy_from_slice(&now_ms.to_be_bytes());
    });
}

/// Sets the attributes and `max_timestamp` to those of `header` where they differ, and keeps the CRC right: what
/// [`crate::validate`] has found out of a batch is written into the copy that is stored.
///
/// `buf` begins with a batch that was validated; a buffer that holds none is left as it is.
pub fn patch_attributes_and_max_timestamp(buf: &mut [u8], header: &BatchHeader) {
    let attributes = header.attributes.to_be_bytes();
    let max_timestamp = header.max_timestamp.to_be_bytes();
    let same = |at: usize, wanted: &[u8]| buf.get(at..at + wanted.len()).is_none_or(|found| found == wanted);
    if same(21, &attributes) && same(35, &max_timestamp) {
        return;
    }
    patch_under_crc(buf, |header| {
        header[0..2].copy_from_slice(&attributes);
        header[14..22].copy_from_slice(&max_timestamp);
    });
}

/// Changes the part of the header that is under the CRC, and the CRC with it. The records are not read: a CRC of as many
/// bytes differs by what the changed bits alone come to, however long the records are. A CRC that was wrong stays wrong.
fn patch_under_crc(buf: &mut [u8], change: impl FnOnce(&mut [u8; HEADER_LEN - CRC_FROM])) {
    let Ok((header, batch)) = BatchHeader::parse_whole(buf) else {
        return;
    };
    let behind = batch.len() - HEADER_LEN;
    let Some(front) = buf.first_chunk_mut::<HEADER_LEN>() else {
        return;
    };
    let mut new = [0; HEADER_LEN - CRC_FROM];
    new.copy_from_slice(&front[CRC_FROM..]);
    change(&mut new);
    let mut difference = new;
    for (difference, old) in difference.iter_mut().zip(&front[CRC_FROM..]) {
        *difference ^= old;
    }
    front[CRC_FROM..].copy_from_slice(&new);
    let crc = header.crc ^ crc::difference(&difference, behind);
    front[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Walks the headers of a run of whole batches, such as an extent: position and header of each.
///
/// Ends after the last batch, or after the first error; a batch that is cut at the end is an error. CRCs are not checked.
pub fn iter_batches(input: &[u8]) -> Batches<'_> {
    Batches { input, position: 0 }
}

/// Iterator of [`iter_batches`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    input: &'a [u8],
    position: usize,
}

impl Iterator for Batches<'_> {
    type Item = Result<(usize, BatchHeader), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.input.get(self.position..).filter(|rest| !rest.is_empty())?;
        let position = self.position;
        match BatchHeader::parse_whole(rest) {
            Ok((header, batch)) => {
                self.position += batch.len();
                Some(Ok((position, header)))
            }
            Err(error) => {
                self.position = self.input.len();
                Some(Err(error))
            }
        }
    }
}
