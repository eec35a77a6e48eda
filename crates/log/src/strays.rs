//! What a round uploads before its checkpoint makes it true, and what becomes of it when the round fails.
//!
//! Until the checkpoint's entry is committed nothing names an upload. Whether it was is certain in all cases but one,
//! by the error of [`ChainWriter::checkpoint`](drumlin_objects::chain::ChainWriter::checkpoint):
//!
//! | error | the entry | what follows |
//! | --- | --- | --- |
//! | none reached it: a put before it failed | was never dispatched | the uploads are strays |
//! | `NotCommitted`, `Malformed` | was refused before it had a slot | the uploads are strays |
//! | `NotAbove` | was refused; or is *committed*, and only its marker's place was taken | unknown: they are kept |
//! | `Ended` | may be in the bucket, below the fence or beyond it | the keeper ends: the next start finds out |
//!
//! Strays are deleted, as D3 permits: the incarnation is this one, and the upload is over. What is in doubt stays until
//! a later checkpoint is committed: the newest one decides, and no later round names an upload of an earlier one, but
//! for what compaction handed over, which is part of each attempt until it is committed or refused. While a checkpoint
//! is in doubt, what is refused may be what it names, and is kept likewise.

use std::sync::PoisonError;
use std::time::Duration;

use drumlin_objects::chain::CheckpointError;

use crate::keeper::{KeepError, Keeper};
use crate::log::KeeperHandle;
use crate::round::SEGMENTS_IN_FLIGHT;

/// On a remote store a put that failed here may still arrive there: the last uploads of a failed round. What comes later
/// than this, the next start finds.
const STRAY_WAIT: Duration = Duration::from_secs(60);

impl KeeperHandle {
    /// Takes note of a put that the round is about to make.
    pub(crate) fn note_upload(&self, key: &str) {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.push(key.to_owned());
    }

    /// What was uploaded since the first `from`.
    pub(crate) fn take_uploads(&self, from: usize) -> Vec<String> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let from = from.min(uploads.len());
        uploads.split_off(from)
    }

    /// How many uploads the round has made.
    pub(crate) fn upload_count(&self) -> usize {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Keeper {
    /// Deletes objects that nothing ever named, or will; their uploads are over.
    pub(crate) fn discard(&mut self, keys: Vec<String>) {
        let now = self.log.shared().wal.env.instant();
        self.delete_at(now, keys);
    }

    /// As [`Keeper::discard`], for what a checkpoint of which nothing certain is known may name.
    pub(crate) fn discard_unless_named(&mut self, keys: Vec<String>) {
        if self.in_doubt {
            self.doubtful.extend(keys);
        } else {
            self.discard(keys);
        }
    }

    /// The round's checkpoint is committed: its uploads are named, and what was in doubt is decided.
    pub(crate) fn round_committed(&mut self) {
        self.log.shared().keeper.take_uploads(0);
        self.in_doubt = false;
        let doubtful = std::mem::take(&mut self.doubtful);
        self.discard(doubtful);
    }

    /// The round failed before it was known to be committed.
    pub(crate) fn round_failed(&mut self, error: &KeepError) {
        let mut uploads = self.log.shared().keeper.take_uploads(0);
        match error {
            KeepError::Store(_)
            | KeepError::Read(_)
            | KeepError::Checkpoint(CheckpointError::NotCommitted { .. } | CheckpointError::Malformed) => {
                // The last ones were on their way together.
                let late = self.log.shared().wal.env.instant() + self.grace(STRAY_WAIT);
                let together = uploads.len().saturating_sub(SEGMENTS_IN_FLIGHT);
                self.delete_at(late, uploads.split_off(together));
                self.discard(uploads);
            }
            KeepError::Checkpoint(CheckpointError::NotAbove { .. } | CheckpointError::Ended(_)) => {
                self.in_doubt = true;
                self.doubtful.extend(uploads);
            }
        }
    }
}
