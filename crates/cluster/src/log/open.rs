//! Opening the metadata log: birth, replay, and taking over from the controller before.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use drumlin_objects::chain::{
    AppendRefused, BirthOutcome, ChainEnd, ChainError, ChainId, ChainName, ChainOptions, ChainWriter,
    ENTRY_HEADER_LEN, Entry, EntryKind, entry_key, newest_checkpoint, number_of, put_birth, read_birth,
    read_entry,
};
use drumlin_objects::probe::{FULL_KEYS, FULL_RACERS, ProbeError, ProbeReport, probe};
use drumlin_objects::{Bucket, BucketKind, Env, Reason, StoreError, TaskKind};
use futures::{StreamExt, stream};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::owner::{Owner, Written};
use super::{MetadataLog, Queue, Shared};
use crate::apply::ApplyError;
use crate::birth::Birth;
use crate::codec::DecodeError;
use crate::ids::{ClusterId, Incarnation};
use crate::image::{FORMAT_LEVEL, Image};
use crate::record::{Fenced, Record, decode_body, encode_single};

/// The chain's prefix in the bucket.
pub const PREFIX: &str = "meta";
/// Entries read at a time.
const READS_IN_FLIGHT: usize = 16;

/// How the metadata log is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// This broker's node.
    pub node_id: i32,
    /// Refuse the bucket of any other cluster.
    pub expected_cluster_id: Option<String>,
    /// Test a remote store's put-if-absent [S1]: in full before a birth, with one key later.
    pub probe: bool,
    /// A checkpoint is made when this many entries stand above the last one, or 8 MiB of them.
    pub checkpoint_entries: u64,
}

impl OpenOptions {
    /// The defaults for a node.
    pub fn new(node_id: i32) -> Self {
        Self {
            node_id,
            expected_cluster_id: None,
            probe: true,
            checkpoint_entries: 1_000,
        }
    }
}

/// The metadata log, opened by its new controller.
#[derive(Debug)]
pub struct Session {
    /// The log.
    pub log: Arc<MetadataLog>,
    /// The incarnation that has to be fenced before a broker is registered [I1]; none on a new bucket.
    pub previous: Option<PreviousIncarnation>,
    /// What the cluster was born with.
    pub birth: Birth,
    /// Whether this was the bucket's first use.
    pub created: bool,
}

/// An incarnation that was registered and is not known to be fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousIncarnation {
    /// Its node.
    pub node_id: i32,
    /// The incarnation.
    pub incarnation: Incarnation,
    /// What it started from, which counts where it has made no checkpoint of its own.
    pub from: Option<Fenced>,
}

/// Why the metadata log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store failed, or an object of the chain is damaged.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store's put-if-absent was tested and cannot be relied on, or the test failed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// An object cannot be read.
    #[error("object {key} {what}")]
    Format {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: DecodeError,
    },
    /// An entry does not follow from those before it.
    #[error("object {key} is damaged or foreign: {what}; restore the bucket from a copy")]
    Inconsistent {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// An entry is gone though no checkpoint replaces it.
    #[error(
        "object {key} is missing though later entries of the metadata log exist; something deleted it (an expiry rule on the bucket?); restore the bucket from a copy"
    )]
    Missing {
        /// Its key.
        key: String,
    },
    /// The bucket was written by a newer version.
    #[error(
        "the bucket has format level {found}, and this build knows levels up to {FORMAT_LEVEL}; start the newer drumlin that raised it, or a later one"
    )]
    FormatLevel {
        /// The bucket's level.
        found: u16,
    },
    /// The bucket is another cluster's.
    #[error(
        "the bucket belongs to cluster {found}, not to {expected}; point store.url at the right bucket and prefix, or correct the expected cluster id"
    )]
    OtherCluster {
        /// The bucket's.
        found: String,
        /// As asked for.
        expected: String,
    },
    /// The log could not be taken over in time.
    #[error("the metadata log cannot be written: {0}")]
    Unwritable(String),
}

impl OpenError {
    /// The store's failure, if it is one: the log may be opened later.
    pub fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Chain(ChainError::Store(error)) | Self::Probe(ProbeError::Store(error)) => Some(error),
            _ => None,
        }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Chain(error.into())
    }
}

