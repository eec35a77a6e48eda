//! Removing what earlier incarnations left, of this node, or of all nodes where no other is alive; on positive evidence
//! only (D3, D4).
//!
//! Runs once after the first committed round, when nothing of an older chain is needed any more but what this
//! chain's newest checkpoint names. Names carry epoch and incarnation: only what an older incarnation wrote, and
//! the checkpoint does not name, goes. Fences stay for ever: a process that slept through everything must still
//! find its slot taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use drumlin_objects::Reason;
use drumlin_objects::chain::{FENCE_LEN, number_of};

use crate::keeper::{KeepError, Keeper};
use crate::layout;
use crate::log::Log;
use crate::partition::{Partition, Sealed};
use crate::read::ReadError;
use crate::state::LeafRef;
use crate::types::SweptChains;

/// One run of the sweeper, after a checkpoint with these leaves was committed. Names of earlier incarnations only ever
/// disappear from checkpoints, so that a run may come later, and again.
pub(crate) struct Sweep {
    pub log: Log,
    pub leaves: Vec<LeafRef>,
    /// No broker of any node is alive but this one: what all of them left is swept.
    pub sole: bool,
}

impl Sweep {
    pub(crate) async fn run(&self) -> Result<(), KeepError> {
        let removed = self.sweep_chains().await?;
        // Unneeded chains now hold only slot 0 and their fences.
        let swept = SweptChains {
            node: (!self.sole).then_some(self.log.shared().identity.node),
            below: self.log.shared().identity.incarnation,
            kept: self.needed_chains(),
        };
        self.log.shared().swept_chains.send_replace(swept);
        let removed = removed + self.sweep_topics().await?;
        if removed > 0 {
            tracing::info!(removed, "removed what earlier starts left");
        }
        Ok(())
    }

    /// Whether an incarnation is an earlier one whose remains are this one's to remove.
    fn is_inherited(&self, node: i32, incarnation: u64) -> bool {
        let identity = &self.log.shared().identity;
        (self.sole || node == identity.node) && incarnation < identity.incarnation
    }

