//! Time, randomness and tasks, as handles that come from outside.
//!
//! Everything above this crate takes an [`Env`], so that a simulation can replay a run from its seed,
//! stop the clock, and end every task of one broker at whatever await it stands.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

/// A broker's clock, source of randomness and task supervisor. Cheap to clone; clones share one supervisor.
#[derive(Clone)]
pub struct Env {
    shared: Arc<Shared>,
}

struct Shared {
    wall: Wall,
    rng: Mutex<StdRng>,
    tasks: Mutex<Tasks>,
}

enum Wall {
    System,
    /// Unix milliseconds at `origin`; moves with tokio's (possibly paused) clock.
    Simulated {
        origin: Instant,
        start_ms: AtomicI64,
    },
}

#[derive(Default)]
struct Tasks {
    running: Vec<(&'static str, AbortHandle)>,
    killed: bool,
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

    /// Spawns a named task that [`Env::kill`] ends. After a kill nothing is spawned any more.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut tasks = self.tasks();
        let handle = tokio::spawn(future);
        if tasks.killed {
            handle.abort();
        } else {
            if tasks.running.len() == tasks.running.capacity() {
                tasks.running.retain(|(_, task)| !task.is_finished());
            }
            tasks.running.push((name, handle.abort_handle()));
        }
        handle
    }

    /// Runs blocking work off the async threads; in place under simulation.
    ///
    /// The work goes on when the returned future is dropped: it owns what it touches.
    pub async fn blocking<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if self.is_simulated() {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down: nobody is left to answer.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// The tasks that are running, by name, for metrics and shutdown.
    pub fn running(&self) -> Vec<&'static str> {
        let mut tasks = self.tasks();
        tasks.running.retain(|(_, task)| !task.is_finished());
        tasks.running.iter().map(|(name, _)| *name).collect()
    }

    /// Ends every task at the await where it stands, as a `kill -9` would. Idempotent.
    pub fn kill(&self) {
        let mut tasks = self.tasks();
        tasks.killed = true;
        for (_, task) in tasks.running.drain(..) {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("simulated", &self.is_simulated())
            .finish_non_exhaustive()
    }
}
