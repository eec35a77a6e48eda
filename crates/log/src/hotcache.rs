//! Copies of WAL objects on the local disk, for a remote store.
//!
//! A cache and nothing more: it is emptied at start, never contributes an entry (I2), and what is read from it is
//! verified by the reader. A disk that is full or read-only costs the cache, not the service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drumlin_objects::{Env, write_cache_file};

use crate::object::WalObject;

/// A folder of WAL objects.
pub(crate) struct HotCache {
    env: Env,
    folder: PathBuf,
    budget: u64,
    kept: Mutex<Kept>,
    is_broken: AtomicBool,
}

/// Slots of the objects that have a copy, and the sizes of the copies.
#[derive(Default)]
struct Kept {
    sizes: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Kept {
    fn add(&mut self, slot: u64, size: u64) {
        self.bytes += size;
        self.sizes.insert(slot, size);
    }

    fn remove(&mut self, slot: u64) -> bool {
        let size = self.sizes.remove(&slot);
        self.bytes -= size.unwrap_or(0);
        size.is_some()
    }
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
            is_broken: AtomicBool::new(false),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, slot: u64) -> PathBuf {
        self.folder.join(format!("{slot:020}"))
    }

    /// Writes a copy of an object that is about to leave memory, unless it is sealed: readers find it elsewhere then.
    pub(crate) async fn keep(&self, object: &Arc<WalObject>) {
        if self.is_broken.load(Ordering::Relaxed) || object.is_sealed() {
            return;
        }
        let Some(bytes) = object.memory() else { return };
        let (slot, size) = (object.slot, bytes.len() as u64);
        let path = self.path_of(slot);
        let target = path.clone();
        let written = self.env.blocking(move || write_cache_file(&target, &bytes)).await;
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "recent data is no longer cached on the local disk");
            self.is_broken.store(true, Ordering::Relaxed);
            self.unlink(vec![path]).await;
            return;
        }
        object.set_cached(path);
        let mut over = Vec::new();
        {
            let mut kept = self.kept();
            kept.add(slot, size);
            while kept.bytes > self.budget
                && let Some(oldest) = kept.sizes.keys().next().copied()
            {
                kept.remove(oldest);
                over.push(self.path_of(oldest));
            }
        }
        self.unlink(over).await;
        // The round that sealed it may have looked for the copy before it was there.
        if object.is_sealed() {
            self.forget(std::slice::from_ref(object)).await;
        }
    }

    /// Removes the copies of sealed objects. A reader that has one open keeps it.
    pub(crate) async fn forget(&self, objects: &[Arc<WalObject>]) {
        let paths: Vec<PathBuf> = {
            let mut kept = self.kept();
            let had_copy = objects.iter().filter(|object| kept.remove(object.slot));
            had_copy.map(|object| self.path_of(object.slot)).collect()
        };
        self.unlink(paths).await;
    }

    async fn unlink(&self, paths: Vec<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        self.env
            .blocking(move || {
                for path in paths {
                    let _ = std::fs::remove_file(path);
                }
            })
            .await;
    }
}
