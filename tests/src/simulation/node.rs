//! One incarnation of the broker: everything below the network, started and ended as the broker does it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_cluster::{
    Endpoint, Fenced, Image, MetaEnd, MetaError, MetadataLog, OpenError, OpenOptions, Record, RegisterBroker,
};
use drumlin_log::{
    AppendError, AppendOptions, CommitError, Identity, Log, LogEnd, Partition, PartitionSpec, Previous,
    RecoverError, SequenceError, StartError, TopicId, TopicPartition, recover,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::chain::ChainError;
use drumlin_objects::fault::FaultStore;
use drumlin_objects::{Bucket, BucketKind, BucketOptions, Env, StoreError, TaskKind};
use drumlin_records::BatchHeader;
use tokio::time::Instant;

use super::world::World;

pub(super) const NODE_ID: i32 = 1;

/// A running broker.
pub(super) struct Node {
    pub env: Env,
    pub log: Log,
    pub meta: Arc<MetadataLog>,
    /// Its own way to the store.
    pub network: FaultStore,
    pub incarnation: u64,
}

/// Why a broker did not start.
#[derive(Debug)]
pub(super) enum NoStart {
    /// Another time it may.
    Retry(String),
    /// A newer start was faster.
    Fenced,
    /// Never, over this bucket: something that was promised is broken.
    Broken(String),
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Produced {
    /// At this offset; with `acks=all` durable.
    Acked { base: i64, incarnation: u64 },
    /// To be tried again.
    Failed,
    /// The topic is gone.
    Gone,
    /// The sequence does not follow the last one that the broker knows.
    OutOfOrder { incarnation: u64 },
}

impl From<StoreError> for NoStart {
    fn from(error: StoreError) -> Self {
        if error.is_not_found() {
            Self::Broken(error.to_string())
        } else {
            Self::Retry(error.to_string())
        }
    }
}

impl From<ChainError> for NoStart {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Store(error) => error.into(),
            error => Self::Broken(error.to_string()),
        }
    }
}

impl From<OpenError> for NoStart {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Chain(error) => error.into(),
            OpenError::Unwritable(what) => Self::Retry(what),
            error => Self::Broken(error.to_string()),
        }
    }
}

impl From<RecoverError> for NoStart {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Chain(error) => error.into(),
            RecoverError::Store(error) => error.into(),
            RecoverError::Unsteady(_) => Self::Retry(error.to_string()),
            error => Self::Broken(error.to_string()),
        }
    }
}

impl From<StartError> for NoStart {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Fenced => Self::Fenced,
            StartError::Chain(error) => error.into(),
        }
    }
}

impl From<MetaError> for NoStart {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Ended(MetaEnd::Fenced { .. }) => Self::Fenced,
            MetaError::Ended(end) => Self::Retry(end.to_string()),
            error => Self::Broken(error.to_string()),
        }
    }
}

/// The bucket as one process sees it.
pub(super) fn bucket_of(world: &World, env: &Env, network: &FaultStore) -> Bucket {
    let store = Arc::new(network.clone());
    match &world.modelled {
        Some(model) => Bucket::from_modelled(store, model, env, BucketOptions::default()),
        None => Bucket::from_store(store, BucketKind::Remote, env),
    }
}

impl Node {
    /// Starts as the broker does: metadata log, the last incarnation's remains, registration, log.
    pub(super) async fn start(world: Arc<World>, env: Env, network: FaultStore) -> Result<Self, NoStart> {
        let bucket = bucket_of(&world, &env, &network);
        let options = OpenOptions {
            probe: false,
            checkpoint_entries: world.plan.meta_checkpoint,
            ..OpenOptions::new(NODE_ID)
        };
        let session = MetadataLog::open(&env, &bucket, &options).await?;
        let meta = session.log;
        let cluster_id = meta.image().cluster_id.to_string();
        let previous = session.previous.map(|last| Previous {
            identity: Identity {
                cluster_id: cluster_id.clone(),
                node: last.node_id,
                incarnation: last.incarnation,
            },
            estate: last.from.and_then(|from| from.estate),
        });
        let recovered = recover(&env, &bucket, previous.as_ref()).await?;
        let fenced = previous.as_ref().map(|last| Fenced {
            node_id: last.identity.node,
            incarnation: last.identity.incarnation,
            fence_slot: recovered.fence_slot,
            estate: recovered.estate.clone(),
        });
        let endpoint = Endpoint {
            listener: "SIMULATED".to_owned(),
            host: "broker".to_owned(),
            port: 9092,
            security_protocol: 0,
        };
        let incarnation = meta
            .register(RegisterBroker {
                node_id: NODE_ID,
                endpoints: vec![endpoint],
                rack: None,
                previous: fenced,
            })
            .await?;
        let identity = Identity {
            cluster_id,
            node: NODE_ID,
            incarnation,
        };
        let image = meta.image();
        world.check_image(&image);
        let specs = specs(&world, &image);
        let cache = Arc::new(MemoryBlockCache::new(
            world.plan.options.memory_bytes + (64 << 10),
        ));
        let options = world.plan.options.clone();
        let led: Vec<TopicPartition> = specs.iter().map(|spec| spec.id).collect();
        let log = Log::start(&env, &bucket, cache, options, identity, Some(recovered), specs).await?;
        // Nothing here damages an object that was durable: what cannot be served was lost by the broker.
        if let Some(what) = led.iter().find_map(|id| log.partition(id)?.unavailable()) {
            env.kill();
            return Err(NoStart::Broken(what));
        }
        env.spawn(TaskKind::Test, follow_sweeps(log.clone(), Arc::clone(&meta)));
        Ok(Self {
            env,
            log,
            meta,
            network,
            incarnation,
        })
    }

