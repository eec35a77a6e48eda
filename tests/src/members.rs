//! Members of consumer groups: unmodified consumers of many libraries, each a process
//! that tells what it owns, reads and commits until it is told to leave or is killed.
//!
//! The small commands around the libraries and what they tell are in `tests/clients`
//! (`member.py` describes it); kcat and Apache Kafka's verifiable consumer come with
//! a language of their own, which is translated here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::process::{Process, tail};
use crate::tools::{Tool, java_command};
use crate::{cache, client};

const LEAVE: Duration = Duration::from_secs(60);
/// The longest that a coordinator may load.
const LOADED: Duration = Duration::from_secs(60);
/// After which a member is missed, where a plan says nothing else.
pub const SESSION: Duration = Duration::from_secs(3);

/// A consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kcat -G, over librdkafka; it commits automatically.
    Kcat,
    /// confluent-kafka, over librdkafka; both protocols.
    Confluent,
    /// kafka-python.
    KafkaPython,
    /// aiokafka.
    Aiokafka,
    /// kafkajs, whose one assignor is its own.
    Kafkajs,
    /// @platformatic/kafka, whose one assignor is round robin; both protocols.
    Platformatic,
    /// sarama.
    Sarama,
    /// kafka-verifiable-consumer, over Apache Kafka's own client; both protocols.
    Verifiable,
}

/// Which protocol of groups is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// JoinGroup and SyncGroup.
    Classic,
    /// KIP-848.
    Consumer,
}

/// How what was read is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// By the library, five times a second.
    Auto,
    /// After each batch, waiting for the answer.
    Sync,
    /// After each batch, without waiting.
    Async,
    /// Not at all.
    Never,
}

/// What a member is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// host:port.
    pub bootstrap: String,
    /// The one topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// How it commits.
    pub commit: Commit,
    /// Whom it wants as assignor; `None` for range in classic groups, for the broker's choice otherwise.
    pub assignor: Option<String>,
    /// Session timeout of classic members.
    pub session: Duration,
    /// Static membership.
    pub instance: Option<String>,
    /// How many records at most are read and committed at once, where a library can be told.
    pub batch: usize,
}

impl Plan {
    /// A classic member that commits each batch and is missed after [`SESSION`].
    pub fn new(bootstrap: &str, topic: &str, group: &str) -> Plan {
        Plan {
            bootstrap: bootstrap.to_owned(),
            topic: topic.to_owned(),
            group: group.to_owned(),
            protocol: Protocol::Classic,
            commit: Commit::Sync,
            assignor: None,
            session: SESSION,
            instance: None,
            batch: 500,
        }
    }

    /// The same, not missed by its group for long: where nobody dies, on a machine that may be busy with other things.
    pub fn patient(mut self) -> Plan {
        self.session = Duration::from_secs(30);
        self
    }

    /// The same with smaller or larger batches.
    pub fn batch(mut self, records: usize) -> Plan {
        self.batch = records;
        self
    }

    /// The same with another way to commit.
    pub fn commit(mut self, commit: Commit) -> Plan {
        self.commit = commit;
        self
    }

    /// The same with KIP-848.
    pub fn consumer_protocol(mut self) -> Plan {
        self.protocol = Protocol::Consumer;
        self
    }

    /// The same with an assignor.
    pub fn assignor(mut self, name: &str) -> Plan {
        self.assignor = Some(name.to_owned());
        self
    }

    /// The same as a static member.
    pub fn instance(mut self, name: &str) -> Plan {
        self.instance = Some(name.to_owned());
        self
    }

    fn json(&self) -> Value {
        json!({
            "bootstrap": self.bootstrap,
            "topics": [self.topic],
            "group": self.group,
            "protocol": self.protocol_name(),
            "commit": match self.commit {
                Commit::Auto => "auto",
                Commit::Sync => "sync",
                Commit::Async => "async",
                Commit::Never => "never",
            },
            "assignor": self.assignor.as_deref().unwrap_or(""),
            "batch": self.batch,
            "session_ms": self.session.as_millis() as u64,
            "instance": self.instance.as_deref().unwrap_or(""),
        })
    }

    fn protocol_name(&self) -> &'static str {
        match self.protocol {
            Protocol::Classic => "classic",
            Protocol::Consumer => "consumer",
        }
    }
}

