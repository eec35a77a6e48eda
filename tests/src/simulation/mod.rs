//! The broker's real code in a simulated world: one thread, time that stands still, randomness from a seed.
//!
//! A seed decides everything: how large things are, what clients do, what the store gets wrong, when a broker is
//! killed, put to sleep, overtaken by another start. [`run`] plays one; the ledger within knows all that was
//! acknowledged and seen, and whatever it finds broken is told with the seed. `DRUMLIN_SEED=… DRUMLIN_TRACE=1`
//! plays one again, aloud: `cargo test -p drumlin-tests --test simulation nothing_promised -- --nocapture`.
//!
//! | module | owns |
//! | --- | --- |
//! | [`apart`] | runs in processes of their own, the same every time |
//! | `plan` | what a seed decides beforehand |
//! | `world` | the bucket, the running brokers, trouble, the check at the end |
//! | `node` | one incarnation of the broker below the network |
//! | `workload` | clients |
//! | `ledger` | what was promised and seen |
//! | `tap` | the bucket, watched |
//! | `trace` | hash, counts and violations of a run |

pub mod apart;
mod ledger;
mod node;
mod plan;
mod tap;
mod trace;
mod workload;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Once;
use std::time::Duration;

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

/// What is to be played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Decides all else.
    pub seed: u64,
    /// What there is to be more of.
    pub emphasis: Emphasis,
    /// The defect, if any.
    pub broken: Option<Sabotage>,
    /// Tell what happens as it happens.
    pub loud: bool,
}

impl Settings {
    /// A seed as it is.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            emphasis: Emphasis::None,
            broken: None,
            loud: std::env::var_os("DRUMLIN_TRACE").is_some(),
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.seed, self.emphasis, self.broken)
    }
}

impl std::str::FromStr for Settings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (seed, rest) = text.split_once(' ').ok_or("no seed")?;
        let (emphasis, broken) = rest.split_once(' ').ok_or("no emphasis")?;
        let known = |name: &str| name == emphasis;
        let emphasis = Emphasis::ALL.into_iter().find(|one| known(&format!("{one:?}")));
        let broken = Sabotage::ALL
            .into_iter()
            .find(|one| format!("{:?}", Some(one)) == broken);
        Ok(Self {
            emphasis: emphasis.ok_or("unknown emphasis")?,
            broken,
            ..Self::new(seed.parse().map_err(|error| format!("{error}"))?)
        })
    }
}

/// Plays one seed.
pub fn run(settings: &Settings) -> Outcome {
    let Settings {
        seed,
        emphasis,
        broken,
        ..
    } = *settings;
    catch_panics();
    if settings.loud {
        // Whoever set one up before may keep it.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .try_init();
    }
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

impl Outcome {
    fn failed(seed: u64, what: String) -> Self {
        Self {
            seed,
            store: Store::Remote,
            hash: 0,
            events: 0,
            counts: BTreeMap::new(),
            violations: vec![what],
        }
    }

    /// One line of text, for [`Outcome::from_line`].
    fn to_line(&self) -> String {
        let store = matches!(self.store, Store::Directory);
        serde_json::json!([
            self.seed,
            store,
            self.hash,
            self.events,
            self.counts,
            self.violations
        ])
        .to_string()
    }

    fn from_line(line: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let store = if value.get(1)?.as_bool()? {
            Store::Directory
        } else {
            Store::Remote
        };
        let counts = value.get(4)?.as_object()?.iter();
        Some(Self {
            seed: value.get(0)?.as_u64()?,
            store,
            hash: value.get(2)?.as_u64()?,
            events: value.get(3)?.as_u64()?,
            counts: counts
                .filter_map(|(what, count)| Some((what.clone(), count.as_u64()?)))
                .collect(),
            violations: value
                .get(5)?
                .as_array()?
                .iter()
                .filter_map(|what| Some(what.as_str()?.to_owned()))
                .collect(),
        })
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
