//! A light client of consumer groups: members that join, keep their place, commit and leave.
//!
//! Each member is a thread with a connection of its own, so that a broker sees what it would see of so many consumers:
//! [`classic`] speaks JoinGroup and SyncGroup, [`consumer`] KIP-848. [`member`] is the life of one, [`scenes`] what is
//! measured with many: joins, rebalances, commits; [`consume`] reads a topic with and without a group; [`offsets`] fills
//! a coordinator and waits for it after a start. The coordinator is the broker that is asked: there is one.

mod classic;
pub mod consume;
mod consumer;
mod member;
pub mod offsets;
pub mod scenes;

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use drumlin_tests::client::Connection;
use drumlin_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use drumlin_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

/// Longest wait for an answer; a JoinGroup waits for a rebalance.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long to wait before asking again what is not there yet.
const AGAIN: Duration = Duration::from_millis(2);

/// Errors that pass: COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
const PASSING: [i16; 3] = [14, 15, 16];
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_MEMBER_EPOCH: i16 = 110;
const STALE_MEMBER_EPOCH: i16 = 113;

/// Which protocol of groups is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// JoinGroup and SyncGroup.
    Classic,
    /// KIP-848.
    Consumer,
}

impl Protocol {
    /// Its name on command lines, which is that of the option `group.protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "classic",
            Protocol::Consumer => "consumer",
        }
    }
}

/// A group and what its members are like.
#[derive(Clone, Debug)]
pub struct Group {
    /// Where the broker listens.
    pub bootstrap: String,
    /// The group's name.
    pub name: String,
    /// The one topic of it.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// The protocol.
    pub protocol: Protocol,
    /// Session timeout of a classic member; that of the other protocol is the broker's.
    pub session: Duration,
    /// Heartbeats of a classic member; those of the other protocol are the broker's to say.
    pub heartbeat: Duration,
}

/// What a heartbeat brought.
enum Beat {
    /// Go on, and send the next one after so long; `None` after the usual time.
    Fine(Option<Duration>),
    /// What is owned is now this.
    Assigned(Vec<i32>),
    /// Nothing is owned any more: join again.
    Rejoin,
}

/// Finds the coordinator, as every client does first; the first time this creates the topic of offsets.
fn find_coordinator(connection: &mut Connection, group: &str) -> anyhow::Result<()> {
    let request = FindCoordinatorRequest {
        key_type: 0,
        coordinator_keys: vec![group.into()],
        ..Default::default()
    };
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = connection.call(&request, 4)?;
        match answer.coordinators.first().map(|c| c.error_code) {
            Some(0) => return Ok(()),
            Some(code) if PASSING.contains(&code) && std::time::Instant::now() < end => {
                std::thread::sleep(AGAIN);
            }
            other => bail!("FindCoordinator: {other:?}"),
        }
    }
}

/// A request that commits the same offset for some partitions, with leader epoch and metadata as the Java client
/// sends them.
fn commit_request(
    group: &str,
    topic: &str,
    member: (&str, i32),
    partitions: impl Iterator<Item = i32>,
    offset: i64,
) -> OffsetCommitRequest {
    let partition = |index| OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: offset,
        committed_leader_epoch: -1,
        committed_metadata: Some("".into()),
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: member.1,
        member_id: member.0.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: partitions.map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Sends a commit and waits for the answer; the first error code in it.
fn commit(connection: &mut Connection, request: &OffsetCommitRequest) -> anyhow::Result<i16> {
    // The newest version that names topics instead of their ids.
    let answer = connection.call(request, 9)?;
    let codes = answer
        .topics
        .iter()
        .flat_map(|t| &t.partitions)
        .map(|p| p.error_code);
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
}
