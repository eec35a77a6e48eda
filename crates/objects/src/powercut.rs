//! A model of a local directory that loses what was not fsynced when the power goes.
//!
//! It follows the order of [`crate::local`]: the bytes are durable before the name is given, the name only after
//! the directory's fsync. Between these steps a killed process finds everything in the page cache; a power cut
//! keeps any subset of the names that were given, or taken away, since the directory's last fsync. Brief objects lie
//! in the journal: durable and seen at the same time; a power cut keeps any of those that were being written; one
//! that was deleted may come back after a kill for a moment, and after a power cut until a later put is durable.
//! Two options leave a step out, to show that a simulation finds it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::local::{Brief, Settle, WRITE_DOWN};

/// How it differs from the real thing.
#[derive(Clone, Debug, Default)]
pub struct PowerCutOptions {
    /// Time between the steps of a put, for a kill or a cut to fall into.
    pub step: Duration,
    /// Broken: a put answers before the directory is fsynced.
    pub skip_directory_fsync: bool,
    /// Broken: a put gives the name, or answers, before the bytes are durable. A file that survives a cut may have a
    /// part of them; what is in the journal is there or not.
    pub skip_data_sync: bool,
}

/// A local directory with a power switch.
#[derive(Clone)]
pub struct PowerCutStore {
    shared: Arc<Shared>,
}

struct Shared {
    /// What the process sees.
    seen: InMemory,
    options: PowerCutOptions,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    /// Cuts so far; a put that began before one goes nowhere.
    cuts: u64,
    /// What is on the disk, by name.
    disk: BTreeMap<Path, Bytes>,
    /// Names given (with their bytes) or taken since their directory's last fsync.
    pending: Vec<(Path, Option<Bytes>)>,
    /// Names whose bytes were never synced; only ever with `skip_data_sync`.
    unsynced: BTreeSet<Path>,
    /// Names in the journal.
    journal: BTreeSet<Path>,
    /// Records that are written and not synced.
    written: BTreeMap<Path, Bytes>,
    /// Names deleted from the journal, and when; the disk has them still.
    deleted: Vec<(Path, Instant)>,
    lost: u64,
}

