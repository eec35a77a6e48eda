//! A compacted topic on a directory: what `check` and `export` say of it, restarts, deletion, a damaged segment.
#![allow(clippy::unwrap_used)]

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{PATIENCE, keys};
use drumlin_log::check::{CheckOptions, Kind, Report, check};
use drumlin_log::export::{ExportOptions, export};
use drumlin_log::{
    AppendOptions, CleanerOptions, Identity, Log, LogOptions, PartitionConfig, PartitionSpec, Previous,
    TopicId, TopicPartition, recover,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::{Bucket, BucketOptions, Env};
use drumlin_records::{BatchBuilder, BatchHeader, Compression, Limits, iter_batches, records};

const ID: TopicPartition = TopicPartition {
    topic: TopicId([9; 16]),
    partition: 0,
};

struct Node {
    env: Env,
    dir: tempfile::TempDir,
    bucket: Bucket,
    previous: Option<Previous>,
    incarnation: u64,
    /// The newest record of each key: offset and value.
    newest: BTreeMap<Bytes, (i64, Option<Bytes>)>,
    written: u64,
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 48 << 10,
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.1,
        ..PartitionConfig::default()
    }
}

impl Node {
    fn new() -> Self {
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
            previous: None,
            incarnation: 0,
            newest: BTreeMap::new(),
            written: 0,
        }
    }

    async fn start(&mut self) -> Log {
        let recovered = recover(&self.env, &self.bucket, self.previous.as_ref())
            .await
            .unwrap();
        self.incarnation += 1;
        let identity = Identity {
            cluster_id: "test".into(),
            node: 1,
            incarnation: self.incarnation,
        };
        self.previous = Some(Previous {
            identity: identity.clone(),
            estate: recovered.estate.clone(),
        });
        let spec = PartitionSpec {
            id: ID,
            leader_epoch: self.incarnation as i32,
            config: Arc::new(config()),
        };
        let options = LogOptions {
            flush_bytes: 32 << 10,
            segment_min_bytes: 24 << 10,
            memory_bytes: 64 << 10,
            manifest_fold: 2,
            manifest_root_segments: 2,
            manifest_leaf_segments: 3,
            cleaner: CleanerOptions {
                interval: Duration::from_secs(3600),
                ..CleanerOptions::default()
            },
            ..LogOptions::default()
        };
        let cache = Arc::new(MemoryBlockCache::new(1 << 20));
        let (env, bucket) = (&self.env, &self.bucket);
        Log::start(env, bucket, cache, options, identity, Some(recovered), vec![spec])
            .await
            .unwrap()
    }

    /// Appends a batch of these keys; `mixed` makes the values.
    async fn append_keys(&mut self, log: &Log, keys: &[(Bytes, u64)]) -> drumlin_log::Commit {
        self.written += 1;
        let codec = Compression::ALL[(self.written % 5) as usize];
        let mut builder = BatchBuilder::new(codec);
        let mut pairs = Vec::new();
        for (n, (key, mixed)) in keys.iter().enumerate() {
            let length = 300 + n;
            let value = (!mixed.is_multiple_of(11)).then(|| Bytes::from(vec![(mixed >> 32) as u8; length]));
            let timestamp = 1_700_000_000_000 + self.written as i64;
            builder.push(timestamp, Some(key), value.as_deref(), &[]);
            pairs.push((key.clone(), value));
        }
        let batch = builder.build().unwrap();
        let options = AppendOptions {
            expected_epoch: None,
            log_append_time: None,
            deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        };
        let header = BatchHeader::parse(&batch).unwrap();
        let partition = log.partition(&ID).unwrap();
        let appended = log.append(&partition, &header, &batch, options).await.unwrap();
        for (offset, (key, value)) in (appended.base_offset..).zip(pairs) {
            self.newest.insert(key, (offset, value));
        }
        appended.commit
    }

    async fn append(&mut self, log: &Log, batches: u64) {
        let mut commits = Vec::new();
        for _ in 0..batches {
            let keys: Vec<(Bytes, u64)> = (0..5)
                .map(|n| (self.written * 5 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15))
                .map(|mixed| (Bytes::from(format!("key {}", mixed % 61)), mixed))
                .collect();
            commits.push(self.append_keys(log, &keys).await);
        }
        for commit in commits {
            commit.wait().await.unwrap();
        }
    }

    async fn check(&self) -> Report {
        check(&self.env, &self.bucket, CheckOptions::default(), &|_| {})
            .await
            .unwrap()
    }

    async fn stop(&self, log: Log) {
        assert!(log.shutdown(tokio::time::Instant::now() + PATIENCE).await);
    }

    fn segments(&self) -> Vec<String> {
        let all = keys(&self.dir.path().join("store")).into_iter();
        all.filter(|key| key.contains("/segment/")).collect()
    }
}