impl Kind {
    fn command(self, plan: &Plan, dir: &Path) -> anyhow::Result<Command> {
        let clients = cache::repository().join("tests/clients");
        let python = |name: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(cache::python()?);
            command.arg(clients.join("python/member.py")).arg(name);
            Ok(command)
        };
        let node = |name: &str| -> anyhow::Result<Command> {
            let mut command = Command::new("node");
            command
                .arg(clients.join("node/member.js"))
                .arg(name)
                .env("NODE_PATH", cache::node_modules()?);
            Ok(command)
        };
        let mut command = match self {
            Kind::Kcat => return Ok(kcat(plan)),
            Kind::Verifiable => return verifiable(plan, dir),
            Kind::Confluent => python("confluent-kafka")?,
            Kind::KafkaPython => python("kafka-python")?,
            Kind::Aiokafka => python("aiokafka")?,
            Kind::Kafkajs => node("kafkajs")?,
            Kind::Platformatic => node("platformatic")?,
            Kind::Sarama => {
                let mut command = Command::new(cache::sarama()?);
                command.arg("member");
                command
            }
        };
        command.arg(plan.json().to_string());
        Ok(command)
    }
}

fn kcat(plan: &Plan) -> Command {
    let mut command = Command::new("kcat");
    command
        .args(["-b", &plan.bootstrap, "-u", "-f", r#"{"p":%p,"o":%o,"v":"%s"}\n"#])
        .args(["-X", "auto.offset.reset=earliest"])
        .args(["-X", "auto.commit.interval.ms=200"])
        .args(["-X", "reconnect.backoff.max.ms=500"])
        .args(["-X", &format!("session.timeout.ms={}", plan.session.as_millis())])
        .args([
            "-X",
            &format!("heartbeat.interval.ms={}", plan.session.as_millis() / 4),
        ]);
    let assignor = plan.assignor.as_deref().unwrap_or("range");
    command.args(["-X", &format!("partition.assignment.strategy={assignor}")]);
    if let Some(instance) = &plan.instance {
        command.args(["-X", &format!("group.instance.id={instance}")]);
    }
    command.args(["-G", &plan.group, &plan.topic]);
    command
}

fn verifiable(plan: &Plan, dir: &Path) -> anyhow::Result<Command> {
    let session = plan.session.as_millis().to_string();
    let mut arguments = vec![
        "--bootstrap-server",
        &plan.bootstrap,
        "--topic",
        &plan.topic,
        "--group-id",
        &plan.group,
        "--group-protocol",
        plan.protocol_name(),
        "--reset-policy",
        "earliest",
        "--verbose",
    ];
    // Its own interval between heartbeats is as long as these sessions are.
    let settings = dir.join(format!("heartbeats-{session}.properties"));
    let settings_name = settings.display().to_string();
    if plan.protocol == Protocol::Classic {
        let heartbeat = plan.session.as_millis() / 4;
        std::fs::write(&settings, format!("heartbeat.interval.ms={heartbeat}\n"))?;
        arguments.extend(["--session-timeout", &session]);
        arguments.extend(["--command-config", &settings_name]);
    }
    if plan.commit == Commit::Auto {
        arguments.push("--enable-autocommit");
    }
    match (&plan.assignor, plan.protocol) {
        (Some(assignor), Protocol::Classic) => arguments.extend(["--assignment-strategy", assignor]),
        (Some(assignor), Protocol::Consumer) => arguments.extend(["--group-remote-assignor", assignor]),
        (None, _) => {}
    }
    if let Some(instance) = &plan.instance {
        arguments.extend(["--group-instance-id", instance]);
    }
    java_command(Tool::VerifiableConsumer, &arguments, None)
}

/// A record that a member has seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: String,
}

/// A change of what a member owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// All that it owns from now on.
    pub partitions: BTreeSet<i32>,
    /// Generation of the group, from libraries that tell it.
    pub generation: Option<i64>,
    /// When, in milliseconds since 1970, from those that tell it.
    pub at: Option<i64>,
    /// It was not asked first: its session had ended.
    pub lost: bool,
}

/// A member at work, or what it has told until it left or was killed.
pub struct Member {
    kind: Kind,
    process: Process,
    read: u64,
    rest: Vec<u8>,
    /// Every change of what it owns, in order.
    pub owned: Vec<Owned>,
    /// Every record, in the order in which they came.
    pub records: Vec<Seen>,
    /// The newest commit of each partition that it knows to be accepted.
    pub committed: BTreeMap<i32, i64>,
}

