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
