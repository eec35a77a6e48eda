//! The owner's side of a chain: appends in flight, and what of them is committed.
//!
//! Each slot is put by a task of its own, which retries the same bytes for ever (rule A1) until the slot is
//! known to be the owner's or another's, or the chain has ended. An entry is *committed* when it and all below
//! it are the owner's (rule A3); nothing is ever told to be committed out of order, or after an end.
//!
//! A task may die at any await: nothing here is needed to take over but what lies in the bucket.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::timeout;

use super::drive::{dispatch, warn_now_and_then};
use super::header::{ENTRY_HEADER_LEN, EntryHeader, EntryKind};
use super::marker::Checkpoint;
use super::trim::TrimState;
use super::{ChainName, MAX_WINDOW};
use crate::bucket::Bucket;
use crate::env::Env;
use crate::error::{PutNewError, StoreError};
use crate::stats::Reason;

/// How a chain is written.
#[derive(Clone, Debug)]
pub struct ChainOptions {
    /// The most slots that are not committed at a time, 1 to [`MAX_WINDOW`].
    pub window: u64,
    /// Label of the puts.
    pub why: Reason,
    /// After this, plus a microsecond for each 8 bytes, a put that has not answered gets a second one beside it.
    /// Never on a local directory. `None`: never.
    pub hedge_after: Option<Duration>,
    /// How long a superseded marker stays (rule F2).
    pub marker_grace: Duration,
}

impl Default for ChainOptions {
    fn default() -> Self {
        Self {
            window: MAX_WINDOW,
            why: Reason::Wal,
            hedge_after: Some(Duration::from_secs(1)),
            marker_grace: Duration::from_secs(600),
        }
    }
}

/// How a chain ended for its owner. Final: nothing is committed after it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainEnd {
    /// Another has this slot: somebody took over.
    #[error("another took over at slot {slot}")]
    Fenced {
        /// The lowest slot that was seen to be another's.
        slot: u64,
    },
    /// It is not known what the store holds, and it cannot be found out (a failed fsync).
    #[error("slot {slot} cannot be written: {what}")]
    Failed {
        /// The slot.
        slot: u64,
        /// Why.
        what: String,
    },
    /// The owner stopped, or dropped the writer.
    #[error("stopped")]
    Stopped,
}

/// What is known of a chain's writing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainState {
    /// All slots below this are committed.
    pub committed: u64,
    /// Set once and for ever.
    pub end: Option<ChainEnd>,
}

/// An entry on its way.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Its place.
    pub slot: u64,
    /// Its put id.
    pub put_id: [u8; 16],
    /// The object's bytes, header included, as they are uploaded.
    pub bytes: Bytes,
}

/// Why nothing was appended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendRefused {
    /// The chain has ended.
    #[error("the chain has ended: {0}")]
    Ended(ChainEnd),
    /// All slots of the window are taken; wait for [`ChainWriter::ready`].
    #[error("the window of the chain is full")]
    Full,
    /// The buffer has no room for the header at its front, or the footer lies outside of it.
    #[error("the entry's buffer is malformed")]
    Malformed,
}

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The chain has ended; whether the checkpoint took effect, the bucket knows.
    #[error("the chain has ended: {0}")]
    Ended(#[from] ChainEnd),
    /// It would cover what is not committed (rule A3).
    #[error("a checkpoint below {covers_below} would cover what is not committed, {committed} and above")]
    NotCommitted {
        /// As asked.
        covers_below: u64,
        /// The first slot that is not committed.
        committed: u64,
    },
    /// There is one already that covers as much.
    #[error("a checkpoint below {covers_below} covers no more than the one before it")]
    NotAbove {
        /// As asked.
        covers_below: u64,
    },
    /// The entry's buffer has no room for the header at its front.
    #[error("the entry's buffer is malformed")]
    Malformed,
}

/// Writes one chain; there is one in an incarnation. Shared behind an `Arc` where several tasks need it.
#[derive(Debug)]
pub struct ChainWriter {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) bucket: Bucket,
    pub(super) name: ChainName,
    pub(super) options: ChainOptions,
    /// The first slot of this writer.
    pub(super) start: u64,
    inner: Mutex<Inner>,
    pub(super) state: watch::Sender<ChainState>,
    pub(super) trim: tokio::sync::Mutex<TrimState>,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    committed: u64,
    /// Slots above `committed` that are known to be the owner's.
    done: BTreeSet<u64>,
    ended: bool,
    /// The newest checkpoint this writer began.
    checkpointed: u64,
    /// Slots of the fences among this writer's entries (new controllers), which are never deleted.
    fences: BTreeSet<u64>,
}

