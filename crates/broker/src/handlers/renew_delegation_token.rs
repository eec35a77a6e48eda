//! RenewDelegationToken (key 39): there are no tokens that could be renewed.

use drumlin_wire::ApiKey;
use drumlin_wire::messages::renew_delegation_token_request::RenewDelegationTokenRequest;
use drumlin_wire::messages::renew_delegation_token_response::RenewDelegationTokenResponse;

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, as Kafka does on a plaintext listener.
pub async fn handle(cx: &Cx, _request: RenewDelegationTokenRequest) -> RenewDelegationTokenResponse {
    RenewDelegationTokenResponse {
        error_code: cx.error(
            ApiKey::RenewDelegationToken,
            ErrorCode::DelegationTokenRequestNotAllowed,
        ),
        expiry_timestamp_ms: -1,
        ..Default::default()
    }
}
