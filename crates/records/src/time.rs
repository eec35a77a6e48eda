//! Finding records by timestamp inside a batch, for ListOffsets, retention and `store check`. Records are passed over and
//! none is held, so that a batch of any size can be looked into.

use crate::error::{BatchError, Flaw};
use crate::header::{BatchHeader, TimestampType};
use crate::record::Limits;
use crate::walk::walk;

/// A record's offset and timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAndTime {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms since the epoch.
    pub timestamp: i64,
}

/// The first record of the batch at the front of `batch`, at or after `from_offset`, whose timestamp is `timestamp` or
/// later. The records decide, and not the header.
pub fn find_first_since(
    batch: &[u8],
    timestamp: i64,
    from_offset: i64,
) -> Result<Option<OffsetAndTime>, BatchError> {
    let mut found = None;
    visit_times(batch, |record| {
        if record.timestamp >= timestamp && record.offset >= from_offset {
            found = Some(record);
        }
        found.is_none()
    })?;
    Ok(found)
}

/// The first record that has the greatest timestamp of those of the batch at the front of `batch` that stand at or after
/// `from_offset`; `None` if there is none. The records decide, and not the header.
pub fn find_newest(batch: &[u8], from_offset: i64) -> Result<Option<OffsetAndTime>, BatchError> {
    let mut found: Option<OffsetAndTime> = None;
    visit_times(batch, |record| {
        let newer = found.is_none_or(|found| record.timestamp > found.timestamp);
        if newer && record.offset >= from_offset {
            found = Some(record);
        }
        true
    })?;
    Ok(found)
}

/// Calls `visit` with each record until it says false. Compaction may have removed records, so that offsets have gaps;
/// they ascend, and lie within the batch.
fn visit_times(batch: &[u8], mut visit: impl FnMut(OffsetAndTime) -> bool) -> Result<(), BatchError> {
    let (header, batch) = BatchHeader::parse_whole(batch)?;
    if header.records_count < 0 {
        let (count, last_offset_delta) = (header.records_count, header.last_offset_delta);
        return Err(Flaw::Count {
            count,
            last_offset_delta,
        }
        .into());
    }
    let append_time = header.timestamp_type() == TimestampType::LogAppendTime;
    let mut least = 0;
    walk(&header, batch, Limits::WALK, |record| {
        if record.offset_delta < least || record.offset_delta > header.last_offset_delta {
            let what = "offset out of order, or beyond the batch";
            let index = record.index;
            return Err(Flaw::Record { index, what }.into());
        }
        least = record.offset_delta.saturating_add(1);
        let timestamp = if append_time {
            header.max_timestamp
        } else {
            header.base_timestamp.wrapping_add(record.timestamp_delta)
        };
        let offset = header.base_offset.wrapping_add(i64::from(record.offset_delta));
        Ok(visit(OffsetAndTime { offset, timestamp }))
    })
}
