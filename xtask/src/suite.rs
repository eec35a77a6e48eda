//! `cargo xtask test`: the everyday suite, part by part, and its one-line verdict.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cache::{Cache, repository};
use crate::command::run_watched;
use crate::{codegen, install};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Run one part only: `unit`, `codegen`, `harness`, or a file of tests/tests without its ending.
    #[arg(long)]
    only: Vec<String>,
    /// Take what is in the cache as it is.
    #[arg(long)]
    no_install: bool,
    /// Run the end-to-end tests against a release build of the broker.
    #[arg(long)]
    release: bool,
    /// Run the end-to-end tests against Apache Kafka itself, to try the tests out.
    #[arg(long)]
    against_kafka: bool,
    /// Name the parts and stop.
    #[arg(long)]
    list: bool,
}

/// How one part ended.
struct Outcome {
    name: String,
    passed: u64,
    failed: u64,
    took: Duration,
}

/// Runs the suite; an error if anything in it failed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    let parts = parts()?;
    if options.list {
        parts.iter().for_each(|part| println!("{part}"));
        return Ok(());
    }
    if let Some(unknown) = options.only.iter().find(|name| !parts.contains(name)) {
        bail!("no part is called {unknown:?}; there are {}", parts.join(", "));
    }
    let cache = Cache::open()?;
    if !options.no_install {
        install::run(&cache)?;
    }
    let mut outcomes = Vec::new();
    let mut broker = None;
    for part in parts
        .iter()
        .filter(|p| options.only.is_empty() || options.only.contains(p))
    {
        println!("\ntest: {part}");
        let began = Instant::now();
        let (passed, failed) = match part.as_str() {
            "unit" => unit()?,
            "codegen" => generated_code(),
            file => {
                if broker.is_none() && !options.against_kafka {
                    broker = Some(build_broker(options.release)?);
                }
                end_to_end(&cache, broker.as_deref(), file)?
            }
        };
        outcomes.push(Outcome {
            name: part.clone(),
            passed,
            failed,
            took: began.elapsed(),
        });
    }
    report(&outcomes, started.elapsed())
}

/// All parts in the order in which they run: quick ones first.
fn parts() -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(repository().join("tests/tests")).context("tests/tests")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            files.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
        }
    }
    files.sort();
    let first = ["unit", "codegen", "harness"].map(str::to_owned);
    Ok(first.into_iter().chain(files).collect())
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository());
    cargo
}

fn unit() -> anyhow::Result<(u64, u64)> {
    counted(cargo().args([
        "test",
        "--workspace",
        "--exclude",
        "drumlin-tests",
        "--no-fail-fast",
    ]))
}

fn generated_code() -> (u64, u64) {
    match codegen::run(true) {
        Ok(()) => {
            println!("the checked-in codec is what the schemas generate");
            (1, 0)
        }
        Err(e) => {
            println!("FAILED: {e:#}");
            (0, 1)
        }
    }
}

/// Builds the broker once for all end-to-end files; returns where it is. With
/// `DRUMLIN_BIN` in the environment that one is taken, and nothing is built.
pub fn build_broker(release: bool) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("DRUMLIN_BIN") {
        return Ok(path.into());
    }
    println!(
        "test: building the broker ({})",
        if release { "release" } else { "dev" }
    );
    let mut build = cargo();
    build.args([
        "build",
        "--package",
        "drumlin",
        "--message-format",
        "json-render-diagnostics",
    ]);
    if release {
        build.arg("--release");
    }
    let mut executable = None;
    let status = run_watched(&mut build, |line| {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
            return;
        };
        if message["target"]["name"] == "drumlin"
            && let Some(path) = message["executable"].as_str()
        {
            executable = Some(PathBuf::from(path));
        }
    })?;
    match executable {
        Some(path) if status.success() => Ok(path),
        _ => bail!("the broker did not build"),
    }
}

fn end_to_end(cache: &Cache, broker: Option<&Path>, file: &str) -> anyhow::Result<(u64, u64)> {
    let mut test = cargo();
    test.env("DRUMLIN_CACHE", cache.root())
        .args(["test", "--package", "drumlin-tests", "--no-fail-fast"]);
    match broker {
        Some(path) => test.env("DRUMLIN_BIN", path),
        None => test.env("DRUMLIN_TEST_BROKER", "kafka"),
    };
    match file {
        "harness" => test.arg("--lib"),
        _ => test.args(["--test", file]),
    };
    counted(&mut test)
}

/// Runs a `cargo test`, shows what it prints, and adds up its verdicts. One that
/// fails without any (it did not build, or a test process was killed) counts as one failure.
fn counted(test: &mut Command) -> anyhow::Result<(u64, u64)> {
    let (mut passed, mut failed) = (0, 0);
    let status = run_watched(test, |line| {
        println!("{line}");
        if let Some((p, f)) = verdict(line) {
            passed += p;
            failed += f;
        }
    })?;
    if !status.success() && failed == 0 {
        failed = 1;
    }
    Ok((passed, failed))
}

/// Reads `test result: ok. 12 passed; 0 failed; …`.
fn verdict(line: &str) -> Option<(u64, u64)> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |label: &str| {
        let before = rest.split(label).next()?;
        before
            .rsplit(|c: char| !c.is_ascii_digit())
            .find(|w| !w.is_empty())?
            .parse::<u64>()
            .ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

fn report(outcomes: &[Outcome], took: Duration) -> anyhow::Result<()> {
    println!(
        "\n{:<16} {:>7} {:>7} {:>8}",
        "part", "passed", "failed", "seconds"
    );
    for o in outcomes {
        println!(
            "{:<16} {:>7} {:>7} {:>8.0}",
            o.name,
            o.passed,
            o.failed,
            o.took.as_secs_f64()
        );
    }
    let passed: u64 = outcomes.iter().map(|o| o.passed).sum();
    let failed: u64 = outcomes.iter().map(|o| o.failed).sum();
    println!("in {:.1} minutes", took.as_secs_f64() / 60.0);
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn a_verdict_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(verdict(line), Some((12, 3)));
        assert_eq!(verdict("test a::b ... ok"), None);
    }
}
