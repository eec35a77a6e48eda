//! A partition's life over a memory store and a local directory: append, commit, read, seal, restart.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_log::{
    AppendOptions, Identity, Log, LogOptions, Partition, PartitionConfig, PartitionSpec, Previous, TopicId,
    TopicPartition, recover,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::{Bucket, BucketOptions, Env};
use drumlin_records::{BatchBuilder, BatchHeader, Compression, iter_batches};

const TOPIC: TopicId = TopicId([7; 16]);

fn id(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC,
        partition,
    }
}

fn options() -> LogOptions {
    LogOptions {
        flush_bytes: 64 << 10,
        segment_min_bytes: 200 << 10,
        memory_bytes: 128 << 10,
        manifest_fold: 3,
        manifest_root_segments: 2,
        manifest_leaf_segments: 4,
        bundle_merge_count: 3,
        ..LogOptions::default()
    }
}

struct Node {
    env: Env,
    bucket: Bucket,
    previous: Option<Previous>,
    incarnation: u64,
    epoch: i32,
    config: Arc<PartitionConfig>,
}

impl Node {
    fn new(bucket: Bucket, env: Env) -> Self {
        let config = PartitionConfig {
            segment_bytes: 256 << 10,
            retention_ms: None,
            ..PartitionConfig::default()
        };
        Self {
            env,
            bucket,
            previous: None,
            incarnation: 0,
            epoch: -1,
            config: Arc::new(config),
        }
    }

    async fn start(&mut self, partitions: i32) -> Log {
        let recovered = recover(&self.env, &self.bucket, self.previous.as_ref())
            .await
            .unwrap();
        self.incarnation += 1;
        self.epoch += 1;
        let identity = Identity {
            cluster_id: "test".into(),
            node: 1,
            incarnation: self.incarnation,
        };
        self.previous = Some(Previous {
            identity: identity.clone(),
            estate: recovered.estate.clone(),
        });
        let specs = (0..partitions)
            .map(|p| PartitionSpec {
                id: id(p),
                leader_epoch: self.epoch,
                config: self.config.clone(),
            })
            .collect();
        let cache = Arc::new(MemoryBlockCache::new(4 << 20));
        Log::start(
            &self.env,
            &self.bucket,
            cache,
            options(),
            identity,
            Some(recovered),
            specs,
        )
        .await
        .unwrap()
    }
}

fn batch(records: usize, size: usize, tag: u64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for n in 0..records {
        let value = vec![(tag as u8).wrapping_add(n as u8); size];
        builder.push(1_000_000 + tag as i64, None, Some(value.as_slice()), &[]);
    }
    builder.build().unwrap()
}

async fn append(log: &Log, partition: &Arc<Partition>, batch: &Bytes) -> drumlin_log::Appended {
    let header = BatchHeader::parse(batch).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline,
    };
    log.append(partition, &header, batch, options).await.unwrap()
}

/// Reads all from the log start: (base offset, epoch) of each batch, and the payloads after their offsets and epochs.
async fn read_all(log: &Log, partition: &Arc<Partition>) -> Vec<(i64, Vec<u8>)> {
    let mut offset = partition.log_start_offset();
    let mut found = Vec::new();
    loop {
        let read = log.read(partition, offset, 300 << 10, true).await.unwrap();
        if read.records.is_empty() {
            assert_eq!(offset, read.high_watermark);
            return found;
        }
        let bytes: Vec<u8> = read.records.concat();
        assert_eq!(bytes.len(), read.bytes);
        for item in iter_batches(&bytes) {
            let (at, header) = item.unwrap();
            assert!(header.last_offset() >= offset, "starts at or holds the offset");
            found.push((
                header.base_offset,
                bytes[at + 16..at + header.size_in_bytes()].to_vec(),
            ));
            offset = header.last_offset() + 1;
        }
    }
}

async fn story(mut node: Node) {
    let mut expected: Vec<Vec<(i64, Vec<u8>)>> = vec![Vec::new(); 3];
    let mut tag = 0u64;
    let mut log = node.start(3).await;
    for life in 0..5 {
        for step in 0..6 {
            let mut commits = Vec::new();
            for (p, expected) in expected.iter_mut().enumerate() {
                let partition = log.partition(&id(p as i32)).unwrap();
                // The first partition gets enough for segments, the others for bundles.
                let count = if p == 0 { 30 } else { 2 };
                for _ in 0..count {
                    tag += 1;
                    let batch = batch(1 + (tag % 3) as usize, 3000, tag);
                    let appended = append(&log, &partition, &batch).await;
                    let base = expected.last().map_or(0, |(base, bytes): &(i64, Vec<u8>)| {
                        base + i64::from(i32::from_be_bytes(bytes[7..11].try_into().unwrap())) + 1
                    });
                    assert_eq!(appended.base_offset, base);
                    expected.push((base, batch[16..].to_vec()));
                    commits.push(appended.commit);
                }
            }
            for commit in commits {
                commit.wait().await.unwrap();
            }
            if step % 2 == 1 {
                log.seal_now().await;
            }
        }
        for (p, expected) in expected.iter_mut().enumerate() {
            let partition = log.partition(&id(p as i32)).unwrap();
            assert!(
                read_all(&log, &partition).await == *expected,
                "life {life}, partition {p}"
            );
            for (base, _) in expected.iter().step_by(7) {
                let read = log.read(&partition, *base, 1, true).await.unwrap();
                let header = BatchHeader::parse(&read.records.concat()).unwrap();
                assert_eq!(header.base_offset, *base);
            }
            let found = log
                .offset_for_timestamp(&partition, 1_000_001)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(found.offset, 0);
            let latest = log.max_timestamp(&partition).await.unwrap().unwrap();
            assert!(latest.offset >= expected.last().unwrap().0);
        }
        if life % 2 == 0 {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            assert!(log.shutdown(deadline).await);
        }
        log = node.start(3).await;
        for (p, expected) in expected.iter_mut().enumerate() {
            let partition = log.partition(&id(p as i32)).unwrap();
            assert!(
                read_all(&log, &partition).await == *expected,
                "after life {life}, partition {p}"
            );
        }
    }
    let partition = log.partition(&id(0)).unwrap();
    let middle = expected[0][expected[0].len() / 2].0;
    let outcome = log.delete_records(vec![(partition.clone(), middle)]).await;
    assert_eq!(outcome, vec![Ok(middle)]);
    let left: Vec<_> = expected[0]
        .iter()
        .filter(|(base, _)| *base >= middle)
        .cloned()
        .collect();
    assert!(read_all(&log, &partition).await == left);
    log.seal_now().await;
    let log = node.start(3).await;
    let partition = log.partition(&id(0)).unwrap();
    assert_eq!(partition.log_start_offset(), middle);
    assert!(read_all(&log, &partition).await == left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_stays_through_sealing_and_restarts_in_memory() {
    let env = Env::real();
    let bucket = Bucket::open("memory:", &env, &BucketOptions::default()).unwrap();
    story(Node::new(bucket, env)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_stays_through_sealing_and_restarts_on_disk() {
    let env = Env::real();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let bucket = Bucket::open(&url, &env, &BucketOptions::default()).unwrap();
    story(Node::new(bucket, env)).await;
}
