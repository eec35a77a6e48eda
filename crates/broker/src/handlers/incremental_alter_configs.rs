//! IncrementalAlterConfigs (key 44), and what it shares with AlterConfigs.

use std::collections::BTreeMap;

use drumlin_cluster::{Image, Record, ResourceKind};
use drumlin_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, IncrementalAlterConfigsRequest,
};
use drumlin_wire::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use drumlin_wire::{ApiKey, Str};

use super::{BROKER_LOGGER, ROOT_LOGGER, shown};
use crate::config::{Alteration, ConfigOp, Live, Overrides, Target, alter};
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};

/// Changes options one by one; each resource for itself.
pub async fn handle(cx: &Cx, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
    let keys = request
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.clone()));
    let doubled = doubled(keys);
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let key = (resource.resource_type, resource.resource_name.clone());
        let outcome = if doubled(&key) {
            Err(Told::new(
                ErrorCode::InvalidRequest,
                "Each resource must appear at most once.",
            ))
        } else {
            change(cx, resource, request.validate_only).await
        };
        let (code, message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(told) => (told.code, Some(Str::from(told.message))),
        };
        responses.push(AlterConfigsResourceResponse {
            error_code: cx.error(ApiKey::IncrementalAlterConfigs, code),
            error_message: message,
            resource_type: key.0,
            resource_name: key.1,
            ..Default::default()
        });
    }
    IncrementalAlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

async fn change(cx: &Cx, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), Told> {
    if resource.resource_type == BROKER_LOGGER {
        check_node(cx, &resource.resource_name)?;
        let changes = alterations(resource)?;
        return changes.iter().try_for_each(check_level);
    }
    let decide = |target, current: &Overrides, live: &Live| {
        let changes = alterations(resource)?;
        Ok(alter::alter(target, current, &changes, live)?)
    };
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    apply(cx, kind, name, validate_only, decide).await
}

/// Levels that Kafka's loggers have.
const LEVELS: [&str; 6] = ["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

/// Checks a change of a logger's level, in Kafka's words. There are no loggers whose level could be changed: what passes
/// all other checks ends with that.
fn check_level(change: &Alteration<'_>) -> Result<(), Told> {
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidRequest, what));
    let refuse = |what: String| Err(Told::new(ErrorCode::InvalidConfig, what));
    let name = change.name;
    let missing = || refuse(format!("Logger {name} does not exist!"));
    match (change.op, change.value) {
        (ConfigOp::Append, _) => {
            invalid("APPEND operation is not allowed for the BROKER_LOGGER resource".to_owned())
        }
        (ConfigOp::Subtract, _) => {
            invalid("SUBTRACT operation is not allowed for the BROKER_LOGGER resource".to_owned())
        }
        (ConfigOp::Delete, _) if name == ROOT_LOGGER => {
            invalid("Removing the log level of the root logger is not allowed".to_owned())
        }
        (ConfigOp::Delete, _) => missing(),
        (ConfigOp::Set, None) => invalid(format!("Null value not supported for : {name}")),
        (ConfigOp::Set, Some(level)) if !LEVELS.contains(&level) => refuse(format!(
            "Cannot set the log level of {name} to {level} as it is not a supported log level. Valid log levels are {}",
            LEVELS.join(", ")
        )),
        (ConfigOp::Set, Some(_)) => missing(),
    }
}

/// Checks that a node's id is this broker's.
fn check_node(cx: &Cx, name: &str) -> Result<(), Told> {
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidRequest, what));
    match name.parse::<i32>() {
        Ok(id) if id == cx.broker.node_id => Ok(()),
        Ok(id) => invalid(format!(
            "Unexpected node id. Expected {}, but received {id}",
            cx.broker.node_id
        )),
        Err(_) => invalid(format!("Node id must be an integer, but it is: {}", shown(name))),
    }
}

