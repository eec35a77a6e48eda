//! Kafka record batches, format 2: what a broker must know of the bytes that it stores.
//!
//! This crate owns the batch header, its validation, the records inside, the four compression codecs and the few
//! rewrites a broker makes (offsets, append time, another codec, compaction). It does no I/O, holds no state and knows
//! nothing of topics: limits and rules come in from the caller. Formats 0 and 1 are recognised and refused.
//!
//! Where to start:
//! - [`header`]: the 61 bytes at the front, patching them in place, walking a run of batches;
//! - [`mod@validate`]: what is checked on produce: header, CRC and each record;
//! - [`record`]: reading records one by one, decompressing as it goes under [`Limits`];
//! - [`builder`]: making batches and transaction markers;
//! - [`rewrite`]: another codec, and the cleaner's filter;
//! - [`time`]: finding records by timestamp.
//!
//! Nothing here trusts a length: every input, however malformed, ends in a [`BatchError`], and memory and time are
//! bounded by the input's size and by [`Limits`].

pub mod builder;
pub mod codec;
mod crc;
pub mod error;
pub mod header;
mod payload;
pub mod record;
pub mod rewrite;
pub mod time;
pub mod validate;
mod varint;
mod walk;

pub use builder::{BatchBuilder, EndMarker, Header, end_marker, end_marker_batch};
pub use codec::Compression;
pub use error::{BatchError, Corruption, Flaw, RecordFault};
pub use header::{
    BatchHeader, HEADER_LEN, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
    iter_batches, patch_append_time, patch_attributes_and_max_timestamp, patch_offset_and_epoch,
};
pub use record::{Limits, Record, RecordReader, RecordView, records};
pub use rewrite::{FilterOptions, Filtered, filter, recompress};
pub use time::{OffsetAndTime, find_first_since, find_newest};
pub use validate::{Depth, ValidateRules, check_crc, validate, validate_header, validate_records};
