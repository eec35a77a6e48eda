//! Clients in other languages: small commands around an unmodified client library
//! (`tests/clients`). Each run does one action; arguments are one JSON object, the
//! result is the last line of standard output, one JSON object too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{cache, process};

const PATIENCE: Duration = Duration::from_secs(90);

/// A client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// confluent-kafka, over librdkafka.
    Confluent,
    /// kafka-python.
    KafkaPython,
    /// aiokafka.
    Aiokafka,
    /// sarama.
    Sarama,
    /// kafka-go.
    KafkaGo,
    /// kafkajs, which has no consumer without groups.
    Kafkajs,
}

impl Client {
    /// All that consume by partition; all of them produce too.
    pub const BOTH_WAYS: [Client; 5] = [
        Client::Confluent,
        Client::KafkaPython,
        Client::Aiokafka,
        Client::Sarama,
        Client::KafkaGo,
    ];

    fn command(self) -> anyhow::Result<Command> {
        let clients = cache::repository().join("tests/clients");
        let python = |name: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(cache::python()?);
            command.arg(clients.join("python/client.py")).arg(name);
            Ok(command)
        };
        match self {
            Client::Confluent => python("confluent-kafka"),
            Client::KafkaPython => python("kafka-python"),
            Client::Aiokafka => python("aiokafka"),
            Client::Sarama => Ok(Command::new(cache::sarama()?)),
            Client::KafkaGo => Ok(Command::new(cache::kafka_go()?)),
            Client::Kafkajs => {
                let mut command = Command::new("node");
                command
                    .arg(clients.join("node/client.js"))
                    .env("NODE_PATH", cache::node_modules()?);
                Ok(command)
            }
        }
    }

    fn run(self, action: &str, arguments: &Value) -> anyhow::Result<Value> {
        let mut command = self.command()?;
        command.arg(action).arg(arguments.to_string());
        let output = process::run_any(command, PATIENCE)?;
        let result: Option<Value> = output
            .stdout
            .lines()
            .last()
            .and_then(|l| serde_json::from_str(l).ok());
        match result {
            Some(result) if output.status.success() => Ok(result),
            _ => bail!(
                "{self:?} {action} {arguments}: {}\n{}\n{}",
                output.status,
                output.stdout,
                output.stderr
            ),
        }
    }

    /// Sends each line of `file`, the n-th with the timestamp `timestamp + n`; returns the first offset.
    pub fn produce(
        self,
        at: &At<'_>,
        file: &Path,
        compression: Option<&str>,
        timestamp: i64,
    ) -> anyhow::Result<i64> {
        let mut arguments = at.json();
        arguments["file"] = json!(file);
        arguments["timestamp"] = json!(timestamp);
        arguments["compression"] = json!(compression.unwrap_or(""));
        self.run("produce", &arguments)?["first_offset"]
            .as_i64()
            .context("no first_offset")
    }

    /// Reads `count` records from `offset` on into `file`, one a line.
    pub fn consume(self, at: &At<'_>, offset: i64, count: usize, file: &Path) -> anyhow::Result<Consumed> {
        let mut arguments = at.json();
        arguments["file"] = json!(file);
        arguments["offset"] = json!(offset);
        arguments["count"] = json!(count);
        let result = self.run("consume", &arguments)?;
        let number = |name: &str| {
            result[name]
                .as_i64()
                .with_context(|| format!("no {name} in {result}"))
        };
        Ok(Consumed {
            first_offset: number("first_offset")?,
            first_timestamp: number("first_timestamp")?,
            last_offset: number("last_offset")?,
        })
    }

    /// The names of all topics. Only [`Client::Confluent`] has it.
    pub fn topics(self, bootstrap: &str) -> anyhow::Result<Vec<String>> {
        let result = self.run("topics", &json!({"bootstrap": bootstrap}))?;
        texts(&result["topics"])
    }

    /// Subscribes to a pattern of names as a member of `group`, and reads `count` values, sorted. Only
    /// [`Client::Confluent`] has it.
    pub fn consume_pattern(
        self,
        bootstrap: &str,
        group: &str,
        pattern: &str,
        count: usize,
    ) -> anyhow::Result<Vec<String>> {
        let arguments = json!({"bootstrap": bootstrap, "group": group, "topic": pattern, "count": count});
        texts(&self.run("pattern", &arguments)?["values"])
    }

    /// Sends two records in one batch under a header whose greatest timestamp is wrong, as the client itself writes it:
    /// one of `now_ms`, or of the clock, and one of a day before. kafkajs sends the old one first, kafka-go the new one.
    pub fn produce_wrong_times(self, at: &At<'_>, now_ms: i64) -> anyhow::Result<()> {
        let mut arguments = at.json();
        let action = match self {
            Client::Kafkajs => {
                arguments["timestamp"] = json!(now_ms - 24 * 3_600_000);
                "mixed"
            }
            Client::KafkaGo => {
                arguments["timestamp"] = json!(now_ms);
                "write-newest-first"
            }
            other => bail!("{other:?} writes right headers"),
        };
        self.run(action, &arguments).map(drop)
    }

    /// Makes the topic a compacted one, with confluent-kafka.
    pub fn compact(at: &At<'_>) -> anyhow::Result<()> {
        Client::Confluent.run("compact", &at.json()).map(drop)
    }

    /// Reads from the start until the client knows that it is at the end, behind offset `last`; how many records came.
    pub fn reach_end(self, at: &At<'_>, last: i64) -> anyhow::Result<u64> {
        let mut arguments = at.json();
        arguments["offset"] = json!(last);
        let action = match self {
            Client::Confluent => "reach_end",
            Client::Kafkajs => "reachOffset",
            other => bail!("{other:?} has no such action"),
        };
        self.run(action, &arguments)?["records"]
            .as_u64()
            .context("no records")
    }

    /// Asks for the earliest and latest offsets, and for that of the first record at `timestamp` or later.
    pub fn offsets(self, at: &At<'_>, timestamp: i64) -> anyhow::Result<Offsets> {
        let mut arguments = at.json();
        arguments["timestamp"] = json!(timestamp);
        let result = self.run("offsets", &arguments)?;
        let number = |name: &str| {
            result[name]
                .as_i64()
                .with_context(|| format!("no {name} in {result}"))
        };
        Ok(Offsets {
            earliest: number("earliest")?,
            latest: number("latest")?,
            at: number("at")?,
        })
    }
}

