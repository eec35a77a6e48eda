//! How each record changes the image, and which records it refuses.
//!
//! A change is applied to the newest image before it is dispatched, and refused there; so a committed record
//! that is refused at replay means a damaged log, and replay stops.

use std::sync::Arc;

use thiserror::Error;

use crate::ids::{Incarnation, Resource, ResourceKind, TopicId};
use crate::image::{
    Broker, Configs, FORMAT_FEATURE, FORMAT_LEVEL, Image, IncarnationEnd, IncarnationState, PartitionImage,
    Tombstone, TopicImage,
};
use crate::record::{Endpoint, Fenced, Pin, Record};

/// A topic has no more partitions than this.
pub const MAX_PARTITIONS: u32 = 1_000_000;

/// Why a record does not fit the image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The topic's name is taken.
    #[error("topic {0} exists already")]
    TopicExists(String),
    /// The topic's id is taken, by a live topic or a tombstone.
    #[error("topic id {} was used before", hex(.0))]
    TopicIdUsed(TopicId),
    /// No such topic.
    #[error("there is no topic with id {}", hex(.0))]
    UnknownTopic(TopicId),
    /// No such topic.
    #[error("there is no topic named {0}")]
    UnknownTopicName(String),
    /// No such deleted topic.
    #[error("there is no deleted topic with id {}", hex(.0))]
    UnknownTombstone(TopicId),
    /// No such partition.
    #[error("topic {} has no partition {partition}", hex(.id))]
    UnknownPartition {
        /// The topic.
        id: TopicId,
        /// The partition.
        partition: u32,
    },
    /// The partitions of a topic only grow, up to [`MAX_PARTITIONS`].
    #[error("a topic cannot go from {from} to {to} partitions")]
    PartitionCount {
        /// What it has.
        from: u32,
        /// What was asked for.
        to: u32,
    },
    /// No such broker.
    #[error("node {0} is not registered")]
    UnknownBroker(i32),
    /// No such incarnation.
    #[error("incarnation {0} is not known")]
    UnknownIncarnation(Incarnation),
    /// The incarnation is not what the record takes it for.
    #[error("incarnation {0} was fenced already")]
    AlreadyFenced(Incarnation),
    /// A node registers only after its previous incarnation was fenced [I1].
    #[error("incarnation {0} of this node has to be fenced before the node registers again")]
    NotFenced(Incarnation),
    /// A chain is unpinned by its live heir, and swept only when nothing pins it.
    #[error("the chain of incarnation {0} is still needed, or not this incarnation's to give up")]
    ChainInUse(Incarnation),
    /// The partition's leader epoch has moved on.
    #[error("leader epoch {asked} is not the current one, {current}")]
    LeaderEpoch {
        /// The record's condition.
        asked: i32,
        /// What it is.
        current: i32,
    },
    /// Producer ids are given out once.
    #[error("producer ids up to {end} cannot follow {next}")]
    ProducerIds {
        /// What the record gives out to.
        end: i64,
        /// What is given out so far.
        next: i64,
    },
    /// A level that this build cannot serve.
    #[error("feature {name} cannot be finalised at level {level}")]
    FeatureLevel {
        /// The feature.
        name: String,
        /// The level.
        level: i16,
    },
    /// Controllers and checkpoints have entries of their own.
    #[error("this record has an entry of its own kind, which only the metadata log puts")]
    Misplaced,
}

