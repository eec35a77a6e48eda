//! AlterReplicaLogDirs (key 34): there is one log directory, the object store, and every partition is in it.

use drumlin_wire::ApiKey;
use drumlin_wire::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use drumlin_wire::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Takes a move to where a partition is already, and answers LOG_DIR_NOT_FOUND for any other directory.
pub async fn handle(cx: &Cx, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let config = cx.broker.config();
    let results = request
        .dirs
        .into_iter()
        .flat_map(|dir| {
            let known = dir.path.as_str() == config.store.url;
            dir.topics.into_iter().map(move |topic| (known, topic))
        })
        .map(|(known, topic)| answer(cx, known, topic))
        .collect();
    AlterReplicaLogDirsResponse {
        results,
        ..Default::default()
    }
}

fn answer(cx: &Cx, is_known_dir: bool, asked: AlterReplicaLogDirTopic) -> AlterReplicaLogDirTopicResult {
    let topic = cx.broker.topics.by_name(&asked.name);
    let count = topic.map_or(0, |topic| topic.partitions.len());
    let partitions = asked.partitions.iter().map(|partition_index| {
        let exists = usize::try_from(*partition_index).is_ok_and(|index| index < count);
        let code = match (is_known_dir, exists) {
            (false, _) => ErrorCode::LogDirNotFound,
            (true, false) => ErrorCode::UnknownTopicOrPartition,
            (true, true) => ErrorCode::None,
        };
        AlterReplicaLogDirPartitionResult {
            partition_index: *partition_index,
            error_code: cx.error(ApiKey::AlterReplicaLogDirs, code),
            ..Default::default()
        }
    });
    AlterReplicaLogDirTopicResult {
        partitions: partitions.collect(),
        topic_name: asked.name,
        ..Default::default()
    }
}
