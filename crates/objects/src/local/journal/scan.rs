//! What a journal's files hold, read when they are opened.
//!
//! Records lie one behind another, so a walk goes from header to header. Puts that a crash cut off leave holes, over
//! which it goes block by block. So does damage; but the record after a hole names the one in it, and numbers tell
//! whether there were more.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::aligned::BLOCK;
use super::WINDOW;
use super::disk::{Disk, DiskFile};
use super::record::{Dead, FILE_BLOCKS, FileHeader, Record, RecordHeader, Unknown};
use crate::error::LocalFailure;

/// Read at a time.
const STRETCH: usize = 16 * BLOCK;

/// A file of the journal, and the objects in it.
pub(super) struct Scanned {
    pub(super) path: PathBuf,
    pub(super) reads: Arc<dyn DiskFile>,
    pub(super) header: FileHeader,
    pub(super) live: Vec<Record>,
    /// The header on the disk says something else than `header`.
    pub(super) stale: bool,
}

/// All files, by number, and the next numbers to give.
pub(super) struct Scan {
    pub(super) files: BTreeMap<u32, Scanned>,
    pub(super) next_number: u64,
    pub(super) next_generation: u64,
}

/// Reads the journal in `dir`; none is an empty one. `is_object` tells whether a file has that key already. `strict`:
/// nobody writes meanwhile, and what cannot be made out is an error.
pub(super) fn scan(
    dir: &Path,
    disk: &dyn Disk,
    strict: bool,
    is_object: impl Fn(&str) -> Result<bool, LocalFailure>,
) -> Result<Scan, LocalFailure> {
    let mut files = BTreeMap::new();
    for (number, path) in numbered(dir, disk)? {
        let reads = match disk.open(&path) {
            Ok(reads) => reads,
            // The broker that writes it has let go of it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        if let Some(file) = Walked::read(path, reads)? {
            files.insert(number, file);
        }
    }
    let numbers = files
        .values()
        .flat_map(|file| &file.met)
        .map(|met| met.record.number + 1);
    let settled = files.values().map(Walked::settled).max().unwrap_or(0);
    let next_number = numbers.max().unwrap_or(1).max(settled);
    // A put was over if a header says so, and if more have begun since than are ever in flight.
    let settled = settled.max(next_number.saturating_sub(WINDOW));
    let next_generation = files.values().map(|file| file.generation + 1).max().unwrap_or(1);

    let ends: Vec<(u64, Record)> = files.values().filter_map(Walked::before).collect();
    for file in files.values_mut() {
        file.fill_holes(&ends, settled, strict)?;
        file.drop_torn(settled);
    }
    // Of two records of a key, the earlier is of a put that failed: only one that failed is followed by another.
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for record in files.values().flat_map(|file| &file.met).map(|met| &met.record) {
        let number = newest.entry(record.key.clone()).or_default();
        *number = record.number.max(*number);
    }
    let mut objects = BTreeMap::new();
    for (key, number) in newest {
        if !is_object(&key)? {
            objects.insert(key, number);
        }
    }
    let files = files
        .into_iter()
        .map(|(number, file)| (number, file.judge(&objects, next_number)));
    Ok(Scan {
        files: files.collect(),
        next_number,
        next_generation,
    })
}

fn numbered(dir: &Path, disk: &dyn Disk) -> io::Result<Vec<(u32, PathBuf)>> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let names = disk.names(dir)?.into_iter();
    Ok(names.filter_map(|path| Some((number(&path)?, path))).collect())
}

/// A record as the walk met it, or as the one after it tells of it.
struct Met {
    record: Record,
    told: bool,
}

/// A file as it was read: its header if that could be read, and what follows.
struct Walked {
    path: PathBuf,
    reads: Arc<dyn DiskFile>,
    header: Option<FileHeader>,
    tag: [u8; 16],
    generation: u64,
    /// In the order of their blocks, and so of their numbers.
    met: Vec<Met>,
    /// What the records say of those before them.
    told: Vec<Record>,
    /// Blocks where a put began that a crash cut off, or may have.
    torn: BTreeSet<u32>,
}

