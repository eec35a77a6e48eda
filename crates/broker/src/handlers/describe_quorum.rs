//! DescribeQuorum (key 55): the metadata chain, told as the quorum that Kafka's tools know.
//!
//! The chain has no voters: the store decides who appends to it. The one broker that does is shown as the leader and the
//! only voter, its epoch as the leader's epoch, and the chain's position as the high watermark.

use drumlin_cluster::Image;
use drumlin_wire::messages::describe_quorum_request::DescribeQuorumRequest;
use drumlin_wire::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Kafka's metadata log, of which partition 0 is the only one.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// First version that lists the nodes' endpoints.
const NODES_FROM: i16 = 2;

/// Describes the chain. A request for anything but the one partition is about nothing that is here, all of it.
pub async fn handle(cx: &Cx, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let image = cx.broker.image();
    let is_quorum = match request.topics.as_slice() {
        [topic] => {
            let [partition] = topic.partitions.as_slice() else {
                return unknown(cx, request);
            };
            topic.topic_name == *METADATA_TOPIC && partition.partition_index == 0
        }
        _ => false,
    };
    if !is_quorum {
        return unknown(cx, request);
    }
    let position = i64::try_from(image.position).unwrap_or(i64::MAX);
    let now_ms = cx.broker.env.now_ms();
    let leader = ReplicaState {
        replica_id: image.controller,
        log_end_offset: position,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..Default::default()
    };
    let partition = PartitionData {
        leader_id: image.controller,
        leader_epoch: i32::try_from(image.epoch).unwrap_or(i32::MAX),
        high_watermark: position,
        current_voters: vec![leader],
        error_message: Some(Str::EMPTY),
        ..Default::default()
    };
    let topic = TopicData {
        topic_name: Str::from_static(METADATA_TOPIC),
        partitions: vec![partition],
        ..Default::default()
    };
    DescribeQuorumResponse {
        error_message: Some(Str::EMPTY),
        topics: vec![topic],
        nodes: if cx.version >= NODES_FROM {
            nodes(&image)
        } else {
            Vec::new()
        },
        ..Default::default()
    }
}

fn nodes(image: &Image) -> Vec<Node> {
    let broker = image.brokers.get(&image.controller);
    let listeners = broker
        .iter()
        .flat_map(|broker| &broker.endpoints)
        .map(|endpoint| Listener {
            name: Str::from(endpoint.listener.as_str()),
            host: Str::from(endpoint.host.as_str()),
            port: endpoint.port,
            ..Default::default()
        })
        .collect();
    vec![Node {
        node_id: image.controller,
        listeners,
        ..Default::default()
    }]
}

/// UNKNOWN_TOPIC_OR_PARTITION for each partition that was named.
fn unknown(cx: &Cx, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| PartitionData {
            partition_index: partition.partition_index,
            error_code: cx.error(ApiKey::DescribeQuorum, ErrorCode::UnknownTopicOrPartition),
            error_message: Some(Str::from_static(
                "This server does not host this topic-partition.",
            )),
            ..Default::default()
        });
        TopicData {
            partitions: partitions.collect(),
            topic_name: topic.topic_name,
            ..Default::default()
        }
    });
    DescribeQuorumResponse {
        error_message: Some(Str::EMPTY),
        topics: topics.collect(),
        ..Default::default()
    }
}
