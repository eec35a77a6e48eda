//! The local directory as an object store.
//!
//! Owns puts, gets, lists and deletes below one directory. An object is a file of the same name. A put writes a
//! temporary file, makes it durable, and links (put-if-absent) or renames (overwrite) it into place; see
//! [`write`](self::write) for the order, which is rule S2. Small new objects that do not stay ([`Brief`]) are written
//! into a [`journal`](self::journal) instead, until the directory is closed.
//!
//! Three names below the root are its own and never show in lists: `.lock`, `.journal`, and `.tmp` with what is half
//! written and the files that deleted objects left.

mod aligned;
mod cache_file;
mod journal;
mod lock;
mod read;
mod recycle;
mod shared;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

use crate::env::Env;
use crate::error::{LocalFailure, LockError, OpenError};
use crate::task::TaskKind;
pub use cache_file::write_cache_file;
use journal::{Disk, Journal, Opening, SystemDisk};
pub use lock::LockGuard;
use read::read_error;
use recycle::Recycled;
use shared::How;

const TMP: &str = ".tmp";
const LOCK: &str = ".lock";
const JOURNAL: &str = ".journal";
/// What was deleted in the journal, and which puts are over, is written down this long after the first of them.
pub(crate) const WRITE_DOWN: Duration = Duration::from_millis(50);
/// Files are created in this many directories, which lie apart ([`write::spread`]): ext4 takes a new inode near its
/// directory, and scans past recently deleted ones.
const TMP_DIRS: u64 = 16;
/// Directories whose durability is remembered; beyond this the memory starts anew.
const REMEMBERED: usize = 100_000;

/// A store where an object can be seen before it is durable.
#[async_trait::async_trait]
pub trait Settle: Send + Sync {
    /// Makes an object that exists durable: its bytes and its name. Rule S2: a read-back that says "mine" needs
    /// both fsyncs, since the attempt that made it may have been cut off before them. Idempotent.
    async fn settle(&self, location: &Path) -> Result<()>;
}

/// A directory as an object store.
pub struct LocalStore {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    root: PathBuf,
    /// The page cache is not bypassed: asked for, or the file system refuses `O_DIRECT`.
    buffered: AtomicBool,
    /// Distinguishes temporary files of this process; `tag` those of different ones.
    next_tmp: AtomicU64,
    tag: u64,
    /// Directories known to be durable, and all above them up to the root.
    durable: Mutex<HashSet<PathBuf>>,
    /// Files that deleted objects left.
    recycled: Recycled,
    /// The file system knows no rename that replaces nothing.
    by_link: AtomicBool,
    /// The directory's lock, while somebody has it.
    lock: Mutex<Weak<File>>,
    /// Read when it is first needed, and anew when the directory was locked.
    journal: Mutex<JournalSlot>,
    /// Deletions in the journal will be written down.
    writing_down: AtomicBool,
    env: Env,
}

/// What is known of the journal.
#[derive(Default)]
enum JournalSlot {
    #[default]
    Unread,
    Read(Arc<Journal>),
    /// While it was read, an fsync failed.
    FsyncFailed(String),
}

/// A put's hint, in its extensions: the object is deleted before long. A local directory has a cheaper place for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brief;

