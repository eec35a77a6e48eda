//! Retention by time and size, and letting go of what a raised log start leaves behind.
//!
//! Retention only raises log starts, by an edit in the chain, as DeleteRecords does. Segments wholly below a log
//! start are deleted after that edit is committed (D3) and readers had their grace.
//!
//! A header's greatest timestamp may be wrong in batches that were stored without a look at their records: under
//! `record.validation=header`, or by a version that never looked. So what was sealed less than `retention.ms` ago, and is
//! older by its headers, does not go before its records were read and say the same.

use std::sync::Arc;

use drumlin_records::{BatchHeader, TimestampType, find_newest};

use crate::cleaner::filter::Batches;
use crate::cleaner::inputs::{Stretches, inputs};
use crate::keeper::Keeper;
use crate::log::Log;
use crate::partition::{Partition, Sealed};
use crate::read::{Failure, ReadError};
use crate::types::PartitionConfig;

/// Bytes of records that one check reads at most: the keeper seals meanwhile nothing.
const READ_PER_CHECK: u64 = 256 << 20;

/// A stretch of sealed data that retention keeps or drops as a whole.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    base_offset: i64,
    end_offset: i64,
    bytes: u64,
    /// When it was sealed, Unix milliseconds.
    sealed_ms: i64,
    /// Unix milliseconds: the largest timestamp, or when it was sealed if records carry none.
    newest_ms: i64,
    /// The timestamp is that of the records, and not only what headers say.
    read: bool,
}

impl Stretch {
    fn new(offsets: (i64, i64), bytes: u64, max_timestamp: i64, sealed_ms: i64) -> Self {
        Self {
            base_offset: offsets.0,
            end_offset: offsets.1,
            bytes,
            sealed_ms,
            newest_ms: newest(max_timestamp, sealed_ms),
            read: false,
        }
    }
}

/// What becomes of the oldest data of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    /// Where the log starts then; none if nothing goes.
    log_start: Option<i64>,
    /// The next stretch may have to go too, which its records decide: by index.
    undecided: Option<usize>,
}

impl Keeper {
    /// Raises the log starts of partitions that hold more, or older data, than their topics keep.
    pub(crate) async fn retention(&mut self) {
        let partitions = self.log.open_partitions();
        let now_ms = self.log.shared().wal.env.now_ms();
        let mut moves = Vec::new();
        let mut budget = READ_PER_CHECK;
        for partition in partitions {
            let (config, sealed, log_start, hot_bytes) = {
                let inner = partition.lock();
                if inner.deleted || inner.broken.is_some() || !inner.config.delete {
                    continue;
                }
                (
                    Arc::clone(&inner.config),
                    Arc::clone(&inner.sealed),
                    inner.log_start,
                    inner.hot_bytes,
                )
            };
            let mut stretches = match self.stretches(&config, &sealed, now_ms, hot_bytes).await {
                Ok(stretches) => stretches,
                Err(error) => {
                    tracing::warn!(%error, partition = %partition.id(), "retention passed a partition over");
                    continue;
                }
            };
            let total = sealed.bytes() + hot_bytes;
            partition.forget_read_below(log_start);
            let start = self
                .decide(&partition, &sealed, &config, &mut stretches, total, &mut budget)
                .await;
            if let Some(start) = start.filter(|new| *new > log_start) {
                moves.push((partition, start));
            }
        }
        if !moves.is_empty()
            && let Err(error) = self.log.shared().wal.append_edits(moves).await
        {
            tracing::warn!(%error, "retention was not committed");
        }
    }

    /// Where the log of a partition starts after retention, with a look at records where headers may be wrong.
    async fn decide(
        &self,
        partition: &Arc<Partition>,
        sealed: &Sealed,
        config: &PartitionConfig,
        stretches: &mut [Stretch],
        total: u64,
        budget: &mut u64,
    ) -> Option<i64> {
        let wal = &self.log.shared().wal;
        let interval = i64::try_from(wal.options.retention_interval.as_millis()).unwrap_or(i64::MAX);
        loop {
            let outcome = judge(config, stretches, total, wal.env.now_ms(), interval);
            let stretch = outcome.undecided.and_then(|at| stretches.get_mut(at));
            let Some(stretch) = stretch.filter(|stretch| stretch.bytes <= *budget) else {
                return outcome.log_start;
            };
            let offsets = (stretch.base_offset, stretch.end_offset);
            let known = partition.newest_read(offsets);
            let newest_read = match known {
                Some(newest) => Ok(newest),
                None => {
                    *budget -= stretch.bytes;
                    newest_of_records(&self.log, partition, sealed, offsets).await
                }
            };
            match newest_read {
                Ok(found) => {
                    partition.note_newest_read(offsets, found);
                    stretch.newest_ms = newest(found, stretch.sealed_ms);
                    stretch.read = true;
                }
                Err(error) => {
                    let error = ReadError::from(error);
                    tracing::warn!(%error, partition = %partition.id(), "retention could not read records, and keeps them");
                    return outcome.log_start;
                }
            }
        }
    }