type Contents = Vec<(i64, Option<Bytes>, Option<Bytes>)>;

fn contents(bytes: &[u8]) -> Contents {
    let batches = iter_batches(bytes).map(|item| item.unwrap().0);
    batches
        .flat_map(|at| records(&bytes[at..], Limits::default()).map(Result::unwrap))
        .map(|record| (record.offset, record.key, record.value))
        .collect()
}

async fn read_all(log: &Log, from: i64) -> Contents {
    let partition = log.partition(&ID).unwrap();
    let (mut offset, mut found) = (from, Vec::new());
    loop {
        let read = log.read(&partition, offset, 20 << 10, true).await.unwrap();
        if read.records.is_empty() {
            return found;
        }
        let bytes = read.records.concat();
        found.extend(contents(&bytes).into_iter().filter(|(at, ..)| *at >= from));
        for item in iter_batches(&bytes) {
            offset = item.unwrap().1.last_offset() + 1;
        }
    }
}

/// One record a key, and it is the newest.
fn assert_newest(node: &Node, found: &Contents) {
    let expected: BTreeMap<i64, (Option<Bytes>, Option<Bytes>)> = node
        .newest
        .iter()
        .map(|(key, (offset, value))| (*offset, (Some(key.clone()), value.clone())))
        .collect();
    let found: BTreeMap<_, _> = found
        .iter()
        .map(|(offset, key, value)| (*offset, (key.clone(), value.clone())))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_log_is_checked_exported_and_found_again() {
    let mut node = Node::new();
    let mut log = node.start().await;
    for life in 0..3 {
        for _ in 0..4 {
            node.append(&log, 120).await;
            log.seal_now().await;
        }
        log.clean_now().await;
        let found = read_all(&log, 0).await;
        assert_newest(&node, &found);
        // A fetch from a hole begins with the next record that is there.
        for offset in (0..found.last().unwrap().0).step_by(37) {
            let expected = found.iter().find(|(at, ..)| *at >= offset).unwrap();
            assert_eq!(read_all(&log, offset).await.first(), Some(expected));
        }
        let partition = log.partition(&ID).unwrap();
        let newest = log.max_timestamp(&partition).await.unwrap().unwrap();
        assert_eq!(newest.timestamp, 1_700_000_000_000 + node.written as i64);
        let report = node.check().await;
        assert!(report.is_clean(), "life {life}: {report}");
        node.append(&log, 7).await;
        let report = node.check().await;
        assert!(report.is_clean(), "life {life}, more appended: {report}");
        if life % 2 == 0 {
            node.stop(log).await;
        }
        log = node.start().await;
        let again = read_all(&log, 0).await;
        assert!(again[..found.len()] == found[..], "life {life}");
        log.seal_now().await;
        let report = node.check().await;
        assert!(report.is_clean(), "life {life}, started again: {report}");
    }
    log.clean_now().await;
    let found = read_all(&log, 0).await;
    assert_newest(&node, &found);
    node.append(&log, 3).await;
    let whole = read_all(&log, 0).await;
    let dir = match std::env::var_os("DRUMLIN_EXPORT_TO") {
        // For a look at it with Kafka's own tools.
        Some(dir) => dir.into(),
        None => node.dir.path().join("export"),
    };
    let options = ExportOptions {
        name: "compacted".into(),
        topic: ID.topic,
        partitions: 1,
        segment_bytes: 16 << 10,
    };
    let exported = export(&node.env, &node.bucket, &options, &dir, &|_| {})
        .await
        .unwrap();
    assert_eq!(exported[0].log_end, log.partition(&ID).unwrap().high_watermark());
    let mut files: Vec<_> = std::fs::read_dir(&exported[0].path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    files.sort();
    let copied: Contents = files
        .iter()
        .flat_map(|file| contents(&std::fs::read(file).unwrap()))
        .collect();
    assert!(copied == whole, "the export holds what a reader sees");
    node.stop(log).await;
}

/// Found by the simulation: spans become segments from the oldest on, also those that lose nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_come_before_spans_whatever_changes() {
    let mut node = Node::new();
    let log = node.start().await;
    for key in ["alone", "again", "again", "other"] {
        let commit = node.append_keys(&log, &[(Bytes::from(key), 1)]).await;
        commit.wait().await.unwrap();
        log.seal_now().await;
    }
    assert_eq!(node.segments(), Vec::<String>::new(), "all of it is in bundles");
    // Every piece is a group of its own, and the keys of the first one do not come again.
    let alone = PartitionConfig {
        segment_bytes: 1,
        ..config()
    };
    log.configure(&ID, Arc::new(alone));
    log.clean_now().await;
    let found = read_all(&log, 0).await;
    assert_newest(&node, &found);
    node.stop(log).await;
    let log = node.start().await;
    assert_eq!(log.partition(&ID).unwrap().unavailable(), None);
    assert!(read_all(&log, 0).await == found);
    node.stop(log).await;
    let report = node.check().await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_though_offsets_may_be_missing() {
    let mut node = Node::new();
    let log = node.start().await;
    node.append(&log, 300).await;
    log.seal_now().await;
    log.clean_now().await;
    // What was replaced goes in the keeper's next turn.
    let replaced = |report: &Report| report.waiting.iter().any(|key| key.contains("/segment/"));
    let end = tokio::time::Instant::now() + PATIENCE;
    while replaced(&node.check().await) {
        assert!(tokio::time::Instant::now() < end, "what was replaced stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.stop(log).await;
    let report = node.check().await;
    assert!(report.is_clean() && !replaced(&report), "{report}");
    let segments = node.segments();
    let key = segments.first().unwrap().clone();
    let path = node.dir.path().join("store").join(&key);
    let whole = std::fs::read(&path).unwrap();
    let first = BatchHeader::parse(&whole).unwrap().size_in_bytes();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    // A batch less is no hole that compaction left.
    for harmed in [
        flipped,
        whole[first..].to_vec(),
        whole[..whole.len() - 1].to_vec(),
    ] {
        std::fs::write(&path, harmed).unwrap();
        let report = node.check().await;
        let named = report
            .findings
            .iter()
            .any(|one| one.key == key && one.kind == Kind::Damaged);
        assert!(named, "{key}: {report}");
    }
    // Its readers are told, and the cleaner leaves the partition alone.
    let log = node.start().await;
    let partition = log.partition(&ID).unwrap();
    assert!(log.read(&partition, 0, 1 << 20, true).await.is_err());
    node.append(&log, 400).await;
    log.seal_now().await;
    let before = node.segments();
    log.clean_now().await;
    assert_eq!(log.metrics().cleaner_failures, 1);
    assert_eq!(
        node.segments(),
        before,
        "nothing was replaced, and nothing lies about"
    );
    node.stop(log).await;
    std::fs::write(&path, whole).unwrap();
    let log = node.start().await;
    log.clean_now().await;
    let found = read_all(&log, 0).await;
    assert_newest(&node, &found);
    node.stop(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_deleted_while_it_is_compacted_leaves_nothing() {
    for wait_us in [0, 300, 1_000, 3_000, 10_000, 30_000] {
        let mut node = Node::new();
        let log = node.start().await;
        node.append(&log, 400).await;
        log.seal_now().await;
        let cleaning = tokio::spawn({
            let log = log.clone();
            async move { log.clean_now().await }
        });
        tokio::time::sleep(Duration::from_micros(wait_us)).await;
        log.drop_partition(ID);
        let mut swept = log.swept();
        let gone = swept.wait_for(|topics| topics.contains(&ID.topic));
        tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
        cleaning.await.unwrap();
        log.seal_now().await;
        assert_eq!(node.segments(), Vec::<String>::new(), "after {wait_us} µs");
        node.stop(log).await;
    }
}
