//! The comparison with one Apache Kafka node: every case on both, in alternation.
//!
//! [`run`] goes through the groups of cases: the local directory, consumer groups and compaction, starts, sizes, MinIO, and memory with slow puts.
//! [`subject`] starts the brokers, [`bench`] runs load and gathers figures, [`table`] holds the goals against them.
//! What a case measures stands in [`produce`], [`consume`], [`tools`], [`sizes`], [`groups`], [`groups_read`],
//! [`compaction`] and [`validation`]; [`plan`] says how long.
//!
//! [`sustained`], [`deletion`], [`rounds`] and [`minio_cost`] run over time: their loads are [`timed`], [`watch`] looks at
//! the broker meanwhile, and each writes a [`record`] with a picture, whose panels are in [`charts`]. [`memory`] is a soak.

pub mod bench;
pub mod charts;
pub mod compaction;
pub mod consume;
pub mod deletion;
pub mod groups;
pub mod groups_read;
pub mod memory;
pub mod metrics;
pub mod minio_cost;
pub mod plan;
pub mod produce;
pub mod record;
pub mod report;
pub mod rounds;
pub mod sizes;
pub mod subject;
pub mod sustained;
pub mod table;
pub mod timed;
pub mod tools;
pub mod validation;
pub mod watch;

use std::path::{Path, PathBuf};

use anyhow::Context;
use drumlin_tests::broker::Options;
use drumlin_tests::stores::Minio;
use serde_json::Value;

use crate::load::summary::Summary;
use crate::suite::bench::Bench;
use crate::suite::plan::Plan;
use crate::suite::produce::MAIN;
use crate::suite::subject::{Memory, Subject};

/// What is to be compared, and where figures go.
#[derive(Debug)]
pub struct Request {
    /// Within ten minutes.
    pub quick: bool,
    /// Groups to run; all without.
    pub only: Vec<String>,
    /// Leave our broker out, to try the comparison itself.
    pub kafka_only: bool,
    /// The load generator's program.
    pub load: PathBuf,
    /// For brokers' data.
    pub dir: PathBuf,
    /// For figures.
    pub results: PathBuf,
    /// The commit that is measured.
    pub commit: String,
    /// What is known of the machine.
    pub machine: Value,
    /// Another length of the main part of cases over time.
    pub minutes: Option<f64>,
    /// Goes into the names of files.
    pub label: Option<String>,
    /// Said on the pages of cases over time.
    pub remark: Option<String>,
}

type Group = fn(&mut Bench, &Path, bool) -> anyhow::Result<()>;

/// The groups, by name.
const GROUPS: [(&str, Group); 16] = [
    ("local", local),
    ("tools", tools),
    ("groups", groups),
    ("starts", starts),
    ("many", many),
    ("minio", minio),
    ("memory", memory),
    (GROUPS_ON_MINIO, groups_on_minio),
    ("validation", |bench, dir, _| bench.validation(dir)),
    ("sustained", |bench, dir, kafka_only| {
        bench.sustained(dir, kafka_only)
    }),
    ("sustained-minio", |bench, dir, kafka_only| {
        bench.sustained_minio(dir, kafka_only)
    }),
    ("turns", |bench, dir, kafka_only| bench.turns(dir, kafka_only)),
    ("delete-topic", |bench, dir, _| bench.delete_topic_local(dir)),
    ("delete-topic-minio", |bench, dir, _| {
        bench.delete_topic_minio(dir)
    }),
    ("tool-rounds", |bench, dir, kafka_only| {
        bench.tool_rounds(dir, kafka_only)
    }),
    ("minio-cost", |bench, dir, _| bench.minio_cost(dir)),
];
/// Reported only: a quick run leaves it out unless it is asked for.
const GROUPS_ON_MINIO: &str = "groups-minio";
/// Groups that run over time, from here on in the list: they run only when they are asked for.
const ON_REQUEST: &str = "sustained";

fn is_on_request(name: &str) -> bool {
    let place = |wanted: &str| GROUPS.iter().position(|(name, _)| *name == wanted);
    place(name) >= place(ON_REQUEST)
}

