//! Groups of both protocols under random events: joins, syncs, heartbeats, leaves, commits, deletions, time,
//! coordinators that move at any point, logs that are compacted, snapshots.
//!
//! Held at every step: each request is answered at most once, and by the end exactly once; a partition has
//! one owner in a generation; no committed offset goes back or away but by a commit, a deletion that was
//! asked for, or a retention that is over; generations and epochs of a group only grow; and the state that
//! was lived through is the state that a replay gives, of the whole log, of the compacted log, or of a
//! snapshot and what follows it.
//!
//! `DRUMLIN_COORDINATOR_EVENTS` says how many events to play in all, `DRUMLIN_COORDINATOR_SEED` plays one seed
//! again.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drumlin_coordinator::consumer::{read_assignment, write_assignment};
use drumlin_coordinator::{
    Caller, ErrorCode, GroupConfig, GroupRequest, GroupResponse, MigrationPolicy, Record, Shard, keys,
};
use drumlin_wire::coordinator_records::consumer_group_metadata_key::ConsumerGroupMetadataKey;
use drumlin_wire::coordinator_records::consumer_group_metadata_value::ConsumerGroupMetadataValue;
use drumlin_wire::coordinator_records::group_metadata_key::GroupMetadataKey;
use drumlin_wire::coordinator_records::group_metadata_value::GroupMetadataValue;
use drumlin_wire::coordinator_records::offset_commit_key::OffsetCommitKey;
use drumlin_wire::coordinator_records::offset_commit_value::OffsetCommitValue;
use drumlin_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use drumlin_wire::messages::describe_groups_response::DescribedGroup;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::join_group_response::JoinGroupResponse;
use drumlin_wire::messages::leave_group_request::LeaveGroupRequest;
use drumlin_wire::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use drumlin_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use drumlin_wire::messages::sync_group_response::SyncGroupResponse;
use drumlin_wire::{Str, Uuid};

use common::{World, Written, commit, identity, join, subscription, sync};

const GROUPS: [&str; 3] = ["g", "h", "i"];
const TOPICS: [&str; 3] = ["a", "b", "c"];
const EVENTS_PER_SEED: u64 = 2_000;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Waits {
    Nothing,
    Join(u64),
    Sync(u64),
}

#[derive(Debug, Clone)]
struct Client {
    group: &'static str,
    consumer: bool,
    instance: Option<Str>,
    version: i16,
    topics: Vec<&'static str>,
    id: Str,
    generation: i32,
    waits: Waits,
    /// It is in a generation, and has its assignment.
    joined: bool,
    synced: bool,
    /// What it is to hand out in its SyncGroup, if it leads.
    assigns: Vec<SyncGroupRequestAssignment>,
    owned: Vec<TopicPartitions>,
}

/// What the event under way may delete.
#[derive(Debug, Clone, PartialEq)]
enum Cause {
    Other,
    Commit,
    Time,
    DeleteGroup(Str),
    DeleteOffset(Str),
    DeleteTopic(Uuid),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Stored {
    offset: i64,
    commit_ms: i64,
    topic: Uuid,
}

/// Who has which partition of which topic.
type Owners = BTreeMap<(Str, i32), Str>;

struct Sim {
    rng: Rng,
    world: World,
    clients: Vec<Client>,
    /// A coordinator that only replays.
    follower: Shard,
    seen: usize,
    cause: Cause,
    offsets: BTreeMap<(Str, Str, i32), Stored>,
    /// How often a group has ended: then its generations begin anew.
    lives: BTreeMap<Str, u64>,
    generations: BTreeMap<Str, i32>,
    epochs: BTreeMap<Str, i32>,
    owners: BTreeMap<(Str, u64, i32), Owners>,
    snapshot: Option<(Bytes, Vec<Written>)>,
    /// Topics that are gone, which the coordinator has not heard of yet.
    gone: Vec<(Uuid, &'static str)>,
    /// Clients have time for what they do, which is one thing every five seconds.
    is_calm: bool,
    loads: u64,
    named: u64,
    events: u64,
    synced: u64,
    beats: u64,
    rebalances: u64,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng(seed);
        let config = GroupConfig {
            initial_rebalance_delay_ms: rng.pick(&[0, 3_000]),
            max_size: rng.pick(&[i32::MAX, 3]),
            consumer_max_size: rng.pick(&[i32::MAX, 4]),
            consumer_assignment_interval_ms: rng.pick(&[0, 1_000]),
            consumer_migration_policy: rng.pick(&[
                MigrationPolicy::Bidirectional,
                MigrationPolicy::Bidirectional,
                MigrationPolicy::Upgrade,
                MigrationPolicy::Disabled,
            ]),
            offsets_retention_ms: rng.pick(&[3_600_000, 7 * 24 * 3_600_000]),
            offsets_retention_check_interval_ms: 60_000,
            ..GroupConfig::default()
        };
        let world = World::with_seed(config, seed);
        let mut sim = Sim {
            follower: Shard::new(0, world.config.clone(), 0),
            world,
            rng,
            clients: Vec::new(),
            seen: 0,
            cause: Cause::Other,
            offsets: BTreeMap::new(),
            lives: BTreeMap::new(),
            generations: BTreeMap::new(),
            epochs: BTreeMap::new(),
            owners: BTreeMap::new(),
            snapshot: None,
            gone: Vec::new(),
            is_calm: false,
            loads: 0,
            named: 0,
            events: 0,
            synced: 0,
            beats: 0,
            rebalances: 0,
        };
        for _ in 0..8 {
            let client = sim.client();
            sim.clients.push(client);
        }
        sim
    }

