//! OffsetFetch (key 9): committed offsets, of one group or of several.
//!
//! A coordinator that was deposed without knowing it must tell no offset that another has moved on from: whether this
//! broker still leads is asked after the request came (R2).

use std::time::Duration;

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use drumlin_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use futures::StreamExt;

use super::{GROUPS_AT_ONCE, answered_again, ask};
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// First version with several groups (KIP-709).
const GROUPS_FROM: i16 = 8;
/// First version that has an error of the whole; before, each partition carries it.
const ERROR_FROM: i16 = 2;
/// First version in which no committed offset is no error. Before, offsets were nodes in ZooKeeper, and one that was not
/// there was UNKNOWN_TOPIC_OR_PARTITION.
const ABSENT_FROM: i16 = 1;
/// How long an answer waits for the store to say that this broker still leads.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks up offsets, of each group for itself.
pub async fn handle(cx: &Cx, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let stable = request.require_stable;
    if cx.version < GROUPS_FROM {
        let group = single(request);
        let asked = group.topics.clone();
        let groups = fetch_all(cx, vec![group], stable).await;
        return flat(cx, groups.into_iter().next().unwrap_or_default(), asked);
    }
    OffsetFetchResponse {
        groups: fetch_all(cx, request.groups, stable).await,
        ..Default::default()
    }
}

/// Looks all groups up, and meanwhile asks once for all of them whether this broker leads still.
async fn fetch_all(
    cx: &Cx,
    groups: Vec<OffsetFetchRequestGroup>,
    stable: bool,
) -> Vec<OffsetFetchResponseGroup> {
    if groups.is_empty() {
        return Vec::new();
    }
    let asked = answered_again(groups, |group| &group.group_id);
    let answers = futures::stream::iter(asked)
        .map(|(group, looked_up)| fetch(cx, group, stable, looked_up))
        .buffered(GROUPS_AT_ONCE)
        .collect::<Vec<_>>();
    let (mut answers, leads) = tokio::join!(answers, cx.broker.confirm_leading(PATIENCE));
    let deposed = match leads {
        Ok(()) => None,
        Err(ErrorCode::NotLeaderOrFollower) => Some(Coordinator::NotCoordinator),
        Err(_) => Some(Coordinator::CoordinatorNotAvailable),
    };
    let metrics = &cx.broker.metrics;
    for group in &mut answers {
        if let Some(error) = deposed {
            refuse(group, error);
        }
        metrics.error(ApiKey::OffsetFetch, group.error_code);
        for partition in group.topics.iter().flat_map(|topic| &topic.partitions) {
            metrics.error(ApiKey::OffsetFetch, partition.error_code);
        }
    }
    answers
}

/// Takes an answer back: nothing may be told of the group's offsets.
fn refuse(group: &mut OffsetFetchResponseGroup, error: Coordinator) {
    group.topics.clear();
    if group.error_code != Coordinator::InvalidRequest.code() {
        group.error_code = error.code();
    }
}

/// The one group of an old version.
fn single(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        topics.collect()
    });
    OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..Default::default()
    }
}

async fn fetch(
    cx: &Cx,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
    looked_up: bool,
) -> OffsetFetchResponseGroup {
    let request = GroupRequest::OffsetFetch {
        group,
        require_stable,
    };
    let answer = if looked_up {
        ask(cx, request).await
    } else {
        request.failed(Coordinator::InvalidRequest)
    };
    match answer {
        GroupResponse::OffsetFetch(group) => group,
        _ => OffsetFetchResponseGroup {
            error_code: Coordinator::UnknownServerError.code(),
            ..Default::default()
        },
    }
}

/// A group's answer in the form of the old versions.
fn flat(
    cx: &Cx,
    group: OffsetFetchResponseGroup,
    asked: Option<Vec<OffsetFetchRequestTopics>>,
) -> OffsetFetchResponse {
    if group.error_code != 0 && cx.version < ERROR_FROM {
        return OffsetFetchResponse {
            topics: each_failed(&asked.unwrap_or_default(), group.error_code),
            ..Default::default()
        };
    }
    let absent = match cx.version < ABSENT_FROM {
        true => Coordinator::UnknownTopicOrPartition.code(),
        false => Coordinator::None.code(),
    };
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: (topic.partitions.into_iter())
            .map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: match partition.error_code {
                    0 if partition.committed_offset < 0 => absent,
                    code => code,
                },
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: group.error_code,
        ..Default::default()
    }
}

fn each_failed(asked: &[OffsetFetchRequestTopics], error_code: i16) -> Vec<OffsetFetchResponseTopic> {
    let partition = |index: &i32| OffsetFetchResponsePartition {
        partition_index: *index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some("".into()),
        error_code,
        ..Default::default()
    };
    asked
        .iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name.clone(),
            partitions: topic.partition_indexes.iter().map(partition).collect(),
            ..Default::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deposed_coordinator_tells_no_offset() {
        let mut group = OffsetFetchResponseGroup {
            group_id: "g".into(),
            topics: vec![Default::default()],
            ..Default::default()
        };
        refuse(&mut group, Coordinator::NotCoordinator);
        assert_eq!(
            (group.topics.len(), group.error_code),
            (0, Coordinator::NotCoordinator.code())
        );
        assert_eq!(group.group_id, "g");
        // What is wrong with the request itself stays.
        group.error_code = Coordinator::InvalidRequest.code();
        refuse(&mut group, Coordinator::NotCoordinator);
        assert_eq!(group.error_code, Coordinator::InvalidRequest.code());
    }
}
