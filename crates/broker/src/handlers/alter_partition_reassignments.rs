//! AlterPartitionReassignments (key 45): a partition's only replica is the broker that leads it.

use drumlin_cluster::{Image, TopicImage};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use drumlin_wire::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};

use super::{Words, shown};
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};

/// Answers each partition: the replicas it has already are taken, any others are refused.
pub async fn handle(
    cx: &Cx,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let image = cx.broker.image();
    let mut words = Words::default();
    let responses = request
        .topics
        .into_iter()
        .map(|topic| answer(cx, &image, topic, &mut words))
        .collect();
    AlterPartitionReassignmentsResponse {
        error_message: None,
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses,
        ..Default::default()
    }
}

fn answer(cx: &Cx, image: &Image, asked: ReassignableTopic, words: &mut Words) -> ReassignableTopicResponse {
    let topic = image.topic(&asked.name);
    let partitions = asked
        .partitions
        .iter()
        .map(|partition| {
            let outcome = match topic {
                Some(topic) => check(image, topic, partition),
                None => Err(Told::new(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("Unable to find a topic named {}.", shown(&asked.name)),
                )),
            };
            let (code, error_message) = match outcome {
                Ok(()) => (ErrorCode::None, None),
                Err(told) => (told.code, words.give(told.message)),
            };
            ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code: cx.error(ApiKey::AlterPartitionReassignments, code),
                error_message,
                ..Default::default()
            }
        })
        .collect();
    ReassignableTopicResponse {
        name: asked.name,
        partitions,
        ..Default::default()
    }
}

/// Checks what is asked of one partition, in Kafka's words.
fn check(image: &Image, topic: &TopicImage, asked: &ReassignablePartition) -> Result<(), Told> {
    let index = asked.partition_index;
    let found = usize::try_from(index)
        .ok()
        .and_then(|index| topic.partitions.get(index));
    let Some(partition) = found else {
        let what = format!("Unable to find partition {}:{index}.", topic.name);
        return Err(Told::new(ErrorCode::UnknownTopicOrPartition, what));
    };
    let Some(replicas) = &asked.replicas else {
        // Kafka has no words beside this code either.
        return Err(Told::new(ErrorCode::NoReassignmentInProgress, ""));
    };
    let refuse = |what: String| {
        let what = format!("The manual partition assignment includes {what}");
        Err(Told::new(ErrorCode::InvalidReplicaAssignment, what))
    };
    let mut sorted = replicas.clone();
    sorted.sort_unstable();
    if sorted.is_empty() {
        return refuse("an empty replica list.".to_owned());
    }
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!("the broker {} more than once.", twice[0]));
    }
    if let Some(missing) = sorted.iter().find(|broker| image.brokers.get(broker).is_none()) {
        return refuse(format!("broker {missing}, but no such broker is registered."));
    }
    if sorted == [image.leadership(*partition).leader] {
        return Ok(());
    }
    let what = "the replicas of a partition cannot be chosen: the object store replicates";
    Err(Told::new(ErrorCode::InvalidReplicaAssignment, what))
}
