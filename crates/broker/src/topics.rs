//! The topics that this broker serves, ready for the data path: found by name or id without a look at the metadata
//! image, each with its open partitions and its configuration in the form that the handlers want.
//!
//! The table follows the image ([`Topics::apply`]); nobody else changes it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use drumlin_cluster::{Image, TopicImage};
use drumlin_log::{Log, Partition, PartitionConfig, PartitionSpec, TopicId, TopicPartition};
use drumlin_wire::{Str, Uuid};

use crate::config::{BrokerConfig, TopicConfig};

/// Bytes and batches that went through a topic since it was opened here.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of batches appended.
    pub bytes_in: AtomicU64,
    /// Batches appended.
    pub batches_in: AtomicU64,
    /// Bytes of batches fetched.
    pub bytes_out: AtomicU64,
}

impl Traffic {
    /// Counts an appended batch.
    pub fn appended(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.batches_in.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts fetched bytes.
    pub fn fetched(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// One topic.
#[derive(Debug)]
pub struct Topic {
    /// Its name, in memory of its own.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
    /// Its partitions by number; none where another broker leads.
    pub partitions: Vec<Option<Arc<Partition>>>,
    /// Its configuration in force.
    pub config: Arc<TopicConfig>,
    /// What goes through it.
    pub traffic: Arc<Traffic>,
    image: Arc<TopicImage>,
}

impl Topic {
    /// The open partition of this number.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)?.as_ref()
    }
}

#[derive(Default)]
struct Tables {
    by_name: HashMap<Str, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    position: u64,
    version: u64,
    defaults: Option<Arc<TopicConfig>>,
}

/// What an image changed.
pub struct Applied {
    /// Another number whenever any topic has changed.
    pub version: u64,
    /// Topics that are gone.
    pub gone: Vec<(Uuid, Str)>,
}

/// All topics.
pub struct Topics {
    node: i32,
    log: Log,
    tables: RwLock<Tables>,
    /// Held while the table is brought up to an image.
    applying: Mutex<()>,
}

impl Topics {
    /// No topics yet.
    pub fn new(node: i32, log: Log) -> Self {
        Self {
            node,
            log,
            tables: RwLock::default(),
            applying: Mutex::default(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A topic by name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().by_name.get(name).cloned()
    }

    /// A topic by id.
    pub fn by_id(&self, id: &Uuid) -> Option<Arc<Topic>> {
        self.read().by_id.get(id).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().by_name.len()
    }

    /// True while there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Topics in the order of their names.
    pub fn sorted(&self) -> Vec<Arc<Topic>> {
        let mut all: Vec<_> = self.read().by_name.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Opens what is new in the image, drops what is gone, reconfigures what changed. An image older than the last one
    /// changes nothing, and gives nothing.
    pub fn apply(&self, image: &Image, config: &BrokerConfig) -> Option<Applied> {
        let _one = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, gone, defaults) = {
            let tables = self.read();
            if image.position < tables.position {
                return None;
            }
            let gone: Vec<Arc<Topic>> = tables
                .by_id
                .values()
                .filter(|topic| image.topic_by_id(&topic.id.0).is_none())
                .cloned()
                .collect();
            let same = tables
                .defaults
                .as_ref()
                .is_some_and(|old| **old == config.topic_defaults);
            let defaults = if same { tables.defaults.clone() } else { None };
            (tables.by_id.clone(), gone, defaults)
        };
        let reconfigure = defaults.is_none();
        let defaults = defaults.unwrap_or_else(|| Arc::new(config.topic_defaults.clone()));
        let mut changed = Vec::new();
        for (_, topic) in image.topics().iter() {
            let old = known.get(&Uuid(topic.id));
            if reconfigure || old.is_none_or(|old| !Arc::ptr_eq(&old.image, topic)) {
                changed.push(self.open(image, topic, old, &defaults, config));
            }
        }
        let mut gone = gone;
        gone.sort_by(|a, b| a.name.cmp(&b.name));
        for topic in &gone {
            for id in partition_ids(&topic.image) {
                self.log.drop_partition(id);
            }
        }
        let names = gone.iter().map(|topic| (topic.id, topic.name.clone())).collect();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if !(gone.is_empty() && changed.is_empty()) {
            tables.version += 1;
        }
        for topic in gone {
            tables.by_id.remove(&topic.id);
            // The name may belong to a younger topic already.
            if tables
                .by_name
                .get(&topic.name)
                .is_some_and(|found| found.id == topic.id)
            {
                tables.by_name.remove(&topic.name);
            }
        }
        for topic in changed {
            tables.by_id.insert(topic.id, Arc::clone(&topic));
            tables.by_name.insert(topic.name.clone(), topic);
        }
        tables.position = image.position;
        tables.defaults = Some(defaults);
        Some(Applied {
            version: tables.version,
            gone: names,
        })
    }

    fn open(
        &self,
        image: &Image,
        topic: &Arc<TopicImage>,
        old: Option<&Arc<Topic>>,
        defaults: &Arc<TopicConfig>,
        config: &BrokerConfig,
    ) -> Arc<Topic> {
        let settings = resolve(topic, defaults, config);
        let stored = Arc::new(partition_config(&settings));
        let changed = old.is_some_and(|old| *old.config != *settings);
        let partitions = partition_ids(topic)
            .zip(topic.partitions.iter())
            .map(|(id, partition)| {
                let leadership = image.leadership(*partition);
                if leadership.leader != self.node {
                    return None;
                }
                if let Some(open) = old.and_then(|old| old.partition(id.partition)) {
                    if changed {
                        self.log.configure(&id, Arc::clone(&stored));
                    }
                    return Some(Arc::clone(open));
                }
                let spec = PartitionSpec {
                    id,
                    leader_epoch: leadership.leader_epoch,
                    config: Arc::clone(&stored),
                };
                Some(self.log.open_partition(spec))
            })
            .collect();
        Arc::new(Topic {
            name: old.map_or_else(|| Str::from(&*topic.name), |old| old.name.clone()),
            id: Uuid(topic.id),
            partitions,
            config: settings,
            traffic: old.map(|old| Arc::clone(&old.traffic)).unwrap_or_default(),
            image: Arc::clone(topic),
        })
    }
}

fn resolve(topic: &TopicImage, defaults: &Arc<TopicConfig>, config: &BrokerConfig) -> Arc<TopicConfig> {
    if topic.configs.is_empty() {
        Arc::clone(defaults)
    } else {
        Arc::new(TopicConfig::resolve(&topic.configs, &config.live))
    }
}

fn partition_ids(topic: &TopicImage) -> impl Iterator<Item = TopicPartition> + '_ {
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    (0..count).map(|partition| TopicPartition {
        topic: TopicId(topic.id),
        partition,
    })
}

/// What storage needs of a topic's configuration.
fn partition_config(config: &TopicConfig) -> PartitionConfig {
    PartitionConfig {
        segment_bytes: config.segment_bytes,
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        delete: config.cleanup.delete,
        compact: config.cleanup.compact,
        min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
        min_compaction_lag_ms: config.min_compaction_lag_ms,
        max_compaction_lag_ms: config.max_compaction_lag_ms,
        delete_retention_ms: config.delete_retention_ms,
    }
}

/// The partitions of an image that `node` leads, as the log wants them at its start.
pub fn specs(image: &Image, node: i32, config: &BrokerConfig) -> Vec<PartitionSpec> {
    let defaults = Arc::new(config.topic_defaults.clone());
    let default_stored = Arc::new(partition_config(&defaults));
    let mut specs = Vec::new();
    for (_, topic) in image.topics().iter() {
        let settings = resolve(topic, &defaults, config);
        let stored = if Arc::ptr_eq(&settings, &defaults) {
            Arc::clone(&default_stored)
        } else {
            Arc::new(partition_config(&settings))
        };
        for (id, partition) in partition_ids(topic).zip(topic.partitions.iter()) {
            let leadership = image.leadership(*partition);
            if leadership.leader == node {
                let config = Arc::clone(&stored);
                specs.push(PartitionSpec {
                    id,
                    leader_epoch: leadership.leader_epoch,
                    config,
                });
            }
        }
    }
    specs
}
