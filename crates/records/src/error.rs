//! Why a batch is refused. One variant of [`BatchError`] for each Kafka error code, so that the broker's table from
//! error to code is one exhaustive match; the detail inside is for operators and for `record_errors`.

use crate::codec::Compression;

/// A refused batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes are not those that were written: `CORRUPT_MESSAGE`. Clients retry on this.
    #[error("corrupt record batch: {0}")]
    Corrupt(#[from] Corruption),
    /// The bytes are intact and make no valid batch: `INVALID_RECORD`. Clients do not retry.
    #[error("invalid record batch: {0}")]
    Invalid(#[from] Flaw),
    /// Single records are at fault: `INVALID_RECORD` with `record_errors`.
    #[error("{} in {} record(s), the first at index {}", fault, indexes.len(), indexes.first().copied().unwrap_or(0))]
    InvalidRecords {
        /// What is wrong with each of them.
        fault: RecordFault,
        /// Their positions in the batch, ascending; at most [`RecordFault::MAX_LISTED`] of them.
        indexes: Vec<i32>,
    },
    /// `INVALID_TIMESTAMP`.
    #[error("timestamp {timestamp} is outside the accepted range {earliest} to {latest}")]
    InvalidTimestamp {
        /// The timestamp at fault, in ms since the epoch.
        timestamp: i64,
        /// The first that would have been accepted.
        earliest: i64,
        /// The last that would have been accepted.
        latest: i64,
    },
    /// A producer set the bit that only a broker may set: `INVALID_TIMESTAMP`.
    #[error("a producer may not set the timestamp type to LogAppendTime")]
    InvalidTimestampType,
    /// The batch, or what it decompresses to, is above the limit: `MESSAGE_TOO_LARGE`. The Java producer answers this
    /// by splitting the batch.
    #[error("record batch of {size} bytes is above the limit of {max}")]
    TooLarge {
        /// The size found; for a decompressed size, where decompression stopped.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// `UNSUPPORTED_COMPRESSION_TYPE`.
    #[error("compression codec {codec} is unknown or not allowed in this request version")]
    UnsupportedCompression {
        /// The codec number, the low three bits of the attributes.
        codec: i16,
    },
    /// A message set of format 0 or 1, or something that is no batch at all: `INVALID_RECORD`, as Kafka answers it from
    /// Produce 3 on.
    #[error("message format {magic} is not supported, only format 2")]
    UnsupportedFormat {
        /// The magic byte.
        magic: i8,
    },
}

/// Damage that a checksum or a length shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// The buffer ends before the batch does.
    #[error("{have} bytes where {need} are needed")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes that the header needs or announces.
        need: usize,
    },
    /// `batch_length` is below what a header takes, or beyond what fits in 31 bits.
    #[error("impossible batch length {0}")]
    Length(i32),
    /// CRC32C over attributes to end differs from the header's.
    #[error("CRC32C is {computed:#010x}, the header says {stored:#010x}")]
    Crc {
        /// As stored in the header.
        stored: u32,
        /// As computed.
        computed: u32,
    },
}

/// A well-formed frame whose content breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A produce partition without a batch.
    #[error("no batch")]
    Empty,
    /// More than one batch, or bytes after the only one.
    #[error("{0} bytes follow the only batch that is allowed")]
    Trailing(usize),
    /// Clients write base offset 0.
    #[error("base offset {0} from a client, 0 is expected")]
    BaseOffset(i64),
    /// `records_count` must be at least 1 and `last_offset_delta + 1`.
    #[error("records count {count} does not fit last offset delta {last_offset_delta}")]
    Count {
        /// `records_count`.
        count: i32,
        /// `last_offset_delta`.
        last_offset_delta: i32,
    },
    /// More records than could stand in that many bytes in that codec.
    #[error("{count} records cannot stand in {bytes} bytes of {codec}")]
    TooManyRecords {
        /// `records_count`.
        count: i32,
        /// Bytes after the header.
        bytes: usize,
        /// The codec they are in.
        codec: Compression,
    },
    /// A control batch from a client.
    #[error("clients may not write control batches")]
    Control,
    /// Attribute bits that only the cleaner sets or that nobody has defined.
    #[error("attributes {0:#06x} have reserved bits set")]
    ReservedAttributes(i16),
    /// Producer id, epoch, sequence and the transactional bit contradict each other.
    #[error(
        "producer id {id}, epoch {epoch}, base sequence {sequence}, transactional {transactional} do not go together"
    )]
    Producer {
        /// `producer_id`.
        id: i64,
        /// `producer_epoch`.
        epoch: i16,
        /// `base_sequence`.
        sequence: i32,
        /// The transactional bit.
        transactional: bool,
    },
    /// The payload is no valid stream of its codec.
    #[error("payload is no valid {0} stream")]
    Payload(Compression),
    /// A record breaks the format.
    #[error("record {index}: {what}")]
    Record {
        /// Its position in the batch.
        index: i32,
        /// What is wrong.
        what: &'static str,
    },
    /// Bytes remain after the last record.
    #[error("bytes remain after the last record")]
    TrailingRecords,
    /// A control batch whose key or value is not a marker's.
    #[error("not a transaction marker")]
    Marker,
    /// A batch would be longer than its 31-bit length field can say.
    #[error("the batch would not fit its length field")]
    Overflow,
}

/// What is wrong with single records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A record without a key on a compacted topic.
    #[error("null key on a compacted topic")]
    NullKey,
}

impl RecordFault {
    /// Record indexes listed at most: the answer must not outgrow the request.
    pub const MAX_LISTED: usize = 1_000;
}
