//! Metadata (key 3): brokers, topics, leaders; creates topics that are asked for by name.

use std::collections::BTreeSet;

use drumlin_cluster::{Image, TopicImage};
use drumlin_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use drumlin_wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use drumlin_wire::{ApiKey, Str, Uuid};

use super::{NO_OPERATIONS, Operations};
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;
use crate::names;

/// Answers from the image.
pub async fn handle(cx: &Cx, request: MetadataRequest) -> MetadataResponse {
    // Version 0 has no null: there an empty list asks for all topics.
    let topics = match &request.topics {
        None => None,
        Some(topics) if topics.is_empty() && cx.version == 0 => None,
        Some(topics) => Some(topics),
    };
    let operations = request.include_topic_authorized_operations;
    let mut image = cx.broker.image();
    let mut answered = Vec::new();
    match topics {
        None => answered.extend(
            image
                .topics()
                .values()
                .map(|topic| describe(&image, topic, operations)),
        ),
        Some(asked) => {
            if cx.version < 12
                && asked
                    .iter()
                    .any(|topic| topic.name.is_none() || topic.topic_id != Uuid::default())
            {
                return refused(cx, &image, &request);
            }
            // Up to version 3 the broker's own setting decides alone.
            if request.allow_auto_topic_creation || cx.version < 4 {
                image = cx
                    .broker
                    .auto_create(asked.iter().filter_map(|topic| topic.name.as_ref()))
                    .await;
            }
            let mut seen = BTreeSet::new();
            for topic in asked {
                if seen.insert((topic.topic_id, topic.name.as_ref())) {
                    answered.push(answer(cx, &image, topic, operations));
                }
            }
        }
    }
    MetadataResponse {
        topics: answered,
        ..header(cx, &image, &request)
    }
}

fn header(cx: &Cx, image: &Image, request: &MetadataRequest) -> MetadataResponse {
    MetadataResponse {
        brokers: brokers(cx, image),
        cluster_id: Some(Str::from(&*image.cluster_id)),
        controller_id: image.controller,
        cluster_authorized_operations: Operations::Cluster
            .answer(request.include_cluster_authorized_operations),
        ..Default::default()
    }
}

fn brokers(cx: &Cx, image: &Image) -> Vec<MetadataResponseBroker> {
    cx.broker
        .endpoints(image, &cx.peer.listener)
        .into_iter()
        .map(|endpoint| MetadataResponseBroker {
            node_id: endpoint.node_id,
            host: endpoint.host,
            port: endpoint.port,
            rack: endpoint.rack,
            ..Default::default()
        })
        .collect()
}

fn answer(cx: &Cx, image: &Image, asked: &MetadataRequestTopic, operations: bool) -> MetadataResponseTopic {
    let failed = |code| MetadataResponseTopic {
        error_code: cx.error(ApiKey::Metadata, code),
        name: asked.name.clone(),
        topic_id: asked.topic_id,
        topic_authorized_operations: Operations::Topic.answer(operations),
        ..Default::default()
    };
    if asked.topic_id != Uuid::default() {
        return match image.topic_by_id(&asked.topic_id.0) {
            Some(topic) => describe(image, topic, operations),
            None => failed(ErrorCode::UnknownTopicId),
        };
    }
    let Some(name) = &asked.name else {
        return failed(ErrorCode::UnknownTopicId);
    };
    match image.topic(name) {
        Some(topic) => describe(image, topic, operations),
        None if names::check(name).is_err() => failed(ErrorCode::InvalidTopic),
        None => failed(ErrorCode::UnknownTopicOrPartition),
    }
}

fn describe(image: &Image, topic: &TopicImage, operations: bool) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(Str::from(&*topic.name)),
        topic_id: Uuid(topic.id),
        is_internal: names::is_internal(&topic.name),
        partitions: topic
            .partitions
            .iter()
            .zip(0i32..)
            .map(|(partition, partition_index)| {
                let leadership = image.leadership(*partition);
                MetadataResponsePartition {
                    error_code: ErrorCode::None.code(),
                    partition_index,
                    leader_id: leadership.leader,
                    leader_epoch: leadership.leader_epoch,
                    // The object store replicates; to clients the leader is the only replica.
                    replica_nodes: vec![leadership.leader],
                    isr_nodes: vec![leadership.leader],
                    ..Default::default()
                }
            })
            .collect(),
        topic_authorized_operations: Operations::Topic.answer(operations),
        ..Default::default()
    }
}

/// Topics by id in a version that has no such thing.
fn refused(cx: &Cx, image: &Image, request: &MetadataRequest) -> MetadataResponse {
    let topics = request
        .topics
        .iter()
        .flatten()
        .map(|topic| MetadataResponseTopic {
            error_code: cx.error(ApiKey::Metadata, ErrorCode::InvalidRequest),
            name: Some(topic.name.clone().unwrap_or_default()),
            topic_id: topic.topic_id,
            topic_authorized_operations: NO_OPERATIONS,
            ..Default::default()
        })
        .collect();
    MetadataResponse {
        topics,
        ..header(cx, image, request)
    }
}
