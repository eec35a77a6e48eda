//! Taking over from an incarnation: fence its chain, read what it left, write it down as an estate.
//!
//! No record data is read: a checkpoint, or the estate that the incarnation itself began with, and the footers
//! of the entries above it say everything. What lies beyond the fence is never looked at (I2). A leaf of either that
//! cannot be read costs its partitions ([`lost`](crate::lost)). A committed entry that is missing refuses the start;
//! where an operator has given it up, the offsets that nothing else holds are taken to have been in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use drumlin_objects::chain::{
    ChainError, ChainId, ChainName, Checkpoint, ENTRY_HEADER_LEN, EntryHeader, EntryKind,
    FormatError as ChainFormatError, fence, put_birth, read_header_and_footer,
};
use drumlin_objects::sabotage::{self, Sabotage};
use drumlin_objects::{Bucket, Env, Reason, StoreError};
use futures::{StreamExt, TryStreamExt};
use thiserror::Error;
use tokio::time::Instant;

use crate::codec::FormatError;
use crate::footer::{Edit, ExtentRecord, decode_edits, decode_footer};
use crate::layout;
use crate::leaves::{LeafLoad, LeafWriter, write_leaves};
use crate::lost::{Lose, LostLeaf, joined, lost_key, range_of, read_leaf};
use crate::manifest::decode_root;
use crate::object::{Extent, WalObject};
use crate::partition::{Broken, Partition, Sealed};
use crate::state::{LeafRef, PartitionState, StateRoot, StoredExtent, decode_state_root, encode_state_root};
use crate::types::{Identity, Previous, TopicPartition};

/// Objects read at a time.
const READS: usize = 64;
/// A reader that meets a slot deleted under it starts again this often.
const ATTEMPTS: usize = 16;

/// Why an incarnation could not be taken over.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The chain could not be fenced or read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what it should be.
    #[error("object {key} is damaged: {what}; {}", what.remedy())]
    Damaged {
        /// Its key.
        key: String,
        /// How.
        what: FormatError,
    },
    /// The part of a checkpoint that held a partition's state cannot be read.
    #[error("object {0}, which held its state, is damaged or missing; restore it from a copy of the bucket")]
    Lost(String),
    /// Committed data does not join: some of it is missing (N3).
    #[error("partition {id}: data for offsets {expected} to {found} is missing")]
    Gap {
        /// The partition.
        id: TopicPartition,
        /// Where the known data ends.
        expected: i64,
        /// Where it goes on.
        found: i64,
    },
    /// The chain kept changing while it was read.
    #[error(
        "the chain {0} kept changing while it was read, or an object that it names is missing: `drumlin store check` \
         tells which; restore it from a copy of the bucket"
    )]
    Unsteady(String),
}

impl RecoverError {
    /// The store's failure, if it is one: what is left may be taken over later.
    pub fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Chain(ChainError::Store(error)) | Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// What an incarnation left.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The slot of the fence: its chain ends there.
    pub fence_slot: u64,
    /// The key of the estate that was written, for the metadata entry that moves the partitions; none if there
    /// is nothing to take over.
    pub estate: Option<String>,
    /// Whether the registration that follows leaves no other incarnation alive, of whatever node. All that older ones
    /// left is this one's then: a broker whose `node.id` was changed inherits what it wrote under the old one.
    pub sole: bool,
    /// There was an incarnation before.
    pub(crate) inherited: bool,
    /// Leaves that could not be read: what is in their ranges and not among `partitions` is lost with them.
    pub(crate) lost: Vec<LostLeaf>,
    pub(crate) partitions: BTreeMap<TopicPartition, RecoveredPartition>,
    pub(crate) leaves: Vec<LeafRef>,
}

impl Recovered {
    /// Takes a partition out; what is lost is one of the broken ones.
    pub(crate) fn partition(&mut self, id: &TopicPartition) -> Option<RecoveredPartition> {
        if let Some(found) = self.partitions.remove(id) {
            return Some(found);
        }
        let lost = self.lost.iter().find(|lost| lost.contains(id))?;
        let state = lost.partial(*id);
        let broken = Broken {
            what: RecoverError::Lost(lost.leaf.key.to_string()).to_string(),
            carried: state.clone(),
        };
        Some(RecoveredPartition {
            state,
            sealed: Sealed::default(),
            objects: Vec::new(),
            broken: Some(Arc::new(broken)),
        })
    }
}

