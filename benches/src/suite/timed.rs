//! Produce load of which every second is kept.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use drumlin_tests::process::Process;
use serde::Serialize;

use crate::load::batches::Codec;
use crate::load::seconds::{self, Second, now_ms};
use crate::load::summary::Summary;
use crate::suite::bench::Bench;
use crate::suite::subject::Subject;
use crate::suite::table::median;

/// How often a load under way is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Load is stopped when less of the disk is free.
const FREE: u64 = 4 << 30;
/// Longest time between the end of a load's window and its last answer.
const END: f64 = 60.0;

/// One load.
#[derive(Clone, Debug)]
pub struct Load {
    /// Partitions of the topic, over which connections are spread.
    pub partitions: i32,
    /// Connections.
    pub connections: usize,
    /// Requests in flight for each connection.
    pub depth: usize,
    /// Bytes of a batch.
    pub batch: usize,
    /// Codec.
    pub codec: Codec,
    /// Millions of bytes a second, whether or not answers keep up; as fast as answers come without.
    pub rate_mb: Option<f64>,
    /// How long.
    pub seconds: f64,
    /// Longer, until so many bytes were acknowledged.
    pub bytes: u64,
}

impl Load {
    /// As fast as answers come, in batches of 64 KiB.
    pub fn full_speed(depth: usize, seconds: f64) -> Load {
        Load {
            partitions: 1,
            connections: 8,
            depth,
            batch: 64 << 10,
            codec: Codec::None,
            rate_mb: None,
            seconds,
            bytes: 0,
        }
    }

    /// A fixed rate in batches of 16 KiB.
    pub fn at_rate(depth: usize, rate_mb: f64, seconds: f64) -> Load {
        Load {
            batch: 16 << 10,
            rate_mb: Some(rate_mb),
            ..Load::full_speed(depth, seconds)
        }
    }
}

/// A load that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Which broker it was for.
    pub broker: String,
    /// What it was.
    pub name: String,
    /// Its start, in milliseconds since 1970.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
    /// Figures of the whole; none if the load was cut off, or if this is a part of one.
    pub summary: Option<Summary>,
    /// Why the load was cut off.
    pub error: Option<String>,
    /// Figures of each second.
    pub seconds: Vec<Second>,
}

impl Phase {
    /// Bytes acknowledged.
    pub fn bytes(&self) -> u64 {
        self.seconds.iter().map(|s| s.bytes).sum()
    }

    /// Millions of bytes a second.
    pub fn mb_per_second(&self) -> Option<f64> {
        let length: f64 = self.seconds.iter().map(|s| s.length).sum();
        (length > 0.0).then(|| self.bytes() as f64 / 1e6 / length)
    }

    /// The greatest of a figure over all seconds.
    pub fn worst(&self, figure: impl Fn(&Second) -> f64) -> Option<f64> {
        self.seconds.iter().map(figure).max_by(f64::total_cmp)
    }

    /// The median of a figure over the seconds that had an answer.
    pub fn typical(&self, figure: impl Fn(&Second) -> f64) -> Option<f64> {
        median(
            self.seconds
                .iter()
                .filter(|s| s.requests > 0)
                .map(figure)
                .collect(),
        )
    }

    /// The part between two times.
    pub fn part(&self, name: &str, from_ms: u64, to_ms: u64) -> Phase {
        let within = |second: &&Second| (from_ms..to_ms).contains(&second.at_ms);
        Phase {
            broker: self.broker.clone(),
            name: name.to_owned(),
            from_ms,
            to_ms,
            summary: None,
            error: self.error.clone(),
            seconds: self.seconds.iter().filter(within).cloned().collect(),
        }
    }
}

/// A load under way.
pub struct Running {
    process: Process,
    broker: &'static str,
    name: String,
    seconds_to: PathBuf,
    from_ms: u64,
    end: Instant,
}

