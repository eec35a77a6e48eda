//! ApiVersions (key 18): what is served, from the registry; which features are in force, from the image.

use drumlin_cluster::{FORMAT_FEATURE, FORMAT_LEVEL, Image};
use drumlin_wire::messages::api_versions_request::ApiVersionsRequest;
use drumlin_wire::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use drumlin_wire::registry::{self, APIS, Api};
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Features of Kafka that its tools ask for: name, supported range. `transaction.version` stays out until there are
/// transactions: finalised, it changes what producers do (KIP-890).
const FEATURES: [(&str, i16, i16); 2] = [("metadata.version", 7, 25), ("group.version", 0, 1)];

/// A feature with the range that this version can have and the level in force.
pub(super) struct Feature {
    /// Its name.
    pub name: Str,
    /// Smallest level.
    pub min: i16,
    /// Largest level.
    pub max: i16,
    /// Level in force; 0 for none.
    pub level: i16,
}

/// All features: Kafka's, which are in force at their largest levels, and this broker's own.
pub(super) fn features(image: &Image) -> Vec<Feature> {
    let format_level = i16::try_from(FORMAT_LEVEL).unwrap_or(i16::MAX);
    let own = image.features.get(FORMAT_FEATURE).copied().unwrap_or(0);
    let kafkas = FEATURES.map(|(name, min, max)| (name, min, max, max));
    kafkas
        .into_iter()
        .chain([(FORMAT_FEATURE, 1, format_level, own)])
        .map(|(name, min, max, level)| Feature {
            name: Str::from_static(name),
            min,
            max,
            level,
        })
        .collect()
}

/// Answers with the registry.
pub async fn handle(cx: &Cx, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = |text: &Str| well_formed(text.as_str());
    if cx.version >= 3 && !(named(&request.client_software_name) && named(&request.client_software_version)) {
        let error_code = cx.error(ApiKey::ApiVersions, ErrorCode::InvalidRequest);
        return ApiVersionsResponse {
            error_code,
            ..Default::default()
        };
    }
    let image = cx.broker.image();
    let features = features(&image);
    ApiVersionsResponse {
        error_code: ErrorCode::None.code(),
        api_keys: APIS.iter().map(version).collect(),
        supported_features: features
            .iter()
            // A range from 0 came with version 4 (KIP-1022); older clients refuse it.
            .filter(|feature| cx.version >= 4 || feature.min > 0)
            .map(|feature| SupportedFeatureKey {
                name: feature.name.clone(),
                min_version: feature.min,
                max_version: feature.max,
                ..Default::default()
            })
            .collect(),
        finalized_features_epoch: i64::try_from(image.features_epoch).unwrap_or(i64::MAX),
        finalized_features: features
            .into_iter()
            .filter(|feature| feature.level > 0)
            .map(|feature| FinalizedFeatureKey {
                name: feature.name,
                max_version_level: feature.level,
                min_version_level: feature.level,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// The answer to a version that is not known: the range of ApiVersions itself, in version 0 (KIP-511).
pub fn unsupported(cx: &Cx) -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: cx.error(ApiKey::ApiVersions, ErrorCode::UnsupportedVersion),
        api_keys: registry::find(ApiKey::ApiVersions)
            .map(version)
            .into_iter()
            .collect(),
        ..Default::default()
    }
}

fn version(api: &Api) -> ApiVersion {
    ApiVersion {
        api_key: api.key.as_i16(),
        min_version: api.min,
        max_version: api.max,
        ..Default::default()
    }
}

/// KIP-511's rule for the client's software name and version.
fn well_formed(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::well_formed;

    #[test]
    fn software_names_follow_the_kip() {
        for good in ["a", "apache-kafka-java", "4.3.1", "1"] {
            assert!(well_formed(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "ü", "."] {
            assert!(!well_formed(bad), "{bad}");
        }
    }
}
