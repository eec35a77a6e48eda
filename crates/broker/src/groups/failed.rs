//! Answers that turn into nothing but an error after the request is gone.

use drumlin_coordinator::{ErrorCode, GroupResponse};
use drumlin_wire::Str;
use drumlin_wire::messages::offset_commit_response::OffsetCommitResponse;

/// Turns an answer that cannot be given into one that says why.
pub(crate) fn fail(answer: GroupResponse, error: ErrorCode) -> GroupResponse {
    use GroupResponse as R;
    let code = error.code();
    match answer {
        R::JoinGroup(r) => R::JoinGroup(drumlin_wire::messages::join_group_response::JoinGroupResponse {
            error_code: code,
            member_id: r.member_id,
            generation_id: -1,
            protocol_name: None,
            ..Default::default()
        }),
        R::SyncGroup(_) => R::SyncGroup(drumlin_wire::messages::sync_group_response::SyncGroupResponse {
            error_code: code,
            ..Default::default()
        }),
        R::Heartbeat(mut r) => {
            r.error_code = code;
            R::Heartbeat(r)
        }
        R::LeaveGroup(mut r) => {
            r.error_code = code;
            r.members.clear();
            R::LeaveGroup(r)
        }
        R::OffsetCommit(r) | R::OffsetCommitUnchanged(r) => R::OffsetCommit(fail_commit(r, code)),
        R::OffsetFetch(mut r) => {
            r.error_code = code;
            r.topics.clear();
            R::OffsetFetch(r)
        }
        R::OffsetDelete(mut r) => {
            r.error_code = code;
            r.topics.clear();
            R::OffsetDelete(r)
        }
        R::DescribeGroup(r) => {
            R::DescribeGroup(drumlin_wire::messages::describe_groups_response::DescribedGroup {
                error_code: code,
                group_id: r.group_id,
                ..Default::default()
            })
        }
        R::ListGroups(mut r) => {
            r.error_code = code;
            r.groups.clear();
            R::ListGroups(r)
        }
        R::DeleteGroup(mut r) => {
            r.error_code = code;
            R::DeleteGroup(r)
        }
        R::ConsumerGroupHeartbeat(_) => R::ConsumerGroupHeartbeat(
            drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse {
                error_code: code,
                error_message: None::<Str>,
                ..Default::default()
            },
        ),
        R::ConsumerGroupDescribe(r) => R::ConsumerGroupDescribe(
            drumlin_wire::messages::consumer_group_describe_response::DescribedGroup {
                error_code: code,
                group_id: r.group_id,
                ..Default::default()
            },
        ),
    }
}

/// What was refused anyway keeps its reason.
fn fail_commit(mut response: OffsetCommitResponse, code: i16) -> OffsetCommitResponse {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions {
        let own = partition.error_code;
        if own == 0 || own == ErrorCode::NotCoordinator.code() {
            partition.error_code = code;
        }
    }
    response
}
