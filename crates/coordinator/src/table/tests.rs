//! A rebalance of twice as many members is twice the work, for both protocols: members walked over, timers set,
//! records and answers written.

use std::collections::BTreeMap;
use std::sync::Arc;

use drumlin_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use drumlin_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use drumlin_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use drumlin_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use drumlin_wire::{Str, Uuid};

use super::work;
use crate::{Caller, GroupConfig, GroupRequest, GroupResponse, Now, Shard, Step, TopicView, Topics};

/// One topic, `t`.
struct Only(i32);

const TOPIC: Uuid = Uuid::from_u128(7);

impl Only {
    fn view(&self) -> TopicView {
        TopicView {
            id: TOPIC,
            name: Str::from_static("t"),
            partitions: self.0,
        }
    }
}

impl Topics for Only {
    fn by_name(&self, name: &str) -> Option<TopicView> {
        (name == "t").then(|| self.view())
    }

    fn by_id(&self, id: Uuid) -> Option<TopicView> {
        (id == TOPIC).then(|| self.view())
    }

    fn names(&self) -> Vec<Str> {
        vec![Str::from_static("t")]
    }

    fn racks(&self, _id: Uuid, _partition: i32) -> Vec<Str> {
        Vec::new()
    }

    fn version(&self) -> u64 {
        u64::try_from(self.0).unwrap()
    }
}

/// What a rebalance has cost.
#[derive(Debug, Default)]
struct Cost {
    walked: usize,
    records: usize,
    /// Of keys and values.
    bytes: usize,
    answers: usize,
    /// Members and assignments that were told.
    told: usize,
}

impl Cost {
    fn numbers(&self) -> [(&'static str, usize); 5] {
        [
            ("walked", self.walked),
            ("records", self.records),
            ("bytes", self.bytes),
            ("answers", self.answers),
            ("told", self.told),
        ]
    }
}

struct World {
    shard: Shard,
    topics: Only,
    now: Now,
    next: u64,
    version: i16,
    answers: BTreeMap<u64, GroupResponse>,
    cost: Cost,
}

impl World {
    fn new(partitions: i32) -> World {
        let config = GroupConfig {
            initial_rebalance_delay_ms: 1,
            ..GroupConfig::default()
        };
        let mut world = World {
            shard: Shard::new(0, Arc::new(config), 1),
            topics: Only(partitions),
            now: Now {
                wall_ms: 1_700_000_000_000,
                mono_ms: 1_000,
            },
            next: 0,
            version: 9,
            answers: BTreeMap::new(),
            cost: Cost::default(),
        };
        let step = world.shard.loaded(world.now, &world.topics);
        world.take(step);
        world
    }

    fn take(&mut self, step: Step) {
        self.cost.records += step.records.len();
        for record in &step.records {
            self.cost.bytes += record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len);
        }
        for reply in step.replies {
            self.cost.answers += 1;
            self.cost.told += match &reply.body {
                GroupResponse::JoinGroup(joined) => joined.members.len(),
                GroupResponse::ConsumerGroupHeartbeat(beat) => usize::from(beat.assignment.is_some()),
                _ => 0,
            };
            self.answers.insert(reply.token, reply.body);
        }
    }

    fn ask(&mut self, request: GroupRequest) -> u64 {
        let caller = Caller {
            client_id: Str::from_static("client"),
            client_host: Str::from_static("/127.0.0.1"),
            api_version: self.version,
        };
        self.next += 1;
        let token = self.next;
        let (shard, topics, now) = (&mut self.shard, &self.topics, self.now);
        let (step, walked) = work::of(|| shard.request(now, topics, token, &caller, request));
        self.cost.walked += walked;
        self.take(step);
        token
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += i64::try_from(ms).unwrap();
        while self
            .shard
            .next_deadline()
            .is_some_and(|at| at <= self.now.mono_ms)
        {
            let (shard, topics, now) = (&mut self.shard, &self.topics, self.now);
            let (step, walked) = work::of(|| shard.tick(now, topics));
            self.cost.walked += walked;
            self.take(step);
        }
    }

