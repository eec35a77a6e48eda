//! A partition's directory in Kafka's own format.
//!
//! Index entries are those that a stock broker writes on append and on recovery: one before the first batch that
//! follows more than `index.interval.bytes` since the last entry. Offset index: last offset of that batch less the
//! file's base (4 bytes), its position (4). Time index: the largest timestamp so far (8), the last offset of its
//! batch less the base (4), only when it grew; and once more at the file's end. Integers big-endian; files end
//! with their last entry.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use drumlin_objects::Env;
use drumlin_records::{BatchHeader, HEADER_LEN};

use super::{ExportError, ExportedPartition};
use crate::types::TopicPartition;

/// Kafka's `index.interval.bytes`.
const INDEX_INTERVAL: u64 = 4096;
const WRITE_BUFFER: usize = 1 << 20;
const NO_TIMESTAMP: i64 = -1;

/// The files of one log segment that is being written.
struct Files {
    log: BufWriter<File>,
    stem: PathBuf,
    base: i64,
    size: u64,
    since_index: u64,
    index: Vec<u8>,
    timeindex: Vec<u8>,
    /// The largest timestamp, and the last offset of its batch.
    newest: (i64, i64),
    /// The timestamp of the last time index entry.
    indexed: i64,
}

impl Files {
    fn create(dir: &Path, base: i64) -> Result<Self, ExportError> {
        let stem = dir.join(format!("{base:020}"));
        let path = stem.with_extension("log");
        let file = File::create_new(&path).map_err(|error| file_failed(&path, error))?;
        Ok(Self {
            log: BufWriter::with_capacity(WRITE_BUFFER, file),
            stem,
            base,
            size: 0,
            since_index: 0,
            index: Vec::new(),
            timeindex: Vec::new(),
            newest: (NO_TIMESTAMP, base),
            indexed: NO_TIMESTAMP,
        })
    }

    fn relative(&self, offset: i64) -> [u8; 4] {
        u32::try_from(offset - self.base)
            .unwrap_or(u32::MAX)
            .to_be_bytes()
    }

    fn append(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), ExportError> {
        if header.max_timestamp > self.newest.0 {
            self.newest = (header.max_timestamp, header.last_offset());
        }
        if self.since_index > INDEX_INTERVAL {
            self.index.extend_from_slice(&self.relative(header.last_offset()));
            // Files are smaller than 2 GiB but where one batch is not, and that is no index entry.
            let position = u32::try_from(self.size).unwrap_or(u32::MAX);
            self.index.extend_from_slice(&position.to_be_bytes());
            self.index_time();
            self.since_index = 0;
        }
        let written = self.log.write_all(batch);
        written.map_err(|error| file_failed(&self.stem.with_extension("log"), error))?;
        self.size += batch.len() as u64;
        self.since_index += batch.len() as u64;
        Ok(())
    }

    fn index_time(&mut self) {
        let (timestamp, offset) = self.newest;
        if timestamp > self.indexed {
            self.timeindex.extend_from_slice(&timestamp.to_be_bytes());
            self.timeindex.extend_from_slice(&self.relative(offset));
            self.indexed = timestamp;
        }
    }

    fn finish(mut self) -> Result<u64, ExportError> {
        self.index_time();
        let path = self.stem.with_extension("log");
        let file = self
            .log
            .into_inner()
            .map_err(|error| file_failed(&path, error.into_error()))?;
        file.sync_all().map_err(|error| file_failed(&path, error))?;
        write_file(&self.stem.with_extension("index"), &self.index)?;
        write_file(&self.stem.with_extension("timeindex"), &self.timeindex)?;
        Ok(self.size)
    }
}

fn file_failed(path: &Path, error: std::io::Error) -> ExportError {
    ExportError::File {
        path: path.to_owned(),
        error,
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| file_failed(path, error))
}

/// What is written, apart from the handle on the environment: it moves to a thread that may block, and back.
struct State {
    path: PathBuf,
    id: TopicPartition,
    log_start: i64,
    segment_bytes: u64,
    next: i64,
    files: Option<Files>,
    /// Bytes of a batch that is not whole yet.
    rest: Vec<u8>,
    epochs: Vec<(i32, i64)>,
    unsealed: bool,
    bytes: u64,
    count: u32,
}

