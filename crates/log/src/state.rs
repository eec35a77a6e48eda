//! The state of partitions as a checkpoint or an estate holds it: a root and immutable leaves.
//!
//! Root (frame `DRCK`): cluster id, node, incarnation, the slot below which it stands for all entries, round,
//! and its leaves. Leaf (frame `DRCL`): up to about 1,000 partitions, each with log start, log end *as of which
//! it speaks*, leader epochs, producer state, manifest, edits since the manifest, bundle spans, and the extents
//! that still lie in older chains. Strings are kept once in a leaf, in a table at its head.
//!
//! A partition's state may be newer than the root's slot: what it says of producers and epochs is complete up
//! to `log_end`, and a reader that replays entries passes over what lies below it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::{Decoder, Encoder, FormatError};
use crate::footer::{ProducerBatch, decode_producer_batch, encode_producer_batch};
use crate::manifest::{Segment, Span, decode_span, encode_span, version_of};
use crate::types::{TopicId, TopicPartition};

const ROOT_MAGIC: [u8; 4] = *b"DRCK";
const LEAF_MAGIC: [u8; 4] = *b"DRCL";
const VERSION: u8 = 1;
/// Leaves only, and only where a partition was compacted: where that ended, and flags of segments. Read, and no longer
/// written: it does not say which tombstones were dropped.
const VERSION_CLEANED: u8 = 2;
/// Says it.
const VERSION_TOMBSTONES: u8 = 3;

/// What a root says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateRoot {
    pub cluster_id: String,
    pub node: i32,
    pub incarnation: u64,
    /// Entries of the chain below this slot are in the state.
    pub covers_below: u64,
    pub round: u64,
    pub leaves: Vec<LeafRef>,
}

/// A leaf, as a root knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeafRef {
    pub key: Arc<str>,
    pub length: u64,
    pub first: TopicPartition,
    pub partitions: u32,
    /// Every object that the leaf's partitions name outside the topic's own prefix: bundles and older chains.
    pub names: Vec<Arc<str>>,
}

/// A manifest, as a leaf knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestRef {
    pub key: Arc<str>,
    pub length: u64,
}

/// A run of batches that still lies in a WAL object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredExtent {
    /// The prefix and id of its chain.
    pub chain: Arc<str>,
    pub chain_id: [u8; 16],
    pub slot: u64,
    pub leader_epoch: i32,
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub position: u64,
    pub length: u64,
    pub max_timestamp: i64,
    pub crc: u32,
}

/// One producer's committed state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredProducer {
    pub producer_id: i64,
    pub epoch: i16,
    /// Unix milliseconds, for people to read; expiry never rests on it (R4).
    pub last_timestamp: i64,
    /// Oldest first, five at most.
    pub batches: Vec<ProducerBatch>,
}

/// One partition's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub id: TopicPartition,
    pub log_start: i64,
    pub log_end: i64,
    /// Compaction has seen all records below this offset; 0: none.
    pub cleaned_to: i64,
    /// Compaction has dropped tombstones below this offset, and none from it on; 0: none.
    pub tombstones_from: i64,
    pub epochs: Vec<(i32, i64)>,
    pub producers: Vec<StoredProducer>,
    pub manifest: Option<ManifestRef>,
    /// Segments added since the manifest was folded, in order of offsets.
    pub segments: Vec<Segment>,
    pub spans: Vec<Span>,
    pub extents: Vec<StoredExtent>,
}

impl PartitionState {
    pub(crate) fn empty(id: TopicPartition) -> Self {
        Self {
            id,
            log_start: 0,
            log_end: 0,
            cleaned_to: 0,
            tombstones_from: 0,
            epochs: Vec::new(),
            producers: Vec::new(),
            manifest: None,
            segments: Vec::new(),
            spans: Vec::new(),
            extents: Vec::new(),
        }
    }

    /// Bundles and chains that must stay while this state stands.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.spans
            .iter()
            .map(|span| &span.bundle)
            .chain(self.extents.iter().map(|extent| &extent.chain))
    }
}