impl PowerCutStore {
    /// An empty directory.
    pub fn new(seed: u64, options: PowerCutOptions) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            cuts: 0,
            disk: BTreeMap::new(),
            pending: Vec::new(),
            unsynced: BTreeSet::new(),
            journal: BTreeSet::new(),
            written: BTreeMap::new(),
            deleted: Vec::new(),
            lost: 0,
        };
        Self {
            shared: Arc::new(Shared {
                seen: InMemory::new(),
                options,
                state: Mutex::new(state),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power: what was not fsynced is gone, or not. Puts under way never answer. Returns how many names
    /// were lost, or came back.
    pub async fn power_cut(&self) -> u64 {
        let (disk, lost) = {
            let mut state = self.state();
            state.cuts += 1;
            let mut lost = 0;
            for (name, bytes) in std::mem::take(&mut state.pending) {
                if state.rng.random::<bool>() {
                    lost += 1;
                    continue;
                }
                match bytes {
                    Some(bytes) => drop(state.disk.insert(name, bytes)),
                    None => drop(state.disk.remove(&name)),
                }
            }
            for (name, bytes) in std::mem::take(&mut state.written) {
                if state.rng.random::<bool>() {
                    state.journal.insert(name.clone());
                    state.disk.entry(name).or_insert(bytes);
                }
            }
            for (name, _) in std::mem::take(&mut state.deleted) {
                if state.rng.random::<bool>() {
                    lost += 1;
                    state.journal.insert(name);
                } else {
                    state.disk.remove(&name);
                }
            }
            for name in std::mem::take(&mut state.unsynced) {
                let Some(length) = state.disk.get(&name).map(Bytes::len) else {
                    continue;
                };
                let kept = state.rng.random_range(0..=length);
                if let Some(bytes) = state.disk.get_mut(&name) {
                    bytes.truncate(kept);
                }
            }
            state.lost += lost;
            (state.disk.clone(), lost)
        };
        let seen = &self.shared.seen;
        let names: Vec<ObjectMeta> = seen.list(None).try_collect().await.unwrap_or_default();
        for meta in names {
            // Memory does not fail.
            let _ = seen.delete(&meta.location).await;
        }
        for (name, bytes) in disk {
            let _ = seen.put(&name, bytes.into()).await;
        }
        lost
    }

    /// The process is killed: of the journal's deletions those of the last moment were not written down. Returns how
    /// many names came back.
    pub fn process_killed(&self) -> u64 {
        let mut back = Vec::new();
        {
            let mut state = self.state();
            for (name, at) in std::mem::take(&mut state.deleted) {
                if at.elapsed() < WRITE_DOWN
                    && state.rng.random::<bool>()
                    && let Some(bytes) = state.disk.get(&name).cloned()
                {
                    state.journal.insert(name.clone());
                    back.push((name, bytes));
                } else {
                    state.deleted.push((name, at));
                }
            }
        }
        let count = back.len() as u64;
        for (name, bytes) in back {
            // Memory neither waits nor fails.
            let _ = self.shared.seen.put(&name, bytes.into()).now_or_never();
        }
        count
    }

    /// How many names power cuts have undone so far.
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    /// A point where the process may be killed, or the power cut: then nobody gets an answer.
    async fn step(&self, cuts: u64) {
        if self.shared.options.step > Duration::ZERO {
            let most = self.shared.options.step.as_micros() as u64;
            let wait = self.state().rng.random_range(0..=most);
            sleep(Duration::from_micros(wait)).await;
        }
        if self.state().cuts != cuts {
            futures::future::pending::<()>().await;
        }
    }

    fn fsync_dir_of(&self, name: &Path) {
        let dir = name.parent();
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        for (name, bytes) in pending {
            if name.parent() != dir {
                state.pending.push((name, bytes));
                continue;
            }
            match bytes {
                Some(bytes) => drop(state.disk.insert(name, bytes)),
                None => drop(state.disk.remove(&name)),
            }
        }
    }

    /// One write and one fdatasync; another put of the name waits.
    async fn put_in_journal(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let cuts = self.state().cuts;
        let bytes: Bytes = payload.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        loop {
            if let Ok(there) = self.shared.seen.head(location).await {
                return Err(Error::AlreadyExists {
                    path: there.location.to_string(),
                    source: "there is one".into(),
                });
            }
            if let Entry::Vacant(free) = self.state().written.entry(location.clone()) {
                free.insert(bytes.clone());
                break;
            }
            sleep(Duration::from_micros(50)).await;
        }
        self.step(cuts).await;
        // Nobody has put it meanwhile: this one had the claim.
        let result = self.shared.seen.put_opts(location, payload, opts).await;
        if result.is_err() {
            self.state().written.remove(location);
            return result;
        }
        {
            let mut state = self.state();
            state.journal.insert(location.clone());
            if !self.shared.options.skip_data_sync {
                state.written.remove(location);
                state.disk.insert(location.clone(), bytes);
            }
            for (name, at) in std::mem::take(&mut state.deleted) {
                if at.elapsed() < WRITE_DOWN {
                    state.deleted.push((name, at));
                } else {
                    state.disk.remove(&name);
                }
            }
        }
        self.step(cuts).await;
        result
    }

    async fn put_in_task(self, location: Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if opts.extensions.get::<Brief>().is_some() {
            return self.put_in_journal(&location, payload, opts).await;
        }
        let cuts = self.state().cuts;
        // Write and fdatasync of the temporary file: nothing to see yet.
        self.step(cuts).await;
        let create = opts.mode == PutMode::Create;
        let bytes: Bytes = payload.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let result = self.shared.seen.put_opts(&location, payload, opts).await;
        if let Err(error) = result {
            debug_assert!(create || !matches!(error, Error::AlreadyExists { .. }));
            return Err(error);
        }
        {
            let mut state = self.state();
            state.pending.push((location.clone(), Some(bytes)));
            if self.shared.options.skip_data_sync {
                state.unsynced.insert(location.clone());
            }
        }
        self.step(cuts).await;
        if !self.shared.options.skip_directory_fsync {
            self.fsync_dir_of(&location);
            self.step(cuts).await;
        }
        result
    }
}

#[async_trait::async_trait]
impl Settle for PowerCutStore {
    async fn settle(&self, location: &Path) -> Result<()> {
        let cuts = self.state().cuts;
        self.shared.seen.head(location).await?;
        self.step(cuts).await;
        self.state().unsynced.remove(location);
        self.fsync_dir_of(location);
        Ok(())
    }
}

impl fmt::Debug for PowerCutStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PowerCutStore")
    }
}

impl fmt::Display for PowerCutStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("modelled directory")
    }
}

#[async_trait::async_trait]
impl ObjectStore for PowerCutStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        // As in `crate::local`, whose system calls go on when the caller is dropped.
        match tokio::spawn(self.clone().put_in_task(location.clone(), payload, opts)).await {
            Ok(result) => result,
            Err(source) => Err(Error::JoinError { source }),
        }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let operation = "multipart".to_owned();
        Err(Error::NotImplemented {
            operation,
            implementer: self.to_string(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.shared.seen.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .and_then(move |location| {
                let store = store.clone();
                async move {
                    store.shared.seen.head(&location).await?;
                    store.shared.seen.delete(&location).await?;
                    let mut state = store.state();
                    if state.journal.remove(&location) {
                        state.deleted.push((location.clone(), Instant::now()));
                    } else {
                        state.pending.push((location.clone(), None));
                    }
                    drop(state);
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shared.seen.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.shared.seen.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        let operation = "copy".to_owned();
        Err(Error::NotImplemented {
            operation,
            implementer: self.to_string(),
        })
    }
}
