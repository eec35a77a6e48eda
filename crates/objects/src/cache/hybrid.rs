//! The block cache over memory and a local disk (`foyer`).
//!
//! It begins in memory alone; the disk is opened after serving has begun, and a disk that cannot be opened is
//! done without. Every block carries a CRC32C of its own, checked when it comes back from disk.
//!
//! The library does not survive a write that fails, so a disk that is nearly full, or takes no more files, is given up
//! before that happens (`watch`).

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Code, DeviceBuilder, FsDeviceBuilder, Hint, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, HybridCacheProperties, Location, LruConfig, PsyncIoEngineConfig, RecoverMode,
};

use super::memory::MemoryBlockCache;
use super::watch;
use super::{BlockCache, CacheHint, CacheStats};
use crate::memory::BufferCount;

/// The largest file of the disk cache; also the unit of its eviction.
const FILE_MAX: usize = 16 << 20;
/// A disk cache smaller than this is not worth its files.
const DISK_MIN: usize = 16 << 20;
/// How often a disk in use is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// No object name or block is longer: a length above it is damage.
const LEN_MAX: u64 = 64 << 20;

/// Sizes and place of the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// `cache.memory.bytes`.
    pub memory_bytes: usize,
    /// `cache.disk.bytes`; below 16 MiB there is no disk cache.
    pub disk_bytes: usize,
    /// `cache.dir`; `None`: memory only.
    pub dir: Option<PathBuf>,
}

/// See the module.
#[derive(Debug)]
pub struct HybridBlockCache {
    config: CacheConfig,
    memory: MemoryBlockCache,
    disk: RwLock<Option<HybridCache<Key, Value>>>,
    /// When the disk was last looked at.
    looked: Mutex<Option<Instant>>,
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    inserts: AtomicU64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    object: Box<str>,
    block: u64,
}

#[derive(Clone, Debug)]
struct Value(Bytes);

/// Blocks that came from the disk. The library decodes them where no cache is at hand, hence one count for all caches
/// of the process.
static FROM_DISK: LazyLock<BufferCount> = LazyLock::new(BufferCount::default);

impl HybridBlockCache {
    /// In memory alone, for now.
    pub fn new(config: CacheConfig) -> Self {
        let memory = MemoryBlockCache::new(config.memory_bytes);
        Self {
            config,
            memory,
            disk: RwLock::new(None),
            looked: Mutex::new(None),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            inserts: AtomicU64::new(0),
        }
    }

    /// Opens the disk, if there is to be one; what was cached before a restart comes back. A failure is logged,
    /// and the cache goes on in memory. Returns whether there is a disk now.
    pub async fn open_disk(&self) -> bool {
        let Some(dir) = self
            .config
            .dir
            .clone()
            .filter(|_| self.config.disk_bytes >= DISK_MIN)
        else {
            return false;
        };
        match self.open(&dir).await {
            Ok(cache) => {
                *self.disk.write().unwrap_or_else(PoisonError::into_inner) = Some(cache);
                self.memory.clear();
                true
            }
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "cannot open the disk cache, going on without it");
                false
            }
        }
    }

    async fn open(&self, dir: &std::path::Path) -> foyer::Result<HybridCache<Key, Value>> {
        // Tried first, since not every part of the library returns what goes wrong here.
        std::fs::create_dir_all(dir)
            .and_then(|()| watch::look(dir, self.config.disk_bytes as u64))
            .map_err(foyer::Error::io_error)?;
        let device = FsDeviceBuilder::new(dir)
            .with_capacity(self.config.disk_bytes)
            .build()?;
        let file = (self.config.disk_bytes / 16).clamp(1 << 20, FILE_MAX);
        HybridCacheBuilder::new()
            .with_name("blocks")
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(self.config.memory_bytes)
            // Low-priority blocks have the rest: enough for read-ahead to be read once.
            .with_eviction_config(LruConfig {
                high_priority_pool_ratio: 0.8,
            })
            .with_weighter(|key: &Key, value: &Value| key.object.len() + value.0.len() + 200)
            .storage()
            .with_io_engine_config(PsyncIoEngineConfig::new())
            .with_engine_config(BlockEngineConfig::new(device).with_block_size(file))
            .with_recover_mode(RecoverMode::Quiet)
            .build()
            .await
    }

    fn disk(&self) -> Option<HybridCache<Key, Value>> {
        self.disk.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The disk, for writing: none, for good, once it cannot be written.
    fn disk_to_write(&self) -> Option<HybridCache<Key, Value>> {
        let disk = self.disk()?;
        let dir = self.config.dir.as_ref()?;
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
                return Some(disk);
            }
            *looked = Some(Instant::now());
        }
        let error = match watch::look(dir, self.config.disk_bytes as u64) {
            Ok(()) => return Some(disk),
            Err(error) => error,
        };
        let mut now = self.disk.write().unwrap_or_else(PoisonError::into_inner);
        if now.take().is_some() {
            tracing::warn!(dir = %dir.display(), %error,
                "the disk cache cannot be written, going on without it until the next start");
        }
        None
    }
}

