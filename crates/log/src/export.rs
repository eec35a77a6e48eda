//! `drumlin export`: partitions as log directories of a stock Apache Kafka broker. Changes nothing in the bucket.
//!
//! Owns what is Kafka's about it: files and their names, offset and time indexes, epochs, roll. It works from the
//! bucket alone, as of the moment when it reads it, and beside a running broker: what is moved meanwhile by
//! sealing is looked for again where it is now.
//!
//! In the directory, which then has the form of a `log.dirs` entry without `meta.properties`:
//!
//! | file | what |
//! | --- | --- |
//! | `TOPIC-P/{base offset}.log` | batches, byte for byte, up to 1 GiB; what is not sealed yet in a last one of its own |
//! | `TOPIC-P/….index`, `….timeindex` | as a stock broker writes them, one entry for about 4 KiB |
//! | `TOPIC-P/leader-epoch-checkpoint` | the epochs of the batches |
//! | `TOPIC-P/partition.metadata` | the topic's id |
//! | `log-start-offset-checkpoint` | log starts, where records were deleted |

mod directory;
mod pieces;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drumlin_objects::chain::ChainError;
use drumlin_objects::{Bucket, Env, Reason, StoreError};
use thiserror::Error;

use self::directory::PartitionWriter;
use self::pieces::{Moved, Piece, pieces, read};
use crate::check::view::{ATTEMPTS, newest_chain, read_view};
use crate::recover::RecoverError;
use crate::state::PartitionState;
use crate::types::{TopicId, TopicPartition};

/// A log file's largest size by default: Kafka's `log.segment.bytes`.
pub const SEGMENT_BYTES: u64 = 1 << 30;

/// What is to be exported.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The topic's name: the directories are called by it.
    pub name: String,
    /// Its id.
    pub topic: TopicId,
    /// How many partitions it has; those without records get an empty log.
    pub partitions: i32,
    /// A log file's largest size, bytes, at most [`SEGMENT_BYTES`]; a single larger batch has a file to itself.
    pub segment_bytes: u64,
}

/// One partition as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedPartition {
    /// Its directory.
    pub path: PathBuf,
    /// The first offset that a broker is to serve.
    pub log_start: i64,
    /// The offset after the last record.
    pub log_end: i64,
    /// Bytes of its log files.
    pub bytes: u64,
    /// How many log files there are.
    pub files: u32,
}

/// Why an export failed. What was written until then may be deleted.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A partition's directory holds something.
    #[error("{} is not empty; export to another directory, or remove it", .0.display())]
    NotEmpty(PathBuf),
    /// A name that no topic can have.
    #[error("{0:?} is not a topic's name")]
    Name(String),
    /// A file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The state of the bucket could not be read.
    #[error(transparent)]
    State(#[from] RecoverError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A chain could not be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// An object is not what was written, or records are missing.
    #[error("partition {id}: {what}; `drumlin store check` says more")]
    Damaged {
        /// The partition.
        id: TopicPartition,
        /// How.
        what: String,
    },
}

/// Writes the partitions of a topic below `dir`. `progress` hears of each partition that is finished.
///
/// # Errors
/// [`ExportError`]; files written until then stay.
pub async fn export(
    env: &Env,
    bucket: &Bucket,
    options: &ExportOptions,
    dir: &Path,
    progress: &(dyn Fn(&ExportedPartition) + Send + Sync),
) -> Result<Vec<ExportedPartition>, ExportError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = &options.name;
    if name.is_empty() || name.len() > 249 || matches!(name.as_str(), "." | "..") || !name.chars().all(plain)
    {
        return Err(ExportError::Name(name.clone()));
    }
    let states = states(bucket, options.topic).await?;
    let mut exported = Vec::new();
    for partition in 0..options.partitions {
        let id = TopicPartition {
            topic: options.topic,
            partition,
        };
        let state = states.get(&id).cloned();
        let state = state.unwrap_or_else(|| PartitionState::empty(id));
        let written = export_partition(env, bucket, options, dir, state).await?;
        progress(&written);
        exported.push(written);
    }
    directory::write_log_starts(env, dir, name, &exported).await?;
    Ok(exported)
}

/// The newest committed state of a topic's partitions.
async fn states(
    bucket: &Bucket,
    topic: TopicId,
) -> Result<BTreeMap<TopicPartition, PartitionState>, ExportError> {
    let listed = bucket.list("wal", None, Reason::Check).await?;
    let mut states: BTreeMap<TopicPartition, PartitionState> = BTreeMap::new();
    if let Some(chain) = newest_chain(bucket, &listed).await {
        let view = read_view(bucket, &chain?, true).await?;
        states.extend(view.found.states.into_iter().filter(|(id, _)| id.topic == topic));
    }
    Ok(states)
}

async fn export_partition(
    env: &Env,
    bucket: &Bucket,
    options: &ExportOptions,
    dir: &Path,
    state: PartitionState,
) -> Result<ExportedPartition, ExportError> {
    let id = state.id;
    let (log_start, log_end) = (state.log_start, state.log_end);
    let path = dir.join(format!("{}-{}", options.name, id.partition));
    let segment_bytes = options.segment_bytes.min(SEGMENT_BYTES);
    let mut writer = PartitionWriter::create(env, path, id, log_start, segment_bytes).await?;
    let mut state = state;
    for attempt in 1.. {
        match copy(bucket, &state, log_end, &mut writer).await? {
            Ok(()) => break,
            Err(Moved(error)) if attempt == ATTEMPTS => return Err(error.into()),
            Err(Moved(_)) => {
                let newest = states(bucket, options.topic).await?.remove(&id);
                state = newest.ok_or_else(|| ExportError::Damaged {
                    id,
                    what: "it was deleted meanwhile".to_owned(),
                })?;
            }
        }
    }
    writer.finish(log_end).await
}

/// Copies what is not copied yet. Moved: an object is gone, and the data is elsewhere by now.
async fn copy(
    bucket: &Bucket,
    state: &PartitionState,
    log_end: i64,
    writer: &mut PartitionWriter,
) -> Result<Result<(), Moved>, ExportError> {
    let pieces = match pieces(bucket, state, writer.next_offset()).await? {
        Ok(pieces) => pieces,
        Err(moved) => return Ok(Err(moved)),
    };
    for piece in pieces {
        if writer.next_offset() >= log_end {
            break;
        }
        if matches!(piece, Piece::Extents(_)) {
            writer.begin_unsealed().await?;
        }
        let mut at = 0;
        while at < piece.length() {
            let bytes = match read(bucket, state.id, &piece, at).await? {
                Ok(bytes) => bytes,
                Err(moved) => {
                    writer.forget_rest();
                    return Ok(Err(moved));
                }
            };
            at += bytes.len() as u64;
            writer.push(bytes, log_end, piece.holes()).await?;
        }
        if piece.holes() {
            writer.pass_over(piece.end_offset()).await?;
        }
    }
    Ok(Ok(()))
}
