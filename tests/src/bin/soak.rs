//! One slice of a long test, for `cargo xtask soak`: which one is the argument, the
//! seed and the time to keep to come in `DRUMLIN_SOAK_SEED` and `DRUMLIN_SOAK_SECONDS`.
//! Figures go out as `SOAK {json}` lines; a broken promise is a failing exit code.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::churn;
use drumlin_tests::decoders;
use drumlin_tests::flaky::Flaky;
use drumlin_tests::hostile;
use drumlin_tests::ledger::{self, Plan};
use drumlin_tests::members::SESSION;
use drumlin_tests::round_trip::Text;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stage::quick_groups;
use drumlin_tests::stores::{Minio, S3};
use drumlin_tests::suites::{SUITES, Suite};

fn main() -> anyhow::Result<()> {
    let name = std::env::args().nth(1).context("which soak?")?;
    let number = |key: &str, default: u64| {
        std::env::var(key)
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("DRUMLIN_SOAK_SEED", 1);
    let time = Duration::from_secs(number("DRUMLIN_SOAK_SECONDS", 60));
    let scratch = Scratch::new(&format!("soak-{name}"))?;
    let result = match name.as_str() {
        "ledger" => ledger_on_all(seed, time, scratch.path()),
        "faults" => ledger_under_faults(seed, time, scratch.path()),
        "files" => files(scratch.path()),
        "frames" => frames(seed, time, scratch.path()),
        "groups" => groups(seed, time, scratch.path()),
        "decoders" => decoders(seed, time, scratch.path()),
        "suites" => suites(number("DRUMLIN_SOAK_SLICE", 0), scratch.path()),
        other => bail!("no soak is called {other:?}"),
    };
    if result.is_err() {
        eprintln!("kept for a look: {}", scratch.keep().display());
    }
    result
}

fn tell(figures: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    println!("SOAK {}", serde_json::to_string(figures)?);
    Ok(())
}

/// The crash ledger over {local, MinIO} × {store faults on, off}, a quarter of the time each.
fn ledger_on_all(seed: u64, time: Duration, dir: &Path) -> anyhow::Result<()> {
    let all = [(false, false), (false, true), (true, false), (true, true)];
    for (n, (minio, faults)) in (0..).zip(all) {
        ledger_once(seed.wrapping_add(n), time / 4, dir, minio, faults)?;
    }
    Ok(())
}

/// Only the two with faults, for longer.
fn ledger_under_faults(seed: u64, time: Duration, dir: &Path) -> anyhow::Result<()> {
    ledger_once(seed, time / 2, dir, false, true)?;
    ledger_once(seed.wrapping_add(1), time / 2, dir, true, true)
}

fn ledger_once(
    seed: u64,
    duration: Duration,
    dir: &Path,
    on_minio: bool,
    faults: bool,
) -> anyhow::Result<()> {
    let kind = match (on_minio, faults) {
        (false, false) => "local",
        (false, true) => "local_faults",
        (true, false) => "minio",
        (true, true) => "minio_faults",
    };
    let dir = dir.join(kind);
    std::fs::create_dir_all(&dir)?;
    let minio = if on_minio { Some(Minio::start(&dir)?) } else { None };
    // The program itself makes a local store misbehave; on the way to MinIO the network does.
    let network = match &minio {
        Some(minio) if faults => Some(Flaky::start(minio.port(), seed)?),
        _ => None,
    };
    let mut options = match (&minio, &network) {
        (_, Some(network)) => Options::on(&dir.join("broker"), S3::at(network.port(), "ledger")),
        (Some(minio), None) => Options::on(&dir.join("broker"), minio.store("ledger")),
        (None, None) => Options::local(&dir.join("broker")),
    };
    // Every other pair of seeds seals often, the rest as it comes.
    if (seed / 2).is_multiple_of(2) {
        options = options.sealing_often();
    }
    if faults {
        options.patience = Duration::from_secs(240);
        if !on_minio {
            options = options.set("drumlin.test.store.faults", seed);
        }
    }
    let mut broker = Broker::start(options)?;
    let plan = Plan {
        duration,
        min_kills: 1,
        delete_cache_every: on_minio.then_some(5),
        ..Plan::everyday(seed)
    };
    let figures = ledger::run(&mut broker, &plan).with_context(|| format!("ledger, {kind}, seed {seed}"))?;
    let named = figures
        .into_iter()
        .map(|(figure, value)| match figure.strip_prefix("max_") {
            Some(rest) => (format!("max_{kind}_{rest}"), value),
            None => (format!("{kind}_{figure}"), value),
        });
    tell(&named.collect())?;
    if let Some(network) = &network {
        let told = network
            .harm()
            .figures()
            .into_iter()
            .map(|(name, n)| (format!("{kind}_{name}"), n));
        tell(&told.collect())?;
    }
    broker.terminate()?;
    drop((broker, network, minio));
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Every line of every Rust file of the registry, in each codec, there and back.
fn files(dir: &Path) -> anyhow::Result<()> {
    let mut text = Text::write(dir, u64::MAX)?;
    for (kind, through) in [
        (
            "local",
            Text::on_local as fn(&mut Text, &Path) -> anyhow::Result<()>,
        ),
        ("minio", Text::on_minio),
    ] {
        let dir = dir.join(kind);
        std::fs::create_dir_all(&dir)?;
        through(&mut text, &dir)?;
        std::fs::remove_dir_all(&dir)?;
    }
    tell(&text.figures)
}

/// Mutated frames over every API and version, with a healthy client beside them.
fn frames(seed: u64, time: Duration, dir: &Path) -> anyhow::Result<()> {
    let mut broker = Broker::start(hostile::options(Options::local(&dir.join("broker"))))?;
    let end = Instant::now() + time;
    let plan = hostile::Plan {
        seed,
        frames: u64::MAX,
        until: Some(end),
    };
    let figures = hostile::run(&mut broker, &plan)?;
    tell(&figures.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

/// Broken requests of every API and version, decoded here and by Kafka's own classes.
fn decoders(seed: u64, time: Duration, dir: &Path) -> anyhow::Result<()> {
    let plan = decoders::Plan {
        seed,
        requests: u64::MAX,
        until: Some(Instant::now() + time),
    };
    tell(&decoders::run(dir, &plan)?)
}

/// Random joins, leaves and kills of members in two groups, and beside them a group that
/// moves to KIP-848 and back, on one broker.
fn groups(seed: u64, time: Duration, dir: &Path) -> anyhow::Result<()> {
    let options = quick_groups(Options::local(&dir.join("broker"))).sealing_often();
    let mut broker = Broker::start(options)?;
    let bootstrap = broker.bootstrap();
    let (churned, moved) = std::thread::scope(|scope| {
        let moving = scope.spawn(|| churn::upgrades_and_back(&bootstrap, SESSION, time, dir));
        let churned = churn::joins_leaves_and_kills(&bootstrap, seed, time, dir);
        (churned, moving.join())
    });
    tell(&churned.with_context(|| format!("joins, leaves and kills, seed {seed}"))?)?;
    match moved {
        Ok(moved) => tell(&moved.context("upgrades")?)?,
        Err(_) => bail!("the thread of upgrades panicked"),
    }
    broker.terminate()?;
    Ok(())
}

/// One of other people's suites: the one of this slice, or the one that is named, or
/// of that the tests whose names contain a further word (`soak suites kafka-go TestConn`).
fn suites(slice: u64, dir: &Path) -> anyhow::Result<()> {
    let suite = match std::env::args().nth(2) {
        Some(name) => Suite::named(&name)?,
        None => SUITES
            .get(usize::try_from(slice)?)
            .context("there are fewer suites than slices")?,
    };
    tell(&suite.run(dir, std::env::args().nth(3).as_deref())?)
}
