//! What stays of each batch: Kafka's rules for compacted topics (`Cleaner`, `MemoryRecords.filterTo`, KIP-534).
//!
//! A batch of which everything stays is taken over byte for byte; only what changes is written anew, in its own
//! codec. Everything here is computation over bytes in memory, so that it may run off the async threads.

use std::collections::BTreeMap;

use bytes::Bytes;
use drumlin_objects::sabotage::{self, Sabotage};
use drumlin_records::{
    BatchError, BatchHeader, FilterOptions, Filtered, Flaw, HEADER_LEN, Limits, RecordReader, RecordView,
    filter,
};

use super::map::OffsetMap;
use super::transactions::Transactions;
use crate::read::ReadError;

/// Batches that could not be read are named one by one up to this number.
const MAX_UNREADABLE_NOTED: usize = 100;

/// Cuts bytes, as they come, into whole batches.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    /// A batch that is not whole yet.
    rest: Vec<u8>,
}

fn parse(bytes: &[u8]) -> Result<BatchHeader, ReadError> {
    BatchHeader::parse(bytes).map_err(|error| ReadError::Corrupt {
        what: error.to_string(),
    })
}

impl Batches {
    /// Calls `take` with each batch that is whole now; it says whether to go on.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&BatchHeader, &[u8]) -> Result<bool, ReadError>,
    ) -> Result<bool, ReadError> {
        // A batch that began in what came before: just that one is put together.
        while !self.rest.is_empty() {
            let need = if self.rest.len() < HEADER_LEN {
                HEADER_LEN
            } else {
                parse(&self.rest)?.size_in_bytes()
            };
            let (head, tail) = bytes.split_at(bytes.len().min(need - self.rest.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() < need {
                return Ok(true);
            }
            let header = parse(&self.rest)?;
            if self.rest.len() == header.size_in_bytes() {
                let batch = std::mem::take(&mut self.rest);
                if !take(&header, &batch)? {
                    return Ok(false);
                }
            }
        }
        while bytes.len() >= HEADER_LEN {
            let header = parse(bytes)?;
            let Some((batch, after)) = bytes.split_at_checked(header.size_in_bytes()) else {
                break;
            };
            if !take(&header, batch)? {
                return Ok(false);
            }
            bytes = after;
        }
        self.rest.extend_from_slice(bytes);
        Ok(true)
    }

    /// All has come.
    pub(crate) fn finish(&self) -> Result<(), ReadError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(ReadError::Corrupt {
            what: "a batch is cut short".to_owned(),
        })
    }
}

/// Learns the newest offset of each key in the dirty part.
pub(crate) struct Learner {
    pub map: OffsetMap,
    pub transactions: Transactions,
    batches: Batches,
    /// Records below this are clean.
    from: i64,
    /// The offset after the last batch that was learnt; the filter knows nothing of what lies from there on.
    pub end: i64,
}

impl Learner {
    pub(crate) fn new(map: OffsetMap, from: i64) -> Self {
        Self {
            map,
            transactions: Transactions::default(),
            batches: Batches::default(),
            from,
            end: from,
        }
    }

    /// Takes bytes that follow. False: the map is full, and `end` says how far it came.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<bool, ReadError> {
        let Self {
            map,
            transactions,
            batches,
            from,
            end,
        } = self;
        batches.push(bytes, |header, batch| {
            let aborted = transactions.is_done_with(header, batch);
            if header.last_offset() < *from {
                return Ok(true);
            }
            if !header.is_control() && !aborted {
                if !map.has_room(usize::try_from(header.records_count).unwrap_or(0)) {
                    return Ok(false);
                }
                // What cannot be read is not known, and stays.
                let _ = learn(map, header, batch, *from);
            }
            *end = header.last_offset() + 1;
            Ok(true)
        })
    }

    pub(crate) fn finish_source(&self) -> Result<(), ReadError> {
        self.batches.finish()
    }
}

/// Walks over a batch's records, and trusts no offset that the batch's own cannot be: under `record.validation=header`
/// nobody looks at records when they are produced, and one that claims to be newer than all would outlive the truth.
struct Records<'a> {
    reader: RecordReader<'a>,
    index: i32,
    next: i64,
    last: i64,
}

impl<'a> Records<'a> {
    fn of(header: &BatchHeader, batch: &'a [u8]) -> Result<Self, BatchError> {
        Ok(Self {
            reader: RecordReader::new(batch, Limits::ONE_RECORD)?,
            index: 0,
            next: header.base_offset,
            last: header.last_offset(),
        })
    }

