//! ConsumerGroupDescribe (key 69): consumer groups with their members (KIP-848).

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use drumlin_wire::messages::consumer_group_describe_response::{
    ConsumerGroupDescribeResponse, DescribedGroup,
};
use drumlin_wire::{ApiKey, Str};
use futures::StreamExt;

use super::{GROUPS_AT_ONCE, Operations, answered_again, ask};
use crate::dispatch::Cx;

/// Describes each group.
pub async fn handle(cx: &Cx, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let operations = request.include_authorized_operations;
    let asked = answered_again(request.group_ids, |group| group);
    let groups = futures::stream::iter(asked)
        .map(|(group_id, looked_up)| describe(cx, group_id, looked_up, operations))
        .buffered(GROUPS_AT_ONCE)
        .collect()
        .await;
    ConsumerGroupDescribeResponse {
        groups,
        ..Default::default()
    }
}

async fn describe(cx: &Cx, group_id: Str, looked_up: bool, operations: bool) -> DescribedGroup {
    let request = GroupRequest::ConsumerGroupDescribe { group_id };
    let answer = if !cx.broker.config().groups.coordinator.consumer_protocol {
        request.failed(Coordinator::UnsupportedVersion)
    } else if looked_up {
        ask(cx, request).await
    } else {
        request.failed(Coordinator::InvalidRequest)
    };
    let mut group = match answer {
        GroupResponse::ConsumerGroupDescribe(group) => group,
        _ => DescribedGroup {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    };
    group.authorized_operations = Operations::Group.answer(operations && group.error_code == 0);
    cx.broker
        .metrics
        .error(ApiKey::ConsumerGroupDescribe, group.error_code);
    group
}
