//! From a frame to a handler and back: the one place where APIs are routed.
//!
//! Which APIs and versions there are is [`drumlin_wire::registry`]'s to say; a test holds the routes below against it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use drumlin_wire::messages as m;
use drumlin_wire::registry::{Route, route};
use drumlin_wire::{ApiKey, DecodeError, Message, Request, RequestHeader, Response, Str, frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::error_code::ErrorCode;
use crate::handlers;
use crate::net::{Answer, Boxed, Peer, Refusal, Reply, Service};
use crate::state::Shared;

/// One request's surroundings.
pub struct Cx {
    /// The broker.
    pub broker: Arc<Shared>,
    /// Who asks.
    pub peer: Arc<Peer>,
    /// Version of the request.
    pub version: i16,
    /// Client id of a request that is about a group, in memory of its own.
    pub client_id: Option<Str>,
    /// True for the admin client that Kafka lets write to internal topics (`AdminUtils.ADMIN_CLIENT_ID`).
    pub internal: bool,
    /// Its correlation id.
    pub correlation_id: i32,
    /// Held by a request that takes much memory.
    pub large: Option<OwnedSemaphorePermit>,
    /// When it was taken.
    pub began: Instant,
}

impl Cx {
    /// Frames an answer and counts it.
    pub fn answer<M: Response>(&self, message: &M) -> Result<Answer, Refusal> {
        let framed = frame::response(message, self.version, self.correlation_id)
            .map_err(|error| Refusal(format!("answer to {} {}: {error}", M::KEY, self.version)))?;
        if let Some(api) = self.broker.metrics.api(M::KEY) {
            api.answered(self.began.elapsed());
        }
        Ok(Answer::new(framed.segments))
    }

    /// Counts an error and gives its code back.
    pub fn error(&self, key: ApiKey, code: ErrorCode) -> i16 {
        self.broker.metrics.error(key, code.code());
        code.code()
    }
}

fn malformed<M: Message>(version: i16, error: &DecodeError) -> Refusal {
    Refusal(format!("malformed {} version {version}: {error}", M::NAME))
}

fn decode<M: Request>(cx: &Cx, body: &Bytes) -> Result<M, Refusal> {
    M::decode(body, cx.version).map_err(|error| malformed::<M>(cx.version, &error))
}

/// Routes the APIs whose handlers are `async fn handle(&Cx, Request) -> Response`.
macro_rules! routes {
    ($cx:ident, $body:ident, $key:expr, { $($api:ident($handler:ident) => $module:ident :: $request:ident),* $(,)? }) => {
        match $key {
            $(ApiKey::$api => {
                let request: m::$module::$request = decode(&$cx, &$body)?;
                // The request keeps alive what it refers to.
                drop($body);
                if waits_for_others($key) {
                    $cx.large = None;
                }
                let response = handlers::$handler::handle(&$cx, request).await;
                $cx.answer(&response).map(Reply::Now)
            })*
            key => Err(Refusal(format!("there is no handler for {key}"))),
        }
    };
}

/// The broker as the network sees it.
pub struct Dispatcher {
    /// What handlers work on.
    pub shared: Arc<Shared>,
}

impl Dispatcher {
    async fn dispatch(self: Arc<Self>, peer: Arc<Peer>, bytes: Bytes) -> Result<Reply, Refusal> {
        let (header, body) = RequestHeader::parse(&bytes).map_err(|error| Refusal(error.to_string()))?;
        drop(bytes);
        let mut cx = Cx {
            broker: Arc::clone(&self.shared),
            peer,
            version: header.api_version,
            client_id: None,
            internal: header
                .client_id
                .as_ref()
                .is_some_and(|id| id.as_str() == ADMIN_CLIENT),
            correlation_id: header.correlation_id,
            large: None,
            began: Instant::now(),
        };
        if of_group(header.api_key) {
            // Its own memory: a member's client id outlives the request.
            cx.client_id = header.client_id.as_ref().map(Str::detach);
        }
        match route(header.api_key, header.api_version) {
            Route::Serve => serve(cx, header.api_key, body).await,
            Route::ApiVersionsFallback => {
                cx.version = 0;
                let response = handlers::api_versions::unsupported(&cx);
                cx.answer(&response).map(Reply::Now)
            }
            Route::Unsupported => unsupported(&cx, header.api_key, &body),
            Route::Refuse => Err(Refusal(format!(
                "{} version {} is not supported (client id {:?})",
                header.api_key,
                header.api_version,
                header.client_id.as_ref().map_or("", Str::as_str)
            ))),
        }
    }
}

/// The client id of the admin client inside of Kafka's brokers and tools that repair internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

/// What a request and its answer may take, for each byte of the request: as [`drumlin_wire::limits`] bounds it, and
/// more where a few bytes name what is answered with many.
fn expansion(key: ApiKey) -> usize {
    let answer = match key {
        ApiKey::FindCoordinator
        | ApiKey::DescribeGroups
        | ApiKey::DeleteGroups
        | ApiKey::ConsumerGroupDescribe => 8,
        ApiKey::OffsetFetch | ApiKey::OffsetCommit | ApiKey::OffsetDelete => 2,
        _ => 1,
    };
    drumlin_wire::limits::PER_BYTE * answer
}

/// APIs that a group's coordinator serves.
fn of_group(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::JoinGroup
            | ApiKey::SyncGroup
            | ApiKey::Heartbeat
            | ApiKey::LeaveGroup
            | ApiKey::OffsetCommit
            | ApiKey::OffsetFetch
            | ApiKey::OffsetDelete
            | ApiKey::ListGroups
            | ApiKey::DescribeGroups
            | ApiKey::DeleteGroups
            | ApiKey::ConsumerGroupHeartbeat
            | ApiKey::ConsumerGroupDescribe
    )
}

