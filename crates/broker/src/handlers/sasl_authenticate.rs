//! SaslAuthenticate (key 36): no listener authenticates.

use drumlin_wire::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use drumlin_wire::messages::sasl_authenticate_response::SaslAuthenticateResponse;
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers ILLEGAL_SASL_STATE, as Kafka does on a listener without SASL.
pub async fn handle(cx: &Cx, _request: SaslAuthenticateRequest) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: cx.error(ApiKey::SaslAuthenticate, ErrorCode::IllegalSaslState),
        error_message: Some(Str::from_static(
            "SaslAuthenticate request received after successful authentication",
        )),
        ..Default::default()
    }
}
