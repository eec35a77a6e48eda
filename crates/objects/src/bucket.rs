//! The bucket: keys below one prefix of one object store.
//!
//! Owns attempts, deadlines, retries and counters of every call. What a conflict on a put means is left to
//! [`crate::chain`]; which keys there are, to those who name them. Keys are relative to the prefix of
//! `store.url` and need no escaping: ASCII letters, digits, `-`, `.`, `_` between single slashes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::{Path, PathPart};
use object_store::{
    Extensions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload,
};
use tokio::time::{Instant, timeout};

use crate::env::Env;
use crate::error::{LockError, OpenError, PutNewError, StoreError};
use crate::local::{Brief, LocalStore, LockGuard, Settle};
use crate::open::{Opened, OpenedS3};
use crate::powercut::PowerCutStore;
use crate::stats::{Operation, Reason, StoreStats};

/// Above this a put to a remote store goes up in parts.
const MULTIPART_ABOVE: usize = 32 << 20;
/// Size of such a part; S3 wants equal parts of at least 5 MiB.
const PART: usize = 16 << 20;
/// Parts of one object on their way at a time.
const PARTS_IN_FLIGHT: usize = 4;

/// Objects that one request is to delete.
const DELETES_AT_ONCE: usize = 500;

/// What kind of store lies beneath.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BucketKind {
    /// In this process; gone with it.
    Memory,
    /// A directory of this machine.
    Local,
    /// A service on the network: requests cost money and take tens of milliseconds.
    Remote,
}

/// How a bucket is used.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// Local directory: never bypass the page cache.
    pub local_buffered: bool,
    /// How long one attempt may take on a store that is not local, not counting the body's transfer.
    pub attempt_timeout: Duration,
    /// How long gets, lists, deletes and puts of uniquely named objects are tried before they fail.
    pub retry_for: Duration,
    /// First wait between attempts; it doubles, and half of it is random.
    pub backoff_min: Duration,
    /// Longest wait between attempts.
    pub backoff_max: Duration,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            local_buffered: false,
            attempt_timeout: Duration::from_secs(15),
            retry_for: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// An object as a list shows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// Key below the store's prefix.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last write by the store's clock, Unix milliseconds. Never a base for safety.
    pub modified_ms: i64,
}

/// A handle on the bucket. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn ObjectStore>,
    kind: BucketKind,
    local: Option<Arc<LocalStore>>,
    s3: Option<OpenedS3>,
    settle: Option<Arc<dyn Settle>>,
    env: Env,
    options: BucketOptions,
    stats: StoreStats,
    last_failure: Mutex<Option<LastFailure>>,
}

/// The newest request that failed.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// When.
    pub at: Instant,
    /// Why, as [`StoreError`] says it.
    pub what: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.shared.store)
    }
}

impl Bucket {
    /// Opens the store at `url`: `memory:`, `file:///dir`, `s3://bucket/prefix`, `gs://…`, `az://…`.
    ///
    /// Nothing is asked of a remote store yet; a local directory is created. Credentials and endpoints come
    /// from the usual `AWS_*`, `GOOGLE_*` and `AZURE_*` variables.
    pub fn open(url: &str, env: &Env, options: &BucketOptions) -> Result<Bucket, OpenError> {
        let variables: Vec<_> = std::env::vars_os().collect();
        Self::open_with_variables(url, env, options, &variables)
    }

    /// As [`Bucket::open`], with these variables in place of the process's own.
    pub fn open_with_variables(
        url: &str,
        env: &Env,
        options: &BucketOptions,
        variables: &[(OsString, OsString)],
    ) -> Result<Bucket, OpenError> {
        let opened = crate::open::open(url, env, options, variables)?;
        Ok(Self::assemble(opened, None, env, options.clone()))
    }

    /// A bucket over any store, for tests and simulations, with default options.
    pub fn from_store(store: Arc<dyn ObjectStore>, kind: BucketKind, env: &Env) -> Bucket {
        Self::from_store_with(store, kind, env, BucketOptions::default())
    }

    /// A bucket over any store.
    pub fn from_store_with(
        store: Arc<dyn ObjectStore>,
        kind: BucketKind,
        env: &Env,
        options: BucketOptions,
    ) -> Bucket {
        Self::assemble(Opened::of(store, kind), None, env, options)
    }

