//! Deleting what a checkpoint has replaced, and the strays that late puts leave below it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::header::EntryKind;
use super::read::{newest_checkpoint, read_header};
use super::writer::{ChainWriter, Shared};
use super::{ChainError, ChainName, number_of};
use crate::bucket::Bucket;
use crate::error::StoreError;
use crate::stats::Reason;

/// Deletes on their way at a time. They are sent oldest first; readers begin at the newest checkpoint, so it
/// does not matter in which order a few neighbours go.
const DELETES_IN_FLIGHT: usize = 8;

/// What a writer knows of what lies below its checkpoints.
#[derive(Debug, Default)]
pub(super) struct TrimState {
    /// The bucket was looked at once: what earlier writers left is known.
    scanned: bool,
    /// All below was deleted, but for slot 0 and fences.
    floor: u64,
    /// The newest marker known to be durable.
    newest: Option<u64>,
    /// Superseded markers, and since when they are.
    superseded: BTreeMap<u64, Instant>,
}

impl TrimState {
    /// A marker is durable.
    pub(super) fn marked(&mut self, covers_below: u64) {
        if self.newest.is_none_or(|newest| newest < covers_below)
            && let Some(old) = self.newest.replace(covers_below)
        {
            self.superseded.insert(old, Instant::now());
        }
    }
}

impl ChainWriter {
    /// Deletes the entries below `below`, oldest first, as far as a checkpoint whose marker is durable covers
    /// them (rule D1): never slot 0 and never a fence (rules I1, F4). Also deletes markers that were superseded
    /// longer ago than [`ChainOptions::marker_grace`](super::ChainOptions) (rule F2). Returns how many objects
    /// it deleted; after an error, call again.
    pub async fn trim(&self, below: u64) -> Result<u64, ChainError> {
        let shared = &self.shared;
        let mut state = shared.trim.lock().await;
        if state.newest.is_none() {
            let found = newest_checkpoint(&shared.bucket, &shared.name, Reason::Sweep).await?;
            state.newest = found.map(|checkpoint| checkpoint.covers_below);
        }
        let Some(newest) = state.newest else { return Ok(0) };
        let below = below.min(newest);
        let mut deleted = trim_entries(shared, &mut state, below).await?;
        deleted += trim_markers(shared, &mut state).await?;
        Ok(deleted)
    }

    /// Looks for entries below the newest checkpoint that a late put created again (rule D4), and deletes them.
    pub async fn sweep_strays(&self) -> Result<u64, ChainError> {
        let floor = {
            let mut state = self.shared.trim.lock().await;
            state.scanned = false;
            state.floor
        };
        self.trim(floor).await
    }
}

async fn trim_entries(shared: &Shared, state: &mut TrimState, below: u64) -> Result<u64, ChainError> {
    let fences = shared.own_fences();
    let slots: Vec<u64> = if state.scanned {
        (state.floor..below)
            .filter(|slot| *slot != 0 && !fences.contains(slot))
            .collect()
    } else {
        // What lies at or above this is certainly this writer's, fences included.
        let own = shared.start.max(state.floor);
        let mut slots = Vec::new();
        for object in shared
            .bucket
            .list(&format!("{}/log", shared.name.prefix), None, Reason::Sweep)
            .await?
        {
            let Some(slot) = number_of(&object.key).filter(|slot| *slot != 0 && *slot < below) else {
                continue;
            };
            if slot >= own {
                if !fences.contains(&slot) {
                    slots.push(slot);
                }
            } else if !is_fence(&shared.bucket, &shared.name, slot).await? {
                slots.push(slot);
            }
        }
        scan_markers(shared, state).await?;
        slots
    };
    let deleted = delete_slots(&shared.bucket, &shared.name, slots).await?;
    state.scanned = true;
    state.floor = state.floor.max(below);
    Ok(deleted)
}

/// Markers that earlier writers, or late puts, left below the newest; their grace begins when they are seen.
async fn scan_markers(shared: &Shared, state: &mut TrimState) -> Result<(), ChainError> {
    let prefix = format!("{}/checkpoint", shared.name.prefix);
    for object in shared.bucket.list(&prefix, None, Reason::Sweep).await? {
        if let Some(covers_below) = number_of(&object.key)
            && state.newest.is_some_and(|newest| covers_below < newest)
        {
            state.superseded.entry(covers_below).or_insert_with(Instant::now);
        }
    }
    Ok(())
}

async fn trim_markers(shared: &Shared, state: &mut TrimState) -> Result<u64, ChainError> {
    let now = Instant::now();
    let old: BTreeSet<u64> = state
        .superseded
        .iter()
        .filter(|(_, since)| now.saturating_duration_since(**since) >= shared.options.marker_grace)
        .map(|(covers_below, _)| *covers_below)
        .collect();
    for covers_below in &old {
        shared
            .bucket
            .delete(&shared.name.marker_key(*covers_below), Reason::Sweep)
            .await?;
        state.superseded.remove(covers_below);
    }
    Ok(old.len() as u64)
}

async fn is_fence(bucket: &Bucket, name: &ChainName, slot: u64) -> Result<bool, ChainError> {
    let header = read_header(bucket, name, slot, Reason::Sweep).await?;
    Ok(header.is_some_and(|header| header.kind == EntryKind::Fence))
}

async fn delete_slots(bucket: &Bucket, name: &ChainName, slots: Vec<u64>) -> Result<u64, StoreError> {
    let count = slots.len() as u64;
    let keys: Vec<String> = slots.into_iter().map(|slot| name.entry_key(slot)).collect();
    for keys in keys.chunks(DELETES_IN_FLIGHT) {
        let mut deletes = Vec::with_capacity(keys.len());
        for key in keys {
            deletes.push(bucket.delete(key, Reason::Sweep));
        }
        futures::future::try_join_all(deletes).await?;
    }
    Ok(count)
}

/// Removes a chain that was fenced at `end` and that nothing pins any more (rule D3), but for the fence itself:
/// an owner that wakes up years later must still meet it, or its next put would count as committed. Returns how
/// many objects were deleted; after an error, call again.
///
/// Bodies and whatever else lies under the prefix go too.
pub async fn remove_chain(bucket: &Bucket, name: &ChainName, end: u64) -> Result<u64, StoreError> {
    let fence = name.entry_key(end);
    let mut deleted = 0;
    for object in bucket.list(&name.prefix, None, Reason::Sweep).await? {
        if object.key != fence {
            bucket.delete(&object.key, Reason::Sweep).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
