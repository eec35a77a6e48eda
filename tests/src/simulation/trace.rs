//! What happened, in order: a hash of it all for comparing runs, and counts for people.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Locks a mutex whose holder cannot have panicked half-way through anything that matters here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The events of one run.
pub struct Trace {
    origin: Instant,
    /// Printed as it happens (`DRUMLIN_TRACE=1`).
    loud: bool,
    state: Mutex<State>,
}

struct State {
    hash: u64,
    events: u64,
    counts: BTreeMap<String, u64>,
    violations: Vec<String>,
}

impl Trace {
    pub(super) fn new() -> Self {
        let state = State {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            counts: BTreeMap::new(),
            violations: Vec::new(),
        };
        Self {
            origin: Instant::now(),
            loud: std::env::var_os("DRUMLIN_TRACE").is_some(),
            state: Mutex::new(state),
        }
    }

    /// Virtual milliseconds since the start.
    pub(super) fn now_ms(&self) -> i64 {
        Instant::now().duration_since(self.origin).as_millis() as i64
    }

    /// Adds an event to the hash, under the time at hand.
    pub(super) fn note(&self, what: &str, numbers: &[i64]) {
        let now = self.now_ms();
        if self.loud {
            eprintln!("{:>9.3} {what} {numbers:?}", now as f64 / 1e3);
        }
        let mut state = lock(&self.state);
        state.events += 1;
        let words = numbers.iter().copied().chain([now]);
        let bytes = what.bytes().chain(words.flat_map(i64::to_be_bytes));
        for byte in bytes {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Counts something for the report.
    pub(super) fn count(&self, what: &str) {
        self.count_by(what, 1);
    }

    pub(super) fn count_by(&self, what: &str, by: u64) {
        let mut state = lock(&self.state);
        match state.counts.get_mut(what) {
            Some(count) => *count += by,
            None => drop(state.counts.insert(what.to_owned(), by)),
        }
    }

    /// A promise was broken.
    pub(super) fn violation(&self, what: String) {
        self.note(&format!("VIOLATION {what}"), &[]);
        let mut state = lock(&self.state);
        if state.violations.len() < 10 {
            let at = Instant::now().duration_since(self.origin);
            state
                .violations
                .push(format!("{:.3} s: {what}", at.as_secs_f64()));
        }
    }

    pub(super) fn is_violated(&self) -> bool {
        !lock(&self.state).violations.is_empty()
    }

    /// Hash, number of events, counts, violations.
    pub(super) fn finish(&self) -> (u64, u64, BTreeMap<String, u64>, Vec<String>) {
        let mut state = lock(&self.state);
        (
            state.hash,
            state.events,
            std::mem::take(&mut state.counts),
            std::mem::take(&mut state.violations),
        )
    }
}
