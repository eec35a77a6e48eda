//! What the newest states name: every object that must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drumlin_objects::chain::entry_key;
use drumlin_objects::{Bucket, Reason, StoreError};

use super::view::View;
use crate::codec::FormatError;
use crate::layout;
use crate::manifest::{LeafPointer, Segment, decode_leaf, decode_root};
use crate::state::PartitionState;

/// Why a manifest, or a part of it, could not be read.
#[derive(Debug)]
pub(crate) enum ManifestError {
    Store(String, StoreError),
    Damaged(String, FormatError),
    Disagrees(String, String),
}

/// A partition's manifest root: leaves and segments that reach above the log start, besides those of the state.
pub(crate) struct Roots {
    pub leaves: Vec<LeafPointer>,
    pub segments: Vec<Segment>,
    /// Bytes read.
    pub length: u64,
}

/// Reads a partition's manifest root, and joins the segments that were added since.
pub(crate) async fn read_roots(bucket: &Bucket, state: &PartitionState) -> Result<Roots, ManifestError> {
    let (mut leaves, mut segments, mut length) = (Vec::new(), Vec::new(), 0);
    if let Some(manifest) = &state.manifest {
        let key = || manifest.key.to_string();
        let bytes = bucket.get(&manifest.key, Reason::Check).await;
        let bytes = bytes.map_err(|error| ManifestError::Store(key(), error))?;
        length = bytes.len() as u64;
        let root = decode_root(&bytes).map_err(|error| ManifestError::Damaged(key(), error))?;
        if length != manifest.length {
            let what = format!("it has {length} bytes, its checkpoint says {}", manifest.length);
            return Err(ManifestError::Disagrees(key(), what));
        }
        (leaves, segments) = (root.leaves, root.segments);
    }
    segments.extend(state.segments.iter().cloned());
    leaves.retain(|leaf| leaf.end_offset > state.log_start);
    segments.retain(|segment| segment.end_offset > state.log_start);
    Ok(Roots {
        leaves,
        segments,
        length,
    })
}

/// Reads a manifest leaf whole, and holds it against what the root says of it.
pub(crate) async fn read_leaf(bucket: &Bucket, leaf: &LeafPointer) -> Result<Vec<Segment>, ManifestError> {
    let key = || leaf.key.to_string();
    let bytes = bucket.get(&leaf.key, Reason::Check).await;
    let bytes = bytes.map_err(|error| ManifestError::Store(key(), error))?;
    let rows =
        decode_leaf(&bytes, leaf.table_length).map_err(|error| ManifestError::Damaged(key(), error))?;
    let first = rows.first().map_or(0, |row| row.base_offset);
    let last = rows.last().map_or(0, |row| row.end_offset);
    let agrees = bytes.len() as u64 == leaf.length
        && (first, last) == (leaf.base_offset, leaf.end_offset)
        && rows.len() == leaf.segments as usize
        && rows.iter().map(|row| row.size).sum::<u64>() == leaf.bytes
        && rows.iter().map(|row| row.max_timestamp).max() == Some(leaf.max_timestamp);
    if agrees {
        Ok(rows)
    } else {
        let what = "it is not what its manifest says of it".to_owned();
        Err(ManifestError::Disagrees(key(), what))
    }
}

/// Keys that must be there.
#[derive(Default)]
pub(crate) struct Names {
    pub keys: BTreeSet<String>,
    /// Chains whose entries must stay.
    pub chains: BTreeSet<String>,
    /// Partitions, by prefix, whose manifests could not be read: what else they name is not known.
    pub unknown: BTreeSet<String>,
    /// Log starts by partition prefix.
    pub log_starts: BTreeMap<String, i64>,
}

/// All that `views` name.
pub(crate) async fn names(bucket: &Bucket, views: &[View]) -> Names {
    let mut names = Names::default();
    for view in views {
        names.keys.extend(view.bodies());
        let chain = &view.chain.name;
        let from = view.checkpoint.as_ref().map_or(0, |known| known.covers_below);
        if let Some(checkpoint) = &view.checkpoint {
            names.keys.insert(chain.marker_key(checkpoint.covers_below));
            names.keys.insert(checkpoint.body_key.clone());
        }
        names.keys.insert(chain.entry_key(0));
        names
            .keys
            .extend((from..view.end).map(|slot| chain.entry_key(slot)));
        for name in view.names() {
            if layout::is_bundle(&name) || layout::is_wal_entry(&name) {
                names.keys.insert(name.to_string());
            } else if *name != *chain.prefix {
                names.chains.insert(name.to_string());
            }
        }
        for state in view.found.states.values() {
            partition_names(bucket, state, &mut names).await;
        }
    }
    names
}

async fn partition_names(bucket: &Bucket, state: &PartitionState, names: &mut Names) {
    let prefix = layout::partition_prefix(&state.id);
    names.log_starts.insert(prefix.clone(), state.log_start);
    names
        .keys
        .extend(state.manifest.iter().map(|manifest| manifest.key.to_string()));
    let extents = state
        .extents
        .iter()
        .filter(|extent| extent.last_offset >= state.log_start);
    let entries: BTreeSet<(&Arc<str>, u64)> = extents.map(|extent| (&extent.chain, extent.slot)).collect();
    names
        .keys
        .extend(entries.into_iter().map(|(chain, slot)| entry_key(chain, slot)));
    let Ok(roots) = read_roots(bucket, state).await else {
        names.unknown.insert(prefix);
        return;
    };
    names
        .keys
        .extend(roots.segments.iter().map(|segment| segment.key(&state.id)));
    for leaf in &roots.leaves {
        names.keys.insert(leaf.key.to_string());
        match read_leaf(bucket, leaf).await {
            Ok(segments) => names.keys.extend(
                segments
                    .iter()
                    .filter(|segment| segment.end_offset > state.log_start)
                    .map(|segment| segment.key(&state.id)),
            ),
            Err(_) => {
                names.unknown.insert(prefix.clone());
            }
        }
    }
}
