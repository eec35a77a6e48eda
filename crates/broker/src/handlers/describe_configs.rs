//! DescribeConfigs (key 32).

use drumlin_cluster::{Image, ResourceKind};
use drumlin_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use drumlin_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use drumlin_wire::{ApiKey, Str};

use crate::config::{
    BrokerConfig, DescribedConfig, Overrides, describe_all_brokers, describe_broker, describe_group,
    describe_topic,
};
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};

/// The resource of log levels, which are this process's own business and empty here.
const BROKER_LOGGER: i8 = 8;

/// Describes each resource.
pub async fn handle(cx: &Cx, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let image = cx.broker.image();
    let config = cx.broker.config();
    let results = request
        .resources
        .iter()
        .map(|resource| {
            let base = DescribeConfigsResult {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            };
            match describe(cx, &image, &config, resource) {
                Ok(described) => DescribeConfigsResult {
                    configs: described
                        .into_iter()
                        .map(|entry| answer(entry, &request))
                        .collect(),
                    ..base
                },
                Err(told) => DescribeConfigsResult {
                    error_code: cx.error(ApiKey::DescribeConfigs, told.code),
                    // The code says it all, and Kafka's answer has an empty message.
                    error_message: Some(match told.code {
                        ErrorCode::UnknownTopicOrPartition => Str::EMPTY,
                        _ => Str::from(told.message),
                    }),
                    ..base
                },
            }
        })
        .collect();
    DescribeConfigsResponse {
        results,
        ..Default::default()
    }
}

fn describe(
    cx: &Cx,
    image: &Image,
    config: &BrokerConfig,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribedConfig>, Told> {
    let names: Option<Vec<&str>> = resource
        .configuration_keys
        .as_ref()
        .map(|keys| keys.iter().map(Str::as_str).collect());
    // An empty list asks for all, as a missing one.
    let names = names.as_deref().filter(|names| !names.is_empty());
    let name = resource.resource_name.as_str();
    if resource.resource_type == BROKER_LOGGER {
        return Ok(Vec::new());
    }
    let kind = u8::try_from(resource.resource_type)
        .ok()
        .and_then(ResourceKind::from_code);
    match kind {
        Some(ResourceKind::Topic) => match image.topic(name) {
            Some(topic) => Ok(describe_topic(&config.live, &topic.configs, names)),
            None => Err(Told::new(
                ErrorCode::UnknownTopicOrPartition,
                "there is no topic of this name",
            )),
        },
        Some(ResourceKind::Broker) if name.is_empty() => Ok(describe_all_brokers(&config.live, names)),
        Some(ResourceKind::Broker) if name.parse() == Ok(cx.broker.node_id) => {
            Ok(describe_broker(&config.live, names))
        }
        Some(ResourceKind::Broker) => {
            let what = format!("this is broker {}, not {name:?}", cx.broker.node_id);
            Err(Told::new(ErrorCode::InvalidRequest, what))
        }
        Some(ResourceKind::Group) if name.is_empty() => Err(Told::new(
            ErrorCode::InvalidRequest,
            "the name of a group must not be empty",
        )),
        // A group has options before it has members, or without ever having any.
        Some(ResourceKind::Group) => {
            let none = Overrides::new();
            let own = image.configs(ResourceKind::Group, name).unwrap_or(&none);
            Ok(describe_group(&config.live, own, names))
        }
        // Nothing configures these yet.
        Some(ResourceKind::ClientMetrics) => Ok(Vec::new()),
        None => {
            let what = format!("resources of type {} are not known", resource.resource_type);
            Err(Told::new(ErrorCode::InvalidRequest, what))
        }
    }
}

fn answer(entry: DescribedConfig, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonyms = if request.include_synonyms {
        entry.synonyms
    } else {
        Vec::new()
    };
    DescribeConfigsResourceResult {
        name: Str::from_static(entry.name),
        value: entry.value.map(Str::from),
        read_only: entry.read_only,
        config_source: entry.source.wire_code(),
        is_sensitive: entry.sensitive,
        synonyms: synonyms
            .into_iter()
            .map(|synonym| DescribeConfigsSynonym {
                name: Str::from_static(synonym.name),
                value: synonym.value.map(Str::from),
                source: synonym.source.wire_code(),
                ..Default::default()
            })
            .collect(),
        config_type: entry.kind.wire_code(),
        documentation: request
            .include_documentation
            .then(|| Str::from_static(entry.documentation)),
        ..Default::default()
    }
}