impl Walked {
    /// `None`: it holds nothing and never did.
    fn read(path: PathBuf, reads: Arc<dyn DiskFile>) -> Result<Option<Self>, LocalFailure> {
        let mut blocks = Blocks::new(&*reads);
        let header = match blocks.get(0).map(FileHeader::decode) {
            Some(Ok(header)) => Some(header),
            Some(Err(Unknown::Newer(version))) => {
                return Err(LocalFailure::Refused(format!(
                    "{} was written by a newer version of Drumlin (format {version}); start that one",
                    path.display()
                )));
            }
            None if reads.length()? == 0 => return Ok(None),
            Some(Err(Unknown::Other)) | None => {
                tracing::warn!(file = %path.display(), "the header of a file of the journal cannot be read");
                None
            }
        };
        drop(blocks);
        let mut walked = Self {
            path,
            tag: header.as_ref().map_or([0; 16], |header| header.tag),
            generation: header.as_ref().map_or(0, |header| header.generation),
            reads,
            header,
            met: Vec::new(),
            told: Vec::new(),
            torn: BTreeSet::new(),
        };
        walked.walk();
        Ok(Some(walked))
    }

    fn walk(&mut self) {
        let end = self.header.as_ref().map_or(FILE_BLOCKS, |header| header.end);
        let reads = Arc::clone(&self.reads);
        let mut blocks = Blocks::new(&*reads);
        let mut at = 1;
        while at < end {
            let header = blocks.get(at).and_then(RecordHeader::decode);
            let Some(header) = header.filter(|header| self.accepts(header, at)) else {
                at += 1;
                continue;
            };
            at += header.this.blocks();
            self.told.extend(header.before);
            self.met.push(Met {
                record: header.this,
                told: false,
            });
        }
    }

    /// Whether a record is of this file as it is now. Where the file's header cannot be read, the first record tells
    /// whose file it is, and the latest generation is the file's: its first record followed a header that was whole.
    fn accepts(&mut self, header: &RecordHeader, at: u32) -> bool {
        if header.this.block != at {
            return false;
        }
        if self.header.is_some() {
            return header.tag == self.tag && header.generation == self.generation;
        }
        if header.generation < self.generation {
            return false;
        }
        if header.generation > self.generation {
            (self.tag, self.generation) = (header.tag, header.generation);
            self.met.clear();
            self.told.clear();
        }
        header.tag == self.tag
    }

    fn settled(&self) -> u64 {
        self.header.as_ref().map_or(0, |header| header.settled)
    }

    /// The last record of the generation before this one.
    fn before(&self) -> Option<(u64, Record)> {
        self.header.as_ref()?.before.clone()
    }

    fn is_dead(&self, block: u32) -> bool {
        self.header.as_ref().is_some_and(|header| header.dead.has(block))
    }

    /// Adds the records whose own header is damaged and whom others name. Where more are missing, nobody can tell
    /// which objects there were, unless all were deleted.
    fn fill_holes(&mut self, ends: &[(u64, Record)], settled: u64, strict: bool) -> Result<(), LocalFailure> {
        let ends = ends
            .iter()
            .filter(|(generation, _)| *generation == self.generation);
        let mut told = std::mem::take(&mut self.told);
        told.extend(ends.map(|(_, record)| record.clone()));
        let known: BTreeSet<u64> = self.met.iter().map(|met| met.record.number).collect();
        let missing = told.into_iter().filter(|record| !known.contains(&record.number));
        self.met.extend(missing.map(|record| Met { record, told: true }));
        self.met.sort_by_key(|met| met.record.number);
        self.met.dedup_by_key(|met| met.record.number);

        let Some(header) = self.header.as_ref().filter(|_| strict) else {
            return Ok(());
        };
        let (mut number, mut block) = (header.first, 1);
        for met in &self.met {
            let lost = met.record.number.saturating_sub(number);
            let deleted = (block..met.record.block)
                .filter(|block| header.dead.has(*block))
                .count() as u64;
            if lost > deleted && number >= settled {
                self.torn.extend(block..met.record.block);
            } else if lost > deleted {
                return Err(LocalFailure::Refused(format!(
                    "{} is damaged after block {block}: nobody can tell which objects lay there; restore it from a backup",
                    self.path.display()
                )));
            }
            (number, block) = (met.record.number + 1, met.record.block + met.record.blocks());
        }
        Ok(())
    }

