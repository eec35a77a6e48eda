//! The chain: an ordered run of immutable objects under one prefix, each created with put-if-absent.
//!
//! Owns names and formats ([`header`], [`marker`]), the owner's side ([`writer`]), taking over from an owner
//! ([`fence`](mod@fence)), and reading ([`read`]). What an entry's body means is its owner's. The rules in
//! brackets are those of the safety page; a change that needs one bent changes that page first.
//!
//! | key | what | life |
//! | --- | --- | --- |
//! | `{prefix}/log/{n:020}` | entry n, see [`header`] | until a checkpoint covers it; slot 0 (birth) and fences as long as anything names the chain |
//! | `{prefix}/checkpoint/{n:020}` | marker: a checkpoint of all below n, see [`marker`] | superseded ones stay for a grace (F2) |
//! | `{prefix}/body/{id}` | a checkpoint's body, its owner's format | while a marker or an entry names it |

mod drive;
pub mod fence;
pub mod header;
pub mod marker;
mod missing;
pub mod read;
mod trim;
pub mod writer;

use std::fmt;

pub use fence::{FENCE_LEN, FenceOutcome, fence};
pub use header::{ENTRY_HEADER_LEN, EntryHeader, EntryKind, FormatError};
pub use marker::Checkpoint;
pub use missing::{MissingEntries, give_up_entry, missing_entries};
pub use read::{
    BirthOutcome, Entry, checkpoint_below, newest_checkpoint, put_birth, read_birth, read_entry, read_header,
    read_header_and_footer,
};
pub use trim::remove_chain;
pub use writer::{AppendRefused, Appended, ChainEnd, ChainOptions, ChainState, ChainWriter, CheckpointError};

use crate::error::StoreError;

/// The most appends that any owner has in flight, and the distance of a fencer's stopper (rules A1, F3).
pub const MAX_WINDOW: u64 = 16;

/// Tells one chain from another, whatever its prefix: drawn at random at its birth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub [u8; 16]);

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hex(&self.0))
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hex(&self.0))
    }
}

/// Where a chain lies and which one it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ChainName {
    /// Key prefix without a slash at the end, e.g. `meta` or `wal/3f/1/17`. Never used again (rule I1).
    pub prefix: String,
    /// Stands in every object of the chain.
    pub id: ChainId,
}

impl ChainName {
    /// Key of entry `slot`.
    pub fn entry_key(&self, slot: u64) -> String {
        entry_key(&self.prefix, slot)
    }

    /// Key of the marker of a checkpoint of all below `covers_below`.
    pub fn marker_key(&self, covers_below: u64) -> String {
        marker_key(&self.prefix, covers_below)
    }

    /// Key of a checkpoint's body.
    pub fn body_key(&self, id: &[u8; 16]) -> String {
        body_key(&self.prefix, id)
    }
}

/// Key of entry `slot` of the chain at `prefix`.
pub fn entry_key(prefix: &str, slot: u64) -> String {
    format!("{prefix}/log/{slot:020}")
}

/// Key of the marker of a checkpoint of all below `covers_below`.
pub fn marker_key(prefix: &str, covers_below: u64) -> String {
    format!("{prefix}/checkpoint/{covers_below:020}")
}

/// Key of a checkpoint's body.
pub fn body_key(prefix: &str, id: &[u8; 16]) -> String {
    format!("{prefix}/body/{}", hex(id))
}

/// The number at the end of a key, if it is one of 20 digits.
pub fn number_of(key: &str) -> Option<u64> {
    let digits = key.rsplit('/').next()?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a chain could not be read or fenced.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what its name says. Nothing that follows it can be trusted to be all there is.
    #[error("object {key} is damaged or foreign: {what}; {}", what.remedy())]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        what: FormatError,
    },
    /// Committed entries were deleted.
    #[error(
        "objects with acknowledged records are missing: {}; entry {} was written only after they were stored; restore \
         them from a copy of the bucket and start again, or go on without what they held: \
         `drumlin store give-up KEY...`", .0.names(), .0.proof
    )]
    Missing(MissingEntries),
}

impl ChainError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Damaged { .. } | Self::Missing(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
