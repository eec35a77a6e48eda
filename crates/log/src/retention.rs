//! Retention by time and size, and letting go of what a raised log start leaves behind.
//!
//! Retention only raises log starts, by an edit in the chain, as DeleteRecords does. Segments wholly below a log
//! start are deleted after that edit is committed (D3) and readers had their grace.

use std::sync::Arc;

use crate::keeper::Keeper;
use crate::partition::Sealed;
use crate::types::PartitionConfig;

/// A stretch of sealed data that retention keeps or drops as a whole.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    end_offset: i64,
    bytes: u64,
    /// Unix milliseconds: the largest timestamp, or when it was sealed if records carry none.
    newest_ms: i64,
}

impl Keeper {
    /// Raises the log starts of partitions that hold more, or older data, than their topics keep.
    pub(crate) async fn retention(&mut self) {
        let partitions = self.log.open_partitions();
        let now_ms = self.log.shared().wal.env.now_ms();
        let mut moves = Vec::new();
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
            let stretches = match self.stretches(&config, &sealed, now_ms, hot_bytes).await {
                Ok(stretches) => stretches,
                Err(error) => {
                    tracing::warn!(%error, partition = %partition.id(), "retention passed a partition over");
                    continue;
                }
            };
            let total = sealed.bytes() + hot_bytes;
            if let Some(start) =
                new_log_start(&config, &stretches, total, now_ms).filter(|new| *new > log_start)
            {
                moves.push((partition, start));
            }
        }
        if !moves.is_empty()
            && let Err(error) = self.log.shared().wal.append_edits(moves).await
        {
            tracing::warn!(%error, "retention was not committed");
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
            stretches.extend(table.iter().map(|row| Stretch {
                end_offset: row.segment.end_offset,
                bytes: row.segment.size,
                newest_ms: newest(row.segment.max_timestamp, row.segment.sealed_ms),
            }));
            // The first segment that stays ends the search: no later leaf need be read.
            let kept = stretches[before..]
                .iter()
                .any(|stretch| !expired(config, stretch, now_ms));
            if kept && !oversized {
                break;
            }
        }
        stretches.extend(sealed.segments().map(|segment| Stretch {
            end_offset: segment.end_offset,
            bytes: segment.size,
            newest_ms: newest(segment.max_timestamp, segment.sealed_ms),
        }));
        stretches.extend(sealed.spans.iter().map(|span| Stretch {
            end_offset: span.end_offset,
            bytes: span.length,
            newest_ms: newest(span.max_timestamp, span.sealed_ms),
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

/// Where the log starts after retention; none if nothing goes.
fn new_log_start(config: &PartitionConfig, stretches: &[Stretch], total: u64, now_ms: i64) -> Option<i64> {
    let mut left = total;
    let mut start = None;
    for stretch in stretches {
        let over = config
            .retention_bytes
            .is_some_and(|limit| left.saturating_sub(stretch.bytes) >= limit);
        if !over && !expired(config, stretch, now_ms) {
            break;
        }
        left -= stretch.bytes.min(left);
        start = Some(stretch.end_offset);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_the_first_that_stays_ends_it() {
        let stretch = |end_offset, newest_ms| Stretch {
            end_offset,
            bytes: 100,
            newest_ms,
        };
        let stretches = [stretch(10, 1_000), stretch(20, 9_000), stretch(30, 2_000)];
        let by_time = PartitionConfig {
            retention_ms: Some(5_000),
            ..PartitionConfig::default()
        };
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
}