    /// A client that has just started.
    fn client(&mut self) -> Client {
        self.named += 1;
        let consumer = self.rng.one_in(3);
        let instance = self.rng.one_in(4).then(|| {
            let n = self.rng.below(3);
            Str::from(format!("static-{n}").as_str())
        });
        let mut topics = TOPICS.to_vec();
        topics.retain(|_| !self.rng.one_in(3));
        let version = match instance {
            Some(_) => self.rng.pick(&[5, 9]),
            None => self.rng.pick(&[2, 4, 9]),
        };
        Client {
            group: self.rng.pick(&GROUPS),
            consumer,
            instance,
            version,
            topics,
            id: match consumer {
                true => Str::from(format!("made-{}", self.named).as_str()),
                false => Str::EMPTY,
            },
            generation: 0,
            waits: Waits::Nothing,
            joined: false,
            synced: false,
            assigns: Vec::new(),
            owned: Vec::new(),
        }
    }

    fn ask(&mut self, version: i16, cause: Cause, request: GroupRequest) -> u64 {
        self.cause = cause;
        let caller = Caller {
            client_id: "client".into(),
            client_host: "/h".into(),
            api_version: version,
        };
        let token = self.world.ask_as(&caller, request);
        self.look();
        token
    }

    fn answer(&mut self, token: u64) -> GroupResponse {
        self.world.got(token).expect("an answer at once")
    }

    /// Looks at the records of the last event.
    fn look(&mut self) {
        for i in self.seen..self.world.log.len() {
            let record = self.world.log[i].clone();
            self.follower
                .replay(&record.key, record.value.as_deref(), i as i64, record.at)
                .expect("a record that can be read");
            if let Some((_, tail)) = &mut self.snapshot {
                tail.push(record.clone());
            }
            self.look_at(&record);
        }
        self.seen = self.world.log.len();
        self.cause = Cause::Other;
    }

