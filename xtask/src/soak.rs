//! `cargo xtask soak NAME --minutes N --seed S`: the long tests.
//!
//! A soak is a run of *slices*. A slice is one command, given its own seed and a
//! time to keep to; it prints its figures as `SOAK {json}` lines and fails by its
//! exit code. `suites` has a slice for each suite and ends with the last; the others
//! go on until their time is used. What has been done stands in the cache after every slice, so a run
//! that was cut off goes on where it stopped; figures end in `docs/results/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cache::{Cache, repository};
use crate::command::run_watched;
use crate::{install, results};

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
pub struct Options {
    /// One of: ledger, faults, frames, files, groups, suites, decoders, memory, simulate, compact.
    name: String,
    /// How long, in all slices together.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// What every random choice follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Forget what an earlier run of the same name and seed has done.
    #[arg(long)]
    fresh: bool,
    /// Take what is in the cache as it is.
    #[arg(long)]
    no_install: bool,
}

/// A long test: how one slice of it is run, and how long a slice should be.
struct Soak {
    name: &'static str,
    title: &'static str,
    slice_seconds: u64,
    /// A folder with a file for each slice: the soak ends after the last one, however long they take.
    slices: Option<&'static str>,
    driver: Driver,
}

/// What runs a slice.
#[derive(PartialEq, Eq)]
enum Driver {
    /// The soak's namesake in the `soak` program of the tests, against a broker.
    Program,
    /// The same without a broker.
    ProgramAlone,
    /// A command of the load generator that watches one broker all the time, so that the whole soak is one slice.
    Load,
    /// A test that simulates all it needs.
    Test {
        package: &'static str,
        file: &'static str,
        name: &'static str,
    },
}

impl Soak {
    fn needs_broker(&self) -> bool {
        matches!(self.driver, Driver::Program | Driver::Load)
    }

    /// Programs use clients, stores or classes that are not ours.
    fn needs_install(&self) -> bool {
        !matches!(self.driver, Driver::Test { .. })
    }

    /// Arguments for cargo. Programs are built as they are for the everyday tests; what they drive is a release build.
    #[rustfmt::skip]
    fn cargo(&self) -> Vec<&'static str> {
        match self.driver {
            Driver::Program | Driver::ProgramAlone => vec!["run", "--quiet", "--package", "drumlin-tests", "--bin", "soak", "--", self.name],
            Driver::Load => {
                let program = ["run", "--release", "--quiet", "--package", "drumlin-benches", "--bin", "drumlin-load"];
                program.into_iter().chain(["--", "soak", self.name]).collect()
            }
            Driver::Test { package, file, name } => {
                vec!["test", "--release", "--quiet", "--package", package, "--test", file, name, "--", "--nocapture"]
            }
        }
    }
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "ledger",
        title: "Crash ledger",
        slice_seconds: 240,
        slices: None,
        driver: Driver::Program,
    },
    Soak {
        name: "files",
        title: "Every line of every Rust file of the registry, there and back",
        slice_seconds: 600,
        slices: None,
        driver: Driver::Program,
    },
    Soak {
        name: "frames",
        title: "Hostile frames",
        slice_seconds: 120,
        slices: None,
        driver: Driver::Program,
    },
    Soak {
        name: "groups",
        title: "Consumer groups: joins, leaves, kills, upgrades",
        slice_seconds: 300,
        slices: None,
        driver: Driver::Program,
    },
    Soak {
        name: "suites",
        title: "Other people's test suites",
        slice_seconds: 1200,
        slices: Some("tests/suites"),
        driver: Driver::Program,
    },
    Soak {
        name: "decoders",
        title: "Broken requests, decoded here and by Kafka's classes",
        slice_seconds: 600,
        slices: None,
        driver: Driver::ProgramAlone,
    },
    Soak {
        name: "faults",
        title: "Faults of the store",
        slice_seconds: 240,
        slices: None,
        driver: Driver::Program,
    },
    Soak {
        name: "memory",
        title: "Resident memory under steady load",
        slice_seconds: u64::MAX,
        slices: None,
        driver: Driver::Load,
    },
    Soak {
        name: "simulate",
        title: "Simulation",
        slice_seconds: 300,
        slices: None,
        driver: Driver::Test {
            package: "drumlin-tests",
            file: "simulation",
            name: "nothing_promised",
        },
    },
    Soak {
        name: "compact",
        title: "Compaction, simulated",
        slice_seconds: 300,
        slices: None,
        driver: Driver::Test {
            package: "drumlin-log",
            file: "compaction_simulation",
            name: "nothing_newest",
        },
    },
];

