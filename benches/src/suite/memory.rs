//! The memory soak: steady load on MinIO for hours, while topics and groups come and go.
//!
//! One process is looked at all the time, so the soak cannot be cut into slices or go on after it was cut off. How long
//! it takes is a parameter. It fails when memory grows after its first 20 minutes, and when the metrics page accounts for
//! less than 80 % or more than 120 % of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_tests::broker::Options;
use drumlin_tests::client::Connection;
use drumlin_tests::stores::Minio;
use drumlin_wire::messages::delete_groups_request::DeleteGroupsRequest;
use serde_json::{Map, Value, json};

use crate::load::group::{Group, Protocol, scenes};
use crate::suite::bench::Bench;
use crate::suite::plan::Plan;
use crate::suite::subject::Subject;
use crate::suite::table::median;
use crate::suite::timed::{Load, Phase};
use crate::suite::watch::{Sample, Watch};
use crate::suite::{REMOTE_DEPTH, charts};

const PARTITIONS: i32 = 6;
const CONNECTIONS: usize = 12;
/// MB/s, in batches of 16 KiB.
const RATE: f64 = 5.0;
/// How often a topic and a group come and go.
const EVERY: Duration = Duration::from_secs(10);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What the first minutes need: caches fill, the first rounds run.
const WARM_MS: u64 = 20 * 60 * 1_000;
/// Memory stays flat if its median in the last quarter is at most so much above that of the first quarter after warm-up.
const GROWTH: f64 = 1.1;
/// How far the metrics page's sum may be from the resident memory.
const UNEXPLAINED: f64 = 0.2;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it, draws the picture, and prints figures as `cargo xtask soak` reads them.
pub fn soak(dir: &Path, load: &Path, seconds: u64, picture: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let scratch = tempfile::Builder::new().prefix("memory-").tempdir_in(dir)?;
    let mut bench = Bench::new(Plan::full(), scratch.path(), load)?;
    let minio = Minio::start(scratch.path())?;
    let options = Options::on(&scratch.path().join("drumlin"), minio.store("soak"))
        .set("log.retention.check.interval.ms", 5_000);
    let mut subject = Subject::drumlin(options)?;
    subject.start()?;
    let run = run(&mut bench, &mut subject, seconds)?;

    let mut figures = run.figures();
    let notes = vec![
        "MinIO; 5 MB/s in batches of 16 KiB over six partitions, acks=all; every ten seconds a topic and a group come and go.".to_owned(),
    ];
    let drawn = charts::memory("Resident memory under steady load", notes, &run.samples);
    if let Some(folder) = picture.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(picture, drawn.to_svg()).with_context(|| picture.display().to_string())?;
    if let Some(name) = picture.file_name() {
        let name = name.to_string_lossy();
        figures.insert(
            "picture".to_owned(),
            json!(format!("![resident memory over time]({name})")),
        );
    }
    let looks = dir.join("memory-samples.json");
    std::fs::write(&looks, serde_json::to_string(&run.samples)?)?;
    println!("every look is in {}", looks.display());
    println!("SOAK {}", Value::Object(figures));
    run.judge()
}

/// What one run saw.
struct Run {
    samples: Vec<Sample>,
    phase: Phase,
    came_and_went: u64,
}

fn run(bench: &mut Bench, subject: &mut Subject, seconds: u64) -> anyhow::Result<Run> {
    let topic = bench.topic();
    // Small, so that retention is at work and the disk is not filled.
    let keep = [("retention.ms", "-1"), ("retention.bytes", "134217728")];
    subject.create_topic(&topic, PARTITIONS, &keep)?;
    let watch = Watch::start(subject, LOOK, true)?;
    let load = Load {
        partitions: PARTITIONS,
        connections: CONNECTIONS,
        ..Load::at_rate(REMOTE_DEPTH, RATE, seconds as f64)
    };
    let running = bench.start_load(subject, &topic, "5 MB/s", &load)?;
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let bootstrap = subject.bootstrap();
    let (phase, visits) = std::thread::scope(|scope| {
        let visitor = scope.spawn(|| come_and_go(&bootstrap, &stop, &count));
        let phase = bench.finish_load(running);
        stop.store(true, Ordering::Relaxed);
        (phase, visitor.join())
    });
    let samples = watch.finish();
    visits.map_err(|_| anyhow::anyhow!("the visitor panicked"))??;
    let phase = phase?;
    if let Some(error) = &phase.error {
        bail!("the load was cut off after {} looks: {error}", samples.len());
    }
    Ok(Run {
        samples,
        phase,
        came_and_went: count.load(Ordering::Relaxed),
    })
}