impl Member {
    /// Starts one; what it prints goes to a file called `name` in `dir`.
    pub fn start(kind: Kind, plan: &Plan, dir: &Path, name: &str) -> anyhow::Result<Member> {
        let log = dir.join(format!("{name}.log"));
        let process = Process::start(name, kind.command(plan, dir)?, &log)?;
        Ok(Member {
            kind,
            process,
            read: 0,
            rest: Vec::new(),
            owned: Vec::new(),
            records: Vec::new(),
            committed: BTreeMap::new(),
        })
    }

    /// What it owns now, as far as it has told.
    pub fn assigned(&self) -> BTreeSet<i32> {
        self.owned
            .last()
            .map(|o| o.partitions.clone())
            .unwrap_or_default()
    }

    /// Values of the records, each once.
    pub fn values(&self) -> BTreeSet<String> {
        self.records.iter().map(|r| r.value.clone()).collect()
    }

    /// Whether its process has ended.
    pub fn ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// SIGTERM: it leaves the group, as it does by itself.
    pub fn leave(&mut self) -> anyhow::Result<()> {
        self.process.terminate(LEAVE)?;
        self.look()
    }

    /// SIGKILL: the group learns of it by the session timeout.
    pub fn die(&mut self) -> anyhow::Result<()> {
        self.process.kill9()?;
        self.look()
    }

    /// The file with what it printed.
    pub fn log(&self) -> PathBuf {
        self.process.log().to_owned()
    }

    /// Reads what it has told since the last look.
    pub fn look(&mut self) -> anyhow::Result<()> {
        let mut file = File::open(self.process.log())?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut new = Vec::new();
        file.read_to_end(&mut new)?;
        self.read += new.len() as u64;
        self.rest.extend(new);
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.heard(String::from_utf8_lossy(&line).trim());
        }
        Ok(())
    }

    fn heard(&mut self, line: &str) {
        if line.starts_with("% Group ") {
            return self.heard_kcat(line);
        }
        let Ok(Value::Object(event)) = serde_json::from_str::<Value>(line) else {
            return;
        };
        if event.contains_key("name") {
            return self.heard_verifiable(&event);
        }
        if let (Some(p), Some(o), Some(v)) = (
            event.get("p").and_then(Value::as_i64),
            event.get("o").and_then(Value::as_i64),
            event.get("v").and_then(Value::as_str),
        ) {
            self.records.push(Seen {
                partition: p as i32,
                offset: o,
                value: v.to_owned(),
            });
        } else if let Some(Value::Array(partitions)) = event.get("assigned") {
            self.owned.push(Owned {
                partitions: partitions
                    .iter()
                    .filter_map(|p| Some(p.as_i64()? as i32))
                    .collect(),
                generation: event.get("generation").and_then(Value::as_i64),
                at: event.get("at").and_then(Value::as_i64),
                lost: event.contains_key("lost"),
            });
        } else if let Some(Value::Object(offsets)) = event.get("committed") {
            for (partition, offset) in offsets {
                if let (Ok(p), Some(o)) = (partition.parse(), offset.as_i64()) {
                    self.has_committed(p, o);
                }
            }
        }
    }

    fn has_committed(&mut self, partition: i32, offset: i64) {
        let newest = self.committed.entry(partition).or_default();
        *newest = offset.max(*newest);
    }

    /// `% Group g rebalanced (memberid m): assigned: t [0], t [1]`
    fn heard_kcat(&mut self, line: &str) {
        let numbers = |list: &str| -> BTreeSet<i32> {
            list.split('[')
                .skip(1)
                .filter_map(|p| p.split(']').next()?.parse().ok())
                .collect()
        };
        let mut mine = self.assigned();
        if let Some((_, list)) = line.split_once("assigned: ") {
            mine.extend(numbers(list));
        } else if let Some((_, list)) = line.split_once("revoked: ") {
            numbers(list).iter().for_each(|p| {
                mine.remove(p);
            });
        } else {
            return;
        }
        self.owns(mine, None);
    }

    /// The JSON lines of Apache Kafka's verifiable consumer.
    fn heard_verifiable(&mut self, event: &serde_json::Map<String, Value>) {
        let number = |v: &Value, key: &str| v.get(key).and_then(Value::as_i64);
        let partitions = || -> Vec<&Value> {
            event
                .get("partitions")
                .and_then(Value::as_array)
                .map(|all| all.iter().collect())
                .unwrap_or_default()
        };
        let at = event.get("timestamp").and_then(Value::as_i64);
        let numbers = || -> BTreeSet<i32> {
            partitions()
                .into_iter()
                .filter_map(|p| Some(number(p, "partition")? as i32))
                .collect()
        };
        match event.get("name").and_then(Value::as_str) {
            Some("partitions_assigned") => {
                let mut mine = self.assigned();
                mine.extend(numbers());
                self.owns(mine, at);
            }
            Some("partitions_revoked") => {
                let gone = numbers();
                let mine = self.assigned().difference(&gone).copied().collect();
                self.owns(mine, at);
            }
            Some("record_data") => {
                let whole = Value::Object(event.clone());
                if let (Some(p), Some(o)) = (number(&whole, "partition"), number(&whole, "offset")) {
                    self.records.push(Seen {
                        partition: p as i32,
                        offset: o,
                        value: whole["value"].as_str().unwrap_or_default().to_owned(),
                    });
                }
            }
            Some("offsets_committed") if event.get("success") == Some(&json!(true)) => {
                let told: Vec<Value> = event
                    .get("offsets")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                for o in &told {
                    if let (Some(p), Some(o)) = (number(o, "partition"), number(o, "offset")) {
                        self.has_committed(p as i32, o);
                    }
                }
            }
            _ => {}
        }
    }

    fn owns(&mut self, partitions: BTreeSet<i32>, at: Option<i64>) {
        self.owned.push(Owned {
            partitions,
            generation: None,
            at,
            lost: false,
        });
    }
}

