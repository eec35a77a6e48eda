//! What the handlers of one broker work on, and the few operations that several of them need.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use drumlin_cluster::{Image, MetadataLog, Record, ResourceKind};
use drumlin_log::Log;
use drumlin_objects::{Bucket, Env};
use drumlin_wire::Str;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use crate::config::BrokerConfig;
use crate::error_code::{ErrorCode, Told};
use crate::groups::Groups;
use crate::metrics::Metrics;
use crate::names;
use crate::sessions::FetchSessions;
use crate::topics::Topics;

/// Memory of large requests in decoded form and of their answers, of all connections together. Requests of clients that
/// do not do it on purpose are far from [`LARGE_FROM`].
const LARGE_BYTES: usize = 128 << 20;
const LARGE_FROM: usize = 4 << 20;

/// Topics that one request may create by naming them.
const AUTO_CREATE_AT_ONCE: usize = 1_000;

/// How clients reach a broker.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its node.
    pub node_id: i32,
    /// Advertised host.
    pub host: Str,
    /// Advertised port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<Str>,
}

/// One broker.
pub struct Shared {
    /// Clock, randomness, tasks.
    pub env: Env,
    /// The object store.
    pub bucket: Bucket,
    /// The records.
    pub log: Log,
    /// The cluster's metadata.
    pub metadata: Arc<MetadataLog>,
    /// Open topics.
    pub topics: Topics,
    /// Coordinators of groups.
    pub groups: Groups,
    /// Fetch sessions.
    pub sessions: FetchSessions,
    /// Counters.
    pub metrics: Metrics,
    /// This broker's node.
    pub node_id: i32,
    config: RwLock<Arc<BrokerConfig>>,
    fetch_max_bytes: AtomicUsize,
    large: Arc<Semaphore>,
    producer_ids: tokio::sync::Mutex<std::ops::Range<i64>>,
    applied: Mutex<u64>,
}

impl Shared {
    /// Puts the parts together and opens the image's topics.
    pub fn new(
        env: &Env,
        bucket: &Bucket,
        log: Log,
        metadata: Arc<MetadataLog>,
        config: BrokerConfig,
    ) -> Arc<Self> {
        let shared = Self {
            env: env.clone(),
            bucket: bucket.clone(),
            topics: Topics::new(config.node_id, log.clone()),
            groups: Groups::new(env, &log, bucket, &metadata.image(), &config),
            log,
            metadata,
            sessions: FetchSessions::new(env, config.requests.fetch_sessions),
            metrics: Metrics::default(),
            node_id: config.node_id,
            fetch_max_bytes: AtomicUsize::new(config.requests.fetch_max.as_usize()),
            config: RwLock::new(Arc::new(config)),
            large: Arc::new(Semaphore::new(LARGE_BYTES)),
            producer_ids: tokio::sync::Mutex::new(0..0),
            applied: Mutex::new(0),
        };
        shared.follow(&shared.image());
        Arc::new(shared)
    }

    /// The newest committed image.
    pub fn image(&self) -> Arc<Image> {
        self.metadata.image()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `fetch.max.bytes` in force.
    pub fn fetch_max_bytes(&self) -> usize {
        self.fetch_max_bytes.load(Ordering::Relaxed)
    }

    /// Brings configuration and open topics up to an image. Idempotent; an older image changes nothing.
    pub fn follow(&self, image: &Arc<Image>) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if image.position < *applied {
            return;
        }
        *applied = image.position;
        let old = self.config();
        let node = self.node_id.to_string();
        let overrides = |name: &str| {
            image
                .configs(ResourceKind::Broker, name)
                .cloned()
                .unwrap_or_default()
        };
        let (cluster, broker) = (overrides(""), overrides(&node));
        if *old.live.cluster() != cluster || *old.live.broker() != broker {
            match BrokerConfig::new(old.live.altered(cluster, broker)) {
                Ok(new) => {
                    self.fetch_max_bytes
                        .store(new.requests.fetch_max.as_usize(), Ordering::Relaxed);
                    *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                }
                Err(error) => warn!(%error, "an altered config of the broker cannot be used"),
            }
        }
        let config = self.config();
        if let Some(applied) = self.topics.apply(image, &config) {
            self.groups.follow(image, &self.topics, &applied, &config);
        }
    }

    /// Changes the metadata and brings this broker up to the change before it returns, so that what was created can be
    /// used at once. Gives the image that holds the change.
    pub async fn change(
        &self,
        timeout: Duration,
        decide: impl FnOnce(&Image) -> Result<Vec<Record>, Told>,
    ) -> Result<Arc<Image>, Told> {
        match tokio::time::timeout(timeout, self.metadata.change(decide)).await {
            Ok(Ok(_)) => {
                let image = self.image();
                self.follow(&image);
                Ok(image)
            }
            Ok(Err(error)) => Err(error.into()),
            // It may yet be made.
            Err(_) => Err(Told::new(
                ErrorCode::RequestTimedOut,
                "the metadata log did not answer in time",
            )),
        }
    }

    /// Waits until a request of about `bytes` in decoded form may be worked on; it may for as long as the permit lives.
    pub async fn admit_large(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes < LARGE_FROM {
            return None;
        }
        let bytes = u32::try_from(bytes.min(LARGE_BYTES)).unwrap_or(u32::MAX);
        // Never closed; were it, the bound would be lost and nothing else.
        Arc::clone(&self.large).acquire_many_owned(bytes).await.ok()
    }