    /// Chains of earlier incarnations.
    async fn sweep_chains(&self) -> Result<u64, KeepError> {
        let bucket = self.log.bucket();
        let leaves = self.leaves.iter().map(|leaf| leaf.key.to_string());
        let named = self
            .leaves
            .iter()
            .flat_map(|leaf| leaf.names.iter().map(|name| name.to_string()));
        let needed: BTreeSet<String> = leaves.chain(named).collect();
        let mut removed = 0;
        for object in bucket.list("wal", None, Reason::Sweep).await? {
            let Some((node, incarnation, rest)) = parse_wal_key(&object.key) else {
                continue;
            };
            let chain = layout::wal_prefix(node, incarnation);
            if !self.is_inherited(node, incarnation)
                || needed.contains(&object.key)
                || needed.contains(&chain)
            {
                continue;
            }
            // Slot 0 and whatever may be a fence stay.
            let is_entry = rest.starts_with("log/");
            let keep = is_entry && (number_of(&object.key) == Some(0) || object.size == FENCE_LEN as u64);
            if !keep {
                bucket.delete(&object.key, Reason::Sweep).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Earlier incarnations under whose prefixes something lies that the newest checkpoint names.
    fn needed_chains(&self) -> BTreeSet<u64> {
        let leaves = self.leaves.iter();
        let named = leaves.flat_map(|leaf| leaf.names.iter().chain([&leaf.key]));
        let chains = named.filter_map(|name| parse_chain(name));
        let inherited = chains.filter(|(node, incarnation, _)| self.is_inherited(*node, *incarnation));
        inherited.map(|(_, incarnation, _)| incarnation).collect()
    }

    /// Segments and manifests that an earlier incarnation uploaded and no checkpoint ever named.
    async fn sweep_topics(&self) -> Result<u64, KeepError> {
        let partitions = self.log.open_partitions();
        let listed = self.log.bucket().list("topic", None, Reason::Sweep).await?;
        let mut removed = 0;
        for partition in partitions {
            let prefix = format!("{}/", layout::partition_prefix(&partition.id()));
            let from = listed.partition_point(|object| object.key.as_str() < prefix.as_str());
            let own = listed[from..]
                .iter()
                .take_while(|object| object.key.starts_with(&prefix));
            let strays: Vec<&str> = own
                .map(|object| object.key.as_str())
                .filter(|key| self.is_older(key))
                .collect();
            if strays.is_empty() {
                continue;
            }
            let (sealed, broken) = {
                let inner = partition.lock();
                (Arc::clone(&inner.sealed), inner.broken.is_some())
            };
            if broken {
                continue;
            }
            let needed = match self.log.named_by(&partition, &sealed).await {
                Ok(needed) => needed,
                Err(KeepError::Read(error @ ReadError::Corrupt { .. })) => {
                    tracing::warn!(%error, partition = %partition.id(), "the sweeper passed a partition over");
                    continue;
                }
                Err(error) => return Err(error),
            };
            for key in strays.into_iter().filter(|key| !needed.contains(*key)) {
                self.log.bucket().delete(key, Reason::Sweep).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whether a segment or manifest was written by an earlier incarnation, by its name.
    fn is_older(&self, key: &str) -> bool {
        let Some(name) = key.rsplit('/').next() else {
            return false;
        };
        let fields: Vec<&str> = name.trim_end_matches(".log").split('-').collect();
        let incarnation = match (key.contains("/segment/"), fields.as_slice()) {
            (true, [_, _, incarnation, _]) | (false, [_, incarnation, _, _]) => incarnation.parse::<u64>(),
            _ => return false,
        };
        incarnation.is_ok_and(|incarnation| incarnation < self.log.shared().identity.incarnation)
    }
}

impl Log {
    /// Keys of all that a partition consists of.
    async fn named_by(&self, partition: &Partition, sealed: &Sealed) -> Result<BTreeSet<String>, KeepError> {
        let id = partition.id();
        let mut needed: BTreeSet<String> = sealed.segments().map(|segment| segment.key(&id)).collect();
        needed.extend(sealed.manifest.iter().map(|manifest| manifest.key.to_string()));
        for leaf in &sealed.leaves {
            needed.insert(leaf.key.to_string());
            let table = self.cold().leaf_table(self, leaf).await;
            // Replaced leaves are deleted by the task that runs this, and by no other: none goes meanwhile.
            let table = table.map_err(|failure| failure.lost(&leaf.key))?;
            needed.extend(table.iter().map(|row| row.segment.key(&id)));
        }
        Ok(needed)
    }
}

/// Sabotage, for tests of the tests.
impl Keeper {
    /// Sabotage: deletes what a round is about to drop before the round is committed.
    pub(crate) async fn delete_dropped_early(&self, leaves: &[LeafRef]) -> Result<(), KeepError> {
        let dropped: Vec<Arc<str>> = checkpoint_objects(&self.leaves)
            .difference(&checkpoint_objects(leaves))
            .cloned()
            .collect();
        for key in dropped {
            self.log.bucket().delete(&key, Reason::Sweep).await?;
        }
        Ok(())
    }

    /// Sabotage: deletes segments that this process does not know and that are a few seconds old.
    pub(crate) async fn delete_by_age(&self) {
        let wal = &self.log.shared().wal;
        let Ok(listed) = self.log.bucket().list("topic", None, Reason::Sweep).await else {
            return;
        };
        let partitions = self.log.open_partitions();
        for partition in partitions {
            let prefix = format!("{}/segment/", layout::partition_prefix(&partition.id()));
            let sealed = Arc::clone(&partition.lock().sealed);
            let Ok(named) = self.log.named_by(&partition, &sealed).await else {
                continue;
            };
            for object in &listed {
                let old = wal.env.now_ms() - object.modified_ms > 3_000;
                if object.key.starts_with(&prefix) && old && !named.contains(&object.key) {
                    let _ = self.log.bucket().delete(&object.key, Reason::Sweep).await;
                }
            }
        }
    }
}

/// Bundles and bodies that a checkpoint with these leaves names.
fn checkpoint_objects(leaves: &[LeafRef]) -> BTreeSet<Arc<str>> {
    let named = leaves.iter().flat_map(|leaf| leaf.names.iter().cloned());
    named
        .chain(leaves.iter().map(|leaf| Arc::clone(&leaf.key)))
        .filter(|name| layout::is_bundle(name) || layout::is_body(name))
        .collect()
}

/// `wal/{shard}/{node}/{incarnation}/{rest}`.
fn parse_wal_key(key: &str) -> Option<(i32, u64, &str)> {
    let (node, incarnation, rest) = parse_chain(key)?;
    Some((node, incarnation, rest?))
}

/// As [`parse_wal_key`], and a whole chain's prefix, which has no rest.
fn parse_chain(key: &str) -> Option<(i32, u64, Option<&str>)> {
    let mut parts = key.splitn(5, '/');
    let (_, _) = (parts.next()?, parts.next()?);
    Some((
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next(),
    ))
}

impl From<crate::read::Failure> for KeepError {
    fn from(failure: crate::read::Failure) -> Self {
        Self::Read(failure.into())
    }
}
