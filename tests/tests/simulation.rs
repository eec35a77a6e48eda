//! The broker's own code under simulated time, trouble and clients: see `drumlin_tests::simulation`.
//!
//! `DRUMLIN_SEED=n` plays one seed (`DRUMLIN_TRACE=1`: aloud), `DRUMLIN_SIMULATION_SECONDS` says how long the
//! everyday run is and `DRUMLIN_FIRST_SEED`, times 100,000, where it begins.
#![allow(clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drumlin_objects::sabotage::Sabotage;
use drumlin_tests::simulation::apart::{for_a_while, play, play_if_told};
use drumlin_tests::simulation::{Emphasis, Settings};

/// The test that child processes run.
const PLAYER: &str = "one_seed_as_told";

/// Takes the place of the system's randomness in this binary, so that what a process draws is the same every time:
/// the standard library seeds its hash maps from here, and tokio the order in which it wakes tasks.
///
/// # Safety
/// As the C library's: `buffer` is valid for writes of `length` bytes.
#[allow(
    unsafe_code,
    reason = "there is no other way to choose tokio's seed without an unstable build"
)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    static STATE: AtomicU64 = AtomicU64::new(1);
    for at in 0..length {
        let drawn = STATE
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // SAFETY: `at` is below `length`, for which the caller vouches.
        unsafe { buffer.add(at).write((drawn >> 56) as u8) };
    }
    length as isize
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Does nothing unless another test has started this process for it.
#[test]
fn one_seed_as_told() {
    play_if_told();
}

#[test]
fn nothing_promised_is_lost_whatever_goes_wrong() {
    if let Some(seed) = number("DRUMLIN_SEED") {
        let outcome = play(&Settings::new(seed), PLAYER);
        println!("{outcome:#?}");
        assert!(outcome.violations.is_empty());
        return;
    }
    let time = Duration::from_secs(number("DRUMLIN_SIMULATION_SECONDS").unwrap_or(90));
    // Soaks count their slices; no two of them play the same seeds.
    let first = number("DRUMLIN_FIRST_SEED").map_or(1, |slice| slice.wrapping_mul(100_000));
    let mut told = 0;
    let report = for_a_while(time, first, PLAYER, &mut |report| {
        for (seed, what) in &report.failures[told..] {
            println!("DRUMLIN_SEED={seed} finds: {what:#?}");
        }
        told = report.failures.len();
    });
    println!(
        "{} seeds in {:.1?}\n{}",
        report.seeds,
        report.elapsed,
        report.figures()
    );
    let failed: Vec<u64> = report.failures.iter().map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "play them again with DRUMLIN_SEED: {failed:?}");
}

#[test]
fn a_seed_plays_the_same_every_time() {
    for seed in 1..=4 {
        let (first, second) = (
            play(&Settings::new(seed), PLAYER),
            play(&Settings::new(seed), PLAYER),
        );
        assert!(first.events > 100, "{first:?}");
        assert_eq!(
            (first.hash, first.events),
            (second.hash, second.events),
            "seed {seed}"
        );
    }
}

/// Whether the seeds, one after the other, find a defect.
fn finds(defect: Sabotage, emphasis: Emphasis) {
    for seed in 1..=300 {
        let settings = Settings {
            emphasis,
            broken: Some(defect),
            ..Settings::new(seed)
        };
        let outcome = play(&settings, PLAYER);
        if let Some(first) = outcome.violations.first() {
            println!("{defect:?}: seed {seed} ({emphasis:?}) finds: {first}");
            return;
        }
    }
    panic!("{defect:?} was not found in 300 seeds");
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
