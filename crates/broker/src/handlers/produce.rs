//! Produce (key 0): one batch a partition into the log.
//!
//! Batches are validated and appended while the request holds its place in the order; the answer follows when what it
//! promises is true: at once for `acks=1`, after the commit for `acks=all`, never for `acks=0`.

use std::time::Duration;

use bytes::Bytes;
use drumlin_log::{AppendOptions, Appended, Commit};
use drumlin_records::{
    BatchError, BatchHeader, Compression, Limits, NO_TIMESTAMP, RecordFault, ValidateRules, recompress,
    validate_header, validate_records,
};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use drumlin_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse,
    TopicProduceResponse,
};
use drumlin_wire::{ApiKey, Str, Uuid};
use tokio::time::Instant;

use crate::config::{CompressionType, TimestampType, TopicConfig};
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;
use crate::names;
use crate::net::{Answer, Refusal, Reply};
use crate::topics::Topic;

/// Versions from which zstd may be used.
const ZSTD_FROM: i16 = 7;
/// Versions that name topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// Versions that say who leads instead (KIP-951).
const LEADERS_FROM: i16 = 10;

/// About what a partition takes in a request and its answer.
const PARTITION_BYTES: usize = 512;

/// Batches up to this size are walked where they arrive: larger ones take long enough to keep other connections waiting.
const WALKED_IN_PLACE: usize = 256 << 10;
/// The same for what comes out of a compressed batch.
const DECOMPRESSED_IN_PLACE: u64 = 1 << 20;

/// Why a partition's records were not taken.
struct Failure {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<(i32, RecordFault)>,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            records: Vec::new(),
        }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        let records = match &error {
            BatchError::InvalidRecords { faults } | BatchError::InvalidTimestamps { faults } => {
                faults.clone()
            }
            _ => Vec::new(),
        };
        Self {
            code: ErrorCode::from(&error),
            message: Some(error.to_string()),
            records,
        }
    }
}

/// An append whose commit is awaited, and where its answer stands.
struct Awaited {
    topic: usize,
    partition: usize,
    commit: Commit,
}

/// Takes a request: appends its batches, and answers when it may.
pub async fn take(cx: Cx, request: ProduceRequest) -> Result<Reply, Refusal> {
    let acks = request.acks;
    let named: usize = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len() + 1)
        .sum();
    let _large = cx.broker.admit_large(named.saturating_mul(PARTITION_BYTES)).await;
    let deadline = cx.began + patience(&cx, request.timeout_ms);
    let refused = if request.transactional_id.is_some() {
        // Java, librdkafka and franz-go take this one for final; retriable ones would hang a producer for ever.
        Some((
            ErrorCode::UnsupportedVersion,
            "transactions are not supported by this broker",
        ))
    } else if !(-1..=1).contains(&acks) {
        Some((ErrorCode::InvalidRequiredAcks, "acks must be -1, 0 or 1"))
    } else {
        None
    };
    let mut response = ProduceResponse {
        responses: Vec::with_capacity(request.topic_data.len()),
        ..Default::default()
    };
    let mut awaited = Vec::new();
    let mut failed = None;
    for data in request.topic_data {
        let found = find(&cx, &data);
        let (name, topic_id) = match &found {
            // Names of its own memory: an answer must not keep the request's alive.
            Ok(topic) => (topic.name.clone(), topic.id),
            Err(_) => (data.name.detach(), data.topic_id),
        };
        let (name, topic_id) = shown(&cx, name, topic_id);
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for part in data.partition_data {
            let index = part.index;
            let outcome = match (&refused, &found) {
                (Some((code, why)), _) => Err(Failure {
                    code: *code,
                    message: Some((*why).to_owned()),
                    records: Vec::new(),
                }),
                (None, Err(code)) => Err((*code).into()),
                (None, Ok(topic)) => append(&cx, topic, part, deadline).await,
            };
            partitions.push(match outcome {
                Ok(appended) => {
                    let place = (response.responses.len(), partitions.len());
                    if acks == -1 {
                        awaited.push(Awaited {
                            topic: place.0,
                            partition: place.1,
                            commit: appended.commit,
                        });
                    }
                    PartitionProduceResponse {
                        index,
                        base_offset: appended.base_offset,
                        log_append_time_ms: appended.log_append_time,
                        log_start_offset: appended.log_start_offset,
                        ..Default::default()
                    }
                }
                Err(failure) => {
                    failed = Some(failure.code);
                    let log_start_offset = log_start(&failure, found.as_deref().ok(), index);
                    PartitionProduceResponse {
                        log_start_offset,
                        ..fail(&cx, index, failure)
                    }
                }
            });
        }
        response.responses.push(TopicProduceResponse {
            name,
            topic_id,
            partition_responses: partitions,
            ..Default::default()
        });
    }
    match (acks, failed) {
        (0, None) => {
            // Counted as answered, though nothing is said.
            if let Some(api) = cx.broker.metrics.api(ApiKey::Produce) {
                api.answered(cx.began.elapsed());
            }
            Ok(Reply::Nothing)
        }
        // The only way to tell a producer that does not listen.
        (0, Some(code)) => Err(Refusal(format!("a Produce request with acks=0 failed: {code:?}"))),
        _ if awaited.is_empty() => finish(&cx, response).map(Reply::Now),
        _ => {
            let weight = 256
                * response
                    .responses
                    .iter()
                    .map(|topic| topic.partition_responses.len())
                    .sum::<usize>();
            Ok(Reply::Later {
                answer: Box::pin(settle(cx, response, awaited, deadline)),
                weight,
            })
        }
    }
}

