//! The journal: where small objects of a local directory lie until they are deleted.
//!
//! A file of its own costs a put its name: a rename and a directory's fsync, which is a commit of the file system's
//! journal on top of the flush that the bytes need. Entries of a WAL are put a thousand times a second and deleted a
//! few seconds later. They are written one behind another into files that exist already, whose blocks are written
//! already, so that one write and one `fdatasync` make them durable: a third of the time and of the CPU.
//!
//! Owns the directory `.journal`: files of 8 MiB, [`record`] has their format, [`scan`] how they are read at a start.
//! Everything here blocks. Rules, beside S2:
//! - An object is its record, whole: header and bytes with the right CRCs. It is in the index, and the put returns,
//!   once the `fdatasync` that followed its write has.
//! - A deleted object's bit is set in the file's header. That is written soon, not at once: a crash may bring
//!   the object back, as a power cut may bring a file back.
//! - A file is written again, from its front, when all its objects are deleted: a new generation, whose header is
//!   written before the first record. That record's `fdatasync` makes both durable.
//! - Of two records of a key the later is the object: the other's put failed. A file of that name goes before both.
//! - A header says which puts were over when it was written, some times a second; and at most [`WINDOW`] are in flight,
//!   counted from the oldest. A record further back that is not whole was damaged, and is not what a crash cut off. Its
//!   object stays, damaged. Damage to its header does not hide it, since the next record names it, and numbers have no
//!   gaps: where more is lost, the start is refused.

mod file;
mod record;
mod scan;
mod tend;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::PutPayload;
use rustix::fs::fdatasync;

use super::aligned::BLOCK;
use super::write::{fsync_dir, sync_failure};
use crate::error::LocalFailure;
use file::{HeaderOnDisk, JournalFile, open_for_writes, write_record};
use record::{Dead, FILE_BLOCKS, FileHeader, MAX_KEY, Record, RecordHeader};

/// A larger object gets a file of its own: its name is little beside its bytes.
const MAX_OBJECT: usize = 512 << 10;
/// Files at most. Where objects are not deleted in time, further ones get files of their own.
const MAX_FILES: usize = 32;
/// From the oldest put that is in flight to the next one.
const WINDOW: u64 = 32;
/// A file with no more than this left of its objects is emptied by giving them files of their own, if there are
/// [`MAX_FILES`].
const REMNANT: u64 = 1 << 20;
/// So long after they were put: a log under load deletes what is younger by itself.
const OLD_MS: i64 = 60_000;
/// After a file could not be made.
const GROW_AGAIN: Duration = Duration::from_secs(10);

/// The journal of a directory.
pub(super) struct Journal {
    dir: PathBuf,
    writes: bool,
    state: Mutex<State>,
    /// A claim is over.
    resolved: Condvar,
    /// A file more, or one emptied, would help.
    wants_file: AtomicBool,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u32, JournalFile>,
    index: BTreeMap<String, Found>,
    /// Keys that somebody has a claim on.
    pending: BTreeSet<String>,
    /// Numbers of the records that are being written.
    in_flight: BTreeSet<u64>,
    next_number: u64,
    next_generation: u64,
    /// The last record that was begun, and its file's generation.
    last: Option<(u64, Record)>,
    /// Draws the tags of generations.
    seed: [u8; 16],
    /// The file that takes records.
    active: Option<u32>,
    growing: bool,
    grow_after: Option<Instant>,
    /// The fewest files that were empty since the last release.
    spare: usize,
    closed: bool,
}

/// The space of a record.
struct Place {
    file_number: u32,
    file: Arc<File>,
    reads: Arc<File>,
    header: RecordHeader,
}

/// Where an object lies.
#[derive(Clone)]
pub(super) struct Found {
    file: u32,
    block: u32,
    number: u64,
    generation: u64,
    reads: Arc<File>,
    /// Length in bytes.
    pub(super) length: u64,
    /// When it was put, Unix milliseconds.
    pub(super) modified_ms: i64,
}

/// A key that nobody else puts or deletes meanwhile.
pub(super) struct Claim<'a> {
    journal: &'a Journal,
    key: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.journal.lock().pending.remove(&self.key);
        self.journal.resolved.notify_all();
    }
}

