//! DescribeConfigs (key 32).

use drumlin_cluster::{Image, ResourceKind};
use drumlin_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use drumlin_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use drumlin_wire::{ApiKey, Str};

use super::{BROKER_LOGGER, shown};
use crate::config::{
    BrokerConfig, DescribedConfig, Overrides, describe_all_brokers, describe_broker, describe_client_metrics,
    describe_group, describe_topic,
};
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};
use crate::names;

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
    let asked: Option<Vec<&str>> = resource
        .configuration_keys
        .as_ref()
        .map(|keys| keys.iter().map(Str::as_str).collect());
    // An empty list asks for all, as a missing one.
    let asked = asked.as_deref().filter(|names| !names.is_empty());
    let name = resource.resource_name.as_str();
    let node = cx.broker.node_id;
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidRequest, what));
    let not_a_number = || {
        invalid(format!(
            "Broker id must be an integer, but it is: {}",
            shown(name)
        ))
    };
    if resource.resource_type == BROKER_LOGGER {
        return match name.parse::<i32>() {
            Ok(id) if id == node => Ok(Vec::new()),
            Ok(id) => invalid(format!("Unexpected broker id, expected {node} but received {id}")),
            Err(_) if name.is_empty() => invalid("Broker id must not be empty".to_owned()),
            Err(_) => not_a_number(),
        };
    }
    let kind = u8::try_from(resource.resource_type)
        .ok()
        .and_then(ResourceKind::from_code);
    let none = Overrides::new();
    match kind {
        Some(ResourceKind::Topic) => match image.topic(name) {
            Some(topic) => Ok(describe_topic(&config.live, &topic.configs, asked)),
            None => {
                names::check(name).map_err(|what| Told::new(ErrorCode::InvalidTopic, what))?;
                let what = "there is no topic of this name";
                Err(Told::new(ErrorCode::UnknownTopicOrPartition, what))
            }
        },
        Some(ResourceKind::Broker) if name.is_empty() => Ok(describe_all_brokers(&config.live, asked)),
        Some(ResourceKind::Broker) => match name.parse::<i32>() {
            Ok(id) if id == node => Ok(describe_broker(&config.live, asked)),
            Ok(id) => invalid(format!(
                "Unexpected broker id, expected {node} or empty string, but received {id}"
            )),
            Err(_) => not_a_number(),
        },
        Some(ResourceKind::Group) if name.is_empty() => invalid("Group name must not be empty".to_owned()),
        // A group has options before it has members, or without ever having any.
        Some(ResourceKind::Group) => {
            let own = image.configs(ResourceKind::Group, name).unwrap_or(&none);
            Ok(describe_group(&config.live, own, asked))
        }
        Some(ResourceKind::ClientMetrics) if name.is_empty() => {
            invalid("Client metrics subscription name must not be empty".to_owned())
        }
        Some(ResourceKind::ClientMetrics) => {
            let own = image.configs(ResourceKind::ClientMetrics, name).unwrap_or(&none);
            Ok(describe_client_metrics(&config.live, own, asked))
        }
        None => {
            let what = format!("resources of type {} are not known", resource.resource_type);
            invalid(what)
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
