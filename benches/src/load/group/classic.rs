//! A member by JoinGroup, SyncGroup and Heartbeat, with the range assignor.

use anyhow::{Context, bail};
use bytes::Bytes;
use drumlin_tests::client::Connection;
use drumlin_wire::messages::consumer_protocol_assignment::{ConsumerProtocolAssignment, TopicPartition};
use drumlin_wire::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use drumlin_wire::messages::join_group_response::JoinGroupResponse;
use drumlin_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use drumlin_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use drumlin_wire::{Message, Reader, Str, Writer};

use super::{
    AGAIN, Beat, Group, ILLEGAL_GENERATION, MEMBER_ID_REQUIRED, PASSING, REBALANCE_IN_PROGRESS,
    UNKNOWN_MEMBER_ID,
};

/// Version of subscriptions and assignments.
const EMBEDDED: i16 = 1;

/// Where one member stands.
pub(super) struct Classic {
    pub(super) id: Str,
    pub(super) generation: i32,
    subscription: Bytes,
}

impl Classic {
    pub(super) fn new(group: &Group) -> anyhow::Result<Classic> {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![group.topic.as_str().into()],
            ..Default::default()
        };
        Ok(Classic {
            id: Str::EMPTY,
            generation: -1,
            subscription: with_version(&subscription)?,
        })
    }

    /// Joins and synchronises until there is an assignment.
    pub(super) fn join(&mut self, connection: &mut Connection, group: &Group) -> anyhow::Result<Vec<i32>> {
        loop {
            let joined = self.join_once(connection, group)?;
            let Some(joined) = joined else { continue };
            if let Some(partitions) = self.sync(connection, group, &joined)? {
                return Ok(partitions);
            }
        }
    }

    fn join_once(
        &mut self,
        connection: &mut Connection,
        group: &Group,
    ) -> anyhow::Result<Option<JoinGroupResponse>> {
        let request = JoinGroupRequest {
            group_id: group.name.as_str().into(),
            session_timeout_ms: i32::try_from(group.session.as_millis())?,
            rebalance_timeout_ms: 60_000,
            member_id: self.id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: self.subscription.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = connection.call(&request, 9)?;
        match answer.error_code {
            0 => {
                self.id = answer.member_id.clone();
                self.generation = answer.generation_id;
                return Ok(Some(answer));
            }
            MEMBER_ID_REQUIRED => self.id = answer.member_id,
            UNKNOWN_MEMBER_ID => self.id = Str::EMPTY,
            REBALANCE_IN_PROGRESS => {}
            code if PASSING.contains(&code) => std::thread::sleep(AGAIN),
            code => bail!("JoinGroup: error {code}"),
        }
        Ok(None)
    }

    fn sync(
        &mut self,
        connection: &mut Connection,
        group: &Group,
        joined: &JoinGroupResponse,
    ) -> anyhow::Result<Option<Vec<i32>>> {
        let leads = joined.leader.as_ref() == self.id.as_ref() && !joined.skip_assignment;
        let request = SyncGroupRequest {
            group_id: group.name.as_str().into(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments: if leads { assign(group, joined)? } else { Vec::new() },
            ..Default::default()
        };
        let answer = connection.call(&request, 5)?;
        match answer.error_code {
            0 => return Ok(Some(assigned(&answer.assignment)?)),
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => {}
            UNKNOWN_MEMBER_ID => self.id = Str::EMPTY,
            code if PASSING.contains(&code) => std::thread::sleep(AGAIN),
            code => bail!("SyncGroup: error {code}"),
        }
        Ok(None)
    }

    pub(super) fn heartbeat(&mut self, connection: &mut Connection, group: &Group) -> anyhow::Result<Beat> {
        let request = HeartbeatRequest {
            group_id: group.name.as_str().into(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..Default::default()
        };
        match connection.call(&request, 4)?.error_code {
            0 => Ok(Beat::Fine(None)),
            UNKNOWN_MEMBER_ID => {
                self.id = Str::EMPTY;
                Ok(Beat::Rejoin)
            }
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => Ok(Beat::Rejoin),
            code if PASSING.contains(&code) => Ok(Beat::Fine(None)),
            code => bail!("Heartbeat: error {code}"),
        }
    }

    pub(super) fn leave(&mut self, connection: &mut Connection, group: &Group) -> anyhow::Result<()> {
        let request = LeaveGroupRequest {
            group_id: group.name.as_str().into(),
            members: vec![MemberIdentity {
                member_id: self.id.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        connection.call(&request, 5).map(drop)
    }
}

fn with_version<M: Message>(message: &M) -> anyhow::Result<Bytes> {
    let mut writer = Writer::contiguous();
    writer.i16(EMBEDDED);
    message.encode(EMBEDDED, &mut writer)?;
    Ok(writer.into_bytes())
}

/// Ranges of the partitions to the members in the order of their ids.
fn assign(group: &Group, joined: &JoinGroupResponse) -> anyhow::Result<Vec<SyncGroupRequestAssignment>> {
    let mut members: Vec<&Str> = joined.members.iter().map(|m| &m.member_id).collect();
    members.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    let count = i32::try_from(members.len())?;
    (0..count)
        .zip(members)
        .map(|(at, member)| {
            let (from, to) = (group.partitions * at / count, group.partitions * (at + 1) / count);
            let assignment = ConsumerProtocolAssignment {
                assigned_partitions: vec![TopicPartition {
                    topic: group.topic.as_str().into(),
                    partitions: (from..to).collect(),
                }],
                ..Default::default()
            };
            Ok(SyncGroupRequestAssignment {
                member_id: member.clone(),
                assignment: with_version(&assignment)?,
                ..Default::default()
            })
        })
        .collect()
}

fn assigned(bytes: &Bytes) -> anyhow::Result<Vec<i32>> {
    let mut reader = Reader::new(bytes, ConsumerProtocolAssignment::DECODE_CAP);
    let version = reader.i16().context("an assignment has a version")?;
    let read = ConsumerProtocolAssignment::read(&mut reader, version)?;
    Ok(read
        .assigned_partitions
        .into_iter()
        .flat_map(|t| t.partitions)
        .collect())
}