/// How a journal is opened.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    /// The directory's lock is held. Another process sees what was there.
    pub(super) writes: bool,
    /// The page cache is bypassed; else nothing is put here.
    pub(super) direct: bool,
    /// Random.
    pub(super) seed: [u8; 16],
}

impl Found {
    fn new(file: u32, generation: u64, reads: &Arc<File>, record: &Record) -> Self {
        Self {
            file,
            block: record.block,
            number: record.number,
            generation,
            reads: reads.clone(),
            length: record.length.into(),
            modified_ms: record.modified_ms,
        }
    }
}

impl Journal {
    /// Reads the journal of a directory. `is_object` tells whether a file has a key already; that file is then durable.
    pub(super) fn open(
        dir: &Path,
        how: Opening,
        is_object: impl Fn(&str) -> Result<bool, LocalFailure>,
    ) -> Result<Self, LocalFailure> {
        let found = scan::scan(dir, how.writes, is_object)?;
        let mut state = State {
            next_number: found.next_number,
            next_generation: found.next_generation,
            seed: how.seed,
            closed: !how.direct,
            ..State::default()
        };
        for (number, scanned) in found.files {
            let writes = match how.writes {
                true => Some(open_for_writes(&scanned.path, how.direct)?),
                false => None,
            };
            let mut file = JournalFile::new(scanned.path, scanned.reads, writes, scanned.header);
            file.live = scanned.live.len() as u32;
            file.live_bytes = scanned.live.iter().map(|record| u64::from(record.length)).sum();
            file.changes = u64::from(scanned.stale);
            for record in scanned.live {
                let found = Found::new(number, file.header.generation, &file.reads, &record);
                state.index.insert(record.key, found);
            }
            state.files.insert(number, file);
        }
        let journal = Self {
            dir: dir.to_owned(),
            writes: how.writes,
            state: Mutex::new(state),
            resolved: Condvar::new(),
            wants_file: AtomicBool::new(false),
        };
        if how.writes {
            tend::clear_unfinished(dir);
            journal.settle_all()?;
        }
        Ok(journal)
    }

    /// Whether this one writes, and so tells of everything that happens.
    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes durable what was found at the start, and what was made of it: later starts rely on both.
    fn settle_all(&self) -> Result<(), LocalFailure> {
        let files: Vec<Arc<File>> = {
            let state = self.lock();
            let relied_on = state
                .files
                .values()
                .filter(|file| file.live > 0 || file.changes > 0);
            relied_on.filter_map(|file| file.writes.clone()).collect()
        };
        self.write_headers()?;
        for file in &files {
            fdatasync(&**file).map_err(|errno| LocalFailure::Fsync(errno.into()))?;
        }
        // The names of the files, too: an earlier process may have died before that.
        match self.dir.exists() {
            true => fsync_dir(&self.dir),
            false => Ok(()),
        }
    }

