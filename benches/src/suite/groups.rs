//! Members of groups: how long joins and rebalances take, and commits.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use drumlin_tests::process;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::load::group::Protocol;
use crate::load::group::scenes::{Joined, Rebalanced};
use crate::load::summary::Summary;
use crate::suite::bench::Bench;
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};

/// Partitions of the topic that is joined, one for each of the most members.
const PARTITIONS: i32 = 100;
/// Members of the groups that rebalance.
const REBALANCED: usize = 10;
/// The shortest session that Kafka lets classic members have; here of both protocols.
const SESSION_MS: u64 = 6_000;
/// The records have timestamps of long ago.
pub(super) const KEPT: (&str, &str) = ("retention.ms", "-1");
/// Heartbeats where what the broker makes of them is measured.
const HEARTBEAT_MS: u64 = 100;
/// What timers of seconds leave to noise.
const NOT_SLOWER: Goal = Goal::RatioAtMost(1.05);
/// Commits and records a second of all consumers together, one and a hundred.
const PACED: [(usize, f64); 2] = [(1, 100.0), (100, 1_000.0)];

/// Settings under which nothing waits for company, so that what is left is the broker's own.
pub fn without_waits() -> Vec<(&'static str, String)> {
    let heartbeat = HEARTBEAT_MS.to_string();
    let session = SESSION_MS.to_string();
    vec![
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("group.consumer.assignment.interval.ms", "0".to_owned()),
        ("group.consumer.min.heartbeat.interval.ms", heartbeat.clone()),
        ("group.consumer.heartbeat.interval.ms", heartbeat),
        ("group.consumer.min.session.timeout.ms", session.clone()),
        ("group.consumer.session.timeout.ms", session),
        // How often compaction looks for something to do.
        ("log.cleaner.backoff.ms", "1000".to_owned()),
    ]
}

/// Case, measure, ours and Kafka's, goals.
type Measured = (String, &'static str, [Option<f64>; 2], &'static [Goal]);

/// A figure of each broker, from its repetitions.
#[derive(Default)]
pub(super) struct Sides([Vec<f64>; 2]);

impl Sides {
    pub(super) fn add(&mut self, subject: &Subject, figure: f64) {
        self.0[usize::from(!subject.is_ours())].push(figure);
    }

    /// Ours, then Kafka's.
    pub(super) fn medians(self) -> (Option<f64>, Option<f64>) {
        let [ours, kafka] = self.0;
        (median(ours), median(kafka))
    }
}

fn rebalance_command(load: &Path, bootstrap: &str, topic: &str, group: &str, protocol: Protocol) -> Command {
    let mut command = Command::new(load);
    command
        .args(["group-rebalance", "--bootstrap", bootstrap, "--topic", topic])
        .args(["--partitions", &PARTITIONS.to_string(), "--group", group])
        .args([
            "--members",
            &REBALANCED.to_string(),
            "--protocol",
            protocol.name(),
        ])
        .args(["--session-ms", &SESSION_MS.to_string()])
        .args(["--heartbeat-ms", &HEARTBEAT_MS.to_string()]);
    command
}

fn delete(subjects: &[Subject], topics: &[String]) -> anyhow::Result<()> {
    let both = subjects.iter().zip(topics);
    both.into_iter()
        .try_for_each(|(subject, topic)| subject.delete_topic(topic))
}

