//! `__consumer_offsets`: there when it is first needed, as Kafka makes it; and who coordinates a group.

use std::sync::Arc;

use drumlin_cluster::{Image, Record};
use tracing::info;

use crate::config::GroupsConfig;
use crate::error_code::{ErrorCode, Told};
use crate::names::GROUP_METADATA_TOPIC;
use crate::state::{Endpoint, Shared};

/// The record that creates the topic.
fn creation(config: &GroupsConfig, id: [u8; 16], leader: i32) -> Record {
    let option = |name: &str, value: String| (name.to_owned(), value);
    Record::TopicCreated {
        name: GROUP_METADATA_TOPIC.to_owned(),
        id,
        partitions: config.partitions,
        leader,
        configs: vec![
            option("cleanup.policy", "compact".to_owned()),
            option("compression.type", "producer".to_owned()),
            option("segment.bytes", config.segment_bytes.0.to_string()),
        ],
    }
}

/// Creates the topic where it is missing. Gives an image that has it.
pub async fn ensure(broker: &Shared) -> Result<Arc<Image>, Told> {
    let image = broker.image();
    if image.topic(GROUP_METADATA_TOPIC).is_some() {
        return Ok(image);
    }
    let config = broker.config();
    let mut created = false;
    let image = broker
        .change(config.groups.commit_timeout, |image| {
            if image.topic(GROUP_METADATA_TOPIC).is_some() {
                return Ok(Vec::new());
            }
            created = true;
            Ok(vec![creation(
                &config.groups,
                broker.new_topic_id(image),
                broker.node_id,
            )])
        })
        .await?;
    if created {
        info!(
            partitions = config.groups.partitions,
            "{GROUP_METADATA_TOPIC} created for the first group"
        );
    }
    Ok(image)
}

/// The broker that coordinates a group, as clients of a listener reach it.
pub fn coordinator(
    broker: &Shared,
    image: &Image,
    group: &str,
    listener: &str,
) -> Result<Endpoint, ErrorCode> {
    let unavailable = ErrorCode::CoordinatorNotAvailable;
    let topic = image.topic(GROUP_METADATA_TOPIC).ok_or(unavailable)?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let partition = drumlin_coordinator::partition_for(group, count.max(1));
    let leader = usize::try_from(partition)
        .ok()
        .and_then(|partition| topic.partitions.get(partition))
        .map(|partition| image.leadership(*partition).leader)
        .ok_or(unavailable)?;
    let endpoints = broker.endpoints(image, listener);
    let found = endpoints.into_iter().find(|endpoint| endpoint.node_id == leader);
    found.ok_or(unavailable)
}