impl Bench {
    /// Starts a load on a topic.
    pub fn start_load(
        &mut self,
        subject: &mut Subject,
        topic: &str,
        name: &str,
        load: &Load,
    ) -> anyhow::Result<Running> {
        let number = self.topic();
        let seconds_to = self.dir.join(format!("{number}.seconds"));
        let mut command = Command::new(&self.load);
        command
            .args(["produce", "--bootstrap", &subject.bootstrap(), "--topic", topic])
            .args(["--pid", &subject.pid()?.to_string(), "--warmup", "0"])
            .args(["--partitions", &load.partitions.to_string()])
            .args(["--connections", &load.connections.to_string()])
            .args(["--depth", &load.depth.to_string()])
            .args(["--batch", &load.batch.to_string()])
            .args(["--codec", load.codec.name()])
            .args(["--seconds", &load.seconds.to_string()])
            .args(["--bytes", &load.bytes.to_string()])
            .arg("--seconds-to")
            .arg(&seconds_to);
        if let Some(rate) = load.rate_mb {
            command.args(["--rate-mb", &rate.to_string()]);
        }
        // As long as `--bytes` may take.
        let longest = if load.bytes > 0 {
            load.seconds.max(600.0)
        } else {
            load.seconds
        };
        let process = Process::start("load", command, &self.dir.join(format!("{number}.log")))?;
        Ok(Running {
            process,
            broker: subject.name(),
            name: name.to_owned(),
            seconds_to,
            from_ms: now_ms(),
            end: Instant::now() + Duration::from_secs_f64(longest + END),
        })
    }

    /// Waits for the end of a load. One that fails still gives the seconds that it had.
    pub fn finish_load(&mut self, mut running: Running) -> anyhow::Result<Phase> {
        let error = loop {
            if let Some(status) = running.process.ended()? {
                break match status.success() {
                    true => None,
                    false => Some(running.process.printed()),
                };
            }
            if self.look_at_disk(FREE).is_err() {
                break Some(format!("less than {} GiB of the disk were free", FREE >> 30));
            }
            if Instant::now() > running.end {
                break Some("it did not end in its time".to_owned());
            }
            std::thread::sleep(LOOK);
        };
        running.process.kill9()?;
        let printed = running.process.printed();
        let summary = printed
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        let phase = Phase {
            broker: running.broker.to_owned(),
            name: running.name,
            from_ms: running.from_ms,
            to_ms: now_ms(),
            summary,
            error,
            seconds: seconds::read(&running.seconds_to)?,
        };
        self.say_phase(&phase);
        Ok(phase)
    }

    /// Runs a load from its start to its end.
    pub fn timed(
        &mut self,
        subject: &mut Subject,
        topic: &str,
        name: &str,
        load: &Load,
    ) -> anyhow::Result<Phase> {
        let running = self.start_load(subject, topic, name, load)?;
        self.finish_load(running)
    }

    fn say_phase(&mut self, phase: &Phase) {
        let figure = |value: Option<f64>| value.unwrap_or(f64::NAN);
        self.say(&format!(
            "{:<8} {}: {:.0} MB/s, longest pause {:.0} ms, p50 {:.2} ms (worst second {:.2}), p99 {:.2} ms (worst second {:.2})",
            phase.broker,
            phase.name,
            figure(phase.mb_per_second()),
            figure(phase.worst(|s| s.pause_ms)),
            figure(phase.typical(|s| s.latency.p50)),
            figure(phase.worst(|s| s.latency.p50)),
            figure(phase.typical(|s| s.latency.p99)),
            figure(phase.worst(|s| s.latency.p99)),
        ));
        if let Some(error) = &phase.error {
            self.note(format!("{}: {}: {error}", phase.broker, phase.name));
        }
        if let Some(summary) = phase.summary.as_ref().filter(|s| s.errors > 0) {
            let first = summary.first_error.as_deref().unwrap_or("?");
            self.note(format!(
                "{}: {}: {} requests failed, the first with {first}",
                phase.broker, phase.name, summary.errors
            ));
        }
    }
}
