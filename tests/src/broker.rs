//! A broker under test: started, killed, restarted and stopped by the test that owns it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::kafka::Kafka;
use crate::process::Process;
use crate::stores::{Local, Store};
use crate::{cache, client, ports};

const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// Where a broker keeps things, and how it is configured.
#[derive(Clone)]
pub struct Options {
    /// For its logs, its cache and, on a local store, its data.
    pub dir: PathBuf,
    /// Where its log lives.
    pub store: Arc<dyn Store>,
    /// `--set` options beyond those that the harness needs itself.
    pub settings: Vec<(String, String)>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// A command to run it under, such as strace; Drumlin only.
    pub under: Vec<String>,
    /// How long it may take until it answers.
    pub patience: Duration,
}

impl Options {
    /// A broker on a folder of its own below `dir`.
    pub fn local(dir: &Path) -> Options {
        Options::on(dir, Local::new(dir.join("store")))
    }

    /// A broker on `store`, its cache and logs below `dir`.
    pub fn on(dir: &Path, store: impl Store + 'static) -> Options {
        Options {
            dir: dir.to_owned(),
            store: Arc::new(store),
            settings: Vec::new(),
            environment: Vec::new(),
            under: Vec::new(),
            patience: READY,
        }
    }

    /// Adds a setting.
    pub fn set(mut self, key: &str, value: impl ToString) -> Options {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Seals often and in small pieces, so that a short test meets segments, bundles,
    /// checkpoints and trimming.
    pub fn sealing_often(self) -> Options {
        self.set("seal.round.ms", 2_000)
            .set("seal.segment.min.bytes", 200_000)
            .set("log.segment.bytes", 1 << 20)
    }

    /// Adds a variable to the environment.
    pub fn env(mut self, key: &str, value: impl ToString) -> Options {
        self.environment.push((key.to_owned(), value.to_string()));
        self
    }
}

/// Whether the tests run against Apache Kafka to try the tests themselves.
pub fn against_kafka() -> bool {
    std::env::var("DRUMLIN_TEST_BROKER").is_ok_and(|v| v == "kafka")
}

/// The broker's program: `DRUMLIN_BIN`, or the newer of the release and the dev build.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("DRUMLIN_BIN") {
        return Ok(path.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| cache::repository().join("target"), PathBuf::from);
    let built = |profile: &str| {
        let path = target.join(profile).join("drumlin");
        let when = path.metadata().and_then(|m| m.modified()).ok()?;
        Some((when, path))
    };
    match built("release").into_iter().chain(built("debug")).max() {
        Some((_, path)) => Ok(path),
        None => bail!(
            "no drumlin in {}: build it, or say where it is in DRUMLIN_BIN",
            target.display()
        ),
    }
}

enum Kind {
    Drumlin(Option<Process>),
    Kafka(Box<Kafka>),
}

/// A broker process, or the place of one that was killed and can be started again.
pub struct Broker {
    options: Options,
    kind: Kind,
    port: u16,
    admin: u16,
    started: Instant,
}

impl Broker {
    /// Starts a broker and waits until it answers.
    pub fn start(options: Options) -> anyhow::Result<Broker> {
        let mut broker = Broker::prepare(options)?;
        broker.restart()?;
        Ok(broker)
    }

