//! The image: the cluster's metadata as it stands after some entry of the log.
//!
//! An image never changes; the next one shares all but what an entry touched. How records change it is in
//! `apply`, its stored form in `snapshot`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{ClusterId, Incarnation, Resource, ResourceKind, TopicId};
use crate::record::{Endpoint, Fenced, Pin};
use crate::sorted_map::SortedMap;

/// The feature that says up to which level formats may be used.
pub const FORMAT_FEATURE: &str = "drumlin.format";
/// The newest format level that this build reads and writes.
pub const FORMAT_LEVEL: u16 = 1;
/// Producer ids are given out in blocks of this size, as Kafka does.
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// A resource's own configs, by name.
pub type Configs = BTreeMap<String, String>;

/// The cluster's metadata. A clone shares everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The cluster's id as Kafka writes it: 22 characters.
    pub cluster_id: Arc<str>,
    /// The controller's epoch.
    pub epoch: u64,
    /// The controller's node; -1 before the first.
    pub controller: i32,
    /// The slot after the last entry that this image holds.
    pub position: u64,
    /// Every broker that was ever registered and not unregistered, by node id.
    pub brokers: SortedMap<i32, Arc<Broker>>,
    /// Every incarnation whose chain may still be in the bucket.
    pub incarnations: SortedMap<Incarnation, Arc<IncarnationState>>,
    /// Deleted topics of which something may still be in the bucket.
    pub tombstones: SortedMap<TopicId, Tombstone>,
    /// What holds data of a partition beside its leader's and the leader's inherited chains.
    pub pins: SortedMap<(TopicId, u32), Arc<[Pin]>>,
    /// Finalised features and their levels; `drumlin.format` is one of them.
    pub features: SortedMap<Arc<str>, i16>,
    /// The slot of the entry that last changed a feature: Kafka's finalised features epoch.
    pub features_epoch: u64,
    /// The first producer id that no block holds yet.
    pub next_producer_id: i64,
    pub(crate) cluster: ClusterId,
    pub(crate) topics_by_name: SortedMap<Arc<str>, Arc<TopicImage>>,
    pub(crate) topics_by_id: SortedMap<TopicId, Arc<TopicImage>>,
    /// Configs of everything but topics.
    pub(crate) configs: SortedMap<Resource, Arc<Configs>>,
    pub(crate) partition_count: u64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: TopicId,
    /// Its partitions, by number. Who leads them: [`Image::leadership`].
    pub partitions: Arc<[PartitionImage]>,
    /// Its own configs.
    pub configs: Configs,
}

/// Who leads a partition, in the image's compact form; [`Image::leadership`] spells it out.
///
/// The leader epoch is kept as its distance from the leading broker's count of registrations. So a restart,
/// which raises the epoch of every partition that the broker led [I3], changes one number of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionImage {
    /// The leader's node.
    pub leader: i32,
    pub(crate) epoch_base: i32,
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's node.
    pub leader: i32,
    /// The leader's incarnation.
    pub incarnation: Incarnation,
    /// The epoch of its leadership.
    pub leader_epoch: i32,
}

/// A broker as it last registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its node.
    pub node_id: i32,
    /// Its newest incarnation: Kafka's broker epoch.
    pub incarnation: Incarnation,
    /// Where it is reached.
    pub endpoints: Vec<Endpoint>,
    /// Its rack.
    pub rack: Option<String>,
    /// How often it has registered: what leader epochs are counted from.
    pub(crate) registrations: i32,
}

/// What became of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncarnationState {
    /// Its node.
    pub node_id: i32,
    /// What it started from: the incarnation whose partitions it took over, and that one's estate.
    pub from: Option<Fenced>,
    /// How it ended; `None` while it lives.
    pub end: Option<IncarnationEnd>,
}

/// The end of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncarnationEnd {
    /// The fence's slot in its WAL.
    pub fence_slot: u64,
    /// Who took over all of its partitions.
    pub heir: Incarnation,
    /// Its chain holds nothing more that its heirs need. With no pin of a partition on it either, it may go
    /// ([`Image::may_sweep_chain`]).
    pub unpinned: bool,
}

/// A deleted topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The name it had, which another topic may have by now.
    pub name: Arc<str>,
    /// How many partitions it had.
    pub partitions: u32,
    /// The slot of the entry that deleted it.
    pub slot: u64,
}

