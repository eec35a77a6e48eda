//! DeleteTopics (key 20): by name, from version 6 on also by id.

use std::collections::BTreeMap;

use drumlin_cluster::Record;
use drumlin_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use drumlin_wire::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use drumlin_wire::{ApiKey, Str, Uuid};

use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};

/// Versions that know TOPIC_DELETION_DISABLED.
const DISABLED_FROM: i16 = 3;

/// Deletes topics, each for itself; their data is swept in the background.
pub async fn handle(cx: &Cx, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicState> = if cx.version >= 6 {
        request.topics
    } else {
        let named = |name| DeleteTopicState {
            name: Some(name),
            ..Default::default()
        };
        request.topic_names.into_iter().map(named).collect()
    };
    let mut outcomes = find(cx, &asked);
    let broker = &cx.broker;
    let patience = broker.patience(request.timeout_ms);
    if outcomes.iter().any(|outcome| outcome.result.is_ok()) {
        let deleted = broker
            .change(patience, |image| {
                let mut records = Vec::new();
                for outcome in &mut outcomes {
                    let Ok(id) = &outcome.result else { continue };
                    // Somebody else may have been faster.
                    if image.topic_by_id(id).is_some() {
                        records.push(Record::TopicDeleted { id: *id });
                    } else {
                        outcome.result = Err(unknown(outcome.by_id));
                    }
                }
                Ok(records)
            })
            .await;
        if let Err(told) = deleted {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.result.is_ok()) {
                outcome.result = Err(told.clone());
            }
        }
    }
    DeleteTopicsResponse {
        responses: outcomes.into_iter().map(|outcome| outcome.answer(cx)).collect(),
        ..Default::default()
    }
}

struct Outcome {
    name: Option<Str>,
    id: Uuid,
    by_id: bool,
    result: Result<[u8; 16], Told>,
}

impl Outcome {
    fn answer(self, cx: &Cx) -> DeletableTopicResult {
        let base = DeletableTopicResult {
            name: self.name,
            topic_id: self.id,
            ..Default::default()
        };
        match self.result {
            Ok(_) => base,
            Err(told) => DeletableTopicResult {
                error_code: cx.error(ApiKey::DeleteTopics, told.code),
                error_message: Some(Str::from(told.message)),
                ..base
            },
        }
    }
}

fn unknown(by_id: bool) -> Told {
    if by_id {
        Told::new(ErrorCode::UnknownTopicId, "there is no topic with this id")
    } else {
        Told::new(
            ErrorCode::UnknownTopicOrPartition,
            "there is no topic of this name",
        )
    }
}

fn find(cx: &Cx, asked: &[DeleteTopicState]) -> Vec<Outcome> {
    let image = cx.broker.image();
    let enabled = cx.broker.config().topics.delete_enable;
    let mut counts: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    let found: Vec<_> = asked
        .iter()
        .map(|asked| {
            let topic = match &asked.name {
                Some(name) => image.topic(name),
                None => image.topic_by_id(&asked.topic_id.0),
            };
            if let Some(topic) = topic {
                *counts.entry(topic.id).or_default() += 1;
            }
            topic
        })
        .collect();
    asked
        .iter()
        .zip(found)
        .map(|(asked, topic)| {
            let by_id = asked.name.is_none();
            let result = match topic {
                _ if !by_id && asked.topic_id != Uuid::default() => Err(Told::new(
                    ErrorCode::InvalidRequest,
                    "a topic is named by name or by id, not by both",
                )),
                _ if by_id && asked.topic_id == Uuid::default() => Err(Told::new(
                    ErrorCode::InvalidRequest,
                    "neither a name nor an id is given",
                )),
                _ if !enabled && cx.version < DISABLED_FROM => Err(Told::new(
                    ErrorCode::InvalidRequest,
                    "deletion of topics is disabled",
                )),
                _ if !enabled => Err(Told::new(
                    ErrorCode::TopicDeletionDisabled,
                    "deletion of topics is disabled",
                )),
                None => Err(unknown(by_id)),
                Some(topic) if counts.get(&topic.id).is_some_and(|count| *count > 1) => Err(Told::new(
                    ErrorCode::InvalidRequest,
                    "the request names this topic more than once",
                )),
                Some(topic) => Ok(topic.id),
            };
            let name = match topic {
                Some(topic) if by_id => Some(Str::from(&*topic.name)),
                _ => asked.name.clone(),
            };
            let id = if by_id {
                asked.topic_id
            } else {
                topic.map_or_else(Uuid::default, |topic| Uuid(topic.id))
            };
            Outcome {
                name,
                id,
                by_id,
                result,
            }
        })
        .collect()
}
