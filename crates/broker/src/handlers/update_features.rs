//! UpdateFeatures (key 57): levels of features are this version's own and never change while it runs.

use drumlin_wire::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use drumlin_wire::messages::update_features_response::{UpdatableFeatureResult, UpdateFeaturesResponse};
use drumlin_wire::{ApiKey, Str};

use super::api_versions::{Feature, features};
use super::shown;
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Kinds of updates.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;
/// First version with kinds of updates, instead of a flag.
const KINDS_FROM: i16 = 1;
/// First version whose answer does not tell of each feature.
const NO_RESULTS_FROM: i16 = 2;

/// Takes updates to the levels in force. The first that is not fails all of them, in Kafka's words.
pub async fn handle(cx: &Cx, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let features = features(&cx.broker.image());
    let failed = request
        .feature_updates
        .iter()
        .find_map(|update| check(cx, &features, update).err().map(|reason| (update, reason)));
    if let Some((update, reason)) = failed {
        let what = format!(
            "The update failed for all features since the following feature had an error: Invalid update \
             version {} for feature {}. {reason}",
            update.max_version_level,
            shown(&update.feature)
        );
        return UpdateFeaturesResponse {
            error_code: cx.error(ApiKey::UpdateFeatures, ErrorCode::InvalidUpdateVersion),
            error_message: Some(Str::from(what)),
            ..Default::default()
        };
    }
    let results = if cx.version >= NO_RESULTS_FROM {
        Vec::new()
    } else {
        request
            .feature_updates
            .into_iter()
            .map(|update| UpdatableFeatureResult {
                feature: update.feature,
                error_message: Some(Str::from_static("NONE")),
                ..Default::default()
            })
            .collect()
    };
    UpdateFeaturesResponse {
        error_message: None,
        results,
        ..Default::default()
    }
}

/// Checks one update, in the order in which Kafka does (`FeatureControlManager`).
fn check(cx: &Cx, features: &[Feature], update: &FeatureUpdateKey) -> Result<(), String> {
    let kind = match update.allow_downgrade {
        _ if cx.version >= KINDS_FROM => update.upgrade_type,
        true => SAFE_DOWNGRADE,
        false => UPGRADE,
    };
    let level = update.max_version_level;
    if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&kind) {
        return Err("The controller does not support the given upgrade type.".to_owned());
    }
    if level < 0 {
        return Err("A feature version cannot be less than 0.".to_owned());
    }
    let node = cx.broker.node_id;
    let Some(feature) = features.iter().find(|feature| update.feature == *feature.name) else {
        return Err(format!("Local controller {node} does not support this feature."));
    };
    if !(feature.min..=feature.max).contains(&level) {
        return Err(format!(
            "Local controller {node} only supports versions {}-{}",
            feature.min, feature.max
        ));
    }
    if level < feature.level && kind == UPGRADE {
        return Err(
            "Can't downgrade the version of this feature without setting the upgrade type to \
                    either safe or unsafe downgrade."
                .to_owned(),
        );
    }
    if level > feature.level && kind != UPGRADE {
        return Err("Can't downgrade to a newer version.".to_owned());
    }
    if level != feature.level {
        return Err(format!(
            "The level of this feature is {} in this version of Drumlin and cannot be changed.",
            feature.level
        ));
    }
    Ok(())
}
