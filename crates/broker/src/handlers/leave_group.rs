//! LeaveGroup (key 13).

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::leave_group_request::LeaveGroupRequest;
use drumlin_wire::messages::leave_group_response::LeaveGroupResponse;

use super::ask;
use crate::dispatch::Cx;

/// First version with several members (KIP-345).
const MEMBERS_FROM: i16 = 3;

/// Lets members go.
pub async fn handle(cx: &Cx, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let mut response = match ask(cx, GroupRequest::LeaveGroup(request)).await {
        GroupResponse::LeaveGroup(response) => response,
        _ => LeaveGroupResponse {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    };
    let failed = response.members.iter().map(|member| member.error_code);
    let first = failed.clone().find(|code| *code != 0).unwrap_or(0);
    if cx.version < MEMBERS_FROM {
        // One member, whose error is the answer's.
        if response.error_code == 0 {
            response.error_code = first;
        }
        response.members.clear();
    }
    let counted = if response.error_code == 0 {
        first
    } else {
        response.error_code
    };
    cx.broker.metrics.error(ApiKey::LeaveGroup, counted);
    response
}
