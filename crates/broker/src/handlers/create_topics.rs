//! CreateTopics (key 19).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drumlin_cluster::{Image, Record};
use drumlin_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use drumlin_wire::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use drumlin_wire::{ApiKey, Str, Uuid};

use crate::config::{BrokerConfig, Overrides, Target, alter, describe_topic};
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};
use crate::names;
use crate::state::Collisions;

/// Partitions that one request may create (Kafka's own bound is 10,000 a batch of records).
const MAX_PARTITIONS: u32 = 100_000;
/// The only name that no client may take: Kafka's own metadata log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// A topic that passed all checks.
struct Checked {
    name: Str,
    partitions: u32,
    replication_factor: i16,
    overrides: Overrides,
}

/// Creates topics, each for itself; those that fail do not stop the others.
pub async fn handle(cx: &Cx, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let config = cx.broker.config();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let image = cx.broker.image();
    let mut collisions = Collisions::default();
    let mut total = 0;
    let mut answered = BTreeSet::new();
    let mut outcomes = Vec::new();
    for topic in &request.topics {
        if !answered.insert(&topic.name) {
            continue;
        }
        let twice = counts.get(topic.name.as_str()).is_some_and(|count| *count > 1);
        let checked = if twice {
            Err(Told::new(
                ErrorCode::InvalidRequest,
                "the request names this topic more than once",
            ))
        } else {
            check(cx, &config, &image, &mut collisions, topic)
        };
        let checked = checked.and_then(|checked| {
            total += checked.partitions;
            let fits = total <= MAX_PARTITIONS;
            let told = || Told::new(ErrorCode::PolicyViolation, "too many partitions in one request");
            if fits { Ok(checked) } else { Err(told()) }
        });
        outcomes.push((topic.name.clone(), checked));
    }
    let ids = if request.validate_only {
        Ok(BTreeMap::new())
    } else {
        create(cx, &request, &outcomes).await
    };
    let topics = outcomes
        .into_iter()
        .map(|(name, checked)| {
            let outcome = checked.and_then(|checked| match &ids {
                Err(told) => Err(told.clone()),
                Ok(ids) => match ids.get(checked.name.as_str()) {
                    Some(Err(told)) => Err(told.clone()),
                    Some(Ok(id)) => Ok((checked, Uuid(*id))),
                    // Only validated: Kafka, too, answers with an id that no topic gets.
                    None => Ok((checked, Uuid(cx.broker.new_topic_id(&image)))),
                },
            });
            match outcome {
                Ok((checked, id)) => created(&config, checked, id),
                Err(told) => failed(cx, name, told),
            }
        })
        .collect();
    CreateTopicsResponse {
        topics,
        ..Default::default()
    }
}

type Ids = BTreeMap<String, Result<[u8; 16], Told>>;

/// Creates what passed, in one entry of the metadata log.
async fn create(
    cx: &Cx,
    request: &CreateTopicsRequest,
    outcomes: &[(Str, Result<Checked, Told>)],
) -> Result<Ids, Told> {
    let mut ids = Ids::new();
    if outcomes.iter().all(|(_, checked)| checked.is_err()) {
        return Ok(ids);
    }
    let broker = &cx.broker;
    broker
        .change(broker.patience(request.timeout_ms), |image| {
            let mut records = Vec::new();
            for checked in outcomes.iter().filter_map(|(_, checked)| checked.as_ref().ok()) {
                // Somebody else may have been faster since the checks.
                if image.topic(&checked.name).is_some() {
                    ids.insert((&checked.name).into(), Err(exists(&checked.name)));
                    continue;
                }
                let id = broker.new_topic_id(image);
                ids.insert((&checked.name).into(), Ok(id));
                records.push(Record::TopicCreated {
                    name: (&checked.name).into(),
                    id,
                    partitions: checked.partitions,
                    leader: broker.node_id,
                    configs: checked
                        .overrides
                        .iter()
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect(),
                });
            }
            Ok(records)
        })
        .await?;
    Ok(ids)
}

fn exists(name: &str) -> Told {
    Told::new(
        ErrorCode::TopicAlreadyExists,
        format!("topic '{name}' already exists"),
    )
}

