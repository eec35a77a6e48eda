//! A topic is deleted while its records are on their way, and the broker dies.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use drumlin_log::{
    AppendOptions, Identity, Log, LogOptions, Partition, PartitionConfig, PartitionSpec, Previous, TopicId,
    TopicPartition, recover,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::fault::{FaultStore, Faults, Latency};
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::{Bucket, BucketKind, Env};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};
use tokio::time::Instant;

fn spec(topic: u8, leader_epoch: i32) -> PartitionSpec {
    PartitionSpec {
        id: TopicPartition {
            topic: TopicId([topic; 16]),
            partition: 0,
        },
        leader_epoch,
        config: Arc::new(PartitionConfig::default()),
    }
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
    let options = LogOptions::default();
    let log = Log::start(env, bucket, cache, options, identity, Some(recovered), specs);
    (log.await.unwrap(), next)
}

async fn append(log: &Log, partition: &Arc<Partition>) -> drumlin_log::Appended {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1, None, Some(b"value".as_slice()), &[]);
    let batch = builder.build().unwrap();
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline: Instant::now() + Duration::from_secs(10),
    };
    let header = BatchHeader::parse(&batch).unwrap();
    log.append(partition, &header, &batch, options).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn records_of_a_deleted_topic_above_the_checkpoint_do_not_refuse_a_start() {
    let latency = Latency::Uniform(Duration::from_millis(50)..Duration::from_millis(51));
    let faults = Faults {
        latency,
        ..Faults::none()
    };
    let store = FaultStore::with_faults(Arc::new(InMemory::new()), 1, faults);
    let env = Env::simulated(1, 1_700_000_000_000);
    let bucket = Bucket::from_store(Arc::new(store.clone()), BucketKind::Remote, &env);
    let (log, previous) = start(&env, &bucket, None, &[1, 2]).await;
    let gone = log.partition(&spec(1, 0).id).unwrap();
    let kept = log.partition(&spec(2, 0).id).unwrap();
    append(&log, &gone).await.commit.wait().await.unwrap();
    append(&log, &kept).await.commit.wait().await.unwrap();
    // On its way when the topic is deleted; committed below the entry of the round that drops the topic.
    let late = append(&log, &gone).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    log.drop_partition(gone.id());
    log.seal_now().await;
    late.commit.wait().await.unwrap();
    env.kill();

    let env = Env::simulated(2, 1_700_000_000_000);
    let bucket = Bucket::from_store(Arc::new(store), BucketKind::Remote, &env);
    let (log, _) = start(&env, &bucket, Some(&previous), &[2]).await;
    assert_eq!(log.partition(&spec(2, 0).id).unwrap().high_watermark(), 1);
}