/// How long the request waits until its records are durable. Kafka's time-out bounds the wait for replicas; a client that
/// allows little, nothing or less than that does not want its stored records called failed.
fn patience(cx: &Cx, timeout_ms: i32) -> Duration {
    let least = cx.broker.config().produce_timeout_min;
    cx.broker.patience(timeout_ms).max(least)
}

/// The answer to versions before batches of format 2: each partition says so.
pub fn unsupported(cx: &Cx, request: ProduceRequest) -> Result<Reply, Refusal> {
    if request.acks == 0 {
        return Err(Refusal(format!(
            "Produce version {} with acks=0 is not served",
            cx.version
        )));
    }
    let responses = request
        .topic_data
        .into_iter()
        .map(|topic| TopicProduceResponse {
            name: topic.name,
            partition_responses: (topic.partition_data.into_iter())
                .map(|part| fail(cx, part.index, ErrorCode::UnsupportedVersion.into()))
                .collect(),
            ..Default::default()
        })
        .collect();
    cx.answer(&ProduceResponse {
        responses,
        ..Default::default()
    })
    .map(Reply::Now)
}

/// Waits for the commits, and says of each whether it came in time.
async fn settle(
    cx: Cx,
    mut response: ProduceResponse,
    awaited: Vec<Awaited>,
    deadline: Instant,
) -> Result<Answer, Refusal> {
    for Awaited {
        topic,
        partition,
        commit,
    } in awaited
    {
        let code = match commit.outcome() {
            Some(outcome) => outcome.map_err(ErrorCode::from),
            None => match tokio::time::timeout_at(deadline, commit.wait()).await {
                Ok(outcome) => outcome.map_err(ErrorCode::from),
                // It may yet be committed: the client asks again, and an idempotent one is told.
                Err(_) => Err(ErrorCode::RequestTimedOut),
            },
        };
        let Err(code) = code else { continue };
        let place = response
            .responses
            .get_mut(topic)
            .and_then(|topic| topic.partition_responses.get_mut(partition));
        if let Some(place) = place {
            *place = fail(&cx, place.index, code.into());
        }
    }
    finish(&cx, response)
}

fn finish(cx: &Cx, mut response: ProduceResponse) -> Result<Answer, Refusal> {
    if cx.version >= LEADERS_FROM {
        tell_leaders(cx, &mut response);
    }
    cx.answer(&response)
}

