//! Files of caches: written past the page cache, and never synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use object_store::PutPayload;
use rustix::fs::OFlags;

use super::write::{is_refusal, write_direct};

/// Writes a new file that nobody needs after a crash. Block-aligned memory goes to the disk from where it lies: a
/// buffered write of new pages costs several times the CPU. File systems that refuse direct I/O get a buffered write.
///
/// # Errors
/// As of `open` and `write`; the file may exist in part then.
pub fn write_cache_file(path: &Path, body: &Bytes) -> io::Result<()> {
    let direct = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .and_then(|file: File| write_direct(&file, &PutPayload::from_bytes(body.clone())));
    match direct {
        Err(error) if is_refusal(&error) => std::fs::write(path, body),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_file_holds_what_was_written_whatever_its_size_and_alignment() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Bytes::from((0..300_000u32).map(|n| n as u8).collect::<Vec<u8>>());
        for (from, to) in [(0, 0), (0, 1), (1, 4097), (0, 4096), (3, 200_001), (0, 300_000)] {
            let path = folder.path().join(format!("{from}-{to}"));
            write_cache_file(&path, &memory.slice(from..to)).unwrap();
            assert_eq!(std::fs::read(path).unwrap(), memory.slice(from..to));
        }
    }
}
