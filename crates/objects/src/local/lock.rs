//! The directory's lock: `flock` on a file in it, held by an open file, so that it ends with the process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, Weak};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::LockError;

/// Holds the lock of a local store's directory until it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    file: Option<Arc<File>>,
}

impl LockGuard {
    /// Of a store that needs no lock.
    pub(crate) fn empty() -> Self {
        Self { file: None }
    }

    /// For those who write at the time when the guard goes: the lock ends with the last of them.
    pub(super) fn held(&self) -> Weak<File> {
        self.file.as_ref().map_or_else(Weak::new, Arc::downgrade)
    }
}

pub(super) fn lock(root: &Path, path: &Path) -> Result<LockGuard, LockError> {
    let fail = |source| LockError::Io {
        path: root.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(fail)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // The pid is told as a courtesy; without it the message is a word shorter.
            let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut holder);
            return Err(LockError::InUse {
                path: root.to_owned(),
                pid: holder.trim().parse().ok(),
            });
        }
        Err(errno) => return Err(fail(errno.into())),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(fail)?;
    writeln!(file, "{}", std::process::id()).map_err(fail)?;
    Ok(LockGuard {
        file: Some(Arc::new(file)),
    })
}
