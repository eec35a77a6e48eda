//! OffsetDelete (key 47): offsets of topics that a group does not subscribe to (KIP-496).

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::offset_delete_request::OffsetDeleteRequest;
use drumlin_wire::messages::offset_delete_response::OffsetDeleteResponse;

use super::ask;
use crate::dispatch::Cx;

/// Deletes a group's offsets.
pub async fn handle(cx: &Cx, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let response = match ask(cx, GroupRequest::OffsetDelete(request)).await {
        GroupResponse::OffsetDelete(response) => response,
        _ => OffsetDeleteResponse {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    };
    let metrics = &cx.broker.metrics;
    metrics.error(ApiKey::OffsetDelete, response.error_code);
    for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
        metrics.error(ApiKey::OffsetDelete, partition.error_code);
    }
    response
}
