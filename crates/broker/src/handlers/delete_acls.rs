//! DeleteAcls (key 31): there is no authorizer that could hold a rule.

use drumlin_wire::messages::delete_acls_request::DeleteAclsRequest;
use drumlin_wire::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsResponse};
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Refuses each filter with SECURITY_DISABLED.
pub async fn handle(cx: &Cx, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refuse = |_| DeleteAclsFilterResult {
        error_code: cx.error(ApiKey::DeleteAcls, ErrorCode::SecurityDisabled),
        error_message: Some(Str::from_static("No Authorizer is configured.")),
        ..Default::default()
    };
    DeleteAclsResponse {
        filter_results: request.filters.iter().map(refuse).collect(),
        ..Default::default()
    }
}
