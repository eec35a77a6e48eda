//! What ends a log beside its chain: a failed fsync wherever it happens, and a task that panicked.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_log::{
    AppendError, AppendOptions, Identity, Log, LogEnd, LogOptions, PartitionConfig, PartitionSpec, TopicId,
    TopicPartition,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::fault::{FaultStore, Faults};
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::{Bucket, BucketKind, Env, Failure, TaskKind};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITION: TopicPartition = TopicPartition {
    topic: TopicId([7; 16]),
    partition: 0,
};

async fn start(env: &Env, store: &FaultStore) -> Log {
    let bucket = Bucket::from_store(Arc::new(store.clone()), BucketKind::Local, env);
    let identity = Identity {
        cluster_id: "test".into(),
        node: 1,
        incarnation: 1,
    };
    let spec = PartitionSpec {
        id: PARTITION,
        leader_epoch: 0,
        config: Arc::new(PartitionConfig::default()),
    };
    let cache = Arc::new(MemoryBlockCache::new(1 << 20));
    let options = LogOptions::default();
    Log::start(env, &bucket, cache, options, identity, None, vec![spec])
        .await
        .unwrap()
}

async fn append(log: &Log) -> Result<drumlin_log::Appended, AppendError> {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1_700_000_000_000, None, Some(b"value"), &[]);
    let batch: Bytes = batch.build().unwrap();
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline: tokio::time::Instant::now() + PATIENCE,
    };
    let partition = log.partition(&PARTITION).unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    log.append(&partition, &header, &batch, options).await
}

async fn ended(log: &Log) -> LogEnd {
    let mut ended = log.ended();
    let waiting = ended.wait_for(Option::is_some);
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap()
        .clone()
        .unwrap()
}

#[tokio::test]
async fn a_failed_fsync_while_sealing_ends_the_log() {
    let env = Env::real();
    let store = FaultStore::with_faults(Arc::new(InMemory::new()), 1, Faults::none());
    let log = start(&env, &store).await;
    append(&log).await.unwrap().commit.wait().await.unwrap();
    store.change(|faults| faults.fsync_failed = 1.0);
    let sealing = log.clone();
    tokio::spawn(async move { sealing.seal_now().await });
    let end = ended(&log).await;
    assert!(
        matches!(&end, LogEnd::Failed(why) if why.contains("fsync failed")),
        "{end}"
    );
    assert!(matches!(*env.failed().borrow(), Some(Failure::Fsync { .. })));
    assert_eq!(append(&log).await.unwrap_err(), AppendError::Stopped);
    env.kill();
}

#[tokio::test]
async fn what_waits_for_a_commit_fails_when_a_task_panics() {
    let env = Env::real();
    let store = FaultStore::with_faults(Arc::new(InMemory::new()), 1, Faults::none());
    let log = start(&env, &store).await;
    // The store refuses all puts, so that the commit waits.
    store.change(|faults| faults.full = true);
    let waiting = append(&log).await.unwrap().commit;
    let failure = Failure::Panicked {
        task: TaskKind::LogKeeper,
        what: "as a test wants".to_owned(),
    };
    env.fail(failure);
    let outcome = tokio::time::timeout(PATIENCE, waiting.wait()).await.unwrap();
    assert!(outcome.is_err());
    let end = ended(&log).await;
    assert!(
        matches!(&end, LogEnd::Failed(why) if why.contains("task log-keeper panicked")),
        "{end}"
    );
    env.kill();
}
