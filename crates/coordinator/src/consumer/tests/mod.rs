//! A group with everything around it: topics that change, a clock that the test moves, and beside the group
//! a second one that only ever sees the records.

mod classic;
mod random;
mod records;
mod stories;

use std::collections::{BTreeMap, BTreeSet};

use drumlin_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use drumlin_wire::{Str, Uuid};

use super::*;
use crate::{Caller, ErrorCode, TopicView};

/// Partitions as a client has them.
pub type Set = BTreeSet<(Uuid, i32)>;

#[derive(Default)]
pub struct FakeTopics {
    topics: BTreeMap<Str, TopicView>,
    racks: BTreeMap<Uuid, Vec<Str>>,
    version: u64,
    made: u128,
}

impl FakeTopics {
    /// Creates a topic, or gives one more partitions.
    pub fn create(&mut self, name: &str, partitions: i32) -> Uuid {
        self.version += 1;
        self.made += 1;
        let fresh = Uuid::from_u128(0xF00 + self.made);
        let view = self.topics.entry(Str::from(name)).or_insert_with(|| TopicView {
            id: fresh,
            name: Str::from(name),
            partitions,
        });
        view.partitions = partitions;
        view.id
    }

    pub fn delete(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }

    pub fn set_racks(&mut self, id: Uuid, racks: &[&str]) {
        self.version += 1;
        self.racks
            .insert(id, racks.iter().map(|rack| Str::from(*rack)).collect());
    }
}

impl Topics for FakeTopics {
    fn by_name(&self, name: &str) -> Option<TopicView> {
        self.topics.get(name).cloned()
    }

    fn by_id(&self, id: Uuid) -> Option<TopicView> {
        self.topics.values().find(|view| view.id == id).cloned()
    }

    fn names(&self) -> Vec<Str> {
        self.topics.keys().cloned().collect()
    }

    fn racks(&self, id: Uuid, _partition: i32) -> Vec<Str> {
        self.racks.get(&id).cloned().unwrap_or_default()
    }

    fn version(&self) -> u64 {
        self.version
    }
}

/// The group and its surroundings.
pub struct World {
    pub topics: FakeTopics,
    pub config: GroupConfig,
    pub overrides: GroupOverrides,
    pub now: Now,
    pub caller: Caller,
    pub group: ConsumerGroup,
    pub mirror: ConsumerGroup,
    pub log: Vec<Record>,
    pub hidden: BTreeSet<String>,
    pub ids: u32,
}

impl World {
    pub fn new() -> World {
        let id = Str::from("g");
        World {
            topics: FakeTopics::default(),
            config: GroupConfig {
                // Tests that are not about it do not want to wait.
                consumer_assignment_interval_ms: 0,
                ..GroupConfig::default()
            },
            overrides: GroupOverrides::default(),
            now: Now {
                wall_ms: 1_700_000_000_000,
                mono_ms: 1_000,
            },
            caller: Caller {
                client_id: Str::from("client"),
                client_host: Str::from("/127.0.0.1"),
                api_version: 1,
            },
            group: ConsumerGroup::new(id.clone()),
            mirror: ConsumerGroup::new(id),
            log: Vec::new(),
            hidden: BTreeSet::new(),
            ids: 0,
        }
    }

