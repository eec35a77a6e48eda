//! One slot's put, until its fate is known: attempts, hedges, and what a conflict means.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::read::{ReadBack, read_back};
use super::writer::{ChainEnd, Frozen, Shared};
use crate::bucket::BucketKind;
use crate::error::{PutNewError, StoreError};
use crate::stats::Reason;
use crate::task::TaskKind;

/// Sends a slot's put on its way. On a local directory the first attempt is one call on a thread that may block, with
/// nothing around it: what succeeds there needs no task.
pub(super) fn dispatch(shared: &Arc<Shared>, slot: u64, put_id: [u8; 16], frozen: Frozen) {
    let shared = shared.clone();
    let env = shared.env.clone();
    let unknown = FateUnknown {
        shared: shared.clone(),
        slot,
        known: false,
    };
    let direct = (shared.options.why == Reason::Wal).then(|| shared.bucket.direct());
    let Some(local) = direct.flatten() else {
        env.spawn(TaskKind::ChainPut, drive(unknown, put_id, frozen.bytes, None));
        return;
    };
    env.clone().spawn_blocking(TaskKind::ChainPut, move || {
        let mut unknown = unknown;
        if shared.state.borrow().end.is_some() {
            unknown.known = true;
            return;
        }
        let key = shared.name.entry_key(slot);
        let put = shared
            .bucket
            .put_direct(&local, &key, frozen.bytes.clone(), frozen.crc, Reason::Wal);
        match put {
            Ok(()) => {
                unknown.known = true;
                shared.done(slot);
            }
            Err(error) => {
                let task = drive(unknown, put_id, frozen.bytes, Some(error));
                env.spawn(TaskKind::ChainPut, task);
            }
        }
    });
}

/// Puts one slot until its fate is known. Rule A2: one single put an attempt, and the bytes belong to the task
/// (and, on a local store, to the system call) until it is over. `first`: how an attempt before this ended.
async fn drive(mut unknown: FateUnknown, put_id: [u8; 16], bytes: Bytes, first: Option<PutNewError>) {
    // Whatever ends this task: nobody waits for a slot that nobody puts.
    let (shared, slot) = (unknown.shared.clone(), unknown.slot);
    let key = shared.name.entry_key(slot);
    let mut state = shared.state.subscribe();
    let fate = tokio::select! {
        biased;
        _ = state.wait_for(|now| now.end.is_some()) => return,
        fate = put_until_known(&shared, &key, slot, put_id, &bytes, first) => fate,
    };
    unknown.known = true;
    match fate {
        Ok(()) => shared.done(slot),
        Err(end) => {
            if end != ChainEnd::Stopped {
                tracing::warn!(chain = %shared.name.prefix, %end, "chain ended");
            }
            shared.end(end);
        }
    }
}

/// Ends the chain if a slot's put ends before its fate is known: by a panic, or with its task.
struct FateUnknown {
    shared: Arc<Shared>,
    slot: u64,
    known: bool,
}

impl Drop for FateUnknown {
    fn drop(&mut self) {
        if !self.known {
            let (slot, what) = (self.slot, "the task of its put was ended".to_owned());
            self.shared.end(ChainEnd::Failed { slot, what });
        }
    }
}

async fn put_until_known(
    shared: &Shared,
    key: &str,
    slot: u64,
    put_id: [u8; 16],
    bytes: &Bytes,
    mut first: Option<PutNewError>,
) -> Result<(), ChainEnd> {
    let mut failed = 0;
    loop {
        let put = match first.take() {
            Some(error) => Err(error),
            None => put_hedged(shared, key, bytes).await,
        };
        let error = match put {
            Ok(()) => return Ok(()),
            // Ambiguous: one's own put whose reply was lost, another's, or (S3's 409) nobody's yet.
            Err(PutNewError::Exists { .. }) => {
                match read_back(&shared.bucket, key, put_id, shared.options.why).await {
                    Ok(ReadBack::Ours) => return Ok(()),
                    Ok(ReadBack::Theirs) => return Err(ChainEnd::Fenced { slot }),
                    Ok(ReadBack::Absent) => None,
                    Err(error) => Some(error),
                }
            }
            Err(PutNewError::Store(error)) => Some(error),
        };
        failed += 1;
        if let Some(error) = error {
            match error {
                // Rule S2: what the disk holds is unknown for good. And a store that cannot do what is asked
                // of it will not learn it.
                StoreError::FsyncFailed { .. } | StoreError::Invalid { .. } => {
                    return Err(ChainEnd::Failed {
                        slot,
                        what: error.to_string(),
                    });
                }
                StoreError::NotFound { .. }
                | StoreError::NoBucket { .. }
                | StoreError::Full { .. }
                | StoreError::Denied { .. }
                | StoreError::NoCredentials { .. }
                | StoreError::Unavailable { .. } => warn_now_and_then(failed, key, &error),
            }
        }
        tokio::time::sleep(shared.bucket.backoff(failed)).await;
    }
}

pub(super) fn warn_now_and_then(failed: u32, key: &str, error: &StoreError) {
    if failed.is_power_of_two() {
        tracing::warn!(key, failed, %error, "put failed, will be retried");
    }
}

/// One put, and a second one of the same bytes beside it when the first is slow.
async fn put_hedged(shared: &Shared, key: &str, bytes: &Bytes) -> Result<(), PutNewError> {
    let why = shared.options.why;
    let put = || async move {
        // What a WAL says is sealed soon, and deleted; the birth stays, and is not put here.
        match why {
            Reason::Wal => shared.bucket.put_new_brief(key, bytes.clone(), why).await,
            _ => shared.bucket.put_new(key, bytes.clone(), why).await,
        }
    };
    let hedge_after = shared
        .options
        .hedge_after
        .filter(|_| shared.bucket.kind() != BucketKind::Local);
    let Some(hedge_after) = hedge_after else {
        return put().await;
    };
    let mut first = pin!(put());
    let patience = hedge_after + Duration::from_micros(bytes.len() as u64 / 8);
    if let Ok(result) = timeout(patience, &mut first).await {
        return result;
    }
    let mut second = pin!(put());
    let settled = |result: &Result<(), PutNewError>| !matches!(result, Err(PutNewError::Store(_)));
    tokio::select! {
        biased;
        result = &mut first => if settled(&result) { result } else { second.await },
        result = &mut second => if settled(&result) { result } else { first.await },
    }
}