/// One partition as it was left.
#[derive(Debug)]
pub(crate) struct RecoveredPartition {
    pub state: PartitionState,
    pub sealed: Sealed,
    pub objects: Vec<Extent>,
    /// Why it cannot be served, and all that was found of it. Of a deleted topic no more may be left than the entries that came after the
    /// checkpoint that dropped it; who opens a partition must look here.
    pub broken: Option<Arc<Broken>>,
}

impl RecoveredPartition {
    /// Gives a newly opened partition its past.
    pub(crate) fn fill(self, partition: &Partition, now: Instant) {
        let mut inner = partition.lock();
        inner.log_start = self.state.log_start;
        inner.log_end = self.state.log_end;
        inner.high_watermark = self.state.log_end;
        inner.epochs = self.state.epochs;
        inner.producers.restore(&self.state.producers, now);
        inner.broken = self.broken;
        if inner.broken.is_some() {
            // It keeps what it has in the state that is carried on; nothing is read from these.
            (inner.sealed_end, inner.sealed) = (self.state.log_end, Arc::new(self.sealed));
            return;
        }
        inner.hot_bytes = self.objects.iter().map(|extent| u64::from(extent.length)).sum();
        let unsealed = self
            .objects
            .first()
            .map_or(self.state.log_end, |extent| extent.base_offset);
        inner.sealed_end = self.sealed.end().unwrap_or(unsealed);
        inner.hot = self.objects.into();
        inner.sealed = Arc::new(self.sealed);
    }
}

