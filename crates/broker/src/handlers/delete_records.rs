//! DeleteRecords (key 21): moves the log start up, durably.

use std::time::Duration;

use drumlin_wire::ApiKey;
use drumlin_wire::messages::delete_records_request::DeleteRecordsRequest;
use drumlin_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// The least wait until a deletion is durable. The timeout of a request bounds a wait for
/// replicas, which a lone broker does not have: Apache Kafka's succeeds with a timeout of 0.
const MIN_PATIENCE: Duration = Duration::from_secs(10);

/// Deletes what lies below the offsets given; -1 stands for all that consumers see.
pub async fn handle(cx: &Cx, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut edits = Vec::new();
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = cx.broker.topics.by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let slot = known
                .as_ref()
                .and_then(|known| known.partitions.get(usize::try_from(asked.partition_index).ok()?));
            let code = match (slot, &known) {
                (None, _) | (_, None) => ErrorCode::UnknownTopicOrPartition,
                (Some(None), _) => ErrorCode::NotLeaderOrFollower,
                // What compaction keeps is not for the client to drop (as Kafka).
                (Some(Some(_)), Some(known)) if !known.config.cleanup.delete => ErrorCode::PolicyViolation,
                (Some(Some(partition)), _) => {
                    edits.push((partition.clone(), asked.offset));
                    places.push((topics.len(), partitions.len()));
                    ErrorCode::None
                }
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark: -1,
                error_code: code.code(),
                ..Default::default()
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: topic.name,
            partitions,
            ..Default::default()
        });
    }
    if !edits.is_empty() {
        let patience = cx.broker.patience(request.timeout_ms).max(MIN_PATIENCE);
        let outcomes = tokio::time::timeout(patience, cx.broker.log.delete_records(edits)).await;
        let outcomes: Vec<(ErrorCode, i64)> = match outcomes {
            Ok(outcomes) => outcomes
                .iter()
                .map(|outcome| match outcome {
                    Ok(low_watermark) => (ErrorCode::None, *low_watermark),
                    Err(error) => (ErrorCode::from(error), -1),
                })
                .collect(),
            Err(_) => vec![(ErrorCode::RequestTimedOut, -1); places.len()],
        };
        for ((topic, partition), (code, low_watermark)) in places.into_iter().zip(outcomes) {
            let place = topics
                .get_mut(topic)
                .and_then(|topic| topic.partitions.get_mut(partition));
            if let Some(place) = place {
                place.error_code = code.code();
                place.low_watermark = low_watermark;
            }
        }
    }
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        cx.broker
            .metrics
            .error(ApiKey::DeleteRecords, partition.error_code);
    }
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}
