//! CreateDelegationToken (key 38): tokens need an authenticated connection, and no listener authenticates.

use drumlin_wire::messages::create_delegation_token_request::CreateDelegationTokenRequest;
use drumlin_wire::messages::create_delegation_token_response::CreateDelegationTokenResponse;
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// First version in which a token may be made for somebody else.
const OWNER_FROM: i16 = 3;
/// Everybody on a listener that does not authenticate (`KafkaPrincipal.ANONYMOUS`).
const ANONYMOUS: (Str, Str) = (Str::from_static("User"), Str::from_static("ANONYMOUS"));

/// Answers DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, as Kafka does on a plaintext listener.
pub async fn handle(cx: &Cx, request: CreateDelegationTokenRequest) -> CreateDelegationTokenResponse {
    let named = |text: Option<Str>| text.filter(|text| cx.version >= OWNER_FROM && !text.is_empty());
    let owner = named(request.owner_principal_type).zip(named(request.owner_principal_name));
    let (principal_type, principal_name) = owner.unwrap_or(ANONYMOUS);
    let (token_requester_principal_type, token_requester_principal_name) = if cx.version >= OWNER_FROM {
        ANONYMOUS
    } else {
        Default::default()
    };
    CreateDelegationTokenResponse {
        error_code: cx.error(
            ApiKey::CreateDelegationToken,
            ErrorCode::DelegationTokenRequestNotAllowed,
        ),
        principal_type,
        principal_name,
        token_requester_principal_type,
        token_requester_principal_name,
        issue_timestamp_ms: -1,
        expiry_timestamp_ms: -1,
        max_timestamp_ms: -1,
        ..Default::default()
    }
}