    /// Serves a request in a task of the broker's; none if the broker dies over it.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.env.spawn(TaskKind::Test, request).await.ok()
    }

    /// A produce request of one batch.
    pub(super) async fn produce(&self, id: TopicPartition, batch: Bytes, all: bool) -> Option<Produced> {
        let (log, incarnation) = (self.log.clone(), self.incarnation);
        self.call(async move {
            let Some(partition) = log.partition(&id) else {
                return Produced::Failed;
            };
            let Ok(header) = BatchHeader::parse(&batch) else {
                return Produced::Gone;
            };
            let options = AppendOptions {
                expected_epoch: None,
                log_append_time: None,
                deadline: Instant::now() + Duration::from_secs(10),
            };
            let appended = match log.append(&partition, &header, &batch, options).await {
                Ok(appended) => appended,
                Err(AppendError::Deleted) => return Produced::Gone,
                Err(AppendError::Sequence(SequenceError::OutOfOrder { .. })) => {
                    return Produced::OutOfOrder { incarnation };
                }
                Err(_) => return Produced::Failed,
            };
            if all {
                match appended.commit.wait().await {
                    Ok(()) => {}
                    Err(CommitError::Fenced | CommitError::Stopped) => return Produced::Failed,
                }
            }
            Produced::Acked {
                base: appended.base_offset,
                incarnation,
            }
        })
        .await
    }

    /// Waits until it stops serving by itself; says whether that was for a newer start.
    pub(super) async fn ended(&self) -> (bool, String) {
        let (mut log, mut meta) = (self.log.ended(), self.meta.ended());
        loop {
            let end = log.borrow_and_update().clone();
            if let Some(end) = end {
                return (end == LogEnd::Fenced, end.to_string());
            }
            let end = meta.borrow_and_update().clone();
            if let Some(end) = end {
                return (matches!(end, MetaEnd::Fenced { .. }), end.to_string());
            }
            tokio::select! {
                biased;
                _ = log.changed() => {}
                _ = meta.changed() => {}
            }
        }
    }

    pub(super) fn partition(&self, id: &TopicPartition) -> Option<Arc<Partition>> {
        self.log.partition(id)
    }
}

fn specs(world: &World, image: &Image) -> Vec<PartitionSpec> {
    let mut specs = Vec::new();
    for (raw, topic) in image.topics_by_id().iter() {
        let config = world.config_of(&TopicId(*raw));
        for (number, partition) in topic.partitions.iter().enumerate() {
            specs.push(PartitionSpec {
                id: TopicPartition {
                    topic: TopicId(*raw),
                    partition: number as i32,
                },
                leader_epoch: image.leader_epoch(*partition),
                config: Arc::clone(&config),
            });
        }
    }
    specs
}

/// As the broker does: takes the tombstones of swept topics out of the metadata.
async fn follow_sweeps(log: Log, meta: Arc<MetadataLog>) {
    let mut swept = log.swept();
    loop {
        let gone = swept.borrow_and_update().clone();
        let outcome = meta
            .change(|image| {
                let known = gone.iter().filter(|id| image.tombstones.get(&id.0).is_some());
                let records = known.map(|id| Record::TopicSwept { id: id.0 }).collect();
                Ok::<_, std::convert::Infallible>(records)
            })
            .await;
        if outcome.is_err() || swept.changed().await.is_err() {
            return;
        }
    }
}
