//! Whether the disk cache's folder can still be written.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the cache may write between two looks, at most.
const MARGIN: u64 = 16 << 20;

/// An error if nothing can be written in `dir`, or if there is little room left and files of `capacity` bytes in all
/// may want it.
pub(super) fn look(dir: &Path, capacity: u64) -> Result<()> {
    let trial = dir.join(".trial");
    std::fs::write(&trial, b"trial").and_then(|()| std::fs::remove_file(&trial))?;
    let found = rustix::fs::statvfs(dir)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free >= MARGIN || free >= capacity.saturating_sub(taken(dir)?) {
        return Ok(());
    }
    let what = format!("no space left: {} MiB are free", free >> 20);
    Err(Error::new(ErrorKind::StorageFull, what))
}

/// The space that the cache's files have already: writing them again takes no more.
fn taken(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_be_written_is_well_and_one_that_is_none_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(look(dir.path(), 1 << 20).is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::write(dir.path().join("file"), vec![1; 100_000]).unwrap();
        assert!(taken(dir.path()).unwrap() >= 100_000);
        assert!(look(&dir.path().join("file"), 1 << 20).is_err());
    }
}