/// Which groups a run has.
fn is_wanted(request: &Request, name: &str) -> bool {
    match request.only.is_empty() {
        true => !is_on_request(name) && (!request.quick || name != GROUPS_ON_MINIO),
        false => request.only.iter().any(|o| o == name),
    }
}

/// Runs the groups and writes the figures.
pub fn run(request: &Request) -> anyhow::Result<()> {
    if let Some(unknown) = request
        .only
        .iter()
        .find(|o| !GROUPS.iter().any(|(name, _)| name == o))
    {
        anyhow::bail!(
            "no group is called {unknown:?}; there are {}",
            GROUPS.map(|(name, _)| name).join(", ")
        );
    }
    std::fs::create_dir_all(&request.dir)?;
    // Gone at the end, whatever happens; brokers die with this process.
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&request.dir)?;
    let plan = if request.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    let mut bench = Bench::new(plan, scratch.path(), &request.load)?;
    if let Some(minutes) = request.minutes {
        bench.plan.over_time.last(minutes);
    }
    bench.output = report::output(request, &bench);
    let disk = report::disk_speed(scratch.path())?;
    bench.say(&format!("the disk takes {disk:.0} MB/s at first write, buffered"));
    if request.quick {
        bench.note(
            "in runs this short Kafka writes to the page cache and hardly to the disk, while ours is durable",
        );
    }
    for (name, group) in GROUPS {
        if !is_wanted(request, name) {
            continue;
        }
        let needed = match is_on_request(name) {
            true => bench.plan.disk_needed_over_time(),
            false => bench.plan.disk_needed(),
        };
        bench.look_at_disk(needed)?;
        let dir = scratch.path().join(name);
        std::fs::create_dir_all(&dir)?;
        bench.say(&format!("== {name}"));
        if let Err(error) = group(&mut bench, &dir, request.kafka_only) {
            bench.note(format!("the group {name} ended early: {error:#}"));
            report::keep_logs(&dir, &request.dir.join("logs").join(name))?;
        }
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        // A run that is cut off leaves what it has.
        report::write(&bench, request, disk)?;
    }
    let page = report::write(&bench, request, disk)?;
    println!("\n{}", report::page(&bench, request, disk));
    println!("figures in {}", page.display());
    Ok(())
}

/// Ours on a store, with the plan's settings.
fn ours(bench: &Bench, options: Options) -> anyhow::Result<Subject> {
    let options = bench
        .plan
        .settings
        .iter()
        .fold(options, |o, (key, value)| o.set(key, value));
    Subject::drumlin(options)
}

/// Kafka first, then ours, both running.
fn both(bench: &Bench, dir: &Path, options: Options, kafka_only: bool) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = vec![Subject::kafka(&dir.join("kafka"))?];
    if !kafka_only {
        subjects.push(ours(bench, options)?);
    }
    for subject in &mut subjects {
        subject.start()?;
    }
    Ok(subjects)
}

fn local(bench: &mut Bench, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
    let mut subjects = both(bench, dir, Options::local(&dir.join("drumlin")), kafka_only)?;
    bench.idle("local", &mut subjects)?;
    bench.warm_up(&mut subjects)?;
    let main = bench.peaks("local", &mut subjects, None)?;
    if let Some(kafka) = subjects.first_mut() {
        bench.flushed(kafka, &main)?;
    }
    let half = lower_half(&main);
    bench.latencies("local", &mut subjects, half)?;
    if let Some(ours) = subjects.get_mut(1) {
        bench.store_requests("local", ours)?;
    }
    bench.loaded("local", &mut subjects)?;
    bench.consume("local", &mut subjects)
}

/// Half of what the slower one can do, in MB/s.
fn lower_half(main: &produce::Pair) -> Option<f64> {
    let (ours, kafka) = main.medians(Summary::mb_per_second);
    let lower = ours.into_iter().chain(kafka).min_by(f64::total_cmp)?;
    Some(lower / 2.0)
}

fn tools(bench: &mut Bench, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
    let mut subjects = both(bench, dir, Options::local(&dir.join("drumlin")), kafka_only)?;
    bench.warm_up(&mut subjects)?;
    bench.producer_tool(&mut subjects)?;
    bench.consumer_tool(&mut subjects)
}

