//! UnregisterBroker (key 64): takes a broker that is gone for good out of the cluster.

use drumlin_wire::messages::unregister_broker_request::UnregisterBrokerRequest;
use drumlin_wire::messages::unregister_broker_response::UnregisterBrokerResponse;
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Refuses: of an unknown broker as Kafka does, and of this one because it is running.
pub async fn handle(cx: &Cx, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let id = request.broker_id;
    let (code, what) = if cx.broker.image().brokers.get(&id).is_none() {
        let what = format!("Broker ID {id} is not currently registered");
        (ErrorCode::BrokerIdNotRegistered, what)
    } else {
        // Kafka would take the broker out, which registers itself again at once.
        let what = format!("Broker ID {id} cannot be unregistered: it leads the partitions of this cluster");
        (ErrorCode::InvalidRequest, what)
    };
    UnregisterBrokerResponse {
        error_code: cx.error(ApiKey::UnregisterBroker, code),
        error_message: Some(Str::from(what)),
        ..Default::default()
    }
}
