//! kcat and Apache Kafka's own command-line tools, as they come.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cache;
use crate::process::{self, Output};

/// The longest that any one tool may take.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// kcat with these arguments, to its end.
pub fn kcat(bootstrap: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new("kcat");
    command.args(["-b", bootstrap]).args(arguments);
    process::run(command, PATIENCE)
}

/// Sends each line of `file` as a record to one partition with `kcat -P`.
pub fn kcat_produce(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    codec: &str,
    file: &Path,
) -> anyhow::Result<()> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec kcat \"$@\" <\"$INPUT\"", "kcat"])
        .env("INPUT", file)
        .args([
            "-P",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-p",
            &partition.to_string(),
            "-z",
            codec,
            "-X",
            "acks=all",
            "-X",
            "enable.idempotence=true",
        ]);
    process::run(command, PATIENCE).map(drop)
}

/// Writes every record of a partition, one a line, to `file` with `kcat -C`.
pub fn kcat_consume(bootstrap: &str, topic: &str, partition: i32, file: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec kcat \"$@\" >\"$OUTPUT\"", "kcat"])
        .env("OUTPUT", file)
        .args([
            "-C",
            "-q",
            "-e",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-p",
            &partition.to_string(),
            "-o",
            "beginning",
            "-X",
            "check.crcs=true",
        ]);
    process::run(command, PATIENCE).map(drop)
}

/// The tools of Apache Kafka that the tests use, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `kafka-topics`
    Topics,
    /// `kafka-console-producer`
    ConsoleProducer,
    /// `kafka-console-consumer`
    ConsoleConsumer,
    /// `kafka-configs`
    Configs,
    /// `kafka-delete-records`
    DeleteRecords,
    /// `kafka-get-offsets`
    GetOffsets,
    /// `kafka-log-dirs`
    LogDirs,
    /// `kafka-broker-api-versions`
    BrokerApiVersions,
    /// `kafka-cluster`
    Cluster,
    /// `kafka-producer-perf-test`
    ProducerPerf,
    /// `kafka-verifiable-producer`
    VerifiableProducer,
    /// `kafka-dump-log`
    DumpLog,
    /// `kafka-consumer-groups`
    ConsumerGroups,
    /// `kafka-groups`
    Groups,
    /// `kafka-verifiable-consumer`
    VerifiableConsumer,
    /// `kafka-consumer-perf-test`
    ConsumerPerf,
    /// `connect-distributed`
    ConnectDistributed,
    /// `connect-mirror-maker`
    MirrorMaker,
    /// The word count among the examples of Kafka Streams.
    WordCount,
}

impl Tool {
    fn class(self) -> &'static str {
        match self {
            Tool::Topics => "org.apache.kafka.tools.TopicCommand",
            Tool::ConsoleProducer => "org.apache.kafka.tools.ConsoleProducer",
            Tool::ConsoleConsumer => "org.apache.kafka.tools.consumer.ConsoleConsumer",
            Tool::Configs => "kafka.admin.ConfigCommand",
            Tool::DeleteRecords => "org.apache.kafka.tools.DeleteRecordsCommand",
            Tool::GetOffsets => "org.apache.kafka.tools.GetOffsetShell",
            Tool::LogDirs => "org.apache.kafka.tools.LogDirsCommand",
            Tool::BrokerApiVersions => "org.apache.kafka.tools.BrokerApiVersionsCommand",
            Tool::Cluster => "org.apache.kafka.tools.ClusterTool",
            Tool::ProducerPerf => "org.apache.kafka.tools.ProducerPerformance",
            Tool::VerifiableProducer => "org.apache.kafka.tools.VerifiableProducer",
            Tool::DumpLog => "org.apache.kafka.tools.DumpLogSegments",
            Tool::ConsumerGroups => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            Tool::Groups => "org.apache.kafka.tools.GroupsCommand",
            Tool::VerifiableConsumer => "org.apache.kafka.tools.VerifiableConsumer",
            Tool::ConsumerPerf => "org.apache.kafka.tools.ConsumerPerformance",
            Tool::ConnectDistributed => "org.apache.kafka.connect.cli.ConnectDistributed",
            Tool::MirrorMaker => "org.apache.kafka.connect.mirror.MirrorMaker",
            Tool::WordCount => "org.apache.kafka.streams.examples.wordcount.WordCountDemo",
        }
    }
}

/// A tool of Apache Kafka with these arguments; it must succeed.
pub fn java(tool: Tool, arguments: &[&str]) -> anyhow::Result<Output> {
    java_with(tool, arguments, None)
}

/// As [`java`], with `input` as its standard input.
pub fn java_with(tool: Tool, arguments: &[&str], input: Option<&Path>) -> anyhow::Result<Output> {
    process::run(java_command(tool, arguments, input)?, PATIENCE).with_context(|| format!("{tool:?}"))
}

/// A tool of Apache Kafka that must fail; what it printed.
pub fn java_fails(tool: Tool, arguments: &[&str]) -> anyhow::Result<Output> {
    let output = process::run_any(java_command(tool, arguments, None)?, PATIENCE)?;
    if output.status.success() {
        bail!(
            "{tool:?} {arguments:?} succeeded, and should not have: {}",
            output.stdout
        );
    }
    Ok(output)
}

/// A tool of Apache Kafka, to be started by the caller.
pub fn java_command(tool: Tool, arguments: &[&str], input: Option<&Path>) -> anyhow::Result<Command> {
    let mut command = Command::new("java");
    if let Some(input) = input {
        command = Command::new("sh");
        command
            .args(["-c", "exec java \"$@\" <\"$INPUT\"", "java"])
            .env("INPUT", input);
    }
    // A tool lives for a second: the quick compiler and the simplest collector cost least.
    command.args([
        "-Xmx256M",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
    ]);
    command
        .args(["-Dlog4j2.level=WARN", "-cp", &cache::kafka_class_path()?])
        .arg(tool.class())
        .args(arguments);
    command.stdin(Stdio::null());
    Ok(command)
}

/// The SHA-256 of a file, in hex.
pub fn sha256(file: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("sha256sum");
    command.arg(file);
    let output = process::run(command, PATIENCE)?;
    Ok(output
        .stdout
        .split_whitespace()
        .next()
        .context("sha256sum printed nothing")?
        .to_owned())
}
