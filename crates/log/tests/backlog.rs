//! What happens while sealing, or deleting, is slower than the producers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_log::{
    AppendOptions, Appended, Identity, Log, LogOptions, Partition, PartitionConfig, PartitionSpec, Previous,
    TopicId, TopicPartition, recover,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::fault::{FaultStore, Faults, Latency};
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::{Bucket, BucketKind, Env};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};
use tokio::time::Instant;

const VALUE: usize = 16 << 10;

fn spec(topic: u8, leader_epoch: i32) -> PartitionSpec {
    let config = PartitionConfig {
        segment_bytes: 20 << 10,
        retention_ms: None,
        ..PartitionConfig::default()
    };
    PartitionSpec {
        id: TopicPartition {
            topic: TopicId([topic; 16]),
            partition: 0,
        },
        leader_epoch,
        config: Arc::new(config),
    }
}

fn options() -> LogOptions {
    LogOptions {
        flush_bytes: 18 << 10,
        linger_max: Duration::from_millis(5),
        puts_per_second: 100.0,
        memory_bytes: 256 << 10,
        round_bytes: 1 << 20,
        segment_min_bytes: 16 << 10,
        wal_grace: Duration::ZERO,
        segment_grace: Duration::ZERO,
        ..LogOptions::default()
    }
}

/// A remote store of which each request takes `latency`.
fn slow_store(latency: Duration) -> Arc<FaultStore> {
    let faults = Faults {
        latency: Latency::Uniform(latency..latency + Duration::from_millis(1)),
        ..Faults::none()
    };
    Arc::new(FaultStore::with_faults(Arc::new(InMemory::new()), 1, faults))
}

fn slow_bucket(env: &Env, latency: Duration) -> Bucket {
    Bucket::from_store(slow_store(latency), BucketKind::Remote, env)
}

async fn start(env: &Env, bucket: &Bucket, previous: Option<&Previous>, topics: &[u8]) -> (Log, Previous) {
    let recovered = recover(env, bucket, previous).await.unwrap();
    let incarnation = previous.map_or(1, |last| last.identity.incarnation + 1);
    let identity = Identity {
        cluster_id: "test".into(),
        node: 1,
        incarnation,
    };
    let next = Previous {
        identity: identity.clone(),
        estate: recovered.estate.clone(),
    };
    let specs = topics
        .iter()
        .map(|topic| spec(*topic, incarnation as i32))
        .collect();
    let cache = Arc::new(MemoryBlockCache::new(1 << 20));
    let log = Log::start(env, bucket, cache, options(), identity, Some(recovered), specs);
    (log.await.unwrap(), next)
}

fn batch(n: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(n as i64, None, Some(vec![n as u8; VALUE].as_slice()), &[]);
    builder.build().unwrap()
}

async fn append(log: &Log, partition: &Arc<Partition>, batch: &Bytes) -> Appended {
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline: Instant::now() + Duration::from_secs(600),
    };
    let header = BatchHeader::parse(batch).unwrap();
    log.append(partition, &header, batch, options).await.unwrap()
}

/// Appends batches `from..to`, eight at a time; returns the longest time between two acknowledgements.
async fn produce(log: &Log, partition: &Arc<Partition>, from: usize, to: usize) -> Duration {
    let mut waiting = std::collections::VecDeque::new();
    let (mut last, mut longest) = (None, Duration::ZERO);
    for n in from..to {
        waiting.push_back(append(log, partition, &batch(n)).await.commit);
        if waiting.len() >= 8 {
            waiting.pop_front().unwrap().wait().await.unwrap();
            let now = Instant::now();
            longest = longest.max(last.replace(now).map_or(Duration::ZERO, |last| now - last));
        }
    }
    for commit in waiting {
        commit.wait().await.unwrap();
    }
    longest
}

async fn assert_holds(log: &Log, partition: &Arc<Partition>, count: usize) {
    assert_eq!(partition.high_watermark(), count as i64);
    let mut offset = 0;
    while offset < count as i64 {
        let read = log.read(partition, offset, 1, true).await.unwrap();
        assert!(read.records.concat()[61..] == batch(offset as usize)[61..]);
        offset = read.next_offset;
    }
}