    /// A bucket over `store`, which passes its calls on to `local`: a fault-injecting wrapper of a directory.
    pub fn from_local(
        store: Arc<dyn ObjectStore>,
        local: Arc<LocalStore>,
        env: &Env,
        options: BucketOptions,
    ) -> Bucket {
        let opened = Opened {
            local: Some(local),
            ..Opened::of(store, BucketKind::Local)
        };
        Self::assemble(opened, None, env, options)
    }

    /// A bucket over `store`, which passes its calls on to a modelled directory.
    pub fn from_modelled(
        store: Arc<dyn ObjectStore>,
        model: &PowerCutStore,
        env: &Env,
        options: BucketOptions,
    ) -> Bucket {
        let opened = Opened::of(store, BucketKind::Local);
        Self::assemble(opened, Some(Arc::new(model.clone())), env, options)
    }

    fn assemble(
        opened: Opened,
        settle: Option<Arc<dyn Settle>>,
        env: &Env,
        options: BucketOptions,
    ) -> Bucket {
        let Opened {
            store,
            kind,
            local,
            s3,
        } = opened;
        let settle = settle.or_else(|| local.clone().map(|local| local as Arc<dyn Settle>));
        let (env, stats) = (env.clone(), StoreStats::default());
        Self {
            shared: Arc::new(Shared {
                store,
                kind,
                local,
                s3,
                settle,
                env,
                options,
                stats,
                last_failure: Mutex::default(),
            }),
        }
    }

    /// What kind of store lies beneath.
    pub fn kind(&self) -> BucketKind {
        self.shared.kind
    }

    /// Counters of all requests through this handle and its clones.
    pub fn stats(&self) -> &StoreStats {
        &self.shared.stats
    }

    /// The newest request that failed, for whoever has to say what is waited for. A missing object, or one that exists
    /// already, is an answer.
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.failure().clone()
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<LastFailure>> {
        self.shared
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out how bodies are best protected on their way to a remote store, and does it so from then on: to be called
    /// once the store has answered, before much is put. It leaves nothing behind.
    pub async fn choose_body_check(&self) {
        if let Some(s3) = &self.shared.s3 {
            let id = self.shared.env.random_id();
            let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            let key: Path = s3
                .prefix
                .parts()
                .chain([PathPart::from("probe"), PathPart::from(name)])
                .collect();
            let limit = self.shared.options.attempt_timeout;
            if timeout(limit, s3.store.choose_body_check(&key)).await.is_err() {
                tracing::info!(
                    "bodies are hashed for their signatures: the store did not answer within {limit:?}"
                );
            }
        }
    }

    /// The environment it was opened with.
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The options it was opened with.
    pub fn options(&self) -> &BucketOptions {
        &self.shared.options
    }

    /// The file of an object, on a local store.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        self.shared.local.as_ref().map(|local| local.path(key))
    }

    /// Locks the local directory against a second process and removes what an earlier one left half written.
    /// The lock ends with the guard. On other stores there is nothing to lock, and the guard is empty.
    pub fn lock_local(&self) -> Result<LockGuard, LockError> {
        self.shared
            .local
            .as_ref()
            .map_or_else(|| Ok(LockGuard::empty()), |local| local.lock())
    }

    /// Gives back disk space that a local directory keeps for files to come and did not need since the last call.
    pub async fn release_unused(&self) {
        if let Some(local) = &self.shared.local {
            local.release_unused().await;
        }
    }

    /// Gives every object of a local directory a file of its own, so that any tool can copy it: to be called when
    /// nothing is put any more, before the lock is given back. On other stores there is nothing to do.
    pub async fn close(&self) -> Result<(), StoreError> {
        let Some(local) = &self.shared.local else {
            return Ok(());
        };
        local
            .close()
            .await
            .map_err(|error| self.heard(StoreError::read("close", "", error)))
    }

    /// Puts a new object: ONE attempt, atomic put-if-absent. Durable when it returns `Ok`.
    pub async fn put_new(&self, key: &str, body: Bytes, why: Reason) -> Result<(), PutNewError> {
        self.put_new_with(key, body, why, Extensions::new()).await
    }

