//! CreateAcls (key 30): there is no authorizer that could hold a rule.

use drumlin_wire::messages::create_acls_request::CreateAclsRequest;
use drumlin_wire::messages::create_acls_response::{AclCreationResult, CreateAclsResponse};
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Refuses each rule with SECURITY_DISABLED.
pub async fn handle(cx: &Cx, request: CreateAclsRequest) -> CreateAclsResponse {
    let refuse = |_| AclCreationResult {
        error_code: cx.error(ApiKey::CreateAcls, ErrorCode::SecurityDisabled),
        error_message: Some(Str::from_static("No Authorizer is configured.")),
        ..Default::default()
    };
    CreateAclsResponse {
        results: request.creations.iter().map(refuse).collect(),
        ..Default::default()
    }
}