pub(crate) fn encode_state_root(root: &StateRoot) -> Vec<u8> {
    let mut out = Encoder::framed(ROOT_MAGIC, VERSION);
    out.str(&root.cluster_id);
    out.var(root.node.into());
    out.uvar(root.incarnation);
    out.uvar(root.covers_below);
    out.uvar(root.round);
    out.len(root.leaves.len());
    for leaf in &root.leaves {
        out.str(&leaf.key);
        out.uvar(leaf.length);
        out.raw(&leaf.first.topic.0);
        out.uvar(leaf.first.partition as u64);
        out.uvar(leaf.partitions.into());
        out.len(leaf.names.len());
        leaf.names.iter().for_each(|name| out.str(name));
    }
    out.finish()
}

pub(crate) fn decode_state_root(bytes: &[u8]) -> Result<StateRoot, FormatError> {
    let (_, mut input) = Decoder::framed(bytes, ROOT_MAGIC, "checkpoint", VERSION)?;
    let root = StateRoot {
        cluster_id: input.str()?,
        node: input.i32()?,
        incarnation: input.uvar()?,
        covers_below: input.uvar()?,
        round: input.uvar()?,
        leaves: input.list(21, |input| {
            Ok(LeafRef {
                key: input.str()?.into(),
                length: input.uvar()?,
                first: TopicPartition {
                    topic: TopicId(input.array()?),
                    partition: i32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("partition"))?,
                },
                partitions: u32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("count"))?,
                names: input.list(1, |input| Ok(input.str()?.into()))?,
            })
        })?,
    };
    input.finish()?;
    Ok(root)
}

/// The strings of a leaf, each once.
#[derive(Default)]
struct Names<'a> {
    index: BTreeMap<&'a str, usize>,
    list: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn add(&mut self, name: &'a str) {
        let next = self.list.len();
        self.index.entry(name).or_insert_with(|| {
            self.list.push(name);
            next
        });
    }

    fn of(&self, name: &str) -> usize {
        *self
            .index
            .get(name)
            .expect("every name was added before encoding")
    }
}

pub(crate) fn encode_state_leaf(partitions: &[PartitionState]) -> Vec<u8> {
    let cleaned = partitions.iter().any(|partition| partition.cleaned_to > 0);
    let version = match version_of(partitions.iter().flat_map(|partition| &partition.segments)) {
        VERSION if !cleaned => VERSION,
        _ => VERSION_TOMBSTONES,
    };
    encode_leaf(partitions, version)
}

fn encode_leaf(partitions: &[PartitionState], version: u8) -> Vec<u8> {
    let mut names = Names::default();
    for partition in partitions {
        partition.names().for_each(|name| names.add(name));
        if let Some(manifest) = &partition.manifest {
            names.add(&manifest.key);
        }
    }
    let mut out = Encoder::framed(LEAF_MAGIC, version);
    out.len(names.list.len());
    names.list.iter().for_each(|name| out.str(name));
    out.len(partitions.len());
    for partition in partitions {
        encode_partition(&mut out, partition, &names, version);
    }
    out.finish()
}

fn encode_partition(out: &mut Encoder, partition: &PartitionState, names: &Names<'_>, version: u8) {
    out.raw(&partition.id.topic.0);
    out.uvar(partition.id.partition as u64);
    out.uvar(partition.log_start as u64);
    out.uvar(partition.log_end as u64);
    if version >= VERSION_CLEANED {
        out.uvar(partition.cleaned_to as u64);
    }
    if version >= VERSION_TOMBSTONES {
        out.uvar(partition.tombstones_from as u64);
    }
    out.len(partition.epochs.len());
    for (epoch, start) in &partition.epochs {
        out.var((*epoch).into());
        out.uvar(*start as u64);
    }
    out.len(partition.producers.len());
    for producer in &partition.producers {
        out.var(producer.producer_id);
        out.var(producer.epoch.into());
        out.var(producer.last_timestamp);
        out.len(producer.batches.len());
        producer
            .batches
            .iter()
            .for_each(|batch| encode_producer_batch(out, batch, 0));
    }
    match &partition.manifest {
        None => out.u8(0),
        Some(manifest) => {
            out.u8(1);
            out.len(names.of(&manifest.key));
            out.uvar(manifest.length);
        }
    }
    // Edits since the fold, each with its kind: 1 adds a segment. What compaction replaces in a manifest makes
    // the round fold it anew, so that no other kind is needed.
    out.len(partition.segments.len());
    for segment in &partition.segments {
        out.u8(1);
        segment.encode(out, version);
    }
    out.len(partition.spans.len());
    partition
        .spans
        .iter()
        .for_each(|span| encode_span(out, names.of(&span.bundle), span));
    out.len(partition.extents.len());
    for extent in &partition.extents {
        out.len(names.of(&extent.chain));
        out.raw(&extent.chain_id);
        out.uvar(extent.slot);
        out.var(extent.leader_epoch.into());
        out.uvar(extent.base_offset as u64);
        out.uvar((extent.last_offset - extent.base_offset) as u64);
        out.uvar(extent.position);
        out.uvar(extent.length);
        out.var(extent.max_timestamp);
        out.u32(extent.crc);
    }
}

