//! What was appended to a partition, and what a read of it may look like.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use drumlin_records::{Limits, iter_batches, records};

/// The longest from the start of a pass to its commit, about.
const PASS_MS: i64 = 5_000;

/// One record as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub timestamp: i64,
    /// When its append was called, Unix milliseconds.
    pub at_ms: i64,
}

/// One record as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    pub offset: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub timestamp: i64,
}

/// All records of a partition that are, or may be, in its log.
#[derive(Debug, Default)]
pub struct History {
    pub records: BTreeMap<i64, Known>,
    /// What is acknowledged ends here; exclusive.
    pub acked_end: i64,
}

/// What must hold of a read.
pub struct Reading<'a> {
    /// Where it began, and how far it came; exclusive.
    pub from: i64,
    pub end: i64,
    /// The log start when it was over.
    pub log_start: i64,
    /// When it began and when it was over, Unix milliseconds.
    pub began_ms: i64,
    pub now_ms: i64,
    /// Nothing was appended meanwhile, and what was before is compacted.
    pub quiet: bool,
    pub min_lag_ms: i64,
    /// The shortest `delete.retention.ms` that was ever in force.
    pub delete_retention_ms: i64,
    /// From which offset on the log said afterwards that no tombstone was ever dropped.
    pub tombstones_from: i64,
    pub seen: &'a [Seen],
}

/// Whole batches to records; offsets of batches and records must ascend. Returns the offset to read on from.
pub fn decode(bytes: &[u8], offset: i64, seen: &mut Vec<Seen>) -> Result<i64, String> {
    let mut next = offset;
    for item in iter_batches(bytes) {
        let (at, header) = item.map_err(|error| format!("a batch at {next}: {error}"))?;
        if header.last_offset() < next {
            return Err(format!(
                "a batch ends at {} where {next} was due",
                header.last_offset()
            ));
        }
        let batch = &bytes[at..at + header.size_in_bytes()];
        drumlin_records::check_crc(batch).map_err(|error| format!("a batch at {next}: {error}"))?;
        let mut last = header.base_offset - 1;
        for record in records(batch, Limits::default()) {
            let record = record.map_err(|error| format!("a record of {}: {error}", header.base_offset))?;
            if record.offset <= last || record.offset > header.last_offset() {
                return Err(format!("offset {} follows {last}", record.offset));
            }
            last = record.offset;
            if record.offset >= next {
                seen.push(Seen {
                    offset: record.offset,
                    key: record.key,
                    value: record.value,
                    timestamp: record.timestamp,
                });
            }
        }
        next = header.last_offset() + 1;
    }
    Ok(next)
}

impl History {
    /// A start found the log to end here: what lies above was never committed.
    pub fn restart(&mut self, log_end: i64) -> Result<(), String> {
        if log_end < self.acked_end {
            return Err(format!(
                "acknowledged up to {}, and the log ends at {log_end}",
                self.acked_end
            ));
        }
        self.records.split_off(&log_end);
        self.acked_end = log_end;
        Ok(())
    }

    pub fn check(&self, reading: &Reading<'_>) -> Result<(), String> {
        let mut seen = BTreeMap::new();
        for record in reading.seen {
            let known = self
                .records
                .get(&record.offset)
                .ok_or_else(|| format!("offset {} was never appended", record.offset))?;
            if (&known.key, &known.value, known.timestamp) != (&record.key, &record.value, record.timestamp) {
                return Err(format!(
                    "offset {} is {record:?}, it was {known:?}",
                    record.offset
                ));
            }
            seen.insert(record.offset, known);
        }
        let from = reading.from.max(reading.log_start);
        let mut newest: BTreeMap<&Bytes, (i64, &Known)> = BTreeMap::new();
        for (offset, known) in self.records.range(..reading.end) {
            if let Some(key) = &known.key {
                newest.insert(key, (*offset, known));
            }
            let young = known.timestamp > reading.now_ms - reading.min_lag_ms;
            if young && *offset >= from && known.key.is_some() && !seen.contains_key(offset) {
                return Err(format!(
                    "offset {offset} is gone before min.compaction.lag.ms: {known:?}"
                ));
            }
        }
        for (key, (offset, known)) in newest {
            if offset < from {
                continue;
            }
            match (&known.value, seen.contains_key(&offset)) {
                (_, true) => {}
                (Some(_), false) => {
                    return Err(format!("offset {offset}, the newest of key {key:?}, is gone"));
                }
                (None, false) if reading.now_ms < known.at_ms + reading.delete_retention_ms => {
                    return Err(format!(
                        "offset {offset}, the tombstone of key {key:?}, is gone too early"
                    ));
                }
                (None, false) if offset >= reading.tombstones_from => {
                    return Err(format!(
                        "offset {offset}, the tombstone of key {key:?}, is gone; the log says that none is from {} on",
                        reading.tombstones_from
                    ));
                }
                // What it deleted must not come back. Who read that before it was compacted away, and then took
                // longer than the tombstone stays, may miss the tombstone: `delete.retention.ms` is what bounds it.
                (None, false) => {
                    let slow = reading.now_ms - reading.began_ms + PASS_MS >= reading.delete_retention_ms;
                    let back = seen.iter().find(|(_, record)| record.key.as_ref() == Some(key));
                    if let Some((back, _)) = back
                        && (reading.quiet || !slow)
                    {
                        return Err(format!(
                            "key {key:?} was deleted at {offset}, and {back} is there again"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// `found` is the offset and time of the first record at or after `timestamp`, as the log told it; `range` from the
    /// log start afterwards to the end before.
    pub fn check_look_up(
        &self,
        timestamp: i64,
        found: Option<(i64, i64)>,
        range: Range<i64>,
    ) -> Result<(), String> {
        if let Some((offset, time)) = found {
            let known = self.records.get(&offset);
            if time < timestamp || known.is_none_or(|known| known.timestamp != time) {
                return Err(format!("{found:?} for {timestamp}, it was {known:?}"));
            }
        }
        let before = found.map_or(range.end, |(offset, _)| offset.min(range.end));
        let mut newest: BTreeMap<&Bytes, (i64, &Known)> = BTreeMap::new();
        for (offset, known) in &self.records {
            if let Some(key) = &known.key {
                newest.insert(key, (*offset, known));
            }
        }
        let missed = newest.values().find(|(offset, known)| {
            let in_range = *offset >= range.start && *offset < before;
            in_range && known.timestamp >= timestamp && known.value.is_some()
        });
        match missed {
            None => Ok(()),
            Some(missed) => Err(format!(
                "{found:?} for {timestamp}, and {missed:?} was passed over"
            )),
        }
    }

    /// After everything was compacted twice: below `end` one record a key, and no tombstones.
    pub fn check_compacted(&self, seen: &[Seen], end: i64) -> Result<(), String> {
        let mut keys = BTreeMap::new();
        for record in seen.iter().filter(|record| record.offset < end) {
            let Some(key) = &record.key else {
                return Err(format!("offset {} has no key, and stayed", record.offset));
            };
            if record.value.is_none() {
                return Err(format!("a tombstone stayed at offset {}", record.offset));
            }
            if let Some(older) = keys.insert(key.clone(), record.offset) {
                return Err(format!("key {key:?} is at {older} and at {}", record.offset));
            }
        }
        Ok(())
    }
}