impl MetadataLog {
    /// Opens the metadata log of a bucket, which is born now if it is empty, and takes it over: from here on no
    /// earlier controller commits anything. On a local directory the caller holds its lock.
    pub async fn open(env: &Env, bucket: &Bucket, options: &OpenOptions) -> Result<Session, OpenError> {
        let (birth, created) = birth(env, bucket, options).await?;
        if let Some(expected) = &options.expected_cluster_id {
            let found = birth.cluster_id.to_string();
            if *expected != found {
                return Err(OpenError::OtherCluster {
                    found,
                    expected: expected.clone(),
                });
            }
        }
        let name = ChainName {
            prefix: PREFIX.to_owned(),
            id: ChainId(birth.cluster_id.0),
        };
        let taken = take_over(env, bucket, &name, &birth, options.node_id).await?;
        let Replayed { image, written, .. } = taken.replayed;
        let previous = image
            .live_incarnations()
            .next()
            .map(|(incarnation, state)| PreviousIncarnation {
                node_id: state.node_id,
                incarnation,
                from: state.from.clone(),
            });
        let epoch = image.epoch;
        let log = Self {
            shared: Arc::new(Shared::new(image, bucket.kind() == BucketKind::Local)),
        };
        let owner = Owner::new(
            log.shared.clone(),
            env,
            bucket,
            taken.writer,
            epoch,
            written,
            options.checkpoint_entries,
        );
        env.spawn(TaskKind::MetaOwner, owner.run());
        Ok(Session {
            log: Arc::new(log),
            previous,
            birth,
            created,
        })
    }
}

impl Shared {
    fn new(image: Image, locked: bool) -> Self {
        let queue = Queue {
            tip: image.clone(),
            open: BytesMut::new(),
            count: 0,
            next_slot: image.position,
            asked: 0,
            closing: false,
        };
        Self {
            queue: Mutex::new(queue),
            wake: Notify::new(),
            image: watch::Sender::new(Arc::new(image)),
            ended: watch::Sender::new(None),
            confirmed: watch::Sender::new(0),
            locked,
        }
    }
}

/// Reads the birth object, or puts it. Probes the store as far as that needs.
async fn birth(env: &Env, bucket: &Bucket, options: &OpenOptions) -> Result<(Birth, bool), OpenError> {
    if let Some(entry) = read_birth(bucket, PREFIX, Reason::Meta).await? {
        let birth = read_birth_body(&entry)?;
        try_store(bucket, options, 1).await?;
        return Ok((birth, false));
    }
    let shown = try_store(bucket, options, FULL_KEYS).await?;
    let birth = Birth {
        cluster_id: ClusterId::from_random(env.random_id()),
        format_level: FORMAT_LEVEL,
        created_ms: env.now_ms(),
        created_by: env!("CARGO_PKG_VERSION").to_owned(),
        probe: shown,
    };
    let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
    birth.encode(&mut buf);
    let name = ChainName {
        prefix: PREFIX.to_owned(),
        id: ChainId(birth.cluster_id.0),
    };
    match put_birth(bucket, &name, 0, buf, Reason::Meta).await? {
        BirthOutcome::Created => Ok((birth, true)),
        // Another start on the empty bucket was faster; its cluster is this one's too.
        BirthOutcome::Exists(entry) => Ok((read_birth_body(&entry)?, false)),
    }
}

fn read_birth_body(entry: &Entry) -> Result<Birth, OpenError> {
    let key = entry_key(PREFIX, 0);
    let birth = Birth::decode(&entry.body()).map_err(|what| OpenError::Format {
        key: key.clone(),
        what,
    })?;
    if entry.header.kind != EntryKind::Birth || entry.header.chain.0 != birth.cluster_id.0 {
        return Err(OpenError::Inconsistent {
            key,
            what: "it is no birth entry of its chain".to_owned(),
        });
    }
    if birth.format_level > FORMAT_LEVEL {
        return Err(OpenError::FormatLevel {
            found: birth.format_level,
        });
    }
    Ok(birth)
}

/// Races on `keys` keys. Answers what was seen, in a few words for the birth object.
async fn try_store(bucket: &Bucket, options: &OpenOptions, keys: usize) -> Result<String, OpenError> {
    if bucket.kind() != BucketKind::Remote {
        return Ok("none needed".to_owned());
    }
    if !options.probe {
        return Ok("none made".to_owned());
    }
    let ProbeReport {
        keys,
        racers,
        refused,
        failed,
    } = probe(bucket, keys, FULL_RACERS).await?;
    Ok(format!(
        "{racers} writers raced on each of {keys} keys: {refused} puts refused, {failed} failed"
    ))
}

