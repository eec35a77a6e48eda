//! DescribeLogDirs (key 35): one log directory, the object store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use drumlin_wire::Str;
use drumlin_wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use drumlin_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use crate::dispatch::Cx;
use crate::topics::Topic;

/// Sizes as tools want them: committed bytes of each partition, and the space of the file system.
pub async fn handle(cx: &Cx, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let topics = match request.topics {
        None => cx
            .broker
            .topics
            .sorted()
            .iter()
            .map(|topic| describe(topic, None))
            .collect(),
        Some(asked) => {
            let mut wanted: BTreeMap<Str, BTreeSet<i32>> = BTreeMap::new();
            for topic in asked {
                wanted.entry(topic.topic).or_default().extend(topic.partitions);
            }
            wanted
                .iter()
                .filter_map(|(name, partitions)| {
                    let topic = cx.broker.topics.by_name(name)?;
                    Some(describe(&topic, Some(partitions)))
                })
                .filter(|topic| !topic.partitions.is_empty())
                .collect()
        }
    };
    let (total_bytes, usable_bytes) = space(cx).await.unwrap_or((-1, -1));
    let result = DescribeLogDirsResult {
        log_dir: Str::from(cx.broker.config().store.url.as_str()),
        topics,
        total_bytes,
        usable_bytes,
        ..Default::default()
    };
    DescribeLogDirsResponse {
        results: vec![result],
        ..Default::default()
    }
}

/// Total and usable bytes of the local directory's file system. A bucket has no bound; there it is the file system of
/// the cache, which is what can run full on this machine. Nothing for a store in memory without a cache on disk.
async fn space(cx: &Cx) -> Option<(i64, i64)> {
    let config = cx.broker.config();
    let dir = match &config.store.local_dir {
        Some(dir) => dir.clone(),
        None if config.cache.disk.as_usize() > 0 => config.cache.dir.clone(),
        None => return None,
    };
    // A file system may be far away, and then takes its time.
    tokio::task::spawn_blocking(move || space_of(dir)).await.ok()?
}

fn space_of(mut dir: PathBuf) -> Option<(i64, i64)> {
    // A cache has no directory before anything is in it.
    while !dir.exists() && dir.pop() {}
    let found = rustix::fs::statvfs(&dir).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(found.f_blocks), bytes(found.f_bavail)))
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
