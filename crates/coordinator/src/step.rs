//! What goes into a shard and what comes out.

use bytes::Bytes;
use drumlin_wire::Str;
use drumlin_wire::messages::consumer_group_describe_response as consumer_describe;
use drumlin_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use drumlin_wire::messages::delete_groups_response::DeletableGroupResult;
use drumlin_wire::messages::describe_groups_response as classic_describe;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::heartbeat_response::HeartbeatResponse;
use drumlin_wire::messages::join_group_request::JoinGroupRequest;
use drumlin_wire::messages::join_group_response::JoinGroupResponse;
use drumlin_wire::messages::leave_group_request::LeaveGroupRequest;
use drumlin_wire::messages::leave_group_response::LeaveGroupResponse;
use drumlin_wire::messages::list_groups_request::ListGroupsRequest;
use drumlin_wire::messages::list_groups_response::ListGroupsResponse;
use drumlin_wire::messages::offset_commit_request::OffsetCommitRequest;
use drumlin_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use drumlin_wire::messages::offset_delete_request::OffsetDeleteRequest;
use drumlin_wire::messages::offset_delete_response::OffsetDeleteResponse;
use drumlin_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use drumlin_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use drumlin_wire::messages::sync_group_request::SyncGroupRequest;
use drumlin_wire::messages::sync_group_response::SyncGroupResponse;

use crate::ErrorCode;

/// The time of a call, from the owner's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since 1970: for the times in records, and for the expiry of offsets.
    pub wall_ms: i64,
    /// Milliseconds of a clock that never goes back: for every timer.
    pub mono_ms: u64,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// The client id of the request's header; empty if it had none.
    pub client_id: Str,
    /// The peer's address, as Kafka writes it: `/127.0.0.1`.
    pub client_host: Str,
    /// The version of the request.
    pub api_version: i16,
}

/// A record for the partition; no value is a tombstone. Its time is the time of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Option<Bytes>,
}

/// An answer to the request that came with this token.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The request's token. Every token is answered exactly once.
    pub token: u64,
    /// The answer.
    pub body: GroupResponse,
    /// Whether it must wait until all that was appended so far, this step's records included, is committed.
    pub waits: bool,
}

/// What a call into a shard gives.
#[derive(Debug, Default)]
pub struct Step {
    /// To be appended in this order, before those of any later step.
    pub records: Vec<Record>,
    /// Answers, to this request or to earlier ones.
    pub replies: Vec<Reply>,
}

impl Step {
    /// Answers once everything so far is committed: what says something about the group's state.
    pub fn reply(&mut self, token: u64, body: GroupResponse) {
        self.replies.push(Reply {
            token,
            body,
            waits: true,
        });
    }

    /// Answers at once: what commits to nothing, as a heartbeat, or an error that the request has in itself.
    pub fn reply_now(&mut self, token: u64, body: GroupResponse) {
        self.replies.push(Reply {
            token,
            body,
            waits: false,
        });
    }

    /// Puts what another call gave behind this.
    pub fn append(&mut self, mut other: Step) {
        self.records.append(&mut other.records);
        self.replies.append(&mut other.replies);
    }
}

/// A request, or the part of one that concerns one group.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupRequest {
    /// JoinGroup.
    JoinGroup(JoinGroupRequest),
    /// SyncGroup.
    SyncGroup(SyncGroupRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup. Versions 0 to 2, which have one member id, may come as they are.
    LeaveGroup(LeaveGroupRequest),
    /// OffsetCommit.
    OffsetCommit(OffsetCommitRequest),
    /// One group of an OffsetFetch. Versions below 8 are a group too, without member.
    OffsetFetch {
        /// The group, and what is asked of it; no topics means all.
        group: OffsetFetchRequestGroup,
        /// Whether offsets of open transactions are to be waited for.
        require_stable: bool,
    },
    /// OffsetDelete.
    OffsetDelete(OffsetDeleteRequest),
    /// One group of a DescribeGroups.
    DescribeGroup {
        /// The group.
        group_id: Str,
    },
    /// ListGroups: this shard's part of the answer.
    ListGroups(ListGroupsRequest),
    /// One group of a DeleteGroups.
    DeleteGroup {
        /// The group.
        group_id: Str,
    },
    /// ConsumerGroupHeartbeat.
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest),
    /// One group of a ConsumerGroupDescribe.
    ConsumerGroupDescribe {
        /// The group.
        group_id: Str,
    },
}

/// An answer, or the part of one that concerns one group. Throttle times and authorized operations are the
/// broker's to fill in.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "one for each request of the same name")]
pub enum GroupResponse {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    /// An OffsetCommit that asked for what is stored already, and so wrote nothing. No commit of a record proves then
    /// that this coordinator still leads: the owner has to make sure of it before the answer leaves.
    OffsetCommitUnchanged(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponseGroup),
    OffsetDelete(OffsetDeleteResponse),
    DescribeGroup(classic_describe::DescribedGroup),
    ListGroups(ListGroupsResponse),
    DeleteGroup(DeletableGroupResult),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse),
    ConsumerGroupDescribe(consumer_describe::DescribedGroup),
}

