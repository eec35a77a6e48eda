//! Batches that were stored without a look at their records: headers that say a wrong time, records that cannot be decoded.
//! Lookups, retention, compaction and `check` go past them, and lose nothing that can be read.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drumlin_log::check::{CheckOptions, Kind, check};
use drumlin_log::{
    AppendOptions, CleanerOptions, Identity, Log, LogOptions, Partition, PartitionConfig, PartitionSpec,
    TopicId, TopicPartition,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::{Bucket, BucketOptions, Env};
use drumlin_records::{
    BatchBuilder, BatchHeader, Compression, patch_append_time, patch_attributes_and_max_timestamp,
};

const ID: TopicPartition = TopicPartition {
    topic: TopicId([3; 16]),
    partition: 0,
};
const DAY: i64 = 24 * 3_600_000;
/// How long anything may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    _dir: tempfile::TempDir,
    env: Env,
    bucket: Bucket,
    log: Log,
    partition: Arc<Partition>,
}

impl World {
    async fn new(config: PartitionConfig) -> Self {
        let (env, dir) = (Env::real(), tempfile::tempdir().unwrap());
        let url = format!("file://{}", dir.path().display());
        let bucket = Bucket::open(&url, &env, &BucketOptions::default()).unwrap();
        let identity = Identity {
            cluster_id: "test".into(),
            node: 1,
            incarnation: 1,
        };
        let options = LogOptions {
            retention_interval: Duration::from_millis(50),
            cleaner: CleanerOptions {
                interval: Duration::from_secs(3600),
                ..CleanerOptions::default()
            },
            ..LogOptions::default()
        };
        let spec = PartitionSpec {
            id: ID,
            leader_epoch: 0,
            config: Arc::new(config),
        };
        let cache = Arc::new(MemoryBlockCache::new(1 << 20));
        let log = Log::start(&env, &bucket, cache, options, identity, None, vec![spec])
            .await
            .unwrap();
        let partition = log.partition(&ID).unwrap();
        Self {
            _dir: dir,
            env,
            bucket,
            log,
            partition,
        }
    }

    /// Stores a batch under its own header, whatever that says.
    async fn store(&self, batch: &Bytes) -> i64 {
        let header = BatchHeader::parse(batch).unwrap();
        let options = AppendOptions {
            expected_epoch: None,
            log_append_time: None,
            deadline: tokio::time::Instant::now() + PATIENCE,
        };
        let appended = self
            .log
            .append(&self.partition, &header, batch, options)
            .await
            .unwrap();
        appended.commit.wait().await.unwrap();
        appended.base_offset
    }

    async fn since(&self, timestamp: i64) -> Option<i64> {
        let found = self.log.offset_for_timestamp(&self.partition, timestamp).await;
        found.unwrap().map(|found| found.offset)
    }

    async fn newest(&self) -> Option<(i64, i64)> {
        let found = self.log.max_timestamp(&self.partition).await.unwrap();
        found.map(|found| (found.offset, found.timestamp))
    }

    async fn stop(self) {
        assert!(self.log.shutdown(tokio::time::Instant::now() + PATIENCE).await);
    }
}

fn batch(codec: Compression, timestamps: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for (n, timestamp) in timestamps.iter().enumerate() {
        builder.push(*timestamp, Some(format!("{n}").as_bytes()), Some(b"value"), &[]);
    }
    builder.build().unwrap()
}

/// The batch with another greatest timestamp in its header.
fn claiming(batch: &Bytes, max_timestamp: i64) -> Bytes {
    let mut changed = BytesMut::from(&batch[..]);
    let header = BatchHeader {
        max_timestamp,
        ..BatchHeader::parse(batch).unwrap()
    };
    patch_attributes_and_max_timestamp(&mut changed, &header);
    changed.freeze()
}