    /// The oldest sealed data first; leaves are looked into only where their end may be due.
    async fn stretches(
        &self,
        config: &PartitionConfig,
        sealed: &Sealed,
        now_ms: i64,
        hot_bytes: u64,
    ) -> Result<Vec<Stretch>, crate::read::ReadError> {
        let mut stretches = Vec::new();
        let oversized = config
            .retention_bytes
            .is_some_and(|limit| sealed.bytes() + hot_bytes > limit);
        for leaf in &sealed.leaves {
            if config.retention_ms.is_none() && !oversized {
                break;
            }
            let table = self.log.cold().leaf_table(&self.log, leaf).await?;
            let before = stretches.len();
            stretches.extend(table.iter().map(|row| {
                let segment = &row.segment;
                let offsets = (segment.base_offset, segment.end_offset);
                Stretch::new(offsets, segment.size, segment.max_timestamp, segment.sealed_ms)
            }));
            // The first segment that stays ends the search: no later leaf need be read.
            let kept = stretches[before..]
                .iter()
                .any(|stretch| !expired(config, stretch, now_ms));
            if kept && !oversized {
                break;
            }
        }
        stretches.extend(sealed.segments().map(|segment| {
            let offsets = (segment.base_offset, segment.end_offset);
            Stretch::new(offsets, segment.size, segment.max_timestamp, segment.sealed_ms)
        }));
        stretches.extend(sealed.spans.iter().map(|span| {
            let offsets = (span.base_offset, span.end_offset);
            Stretch::new(offsets, span.length, span.max_timestamp, span.sealed_ms)
        }));
        Ok(stretches)
    }

    /// Lets go of sealed data below the log starts, as far as edits are committed; its objects become trash.
    pub(crate) async fn prune(&mut self) {
        let log = self.log.clone();
        let due = std::mem::take(&mut self.prune_due);
        if due.is_empty() {
            return;
        }
        let at = log.shared().wal.env.instant() + self.grace(log.shared().wal.options.segment_grace);
        for id in due {
            let Some(partition) = log.partition(&id) else {
                continue;
            };
            let (sealed, log_start) = {
                let inner = partition.lock();
                (Arc::clone(&inner.sealed), inner.log_start)
            };
            let pruned = self.pruned.get(&id).copied().unwrap_or(0);
            if log_start <= pruned {
                continue;
            }
            let mut keys = Vec::new();
            let mut failed = false;
            for leaf in sealed.leaves.iter().filter(|leaf| leaf.base_offset < log_start) {
                match log.cold().leaf_table(&log, leaf).await {
                    Ok(table) => keys.extend(
                        table
                            .iter()
                            .filter(|row| {
                                row.segment.end_offset > pruned && row.segment.end_offset <= log_start
                            })
                            .map(|row| row.segment.key(&id)),
                    ),
                    Err(error) => {
                        let error = crate::read::ReadError::from(error);
                        tracing::warn!(%error, leaf = %leaf.key, "dropped segments are not known; trying again later");
                        failed = true;
                    }
                }
            }
            if failed {
                self.prune_due.insert(id);
                continue;
            }
            let dropped = sealed
                .segments()
                .filter(|segment| segment.end_offset <= log_start);
            keys.extend(dropped.map(|segment| segment.key(&id)));
            let dropped = sealed.leaves.iter().filter(|leaf| leaf.end_offset <= log_start);
            keys.extend(dropped.map(|leaf| leaf.key.to_string()));
            let mut left = Sealed::clone(&sealed);
            left.drop_below(log_start);
            partition.lock().sealed = Arc::new(left);
            self.delete_at(at, keys);
            self.pruned.insert(id, log_start);
        }
    }
}

fn newest(max_timestamp: i64, sealed_ms: i64) -> i64 {
    if max_timestamp >= 0 {
        max_timestamp
    } else {
        sealed_ms
    }
}

fn expired(config: &PartitionConfig, stretch: &Stretch, now_ms: i64) -> bool {
    config
        .retention_ms
        .is_some_and(|limit| now_ms.saturating_sub(stretch.newest_ms) > limit)
}

/// What retention drops, and what it has to look into first. `interval` is the time to the next check, milliseconds.
fn judge(config: &PartitionConfig, stretches: &[Stretch], total: u64, now_ms: i64, interval: i64) -> Outcome {
    let mut left = total;
    let mut outcome = Outcome {
        log_start: None,
        undecided: None,
    };
    for (at, stretch) in stretches.iter().enumerate() {
        let over = config
            .retention_bytes
            .is_some_and(|limit| left.saturating_sub(stretch.bytes) >= limit);
        if !over {
            if !expired(config, stretch, now_ms) {
                break;
            }
            let sealed_for = now_ms.saturating_sub(stretch.sealed_ms);
            let retention = config.retention_ms.unwrap_or(i64::MAX);
            // No record is newer than its sealing, but for clocks that are ahead.
            if !stretch.read && sealed_for <= retention {
                // At the next check this may be settled without a read: records are sealed soon after they are written.
                let soon = sealed_for.saturating_add(interval) > retention;
                outcome.undecided = (!soon).then_some(at);
                break;
            }
        }
        left -= stretch.bytes.min(left);
        outcome.log_start = Some(stretch.end_offset);
    }
    outcome
}