/// Writes one partition.
pub(super) struct PartitionWriter {
    env: Env,
    state: Option<State>,
}

const HELD: &str = "the state comes back from every step";

impl PartitionWriter {
    /// Makes the directory, which must be empty if it is there.
    pub(super) async fn create(
        env: &Env,
        path: PathBuf,
        id: TopicPartition,
        log_start: i64,
        segment_bytes: u64,
    ) -> Result<Self, ExportError> {
        let state = State {
            path,
            id,
            log_start,
            segment_bytes,
            next: log_start,
            files: None,
            rest: Vec::new(),
            epochs: Vec::new(),
            unsealed: false,
            bytes: 0,
            count: 0,
        };
        let mut writer = Self {
            env: env.clone(),
            state: Some(state),
        };
        writer.step(State::open).await?;
        Ok(writer)
    }

    async fn step<T, F>(&mut self, work: F) -> Result<T, ExportError>
    where
        T: Send + 'static,
        F: FnOnce(&mut State) -> Result<T, ExportError> + Send + 'static,
    {
        let mut state = self.state.take().expect(HELD);
        let (state, outcome) = self
            .env
            .blocking(move || {
                let outcome = work(&mut state);
                (state, outcome)
            })
            .await;
        self.state = Some(state);
        outcome
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect(HELD)
    }

    /// The first offset that is not written yet.
    pub(super) fn next_offset(&self) -> i64 {
        self.state().next
    }

    /// Lets go of a batch that came in part.
    pub(super) fn forget_rest(&mut self) {
        self.state.as_mut().expect(HELD).rest.clear();
    }

    /// What follows was not sealed: it gets a log file of its own.
    pub(super) async fn begin_unsealed(&mut self) -> Result<(), ExportError> {
        if self.state().unsealed {
            return Ok(());
        }
        self.step(|state| {
            state.unsealed = true;
            state.roll()
        })
        .await
    }

    /// Takes bytes that follow; writes whole batches from the next offset on, up to `end`. `holes`: offsets may be
    /// missing.
    pub(super) async fn push(&mut self, bytes: Bytes, end: i64, holes: bool) -> Result<(), ExportError> {
        self.step(move |state| state.push(&bytes, end, holes)).await
    }

    /// All below `offset` has come: what is not there was compacted away.
    pub(super) async fn pass_over(&mut self, offset: i64) -> Result<(), ExportError> {
        self.step(move |state| {
            state.next = state.next.max(offset);
            Ok(())
        })
        .await
    }

    /// Ends the partition, whose records must reach to `log_end`.
    pub(super) async fn finish(mut self, log_end: i64) -> Result<ExportedPartition, ExportError> {
        self.step(move |state| state.finish(log_end)).await
    }
}

impl State {
    fn open(&mut self) -> Result<(), ExportError> {
        let failed = |error| file_failed(&self.path, error);
        std::fs::create_dir_all(&self.path).map_err(failed)?;
        let mut entries = std::fs::read_dir(&self.path).map_err(failed)?;
        if entries.next().is_some() {
            return Err(ExportError::NotEmpty(self.path.clone()));
        }
        Ok(())
    }

    fn damaged(&self, what: String) -> ExportError {
        ExportError::Damaged { id: self.id, what }
    }

    fn push(&mut self, bytes: &[u8], end: i64, holes: bool) -> Result<(), ExportError> {
        let joined = [self.rest.as_slice(), bytes].concat();
        let mut left: &[u8] = if self.rest.is_empty() { bytes } else { &joined };
        while left.len() >= HEADER_LEN {
            let header = BatchHeader::parse(left).map_err(|error| self.damaged(error.to_string()))?;
            let Some((batch, after)) = left.split_at_checked(header.size_in_bytes()) else {
                break;
            };
            // Below the log start, or written before data moved: passed over. Beyond the end: not of this export.
            if header.last_offset() >= self.next && header.base_offset < end {
                self.append(&header, batch, holes)?;
            }
            left = after;
        }
        self.rest = left.to_vec();
        Ok(())
    }

