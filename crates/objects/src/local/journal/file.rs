//! One file of a journal: what is known of it in memory, and the two ways it is written.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::PutPayload;
use rustix::fs::OFlags;
use rustix::io::pwritev;

use super::super::aligned::{Aligned, BLOCK, is_aligned};
use super::super::write::SMALL;
use super::record::{FILE_BLOCKS, FileHeader, RecordHeader};

pub(super) struct JournalFile {
    pub(super) path: PathBuf,
    pub(super) writes: Option<Arc<File>>,
    pub(super) reads: Arc<File>,
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
    pub(super) disk: Arc<HeaderOnDisk>,
}

/// What of a file's header is on the disk.
#[derive(Default)]
pub(super) struct HeaderOnDisk {
    order: Mutex<()>,
    /// The changes that are written.
    pub(super) changes: AtomicU64,
}

impl JournalFile {
    /// A file of that header, with no objects yet. It is written again from its front once it is free.
    pub(super) fn new(path: PathBuf, reads: File, writes: Option<File>, header: FileHeader) -> Self {
        Self {
            path,
            writes: writes.map(Arc::new),
            reads: Arc::new(reads),
            header,
            next: FILE_BLOCKS,
            live: 0,
            live_bytes: 0,
            in_flight: 0,
            failed: false,
            changes: 0,
            disk: Arc::default(),
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.live == 0 && self.in_flight == 0 && !self.failed
    }

    pub(super) fn forget(&mut self, block: u32, length: u64) {
        self.header.dead.add(block);
        self.live = self.live.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(length);
        self.changes += 1;
    }
}

impl HeaderOnDisk {
    /// Writes a header unless a later one was.
    pub(super) fn write(&self, file: &File, changes: u64, header: &FileHeader) -> io::Result<()> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes.load(Ordering::Relaxed) >= changes {
            return Ok(());
        }
        file.write_all_at(header.encode().as_mut(), 0)?;
        self.changes.store(changes, Ordering::Relaxed);
        Ok(())
    }
}

/// One write of header and bytes, from where they lie if they lie aligned.
pub(super) fn write_record(file: &File, header: &RecordHeader, payload: &PutPayload) -> io::Result<()> {
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
        let parts = [
            IoSlice::new(front),
            IoSlice::new(whole),
            IoSlice::new(&back[..padded]),
        ];
        if pwritev(file, &parts, at)? == BLOCK + whole.len() + padded {
            return Ok(());
        }
    }
    let mut scratch = Aligned::new(header.this.blocks() as usize * BLOCK);
    let record = scratch.as_mut();
    header.encode(record);
    let mut end = BLOCK;
    for chunk in payload.iter() {
        record[end..end + chunk.len()].copy_from_slice(chunk);
        end += chunk.len();
    }
    file.write_all_at(record, at)
}

pub(super) fn open_for_writes(path: &Path, direct: bool) -> io::Result<File> {
    let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
    OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
}