/// A topic is created and written to, a group reads it, both are deleted; again and again, until told to stop.
fn come_and_go(bootstrap: &str, stop: &AtomicBool, count: &AtomicU64) -> anyhow::Result<()> {
    let mut connection = Connection::open(bootstrap, PATIENCE)?;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let number = count.fetch_add(1, Ordering::Relaxed);
        let name = format!("visitor-{number}");
        visit(&mut connection, bootstrap, &name).with_context(|| name.clone())?;
        while began.elapsed() < EVERY && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn visit(connection: &mut Connection, bootstrap: &str, name: &str) -> anyhow::Result<()> {
    connection.create_topic(name, 1, &[])?;
    connection.produce_surely(name, 0, &["a", "b", "c"])?;
    let group = Group {
        bootstrap: bootstrap.to_owned(),
        name: name.to_owned(),
        topic: name.to_owned(),
        partitions: 1,
        protocol: Protocol::Consumer,
        session: Duration::from_secs(45),
        heartbeat: Duration::from_secs(3),
    };
    scenes::join(&group, 1)?;
    let delete = DeleteGroupsRequest {
        groups_names: vec![name.into()],
        ..Default::default()
    };
    let answer = connection.call(&delete, 2)?;
    match answer.results.first().map(|r| r.error_code) {
        Some(0) => {}
        other => bail!("the group was not deleted: {other:?}"),
    }
    let subject = drumlin_wire::messages::delete_topics_request::DeleteTopicsRequest {
        topic_names: vec![name.into()],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let answer = connection.call(&subject, 5)?;
    match answer.responses.first().map(|r| r.error_code) {
        Some(0) => Ok(()),
        other => bail!("the topic was not deleted: {other:?}"),
    }
}

impl Run {
    /// Samples after the first minutes, if the run was longer than those.
    fn warm(&self) -> &[Sample] {
        let begin = self.samples.first().map_or(0, |s| s.at_ms);
        let at = self.samples.partition_point(|s| s.at_ms < begin + WARM_MS);
        self.samples.get(at..).unwrap_or_default()
    }

    /// The median of memory in the first quarter after warm-up, and in the last.
    fn quarters(&self) -> Option<(f64, f64)> {
        let warm = self.warm();
        let quarter = warm.len() / 4;
        let middle = |samples: &[Sample]| median(samples.iter().map(|s| s.rss as f64).collect());
        Some((
            middle(warm.get(..quarter)?)?,
            middle(warm.get(warm.len() - quarter..)?)?,
        ))
    }

    /// The median of what the metrics page accounts for, as a part of resident memory.
    fn explained(&self) -> Option<f64> {
        let samples = match self.warm() {
            [] => &self.samples,
            warm => warm,
        };
        let parts = samples.iter().filter_map(|s| Some(s.explained()? / s.rss as f64));
        median(parts.collect())
    }

    fn figures(&self) -> Map<String, Value> {
        let mb = |bytes: f64| (bytes / 1e5).round() / 10.0;
        let part = |part: f64| (part * 100.0).round() / 100.0;
        let rss = self.samples.iter().map(|s| s.rss as f64);
        let last = self.samples.last();
        let gb = self.phase.bytes() as f64 / 1e9;
        let mut figures = Map::new();
        let mut put = |name: &str, value: Option<f64>| {
            if let Some(value) = value {
                figures.insert(name.to_owned(), json!(value));
            }
        };
        put("max_resident_mb", rss.max_by(f64::total_cmp).map(mb));
        put("resident_mb_at_the_end", last.map(|s| mb(s.rss as f64)));
        put(
            "without_a_file_mb_at_the_end",
            last.and_then(|s| s.anonymous).map(|b| mb(b as f64)),
        );
        put(
            "median_mb_after_20_minutes_first_quarter",
            self.quarters().map(|q| mb(q.0)),
        );
        put(
            "median_mb_after_20_minutes_last_quarter",
            self.quarters().map(|q| mb(q.1)),
        );
        put(
            "part_that_the_metrics_page_accounts_for",
            self.explained().map(part),
        );
        put("gb_produced", Some(part(gb)));
        put("cpu_seconds_a_gb", last.map(|s| part(s.cpu_seconds / gb)));
        put(
            "page_faults_a_mb",
            last.map(|s| part(s.page_faults as f64 / (gb * 1e3))),
        );
        put(
            "bytes_put_a_byte",
            last.and_then(|s| s.metric("put_bytes"))
                .map(|b| part(b / (gb * 1e9))),
        );
        let latency = self.phase.summary.as_ref().map(|s| s.latency);
        put("p50_ms", latency.map(|l| l.p50));
        put("p99_ms", latency.map(|l| l.p99));
        put("max_pause_ms", self.phase.worst(|s| s.pause_ms).map(f64::round));
        put(
            "topics_and_groups_that_came_and_went",
            Some(self.came_and_went as f64),
        );
        figures
    }

    /// An error if memory grew, or is not accounted for. Nothing is said of a run that was over before caches had filled.
    fn judge(&self) -> anyhow::Result<()> {
        let Some((first, last)) = self.quarters() else {
            println!("the run is too short to tell whether memory grows after its first 20 minutes");
            return Ok(());
        };
        if last > first * GROWTH {
            bail!("memory grew from {first:.0} to {last:.0} bytes after its first 20 minutes");
        }
        match self.explained() {
            Some(part) if (part - 1.0).abs() <= UNEXPLAINED => Ok(()),
            Some(part) => bail!(
                "the metrics page accounts for {:.0} % of resident memory",
                part * 100.0
            ),
            None => bail!("the metrics page was never read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(memory: &[(u64, u64)], explained: f64) -> Run {
        let sample = |&(minute, mb): &(u64, u64)| Sample {
            at_ms: minute * 60_000,
            rss: mb * 1_000_000,
            metrics: [("drumlin_x_memory_bytes".to_owned(), mb as f64 * 1e6 * explained)].into(),
            ..Sample::default()
        };
        Run {
            samples: memory.iter().map(sample).collect(),
            phase: Phase {
                broker: String::new(),
                name: String::new(),
                from_ms: 0,
                to_ms: 0,
                summary: None,
                error: None,
                seconds: Vec::new(),
            },
            came_and_went: 0,
        }
    }

    #[test]
    fn growth_after_the_first_minutes_fails() {
        let at_first = (0..20).map(|m| (m, 100 + m * 5));
        let flat: Vec<(u64, u64)> = at_first.clone().chain((20..120).map(|m| (m, 200))).collect();
        let grows: Vec<(u64, u64)> = at_first.chain((20..120).map(|m| (m, 180 + m))).collect();
        assert!(run_of(&flat, 0.9).judge().is_ok());
        assert!(run_of(&flat, 0.5).judge().is_err());
        assert!(run_of(&grows, 0.9).judge().is_err());
    }
}