fn hex(id: &TopicId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Image {
    /// Takes in the `NewController` entry at the image's position.
    pub(crate) fn begin_epoch(&mut self, epoch: u64, node_id: i32) {
        self.epoch = epoch;
        self.controller = node_id;
        self.position += 1;
    }

    /// Changes the image by a data entry's record; `slot` is that entry's. An error leaves it unusable.
    pub(crate) fn apply(&mut self, record: &Record, slot: u64) -> Result<(), ApplyError> {
        match record {
            Record::NewController { .. } | Record::Checkpoint { .. } => Err(ApplyError::Misplaced),
            Record::BrokerRegistered {
                node_id,
                endpoints,
                rack,
                previous,
            } => self.register(slot, *node_id, endpoints, rack.as_ref(), previous.as_ref()),
            Record::TopicCreated {
                name,
                id,
                partitions,
                leader,
                configs,
            } => self.create_topic(name, *id, *partitions, *leader, configs.iter().cloned().collect()),
            Record::PartitionsAdded {
                id,
                partitions,
                leader,
            } => self.add_partitions(id, *partitions, *leader),
            Record::TopicDeleted { id } => self.delete_topic(id, slot),
            Record::TopicSwept { id } => self
                .tombstones
                .remove(id)
                .map(|_| ())
                .ok_or(ApplyError::UnknownTombstone(*id)),
            Record::ConfigSet {
                resource,
                name,
                key,
                value,
            } => self.set_config(*resource, name, key, value.as_deref()),
            Record::ProducerIdsAllocated { end, .. } => {
                if *end <= self.next_producer_id {
                    return Err(ApplyError::ProducerIds {
                        end: *end,
                        next: self.next_producer_id,
                    });
                }
                self.next_producer_id = *end;
                Ok(())
            }
            Record::FeatureFinalised { name, level } => self.finalise(name, *level, slot),
            Record::PartitionPinned { id, partition, pin } => self.pin(*id, *partition, *pin),
            Record::PartitionUnpinned {
                id,
                partition,
                incarnation,
                leader_epoch,
            } => self.unpin(*id, *partition, *incarnation, *leader_epoch),
            Record::ChainUnpinned { incarnation, heir } => self.unpin_chain(*incarnation, *heir),
            Record::ChainSwept { incarnation } => self.forget_incarnation(*incarnation),
        }
    }

    fn register(
        &mut self,
        slot: u64,
        node_id: i32,
        endpoints: &[Endpoint],
        rack: Option<&String>,
        previous: Option<&Fenced>,
    ) -> Result<(), ApplyError> {
        let registrations = self
            .brokers
            .get(&node_id)
            .map_or(0, |broker| broker.registrations)
            .wrapping_add(1);
        if let Some(fenced) = previous {
            self.end_incarnation(fenced, slot)?;
        }
        let mut live = self
            .live_incarnations()
            .filter(|(_, state)| state.node_id == node_id);
        if let Some((incarnation, _)) = live.next() {
            return Err(ApplyError::NotFenced(incarnation));
        }
        drop(live);
        if let Some(other) = previous
            .map(|fenced| fenced.node_id)
            .filter(|other| *other != node_id)
        {
            self.move_partitions(other, node_id, registrations);
        }
        self.brokers.insert(
            node_id,
            Arc::new(Broker {
                node_id,
                incarnation: slot,
                endpoints: endpoints.to_vec(),
                rack: rack.cloned(),
                registrations,
            }),
        );
        let state = IncarnationState {
            node_id,
            from: previous.cloned(),
            end: None,
        };
        self.incarnations.insert(slot, Arc::new(state));
        Ok(())
    }

    fn end_incarnation(&mut self, fenced: &Fenced, heir: Incarnation) -> Result<(), ApplyError> {
        let unknown = ApplyError::UnknownIncarnation(fenced.incarnation);
        let state = self
            .incarnations
            .get(&fenced.incarnation)
            .ok_or(unknown.clone())?;
        if state.node_id != fenced.node_id {
            return Err(unknown);
        }
        if state.end.is_some() {
            return Err(ApplyError::AlreadyFenced(fenced.incarnation));
        }
        let mut state = IncarnationState::clone(state);
        state.end = Some(IncarnationEnd {
            fence_slot: fenced.fence_slot,
            heir,
            unpinned: false,
        });
        self.incarnations.insert(fenced.incarnation, Arc::new(state));
        Ok(())
    }

    /// Gives `from`'s partitions to `to`, which has (with the registration at hand) registered `registrations`
    /// times. The only change that touches every partition; a restart of the same node needs none.
    fn move_partitions(&mut self, from: i32, to: i32, registrations: i32) {
        let gone = self
            .brokers
            .remove(&from)
            .map_or(0, |broker| broker.registrations);
        let moved: Vec<_> = (self.topics_by_name.values())
            .filter(|topic| topic.partitions.iter().any(|partition| partition.leader == from))
            .map(|topic| {
                let mut topic = TopicImage::clone(topic);
                let next = |old: &PartitionImage| {
                    if old.leader != from {
                        return *old;
                    }
                    let leader_epoch = old.epoch_base.wrapping_add(gone).wrapping_add(1);
                    PartitionImage {
                        leader: to,
                        epoch_base: leader_epoch.wrapping_sub(registrations),
                    }
                };
                topic.partitions = topic.partitions.iter().map(next).collect();
                topic
            })
            .collect();
        moved.into_iter().for_each(|topic| self.put_topic(topic));
    }

    fn put_topic(&mut self, topic: TopicImage) {
        let topic = Arc::new(topic);
        self.topics_by_name.insert(topic.name.clone(), topic.clone());
        self.topics_by_id.insert(topic.id, topic);
    }

    fn new_partition(&self, leader: i32) -> Result<PartitionImage, ApplyError> {
        let broker = self
            .brokers
            .get(&leader)
            .ok_or(ApplyError::UnknownBroker(leader))?;
        Ok(PartitionImage {
            leader,
            epoch_base: 0i32.wrapping_sub(broker.registrations),
        })
    }

    fn create_topic(
        &mut self,
        name: &str,
        id: TopicId,
        partitions: u32,
        leader: i32,
        configs: Configs,
    ) -> Result<(), ApplyError> {
        if self.topics_by_name.contains_key(name) {
            return Err(ApplyError::TopicExists(name.to_owned()));
        }
        if self.topics_by_id.contains_key(&id) || self.tombstones.contains_key(&id) {
            return Err(ApplyError::TopicIdUsed(id));
        }
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(ApplyError::PartitionCount {
                from: 0,
                to: partitions,
            });
        }
        let partition = self.new_partition(leader)?;
        let partitions_of = std::iter::repeat_n(partition, partitions as usize).collect();
        self.put_topic(TopicImage {
            name: name.into(),
            id,
            partitions: partitions_of,
            configs,
        });
        self.partition_count += u64::from(partitions);
        Ok(())
    }

    fn add_partitions(&mut self, id: &TopicId, partitions: u32, leader: i32) -> Result<(), ApplyError> {
        let partition = self.new_partition(leader)?;
        let topic = self.topics_by_id.get(id).ok_or(ApplyError::UnknownTopic(*id))?;
        let from = topic.partitions.len() as u32;
        if partitions <= from || partitions > MAX_PARTITIONS {
            return Err(ApplyError::PartitionCount { from, to: partitions });
        }
        let mut topic = TopicImage::clone(topic);
        let added = std::iter::repeat_n(partition, (partitions - from) as usize);
        topic.partitions = topic.partitions.iter().copied().chain(added).collect();
        self.put_topic(topic);
        self.partition_count += u64::from(partitions - from);
        Ok(())
    }

    fn delete_topic(&mut self, id: &TopicId, slot: u64) -> Result<(), ApplyError> {
        let topic = self
            .topics_by_id
            .remove(id)
            .ok_or(ApplyError::UnknownTopic(*id))?;
        self.topics_by_name.remove(&topic.name);
        let partitions = topic.partitions.len() as u32;
        self.partition_count -= u64::from(partitions);
        let pinned: Vec<_> = self
            .pins
            .from(&(*id, 0))
            .map(|(key, _)| *key)
            .take_while(|(of, _)| of == id)
            .collect();
        for key in pinned {
            self.pins.remove(&key);
        }
        self.tombstones.insert(
            *id,
            Tombstone {
                name: topic.name.clone(),
                partitions,
                slot,
            },
        );
        Ok(())
    }

    fn set_config(
        &mut self,
        kind: ResourceKind,
        name: &str,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), ApplyError> {
        let change = |configs: &mut Configs| {
            match value {
                Some(value) => configs.insert(key.to_owned(), value.to_owned()),
                None => configs.remove(key),
            };
        };
        if kind == ResourceKind::Topic {
            let topic = self.topics_by_name.get(name);
            let topic = topic.ok_or_else(|| ApplyError::UnknownTopicName(name.to_owned()))?;
            let mut topic = TopicImage::clone(topic);
            change(&mut topic.configs);
            self.put_topic(topic);
            return Ok(());
        }
        let resource = Resource::new(kind, name);
        let mut configs = self
            .configs
            .get(&resource)
            .map(|configs| Configs::clone(configs))
            .unwrap_or_default();
        change(&mut configs);
        if configs.is_empty() {
            self.configs.remove(&resource);
        } else {
            self.configs.insert(resource, Arc::new(configs));
        }
        Ok(())
    }

    fn finalise(&mut self, name: &str, level: i16, slot: u64) -> Result<(), ApplyError> {
        let refused = || ApplyError::FeatureLevel {
            name: name.to_owned(),
            level,
        };
        let format = i32::from(self.format_level())..=i32::from(FORMAT_LEVEL);
        if level < 0 || name == FORMAT_FEATURE && !format.contains(&i32::from(level)) {
            return Err(refused());
        }
        if level == 0 {
            self.features.remove(name);
        } else {
            self.features.insert(name.into(), level);
        }
        self.features_epoch = slot;
        Ok(())
    }

    fn pin(&mut self, id: TopicId, partition: u32, pin: Pin) -> Result<(), ApplyError> {
        self.partition(&id, partition)
            .ok_or(ApplyError::UnknownPartition { id, partition })?;
        if !self.incarnations.contains_key(&pin.incarnation) {
            return Err(ApplyError::UnknownIncarnation(pin.incarnation));
        }
        let held = self
            .pins
            .get(&(id, partition))
            .into_iter()
            .flat_map(|pins| pins.iter());
        let mut pins: Vec<Pin> = held
            .copied()
            .filter(|held| held.incarnation != pin.incarnation)
            .collect();
        pins.push(pin);
        pins.sort_unstable();
        self.pins.insert((id, partition), pins.into());
        Ok(())
    }

    fn unpin(
        &mut self,
        id: TopicId,
        partition: u32,
        incarnation: Incarnation,
        asked: i32,
    ) -> Result<(), ApplyError> {
        let led = self
            .partition(&id, partition)
            .ok_or(ApplyError::UnknownPartition { id, partition })?;
        if led.leader_epoch != asked {
            return Err(ApplyError::LeaderEpoch {
                asked,
                current: led.leader_epoch,
            });
        }
        let held = self
            .pins
            .get(&(id, partition))
            .into_iter()
            .flat_map(|pins| pins.iter());
        let pins: Arc<[Pin]> = held
            .copied()
            .filter(|held| held.incarnation != incarnation)
            .collect();
        if pins.is_empty() {
            self.pins.remove(&(id, partition));
        } else {
            self.pins.insert((id, partition), pins);
        }
        Ok(())
    }

    fn unpin_chain(&mut self, incarnation: Incarnation, heir: Incarnation) -> Result<(), ApplyError> {
        let state = self.incarnations.get(&incarnation);
        let state = state.ok_or(ApplyError::UnknownIncarnation(incarnation))?;
        let Some(end) = state.end.filter(|_| self.heir_of(incarnation) == Some(heir)) else {
            return Err(ApplyError::ChainInUse(incarnation));
        };
        let mut state = IncarnationState::clone(state);
        state.end = Some(IncarnationEnd {
            unpinned: true,
            ..end
        });
        self.incarnations.insert(incarnation, Arc::new(state));
        Ok(())
    }

    fn forget_incarnation(&mut self, incarnation: Incarnation) -> Result<(), ApplyError> {
        if !self.may_sweep_chain(incarnation) {
            return Err(ApplyError::ChainInUse(incarnation));
        }
        let gone = self.incarnations.remove(&incarnation).and_then(|state| state.end);
        // An older chain may still be pinned: who inherited through this one inherits directly from now on.
        let heir = gone.map_or(incarnation, |end| end.heir);
        let orphaned: Vec<_> = (self.incarnations.iter())
            .filter(|(_, state)| state.end.is_some_and(|end| end.heir == incarnation))
            .map(|(older, state)| (*older, IncarnationState::clone(state)))
            .collect();
        for (older, mut state) in orphaned {
            state.end = state.end.map(|end| IncarnationEnd { heir, ..end });
            self.incarnations.insert(older, Arc::new(state));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