/// APIs whose answer waits for what other clients do. They are held to a bound of their own.
fn waits_for_others(key: ApiKey) -> bool {
    matches!(key, ApiKey::JoinGroup | ApiKey::SyncGroup)
}

async fn serve(cx: Cx, key: ApiKey, body: Bytes) -> Result<Reply, Refusal> {
    // A few bytes can name a partition, and a hostile client names a million. Produce is judged by what it names, since
    // most of it is records.
    let size = if key == ApiKey::Produce {
        0
    } else {
        body.len().saturating_mul(expansion(key))
    };
    let mut cx = cx;
    cx.large = cx.broker.admit_large(size).await;
    if key == ApiKey::Produce {
        let request = decode(&cx, &body)?;
        drop(body);
        return handlers::produce::take(cx, request).await;
    }
    if key == ApiKey::OffsetCommit {
        let request = decode(&cx, &body)?;
        drop(body);
        return handlers::offset_commit::take(cx, request).await;
    }
    routes!(cx, body, key, {
        Fetch(fetch) => fetch_request::FetchRequest,
        ListOffsets(list_offsets) => list_offsets_request::ListOffsetsRequest,
        Metadata(metadata) => metadata_request::MetadataRequest,
        ApiVersions(api_versions) => api_versions_request::ApiVersionsRequest,
        CreateTopics(create_topics) => create_topics_request::CreateTopicsRequest,
        DeleteTopics(delete_topics) => delete_topics_request::DeleteTopicsRequest,
        DeleteRecords(delete_records) => delete_records_request::DeleteRecordsRequest,
        InitProducerId(init_producer_id) => init_producer_id_request::InitProducerIdRequest,
        OffsetForLeaderEpoch(offset_for_leader_epoch) => offset_for_leader_epoch_request::OffsetForLeaderEpochRequest,
        DescribeConfigs(describe_configs) => describe_configs_request::DescribeConfigsRequest,
        AlterConfigs(alter_configs) => alter_configs_request::AlterConfigsRequest,
        DescribeLogDirs(describe_log_dirs) => describe_log_dirs_request::DescribeLogDirsRequest,
        CreatePartitions(create_partitions) => create_partitions_request::CreatePartitionsRequest,
        IncrementalAlterConfigs(incremental_alter_configs) => incremental_alter_configs_request::IncrementalAlterConfigsRequest,
        DescribeCluster(describe_cluster) => describe_cluster_request::DescribeClusterRequest,
        DescribeProducers(describe_producers) => describe_producers_request::DescribeProducersRequest,
        GetTelemetrySubscriptions(get_telemetry_subscriptions) => get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest,
        PushTelemetry(push_telemetry) => push_telemetry_request::PushTelemetryRequest,
        ListConfigResources(list_config_resources) => list_config_resources_request::ListConfigResourcesRequest,
        DescribeTopicPartitions(describe_topic_partitions) => describe_topic_partitions_request::DescribeTopicPartitionsRequest,
        FindCoordinator(find_coordinator) => find_coordinator_request::FindCoordinatorRequest,
        JoinGroup(join_group) => join_group_request::JoinGroupRequest,
        SyncGroup(sync_group) => sync_group_request::SyncGroupRequest,
        Heartbeat(heartbeat) => heartbeat_request::HeartbeatRequest,
        LeaveGroup(leave_group) => leave_group_request::LeaveGroupRequest,
        OffsetFetch(offset_fetch) => offset_fetch_request::OffsetFetchRequest,
        OffsetDelete(offset_delete) => offset_delete_request::OffsetDeleteRequest,
        ListGroups(list_groups) => list_groups_request::ListGroupsRequest,
        DescribeGroups(describe_groups) => describe_groups_request::DescribeGroupsRequest,
        DeleteGroups(delete_groups) => delete_groups_request::DeleteGroupsRequest,
        ConsumerGroupHeartbeat(consumer_group_heartbeat) => consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribe(consumer_group_describe) => consumer_group_describe_request::ConsumerGroupDescribeRequest,
        DescribeAcls(describe_acls) => describe_acls_request::DescribeAclsRequest,
        CreateAcls(create_acls) => create_acls_request::CreateAclsRequest,
        DeleteAcls(delete_acls) => delete_acls_request::DeleteAclsRequest,
        SaslHandshake(sasl_handshake) => sasl_handshake_request::SaslHandshakeRequest,
        SaslAuthenticate(sasl_authenticate) => sasl_authenticate_request::SaslAuthenticateRequest,
        ListTransactions(list_transactions) => list_transactions_request::ListTransactionsRequest,
        DescribeTransactions(describe_transactions) => describe_transactions_request::DescribeTransactionsRequest,
        CreateDelegationToken(create_delegation_token) => create_delegation_token_request::CreateDelegationTokenRequest,
        RenewDelegationToken(renew_delegation_token) => renew_delegation_token_request::RenewDelegationTokenRequest,
        ExpireDelegationToken(expire_delegation_token) => expire_delegation_token_request::ExpireDelegationTokenRequest,
        DescribeDelegationToken(describe_delegation_token) => describe_delegation_token_request::DescribeDelegationTokenRequest,
        ListPartitionReassignments(list_partition_reassignments) => list_partition_reassignments_request::ListPartitionReassignmentsRequest,
        AlterPartitionReassignments(alter_partition_reassignments) => alter_partition_reassignments_request::AlterPartitionReassignmentsRequest,
        ElectLeaders(elect_leaders) => elect_leaders_request::ElectLeadersRequest,
        AlterReplicaLogDirs(alter_replica_log_dirs) => alter_replica_log_dirs_request::AlterReplicaLogDirsRequest,
        DescribeQuorum(describe_quorum) => describe_quorum_request::DescribeQuorumRequest,
        UnregisterBroker(unregister_broker) => unregister_broker_request::UnregisterBrokerRequest,
        UpdateFeatures(update_features) => update_features_request::UpdateFeaturesRequest,
        DescribeClientQuotas(describe_client_quotas) => describe_client_quotas_request::DescribeClientQuotasRequest,
        AlterClientQuotas(alter_client_quotas) => alter_client_quotas_request::AlterClientQuotasRequest,
        DescribeUserScramCredentials(describe_user_scram_credentials) => describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest,
        AlterUserScramCredentials(alter_user_scram_credentials) => alter_user_scram_credentials_request::AlterUserScramCredentialsRequest,
    })
}

/// An advertised version that is not served: the answer says so, in the request's own version.
fn unsupported(cx: &Cx, key: ApiKey, body: &Bytes) -> Result<Reply, Refusal> {
    match key {
        ApiKey::Produce => handlers::produce::unsupported(cx, decode(cx, body)?),
        key => Err(Refusal(format!("{key} version {} is not served", cx.version))),
    }
}

impl Service for Dispatcher {
    fn call(self: Arc<Self>, peer: Arc<Peer>, frame: Bytes) -> Boxed<Result<Reply, Refusal>> {
        Box::pin(async move {
            let metrics = Arc::clone(&self.shared);
            let reply = self.dispatch(peer, frame).await;
            if reply.is_err() {
                metrics.metrics.refused.fetch_add(1, Ordering::Relaxed);
            }
            reply
        })
    }

    fn may_drop(&self, frame: &Bytes) -> bool {
        frame
            .first_chunk::<2>()
            .and_then(|key| ApiKey::from_i16(i16::from_be_bytes(*key)))
            .is_some_and(|key| key == ApiKey::Fetch || waits_for_others(key))
    }

    fn opened(&self, _peer: &Peer) {
        self.shared
            .metrics
            .connections_opened
            .fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self, _peer: &Peer) {
        self.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
