//! Kills the broker and starts it again, at moments that follow from the seed.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::account::Account;
use super::{Figures, Plan};
use crate::broker::{Broker, against_kafka};

/// One kill in this many comes within [`EARLY`] of the start.
const EARLY_ONE_IN: u32 = 4;
const EARLY: Duration = Duration::from_secs(2);
/// One end in this many is a clean stop, which has promises of its own to keep.
const STOP_ONE_IN: u32 = 8;
/// A slow machine may take so many times the plan's duration more to have the kills.
const EXTENSION: u32 = 5;
/// How long the broker may live otherwise, once it answers.
const LIFE_MS: std::ops::Range<u64> = 300..5_000;

/// Kills for as long as the plan says, and longer until it has its least number of kills, but not for ever; the broker
/// runs when it is done.
pub fn run(broker: &mut Broker, plan: &Plan, rng: &mut StdRng, account: &Account) -> anyhow::Result<Figures> {
    let (mut kills, mut early, mut caches, mut stops) = (0, 0, 0, 0);
    let (mut slowest, mut idle_lives) = (0, 0);
    let end = Instant::now() + plan.duration;
    let last = end + EXTENSION * plan.duration;
    while (Instant::now() < end || (kills < plan.min_kills && Instant::now() < last)) && !account.is_broken()
    {
        let acked = account.acked();
        let mut answering = false;
        if kills > 0 && rng.random_range(0..EARLY_ONE_IN) == 0 {
            let life = EARLY.mul_f64(rng.random_range(0.0..1.0));
            std::thread::sleep(life.saturating_sub(broker.started().elapsed()));
            early += 1;
        } else {
            broker.wait_ready()?;
            answering = true;
            slowest = slowest.max(broker.started().elapsed().as_millis() as u64);
            std::thread::sleep(Duration::from_millis(rng.random_range(LIFE_MS)));
            idle_lives += u64::from(account.acked() == acked);
        }
        if let Some(status) = broker.process()?.ended()? {
            account.broken(format!("the broker ended by itself: {status}"));
            break;
        }
        if answering && rng.random_range(0..STOP_ONE_IN) == 0 && !against_kafka() {
            broker.terminate()?;
            stops += 1;
        } else {
            broker.kill9()?;
            kills += 1;
            if plan.delete_cache_every.is_some_and(|n| kills % n == 0) {
                broker.delete_cache()?;
                caches += 1;
            }
        }
        broker.spawn()?;
    }
    broker.wait_ready()?;
    Ok(Figures::from([
        ("kills", kills),
        ("kills_within_2s_of_start", early),
        ("caches_deleted", caches),
        ("clean_stops", stops),
        ("lives_without_an_ack", idle_lives),
        ("max_start_ms", slowest),
    ]))
}
