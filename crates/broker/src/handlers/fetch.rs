//! Fetch (key 1): record bytes by reference, waiting for them when there are too few.
//!
//! Partitions are read in the order of the request or the session, several at once; the first that has data gets at
//! least one batch whatever the limits say. What a session's partitions were told is in [`crate::sessions`].

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use drumlin_log::{Partition, Read, ReadError, Waiter};
use drumlin_wire::messages::fetch_request::FetchRequest;
use drumlin_wire::messages::fetch_response::{
    EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use drumlin_wire::{ApiKey, Records, Str, Uuid};
use futures::future::join_all;

use crate::dispatch::Cx;
use crate::epochs::check_epoch;
use crate::error_code::ErrorCode;
use crate::sessions::{FINAL_EPOCH, INITIAL_EPOCH, Key, SessionError, Use, Wanted};
use crate::topics::Topic;

/// Versions that name topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// Versions with sessions (KIP-227).
const SESSIONS_FROM: i16 = 7;
/// Versions that are told where their log diverges (KIP-595).
const DIVERGENCE_FROM: i16 = 12;
/// Versions that say who leads instead (KIP-951).
const LEADERS_FROM: i16 = 16;
/// Partitions that are read at the same time.
const ABREAST: usize = 16;
/// The same for a fetch of very many partitions.
const LONGEST_LARGE_WAIT: Duration = Duration::from_secs(1);
/// About what a partition takes while it is fetched.
const PARTITION_BYTES: usize = 512;
/// How long an error about an offset waits for the store to say that this broker still leads.
const LEADING_PATIENCE: Duration = Duration::from_secs(10);
/// No wait is longer, whatever a client asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Answers a fetch, at once or when there is enough.
pub async fn handle(cx: &Cx, request: FetchRequest) -> FetchResponse {
    let used = match open_session(cx, &request) {
        Ok(used) => used,
        Err(code) => {
            return FetchResponse {
                error_code: cx.error(ApiKey::Fetch, code),
                ..Default::default()
            };
        }
    };
    let mut large = None;
    if let Some(session) = &used.session
        && cx.large.is_none()
    {
        let count = session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wanted()
            .len();
        large = cx.broker.admit_large(count.saturating_mul(PARTITION_BYTES)).await;
    }
    let wanted = match &used.session {
        Some(session) => session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wanted()
            .to_vec(),
        None => wanted(cx, &request),
    };
    // What takes much memory must not hold it for long.
    let longest = if large.is_some() || cx.large.is_some() {
        LONGEST_LARGE_WAIT
    } else {
        LONGEST_WAIT
    };
    let limits = Limits {
        max_bytes: usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(cx.broker.fetch_max_bytes()),
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        deadline: cx.began
            + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(longest),
    };
    let parts = collect(cx, &wanted, &used, limits).await;
    respond(cx, &wanted, used, parts)
}

struct Limits {
    max_bytes: usize,
    min_bytes: usize,
    deadline: tokio::time::Instant,
}

/// What one partition answers.
struct Part {
    data: PartitionData,
    bytes: usize,
    topic: Option<Arc<Topic>>,
}

impl Part {
    /// An error of a partition that is there. As in Kafka's answer, offsets are unknown, and the aborted transactions
    /// are null; where there is no such partition they are an empty list, the field's default.
    fn failed_read(cx: &Cx, wanted: &Wanted, code: ErrorCode) -> Part {
        let mut part = Part::failed(cx, wanted, code);
        part.data.aborted_transactions = None;
        part
    }

    fn failed(cx: &Cx, wanted: &Wanted, code: ErrorCode) -> Part {
        let data = PartitionData {
            partition_index: wanted.partition,
            error_code: cx.error(ApiKey::Fetch, code),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            records: Some(Records::EMPTY),
            ..Default::default()
        };
        Part {
            data,
            bytes: 0,
            topic: None,
        }
    }

    /// Whether an incremental answer has to name the partition.
    fn is_news(&self, wanted: &Wanted) -> bool {
        self.bytes > 0
            || self.data.error_code != 0
            || self.data.diverging_epoch.end_offset >= 0
            || self.data.high_watermark != wanted.told_high_watermark
            || self.data.log_start_offset != wanted.told_log_start
    }
}

fn open_session(cx: &Cx, request: &FetchRequest) -> Result<Use, ErrorCode> {
    let none = || Use {
        id: 0,
        session: None,
        incremental: false,
    };
    if cx.version < SESSIONS_FROM {
        return Ok(none());
    }
    let by_id = cx.version >= TOPIC_IDS_FROM;
    let sessions = &cx.broker.sessions;
    match request.session_epoch {
        FINAL_EPOCH => Ok(sessions.full(request.session_id, false, by_id, &[])),
        INITIAL_EPOCH => {
            let wanted = wanted(cx, request);
            Ok(sessions.full(request.session_id, true, by_id, &wanted))
        }
        epoch => {
            let forgotten: Vec<Key> = request
                .forgotten_topics_data
                .iter()
                .flat_map(|topic| {
                    topic.partitions.iter().map(|partition| Key {
                        topic: topic.topic.clone(),
                        topic_id: topic.topic_id,
                        partition: *partition,
                    })
                })
                .collect();
            sessions
                .incremental(request.session_id, epoch, by_id, wanted(cx, request), &forgotten)
                .map_err(|error| match error {
                    SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
                    SessionError::Epoch => ErrorCode::InvalidFetchSessionEpoch,
                    SessionError::TopicIds => ErrorCode::FetchSessionTopicIdError,
                })
        }
    }
}

/// What a request names, in memory of its own.
fn wanted(cx: &Cx, request: &FetchRequest) -> Vec<Wanted> {
    let mut all = Vec::with_capacity(request.topics.iter().map(|topic| topic.partitions.len()).sum());
    for topic in &request.topics {
        let name = match cx.broker.topics.by_name(&topic.topic) {
            Some(known) => known.name.clone(),
            None => topic.topic.detach(),
        };
        for partition in &topic.partitions {
            all.push(Wanted {
                topic: name.clone(),
                topic_id: topic.topic_id,
                partition: partition.partition,
                current_leader_epoch: partition.current_leader_epoch,
                fetch_offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                max_bytes: partition.partition_max_bytes,
                told_high_watermark: -1,
                told_log_start: -1,
            });
        }
    }
    all
}

/// Reads until there is enough, the time is up, or something has to be told at once.
async fn collect(cx: &Cx, wanted: &[Wanted], used: &Use, limits: Limits) -> Vec<Part> {
    let mut waiter: Option<Arc<Waiter>> = None;
    loop {
        let parts = pass(cx, wanted, &limits).await;
        let bytes: usize = parts.iter().map(|part| part.bytes).sum();
        let urgent = parts
            .iter()
            .any(|part| part.data.error_code != 0 || part.data.diverging_epoch.end_offset >= 0);
        let now = tokio::time::Instant::now();
        // An incremental request that changes nothing may wait even with no partitions at all; an empty full one not.
        let pointless = wanted.is_empty() && !used.incremental;
        if urgent || bytes >= limits.min_bytes || now >= limits.deadline || pointless {
            return parts;
        }
        let fresh = waiter.is_none();
        let waiter = waiter.get_or_insert_with(Waiter::new);
        for part in wanted {
            if let Ok((_, partition)) = find(cx, part) {
                partition.register(waiter);
            }
        }
        if fresh {
            // What came between the reading and the registering would go unnoticed: look once more.
            continue;
        }
        let _ = tokio::time::timeout_at(limits.deadline, waiter.notified()).await;
    }
}

fn find(cx: &Cx, wanted: &Wanted) -> Result<(Arc<Topic>, Arc<Partition>), ErrorCode> {
    let by_id = wanted.topic_id != Uuid::default() || cx.version >= TOPIC_IDS_FROM;
    let topic = if by_id {
        cx.broker
            .topics
            .by_id(&wanted.topic_id)
            .ok_or(ErrorCode::UnknownTopicId)?
    } else {
        cx.broker
            .topics
            .by_name(&wanted.topic)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?
    };
    match usize::try_from(wanted.partition)
        .ok()
        .and_then(|index| topic.partitions.get(index))
    {
        Some(Some(partition)) => {
            let partition = Arc::clone(partition);
            Ok((topic, partition))
        }
        Some(None) => Err(ErrorCode::NotLeaderOrFollower),
        None => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

/// One look at all partitions.
async fn pass(cx: &Cx, wanted: &[Wanted], limits: &Limits) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(wanted.len());
    let mut left = limits.max_bytes;
    let mut nothing_yet = true;
    for group in wanted.chunks(ABREAST) {
        let mut first = nothing_yet;
        let mut claimed = left;
        let reads = group.iter().map(|wanted| {
            let own = usize::try_from(wanted.max_bytes).unwrap_or(0).min(claimed);
            claimed -= own;
            read(cx, wanted, own, std::mem::take(&mut first))
        });
        if let [only] = group {
            let own = usize::try_from(only.max_bytes).unwrap_or(0).min(left);
            parts.push(read(cx, only, own, nothing_yet).await);
        } else {
            parts.extend(join_all(reads).await);
        }
        let got: usize = parts.iter().rev().take(group.len()).map(|part| part.bytes).sum();
        left = left.saturating_sub(got);
        nothing_yet &= got == 0;
    }
    if nothing_yet {
        // Only the first of each group was promised a batch; if none had any, somebody behind it may.
        let behind = |(part, wanted): &(&mut Part, &Wanted)| {
            part.data.error_code == 0 && part.data.high_watermark > wanted.fetch_offset
        };
        if let Some((part, wanted)) = parts.iter_mut().zip(wanted).find(behind) {
            let own = usize::try_from(wanted.max_bytes)
                .unwrap_or(0)
                .min(limits.max_bytes);
            *part = read(cx, wanted, own, true).await;
        }
    }
    parts
}

async fn read(cx: &Cx, wanted: &Wanted, max_bytes: usize, at_least_one: bool) -> Part {
    let (topic, partition) = match find(cx, wanted) {
        Ok(found) => found,
        Err(code) => return Part::failed(cx, wanted, code),
    };
    if let Err(code) = check_epoch(wanted.current_leader_epoch, partition.leader_epoch()) {
        return Part {
            topic: Some(topic),
            ..Part::failed_read(cx, wanted, code)
        };
    }
    if let Some(diverging) = divergence(cx, wanted, &partition) {
        return Part {
            topic: Some(topic),
            ..diverging
        };
    }
    match cx
        .broker
        .log
        .read(&partition, wanted.fetch_offset, max_bytes, at_least_one)
        .await
    {
        Ok(read) => Part {
            topic: Some(topic),
            ..found(wanted, read)
        },
        Err(error) => Part {
            topic: Some(Arc::clone(&topic)),
            ..failed(cx, wanted, &topic, error).await
        },
    }
}

async fn failed(cx: &Cx, wanted: &Wanted, topic: &Topic, error: ReadError) -> Part {
    match error {
        ReadError::OffsetOutOfRange {
            offset,
            high_watermark,
            ..
        } => {
            // Said by a deposed leader, it would make a consumer skip what its successor has taken [R2].
            if offset > high_watermark
                && let Err(code) = cx.broker.confirm_leading(LEADING_PATIENCE).await
            {
                return Part::failed(cx, wanted, code);
            }
            Part::failed_read(cx, wanted, ErrorCode::OffsetOutOfRange)
        }
        ReadError::Store(_) | ReadError::Corrupt { .. } | ReadError::Unavailable { .. } => {
            tracing::warn!(topic = %topic.name, partition = wanted.partition, offset = wanted.fetch_offset, %error,
                "a fetch failed");
            Part::failed_read(cx, wanted, ErrorCode::from(&error))
        }
        ReadError::Deleted => Part::failed_read(cx, wanted, ErrorCode::from(&error)),
    }
}

fn found(wanted: &Wanted, read: Read) -> Part {
    let data = PartitionData {
        partition_index: wanted.partition,
        high_watermark: read.high_watermark,
        last_stable_offset: read.last_stable_offset,
        log_start_offset: read.log_start_offset,
        // There are no transactions yet, so none was aborted.
        aborted_transactions: None,
        records: Some(if read.records.is_empty() {
            Records::EMPTY
        } else {
            Records::from(read.records)
        }),
        ..Default::default()
    };
    Part {
        data,
        bytes: read.bytes,
        topic: None,
    }
}

/// Where the client's log and ours part, if the last record that it has is not one of ours (KIP-595).
fn divergence(cx: &Cx, wanted: &Wanted, partition: &Partition) -> Option<Part> {
    if cx.version < DIVERGENCE_FROM || wanted.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end_offset) = match partition.end_offset_for_epoch(wanted.last_fetched_epoch) {
        Some(known) => known,
        None => return Some(Part::failed_read(cx, wanted, ErrorCode::OffsetOutOfRange)),
    };
    if epoch == wanted.last_fetched_epoch && end_offset >= wanted.fetch_offset {
        return None;
    }
    let mut part = found(
        wanted,
        Read {
            high_watermark: partition.high_watermark(),
            last_stable_offset: partition.last_stable_offset(),
            log_start_offset: partition.log_start_offset(),
            ..Default::default()
        },
    );
    part.data.diverging_epoch = EpochEndOffset {
        epoch,
        end_offset,
        ..Default::default()
    };
    Some(part)
}

fn respond(cx: &Cx, wanted: &[Wanted], used: Use, parts: Vec<Part>) -> FetchResponse {
    let mut response = FetchResponse {
        session_id: used.id,
        ..Default::default()
    };
    let mut told = Vec::new();
    for (wanted, mut part) in wanted.iter().zip(parts) {
        if used.incremental && !part.is_news(wanted) {
            continue;
        }
        if used.session.is_some() {
            told.push((
                wanted.key(),
                part.data.high_watermark,
                part.data.log_start_offset,
                part.bytes > 0,
            ));
        }
        if let Some(topic) = &part.topic {
            topic.traffic.fetched(part.bytes);
        }
        if cx.version >= LEADERS_FROM {
            tell_leader(cx, wanted, &mut part, &mut response);
        }
        let same =
            |last: &FetchableTopicResponse| last.topic == wanted.topic && last.topic_id == wanted.topic_id;
        match response.responses.last_mut() {
            Some(last) if same(last) => last.partitions.push(part.data),
            _ => response.responses.push(FetchableTopicResponse {
                // Not both: a version carries one of them.
                topic: if cx.version >= TOPIC_IDS_FROM {
                    Str::default()
                } else {
                    wanted.topic.clone()
                },
                topic_id: wanted.topic_id,
                partitions: vec![part.data],
                ..Default::default()
            }),
        }
    }
    if let Some(session) = used.session {
        session.lock().unwrap_or_else(PoisonError::into_inner).told(&told);
    }
    response
}

/// Says who leads, where somebody else does (KIP-951).
fn tell_leader(cx: &Cx, wanted: &Wanted, part: &mut Part, response: &mut FetchResponse) {
    let code = part.data.error_code;
    if code != ErrorCode::NotLeaderOrFollower.code() && code != ErrorCode::FencedLeaderEpoch.code() {
        return;
    }
    let image = cx.broker.image();
    let Ok(index) = u32::try_from(wanted.partition) else {
        return;
    };
    let Some(leadership) = image.partition(&wanted.topic_id.0, index) else {
        return;
    };
    part.data.current_leader = LeaderIdAndEpoch {
        leader_id: leadership.leader,
        leader_epoch: leadership.leader_epoch,
        ..Default::default()
    };
    if response.node_endpoints.is_empty() {
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
