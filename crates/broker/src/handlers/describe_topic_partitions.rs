//! DescribeTopicPartitions (key 75): topics page by page (KIP-966).

use std::collections::BTreeSet;

use drumlin_cluster::{Image, TopicImage};
use drumlin_wire::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use drumlin_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use drumlin_wire::{ApiKey, Str, Uuid};

use super::Operations;
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;
use crate::names;

/// Answers with partitions in the order of topic names, from the cursor on, up to the limit.
pub async fn handle(cx: &Cx, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let image = cx.broker.image();
    let most = cx.broker.config().requests.describe_partitions_max;
    let limit = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, most.max(1));
    let (from, first_partition) = match &request.cursor {
        Some(cursor) => (
            cursor.topic_name.as_str(),
            usize::try_from(cursor.partition_index).unwrap_or(0),
        ),
        None => ("", 0),
    };
    let all = request.topics.is_empty();
    let names: BTreeSet<&str> = if all {
        image.topics().iter().map(|(name, _)| &**name).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for name in names.range(from..) {
        let start = if *name == from { first_partition } else { 0 };
        let Some(topic) = image.topic(name) else {
            // A topic that a cursor points at may have gone in the meantime; one that was asked for is told of.
            response.topics.push(unknown(cx, name));
            continue;
        };
        if left == 0 {
            response.next_cursor = Some(cursor(name, start));
            break;
        }
        let count = topic.partitions.len().saturating_sub(start).min(left);
        response.topics.push(describe(&image, topic, start, count));
        left -= count;
        if start + count < topic.partitions.len() {
            response.next_cursor = Some(cursor(name, start + count));
            break;
        }
    }
    response
}

fn cursor(name: &str, partition: usize) -> Cursor {
    let partition_index = i32::try_from(partition).unwrap_or(i32::MAX);
    Cursor {
        topic_name: Str::from(name),
        partition_index,
        ..Default::default()
    }
}

fn unknown(cx: &Cx, name: &str) -> DescribeTopicPartitionsResponseTopic {
    let code = match names::check(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopic,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: cx.error(ApiKey::DescribeTopicPartitions, code),
        name: Some(Str::from(name)),
        topic_authorized_operations: Operations::Topic.answer(true),
        ..Default::default()
    }
}

fn describe(
    image: &Image,
    topic: &TopicImage,
    start: usize,
    count: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .zip(0i32..)
        .skip(start)
        .take(count)
        .map(|(partition, partition_index)| {
            let leadership = image.leadership(*partition);
            DescribeTopicPartitionsResponsePartition {
                partition_index,
                leader_id: leadership.leader,
                leader_epoch: leadership.leader_epoch,
                replica_nodes: vec![leadership.leader],
                isr_nodes: vec![leadership.leader],
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                ..Default::default()
            }
        })
        .collect();
    DescribeTopicPartitionsResponseTopic {
        name: Some(Str::from(&*topic.name)),
        topic_id: Uuid(topic.id),
        is_internal: names::is_internal(&topic.name),
        partitions,
        topic_authorized_operations: Operations::Topic.answer(true),
        ..Default::default()
    }
}
