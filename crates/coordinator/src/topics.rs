//! What the coordinator asks of the cluster's metadata.

use drumlin_wire::{Str, Uuid};

use crate::GroupOverrides;

/// A topic as the metadata has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Str,
    /// How many partitions it has.
    pub partitions: i32,
}

/// The committed metadata as the broker sees it now. It must not change during one call into a shard.
pub trait Topics {
    /// The topic of this name.
    fn by_name(&self, name: &str) -> Option<TopicView>;
    /// The topic of this id.
    fn by_id(&self, id: Uuid) -> Option<TopicView>;
    /// The names of all topics, sorted by their bytes.
    fn names(&self) -> Vec<Str>;
    /// The racks of a partition's replicas; empty where nobody set any.
    fn racks(&self, id: Uuid, partition: i32) -> Vec<Str>;
    /// A number that changes whenever any topic was created, deleted or got partitions.
    fn version(&self) -> u64;
    /// What was set for this group alone (`kafka-configs --entity-type groups`).
    fn group_overrides(&self, _group: &str) -> GroupOverrides {
        GroupOverrides::default()
    }
    /// Whether whoever asks may describe a topic: which topics the regular expression of a subscription may
    /// match. All, while there is no authorization.
    fn may_describe(&self, _topic: &str) -> bool {
        true
    }
}
