//! DescribeProducers (key 61): the producers that a partition remembers.

use drumlin_log::ActiveProducer;
use drumlin_wire::messages::describe_producers_request::DescribeProducersRequest;
use drumlin_wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;
use crate::topics::Topic;

/// Answers from the partitions' producer state.
pub async fn handle(cx: &Cx, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|asked| {
            let topic = cx.broker.topics.by_name(&asked.name);
            let partitions = asked
                .partition_indexes
                .iter()
                .map(|index| describe(cx, topic.as_deref(), *index))
                .collect();
            TopicResponse {
                name: asked.name,
                partitions,
                ..Default::default()
            }
        })
        .collect();
    DescribeProducersResponse {
        topics,
        ..Default::default()
    }
}

fn describe(cx: &Cx, topic: Option<&Topic>, partition_index: i32) -> PartitionResponse {
    let found = topic.and_then(|topic| topic.partitions.get(usize::try_from(partition_index).ok()?));
    let failed = |code, what: &str| PartitionResponse {
        partition_index,
        error_code: cx.error(ApiKey::DescribeProducers, code),
        error_message: Some(what).filter(|what| !what.is_empty()).map(Str::from),
        ..Default::default()
    };
    match found {
        // Kafka has words for a topic, and none for a partition, that is not there.
        None if topic.is_some() => failed(ErrorCode::UnknownTopicOrPartition, ""),
        None => failed(
            ErrorCode::UnknownTopicOrPartition,
            "This server does not host this topic-partition.",
        ),
        Some(None) => failed(
            ErrorCode::NotLeaderOrFollower,
            "another broker leads this partition",
        ),
        Some(Some(partition)) => PartitionResponse {
            partition_index,
            active_producers: partition.producers().iter().map(state).collect(),
            ..Default::default()
        },
    }
}

fn state(producer: &ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.producer_epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        // None writes transactions yet.
        coordinator_epoch: -1,
        current_txn_start_offset: -1,
        ..Default::default()
    }
}