/// For what takes members by reference.
pub fn refs(members: &mut [Member]) -> Vec<&mut Member> {
    members.iter_mut().collect()
}

/// Every value that any of the members has seen.
pub fn seen(members: &[&mut Member]) -> BTreeSet<String> {
    members.iter().flat_map(|m| m.values()).collect()
}

/// Looks at the members until `done` is content with them; an error, with what each
/// told last, when it is not within `patience` or one of them has ended.
pub fn wait_until(
    what: &str,
    patience: Duration,
    members: &mut [&mut Member],
    mut done: impl FnMut(&[&mut Member]) -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    loop {
        for member in members.iter_mut() {
            member.look()?;
        }
        if done(members) {
            return Ok(());
        }
        let late = Instant::now() >= end;
        let mut gone = false;
        for member in members.iter_mut() {
            gone |= member.ended()?;
        }
        if late || gone {
            let told: Vec<String> = members
                .iter()
                .map(|m| {
                    format!(
                        "{:?} owns {:?}, {} records; {}\n{}",
                        m.kind,
                        m.assigned(),
                        m.records.len(),
                        m.log().display(),
                        tail(&m.log(), 3)
                    )
                })
                .collect();
            let why = if gone { "a member ended" } else { "time is up" };
            bail!("{what}: {why}\n{}", told.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the members together own each of `partitions` partitions exactly once,
/// and as evenly as can be.
pub fn wait_shared(
    what: &str,
    patience: Duration,
    members: &mut [&mut Member],
    partitions: i32,
) -> anyhow::Result<()> {
    wait_until(what, patience, members, |all| shared(all, partitions))
}

/// Whether the members together own each partition exactly once, as evenly as can be.
pub fn shared(members: &[&mut Member], partitions: i32) -> bool {
    let owned: Vec<BTreeSet<i32>> = members.iter().map(|m| m.assigned()).collect();
    let total: usize = owned.iter().map(BTreeSet::len).sum();
    let union: BTreeSet<i32> = owned.iter().flatten().copied().collect();
    let (most, least) = owned
        .iter()
        .map(BTreeSet::len)
        .fold((0, usize::MAX), |(m, l), n| (m.max(n), l.min(n)));
    total == partitions as usize && union == (0..partitions).collect() && most - least <= 1
}

/// What a group has committed for a topic, partition by partition; those without a commit are left out.
pub fn committed(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partitions: i32,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let mut connection = client::Connection::open(bootstrap, LOADED)?;
    let end = Instant::now() + LOADED;
    loop {
        // A coordinator that loads, or an offsets topic that is being made, says so.
        match connection.committed(group, topic, partitions)? {
            Ok(found) => return Ok(found),
            Err(code) if Instant::now() < end && [14, 15, 16].contains(&code) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(code) => return Err(anyhow::anyhow!("error {code}")).context("OffsetFetch"),
        }
    }
}