pub(crate) fn decode_state_leaf(bytes: &[u8]) -> Result<Vec<PartitionState>, FormatError> {
    let (version, mut input) = Decoder::framed(bytes, LEAF_MAGIC, "checkpoint leaf", VERSION_TOMBSTONES)?;
    let names: Vec<Arc<str>> = input.list(1, |input| Ok(input.str()?.into()))?;
    let partitions = input.list(26, |input| decode_partition(input, &names, version))?;
    input.finish()?;
    Ok(partitions)
}

fn decode_partition(
    input: &mut Decoder<'_>,
    names: &[Arc<str>],
    version: u8,
) -> Result<PartitionState, FormatError> {
    let id = TopicPartition {
        topic: TopicId(input.array()?),
        partition: i32::try_from(input.uvar()?).map_err(|_| FormatError::Invalid("partition"))?,
    };
    let name = |index: u64| {
        let index = usize::try_from(index).map_err(|_| FormatError::Invalid("key index"))?;
        names.get(index).cloned().ok_or(FormatError::Invalid("key index"))
    };
    let log_start = input.offset()?;
    let log_end = input.offset()?;
    let cleaned_to = if version >= VERSION_CLEANED {
        input.offset()?
    } else {
        0
    };
    // It may have been any that a pass has seen.
    let tombstones_from = if version >= VERSION_TOMBSTONES {
        input.offset()?
    } else {
        cleaned_to
    };
    let epochs = input.list(2, |input| Ok((input.i32()?, input.offset()?)))?;
    let producers = input.list(4, |input| {
        Ok(StoredProducer {
            producer_id: input.var()?,
            epoch: input.i16()?,
            last_timestamp: input.var()?,
            batches: input.list(8, |input| decode_producer_batch(input, 0))?,
        })
    })?;
    let manifest = match input.u8()? {
        0 => None,
        1 => Some(ManifestRef {
            key: name(input.uvar()?)?,
            length: input.uvar()?,
        }),
        _ => return Err(FormatError::Invalid("manifest")),
    };
    let segments = input.list(17, |input| match input.u8()? {
        1 => Segment::decode(input, version),
        _ => Err(FormatError::Invalid("edit kind")),
    })?;
    let spans = input.list(8, |input| decode_span(input, names))?;
    let extents = input.list(28, |input| {
        let chain = name(input.uvar()?)?;
        let chain_id = input.array()?;
        let slot = input.uvar()?;
        let leader_epoch = input.i32()?;
        let base_offset = input.offset()?;
        let last_offset = base_offset
            .checked_add(input.offset()?)
            .ok_or(FormatError::Invalid("offset"))?;
        let (position, length) = (input.uvar()?, input.uvar()?);
        position
            .checked_add(length)
            .ok_or(FormatError::Invalid("position"))?;
        Ok(StoredExtent {
            chain,
            chain_id,
            slot,
            leader_epoch,
            base_offset,
            last_offset,
            position,
            length,
            max_timestamp: input.var()?,
            crc: input.u32()?,
        })
    })?;
    if log_start > log_end {
        return Err(FormatError::Invalid("log start"));
    }
    if cleaned_to > log_end {
        return Err(FormatError::Invalid("cleaned offset"));
    }
    if tombstones_from > log_end {
        return Err(FormatError::Invalid("tombstones' offset"));
    }
    Ok(PartitionState {
        id,
        log_start,
        log_end,
        cleaned_to,
        tombstones_from,
        epochs,
        producers,
        manifest,
        segments,
        spans,
        extents,
    })
}

#[cfg(test)]
mod tests;
