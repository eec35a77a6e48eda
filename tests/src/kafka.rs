//! One Apache Kafka 4.3.1 node: the peer that tests are tried out on, and the stock
//! broker that must take an export as its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Process};
use crate::{cache, client, ports};

const START: Duration = Duration::from_secs(90);
// One cluster id for all of them: each has a folder and ports of its own.
const CLUSTER: &str = "ZHJ1bWxpbi10ZXN0cy0wMQ";

/// A KRaft node that is broker and controller, without replication.
pub struct Kafka {
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Kafka {
    /// Formats a log folder below `dir` and starts on it. `options` are lines of its configuration.
    pub fn start(dir: &Path, options: &[(String, String)]) -> anyhow::Result<Kafka> {
        let mut kafka = Kafka::prepare(dir, options)?;
        kafka.run()?;
        Ok(kafka)
    }

    /// As [`Kafka::start`], but leaves starting to [`Kafka::run`], for logs to be put in place before.
    pub fn prepare(dir: &Path, options: &[(String, String)]) -> anyhow::Result<Kafka> {
        std::fs::create_dir_all(dir)?;
        let (port, controller) = (ports::free()?, ports::free()?);
        let mut lines = vec![
            ("process.roles".to_owned(), "broker,controller".to_owned()),
            ("node.id".to_owned(), "1".to_owned()),
            (
                "controller.quorum.voters".to_owned(),
                format!("1@127.0.0.1:{controller}"),
            ),
            (
                "listeners".to_owned(),
                format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
            ),
            ("controller.listener.names".to_owned(), "CONTROLLER".to_owned()),
            ("log.dirs".to_owned(), dir.join("logs").display().to_string()),
            ("offsets.topic.replication.factor".to_owned(), "1".to_owned()),
            ("offsets.topic.num.partitions".to_owned(), "1".to_owned()),
            (
                "transaction.state.log.replication.factor".to_owned(),
                "1".to_owned(),
            ),
            ("transaction.state.log.min.isr".to_owned(), "1".to_owned()),
            ("transaction.state.log.num.partitions".to_owned(), "1".to_owned()),
            ("num.network.threads".to_owned(), "2".to_owned()),
            ("num.io.threads".to_owned(), "2".to_owned()),
        ];
        lines.extend(options.iter().cloned());
        let text: String = lines.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        std::fs::write(dir.join("server.properties"), text)?;
        std::fs::write(dir.join("log4j2.properties"), LOGGING)?;
        let mut format = java(dir, "256M")?;
        format
            .arg("kafka.tools.StorageTool")
            .args(["format", "-t", CLUSTER, "-c"])
            .arg(dir.join("server.properties"));
        process::run(format, START)?;
        Ok(Kafka {
            dir: dir.to_owned(),
            port,
            process: None,
        })
    }

    /// The folder with its partitions' folders.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the process and waits until it answers.
    pub fn run(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts the process.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let mut command = java(&self.dir, "512M")?;
        command.arg("kafka.Kafka").arg(self.dir.join("server.properties"));
        self.process = Some(Process::start("kafka", command, &self.dir.join("kafka.log"))?);
        Ok(())
    }

    /// Waits until it answers.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let bootstrap = self.bootstrap();
        match &mut self.process {
            Some(process) => process.wait_ready(START, |_| client::answers(&bootstrap)),
            None => anyhow::bail!("kafka is not running"),
        }
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }
}

fn java(dir: &Path, heap: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("java");
    command
        .args([
            &format!("-Xmx{heap}"),
            &format!("-Xms{heap}"),
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ])
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            dir.join("log4j2.properties").display()
        ))
        .args(["-cp", &cache::kafka_class_path()?]);
    Ok(command)
}

const LOGGING: &str = "\
rootLogger.level = INFO
rootLogger.appenderRefs = stdout
rootLogger.appenderRef.stdout.ref = STDOUT
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
";