struct Taken {
    writer: ChainWriter,
    replayed: Replayed,
}

struct Replayed {
    image: Image,
    /// Above the checkpoint that the replay began with.
    written: Written,
    /// Where it began.
    from: u64,
}

/// Replays the log and puts a `NewController` entry into its first empty slot [F5].
async fn take_over(
    env: &Env,
    bucket: &Bucket,
    name: &ChainName,
    birth: &Birth,
    node_id: i32,
) -> Result<Taken, OpenError> {
    'again: loop {
        let Some(mut replayed) = replay(bucket, name, birth).await? else {
            tokio::time::sleep(env.jitter(bucket.options().backoff_min)).await;
            continue;
        };
        loop {
            let (slot, epoch) = (replayed.image.position, replayed.image.epoch + 1);
            if let Some(writer) = claim(env, bucket, name, slot, epoch, node_id).await? {
                // A slot that had been deleted looked empty if the old controller has moved on meanwhile [F2].
                if checkpoint_above(bucket, name, slot).await? {
                    continue 'again;
                }
                replayed.image.begin_epoch(epoch, node_id);
                replayed.written.entries += 1;
                return Ok(Taken { writer, replayed });
            }
            match read_entry(bucket, name, slot, Reason::Meta).await? {
                Some(entry) => replayed.take(&entry, name)?,
                None => continue 'again,
            }
        }
    }
}

async fn checkpoint_above(bucket: &Bucket, name: &ChainName, slot: u64) -> Result<bool, ChainError> {
    let newest = newest_checkpoint(bucket, name, Reason::Meta).await?;
    Ok(newest.is_some_and(|checkpoint| checkpoint.covers_below > slot))
}

/// Puts `NewController` into `slot`. Returns the writer that did, or `None` if another has the slot.
async fn claim(
    env: &Env,
    bucket: &Bucket,
    name: &ChainName,
    slot: u64,
    epoch: u64,
    node_id: i32,
) -> Result<Option<ChainWriter>, OpenError> {
    let options = ChainOptions {
        window: 1,
        why: Reason::Meta,
        ..ChainOptions::default()
    };
    let writer = ChainWriter::start(env, bucket, name.clone(), slot, options);
    let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
    encode_single(&mut buf, &Record::NewController { node_id });
    let refused = |error: AppendRefused| OpenError::Unwritable(error.to_string());
    writer.append(EntryKind::Fence, epoch, buf, 0).map_err(refused)?;
    // A chain is written for ever; a start gives up.
    match timeout(bucket.options().retry_for, writer.committed(slot)).await {
        Ok(Ok(())) => Ok(Some(writer)),
        Ok(Err(ChainEnd::Fenced { .. })) => Ok(None),
        Ok(Err(end)) => Err(OpenError::Unwritable(end.to_string())),
        Err(_) => Err(OpenError::Unwritable(format!(
            "no put succeeded for {:?}; see the warnings above, and check the store and the permission to write",
            bucket.options().retry_for
        ))),
    }
}

/// Reads the newest checkpoint and all entries above it. `None`: the log moved on meanwhile, start again.
async fn replay(bucket: &Bucket, name: &ChainName, birth: &Birth) -> Result<Option<Replayed>, OpenError> {
    let checkpoint = newest_checkpoint(bucket, name, Reason::Meta).await?;
    let image = match &checkpoint {
        None => Image::newborn(birth.cluster_id, birth.format_level),
        Some(checkpoint) => match bucket.get(&checkpoint.body_key, Reason::Meta).await {
            Ok(body) => read_checkpoint(&body, &checkpoint.body_key, checkpoint.covers_below, birth)?,
            // Replaced since; or, if this is still the newest, lost.
            Err(StoreError::NotFound { key }) => {
                return if checkpoint_above(bucket, name, checkpoint.covers_below).await? {
                    Ok(None)
                } else {
                    Err(OpenError::Missing { key })
                };
            }
            Err(error) => return Err(error.into()),
        },
    };
    if image.format_level() > FORMAT_LEVEL {
        return Err(OpenError::FormatLevel {
            found: image.format_level(),
        });
    }
    let mut replayed = Replayed {
        from: image.position,
        image,
        written: Written::default(),
    };
    let listed = listed_run(bucket, name, replayed.from).await?;
    let mut entries = stream::iter(listed.run.clone())
        .map(|slot| read_entry(bucket, name, slot, Reason::Meta))
        .buffered(READS_IN_FLIGHT);
    while let Some(entry) = entries.next().await {
        match entry? {
            Some(entry) => replayed.take(&entry, name)?,
            None => break,
        }
    }
    drop(entries);
    // What came after the list.
    while let Some(entry) = read_entry(bucket, name, replayed.image.position, Reason::Meta).await? {
        replayed.take(&entry, name)?;
    }
    if listed
        .newest
        .is_some_and(|newest| newest >= replayed.image.position)
    {
        // With one put on its way there are no holes: it was deleted, by the controller if a checkpoint says so.
        let missing = replayed.image.position;
        return if checkpoint_above(bucket, name, missing).await? {
            Ok(None)
        } else {
            Err(OpenError::Missing {
                key: name.entry_key(missing),
            })
        };
    }
    Ok(Some(replayed))
}

