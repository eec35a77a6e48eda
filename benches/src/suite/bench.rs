//! What all cases share: the plan, the folder, the rows that were measured, and how load is run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_tests::process;
use serde_json::{Value, json};

use crate::load::batches::Codec;
use crate::load::summary::Summary;
use crate::suite::plan::Plan;
use crate::suite::record::Output;
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, Row};

/// A comparison under way.
pub struct Bench {
    /// Sizes and lengths.
    pub plan: Plan,
    /// Where brokers keep their data.
    pub dir: PathBuf,
    /// The load generator's program.
    pub load: PathBuf,
    /// Figures so far.
    pub rows: Vec<Row>,
    /// Every run with all that it reported.
    pub runs: Vec<Value>,
    /// What a reader of the table must know.
    pub notes: Vec<String>,
    /// Requests and bytes by store, operation and reason, per GiB taken in.
    pub requests: Vec<Value>,
    /// Requests in flight for each connection.
    pub depth: usize,
    /// What the cases that run on several stores run on.
    pub store: &'static str,
    /// Where cases over time write their pages.
    pub output: Output,
    free_at_start: u64,
    least_free: u64,
    topics: u32,
    began: Instant,
}

/// One run of produce load.
#[derive(Clone, Debug)]
pub struct Produce {
    /// Bytes of a batch.
    pub batch: usize,
    /// Bytes of a record.
    pub record: usize,
    /// Codec.
    pub codec: Codec,
    /// Requests a second; as fast as possible without.
    pub rate: Option<f64>,
    /// Window.
    pub seconds: f64,
    /// Bytes to send at least.
    pub bytes: u64,
    /// Longest window.
    pub max_seconds: f64,
    /// Time before the window.
    pub warmup: f64,
}

/// One run of fetch load.
#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    /// First offset.
    pub from: i64,
    /// Offset behind the last.
    pub to: i64,
    /// Window; once through the range without.
    pub seconds: Option<f64>,
}

/// The store that goals are for.
const LOCAL: &str = "local";

impl Bench {
    /// A comparison that keeps its data below `dir`.
    pub fn new(plan: Plan, dir: &Path, load: &Path) -> anyhow::Result<Bench> {
        let free = free_bytes(dir)?;
        Ok(Bench {
            plan,
            dir: dir.to_owned(),
            load: load.to_owned(),
            rows: Vec::new(),
            runs: Vec::new(),
            notes: Vec::new(),
            requests: Vec::new(),
            depth: 5,
            store: LOCAL,
            output: Output::default(),
            free_at_start: free,
            least_free: free,
            topics: 0,
            began: Instant::now(),
        })
    }

    /// Says what is going on.
    pub fn say(&self, what: &str) {
        println!("[{:>6.1} s] {what}", self.began.elapsed().as_secs_f64());
    }

    /// Something that a reader must know.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        self.say(&format!("note: {note}"));
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds a figure.
    pub fn row(&mut self, at: (&str, &str, &str), ours: Option<f64>, peer: Option<f64>, goals: &[Goal]) {
        let (store, case, measure) = at;
        self.rows.push(Row {
            store: store.to_owned(),
            case: case.to_owned(),
            measure: measure.to_owned(),
            ours,
            peer,
            goals: goals.to_vec(),
        });
    }

    /// Adds a figure of a group of cases that runs on several stores: goals are for the local directory.
    pub fn stored(
        &mut self,
        (case, measure): (&str, &str),
        ours: Option<f64>,
        peer: Option<f64>,
        goals: &[Goal],
    ) {
        let goals = if self.store == LOCAL { goals } else { &[] };
        self.row((self.store, case, measure), ours, peer, goals);
    }