impl ChainWriter {
    /// Begins to write at `next_slot`; all below it counts as committed.
    pub fn start(
        env: &Env,
        bucket: &Bucket,
        name: ChainName,
        next_slot: u64,
        mut options: ChainOptions,
    ) -> ChainWriter {
        // Rule F3: a stopper stands that far above; an owner with a larger window could pass it.
        options.window = options.window.clamp(1, MAX_WINDOW);
        let (state, _) = watch::channel(ChainState {
            committed: next_slot,
            end: None,
        });
        let inner = Inner {
            next: next_slot,
            committed: next_slot,
            done: BTreeSet::new(),
            ended: false,
            checkpointed: 0,
            fences: BTreeSet::new(),
        };
        Self {
            shared: Arc::new(Shared {
                env: env.clone(),
                bucket: bucket.clone(),
                name,
                options,
                start: next_slot,
                inner: Mutex::new(inner),
                state,
                trim: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// The chain's name.
    pub fn name(&self) -> &ChainName {
        &self.shared.name
    }

    /// The slot that the next append takes.
    pub fn next_slot(&self) -> u64 {
        self.shared.inner().next
    }

    /// Waits until an append would find room in the window.
    pub async fn ready(&self) -> Result<(), ChainEnd> {
        let mut state = self.shared.state.subscribe();
        loop {
            let now = state.borrow_and_update().clone();
            if let Some(end) = now.end {
                return Err(end);
            }
            if self.next_slot() < now.committed + self.shared.options.window {
                return Ok(());
            }
            // The sender lives in `self`.
            let _ = state.changed().await;
        }
    }

    /// Freezes an entry and sends it on its way in a task of its own; returns at once.
    ///
    /// `buf` has [`ENTRY_HEADER_LEN`] bytes reserved at its front; `footer_at` counts from the start of `buf`,
    /// 0 for none. Slot, put id and bytes stay the same over every retry and hedge (rule A1).
    pub fn append(
        &self,
        kind: EntryKind,
        epoch: u64,
        mut buf: BytesMut,
        footer_at: u64,
    ) -> Result<Appended, AppendRefused> {
        self.append_from(kind, epoch, &mut buf, footer_at)
    }

    /// As [`ChainWriter::append`], but takes the bytes out of `buf` only when it succeeds: for owners that come
    /// again after [`AppendRefused::Full`].
    pub fn append_from(
        &self,
        kind: EntryKind,
        epoch: u64,
        buf: &mut BytesMut,
        footer_at: u64,
    ) -> Result<Appended, AppendRefused> {
        self.append_summed(kind, epoch, buf, footer_at, None)
    }

    /// As [`ChainWriter::append_from`], for owners that know the CRC32C of what follows the header in `buf`, so that
    /// nobody reads the bytes for it again ([`crate::crc`]).
    pub fn append_summed(
        &self,
        kind: EntryKind,
        epoch: u64,
        buf: &mut BytesMut,
        footer_at: u64,
        body_crc: Option<u32>,
    ) -> Result<Appended, AppendRefused> {
        let footer_fits = (ENTRY_HEADER_LEN as u64..=buf.len() as u64).contains(&footer_at);
        if buf.len() < ENTRY_HEADER_LEN || (footer_at != 0 && !footer_fits) {
            return Err(AppendRefused::Malformed);
        }
        self.append_with(kind, epoch, body_crc, |_| (std::mem::take(buf), footer_at))
    }

    fn append_with(
        &self,
        kind: EntryKind,
        epoch: u64,
        body_crc: Option<u32>,
        build: impl FnOnce(u64) -> (BytesMut, u64),
    ) -> Result<Appended, AppendRefused> {
        let shared = &self.shared;
        let slot = {
            let mut inner = shared.inner();
            if inner.ended {
                let end = shared.state.borrow().end.clone().unwrap_or(ChainEnd::Stopped);
                return Err(AppendRefused::Ended(end));
            }
            // Rule A1: the window counts from the first uncommitted slot, not open puts.
            if inner.next >= inner.committed + shared.options.window {
                return Err(AppendRefused::Full);
            }
            let slot = inner.next;
            inner.next += 1;
            if kind == EntryKind::Fence {
                inner.fences.insert(slot);
            }
            slot
        };
        let (buf, footer_at) = build(slot);
        let put_id = shared.env.random_id();
        let frozen = freeze_summed(kind, &shared.name, slot, put_id, epoch, buf, footer_at, body_crc);
        let bytes = frozen.bytes.clone();
        dispatch(shared, slot, put_id, frozen);
        Ok(Appended { slot, put_id, bytes })
    }

    /// Follows what is committed, and the end.
    pub fn state(&self) -> watch::Receiver<ChainState> {
        self.shared.state.subscribe()
    }

    /// Waits until `slot` is committed.
    pub async fn committed(&self, slot: u64) -> Result<(), ChainEnd> {
        let mut state = self.shared.state.subscribe();
        let reached = state
            .wait_for(|now| now.committed > slot || now.end.is_some())
            .await;
        match reached {
            Ok(now) if now.committed > slot => Ok(()),
            Ok(now) => Err(now.end.clone().unwrap_or(ChainEnd::Stopped)),
            Err(_) => Err(ChainEnd::Stopped),
        }
    }

    /// Ends the writing: nothing is retried or committed any more. What is on its way may still land.
    pub fn stop(&self) {
        self.shared.end(ChainEnd::Stopped);
    }

    /// As [`ChainWriter::stop`], for one that cannot go on.
    pub fn fail(&self, what: &str) {
        let slot = self.next_slot();
        let what = what.to_owned();
        self.shared.end(ChainEnd::Failed { slot, what });
    }

    /// Makes a checkpoint of all below `covers_below` (rule D1); the caller has uploaded the body at `body_key`,
    /// which holds committed state only.
    ///
    /// `entry` is the owner's part of the chain entry, [`ENTRY_HEADER_LEN`] bytes reserved at its front; the
    /// entry's footer names the checkpoint. Returns the entry's slot once it is committed and the marker is
    /// durable: from then on [`ChainWriter::trim`] may go up to `covers_below`.
    pub async fn checkpoint(
        &self,
        covers_below: u64,
        body_key: &str,
        epoch: u64,
        entry: BytesMut,
    ) -> Result<u64, CheckpointError> {
        if entry.len() < ENTRY_HEADER_LEN {
            return Err(CheckpointError::Malformed);
        }
        {
            let mut inner = self.shared.inner();
            if covers_below > inner.committed {
                return Err(CheckpointError::NotCommitted {
                    covers_below,
                    committed: inner.committed,
                });
            }
            if covers_below <= inner.checkpointed {
                return Err(CheckpointError::NotAbove { covers_below });
            }
            inner.checkpointed = covers_below;
        }
        let mut entry = Some(entry);
        let mut named = Checkpoint {
            covers_below,
            body_key: body_key.to_owned(),
            entry_slot: 0,
        };
        let slot = loop {
            self.ready().await?;
            let appended = self.append_with(EntryKind::Checkpoint, epoch, None, |slot| {
                named.entry_slot = slot;
                let mut buf = entry.take().unwrap_or_default();
                let footer_at = buf.len() as u64;
                buf.extend_from_slice(&named.encode(&self.shared.name.id));
                (buf, footer_at)
            });
            match appended {
                Ok(appended) => break appended.slot,
                // Another task was faster with the slot that was free.
                Err(AppendRefused::Full) => {}
                Err(AppendRefused::Ended(end)) => return Err(end.into()),
                Err(AppendRefused::Malformed) => return Err(CheckpointError::Malformed),
            }
        };
        self.committed(slot).await?;
        self.put_marker(&named).await?;
        Ok(slot)
    }

    /// Retried until it is there. A marker is not fenced, and need not be: its entry is committed.
    async fn put_marker(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let shared = &self.shared;
        let key = shared.name.marker_key(checkpoint.covers_below);
        let bytes = checkpoint.encode(&shared.name.id);
        let mut failed = 0;
        loop {
            let error = match shared
                .bucket
                .put_new(&key, bytes.clone(), Reason::Checkpoint)
                .await
            {
                Ok(()) => break,
                Err(PutNewError::Exists { .. }) => match shared.bucket.get(&key, Reason::Checkpoint).await {
                    Ok(found) if found == bytes => match shared.bucket.settle(&key).await {
                        Ok(()) => break,
                        Err(error) => error,
                    },
                    Ok(_) => {
                        return Err(CheckpointError::NotAbove {
                            covers_below: checkpoint.covers_below,
                        });
                    }
                    Err(error) => error,
                },
                Err(PutNewError::Store(error)) => error,
            };
            if let StoreError::FsyncFailed { .. } | StoreError::Invalid { .. } = error {
                let end = ChainEnd::Failed {
                    slot: checkpoint.entry_slot,
                    what: error.to_string(),
                };
                shared.end(end.clone());
                return Err(end.into());
            }
            failed += 1;
            warn_now_and_then(failed, &key, &error);
            let mut ended = shared.state.subscribe();
            if timeout(
                shared.bucket.backoff(failed),
                ended.wait_for(|now| now.end.is_some()),
            )
            .await
            .is_ok()
            {
                return Err(shared
                    .state
                    .borrow()
                    .end
                    .clone()
                    .unwrap_or(ChainEnd::Stopped)
                    .into());
            }
        }
        shared.trim.lock().await.marked(checkpoint.covers_below);
        Ok(())
    }
}

impl Drop for ChainWriter {
    fn drop(&mut self) {
        // Nobody can hear of commits any more but receivers of the state, who hear this.
        self.stop();
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn own_fences(&self) -> BTreeSet<u64> {
        self.inner().fences.clone()
    }

    /// `slot` is known to be the owner's: the contiguous prefix may have grown.
    pub(super) fn done(&self, slot: u64) {
        let mut inner = self.inner();
        if inner.ended {
            return;
        }
        debug_assert!(
            slot >= inner.committed && slot < inner.next,
            "a slot is done once"
        );
        inner.done.insert(slot);
        let before = inner.committed;
        let mut committed = before;
        while inner.done.remove(&committed) {
            committed += 1;
        }
        if committed > before {
            inner.committed = committed;
            // Told under the lock, so that no end slips in between.
            self.state.send_modify(|state| state.committed = committed);
        }
    }

    pub(super) fn end(&self, end: ChainEnd) {
        let mut inner = self.inner();
        if inner.ended {
            return;
        }
        inner.ended = true;
        inner.done.clear();
        self.state.send_modify(|state| state.end = Some(end));
    }
}

/// Writes the header into the front of `buf` and freezes it. The CRC is computed here, before any upload.
pub(super) fn freeze(
    kind: EntryKind,
    name: &ChainName,
    slot: u64,
    put_id: [u8; 16],
    epoch: u64,
    buf: BytesMut,
    footer_at: u64,
) -> Bytes {
    freeze_summed(kind, name, slot, put_id, epoch, buf, footer_at, None).bytes
}

/// An entry as it is uploaded.
#[derive(Clone)]
pub(super) struct Frozen {
    pub(super) bytes: Bytes,
    /// CRC32C of all of it.
    pub(super) crc: u32,
}

/// As [`freeze`]; `body_crc` is known already, or is computed.
#[expect(clippy::too_many_arguments, reason = "the fields of the header")]
fn freeze_summed(
    kind: EntryKind,
    name: &ChainName,
    slot: u64,
    put_id: [u8; 16],
    epoch: u64,
    mut buf: BytesMut,
    footer_at: u64,
    body_crc: Option<u32>,
) -> Frozen {
    if buf.len() < ENTRY_HEADER_LEN {
        buf.resize(ENTRY_HEADER_LEN, 0);
    }
    let (front, body) = buf.split_at_mut(ENTRY_HEADER_LEN);
    let header = EntryHeader {
        kind,
        chain: name.id,
        slot,
        put_id,
        epoch,
        body_len: body.len() as u64,
        footer_at,
        body_crc: body_crc.unwrap_or_else(|| crc32c::crc32c(body)),
    };
    debug_assert_eq!(
        header.body_crc,
        crc32c::crc32c(body),
        "the CRC that the owner knows"
    );
    front.copy_from_slice(&header.encode());
    let crc = crate::crc::combine(crc32c::crc32c(front), header.body_crc, header.body_len);
    Frozen {
        bytes: buf.freeze(),
        crc,
    }
}
