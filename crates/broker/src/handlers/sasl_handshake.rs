//! SaslHandshake (key 17): no listener authenticates, so no connection is in a state to begin it.

use drumlin_wire::ApiKey;
use drumlin_wire::messages::sasl_handshake_request::SaslHandshakeRequest;
use drumlin_wire::messages::sasl_handshake_response::SaslHandshakeResponse;

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers ILLEGAL_SASL_STATE, as Kafka does on a listener without SASL: the client says what is configured wrongly.
pub async fn handle(cx: &Cx, _request: SaslHandshakeRequest) -> SaslHandshakeResponse {
    SaslHandshakeResponse {
        error_code: cx.error(ApiKey::SaslHandshake, ErrorCode::IllegalSaslState),
        ..Default::default()
    }
}
