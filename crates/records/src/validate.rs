//! Validation of what a client produces to a partition: exactly one batch, judged by its header and CRC, and by each of
//! its records. What is accepted and what is refused, with which code, is what Apache Kafka 4.3.1 accepts and refuses
//! (`ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`, `LogValidator`).

use crate::codec::Compression;
use crate::error::{BatchError, Corruption, Flaw, RecordFault};
use crate::header::{
    APPEND_TIME_BIT, BatchHeader, CRC_FROM, HEADER_LEN, HORIZON_BIT, LENGTH_PREFIX, NO_TIMESTAMP,
    TimestampType,
};
use crate::record::{Limits, MIN_RECORD};
use crate::walk::{Passed, walk};

/// What may be wrong with a batch's first 17 bytes is judged by this length, which a message of format 0 has at least.
const SHORTEST_MESSAGE: i32 = 14;
/// From the start of a batch to behind its magic byte.
const UP_TO_MAGIC: usize = 17;

/// How much of a batch is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Depth {
    /// The header and the CRC. The header is believed.
    Header,
    /// Each record.
    #[default]
    Records,
}

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
    /// `cleanup.policy` includes compact: every record needs a key, so all are walked whatever `depth` says.
    pub compacted: bool,
    /// The request's version knows zstd (Produce 7 and later).
    pub allow_zstd: bool,
    /// `record.validation`.
    pub depth: Depth,
    /// Bounds on the walk; `max_record` is `max.decompressed.message.bytes`.
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
            depth: Depth::Records,
            limits: Limits::WALK,
        }
    }

    /// Whether [`validate_records`] has something to do.
    pub fn walks_records(&self) -> bool {
        self.compacted || self.depth == Depth::Records
    }

    /// Whether a record may have this timestamp. The differences wrap around, as Kafka's do.
    fn allows(&self, timestamp: i64) -> bool {
        let age = self.now_ms.wrapping_sub(timestamp);
        timestamp == NO_TIMESTAMP || age <= self.before_max_ms && age.wrapping_neg() <= self.after_max_ms
    }

    /// The first and the last timestamp that are accepted, but for those that are further off than numbers go.
    fn range(&self) -> (i64, i64) {
        let earliest = self.now_ms.saturating_sub(self.before_max_ms);
        (earliest, self.now_ms.saturating_add(self.after_max_ms))
    }
}

/// Checks the records of one partition of a produce request: exactly one batch of format 2 that obeys `rules`.
///
/// Returns the header as it is to be stored. It differs from the one that came where a client does not decide: the
/// greatest timestamp is that of the records, since clients send a wrong one, and the timestamp type and the delete
/// horizon are the broker's to set. [`crate::patch_attributes_and_max_timestamp`] writes it. The batch is the first
/// [`BatchHeader::size_in_bytes`] of `input`: less than a whole batch behind it is passed over, as Kafka does.
pub fn validate(input: &[u8], rules: &ValidateRules) -> Result<BatchHeader, BatchError> {
    let header = validate_header(input, rules)?;
    if rules.walks_records() {
        validate_records(&header, input, rules)
    } else {
        Ok(header)
    }
}

/// The part of [`validate`] that looks at no record. Its time is that of a CRC.
pub fn validate_header(input: &[u8], rules: &ValidateRules) -> Result<BatchHeader, BatchError> {
    let size = first_batch(input)?.ok_or(Flaw::Empty(input.len()))?;
    let (batch, rest) = input.split_at(size);
    let mut header = BatchHeader::parse(batch)?;
    if let Some(size) = first_batch(rest)? {
        return Err(Flaw::Trailing(size).into());
    }
    if header.base_offset != 0 {
        return Err(Flaw::BaseOffset(header.base_offset).into());
    }
    if batch.len() > rules.max_message_bytes {
        return Err(BatchError::TooLarge {
            size: batch.len() as u64,
            max: rules.max_message_bytes as u64,
        });
    }
    verify_crc(&header, batch)?;
    let codec = header.compression()?;
    if codec == Compression::Zstd && !rules.allow_zstd {
        return Err(BatchError::UnsupportedCompression { codec: codec.id() });
    }
    check_counts(&header, batch.len())?;
    if header.is_control() {
        return Err(Flaw::Control.into());
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        let (id, sequence) = (header.producer_id, header.base_sequence);
        return Err(Flaw::Sequence { id, sequence }.into());
    }
    // The cleaner's to set. Kafka believes a producer here, and may then drop its tombstones at once.
    header.attributes &= !HORIZON_BIT;
    if rules.walks_records() {
        return Ok(header);
    }
    check_header_timestamps(&header, rules)?;
    header.attributes &= !APPEND_TIME_BIT;
    Ok(header)
}