/// The newest timestamp of the records of the sealed piece with these offsets; -1 if none carries one. A batch that cannot
/// be decoded counts by its header.
async fn newest_of_records(
    log: &Log,
    partition: &Arc<Partition>,
    sealed: &Sealed,
    offsets: (i64, i64),
) -> Result<i64, Failure> {
    let inputs = inputs(log, sealed, offsets.0).await?;
    let piece = inputs
        .into_iter()
        .find(|input| (input.base_offset, input.end_offset) == offsets);
    let Some(piece) = piece else {
        return Err(Failure::Error(ReadError::Corrupt {
            what: format!("no object holds offsets {} to {}", offsets.0, offsets.1),
        }));
    };
    let source = piece.source(log).await?;
    let mut stretches = Stretches::new(log, partition.id(), &source);
    let mut batches = Batches::default();
    let mut newest = -1;
    while let Some(bytes) = stretches.next().await? {
        let partition = Arc::clone(partition);
        let work = move || {
            let mut found = -1;
            let pushed = batches.push(&bytes, |header, batch| {
                found = newest_of_batch(&partition, header, batch).max(found);
                Ok(true)
            });
            (batches, pushed.map(|_| found))
        };
        let (back, found) = log.shared().wal.env.blocking(work).await;
        batches = back;
        newest = found?.max(newest);
    }
    Ok(newest)
}

fn newest_of_batch(partition: &Partition, header: &BatchHeader, batch: &[u8]) -> i64 {
    if header.timestamp_type() == TimestampType::LogAppendTime || header.is_control() {
        return header.max_timestamp;
    }
    match find_newest(batch, 0) {
        Ok(found) => found.map_or(-1, |found| found.timestamp),
        Err(error) => {
            partition.note_undecodable(header.base_offset, &error);
            header.max_timestamp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: i64 = 100;

    /// Sealed long ago.
    fn stretch(end_offset: i64, newest_ms: i64) -> Stretch {
        Stretch::new((end_offset - 10, end_offset), 100, newest_ms, 0)
    }

    fn kept_for(retention_ms: i64) -> PartitionConfig {
        PartitionConfig {
            retention_ms: Some(retention_ms),
            ..PartitionConfig::default()
        }
    }

    fn new_log_start(
        config: &PartitionConfig,
        stretches: &[Stretch],
        total: u64,
        now_ms: i64,
    ) -> Option<i64> {
        let outcome = judge(config, stretches, total, now_ms, INTERVAL);
        assert_eq!(outcome.undecided, None);
        outcome.log_start
    }

    #[test]
    fn the_oldest_goes_first_and_the_first_that_stays_ends_it() {
        let stretches = [stretch(10, 1_000), stretch(20, 9_000), stretch(30, 2_000)];
        let by_time = kept_for(5_000);
        assert_eq!(new_log_start(&by_time, &stretches, 300, 10_000), Some(10));
        assert_eq!(new_log_start(&by_time, &stretches, 300, 5_000), None);
        let by_size = PartitionConfig {
            retention_ms: None,
            retention_bytes: Some(150),
            ..PartitionConfig::default()
        };
        assert_eq!(new_log_start(&by_size, &stretches, 300, 10_000), Some(10));
        assert_eq!(new_log_start(&by_size, &stretches, 350, 10_000), Some(20));
        assert_eq!(
            new_log_start(&PartitionConfig::default(), &stretches, 300, 10_000),
            None
        );
    }

    #[test]
    fn what_was_sealed_lately_and_says_that_it_is_old_is_read_before_it_goes() {
        let lately = Stretch {
            sealed_ms: 98_000,
            ..stretch(20, 1_000)
        };
        let stretches = [stretch(10, 1_000), lately, stretch(30, 2_000)];
        let judged = |stretches: &[Stretch], now_ms| {
            let outcome = judge(&kept_for(5_000), stretches, 300, now_ms, INTERVAL);
            (outcome.log_start, outcome.undecided)
        };
        assert_eq!(judged(&stretches, 100_000), (Some(10), Some(1)));
        assert_eq!(
            judged(&stretches, 102_950),
            (Some(10), None),
            "the next check will know without a read"
        );
        assert_eq!(judged(&stretches, 103_001), (Some(30), None));
        let read = |newest_ms| {
            let mut stretches = stretches;
            stretches[1] = Stretch {
                newest_ms,
                read: true,
                ..lately
            };
            stretches
        };
        assert_eq!(
            judged(&read(1_000), 100_000),
            (Some(30), None),
            "its records say so too"
        );
        assert_eq!(
            judged(&read(97_000), 100_000),
            (Some(10), None),
            "its records are new"
        );
        let by_size = PartitionConfig {
            retention_bytes: Some(100),
            ..kept_for(5_000)
        };
        let outcome = judge(&by_size, &stretches, 300, 100_000, INTERVAL);
        assert_eq!(outcome.log_start, Some(30), "size asks nobody");
    }
}
