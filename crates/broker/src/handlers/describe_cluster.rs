//! DescribeCluster (key 60).

use drumlin_wire::messages::describe_cluster_request::DescribeClusterRequest;
use drumlin_wire::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use drumlin_wire::{ApiKey, Str};

use super::{NO_OPERATIONS, Operations};
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// `endpoint_type` of brokers; 2 would be the controllers of a KRaft quorum, which this cluster does not have.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers from the image.
pub async fn handle(cx: &Cx, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let failed = |code, what: String| DescribeClusterResponse {
        error_code: cx.error(ApiKey::DescribeCluster, code),
        error_message: Some(Str::from(what)),
        cluster_authorized_operations: NO_OPERATIONS,
        ..Default::default()
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return failed(
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                    .to_owned(),
            );
        }
        unknown => {
            return failed(
                ErrorCode::UnsupportedEndpointType,
                format!("Unsupported endpoint type {unknown}"),
            );
        }
    }
    let image = cx.broker.image();
    let brokers = cx
        .broker
        .endpoints(&image, &cx.peer.listener)
        .into_iter()
        .map(|endpoint| DescribeClusterBroker {
            broker_id: endpoint.node_id,
            host: endpoint.host,
            port: endpoint.port,
            rack: endpoint.rack,
            ..Default::default()
        })
        .collect();
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: Str::from(&*image.cluster_id),
        controller_id: image.controller,
        brokers,
        cluster_authorized_operations: Operations::Cluster
            .answer(request.include_cluster_authorized_operations),
        ..Default::default()
    }
}