impl Bench {
    /// Runs a command of the load generator about a group and reads what it found.
    pub(super) fn found<T: DeserializeOwned>(
        &mut self,
        subject: &Subject,
        case: &str,
        arguments: &[&str],
        patience: f64,
    ) -> anyhow::Result<T> {
        let mut command = Command::new(&self.load);
        command
            .args(arguments)
            .args(["--bootstrap", &subject.bootstrap()]);
        let output = process::run(command, Duration::from_secs_f64(patience))
            .with_context(|| format!("{}: {case}", subject.name()))?;
        let found: Value = match output.stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).with_context(|| format!("{case}: {text}"))?,
        };
        self.runs
            .push(json!({"broker": subject.name(), "case": case, "found": found}));
        Ok(serde_json::from_value(found)?)
    }

    /// A topic with a record in each partition.
    fn seeded(&mut self, subject: &Subject, partitions: i32) -> anyhow::Result<String> {
        let topic = self.topic();
        subject.create_topic(&topic, partitions, &[KEPT])?;
        let mut connection = subject.connect()?;
        for partition in 0..partitions {
            let (code, _) = connection.produce(&topic, partition, b"first", 30_000)?;
            anyhow::ensure!(code == 0, "partition {partition} of {topic}: error {code}");
        }
        Ok(topic)
    }

    /// With what both brokers start out with: the initial delay, and heartbeats as clients have them.
    pub fn joins_by_default(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        // The timers make a short run long.
        let [classic, consumer]: [&[usize]; 2] = match self.plan.quick {
            true => [&[1], &[1]],
            false => [&[1, 10, 100], &[1, 10, 100]],
        };
        let topics = self.joined_topics(subjects, 3_000)?;
        let with = "the defaults";
        self.joins(subjects, &topics, (Protocol::Classic, classic, with, 3_000))?;
        self.joins(subjects, &topics, (Protocol::Consumer, consumer, with, 0))?;
        delete(subjects, &topics)
    }

    /// The same where nothing waits.
    pub fn joins_without_waits(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        let sizes: &[usize] = &[1, 10, 100];
        let topics = self.joined_topics(subjects, HEARTBEAT_MS)?;
        let with = "no initial delay, heartbeats 100 ms";
        self.joins(subjects, &topics, (Protocol::Classic, sizes, with, HEARTBEAT_MS))?;
        let with = "no assignment interval, heartbeats 100 ms";
        self.joins(subjects, &topics, (Protocol::Consumer, sizes, with, HEARTBEAT_MS))?;
        delete(subjects, &topics)
    }

    /// A topic on each, and a first group of each protocol, which makes the topic of offsets and has code compiled.
    fn joined_topics(&mut self, subjects: &[Subject], heartbeat_ms: u64) -> anyhow::Result<Vec<String>> {
        let partitions = PARTITIONS.to_string();
        let mut topics = Vec::new();
        for subject in subjects {
            let topic = self.seeded(subject, PARTITIONS)?;
            for protocol in [Protocol::Classic, Protocol::Consumer] {
                self.join(
                    subject,
                    "warm-up",
                    (&topic, protocol, 1, heartbeat_ms),
                    &partitions,
                )?;
            }
            topics.push(topic);
        }
        Ok(topics)
    }

    fn joins(
        &mut self,
        subjects: &mut [Subject],
        topics: &[String],
        (protocol, sizes, with, heartbeat_ms): (Protocol, &[usize], &str, u64),
    ) -> anyhow::Result<()> {
        let partitions = PARTITIONS.to_string();
        for &members in sizes {
            let case = format!("join of {members}, {}, {with}", protocol.name());
            let mut all = Sides::default();
            for _ in 0..self.plan.group_repetitions {
                for (subject, topic) in subjects.iter_mut().zip(topics) {
                    let group = (topic.as_str(), protocol, members, heartbeat_ms);
                    let found = self.join(subject, &case, group, &partitions)?;
                    self.say(&format!(
                        "{:<8} {case}: first records after {:.1} to {:.1} ms",
                        subject.name(),
                        found.first,
                        found.last
                    ));
                    all.add(subject, found.last);
                }
            }
            let (ours, kafka) = all.medians();
            let at = (case.as_str(), "ms until each has a record");
            self.stored(at, ours, kafka, &[NOT_SLOWER]);
        }
        Ok(())
    }

    fn join(
        &mut self,
        subject: &Subject,
        case: &str,
        (topic, protocol, members, heartbeat_ms): (&str, Protocol, usize, u64),
        partitions: &str,
    ) -> anyhow::Result<Joined> {
        let (group, members) = (self.topic(), members.to_string());
        let heartbeat = heartbeat_ms.to_string();
        let arguments = [
            "group-join",
            "--topic",
            topic,
            "--partitions",
            partitions,
            "--group",
            &group,
            "--members",
            &members,
            "--protocol",
            protocol.name(),
            "--heartbeat-ms",
            &heartbeat,
        ];
        self.found(subject, case, &arguments, 180.0)
    }

    /// One of ten members leaves, and one of nine dies; groups of both protocols side by side, as they mostly wait.
    pub fn rebalances(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        const PROTOCOLS: [Protocol; 2] = [Protocol::Classic, Protocol::Consumer];
        let mut all: [[Sides; 2]; 2] = Default::default();
        for _ in 0..self.plan.group_repetitions {
            for subject in subjects.iter_mut() {
                let topic = self.seeded(subject, PARTITIONS)?;
                let groups = [self.topic(), self.topic()];
                let (load, bootstrap) = (&self.load, subject.bootstrap());
                let found = std::thread::scope(|scope| {
                    let running: Vec<_> = PROTOCOLS
                        .into_iter()
                        .zip(&groups)
                        .map(|(protocol, group)| {
                            let command = rebalance_command(load, &bootstrap, &topic, group, protocol);
                            scope.spawn(move || process::run(command, Duration::from_secs(300)))
                        })
                        .collect();
                    running
                        .into_iter()
                        .map(|thread| {
                            let output = thread
                                .join()
                                .map_err(|_| anyhow::anyhow!("a rebalance panicked"))??;
                            Ok(serde_json::from_str(output.stdout.trim())?)
                        })
                        .collect::<anyhow::Result<Vec<Rebalanced>>>()
                })?;
                for ((protocol, [left, died]), found) in PROTOCOLS.iter().zip(&mut all).zip(found) {
                    let name = protocol.name();
                    self.say(&format!(
                        "{:<8} rebalance, {name}: {:.1} ms when one leaves, {:.1} ms beyond the timeout when one dies",
                        subject.name(),
                        found.left,
                        found.died
                    ));
                    self.runs.push(
                        json!({"broker": subject.name(), "case": format!("rebalance, {name}"), "found": found}),
                    );
                    left.add(subject, found.left);
                    died.add(subject, found.died);
                }
                subject.delete_topic(&topic)?;
            }
        }
        for (protocol, [left, died]) in PROTOCOLS.iter().zip(all) {
            let name = protocol.name();
            let (ours, kafka) = left.medians();
            let case = format!("one of {REBALANCED} leaves, {name}, heartbeats 100 ms");
            let at = (case.as_str(), "ms until all is owned");
            self.stored(at, ours, kafka, &[NOT_SLOWER]);
            let (ours, kafka) = died.medians();
            let case = format!("one of {} dies, {name}, session 6 s", REBALANCED - 1);
            let at = (case.as_str(), "ms beyond the timeout");
            self.stored(at, ours, kafka, &[NOT_SLOWER]);
        }
        Ok(())
    }

    /// Synchronous commits, and produce of as many records of that size a second.
    pub fn commits(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        for (consumers, rate) in PACED {
            let mut runs: [Vec<[Summary; 4]>; 2] = Default::default();
            for _ in 0..self.plan.repetitions {
                for subject in subjects.iter_mut() {
                    let found = self.commits_of(subject, consumers, rate)?;
                    runs[usize::from(!subject.is_ours())].push(found);
                }
            }
            let of = |side: usize, figure: &dyn Fn(&[Summary; 4]) -> f64| {
                median(runs[side].iter().map(figure).collect())
            };
            let mut rows: Vec<Measured> = Vec::new();
            let mut add = |case: &str, measure, figure: &dyn Fn(&[Summary; 4]) -> f64, goals| {
                rows.push((case.to_owned(), measure, [of(0, figure), of(1, figure)], goals));
            };
            let who = match consumers {
                1 => "1 consumer".to_owned(),
                many => format!("{many} consumers"),
            };
            let full = format!("commits of {who}, each after the other");
            add(
                &full,
                "commits/s",
                &|[s, ..]| s.requests as f64 / s.seconds,
                &[Goal::RatioAtLeast(1.0)],
            );
            add(&full, "p50 ms", &|[s, ..]| s.latency.p50, &[]);
            add(
                &full,
                "p99 ms",
                &|[s, ..]| s.latency.p99,
                &[Goal::RatioAtMost(1.0)],
            );
            add(
                &full,
                "broker CPU-ms each",
                &|[s, ..]| s.cpu_seconds * 1e3 / s.requests.max(1) as f64,
                &[],
            );
            let produce = format!("produce over {consumers} connections, the same way");
            add(&produce, "p99 ms", &|[_, s, ..]| s.latency.p99, &[]);
            let paced = format!("commits of {who}, {rate:.0} a second");
            add(&paced, "p50 ms", &|[.., s, _]| s.latency.p50, &[]);
            add(
                &paced,
                "p99 ms",
                &|[.., s, _]| s.latency.p99,
                &[Goal::RatioAtMost(1.0)],
            );
            add(
                &paced,
                "p99 ms beyond produce's",
                &|[.., commit, produce]| commit.latency.p99 - produce.latency.p99,
                &[Goal::AtMost(2.0)],
            );
            for (case, measure, [ours, kafka], goals) in rows {
                self.stored((&case, measure), ours, kafka, goals);
            }
            let ours = [
                of(0, &|[s, ..]| s.requests as f64 / s.seconds),
                of(0, &|[s, ..]| s.latency.p99),
            ];
            self.flushed_commits(subjects, consumers, ours)?;
        }
        Ok(())
    }

    /// Ours, which are durable, against Kafka's when it flushes them.
    fn flushed_commits(
        &mut self,
        subjects: &mut [Subject],
        consumers: usize,
        [rate, p99]: [Option<f64>; 2],
    ) -> anyhow::Result<()> {
        const OFFSETS: &str = "__consumer_offsets";
        for kafka in subjects.iter_mut().filter(|s| !s.is_ours()) {
            let topic = self.seeded(kafka, i32::try_from(consumers)?)?;
            kafka.alter_topic(OFFSETS, &[("flush.messages", "1")])?;
            let flushed = self.commit_once(kafka, &topic, consumers, None)?;
            kafka.alter_topic(OFFSETS, &[("flush.messages", &i64::MAX.to_string())])?;
            kafka.delete_topic(&topic)?;
            let case = format!("the same over {consumers}, Kafka with flush.messages=1");
            let of_kafka = flushed.requests as f64 / flushed.seconds;
            let at = (case.as_str(), "commits/s");
            self.stored(at, rate, Some(of_kafka), &[]);
            let at = (case.as_str(), "p99 ms");
            self.stored(at, p99, Some(flushed.latency.p99), &[]);
        }
        self.settle()
    }

    /// Commits and produce as fast as answers come, then both at a fixed rate.
    fn commits_of(
        &mut self,
        subject: &mut Subject,
        consumers: usize,
        rate: f64,
    ) -> anyhow::Result<[Summary; 4]> {
        let topic = self.seeded(subject, i32::try_from(consumers)?)?;
        let mut found = Vec::new();
        // What a fixed rate leaves to be written is next to nothing.
        for rate in [None, Some(rate)] {
            found.push(self.commit_once(subject, &topic, consumers, rate)?);
            if rate.is_none() {
                self.settle()?;
            }
            found.push(self.produce_beside(subject, consumers, rate)?);
            if rate.is_none() {
                self.settle()?;
            }
        }
        subject.delete_topic(&topic)?;
        found
            .try_into()
            .map_err(|_| anyhow::anyhow!("four runs were made"))
    }

    fn commit_once(
        &mut self,
        subject: &mut Subject,
        topic: &str,
        consumers: usize,
        rate: Option<f64>,
    ) -> anyhow::Result<Summary> {
        let mut command = Command::new(&self.load);
        let (count, group) = (consumers.to_string(), self.topic());
        command
            .args(["group-commit", "--bootstrap", &subject.bootstrap()])
            .args(["--topic", topic, "--partitions", &count, "--members", &count])
            .args(["--group", &group, "--heartbeat-ms", &HEARTBEAT_MS.to_string()])
            .args(["--pid", &subject.pid()?.to_string()])
            .args(["--warmup", &(self.plan.warmup / 2.0).to_string()])
            .args(["--seconds", &self.plan.commit_seconds.to_string()]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let output = process::run(command, Duration::from_secs_f64(self.plan.commit_seconds + 120.0))?;
        let summary: Summary = serde_json::from_str(output.stdout.trim())?;
        self.tell(subject, "commits", consumers, rate, &summary);
        Ok(summary)
    }

    /// One small record after the other over as many connections as there are consumers.
    fn produce_beside(
        &mut self,
        subject: &mut Subject,
        consumers: usize,
        rate: Option<f64>,
    ) -> anyhow::Result<Summary> {
        let topic = self.topic();
        subject.create_topic(&topic, 1, &[])?;
        let mut command = Command::new(&self.load);
        command
            .args(["produce", "--bootstrap", &subject.bootstrap(), "--topic", &topic])
            .args(["--batch", "200", "--record", "100", "--depth", "1"])
            .args(["--connections", &consumers.to_string()])
            .args(["--pid", &subject.pid()?.to_string()])
            .args(["--warmup", &(self.plan.warmup / 2.0).to_string()])
            .args(["--seconds", &self.plan.commit_seconds.to_string()]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let output = process::run(command, Duration::from_secs_f64(self.plan.commit_seconds + 120.0))?;
        let summary: Summary = serde_json::from_str(output.stdout.trim())?;
        subject.delete_topic(&topic)?;
        self.tell(subject, "produce", consumers, rate, &summary);
        Ok(summary)
    }

    fn tell(
        &mut self,
        subject: &Subject,
        what: &str,
        consumers: usize,
        rate: Option<f64>,
        summary: &Summary,
    ) {
        let how = rate.map_or("as fast as answers come".to_owned(), |r| {
            format!("{r:.0} a second")
        });
        let case = format!("{what} over {consumers} connections, {how}");
        self.say(&format!(
            "{:<8} {case}: {:.0}/s, p50 {:.2} p99 {:.2} p999 {:.2} ms, {:.3} CPU-ms each",
            subject.name(),
            summary.requests as f64 / summary.seconds,
            summary.latency.p50,
            summary.latency.p99,
            summary.latency.p999,
            summary.cpu_seconds * 1e3 / summary.requests.max(1) as f64,
        ));
        if summary.errors > 0 {
            let first = summary.first_error.as_deref().unwrap_or("?");
            self.note(format!(
                "{}: {case}: {} failed: {first}",
                subject.name(),
                summary.errors
            ));
        }
        self.runs
            .push(json!({"broker": subject.name(), "case": case, "summary": summary}));
    }
}
