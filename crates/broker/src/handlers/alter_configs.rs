//! AlterConfigs (key 33): replaces all of a resource's overrides.

use drumlin_wire::messages::alter_configs_request::AlterConfigsRequest;
use drumlin_wire::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};
use drumlin_wire::{ApiKey, Str};

use super::incremental_alter_configs::{apply, doubled};
use crate::config::alter;
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};

/// Replaces overrides; each resource for itself.
pub async fn handle(cx: &Cx, request: AlterConfigsRequest) -> AlterConfigsResponse {
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
            apply(cx, key.0, &key.1, request.validate_only, |target, _, live| {
                let configs = resource
                    .configs
                    .iter()
                    .map(|config| (config.name.as_str(), config.value.as_deref()));
                Ok(alter::replace(target, configs, live)?)
            })
            .await
        };
        let (code, message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(told) => (told.code, Some(Str::from(told.message))),
        };
        responses.push(AlterConfigsResourceResponse {
            error_code: cx.error(ApiKey::AlterConfigs, code),
            error_message: message,
            resource_type: key.0,
            resource_name: key.1,
            ..Default::default()
        });
    }
    AlterConfigsResponse {
        responses,
        ..Default::default()
    }
}
