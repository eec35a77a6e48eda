//! DescribeDelegationToken (key 41): there are no tokens.

use drumlin_wire::ApiKey;
use drumlin_wire::messages::describe_delegation_token_request::DescribeDelegationTokenRequest;
use drumlin_wire::messages::describe_delegation_token_response::DescribeDelegationTokenResponse;

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, as Kafka does on a plaintext listener.
pub async fn handle(cx: &Cx, _request: DescribeDelegationTokenRequest) -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse {
        error_code: cx.error(
            ApiKey::DescribeDelegationToken,
            ErrorCode::DelegationTokenRequestNotAllowed,
        ),
        ..Default::default()
    }
}
