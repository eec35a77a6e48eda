//! ListConfigResources (key 74): what can be configured.

use drumlin_cluster::ResourceKind;
use drumlin_wire::messages::list_config_resources_request::ListConfigResourcesRequest;
use drumlin_wire::messages::list_config_resources_response::{ConfigResource, ListConfigResourcesResponse};
use drumlin_wire::{ApiKey, Str};

use super::BROKER_LOGGER;
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

const TOPIC: i8 = ResourceKind::Topic as i8;
const BROKER: i8 = ResourceKind::Broker as i8;
const CLIENT_METRICS: i8 = ResourceKind::ClientMetrics as i8;
const GROUP: i8 = ResourceKind::Group as i8;

/// Lists the resources of the kinds asked for. Version 0 knew client metrics only.
pub async fn handle(cx: &Cx, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let kinds = match request.resource_types.as_slice() {
        _ if cx.version == 0 => &[CLIENT_METRICS],
        [] => &[TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP][..],
        asked => asked,
    };
    let image = cx.broker.image();
    let mut config_resources = Vec::new();
    for kind in kinds {
        let names: Vec<Str> = match *kind {
            TOPIC => image
                .topics()
                .iter()
                .map(|(name, _)| Str::from(&**name))
                .collect(),
            BROKER | BROKER_LOGGER => image
                .brokers
                .iter()
                .map(|(node, _)| Str::from(node.to_string()))
                .collect(),
            CLIENT_METRICS | GROUP => image
                .configured()
                .filter(|(resource, _)| resource.kind as i8 == *kind)
                .map(|(resource, _)| Str::from(&*resource.name))
                .collect(),
            _ => {
                let error_code = cx.error(ApiKey::ListConfigResources, ErrorCode::UnsupportedVersion);
                return ListConfigResourcesResponse {
                    error_code,
                    ..Default::default()
                };
            }
        };
        config_resources.extend(names.into_iter().map(|resource_name| ConfigResource {
            resource_name,
            resource_type: *kind,
            ..Default::default()
        }));
    }
    ListConfigResourcesResponse {
        config_resources,
        ..Default::default()
    }
}
