//! The two brokers that are compared, started and stopped alike.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::client::{self, Connection};
use drumlin_tests::process::{self, Process};
use drumlin_tests::{cache, ports, stores};
use drumlin_wire::messages::delete_topics_request::DeleteTopicsRequest;
use drumlin_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use crate::suite::metrics::Metrics;

const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(60);
const CLUSTER: &str = "ZHJ1bWxpbi1iZW5jaC0wMQ";

/// A store that is gone with its broker.
pub struct Memory;

impl stores::Store for Memory {
    fn url(&self) -> String {
        "memory:".to_owned()
    }

    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// One Apache Kafka node with the heap and the collector that its own start script gives it.
pub struct Kafka {
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Kafka {
    /// Formats a log folder below `dir`.
    pub fn prepare(dir: &Path) -> anyhow::Result<Kafka> {
        std::fs::create_dir_all(dir)?;
        let (port, controller) = (ports::free()?, ports::free()?);
        // What the stock server.properties says, and quick deletion, so that runs do not add up on the disk.
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}\n\
             num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
             socket.receive.buffer.bytes=102400\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             log.segment.delete.delay.ms=500\n",
            dir.join("logs").display()
        );
        std::fs::write(dir.join("server.properties"), text)?;
        std::fs::write(dir.join("log4j2.properties"), LOGGING)?;
        let mut format = Command::new("java");
        format
            .args(["-Xmx256M", "-cp", &cache::kafka_class_path()?])
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                dir.join("log4j2.properties").display()
            ))
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"])
            .arg(dir.join("server.properties"));
        process::run(format, START)?;
        Ok(Kafka {
            dir: dir.to_owned(),
            port,
            process: None,
        })
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("java");
        command
            .args([
                "-Xms1G",
                "-Xmx1G",
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
            ])
            .args([
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
            ])
            .arg("-Djava.awt.headless=true")
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                self.dir.join("log4j2.properties").display()
            ))
            .args(["-cp", &cache::kafka_class_path()?, "kafka.Kafka"])
            .arg(self.dir.join("server.properties"));
        self.process = Some(Process::start("kafka", command, &self.dir.join("kafka.log"))?);
        Ok(())
    }
}

/// A broker under measurement.
pub enum Subject {
    /// Apache Kafka.
    Kafka(Kafka),
    /// Ours.
    Drumlin(Box<Broker>),
}

impl Subject {
    /// Ours, not started yet.
    pub fn drumlin(options: Options) -> anyhow::Result<Subject> {
        Ok(Subject::Drumlin(Box::new(Broker::prepare(options)?)))
    }

    /// Apache Kafka with its data below `dir`, not started yet.
    pub fn kafka(dir: &Path) -> anyhow::Result<Subject> {
        Ok(Subject::Kafka(Kafka::prepare(dir)?))
    }

    /// Settings from the next start on, in the names that both have.
    pub fn reconfigure(&mut self, settings: &[(&str, String)]) -> anyhow::Result<()> {
        match self {
            Subject::Kafka(kafka) => {
                // Of a key that comes twice the last one counts.
                let path = kafka.dir.join("server.properties");
                let mut text = std::fs::read_to_string(&path)?;
                for (key, value) in settings {
                    text.push_str(&format!("{key}={value}\n"));
                }
                std::fs::write(path, text)?;
            }
            Subject::Drumlin(broker) => {
                let all = &mut broker.options_mut().settings;
                for (key, value) in settings {
                    all.retain(|(k, _)| k != key);
                    all.push(((*key).to_owned(), value.clone()));
                }
            }
        }
        Ok(())
    }