impl GroupRequest {
    /// The group that decides which shard serves it (see [`crate::partition_for`]); ListGroups goes to all.
    pub fn group_id(&self) -> Option<&Str> {
        match self {
            GroupRequest::JoinGroup(r) => Some(&r.group_id),
            GroupRequest::SyncGroup(r) => Some(&r.group_id),
            GroupRequest::Heartbeat(r) => Some(&r.group_id),
            GroupRequest::LeaveGroup(r) => Some(&r.group_id),
            GroupRequest::OffsetCommit(r) => Some(&r.group_id),
            GroupRequest::OffsetFetch { group, .. } => Some(&group.group_id),
            GroupRequest::OffsetDelete(r) => Some(&r.group_id),
            GroupRequest::DescribeGroup { group_id }
            | GroupRequest::DeleteGroup { group_id }
            | GroupRequest::ConsumerGroupDescribe { group_id } => Some(group_id),
            GroupRequest::ConsumerGroupHeartbeat(r) => Some(&r.group_id),
            GroupRequest::ListGroups(_) => None,
        }
    }

    /// The answer that says nothing but this error, in the form that the API has for it: for the owner, when
    /// there is no shard to ask (NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE).
    pub fn failed(&self, error: ErrorCode) -> GroupResponse {
        let error_code = error.code();
        match self {
            GroupRequest::JoinGroup(r) => GroupResponse::JoinGroup(JoinGroupResponse {
                error_code,
                generation_id: -1,
                protocol_name: None,
                member_id: r.member_id.clone(),
                ..JoinGroupResponse::default()
            }),
            GroupRequest::SyncGroup(_) => GroupResponse::SyncGroup(SyncGroupResponse {
                error_code,
                ..SyncGroupResponse::default()
            }),
            GroupRequest::Heartbeat(_) => GroupResponse::Heartbeat(HeartbeatResponse {
                // While groups are loaded members need not do anything: their sessions begin anew after it.
                error_code: match error {
                    ErrorCode::CoordinatorLoadInProgress => ErrorCode::None.code(),
                    _ => error_code,
                },
                ..HeartbeatResponse::default()
            }),
            GroupRequest::LeaveGroup(_) => GroupResponse::LeaveGroup(LeaveGroupResponse {
                error_code,
                ..LeaveGroupResponse::default()
            }),
            GroupRequest::OffsetCommit(r) => GroupResponse::OffsetCommit(commit_failed(r, error)),
            GroupRequest::OffsetFetch { group, .. } => GroupResponse::OffsetFetch(OffsetFetchResponseGroup {
                group_id: group.group_id.clone(),
                error_code,
                ..OffsetFetchResponseGroup::default()
            }),
            GroupRequest::OffsetDelete(_) => GroupResponse::OffsetDelete(OffsetDeleteResponse {
                error_code,
                ..OffsetDeleteResponse::default()
            }),
            GroupRequest::DescribeGroup { group_id } => {
                GroupResponse::DescribeGroup(classic_describe::DescribedGroup {
                    error_code,
                    group_id: group_id.clone(),
                    ..classic_describe::DescribedGroup::default()
                })
            }
            GroupRequest::ListGroups(_) => GroupResponse::ListGroups(ListGroupsResponse {
                error_code,
                ..ListGroupsResponse::default()
            }),
            GroupRequest::DeleteGroup { group_id } => GroupResponse::DeleteGroup(DeletableGroupResult {
                group_id: group_id.clone(),
                error_code,
                ..DeletableGroupResult::default()
            }),
            GroupRequest::ConsumerGroupHeartbeat(_) => {
                GroupResponse::ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse {
                    error_code,
                    ..ConsumerGroupHeartbeatResponse::default()
                })
            }
            GroupRequest::ConsumerGroupDescribe { group_id } => {
                GroupResponse::ConsumerGroupDescribe(consumer_describe::DescribedGroup {
                    error_code,
                    group_id: group_id.clone(),
                    ..consumer_describe::DescribedGroup::default()
                })
            }
        }
    }
}

/// OffsetCommit has no place for an error of the whole: every partition carries it.
pub(crate) fn commit_failed(request: &OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse {
    let partition = |index: i32| OffsetCommitResponsePartition {
        partition_index: index,
        error_code: error.code(),
        ..OffsetCommitResponsePartition::default()
    };
    let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| partition(p.partition_index))
            .collect(),
        ..OffsetCommitResponseTopic::default()
    });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..OffsetCommitResponse::default()
    }
}