    /// Lets a call into the group run, and checks what is true of every call: the records replayed give the
    /// same state, and no partition is in two members' hands.
    pub fn call<T>(
        &mut self,
        call: impl FnOnce(&mut ConsumerGroup, &Context<'_>, &Caller) -> Result<Outcome<T>, GroupError>,
    ) -> Result<Outcome<T>, GroupError> {
        self.ids += 1;
        let fresh_id = Str::from(format!("made-{}", self.ids));
        let hidden = &self.hidden;
        let ctx = Context {
            now: self.now,
            topics: &self.topics,
            config: &self.config,
            overrides: &self.overrides,
            fresh_id: &fresh_id,
            may_describe: &|topic| !hidden.contains(topic),
        };
        let result = call(&mut self.group, &ctx, &self.caller);
        if let Ok(outcome) = &result {
            for record in &outcome.records {
                let (group, change) = Change::decode(&record.key, record.value.as_deref())
                    .expect("a sound record")
                    .expect("a record of a consumer group");
                assert_eq!(group, *self.group.id());
                assert_eq!(change.record(&group), *record, "the same bytes again");
                self.mirror.replay(change);
                self.log.push(record.clone());
            }
        }
        self.check();
        result
    }

    /// What is always true.
    pub fn check(&self) {
        assert!(self.group.same_state(&self.mirror), "replay gives the same state");
        let mut owners: BTreeMap<(Uuid, i32), &Str> = BTreeMap::new();
        for (id, member) in self.group.members() {
            for (topic, partitions) in member.current.assigned.iter().chain(&member.current.revoking) {
                for partition in partitions.keys() {
                    let other = owners.insert((*topic, *partition), id);
                    assert_eq!(
                        other, None,
                        "{topic} {partition} has two owners, one of them {id}"
                    );
                }
            }
        }
    }

    pub fn heartbeat(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, GroupError> {
        validate(request, self.caller.api_version, &self.config)?;
        let outcome = self.call(|group, ctx, caller| group.heartbeat(ctx, caller, request))?;
        assert_eq!(outcome.downgrade, None);
        Ok(outcome.response)
    }

    /// The clocks go on, and timers that are due run.
    pub fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += i64::try_from(ms).expect("a short time");
        if self
            .group
            .next_deadline()
            .is_some_and(|at| at <= self.now.mono_ms)
        {
            let outcome = self
                .call(|group, ctx, _| Ok(group.expire(ctx)))
                .expect("no error");
            assert_eq!(outcome.downgrade, None);
        }
    }

    /// As another broker would have the group: from the whole log, or from its live records alone.
    pub fn reload(&mut self, from_snapshot: bool) {
        let live = self.group.live_records();
        let source = if from_snapshot { &live } else { &self.log };
        let mut group = ConsumerGroup::new(self.group.id().clone());
        for record in source {
            let change = Change::decode(&record.key, record.value.as_deref())
                .expect("sound")
                .expect("ours");
            group.replay(change.1);
        }
        assert!(group.same_state(&self.group));
        self.group = group;
        self.call(|group, ctx, _| {
            group.loaded(ctx);
            Ok(Outcome {
                response: (),
                records: Vec::new(),
                downgrade: None,
            })
        })
        .expect("no error");
    }

    pub fn member(&self, id: &str) -> &Member {
        self.group.member(id).unwrap_or_else(|| panic!("no member {id}"))
    }
}

/// A heartbeat that joins.
pub fn join(id: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: Str::from("g"),
        member_id: Str::from(id),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(topics.iter().map(|topic| Str::from(*topic)).collect()),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// A heartbeat that says nothing but what the member owns.
pub fn beat(id: &str, epoch: i32, owned: Option<&Set>) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: Str::from("g"),
        member_id: Str::from(id),
        member_epoch: epoch,
        topic_partitions: owned.map(reported),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

pub fn reported(owned: &Set) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in owned {
        topics.entry(*topic).or_default().push(*partition);
    }
    let topic = |(topic_id, partitions)| TopicPartitions {
        topic_id,
        partitions,
        ..TopicPartitions::default()
    };
    topics.into_iter().map(topic).collect()
}

/// What a response assigns.
pub fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Set> {
    let topics = &response.assignment.as_ref()?.topic_partitions;
    Some(
        topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, *p)))
            .collect(),
    )
}

pub fn set(topic: Uuid, partitions: impl IntoIterator<Item = i32>) -> Set {
    partitions
        .into_iter()
        .map(|partition| (topic, partition))
        .collect()
}
