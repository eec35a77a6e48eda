//! `cargo xtask bench`: builds the broker and the load generator, then has `drumlin-bench` compare with Apache Kafka.
//!
//! The comparison itself is `benches/src/suite`. The broker is built alone: built together with the tests' harness it
//! would get the features that only tests turn on.

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;

use crate::cache::{Cache, repository};
use crate::command::run_watched;
use crate::{install, results, suite};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// A shorter run, at most ten minutes.
    #[arg(long)]
    quick: bool,
    /// Run one group of cases only: local, tools, groups, starts, many, minio, memory, groups-minio, validation, and those
    /// that run only on request: sustained, sustained-minio, turns, delete-topic, delete-topic-minio, tool-rounds, minio-cost.
    #[arg(long)]
    only: Vec<String>,
    /// Another length of the main part of the cases that run over time.
    #[arg(long)]
    minutes: Option<f64>,
    /// Goes into the names of the files with figures, such as `before`.
    #[arg(long)]
    label: Option<String>,
    /// Said on the pages of cases that run over time.
    #[arg(long)]
    remark: Option<String>,
    /// Measure this program instead of building the broker; `DRUMLIN_BIN` in the environment does the same.
    #[arg(long)]
    broker: Option<PathBuf>,
    /// The commit that the broker was built from, if it is not the one that is checked out.
    #[arg(long)]
    commit: Option<String>,
    /// Take what is in the cache as it is.
    #[arg(long)]
    no_install: bool,
    /// Where brokers keep their data, on the disk that is to be measured; `bench` in the cache without.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Builds what is needed and runs the comparison.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let cache = Cache::open()?;
    if !options.no_install {
        install::run(&cache)?;
    }
    // An explicit path is for measuring a build of another commit.
    let broker = match &options.broker {
        Some(path) => std::path::absolute(path)?,
        None => suite::build_broker(true)?,
    };
    let mut bench = Command::new(build()?);
    bench
        .current_dir(repository())
        .env("DRUMLIN_CACHE", cache.root())
        .env("DRUMLIN_BIN", broker)
        .args([
            "--commit",
            &options.commit.clone().unwrap_or_else(results::commit),
        ])
        .args(["--machine", &results::machine().to_string()]);
    if options.quick {
        bench.arg("--quick");
    }
    for group in &options.only {
        bench.args(["--only", group]);
    }
    if let Some(dir) = &options.dir {
        bench.arg("--dir").arg(std::path::absolute(dir)?);
    }
    if let Some(minutes) = options.minutes {
        bench.args(["--minutes", &minutes.to_string()]);
    }
    for (name, value) in [("--label", &options.label), ("--remark", &options.remark)] {
        bench.args(value.iter().flat_map(|value| [name, value.as_str()]));
    }
    let status = bench.status()?;
    if !status.success() {
        bail!("the comparison ended with {status}");
    }
    Ok(())
}

/// Builds the load generator and the comparison; where the latter is.
fn build() -> anyhow::Result<PathBuf> {
    println!("bench: building the load generator");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(repository()).args([
        "build",
        "--release",
        "--package",
        "drumlin-benches",
        "--bins",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let mut executable = None;
    let status = run_watched(&mut build, |line| {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
            return;
        };
        if message["target"]["name"] == "drumlin-bench"
            && let Some(path) = message["executable"].as_str()
        {
            executable = Some(PathBuf::from(path));
        }
    })?;
    match executable {
        Some(path) if status.success() => Ok(path),
        _ => bail!("the load generator did not build"),
    }
}
