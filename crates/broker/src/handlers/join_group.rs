//! JoinGroup (key 11): waits until the group's members are together.

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::join_group_request::JoinGroupRequest;
use drumlin_wire::messages::join_group_response::JoinGroupResponse;

use super::ask;
use crate::dispatch::Cx;

/// What a request holds beside its fields' bytes.
const FIXED: usize = 1_024;

/// Versions that have null protocol names.
const NULLS_FROM: i16 = 7;

/// Lets a member join.
pub async fn handle(cx: &Cx, request: JoinGroupRequest) -> JoinGroupResponse {
    let bytes: usize = request
        .protocols
        .iter()
        .map(|protocol| protocol.name.len() + protocol.metadata.len() + 64)
        .sum();
    let request = GroupRequest::JoinGroup(request);
    let response = match cx.broker.groups.park(FIXED + bytes) {
        Some(_room) => ask(cx, request).await,
        None => request.failed(Coordinator::CoordinatorNotAvailable),
    };
    let GroupResponse::JoinGroup(mut response) = response else {
        return JoinGroupResponse {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        };
    };
    if cx.version < NULLS_FROM && response.protocol_name.is_none() {
        response.protocol_name = Some("".into());
    }
    cx.broker.metrics.error(ApiKey::JoinGroup, response.error_code);
    response
}
