//! Entries that are missing though they were committed: somebody deleted them.
//!
//! An owner dispatches slot `n` only when `n < first uncommitted + 16` (rule A1), whatever smaller window it was
//! configured with. So an entry 16 or more slots above a hole proves that the hole was committed. Fences prove
//! nothing: a stopper (rule F3) stands exactly that far above. A hole that is nearer may be a put that never arrived.
//!
//! Who goes on without such an entry puts an entry of kind [`EntryKind::GivenUp`] in its place, so that the chain
//! joins again; what that means for the records is its reader's business.

use bytes::BytesMut;

use super::header::{ENTRY_HEADER_LEN, EntryKind};
use super::read::{SlotPut, newest_checkpoint, put_slot, read_header};
use super::writer::freeze;
use super::{ChainError, ChainName, FENCE_LEN, MAX_WINDOW, number_of};
use crate::bucket::{Bucket, Listed};
use crate::stats::Reason;

/// What an entry says that stands in place of one that was given up.
const GIVEN_UP: &[u8] = b"given up with `drumlin store give-up`: the entry was missing\n";

/// Committed entries of a chain that are missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingEntries {
    /// The chain's prefix.
    pub prefix: String,
    /// Their slots, the lowest first; never empty.
    pub slots: Vec<u64>,
    /// The entry that proves it.
    pub proof: u64,
}

impl MissingEntries {
    /// Their keys.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.slots
            .iter()
            .map(|slot| super::entry_key(&self.prefix, *slot))
    }

    /// Names the first few, for a line of the log.
    pub(super) fn names(&self) -> String {
        const NAMED: usize = 5;
        let named: Vec<String> = self.keys().take(NAMED).collect();
        let more = self.slots.len().saturating_sub(NAMED);
        match more {
            0 => named.join(" "),
            _ => format!(
                "{} and {more} more (`drumlin store check` names all)",
                named.join(" ")
            ),
        }
    }
}

/// The committed entries that are missing above the newest checkpoint, if there are any. Changes nothing.
pub async fn missing_entries(
    bucket: &Bucket,
    name: &ChainName,
    why: Reason,
) -> Result<Option<MissingEntries>, ChainError> {
    loop {
        let checkpoint = newest_checkpoint(bucket, name, why).await?;
        let from = checkpoint.map_or(0, |checkpoint| checkpoint.covers_below);
        let listed = list_from(bucket, name, from, why).await?;
        match find_missing(bucket, name, &listed, from, why).await? {
            Search::None => return Ok(None),
            Search::Found(missing) => return Ok(Some(missing)),
            Search::Changed => {}
        }
    }
}

/// The chain's entries from a slot on, as a list shows them.
pub(super) async fn list_from(
    bucket: &Bucket,
    name: &ChainName,
    from: u64,
    why: Reason,
) -> Result<Vec<Listed>, ChainError> {
    let after = from.checked_sub(1).map(|slot| name.entry_key(slot));
    let prefix = format!("{}/log", name.prefix);
    Ok(bucket.list(&prefix, after.as_deref(), why).await?)
}

/// The outcome of [`find_missing`].
pub(super) enum Search {
    None,
    Found(MissingEntries),
    /// The chain moved on beneath the list.
    Changed,
}

/// Looks for entries that are missing from `from`, the newest checkpoint, on; `listed` was listed after that was read.
pub(super) async fn find_missing(
    bucket: &Bucket,
    name: &ChainName,
    listed: &[Listed],
    from: u64,
    why: Reason,
) -> Result<Search, ChainError> {
    let objects = listed.iter().filter_map(|object| {
        let slot = number_of(&object.key).filter(|slot| *slot >= from)?;
        Some((slot, object.size == FENCE_LEN as u64))
    });
    let objects: Vec<(u64, bool)> = objects.collect();
    // The first slot that is empty or a fence's: all below are entries.
    let (mut end, mut fenced) = (from, false);
    for (slot, may_be_fence) in objects.iter().copied() {
        if slot > end {
            break;
        }
        if may_be_fence && is_fence(bucket, name, slot, why).await? {
            fenced = true;
            break;
        }
        end += 1;
    }
    let above = objects
        .iter()
        .rev()
        .take_while(|(slot, _)| *slot >= end + MAX_WINDOW);
    let mut proof = None;
    for (slot, _) in above {
        // Only what is certainly an entry of this chain proves anything.
        match read_header(bucket, name, *slot, why).await {
            Ok(Some(header)) if header.kind != EntryKind::Fence => {
                proof = Some(*slot);
                break;
            }
            Ok(_) | Err(ChainError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let Some(proof) = proof else {
        return Ok(Search::None);
    };
    // A list is no snapshot, and a live owner may have moved on: the proof was seen, so what is not there now was deleted;
    // rightly, if a checkpoint has replaced it meanwhile (its marker comes before deletions, rule D1).
    let there = !fenced && read_header(bucket, name, end, why).await?.is_some();
    let newest = newest_checkpoint(bucket, name, why).await?;
    if there || newest.is_some_and(|checkpoint| checkpoint.covers_below > end) {
        return Ok(Search::Changed);
    }
    let mut slots = Vec::new();
    let mut next = end;
    for (slot, may_be_fence) in objects.into_iter().filter(|(slot, _)| *slot >= end) {
        slots.extend(next..slot.min(proof - MAX_WINDOW + 1));
        next = slot + 1;
        if slot > proof - MAX_WINDOW {
            break;
        }
        if may_be_fence && is_fence(bucket, name, slot, why).await? {
            slots.push(slot);
        }
    }
    let prefix = name.prefix.clone();
    Ok(Search::Found(MissingEntries { prefix, slots, proof }))
}

async fn is_fence(bucket: &Bucket, name: &ChainName, slot: u64, why: Reason) -> Result<bool, ChainError> {
    match read_header(bucket, name, slot, why).await {
        Ok(header) => Ok(header.is_some_and(|header| header.kind == EntryKind::Fence)),
        Err(ChainError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts an entry in place of a missing one, so that the chain joins again. `slot` must be one of [`missing_entries`]:
/// only then is it certain that no owner puts it again. Answers false if somebody else has put something there.
///
/// A fence that a start of an older version put into the hole gives way: it ends nothing, since entries above it were
/// committed, and the slot stays taken.
pub async fn give_up_entry(
    bucket: &Bucket,
    name: &ChainName,
    slot: u64,
    why: Reason,
) -> Result<bool, ChainError> {
    if is_fence(bucket, name, slot, why).await? {
        bucket.delete(&name.entry_key(slot), why).await?;
    }
    let put_id = bucket.env().random_id();
    let mut body = BytesMut::zeroed(ENTRY_HEADER_LEN);
    body.extend_from_slice(GIVEN_UP);
    let bytes = freeze(EntryKind::GivenUp, name, slot, put_id, 0, body, 0);
    Ok(put_slot(bucket, name, slot, put_id, &bytes, why).await? == SlotPut::Ours)
}
