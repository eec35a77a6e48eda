//! The broker's own code under simulated time, trouble and clients: see `drumlin_tests::simulation`.
#![allow(clippy::panic)]

use std::time::Duration;

use drumlin_objects::sabotage::Sabotage;
use drumlin_tests::simulation::{Emphasis, for_a_while, run};

/// `DRUMLIN_SEED=n` plays that seed only.
fn chosen_seed() -> Option<u64> {
    std::env::var("DRUMLIN_SEED").ok()?.parse().ok()
}

#[test]
fn nothing_promised_is_lost_whatever_goes_wrong() {
    if let Some(seed) = chosen_seed() {
        let outcome = run(seed, Emphasis::None, None);
        eprintln!("{outcome:#?}");
        assert!(outcome.violations.is_empty());
        return;
    }
    let seconds = std::env::var("DRUMLIN_SIMULATION_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(90);
    let report = for_a_while(Duration::from_secs(seconds), 1, &mut |report| {
        if let Some((seed, what)) = report.failures.last().filter(|(seed, _)| *seed == report.seeds) {
            eprintln!("DRUMLIN_SEED={seed} finds: {what:#?}");
        }
    });
    println!(
        "{} seeds in {:.1?}\n{}",
        report.seeds,
        report.elapsed,
        report.figures()
    );
    assert!(
        report.failures.is_empty(),
        "replay with DRUMLIN_SEED: {:#?}",
        report.failures
    );
}

#[test]
fn a_seed_plays_the_same_every_time() {
    for seed in 1..=3 {
        let (first, second) = (run(seed, Emphasis::None, None), run(seed, Emphasis::None, None));
        assert!(first.events > 100);
        assert_eq!(
            (first.hash, first.events),
            (second.hash, second.events),
            "seed {seed}"
        );
    }
}

/// The first of so many seeds that finds the defect.
fn finds(defect: Sabotage, emphasis: Emphasis) {
    for seed in 1..=400 {
        let outcome = run(seed, emphasis, Some(defect));
        if let Some(first) = outcome.violations.first() {
            println!("{defect:?}: seed {seed} ({emphasis:?}) finds: {first}");
            return;
        }
    }
    panic!("{defect:?} was not found in 400 seeds");
}

#[test]
fn finds_an_ack_before_the_commit() {
    finds(Sabotage::AckBeforeCommit, Emphasis::None);
}

#[test]
fn finds_a_duplicate_answered_before_the_commit() {
    finds(Sabotage::DuplicateBeforeCommit, Emphasis::None);
}

#[test]
fn finds_a_fence_without_a_second_look() {
    finds(Sabotage::NoRelist, Emphasis::SlowLists);
}

#[test]
fn finds_entries_revived_from_beyond_the_fence() {
    finds(Sabotage::BeyondFence, Emphasis::Zombies);
}

#[test]
fn finds_deletion_by_age() {
    finds(Sabotage::DeleteByAge, Emphasis::Zombies);
}

#[test]
fn finds_deletion_before_the_commit() {
    finds(Sabotage::DeleteBeforeCommit, Emphasis::Kills);
}

#[test]
fn finds_an_edit_that_names_what_is_not_durable() {
    finds(Sabotage::NameBeforeDurable, Emphasis::Kills);
}
