//! Snapshots of a shard: objects `topic/…/snapshot/{offset}-{epoch}-{incarnation}`, put if absent.
//!
//! A snapshot is a shortcut and nothing else: it holds what replaying the log below its offset gives, is put only when
//! all of that is committed (A3), and a reader that does not find one, or cannot use it, replays. So nothing names
//! it, and which one is the newest is no question of safety.
//!
//! One more thing can make a snapshot wrong: a tombstone at or after its offset that compaction has dropped since, so
//! that replay does not meet it. The log says below which offset tombstones were ever dropped
//! ([`Partition::tombstones_from`]), in the same commit that drops them, and for ever: a snapshot below that is never
//! used again. No clock and no option is asked, and it does not matter who put it when. What is dropped while a shard
//! is loading is [`load`](super::load)'s business.
//!
//! An object is the state as `drumlin-coordinator` writes it.
//!
//! Deletion (D3): only a leader deletes, only once a newer one of its own is durable, and only what carries an older
//! epoch than its own or its own incarnation: never what a leader after it may have put. The newest two stay.

use bytes::Bytes;
use drumlin_coordinator::Topics;
use drumlin_log::{Partition, SnapshotName, snapshot_prefix};
use drumlin_objects::{PutNewError, Reason, StoreError};
use drumlin_wire::Uuid;
use tracing::{debug, warn};

use super::Hub;

/// Snapshots that are kept: the newest, and one to fall back on.
const KEPT: usize = 2;
/// Records since the last snapshot that make one worth its while, in any case.
const RECORDS_MIN: u64 = 10_000;
/// And as many as this times what is live.
const PER_LIVE: u64 = 4;
/// At a clean stop the next start is near.
const RECORDS_AT_STOP: u64 = 2_000;

/// Whether so many records since the last snapshot make one due.
fn due(since: u64, live: u64) -> bool {
    since >= RECORDS_MIN && since >= live.saturating_mul(PER_LIVE)
}

/// When a shard looked whether a snapshot is due: counting what is live is not free.
#[derive(Default)]
pub(super) struct Looks {
    /// Records since the last snapshot, at the last look.
    at: u64,
}

impl Looks {
    /// Whether one is due. `live` is asked only when there may be a point in it.
    pub fn due(&mut self, since: u64, live: impl FnOnce() -> u64) -> bool {
        if since < self.at {
            // There was a snapshot, or the shard was loaded.
            self.at = 0;
        }
        if since < self.at.saturating_add(RECORDS_MIN) {
            return false;
        }
        self.at = since;
        due(since, live())
    }
}

/// The same when the broker stops and would replay them soon.
pub(super) fn due_at_stop(since: u64, live: u64) -> bool {
    since >= RECORDS_AT_STOP && since >= live / 2
}

/// Names in the bucket, those of the largest offset first; none where the store does not answer.
pub(super) async fn newest_first(hub: &Hub, partition: &Partition) -> Vec<SnapshotName> {
    match list(hub, partition, Reason::Recovery).await {
        Ok(names) => names,
        Err(error) => {
            warn!(partition = %partition.id(), %error, "snapshots cannot be listed: everything is replayed");
            Vec::new()
        }
    }
}

async fn list(hub: &Hub, partition: &Partition, why: Reason) -> Result<Vec<SnapshotName>, StoreError> {
    let listed = hub
        .bucket
        .list(&snapshot_prefix(&partition.id()), None, why)
        .await?;
    let mut names: Vec<SnapshotName> = listed
        .iter()
        .filter_map(|object| SnapshotName::parse(&object.key))
        .collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// The state in a snapshot, if it can be had.
pub(super) async fn read(hub: &Hub, partition: &Partition, name: &SnapshotName) -> Option<Bytes> {
    let key = name.key(&partition.id());
    match hub.bucket.get(&key, Reason::Recovery).await {
        Ok(state) => Some(state),
        Err(error) => {
            warn!(key, %error, "a snapshot cannot be read, passed over");
            None
        }
    }
}

/// Puts a snapshot whose records are committed, and deletes those that it replaces.
pub(super) async fn put(hub: &Hub, partition: &Partition, name: SnapshotName, bytes: Bytes) {
    let id = partition.id();
    let key = name.key(&id);
    let size = bytes.len();
    match hub.bucket.put_new(&key, bytes, Reason::Checkpoint).await {
        // The name says all that matters: an own put whose answer was lost.
        Ok(()) | Err(PutNewError::Exists { .. }) => {}
        Err(PutNewError::Store(error)) => {
            debug!(key, %error, "a snapshot was not put: later again");
            return;
        }
    }
    // A topic that was deleted meanwhile may have been swept already: nobody else would find this.
    if hub.view().by_id(Uuid(id.topic.0)).is_none() {
        if let Err(error) = hub.bucket.delete(&key, Reason::Sweep).await {
            warn!(key, %error, "a snapshot of a deleted topic is left");
        }
        return;
    }
    debug!(key, size, "snapshot of a group coordinator");
    hub.totals.snapshot(size);
    if let Err(error) = delete_older(hub, partition, &name).await {
        debug!(key, %error, "older snapshots were not deleted: the next one's turn");
    }
}

/// Deletes those that one newer than them replaces, but for the newest two.
async fn delete_older(hub: &Hub, partition: &Partition, newest: &SnapshotName) -> Result<(), StoreError> {
    let names = list(hub, partition, Reason::Sweep).await?;
    let older = names
        .into_iter()
        .filter(|name| name.offset <= newest.offset)
        .skip(KEPT);
    for name in older {
        if name.epoch < newest.epoch || name.incarnation == hub.incarnation {
            let key = name.key(&partition.id());
            hub.bucket.delete(&key, Reason::Sweep).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_live_is_counted_once_in_so_many_records() {
        let mut looks = Looks::default();
        let mut counted = 0;
        let mut due_at = Vec::new();
        let mut since = 0;
        for n in 1..=200_000u32 {
            since += 1;
            let count = || {
                counted += 1;
                20_000
            };
            if looks.due(since, count) {
                due_at.push(n);
                since = 0;
            }
        }
        assert_eq!((counted, due_at), (20, vec![80_000, 160_000]));
    }

    #[test]
    fn a_snapshot_is_due_when_it_saves_more_than_it_costs() {
        assert!(!due(9_999, 0) && due(10_000, 0));
        assert!(!due(39_999, 10_000) && due(40_000, 10_000));
        assert!(!due_at_stop(1_999, 0) && due_at_stop(2_000, 0) && !due_at_stop(2_000, 5_000));
    }
}