fn texts(list: &Value) -> anyhow::Result<Vec<String>> {
    let list = list.as_array().context("no list")?;
    let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().context("not all are texts")
}

/// The groups that kafka-go lists, in the order of their names.
pub fn groups_that_kafka_go_lists(bootstrap: &str) -> anyhow::Result<Vec<String>> {
    let result = Client::KafkaGo.run("groups", &json!({"bootstrap": bootstrap}))?;
    let names = result["groups"].as_array().context("no groups")?;
    let named = names.iter().filter_map(Value::as_str);
    Ok(named.map(str::to_owned).collect())
}

/// A partition of a topic on a broker.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// host:port.
    pub bootstrap: &'a str,
    /// The topic's name.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
}

impl At<'_> {
    fn json(&self) -> Value {
        json!({"bootstrap": self.bootstrap, "topic": self.topic, "partition": self.partition})
    }
}

/// What a consumer reports beside the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// Offset of the first record.
    pub first_offset: i64,
    /// Timestamp of the first record.
    pub first_timestamp: i64,
    /// Offset of the last record.
    pub last_offset: i64,
}

/// Offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The log start offset.
    pub earliest: i64,
    /// The high watermark.
    pub latest: i64,
    /// Of the first record at the timestamp or later; -1 if there is none.
    pub at: i64,
}
