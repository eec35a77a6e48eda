//! The moment at which appended records become durable, for those who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use thiserror::Error;
use tokio::sync::Notify;

/// Why an append will never be committed by this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CommitError {
    /// Another broker took over: what was appended here may or may not be part of the log.
    #[error("this broker was fenced by a newer one")]
    Fenced,
    /// The write path ended; whether the records are durable is not known.
    #[error("the log was stopped")]
    Stopped,
}

const PENDING: u8 = 0;
const COMMITTED: u8 = 1;
const FENCED: u8 = 2;
const STOPPED: u8 = 3;

/// The commit of one WAL object. Cheap to clone; all that was appended to the object shares it.
#[derive(Clone, Default)]
pub struct Commit(Arc<Cell>);

#[derive(Default)]
struct Cell {
    state: AtomicU8,
    notify: Notify,
}

impl Commit {
    /// The outcome, if it is known.
    pub fn outcome(&self) -> Option<Result<(), CommitError>> {
        match self.0.state.load(Ordering::Acquire) {
            PENDING => None,
            COMMITTED => Some(Ok(())),
            FENCED => Some(Err(CommitError::Fenced)),
            _ => Some(Err(CommitError::Stopped)),
        }
    }

    /// Waits until the records are durable and visible, or never will be through this broker.
    ///
    /// # Errors
    /// [`CommitError`], after which the caller must not claim success.
    pub async fn wait(&self) -> Result<(), CommitError> {
        loop {
            let notified = self.0.notify.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            notified.await;
        }
    }

    /// Settles it once; later calls change nothing.
    pub(crate) fn settle(&self, outcome: Result<(), CommitError>) {
        let state = match outcome {
            Ok(()) => COMMITTED,
            Err(CommitError::Fenced) => FENCED,
            Err(CommitError::Stopped) => STOPPED,
        };
        let first = self
            .0
            .state
            .compare_exchange(PENDING, state, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.0.notify.notify_waiters();
        }
    }

    /// A commit that has happened.
    pub(crate) fn done() -> Self {
        let commit = Self::default();
        commit.settle(Ok(()));
        commit
    }
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Commit").field(&self.outcome()).finish()
    }
}