/// Fences the previous incarnation's chain, rebuilds the state of its partitions and writes it as an estate.
///
/// Safe to call again after any failure, and while the previous incarnation is alive: from the fence on it can
/// acknowledge nothing.
///
/// # Errors
/// [`RecoverError`]; where data is damaged or missing the broker must not start over it.
pub async fn recover(
    env: &Env,
    bucket: &Bucket,
    previous: Option<&Previous>,
) -> Result<Recovered, RecoverError> {
    let Some(previous) = previous else {
        return Ok(Recovered::default());
    };
    let name = layout::wal_chain(&previous.identity);
    for attempt in 1..=ATTEMPTS {
        let fenced = match fence(env, bucket, &name, 0, b"taken over", Reason::Recovery).await {
            Err(ChainError::Missing(missing)) if missing.slots.first() == Some(&0) => {
                restore_birth(bucket, &name, previous).await?;
                continue;
            }
            fenced => fenced?,
        };
        let base = match &fenced.checkpoint {
            Some(checkpoint) => Base::Checkpoint(checkpoint.clone()),
            None => Base::Estate(previous.estate.clone()),
        };
        // What is replaced while this reads is found in the end; what is gone then is lost.
        let lose = if attempt < ATTEMPTS {
            Lose::Damaged
        } else {
            Lose::Gone
        };
        match replay(bucket, &name, base, fenced.end, lose).await? {
            Some(found) => return finish(env, bucket, &previous.identity, &name, fenced.end, found).await,
            // Its owner, or a sweeper, is deleting what a newer checkpoint has replaced (F4).
            None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
    Err(RecoverError::Unsteady(name.prefix))
}

/// Puts the first entry of a chain again, which was deleted: all that it says is known from the metadata.
async fn restore_birth(bucket: &Bucket, name: &ChainName, previous: &Previous) -> Result<(), RecoverError> {
    let body = birth_body(previous.estate.as_deref());
    put_birth(bucket, name, 0, body, Reason::Recovery).await?;
    tracing::warn!(
        key = name.entry_key(0),
        "the log's first entry was missing and has been written again"
    );
    Ok(())
}

/// The first entry of a chain whose incarnation began with `estate`, with room for the header.
pub(crate) fn birth_body(estate: Option<&str>) -> BytesMut {
    let mut body = BytesMut::zeroed(ENTRY_HEADER_LEN);
    body.extend_from_slice(estate.unwrap_or_default().as_bytes());
    body
}

pub(crate) enum Base {
    Checkpoint(Checkpoint),
    Estate(Option<String>),
}

/// State as a chain's checkpoint or estate and the entries above it tell it.
pub(crate) struct Found {
    pub states: BTreeMap<TopicPartition, PartitionState>,
    pub leaves: Vec<LeafRef>,
    /// Leaves among them that could not be read.
    pub lost: Vec<LostLeaf>,
    /// The root that it began with.
    pub base: Option<String>,
    changed: std::collections::BTreeSet<TopicPartition>,
    /// The root that says it all, if no entry lies above it.
    root: Option<String>,
}

/// State as of `end`. None: a slot is missing, or a body; start again from the newest checkpoint. Changes nothing.
pub(crate) async fn replay(
    bucket: &Bucket,
    name: &ChainName,
    base: Base,
    end: u64,
    lose: Lose,
) -> Result<Option<Found>, RecoverError> {
    let from = match &base {
        Base::Checkpoint(checkpoint) => checkpoint.covers_below,
        Base::Estate(_) => 0,
    };
    let Some(entries) = read_entries(bucket, name, from, end).await? else {
        return Ok(None);
    };
    // A checkpoint's entry makes it true, whether or not its marker was put (D1).
    let newest = entries
        .iter()
        .rev()
        .find(|(header, _)| header.kind == EntryKind::Checkpoint);
    let base = match newest {
        Some((header, footer)) => {
            let checkpoint =
                Checkpoint::decode(footer, &name.id).map_err(|what| entry_damaged(name, header, what))?;
            Base::Checkpoint(checkpoint)
        }
        None => base,
    };
    let (root_key, from) = match base {
        Base::Checkpoint(checkpoint) => (Some(checkpoint.body_key), checkpoint.covers_below),
        Base::Estate(estate) => (estate, 0),
    };
    let mut found = match &root_key {
        None => Found {
            states: BTreeMap::new(),
            leaves: Vec::new(),
            lost: Vec::new(),
            base: None,
            changed: Default::default(),
            root: None,
        },
        Some(key) => match load_state(bucket, key, lose).await {
            Ok(found) => found,
            Err(RecoverError::Store(error)) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    let as_of: BTreeMap<TopicPartition, i64> = found
        .states
        .iter()
        .map(|(id, state)| (*id, state.log_end))
        .collect();
    let lost = std::mem::take(&mut found.lost);
    // Of a partition that no leaf tells of; `base_offset` is the first that entries do, if they tell of records.
    let unheard_of = |id: TopicPartition, base_offset: Option<i64>| {
        let lost = lost.iter().find(|lost| lost.contains(&id));
        // Its first record: there was nothing before.
        let lost = lost.filter(|_| base_offset != Some(0));
        lost.map_or_else(|| PartitionState::empty(id), |lost| lost.partial(id))
    };
    let mut clean = true;
    let mut given_up: Vec<GivenUp> = Vec::new();
    for (header, footer) in entries.iter().filter(|(header, _)| header.slot >= from) {
        let damaged = |what| RecoverError::Damaged {
            key: name.entry_key(header.slot),
            what,
        };
        match header.kind {
            EntryKind::Data => {
                clean = false;
                for record in decode_footer(footer).map_err(damaged)? {
                    found.changed.insert(record.id);
                    let state = found.states.entry(record.id);
                    let state = state.or_insert_with(|| unheard_of(record.id, Some(record.base_offset)));
                    // What a lost leaf knew of it may join.
                    let whole = !lost.iter().any(|lost| lost.contains(&record.id));
                    if whole && record.base_offset > state.log_end {
                        let extent = given_up_extent(state, name, &given_up, record.base_offset);
                        state.extents.extend(extent);
                    }
                    apply_extent(state, name, header.slot, record, &as_of);
                }
            }
            EntryKind::Edit => {
                clean = false;
                for edit in decode_edits(footer).map_err(damaged)? {
                    let Edit::LogStart { id, offset } = edit;
                    found.changed.insert(id);
                    let state = found.states.entry(id).or_insert_with(|| unheard_of(id, None));
                    state.log_start = state.log_start.max(offset);
                    // Only where the rest of it is lost.
                    state.log_end = state.log_end.max(offset);
                }
            }
            EntryKind::GivenUp => {
                clean = false;
                given_up.push(GivenUp::new(header, footer));
            }
            EntryKind::Birth | EntryKind::Checkpoint | EntryKind::Fence => {}
            kind => return Err(entry_damaged(name, header, ChainFormatError::Kind(kind as u8))),
        }
    }
    found.lost = lost;
    found.root = root_key.filter(|_| clean);
    Ok(Some(found))
}

/// An entry that stands in place of a missing one.
struct GivenUp {
    slot: u64,
    length: u64,
    /// Of what it holds, which is no batch.
    crc: u32,
}

impl GivenUp {
    fn new(header: &EntryHeader, body: &Bytes) -> Self {
        Self {
            slot: header.slot,
            length: header.body_len,
            crc: crc32c::crc32c(body),
        }
    }
}

/// An extent for the records up to `end` that lay in entries which were given up. It names the first of these that can
/// have held them, with a checksum that does not match: so they are damaged data (N3), which stays named until retention
/// has passed it. None where nothing was given up: the records are missing for another reason.
fn given_up_extent(
    state: &PartitionState,
    name: &ChainName,
    given_up: &[GivenUp],
    end: i64,
) -> Option<StoredExtent> {
    let before = state.extents.last().filter(|last| *last.chain == *name.prefix);
    let before = before.map_or(0, |last| last.slot);
    let object = given_up.iter().find(|object| object.slot > before)?;
    Some(StoredExtent {
        chain: name.prefix.as_str().into(),
        chain_id: name.id.0,
        slot: object.slot,
        leader_epoch: state.epochs.last().map_or(0, |(epoch, _)| *epoch),
        base_offset: state.log_end,
        last_offset: end - 1,
        position: ENTRY_HEADER_LEN as u64,
        length: object.length,
        max_timestamp: -1,
        crc: !object.crc,
    })
}

fn entry_damaged(name: &ChainName, header: &EntryHeader, what: ChainFormatError) -> RecoverError {
    ChainError::Damaged {
        key: name.entry_key(header.slot),
        what,
    }
    .into()
}

async fn read_entries(
    bucket: &Bucket,
    name: &ChainName,
    from: u64,
    end: u64,
) -> Result<Option<Vec<(EntryHeader, Bytes)>>, RecoverError> {
    let mut read: Vec<Option<(EntryHeader, Bytes)>> = futures::stream::iter(from..end)
        .map(|slot| read_header_and_footer(bucket, name, slot, Reason::Recovery))
        .buffered(READS)
        .try_collect()
        .await?;
    if sabotage::on(Sabotage::BeyondFence) {
        for slot in end + 1..end + 16 {
            let beyond = read_header_and_footer(bucket, name, slot, Reason::Recovery).await?;
            read.extend(beyond.map(Some));
        }
    }
    Ok(read.into_iter().collect())
}

/// Loads a root and all its leaves.
async fn load_state(bucket: &Bucket, key: &str, lose: Lose) -> Result<Found, RecoverError> {
    let bytes = bucket.get(key, Reason::Recovery).await?;
    let root = decode_state_root(&bytes).map_err(|what| RecoverError::Damaged {
        key: key.to_owned(),
        what,
    })?;
    let read: Vec<Result<Vec<PartitionState>, String>> = futures::stream::iter(root.leaves.clone())
        .map(|leaf| async move { read_leaf(bucket, &leaf, lose).await })
        .buffered(READS)
        .try_collect()
        .await?;
    let whole: Vec<bool> = read.iter().map(Result::is_ok).collect();
    let (mut states, mut lost) = (Vec::new(), Vec::new());
    for (at, read) in read.into_iter().enumerate() {
        match read {
            Ok(read) => states.extend(read),
            Err(what) => lost.push(LostLeaf {
                leaf: root.leaves[at].clone(),
                range: range_of(&root.leaves, at),
                what,
            }),
        }
    }
    Ok(Found {
        states: joined(states.into_iter(), &root.leaves, &whole),
        leaves: root.leaves,
        lost,
        base: Some(key.to_owned()),
        changed: Default::default(),
        root: None,
    })
}

fn apply_extent(
    state: &mut PartitionState,
    name: &ChainName,
    slot: u64,
    record: ExtentRecord,
    as_of: &BTreeMap<TopicPartition, i64>,
) {
    if state
        .epochs
        .last()
        .is_none_or(|(epoch, _)| *epoch < record.leader_epoch)
    {
        state.epochs.push((record.leader_epoch, record.base_offset));
    }
    state.log_end = state.log_end.max(record.last_offset + 1);
    // The state may be newer than the slot that it covers: what it knows is not applied twice.
    let known = as_of.get(&record.id).copied().unwrap_or(0);
    let news = record
        .producers
        .into_iter()
        .filter(|batch| batch.base_offset >= known);
    crate::producers::replay_stored(&mut state.producers, news);
    state.extents.push(StoredExtent {
        chain: name.prefix.as_str().into(),
        chain_id: name.id.0,
        slot,
        leader_epoch: record.leader_epoch,
        base_offset: record.base_offset,
        last_offset: record.last_offset,
        position: record.position,
        length: record.length,
        max_timestamp: record.max_timestamp,
        crc: record.crc,
    });
}

/// Writes the estate and builds what the new incarnation serves from.
async fn finish(
    env: &Env,
    bucket: &Bucket,
    identity: &Identity,
    name: &ChainName,
    end: u64,
    mut found: Found,
) -> Result<Recovered, RecoverError> {
    let (estate, leaves) = match found.root {
        Some(root) => (Some(root), found.leaves),
        None if found.states.is_empty() => (None, Vec::new()),
        None => {
            let states = &found.states;
            let load: LeafLoad<'_> = &|range| states.range(range).map(|(_, state)| state.clone()).collect();
            let lost = found.lost.iter().map(|lost| lost.leaf.key.clone()).collect();
            let writer = LeafWriter {
                env,
                bucket,
                prefix: &name.prefix,
                lost: &lost,
                on_put: &|_| {},
                why: Reason::Recovery,
            };
            let written = write_leaves(writer, &found.leaves, &found.changed, load).await?;
            let root = StateRoot {
                cluster_id: identity.cluster_id.clone(),
                node: identity.node,
                incarnation: identity.incarnation,
                covers_below: end,
                round: 0,
                leaves: written.clone(),
            };
            let key = layout::estate_key(&name.prefix, env.random_id());
            bucket
                .put(&key, vec![encode_state_root(&root).into()], Reason::Recovery)
                .await?;
            (Some(key), written)
        }
    };
    let states = std::mem::take(&mut found.states);
    let mut objects = Objects::default();
    let prepared: Vec<(PartitionState, Vec<Extent>)> = states
        .into_values()
        .map(|state| {
            let extents = state.extents.iter().cloned();
            let extents = extents.map(|extent| objects.extent(extent)).collect();
            (state, extents)
        })
        .collect();
    let partitions: Vec<RecoveredPartition> = futures::stream::iter(prepared)
        .map(|(state, extents)| load_partition(bucket, state, extents))
        .buffered(READS)
        .try_collect()
        .await?;
    let partitions = partitions
        .into_iter()
        .map(|partition| (partition.state.id, partition))
        .collect();
    Ok(Recovered {
        fence_slot: end,
        estate,
        sole: false,
        inherited: true,
        lost: found.lost,
        partitions,
        leaves,
    })
}

/// Objects of older chains, each once.
#[derive(Default)]
struct Objects {
    chains: BTreeMap<Arc<str>, Arc<ChainName>>,
    objects: BTreeMap<(Arc<str>, u64), Arc<WalObject>>,
}

impl Objects {
    fn extent(&mut self, stored: StoredExtent) -> Extent {
        let chain = self.chains.entry(Arc::clone(&stored.chain)).or_insert_with(|| {
            Arc::new(ChainName {
                prefix: stored.chain.to_string(),
                id: ChainId(stored.chain_id),
            })
        });
        let object = self
            .objects
            .entry((Arc::clone(&stored.chain), stored.slot))
            .or_insert_with(|| WalObject::new(Arc::clone(chain), stored.slot, 0, None));
        Extent {
            object: Arc::clone(object),
            position: stored.position,
            length: u32::try_from(stored.length).unwrap_or(u32::MAX),
            base_offset: stored.base_offset,
            last_offset: stored.last_offset,
            leader_epoch: stored.leader_epoch,
            max_timestamp: stored.max_timestamp,
            crc: stored.crc,
        }
    }
}

async fn load_partition(
    bucket: &Bucket,
    mut state: PartitionState,
    objects: Vec<Extent>,
) -> Result<RecoveredPartition, RecoverError> {
    let mut sealed = Sealed {
        manifest: state.manifest.clone(),
        cleaned_to: state.cleaned_to,
        tombstones_from: state.tombstones_from,
        ..Sealed::default()
    };
    let mut broken = None;
    match load_manifest(bucket, &state, &mut sealed).await {
        Ok(()) => {}
        Err(RecoverError::Store(error)) if !error.is_not_found() => return Err(error.into()),
        Err(error) => broken = Some(error),
    }
    sealed.added = state.segments.iter().cloned().map(Arc::new).collect();
    sealed.spans = state.spans.iter().cloned().map(Arc::new).collect();
    sealed.drop_below(state.log_start);
    let broken = broken.or_else(|| check_joins(&state, &sealed, &objects).err());
    let broken = broken.map(|error| {
        Arc::new(Broken {
            what: error.to_string(),
            carried: state.clone(),
        })
    });
    // They stand in `sealed` and `objects` from here on.
    (state.segments, state.spans, state.extents) = Default::default();
    Ok(RecoveredPartition {
        state,
        sealed,
        objects,
        broken,
    })
}

async fn load_manifest(
    bucket: &Bucket,
    state: &PartitionState,
    sealed: &mut Sealed,
) -> Result<(), RecoverError> {
    let Some(manifest) = &state.manifest else {
        return Ok(());
    };
    if let Some(key) = lost_key(state) {
        return Err(RecoverError::Lost(key.to_string()));
    }
    let bytes = bucket.get(&manifest.key, Reason::Manifest).await?;
    let root = decode_root(&bytes).map_err(|what| RecoverError::Damaged {
        key: manifest.key.to_string(),
        what,
    })?;
    sealed.leaves = root.leaves.into_iter().map(Arc::new).collect();
    sealed.folded = root.segments.into_iter().map(Arc::new).collect();
    Ok(())
}

/// N3: from the log start on, sealed data and extents join without a gap up to the log end.
fn check_joins(state: &PartitionState, sealed: &Sealed, extents: &[Extent]) -> Result<(), RecoverError> {
    let leaves = sealed
        .leaves
        .iter()
        .map(|leaf| (leaf.base_offset, leaf.end_offset));
    let segments = sealed
        .segments()
        .map(|segment| (segment.base_offset, segment.end_offset));
    let spans = sealed
        .spans
        .iter()
        .map(|span| (span.base_offset, span.end_offset));
    let extents = extents
        .iter()
        .map(|extent| (extent.base_offset, extent.last_offset + 1));
    let mut expected = state.log_start;
    for (base, end) in leaves.chain(segments).chain(spans).chain(extents) {
        if end <= state.log_start {
            continue;
        }
        if base > expected {
            return Err(RecoverError::Gap {
                id: state.id,
                expected,
                found: base,
            });
        }
        expected = expected.max(end);
    }
    if expected < state.log_end {
        return Err(RecoverError::Gap {
            id: state.id,
            expected,
            found: state.log_end,
        });
    }
    Ok(())
}
