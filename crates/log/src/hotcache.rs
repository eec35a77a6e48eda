//! Copies of WAL objects on the local disk, for a remote store.
//!
//! A cache and nothing more: it is emptied at start, never contributes an entry (I2), and what is read from it is
//! verified by the reader. A disk that is full or read-only costs the cache, not the service.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use drumlin_objects::Env;

use crate::object::WalObject;

/// A folder of WAL objects.
pub(crate) struct HotCache {
    env: Env,
    folder: PathBuf,
    budget: u64,
    kept: Mutex<(VecDeque<(PathBuf, u64)>, u64)>,
    broken: std::sync::atomic::AtomicBool,
}

impl HotCache {
    /// Opens and empties `dir/wal`; none, with a warning, if that cannot be.
    pub(crate) async fn open(env: &Env, dir: &Path, budget: u64) -> Option<Self> {
        let folder = dir.join("wal");
        let prepared = folder.clone();
        let outcome = env
            .blocking(move || {
                match std::fs::remove_dir_all(&prepared) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                std::fs::create_dir_all(&prepared)
            })
            .await;
        if let Err(error) = outcome {
            tracing::warn!(folder = %folder.display(), %error, "no local cache of recent data: its folder cannot be used");
            return None;
        }
        Some(Self {
            env: env.clone(),
            folder,
            budget,
            kept: Mutex::default(),
            broken: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Writes a copy of an object that is about to leave memory.
    pub(crate) async fn keep(&self, object: &Arc<WalObject>) {
        use std::sync::atomic::Ordering;
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        let Some(bytes) = object.memory() else { return };
        let size = bytes.len() as u64;
        let path = self.folder.join(format!("{:020}", object.slot));
        let target = path.clone();
        let written = self.env.blocking(move || std::fs::write(target, &bytes)).await;
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "recent data is no longer cached on the local disk");
            self.broken.store(true, Ordering::Relaxed);
            let _ = std::fs::remove_file(&path);
            return;
        }
        object.set_cached(path.clone());
        let mut old = Vec::new();
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.0.push_back((path, size));
            kept.1 += size;
            while kept.1 > self.budget {
                let Some((path, size)) = kept.0.pop_front() else {
                    break;
                };
                kept.1 -= size;
                old.push(path);
            }
        }
        self.remove(old).await;
    }

    /// Removes the copy of an object that nobody needs.
    pub(crate) fn forget(&self, object: &WalObject) {
        let Some(path) = object.cached() else { return };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.0.iter().position(|(known, _)| known == path)
            && let Some((path, size)) = kept.0.remove(at)
        {
            kept.1 -= size;
            // An unlink takes microseconds; a reader that has the file open keeps it.
            let _ = std::fs::remove_file(path);
        }
    }

    async fn remove(&self, paths: Vec<PathBuf>) {
        if !paths.is_empty() {
            self.env
                .blocking(move || {
                    for path in paths {
                        let _ = std::fs::remove_file(path);
                    }
                })
                .await;
        }
    }
}
