//! OffsetForLeaderEpoch (key 23): where an epoch's records end, for clients that check their position (KIP-320).

use drumlin_wire::ApiKey;
use drumlin_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use drumlin_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use crate::dispatch::Cx;
use crate::epochs::check_epoch;
use crate::error_code::ErrorCode;
use crate::topics::Topic;

/// Answers from the partitions' epoch tables.
pub async fn handle(cx: &Cx, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let known = cx.broker.topics.by_name(&topic.topic);
            let partitions = topic
                .partitions
                .iter()
                .map(|asked| answer(cx, known.as_deref(), asked))
                .collect();
            OffsetForLeaderTopicResult {
                topic: topic.topic,
                partitions,
                ..Default::default()
            }
        })
        .collect();
    OffsetForLeaderEpochResponse {
        topics,
        ..Default::default()
    }
}

fn answer(cx: &Cx, topic: Option<&Topic>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let found = topic
        .and_then(|topic| topic.partitions.get(usize::try_from(asked.partition).ok()?))
        .ok_or(ErrorCode::UnknownTopicOrPartition)
        .and_then(|partition| partition.as_ref().ok_or(ErrorCode::NotLeaderOrFollower))
        .and_then(|partition| {
            check_epoch(asked.current_leader_epoch, partition.leader_epoch())?;
            if partition.unavailable().is_some() {
                return Err(ErrorCode::KafkaStorageError);
            }
            // A negative epoch is none, and has no end.
            let known = Some(asked.leader_epoch).filter(|epoch| *epoch >= 0);
            Ok(known
                .and_then(|epoch| partition.end_offset_for_epoch(epoch))
                .unwrap_or((-1, -1)))
        });
    let (code, (leader_epoch, end_offset)) = match found {
        Ok(found) => (ErrorCode::None, found),
        Err(code) => (code, (-1, -1)),
    };
    EpochEndOffset {
        error_code: cx.error(ApiKey::OffsetForLeaderEpoch, code),
        partition: asked.partition,
        leader_epoch,
        end_offset,
        ..Default::default()
    }
}
