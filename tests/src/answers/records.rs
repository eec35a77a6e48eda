//! Records and their offsets.

use bytes::Bytes;
use drumlin_records::{BatchBuilder, Compression};
use drumlin_wire::Uuid;
use drumlin_wire::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use drumlin_wire::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use drumlin_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use drumlin_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use drumlin_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::{NO_SUCH_ID, Pair, Side};

/// Any time will do that is the same on both sides, and young enough not to fall to retention.
fn batch(time: i64, key: Option<&[u8]>) -> anyhow::Result<Bytes> {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(time, key, Some(b"value"), &[]);
    Ok(batch.build()?)
}

pub(super) fn ask_all(pair: &mut Pair) -> anyhow::Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let time = i64::try_from(now.as_millis())?;
    pair.create_topic("records", 1, &[])?;
    pair.create_topic("compacted", 1, &[("cleanup.policy", "compact")])?;
    pair.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    pair.create_topic("small", 1, &[("max.message.bytes", "100")])?;
    produce(pair, time)?;
    fetch(pair)?;
    offsets(pair, time)?;
    delete_records(pair)?;
    for topic in ["records", "nowhere"] {
        let request = |_: &Side, _: i16| DescribeProducersRequest {
            topics: vec![TopicRequest {
                name: topic.into(),
                partition_indexes: vec![0, 7],
                ..Default::default()
            }],
            ..Default::default()
        };
        pair.ask(&format!("topic {topic}"), request)?;
    }
    Ok(())
}