impl LocalStore {
    /// Opens or creates the directory. `buffered` never bypasses the page cache.
    pub fn open(root: &FsPath, env: &Env, buffered: bool) -> std::result::Result<Self, OpenError> {
        let fail = |source| OpenError::Directory {
            path: root.to_owned(),
            source,
        };
        let missing: Vec<PathBuf> = root
            .ancestors()
            .take_while(|dir| !dir.exists())
            .map(FsPath::to_owned)
            .collect();
        fs::create_dir_all(root).map_err(fail)?;
        let root = root.canonicalize().map_err(fail)?;
        fs::create_dir_all(root.join(TMP)).map_err(fail)?;
        write::spread(&root.join(TMP));
        for n in 0..TMP_DIRS {
            fs::create_dir_all(root.join(TMP).join(n.to_string())).map_err(fail)?;
        }
        // Rule S2: what was created here above the root is made durable too, else the whole store may vanish.
        for created in &missing {
            let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(FsPath::new("."));
            write::fsync_dir(parent).map_err(|failure| fail(io::Error::other(failure)))?;
        }
        write::fsync_dir(&root).map_err(|failure| fail(io::Error::other(failure)))?;
        let shared = Shared {
            root,
            buffered: AtomicBool::new(buffered),
            next_tmp: AtomicU64::new(0),
            tag: env.random_u64(),
            durable: Mutex::default(),
            recycled: Recycled::default(),
            by_link: AtomicBool::new(false),
            lock: Mutex::default(),
            journal: Mutex::default(),
            writing_down: AtomicBool::new(false),
            env: env.clone(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The file of an object.
    pub fn path(&self, key: &str) -> PathBuf {
        self.shared.root.join(key)
    }

    /// The directory.
    pub fn root(&self) -> &FsPath {
        &self.shared.root
    }

    /// Whether puts go through the page cache: by option, or since the file system refused anything else.
    pub fn is_buffered(&self) -> bool {
        self.shared.is_buffered()
    }

    /// Locks the directory against other processes. Files that they left half written, or kept to be written again,
    /// are looked through in the background.
    pub fn lock(&self) -> std::result::Result<LockGuard, LockError> {
        let guard = lock::lock(&self.shared.root, &self.shared.root.join(LOCK))?;
        {
            // Under one lock: nobody finds the journal of a time before under the new one.
            let mut slot = self.shared.journal_slot();
            *self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner) = guard.held();
            *slot = JournalSlot::Unread;
        }
        let (shared, env) = (self.shared.clone(), self.shared.env.clone());
        self.shared.env.spawn(TaskKind::LocalTmp, async move {
            env.blocking(move || {
                shared.tend_journal();
                shared.adopt_tmp();
            })
            .await;
        });
        Ok(guard)
    }

    /// Gives every object a file of its own: any tool can copy the directory then. Later puts go the longer way.
    pub async fn close(&self) -> Result<()> {
        let shared = self.shared.clone();
        self.shared
            .env
            .blocking(move || {
                let Some(_held) = shared.held() else { return Ok(()) };
                let journal = shared.journal()?;
                journal.close(|key, bytes| shared.give_file(key, bytes))?;
                Ok(())
            })
            .await
    }

    /// Gives back the space of files that were kept to be written again and not wanted since the last call.
    pub async fn release_unused(&self) {
        let shared = self.shared.clone();
        self.shared
            .env
            .blocking(move || {
                shared.recycled.release(false);
                if let (Some(_held), Ok(journal)) = (shared.held(), shared.journal()) {
                    journal.release();
                }
            })
            .await;
    }

    /// Puts a new object that is deleted before long. To be called where a call may block. `crc` is the body's.
    pub(crate) fn put_brief(&self, key: &str, body: Bytes, crc: u32) -> Result<bool> {
        let how = How::Create {
            brief_at: Some(self.shared.env.now_ms()),
        };
        let put = self
            .shared
            .put(key, &PutPayload::from_bytes(body), Some(crc), how);
        self.follow_put(how);
        put.map_err(|failure| put_error(key, failure))
    }

    /// What a put leaves to be done soon.
    fn follow_put(&self, how: How) {
        if matches!(how, How::Create { brief_at: Some(_) }) {
            write_down_soon(&self.shared, &self.shared.env);
        }
        if self.shared.journal_wants_tending() {
            let (shared, env) = (self.shared.clone(), self.shared.env.clone());
            self.shared.env.spawn(TaskKind::LocalJournal, async move {
                env.blocking(move || shared.tend_journal()).await;
            });
        }
    }

    fn not_implemented(&self, operation: &str) -> Error {
        Error::NotImplemented {
            operation: operation.to_owned(),
            implementer: self.to_string(),
        }
    }

    async fn settle_file(&self, location: &Path) -> Result<()> {
        let (shared, location) = (self.shared.clone(), location.clone());
        self.shared
            .env
            .blocking(move || {
                if shared.journal()?.settle(location.as_ref())? {
                    return Ok(());
                }
                let path = shared.file(&location);
                let file = File::open(&path).map_err(|error| read_error(&location, error))?;
                file.sync_all().map_err(LocalFailure::Fsync)?;
                shared.forget(&path);
                shared.make_parent_durable(&path)?;
                write::fsync_parent(&path)?;
                Ok(())
            })
            .await
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStore({})", self.shared.root.display())
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.shared.root.display())
    }
}

#[async_trait::async_trait]
impl Settle for LocalStore {
    async fn settle(&self, location: &Path) -> Result<()> {
        self.settle_file(location).await
    }
}

fn put_error(key: &str, failure: LocalFailure) -> Error {
    match failure {
        LocalFailure::Io(error) if error.kind() == ErrorKind::PermissionDenied => Error::PermissionDenied {
            path: key.to_owned(),
            source: Box::new(error),
        },
        failure => failure.into(),
    }
}

/// Lets the headers of the journal follow what has happened, once for all that happens until then.
fn write_down_soon(shared: &Arc<Shared>, env: &Env) {
    if !shared.writing_down.swap(true, Ordering::Relaxed) {
        let (shared, later) = (shared.clone(), env.clone());
        env.spawn(TaskKind::LocalJournal, async move {
            tokio::time::sleep(WRITE_DOWN).await;
            later.blocking(move || shared.write_down()).await;
        });
    }
}

#[async_trait::async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let how = match opts.mode {
            PutMode::Create => How::Create {
                brief_at: opts
                    .extensions
                    .get::<Brief>()
                    .map(|Brief| self.shared.env.now_ms()),
            },
            PutMode::Overwrite => How::Overwrite,
            PutMode::Update(_) => return Err(self.not_implemented("update")),
        };
        let (shared, location) = (self.shared.clone(), location.clone());
        // Rule A2: the closure owns the payload until the system calls are over, whoever stops waiting.
        let result = self
            .shared
            .env
            .blocking(move || match shared.put(location.as_ref(), &payload, None, how) {
                Ok(true) => Ok(PutResult {
                    e_tag: None,
                    version: None,
                    extensions: Default::default(),
                }),
                Ok(false) => Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source: Box::new(io::Error::from(ErrorKind::AlreadyExists)),
                }),
                Err(failure) => Err(put_error(location.as_ref(), failure)),
            })
            .await;
        self.follow_put(how);
        result
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(self.not_implemented("a put in parts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (shared, location) = (self.shared.clone(), location.clone());
        self.shared
            .env
            .blocking(move || shared.read(&location, &options))
            .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (shared, env) = (self.shared.clone(), self.shared.env.clone());
        locations
            .and_then(move |location| {
                let (shared, env) = (shared.clone(), env.clone());
                async move {
                    let (deleting, key) = (shared.clone(), location.clone());
                    let in_journal = env.blocking(move || deleting.delete(&key)).await?;
                    if in_journal {
                        write_down_soon(&shared, &env);
                    }
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (shared, prefix, env) = (self.shared.clone(), prefix.cloned(), self.shared.env.clone());
        async move { env.blocking(move || shared.walk(prefix.as_ref())).await }
            .map(|found| match found {
                Ok(found) => futures::stream::iter(found.into_iter().map(Ok)).boxed(),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            })
            .flatten_stream()
            .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(self.not_implemented("list with a delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.not_implemented("copy"))
    }
}

#[cfg(test)]
mod tests;
