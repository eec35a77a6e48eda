//! ExpireDelegationToken (key 40): there are no tokens that could be expired.

use drumlin_wire::ApiKey;
use drumlin_wire::messages::expire_delegation_token_request::ExpireDelegationTokenRequest;
use drumlin_wire::messages::expire_delegation_token_response::ExpireDelegationTokenResponse;

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, as Kafka does on a plaintext listener.
pub async fn handle(cx: &Cx, _request: ExpireDelegationTokenRequest) -> ExpireDelegationTokenResponse {
    ExpireDelegationTokenResponse {
        error_code: cx.error(
            ApiKey::ExpireDelegationToken,
            ErrorCode::DelegationTokenRequestNotAllowed,
        ),
        expiry_timestamp_ms: -1,
        ..Default::default()
    }
}