#[async_trait::async_trait]
impl BlockCache for HybridBlockCache {
    async fn get(&self, object: &str, block: u64) -> Option<Bytes> {
        let found = match self.disk() {
            None => self.memory.get_now(object, block),
            Some(disk) => match disk
                .get(&Key {
                    object: object.into(),
                    block,
                })
                .await
            {
                Ok(found) => found.map(|entry| entry.value().0.clone()),
                Err(error) => {
                    tracing::debug!(object, block, %error, "cached block is unreadable, it will be fetched again");
                    self.damaged.fetch_add(1, Ordering::Relaxed);
                    disk.remove(&Key {
                        object: object.into(),
                        block,
                    });
                    None
                }
            },
        };
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn insert(&self, object: &str, block: u64, bytes: Bytes, hint: CacheHint) {
        self.inserts.fetch_add(1, Ordering::Relaxed);
        let Some(disk) = self.disk_to_write() else {
            self.memory.insert(object, block, bytes, hint);
            return;
        };
        let properties = match hint {
            CacheHint::Keep => HybridCacheProperties::default(),
            CacheHint::Backfill => HybridCacheProperties::default()
                .with_hint(Hint::Low)
                .with_location(Location::InMem),
        };
        disk.insert_with_properties(
            Key {
                object: object.into(),
                block,
            },
            Value(bytes),
            properties,
        );
    }

    fn remove(&self, object: &str, block: u64) {
        self.memory.remove(object, block);
        if let Some(disk) = self.disk() {
            disk.remove(&Key {
                object: object.into(),
                block,
            });
        }
    }

    fn stats(&self) -> CacheStats {
        let memory_bytes =
            self.memory.stats().memory_bytes + self.disk().map_or(0, |disk| disk.memory().usage() as u64);
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
            inserts: self.inserts.load(Ordering::Relaxed),
            memory_bytes,
            from_disk_bytes: FROM_DISK.bytes() as u64,
        }
    }

    async fn close(&self) {
        let disk = self.disk.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(disk) = disk
            && let Err(error) = disk.close().await
        {
            tracing::warn!(%error, "cannot write out the disk cache");
        }
    }
}

fn broken(what: &str) -> foyer::Error {
    foyer::Error::io_error(std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        what.to_owned(),
    ))
}

fn read_exact<const N: usize>(reader: &mut impl Read) -> foyer::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(foyer::Error::io_error)?;
    Ok(bytes)
}

/// Reads what [`write_checked`] wrote: length, CRC32C, bytes.
fn read_checked(reader: &mut impl Read) -> foyer::Result<Vec<u8>> {
    let len = u64::from_be_bytes(read_exact(reader)?);
    let crc = u32::from_be_bytes(read_exact(reader)?);
    if len > LEN_MAX {
        return Err(broken("a cached block's length is damaged"));
    }
    let mut bytes = Vec::new();
    reader
        .take(len)
        .read_to_end(&mut bytes)
        .map_err(foyer::Error::io_error)?;
    if bytes.len() as u64 != len || crc32c::crc32c(&bytes) != crc {
        return Err(broken("a cached block is damaged"));
    }
    Ok(bytes)
}

fn write_checked(writer: &mut impl Write, bytes: &[u8]) -> foyer::Result<()> {
    writer
        .write_all(&(bytes.len() as u64).to_be_bytes())
        .and_then(|()| writer.write_all(&crc32c::crc32c(bytes).to_be_bytes()))
        .and_then(|()| writer.write_all(bytes))
        .map_err(foyer::Error::io_error)
}

impl Code for Key {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        writer
            .write_all(&self.block.to_be_bytes())
            .map_err(foyer::Error::io_error)?;
        write_checked(writer, self.object.as_bytes())
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let block = u64::from_be_bytes(read_exact(reader)?);
        let object = String::from_utf8(read_checked(reader)?).map_err(|_| broken("a key is damaged"))?;
        Ok(Self {
            object: object.into(),
            block,
        })
    }

    fn estimated_size(&self) -> usize {
        self.object.len() + 20
    }
}

impl Code for Value {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        write_checked(writer, &self.0)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        Ok(Self(FROM_DISK.track(read_checked(reader)?.into())))
    }

    fn estimated_size(&self) -> usize {
        self.0.len() + 12
    }
}
