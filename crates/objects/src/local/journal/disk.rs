//! The file system under a journal, behind a small interface: tests put one beneath that stops at any write, and
//! forgets what was not synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{OFlags, fdatasync};
use rustix::io::pwritev;

/// Files and names. Nothing of it is durable before a sync says so.
pub(in crate::local) trait Disk: Send + Sync {
    /// The names in a directory; none if it does not exist.
    fn names(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Creates a directory and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for writing. `direct`: past the page cache.
    fn open_for_writes(&self, path: &Path, direct: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates an empty file for direct writes, in place of one that has the name.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, in place of one that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub(in crate::local) trait DiskFile: Send + Sync {
    /// Reads exactly so many bytes.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes all the parts, one behind another.
    fn write_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()>;
    /// Makes all that was written before durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes all that was written before durable, and the file's length.
    fn sync_all(&self) -> io::Result<()>;
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// The system's own.
#[derive(Debug)]
pub(in crate::local) struct SystemDisk;

impl Disk for SystemDisk {
    fn names(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(dir) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn open_for_writes(&self, path: &Path, direct: bool) -> io::Result<Arc<dyn DiskFile>> {
        let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write_at(&self, parts: &[&[u8]], mut at: u64) -> io::Result<()> {
        if let [bytes] = parts {
            return self.write_all_at(bytes, at);
        }
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut written = pwritev(self, &slices, at)?;
        // A short write: the rest of each part. Parts are whole blocks, and so is what was written of them.
        for part in parts {
            let done = written.min(part.len());
            written -= done;
            if done < part.len() {
                self.write_all_at(&part[done..], at + done as u64)?;
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(self)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