/// What has been done so far, kept between runs.
#[derive(Default, Serialize, Deserialize)]
struct State {
    slices: u64,
    seconds: f64,
    commits: Vec<String>,
    figures: BTreeMap<String, Value>,
    failures: Vec<Failure>,
}

#[derive(Serialize, Deserialize)]
struct Failure {
    seed: u64,
    commit: String,
    ended: String,
    log: PathBuf,
}

/// Runs slices until the time is used, then writes the figures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let Some(soak) = SOAKS.iter().find(|s| s.name == options.name) else {
        let names: Vec<_> = SOAKS.iter().map(|s| s.name).collect();
        bail!(
            "no soak is called {:?}; there are {}",
            options.name,
            names.join(", ")
        );
    };
    let cache = Cache::open()?;
    if !options.no_install && soak.needs_install() {
        install::run(&cache)?;
    }
    let dir = cache.root().join("soak");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{}-{}.json", soak.name, options.seed));
    let mut state = if options.fresh {
        State::default()
    } else {
        load(&file)
    };
    if state.slices > 0 && soak.driver == Driver::Load {
        bail!("one process cannot go on where another was cut off: say --fresh, or take another seed");
    }
    if state.slices > 0 {
        println!(
            "soak: going on after {} slices, {:.1} minutes",
            state.slices,
            state.seconds / 60.0
        );
    }
    let against_kafka = std::env::var("DRUMLIN_TEST_BROKER").is_ok_and(|v| v == "kafka");
    let broker = match soak.needs_broker() && !against_kafka {
        true => Some(crate::suite::build_broker(true)?),
        false => None,
    };
    let commit = results::commit();
    if !state.commits.contains(&commit) {
        state.commits.push(commit.clone());
    }
    let total = options.minutes as f64 * 60.0;
    let slices = soak.slices.map(files_in).transpose()?;
    while match slices {
        Some(slices) => state.slices < slices,
        None => state.seconds < total,
    } {
        let seconds = match slices {
            Some(_) => soak.slice_seconds,
            None => soak
                .slice_seconds
                .min((total - state.seconds).ceil() as u64)
                .max(1),
        };
        let seed = slice_seed(options.seed, state.slices);
        println!(
            "soak: {} slice {} of seed {seed}, {seconds} s",
            soak.name, state.slices
        );
        let log = dir.join(format!("{}-{}-{}.log", soak.name, options.seed, state.slices));
        let began = Instant::now();
        let ended = slice(
            soak,
            &cache,
            broker.as_deref(),
            (state.slices, seed),
            seconds,
            &log,
            &mut state.figures,
        )?;
        state.seconds += began.elapsed().as_secs_f64();
        state.slices += 1;
        if let Some(ended) = ended {
            println!("soak: slice FAILED ({ended}); see {}", log.display());
            state.failures.push(Failure {
                seed,
                commit: commit.clone(),
                ended,
                log,
            });
        }
        save(&file, &state)?;
    }
    finish(soak, options, &state)
}

fn files_in(folder: &str) -> anyhow::Result<u64> {
    Ok(std::fs::read_dir(repository().join(folder))?.count() as u64)
}

