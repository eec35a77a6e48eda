//! Taking over: putting an end to a chain whose owner may be alive, asleep or dead.
//!
//! Always safe to try. Once [`fence`](fence()) has returned, the owner can commit nothing at or above the end;
//! everything it ever committed lies below.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{ENTRY_HEADER_LEN, EntryKind, FormatError};
use super::marker::Checkpoint;
use super::missing::{Search, find_missing, list_from};
use super::read::{SlotPut, checkpoint_below, newest_checkpoint, put_slot, read_header};
use super::writer::freeze;
use super::{ChainError, ChainName, MAX_WINDOW, number_of};
use crate::bucket::{Bucket, Listed};
use crate::env::Env;
use crate::sabotage::{self, Sabotage};
use crate::stats::Reason;

/// Length of a fence that [`fence`](fence()) puts: fixed and odd, so that a list tells which few objects may be
/// one, and only their headers are read.
pub const FENCE_LEN: usize = 1021;
/// The most bytes that a fence's body takes.
pub const FENCE_BODY_MAX: usize = FENCE_LEN - ENTRY_HEADER_LEN - 2;

/// A chain that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FenceOutcome {
    /// The fence's slot: readers read `[checkpoint, end)`, exactly.
    pub end: u64,
    /// The newest checkpoint whose entry lies below the end, as yet. The old owner may still put the marker of a
    /// newer one, committed below the end, and delete what it covers: on a missing entry, ask
    /// [`checkpoint_below`](super::checkpoint_below) and begin again (rule F4).
    pub checkpoint: Option<Checkpoint>,
}

/// Ends the chain (rules F1 to F3). `body` says who and why, at most [`FENCE_BODY_MAX`] bytes.
///
/// A failure leaves fences behind, which may or may not have ended it: call again. Where a committed entry is missing
/// ([`ChainError::Missing`]), nothing is put.
pub async fn fence(
    env: &Env,
    bucket: &Bucket,
    name: &ChainName,
    epoch: u64,
    body: &[u8],
    why: Reason,
) -> Result<FenceOutcome, ChainError> {
    loop {
        let checkpoint = newest_checkpoint(bucket, name, why).await?;
        let from = checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.covers_below);
        let listed = list_from(bucket, name, from, why).await?;
        // Nothing is put into a hole that was committed: what is missing there may be restored.
        // (That takes a second look, too: a fencer that is to take none goes without.)
        if !sabotage::on(Sabotage::NoRelist) {
            match find_missing(bucket, name, &listed, from, why).await? {
                Search::None => {}
                Search::Found(missing) => return Err(ChainError::Missing(missing)),
                Search::Changed => continue,
            }
        }
        let found = match existing_fence(bucket, name, &listed, from, why).await? {
            Walk::Fence(slot) => Some(slot),
            Walk::Empty(slot) => place(env, bucket, name, slot, epoch, body, why).await?,
            Walk::Changed => None,
        };
        let Some(end) = found else {
            // The owner was faster, or the chain moved on beneath us. The stopper stands, so this ends.
            continue;
        };
        // Rule F2: a fence below an effective checkpoint fell into a slot that had been deleted; it is void.
        let newest = if sabotage::on(Sabotage::NoRelist) {
            checkpoint
        } else {
            newest_checkpoint(bucket, name, why).await?
        };
        if newest
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.covers_below > end)
        {
            continue;
        }
        // Rule D1: a checkpoint counts only if its entry lies below the fence.
        let checkpoint = match newest {
            Some(checkpoint) if checkpoint.entry_slot >= end => {
                checkpoint_below(bucket, name, end, why).await?
            }
            other => other,
        };
        return Ok(FenceOutcome { end, checkpoint });
    }
}

enum Walk {
    /// The first fence, with entries only below it.
    Fence(u64),
    /// All below are entries; this one is empty.
    Empty(u64),
    /// A slot vanished while it was looked at: a checkpoint has moved on.
    Changed,
}

/// Walks up from `from` to the first slot that is empty or a fence (rule F1: never "highest listed + 1").
async fn existing_fence(
    bucket: &Bucket,
    name: &ChainName,
    listed: &[Listed],
    from: u64,
    why: Reason,
) -> Result<Walk, ChainError> {
    let mut next = from;
    for object in listed {
        let Some(slot) = number_of(&object.key).filter(|slot| *slot >= next) else {
            continue;
        };
        if slot > next {
            break;
        }
        // Only an object of a fence's length can be one; the others are not looked into.
        if object.size == FENCE_LEN as u64 {
            match read_header(bucket, name, slot, why).await? {
                Some(header) if header.kind == EntryKind::Fence => return Ok(Walk::Fence(slot)),
                Some(_) => {}
                None => return Ok(Walk::Changed),
            }
        } else if slot == from {
            // But for the first: nothing is put into a chain that is another cluster's. Other damage is for the
            // readers to tell; it stops no fence.
            match read_header(bucket, name, slot, why).await {
                Ok(None) => return Ok(Walk::Changed),
                Ok(Some(_)) => {}
                Err(ChainError::Damaged { what, .. }) if !matches!(what, FormatError::Chain(_)) => {}
                Err(error) => return Err(error),
            }
        }
        next += 1;
    }
    Ok(Walk::Empty(next))
}

/// Puts the fence into `slot` and the stopper above it. `None` if an entry was there first.
async fn place(
    env: &Env,
    bucket: &Bucket,
    name: &ChainName,
    slot: u64,
    epoch: u64,
    body: &[u8],
    why: Reason,
) -> Result<Option<u64>, ChainError> {
    // Rule F3: the owner's window slides with every commit, but not past a stopper.
    let stopper = slot + MAX_WINDOW;
    let (fence_id, stopper_id) = (env.random_id(), env.random_id());
    let fence_bytes = fence_object(name, slot, fence_id, epoch, body);
    let stopper_bytes = fence_object(name, stopper, stopper_id, epoch, body);
    let (fence_put, stopper_put) = futures::join!(
        put_slot(bucket, name, slot, fence_id, &fence_bytes, why),
        put_slot(bucket, name, stopper, stopper_id, &stopper_bytes, why),
    );
    // Whoever has the stopper's slot, an owner that far or another fencer, the next round will see it.
    stopper_put?;
    match fence_put? {
        SlotPut::Ours => Ok(Some(slot)),
        // Another's: an entry, or a fence that may be adopted. Deleted meanwhile: start again.
        SlotPut::Theirs => {
            let header = read_header(bucket, name, slot, why).await?;
            Ok(header
                .filter(|header| header.kind == EntryKind::Fence)
                .map(|_| slot))
        }
    }
}

fn fence_object(name: &ChainName, slot: u64, put_id: [u8; 16], epoch: u64, body: &[u8]) -> Bytes {
    let body = &body[..body.len().min(FENCE_BODY_MAX)];
    let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
    buf.put_u16(u16::try_from(body.len()).expect("cut to fit just above"));
    buf.put_slice(body);
    buf.resize(FENCE_LEN, 0);
    freeze(EntryKind::Fence, name, slot, put_id, epoch, buf, 0)
}

/// What a fence says: the `body` given to [`fence`](fence()), out of [`Entry::body`](super::Entry::body).
pub fn fence_body(body: &Bytes) -> Option<Bytes> {
    let (len, rest) = body.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len));
    (len <= rest.len()).then(|| body.slice(2..2 + len))
}