    /// The wait that a client may ask for with `timeout_ms`, within the broker's own.
    pub fn patience(&self, timeout_ms: i32) -> Duration {
        let asked = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        asked.min(Duration::from_secs(300))
    }

    /// Brokers as clients of a listener reach them. One that has no listener of that name is left out.
    pub fn endpoints(&self, image: &Image, listener: &str) -> Vec<Endpoint> {
        image
            .brokers
            .values()
            .filter_map(|broker| {
                let found = broker
                    .endpoints
                    .iter()
                    .find(|endpoint| endpoint.listener == listener);
                // A simulated connection comes through no listener.
                let endpoint = found.or_else(|| broker.endpoints.first())?;
                Some(Endpoint {
                    node_id: broker.node_id,
                    host: Str::from(endpoint.host.as_str()),
                    port: i32::from(endpoint.port),
                    rack: broker.rack.as_deref().map(Str::from),
                })
            })
            .collect()
    }

    /// Creates those of the named topics that are missing, if the configuration says so. Gives the image afterwards.
    pub async fn auto_create<'a>(&self, asked: impl Iterator<Item = &'a Str>) -> Arc<Image> {
        let image = self.image();
        let config = self.config();
        if !config.topics.auto_create {
            return image;
        }
        let missing: BTreeSet<&str> = asked
            .map(Str::as_str)
            .filter(|name| {
                // Internal topics are created when they are needed, and not as others are.
                image.topic(name).is_none() && names::check(name).is_ok() && !names::is_internal(name)
            })
            .take(AUTO_CREATE_AT_ONCE)
            .collect();
        if missing.is_empty() {
            return image;
        }
        let partitions = u32::try_from(config.topics.num_partitions).unwrap_or(1).max(1);
        let created = self
            .change(config.requests.timeout, |image| {
                let mut names_taken = Collisions::default();
                let mut records = Vec::new();
                for name in &missing {
                    if image.topic(name).is_some() || names_taken.check(image, name).is_err() {
                        continue;
                    }
                    records.push(Record::TopicCreated {
                        name: (*name).to_owned(),
                        id: self.new_topic_id(image),
                        partitions,
                        leader: self.node_id,
                        configs: Vec::new(),
                    });
                }
                Ok(records)
            })
            .await;
        match created {
            Ok(image) => {
                self.metrics
                    .auto_created
                    .fetch_add(missing.len() as u64, Ordering::Relaxed);
                info!(topics = ?missing, partitions, "topics created because a client asked for them");
                image
            }
            Err(error) => {
                warn!(topics = ?missing, error = %error.message, "topics could not be created");
                image
            }
        }
    }

    /// An id that no topic of the image has, in the form of a version 4 UUID.
    pub fn new_topic_id(&self, image: &Image) -> [u8; 16] {
        loop {
            let mut id = self.env.random_id();
            id[6] = id[6] & 0x0f | 0x40;
            id[8] = id[8] & 0x3f | 0x80;
            // Kafka keeps ids whose text form starts with '-' out of command lines.
            if id[0] >> 2 != 62 && image.topic_by_id(&id).is_none() && image.tombstones.get(&id).is_none() {
                return id;
            }
        }
    }

    /// Makes sure that this broker still leads what it led when this was called [R2]: before it tells anybody where a log
    /// ends. On a locked directory there is nothing to ask; elsewhere one look at the store serves all who wait.
    pub async fn confirm_leading(&self, patience: Duration) -> Result<(), ErrorCode> {
        match tokio::time::timeout(patience, self.metadata.confirm_alone()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ErrorCode::NotLeaderOrFollower),
            Err(_) => Err(ErrorCode::OffsetNotAvailable),
        }
    }

    /// A producer id that was never given out.
    pub async fn new_producer_id(&self, timeout: Duration) -> Result<i64, Told> {
        let mut block = self.producer_ids.lock().await;
        if block.is_empty() {
            *block = match tokio::time::timeout(timeout, self.metadata.allocate_producer_ids(self.node_id))
                .await
            {
                Ok(Ok(block)) => block,
                Ok(Err(error)) => {
                    return Err(Told::new(ErrorCode::CoordinatorLoadInProgress, error.to_string()));
                }
                Err(_) => {
                    return Err(Told::new(
                        ErrorCode::CoordinatorLoadInProgress,
                        "the metadata log did not answer",
                    ));
                }
            };
        }
        block
            .next()
            .ok_or_else(|| Told::new(ErrorCode::UnknownServerError, "an empty block of producer ids"))
    }
}

/// Finds names that differ from another only in '.' and '_', among live topics and those of one request.
#[derive(Default)]
pub struct Collisions {
    existing: Option<std::collections::BTreeMap<String, String>>,
}

impl Collisions {
    /// Says with which topic a new name collides; else takes the name as used from now on.
    pub fn check(&mut self, image: &Image, name: &str) -> Result<(), String> {
        if !names::may_collide(name) {
            return Ok(());
        }
        let existing = self.existing.get_or_insert_with(|| {
            let all = image
                .topics()
                .iter()
                .map(|(name, _)| name)
                .filter(|name| names::may_collide(name));
            all.map(|name| (names::collision_key(name), name.to_string()))
                .collect()
        });
        match existing.get(&names::collision_key(name)) {
            Some(other) if other != name => Err(other.clone()),
            _ => {
                existing.insert(names::collision_key(name), name.to_owned());
                Ok(())
            }
        }
    }
}