    /// As [`Bucket::put_new`], of an object that is deleted before long.
    pub(crate) async fn put_new_brief(&self, key: &str, body: Bytes, why: Reason) -> Result<(), PutNewError> {
        let mut hint = Extensions::new();
        if self.kind() == BucketKind::Local {
            hint.insert(Brief);
        }
        self.put_new_with(key, body, why, hint).await
    }

    /// The directory itself, where nothing lies between it and this bucket: puts may then be calls that block.
    pub(crate) fn direct(&self) -> Option<Arc<LocalStore>> {
        let local = self.shared.local.as_ref()?;
        let is_whole = std::ptr::addr_eq(Arc::as_ptr(&self.shared.store), Arc::as_ptr(local));
        (is_whole && !self.shared.env.is_simulated()).then(|| local.clone())
    }

    /// As [`Bucket::put_new_brief`], on a thread that may block. `crc` is the body's.
    pub(crate) fn put_direct(
        &self,
        local: &LocalStore,
        key: &str,
        body: Bytes,
        crc: u32,
        why: Reason,
    ) -> Result<(), PutNewError> {
        let (began, size) = (Instant::now(), body.len() as u64);
        let put = local.put_brief(key, body, crc);
        self.shared
            .stats
            .record(Operation::PutNew, why, size, put.is_err(), began.elapsed());
        match put {
            Ok(true) => Ok(()),
            Ok(false) => Err(PutNewError::Exists { key: key.to_owned() }),
            Err(error) => {
                let error = StoreError::read(Operation::PutNew.as_str(), key, error);
                Err(PutNewError::Store(self.heard(error)))
            }
        }
    }

    /// A failed fsync ends the incarnation, whoever asked (rule S2).
    fn heard(&self, error: StoreError) -> StoreError {
        if let StoreError::FsyncFailed { .. } = &error {
            let what = error.to_string();
            self.shared.env.fail(crate::task::Failure::Fsync { what });
        }
        error
    }

    async fn put_new_with(
        &self,
        key: &str,
        body: Bytes,
        why: Reason,
        extensions: Extensions,
    ) -> Result<(), PutNewError> {
        let path = path_of(Operation::PutNew, key)?;
        let options = PutOptions {
            mode: PutMode::Create,
            extensions,
            ..PutOptions::default()
        };
        let size = body.len() as u64;
        let work = self
            .shared
            .store
            .put_opts(&path, PutPayload::from_bytes(body), options);
        let result = self.attempt(Operation::PutNew, why, key, size, work).await;
        match result {
            Ok(_) => Ok(()),
            Err(Failure::Exists) => Err(PutNewError::Exists { key: key.to_owned() }),
            Err(Failure::Store(error)) => Err(PutNewError::Store(error)),
        }
    }

    /// Puts a uniquely named object, whose parts follow one another; retried until [`BucketOptions::retry_for`]
    /// has passed. Durable when it returns `Ok`. Never for chain entries: it may overwrite (rule A2).
    pub async fn put(&self, key: &str, body: Vec<Bytes>, why: Reason) -> Result<(), StoreError> {
        let path = path_of(Operation::Put, key)?;
        let size: usize = body.iter().map(Bytes::len).sum();
        let in_parts = self.kind() == BucketKind::Remote && size > MULTIPART_ABOVE;
        let payload: PutPayload = body.into_iter().filter(|part| !part.is_empty()).collect();
        self.retry(Operation::Put, key, || async {
            if in_parts {
                self.put_in_parts(&path, key, &payload, why).await
            } else {
                let work = self
                    .shared
                    .store
                    .put_opts(&path, payload.clone(), PutOptions::default());
                self.attempt(Operation::Put, why, key, size as u64, work)
                    .await
                    .map(|_| ())
            }
        })
        .await
    }