    /// Forgets the puts that a crash cut off. A record that was settled is an object, and damage to its bytes is for
    /// its reader to find.
    fn drop_torn(&mut self, settled: u64) {
        let (path, reads) = (&self.path, &self.reads);
        let dead = |block| self.header.as_ref().is_some_and(|header| header.dead.has(block));
        let torn = &mut self.torn;
        self.met.retain(|met| {
            let record = &met.record;
            if record.number < settled {
                if met.told && !dead(record.block) {
                    tracing::error!(key = %record.key, file = %path.display(), block = record.block,
                        "a record of the journal is damaged");
                }
                return true;
            }
            let mut body = vec![0; record.length as usize];
            let read = reads.read_at(&mut body, (u64::from(record.block) + 1) * BLOCK as u64);
            let whole = !met.told && read.is_ok() && crc32c::crc32c(&body) == record.crc;
            if !whole {
                torn.insert(record.block);
            }
            whole
        });
    }

    /// Keeps what is an object: neither deleted, nor superseded.
    fn judge(self, objects: &BTreeMap<String, u64>, next_number: u64) -> Scanned {
        let is_object =
            |record: &Record| !self.is_dead(record.block) && objects.get(&record.key) == Some(&record.number);
        let live: Vec<Record> = self
            .met
            .iter()
            .map(|met| met.record.clone())
            .filter(is_object)
            .collect();
        // What a crash cut off must not pass for an object once later puts have followed.
        let mut dead = self
            .header
            .as_ref()
            .map_or(Dead::none(), |header| header.dead.clone());
        let met = self.met.iter().map(|met| met.record.block);
        let begins: BTreeSet<u32> = live.iter().map(|record| record.block).collect();
        let gone = met
            .chain(self.torn.iter().copied())
            .filter(|block| !begins.contains(block));
        gone.for_each(|block| dead.add(block));
        let header = FileHeader {
            tag: self.tag,
            generation: self.generation,
            first: self.header.as_ref().map_or(next_number, |header| header.first),
            // Raised once all that this start makes of the files is durable.
            settled: self.settled(),
            end: if live.is_empty() { 1 } else { FILE_BLOCKS },
            dead,
            before: self.before(),
        };
        Scanned {
            stale: self.header.as_ref() != Some(&header),
            path: self.path,
            reads: self.reads,
            header,
            live,
        }
    }
}

/// Blocks of a file, read a stretch at a time. One that cannot be read is none.
struct Blocks<'a> {
    file: &'a dyn DiskFile,
    stretch: Vec<u8>,
    first: u32,
    count: u32,
}

impl<'a> Blocks<'a> {
    fn new(file: &'a dyn DiskFile) -> Self {
        Self {
            file,
            stretch: vec![0; STRETCH],
            first: 0,
            count: 0,
        }
    }

    fn get(&mut self, block: u32) -> Option<&[u8]> {
        if !(self.first..self.first + self.count).contains(&block) {
            let at = u64::from(block) * BLOCK as u64;
            // At the end of the file, and where a sector cannot be read, block by block.
            let whole = self.file.read_at(&mut self.stretch, at).is_ok();
            let read = whole || self.file.read_at(&mut self.stretch[..BLOCK], at).is_ok();
            self.first = block;
            self.count = match (whole, read) {
                (true, _) => (STRETCH / BLOCK) as u32,
                (false, true) => 1,
                (false, false) => 0,
            };
        }
        let from = (block - self.first) as usize * BLOCK;
        (self.count > 0).then(|| &self.stretch[from..from + BLOCK])
    }
}