    /// What it has printed so far.
    pub fn printed(&mut self) -> anyhow::Result<String> {
        Ok(self.process()?.printed())
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Subject::Kafka(_) => "kafka",
            Subject::Drumlin(_) => "drumlin",
        }
    }

    /// Whether it is ours.
    pub fn is_ours(&self) -> bool {
        matches!(self, Subject::Drumlin(_))
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> String {
        match self {
            Subject::Kafka(kafka) => format!("127.0.0.1:{}", kafka.port),
            Subject::Drumlin(broker) => broker.bootstrap(),
        }
    }

    fn process(&mut self) -> anyhow::Result<&mut Process> {
        match self {
            Subject::Kafka(kafka) => kafka.process.as_mut().context("kafka is not running"),
            Subject::Drumlin(broker) => broker.process(),
        }
    }

    /// Its process id.
    pub fn pid(&mut self) -> anyhow::Result<u32> {
        Ok(self.process()?.id())
    }

    /// Starts the process and returns at once; the moment when it was started.
    pub fn spawn(&mut self) -> anyhow::Result<Instant> {
        let now = Instant::now();
        match self {
            Subject::Kafka(kafka) => kafka.spawn()?,
            Subject::Drumlin(broker) => broker.spawn()?,
        }
        Ok(now)
    }

    /// Starts the process and waits until it answers.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        let bootstrap = self.bootstrap();
        self.process()?.wait_ready(START, |_| client::answers(&bootstrap))
    }

    /// SIGTERM, and the end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process()?.terminate(STOP).map(drop)
    }

    /// SIGKILL.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.process()?.kill9()
    }

    /// A connection to it.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.bootstrap(), Duration::from_secs(60))
    }

    /// Creates a topic, and waits until it takes records.
    pub fn create_topic(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut connection = self.connect()?;
        connection.create_topic(topic, partitions, configs)?;
        let end = Instant::now() + Duration::from_secs(20);
        for partition in 0..partitions {
            while let Err(error) = connection.list_offset(topic, partition, -1) {
                if Instant::now() > end {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Changes options of a topic.
    pub fn alter_topic(&self, topic: &str, configs: &[(&str, &str)]) -> anyhow::Result<()> {
        let config = |&(name, value): &(&str, &str)| AlterableConfig {
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 2,
                resource_name: topic.into(),
                configs: configs.iter().map(config).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = self.connect()?.call(&request, 1)?;
        match answer.responses.first() {
            Some(r) if r.error_code == 0 => Ok(()),
            other => bail!("{topic} was not altered: {other:?}"),
        }
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, topic: &str) -> anyhow::Result<()> {
        let request = DeleteTopicsRequest {
            topic_names: vec![topic.into()],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer = self.connect()?.call(&request, 5)?;
        match answer.responses.first().map(|r| r.error_code) {
            Some(0) => Ok(()),
            other => bail!("{topic} was not deleted: {other:?}"),
        }
    }

    /// First and end offset of a topic's only partition.
    pub fn offsets(&self, topic: &str) -> anyhow::Result<(i64, i64)> {
        let mut connection = self.connect()?;
        Ok((
            connection.list_offset(topic, 0, -2)?,
            connection.list_offset(topic, 0, -1)?,
        ))
    }

    /// Its metrics; Kafka has none that we read.
    pub fn metrics(&self) -> anyhow::Result<Option<Metrics>> {
        match self {
            Subject::Kafka(_) => Ok(None),
            Subject::Drumlin(broker) => {
                let page = stores::http_get(broker.admin_port(), "/metrics")?;
                Ok(Some(Metrics::parse(&page)))
            }
        }
    }

    /// Ours, to look at how it was configured.
    pub fn broker(&self) -> anyhow::Result<&Broker> {
        match self {
            Subject::Drumlin(broker) => Ok(broker),
            Subject::Kafka(_) => bail!("this is Kafka"),
        }
    }

    /// Waits until everything durable has been sealed, at most so long; whether it was.
    pub fn wait_sealed(&self, patience: Duration) -> anyhow::Result<bool> {
        let end = Instant::now() + patience;
        loop {
            let Some(metrics) = self.metrics()? else {
                return Ok(true);
            };
            if metrics.sum("drumlin_unsealed_bytes", &[]) == 0.0 {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

const LOGGING: &str = "\
rootLogger.level = WARN
rootLogger.appenderRefs = stdout
rootLogger.appenderRef.stdout.ref = STDOUT
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
logger.cleaner.name = org.apache.kafka.storage.internals.log.LogCleaner
logger.cleaner.level = INFO
logger.cleaning.name = org.apache.kafka.storage.internals.log.LogCleaner$CleanerThread
logger.cleaning.level = INFO
";
