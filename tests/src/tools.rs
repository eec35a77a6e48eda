//! kcat and Apache Kafka's own command-line tools, as they come.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cache;
use crate::process::{self, Output};

/// The longest that any one tool may take.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// kcat compresses at least so many bytes a second, with gzip and beside much else.
const SLOWEST: u64 = 500_000;

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
    let bytes = file.metadata().with_context(|| file.display().to_string())?.len();
    process::run(command, PATIENCE + Duration::from_secs(bytes / SLOWEST)).map(drop)
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
    /// `kafka-acls`
    Acls,
    /// `kafka-leader-election`
    LeaderElection,
    /// `kafka-reassign-partitions`
    ReassignPartitions,
    /// `kafka-metadata-quorum`
    MetadataQuorum,
    /// `kafka-features`
    Features,
    /// `kafka-transactions`
    Transactions,
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
            Tool::Acls => "org.apache.kafka.tools.AclCommand",
            Tool::LeaderElection => "org.apache.kafka.tools.LeaderElectionCommand",
            Tool::ReassignPartitions => "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
            Tool::MetadataQuorum => "org.apache.kafka.tools.MetadataQuorumCommand",
            Tool::Features => "org.apache.kafka.tools.FeatureCommand",
            Tool::Transactions => "org.apache.kafka.tools.TransactionsCommand",
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
    let training = Training::begin();
    let options: &[&str] = match &training {
        Some(training) => &[&training.option()],
        None => &[],
    };
    let output = process::run(java_command_with(options, tool, arguments, input)?, PATIENCE)
        .with_context(|| format!("{tool:?}"))?;
    if let Some(training) = training {
        training.end()?;
    }
    Ok(output)
}

/// The first tool that is run to its end leaves an archive of the classes that it has
/// loaded; with it the tools after it start in half the time. The JVM passes over an
/// archive that is not of these jars.
struct Training {
    aside: PathBuf,
}

impl Training {
    fn begin() -> Option<Training> {
        static BEGUN: AtomicBool = AtomicBool::new(false);
        if class_archive().exists() || BEGUN.swap(true, Ordering::Relaxed) {
            return None;
        }
        let aside = class_archive().with_extension(format!("{}.jsa", std::process::id()));
        Some(Training { aside })
    }

    fn option(&self) -> String {
        format!("-XX:ArchiveClassesAtExit={}", self.aside.display())
    }

    fn end(self) -> anyhow::Result<()> {
        if self.aside.exists() {
            std::fs::rename(self.aside, class_archive())?;
        }
        Ok(())
    }
}

fn class_archive() -> PathBuf {
    cache::root().join("kafka-4.3.1/tools.jsa")
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
    java_command_with(&[], tool, arguments, input)
}

fn java_command_with(
    options: &[&str],
    tool: Tool,
    arguments: &[&str],
    input: Option<&Path>,
) -> anyhow::Result<Command> {
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
        // What it thinks of an archive must not come among what a tool prints.
        "-Xlog:disable",
    ]);
    if options.is_empty() && class_archive().exists() {
        command.arg(format!("-XX:SharedArchiveFile={}", class_archive().display()));
    }
    command.args(options);
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
