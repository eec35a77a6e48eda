//! `drumlin store give-up`: going on without WAL entries that are missing though they were committed.

use drumlin_objects::chain::{ChainError, ChainName, give_up_entry, missing_entries, number_of};
use drumlin_objects::{Bucket, Reason};
use thiserror::Error;

use crate::check::view::parse_wal_key;
use crate::layout;
use crate::types::Identity;

/// Why an entry could not be given up.
#[derive(Debug, Error)]
pub enum GiveUpError {
    /// The key is no WAL entry's.
    #[error("{0} is no WAL object: give the keys that the refused start or `drumlin store check` names")]
    NotAnEntry(String),
    /// The entry is there, or may never have been there.
    #[error("{0} is not a missing object whose records were acknowledged: nothing is given up")]
    NotMissing(String),
    /// The chain could not be read or written.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Gives up the entries with these keys: the next start goes on without what they held. Each must be missing, and be
/// known to have been committed; that holds beside a running broker, too, which never puts such an entry again.
///
/// # Errors
/// [`GiveUpError`]; keys before the one that it names have been given up.
pub async fn give_up(bucket: &Bucket, cluster_id: &str, keys: &[String]) -> Result<(), GiveUpError> {
    for key in keys {
        let (name, slot) = entry_of(cluster_id, key).ok_or_else(|| GiveUpError::NotAnEntry(key.clone()))?;
        let missing = missing_entries(bucket, &name, Reason::Recovery).await?;
        let is_missing = missing.is_some_and(|missing| missing.slots.contains(&slot));
        if !is_missing || !give_up_entry(bucket, &name, slot, Reason::Recovery).await? {
            return Err(GiveUpError::NotMissing(key.clone()));
        }
    }
    Ok(())
}

fn entry_of(cluster_id: &str, key: &str) -> Option<(ChainName, u64)> {
    let (node, incarnation, rest) = parse_wal_key(key)?;
    let name = layout::wal_chain(&Identity {
        cluster_id: cluster_id.to_owned(),
        node,
        incarnation,
    });
    // The first entry comes back by itself.
    let slot = number_of(rest.strip_prefix("log/")?).filter(|slot| *slot > 0)?;
    Some((name, slot))
}
