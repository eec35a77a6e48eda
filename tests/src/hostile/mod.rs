//! Hostile frames against a real broker, with a healthy client beside them.
//!
//! Requests of every API and version are made, broken in some way, and sent. The
//! broker may answer or close the connection; it may not panic, end, grow out of
//! proportion, or keep the healthy client from its work.

mod groups;
mod healthy;
mod mutate;
mod templates;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::broker::{Broker, Options, against_kafka};

const THREADS: u64 = 3;
const MAX_FRAMES_PER_CONNECTION: usize = 30;
/// After so long without an answer the next connection is opened: a produce with acks=0 gets
/// none, a frame may be shorter than it says, and a fetch whose waiting time was broken may wait.
const SILENCE: Duration = Duration::from_millis(25);
/// Requests may hold 100 MiB each (`socket.request.max.bytes`), yet few of them are ever that long.
const MAX_MEMORY_KIB: u64 = 1 << 20;

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What every random choice follows from.
    pub seed: u64,
    /// How many frames.
    pub frames: u64,
    /// Or until when.
    pub until: Option<Instant>,
}

/// What the broker under attack is configured with: topics are made by those who ask for them only.
pub fn options(options: Options) -> Options {
    options.set("auto.create.topics.enable", false)
}

#[derive(Default)]
struct Counters {
    frames: AtomicU64,
    connections: AtomicU64,
    answered: AtomicU64,
    closed: AtomicU64,
    silent: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// Runs the plan; an error if the broker did not stand it.
pub fn run(broker: &mut Broker, plan: &Plan) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    println!(
        "hostile frames: seed {} (DRUMLIN_HOSTILE_SEED replays its choices)",
        plan.seed
    );
    let bootstrap = broker.bootstrap();
    let counters = Arc::new(Counters::default());
    let healthy = healthy::start(&bootstrap, counters.clone())?;
    let mut attackers = Vec::new();
    for thread in 0..THREADS {
        let (plan, counters, bootstrap) = (plan.clone(), counters.clone(), bootstrap.clone());
        attackers.push(std::thread::spawn(move || {
            let mut rng = StdRng::seed_from_u64(plan.seed.wrapping_mul(THREADS).wrapping_add(thread));
            attack(&bootstrap, &plan, &counters, &mut rng);
        }));
    }
    for attacker in attackers {
        if attacker.join().is_err() {
            bail!("an attacker's thread panicked");
        }
    }
    counters.stop.store(true, Ordering::Relaxed);
    let told = match healthy.join() {
        Ok(result) => result.context("the healthy client")?,
        Err(_) => bail!("the healthy client's thread panicked"),
    };
    if let Some(status) = broker.process()?.ended()? {
        bail!("the broker ended: {status}");
    }
    let panics = broker.process()?.printed().matches("panicked at").count();
    if panics > 0 {
        bail!(
            "the broker's log tells of {panics} panics: {}",
            broker.log().display()
        );
    }
    let memory = peak_memory_kib(broker.process()?.id())?;
    if memory > MAX_MEMORY_KIB && !against_kafka() {
        bail!("the broker took {memory} KiB");
    }
    let mut figures = told;
    let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
    figures.insert("frames", count(&counters.frames));
    figures.insert("connections", count(&counters.connections));
    figures.insert("frames_answered", count(&counters.answered));
    figures.insert("frames_closed_upon", count(&counters.closed));
    figures.insert("frames_left_silent", count(&counters.silent));
    figures.insert("connections_refused", count(&counters.refused));
    figures.insert("max_memory_kib", memory);
    println!("hostile frames: {figures:?}");
    Ok(figures)
}

/// The seed for an everyday run: `DRUMLIN_HOSTILE_SEED`, or one that nobody chose.
pub fn seed() -> u64 {
    match std::env::var("DRUMLIN_HOSTILE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        Some(seed) => seed,
        None => rand::random(),
    }
}

fn attack(bootstrap: &str, plan: &Plan, counters: &Counters, rng: &mut StdRng) {
    let mut failures_in_a_row = 0;
    while counters.frames.load(Ordering::Relaxed) < plan.frames
        && plan.until.is_none_or(|end| Instant::now() < end)
        && failures_in_a_row < 200
    {
        match converse(bootstrap, counters, rng) {
            Ok(()) => failures_in_a_row = 0,
            Err(_) => {
                failures_in_a_row += 1;
                counters.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Sends frame after frame on one connection, each when the one before it was answered,
/// until the broker closes it or has nothing to say. An error only if there was no
/// connection: what the broker does with one is its affair.
fn converse(bootstrap: &str, counters: &Counters, rng: &mut StdRng) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(bootstrap)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_write_timeout(Some(SILENCE))?;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    for _ in 0..MAX_FRAMES_PER_CONNECTION {
        let frame = mutate::frame(rng);
        counters.frames.fetch_add(1, Ordering::Relaxed);
        let outcome = match socket.write_all(&frame).and_then(|()| skip_answer(&mut socket)) {
            Ok(()) => &counters.answered,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => &counters.silent,
            Err(_) => &counters.closed,
        };
        outcome.fetch_add(1, Ordering::Relaxed);
        if !std::ptr::eq(outcome, &counters.answered) {
            break;
        }
    }
    Ok(())
}

fn skip_answer(socket: &mut TcpStream) -> std::io::Result<()> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    let skipped = std::io::copy(&mut socket.take(length), &mut std::io::sink())?;
    match skipped == length {
        true => Ok(()),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn peak_memory_kib(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