    /// The cost so far, of everything since the last time.
    fn cost(&mut self) -> Cost {
        std::mem::take(&mut self.cost)
    }

    fn join(&mut self, member: &Str) -> u64 {
        self.ask(GroupRequest::JoinGroup(JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            member_id: member.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff".to_vec().into(),
                ..Default::default()
            }],
            ..Default::default()
        }))
    }

    fn joined(&mut self, token: u64) -> drumlin_wire::messages::join_group_response::JoinGroupResponse {
        match self.answers.remove(&token) {
            Some(GroupResponse::JoinGroup(joined)) => joined,
            other => panic!("{other:?}"),
        }
    }

    /// All of them join, whoever was there already, and have their assignments.
    fn gather(&mut self, ids: &[Str]) {
        let tokens: Vec<u64> = ids.iter().map(|id| self.join(id)).collect();
        // The first rebalance waits once more for whoever came while it waited.
        for _ in 0..3 {
            self.pass(1);
        }
        let answers: Vec<_> = tokens.into_iter().map(|token| self.joined(token)).collect();
        assert!(
            answers
                .iter()
                .all(|a| a.error_code == 0 && a.generation_id == answers[0].generation_id)
        );
        let tokens: Vec<u64> = answers
            .iter()
            .map(|answer| {
                let leads = answer.leader == answer.member_id;
                let all = answers.iter().map(|a| SyncGroupRequestAssignment {
                    member_id: a.member_id.clone(),
                    assignment: vec![1; 40].into(),
                    ..Default::default()
                });
                self.ask(GroupRequest::SyncGroup(SyncGroupRequest {
                    group_id: "g".into(),
                    generation_id: answer.generation_id,
                    member_id: answer.member_id.clone(),
                    assignments: if leads { all.collect() } else { Vec::new() },
                    ..Default::default()
                }))
            })
            .collect();
        for token in tokens {
            match self.answers.remove(&token) {
                Some(GroupResponse::SyncGroup(synced)) => assert_eq!(synced.error_code, 0),
                other => panic!("{other:?}"),
            }
        }
    }

    fn classic(members: usize) -> (World, Vec<Str>) {
        let mut world = World::new(i32::try_from(members).unwrap());
        let ids: Vec<Str> = (0..members)
            .map(|_| {
                let token = world.join(&Str::EMPTY);
                world.joined(token).member_id
            })
            .collect();
        world.gather(&ids);
        (world, ids)
    }
}

/// The cost of each rebalance in the life of a classic group.
fn classic(members: usize) -> Vec<(&'static str, Cost)> {
    let (mut world, mut ids) = World::classic(members);
    let mut costs = vec![("the first", world.cost())];
    world.gather(&ids);
    costs.push(("everybody joins again", world.cost()));
    let gone = ids.pop().unwrap();
    world.ask(GroupRequest::LeaveGroup(LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![MemberIdentity {
            member_id: gone,
            ..Default::default()
        }],
        ..Default::default()
    }));
    world.gather(&ids);
    costs.push(("one leaves", world.cost()));
    // Half of them are heard of no more: the others' JoinGroup waits until their sessions are over.
    ids.truncate(members / 2);
    world.answers.clear();
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(id)).collect();
    assert!(world.answers.is_empty());
    world.pass(10_001);
    for token in tokens {
        assert_eq!(world.joined(token).error_code, 0);
    }
    assert_eq!(world.shard.figures().members as usize, ids.len());
    costs.push(("half of them die", world.cost()));
    costs
}

/// A member of a KIP-848 group: what a client has.
#[derive(Clone)]
struct Member {
    id: Str,
    epoch: i32,
    owned: Vec<TopicPartitions>,
}

