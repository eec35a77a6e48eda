//! From a configuration to a running broker's parts, in order, and every reason why that may fail.
//!
//! Each error is one sentence that says what to do; the binary prints it and exits.

use std::sync::Arc;
use std::time::Duration;

use drumlin_cluster::{
    Endpoint, Fenced, Image, MetaEnd, MetaError, MetadataLog, OpenError, OpenOptions, RegisterBroker,
};
use drumlin_log::{
    CleanerOptions, Identity, Log, LogOptions, Previous, RecoverError, Recovered, TopicId, TopicPartition,
    recover,
};
use drumlin_objects::cache::{BlockCache, CacheConfig, HybridBlockCache};
use drumlin_objects::fault::{FaultStore, Faults, Latency};
use drumlin_objects::local::LocalStore;
use drumlin_objects::object_store::ObjectStore;
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::{Bucket, BucketKind, BucketOptions, Env, LockError, LockGuard};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::broker::ListenerAddress;
use crate::config::{BrokerConfig, HostPort, ListenerConfig};
use crate::net::listener::{Accepting, Bound, SocketOptions, bind};
use crate::patience::Patience;
use crate::topics::specs;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `store.url` cannot be used.
    #[error(transparent)]
    Bucket(#[from] drumlin_objects::OpenError),
    /// Faults on a store that cannot have them.
    #[error("drumlin.test.store.* work on memory: and file: stores only")]
    NoFaults,
    /// The local directory is another process's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store did not answer in time, or not what it should.
    #[error(
        "the store {url} could not be used within {} s (store.start.timeout.ms): {reason}; check store.url, \
         credentials and the network, and start again", .waited.as_secs()
    )]
    Unusable {
        /// `store.url`.
        url: String,
        /// How long it was tried.
        waited: Duration,
        /// Its last answer.
        reason: String,
    },
    /// The metadata log could not be opened.
    #[error(transparent)]
    Metadata(#[from] OpenError),
    /// This broker could not be registered.
    #[error("this broker could not be registered: {0}")]
    Register(#[from] MetaError),
    /// What the last start of this node left could not be taken over.
    #[error("the log of the last start could not be taken over: {0}")]
    Recover(#[from] RecoverError),
    /// The log did not start.
    #[error(transparent)]
    Log(#[from] drumlin_log::StartError),
    /// A newer start on the same bucket was faster.
    #[error("{0}")]
    Fenced(MetaEnd),
    /// An address cannot be listened on.
    #[error("cannot listen on {name}://{address}: {reason}; change `listeners`, or stop what is there")]
    Listen {
        /// The listener.
        name: String,
        /// Its address.
        address: HostPort,
        /// The system's words.
        reason: std::io::Error,
    },
}

/// Opens the store of a configuration. Nothing is asked of it yet.
pub fn open_bucket(config: &BrokerConfig, env: &Env) -> Result<Bucket, StartError> {
    let options = BucketOptions {
        local_buffered: config.store.buffered,
        ..BucketOptions::default()
    };
    if config.store.fault_seed.is_some() || !config.store.put_delay.is_zero() {
        return faulty_bucket(config, env, options);
    }
    Ok(Bucket::open(&config.store.url, env, &options)?)
}

/// `drumlin.test.store.faults` and `drumlin.test.store.put.ms`: a store that misbehaves, for tests and benchmarks.
fn faulty_bucket(config: &BrokerConfig, env: &Env, options: BucketOptions) -> Result<Bucket, StartError> {
    let seed = config.store.fault_seed;
    let mut faults = if seed.is_some() {
        Faults::stormy()
    } else {
        Faults::none()
    };
    let delay = config.store.put_delay;
    if !delay.is_zero() {
        faults.latency = Latency::Uniform(delay..delay + Duration::from_millis(1));
    }
    let wrap = |inner: Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
        Arc::new(FaultStore::with_faults(inner, seed.unwrap_or(0), faults.clone()))
    };
    warn!(
        ?seed,
        ?delay,
        "the store is made to misbehave, as the configuration asks for"
    );
    if let Some(directory) = &config.store.local_dir {
        let local = Arc::new(LocalStore::open(directory, env, config.store.buffered)?);
        return Ok(Bucket::from_local(wrap(local.clone()), local, env, options));
    }
    if config.store.url.starts_with("memory:") {
        let store = wrap(Arc::new(InMemory::new()));
        // As a remote store: what is measured is a distant one.
        return Ok(Bucket::from_store_with(store, BucketKind::Remote, env, options));
    }
    Err(StartError::NoFaults)
}

/// A listener that is bound, and what its clients are told.
pub struct Listening {
    /// Its configuration.
    pub config: ListenerConfig,
    /// Its socket; none in a simulation.
    pub bound: Option<Bound>,
    /// The advertised address.
    pub advertised: HostPort,
}

impl Listening {
    /// Takes connections from now on. Returns the addresses for those who ask, and the socket.
    pub fn accept(self, options: SocketOptions) -> Result<(ListenerAddress, Option<Accepting>), StartError> {
        let Listening {
            config,
            bound,
            advertised,
        } = self;
        let address = ListenerAddress {
            name: config.name.clone(),
            bound: bound.as_ref().map(|bound| bound.address),
            advertised,
        };
        let accepting = bound.map(|bound| bound.listen(options)).transpose();
        let accepting = accepting.map_err(|reason| StartError::Listen {
            name: config.name.clone(),
            address: config.bind.clone(),
            reason,
        })?;
        Ok((address, accepting))
    }
}

/// What a start has made.
pub struct Started {
    /// The local directory's lock.
    pub lock: LockGuard,
    /// Bound listeners, nothing accepted yet.
    pub listening: Vec<Listening>,
    /// The metadata log, this broker registered in it.
    pub metadata: Arc<MetadataLog>,
    /// The log with its partitions open.
    pub log: Log,
    /// The block cache.
    pub cache: Arc<HybridBlockCache>,
    /// This registration.
    pub identity: Identity,
    /// Whether the bucket was empty before.
    pub created: bool,
}

/// Starts everything below the network, in this order: lock, sockets, metadata, the last start's remains,
/// registration, log.
pub async fn start(env: &Env, config: &BrokerConfig, bucket: &Bucket) -> Result<Started, StartError> {
    let lock = bucket.lock_local()?;
    let listening = listen(env, config).await?;
    let patience = Patience::new(config, bucket, env);
    patience.reach().await?;
    patience
        .tell(
            "finding out how bodies are checked on their way",
            bucket.choose_body_check(),
        )
        .await;
    // A store that is made to misbehave would not pass, and a simulated one is known.
    let options = OpenOptions {
        probe: !env.is_simulated() && config.store.fault_seed.is_none(),
        ..OpenOptions::new(config.node_id)
    };
    let open = || MetadataLog::open(env, bucket, &options);
    let session = patience
        .insist("opening the metadata log", open, OpenError::store_error)
        .await?;
    let metadata = session.log;
    let cluster_id = metadata.image().cluster_id.to_string();
    let previous = session.previous.map(|last| Previous {
        identity: Identity {
            cluster_id: cluster_id.clone(),
            node: last.node_id,
            incarnation: last.incarnation,
        },
        estate: last.from.and_then(|from| from.estate),
    });
    let began = Instant::now();
    let mut recovered = match &previous {
        Some(last) => {
            let take = || recover(env, bucket, Some(last));
            let what = "taking over from the last start";
            Some(patience.insist(what, take, RecoverError::store_error).await?)
        }
        None => None,
    };
    if let Some(last) = &previous {
        info!(incarnation = last.identity.incarnation, took = ?began.elapsed(), "took over from the last start");
    }
    let registering = register(
        config,
        &metadata,
        &listening,
        previous.as_ref(),
        recovered.as_ref(),
    );
    let incarnation = patience.tell("registering this broker", registering).await?;
    let identity = Identity {
        cluster_id,
        node: config.node_id,
        incarnation,
    };
    let cache = Arc::new(HybridBlockCache::new(cache_config(env, config, bucket)));
    let image = metadata.image();
    if let Some(recovered) = &mut recovered {
        let mut alive = image.live_incarnations().map(|(alive, _)| alive);
        recovered.sole = alive.all(|alive| alive == incarnation);
    }
    let starting = Log::start(
        env,
        bucket,
        Arc::clone(&cache) as Arc<dyn BlockCache>,
        log_options(env, config, bucket),
        identity.clone(),
        recovered,
        specs(&image, config.node_id, config),
    );
    let log = patience.tell("opening the partitions", starting).await?;
    drop_tombstones(&log, &image);
    Ok(Started {
        lock,
        listening,
        metadata,
        log,
        cache,
        identity,
        created: session.created,
    })
}

/// Topics that were deleted, and of which objects may be left: the last start may have ended before they were removed.
fn drop_tombstones(log: &Log, image: &Image) {
    for (topic, tombstone) in image.tombstones.iter() {
        for partition in 0..tombstone.partitions {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let topic = TopicId(*topic);
            log.drop_partition(TopicPartition { topic, partition });
        }
    }
}

async fn register(
    config: &BrokerConfig,
    metadata: &MetadataLog,
    listening: &[Listening],
    previous: Option<&Previous>,
    recovered: Option<&Recovered>,
) -> Result<u64, StartError> {
    let endpoints = listening
        .iter()
        .map(|listening| Endpoint {
            listener: listening.config.name.clone(),
            host: listening.advertised.host.clone(),
            port: listening.advertised.port,
            // Only PLAINTEXT listeners are opened as yet.
            security_protocol: 0,
        })
        .collect();
    let previous = previous.zip(recovered).map(|(last, recovered)| Fenced {
        node_id: last.identity.node,
        incarnation: last.identity.incarnation,
        fence_slot: recovered.fence_slot,
        estate: recovered.estate.clone(),
    });
    let broker = RegisterBroker {
        node_id: config.node_id,
        endpoints,
        rack: config.rack.clone(),
        previous,
    };
    metadata.register(broker).await.map_err(|error| match error {
        MetaError::Ended(end @ MetaEnd::Fenced { .. }) => StartError::Fenced(end),
        other => StartError::Register(other),
    })
}

async fn listen(env: &Env, config: &BrokerConfig) -> Result<Vec<Listening>, StartError> {
    let mut all = Vec::new();
    for listener in &config.listeners.listeners {
        if env.is_simulated() {
            let advertised = listener.advertised(listener.bind.port);
            all.push(Listening {
                config: listener.clone(),
                bound: None,
                advertised,
            });
            continue;
        }
        let bound = bind(listener).await.map_err(|reason| StartError::Listen {
            name: listener.name.clone(),
            address: listener.bind.clone(),
            reason,
        })?;
        let advertised = listener.advertised(bound.address.port());
        all.push(Listening {
            config: listener.clone(),
            bound: Some(bound),
            advertised,
        });
    }
    Ok(all)
}

/// Socket options of a configuration.
pub fn socket_options(config: &BrokerConfig) -> SocketOptions {
    // Kafka's default of 100 KiB would only hold back what the system tunes by itself: given sizes count, the default
    // does not.
    let given = |name: &str, bytes: Option<usize>| bytes.filter(|_| config.live.origin(name).is_some());
    SocketOptions {
        send_buffer: given("socket.send.buffer.bytes", config.network.send_buffer),
        receive_buffer: given("socket.receive.buffer.bytes", config.network.receive_buffer),
        backlog: i32::try_from(config.network.backlog).unwrap_or(i32::MAX),
    }
}

fn cache_config(env: &Env, config: &BrokerConfig, bucket: &Bucket) -> CacheConfig {
    let disk = bucket.kind() == BucketKind::Remote && !env.is_simulated();
    CacheConfig {
        memory_bytes: config.cache.memory.as_usize(),
        disk_bytes: config.cache.disk.as_usize() / 2,
        dir: disk.then(|| config.cache.dir.join("blocks")),
    }
}

fn log_options(env: &Env, config: &BrokerConfig, bucket: &Bucket) -> LogOptions {
    let disk = bucket.kind() == BucketKind::Remote && !env.is_simulated() && config.cache.disk.0 > 0;
    let local = bucket.kind() == BucketKind::Local;
    let defaults = LogOptions::default();
    LogOptions {
        flush_bytes: config.wal.flush_bytes.as_usize(),
        linger_max: config.wal.linger_max,
        puts_per_second: f64::from(config.wal.puts_per_second),
        window: config.wal.window,
        unflushed_max_bytes: config.wal.unflushed_max.as_usize(),
        memory_bytes: config.wal.hot_memory.as_usize(),
        round_interval: config.seal.round,
        round_bytes: config.seal.round_bytes.0,
        round_objects: if local { 20_000 } else { defaults.round_objects },
        segment_min_bytes: config.seal.segment_min_bytes.0,
        retention_interval: config.seal.retention_check,
        producer_expiration: config.producer_id_expiration,
        cold_inflight_bytes: config.cache.cold_inflight.as_usize(),
        // What is read ahead must last in the cache until it is used, beside that of other readers.
        read_ahead_max: (config.cache.memory.as_usize() / 16).clamp(1 << 20, 16 << 20),
        cache_dir: disk.then(|| config.cache.dir.clone()),
        cache_disk_bytes: config.cache.disk.0 / 2,
        cleaner: CleanerOptions {
            enabled: config.cleaner.enabled,
            interval: config.cleaner.backoff,
            map_bytes: config.cleaner.dedupe_buffer.as_usize(),
            io_bytes_per_second: config.cleaner.io_max,
            ..defaults.cleaner
        },
        ..defaults
    }
}