#[tokio::test(start_paused = true)]
async fn producers_are_slowed_to_what_sealing_can_do_and_a_crash_between_its_rounds_loses_nothing() {
    let env = Env::simulated(1, 1_700_000_000_000);
    // Segments go up two at a time: 32 KiB in 40 ms. The WAL takes several times that.
    let store = slow_store(Duration::from_millis(40));
    let bucket = Bucket::from_store(store.clone(), BucketKind::Remote, &env);
    let (log, previous) = start(&env, &bucket, None, &[1]).await;
    let partition = log.partition(&spec(1, 0).id).unwrap();
    let count = 1_000;
    let longest = produce(&log, &partition, 0, count).await;
    let metrics = log.metrics();
    assert!(metrics.throttled > 0, "it was too fast for sealing");
    assert!(longest < Duration::from_millis(500), "a pause of {longest:?}");
    assert!(metrics.rounds >= 8, "{} rounds: none was cut", metrics.rounds);
    let unsealed = metrics.unsealed_bytes;
    assert!(unsealed > 0 && unsealed <= 2 << 20, "{unsealed} bytes unsealed");
    // The process dies here: nothing of its own runs any more.
    env.kill();
    let env = Env::simulated(2, 1_700_000_100_000);
    let bucket = Bucket::from_store(store, BucketKind::Remote, &env);
    let (log, _) = start(&env, &bucket, Some(&previous), &[1]).await;
    let partition = log.partition(&spec(1, 0).id).unwrap();
    assert_holds(&log, &partition, count).await;
    log.seal_now().await;
    assert_holds(&log, &partition, count).await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_shrinks_by_itself_once_producers_slow_down() {
    let env = Env::simulated(3, 1_700_000_000_000);
    let bucket = slow_bucket(&env, Duration::from_millis(40));
    let (log, _) = start(&env, &bucket, None, &[1]).await;
    let partition = log.partition(&spec(1, 0).id).unwrap();
    produce(&log, &partition, 0, 500).await;
    let after_load = log.metrics();
    assert!(after_load.unsealed_bytes > 1 << 20);
    // A tenth of what sealing can do.
    for n in 500..560 {
        tokio::time::sleep(Duration::from_millis(160)).await;
        append(&log, &partition, &batch(n))
            .await
            .commit
            .wait()
            .await
            .unwrap();
    }
    let now = log.metrics();
    assert!(
        now.unsealed_bytes <= 1 << 20,
        "{} bytes unsealed",
        now.unsealed_bytes
    );
    assert!(now.rounds > after_load.rounds);
}

#[tokio::test(start_paused = true)]
async fn the_deletion_of_a_large_topic_holds_up_neither_sealing_nor_producers() {
    let env = Env::simulated(4, 1_700_000_000_000);
    let bucket = slow_bucket(&env, Duration::from_millis(20));
    let (log, _) = start(&env, &bucket, None, &[1, 2]).await;
    let (large, other) = (spec(1, 0).id, spec(2, 0).id);
    produce(&log, &log.partition(&large).unwrap(), 0, 2_000).await;
    log.seal_now().await;
    let objects = |bucket: Bucket| async move {
        let listed = bucket.list("topic", None, drumlin_objects::Reason::Sweep).await;
        listed.unwrap().len()
    };
    let before = objects(bucket.clone()).await;
    assert!(before >= 2_000);
    let mut swept = log.swept();
    log.drop_partition(large);
    // The round that leaves the topic out.
    let before_drop = log.metrics().rounds;
    while log.metrics().rounds == before_drop {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let partition = log.partition(&other).unwrap();
    let (mut produced, rounds) = (0, log.metrics().rounds);
    let began = Instant::now();
    while !swept.borrow_and_update().contains(&large.topic) {
        let longest = produce(&log, &partition, produced, produced + 200).await;
        assert!(longest < Duration::from_millis(500), "a pause of {longest:?}");
        produced += 200;
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "the topic is still there"
        );
    }
    let sealed = log.metrics().rounds - rounds;
    assert!(sealed >= 2, "{sealed} rounds while the topic was deleted");
    assert_holds(&log, &partition, produced).await;
    let named = log.metrics().pending_deletions;
    assert!(named < 2_000, "{named} deletions wait");
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_once_all_that_was_appended_lies_below_it() {
    let env = Env::simulated(5, 1_700_000_000_000);
    let bucket = slow_bucket(&env, Duration::from_millis(200));
    let (log, _) = start(&env, &bucket, None, &[1]).await;
    let partition = log.partition(&spec(1, 0).id).unwrap();
    for n in 0..10 {
        // What acks=1 answers is told before this commit.
        let appended = append(&log, &partition, &batch(n)).await;
        assert!(appended.commit.outcome().is_none());
        partition.wait_appended_visible().await.unwrap();
        assert_eq!(partition.high_watermark(), appended.base_offset + 1);
    }
    let last = append(&log, &partition, &batch(10)).await.base_offset;
    let deleted = log.delete_records(vec![(Arc::clone(&partition), -1)]).await;
    assert_eq!(deleted, [Ok(last + 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_deleted_topics_alone_goes_like_any_other() {
    let env = Env::simulated(6, 1_700_000_000_000);
    let bucket = slow_bucket(&env, Duration::from_millis(40));
    let (log, _) = start(&env, &bucket, None, &[1]).await;
    let id = spec(1, 0).id;
    produce(&log, &log.partition(&id).unwrap(), 0, 300).await;
    assert!(log.metrics().unsealed_bytes > 1 << 20, "several rounds are due");
    log.drop_partition(id);
    let mut swept = log.swept();
    let gone = swept.wait_for(|topics| topics.contains(&id.topic));
    let gone = tokio::time::timeout(Duration::from_secs(300), gone);
    assert!(gone.await.is_ok(), "the topic's objects are still there");
    let unsealed = async {
        while log.metrics().unsealed_bytes > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let unsealed = tokio::time::timeout(Duration::from_secs(300), unsealed);
    assert!(unsealed.await.is_ok(), "WAL objects without a partition stay");
}