fn produce(pair: &mut Pair, time: i64) -> anyhow::Result<()> {
    let sound = batch(time, Some(b"key"))?;
    let mut broken = sound.to_vec();
    if let Some(last) = broken.last_mut() {
        *last ^= 1;
    }
    let broken = Bytes::from(broken);
    let keyless = batch(time, None)?;
    let mut large = BatchBuilder::new(Compression::None);
    large.push(time, None, Some(&[7; 500]), &[]);
    let large = large.build()?;
    let cases = [
        ("a record", "records", 0, -1, Some(&sound)),
        (
            "a record, acknowledged by the leader",
            "records",
            0,
            1,
            Some(&sound),
        ),
        ("a record without a key", "records", 0, -1, Some(&keyless)),
        ("a record that is stamped", "stamped", 0, -1, Some(&sound)),
        (
            "a record without a key, compacted",
            "compacted",
            0,
            -1,
            Some(&keyless),
        ),
        ("a record too large", "small", 0, -1, Some(&large)),
        ("a wrong checksum", "records", 0, -1, Some(&broken)),
        ("an unknown partition", "records", 7, -1, Some(&sound)),
        ("an unknown topic", "nowhere", 0, -1, Some(&sound)),
        ("acks that are none", "records", 0, 5, Some(&sound)),
    ];
    for (what, topic, partition, acks, records) in cases {
        let request = |side: &Side, version: i16| {
            let id = match topic {
                "nowhere" => NO_SUCH_ID,
                topic => side.topic_id(topic),
            };
            ProduceRequest {
                acks,
                timeout_ms: 20_000,
                topic_data: vec![TopicProduceData {
                    name: if version < 13 { topic.into() } else { "".into() },
                    topic_id: if version < 13 { Uuid::default() } else { id },
                    partition_data: vec![PartitionProduceData {
                        index: partition,
                        records: records.cloned().map(Into::into),
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            }
        };
        pair.ask(what, request)?;
    }
    Ok(())
}

fn fetch(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, topic, partition, offset, epoch, session) in [
        ("from the start", "records", 0, 0, -1, (0, -1)),
        ("beyond the end", "records", 0, 1_000_000, -1, (0, -1)),
        ("a negative offset", "records", 0, -5, -1, (0, -1)),
        ("an unknown partition", "records", 7, 0, -1, (0, -1)),
        ("an unknown topic", "nowhere", 0, 0, -1, (0, -1)),
        ("an epoch to come", "records", 0, 0, 1_000, (0, -1)),
        ("a session that is none", "records", 0, 0, -1, (12_345, 7)),
    ] {
        let request = |side: &Side, version: i16| {
            let id = match topic {
                "nowhere" => NO_SUCH_ID,
                topic => side.topic_id(topic),
            };
            FetchRequest {
                replica_id: -1,
                max_wait_ms: 0,
                min_bytes: 0,
                max_bytes: 1 << 20,
                session_id: if version >= 7 { session.0 } else { 0 },
                session_epoch: if version >= 7 { session.1 } else { -1 },
                topics: vec![FetchTopic {
                    topic: if version < 13 { topic.into() } else { "".into() },
                    topic_id: if version < 13 { Uuid::default() } else { id },
                    partitions: vec![FetchPartition {
                        partition,
                        current_leader_epoch: if version >= 9 { epoch } else { -1 },
                        fetch_offset: offset,
                        partition_max_bytes: 1 << 20,
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            }
        };
        // Records carry epochs and are cut into pieces as each broker keeps them; null and none differ still.
        pair.ask_but(what, request, |answer| {
            for part in answer
                .responses
                .iter_mut()
                .flat_map(|topic| &mut topic.partitions)
            {
                if let Some(records) = part.records.as_mut().filter(|records| !records.is_empty()) {
                    *records = Bytes::from_static(b"records").into();
                }
            }
        })?;
    }
    Ok(())
}

fn offsets(pair: &mut Pair, time: i64) -> anyhow::Result<()> {
    for (what, topic, partition, timestamp, epoch) in [
        ("the latest", "records", 0, -1, -1),
        ("the earliest", "records", 0, -2, -1),
        ("the greatest timestamp", "records", 0, -3, -1),
        ("a time", "records", 0, time, -1),
        ("a time to come", "records", 0, time + 100_000_000, -1),
        ("a special time that is none", "records", 0, -77, -1),
        ("an unknown partition", "records", 7, -1, -1),
        ("an unknown topic", "nowhere", 0, -1, -1),
        ("an epoch to come", "records", 0, -1, 1_000),
        ("an empty topic's greatest timestamp", "small", 0, -3, -1),
    ] {
        let request = |_: &Side, version: i16| ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: topic.into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition,
                    current_leader_epoch: if version >= 4 { epoch } else { -1 },
                    timestamp,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        pair.ask(what, request)?;
    }
    for (what, topic, partition, current, wanted) in [
        ("an epoch to come", "records", 0, -1, 1_000),
        ("no epoch", "records", 0, -1, -1),
        ("a leader's epoch to come", "records", 0, 1_000, 0),
        ("an unknown partition", "records", 7, -1, 0),
        ("an unknown topic", "nowhere", 0, -1, 0),
    ] {
        let request = |_: &Side, version: i16| OffsetForLeaderEpochRequest {
            replica_id: if version >= 3 { -1 } else { -2 },
            topics: vec![OffsetForLeaderTopic {
                topic: topic.into(),
                partitions: vec![OffsetForLeaderPartition {
                    partition,
                    current_leader_epoch: current,
                    leader_epoch: wanted,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        pair.ask(what, request)?;
    }
    Ok(())
}

fn delete_records(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, topic, partition, offset) in [
        ("up to an offset", "records", 0, 1),
        ("up to one before", "records", 0, 0),
        ("beyond the end", "records", 0, 1_000_000),
        ("a negative offset", "records", 0, -5),
        ("a compacted topic", "compacted", 0, 0),
        ("an unknown partition", "records", 7, 0),
        ("an unknown topic", "nowhere", 0, 0),
    ] {
        let request = |_: &Side, _: i16| DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: topic.into(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: partition,
                    offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            timeout_ms: 20_000,
            ..Default::default()
        };
        pair.ask(what, request)?;
    }
    Ok(())
}
