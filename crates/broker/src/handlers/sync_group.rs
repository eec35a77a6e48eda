//! SyncGroup (key 14): waits for the leader's assignment.

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::sync_group_request::SyncGroupRequest;
use drumlin_wire::messages::sync_group_response::SyncGroupResponse;

use super::ask;
use crate::dispatch::Cx;

/// What a request holds beside its fields' bytes.
const FIXED: usize = 1_024;

/// Gives a member its assignment.
pub async fn handle(cx: &Cx, request: SyncGroupRequest) -> SyncGroupResponse {
    let bytes: usize = request
        .assignments
        .iter()
        .map(|part| part.member_id.len() + part.assignment.len() + 64)
        .sum();
    let request = GroupRequest::SyncGroup(request);
    let response = match cx.broker.groups.park(FIXED + bytes) {
        Some(_room) => ask(cx, request).await,
        None => request.failed(Coordinator::CoordinatorNotAvailable),
    };
    let GroupResponse::SyncGroup(response) = response else {
        return SyncGroupResponse {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        };
    };
    cx.broker.metrics.error(ApiKey::SyncGroup, response.error_code);
    response
}