    /// Claims a key for a put-if-absent, also of a file. `None`: there is such an object here.
    pub(super) fn claim(&self, key: &str) -> Option<Claim<'_>> {
        let claim = self.hold(key);
        let is_there = self.lock().index.contains_key(key);
        (!is_there).then_some(claim)
    }

    /// Waits for whoever has a claim on the key, and takes it.
    pub(super) fn hold(&self, key: &str) -> Claim<'_> {
        let mut state = self.lock();
        while state.pending.contains(key) {
            state = self.resolved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.pending.insert(key.to_owned());
        Claim {
            journal: self,
            key: key.to_owned(),
        }
    }

    /// Puts an object whose key was claimed, durably. `Ok(false)`: there is no room, or it is too large; nothing
    /// was done. A failure's outcome is not known until the next start, as with any store.
    pub(super) fn put(
        &self,
        claim: &Claim<'_>,
        payload: &PutPayload,
        now_ms: i64,
    ) -> Result<bool, LocalFailure> {
        let length = payload.content_length();
        if length > MAX_OBJECT || claim.key.len() > MAX_KEY || !self.writes {
            return Ok(false);
        }
        let mut crc = 0;
        for chunk in payload.iter() {
            crc = crc32c::crc32c_append(crc, chunk);
        }
        let record = Record {
            number: 0,
            modified_ms: now_ms,
            block: 0,
            length: length as u32,
            crc,
            key: claim.key.clone(),
        };
        let Some(place) = self.reserve(record)? else {
            return Ok(false);
        };
        let written = write_record(&place.file, &place.header, payload)
            .map_err(LocalFailure::from)
            // An EIO here is said only once: never tried again.
            .and_then(|()| fdatasync(&*place.file).map_err(|errno| sync_failure(errno.into())));
        match self.finish(&place, written) {
            // The file has holes, or is copied on write: an own file may find room yet.
            Err(LocalFailure::Full(_)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Takes the space of a record, and its number.
    fn reserve(&self, mut record: Record) -> Result<Option<Place>, LocalFailure> {
        let blocks = record.blocks();
        let mut state = self.lock();
        let state = &mut *state;
        if state.closed || state.next_number - state.settled() >= WINDOW {
            return Ok(None);
        }
        let fits = |file: &JournalFile| !file.failed && file.next + blocks <= FILE_BLOCKS;
        let active = state
            .active
            .filter(|number| state.files.get(number).is_some_and(fits));
        let active = match active {
            Some(number) => number,
            None => match state.begin_file()? {
                Some(number) => number,
                None => {
                    self.wants_file.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
            },
        };
        let free = state.spares().next().is_some();
        let Some(file) = state.files.get_mut(&active) else {
            return Ok(None);
        };
        let Some(writes) = file.writes.clone() else {
            return Ok(None);
        };
        (record.number, record.block) = (state.next_number, file.next);
        let generation = file.header.generation;
        let before = state.last.replace((generation, record.clone()));
        file.next += blocks;
        file.in_flight += 1;
        if !free && file.next > FILE_BLOCKS / 2 {
            self.wants_file.store(true, Ordering::Relaxed);
        }
        state.next_number += 1;
        state.in_flight.insert(record.number);
        Ok(Some(Place {
            file_number: active,
            file: writes,
            reads: file.reads.clone(),
            header: RecordHeader {
                tag: file.header.tag,
                generation,
                this: record,
                before: before
                    .filter(|before| before.0 == generation)
                    .map(|before| before.1),
            },
        }))
    }

    fn finish(&self, place: &Place, written: Result<(), LocalFailure>) -> Result<(), LocalFailure> {
        let record = &place.header.this;
        let mut state = self.lock();
        if let Err(failure) = written {
            if let Some(file) = state.files.get_mut(&place.file_number) {
                file.failed = true;
                file.header.dead.add(record.block);
                file.changes += 1;
            }
            drop(state);
            // If this fails too, a start may find the object: the outcome of a failed put is open.
            let _ = self.write_headers();
            let mut state = self.lock();
            state.in_flight.remove(&record.number);
            if let Some(file) = state.files.get_mut(&place.file_number) {
                file.in_flight -= 1;
            }
            return Err(failure);
        }
        state.in_flight.remove(&record.number);
        if let Some(file) = state.files.get_mut(&place.file_number) {
            file.in_flight -= 1;
            file.live += 1;
            file.live_bytes += u64::from(record.length);
        }
        let found = Found::new(place.file_number, place.header.generation, &place.reads, record);
        state.index.insert(record.key.clone(), found);
        Ok(())
    }

    /// The object of a key.
    pub(super) fn find(&self, key: &str) -> Option<Found> {
        self.lock().index.get(key).cloned()
    }

    /// Bytes of an object; `None` if it was deleted meanwhile.
    pub(super) fn read(&self, key: &str, found: &Found, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let begin = (u64::from(found.block) + 1) * BLOCK as u64;
        let outcome = found.reads.read_exact_at(&mut bytes, begin + range.start);
        // Only after an object is deleted is its file written again.
        if !self.is_there(key, found)? {
            return Ok(None);
        }
        outcome.map(|()| Some(bytes.into()))
    }

    fn is_there(&self, key: &str, found: &Found) -> io::Result<bool> {
        if self.writes {
            return Ok(self.find(key).is_some_and(|now| now.number == found.number));
        }
        let mut block = vec![0; BLOCK];
        found.reads.read_exact_at(&mut block, 0)?;
        let header = FileHeader::decode(&block);
        Ok(header.is_ok_and(|header| header.generation == found.generation))
    }

    /// Forgets an object. False if there is none. Its deletion lasts after [`Journal::write_headers`].
    pub(super) fn delete(&self, claim: &Claim<'_>) -> bool {
        let mut state = self.lock();
        let Some(found) = state.index.remove(&claim.key) else {
            return false;
        };
        if let Some(file) = state.files.get_mut(&found.file) {
            file.forget(found.block, found.length);
        }
        true
    }

    /// Objects below `prefix`, a path with its last slash, or all: key, length, time.
    pub(super) fn list(&self, prefix: &str) -> Vec<(String, Found)> {
        let state = self.lock();
        let from = state.index.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, found)| (key.clone(), found.clone()))
            .collect()
    }

    /// Makes an object durable that was found here. False if there is none.
    pub(super) fn settle(&self, key: &str) -> Result<bool, LocalFailure> {
        let file = {
            let state = self.lock();
            let Some(found) = state.index.get(key) else {
                return Ok(false);
            };
            state.files.get(&found.file).map(|file| match &file.writes {
                Some(writes) => writes.clone(),
                None => file.reads.clone(),
            })
        };
        if let Some(file) = file {
            fdatasync(&*file).map_err(|errno| LocalFailure::Fsync(errno.into()))?;
        }
        Ok(true)
    }

    /// Writes the headers of files whose objects were deleted since, and in the active one's which puts are over.
    pub(super) fn write_headers(&self) -> io::Result<()> {
        let changed: Vec<_> = {
            let mut state = self.lock();
            let (active, settled) = (state.active, state.settled());
            let mut changed = Vec::new();
            for (number, file) in &mut state.files {
                if active == Some(*number) && file.header.settled < settled {
                    file.changes += 1;
                }
                if file.changes > file.disk.changes.load(Ordering::Relaxed) {
                    if file.is_free() && active != Some(*number) {
                        file.header.end = 1;
                    }
                    file.header.settled = settled;
                    let writes = file.writes.clone();
                    changed.extend(
                        writes.map(|writes| (writes, file.disk.clone(), file.changes, file.header.clone())),
                    );
                }
            }
            changed
        };
        let write = |(file, disk, changes, header): (Arc<File>, Arc<HeaderOnDisk>, u64, FileHeader)| {
            disk.write(&file, changes, &header)
        };
        changed.into_iter().map(write).fold(Ok(()), io::Result::and)
    }
}

impl State {
    /// All puts with a lower number are over.
    fn settled(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.next_number)
    }

    /// Files that could be begun again, beside the active one.
    fn spares(&self) -> impl Iterator<Item = u32> + '_ {
        let spare = |(number, file): &(&u32, &JournalFile)| self.active != Some(**number) && file.is_free();
        self.files.iter().filter(spare).map(|(number, _)| *number)
    }

    /// Begins a new generation in an empty file, and makes it the active one. `None`: none is empty.
    fn begin_file(&mut self) -> io::Result<Option<u32>> {
        self.active = None;
        let settled = self.settled();
        let Some((number, file)) = self.files.iter_mut().find(|(_, file)| file.is_free()) else {
            return Ok(None);
        };
        let Some(writes) = &file.writes else {
            return Ok(None);
        };
        let mut tag = self.seed;
        let drawn = tag.iter_mut().zip(self.next_generation.to_be_bytes());
        drawn.for_each(|(byte, by)| *byte ^= by);
        file.header = FileHeader {
            tag,
            generation: self.next_generation,
            first: self.next_number,
            settled,
            end: FILE_BLOCKS,
            dead: Dead::none(),
            before: self.last.clone(),
        };
        file.changes += 1;
        self.next_generation += 1;
        if let Err(error) = file.disk.write(writes, file.changes, &file.header) {
            file.failed = true;
            return Err(error);
        }
        file.next = 1;
        let number = *number;
        self.active = Some(number);
        self.spare = self.spare.min(self.spares().count());
        Ok(Some(number))
    }
}
