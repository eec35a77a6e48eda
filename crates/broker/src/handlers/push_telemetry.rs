//! PushTelemetry (key 72, KIP-714): taken and dropped, since nothing is subscribed to.

use drumlin_wire::messages::push_telemetry_request::PushTelemetryRequest;
use drumlin_wire::messages::push_telemetry_response::PushTelemetryResponse;
use drumlin_wire::{ApiKey, Uuid};

use super::get_telemetry_subscriptions::{MAX_BYTES, SUBSCRIPTION};
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Checks what can be wrong with a push.
pub async fn handle(cx: &Cx, request: PushTelemetryRequest) -> PushTelemetryResponse {
    let code = if request.client_instance_id == Uuid::default() {
        ErrorCode::InvalidRequest
    } else if request.subscription_id != SUBSCRIPTION {
        ErrorCode::UnknownSubscriptionId
    } else if !(0..=4).contains(&request.compression_type) {
        ErrorCode::UnsupportedCompressionType
    } else if request.metrics.len() > MAX_BYTES {
        ErrorCode::TelemetryTooLarge
    } else {
        ErrorCode::None
    };
    PushTelemetryResponse {
        error_code: cx.error(ApiKey::PushTelemetry, code),
        ..Default::default()
    }
}