    async fn put_in_parts(
        &self,
        path: &Path,
        key: &str,
        payload: &PutPayload,
        why: Reason,
    ) -> Result<(), Failure> {
        let begin = self
            .shared
            .store
            .put_multipart_opts(path, PutMultipartOptions::default());
        let mut upload = self.attempt(Operation::Put, why, key, 0, begin).await?;
        let parts: Vec<_> = split(payload, PART)
            .into_iter()
            .map(|part| (part.content_length() as u64, upload.put_part(part)))
            .collect();
        let mut sends = Vec::with_capacity(parts.len());
        for (size, work) in parts {
            sends.push(self.attempt(Operation::Put, why, key, size, work));
        }
        let sent = futures::stream::iter(sends)
            .buffer_unordered(PARTS_IN_FLIGHT)
            .collect::<Vec<_>>()
            .await;
        let result = match sent.into_iter().collect::<Result<Vec<()>, Failure>>() {
            Ok(_) => self
                .attempt(Operation::Put, why, key, 0, upload.complete())
                .await
                .map(|_| ()),
            Err(failure) => Err(failure),
        };
        if result.is_err() {
            // Best effort: parts of an upload that nobody ends are billed until a rule of the bucket's ends it.
            let _ = self.attempt(Operation::Delete, why, key, 0, upload.abort()).await;
        }
        result
    }

    /// The whole object. Retried until [`BucketOptions::retry_for`] has passed.
    pub async fn get(&self, key: &str, why: Reason) -> Result<Bytes, StoreError> {
        self.read(key, None, why).await
    }

    /// Whether the store answers at all: one attempt, so that why it does not is known at once. That there is no such
    /// object is an answer; that there is no bucket is none.
    pub async fn ask(&self, key: &str, why: Reason) -> Result<(), StoreError> {
        match self.read_once(key, None, why).await {
            Ok(_) | Err(Failure::Store(StoreError::NotFound { .. }) | Failure::Exists) => Ok(()),
            Err(Failure::Store(error)) => Err(error),
        }
    }

