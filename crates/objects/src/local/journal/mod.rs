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
//! - A file is written again, from its front, when all its objects are deleted and its header, durably, says so: a new
//!   generation. No record of it is synced before its header is written, so that one `fdatasync` makes both durable.
//! - Syncs of a file come one after another, and one serves all puts that had written before it began. After one that
//!   failed no put in that file succeeds, and unless the disk is only full, none in the journal.
//! - A start first marks what a crash cut off, and makes the marks durable; only then does a header say that all puts
//!   before the start are over. A start that is cut off leaves what the next one reads in the same way.
//! - Of two records of a key the later is the object: the other's put failed. A file of that name goes before both.
//! - A header says which puts were over when it was written, some times a second; and at most [`WINDOW`] are in flight,
//!   counted from the oldest. A record further back that is not whole was damaged, and is not what a crash cut off. Its
//!   object stays, damaged. Damage to its header does not hide it, since the next record names it, and numbers have no
//!   gaps: where more is lost, the start is refused.

mod disk;
mod file;
mod record;
mod scan;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulation;
mod tend;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::PutPayload;

use super::aligned::BLOCK;
use crate::error::LocalFailure;
use disk::DiskFile;
pub(super) use disk::{Disk, SystemDisk};
use file::{JournalFile, OnDisk, write_record};
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
    disk: Arc<dyn Disk>,
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
    /// An fsync failed: what the disk holds is not known, and nothing is written any more.
    fsync_failed: Option<String>,
}

/// The space of a record.
struct Place {
    file_number: u32,
    file: Arc<dyn DiskFile>,
    reads: Arc<dyn DiskFile>,
    disk: Arc<OnDisk>,
    /// The header of the generation, with its change, where it is not written yet.
    begins: Option<(u64, FileHeader)>,
    header: RecordHeader,
}

