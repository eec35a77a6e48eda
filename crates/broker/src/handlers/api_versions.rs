//! ApiVersions (key 18): what is served, from the registry; which features are in force, from the image.

use drumlin_cluster::{FORMAT_FEATURE, FORMAT_LEVEL};
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
    let format_level = i16::try_from(FORMAT_LEVEL).unwrap_or(i16::MAX);
    let supported = FEATURES.into_iter().chain([(FORMAT_FEATURE, 1, format_level)]);
    let finalised = FEATURES
        .map(|(name, _, max)| (Str::from_static(name), max))
        .into_iter()
        .chain(
            image
                .features
                .iter()
                .map(|(name, level)| (Str::from(&**name), *level)),
        );
    ApiVersionsResponse {
        error_code: ErrorCode::None.code(),
        api_keys: APIS.iter().map(version).collect(),
        supported_features: supported
            // A range from 0 came with version 4 (KIP-1022); older clients refuse it.
            .filter(|(_, min, _)| cx.version >= 4 || *min > 0)
            .map(|(name, min_version, max_version)| SupportedFeatureKey {
                name: Str::from_static(name),
                min_version,
                max_version,
                ..Default::default()
            })
            .collect(),
        finalized_features_epoch: i64::try_from(image.features_epoch).unwrap_or(i64::MAX),
        finalized_features: finalised
            .filter(|(_, level)| *level > 0)
            .map(|(name, level)| FinalizedFeatureKey {
                name,
                max_version_level: level,
                min_version_level: level,
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
