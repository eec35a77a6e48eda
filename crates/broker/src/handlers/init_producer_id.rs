//! InitProducerId (key 22): ids for idempotent producers.

use drumlin_wire::ApiKey;
use drumlin_wire::messages::init_producer_id_request::InitProducerIdRequest;
use drumlin_wire::messages::init_producer_id_response::InitProducerIdResponse;

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

const NONE: i64 = -1;

/// Gives out a fresh id at epoch 0. A producer that brings its old one (KIP-360) gets a fresh one too, as from Kafka
/// when it is not transactional.
pub async fn handle(cx: &Cx, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let failed = |code| InitProducerIdResponse {
        error_code: cx.error(ApiKey::InitProducerId, code),
        producer_id: NONE,
        producer_epoch: -1,
        ..Default::default()
    };
    if request.transactional_id.as_ref().is_some_and(|id| id.is_empty()) {
        return failed(ErrorCode::InvalidRequest);
    }
    if request.transactional_id.is_some() {
        // There are no transactions yet. Java takes every code that it does not know here for fatal, and
        // UNSUPPORTED_VERSION says what is the matter; librdkafka stops before, for want of FindCoordinator. A
        // retriable code would hang both.
        return failed(ErrorCode::UnsupportedVersion);
    }
    let brings_id = request.producer_id != NONE;
    if brings_id != (request.producer_epoch != -1)
        || request.producer_id < NONE
        || request.producer_epoch < -1
    {
        return failed(ErrorCode::InvalidRequest);
    }
    match cx
        .broker
        .new_producer_id(cx.broker.config().requests.timeout)
        .await
    {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..Default::default()
        },
        Err(told) => failed(told.code),
    }
}
