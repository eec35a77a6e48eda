//! One put into the local directory, as rule S2 orders it: write a file of its own, set its length, fdatasync, give
//! it its name, fsync the directory.
//!
//! The file is one that a deleted object left ([`super::recycle`]), else a new one. It gets its name by a rename
//! that replaces nothing, which is a link and an unlink at once; where a file system knows no such rename, by those.
//! The page cache is bypassed (`O_DIRECT`): new pages cost more CPU than everything else here. A body in
//! block-aligned memory is written from where it lies; its unaligned tail, and small or unaligned bodies, go through
//! an aligned scratch.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use object_store::PutPayload;
use rustix::fs::{
    CWD, IFlags, Mode, OFlags, RenameFlags, fdatasync, ioctl_getflags, ioctl_setflags, renameat_with,
};
use rustix::io::{Errno, pwritev};

use super::Shared;
use super::aligned::{Aligned, BLOCK, is_aligned};
use crate::error::LocalFailure;

/// A body up to this is copied into the scratch and written at once.
pub(super) const SMALL: usize = 64 << 10;
/// The scratch for larger bodies that are not aligned.
const SCRATCH: usize = 1 << 20;

/// Puts an object durably. `Ok(false)`: `if_absent`, and there is one already.
pub(super) fn put(
    shared: &Shared,
    path: &Path,
    payload: &PutPayload,
    if_absent: bool,
) -> Result<bool, LocalFailure> {
    match put_once(shared, path, payload, if_absent) {
        // What is kept to be written again is the first to make room, be it for the body, a name or a directory.
        // Nothing has the object's name yet.
        Err(LocalFailure::Full(_)) if shared.recycled.release(true) > 0 => {
            put_once(shared, path, payload, if_absent)
        }
        other => other,
    }
}

fn put_once(
    shared: &Shared,
    path: &Path,
    payload: &PutPayload,
    if_absent: bool,
) -> Result<bool, LocalFailure> {
    shared.make_parent_durable(path)?;
    let (tmp, file) = write_tmp(shared, payload)?;
    // An EIO here says that pages were lost, and the kernel says so only once: never tried again.
    fdatasync(&file).map_err(|errno| sync_failure(errno.into()))?;
    drop(file);
    if !publish(shared, tmp, path, if_absent)? {
        return Ok(false);
    }
    let mark = shared.recycled.mark();
    fsync_parent(path)?;
    shared.recycled.settle(mark);
    Ok(true)
}