/// Neighbouring slices and neighbouring seeds must not share their choices (splitmix64).
fn slice_seed(seed: u64, slice: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(slice.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Runs one slice; returns how it failed, if it did.
fn slice(
    soak: &Soak,
    cache: &Cache,
    broker: Option<&Path>,
    (number, seed): (u64, u64),
    seconds: u64,
    log: &Path,
    figures: &mut BTreeMap<String, Value>,
) -> anyhow::Result<Option<String>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(repository())
        .args(soak.cargo())
        .env("DRUMLIN_CACHE", cache.root())
        .env("DRUMLIN_SOAK_SEED", seed.to_string())
        .env("DRUMLIN_SOAK_SECONDS", seconds.to_string())
        .env("DRUMLIN_SOAK_PICTURE", results::picture(log))
        .env("DRUMLIN_SOAK_SLICE", number.to_string())
        // As the simulation calls them.
        .env("DRUMLIN_FIRST_SEED", seed.to_string())
        .env("DRUMLIN_SIMULATION_SECONDS", seconds.to_string())
        .stderr(std::fs::File::create(log.with_extension("stderr.log"))?);
    if let Some(path) = broker {
        command.env("DRUMLIN_BIN", path);
    }
    let mut text = String::new();
    let status = run_watched(&mut command, |line| {
        text.push_str(line);
        text.push('\n');
        match line
            .strip_prefix("SOAK ")
            .and_then(|t| serde_json::from_str::<Value>(t).ok())
        {
            Some(Value::Object(found)) => found.into_iter().for_each(|(k, v)| add(figures, k, v)),
            _ => {
                println!("  {line}");
                if let Some((name, count)) = simulated(line) {
                    add(figures, name.replace(' ', "_"), json!(count));
                }
            }
        }
    })?;
    std::fs::write(log, text)?;
    Ok((!status.success()).then(|| status.to_string()))
}

/// Reads the simulation's figures: `1234 seeds in 300.1s`, and lines of a count and a name.
fn simulated(line: &str) -> Option<(&str, u64)> {
    let (count, name) = match line.split_once(" seeds in ") {
        Some((count, _)) => (count, "seeds"),
        None => line.strip_prefix("  ")?.trim_start().split_once("  ")?,
    };
    Some((name.trim(), count.parse().ok()?))
}

/// Figures of slices are summed; those called `max_…` keep the largest.
fn add(figures: &mut BTreeMap<String, Value>, key: String, value: Value) {
    let merged = match (figures.get(&key), &value) {
        (Some(old), new) if key.starts_with("max_") => {
            if old.as_f64() > new.as_f64() {
                old.clone()
            } else {
                value
            }
        }
        (Some(old), new) => match (old.as_i64(), new.as_i64(), old.as_f64(), new.as_f64()) {
            (Some(a), Some(b), _, _) => json!(a + b),
            (_, _, Some(a), Some(b)) => json!(a + b),
            _ => value,
        },
        (None, _) => value,
    };
    figures.insert(key, merged);
}

fn load(file: &Path) -> State {
    std::fs::read(file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// Written aside and renamed: an interrupted save must not lose what was done.
fn save(file: &Path, state: &State) -> anyhow::Result<()> {
    let aside = file.with_extension("new");
    std::fs::write(&aside, serde_json::to_vec_pretty(state)?)?;
    std::fs::rename(aside, file)?;
    Ok(())
}

fn finish(soak: &Soak, options: &Options, state: &State) -> anyhow::Result<()> {
    let failed: Vec<String> = state.failures.iter().map(|f| f.seed.to_string()).collect();
    let failed = if failed.is_empty() {
        "none".to_owned()
    } else {
        failed.join(" ")
    };
    let report = json!({
        "command": format!("cargo xtask soak {} --minutes {} --seed {}", soak.name, options.minutes, options.seed),
        "commit": state.commits.join(", "),
        "seed": options.seed,
        "slices": state.slices,
        "minutes": (state.seconds / 6.0).round() / 10.0,
        "failed_slices": state.failures.len(),
        "failed_seeds": failed,
        "figures": state.figures,
        "machine": results::machine(),
    });
    let stem = format!("{}-{}", soak.name, options.seed);
    let page = results::write(&stem, soak.title, &report)?;
    println!(
        "soak: {} slices, {} failed; figures in {}",
        state.slices,
        state.failures.len(),
        page.display()
    );
    if !state.failures.is_empty() {
        bail!("slices failed with seeds {}", report["failed_seeds"]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulations_figures_are_read() {
        assert_eq!(simulated("1234 seeds in 300.1s"), Some(("seeds", 1234)));
        assert_eq!(
            simulated("          17  brokers killed"),
            Some(("brokers killed", 17))
        );
        assert_eq!(simulated("test a ... ok"), None);
    }

    #[test]
    fn figures_add_up_and_maxima_stay() {
        let mut figures = BTreeMap::new();
        for (kills, memory) in [(3, 10), (4, 7)] {
            add(&mut figures, "kills".to_owned(), json!(kills));
            add(&mut figures, "max_memory".to_owned(), json!(memory));
        }
        assert_eq!(
            (&figures["kills"], &figures["max_memory"]),
            (&json!(7), &json!(10))
        );
    }
}
