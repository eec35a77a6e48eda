//! DeleteGroups (key 42).

use std::collections::BTreeSet;

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::messages::delete_groups_request::DeleteGroupsRequest;
use drumlin_wire::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};
use drumlin_wire::{ApiKey, Str};
use futures::StreamExt;

use super::{GROUPS_AT_ONCE, ask};
use crate::dispatch::Cx;

/// Deletes each group with its offsets.
pub async fn handle(cx: &Cx, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut seen = BTreeSet::new();
    let asked: Vec<Str> = request
        .groups_names
        .into_iter()
        .filter(|group| seen.insert(group.clone()))
        .collect();
    let results = futures::stream::iter(asked)
        .map(|group_id| delete(cx, group_id))
        .buffered(GROUPS_AT_ONCE)
        .collect()
        .await;
    DeleteGroupsResponse {
        results,
        ..Default::default()
    }
}

async fn delete(cx: &Cx, group_id: Str) -> DeletableGroupResult {
    let result = match ask(cx, GroupRequest::DeleteGroup { group_id }).await {
        GroupResponse::DeleteGroup(result) => result,
        _ => DeletableGroupResult {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    };
    cx.broker.metrics.error(ApiKey::DeleteGroups, result.error_code);
    result
}