fn check(
    cx: &Cx,
    config: &Arc<BrokerConfig>,
    image: &Image,
    collisions: &mut Collisions,
    topic: &CreatableTopic,
) -> Result<Checked, Told> {
    let name = &topic.name;
    names::check(name).map_err(|what| Told::new(ErrorCode::InvalidTopic, what))?;
    if name.as_str() == METADATA_TOPIC {
        return Err(Told::new(
            ErrorCode::InvalidRequest,
            "this name is Kafka's own metadata log's",
        ));
    }
    if image.topic(name).is_some() {
        return Err(exists(name));
    }
    collisions.check(image, name).map_err(|other| {
        let what = format!("topic '{name}' collides with '{other}': they differ only in '.' and '_'");
        Told::new(ErrorCode::InvalidTopic, what)
    })?;
    let (partitions, replication_factor) = layout(cx, config, topic)?;
    let configs = topic
        .configs
        .iter()
        .map(|entry| (entry.name.as_str(), entry.value.as_deref()));
    let overrides = alter::replace(Target::Topic, configs, &config.live)?;
    Ok(Checked {
        name: name.clone(),
        partitions,
        replication_factor,
        overrides,
    })
}

/// Number of partitions and replicas, from counts or from assignments.
fn layout(cx: &Cx, config: &BrokerConfig, topic: &CreatableTopic) -> Result<(u32, i16), Told> {
    let invalid = |code, what: &str| Err(Told::new(code, what));
    if topic.assignments.is_empty() {
        let partitions = match topic.num_partitions {
            -1 => config.topics.num_partitions,
            count => count,
        };
        let Some(partitions) = u32::try_from(partitions).ok().filter(|count| *count > 0) else {
            return invalid(
                ErrorCode::InvalidPartitions,
                "the number of partitions must be at least 1, or -1",
            );
        };
        // The object store replicates: any number is as good as another.
        return match topic.replication_factor {
            -1 => Ok((partitions, config.topics.replication_factor)),
            factor if factor > 0 => Ok((partitions, factor)),
            _ => invalid(
                ErrorCode::InvalidReplicationFactor,
                "the replication factor must be at least 1, or -1",
            ),
        };
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let what = "with assignments, the number of partitions and the replication factor must be -1";
        return invalid(ErrorCode::InvalidRequest, what);
    }
    let mut indexes = BTreeSet::new();
    for assignment in &topic.assignments {
        if !indexes.insert(assignment.partition_index) {
            return invalid(
                ErrorCode::InvalidReplicaAssignment,
                "a partition is assigned twice",
            );
        }
        check_replicas(cx, &assignment.broker_ids)?;
    }
    if !indexes
        .into_iter()
        .eq(0..i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX))
    {
        let what = "partitions must be assigned from 0 on without a gap";
        return invalid(ErrorCode::InvalidReplicaAssignment, what);
    }
    Ok((u32::try_from(topic.assignments.len()).unwrap_or(u32::MAX), 1))
}

/// Replicas can only be on the brokers that there are.
pub(super) fn check_replicas(cx: &Cx, brokers: &[i32]) -> Result<(), Told> {
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidReplicaAssignment, what));
    if brokers.is_empty() {
        return invalid("a partition has no replica assigned".to_owned());
    }
    let mut seen = BTreeSet::new();
    let image = cx.broker.image();
    for id in brokers {
        if image.brokers.get(id).is_none() {
            return invalid(format!("there is no broker {id}"));
        }
        if !seen.insert(id) {
            return invalid(format!("broker {id} is assigned twice"));
        }
    }
    Ok(())
}

fn created(config: &BrokerConfig, checked: Checked, topic_id: Uuid) -> CreatableTopicResult {
    let configs = describe_topic(&config.live, &checked.overrides, None)
        .into_iter()
        .map(|entry| CreatableTopicConfigs {
            name: Str::from_static(entry.name),
            value: entry.value.map(Str::from),
            read_only: entry.read_only,
            config_source: entry.source.wire_code(),
            is_sensitive: entry.sensitive,
            ..Default::default()
        })
        .collect();
    CreatableTopicResult {
        name: checked.name,
        topic_id,
        error_code: ErrorCode::None.code(),
        // The type's default is an empty text.
        error_message: None,
        num_partitions: i32::try_from(checked.partitions).unwrap_or(i32::MAX),
        replication_factor: checked.replication_factor,
        configs: Some(configs),
        ..Default::default()
    }
}

fn failed(cx: &Cx, name: Str, told: Told) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: cx.error(ApiKey::CreateTopics, told.code),
        error_message: Some(Str::from(told.message)),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()),
        ..Default::default()
    }
}
