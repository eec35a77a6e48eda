//! Our answers beside Kafka's: the same requests to both brokers, success and every error that can be had, in
//! every version that both serve. Nulls, empty texts, defaults, codes and numbers must be the same.
//!
//! [`plain`] says what is left out of the comparison, and why.

mod cluster;
mod features;
mod groups;
mod plain;
mod records;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use drumlin_wire::{ApiKey, Request, Uuid, registry};

use crate::client::Connection;
use plain::plain;

const PATIENCE: Duration = Duration::from_secs(30);

/// One of the two brokers.
pub struct Side {
    bootstrap: String,
    connection: Connection,
    topic_ids: BTreeMap<String, Uuid>,
    /// What earlier answers of this broker named: ids of members, by the name that a case gave them.
    names: BTreeMap<String, String>,
}

impl Side {
    fn open(bootstrap: &str) -> anyhow::Result<Side> {
        Ok(Side {
            bootstrap: bootstrap.to_owned(),
            connection: Connection::open(bootstrap, PATIENCE)?,
            topic_ids: BTreeMap::new(),
            names: BTreeMap::new(),
        })
    }

    /// The id of a topic that [`Pair::create_topic`] made.
    fn topic_id(&self, topic: &str) -> Uuid {
        self.topic_ids.get(topic).copied().unwrap_or_default()
    }

    /// What an earlier answer named.
    fn named(&self, name: &str) -> &str {
        self.names.get(name).map_or("", String::as_str)
    }

    fn call<M: Request>(&mut self, request: &M, version: i16) -> anyhow::Result<M::Response> {
        let answer = self.connection.call(request, version);
        if answer.is_err() {
            self.connection = Connection::open(&self.bootstrap, PATIENCE)?;
        }
        answer
    }
}

/// Drumlin and Kafka, asked the same.
pub struct Pair {
    drumlin: Side,
    kafka: Side,
    asked: BTreeSet<ApiKey>,
    answers: u64,
    /// By what was asked, where the answers differ.
    differences: Vec<String>,
}

/// What a comparison found.
pub struct Outcome {
    /// APIs that were asked.
    pub asked: BTreeSet<ApiKey>,
    /// Answers that were compared.
    pub answers: u64,
    /// Those that differ, with what was asked.
    pub differences: Vec<String>,
}

/// Asks both brokers everything.
pub fn compare(drumlin: &str, kafka: &str) -> anyhow::Result<Outcome> {
    let mut pair = Pair {
        drumlin: Side::open(drumlin)?,
        kafka: Side::open(kafka)?,
        asked: BTreeSet::new(),
        answers: 0,
        differences: Vec::new(),
    };
    cluster::ask_all(&mut pair)?;
    features::ask_all(&mut pair)?;
    topics::ask_all(&mut pair)?;
    records::ask_all(&mut pair)?;
    groups::ask_all(&mut pair)?;
    Ok(Outcome {
        asked: pair.asked,
        answers: pair.answers,
        differences: pair.differences,
    })
}

/// Versions of an API that both brokers serve.
fn versions(key: ApiKey) -> Vec<i16> {
    let Some(api) = registry::find(key) else {
        return Vec::new();
    };
    let schema = key.schema();
    let newest = schema.max_version - i16::from(schema.unstable);
    (api.served_from.max(schema.min_version)..=api.max.min(newest)).collect()
}

impl Pair {
    /// Asks both in every version and compares; gives the answers of the newest version, Drumlin's first.
    fn ask<M: Request>(
        &mut self,
        what: &str,
        make: impl Fn(&Side, i16) -> M,
    ) -> anyhow::Result<Option<(M::Response, M::Response)>>
    where
        M::Response: Debug,
    {
        self.ask_but(what, make, |_| {})
    }

    /// As [`Pair::ask`], with `leave_out` to change both answers before they are compared.
    fn ask_but<M: Request>(
        &mut self,
        what: &str,
        make: impl Fn(&Side, i16) -> M,
        leave_out: impl Fn(&mut M::Response),
    ) -> anyhow::Result<Option<(M::Response, M::Response)>>
    where
        M::Response: Debug,
    {
        let mut last = None;
        for version in versions(M::KEY) {
            last = self.ask_in(version, what, &make, &leave_out)?;
        }
        Ok(last)
    }

    /// Asks both in one version and compares.
    fn ask_in<M: Request>(
        &mut self,
        version: i16,
        what: &str,
        make: &impl Fn(&Side, i16) -> M,
        leave_out: &impl Fn(&mut M::Response),
    ) -> anyhow::Result<Option<(M::Response, M::Response)>>
    where
        M::Response: Debug,
    {
        self.asked.insert(M::KEY);
        self.answers += 1;
        let name = format!("{} version {version}, {what}", M::KEY);
        let request = make(&self.drumlin, version);
        request.to_bytes(version).with_context(|| name.clone())?;
        let ours = self.drumlin.call(&request, version);
        let kafkas = self.kafka.call(&make(&self.kafka, version), version);
        let (mut ours, mut kafkas) = match (ours, kafkas) {
            (Ok(ours), Ok(kafkas)) => (ours, kafkas),
            (Err(_), Err(_)) => return Ok(None),
            (ours, kafkas) => {
                let end = |answer: anyhow::Result<M::Response>| match answer {
                    Ok(answer) => plain(&answer).join("\n"),
                    Err(error) => format!("{error:#}"),
                };
                let both = format!("{name}\nDrumlin: {}\nKafka: {}", end(ours), end(kafkas));
                self.differences.push(both);
                return Ok(None);
            }
        };
        leave_out(&mut ours);
        leave_out(&mut kafkas);
        let (mine, theirs) = (plain(&ours), plain(&kafkas));
        if mine != theirs {
            self.differences
                .push(format!("{name}\n{}", plain::difference(&mine, &theirs)));
        }
        Ok(Some((ours, kafkas)))
    }

    /// Asks both until `done` says that the answer is one to go on with: what Kafka does a moment later.
    fn wait_until<M: Request>(
        &mut self,
        what: &str,
        version: i16,
        make: impl Fn(&Side) -> M,
        done: impl Fn(&M::Response) -> bool,
    ) -> anyhow::Result<()> {
        for side in [&mut self.drumlin, &mut self.kafka] {
            let end = Instant::now() + PATIENCE;
            loop {
                let request = make(side);
                let answer = side.call(&request, version);
                if answer.as_ref().is_ok_and(&done) {
                    break;
                }
                if Instant::now() >= end {
                    bail!("{what}: not in time at {}", side.bootstrap);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Makes a topic on both, and waits until it has leaders.
    fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> anyhow::Result<()> {
        self.drumlin.connection.create_topic(name, partitions, configs)?;
        self.kafka.connection.create_topic(name, partitions, configs)?;
        self.know_topic(name)
    }

    /// Waits until both have leaders for the topic's partitions, and remembers its ids.
    fn know_topic(&mut self, name: &str) -> anyhow::Result<()> {
        let request = |_: &Side| MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(name.into()),
                ..Default::default()
            }]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        self.wait_until(name, 12, request, |answer| {
            let topic = answer.topics.first();
            topic.is_some_and(|t| t.error_code == 0 && t.partitions.iter().all(|p| p.error_code == 0))
        })?;
        for side in [&mut self.drumlin, &mut self.kafka] {
            let answer = side.call(&request(side), 12)?;
            let id = answer.topics.first().map(|topic| topic.topic_id);
            side.topic_ids.insert(name.to_owned(), id.unwrap_or_default());
        }
        Ok(())
    }
}

/// A topic id that no topic has.
const NO_SUCH_ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