    /// A topic name that was not used before.
    pub fn topic(&mut self) -> String {
        self.topics += 1;
        format!("bench-{:03}", self.topics)
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Most disk in use at any look, beyond what was in use at the start.
    pub fn disk_used(&self) -> u64 {
        self.free_at_start.saturating_sub(self.least_free)
    }

    /// Looks at the disk; an error when it is about to fill up.
    pub fn look_at_disk(&mut self, needed: u64) -> anyhow::Result<()> {
        let free = free_bytes(&self.dir)?;
        self.least_free = self.least_free.min(free);
        if free < needed {
            bail!("only {} GiB are free in {}", free >> 30, self.dir.display());
        }
        Ok(())
    }

    /// Neither broker shall pay for pages that the other has left to be written.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        self.look_at_disk(3 << 30)?;
        rustix::fs::sync();
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    /// Sends load to a topic; the run is recorded under `case`.
    pub fn produce(
        &mut self,
        subject: &mut Subject,
        topic: &str,
        case: &str,
        load: &Produce,
    ) -> anyhow::Result<Summary> {
        let mut command = Command::new(&self.load);
        let pid = subject.pid()?.to_string();
        command
            .args([
                "produce",
                "--bootstrap",
                &subject.bootstrap(),
                "--topic",
                topic,
                "--pid",
                &pid,
            ])
            .args([
                "--batch",
                &load.batch.to_string(),
                "--record",
                &load.record.to_string(),
            ])
            .args(["--codec", load.codec.name(), "--bytes", &load.bytes.to_string()])
            .args(["--depth", &self.depth.to_string()])
            .args([
                "--warmup",
                &load.warmup.to_string(),
                "--seconds",
                &load.seconds.to_string(),
            ])
            .args(["--max-seconds", &load.max_seconds.to_string()]);
        if let Some(rate) = load.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let patience = load.warmup + load.max_seconds.max(load.seconds) + 90.0;
        self.measured(subject.name(), case, command, patience)
    }

    /// Fetches from a topic.
    pub fn fetch(
        &mut self,
        subject: &mut Subject,
        topic: &str,
        case: &str,
        load: Fetch,
    ) -> anyhow::Result<Summary> {
        let mut command = Command::new(&self.load);
        let pid = subject.pid()?.to_string();
        command
            .args([
                "fetch",
                "--bootstrap",
                &subject.bootstrap(),
                "--topic",
                topic,
                "--pid",
                &pid,
            ])
            .args(["--from", &load.from.to_string(), "--to", &load.to.to_string()]);
        if let Some(seconds) = load.seconds {
            command.args(["--seconds", &seconds.to_string(), "--warmup", "1"]);
        }
        self.measured(
            subject.name(),
            case,
            command,
            load.seconds.unwrap_or(240.0) + 60.0,
        )
    }

    /// Runs a command of the load generator and reads its figures.
    pub fn measured(
        &mut self,
        who: &str,
        case: &str,
        command: Command,
        patience: f64,
    ) -> anyhow::Result<Summary> {
        let output = process::run(command, Duration::from_secs_f64(patience))
            .with_context(|| format!("{who}: {case}"))?;
        let summary: Summary = serde_json::from_str(output.stdout.trim())
            .with_context(|| format!("{who}: {case}: {}", output.stdout))?;
        self.say(&format!(
            "{who:<8} {case}: {:.0} MB/s, {:.2} CPU-s/GB (client {:.2}), p50 {:.2} p99 {:.2} p999 {:.2} ms, RSS {} MB",
            summary.mb_per_second(),
            summary.cpu_per_gb(),
            summary.client_cpu_seconds / (summary.bytes as f64 / 1e9),
            summary.latency.p50,
            summary.latency.p99,
            summary.latency.p999,
            summary.rss_max / 1_000_000,
        ));
        if summary.errors > 0 {
            let first = summary.first_error.as_deref().unwrap_or("?");
            self.note(format!(
                "{who}: {case}: {} requests failed, the first with {first}",
                summary.errors
            ));
        }
        self.runs
            .push(json!({"broker": who, "case": case, "summary": summary}));
        Ok(summary)
    }
}

/// Bytes that are free to us on the disk of a folder.
fn free_bytes(dir: &Path) -> anyhow::Result<u64> {
    let stat = rustix::fs::statvfs(dir).with_context(|| dir.display().to_string())?;
    Ok(stat.f_bavail * stat.f_frsize)
}
