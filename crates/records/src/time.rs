//! Finding records by timestamp inside a batch, for ListOffsets.

use crate::error::BatchError;
use crate::header::TimestampType;
use crate::record::{Limits, RecordReader};

/// Offset and timestamp of the first record of the batch at the front of `batch` whose timestamp is `timestamp` or later.
///
/// Decompresses only when the header cannot tell: a batch whose `max_timestamp` is below has none.
pub fn offset_of_timestamp(
    batch: &[u8],
    timestamp: i64,
    limits: Limits,
) -> Result<Option<(i64, i64)>, BatchError> {
    let mut reader = RecordReader::new(batch, limits)?;
    let header = *reader.header();
    if header.max_timestamp < timestamp {
        return Ok(None);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime && is_dense(&reader) {
        return Ok(Some((header.base_offset, header.max_timestamp)));
    }
    while let Some(record) = reader.next_record()? {
        if record.timestamp >= timestamp {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

/// Offset and timestamp of the first record that has the greatest timestamp of the batch at the front of `batch`; `None`
/// for a batch without records. The records decide, not the header's `max_timestamp`.
pub fn record_with_max_timestamp(batch: &[u8], limits: Limits) -> Result<Option<(i64, i64)>, BatchError> {
    let mut reader = RecordReader::new(batch, limits)?;
    let header = *reader.header();
    if header.timestamp_type() == TimestampType::LogAppendTime && is_dense(&reader) {
        return Ok(Some((header.base_offset, header.max_timestamp)));
    }
    let mut found: Option<(i64, i64)> = None;
    while let Some(record) = reader.next_record()? {
        if found.is_none_or(|(_, timestamp)| record.timestamp > timestamp) {
            found = Some((record.offset, record.timestamp));
        }
    }
    Ok(found)
}

/// No record was removed, so the first one stands at the base offset.
fn is_dense(reader: &RecordReader<'_>) -> bool {
    let header = reader.header();
    header.records_count > 0 && header.records_count.checked_sub(1) == Some(header.last_offset_delta)
}