    /// Exactly these bytes of the object, or an error. Retried like [`Bucket::get`].
    pub async fn get_range(&self, key: &str, range: Range<u64>, why: Reason) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let want = range.end - range.start;
        let bytes = self.read(key, Some(range.clone()), why).await?;
        if bytes.len() as u64 == want {
            return Ok(bytes);
        }
        let what = format!(
            "{} bytes for the range {}..{}",
            bytes.len(),
            range.start,
            range.end
        );
        Err(StoreError::Invalid {
            operation: Operation::Get.as_str(),
            key: key.to_owned(),
            what,
        })
    }

    /// The first bytes of the object, at most `limit` of them; none of an empty one.
    pub(crate) async fn get_front(&self, key: &str, limit: u64, why: Reason) -> Result<Bytes, StoreError> {
        match self.read(key, Some(0..limit), why).await {
            Err(StoreError::Invalid { .. }) => Ok(Bytes::new()),
            other => other,
        }
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>, why: Reason) -> Result<Bytes, StoreError> {
        self.retry(Operation::Get, key, || self.read_once(key, range.clone(), why))
            .await
    }

    async fn read_once(&self, key: &str, range: Option<Range<u64>>, why: Reason) -> Result<Bytes, Failure> {
        let path = path_of(Operation::Get, key).map_err(Failure::Store)?;
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let began = Instant::now();
        let work = async {
            let result = self.shared.store.get_opts(&path, options).await?;
            let want = result.range.end - result.range.start;
            let bytes = result.bytes().await?;
            Ok((bytes, want))
        };
        let size = |answer: &(Bytes, u64)| answer.0.len() as u64;
        let (bytes, want) = self
            .attempt_sized(Operation::Get, why, key, 0, began, work, size)
            .await?;
        if bytes.len() as u64 != want {
            let what = format!("{} of {want} bytes came", bytes.len());
            let (operation, key) = (Operation::Get.as_str(), key.to_owned());
            return Err(Failure::Store(StoreError::Unavailable {
                operation,
                key,
                attempts: 1,
                what,
            }));
        }
        Ok(bytes)
    }

    /// Objects whose keys begin with the path `prefix` (whole segments; empty for all), sorted by key, those
    /// above `after` only. Keys are relative to the bucket, like all others. Retried like [`Bucket::get`].
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        why: Reason,
    ) -> Result<Vec<Listed>, StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let path = if prefix.is_empty() {
            None
        } else {
            Some(path_of(Operation::List, prefix)?)
        };
        let after = after.map(|key| path_of(Operation::List, key)).transpose()?;
        let mut listed = self
            .retry(Operation::List, prefix, || async {
                let mut stream = match &after {
                    Some(after) => self.shared.store.list_with_offset(path.as_ref(), after),
                    None => self.shared.store.list(path.as_ref()),
                };
                let mut found = Vec::new();
                loop {
                    // Stores give 1,000 objects a request; each is an attempt of its own.
                    let page = async {
                        let mut page = Vec::new();
                        while page.len() < 1000
                            && let Some(next) = stream.next().await
                        {
                            page.push(next?);
                        }
                        Ok(page)
                    };
                    let page = self.attempt(Operation::List, why, prefix, 0, page).await?;
                    let last = page.len() < 1000;
                    found.extend(page.into_iter().map(|meta| Listed {
                        key: meta.location.into(),
                        size: meta.size,
                        modified_ms: meta.last_modified.timestamp_millis(),
                    }));
                    if last {
                        return Ok(found);
                    }
                }
            })
            .await?;
        // Rule S3: lists are sorted by the client. Some stores repeat an object that changed meanwhile.
        listed.sort();
        listed.dedup_by(|a, b| a.key == b.key);
        Ok(listed)
    }

    /// Deletes the object; absent is success. Retried like [`Bucket::get`]. On a local store a power cut may
    /// bring it back.
    pub async fn delete(&self, key: &str, why: Reason) -> Result<(), StoreError> {
        let path = path_of(Operation::Delete, key)?;
        let result = self
            .retry(Operation::Delete, key, || {
                self.attempt(Operation::Delete, why, key, 0, self.shared.store.delete(&path))
            })
            .await;
        match result {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Deletes these objects, up to 500 with one request where the store can; absent ones are no failure. Keys that could
    /// not be deleted are tried again like [`Bucket::get`], and then the last failure is returned. A store that deletes
    /// one object a request gets up to 20 of them at a time, which count as one.
    pub async fn delete_many(&self, keys: &[String], why: Reason) -> Result<(), StoreError> {
        for chunk in keys.chunks(DELETES_AT_ONCE) {
            let mut left: Vec<Path> = Vec::with_capacity(chunk.len());
            for key in chunk {
                left.push(path_of(Operation::Delete, key)?);
            }
            let left = Mutex::new(left);
            let named = chunk.first().map_or("", String::as_str);
            self.retry(Operation::Delete, named, || self.delete_once(&left, named, why))
                .await?;
        }
        Ok(())
    }

    /// One try at each that is left; takes out those that are gone.
    async fn delete_once(&self, left: &Mutex<Vec<Path>>, named: &str, why: Reason) -> Result<(), Failure> {
        let paths = left.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let results = self.shared.store.delete_stream(all);
        let work = async {
            let results: Vec<object_store::Result<Path>> = results.collect().await;
            let mut gone = HashSet::new();
            let mut last = None;
            for result in results {
                match result {
                    Ok(path) => drop(gone.insert(path)),
                    Err(object_store::Error::NotFound { path, .. }) => {
                        // Told with the whole path, the prefix of the store included.
                        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
                        gone.extend(left.iter().find(|key| path.ends_with(key.as_ref())).cloned());
                    }
                    Err(error) => last = Some(error),
                }
            }
            left.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|path| !gone.contains(path));
            last.map_or(Ok(()), Err)
        };
        self.attempt(Operation::Delete, why, named, 0, work).await
    }

    /// Makes sure that an object which was found, and is one's own, is durable: both fsyncs on a local store
    /// (rule S2), nothing elsewhere.
    pub(crate) async fn settle(&self, key: &str) -> Result<(), StoreError> {
        let Some(settle) = &self.shared.settle else {
            return Ok(());
        };
        let path = path_of(Operation::Get, key)?;
        settle
            .settle(&path)
            .await
            .map_err(|error| self.heard(StoreError::read("settle", key, error)))
    }

    /// The wait before the next attempt after `failed` of them: doubled each time, half of it random.
    pub(crate) fn backoff(&self, failed: u32) -> Duration {
        let options = &self.shared.options;
        let full = options
            .backoff_min
            .saturating_mul(1 << failed.saturating_sub(1).min(16));
        let full = full.min(options.backoff_max);
        full / 2 + self.shared.env.jitter(full / 2)
    }

    async fn retry<T, F, W>(&self, operation: Operation, key: &str, mut attempt: W) -> Result<T, StoreError>
    where
        W: FnMut() -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let began = Instant::now();
        let mut failed = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(Failure::Store(error)) => error,
                Err(Failure::Exists) => {
                    let what = "a conflict where nothing was conditional".to_owned();
                    let (operation, key) = (operation.as_str(), key.to_owned());
                    StoreError::Unavailable {
                        operation,
                        key,
                        attempts: 1,
                        what,
                    }
                }
            };
            failed += 1;
            let wait = self.backoff(failed);
            if !error.is_transient() || began.elapsed() + wait >= self.shared.options.retry_for {
                return Err(error.after(failed));
            }
            tracing::debug!(%error, failed, ?wait, "store request failed, will be retried");
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<T>(
        &self,
        operation: Operation,
        why: Reason,
        key: &str,
        size: u64,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        self.attempt_sized(operation, why, key, size, Instant::now(), work, |_| 0)
            .await
    }

    /// One counted request under a time limit. A local store has none: nothing ends a system call (rule A2).
    #[expect(clippy::too_many_arguments, reason = "the labels of one counter")]
    async fn attempt_sized<T>(
        &self,
        operation: Operation,
        why: Reason,
        key: &str,
        sent: u64,
        began: Instant,
        work: impl Future<Output = object_store::Result<T>>,
        received: impl Fn(&T) -> u64,
    ) -> Result<T, Failure> {
        let result = if self.kind() == BucketKind::Local {
            let result = work.await.map_err(|error| Failure::read(operation, key, error));
            match result {
                Err(Failure::Store(error)) => Err(Failure::Store(self.heard(error))),
                other => other,
            }
        } else {
            // A body of 8 MiB at 1 MiB/s is slow but alive.
            let limit = self.shared.options.attempt_timeout + Duration::from_micros(sent);
            match timeout(limit, work).await {
                Ok(result) => result.map_err(|error| Failure::read(operation, key, error)),
                Err(_) => {
                    let what = format!("no answer within {limit:?}");
                    let (operation, key) = (operation.as_str(), key.to_owned());
                    Err(Failure::Store(StoreError::Unavailable {
                        operation,
                        key,
                        attempts: 1,
                        what,
                    }))
                }
            }
        };
        let failure = match &result {
            Err(Failure::Store(error)) if !error.is_not_found() => Some(error),
            _ => None,
        };
        if let Some(error) = failure {
            let (at, what) = (Instant::now(), error.to_string());
            *self.failure() = Some(LastFailure { at, what });
        }
        let failed = failure.is_some();
        let bytes = sent + result.as_ref().map(received).unwrap_or(0);
        self.shared
            .stats
            .record(operation, why, bytes, failed, began.elapsed());
        result
    }
}