impl Image {
    /// A cluster's image after its birth object.
    pub(crate) fn newborn(cluster: ClusterId, format_level: u16) -> Self {
        let level = i16::try_from(format_level).unwrap_or(i16::MAX);
        Self {
            cluster_id: cluster.to_string().into(),
            epoch: 0,
            controller: -1,
            position: 1,
            brokers: SortedMap::default(),
            incarnations: SortedMap::default(),
            tombstones: SortedMap::default(),
            pins: SortedMap::default(),
            features: [(Arc::from(FORMAT_FEATURE), level)].into_iter().collect(),
            features_epoch: 0,
            next_producer_id: 0,
            cluster,
            topics_by_name: SortedMap::default(),
            topics_by_id: SortedMap::default(),
            configs: SortedMap::default(),
            partition_count: 0,
        }
    }

    /// The cluster's id in bytes.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The level up to which formats may be written.
    pub fn format_level(&self) -> u16 {
        self.features
            .get(FORMAT_FEATURE)
            .and_then(|level| u16::try_from(*level).ok())
            .unwrap_or(0)
    }

    /// A live topic, by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics_by_name.get(name)
    }

    /// A live topic, by id.
    pub fn topic_by_id(&self, id: &TopicId) -> Option<&Arc<TopicImage>> {
        self.topics_by_id.get(id)
    }

    /// Every live topic, by name.
    pub fn topics(&self) -> &SortedMap<Arc<str>, Arc<TopicImage>> {
        &self.topics_by_name
    }

    /// Every live topic, by id.
    pub fn topics_by_id(&self) -> &SortedMap<TopicId, Arc<TopicImage>> {
        &self.topics_by_id
    }

    /// How many partitions the live topics have together.
    pub fn partition_count(&self) -> u64 {
        self.partition_count
    }

    /// Who leads a partition.
    pub fn leadership(&self, partition: PartitionImage) -> Leadership {
        let broker = self.brokers.get(&partition.leader);
        Leadership {
            leader: partition.leader,
            incarnation: broker.map_or(0, |broker| broker.incarnation),
            leader_epoch: partition
                .epoch_base
                .wrapping_add(broker.map_or(0, |broker| broker.registrations)),
        }
    }

    /// A partition's leader epoch.
    pub fn leader_epoch(&self, partition: PartitionImage) -> i32 {
        self.leadership(partition).leader_epoch
    }

    /// Who leads a partition of a live topic.
    pub fn partition(&self, id: &TopicId, partition: u32) -> Option<Leadership> {
        let topic = self.topics_by_id.get(id)?;
        let partition = topic.partitions.get(usize::try_from(partition).ok()?)?;
        Some(self.leadership(*partition))
    }

    /// The configs that were set on a resource; `None` if none ever were, or if a topic does not exist.
    pub fn configs(&self, kind: ResourceKind, name: &str) -> Option<&Configs> {
        if kind == ResourceKind::Topic {
            return self.topic(name).map(|topic| &topic.configs);
        }
        self.configs
            .get(&Resource::new(kind, name))
            .map(|configs| &**configs)
    }

    /// Every resource but topics on which configs are set.
    pub fn configured(&self) -> impl Iterator<Item = (&Resource, &Configs)> {
        self.configs
            .iter()
            .map(|(resource, configs)| (resource, &**configs))
    }

    /// The incarnations that are registered and not fenced, newest first.
    pub fn live_incarnations(&self) -> impl Iterator<Item = (Incarnation, &IncarnationState)> {
        let all = self.incarnations.iter().rev();
        all.filter(|(_, state)| state.end.is_none())
            .map(|(incarnation, state)| (*incarnation, &**state))
    }

    /// The live incarnation that has inherited, over however many takeovers, what `incarnation` led.
    pub fn heir_of(&self, incarnation: Incarnation) -> Option<Incarnation> {
        let mut at = incarnation;
        loop {
            // Heirs registered later, so the numbers rise and this ends.
            match self.incarnations.get(&at)?.end {
                None => return Some(at),
                Some(end) if end.heir > at => at = end.heir,
                Some(_) => return None,
            }
        }
    }

    /// Whether all under a chain's prefix but slot 0 and fences may be deleted: it is fenced and nothing pins it [D3].
    pub fn may_sweep_chain(&self, incarnation: Incarnation) -> bool {
        let ended = self.incarnations.get(&incarnation).and_then(|state| state.end);
        ended.is_some_and(|end| end.unpinned)
            && !self
                .pins
                .values()
                .any(|pins| pins.iter().any(|pin| pin.incarnation == incarnation))
    }
}
