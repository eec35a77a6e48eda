//! CreatePartitions (key 37): topics grow, never shrink.

use std::collections::{BTreeMap, BTreeSet};

use drumlin_cluster::{Image, MAX_PARTITIONS, Record};
use drumlin_wire::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use drumlin_wire::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use drumlin_wire::{ApiKey, Str};

use super::create_topics::check_replicas;
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};
use crate::names;

/// Adds partitions, for each topic for itself.
pub async fn handle(cx: &Cx, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let patience = cx.broker.patience(request.timeout_ms);
    let mut answered = BTreeSet::new();
    let mut results = Vec::new();
    for topic in &request.topics {
        if !answered.insert(&topic.name) {
            continue;
        }
        let outcome = if counts.get(topic.name.as_str()).is_some_and(|count| *count > 1) {
            Err(Told::new(
                ErrorCode::InvalidRequest,
                "the request names this topic more than once",
            ))
        } else if request.validate_only {
            check(cx, &cx.broker.image(), topic).map(|_| ())
        } else {
            cx.broker
                .change(patience, |image| {
                    check(cx, image, topic).map(|record| vec![record])
                })
                .await
                .map(|_| ())
        };
        let (code, message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            // The code says it all, and Kafka's answer has no message.
            Err(told) if told.code == ErrorCode::UnknownTopicOrPartition => (told.code, None),
            Err(told) => (told.code, Some(Str::from(told.message))),
        };
        results.push(CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: cx.error(ApiKey::CreatePartitions, code),
            error_message: message,
            ..Default::default()
        });
    }
    CreatePartitionsResponse {
        results,
        ..Default::default()
    }
}

fn check(cx: &Cx, image: &Image, topic: &CreatePartitionsTopic) -> Result<Record, Told> {
    let Some(known) = image.topic(&topic.name) else {
        return Err(Told::new(
            ErrorCode::UnknownTopicOrPartition,
            "there is no topic of this name",
        ));
    };
    if names::is_internal(&topic.name) {
        // Its keys' places follow from the number: those that there are would be looked for elsewhere.
        let what = "the number of partitions of an internal topic cannot be changed";
        return Err(Told::new(ErrorCode::InvalidRequest, what));
    }
    let current = known.partitions.len();
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidPartitions, what));
    let count = match u32::try_from(topic.count) {
        Ok(count) if count as usize == current => {
            return invalid(format!("the topic has {count} partitions already"));
        }
        Ok(count) if (count as usize) < current => {
            return invalid(format!(
                "the topic has {current} partitions, more than the {count} asked for"
            ));
        }
        Ok(count) if count > MAX_PARTITIONS => {
            return invalid(format!("a topic has at most {MAX_PARTITIONS} partitions"));
        }
        Ok(count) => count,
        Err(_) => return invalid(format!("{} is no number of partitions", topic.count)),
    };
    if let Some(assignments) = &topic.assignments {
        if assignments.len() != count as usize - current {
            let what = format!(
                "{} assignments for {} new partitions",
                assignments.len(),
                count as usize - current
            );
            return Err(Told::new(ErrorCode::InvalidReplicaAssignment, what));
        }
        for assignment in assignments {
            check_replicas(cx, &assignment.broker_ids)?;
        }
    }
    Ok(Record::PartitionsAdded {
        id: known.id,
        partitions: count,
        leader: cx.broker.node_id,
    })
}
