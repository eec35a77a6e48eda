//! ConsumerGroupHeartbeat (key 68): a member of a consumer group joins, stays, moves on and leaves by it (KIP-848).

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;

use super::ask;
use crate::dispatch::Cx;

/// Takes a member's word, and tells it what it is to have.
pub async fn handle(cx: &Cx, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    let request = GroupRequest::ConsumerGroupHeartbeat(request);
    let answer = if cx.broker.config().groups.coordinator.consumer_protocol {
        ask(cx, request).await
    } else {
        request.failed(Coordinator::UnsupportedVersion)
    };
    let response = match answer {
        GroupResponse::ConsumerGroupHeartbeat(response) => response,
        _ => ConsumerGroupHeartbeatResponse {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    };
    cx.broker
        .metrics
        .error(ApiKey::ConsumerGroupHeartbeat, response.error_code);
    response
}
