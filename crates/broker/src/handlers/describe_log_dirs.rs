//! DescribeLogDirs (key 35): one log directory, the object store.

use std::collections::BTreeSet;

use drumlin_wire::Str;
use drumlin_wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use drumlin_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use crate::dispatch::Cx;
use crate::topics::Topic;

/// Sizes as tools want them: committed bytes of each partition. Total and usable bytes of a bucket are not known.
pub async fn handle(cx: &Cx, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let topics = match request.topics {
        None => cx
            .broker
            .topics
            .sorted()
            .iter()
            .map(|topic| describe(topic, None))
            .collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|asked| {
                let topic = cx.broker.topics.by_name(&asked.topic)?;
                Some(describe(
                    &topic,
                    Some(&asked.partitions.iter().copied().collect()),
                ))
            })
            .filter(|topic| !topic.partitions.is_empty())
            .collect(),
    };
    let result = DescribeLogDirsResult {
        log_dir: Str::from(cx.broker.config().store.url.as_str()),
        topics,
        total_bytes: -1,
        usable_bytes: -1,
        ..Default::default()
    };
    DescribeLogDirsResponse {
        results: vec![result],
        ..Default::default()
    }
}

fn describe(topic: &Topic, only: Option<&BTreeSet<i32>>) -> DescribeLogDirsTopic {
    let partitions = topic
        .partitions
        .iter()
        .zip(0i32..)
        .filter(|(_, index)| only.is_none_or(|only| only.contains(index)))
        .filter_map(|(partition, partition_index)| {
            let size = partition.as_ref()?.size_bytes();
            Some(DescribeLogDirsPartition {
                partition_index,
                partition_size: i64::try_from(size).unwrap_or(i64::MAX),
                ..Default::default()
            })
        })
        .collect();
    DescribeLogDirsTopic {
        name: topic.name.clone(),
        partitions,
        ..Default::default()
    }
}
