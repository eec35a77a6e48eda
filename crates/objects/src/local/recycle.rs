//! Files of deleted objects, kept to be written again.
//!
//! A new file is dear: ext4 passes over inodes that were deleted in the last minute or so when it looks for a free
//! one, and a log that trims itself deletes thousands. A recycled file has its inode and its blocks already: a small
//! put costs a third of the time and a fifth of the CPU. What is kept is bounded in number and bytes, and what was
//! not wanted for a while goes.
//!
//! A recycled file was renamed out of its object's name before it is written, so a reader that opens the name finds
//! nothing; one that had opened it before finds out by looking at the name again after it has read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files kept, at most: what a round of sealing deletes from a local directory.
const MAX_FILES: usize = 20_000;
/// Their bytes, at most.
const MAX_BYTES: u64 = 1 << 30;
/// A larger file is not worth keeping: making a new one is little beside writing it.
const MAX_FILE: u64 = 16 << 20;
/// Sizes are counted in blocks of this.
const BLOCK: u64 = 4096;

/// The files of deleted objects.
#[derive(Debug, Default)]
pub(super) struct Recycled {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// By size in blocks; none is empty.
    by_size: BTreeMap<u64, Vec<PathBuf>>,
    count: usize,
    bytes: u64,
    /// The fewest there were since the last release: those were not wanted.
    unwanted: usize,
}

impl Recycled {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file of `size` would be kept.
    pub(super) fn wants(&self, size: u64) -> bool {
        let files = self.lock();
        (1..=MAX_FILE).contains(&size) && files.count < MAX_FILES && files.bytes + size <= MAX_BYTES
    }

    /// Keeps a file that has no object's name any more.
    pub(super) fn keep(&self, path: PathBuf, size: u64) {
        let mut files = self.lock();
        files.count += 1;
        files.bytes += size;
        files
            .by_size
            .entry(size.div_ceil(BLOCK))
            .or_default()
            .push(path);
    }

    /// A file to write `size` bytes into: of that size or up to four times that, else a smaller one of at least
    /// half of it. Blocks that a file lacks are cheaper than an inode; blocks that it has too many would be freed.
    pub(super) fn take(&self, size: u64) -> Option<PathBuf> {
        let mut files = self.lock();
        let blocks = size.div_ceil(BLOCK).max(1);
        let found = files
            .by_size
            .range(blocks..=blocks * 4)
            .next()
            .or_else(|| files.by_size.range(blocks / 2..blocks).next_back())
            .map(|(found, _)| *found)?;
        let same = files.by_size.get_mut(&found)?;
        let path = same.pop();
        if same.is_empty() {
            files.by_size.remove(&found);
        }
        files.count = files.count.saturating_sub(1);
        files.bytes = files.bytes.saturating_sub(found * BLOCK);
        files.unwanted = files.unwanted.min(files.count);
        path
    }

    /// Removes as many files as were never wanted since the last call, or all.
    pub(super) fn release(&self, all: bool) -> usize {
        let gone: Vec<PathBuf> = {
            let mut files = self.lock();
            let mut excess = if all { files.count } else { files.unwanted };
            let mut gone = Vec::new();
            while excess > 0 {
                let Some(mut largest) = files.by_size.last_entry() else {
                    break;
                };
                let blocks = *largest.key();
                let path = largest.get_mut().pop();
                if largest.get().is_empty() {
                    largest.remove();
                }
                gone.extend(path);
                files.count = files.count.saturating_sub(1);
                files.bytes = files.bytes.saturating_sub(blocks * BLOCK);
                excess -= 1;
            }
            files.unwanted = files.count;
            gone
        };
        for path in &gone {
            remove(path);
        }
        gone.len()
    }
}

/// What stays is only litter; the next start finds it.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_given_by_size_and_let_go_when_unwanted() {
        let recycled = Recycled::default();
        for (name, size) in [("a", 4096), ("b", 100_000), ("c", 1 << 20)] {
            assert!(recycled.wants(size));
            recycled.keep(name.into(), size);
        }
        assert!(!recycled.wants(0) && !recycled.wants(MAX_FILE + 1));
        assert_eq!(recycled.take(2 << 20).as_deref(), Some(Path::new("c")));
        assert_eq!(recycled.take(2 << 20), None, "nothing of that size is left");
        assert_eq!(recycled.take(60_000).as_deref(), Some(Path::new("b")));
        assert_eq!(recycled.take(60_000), None, "a block is no use for sixteen");
        recycled.keep("d".into(), 4096);
        assert_eq!(recycled.release(false), 0, "what came in since the last time may be wanted yet");
        assert_eq!(recycled.release(false), 2);
        assert_eq!(recycled.take(1), None);
    }
}
