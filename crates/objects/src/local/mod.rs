//! The local directory as an object store.
//!
//! Owns puts, gets, lists and deletes below one directory. An object is a file of the same name. A put writes a
//! temporary file, makes it durable, and links (put-if-absent) or renames (overwrite) it into place; see
//! [`write`](self::write) for the order, which is rule S2. The rest is passed on to `LocalFileSystem`.
//!
//! Two names below the root are its own and never show in lists: `.lock`, and `.tmp` with what is half written and
//! the files that deleted objects left.

mod aligned;
mod lock;
mod recycle;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

use crate::env::Env;
use crate::error::{LocalFailure, LockError, OpenError};
pub use lock::LockGuard;
use recycle::Recycled;

const TMP: &str = ".tmp";
const LOCK: &str = ".lock";
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
    rest: LocalFileSystem,
    env: Env,
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
}

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
        let rest = LocalFileSystem::new_with_prefix(&root).map_err(|error| fail(io::Error::other(error)))?;
        let shared = Shared {
            root,
            buffered: AtomicBool::new(buffered),
            next_tmp: AtomicU64::new(0),
            tag: env.random_u64(),
            durable: Mutex::default(),
            recycled: Recycled::default(),
            by_link: AtomicBool::new(false),
            lock: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            rest: rest.with_fsync(true),
            env: env.clone(),
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
        *self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner) = guard.held();
        let (shared, env) = (self.shared.clone(), self.env.clone());
        self.env.spawn("local-tmp", async move {
            env.blocking(move || shared.adopt_tmp()).await;
        });
        Ok(guard)
    }

    /// Gives back the space of files that were kept to be written again and not wanted since the last call.
    pub async fn release_unused(&self) {
        let shared = self.shared.clone();
        self.env.blocking(move || shared.recycled.release(false)).await;
    }

    async fn settle_file(&self, location: &Path) -> Result<()> {
        let (shared, location) = (self.shared.clone(), location.clone());
        self.env
            .blocking(move || {
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

impl Shared {
    /// A name that nobody has had.
    fn tmp_path(&self) -> PathBuf {
        let n = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.join(TMP).join((n % TMP_DIRS).to_string());
        dir.join(format!("{:016x}-{n}", self.tag))
    }

    /// Takes over what earlier processes left.
    fn adopt_tmp(&self) {
        let own = format!("{:016x}-", self.tag);
        for n in 0..TMP_DIRS {
            let dir = self.root.join(TMP).join(n.to_string());
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| name.starts_with(&own))
                {
                    continue;
                }
                // A file of two names is an object too: only this name of it goes.
                match entry.metadata() {
                    Ok(found)
                        if found.is_file()
                            && found.nlink() == 1
                            && !self.is_buffered()
                            && self.recycled.wants(found.len()) =>
                    {
                        self.recycled.keep(entry.path(), found.len());
                    }
                    // What stays is only litter; the next start tries again.
                    _ => drop(fs::remove_file(entry.path())),
                }
            }
        }
    }

    /// Deletes an object; its file is kept to be written again while there is room.
    fn delete(&self, location: &Path) -> io::Result<()> {
        let path = self.file(location);
        let found = fs::symlink_metadata(&path)?;
        let keeps = found.is_file() && found.nlink() == 1 && self.recycled.wants(found.len());
        if !keeps || self.is_buffered() {
            return fs::remove_file(path);
        }
        let kept = self.tmp_path();
        match fs::rename(&path, &kept) {
            Ok(()) => self.recycled.keep(kept, found.len()),
            // A new name takes space, which a full disk does not have, and a folder, which somebody removed.
            Err(_) => return fs::remove_file(path),
        }
        Ok(())
    }

    fn is_buffered(&self) -> bool {
        self.buffered.load(Ordering::Relaxed)
    }

    fn file(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, file: &FsPath) {
        if let Some(parent) = file.parent() {
            self.durable().remove(parent);
        }
    }

    /// Creates the directory of `file` and makes it and all above it durable, up to the root. Those that exist
    /// already are synced too: an earlier process may have died between making and syncing them.
    fn make_parent_durable(&self, file: &FsPath) -> std::result::Result<(), LocalFailure> {
        let Some(parent) = file.parent() else {
            return Ok(());
        };
        if self.durable().contains(parent) {
            return Ok(());
        }
        fs::create_dir_all(parent)?;
        for dir in parent.ancestors() {
            write::fsync_dir(dir)?;
            if dir == self.root {
                break;
            }
        }
        let mut durable = self.durable();
        if durable.len() >= REMEMBERED {
            durable.clear();
        }
        durable.insert(parent.to_owned());
        Ok(())
    }

    fn read(&self, location: Path, options: GetOptions) -> Result<GetResult> {
        let path = self.file(&location);
        let fail = |error| read_error(&location, error);
        let file = File::open(&path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(ErrorKind::NotFound.into()));
        }
        let meta = object_meta(location.clone(), &metadata);
        options.check_preconditions(&meta)?;
        let read = || -> Result<_> {
            let range = match &options.range {
                None => 0..meta.size,
                Some(range) => wanted(range, meta.size).ok_or(LocalFailure::Range)?,
            };
            let bytes = match options.head {
                true => Bytes::new(),
                false => read_range(&file, &range).map_err(fail)?,
            };
            Ok((range, bytes))
        };
        let outcome = read();
        // Deleted meanwhile, its file may have been written again: neither the bytes nor a failure is the object's.
        let named = fs::metadata(&path).map_err(fail)?;
        if (named.dev(), named.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(fail(ErrorKind::NotFound.into()));
        }
        let (range, bytes) = outcome?;
        let payload = GetResultPayload::Stream(futures::stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes: Attributes::new(),
            extensions: Default::default(),
        })
    }

    fn walk(&self, prefix: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let top = prefix.map_or_else(|| self.root.clone(), |prefix| self.file(prefix));
        let mut found = Vec::new();
        let mut dirs = vec![top];
        while let Some(dir) = dirs.pop() {
            let fail = |error: io::Error| Error::from(LocalFailure::Io(error));
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(fail(error)),
            };
            for entry in entries {
                let entry = entry.map_err(fail)?;
                let name = entry.file_name();
                if dir == self.root && (name == TMP || name == LOCK) {
                    continue;
                }
                if entry.file_type().map_err(fail)?.is_dir() {
                    dirs.push(entry.path());
                    continue;
                }
                // A file that somebody else put here under a name that is no key is nobody's object.
                let path = entry.path();
                let Some(key) = path.strip_prefix(&self.root).ok().and_then(FsPath::to_str) else {
                    continue;
                };
                let Ok(location) = Path::parse(key) else { continue };
                match entry.metadata() {
                    Ok(metadata) => found.push(object_meta(location, &metadata)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(fail(error)),
                }
            }
        }
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }
}

