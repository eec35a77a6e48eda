//! DescribeGroups (key 15): classic groups with their members.

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::messages::describe_groups_request::DescribeGroupsRequest;
use drumlin_wire::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup};
use drumlin_wire::{ApiKey, Str};
use futures::StreamExt;

use super::{GROUPS_AT_ONCE, Operations, answered_again, ask};
use crate::dispatch::Cx;

/// First version with words for an error.
const MESSAGES_FROM: i16 = 6;

/// Describes each group.
pub async fn handle(cx: &Cx, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let operations = request.include_authorized_operations;
    let asked = answered_again(request.groups, |group| group);
    let groups = futures::stream::iter(asked)
        .map(|(group_id, looked_up)| describe(cx, group_id, looked_up, operations))
        .buffered(GROUPS_AT_ONCE)
        .collect()
        .await;
    DescribeGroupsResponse {
        groups,
        ..Default::default()
    }
}

async fn describe(cx: &Cx, group_id: Str, looked_up: bool, operations: bool) -> DescribedGroup {
    let request = GroupRequest::DescribeGroup { group_id };
    let answer = if looked_up {
        ask(cx, request).await
    } else {
        request.failed(Coordinator::InvalidRequest)
    };
    let mut group = match answer {
        GroupResponse::DescribeGroup(group) => group,
        _ => DescribedGroup {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    };
    if cx.version < MESSAGES_FROM {
        group.error_message = None;
    }
    group.authorized_operations = Operations::Group.answer(operations && group.error_code == 0);
    cx.broker.metrics.error(ApiKey::DescribeGroups, group.error_code);
    group
}