enum Failure {
    Exists,
    Store(StoreError),
}

impl Failure {
    fn read(operation: Operation, key: &str, error: object_store::Error) -> Self {
        match error {
            // S3 answers 412 and 409, and some stores' 412 comes through as a failed precondition.
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
                if operation == Operation::PutNew =>
            {
                Self::Exists
            }
            error => Self::Store(StoreError::read(operation.as_str(), key, error)),
        }
    }
}

fn path_of(operation: Operation, key: &str) -> Result<Path, StoreError> {
    Path::parse(key).map_err(|error| StoreError::Invalid {
        operation: operation.as_str(),
        key: key.to_owned(),
        what: error.to_string(),
    })
}

/// Cuts a payload into parts of `size` bytes without copying.
fn split(payload: &PutPayload, size: usize) -> Vec<PutPayload> {
    let mut parts = Vec::new();
    let mut part: Vec<Bytes> = Vec::new();
    let mut room = size;
    for chunk in payload.iter() {
        let mut chunk = chunk.clone();
        while !chunk.is_empty() {
            let piece = chunk.split_to(room.min(chunk.len()));
            room -= piece.len();
            part.push(piece);
            if room == 0 {
                parts.push(part.drain(..).collect());
                room = size;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part.into_iter().collect());
    }
    parts
}