    fn next_record(&mut self) -> Result<Option<RecordView<'_>>, BatchError> {
        let Some(record) = self.reader.next_record()? else {
            return Ok(None);
        };
        if record.offset < self.next || record.offset > self.last {
            let (index, what) = (self.index, "offset out of order, or beyond the batch");
            return Err(Flaw::Record { index, what }.into());
        }
        self.next = record.offset + 1;
        self.index += 1;
        Ok(Some(record))
    }
}

fn learn(map: &mut OffsetMap, header: &BatchHeader, batch: &[u8], from: i64) -> Result<(), BatchError> {
    let mut records = Records::of(header, batch)?;
    while let Some(record) = records.next_record()? {
        if let Some(key) = record.key
            && record.offset >= from
        {
            map.put(key, record.offset);
        }
    }
    Ok(())
}

/// What a pass goes by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The map knows the newest offsets of what lies below this: what lies above stays as it is.
    pub map_end: i64,
    /// When the pass began, Unix milliseconds.
    pub now_ms: i64,
    pub delete_retention_ms: i64,
    /// The last offset of each producer that is remembered: the header of that batch stays.
    pub last_of_producers: BTreeMap<i64, i64>,
    /// The end of what was committed when the pass began. The record before it was the last of the log, and stays [N9].
    pub log_end: i64,
}

/// What a pass did to batches and records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub records_in: u64,
    pub records_out: u64,
    /// Records without a key, written before the topic was compacted.
    pub keyless: u64,
    /// Batches that could not be read, and stay whole.
    pub unreadable: u64,
    /// Batches that are not as they were.
    pub changed: u64,
}

/// Filters batches by a map. Cheap to move; owns what it touches.
pub(crate) struct Sieve {
    pub map: OffsetMap,
    pub rules: Rules,
    pub transactions: Transactions,
    pub tally: Tally,
    /// Deletions whose time was over have gone below this offset, and none from it on.
    pub tombstones_from: i64,
    batches: Batches,
    keeps: Vec<bool>,
    out: Vec<u8>,
    /// Batches that could not be read, by base offset, and why: the first of them.
    unreadable: Vec<(i64, BatchError)>,
    /// The largest timestamp of records that stayed since it was last taken.
    max_timestamp: i64,
}

/// What to do with a batch.
enum Verdict {
    AsItIs,
    Drop,
    /// Those records whose flag is set stay.
    Some(FilterOptions),
}

impl Sieve {
    pub(crate) fn new(map: OffsetMap, rules: Rules) -> Self {
        Self {
            map,
            rules,
            transactions: Transactions::default(),
            tally: Tally::default(),
            tombstones_from: 0,
            batches: Batches::default(),
            keeps: Vec::new(),
            out: Vec::new(),
            unreadable: Vec::new(),
            max_timestamp: -1,
        }
    }

