//! Heartbeat (key 12).

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::heartbeat_response::HeartbeatResponse;

use super::ask;
use crate::dispatch::Cx;

/// Keeps a member alive, and tells it of a rebalance.
pub async fn handle(cx: &Cx, request: HeartbeatRequest) -> HeartbeatResponse {
    let response = match ask(cx, GroupRequest::Heartbeat(request)).await {
        GroupResponse::Heartbeat(response) => response,
        _ => HeartbeatResponse {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    };
    cx.broker.metrics.error(ApiKey::Heartbeat, response.error_code);
    response
}
