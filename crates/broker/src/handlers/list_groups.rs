//! ListGroups (key 16): the groups that this broker coordinates.

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse, known_filters};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::list_groups_request::ListGroupsRequest;
use drumlin_wire::messages::list_groups_response::ListGroupsResponse;

use super::caller;
use crate::dispatch::Cx;

/// Puts the answers of all shards together. While one is being loaded the list would lack its groups, and says so.
pub async fn handle(cx: &Cx, mut request: ListGroupsRequest) -> ListGroupsResponse {
    known_filters(&mut request);
    let answers = cx
        .broker
        .groups
        .call_all(&caller(cx), || GroupRequest::ListGroups(request.clone()))
        .await;
    let mut response = ListGroupsResponse::default();
    for answer in answers {
        match answer {
            GroupResponse::ListGroups(part) if part.error_code == 0 => response.groups.extend(part.groups),
            // It moved to another broker, which lists its groups.
            GroupResponse::ListGroups(part) if part.error_code == Coordinator::NotCoordinator.code() => {}
            GroupResponse::ListGroups(part) => response.error_code = part.error_code,
            _ => response.error_code = Coordinator::UnknownServerError.code(),
        }
    }
    cx.broker.metrics.error(ApiKey::ListGroups, response.error_code);
    response
}
