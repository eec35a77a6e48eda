//! FindCoordinator (key 10): which broker coordinates a group.

use drumlin_cluster::Image;
use drumlin_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use drumlin_wire::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};
use crate::groups::topic;
use crate::state::Endpoint;

/// Types of keys.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// First version with several keys (KIP-699).
const BATCHED_FROM: i16 = 4;
/// Kafka's message beside code 0 in versions without several keys; librdkafka and others look for it.
const NO_ERROR: &str = "NONE";

/// Names the coordinator of each key.
pub async fn handle(cx: &Cx, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let image = match request.key_type {
        GROUP => topic::ensure(&cx.broker)
            .await
            .map_err(|told| Told::new(ErrorCode::CoordinatorNotAvailable, told.message)),
        // Final for Java and for librdkafka, which tries again upon any other; there are no transactions yet.
        TRANSACTION => Err(Told::new(
            ErrorCode::TransactionalIdAuthorizationFailed,
            "transactions are not supported by this broker",
        )),
        kind => Err(Told::new(
            ErrorCode::InvalidRequest,
            format!("there are no coordinators for keys of type {kind}"),
        )),
    };
    if cx.version < BATCHED_FROM {
        let found = find(cx, &image, request.key);
        return FindCoordinatorResponse {
            error_code: found.error_code,
            error_message: match found.error_code {
                0 => Some(Str::from_static(NO_ERROR)),
                _ => found.error_message,
            },
            node_id: found.node_id,
            host: found.host,
            port: found.port,
            ..Default::default()
        };
    }
    FindCoordinatorResponse {
        coordinators: request
            .coordinator_keys
            .into_iter()
            .map(|key| find(cx, &image, key))
            .collect(),
        ..Default::default()
    }
}

fn find(cx: &Cx, image: &Result<std::sync::Arc<Image>, Told>, key: Str) -> Coordinator {
    let found = match image {
        Ok(image) => topic::coordinator(&cx.broker, image, &key, &cx.peer.listener)
            .map_err(|code| Told::new(code, "the coordinator is not known at the moment")),
        Err(told) => Err(told.clone()),
    };
    match found {
        Ok(Endpoint {
            node_id, host, port, ..
        }) => Coordinator {
            key,
            node_id,
            host,
            port,
            ..Default::default()
        },
        Err(told) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: cx.error(ApiKey::FindCoordinator, told.code),
            error_message: Some(Str::from(told.message)),
            ..Default::default()
        },
    }
}