    fn append(&mut self, header: &BatchHeader, batch: &[u8], holes: bool) -> Result<(), ExportError> {
        // The first batch may begin below the log start; after it only compaction leaves offsets out.
        if header.base_offset > self.next && !holes {
            return Err(self.damaged(format!(
                "records {} to {} are missing",
                self.next,
                header.base_offset - 1
            )));
        }
        if self.files.is_none() && self.count == 0 {
            // A stock broker's log starts where its first file does, whatever compaction has left of that.
            self.files = Some(Files::create(&self.path, header.base_offset.min(self.log_start))?);
        }
        let full = self.files.as_ref().is_some_and(|files| {
            files.size > 0 && files.size + batch.len() as u64 > self.segment_bytes
                || header.last_offset() - files.base > i64::from(i32::MAX)
        });
        if full {
            self.roll()?;
        }
        let files = match &mut self.files {
            Some(files) => files,
            none => none.insert(Files::create(&self.path, header.base_offset)?),
        };
        files.append(header, batch)?;
        let epoch = header.partition_leader_epoch;
        if self.epochs.last().is_none_or(|(newest, _)| *newest < epoch) {
            self.epochs.push((epoch, header.base_offset.max(self.log_start)));
        }
        self.next = header.last_offset() + 1;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), ExportError> {
        if let Some(files) = self.files.take() {
            self.bytes += files.finish()?;
            self.count += 1;
        }
        Ok(())
    }

    fn finish(&mut self, log_end: i64) -> Result<ExportedPartition, ExportError> {
        if self.next < log_end {
            return Err(self.damaged(format!("records {} to {} are missing", self.next, log_end - 1)));
        }
        if self.files.is_none() && self.count == 0 {
            // A log has one file at least.
            self.files = Some(Files::create(&self.path, self.next)?);
        }
        self.roll()?;
        let mut epochs = format!("0\n{}\n", self.epochs.len());
        for (epoch, start) in &self.epochs {
            epochs.push_str(&format!("{epoch} {start}\n"));
        }
        write_file(&self.path.join("leader-epoch-checkpoint"), epochs.as_bytes())?;
        let metadata = format!("version: 0\ntopic_id: {}\n", base64(&self.id.topic.0));
        write_file(&self.path.join("partition.metadata"), metadata.as_bytes())?;
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| file_failed(&self.path, error))?;
        Ok(ExportedPartition {
            path: self.path.clone(),
            log_start: self.log_start,
            log_end: self.next,
            bytes: self.bytes,
            files: self.count,
        })
    }
}

/// The checkpoint of log starts that a broker reads from each of its `log.dirs`.
pub(super) async fn write_log_starts(
    env: &Env,
    dir: &Path,
    topic: &str,
    partitions: &[ExportedPartition],
) -> Result<(), ExportError> {
    let starts: Vec<String> = partitions
        .iter()
        .enumerate()
        .filter(|(_, partition)| partition.log_start > 0)
        .map(|(at, partition)| format!("{topic} {at} {}\n", partition.log_start))
        .collect();
    if starts.is_empty() {
        return Ok(());
    }
    let text = format!("0\n{}\n{}", starts.len(), starts.concat());
    let path = dir.join("log-start-offset-checkpoint");
    env.blocking(move || write_file(&path, text.as_bytes())).await
}

/// URL-safe base64 without padding: how Kafka writes ids (KIP-516).
fn base64(id: &[u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    for chunk in id.chunks(3) {
        let mut group = [0u8; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for digit in 0..=chunk.len() {
            let at = (bits >> (18 - 6 * digit)) & 63;
            text.push(char::from(DIGITS[at as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_does() {
        // `Uuid.METADATA_TOPIC_ID` and `ONE_UUID` are 0 and 1; the third is a known answer of RFC 4648's alphabet.
        assert_eq!(base64(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64(&1u128.to_be_bytes()), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64(&[0xfb; 16]), "-_v7-_v7-_v7-_v7-_v7-w");
    }
}