fn find(cx: &Cx, data: &TopicProduceData) -> Result<std::sync::Arc<Topic>, ErrorCode> {
    if cx.version >= TOPIC_IDS_FROM {
        cx.broker
            .topics
            .by_id(&data.topic_id)
            .ok_or(ErrorCode::UnknownTopicId)
    } else {
        cx.broker
            .topics
            .by_name(&data.name)
            .ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

/// A topic as the version names it.
fn shown(cx: &Cx, name: Str, id: Uuid) -> (Str, Uuid) {
    if cx.version >= TOPIC_IDS_FROM {
        (Str::default(), id)
    } else {
        (name, Uuid::default())
    }
}

async fn append(
    cx: &Cx,
    topic: &Topic,
    data: PartitionProduceData,
    deadline: Instant,
) -> Result<Appended, Failure> {
    let partition = match usize::try_from(data.index)
        .ok()
        .and_then(|index| topic.partitions.get(index))
    {
        Some(Some(partition)) => partition,
        Some(None) => return Err(ErrorCode::NotLeaderOrFollower.into()),
        None => return Err(ErrorCode::UnknownTopicOrPartition.into()),
    };
    // What coordinators keep is theirs alone to write (Kafka's `ReplicaManager` answers the same).
    if names::is_internal(&topic.name) && !cx.internal {
        return Err(Failure {
            code: ErrorCode::InvalidTopic,
            message: Some(format!(
                "clients cannot write to the internal topic {}",
                topic.name.as_str()
            )),
            records: Vec::new(),
        });
    }
    let batch = data.records.unwrap_or_default().into_bytes();
    let config = &*topic.config;
    let now_ms = cx.broker.env.now_ms();
    let rules = rules(cx, config, now_ms);
    let header = validate_header(&batch, &rules)?;
    if header.is_transactional() {
        return Err(Failure {
            code: ErrorCode::UnsupportedVersion,
            message: Some("transactions are not supported by this broker".to_owned()),
            records: Vec::new(),
        });
    }
    let batch = batch.slice(..header.size_in_bytes());
    let header = check_records(cx, header, &batch, rules).await?;
    let (header, batch) = recompressed(cx, config, header, batch).await?;
    let log_append_time = (config.timestamp_type == TimestampType::LogAppendTime).then_some(now_ms);
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time,
        deadline,
    };
    let appended = cx
        .broker
        .log
        .append(partition, &header, &batch, options)
        .await
        .map_err(|error| Failure {
            code: ErrorCode::from(&error),
            message: Some(error.to_string()),
            records: Vec::new(),
        })?;
    topic.traffic.appended(batch.len());
    Ok(appended)
}

fn rules(cx: &Cx, config: &TopicConfig, now_ms: i64) -> ValidateRules {
    ValidateRules {
        max_message_bytes: config.max_message_bytes,
        timestamp_type: match config.timestamp_type {
            TimestampType::CreateTime => drumlin_records::TimestampType::CreateTime,
            TimestampType::LogAppendTime => drumlin_records::TimestampType::LogAppendTime,
        },
        before_max_ms: config.timestamp_before_max_ms,
        after_max_ms: config.timestamp_after_max_ms,
        compacted: config.cleanup.compact,
        allow_zstd: cx.version >= ZSTD_FROM,
        depth: cx.broker.config().record_validation,
        limits: Limits {
            max_record: config.max_decompressed_record_bytes,
            ..Limits::WALK
        },
        ..ValidateRules::new(now_ms)
    }
}

/// Walks a batch's records, on a thread of its own where that takes long. A compressed batch does not say how much comes
/// out of it: beyond a bound the walk begins anew there.
async fn check_records(
    cx: &Cx,
    header: BatchHeader,
    batch: &Bytes,
    rules: ValidateRules,
) -> Result<BatchHeader, BatchError> {
    if !rules.walks_records() {
        return Ok(header);
    }
    if batch.len() <= WALKED_IN_PLACE {
        let mut in_place = rules;
        in_place.limits.max_decompressed = DECOMPRESSED_IN_PLACE;
        match validate_records(&header, batch, &in_place) {
            Err(BatchError::TooLarge { .. }) => {}
            outcome => return outcome,
        }
    }
    let batch = batch.clone();
    let env = &cx.broker.env;
    env.blocking(move || validate_records(&header, &batch, &rules))
        .await
}

/// The batch in the topic's codec.
async fn recompressed(
    cx: &Cx,
    config: &TopicConfig,
    header: BatchHeader,
    batch: Bytes,
) -> Result<(BatchHeader, Bytes), Failure> {
    let wanted = match config.compression {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => Some((Compression::None, None)),
        CompressionType::Gzip => Some((Compression::Gzip, config.gzip_level)),
        CompressionType::Snappy => Some((Compression::Snappy, None)),
        CompressionType::Lz4 => Some((Compression::Lz4, Some(config.lz4_level))),
        CompressionType::Zstd => Some((Compression::Zstd, Some(config.zstd_level))),
    };
    let mut stored = (header, batch);
    if let Some((codec, level)) = wanted
        && stored.0.compression().ok() != Some(codec)
    {
        let from = stored.1;
        // Compressing costs milliseconds: not on a thread that serves other connections.
        let again = cx
            .broker
            .env
            .blocking(move || recompress(&from, codec, level, Limits::default()))
            .await?;
        if again.len() > config.max_message_bytes {
            let (size, max) = (again.len() as u64, config.max_message_bytes as u64);
            return Err(BatchError::TooLarge { size, max }.into());
        }
        let header = BatchHeader {
            attributes: stored.0.attributes_in(codec),
            max_timestamp: stored.0.max_timestamp,
            ..BatchHeader::parse(&again)?
        };
        stored = (header, again.freeze());
    }
    Ok(stored)
}

fn fail(cx: &Cx, index: i32, failure: Failure) -> PartitionProduceResponse {
    let record_errors = failure
        .records
        .iter()
        .map(|(index, fault)| BatchIndexAndErrorMessage {
            batch_index: *index,
            batch_index_error_message: Some(Str::from(fault.to_string().as_str())),
            ..Default::default()
        })
        .collect();
    PartitionProduceResponse {
        index,
        error_code: cx.error(ApiKey::Produce, failure.code),
        base_offset: -1,
        log_append_time_ms: NO_TIMESTAMP,
        log_start_offset: -1,
        record_errors,
        error_message: failure
            .message
            .filter(|_| has_message(failure.code))
            .as_deref()
            .map(Str::from),
        ..Default::default()
    }
}

/// Kafka sends no message beside the codes that say it all.
fn has_message(code: ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::MessageTooLarge | ErrorCode::CorruptMessage | ErrorCode::InvalidRequiredAcks
    )
}

