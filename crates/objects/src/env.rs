//! Time, randomness and tasks, as handles that come from outside.
//!
//! Everything above this crate takes an [`Env`], so that a simulation can replay a run from its seed,
//! stop the clock, and end every task of one broker at whatever await it stands.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::panics::{self, Panicked};
use crate::sabotage;
use crate::task::{Failure, OnFailure, Runs, TaskKind};

/// The pause before a task that failed begins anew, at first and at most.
const RESTART: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A broker's clock, source of randomness and task supervisor. Cheap to clone; clones share one supervisor.
#[derive(Clone)]
pub struct Env {
    shared: Arc<Shared>,
}

struct Shared {
    wall: Wall,
    rng: Mutex<StdRng>,
    tasks: Mutex<Tasks>,
    killed: AtomicBool,
    failure: watch::Sender<Option<Failure>>,
}

enum Wall {
    System,
    /// Unix milliseconds at `origin`; moves with tokio's (possibly paused) clock.
    Simulated {
        origin: Instant,
        start_ms: AtomicI64,
    },
}

/// Those that have not ended, in the order in which they were spawned.
#[derive(Default)]
struct Tasks {
    running: BTreeMap<u64, Running>,
    next: u64,
}

struct Running {
    kind: TaskKind,
    /// None for the moment between its entry and its first step.
    abort: Option<AbortHandle>,
}

/// A task's entry in the list, which goes with the task, however that ends.
struct Listed {
    env: Env,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.env.tasks().running.remove(&self.number);
    }
}

impl Env {
    /// The machine's clock and randomness.
    pub fn real() -> Self {
        Self::with(Wall::System, rand::make_rng())
    }

    /// A seeded environment whose wall clock starts at `start_ms` (Unix milliseconds) and follows tokio's clock.
    pub fn simulated(seed: u64, start_ms: i64) -> Self {
        Self::with(
            Wall::Simulated {
                origin: Instant::now(),
                start_ms: start_ms.into(),
            },
            StdRng::seed_from_u64(seed),
        )
    }

    fn with(wall: Wall, rng: StdRng) -> Self {
        Self {
            shared: Arc::new(Shared {
                wall,
                rng: Mutex::new(rng),
                tasks: Mutex::default(),
                killed: AtomicBool::new(false),
                failure: watch::Sender::new(None),
            }),
        }
    }

    /// True in a simulation: blocking work then runs in place.
    pub fn is_simulated(&self) -> bool {
        matches!(self.shared.wall, Wall::Simulated { .. })
    }

