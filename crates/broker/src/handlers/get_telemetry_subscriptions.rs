//! GetTelemetrySubscriptions (key 71, KIP-714): nothing is subscribed to.

use drumlin_wire::Uuid;
use drumlin_wire::messages::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest;
use drumlin_wire::messages::get_telemetry_subscriptions_response::GetTelemetrySubscriptionsResponse;

use crate::dispatch::Cx;

/// How long a client waits before it asks again; Kafka's default.
const INTERVAL_MS: i32 = 300_000;
/// Kafka's default of `telemetry.max.bytes`.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// The one subscription that there is: to nothing.
pub(super) const SUBSCRIPTION: i32 = 0;

/// Gives a client that has none an id, and an empty subscription.
pub async fn handle(cx: &Cx, request: GetTelemetrySubscriptionsRequest) -> GetTelemetrySubscriptionsResponse {
    let known = request.client_instance_id != Uuid::default();
    GetTelemetrySubscriptionsResponse {
        client_instance_id: if known {
            request.client_instance_id
        } else {
            Uuid(cx.broker.env.random_id())
        },
        subscription_id: SUBSCRIPTION,
        // zstd, lz4, gzip, snappy, in the order of Kafka's preference.
        accepted_compression_types: vec![4, 3, 1, 2],
        push_interval_ms: INTERVAL_MS,
        telemetry_max_bytes: i32::try_from(MAX_BYTES).unwrap_or(i32::MAX),
        delta_temporality: true,
        requested_metrics: Vec::new(),
        ..Default::default()
    }
}
