//! DescribeAcls (key 29): there is no authorizer, and clients that ask for rules are told so.

use drumlin_wire::messages::describe_acls_request::DescribeAclsRequest;
use drumlin_wire::messages::describe_acls_response::DescribeAclsResponse;
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers SECURITY_DISABLED, which MirrorMaker and tools take as "no rules".
pub async fn handle(cx: &Cx, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: cx.error(ApiKey::DescribeAcls, ErrorCode::SecurityDisabled),
        error_message: Some(Str::from_static("No Authorizer is configured on the broker")),
        ..Default::default()
    }
}
