//! The committed metadata as the coordinator asks for it: one image, which does not change under a step.

use std::sync::{Arc, OnceLock};

use drumlin_cluster::{Image, ResourceKind, TopicImage};
use drumlin_coordinator::{GroupOverrides, TopicView, Topics};
use drumlin_wire::{Str, Uuid};

use crate::config::groups::group_overrides;

/// An image, and a number that is another one whenever any topic has changed.
pub(crate) struct View {
    image: Arc<Image>,
    version: u64,
    names: OnceLock<Vec<Str>>,
}

impl View {
    pub fn new(image: Arc<Image>, version: u64) -> Self {
        Self {
            image,
            version,
            names: OnceLock::new(),
        }
    }
}

fn view(topic: &TopicImage) -> TopicView {
    TopicView {
        id: Uuid(topic.id),
        name: Str::from(&*topic.name),
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
    }
}

impl Topics for View {
    fn by_name(&self, name: &str) -> Option<TopicView> {
        self.image.topic(name).map(|topic| view(topic))
    }

    fn by_id(&self, id: Uuid) -> Option<TopicView> {
        self.image.topic_by_id(&id.0).map(|topic| view(topic))
    }

    fn names(&self) -> Vec<Str> {
        let all = || {
            let names = self.image.topics().iter();
            names.map(|(name, _)| Str::from(&**name)).collect()
        };
        self.names.get_or_init(all).clone()
    }

    fn racks(&self, id: Uuid, partition: i32) -> Vec<Str> {
        let leadership = u32::try_from(partition)
            .ok()
            .and_then(|partition| self.image.partition(&id.0, partition));
        // The object store replicates: to clients the leader is the only replica.
        leadership
            .and_then(|led| self.image.brokers.get(&led.leader)?.rack.as_deref())
            .map(Str::from)
            .into_iter()
            .collect()
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn group_overrides(&self, group: &str) -> GroupOverrides {
        self.image
            .configs(ResourceKind::Group, group)
            .map(group_overrides)
            .unwrap_or_default()
    }
}