fn alterations(resource: &AlterConfigsResource) -> Result<Vec<Alteration<'_>>, Told> {
    let one = |config: &'_ drumlin_wire::messages::incremental_alter_configs_request::AlterableConfig| {
        ConfigOp::from_wire(config.config_operation).ok_or_else(|| {
            let what = format!(
                "operation {} on `{}` is not known",
                config.config_operation, config.name
            );
            Told::new(ErrorCode::InvalidRequest, what)
        })
    };
    resource
        .configs
        .iter()
        .map(|config| {
            Ok(Alteration {
                name: &config.name,
                op: one(config)?,
                value: config.value.as_deref(),
            })
        })
        .collect()
}

/// Tells which keys come more than once.
pub(super) fn doubled<K: Ord>(keys: impl Iterator<Item = K>) -> impl Fn(&K) -> bool {
    let mut counts: BTreeMap<K, usize> = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    move |key| counts.get(key).is_some_and(|count| *count > 1)
}

/// Changes a resource's overrides by `decide`, which sees them as they are.
pub(super) async fn apply(
    cx: &Cx,
    kind: i8,
    name: &str,
    validate_only: bool,
    decide: impl FnOnce(Target, &Overrides, &Live) -> Result<Overrides, Told>,
) -> Result<(), Told> {
    let (kind, target) = target(cx, kind, name)?;
    let config = cx.broker.config();
    let records = |image: &Image| {
        if kind == ResourceKind::Topic && image.topic(name).is_none() {
            let what = format!("The topic '{}' does not exist.", shown(name));
            return Err(Told::new(ErrorCode::UnknownTopicOrPartition, what));
        }
        let none = Overrides::new();
        let current = image.configs(kind, name).unwrap_or(&none);
        let wanted = decide(target, current, &config.live)?;
        Ok(difference(kind, name, current, &wanted))
    };
    if validate_only {
        return records(&cx.broker.image()).map(|_| ());
    }
    cx.broker
        .change(config.requests.timeout, records)
        .await
        .map(|_| ())
}

fn target(cx: &Cx, kind: i8, name: &str) -> Result<(ResourceKind, Target), Told> {
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidRequest, what));
    match u8::try_from(kind).ok().and_then(ResourceKind::from_code) {
        Some(ResourceKind::Topic) if name.is_empty() => {
            invalid("Default topic resources are not allowed.".to_owned())
        }
        Some(ResourceKind::Topic) => Ok((ResourceKind::Topic, Target::Topic)),
        Some(ResourceKind::Broker) if name.is_empty() => Ok((ResourceKind::Broker, Target::AllBrokers)),
        Some(ResourceKind::Broker) => match name.parse::<i32>() {
            Ok(id) if id == cx.broker.node_id => Ok((ResourceKind::Broker, Target::Broker)),
            Ok(id) => invalid(format!(
                "Unexpected broker id, expected {}, but received {id}",
                cx.broker.node_id
            )),
            Err(_) => invalid(format!("Node id must be an integer, but it is: {}", shown(name))),
        },
        Some(ResourceKind::Group) if name.is_empty() => {
            invalid("Default group resources are not allowed.".to_owned())
        }
        Some(ResourceKind::Group) => Ok((ResourceKind::Group, Target::Group)),
        Some(ResourceKind::ClientMetrics) if name.is_empty() => {
            invalid("Subscription name can't be empty".to_owned())
        }
        Some(ResourceKind::ClientMetrics) => Ok((ResourceKind::ClientMetrics, Target::ClientMetrics)),
        None => invalid(format!("Unknown resource type {kind}")),
    }
}

fn difference(kind: ResourceKind, name: &str, current: &Overrides, wanted: &Overrides) -> Vec<Record> {
    let set = |key: &String, value: Option<&String>| Record::ConfigSet {
        resource: kind,
        name: name.to_owned(),
        key: key.clone(),
        value: value.cloned(),
    };
    let changed = wanted
        .iter()
        .filter(|(key, value)| current.get(*key) != Some(value));
    let removed = current.keys().filter(|key| !wanted.contains_key(*key));
    changed
        .map(|(key, value)| set(key, Some(value)))
        .chain(removed.map(|key| set(key, None)))
        .collect()
}