fn read_checkpoint(body: &[u8], key: &str, covers_below: u64, birth: &Birth) -> Result<Image, OpenError> {
    let image = Image::decode(body).map_err(|what| OpenError::Format {
        key: key.to_owned(),
        what,
    })?;
    if image.cluster() != birth.cluster_id || image.position != covers_below {
        let what = format!(
            "it holds the image of cluster {} below {}",
            image.cluster_id, image.position
        );
        return Err(OpenError::Inconsistent {
            key: key.to_owned(),
            what,
        });
    }
    Ok(image)
}

struct ListedRun {
    /// The slots from the first on without a gap, which are worth reading all at once.
    run: std::ops::Range<u64>,
    /// The newest slot listed.
    newest: Option<u64>,
}

async fn listed_run(bucket: &Bucket, name: &ChainName, from: u64) -> Result<ListedRun, OpenError> {
    let after = from.checked_sub(1).map(|slot| name.entry_key(slot));
    let listed = bucket
        .list(&format!("{}/log", name.prefix), after.as_deref(), Reason::Meta)
        .await?;
    let slots = listed
        .iter()
        .filter_map(|object| number_of(&object.key))
        .filter(|slot| *slot >= from);
    let end = slots
        .clone()
        .zip(from..)
        .take_while(|(slot, expected)| slot == expected)
        .count();
    Ok(ListedRun {
        run: from..from + end as u64,
        newest: slots.max(),
    })
}

impl Replayed {
    /// Takes in the entry at the image's position, unless it is void [F5].
    fn take(&mut self, entry: &Entry, name: &ChainName) -> Result<(), OpenError> {
        let (header, slot) = (&entry.header, self.image.position);
        let key = || name.entry_key(slot);
        self.written.entries += 1;
        self.written.bytes += entry.bytes.len() as u64;
        if header.epoch < self.image.epoch {
            self.image.position = slot + 1;
            return Ok(());
        }
        let body = match header.kind {
            EntryKind::Checkpoint => entry.bytes.get(ENTRY_HEADER_LEN..header.footer_at as usize),
            _ => entry.bytes.get(ENTRY_HEADER_LEN..),
        };
        let records =
            decode_body(body.unwrap_or_default()).map_err(|what| OpenError::Format { key: key(), what })?;
        let inconsistent = |what: String| OpenError::Inconsistent { key: key(), what };
        match (header.kind, records.as_slice()) {
            (EntryKind::Fence, [Record::NewController { node_id }]) if header.epoch > self.image.epoch => {
                self.image.begin_epoch(header.epoch, *node_id);
                return Ok(());
            }
            (EntryKind::Checkpoint, [Record::Checkpoint { .. }]) if header.epoch == self.image.epoch => {}
            (EntryKind::Data, records) if header.epoch == self.image.epoch => {
                let applied: Result<(), ApplyError> = records
                    .iter()
                    .try_for_each(|record| self.image.apply(record, slot));
                applied.map_err(|error| inconsistent(error.to_string()))?;
            }
            (kind, _) => {
                let epoch = self.image.epoch;
                let what = format!(
                    "a {kind:?} entry of epoch {} cannot stand in epoch {epoch}",
                    header.epoch
                );
                return Err(inconsistent(what));
            }
        }
        self.image.position = slot + 1;
        Ok(())
    }
}
