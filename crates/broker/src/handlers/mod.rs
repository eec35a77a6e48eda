//! One API, one file: request in, call into the broker, response out. A handler returns a value and never touches a
//! socket; which version may carry what is the codec's business.

pub mod alter_client_quotas;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod alter_user_scram_credentials;
pub mod api_versions;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_acls;
pub mod create_delegation_token;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_acls;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_delegation_token;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod describe_transactions;
pub mod describe_user_scram_credentials;
pub mod elect_leaders;
pub mod expire_delegation_token;
pub mod fetch;
pub mod find_coordinator;
pub mod get_telemetry_subscriptions;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod list_transactions;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod push_telemetry;
pub mod renew_delegation_token;
pub mod sasl_authenticate;
pub mod sasl_handshake;
pub mod sync_group;
pub mod unregister_broker;
pub mod update_features;

use std::collections::BTreeSet;

use drumlin_coordinator::{Caller, GroupRequest, GroupResponse};
use drumlin_wire::Str;

use crate::dispatch::Cx;
use crate::groups::{Sent, topic};

/// The config resource of log levels. This process has no loggers whose level can be changed while it runs.
pub(crate) const BROKER_LOGGER: i8 = 8;
/// The logger that all others inherit from.
pub(crate) const ROOT_LOGGER: &str = "root";

/// Authorized operations where they were not asked for (KIP-430).
pub(crate) const NO_OPERATIONS: i32 = i32::MIN;

/// What a client may do. A bit an operation, by Kafka's numbers for them; without an authorizer everybody may do all
/// that there is to do with a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operations {
    /// READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
    Topic,
    /// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
    Group,
    /// CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
    Cluster,
}

impl Operations {
    /// The answer to who did ask for them, or did not.
    pub(crate) const fn answer(self, asked: bool) -> i32 {
        match self {
            _ if !asked => NO_OPERATIONS,
            Self::Topic => bits(&[3, 4, 5, 6, 7, 8, 10, 11]),
            Self::Group => bits(&[3, 6, 8, 10, 11]),
            Self::Cluster => bits(&[5, 7, 8, 9, 10, 11, 12]),
        }
    }
}

const fn bits(operations: &[i32]) -> i32 {
    let mut all = 0;
    let mut i = 0;
    while i < operations.len() {
        all |= 1 << operations[i];
        i += 1;
    }
    all
}

/// Bytes of names and messages that one answer repeats.
const REPEATED_BYTES: usize = 1 << 20;

/// Error messages of one answer. A request names many partitions in few bytes: once the messages take
/// [`REPEATED_BYTES`], the rest is answered with codes alone.
#[derive(Default)]
pub(crate) struct Words {
    given: usize,
}

impl Words {
    /// The message, while there is room for it; none for an empty one.
    pub(crate) fn give(&mut self, message: impl Into<Str>) -> Option<Str> {
        let message = message.into();
        if message.is_empty() || self.given >= REPEATED_BYTES {
            return None;
        }
        self.given += message.len();
        Some(message)
    }
}

/// A client's name for something in an error message: no longer than a topic's name may be.
pub(crate) fn shown(name: &str) -> &str {
    let end = name.floor_char_boundary(249);
    &name[..end]
}

/// Groups of one request that are asked for at the same time.
pub(crate) const GROUPS_AT_ONCE: usize = 32;

/// Names in a request that may repeat a group's before; more are refused with INVALID_REQUEST.
const REPEATS: usize = 8;

/// Each with whether its group is looked up. A group that is named again is answered again, as by Kafka, up to
/// [`REPEATS`] times in a request: an answer must not outgrow what there is by more.
pub(crate) fn answered_again<T>(asked: Vec<T>, group: impl Fn(&T) -> &Str) -> Vec<(T, bool)> {
    let mut seen = BTreeSet::new();
    let mut repeats = 0;
    asked
        .into_iter()
        .map(|one| {
            let is_first = seen.insert(group(&one).clone());
            repeats += usize::from(!is_first);
            (one, is_first || repeats <= REPEATS)
        })
        .collect()
}

/// Who asks, as a coordinator wants to know it.
pub(crate) fn caller(cx: &Cx) -> Caller {
    Caller {
        client_id: cx.client_id.clone().unwrap_or_default(),
        client_host: Str::from(format!("/{}", cx.peer.address.ip().to_canonical())),
        api_version: cx.version,
    }
}

/// Hands a request to the coordinator of its group, in its turn; the answer is waited for apart.
pub(crate) async fn send(cx: &Cx, request: GroupRequest) -> Sent {
    if let Err(told) = topic::ensure(&cx.broker).await {
        tracing::warn!(error = %told.message, "the topic of groups could not be created");
        let error = drumlin_coordinator::ErrorCode::CoordinatorNotAvailable;
        return Sent::Answered(request.failed(error));
    }
    cx.broker.groups.send(caller(cx), request).await
}

/// Asks the coordinator of the request's group, for as long as it takes.
pub(crate) async fn ask(cx: &Cx, request: GroupRequest) -> GroupResponse {
    send(cx, request).await.answer().await
}