    fn look_at(&mut self, record: &Record) {
        match keys::record_type(&record.key).unwrap() {
            1 => self.look_at_offset(record),
            2 => {
                let id = keys::read_key::<GroupMetadataKey>(&record.key).unwrap().group;
                match &record.value {
                    Some(value) => {
                        let value: GroupMetadataValue = keys::read_value(value).unwrap();
                        let last = self.generations.insert(id.clone(), value.generation);
                        assert!(last.is_none_or(|last| last <= value.generation), "{id}: {last:?}");
                    }
                    None => {
                        self.generations.remove(&id);
                        *self.lives.entry(id).or_default() += 1;
                    }
                }
            }
            3 => {
                let key: ConsumerGroupMetadataKey = keys::read_key(&record.key).unwrap();
                match &record.value {
                    Some(value) => {
                        let value: ConsumerGroupMetadataValue = keys::read_value(value).unwrap();
                        let last = self.epochs.insert(key.group_id, value.epoch);
                        assert!(last.is_none_or(|last| last <= value.epoch), "{last:?}");
                    }
                    None => {
                        self.epochs.remove(&key.group_id);
                        *self.lives.entry(key.group_id).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
    }

    fn look_at_offset(&mut self, record: &Record) {
        let key: OffsetCommitKey = keys::read_key(&record.key).unwrap();
        let at = (key.group.clone(), key.topic.clone(), key.partition);
        if let Some(value) = &record.value {
            assert_eq!(self.cause, Cause::Commit);
            let value: OffsetCommitValue = keys::read_value(value).unwrap();
            let stored = Stored {
                offset: value.offset,
                commit_ms: value.commit_timestamp,
                topic: value.topic_id,
            };
            self.offsets.insert(at, stored);
            return;
        }
        let before = self.offsets.remove(&at).expect("what is deleted was there");
        let asked_for = match &self.cause {
            Cause::Other | Cause::Commit => false,
            Cause::Time => {
                self.world.now.wall_ms - before.commit_ms >= self.world.config.offsets_retention_ms
            }
            Cause::DeleteGroup(group) | Cause::DeleteOffset(group) => *group == key.group,
            Cause::DeleteTopic(topic) => *topic == before.topic,
        };
        assert!(asked_for, "{at:?} {before:?} is gone: {:?}", self.cause);
    }

    fn event(&mut self) {
        self.events += 1;
        match self.rng.below(100) {
            0..=69 => {
                let i = self.rng.below(self.clients.len() as u64) as usize;
                self.play(i);
            }
            70..=84 => self.pass(),
            85..=91 => self.commit_somewhere(),
            92..=93 => self.administer(),
            94 => self.change_topics(),
            95 => self.take_snapshot(),
            96 => self.move_away(),
            97 => self.check_offsets(),
            _ => self.check_state(),
        }
        self.collect();
    }

    fn pass(&mut self) {
        let ms = match self.rng.below(100) {
            0..=59 => self.rng.below(1_000),
            60..=94 => self.rng.below(8_000),
            95..=98 => self.rng.below(70_000),
            _ => self.rng.below(4 * 3_600_000),
        };
        let late = self.rng.one_in(4);
        self.pass_to(self.world.now.mono_ms + ms, late);
    }

    /// Step by step, so that what a timer did is seen at its time; or a little late.
    fn pass_to(&mut self, end: u64, late: bool) {
        while let Some(at) = self.world.shard.next_deadline().filter(|at| *at <= end) {
            let late = if late { self.rng.below(2_000) } else { 0 };
            let at = at.max(self.world.now.mono_ms).saturating_add(late).min(end);
            self.world.now.wall_ms += (at - self.world.now.mono_ms) as i64;
            self.world.now.mono_ms = at;
            self.cause = Cause::Time;
            let step = self.world.shard.tick(self.world.now, &self.world.topics);
            self.world.take(step);
            self.look();
            self.events += 1;
        }
        self.world.now.wall_ms += (end - self.world.now.mono_ms) as i64;
        self.world.now.mono_ms = end;
    }

    /// A client does what it would do next, or something else.
    fn play(&mut self, i: usize) {
        match self.rng.below(100) {
            0..=1 => self.clients[i] = self.client(),
            2..=4 => self.leave(i),
            5..=14 => self.commit_as(i),
            _ if self.clients[i].consumer => self.consumer_beat(i),
            // A client that lost its connection asks again.
            15 => self.join(i),
            16 => self.sync_of_before(i),
            _ => match self.clients[i].waits {
                Waits::Nothing if !self.clients[i].joined => self.join(i),
                Waits::Nothing if !self.clients[i].synced => self.sync(i),
                Waits::Nothing => self.classic_beat(i),
                Waits::Join(_) | Waits::Sync(_) => {}
            },
        }
    }

    fn join(&mut self, i: usize) {
        let client = self.clients[i].clone();
        if client.consumer {
            return;
        }
        let protocols = [
            ("range", subscription(&client.topics)),
            ("sticky", subscription(&client.topics)),
        ];
        let first = self.rng.below(2) as usize;
        let mut request = join(client.group, &client.id, &protocols[first..]);
        request.group_instance_id = client.instance.clone();
        (request.session_timeout_ms, request.rebalance_timeout_ms) = match self.is_calm {
            true => (45_000, 60_000),
            false => (
                self.rng.pick(&[6_000, 10_000, 45_000]),
                self.rng.pick(&[5_000, 60_000]),
            ),
        };
        self.clients[i].joined = false;
        self.clients[i].synced = false;
        let token = self.ask(client.version, Cause::Other, GroupRequest::JoinGroup(request));
        self.clients[i].waits = Waits::Join(token);
    }

    fn joined(&mut self, i: usize, answer: &JoinGroupResponse) {
        self.clients[i].waits = Waits::Nothing;
        let error = answer.error_code;
        if error == ErrorCode::MemberIdRequired.code() {
            self.clients[i].id = answer.member_id.clone();
        } else if error != 0 {
            self.failed(i, error);
        } else {
            let assigns = self.assign(answer);
            let client = &mut self.clients[i];
            client.id = answer.member_id.clone();
            client.generation = answer.generation_id;
            client.joined = true;
            client.assigns = assigns;
        }
    }

    /// As a leader: every partition to one member that wants it.
    fn assign(&mut self, answer: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
        let mut targets: BTreeMap<Str, BTreeMap<Uuid, Vec<i32>>> = BTreeMap::new();
        for topic in TOPICS {
            let Some(view) = self.world.topics.topics.get(topic).cloned() else {
                continue;
            };
            let wants = |metadata: &Bytes| metadata.windows(3).any(|w| w == [0, 1, topic.as_bytes()[0]]);
            let members: Vec<&Str> = answer
                .members
                .iter()
                .filter(|m| wants(&m.metadata))
                .map(|m| &m.member_id)
                .collect();
            for partition in 0..view.partitions {
                if !members.is_empty() {
                    let member = self.rng.pick(&members);
                    let target = targets.entry(member.clone()).or_default();
                    target.entry(view.id).or_default().push(partition);
                }
            }
        }
        let given = targets
            .into_iter()
            .map(|(member_id, target)| SyncGroupRequestAssignment {
                member_id,
                assignment: write_assignment(&target, 0, &self.world.topics),
                ..SyncGroupRequestAssignment::default()
            });
        given.collect()
    }

    fn sync(&mut self, i: usize) {
        let client = self.clients[i].clone();
        let mut request = sync(client.group, &client.id, client.generation, &[]);
        request.group_instance_id = client.instance.clone();
        request.assignments = client.assigns;
        let token = self.ask(5, Cause::Other, GroupRequest::SyncGroup(request));
        self.clients[i].waits = Waits::Sync(token);
    }

    /// A SyncGroup of the generation before is refused, even from who leads now. Not of one before a
    /// generation that was never assigned: a coordinator that loads the group knows nothing of that.
    fn sync_of_before(&mut self, i: usize) {
        let client = self.clients[i].clone();
        if !client.synced {
            return;
        }
        let mut request = sync(client.group, &client.id, client.generation - 1, &[]);
        request.group_instance_id = client.instance;
        request.assignments = client.assigns;
        let token = self.ask(5, Cause::Other, GroupRequest::SyncGroup(request));
        match self.answer(token) {
            GroupResponse::SyncGroup(answer) => assert_ne!(answer.error_code, 0),
            other => panic!("{other:?}"),
        }
    }

    fn synced(&mut self, i: usize, answer: &SyncGroupResponse) {
        self.clients[i].waits = Waits::Nothing;
        if answer.error_code != 0 {
            return self.failed(i, answer.error_code);
        }
        self.synced += 1;
        let client = &mut self.clients[i];
        client.synced = true;
        // Names, since the topic may be gone by now.
        let (target, _) = read_assignment(&answer.assignment, &self.world.topics).expect("our own bytes");
        client.owned = target
            .iter()
            .map(|(id, partitions)| TopicPartitions {
                topic_id: *id,
                partitions: partitions.clone(),
                ..TopicPartitions::default()
            })
            .collect();
        let group = Str::from(client.group);
        let life = self.lives.get(&group).copied().unwrap_or_default();
        let owners = self.owners.entry((group, life, client.generation)).or_default();
        let who = client.instance.clone().unwrap_or_else(|| client.id.clone());
        for (id, partitions) in target {
            let name = self.world.topics.topics.values().find(|t| t.id == id).unwrap();
            for partition in partitions {
                let owner = owners
                    .entry((Str::from(format!("{}{id}", name.name).as_str()), partition))
                    .or_insert_with(|| who.clone());
                assert_eq!(*owner, who, "{:?} has two owners", (&name.name, partition));
            }
        }
    }

    fn classic_beat(&mut self, i: usize) {
        let client = self.clients[i].clone();
        let request = HeartbeatRequest {
            group_id: client.group.into(),
            generation_id: client.generation,
            member_id: client.id,
            group_instance_id: client.instance,
            ..HeartbeatRequest::default()
        };
        let token = self.ask(4, Cause::Other, GroupRequest::Heartbeat(request));
        if let GroupResponse::Heartbeat(answer) = self.answer(token) {
            self.failed(i, answer.error_code);
        }
    }

    /// What an error makes of a client.
    fn failed(&mut self, i: usize, error: i16) {
        let client = &mut self.clients[i];
        let is = |code: ErrorCode| error == code.code();
        if error == 0 {
            self.beats += 1;
            return;
        }
        client.joined = false;
        client.synced = false;
        if is(ErrorCode::RebalanceInProgress) || is(ErrorCode::NotCoordinator) {
            return;
        }
        if is(ErrorCode::FencedInstanceId) || is(ErrorCode::UnreleasedInstanceId) {
            self.clients[i] = self.client();
            return;
        }
        client.generation = 0;
        client.owned.clear();
        if !client.consumer && !is(ErrorCode::IllegalGeneration) {
            client.id = Str::EMPTY;
        }
    }

    fn consumer_beat(&mut self, i: usize) {
        let client = self.clients[i].clone();
        let full = client.generation == 0;
        let request = ConsumerGroupHeartbeatRequest {
            group_id: client.group.into(),
            member_id: client.id.clone(),
            member_epoch: client.generation,
            instance_id: client.instance.clone(),
            rebalance_timeout_ms: if full { 30_000 } else { -1 },
            subscribed_topic_names: full.then(|| client.topics.iter().map(|t| Str::from(*t)).collect()),
            subscribed_topic_regex: (full && client.topics.len() == 2).then(|| "[ab]".into()),
            topic_partitions: match full {
                true => Some(Vec::new()),
                false => (!self.rng.one_in(3)).then(|| client.owned.clone()),
            },
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let answer = self.heartbeat(request);
        if answer.error_code != 0 {
            return self.failed(i, answer.error_code);
        }
        self.beats += 1;
        let client = &mut self.clients[i];
        client.generation = answer.member_epoch;
        client.joined = true;
        if let Some(assignment) = answer.assignment {
            let owned = assignment.topic_partitions.into_iter().map(|t| TopicPartitions {
                topic_id: t.topic_id,
                partitions: t.partitions,
                ..TopicPartitions::default()
            });
            client.owned = owned.collect();
        }
    }

    fn heartbeat(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let token = self.ask(1, Cause::Other, GroupRequest::ConsumerGroupHeartbeat(request));
        match self.answer(token) {
            GroupResponse::ConsumerGroupHeartbeat(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, i: usize) {
        let client = self.clients[i].clone();
        if client.consumer {
            let static_leave = client.instance.is_some() && self.rng.one_in(2);
            let request = ConsumerGroupHeartbeatRequest {
                group_id: client.group.into(),
                member_id: client.id.clone(),
                member_epoch: if static_leave { -2 } else { -1 },
                instance_id: client.instance.clone(),
                ..ConsumerGroupHeartbeatRequest::default()
            };
            self.heartbeat(request);
        } else {
            let request = LeaveGroupRequest {
                group_id: client.group.into(),
                members: vec![identity(&client.id, client.instance.as_deref())],
                ..LeaveGroupRequest::default()
            };
            let token = self.ask(5, Cause::Other, GroupRequest::LeaveGroup(request));
            self.answer(token);
        }
        self.clients[i] = self.client();
    }

    fn commit_as(&mut self, i: usize) {
        let client = self.clients[i].clone();
        let late = self.rng.one_in(10) && client.generation > 0;
        let generation = client.generation - i32::from(late);
        let error = self.commit(client.group, &client.id, client.instance, generation);
        let classic = self.describe(&client.group.into()).error_code == 0;
        // What came before a generation that was never assigned may be where a load begins again.
        let refused = late && client.synced && classic;
        assert!(
            !(refused && error == 0),
            "a commit of the generation before {}",
            client.generation
        );
    }

    fn commit_somewhere(&mut self) {
        let group = self.rng.pick(&["g", "h", "i", "simple", "other"]);
        self.commit(group, "", None, -1);
    }

    fn commit(&mut self, group: &'static str, member: &str, instance: Option<Str>, generation: i32) -> i16 {
        let topic = self.rng.pick(&TOPICS);
        let partition = self.rng.below(4) as i32;
        // Mostly what is stored already, which then needs no record.
        let offset = self.rng.below(2) as i64;
        let mut request = commit(group, member, generation, (topic, partition), offset);
        request.group_instance_id = instance;
        let before = self.offsets.clone();
        let token = self.ask(9, Cause::Commit, GroupRequest::OffsetCommit(request));
        let answer = self.answer(token);
        let (GroupResponse::OffsetCommit(answer) | GroupResponse::OffsetCommitUnchanged(answer)) = answer
        else {
            panic!("another kind of answer");
        };
        let stored = self.offsets.get(&(group.into(), topic.into(), partition));
        let error = answer.topics[0].partitions[0].error_code;
        match error {
            0 => assert_eq!(stored.map(|s| s.offset), Some(offset)),
            _ => assert_eq!(self.offsets, before, "what is refused is not stored"),
        }
        error
    }

    fn administer(&mut self) {
        let group = self.rng.pick(&GROUPS);
        let group_id = Str::from(group);
        match self.rng.below(3) {
            0 => {
                let cause = Cause::DeleteGroup(group_id.clone());
                let token = self.ask(2, cause, GroupRequest::DeleteGroup { group_id });
                self.answer(token);
            }
            1 => {
                let partition_index = self.rng.below(4) as i32;
                let request = OffsetDeleteRequest {
                    group_id: group_id.clone(),
                    topics: vec![OffsetDeleteRequestTopic {
                        name: self.rng.pick(&TOPICS).into(),
                        partitions: vec![OffsetDeleteRequestPartition { partition_index }],
                    }],
                };
                let token = self.ask(
                    0,
                    Cause::DeleteOffset(group_id),
                    GroupRequest::OffsetDelete(request),
                );
                self.answer(token);
            }
            _ => {
                let token = self.ask(6, Cause::Other, GroupRequest::DescribeGroup { group_id });
                self.answer(token);
            }
        }
    }

    fn tell_of_topics(&mut self) {
        for (id, name) in std::mem::take(&mut self.gone) {
            self.cause = Cause::DeleteTopic(id);
            let step = self.world.shard.topic_deleted(self.world.now, id, name);
            self.world.take(step);
            self.look();
            assert!(self.offsets.values().all(|stored| stored.topic != id));
        }
    }

    fn change_topics(&mut self) {
        if self.rng.one_in(2) {
            self.tell_of_topics();
        }
        let name = self.rng.pick(&TOPICS);
        if !self.world.topics.topics.contains_key(name) {
            let partitions = 1 + self.rng.below(4) as i32;
            self.world.topics.create(name, partitions);
        } else if self.rng.one_in(3) {
            self.gone.push((self.world.topics.delete(name), name));
        } else {
            self.world.topics.version += 1;
            self.world.topics.topics.get_mut(name).unwrap().partitions += 1;
        }
    }

    fn take_snapshot(&mut self) {
        let snapshot = self.world.shard.snapshot(self.seen as i64, 1);
        self.snapshot = Some((snapshot, Vec::new()));
    }

    /// The coordinator moves: the next one loads the log, compacted or not, or a snapshot and the rest.
    fn move_away(&mut self) {
        // Loading forgets the offsets of topics that it has not been told of: then the state would not be the same.
        self.tell_of_topics();
        self.loads += 1;
        let figures = self.world.shard.figures();
        self.rebalances += figures.classic_rebalances + figures.consumer_rebalances;
        if self.rng.one_in(2) {
            self.compact();
        }
        self.check_state();
        let state = self.world.shard.snapshot(0, 0);
        let stable = self.stable_groups();
        let heard: Vec<usize> = (0..self.clients.len()).filter(|i| self.is_heard(*i)).collect();
        match self.snapshot.clone().filter(|_| self.rng.one_in(2)) {
            None => self.world.move_away(),
            Some((snapshot, tail)) => {
                let log = std::mem::take(&mut self.world.log);
                self.world.move_away();
                self.world.log = log;
                let mut shard = Shard::new(0, self.world.config.clone(), self.world.seed);
                shard.restore(&snapshot).unwrap();
                for record in &tail {
                    shard
                        .replay(&record.key, record.value.as_deref(), 0, record.at)
                        .unwrap();
                }
                self.world.shard = shard;
                let step = self.world.shard.loaded(self.world.now, &self.world.topics);
                self.world.take(step);
            }
        }
        // A group that is over its size begins a rebalance, which writes nothing.
        assert_eq!(
            self.world.shard.snapshot(0, 0),
            state,
            "what was loaded is what there was"
        );
        self.look();
        self.check_offsets();
        for (id, before) in stable {
            assert_eq!(self.describe(&id), before);
        }
        for i in heard {
            assert!(self.is_heard(i), "{:?} is a member no more", self.clients[i]);
        }
    }

    fn describe(&mut self, group_id: &Str) -> DescribedGroup {
        let group_id = group_id.clone();
        let token = self.ask(6, Cause::Other, GroupRequest::DescribeGroup { group_id });
        match self.answer(token) {
            GroupResponse::DescribeGroup(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a group has nothing under way, now and after a load. With a static member that has not come back
    /// it may be over its size: then who loads it makes it gather.
    fn is_stable(&self, group: &DescribedGroup) -> bool {
        let fits = i32::try_from(group.members.len()).is_ok_and(|n| n <= self.world.config.max_size);
        group.group_state == "Stable" && fits
    }

    /// Groups that have nothing under way.
    fn stable_groups(&mut self) -> BTreeMap<Str, DescribedGroup> {
        let groups = GROUPS.map(Str::from);
        let described = groups.map(|id| (id.clone(), self.describe(&id)));
        let stable = described.into_iter().filter(|(_, group)| self.is_stable(group));
        stable.collect()
    }

    /// Whether a client of a stable classic group is a member of its generation.
    fn is_heard(&mut self, i: usize) -> bool {
        let client = self.clients[i].clone();
        if client.consumer || !client.synced {
            return false;
        }
        let request = HeartbeatRequest {
            group_id: client.group.into(),
            generation_id: client.generation,
            member_id: client.id,
            group_instance_id: client.instance,
            ..HeartbeatRequest::default()
        };
        let token = self.ask(4, Cause::Other, GroupRequest::Heartbeat(request));
        match self.answer(token) {
            GroupResponse::Heartbeat(answer) => {
                let group = self.describe(&client.group.into());
                answer.error_code == 0 && self.is_stable(&group)
            }
            other => panic!("{other:?}"),
        }
    }

    /// As the log's own compaction does: the last of each key stays where it is, tombstones go.
    fn compact(&mut self) {
        let mut last = BTreeMap::new();
        for (at, record) in self.world.log.iter().enumerate() {
            last.insert(record.key.clone(), at);
        }
        let mut at = 0;
        self.world.log.retain(|record| {
            let keep = last[&record.key] == at && record.value.is_some();
            at += 1;
            keep
        });
        self.seen = self.world.log.len();
    }

    /// Lived through, and replayed: the same.
    fn check_state(&mut self) {
        let lived = self.world.shard.snapshot(0, 0);
        assert_eq!(self.follower.snapshot(0, 0), lived);
        // No partition of a consumer group is two members'.
        for group in GROUPS {
            let request = GroupRequest::ConsumerGroupDescribe {
                group_id: group.into(),
            };
            let token = self.ask(1, Cause::Other, request);
            let GroupResponse::ConsumerGroupDescribe(described) = self.answer(token) else {
                panic!("another kind of answer");
            };
            let mut owned = BTreeSet::new();
            for member in &described.members {
                for topic in &member.assignment.topic_partitions {
                    for partition in &topic.partitions {
                        assert!(owned.insert((topic.topic_id, *partition)), "{described:?}");
                    }
                }
            }
        }
    }

    fn check_offsets(&mut self) {
        let mut read = BTreeMap::new();
        for group in ["g", "h", "i", "simple", "other"] {
            for topic in self.world.fetch(group, None).topics {
                for p in topic.partitions {
                    let at = (Str::from(group), topic.name.clone(), p.partition_index);
                    read.insert(at, p.committed_offset);
                }
            }
        }
        let model: BTreeMap<_, _> = self
            .offsets
            .iter()
            .map(|(at, s)| (at.clone(), s.offset))
            .collect();
        assert_eq!(read, model);
        assert_eq!(self.world.shard.figures().offsets as usize, model.len());
    }

    /// Gives clients the answers that came meanwhile.
    fn collect(&mut self) {
        for i in 0..self.clients.len() {
            let (Waits::Join(token) | Waits::Sync(token)) = self.clients[i].waits else {
                continue;
            };
            match self.world.got(token) {
                Some(GroupResponse::JoinGroup(answer)) => self.joined(i, &answer),
                Some(GroupResponse::SyncGroup(answer)) => self.synced(i, &answer),
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        // The rest was for clients that are gone.
        self.world.answers.clear();
    }

    /// Whatever has happened: members that behave come to a generation together, and own everything.
    fn calm(&mut self) {
        self.is_calm = true;
        self.clients.clear();
        if !self.world.topics.topics.contains_key("a") {
            self.world.topics.create("a", 3);
        }
        for _ in 0..3 {
            let mut client = self.client();
            client.group = "g";
            client.instance = None;
            client.version = 9;
            client.consumer = false;
            client.id = Str::EMPTY;
            client.topics = vec!["a"];
            self.clients.push(client);
        }
        // Those that vanished are waited for, as long as their sessions last, or until a member that never
        // was in a generation is given up.
        for _ in 0..120 {
            for i in 0..3 {
                match self.clients[i].waits {
                    Waits::Nothing if !self.clients[i].joined => self.join(i),
                    Waits::Nothing if !self.clients[i].synced => self.sync(i),
                    Waits::Nothing => self.classic_beat(i),
                    Waits::Join(_) | Waits::Sync(_) => {}
                }
                self.events += 1;
                self.collect();
            }
            self.pass_to(self.world.now.mono_ms + 5_000, false);
            self.collect();
        }
        assert!(self.clients.iter().all(|c| c.synced), "{:?}", self.clients);
        let owned = self.clients.iter().flat_map(|c| &c.owned);
        let mut owned: Vec<i32> = owned.flat_map(|t| t.partitions.clone()).collect();
        owned.sort_unstable();
        let all: Vec<i32> = (0..self.world.topics.topics["a"].partitions).collect();
        assert_eq!(owned, all);
    }

    fn run(&mut self, events: u64) {
        while self.events < events {
            self.event();
        }
        self.move_away();
        self.calm();
        self.move_away();
        assert_eq!(
            self.world.answered,
            self.world.next_token - 1,
            "everybody was answered"
        );
        // With everybody gone and time passed, nothing stays. This counts for no events.
        let events = self.events;
        self.clients.clear();
        for _ in 0..3 {
            let retention = self.world.config.offsets_retention_ms as u64;
            self.pass_to(self.world.now.mono_ms + retention + 4 * 3_600_000, false);
        }
        let figures = self.world.shard.figures();
        assert_eq!((figures.members, figures.offsets), (0, 0), "{figures:?}");
        assert_eq!(self.world.shard.next_deadline(), None, "{figures:?}");
        assert_eq!(self.world.answered, self.world.next_token - 1);
        self.events = events;
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn groups_under_random_events() {
    let seed = setting("DRUMLIN_COORDINATOR_SEED");
    let wanted = setting("DRUMLIN_COORDINATOR_EVENTS").unwrap_or(60_000);
    let seeds = match seed {
        Some(seed) => seed..seed + 1,
        None => 1..1 + wanted.div_ceil(EVENTS_PER_SEED),
    };
    let (mut events, mut synced, mut beats, mut loads, mut rebalances) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let mut sim = Sim::new(seed);
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.run(EVENTS_PER_SEED)));
        if let Err(panic) = played {
            eprintln!(
                "play it again with DRUMLIN_COORDINATOR_SEED={seed}; event {}",
                sim.events
            );
            std::panic::resume_unwind(panic);
        }
        events += sim.events;
        synced += sim.synced;
        beats += sim.beats;
        loads += sim.loads;
        rebalances += sim.rebalances;
    }
    println!(
        "{events} events: {synced} assignments, {beats} heartbeats, {loads} loads, {rebalances} rebalances"
    );
    if seed.is_none() {
        // The events must be worth something.
        assert!(synced > events / 200 && beats > events / 50 && loads > events / 1_000);
    }
}
