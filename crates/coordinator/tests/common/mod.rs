//! A world around one shard: the partition's log, the clock, topics, and the answers.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use drumlin_coordinator::{
    Caller, GroupConfig, GroupRequest, GroupResponse, Now, Record, Shard, Step, TopicView, Topics,
};
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use drumlin_wire::messages::join_group_response::JoinGroupResponse;
use drumlin_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use drumlin_wire::messages::leave_group_response::LeaveGroupResponse;
use drumlin_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use drumlin_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use drumlin_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use drumlin_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use drumlin_wire::messages::sync_group_response::SyncGroupResponse;
use drumlin_wire::{Str, Uuid};

/// Topics of a test.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    pub topics: BTreeMap<Str, TopicView>,
    pub version: u64,
}

impl Fixed {
    pub fn with(names: &[(&str, i32)]) -> Fixed {
        let mut fixed = Fixed::default();
        for (name, partitions) in names {
            fixed.create(name, *partitions);
        }
        fixed
    }

    pub fn create(&mut self, name: &str, partitions: i32) -> Uuid {
        self.version += 1;
        let id = Uuid::from_u128(0x1000 + u128::from(self.version));
        let view = TopicView {
            id,
            name: name.into(),
            partitions,
        };
        self.topics.insert(name.into(), view);
        id
    }

    pub fn id(&self, name: &str) -> Uuid {
        self.topics[name].id
    }

    pub fn delete(&mut self, name: &str) -> Uuid {
        self.version += 1;
        self.topics.remove(name).unwrap().id
    }
}

impl Topics for Fixed {
    fn by_name(&self, name: &str) -> Option<TopicView> {
        self.topics.get(name).cloned()
    }

    fn by_id(&self, id: Uuid) -> Option<TopicView> {
        self.topics.values().find(|t| t.id == id).cloned()
    }

    fn names(&self) -> Vec<Str> {
        self.topics.keys().cloned().collect()
    }

    fn racks(&self, _id: Uuid, _partition: i32) -> Vec<Str> {
        Vec::new()
    }

    fn version(&self) -> u64 {
        self.version
    }
}

/// A record of the partition, and its time.
#[derive(Debug, Clone)]
pub struct Written {
    pub record: Record,
    pub at: i64,
}

impl std::ops::Deref for Written {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

pub struct World {
    pub shard: Shard,
    pub config: Arc<GroupConfig>,
    pub topics: Fixed,
    pub now: Now,
    pub log: Vec<Written>,
    /// Answers not looked at yet, by token.
    pub answers: BTreeMap<u64, GroupResponse>,
    /// Tokens that were answered, ever.
    pub answered: u64,
    pub next_token: u64,
    pub seed: u64,
    pub version: i16,
}

impl World {
    pub fn new(config: GroupConfig) -> World {
        World::with_seed(config, 1)
    }

    pub fn with_seed(config: GroupConfig, seed: u64) -> World {
        let config = Arc::new(config);
        let mut world = World {
            shard: Shard::new(0, config.clone(), seed),
            config,
            topics: Fixed::with(&[("a", 4), ("b", 2), ("c", 1)]),
            now: Now {
                wall_ms: 1_700_000_000_000,
                mono_ms: 10_000,
            },
            log: Vec::new(),
            answers: BTreeMap::new(),
            answered: 0,
            next_token: 1,
            seed,
            version: 9,
        };
        let step = world.shard.loaded(world.now, &world.topics);
        world.take(step);
        world
    }

    /// As a coordinator that comes to the partition finds it.
    pub fn replayed(&self) -> Shard {
        let mut shard = Shard::new(0, self.config.clone(), self.seed);
        for (offset, record) in self.log.iter().enumerate() {
            shard
                .replay(&record.key, record.value.as_deref(), offset as i64, record.at)
                .unwrap();
        }
        shard
    }

    /// The coordinator moves: who waits is told, the next one replays.
    pub fn move_away(&mut self) {
        for reply in self.shard.unload() {
            self.answer(reply.token, reply.body);
        }
        self.seed += 1;
        self.shard = self.replayed();
        let step = self.shard.loaded(self.now, &self.topics);
        self.take(step);
    }

    pub fn take(&mut self, step: Step) {
        let at = self.now.wall_ms;
        let written = step.records.into_iter().map(|record| Written { record, at });
        self.log.extend(written);
        for reply in step.replies {
            self.answer(reply.token, reply.body);
        }
    }

    fn answer(&mut self, token: u64, body: GroupResponse) {
        assert!(token < self.next_token, "an answer to nobody: {token}");
        assert!(
            self.answers.insert(token, body).is_none(),
            "token {token} was answered twice"
        );
        self.answered += 1;
    }

    pub fn ask_as(&mut self, caller: &Caller, request: GroupRequest) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let step = self.shard.request(self.now, &self.topics, token, caller, request);
        self.take(step);
        token
    }

    pub fn ask(&mut self, request: GroupRequest) -> u64 {
        let caller = Caller {
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            api_version: self.version,
        };
        self.ask_as(&caller, request)
    }

    /// The answer, if there is one.
    pub fn got(&mut self, token: u64) -> Option<GroupResponse> {
        self.answers.remove(&token)
    }

