//! One put into the local directory, as rule S2 orders it: write a temporary file of its own, set its length,
//! fdatasync, link or rename, fsync the directory.
//!
//! Large bodies bypass the page cache (`O_DIRECT`): new pages cost more CPU than everything else here. A body
//! in block-aligned memory is written from where it lies; its unaligned tail, and bodies that are not aligned,
//! go through an aligned scratch.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use object_store::PutPayload;
use rustix::fs::{OFlags, fdatasync};
use rustix::io::Errno;

use super::aligned::{Aligned, BLOCK, is_aligned};
use super::{Shared, TMP, TMP_DIRS};
use crate::error::LocalFailure;

/// Below this the page cache is no dearer, and saves the scratch copy.
const DIRECT_FROM: usize = 64 << 10;
/// The scratch for what is not aligned.
const SCRATCH: usize = 1 << 20;

/// Puts an object durably. `Ok(false)`: `if_absent`, and there is one already.
pub(super) fn put(
    shared: &Shared,
    path: &Path,
    payload: &PutPayload,
    if_absent: bool,
) -> Result<bool, LocalFailure> {
    shared.make_parent_durable(path)?;
    let tmp = Tmp::new(shared);
    let file = write_tmp(shared, &tmp, payload)?;
    // An EIO here says that pages were lost, and the kernel says so only once: never tried again.
    fdatasync(&file).map_err(|errno| sync_failure(errno.into()))?;
    drop(file);
    if !publish(shared, &tmp, path, if_absent)? {
        return Ok(false);
    }
    fsync_parent(path)?;
    Ok(true)
}

/// Gives the temporary file its name. A directory that somebody removed meanwhile is made again, once.
fn publish(shared: &Shared, tmp: &Tmp, path: &Path, if_absent: bool) -> Result<bool, LocalFailure> {
    let mut again = true;
    loop {
        let result = if if_absent {
            fs::hard_link(&tmp.path, path)
        } else {
            fs::rename(&tmp.path, path)
        };
        match result {
            Ok(()) => return Ok(true),
            Err(error) if if_absent && error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(error) if again && error.kind() == ErrorKind::NotFound => {
                again = false;
                shared.forget(path);
                shared.make_parent_durable(path)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A temporary name, unique per attempt; gone when dropped (the object keeps its bytes by its own link).
struct Tmp {
    path: PathBuf,
}

impl Tmp {
    fn new(shared: &Shared) -> Self {
        let n = shared.next_tmp.fetch_add(1, Ordering::Relaxed);
        let dir = shared.root.join(TMP).join((n % TMP_DIRS).to_string());
        Self {
            path: dir.join(format!("{:016x}-{n}", shared.tag)),
        }
    }

    fn create(&self, flags: OFlags) -> io::Result<File> {
        let flags = flags.bits() as i32;
        let open = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .custom_flags(flags)
                .open(&self.path)
        };
        match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(self.path.parent().unwrap_or(Path::new("/")))?;
                open()
            }
            other => other,
        }
    }
}

impl Drop for Tmp {
    fn drop(&mut self) {
        // Renamed away, or litter that the next start clears.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_tmp(shared: &Shared, tmp: &Tmp, payload: &PutPayload) -> Result<File, LocalFailure> {
    let direct = payload.content_length() >= DIRECT_FROM && !shared.buffered.load(Ordering::Relaxed);
    if direct {
        match tmp
            .create(OFlags::DIRECT)
            .and_then(|file| write_direct(&file, payload).map(|()| file))
        {
            Ok(file) => return Ok(file),
            // tmpfs, overlayfs and others refuse to open, or to write, like that.
            Err(error) if is_refusal(&error) => {
                shared.buffered.store(true, Ordering::Relaxed);
                tracing::info!(root = %shared.root.display(), "file system refuses direct I/O, writing buffered");
                let _ = fs::remove_file(&tmp.path);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let file = tmp.create(OFlags::empty())?;
    let mut at = 0;
    for chunk in payload.iter() {
        file.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(file)
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

fn write_direct(file: &File, payload: &PutPayload) -> io::Result<()> {
    let mut scratch: Option<Aligned> = None;
    let (mut held, mut at) = (0, 0);
    for chunk in payload.iter() {
        let mut rest: &[u8] = chunk;
        while !rest.is_empty() {
            if held == 0 && rest.len() >= BLOCK && is_aligned(rest) {
                let whole = rest.len() / BLOCK * BLOCK;
                file.write_all_at(&rest[..whole], at)?;
                at += whole as u64;
                rest = &rest[whole..];
                continue;
            }
            let buffer = scratch
                .get_or_insert_with(|| Aligned::new(scratch_size(payload)))
                .as_mut();
            let take = rest.len().min(buffer.len() - held);
            buffer[held..held + take].copy_from_slice(&rest[..take]);
            held += take;
            rest = &rest[take..];
            if held == buffer.len() {
                file.write_all_at(buffer, at)?;
                at += held as u64;
                held = 0;
            }
        }
    }
    if held > 0
        && let Some(scratch) = &mut scratch
    {
        let padded = held.next_multiple_of(BLOCK);
        let buffer = scratch.as_mut();
        buffer[held..padded].fill(0);
        file.write_all_at(&buffer[..padded], at)?;
        file.set_len(payload.content_length() as u64)?;
    }
    Ok(())
}

/// A tail needs one block; a body that is not aligned is copied in larger pieces.
fn scratch_size(payload: &PutPayload) -> usize {
    let aligned = payload.iter().count() == 1 && payload.iter().all(|chunk| is_aligned(chunk));
    if aligned { BLOCK } else { SCRATCH }
}

pub(super) fn fsync_parent(path: &Path) -> Result<(), LocalFailure> {
    path.parent()
        .map_or(Ok(()), |parent| fsync_dir(parent).map_err(LocalFailure::Fsync))
}

pub(super) fn fsync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// ENOSPC at fdatasync (delayed allocation) loses the temporary file only: nothing was named yet.
fn sync_failure(error: io::Error) -> LocalFailure {
    match LocalFailure::from(error) {
        LocalFailure::Io(error) => LocalFailure::Fsync(error),
        other => other,
    }
}