/// Gives the temporary file its name. A directory that somebody removed meanwhile is made again, once.
fn publish(shared: &Shared, tmp: Tmp, path: &Path, if_absent: bool) -> Result<bool, LocalFailure> {
    let mut again = true;
    loop {
        let result = if if_absent {
            name_new(shared, &tmp.path, path)
        } else {
            fs::rename(&tmp.path, path).map(|()| true)
        };
        match result {
            Ok(renamed) => {
                if renamed {
                    tmp.forget();
                }
                return Ok(true);
            }
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

/// Names a file if nothing has the name. `Ok(false)`: by a link, and the old name is there still.
fn name_new(shared: &Shared, from: &Path, to: &Path) -> io::Result<bool> {
    if !shared.by_link.load(Ordering::Relaxed) {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                shared.by_link.store(true, Ordering::Relaxed);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    fs::hard_link(from, to).map(|()| false)
}

/// A temporary name, unique per attempt; gone when dropped.
struct Tmp {
    path: PathBuf,
    gone: bool,
}

impl Tmp {
    fn new(shared: &Shared) -> Self {
        Self {
            path: shared.tmp_path(),
            gone: false,
        }
    }

    /// The name is another's now.
    fn forget(mut self) {
        self.gone = true;
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
        if !self.gone {
            // What stays is litter, which the next start finds.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn write_tmp(shared: &Shared, payload: &PutPayload) -> Result<(Tmp, File), LocalFailure> {
    if !shared.buffered.load(Ordering::Relaxed) {
        let result = open_direct(shared, payload.content_length() as u64)
            .and_then(|(tmp, file)| write_direct(&file, payload).map(|()| (tmp, file)));
        match result {
            Ok(written) => return Ok(written),
            // tmpfs, overlayfs and others refuse to open, or to write, like that.
            Err(error) if is_refusal(&error) => {
                shared.buffered.store(true, Ordering::Relaxed);
                tracing::info!(root = %shared.root.display(), "file system refuses direct I/O, writing buffered");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let tmp = Tmp::new(shared);
    let file = tmp.create(OFlags::empty())?;
    let mut at = 0;
    for chunk in payload.iter() {
        file.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok((tmp, file))
}

/// A file that a deleted object left, or a new one.
fn open_direct(shared: &Shared, size: u64) -> io::Result<(Tmp, File)> {
    if let Some(path) = shared.recycled.take(size) {
        let tmp = Tmp { path, gone: false };
        let open = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&tmp.path);
        match open {
            Ok(file) => return Ok((tmp, file)),
            Err(error) if error.kind() == ErrorKind::NotFound => tmp.forget(),
            Err(error) => return Err(error),
        }
    }
    let tmp = Tmp::new(shared);
    let file = tmp.create(OFlags::DIRECT)?;
    Ok((tmp, file))
}

pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

pub(super) fn write_direct(file: &File, payload: &PutPayload) -> io::Result<()> {
    let length = payload.content_length();
    let mut chunks = payload.iter();
    let (first, more) = (chunks.next(), chunks.next().is_some());
    match first {
        Some(body) if !more && length > SMALL && is_aligned(body) => write_aligned(file, body)?,
        _ => write_copied(file, payload)?,
    }
    // The last block was padded, or the file was longer.
    if file.metadata()?.len() != length as u64 {
        file.set_len(length as u64)?;
    }
    Ok(())
}

/// One write of all whole blocks from where they lie, and of the tail's copy.
fn write_aligned(file: &File, body: &[u8]) -> io::Result<()> {
    let (whole, tail) = body.split_at(body.len() / BLOCK * BLOCK);
    let mut scratch = Aligned::new(BLOCK);
    scratch.as_mut()[..tail.len()].copy_from_slice(tail);
    let padded = if tail.is_empty() { 0 } else { BLOCK };
    let written = pwritev(
        file,
        &[IoSlice::new(whole), IoSlice::new(&scratch.as_mut()[..padded])],
        0,
    )?;
    if written < whole.len() {
        let from = written / BLOCK * BLOCK;
        file.write_all_at(&whole[from..], from as u64)?;
    }
    if written < whole.len() + padded {
        file.write_all_at(&scratch.as_mut()[..padded], whole.len() as u64)?;
    }
    Ok(())
}

fn write_copied(file: &File, payload: &PutPayload) -> io::Result<()> {
    let size = payload.content_length().next_multiple_of(BLOCK).min(SCRATCH);
    let mut scratch = Aligned::new(size);
    let buffer = scratch.as_mut();
    let (mut held, mut at) = (0, 0);
    for chunk in payload.iter() {
        let mut rest: &[u8] = chunk;
        while !rest.is_empty() {
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
    if held > 0 {
        let padded = held.next_multiple_of(BLOCK);
        buffer[held..padded].fill(0);
        file.write_all_at(&buffer[..padded], at)?;
    }
    Ok(())
}

/// Asks the file system to place the directories below `dir` apart from each other and from all else: ext4 does so
/// for those below a "top directory". A matter of speed only, so a refusal changes nothing.
pub(super) fn spread(dir: &Path) {
    let spread = || -> rustix::io::Result<()> {
        let dir = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let flags = ioctl_getflags(&dir)?;
        ioctl_setflags(&dir, flags | IFlags::TOPDIR)
    };
    if let Err(error) = spread() {
        tracing::debug!(dir = %dir.display(), %error, "directories cannot be spread");
    }
}

pub(super) fn fsync_parent(path: &Path) -> Result<(), LocalFailure> {
    path.parent().map_or(Ok(()), fsync_dir)
}

/// A directory that cannot be opened, for want of descriptors say, was not synced, and can be another time; one
/// whose fsync failed cannot.
pub(super) fn fsync_dir(dir: &Path) -> Result<(), LocalFailure> {
    File::open(dir)?.sync_all().map_err(LocalFailure::Fsync)
}

/// ENOSPC at fdatasync (delayed allocation) loses the temporary file only: nothing was named yet.
pub(super) fn sync_failure(error: io::Error) -> LocalFailure {
    match LocalFailure::from(error) {
        LocalFailure::Io(error) => LocalFailure::Fsync(error),
        other => other,
    }
}