fn groups(bench: &mut Bench, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
    groups_on(bench, dir, Options::local(&dir.join("drumlin")), kafka_only)
}

/// Puts cost nothing there, so none waits for another.
fn groups_on_minio(bench: &mut Bench, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
    bench.store = "minio, linger 2 ms";
    let minio = Minio::start(dir)?;
    let options = Options::on(&dir.join("drumlin"), minio.store("bench")).set("wal.linger.max.ms", 2);
    groups_on(bench, dir, options, kafka_only)
}

fn groups_on(bench: &mut Bench, dir: &Path, options: Options, kafka_only: bool) -> anyhow::Result<()> {
    let mut subjects = both(bench, dir, options, kafka_only)?;
    bench.joins_by_default(&mut subjects)?;
    for subject in &mut subjects {
        subject.reconfigure(&groups::without_waits())?;
        subject.stop()?;
        subject.start()?;
    }
    bench.joins_without_waits(&mut subjects)?;
    bench.rebalances(&mut subjects)?;
    bench.commits(&mut subjects)?;
    bench.grouped(&mut subjects)?;
    bench.compaction(&mut subjects)?;
    bench.coordinator_loads(&mut subjects)
}

fn starts(bench: &mut Bench, dir: &Path, _: bool) -> anyhow::Result<()> {
    bench.starts(dir)
}

fn many(bench: &mut Bench, dir: &Path, _: bool) -> anyhow::Result<()> {
    bench.many(dir)
}

/// An answer takes a put's time, and those are few where each costs money: only many requests under way make a rate.
const REMOTE_DEPTH: usize = 64;

fn minio(bench: &mut Bench, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
    bench.depth = REMOTE_DEPTH;
    let minio = Minio::start(dir)?;
    let options = Options::on(&dir.join("drumlin"), minio.store("bench"));
    let mut subjects = both(bench, dir, options, kafka_only)?;
    bench.idle("minio", &mut subjects)?;
    bench.warm_up(&mut subjects)?;
    let main = bench.peaks("minio", &mut subjects, Some(&[MAIN]))?;
    bench.latencies("minio", &mut subjects, lower_half(&main))?;
    if let Some(ours) = subjects.get_mut(1) {
        bench.store_requests("minio", ours)?;
    }
    bench.loaded("minio", &mut subjects)?;
    if let Some(ours) = subjects.get_mut(1) {
        bench.consume("minio", std::slice::from_mut(ours))?;
    }
    Ok(())
}

fn memory(bench: &mut Bench, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
    bench.depth = REMOTE_DEPTH;
    let store = "memory, 30 ms puts";
    // What was uploaded stays for a grace period: keep the whole of it well below the machine's memory.
    bench.plan.peak_bytes = 0;
    bench.plan.peak_seconds = 4.0;
    bench.plan.peak_max_seconds = 4.0;
    bench.plan.remote_bytes = 0;
    for (seconds, most) in bench.plan.rate_seconds.iter_mut().zip([10.0, 10.0, 5.0]) {
        *seconds = seconds.min(most);
    }
    let options = Options::on(&dir.join("drumlin"), Memory).set("drumlin.test.store.put.ms", 30);
    // The same load on Kafka's same disk: a quick run that has it under MinIO does not run it again.
    let again = !bench.plan.quick || kafka_only || bench.rows.iter().all(|row| row.store != "minio");
    let mut subjects = match again {
        true => both(bench, dir, options, kafka_only)?,
        false => {
            bench.note("in a quick run Kafka's figures for memory are those for minio: neither is its store");
            let mut ours = ours(bench, options)?;
            ours.start()?;
            vec![ours]
        }
    };
    let main = bench.peaks(store, &mut subjects, Some(&[MAIN]))?;
    bench.latencies(store, &mut subjects, lower_half(&main))?;
    if let Some(ours) = subjects.iter_mut().find(|subject| subject.is_ours()) {
        bench.store_requests(store, ours)?;
    }
    Ok(())
}
