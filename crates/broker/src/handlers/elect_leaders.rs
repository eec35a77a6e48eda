//! ElectLeaders (key 43): a partition's only replica is the broker that leads it, which is the preferred one.

use drumlin_cluster::TopicImage;
use drumlin_wire::messages::elect_leaders_request::ElectLeadersRequest;
use drumlin_wire::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use drumlin_wire::{ApiKey, Str};

use super::{Words, shown};
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Election types: of the preferred leader, and of any replica however far behind.
const TYPES: [i8; 2] = [0, 1];

/// Answers ELECTION_NOT_NEEDED for each partition that there is. Asked for all partitions, it names the topics without
/// any partition, since only elections that took place or failed are told of.
pub async fn handle(cx: &Cx, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let image = cx.broker.image();
    // As in Kafka, the type is looked at for each partition: where none is asked for, none is wrong.
    let asks_nothing = request.topic_partitions.as_ref().is_some_and(Vec::is_empty);
    let known = asks_nothing || TYPES.contains(&request.election_type);
    let mut words = Words::default();
    let replica_election_results = match request.topic_partitions {
        None if !known => Vec::new(),
        None => image
            .topics()
            .iter()
            .map(|(name, _)| ReplicaElectionResult {
                topic: Str::from(&**name),
                ..Default::default()
            })
            .collect(),
        Some(asked) => asked
            .into_iter()
            .map(|asked| {
                let topic = image.topic(&asked.topic);
                let partitions = asked.partitions.iter();
                let partition_result = partitions
                    .map(|partition| {
                        let (code, what) = if known {
                            decide(topic.map(|topic| &**topic), &asked.topic, *partition)
                        } else {
                            let what = format!("Unknown election type {}", request.election_type);
                            (ErrorCode::InvalidRequest, Str::from(what))
                        };
                        PartitionResult {
                            partition_id: *partition,
                            error_code: cx.error(ApiKey::ElectLeaders, code),
                            error_message: words.give(what),
                            ..Default::default()
                        }
                    })
                    .collect();
                ReplicaElectionResult {
                    topic: asked.topic,
                    partition_result,
                    ..Default::default()
                }
            })
            .collect(),
    };
    let code = if known {
        ErrorCode::None
    } else {
        cx.error(ApiKey::ElectLeaders, ErrorCode::InvalidRequest);
        ErrorCode::InvalidRequest
    };
    ElectLeadersResponse {
        error_code: code.code(),
        replica_election_results,
        ..Default::default()
    }
}

fn decide(topic: Option<&TopicImage>, name: &Str, partition: i32) -> (ErrorCode, Str) {
    let Some(topic) = topic else {
        let what = format!("No such topic as {}", shown(name));
        return (ErrorCode::UnknownTopicOrPartition, Str::from(what));
    };
    let exists = usize::try_from(partition).is_ok_and(|index| index < topic.partitions.len());
    if exists {
        let what = Str::from_static("Leader election not needed for topic partition.");
        (ErrorCode::ElectionNotNeeded, what)
    } else {
        let what = format!("No such partition as {name}-{partition}");
        (ErrorCode::UnknownTopicOrPartition, Str::from(what))
    }
}
