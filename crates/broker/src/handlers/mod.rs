//! One API, one file: request in, call into the broker, response out. A handler returns a value and never touches a
//! socket; which version may carry what is the codec's business.

pub mod alter_configs;
pub mod api_versions;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
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
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod push_telemetry;
pub mod sync_group;

use std::collections::BTreeSet;

use drumlin_coordinator::{Caller, GroupRequest, GroupResponse};
use drumlin_wire::Str;

use crate::dispatch::Cx;
use crate::groups::{Sent, topic};

/// Authorized operations where they were not asked for, or nobody authorizes (protocol guide).
pub(crate) const NO_OPERATIONS: i32 = i32::MIN;

/// Groups of one request that are asked for at the same time.
pub(crate) const GROUPS_AT_ONCE: usize = 32;

/// Each with whether it names its group for the first time. What is named twice is answered once: an answer must not
/// outgrow what there is.
pub(crate) fn first_named<T>(asked: Vec<T>, group: impl Fn(&T) -> &Str) -> Vec<(T, bool)> {
    let mut seen = BTreeSet::new();
    asked
        .into_iter()
        .map(|one| {
            let first = seen.insert(group(&one).clone());
            (one, first)
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