    /// A broker that is yet to be started.
    pub fn prepare(options: Options) -> anyhow::Result<Broker> {
        std::fs::create_dir_all(&options.dir)?;
        let (kind, port, admin) = if against_kafka() {
            let kafka = Kafka::prepare(&options.dir.join("kafka"), &kafkas_own(&options.settings))?;
            let port = kafka
                .bootstrap()
                .rsplit(':')
                .next()
                .and_then(|p| p.parse().ok())
                .unwrap_or(0);
            (Kind::Kafka(Box::new(kafka)), port, 0)
        } else {
            (Kind::Drumlin(None), ports::free()?, ports::free()?)
        };
        Ok(Broker {
            options,
            kind,
            port,
            admin,
            started: Instant::now(),
        })
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port of its health and metrics pages.
    pub fn admin_port(&self) -> u16 {
        self.admin
    }

    /// How it was configured.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Changes what the next start is configured with.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// When the process was last started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its process.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        let process = match &mut self.kind {
            Kind::Drumlin(process) => process.as_mut(),
            Kind::Kafka(kafka) => kafka.process(),
        };
        process.context("the broker is not running")
    }

    /// Starts the process, ending one that runs, and does not wait.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        self.started = Instant::now();
        let command = match &mut self.kind {
            Kind::Kafka(kafka) => return kafka.spawn(),
            Kind::Drumlin(_) => self.command()?,
        };
        let log = self.log();
        self.kind = Kind::Drumlin(None);
        self.kind = Kind::Drumlin(Some(Process::start("drumlin", command, &log)?));
        Ok(())
    }

    /// The file with what it printed, over all its lives.
    pub fn log(&self) -> PathBuf {
        match &self.kind {
            Kind::Drumlin(_) => self.options.dir.join("drumlin.log"),
            Kind::Kafka(_) => self.options.dir.join("kafka/kafka.log"),
        }
    }

    /// Waits until it answers requests.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let bootstrap = self.bootstrap();
        let patience = self.options.patience;
        self.process()?
            .wait_ready(patience, |_| client::answers(&bootstrap))
    }

    /// Starts it (again) and waits until it answers.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// SIGKILL.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.process()?.kill9()
    }

    /// SIGTERM, then the end with exit code 0 within its deadline.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let kafka = matches!(self.kind, Kind::Kafka(_));
        let status = self.process()?.terminate(STOP)?;
        // A JVM that ends on SIGTERM reports 143 even when it stopped cleanly.
        if !status.success() && !kafka {
            bail!(
                "the broker ended with {status} on SIGTERM\n{}",
                crate::process::tail(&self.log(), 40)
            );
        }
        Ok(status)
    }

    /// The folder of its block cache.
    pub fn cache_dir(&self) -> PathBuf {
        self.options.dir.join("cache")
    }

    /// Deletes the block cache, as a lost disk would.
    pub fn delete_cache(&self) -> anyhow::Result<()> {
        match std::fs::remove_dir_all(self.cache_dir()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Runs another command of the program (`export`, `store check`) on the same store.
    pub fn command_of(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(program()?);
        command
            .args(arguments)
            .args(["--set", &format!("store.url={}", self.options.store.url())]);
        command.envs(self.options.store.environment());
        Ok(command)
    }

    fn command(&self) -> anyhow::Result<Command> {
        let program = program()?;
        let mut command = match self.options.under.split_first() {
            Some((under, arguments)) => {
                let mut command = Command::new(under);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("serve").current_dir(&self.options.dir);
        let own = [
            ("listeners", format!("PLAINTEXT://127.0.0.1:{}", self.port)),
            ("admin.listener", format!("127.0.0.1:{}", self.admin)),
            ("store.url", self.options.store.url()),
            ("cache.dir", self.cache_dir().display().to_string()),
        ];
        for (key, value) in own.iter().map(|(k, v)| (*k, v)) {
            command.args(["--set", &format!("{key}={value}")]);
        }
        for (key, value) in &self.options.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command
            .envs(self.options.store.environment())
            .envs(self.options.environment.iter().cloned());
        command.env("RUST_BACKTRACE", "1");
        Ok(command)
    }
}

/// Leaves out the options that Apache Kafka does not have.
fn kafkas_own(settings: &[(String, String)]) -> Vec<(String, String)> {
    let ours = [
        "store.",
        "cache.",
        "wal.",
        "admin.",
        "drumlin.",
        "seal.",
        "local.store.",
    ];
    settings
        .iter()
        .filter(|(k, _)| !ours.iter().any(|o| k.starts_with(o)))
        .cloned()
        .collect()
}