/// Where the log starts, which Kafka tells beside errors of single records.
fn log_start(failure: &Failure, topic: Option<&Topic>, index: i32) -> i64 {
    if failure.records.is_empty() && failure.code != ErrorCode::InvalidTimestamp {
        return -1;
    }
    usize::try_from(index)
        .ok()
        .and_then(|index| topic?.partitions.get(index)?.as_ref())
        .map_or(-1, |partition| partition.log_start_offset())
}

/// Says who leads, wherever somebody else does (KIP-951).
fn tell_leaders(cx: &Cx, response: &mut ProduceResponse) {
    let elsewhere = |part: &PartitionProduceResponse| {
        part.error_code == ErrorCode::NotLeaderOrFollower.code()
            || part.error_code == ErrorCode::FencedLeaderEpoch.code()
    };
    if !response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .any(elsewhere)
    {
        return;
    }
    let mut told = false;
    let image = cx.broker.image();
    for topic in &mut response.responses {
        for part in &mut topic.partition_responses {
            if !elsewhere(part) {
                continue;
            }
            let found = if cx.version >= TOPIC_IDS_FROM {
                image.topic_by_id(&topic.topic_id.0)
            } else {
                image.topic(&topic.name)
            };
            let leadership = u32::try_from(part.index)
                .ok()
                .and_then(|index| image.partition(&found?.id, index));
            if let Some(leadership) = leadership {
                part.current_leader = LeaderIdAndEpoch {
                    leader_id: leadership.leader,
                    leader_epoch: leadership.leader_epoch,
                    ..Default::default()
                };
                told = true;
            }
        }
    }
    if told {
        response.node_endpoints = (cx.broker.endpoints(&image, &cx.peer.listener).into_iter())
            .map(|endpoint| NodeEndpoint {
                node_id: endpoint.node_id,
                host: endpoint.host,
                port: endpoint.port,
                rack: endpoint.rack,
                ..Default::default()
            })
            .collect();
    }
}
