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
                "the request names this resource more than once",
            ))
        } else {
            apply(
                cx,
                key.0,
                &key.1,
                request.validate_only,
                |target, current, live| {
                    let changes = alterations(resource)?;
                    Ok(alter::alter(target, current, &changes, live)?)
                },
            )
            .await
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
            return Err(Told::new(
                ErrorCode::UnknownTopicOrPartition,
                "there is no topic of this name",
            ));
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
        Some(ResourceKind::Topic) => Ok((ResourceKind::Topic, Target::Topic)),
        Some(ResourceKind::Broker) if name.is_empty() => Ok((ResourceKind::Broker, Target::AllBrokers)),
        Some(ResourceKind::Broker) if name.parse() == Ok(cx.broker.node_id) => {
            Ok((ResourceKind::Broker, Target::Broker))
        }
        Some(ResourceKind::Broker) => invalid(format!("this is broker {}, not {name:?}", cx.broker.node_id)),
        Some(ResourceKind::Group) if name.is_empty() => invalid(
            "default group resources are not allowed: options of all groups are the broker's".to_owned(),
        ),
        Some(ResourceKind::Group) => Ok((ResourceKind::Group, Target::Group)),
        Some(ResourceKind::ClientMetrics) => {
            invalid("configs of client metrics are not supported yet".to_owned())
        }
        None => invalid(format!("configs of resources of type {kind} cannot be altered")),
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
