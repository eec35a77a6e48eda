//! One file of a journal: what is known of it in memory, and the ways it is written and made durable.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use object_store::PutPayload;

use super::super::aligned::{Aligned, BLOCK, is_aligned};
use super::super::write::{SMALL, sync_failure};
use super::disk::DiskFile;
use super::record::{FILE_BLOCKS, FileHeader, RecordHeader};
use super::turns;
use crate::error::LocalFailure;

pub(super) struct JournalFile {
    pub(super) path: PathBuf,
    pub(super) writes: Option<Arc<dyn DiskFile>>,
    pub(super) reads: Arc<dyn DiskFile>,
    pub(super) header: FileHeader,
    /// The block where the next record goes.
    pub(super) next: u32,
    pub(super) live: u32,
    pub(super) live_bytes: u64,
    pub(super) in_flight: u32,
    /// A write failed: what the device holds is not known. Never written again.
    pub(super) failed: bool,
    /// Counts the changes of the header.
    pub(super) changes: u64,
    /// The change with which this generation began: none of its records is durable before that header is.
    pub(super) begun: u64,
    pub(super) disk: Arc<OnDisk>,
}

/// What of a file is on the disk.
#[derive(Default)]
pub(super) struct OnDisk {
    order: Mutex<()>,
    /// The changes of the header that are written.
    pub(super) changes: AtomicU64,
    /// Those that are durable.
    durable: AtomicU64,
    syncs: Mutex<Syncs>,
    synced: Condvar,
}

/// Syncs of a file, one at a time. One serves all that was written before it began.
#[derive(Default)]
struct Syncs {
    begun: u64,
    done: u64,
    running: bool,
    /// The answer of the one that failed. The system says it once; what it said holds for all that come after.
    failed: Option<Refusal>,
}

#[derive(Clone, Copy)]
struct Refusal {
    code: Option<i32>,
    kind: io::ErrorKind,
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        Self {
            code: error.raw_os_error(),
            kind: error.kind(),
        }
    }

    fn error(self) -> LocalFailure {
        let error = self
            .code
            .map_or_else(|| io::Error::from(self.kind), io::Error::from_raw_os_error);
        sync_failure(error)
    }
}

impl JournalFile {
    /// A file of that header, with no objects yet. It is written again from its front once it is free.
    pub(super) fn new(
        path: PathBuf,
        reads: Arc<dyn DiskFile>,
        writes: Option<Arc<dyn DiskFile>>,
        header: FileHeader,
    ) -> Self {
        Self {
            path,
            writes,
            reads,
            header,
            next: FILE_BLOCKS,
            live: 0,
            live_bytes: 0,
            in_flight: 0,
            failed: false,
            changes: 0,
            begun: 0,
            disk: Arc::default(),
        }
    }

    /// Whether nothing of it is needed.
    pub(super) fn is_free(&self) -> bool {
        self.live == 0 && self.in_flight == 0 && !self.failed
    }

    /// Whether it can be written again, or removed: nothing of it is needed, and that is durable. Else a power cut
    /// could leave the header that names its objects, and other bytes in their place.
    pub(super) fn is_spare(&self) -> bool {
        self.is_free() && self.disk.durable.load(Ordering::Acquire) >= self.changes
    }

    pub(super) fn forget(&mut self, block: u32, length: u64) {
        self.header.dead.add(block);
        self.live = self.live.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(length);
        self.changes += 1;
    }
}

impl OnDisk {
    /// Writes a header unless a later one was. It is not durable yet.
    pub(super) fn write(&self, file: &dyn DiskFile, changes: u64, header: &FileHeader) -> io::Result<()> {
        if self.changes.load(Ordering::Acquire) >= changes {
            return Ok(());
        }
        let _order = turns::lock_over_write(&self.order);
        if self.changes.load(Ordering::Acquire) >= changes {
            return Ok(());
        }
        file.write_at(&[header.encode().as_mut()], 0)?;
        self.changes.store(changes, Ordering::Release);
        Ok(())
    }

    /// Makes durable what was written to the file before. Whoever comes while a sync is running shares the next one.
    /// After one that failed none succeeds: the system may have dropped what it could not write, and would not say so
    /// again.
    pub(super) fn sync(&self, file: &dyn DiskFile) -> Result<(), LocalFailure> {
        let lock = || self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut syncs = lock();
        let wanted = syncs.begun + 1;
        loop {
            if let Some(refusal) = syncs.failed {
                return Err(refusal.error());
            }
            if syncs.done >= wanted {
                return Ok(());
            }
            if syncs.running {
                syncs = turns::wait(&self.syncs, &self.synced, syncs);
                continue;
            }
            syncs.running = true;
            syncs.begun += 1;
            let this = syncs.begun;
            drop(syncs);
            let written = self.changes.load(Ordering::Acquire);
            let outcome = file.sync();
            syncs = lock();
            syncs.running = false;
            match outcome {
                Ok(()) => {
                    syncs.done = this;
                    self.durable.fetch_max(written, Ordering::AcqRel);
                }
                Err(error) => syncs.failed = Some(Refusal::of(&error)),
            }
            self.synced.notify_all();
        }
    }
}

/// One write of header and bytes, from where they lie if they lie aligned.
pub(super) fn write_record(
    file: &dyn DiskFile,
    header: &RecordHeader,
    payload: &PutPayload,
) -> io::Result<()> {
    let at = u64::from(header.this.block) * BLOCK as u64;
    let mut chunks = payload.iter();
    if let (Some(body), None) = (chunks.next(), chunks.next())
        && body.len() > SMALL
        && is_aligned(body)
    {
        let (whole, tail) = body.split_at(body.len() / BLOCK * BLOCK);
        let mut scratch = Aligned::new(2 * BLOCK);
        let (front, back) = scratch.as_mut().split_at_mut(BLOCK);
        header.encode(front);
        back[..tail.len()].copy_from_slice(tail);
        let padded = if tail.is_empty() { 0 } else { BLOCK };
        return file.write_at(&[front, whole, &back[..padded]], at);
    }
    let mut scratch = Aligned::new(header.this.blocks() as usize * BLOCK);
    let record = scratch.as_mut();
    header.encode(record);
    let mut end = BLOCK;
    for chunk in payload.iter() {
        record[end..end + chunk.len()].copy_from_slice(chunk);
        end += chunk.len();
    }
    file.write_at(&[record], at)
}