/// A batch whose CRC is right, and whose payload is not what its codec makes.
fn undecodable(timestamp: i64) -> Bytes {
    let mut changed = batch(Compression::Gzip, &[timestamp, timestamp]).to_vec();
    for byte in &mut changed[61..] {
        *byte = !*byte;
    }
    let crc = crc32c::crc32c(&changed[21..]);
    changed[17..21].copy_from_slice(&crc.to_be_bytes());
    changed.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_go_past_what_cannot_be_decoded_and_check_names_it() {
    let world = World::new(PartitionConfig {
        retention_ms: None,
        ..PartitionConfig::default()
    })
    .await;
    let now = world.env.now_ms();
    world
        .store(&batch(Compression::None, &[now - 50, now - 40]))
        .await;
    world.store(&undecodable(now - 30)).await;
    world.store(&batch(Compression::Lz4, &[now - 60, now - 20])).await;
    // It says that it is the newest, and nobody can know.
    world.store(&undecodable(now - 10)).await;
    for sealed in [false, true] {
        if sealed {
            world.log.seal_now().await;
        }
        assert_eq!(world.since(now - 45).await, Some(1), "sealed: {sealed}");
        assert_eq!(world.since(now - 35).await, Some(5), "sealed: {sealed}");
        assert_eq!(world.since(now - 15).await, None, "sealed: {sealed}");
        assert_eq!(world.newest().await, Some((5, now - 20)), "sealed: {sealed}");
        let report = check(&world.env, &world.bucket, CheckOptions::default(), &|_| {})
            .await
            .unwrap();
        let named: Vec<_> = report
            .findings
            .iter()
            .filter(|finding| finding.kind == Kind::Undecodable)
            .map(|finding| finding.what.as_str())
            .collect();
        assert_eq!(
            named.len(),
            report.findings.len(),
            "nothing else is wrong: {report}"
        );
        for offsets in ["offsets 2 to 3", "offsets 6 to 7"] {
            assert!(named.iter().any(|what| what.contains(offsets)), "{report}");
        }
    }
    world.stop().await;
}

/// Apache Kafka answers the deleted record here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_timestamp_is_that_of_a_record_that_is_still_there() {
    let world = World::new(PartitionConfig {
        retention_ms: None,
        ..PartitionConfig::default()
    })
    .await;
    let now = world.env.now_ms();
    let falling: Vec<i64> = (0..10).map(|n| now - 10 * n).collect();
    world.store(&batch(Compression::None, &falling)).await;
    world
        .store(&batch(Compression::Zstd, &[now - 70, now - 50]))
        .await;
    let mut stamped = BytesMut::from(&batch(Compression::None, &[now])[..]);
    patch_append_time(&mut stamped, now - 60);
    world.store(&stamped.freeze()).await;
    assert_eq!(world.newest().await, Some((0, now)));
    // One by one; what is equally new stands first.
    for (deleted, newest) in [
        (3, (3, now - 30)),
        (5, (5, now - 50)),
        (6, (11, now - 50)),
        (12, (12, now - 60)),
    ] {
        let outcome = world
            .log
            .delete_records(vec![(Arc::clone(&world.partition), deleted)])
            .await;
        assert_eq!(outcome, [Ok(deleted)]);
        assert_eq!(world.newest().await, Some(newest), "below {deleted}");
        if deleted == 5 {
            world.log.seal_now().await;
            assert_eq!(world.newest().await, Some(newest), "below {deleted}, sealed");
        }
    }
    let outcome = world
        .log
        .delete_records(vec![(Arc::clone(&world.partition), -1)])
        .await;
    assert_eq!(outcome, [Ok(13)]);
    assert_eq!(world.newest().await, None);
    world.stop().await;
}

/// Retention reads what its headers say is old, if it was sealed lately.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_believes_records_and_not_a_header_that_says_they_are_old() {
    let world = World::new(PartitionConfig {
        retention_ms: Some(3_600_000),
        ..PartitionConfig::default()
    })
    .await;
    let now = world.env.now_ms();
    // Old, and what cannot be decoded goes by its header; then one that is fresh, under a header that is a day old.
    world.store(&batch(Compression::None, &[now - DAY])).await;
    world.log.seal_now().await;
    world.store(&undecodable(now - DAY)).await;
    world.log.seal_now().await;
    let fresh = batch(Compression::Snappy, &[now - DAY, now]);
    let start = world.store(&claiming(&fresh, now - DAY)).await;
    world.log.seal_now().await;
    world.store(&batch(Compression::None, &[now - DAY])).await;
    world.log.seal_now().await;
    let end = tokio::time::Instant::now() + PATIENCE;
    while world.partition.log_start_offset() < start {
        assert!(tokio::time::Instant::now() < end, "what is old stays");
        world.log.seal_now().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Checks of retention go by meanwhile; the log start is theirs to raise.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        world.log.seal_now().await;
    }
    assert_eq!(world.partition.log_start_offset(), start);
    let read = world
        .log
        .read(&world.partition, start, 1 << 20, true)
        .await
        .unwrap();
    assert!(read.bytes > 0, "the fresh record is there");
    world.stop().await;
}

/// librdkafka and kafkajs wait for ever at an end of the log that holds no record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_record_of_a_compacted_log_stays_and_what_cannot_be_decoded_too() {
    let config = PartitionConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 0,
        ..PartitionConfig::default()
    };
    let world = World::new(config).await;
    let now = world.env.now_ms();
    let tombstone = |key: &[u8]| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(now, Some(key), None, &[]);
        builder.build().unwrap()
    };
    world.store(&batch(Compression::None, &[now, now])).await;
    world.store(&undecodable(now)).await;
    for round in 0..3 {
        world.store(&tombstone(b"0")).await;
        let last = world.store(&tombstone(b"1")).await;
        for _ in 0..3 {
            world.log.seal_now().await;
            world.log.clean_now().await;
        }
        let (mut offset, mut seen) = (0, Vec::new());
        loop {
            let read = world
                .log
                .read(&world.partition, offset, 1 << 20, true)
                .await
                .unwrap();
            if read.records.is_empty() {
                break;
            }
            for item in drumlin_records::iter_batches(&read.records.concat()) {
                let (_, header) = item.unwrap();
                seen.push((header.base_offset, header.records_count));
                offset = header.last_offset() + 1;
            }
        }
        assert_eq!(seen.last(), Some(&(last, 1)), "round {round}: {seen:?}");
        assert!(
            seen.contains(&(2, 2)),
            "what cannot be decoded stays whole: {seen:?}"
        );
    }
    world.stop().await;
}
