//! Loading a shard: a snapshot if there is one, and every committed record after it, in order.
//!
//! Speaks of committed state only (R3): it reads up to the high watermark, and begins only when nothing of this partition
//! is under way. A store that is away, or damaged data, makes it wait and try again; meanwhile the shard answers
//! COORDINATOR_LOAD_IN_PROGRESS, never an offset (R2).

use std::sync::Arc;
use std::time::Duration;

use drumlin_coordinator::{ReplayError, Shard, SnapshotInfo};
use drumlin_log::{Partition, ReadError};
use drumlin_records::{BatchError, Limits, RecordReader, iter_batches};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Hub, snapshot};

/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Fewer records than this are replayed without a look for a snapshot.
const REPLAY_ANYWAY: i64 = 2_000;

/// A loaded shard.
pub(super) struct Loaded {
    pub shard: Shard,
    /// Everything below is in it.
    pub end: i64,
    /// Records that were replayed.
    pub replayed: u64,
}

/// Why a load has to be tried again.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("records: {0}")]
    Records(#[from] BatchError),
    #[error("{0}")]
    Replay(#[from] ReplayError),
    #[error("records at offset {0} are missing")]
    Gap(i64),
    #[error("compaction has dropped tombstones below offset {0} meanwhile")]
    Compacted(i64),
}

/// Loads, for as long as it takes.
pub(super) async fn load(hub: Arc<Hub>, n: i32, partition: Arc<Partition>) -> Loaded {
    let mut pause = Duration::from_millis(200);
    let began = Instant::now();
    loop {
        // What an earlier shard of this process appended is its own until it is committed. Waited for without a
        // place: others, whose records are committed, can load meanwhile.
        while partition.high_watermark() < partition.log_end_offset() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let outcome = {
            // Never closed; were it, loads would only not be paced.
            let _place = hub.loads.acquire().await.ok();
            try_load(&hub, n, &partition).await
        };
        match outcome {
            Ok(loaded) => {
                hub.totals.loaded(began.elapsed(), loaded.replayed);
                if loaded.replayed > 0 {
                    let (records, took) = (loaded.replayed, began.elapsed());
                    info!(
                        partition = n,
                        records,
                        end = loaded.end,
                        ?took,
                        "group coordinator loaded"
                    );
                }
                return loaded;
            }
            Err(error) => {
                warn!(partition = n, %error, again_in = ?pause, "a group coordinator cannot be loaded, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn try_load(hub: &Hub, n: i32, partition: &Arc<Partition>) -> Result<Loaded, LoadError> {
    let end = partition.high_watermark();
    let start = partition.log_start_offset();
    let gone_below = partition.tombstones_from();
    let mut shard = None;
    if end - start >= REPLAY_ANYWAY {
        // A tombstone that it does not cover must still be there.
        let oldest = gone_below.max(start + 1);
        shard = restore(hub, n, partition, oldest, end).await;
    }
    let (mut shard, from) = match shard {
        Some((shard, info)) => (shard, info.covers),
        None => (new_shard(hub, n), start),
    };
    let replayed = replay(hub, partition, &mut shard, from, end).await?;
    // One that went before replay came to it, while what it deletes was taken from the snapshot, or read before it went.
    // Nobody appends here meanwhile, so that compaction soon has nothing more to do.
    let gone_now = partition.tombstones_from();
    if gone_now > gone_below.max(from) {
        return Err(LoadError::Compacted(gone_now));
    }
    Ok(Loaded { shard, end, replayed })
}

fn new_shard(hub: &Hub, n: i32) -> Shard {
    let mut shard = Shard::new(n, Arc::clone(&hub.config().coordinator), hub.env.random_u64());
    shard.count_members_in(Arc::clone(&hub.members));
    shard
}

/// The newest snapshot that is sound, of this log's history, and covers neither less nor more than it may.
async fn restore(
    hub: &Hub,
    n: i32,
    partition: &Partition,
    oldest: i64,
    end: i64,
) -> Option<(Shard, SnapshotInfo)> {
    for name in snapshot::newest_first(hub, partition).await {
        // A committed (epoch, offset) names one record for ever (A5): one that is not of this log is of no use.
        if name.offset < oldest || name.offset > end {
            continue;
        }
        let Some(bytes) = snapshot::read(hub, partition, &name).await else {
            continue;
        };
        let mut shard = new_shard(hub, n);
        match shard.restore(&bytes) {
            Ok(info)
                if info.covers == name.offset && info.leader_epoch == partition.epoch_at(info.covers - 1) =>
            {
                debug!(
                    partition = n,
                    covers = info.covers,
                    bytes = bytes.len(),
                    "snapshot restored"
                );
                hub.totals.restored();
                return Some((shard, info));
            }
            Ok(info) => warn!(
                partition = n,
                ?name,
                ?info,
                "a snapshot is of another history, passed over"
            ),
            Err(error) => warn!(partition = n, ?name, %error, "a snapshot cannot be used, passed over"),
        }
    }
    None
}

async fn replay(
    hub: &Hub,
    partition: &Arc<Partition>,
    shard: &mut Shard,
    from: i64,
    end: i64,
) -> Result<u64, LoadError> {
    let chunk = hub.config().load_buffer.as_usize();
    let mut next = from;
    let mut records = 0;
    while next < end {
        // If the log's start has moved up meanwhile, tombstones of what was read may have gone: all of it again.
        let read = hub.log.read(partition, next, chunk, true).await?;
        let before = next;
        for bytes in &read.records {
            for batch in iter_batches(bytes) {
                let (at, header) = batch?;
                if header.last_offset() < next {
                    continue;
                }
                next = header.last_offset() + 1;
                if header.is_control() {
                    continue;
                }
                let mut reader = RecordReader::new(&bytes[at..], Limits::default())?;
                while let Some(record) = reader.next_record()? {
                    // The batch that holds the first offset may begin below it.
                    if record.offset < from || record.offset >= end {
                        continue;
                    }
                    if let Some(key) = record.key {
                        shard.replay(key, record.value, record.offset, record.timestamp)?;
                        records += 1;
                    }
                }
            }
        }
        // Compaction may have left nothing for long stretches.
        next = next.max(read.next_offset);
        if next == before {
            return Err(LoadError::Gap(next));
        }
        // Replay is all work and no wait: others want the thread too.
        tokio::task::yield_now().await;
    }
    Ok(records)
}