/// Where an object lies.
#[derive(Clone)]
pub(super) struct Found {
    file: u32,
    block: u32,
    number: u64,
    generation: u64,
    reads: Arc<dyn DiskFile>,
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
    fn new(file: u32, generation: u64, reads: &Arc<dyn DiskFile>, record: &Record) -> Self {
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
        disk: &Arc<dyn Disk>,
        how: Opening,
        is_object: impl Fn(&str) -> Result<bool, LocalFailure>,
    ) -> Result<Self, LocalFailure> {
        let found = scan::scan(dir, &**disk, how.writes, is_object)?;
        let mut state = State {
            next_number: found.next_number,
            next_generation: found.next_generation,
            seed: how.seed,
            closed: !how.direct,
            ..State::default()
        };
        for (number, scanned) in found.files {
            let writes = match how.writes {
                true => Some(disk.open_for_writes(&scanned.path, how.direct)?),
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
            disk: Arc::clone(disk),
            writes: how.writes,
            state: Mutex::new(state),
            resolved: Condvar::new(),
            wants_file: AtomicBool::new(false),
        };
        if how.writes {
            tend::clear_unfinished(dir, &**disk);
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

    /// Makes durable what was found at the start, and the marks of what is no object: later starts rely on both. Only
    /// then may a header say that all earlier puts are over.
    fn settle_all(&self) -> Result<(), LocalFailure> {
        self.write_changed(None)?;
        self.sync_files(|_, _| true)?;
        // The names of the files, too: an earlier process may have died before that.
        {
            let mut state = self.lock();
            let settled = state.settled();
            let Some(latest) = state.files.values_mut().max_by_key(|file| file.header.generation) else {
                return Ok(());
            };
            latest.changes += u64::from(latest.header.settled < settled);
        }
        self.disk.sync_dir(&self.dir).map_err(LocalFailure::Fsync)?;
        self.write_headers()
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
        crc: Option<u32>,
        now_ms: i64,
    ) -> Result<bool, LocalFailure> {
        let length = payload.content_length();
        if length > MAX_OBJECT || claim.key.len() > MAX_KEY || !self.writes {
            return Ok(false);
        }
        let summed = || {
            let chunks = payload.iter();
            chunks.fold(0, |crc, chunk| crc32c::crc32c_append(crc, chunk))
        };
        let crc = crc.unwrap_or_else(summed);
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
        let written = self.write(&place, payload);
        match self.finish(&place, written) {
            // The file has holes, or is copied on write: an own file may find room yet.
            Err(LocalFailure::Full(_)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Writes a record, and before it the header of its generation, and makes both durable.
    fn write(&self, place: &Place, payload: &PutPayload) -> Result<(), LocalFailure> {
        if let Some((changes, header)) = &place.begins {
            place.disk.write(&*place.file, *changes, header)?;
        }
        write_record(&*place.file, &place.header, payload)?;
        place.disk.sync(&*place.file)
    }

    /// Takes the space of a record, and its number.
    fn reserve(&self, mut record: Record) -> Result<Option<Place>, LocalFailure> {
        let blocks = record.blocks();
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(what) = &state.fsync_failed {
            return Err(LocalFailure::Fsync(io::Error::other(what.clone())));
        }
        if state.closed || state.next_number - state.settled() >= WINDOW {
            return Ok(None);
        }
        let fits = |file: &JournalFile| !file.failed && file.next + blocks <= FILE_BLOCKS;
        let active = state
            .active
            .filter(|number| state.files.get(number).is_some_and(fits));
        let active = match active {
            Some(number) => number,
            None => match state.begin_file() {
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
        let unwritten = file.disk.changes.load(Ordering::Acquire) < file.begun;
        let begins = unwritten.then(|| (file.changes, file.header.clone()));
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
            disk: file.disk.clone(),
            begins,
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
            // A start may find the object: the outcome of a failed put is open. It stays in flight for ever, so that no
            // header says that it is over, and its file is never written from the front again.
            state.closed = true;
            if let LocalFailure::Fsync(error) = &failure {
                state.fsync_failed.get_or_insert_with(|| error.to_string());
            }
            if let Some(file) = state.files.get_mut(&place.file_number) {
                file.failed = true;
                file.header.dead.add(record.block);
                file.changes += 1;
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
        let outcome = found.reads.read_at(&mut bytes, begin + range.start);
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
        found.reads.read_at(&mut block, 0)?;
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
            state.files.get(&found.file).map(|file| {
                let handle = file.writes.as_ref().unwrap_or(&file.reads);
                (handle.clone(), file.disk.clone())
            })
        };
        if let Some((file, disk)) = file {
            disk.sync(&*file)?;
        }
        Ok(true)
    }

    /// Writes the headers of files whose objects were deleted since, and in the active one's which puts are over; and
    /// makes those durable whose files can be used again then.
    pub(super) fn write_headers(&self) -> Result<(), LocalFailure> {
        let settled = self.lock().settled();
        self.write_changed(Some(settled))?;
        self.sync_changed()
    }

    /// Writes the headers that have changed; with `settled`, they also say which puts are over.
    fn write_changed(&self, settled: Option<u64>) -> Result<(), LocalFailure> {
        let changed: Vec<_> = {
            let mut state = self.lock();
            if let Some(what) = &state.fsync_failed {
                return Err(LocalFailure::Fsync(io::Error::other(what.clone())));
            }
            let active = state.active;
            let mut changed = Vec::new();
            for (number, file) in &mut state.files {
                let is_active = active == Some(*number);
                if let Some(settled) = settled
                    && is_active
                    && file.header.settled < settled
                {
                    file.changes += 1;
                }
                if file.changes <= file.disk.changes.load(Ordering::Acquire) {
                    continue;
                }
                if file.is_free() && !is_active {
                    file.header.end = 1;
                }
                file.header.settled = file.header.settled.max(settled.unwrap_or(0));
                let writes = file.writes.clone();
                let change = |writes| (writes, file.disk.clone(), file.changes, file.header.clone());
                changed.extend(writes.map(change));
            }
            changed
        };
        let mut outcome = Ok(());
        for (file, disk, changes, header) in changed {
            if let Err(error) = disk.write(&*file, changes, &header) {
                outcome = Err(error.into());
            }
        }
        outcome
    }

    /// Makes the headers of files durable that hold no object any more.
    fn sync_changed(&self) -> Result<(), LocalFailure> {
        self.sync_files(|file, is_active| !is_active && file.is_free() && !file.is_spare())
    }

    fn sync_files(&self, which: impl Fn(&JournalFile, bool) -> bool) -> Result<(), LocalFailure> {
        let files: Vec<_> = {
            let state = self.lock();
            let chosen = state
                .files
                .iter()
                .filter(|(number, file)| which(file, state.active == Some(**number)));
            chosen
                .filter_map(|(_, file)| Some((file.writes.clone()?, file.disk.clone())))
                .collect()
        };
        for (file, disk) in files {
            if let Err(failure) = disk.sync(&*file) {
                if let LocalFailure::Fsync(error) = &failure {
                    let mut state = self.lock();
                    state.fsync_failed.get_or_insert_with(|| error.to_string());
                }
                return Err(failure);
            }
        }
        Ok(())
    }
}

impl State {
    /// All puts with a lower number are over.
    fn settled(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.next_number)
    }

    /// Files that could be begun again, beside the active one.
    fn spares(&self) -> impl Iterator<Item = u32> + '_ {
        let spare = |(number, file): &(&u32, &JournalFile)| self.active != Some(**number) && file.is_spare();
        self.files.iter().filter(spare).map(|(number, _)| *number)
    }

    /// Begins a new generation in a spare file, and makes it the active one. `None`: there is no spare. Its header is
    /// written by whoever puts the first record.
    fn begin_file(&mut self) -> Option<u32> {
        self.active = None;
        let settled = self.settled();
        let (number, file) = self.files.iter_mut().find(|(_, file)| file.is_spare())?;
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
        file.begun = file.changes;
        self.next_generation += 1;
        file.next = 1;
        let number = *number;
        self.active = Some(number);
        self.spare = self.spare.min(self.spares().count());
        Some(number)
    }
}
