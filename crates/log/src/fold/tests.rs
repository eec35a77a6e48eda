//! What a partition of a million segments asks of the store: to open, to take one more, and to find a time in.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::{Bucket, BucketOptions, Env, Operation, Reason};
use drumlin_records::{BatchBuilder, BatchHeader, Compression, patch_offset_and_epoch};

use crate::manifest::{Segment, SegmentDetail};
use crate::partition::{Partition, Sealed};
use crate::types::{Identity, LogOptions, PartitionConfig, PartitionSpec, Previous, TopicId, TopicPartition};
use crate::{AppendOptions, Log, recover};

const SEGMENTS: i64 = 1_000_000;
const FIRST_TIME: i64 = 1_600_000_000_000;
/// The one of which there is an object, in the midst of a leaf.
const PRESENT: i64 = 777_777;

fn spec() -> PartitionSpec {
    let config = PartitionConfig {
        retention_ms: None,
        ..PartitionConfig::default()
    };
    PartitionSpec {
        id: TopicPartition {
            topic: TopicId([7; 16]),
            partition: 0,
        },
        leader_epoch: 0,
        config: Arc::new(config),
    }
}

/// One record, and so one segment, a second.
fn batch(at: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(FIRST_TIME + at * 1000, None, Some(b"record"), &[]);
    let mut bytes = bytes::BytesMut::from(&builder.build().unwrap()[..]);
    patch_offset_and_epoch(&mut bytes, at, 0);
    bytes.freeze()
}

fn segment(at: i64) -> Segment {
    let bytes = batch(at);
    let crc = crc32c::crc32c(&bytes);
    Segment {
        base_offset: at,
        end_offset: at + 1,
        size: bytes.len() as u64,
        max_timestamp: FIRST_TIME + at * 1000,
        sealed_ms: FIRST_TIME + at * 1000,
        epoch: 0,
        incarnation: 1,
        unique: at as u64,
        cleaned: false,
        crc,
        detail: SegmentDetail {
            block_crcs: vec![crc],
            ..SegmentDetail::default()
        },
    }
}

/// Requests so far, but for the WAL's own.
fn requests(bucket: &Bucket) -> u64 {
    let wal = bucket.stats().get(Operation::PutNew, Reason::Wal);
    bucket.stats().requests() - wal.requests
}

async fn start(env: &Env, bucket: &Bucket, previous: Option<&Previous>) -> (Log, Previous, Arc<Partition>) {
    let recovered = recover(env, bucket, previous).await.unwrap();
    let identity = Identity {
        cluster_id: "test".into(),
        node: 1,
        incarnation: previous.map_or(1, |previous| previous.identity.incarnation + 1),
    };
    let own = Previous {
        identity: identity.clone(),
        estate: recovered.estate.clone(),
    };
    let cache = Arc::new(MemoryBlockCache::new(4 << 20));
    let options = LogOptions {
        // What is appended becomes a segment, and each is folded into the manifest: the dearest case.
        segment_min_bytes: 1,
        manifest_fold: 1,
        ..LogOptions::default()
    };
    let log = Log::start(
        env,
        bucket,
        cache,
        options,
        identity,
        Some(recovered),
        vec![spec()],
    )
    .await
    .unwrap();
    let partition = log.partition(&spec().id).unwrap();
    (log, own, partition)
}

async fn append(log: &Log, partition: &Arc<Partition>) {
    let batch = batch(0);
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline: tokio::time::Instant::now() + Duration::from_secs(30),
    };
    let header = BatchHeader::parse(&batch).unwrap();
    let appended = log.append(partition, &header, &batch, options).await.unwrap();
    appended.commit.wait().await.unwrap();
}

/// What was asked of the store.
#[derive(Debug)]
struct Cost {
    open: u64,
    find: u64,
    take: u64,
}

/// The cost of a life with so many segments.
async fn cost(segments: i64) -> Cost {
    let env = Env::real();
    let bucket = Bucket::open("memory:", &env, &BucketOptions::default()).unwrap();
    let (log, first, partition) = start(&env, &bucket, None).await;
    let present = PRESENT.min(segments - 1);
    let key = segment(present).key(&spec().id);
    bucket
        .put(&key, vec![batch(present)], Reason::Segment)
        .await
        .unwrap();
    {
        let mut inner = partition.lock();
        (inner.log_end, inner.high_watermark, inner.sealed_end) = (segments, segments, segments);
        inner.sealed = Arc::new(Sealed {
            added: (0..segments).map(|at| Arc::new(segment(at))).collect(),
            ..Sealed::default()
        });
    }
    // The first round folds them all.
    append(&log, &partition).await;
    log.seal_now().await;
    assert!(
        log.shutdown(tokio::time::Instant::now() + Duration::from_secs(30))
            .await
    );

    let before = requests(&bucket);
    let (log, _, partition) = start(&env, &bucket, Some(&first)).await;
    let open = requests(&bucket) - before;
    assert_eq!(partition.log_end_offset(), segments + 1);
    assert!(partition.size_bytes() > segments as u64 * 60);

    let before = requests(&bucket);
    let time = FIRST_TIME + present * 1000;
    let found = log.offset_for_timestamp(&partition, time - 999).await.unwrap();
    let found = found.expect("there is such a record");
    assert_eq!((found.offset, found.timestamp), (present, time));
    let find = requests(&bucket) - before;

    // The sweep that follows a start's first round looks through all there is, once.
    log.seal_now().await;
    append(&log, &partition).await;
    let before = requests(&bucket);
    log.seal_now().await;
    let take = requests(&bucket) - before;
    assert_eq!(partition.lock().sealed.end(), Some(segments + 2), "it is sealed");
    Cost { open, find, take }
}

#[tokio::test]
async fn a_million_segments_take_no_more_requests_than_a_few() {
    let (few, many) = (cost(3).await, cost(SEGMENTS).await);
    println!("of 3 segments: {few:?}, of {SEGMENTS}: {many:?}");
    // Of a start and of a round most requests are not this partition's.
    let open = many.open - few.open;
    assert!(open <= 5, "{open} requests more to open it");
    assert!(many.find <= 5, "{} requests to find a time", many.find);
    let take = many.take - few.take;
    assert!(take <= 5, "{take} requests more to take a segment");
}
