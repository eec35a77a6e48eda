//! A WAL object as readers see it: in memory, in the local cache, or in the store.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use drumlin_objects::chain::{ChainName, entry_key};
use drumlin_objects::{Bucket, Reason, StoreError};

use crate::footer::ExtentRecord;

/// One WAL object that holds committed, unsealed data.
#[derive(Debug)]
pub(crate) struct WalObject {
    pub chain: Arc<ChainName>,
    pub slot: u64,
    /// Of the whole object, bytes; 0 for one of an older chain, which no round counts.
    pub length: u64,
    memory: Mutex<Option<Bytes>>,
    /// A copy on the local disk, where the store is remote.
    cached: OnceLock<PathBuf>,
    sealed: AtomicBool,
}

impl WalObject {
    pub(crate) fn new(chain: Arc<ChainName>, slot: u64, length: u64, memory: Option<Bytes>) -> Arc<Self> {
        Arc::new(Self {
            chain,
            slot,
            length,
            memory: Mutex::new(memory),
            cached: OnceLock::new(),
            sealed: AtomicBool::new(false),
        })
    }

    /// A committed round has sealed all of it.
    pub(crate) fn set_sealed(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether a committed round has sealed all of it: readers find its data in segments and bundles.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Its key in the store.
    pub(crate) fn key(&self) -> String {
        entry_key(&self.chain.prefix, self.slot)
    }

    /// The whole object, if it is in memory.
    pub(crate) fn memory(&self) -> Option<Bytes> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of the memory; returns how much that was.
    pub(crate) fn evict(&self) -> usize {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).take();
        memory.map_or(0, |bytes| bytes.len())
    }

    /// Tells where a copy lies on the local disk.
    pub(crate) fn set_cached(&self, path: PathBuf) {
        let _ = self.cached.set(path);
    }

    /// A range of the object that is not in memory. Not verified: extents carry checksums for that.
    pub(crate) async fn load(
        &self,
        bucket: &Bucket,
        range: Range<u64>,
        why: Reason,
    ) -> Result<Bytes, StoreError> {
        if let Some(path) = self.cached.get() {
            match read_file(bucket, path.clone(), range.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cached WAL object is unreadable; refetching");
                }
            }
        }
        self.load_from_store(bucket, range, why).await
    }

    /// A range of the object, from the store whatever is cached.
    pub(crate) async fn load_from_store(
        &self,
        bucket: &Bucket,
        range: Range<u64>,
        why: Reason,
    ) -> Result<Bytes, StoreError> {
        bucket.get_range(&self.key(), range, why).await
    }
}

async fn read_file(bucket: &Bucket, path: PathBuf, range: Range<u64>) -> std::io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    bucket
        .env()
        .blocking(move || {
            let length = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
            let mut bytes = vec![0; length];
            std::fs::File::open(path)?.read_exact_at(&mut bytes, range.start)?;
            Ok(Bytes::from(bytes))
        })
        .await
}

/// A committed run of batches of one partition: where it lies and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub object: Arc<WalObject>,
    pub position: u64,
    pub length: u32,
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub leader_epoch: i32,
    pub max_timestamp: i64,
    pub crc: u32,
}

impl Extent {
    pub(crate) fn of(object: &Arc<WalObject>, record: &ExtentRecord) -> Self {
        Self {
            object: Arc::clone(object),
            position: record.position,
            length: u32::try_from(record.length).unwrap_or(u32::MAX),
            base_offset: record.base_offset,
            last_offset: record.last_offset,
            leader_epoch: record.leader_epoch,
            max_timestamp: record.max_timestamp,
            crc: record.crc,
        }
    }
}
