//! Compaction under simulated time, a store that fails, and kills, against a plain in-memory history.
//!
//! Everyday: a few hundred seeds. `DRUMLIN_COMPACTION_SEED=n` plays one, `DRUMLIN_COMPACTION_SEEDS=n` so many,
//! `DRUMLIN_SIMULATION_SECONDS=n` as many as fit, and `DRUMLIN_FIRST_SEED=n`, times 100,000, says where it begins.
//! Ten thousand on one core in twenty minutes:
//!
//! ```text
//! CARGO_PROFILE_DEV_OPT_LEVEL=2 DRUMLIN_COMPACTION_SEEDS=10000 \
//!     cargo test -p drumlin-log --test compaction_simulation nothing_newest -- --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "compaction/history.rs"]
mod history;
#[path = "compaction/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use drumlin_objects::sabotage::{self, Sabotage};
use world::play;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Plays a seed on a runtime of its own; what was found, and figures.
fn run(seed: u64, broken: Option<Sabotage>) -> (Vec<String>, BTreeMap<&'static str, u64>) {
    sabotage::choose(broken);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(play(seed));
    // Tasks of dead brokers end here.
    drop(runtime);
    sabotage::choose(None);
    outcome
}

#[test]
fn nothing_newest_is_lost_and_nothing_old_stays() {
    if let Some(seed) = number("DRUMLIN_COMPACTION_SEED") {
        let (found, figures) = run(seed, None);
        println!("{figures:#?}");
        assert!(found.is_empty(), "{found:#?}");
        return;
    }
    let first = number("DRUMLIN_FIRST_SEED").map_or(1, |slice| slice.wrapping_mul(100_000));
    let most = number("DRUMLIN_COMPACTION_SEEDS").unwrap_or(u64::MAX);
    let seconds = number("DRUMLIN_SIMULATION_SECONDS");
    let time = Duration::from_secs(seconds.unwrap_or(if most == u64::MAX { 12 } else { u64::MAX >> 32 }));
    let (began, mut played) = (Instant::now(), 0);
    let (mut failed, mut all) = (Vec::new(), BTreeMap::<&str, u64>::new());
    for seed in first.. {
        if played == most || began.elapsed() >= time || failed.len() == 5 {
            break;
        }
        let (found, figures) = run(seed, None);
        played += 1;
        figures
            .into_iter()
            .for_each(|(name, count)| *all.entry(name).or_default() += count);
        if !found.is_empty() {
            println!("DRUMLIN_COMPACTION_SEED={seed} finds: {found:#?}");
            failed.push(seed);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{played} seeds in {seconds:.1} s");
    all.iter()
        .for_each(|(name, count)| println!("{count:>12}  {name}"));
    assert!(
        failed.is_empty(),
        "play them again with DRUMLIN_COMPACTION_SEED: {failed:?}"
    );
    assert!(played > 0 && all["passes"] > 0, "something was compacted");
}

/// The first of many seeds in which a defect shows.
fn finds(defect: Sabotage, expected: &str) {
    for seed in 1..=600 {
        let (found, _) = run(seed, Some(defect));
        if let Some(what) = found.iter().find(|what| what.contains(expected)) {
            println!("{defect:?}: seed {seed} finds: {what}");
            return;
        }
    }
    panic!("no seed finds {defect:?}");
}

#[test]
fn a_key_dropped_between_manifests_is_found() {
    finds(Sabotage::KeyDroppedByCompaction, "is gone");
}

#[test]
fn a_tombstone_removed_too_early_is_found() {
    finds(Sabotage::TombstoneTooEarly, "tombstone");
}
