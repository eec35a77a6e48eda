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
    #[error("{}", name_faults(faults))]
    InvalidRecords {
        /// Their positions in the batch, ascending, and what is wrong with each; at most [`RecordFault::MAX_LISTED`].
        faults: Vec<(i32, RecordFault)>,
    },
    /// Single records are at fault, and the timestamp of at least one is: `INVALID_TIMESTAMP` with `record_errors`.
    #[error("{}", name_faults(faults))]
    InvalidTimestamps {
        /// As for [`BatchError::InvalidRecords`].
        faults: Vec<(i32, RecordFault)>,
    },
    /// The header's timestamps are out of range, where nothing else is looked at: `INVALID_TIMESTAMP`.
    #[error("timestamp {timestamp} is outside the accepted range {earliest} to {latest}")]
    InvalidTimestamp {
        /// The timestamp at fault, in ms since the epoch.
        timestamp: i64,
        /// The first that would have been accepted.
        earliest: i64,
        /// The last that would have been accepted.
        latest: i64,
    },
    /// The batch, or what it decompresses to where that must be bounded, is above the limit: `MESSAGE_TOO_LARGE`. The
    /// Java producer answers this by splitting the batch.
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
    /// A message set of format 0 or 1: `INVALID_RECORD`, as Kafka answers it from Produce 3 on.
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
    /// The magic byte is none that was ever defined.
    #[error("magic {0} is none of a record batch")]
    Magic(i8),
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
    /// A produce partition without a whole batch.
    #[error("no whole record batch in {0} bytes")]
    Empty(usize),
    /// More than one batch.
    #[error("a second batch of {0} bytes follows the only one that is allowed")]
    Trailing(usize),
    /// A batch without records where one is built.
    #[error("no records")]
    NoRecords,
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
    /// A batch of an idempotent producer without a sequence number.
    #[error("sequence {sequence} of producer {id} is negative")]
    Sequence {
        /// `producer_id`.
        id: i64,
        /// `base_sequence`.
        sequence: i32,
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
    /// A record of a compressed batch that would be longer than the limit, as its length field says.
    #[error("record {index} of {length} bytes, decompressed, is above the limit of {max}")]
    RecordTooLarge {
        /// Its position in the batch.
        index: i32,
        /// Its length.
        length: u64,
        /// The limit: `max.decompressed.message.bytes`, or what a reader may hold.
        max: u64,
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

/// What is wrong with a single record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A record without a key on a compacted topic.
    #[error("a compacted topic cannot accept a record without a key")]
    NullKey,
    /// A timestamp that the topic's options do not allow.
    #[error("timestamp {timestamp} is outside the accepted range {earliest} to {latest}")]
    Timestamp {
        /// The record's, in ms since the epoch.
        timestamp: i64,
        /// The first that would have been accepted.
        earliest: i64,
        /// The last that would have been accepted.
        latest: i64,
    },
    /// On a topic with LogAppendTime, the bit that says so was set by the producer.
    #[error("a producer may not set the timestamp type to LogAppendTime")]
    TimestampType,
}

impl RecordFault {
    /// Faults listed at most: the answer must not outgrow the request.
    pub const MAX_LISTED: usize = 1_000;
}

fn name_faults(faults: &[(i32, RecordFault)]) -> String {
    let first = faults.first();
    let first = first.map_or_else(String::new, |(index, fault)| format!(": record {index}: {fault}"));
    format!("{} record(s) were refused{first}", faults.len())
}