    /// Takes bytes that follow; returns what stays of the batches that are whole now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Bytes, ReadError> {
        let mut batches = std::mem::take(&mut self.batches);
        self.out.reserve(bytes.len());
        let pushed = batches.push(bytes, |header, batch| {
            self.batch(header, batch);
            Ok(true)
        });
        self.batches = batches;
        pushed?;
        let mut kept = std::mem::take(&mut self.out);
        kept.shrink_to_fit();
        Ok(kept.into())
    }

    pub(crate) fn finish_source(&self) -> Result<(), ReadError> {
        self.batches.finish()
    }

    /// The largest timestamp of what stayed since the last call; -1: none.
    pub(crate) fn take_max_timestamp(&mut self) -> i64 {
        std::mem::replace(&mut self.max_timestamp, -1)
    }

    fn batch(&mut self, header: &BatchHeader, batch: &[u8]) {
        let records = u64::try_from(header.records_count).unwrap_or(0);
        self.tally.records_in += records;
        let verdict = match self.judge(header, batch) {
            Ok(verdict) => verdict,
            // Not what the format says, from the time when nobody looked at records: it stays, as Kafka's does not.
            Err(error) => {
                self.note_unreadable(header, error);
                Verdict::AsItIs
            }
        };
        match verdict {
            Verdict::AsItIs => self.keep(header, batch),
            Verdict::Drop => self.tally.changed += 1,
            Verdict::Some(options) => self.rewrite(header, batch, &options),
        }
    }

    fn note_unreadable(&mut self, header: &BatchHeader, error: BatchError) {
        self.tally.unreadable += 1;
        if self.unreadable.len() < MAX_UNREADABLE_NOTED {
            self.unreadable.push((header.base_offset, error));
        }
    }

    /// The first batches that could not be read since the last call.
    pub(crate) fn take_unreadable(&mut self) -> Vec<(i64, BatchError)> {
        std::mem::take(&mut self.unreadable)
    }

    fn keep(&mut self, header: &BatchHeader, batch: &[u8]) {
        self.out.extend_from_slice(batch);
        if header.records_count > 0 {
            self.tally.records_out += u64::try_from(header.records_count).unwrap_or(0);
            self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        }
    }

    fn rewrite(&mut self, header: &BatchHeader, batch: &[u8], options: &FilterOptions) {
        let keeps = std::mem::take(&mut self.keeps);
        let mut flags = keeps.iter().copied();
        let filtered = filter(batch, options, |_| flags.next().unwrap_or(true));
        self.keeps = keeps;
        match filtered {
            Ok(Filtered::Unchanged) => self.keep(header, batch),
            Ok(Filtered::Removed) => self.tally.changed += 1,
            Ok(Filtered::Rewritten(new)) => match BatchHeader::parse(&new) {
                Ok(header) => {
                    self.tally.changed += 1;
                    self.keep(&header, &new);
                }
                Err(_) => self.keep(header, batch),
            },
            Err(error) => {
                self.note_unreadable(header, error);
                self.keep(header, batch);
            }
        }
    }

    fn judge(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<Verdict, BatchError> {
        let Rules {
            map_end,
            now_ms,
            delete_retention_ms,
            ..
        } = self.rules;
        if header.last_offset() >= map_end {
            return Ok(Verdict::AsItIs);
        }
        let log_end = self.rules.log_end;
        let ends_log = |offset| offset + 1 >= log_end;
        let done_with = self.transactions.is_done_with(header, batch);
        let horizon = header.delete_horizon_ms();
        let overdue = horizon.is_some_and(|horizon| horizon <= now_ms);
        let drop_all = done_with && (!header.is_control() || overdue) && !ends_log(header.last_offset());
        let last_of_producer = self.rules.last_of_producers.get(&header.producer_id);
        // The header of a producer's last batch says where its sequence stands; that of the last batch of the pass, where
        // what it read ends, so that no part of it is without a batch.
        let keep_empty = header.has_producer_id() && last_of_producer == Some(&header.last_offset())
            || header.last_offset() + 1 == map_end;
        if header.records_count == 0 {
            return Ok(if keep_empty {
                Verdict::AsItIs
            } else {
                Verdict::Drop
            });
        }
        self.keeps.clear();
        let (mut kept, mut tombstones) = (0, false);
        if drop_all {
            if header.is_control() {
                self.tombstones_from = self.tombstones_from.max(header.last_offset() + 1);
            }
            self.keeps
                .resize(usize::try_from(header.records_count).unwrap_or(0), false);
        } else {
            let mut records = Records::of(header, batch)?;
            let deletes_stay = !overdue && !sabotage::on(Sabotage::TombstoneTooEarly);
            while let Some(record) = records.next_record()? {
                let keep = if header.is_control() || ends_log(record.offset) {
                    true
                } else if let Some(key) = record.key {
                    let newest = self.map.get(key).is_none_or(|newest| record.offset >= newest);
                    let goes = newest && record.value.is_none() && !deletes_stay;
                    if goes {
                        self.tombstones_from = self.tombstones_from.max(record.offset + 1);
                    }
                    newest && !goes
                } else {
                    self.tally.keyless += 1;
                    false
                };
                tombstones |= keep && record.value.is_none() && !header.is_control();
                kept += i32::from(keep);
                self.keeps.push(keep);
            }
        }
        // From now on, and not from when it was written: what it deletes is gone with this pass (KIP-534).
        let marked = (tombstones || header.is_control() && done_with) && horizon.is_none();
        if kept == header.records_count && !marked {
            return Ok(Verdict::AsItIs);
        }
        if kept == 0 && !keep_empty {
            return Ok(Verdict::Drop);
        }
        Ok(Verdict::Some(FilterOptions {
            keep_empty,
            delete_horizon_ms: marked.then(|| now_ms.saturating_add(delete_retention_ms)),
            limits: Limits::ONE_RECORD,
        }))
    }
}

#[cfg(test)]
mod tests;
