//! What a journal's files hold, read when they are opened.
//!
//! Records lie one behind another, so a walk goes from header to header. Puts that a crash cut off leave holes, over
//! which it goes block by block.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::aligned::BLOCK;
use super::WINDOW;
use super::record::{Dead, FILE_BLOCKS, FILE_BYTES, FileHeader, RecordHeader, Unknown};

/// A file of the journal, and the objects in it.
pub(super) struct Scanned {
    pub(super) path: PathBuf,
    pub(super) reads: File,
    pub(super) header: FileHeader,
    /// The objects, and at which block their records begin.
    pub(super) live: Vec<(u32, RecordHeader)>,
    /// The header on the disk says something else than `header`.
    pub(super) stale: bool,
}

/// All files, by number, and the highest number that a record had.
pub(super) struct Scan {
    pub(super) files: BTreeMap<u32, Scanned>,
    pub(super) last_number: u64,
    pub(super) last_generation: u64,
}

/// A record as the walk met it.
struct Met {
    block: u32,
    header: RecordHeader,
    whole: bool,
}

/// Reads the journal in `dir`; none is an empty one. `is_object` tells whether a file has that key already.
pub(super) fn scan(dir: &Path, is_object: impl Fn(&str) -> bool) -> io::Result<Scan> {
    let mut found = BTreeMap::new();
    let mut buffer = Vec::new();
    for (number, path) in numbered(dir)? {
        let reads = match File::open(&path) {
            Ok(reads) => reads,
            // The broker that writes it has let go of it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(file) = read_file(&path, &reads, &mut buffer)? {
            found.insert(number, (path, reads, file));
        }
    }
    let met = |(_, _, file): &(PathBuf, File, Walked)| file.met.iter().map(|met| met.header.number).max();
    let last_number = found.values().filter_map(met).max().unwrap_or(0);
    let generations = found.values().map(|(_, _, file)| file.generation);
    let last_generation = generations.max().unwrap_or(0);

    // Of two records of a key, the earlier is of a put that failed: only one that failed is followed by another.
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for (path, _, file) in found.values_mut() {
        file.met.retain(|met| exists(path, met, last_number));
        for met in &file.met {
            let number = newest.entry(met.header.key.clone()).or_default();
            *number = met.header.number.max(*number);
        }
    }
    newest.retain(|key, _| !is_object(key));
    let files = found
        .into_iter()
        .map(|(number, (path, reads, file))| (number, file.judge(path, reads, &newest)))
        .collect();
    Ok(Scan {
        files,
        last_number,
        last_generation,
    })
}

/// Whether a record was put as a whole. One with the wrong bytes was cut off by a crash, unless it lies further back
/// than puts are in flight at a time: then it was damaged later, and whoever reads the object has to find that out.
fn exists(path: &Path, met: &Met, last_number: u64) -> bool {
    if met.whole {
        return true;
    }
    let completed = last_number >= met.header.number + WINDOW;
    if completed {
        let (key, path) = (&met.header.key, path.display());
        tracing::error!(%key, file = %path, block = met.block, "an object in the journal is damaged");
    }
    completed
}

fn numbered(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            files.push((number, entry.path()));
        }
    }
    Ok(files)
}

/// A file as it was read: its header if that could be read, and what follows.
struct Walked {
    header: Option<FileHeader>,
    tag: [u8; 16],
    generation: u64,
    met: Vec<Met>,
}

/// `None`: it holds nothing and never did.
fn read_file(path: &Path, file: &File, buffer: &mut Vec<u8>) -> io::Result<Option<Walked>> {
    buffer.resize(BLOCK, 0);
    if fill(file, buffer, 0)? < BLOCK {
        return Ok(None);
    }
    let header = match FileHeader::decode(buffer) {
        Ok(header) => Some(header),
        Err(Unknown::Newer(version)) => {
            let path = path.display();
            return Err(io::Error::other(format!(
                "{path} was written by a newer version of Drumlin (format {version}); start that one"
            )));
        }
        Err(Unknown::Other) => {
            tracing::warn!(file = %path.display(), "the header of a file of the journal is torn; reading what follows");
            None
        }
    };
    let end = header.as_ref().map_or(FILE_BLOCKS, |header| header.end);
    let mut walked = Walked {
        tag: header.as_ref().map_or([0; 16], |header| header.tag),
        generation: header.as_ref().map_or(0, |header| header.generation),
        header,
        met: Vec::new(),
    };
    if end > 1 {
        buffer.resize(FILE_BYTES as usize, 0);
        let length = fill(file, &mut buffer[BLOCK..end as usize * BLOCK], BLOCK as u64)?;
        walked.walk(&buffer[..BLOCK + length]);
    }
    Ok(Some(walked))
}

fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Walked {
    /// Goes over a whole file.
    fn walk(&mut self, file: &[u8]) {
        let mut at = 1;
        while let Some(block) = file.get(at * BLOCK..(at + 1) * BLOCK) {
            let Some(header) = RecordHeader::decode(block).filter(|header| self.accepts(header)) else {
                at += 1;
                continue;
            };
            let blocks = header.blocks() as usize;
            let begin = (at + 1) * BLOCK;
            let body = file.get(begin..begin + header.length as usize);
            let whole = body.is_some_and(|body| crc32c::crc32c(body) == header.crc);
            self.met.push(Met {
                block: at as u32,
                header,
                whole,
            });
            at += blocks;
        }
    }

    /// Whether a record is of this file as it is now. Where the header is torn, the first record tells whose file it
    /// is, and the latest generation is the file's: its first record followed a header that was written whole.
    fn accepts(&mut self, record: &RecordHeader) -> bool {
        if self.header.is_some() {
            return record.tag == self.tag && record.generation == self.generation;
        }
        if self.met.is_empty() && self.generation == 0 {
            self.tag = record.tag;
        }
        if record.tag != self.tag || record.generation < self.generation {
            return false;
        }
        if record.generation > self.generation {
            self.generation = record.generation;
            self.met.clear();
        }
        true
    }

    /// Keeps what is an object: neither deleted, nor superseded.
    fn judge(self, path: PathBuf, reads: File, newest: &BTreeMap<String, u64>) -> Scanned {
        let deleted = |block| self.header.as_ref().is_some_and(|header| header.dead.has(block));
        let mut live = Vec::new();
        for met in self.met {
            if !deleted(met.block) && newest.get(&met.header.key) == Some(&met.header.number) {
                live.push((met.block, met.header));
            }
        }
        // A bit for every block that begins no object: also for what a crash cut off, which must not pass for an
        // object that was damaged once later puts have followed.
        let mut dead = Dead::none();
        let begin: std::collections::BTreeSet<u32> = live.iter().map(|(block, _)| *block).collect();
        (1..FILE_BLOCKS)
            .filter(|block| !begin.contains(block))
            .for_each(|block| dead.add(block));
        let end = if live.is_empty() { 1 } else { FILE_BLOCKS };
        let header = FileHeader {
            tag: self.tag,
            generation: self.generation,
            end,
            dead,
        };
        Scanned {
            path,
            reads,
            stale: self.header.as_ref() != Some(&header),
            header,
            live,
        }
    }
}