impl World {
    /// One heartbeat of each: whether anything has changed for anybody.
    fn round(&mut self, members: &mut [Member]) -> bool {
        let mut changed = false;
        for member in members {
            let joins = member.epoch == 0;
            let token = self.ask(GroupRequest::ConsumerGroupHeartbeat(
                ConsumerGroupHeartbeatRequest {
                    group_id: "g".into(),
                    member_id: member.id.clone(),
                    member_epoch: member.epoch,
                    rebalance_timeout_ms: if joins { 60_000 } else { -1 },
                    subscribed_topic_names: joins.then(|| vec!["t".into()]),
                    topic_partitions: Some(member.owned.clone()),
                    ..Default::default()
                },
            ));
            let Some(GroupResponse::ConsumerGroupHeartbeat(beat)) = self.answers.remove(&token) else {
                panic!("no answer");
            };
            assert_eq!(beat.error_code, 0);
            changed |= beat.member_epoch != member.epoch || beat.assignment.is_some();
            member.epoch = beat.member_epoch;
            if let Some(assignment) = beat.assignment {
                let topics = assignment.topic_partitions.into_iter();
                member.owned = topics
                    .map(|t| TopicPartitions {
                        topic_id: t.topic_id,
                        partitions: t.partitions,
                        ..Default::default()
                    })
                    .collect();
            }
        }
        self.pass(1_000);
        changed
    }

    /// Heartbeats until nothing changes any more: everybody has its share.
    fn settle(&mut self, members: &mut [Member], rounds: usize) {
        for _ in 0..rounds {
            if !self.round(members) {
                let owned = members.iter().flat_map(|m| &m.owned).map(|t| t.partitions.len());
                assert_eq!(owned.sum::<usize>(), usize::try_from(self.topics.0).unwrap());
                return;
            }
        }
        panic!("not settled after {rounds} rounds");
    }
}

/// The cost of each rebalance in the life of a KIP-848 group.
fn consumer(count: usize) -> Vec<(&'static str, Cost)> {
    let mut world = World::new(i32::try_from(2 * count).unwrap());
    world.version = 1;
    let mut members: Vec<Member> = (0..count)
        .map(|n| Member {
            id: Str::from(format!("member-{n:06}")),
            epoch: 0,
            owned: Vec::new(),
        })
        .collect();
    world.settle(&mut members, 8);
    let mut costs = vec![("the first", world.cost())];
    let gone = members.swap_remove(count / 2);
    world.ask(GroupRequest::ConsumerGroupHeartbeat(
        ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: gone.id,
            member_epoch: -1,
            ..Default::default()
        },
    ));
    world.settle(&mut members, 8);
    costs.push(("one leaves", world.cost()));
    world.topics.0 *= 2;
    world.settle(&mut members, 8);
    costs.push(("the topic grows", world.cost()));
    // Half of them are heard of no more: the rest goes on until their sessions are over.
    members.truncate(count / 2);
    for _ in 0..60 {
        world.round(&mut members);
    }
    world.settle(&mut members, 8);
    assert_eq!(world.shard.figures().members as usize, members.len());
    costs.push(("half of them die", world.cost()));
    costs
}

fn grows_with_its_members(costs: impl Fn(usize) -> Vec<(&'static str, Cost)>) {
    let (small, large) = (costs(250), costs(500));
    for ((what, small), (_, large)) in small.into_iter().zip(large) {
        println!("{what}: {small:?}, {large:?}");
        assert!(small.walked >= 250, "{what}: nothing was counted");
        assert!(large.walked <= 20 * large.answers, "{what}: {large:?}");
        for ((number, small), (_, large)) in small.numbers().into_iter().zip(large.numbers()) {
            assert!(
                large * 10 <= small * 22 + 100,
                "{what}: {number} goes from {small} to {large}"
            );
        }
    }
}

#[test]
fn a_classic_rebalance_grows_with_its_members() {
    grows_with_its_members(classic);
}

#[test]
fn a_rebalance_of_kip_848_grows_with_its_members() {
    grows_with_its_members(consumer);
}
