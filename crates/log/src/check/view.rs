//! A bucket's newest state, read without fencing anybody: for tools that change nothing.
//!
//! The newest incarnation that was born has it all, of whatever node: it took over from the one before. Its birth entry names the estate that it began
//! with, and [`replay`] does the rest. Its chain ends, for a reader, at the first empty slot or the first fence. A
//! broker may run meanwhile; what it deletes under the reader makes the reader look again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drumlin_objects::chain::{
    ChainError, ChainName, Checkpoint, EntryKind, FENCE_LEN, entry_key, newest_checkpoint, number_of,
    read_birth, read_header,
};
use drumlin_objects::{Bucket, Listed, Reason, StoreError};

use crate::layout;
use crate::lost::Lose;
use crate::recover::{Base, Found, RecoverError, replay};
use crate::state::LeafRef;

/// A reader under whom objects are deleted starts again this often.
pub(crate) const ATTEMPTS: usize = 8;
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The chain of the newest incarnation.
#[derive(Debug, Clone)]
pub(crate) struct NewestChain {
    pub incarnation: u64,
    pub name: ChainName,
    /// The estate that it began with.
    pub estate: Option<String>,
}

/// A chain and the state that it tells.
pub(crate) struct View {
    pub chain: NewestChain,
    /// The newest checkpoint whose marker stands.
    pub checkpoint: Option<Checkpoint>,
    /// The first slot that is empty or a fence's.
    pub end: u64,
    pub found: Found,
}

impl View {
    /// Checkpoint objects that the state consists of.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = String> {
        let leaves = self.found.leaves.iter().map(|leaf| leaf.key.to_string());
        leaves.chain(self.found.base.clone())
    }

    /// Bundles and the prefixes of older chains that the state still needs.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        let by_leaves = self.found.leaves.iter().flat_map(|leaf: &LeafRef| &leaf.names);
        let by_states = self.found.states.values().flat_map(|state| state.names());
        by_leaves.chain(by_states).cloned().collect()
    }
}

/// `wal/{shard}/{node}/{incarnation}/{rest}`, where the shard is right.
pub(crate) fn parse_wal_key(key: &str) -> Option<(i32, u64, &str)> {
    let mut parts = key.splitn(5, '/');
    let (wal, _shard) = (parts.next()?, parts.next()?);
    let (node, incarnation) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let rest = parts.next()?;
    let prefix = layout::wal_prefix(node, incarnation);
    (wal == "wal" && key.starts_with(&prefix)).then_some((node, incarnation, rest))
}

/// The newest incarnation that was born, by the objects of a list; or why its birth cannot be read. A broker that was
/// given another `node.id` took over from the one of the old id, whose chain tells of the same records. One whose slot 0 is a fence was fenced before it wrote anything: the one before it still has it all.
pub(crate) async fn newest_chain(
    bucket: &Bucket,
    listed: &[Listed],
) -> Option<Result<NewestChain, ChainError>> {
    let mut incarnations: BTreeMap<(u64, i32), bool> = BTreeMap::new();
    for object in listed {
        let Some((node, incarnation, rest)) = parse_wal_key(&object.key) else {
            continue;
        };
        // A fencer's stopper may stand alone; anything else was written after a birth.
        let only_stopper = rest.starts_with("log/") && object.size == FENCE_LEN as u64;
        let written = incarnations.entry((incarnation, node)).or_default();
        *written |= !only_stopper;
    }
    for ((incarnation, node), written) in incarnations.into_iter().rev() {
        let chain = born(bucket, node, incarnation, written).await.transpose();
        if chain.is_some() {
            return chain;
        }
    }
    None
}

async fn born(
    bucket: &Bucket,
    node: i32,
    incarnation: u64,
    written: bool,
) -> Result<Option<NewestChain>, ChainError> {
    let prefix = layout::wal_prefix(node, incarnation);
    let birth = match read_birth(bucket, &prefix, Reason::Check).await? {
        Some(birth) if birth.header.kind == EntryKind::Birth => birth,
        None if written => {
            return Err(ChainError::Store(StoreError::NotFound {
                key: entry_key(&prefix, 0),
            }));
        }
        _ => return Ok(None),
    };
    let estate = String::from_utf8(birth.body().to_vec()).unwrap_or_default();
    Ok(Some(NewestChain {
        incarnation,
        name: ChainName {
            prefix,
            id: birth.header.chain,
        },
        estate: (!estate.is_empty()).then_some(estate),
    }))
}

/// The end of a chain for a reader: the first slot from `from` on that is empty or a fence's.
pub(crate) async fn end_of(bucket: &Bucket, name: &ChainName, from: u64) -> Result<u64, ChainError> {
    let after = from.checked_sub(1).map(|slot| name.entry_key(slot));
    let prefix = format!("{}/log", name.prefix);
    let listed = bucket.list(&prefix, after.as_deref(), Reason::Check).await?;
    let mut next = from;
    for object in &listed {
        let Some(slot) = number_of(&object.key).filter(|slot| *slot >= next) else {
            continue;
        };
        if slot > next {
            break;
        }
        if object.size == FENCE_LEN as u64 {
            let header = read_header(bucket, name, slot, Reason::Check).await?;
            if header.is_none_or(|header| header.kind == EntryKind::Fence) {
                break;
            }
        }
        next += 1;
    }
    Ok(next)
}

/// The state of a chain. `whole` false: of its newest checkpoint only, for chains whose entries are damaged.
pub(crate) async fn read_view(
    bucket: &Bucket,
    chain: &NewestChain,
    whole: bool,
) -> Result<View, RecoverError> {
    for _ in 0..ATTEMPTS {
        let checkpoint = newest_checkpoint(bucket, &chain.name, Reason::Check).await?;
        let from = checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.covers_below);
        let end = end_of(bucket, &chain.name, from).await?;
        let base = match &checkpoint {
            Some(checkpoint) => Base::Checkpoint(checkpoint.clone()),
            None => Base::Estate(chain.estate.clone()),
        };
        let until = if whole { end } else { from };
        if let Some(found) = replay(bucket, &chain.name, base, until, Lose::Nothing).await? {
            return Ok(View {
                chain: chain.clone(),
                checkpoint,
                end,
                found,
            });
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    Err(RecoverError::Unsteady(chain.name.prefix.clone()))
}
