//! Snapshots of a shard: objects `topic/…/snapshot/{offset}-{epoch}-{incarnation}`, put if absent.
//!
//! A snapshot is a shortcut and nothing else: it holds what replaying the log below its offset gives, is put only when
//! all of that is committed (A3), and a reader that does not find one, or cannot use it, replays. So nothing names
//! it, and which one is the newest is no question of safety.
//!
//! One more thing can make a snapshot wrong: a tombstone after its offset that compaction has dropped since. That takes
//! `delete.retention.ms` at the least, so a snapshot is used for that long less [`MARGIN_MS`], by the time in its header;
//! and when the option is lowered, snapshots from before are deleted ([`forget`]), lest it is raised again:
//!
//! | field | bytes |
//! | --- | --- |
//! | magic `DGS1` | 4 |
//! | when it was taken, Unix milliseconds | 8, big-endian |
//! | CRC32C of the two | 4, big-endian |
//! | the state, as `drumlin-coordinator` writes it | the rest |
//!
//! Deletion (D3): only a leader deletes, only once a newer one of its own is durable, and only what carries an older
//! epoch than its own or its own incarnation: never what a leader after it may have put. The newest two stay. Stale
//! ones are of no use to anybody, and wait for no newer one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
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

/// Clocks that are wrong by an hour or two, of this broker or of one before it, must not make a snapshot look young.
const MARGIN_MS: i64 = 3 * 3_600_000;
/// How often, and after which pause, the deletion of stale ones is tried again.
const FORGET_TRIES: usize = 120;
const FORGET_PAUSE: Duration = Duration::from_secs(5);
const MAGIC: [u8; 4] = *b"DGS1";
const HEADER: usize = 16;

/// A snapshot as it is stored.
fn frame(taken_ms: i64, state: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + state.len());
    out.put_slice(&MAGIC);
    out.put_i64(taken_ms);
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out.put_slice(state);
    out.freeze()
}

/// When it was taken, and the state; none where the header is not what was written.
fn unframe(stored: &Bytes) -> Option<(i64, Bytes)> {
    let (header, _) = stored.split_first_chunk::<HEADER>()?;
    let (front, mut rest) = header.split_at(HEADER - 4);
    if rest.get_u32() != crc32c::crc32c(front) {
        return None;
    }
    let mut taken = front.strip_prefix(&MAGIC)?;
    Some((taken.get_i64(), stored.slice(HEADER..)))
}

/// Whether no tombstone after a snapshot can have been dropped.
fn young(taken_ms: i64, now_ms: i64, delete_retention_ms: i64, stale_until_ms: i64) -> bool {
    if taken_ms <= stale_until_ms {
        return false;
    }
    let age = now_ms.saturating_sub(taken_ms);
    age >= -MARGIN_MS && age < delete_retention_ms.saturating_sub(MARGIN_MS)
}

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

fn usable(hub: &Hub, taken_ms: i64) -> bool {
    let now_ms = hub.env.now_ms();
    young(taken_ms, now_ms, hub.delete_retention_ms(), hub.stale_until_ms())
}

/// Deletes the snapshots of a partition that were taken before tombstones' time was shortened.
pub(super) async fn forget(hub: Arc<Hub>, partition: Arc<Partition>) {
    for _ in 0..FORGET_TRIES {
        match delete_older(&hub, &partition, None).await {
            Ok(()) => return,
            Err(error) => debug!(partition = %partition.id(), %error, "stale snapshots are not deleted yet"),
        }
        tokio::time::sleep(FORGET_PAUSE).await;
    }
    warn!(partition = %partition.id(), "snapshots from before delete.retention.ms was lowered are left");
}

/// The state in a snapshot, if it can be had and may be used.
pub(super) async fn read(hub: &Hub, partition: &Partition, name: &SnapshotName) -> Option<Bytes> {
    let key = name.key(&partition.id());
    match hub.bucket.get(&key, Reason::Recovery).await {
        Ok(stored) => match unframe(&stored) {
            Some((taken, state)) if usable(hub, taken) => Some(state),
            Some(_) => {
                debug!(key, "a snapshot is too old, passed over");
                None
            }
            None => {
                warn!(key, "a snapshot is damaged, passed over");
                None
            }
        },
        Err(error) => {
            warn!(key, %error, "a snapshot cannot be read, passed over");
            None
        }
    }
}

/// Puts a snapshot whose records are committed, and deletes those that it replaces.
pub(super) async fn put(hub: &Hub, partition: &Partition, name: SnapshotName, taken_ms: i64, bytes: Bytes) {
    if taken_ms <= hub.stale_until_ms() {
        return;
    }
    let id = partition.id();
    let key = name.key(&id);
    let size = bytes.len();
    let bytes = frame(taken_ms, &bytes);
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
    if let Err(error) = delete_older(hub, partition, Some(&name)).await {
        debug!(key, %error, "older snapshots were not deleted: the next one's turn");
    }
}

/// Deletes those that one newer than them replaces, but for the newest two; all of them where there is none.
async fn delete_older(
    hub: &Hub,
    partition: &Partition,
    newest: Option<&SnapshotName>,
) -> Result<(), StoreError> {
    let names = list(hub, partition, Reason::Sweep).await?;
    let older = names
        .into_iter()
        .filter(|name| newest.is_none_or(|newest| name.offset <= newest.offset))
        .skip(if newest.is_some() { KEPT } else { 0 });
    for name in older {
        let epoch = newest.map_or_else(|| partition.leader_epoch(), |newest| newest.epoch);
        if name.epoch < epoch || name.incarnation == hub.incarnation {
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
    fn the_header_is_read_as_written_and_nothing_else_is() {
        let stored = frame(1_700_000_000_000, b"state");
        assert_eq!(
            unframe(&stored),
            Some((1_700_000_000_000, Bytes::from_static(b"state")))
        );
        for cut in 0..HEADER {
            assert_eq!(unframe(&stored.slice(..cut)), None, "cut at {cut}");
            let mut flipped = stored.to_vec();
            flipped[cut] ^= 1;
            assert_eq!(unframe(&flipped.into()), None, "byte {cut}");
        }
    }

    #[test]
    fn a_snapshot_is_used_while_every_later_tombstone_is_there() {
        let day = 24 * 3_600_000;
        let young = |taken, now, retention| young(taken, now, retention, i64::MIN);
        assert!(young(0, day - MARGIN_MS - 1, day) && !young(0, day - MARGIN_MS, day));
        // The clock went back by more than it may be wrong.
        assert!(young(MARGIN_MS, 0, day) && !young(MARGIN_MS + 1, 0, day));
        assert!(!young(0, 0, 1_000));
    }

    #[test]
    fn a_snapshot_from_before_tombstones_time_was_shortened_is_not_used() {
        let day = 24 * 3_600_000;
        assert!(young(5, 10, day, 4));
        assert!(!young(4, 10, day, 4) && !young(3, 10, day, 4));
    }

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
