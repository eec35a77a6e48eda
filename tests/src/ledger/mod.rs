//! The crash ledger: producers and tailing consumers on a broker that is killed again
//! and again, and an account of what was acknowledged and what was seen.
//!
//! It holds a broker to this: no acknowledged record is lost, an idempotent
//! producer's records are there once and in order, offsets have no gap, and nothing
//! that a consumer saw changes or vanishes. [`run`] is the whole of it; a broken
//! promise is an error that names the record.

mod account;
mod consumer;
mod killer;
mod producer;
mod record;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::broker::{Broker, against_kafka};
use crate::client::Connection;
use account::{Account, Acked};

/// How one run of the ledger goes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What every random choice follows from.
    pub seed: u64,
    /// How long records flow.
    pub duration: Duration,
    /// Kills that must have happened for the run to count.
    pub min_kills: u64,
    /// Idempotent producers.
    pub idempotent: u32,
    /// Plain producers, which may repeat records and may not lose any.
    pub plain: u32,
    /// Consumers; every second one jumps about.
    pub consumers: u32,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Delete the cache on every n-th kill.
    pub delete_cache_every: Option<u64>,
}

impl Plan {
    /// The everyday run.
    pub fn everyday(seed: u64) -> Plan {
        Plan {
            seed,
            duration: Duration::from_secs(60),
            min_kills: 12,
            idempotent: 8,
            plain: 4,
            consumers: 4,
            partitions: 6,
            delete_cache_every: None,
        }
    }
}

/// What a run did, by name.
pub type Figures = BTreeMap<&'static str, u64>;

/// The topic that everything goes through.
pub const TOPIC: &str = "ledger";

/// Runs the plan on a broker that is running; it is running again at the end.
pub fn run(broker: &mut Broker, plan: &Plan) -> anyhow::Result<Figures> {
    println!(
        "ledger: seed {} (DRUMLIN_LEDGER_SEED replays its choices)",
        plan.seed
    );
    let bootstrap = broker.bootstrap();
    Connection::open(&bootstrap, Duration::from_secs(30))?.create_topic(
        TOPIC,
        plan.partitions,
        &[("retention.ms", "-1"), ("retention.bytes", "-1")],
    )?;
    let account = Arc::new(Account::new(plan.partitions));
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut producers = Vec::new();
    for id in 0..plan.idempotent + plan.plain {
        let producer = producer::Producer::new(
            id,
            id < plan.idempotent,
            bootstrap.clone(),
            plan.partitions,
            StdRng::seed_from_u64(rng.random()),
            account.clone(),
        );
        producers.push(std::thread::spawn(move || producer.run()));
    }
    let mut consumers = Vec::new();
    for id in 0..plan.consumers {
        let rng = StdRng::seed_from_u64(rng.random());
        let consumer = consumer::Consumer::new(
            id % 2 == 1,
            bootstrap.clone(),
            plan.partitions,
            rng,
            account.clone(),
        );
        consumers.push(std::thread::spawn(move || consumer.run()));
    }

    let mut figures = killer::run(broker, plan, &mut rng, &account)?;
    account.stop_producing.store(true, Ordering::Relaxed);
    let mut acked: Vec<Acked> = Vec::new();
    for producer in producers {
        match producer.join() {
            Ok(done) => acked.extend(done),
            Err(_) => bail!("a producer's thread panicked"),
        }
    }
    // Consumers go on for a moment, so that they also tail the very end.
    std::thread::sleep(Duration::from_millis(500));
    account.stop_consuming.store(true, Ordering::Relaxed);
    for consumer in consumers {
        if consumer.join().is_err() {
            bail!("a consumer's thread panicked");
        }
    }
    account.result()?;

    // A last death, with everything at rest: what stays is what the store holds.
    broker.kill9()?;
    if plan.delete_cache_every.is_some() {
        broker.delete_cache()?;
    }
    broker.restart()?;
    let began = Instant::now();
    let found = verify::run(&bootstrap, plan, &account, &acked)?;
    figures.insert("verify_ms", began.elapsed().as_millis() as u64);
    figures.extend(found);
    figures.extend(account.figures());
    let kills = figures.get("kills").copied().unwrap_or(0);
    // Apache Kafka takes seconds to start, and is only here to try the ledger out.
    if kills < plan.min_kills && !against_kafka() {
        bail!("only {kills} kills, of {} wanted: {figures:?}", plan.min_kills);
    }
    println!("ledger: {figures:?}");
    Ok(figures)
}

/// The seed for an everyday run: `DRUMLIN_LEDGER_SEED`, or one that nobody chose.
pub fn seed() -> u64 {
    match std::env::var("DRUMLIN_LEDGER_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        Some(seed) => seed,
        None => rand::random(),
    }
}
