//! The one table of the APIs and versions that the broker serves.
//!
//! It routes requests and answers ApiVersions, so that neither can disagree with the other; it lists what is
//! tested with clients, not all that the codec can read. A mistake in it is an error of compilation.

use crate::ApiKey;

/// An API that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// The API.
    pub key: ApiKey,
    /// Oldest version that ApiVersions advertises.
    pub min: i16,
    /// Newest version that ApiVersions advertises and that is served.
    pub max: i16,
    /// Oldest version that is served. Older ones are advertised because clients take their absence for a
    /// broken broker, and are answered UNSUPPORTED_VERSION.
    pub served_from: i16,
}

const fn api(key: ApiKey, min: i16, max: i16) -> Api {
    Api {
        key,
        min,
        max,
        served_from: min,
    }
}

/// Every API that is served, in the order of the keys.
pub const APIS: &[Api] = &[
    // librdkafka compresses only for a broker that advertises Produce 0 (KAFKA-18659).
    Api {
        served_from: 3,
        ..api(ApiKey::Produce, 0, 13)
    },
    api(ApiKey::Fetch, 4, 18),
    api(ApiKey::ListOffsets, 1, 11),
    api(ApiKey::Metadata, 0, 13),
    // Kafka 4 has dropped OffsetCommit 0-1 and OffsetFetch 0. Sarama before 1.41 sends OffsetCommit 1 without
    // asking, and other clients pick 0 where they are told of an old broker. Nobody's choice of a newer version
    // suffers: Kafka 0.9 to 3.9 advertised them too.
    api(ApiKey::OffsetCommit, 0, 10),
    api(ApiKey::OffsetFetch, 0, 10),
    api(ApiKey::FindCoordinator, 0, 6),
    api(ApiKey::JoinGroup, 0, 9),
    api(ApiKey::Heartbeat, 0, 4),
    api(ApiKey::LeaveGroup, 0, 5),
    api(ApiKey::SyncGroup, 0, 5),
    api(ApiKey::DescribeGroups, 0, 6),
    api(ApiKey::ListGroups, 0, 5),
    api(ApiKey::SaslHandshake, 0, 1),
    api(ApiKey::ApiVersions, 0, 4),
    api(ApiKey::CreateTopics, 2, 7),
    api(ApiKey::DeleteTopics, 1, 6),
    api(ApiKey::DeleteRecords, 0, 2),
    api(ApiKey::InitProducerId, 0, 5),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4),
    api(ApiKey::DescribeAcls, 1, 3),
    api(ApiKey::CreateAcls, 1, 3),
    api(ApiKey::DeleteAcls, 1, 3),
    api(ApiKey::DescribeConfigs, 1, 4),
    api(ApiKey::AlterConfigs, 0, 2),
    api(ApiKey::AlterReplicaLogDirs, 1, 2),
    api(ApiKey::DescribeLogDirs, 1, 5),
    api(ApiKey::SaslAuthenticate, 0, 2),
    api(ApiKey::CreatePartitions, 0, 3),
    api(ApiKey::CreateDelegationToken, 1, 3),
    api(ApiKey::RenewDelegationToken, 1, 2),
    api(ApiKey::ExpireDelegationToken, 1, 2),
    api(ApiKey::DescribeDelegationToken, 1, 3),
    api(ApiKey::DeleteGroups, 0, 2),
    api(ApiKey::ElectLeaders, 0, 2),
    api(ApiKey::IncrementalAlterConfigs, 0, 1),
    api(ApiKey::AlterPartitionReassignments, 0, 1),
    api(ApiKey::ListPartitionReassignments, 0, 0),
    api(ApiKey::OffsetDelete, 0, 0),
    api(ApiKey::DescribeClientQuotas, 0, 1),
    api(ApiKey::AlterClientQuotas, 0, 1),
    api(ApiKey::DescribeUserScramCredentials, 0, 0),
    api(ApiKey::AlterUserScramCredentials, 0, 0),
    api(ApiKey::DescribeQuorum, 0, 2),
    api(ApiKey::UpdateFeatures, 0, 2),
    api(ApiKey::DescribeCluster, 0, 2),
    api(ApiKey::DescribeProducers, 0, 0),
    api(ApiKey::UnregisterBroker, 0, 0),
    api(ApiKey::DescribeTransactions, 0, 0),
    api(ApiKey::ListTransactions, 0, 2),
    api(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    api(ApiKey::ConsumerGroupDescribe, 0, 1),
    api(ApiKey::GetTelemetrySubscriptions, 0, 0),
    api(ApiKey::PushTelemetry, 0, 0),
    api(ApiKey::ListConfigResources, 0, 1),
    api(ApiKey::DescribeTopicPartitions, 0, 0),
];

const _: () = check(APIS);

/// Holds the table against the schemas, and itself in order without duplicates.
const fn check(apis: &[Api]) {
    let mut i = 0;
    while i < apis.len() {
        let Api {
            key,
            min,
            max,
            served_from,
        } = apis[i];
        let schema = key.schema();
        assert!(
            min <= max && served_from >= min && served_from <= max,
            "a range is empty"
        );
        assert!(
            min >= schema.oldest_version && max <= schema.max_version,
            "the codec lacks a version"
        );
        assert!(
            !(schema.unstable && max == schema.max_version),
            "an unstable version is advertised"
        );
        assert!(
            i == 0 || (apis[i - 1].key as i16) < key as i16,
            "an API is out of order or there twice"
        );
        i += 1;
    }
}

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Serve it.
    Serve,
    /// ApiVersions in a version that is not known: answer version 0 with UNSUPPORTED_VERSION and the range,
    /// without a look at the body (KIP-511).
    ApiVersionsFallback,
    /// Advertised and not served: answer UNSUPPORTED_VERSION in the request's own version.
    Unsupported,
    /// Neither: close the connection.
    Refuse,
}

/// The entry of an API, if it is served.
pub fn find(key: ApiKey) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key)
        .ok()
        .map(|i| &APIS[i])
}

/// What is to be done with a request of this API and version.
pub fn route(key: ApiKey, version: i16) -> Route {
    match find(key) {
        Some(api) if (api.served_from..=api.max).contains(&version) => Route::Serve,
        _ if key == ApiKey::ApiVersions => Route::ApiVersionsFallback,
        Some(api) if (api.min..api.served_from).contains(&version) => Route::Unsupported,
        _ => Route::Refuse,
    }
}