/// The part of [`validate`] that looks at each record of the batch at the front of `input`, whose header passed
/// [`validate_header`].
pub fn validate_records(
    header: &BatchHeader,
    input: &[u8],
    rules: &ValidateRules,
) -> Result<BatchHeader, BatchError> {
    let size = header.size_in_bytes();
    let batch = input.get(..size).ok_or(Flaw::Empty(input.len()))?;
    let append_time = rules.timestamp_type == TimestampType::LogAppendTime;
    let mut faults = Faults {
        listed: Vec::new(),
        timestamps: false,
    };
    let (earliest, latest) = rules.range();
    let wrong_type = append_time && header.timestamp_type() == TimestampType::LogAppendTime;
    let mut max_timestamp = NO_TIMESTAMP;
    walk(header, batch, rules.limits, |record: Passed| {
        let index = record.index;
        if record.offset_delta != index {
            let what = "offset delta is not its index";
            return Err(Flaw::Record { index, what }.into());
        }
        if rules.compacted && !record.has_key {
            faults.add(index, RecordFault::NullKey);
            return Ok(true);
        }
        if append_time {
            if wrong_type {
                faults.add(index, RecordFault::TimestampType);
            }
            return Ok(true);
        }
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        if rules.allows(timestamp) {
            max_timestamp = max_timestamp.max(timestamp);
        } else {
            let fault = RecordFault::Timestamp {
                timestamp,
                earliest,
                latest,
            };
            faults.add(index, fault);
        }
        Ok(true)
    })?;
    faults.finish()?;
    let mut stored = *header;
    stored.attributes &= !APPEND_TIME_BIT;
    if !append_time {
        stored.max_timestamp = max_timestamp;
    }
    Ok(stored)
}

/// Records that are refused one by one.
struct Faults {
    listed: Vec<(i32, RecordFault)>,
    /// Not only keys are missing.
    timestamps: bool,
}

impl Faults {
    #[cold]
    fn add(&mut self, index: i32, fault: RecordFault) {
        self.timestamps |= fault != RecordFault::NullKey;
        if self.listed.len() < RecordFault::MAX_LISTED {
            self.listed.push((index, fault));
        }
    }

    fn finish(self) -> Result<(), BatchError> {
        let Faults {
            listed: faults,
            timestamps,
        } = self;
        match (faults.is_empty(), timestamps) {
            (true, _) => Ok(()),
            (false, true) => Err(BatchError::InvalidTimestamps { faults }),
            (false, false) => Err(BatchError::InvalidRecords { faults }),
        }
    }
}

/// The size of the batch at the front of `input`; none if no whole one is there.
fn first_batch(input: &[u8]) -> Result<Option<usize>, BatchError> {
    let Some(front) = input.first_chunk::<LENGTH_PREFIX>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([front[8], front[9], front[10], front[11]]);
    if length < SHORTEST_MESSAGE {
        return Err(Corruption::Length(length).into());
    }
    let Some(magic) = input.get(UP_TO_MAGIC - 1).map(|magic| *magic as i8) else {
        return Ok(None);
    };
    if !(0..=2).contains(&magic) {
        return Err(Corruption::Magic(magic).into());
    }
    let size = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_add(LENGTH_PREFIX);
    if size > input.len() {
        return Ok(None);
    }
    if magic != 2 {
        return Err(BatchError::UnsupportedFormat { magic });
    }
    Ok(Some(size))
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

fn check_counts(header: &BatchHeader, size: usize) -> Result<(), BatchError> {
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

/// Where no record is looked at, the header stands for all of them.
fn check_header_timestamps(header: &BatchHeader, rules: &ValidateRules) -> Result<(), BatchError> {
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let (earliest, latest) = rules.range();
    for timestamp in [header.base_timestamp, header.max_timestamp] {
        if !rules.allows(timestamp) {
            return Err(BatchError::InvalidTimestamp {
                timestamp,
                earliest,
                latest,
            });
        }
    }
    Ok(())
}