fn read_error(location: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NotFound {
            path: location.to_string(),
            source: Box::new(error),
        },
        ErrorKind::PermissionDenied => Error::PermissionDenied {
            path: location.to_string(),
            source: Box::new(error),
        },
        _ => LocalFailure::Io(error).into(),
    }
}

fn wanted(range: &GetRange, size: u64) -> Option<std::ops::Range<u64>> {
    match range {
        GetRange::Bounded(range) if range.start < size && range.start < range.end => {
            Some(range.start..range.end.min(size))
        }
        GetRange::Offset(start) if *start < size => Some(*start..size),
        GetRange::Suffix(length) if *length > 0 && size > 0 => Some(size.saturating_sub(*length)..size),
        _ => None,
    }
}

fn read_range(file: &File, range: &std::ops::Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn object_meta(location: Path, metadata: &fs::Metadata) -> ObjectMeta {
    let modified = metadata.modified().unwrap_or(std::time::UNIX_EPOCH);
    ObjectMeta {
        location,
        last_modified: modified.into(),
        size: metadata.len(),
        e_tag: None,
        version: None,
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

#[async_trait::async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let if_absent = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                let operation = "update".to_owned();
                return Err(Error::NotImplemented {
                    operation,
                    implementer: self.to_string(),
                });
            }
        };
        let (shared, location) = (self.shared.clone(), location.clone());
        // Rule A2: the closure owns the payload until the system calls are over, whoever stops waiting.
        self.env
            .blocking(move || {
                // Nobody else may take the directory over while this writes, though its own guard be gone.
                let _held = shared
                    .lock
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .upgrade();
                let path = shared.file(&location);
                match write::put(&shared, &path, &payload, if_absent) {
                    Ok(true) => Ok(PutResult {
                        e_tag: None,
                        version: None,
                        extensions: Default::default(),
                    }),
                    Ok(false) => Err(Error::AlreadyExists {
                        path: location.to_string(),
                        source: Box::new(io::Error::from(ErrorKind::AlreadyExists)),
                    }),
                    Err(LocalFailure::Io(error)) if error.kind() == ErrorKind::PermissionDenied => {
                        Err(read_error(&location, error))
                    }
                    Err(failure) => Err(failure.into()),
                }
            })
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.rest.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (shared, location) = (self.shared.clone(), location.clone());
        self.env.blocking(move || shared.read(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (shared, env) = (self.shared.clone(), self.env.clone());
        locations
            .and_then(move |location| {
                let (shared, env) = (shared.clone(), env.clone());
                async move {
                    env.blocking(move || {
                        shared
                            .delete(&location)
                            .map_err(|error| read_error(&location, error))?;
                        Ok(location)
                    })
                    .await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (shared, prefix, env) = (self.shared.clone(), prefix.cloned(), self.env.clone());
        async move { env.blocking(move || shared.walk(prefix.as_ref())).await }
            .map(|found| match found {
                Ok(found) => futures::stream::iter(found.into_iter().map(Ok)).boxed(),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            })
            .flatten_stream()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.rest.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.rest.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
