//! Validation of what a client produces to a partition: exactly one batch, judged by its header and CRC. Records are
//! decompressed and walked on compacted topics only.

use crate::codec::Compression;
use crate::error::{BatchError, Corruption, Flaw};
use crate::header::{
    BatchHeader, CODEC_MASK, CONTROL_BIT, CRC_FROM, HEADER_LEN, NO_PRODUCER_ID, NO_TIMESTAMP,
    TRANSACTIONAL_BIT, TimestampType,
};
use crate::record::{Limits, MIN_RECORD};
use crate::walk;

/// What a topic and a request version ask of a batch.
#[derive(Debug, Clone, Copy)]
pub struct ValidateRules {
    /// `max.message.bytes`: of the whole batch, header included, as it arrives.
    pub max_message_bytes: usize,
    /// The broker's clock, ms since the epoch.
    pub now_ms: i64,
    /// `message.timestamp.type`. With LogAppendTime the producer's timestamps are not looked at; the caller then patches
    /// ([`crate::patch_append_time`]).
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
    /// `cleanup.policy` includes compact: every record needs a key, so all are walked.
    pub compacted: bool,
    /// The request's version knows zstd (Produce 7 and later).
    pub allow_zstd: bool,
    /// Bounds on the walk.
    pub limits: Limits,
}

impl ValidateRules {
    /// Kafka's defaults for a topic at this time: 1,048,588 bytes, CreateTime, any past, one hour ahead.
    pub fn new(now_ms: i64) -> ValidateRules {
        ValidateRules {
            max_message_bytes: 1_048_588,
            now_ms,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            compacted: false,
            allow_zstd: true,
            limits: Limits::default(),
        }
    }
}

/// Checks the records of one partition of a produce request: exactly one batch of format 2 that obeys `rules`.
///
/// Nothing is decompressed unless the topic is compacted. A `max_timestamp` of -1 with a base timestamp is let through,
/// since old clients send it and Kafka mends it; [`crate::record_with_max_timestamp`] and
/// [`crate::patch_max_timestamp`] do the same.
pub fn validate(batch: &[u8], rules: &ValidateRules) -> Result<BatchHeader, BatchError> {
    if batch.is_empty() {
        return Err(Flaw::Empty.into());
    }
    let (header, exact) = BatchHeader::parse_whole(batch)?;
    if exact.len() != batch.len() {
        return Err(Flaw::Trailing(batch.len() - exact.len()).into());
    }
    if batch.len() > rules.max_message_bytes {
        return Err(BatchError::TooLarge {
            size: batch.len() as u64,
            max: rules.max_message_bytes as u64,
        });
    }
    verify_crc(&header, batch)?;
    check_attributes(&header, rules)?;
    check_counts(&header, batch.len())?;
    check_producer(&header)?;
    check_timestamps(&header, rules)?;
    if rules.compacted {
        walk::walk(&header, batch, rules.limits)?;
    }
    Ok(header)
}

/// Checks the CRC of the batch at the front of `batch`: for bytes that come back from a store.
pub fn check_crc(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let (header, batch) = BatchHeader::parse_whole(batch)?;
    verify_crc(&header, batch)?;
    Ok(header)
}

fn verify_crc(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    let computed = crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or(&[]));
    if computed != header.crc {
        return Err(Corruption::Crc {
            stored: header.crc,
            computed,
        }
        .into());
    }
    Ok(())
}

fn check_attributes(header: &BatchHeader, rules: &ValidateRules) -> Result<(), BatchError> {
    if header.is_control() {
        return Err(Flaw::Control.into());
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::InvalidTimestampType);
    }
    if header.attributes & !(CODEC_MASK | TRANSACTIONAL_BIT | CONTROL_BIT) != 0 {
        return Err(Flaw::ReservedAttributes(header.attributes).into());
    }
    let codec = header.compression()?;
    if codec == Compression::Zstd && !rules.allow_zstd {
        return Err(BatchError::UnsupportedCompression { codec: codec.id() });
    }
    Ok(())
}

fn check_counts(header: &BatchHeader, size: usize) -> Result<(), BatchError> {
    if header.base_offset != 0 {
        return Err(Flaw::BaseOffset(header.base_offset).into());
    }
    let (count, last_offset_delta) = (header.records_count, header.last_offset_delta);
    if count < 1 || last_offset_delta < 0 || count - 1 != last_offset_delta {
        return Err(Flaw::Count {
            count,
            last_offset_delta,
        }
        .into());
    }
    // A count is an offset range that the log gives away: it must be one that the payload could hold.
    let bytes = size.saturating_sub(HEADER_LEN);
    let codec = header.compression()?;
    let room = bytes.saturating_mul(codec.max_ratio()) / MIN_RECORD;
    if count as usize > room {
        return Err(Flaw::TooManyRecords { count, bytes, codec }.into());
    }
    Ok(())
}

/// Clients without idempotence fill epoch and sequence with 0 or -1 as they like; with a producer id both count.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let sane = if header.has_producer_id() {
        header.producer_epoch >= 0 && header.base_sequence >= 0
    } else {
        header.producer_id == NO_PRODUCER_ID && !header.is_transactional()
    };
    if sane {
        return Ok(());
    }
    Err(Flaw::Producer {
        id: header.producer_id,
        epoch: header.producer_epoch,
        sequence: header.base_sequence,
        transactional: header.is_transactional(),
    }
    .into())
}

fn check_timestamps(header: &BatchHeader, rules: &ValidateRules) -> Result<(), BatchError> {
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let earliest = rules.now_ms.saturating_sub(rules.before_max_ms).max(0);
    let latest = rules.now_ms.saturating_add(rules.after_max_ms);
    for timestamp in [header.base_timestamp, header.max_timestamp] {
        if timestamp != NO_TIMESTAMP && !(earliest..=latest).contains(&timestamp) {
            return Err(BatchError::InvalidTimestamp {
                timestamp,
                earliest,
                latest,
            });
        }
    }
    if header.max_timestamp != NO_TIMESTAMP && header.max_timestamp < header.base_timestamp {
        let (timestamp, earliest) = (header.max_timestamp, header.base_timestamp);
        return Err(BatchError::InvalidTimestamp {
            timestamp,
            earliest,
            latest,
        });
    }
    Ok(())
}