    /// Wall clock, Unix milliseconds. Never a base for safety.
    pub fn now_ms(&self) -> i64 {
        match &self.shared.wall {
            Wall::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Wall::Simulated { origin, start_ms } => {
                let since = Instant::now().saturating_duration_since(*origin);
                let start_ms = start_ms.load(Ordering::Relaxed);
                start_ms.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Sets a simulated wall clock forward, or back, by so many milliseconds. The machine's own stays.
    pub fn jump_wall_clock(&self, by_ms: i64) {
        if let Wall::Simulated { start_ms, .. } = &self.shared.wall {
            start_ms.fetch_add(by_ms, Ordering::Relaxed);
        }
    }

    /// Monotonic clock.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// A uniformly random number.
    pub fn random_u64(&self) -> u64 {
        self.rng().random()
    }

    /// Sixteen random bytes, for ids that are never handed out twice.
    pub fn random_id(&self) -> [u8; 16] {
        self.rng().random()
    }

    /// A duration drawn uniformly from `0..=max`, for jitter.
    pub fn jitter(&self, max: Duration) -> Duration {
        let max = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng().random_range(0..=max))
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.shared.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_killed(&self) -> bool {
        self.shared.killed.load(Ordering::Relaxed)
    }

    /// Spawns a task that [`Env::kill`] ends. After a kill nothing is spawned any more. If the task fails, what its
    /// kind says follows; whoever waits for the handle sees the panic too.
    pub fn spawn<F>(&self, kind: TaskKind, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_until(kind, || false, future)
    }

    /// As [`Env::spawn`], of a task that may end once what it belongs to `is_over`.
    pub fn spawn_until<F>(
        &self,
        kind: TaskKind,
        is_over: impl FnOnce() -> bool + Send + 'static,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let listed = self.enlist(kind);
        let number = listed.number;
        let task = async move {
            if listed.env.is_killed() {
                return std::future::pending().await;
            }
            let outcome = panics::caught(sabotage::in_task(kind, future)).await;
            let env = listed.env.clone();
            match outcome {
                Ok(output) => {
                    if kind.runs() == Runs::Always && !env.is_killed() && !is_over() {
                        env.fail(Failure::Ended { task: kind });
                    }
                    output
                }
                Err(panicked) => {
                    env.report(kind, &panicked);
                    drop(listed);
                    panicked.resume()
                }
            }
        };
        self.start(number, tokio::spawn(task))
    }

    /// As [`Env::spawn`], of a task that begins anew when it has failed.
    pub fn spawn_restarting<F>(&self, kind: TaskKind, make: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        debug_assert_eq!(kind.on_failure(), OnFailure::Restarts);
        let listed = self.enlist(kind);
        let number = listed.number;
        let task = async move {
            if listed.env.is_killed() {
                return std::future::pending().await;
            }
            let mut pause = RESTART.0;
            loop {
                let began = Instant::now();
                let Err(panicked) = panics::caught(sabotage::in_task(kind, make())).await else {
                    return;
                };
                listed.env.report(kind, &panicked);
                panicked.told();
                if began.elapsed() > RESTART.1 {
                    pause = RESTART.0;
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(RESTART.1);
            }
        };
        self.start(number, tokio::spawn(task))
    }

    /// Runs blocking work that nobody waits for; [`Env::kill`] does not reach it. If it fails, what its kind says
    /// follows.
    pub(crate) fn spawn_blocking(&self, kind: TaskKind, work: impl FnOnce() + Send + 'static) {
        let listed = self.enlist(kind);
        drop(tokio::task::spawn_blocking(move || {
            if listed.env.is_killed() {
                return;
            }
            let outcome = panics::caught_now(|| {
                sabotage::in_blocking(kind);
                work();
            });
            if let Err(panicked) = outcome {
                listed.env.report(kind, &panicked);
                panicked.told();
            }
        }));
    }

    fn enlist(&self, kind: TaskKind) -> Listed {
        let mut tasks = self.tasks();
        let number = tasks.next;
        tasks.next += 1;
        tasks.running.insert(number, Running { kind, abort: None });
        Listed {
            env: self.clone(),
            number,
        }
    }

    /// Lets a kill reach the task. One that ended meanwhile has no entry any more, nor have those that were killed.
    fn start<T>(&self, number: u64, handle: JoinHandle<T>) -> JoinHandle<T> {
        let mut tasks = self.tasks();
        if self.is_killed() {
            handle.abort();
        } else if let Some(running) = tasks.running.get_mut(&number) {
            running.abort = Some(handle.abort_handle());
        }
        handle
    }

    fn report(&self, kind: TaskKind, panicked: &Panicked) {
        if self.is_killed() {
            return;
        }
        let what = panicked.to_string();
        match kind.on_failure() {
            OnFailure::EndsBroker => self.fail(Failure::Panicked { task: kind, what }),
            OnFailure::Restarts => {
                tracing::error!(task = kind.name(), %what, "a task panicked and begins anew");
            }
            OnFailure::IsLogged => {
                tracing::error!(task = kind.name(), %what, "a task panicked; its work is lost, all else goes on");
            }
        }
    }

    /// Ends the incarnation: [`Env::failed`] says so from now on. The first failure counts, and is logged.
    pub fn fail(&self, failure: Failure) {
        self.shared.failure.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            tracing::error!(%failure, "this broker cannot go on");
            *known = Some(failure);
            true
        });
    }

    /// Why the incarnation cannot go on, once it cannot.
    pub fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.shared.failure.subscribe()
    }

    /// Runs blocking work off the async threads; in place under simulation.
    ///
    /// The work goes on when the returned future is dropped: it owns what it touches. A panic in it is the caller's;
    /// if that is gone, it is logged.
    pub async fn blocking<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if self.is_simulated() {
            return work();
        }
        match tokio::task::spawn_blocking(|| panics::caught_now(work)).await {
            Ok(Ok(value)) => value,
            Ok(Err(panicked)) => panicked.resume(),
            // The runtime is going down: nobody is left to answer.
            Err(_) => std::future::pending().await,
        }
    }

    /// The tasks that are running, for metrics and shutdown, in the order in which they stop.
    pub fn running(&self) -> Vec<TaskKind> {
        let mut kinds: Vec<TaskKind> = self.tasks().running.values().map(|task| task.kind).collect();
        kinds.sort_by_key(|kind| (kind.stops(), *kind));
        kinds
    }

    /// Ends every task at the await where it stands, as a `kill -9` would. Idempotent.
    pub fn kill(&self) {
        let running = {
            let mut tasks = self.tasks();
            self.shared.killed.store(true, Ordering::Relaxed);
            std::mem::take(&mut tasks.running)
        };
        running
            .into_values()
            .filter_map(|task| task.abort)
            .for_each(|task| task.abort());
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("simulated", &self.is_simulated())
            .finish_non_exhaustive()
    }
}
