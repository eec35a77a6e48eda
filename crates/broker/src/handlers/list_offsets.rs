//! ListOffsets (key 2): offsets by time, and the special ones.

use std::sync::Arc;
use std::time::Duration;

use drumlin_log::{Partition, ReadError, TimestampOffset};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use drumlin_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use crate::dispatch::Cx;
use crate::epochs::check_epoch;
use crate::error_code::ErrorCode;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// How long an answer waits for the store to say that this broker still leads.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for what is on its way to the store: much longer than a put takes. A store that takes nothing must
/// not hold up those who only read.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(3);

/// First version of each special timestamp, in their order from -1.
const SPECIAL_FROM: [i16; 6] = [1, 1, 7, 8, 9, 11];

/// Looks up one offset for each partition.
pub async fn handle(cx: &Cx, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let read_committed = request.isolation_level == 1;
    wait_appended_visible(cx, &request).await;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = cx.broker.topics.by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let partition = match &known {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(known) => match usize::try_from(asked.partition_index) {
                    Ok(index) => match known.partitions.get(index) {
                        Some(Some(partition)) => Ok(partition),
                        Some(None) => Err(ErrorCode::NotLeaderOrFollower),
                        None => Err(ErrorCode::UnknownTopicOrPartition),
                    },
                    Err(_) => Err(ErrorCode::UnknownTopicOrPartition),
                },
            };
            let answer = match partition {
                Ok(partition) => look_up(cx, partition, &asked, read_committed).await,
                Err(code) => Err(code),
            };
            partitions.push(match answer {
                Ok(found) => ListOffsetsPartitionResponse {
                    partition_index: asked.partition_index,
                    timestamp: found.timestamp,
                    offset: found.offset,
                    // Before version 4 nobody could read it.
                    leader_epoch: if cx.version >= 4 { found.leader_epoch } else { -1 },
                    ..Default::default()
                },
                Err(code) => ListOffsetsPartitionResponse {
                    partition_index: asked.partition_index,
                    error_code: cx.error(ApiKey::ListOffsets, code),
                    timestamp: -1,
                    offset: -1,
                    leader_epoch: -1,
                    ..Default::default()
                },
            });
        }
        topics.push(ListOffsetsTopicResponse {
            name: topic.name,
            partitions,
            ..Default::default()
        });
    }
    ListOffsetsResponse {
        topics,
        ..Default::default()
    }
}

/// Waits for what is on its way in all partitions whose end is asked for: a producer with acks=1 was told of it, and
/// the end lies behind it, unless the store takes nothing. All of them wait for what was appended when the request came.
async fn wait_appended_visible(cx: &Cx, request: &ListOffsetsRequest) {
    let mut asked = Vec::new();
    for topic in &request.topics {
        let Some(known) = cx.broker.topics.by_name(&topic.name) else {
            continue;
        };
        let ends = topic.partitions.iter().filter(|asked| asked.timestamp == LATEST);
        asked.extend(ends.filter_map(|asked| {
            let index = usize::try_from(asked.partition_index).ok()?;
            known.partitions.get(index)?.clone()
        }));
    }
    let waits = asked.iter().map(|partition| partition.wait_appended_visible());
    // What fails here fails the proof of leadership, too, or the whole broker.
    let _ = tokio::time::timeout(VISIBLE_PATIENCE, futures::future::join_all(waits)).await;
}

/// OFFSET_NOT_AVAILABLE came with version 5; before it, LEADER_NOT_AVAILABLE made clients try again.
fn old_clients(cx: &Cx, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::OffsetNotAvailable if cx.version < 5 => ErrorCode::LeaderNotAvailable,
        code => code,
    }
}

async fn look_up(
    cx: &Cx,
    partition: &Arc<Partition>,
    asked: &ListOffsetsPartition,
    read_committed: bool,
) -> Result<TimestampOffset, ErrorCode> {
    check_epoch(asked.current_leader_epoch, partition.leader_epoch())?;
    let at = |offset| TimestampOffset {
        offset,
        timestamp: -1,
        leader_epoch: partition.epoch_at(offset),
    };
    let nothing = TimestampOffset {
        offset: -1,
        timestamp: -1,
        leader_epoch: -1,
    };
    let timestamp = asked.timestamp;
    let special = usize::try_from(timestamp.saturating_add(1).saturating_neg())
        .ok()
        .filter(|_| timestamp < 0);
    if let Some(special) = special
        && SPECIAL_FROM.get(special).is_none_or(|from| cx.version < *from)
    {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let code = |error: ReadError| ErrorCode::from(&error);
    if partition.unavailable().is_some() {
        return Err(ErrorCode::KafkaStorageError);
    }
    Ok(match timestamp {
        LATEST => {
            // A deposed leader must not tell an end that another has moved on from [R2].
            cx.broker
                .confirm_leading(PATIENCE)
                .await
                .map_err(|code| old_clients(cx, code))?;
            let end = if read_committed {
                partition.last_stable_offset()
            } else {
                partition.high_watermark()
            };
            // The epoch under which the next record will be written.
            TimestampOffset {
                offset: end,
                timestamp: -1,
                leader_epoch: partition.leader_epoch(),
            }
        }
        // There is one tier: what is earliest is earliest here, and nothing waits for an upload.
        EARLIEST | EARLIEST_LOCAL => at(partition.log_start_offset()),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => nothing,
        MAX_TIMESTAMP => cx
            .broker
            .log
            .max_timestamp(partition)
            .await
            .map_err(code)?
            .unwrap_or(nothing),
        timestamp => cx
            .broker
            .log
            .offset_for_timestamp(partition, timestamp)
            .await
            .map_err(code)?
            .unwrap_or(nothing),
    })
}
