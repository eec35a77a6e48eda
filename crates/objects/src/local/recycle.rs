//! Files of deleted objects, kept to be written again.
//!
//! A new file is dear: ext4 passes over inodes that were deleted in the last minute or so when it looks for a free
//! one, and a log that trims itself deletes thousands. A recycled file has its inode and its blocks already: a small
//! put costs a third of the time and a fifth of the CPU. What is kept is bounded in number and bytes, and what was
//! not wanted for a while goes.
//!
//! A recycled file was renamed out of its object's name before it is written, so a reader that opens the name finds
//! nothing; one that had opened it before finds out by looking at the name again after it has read. It is written only
//! after a directory was synced since the rename: else a power cut could bring the old name back, over new bytes.

use std::collections::{BTreeMap, VecDeque};
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
const BLOCK: u64 = super::aligned::BLOCK as u64;

/// The files of deleted objects.
#[derive(Debug, Default)]
pub(super) struct Recycled {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// Those whose renaming may not be durable yet, with their size in blocks, in order.
    fresh: VecDeque<(PathBuf, u64)>,
    /// How many were ever kept.
    kept: u64,
    /// The others by size in blocks; none is empty.
    by_size: BTreeMap<u64, Vec<PathBuf>>,
    /// Of both kinds.
    count: usize,
    blocks: u64,
    /// The fewest there were since the last release: those were not wanted.
    unwanted: usize,
}

impl Files {
    /// Files that were kept before `mark` was taken can be written.
    fn settle(&mut self, mark: u64) {
        while self.kept - (self.fresh.len() as u64) < mark
            && let Some((path, blocks)) = self.fresh.pop_front()
        {
            self.by_size.entry(blocks).or_default().push(path);
        }
    }

    /// Takes a file of exactly so many blocks.
    fn pop(&mut self, blocks: u64) -> Option<PathBuf> {
        let same = self.by_size.get_mut(&blocks)?;
        let path = same.pop();
        if same.is_empty() {
            self.by_size.remove(&blocks);
        }
        self.count = self.count.saturating_sub(1);
        self.blocks = self.blocks.saturating_sub(blocks);
        path
    }
}

impl Recycled {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file of `size` would be kept.
    pub(super) fn wants(&self, size: u64) -> bool {
        let files = self.lock();
        let fits = (files.blocks + size.div_ceil(BLOCK)) * BLOCK <= MAX_BYTES;
        (1..=MAX_FILE).contains(&size) && files.count < MAX_FILES && fits
    }

    /// Keeps a file that has no object's name any more.
    pub(super) fn keep(&self, path: PathBuf, size: u64) {
        let mut files = self.lock();
        let blocks = size.div_ceil(BLOCK);
        files.count += 1;
        files.blocks += blocks;
        files.kept += 1;
        files.fresh.push_back((path, blocks));
    }

    /// To be taken before a directory is synced, and given to [`Recycled::settle`] after.
    pub(super) fn mark(&self) -> u64 {
        self.lock().kept
    }

    /// Files that were kept before `mark` was taken can be written.
    pub(super) fn settle(&self, mark: u64) {
        self.lock().settle(mark);
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
        let path = files.pop(found);
        files.unwanted = files.unwanted.min(files.count);
        path
    }

    /// Removes as many files as were never wanted since the last call, or all.
    pub(super) fn release(&self, all: bool) -> usize {
        let gone: Vec<PathBuf> = {
            let mut files = self.lock();
            if all {
                files.settle(u64::MAX);
            }
            let excess = if all { files.count } else { files.unwanted };
            let mut gone = Vec::new();
            for _ in 0..excess {
                let Some(largest) = files.by_size.last_key_value().map(|(blocks, _)| *blocks) else {
                    break;
                };
                gone.extend(files.pop(largest));
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
        assert_eq!(recycled.take(4096), None, "its renaming may not be durable");
        let mark = recycled.mark();
        recycled.keep("later".into(), 8 << 20);
        recycled.settle(mark);
        assert_eq!(recycled.take(8 << 20), None, "it was kept after the mark");
        assert_eq!(recycled.take(2 << 20).as_deref(), Some(Path::new("c")));
        assert_eq!(recycled.take(2 << 20), None, "nothing of that size is left");
        assert_eq!(recycled.take(60_000).as_deref(), Some(Path::new("b")));
        assert_eq!(recycled.take(60_000), None, "a block is no use for sixteen");
        recycled.keep("d".into(), 4096);
        recycled.settle(recycled.mark());
        assert_eq!(
            recycled.release(false),
            0,
            "what came in since the last time may be wanted yet"
        );
        assert_eq!(recycled.release(false), 3);
        assert_eq!(recycled.take(1), None);
    }
}