    /// Time passes, and every timer runs at its time.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while let Some(at) = self.shard.next_deadline().filter(|at| *at <= end) {
            self.set_time(at.max(self.now.mono_ms));
            let step = self.shard.tick(self.now, &self.topics);
            self.take(step);
        }
        self.set_time(end);
    }

    fn set_time(&mut self, mono_ms: u64) {
        self.now.wall_ms += (mono_ms - self.now.mono_ms) as i64;
        self.now.mono_ms = mono_ms;
    }

    pub fn join(&mut self, request: JoinGroupRequest) -> u64 {
        self.ask(GroupRequest::JoinGroup(request))
    }

    pub fn joined(&mut self, token: u64) -> JoinGroupResponse {
        match self.got(token) {
            Some(GroupResponse::JoinGroup(answer)) => answer,
            other => panic!("no JoinGroup answer: {other:?}"),
        }
    }

    pub fn synced(&mut self, token: u64) -> SyncGroupResponse {
        match self.got(token) {
            Some(GroupResponse::SyncGroup(answer)) => answer,
            other => panic!("no SyncGroup answer: {other:?}"),
        }
    }

    pub fn heartbeat(&mut self, group: &str, member: &Str, generation: i32) -> i16 {
        let request = HeartbeatRequest {
            group_id: group.into(),
            generation_id: generation,
            member_id: member.clone(),
            ..HeartbeatRequest::default()
        };
        let token = self.ask(GroupRequest::Heartbeat(request));
        match self.got(token) {
            Some(GroupResponse::Heartbeat(answer)) => answer.error_code,
            other => panic!("no Heartbeat answer: {other:?}"),
        }
    }

    pub fn leave(&mut self, group: &str, members: Vec<MemberIdentity>) -> LeaveGroupResponse {
        let request = LeaveGroupRequest {
            group_id: group.into(),
            members,
            ..LeaveGroupRequest::default()
        };
        let token = self.ask(GroupRequest::LeaveGroup(request));
        match self.got(token) {
            Some(GroupResponse::LeaveGroup(answer)) => answer,
            other => panic!("no LeaveGroup answer: {other:?}"),
        }
    }

    /// The error of the one partition committed.
    pub fn commit(&mut self, request: OffsetCommitRequest) -> i16 {
        let token = self.ask(GroupRequest::OffsetCommit(request));
        match self.got(token) {
            Some(GroupResponse::OffsetCommit(answer) | GroupResponse::OffsetCommitUnchanged(answer)) => {
                answer.topics[0].partitions[0].error_code
            }
            other => panic!("no OffsetCommit answer: {other:?}"),
        }
    }

    pub fn fetch(&mut self, group: &str, topics: Option<&[(&str, i32)]>) -> OffsetFetchResponseGroup {
        let topics = topics.map(|list| {
            let asked = list.iter().map(|(name, partition)| OffsetFetchRequestTopics {
                name: (*name).into(),
                topic_id: self.topics.topics.get(*name).map_or(Uuid::ZERO, |t| t.id),
                partition_indexes: vec![*partition],
                ..OffsetFetchRequestTopics::default()
            });
            asked.collect()
        });
        let group = OffsetFetchRequestGroup {
            group_id: group.into(),
            topics,
            ..OffsetFetchRequestGroup::default()
        };
        let token = self.ask(GroupRequest::OffsetFetch {
            group,
            require_stable: true,
        });
        match self.got(token) {
            Some(GroupResponse::OffsetFetch(answer)) => answer,
            other => panic!("no OffsetFetch answer: {other:?}"),
        }
    }

    /// The committed offset; -1 if there is none.
    pub fn committed(&mut self, group: &str, topic: &str, partition: i32) -> i64 {
        let answer = self.fetch(group, Some(&[(topic, partition)]));
        assert_eq!(answer.error_code, 0);
        answer.topics[0].partitions[0].committed_offset
    }
}

/// A consumer's metadata in JoinGroup: a subscription of version 0.
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.into()
}

pub fn join(group: &str, member: &Str, protocols: &[(&str, Bytes)]) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.clone(),
        protocol_type: "consumer".into(),
        protocols: protocols
            .iter()
            .map(|(name, metadata)| JoinGroupRequestProtocol {
                name: (*name).into(),
                metadata: metadata.clone(),
                ..JoinGroupRequestProtocol::default()
            })
            .collect(),
        ..JoinGroupRequest::default()
    }
}

pub fn sync(group: &str, member: &Str, generation: i32, assignments: &[(&Str, &str)]) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.clone(),
        assignments: assignments
            .iter()
            .map(|(member, bytes)| SyncGroupRequestAssignment {
                member_id: (*member).clone(),
                assignment: Bytes::copy_from_slice(bytes.as_bytes()),
                ..SyncGroupRequestAssignment::default()
            })
            .collect(),
        ..SyncGroupRequest::default()
    }
}

pub fn identity(member: &Str, instance: Option<&str>) -> MemberIdentity {
    MemberIdentity {
        member_id: member.clone(),
        group_instance_id: instance.map(Str::from),
        ..MemberIdentity::default()
    }
}

pub fn commit(
    group: &str,
    member: &str,
    generation: i32,
    (topic, partition): (&str, i32),
    offset: i64,
) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_leader_epoch: -1,
                committed_metadata: Some(Str::EMPTY),
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}
