//! A bucket in a directory with a log's whole history in it, for tests of tools that only read.
#![allow(dead_code, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_log::check::{CheckOptions, Report, check};
use drumlin_log::{
    AppendOptions, Commit, Identity, Log, LogOptions, PartitionConfig, PartitionSpec, Previous, TopicId,
    TopicPartition, recover,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::{Bucket, BucketOptions, Env};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};

pub const TOPIC: TopicId = TopicId([7; 16]);
pub const PARTITIONS: i32 = 4;
/// How long anything may take, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn id(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC,
        partition,
    }
}

fn options() -> LogOptions {
    LogOptions {
        flush_bytes: 64 << 10,
        segment_min_bytes: 100 << 10,
        memory_bytes: 64 << 10,
        manifest_fold: 3,
        manifest_root_segments: 2,
        manifest_leaf_segments: 4,
        bundle_merge_count: 3,
        ..LogOptions::default()
    }
}

pub fn batch(records: usize, size: usize, tag: u64) -> Bytes {
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let mut builder = BatchBuilder::new(codecs[tag as usize % codecs.len()]);
    let mut noise = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for n in 0..records {
        let value: Vec<u8> = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        })
        .take(size)
        .collect();
        let timestamp = 1_700_000_000_000 + (tag * 10) as i64 + n as i64;
        builder.push(timestamp, None, Some(value.as_slice()), &[]);
    }
    builder.build().unwrap()
}

/// A bucket, its directory, and per partition (base offset, bytes after offset and epoch) of each batch.
pub struct History {
    pub env: Env,
    pub dir: tempfile::TempDir,
    pub bucket: Bucket,
    pub written: BTreeMap<i32, Vec<(i64, Vec<u8>)>>,
    pub log_starts: BTreeMap<i32, i64>,
    /// How many partitions a start opens.
    pub partitions: i32,
    /// The node that starts.
    pub node: i32,
    previous: Option<Previous>,
    incarnation: u64,
    tag: u64,
}

impl History {
    pub fn new() -> Self {
        let (env, dir) = (Env::real(), tempfile::tempdir().unwrap());
        let url = format!("file://{}", dir.path().join("store").display());
        let options = BucketOptions {
            retry_for: Duration::from_millis(100),
            ..BucketOptions::default()
        };
        let bucket = Bucket::open(&url, &env, &options).unwrap();
        Self {
            env,
            dir,
            bucket,
            written: BTreeMap::new(),
            log_starts: BTreeMap::new(),
            partitions: PARTITIONS,
            node: 1,
            previous: None,
            incarnation: 0,
            tag: 0,
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn file(&self, key: &str) -> PathBuf {
        self.root().join(key)
    }

    pub async fn start(&mut self) -> Log {
        let mut recovered = recover(&self.env, &self.bucket, self.previous.as_ref())
            .await
            .unwrap();
        recovered.sole = true;
        self.incarnation += 1;
        let identity = Identity {
            cluster_id: "test".into(),
            node: self.node,
            incarnation: self.incarnation,
        };
        self.previous = Some(Previous {
            identity: identity.clone(),
            estate: recovered.estate.clone(),
        });
        let specs = (0..self.partitions).map(|p| self.spec(p)).collect();
        let cache = Arc::new(MemoryBlockCache::new(4 << 20));
        let (env, bucket) = (&self.env, &self.bucket);
        Log::start(env, bucket, cache, options(), identity, Some(recovered), specs)
            .await
            .unwrap()
    }

    /// What a start is refused with.
    pub async fn refused(&self) -> String {
        let recovered = recover(&self.env, &self.bucket, self.previous.as_ref()).await;
        recovered.unwrap_err().to_string()
    }

    pub fn spec(&self, p: i32) -> PartitionSpec {
        let config = PartitionConfig {
            segment_bytes: 256 << 10,
            retention_ms: None,
            ..PartitionConfig::default()
        };
        PartitionSpec {
            id: id(p),
            leader_epoch: self.incarnation as i32,
            config: Arc::new(config),
        }
    }

    /// Appends `count` batches to a partition and waits until they are committed.
    pub async fn append(&mut self, log: &Log, p: i32, count: usize) {
        self.append_each(log, p..p + 1, count).await;
    }

    /// Appends `count` batches to each of some partitions and waits until all are committed.
    pub async fn append_each(&mut self, log: &Log, partitions: Range<i32>, count: usize) {
        let mut commits = Vec::new();
        for p in partitions.flat_map(|p| std::iter::repeat_n(p, count)) {
            self.tag += 1;
            let batch = batch(1 + (self.tag % 3) as usize, 3000, self.tag);
            commits.push(self.append_batch(log, p, batch).await);
        }
        for commit in commits {
            commit.wait().await.unwrap();
        }
    }

    /// Appends a batch, and does not wait until it is committed.
    pub async fn append_batch(&mut self, log: &Log, p: i32, batch: Bytes) -> Commit {
        let partition = log.partition(&id(p)).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let options = AppendOptions {
            expected_epoch: None,
            log_append_time: None,
            deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        };
        let appended = log.append(&partition, &header, &batch, options).await.unwrap();
        let written = self.written.entry(p).or_default();
        written.push((appended.base_offset, batch[16..].to_vec()));
        appended.commit
    }

    /// Segments in manifests and since, bundles of earlier and this start, an edit, and unsealed data at the end.
    pub async fn write(&mut self) -> Log {
        let mut log = self.start().await;
        for life in 0..2 {
            for _ in 0..6 {
                self.append(&log, 0, 45).await;
                self.append(&log, 1, 3).await;
                log.seal_now().await;
            }
            if life == 0 {
                self.append(&log, 2, 2).await;
                log = self.start().await;
            }
        }
        let middle = self.written[&0][self.written[&0].len() / 3].0;
        let partition = log.partition(&id(0)).unwrap();
        assert_eq!(
            log.delete_records(vec![(partition, middle)]).await,
            vec![Ok(middle)]
        );
        self.log_starts.insert(0, middle);
        self.append(&log, 0, 10).await;
        self.append(&log, 1, 2).await;
        log
    }

    /// What `store check` finds in the bucket.
    pub async fn checked(&self) -> Report {
        check(&self.env, &self.bucket, CheckOptions::default(), &|_| {})
            .await
            .unwrap()
    }

    pub async fn stop(&mut self, log: Log) {
        assert!(log.shutdown(tokio::time::Instant::now() + PATIENCE).await);
    }
}

/// Waits until it holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            tokio::time::Instant::now() < end,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Turns a bit of a file's byte at `at`; returns the file as it was.
pub fn harm(path: &Path, at: usize) -> Vec<u8> {
    let sound = std::fs::read(path).unwrap();
    let mut harmed = sound.clone();
    harmed[at] ^= 1;
    std::fs::write(path, harmed).unwrap();
    sound
}

/// All objects' keys.
pub fn keys(root: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let key = path.strip_prefix(root).unwrap().display().to_string();
            if key.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(key);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}
