//! The broker's real code in a simulated world: one thread, time that stands still, randomness from a seed.
//!
//! A seed decides everything: how large things are, what clients do, what the store gets wrong, when a broker is
//! killed, put to sleep, overtaken by another start. [`run`] plays one; the ledger within knows all that was
//! acknowledged and seen, and whatever it finds broken is told with the seed. `DRUMLIN_SEED=… DRUMLIN_TRACE=1`
//! plays one again, aloud.
//!
//! | module | owns |
//! | --- | --- |
//! | `plan` | what a seed decides beforehand |
//! | `world` | the bucket, the running brokers, trouble, the check at the end |
//! | `node` | one incarnation of the broker below the network |
//! | `workload` | clients |
//! | `ledger` | what was promised and seen |
//! | `tap` | the bucket, watched |
//! | `trace` | hash, counts and violations of a run |

mod ledger;
mod node;
mod plan;
mod tap;
mod trace;
mod workload;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Once;
use std::time::{Duration, Instant};

use drumlin_objects::sabotage::{self, Sabotage};

pub use plan::{Emphasis, Store};

use plan::Plan;
use world::World;

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The kind of store that it had.
    pub store: Store,
    /// A hash of all that happened, in order and with its time.
    pub hash: u64,
    /// How many events that was.
    pub events: u64,
    /// How often each kind of thing happened.
    pub counts: BTreeMap<String, u64>,
    /// What was found broken.
    pub violations: Vec<String>,
}

/// What came of many.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Seeds that were played.
    pub seeds: u64,
    /// Those in which something was found broken, and what.
    pub failures: Vec<(u64, Vec<String>)>,
    /// How often each kind of thing happened.
    pub counts: BTreeMap<String, u64>,
    /// How long it took.
    pub elapsed: Duration,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic in any task is a finding, and the runtime would swallow it.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.set(Some(info.to_string()));
            before(info);
        }));
    });
    PANIC.set(None);
}

/// Plays one seed.
pub fn run(seed: u64, emphasis: Emphasis, broken: Option<Sabotage>) -> Outcome {
    catch_panics();
    sabotage::choose(broken);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads or sockets");
    let plan = Plan::new(seed, emphasis);
    let store = plan.store;
    let world = runtime.block_on(async move {
        let world = World::new(seed, plan);
        let limit = Duration::from_secs(4 * 3600);
        if tokio::time::timeout(limit, world.run()).await.is_err() {
            world.trace.violation("the run does not end".to_owned());
        }
        world
    });
    drop(runtime);
    sabotage::choose(None);
    let (hash, events, counts, mut violations) = world.trace.finish();
    violations.extend(PANIC.take().map(|what| format!("a panic: {what}")));
    Outcome {
        seed,
        store,
        hash,
        events,
        counts,
        violations,
    }
}

impl Report {
    /// Adds a seed's outcome.
    pub fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        for (what, count) in outcome.counts {
            *self.counts.entry(what).or_default() += count;
        }
        *self
            .counts
            .entry(format!("runs on {:?}", outcome.store))
            .or_default() += 1;
        if !outcome.violations.is_empty() {
            self.failures.push((outcome.seed, outcome.violations));
        }
    }

    /// The counts, one a line.
    pub fn figures(&self) -> String {
        let lines = self
            .counts
            .iter()
            .map(|(what, count)| format!("  {count:>10}  {what}\n"));
        lines.collect()
    }
}

/// Plays seeds from `seed` on for so many minutes; `progress` is told after each. For `cargo xtask soak simulate`.
pub fn soak(minutes: u64, seed: u64, progress: &mut dyn FnMut(&Report)) -> Report {
    for_a_while(Duration::from_secs(60 * minutes), seed, progress)
}

/// Plays seeds from `seed` on until the time is over.
pub fn for_a_while(time: Duration, seed: u64, progress: &mut dyn FnMut(&Report)) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    for next in seed.. {
        if began.elapsed() >= time {
            break;
        }
        report.add(run(next, Emphasis::None, None));
        report.elapsed = began.elapsed();
        progress(&report);
    }
    report
}
