//! What goes wrong, and how it is drawn.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::Duration;

use object_store::Error;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::error::LocalFailure;

/// How long a request takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Latency {
    /// No time at all.
    None,
    /// Uniform.
    Uniform(Range<Duration>),
    /// Mostly around the median (half to one and a half of it), and now and then far longer.
    Tailed {
        /// The usual time.
        median: Duration,
        /// How often it takes longer, 0 to 1.
        tail: f64,
        /// How long it takes then, at most.
        worst: Duration,
    },
}

/// What goes wrong, each as a chance of 0 to 1 a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Any request fails and has no effect.
    pub error_before: f64,
    /// A write takes effect, and its reply is lost.
    pub error_after: f64,
    /// Any request stalls for as long as [`Faults::stall_for`] says before it goes on.
    pub stall: f64,
    /// How long.
    pub stall_for: Range<Duration>,
    /// The body of a get ends early, half of the times without an error.
    pub cut_body: f64,
    /// A time of "503 SlowDown" begins, in which four of five requests are refused.
    pub slow_down: f64,
    /// How long it lasts.
    pub slow_down_for: Range<Duration>,
    /// A put is answered with an error at once and lands late.
    pub late_put: f64,
    /// A put lands, and lands again later.
    pub duplicate_put: f64,
    /// How late.
    pub late_by: Range<Duration>,
    /// A put-if-absent is answered as a conflict though there is no such object (S3's 409).
    pub false_conflict: f64,
    /// A list is no snapshot: it takes [`Faults::list_for`], and what changes meanwhile shows or does not.
    pub torn_list: f64,
    /// How long such a list takes.
    pub list_for: Range<Duration>,
    /// A put fails in its fsync, as on a dying disk. Ends incarnations.
    pub fsync_failed: f64,
    /// Puts fail for want of space.
    pub full: bool,
    /// How long requests take.
    pub latency: Latency,
}

impl Faults {
    /// Nothing goes wrong, and takes no time.
    pub fn none() -> Self {
        let second = Duration::from_secs(1);
        Self {
            error_before: 0.0,
            error_after: 0.0,
            stall: 0.0,
            stall_for: second..30 * second,
            cut_body: 0.0,
            slow_down: 0.0,
            slow_down_for: second..5 * second,
            late_put: 0.0,
            duplicate_put: 0.0,
            late_by: Duration::from_millis(1)..10 * second,
            false_conflict: 0.0,
            torn_list: 0.0,
            list_for: Duration::from_millis(1)..second,
            fsync_failed: 0.0,
            full: false,
            latency: Latency::None,
        }
    }

    /// A remote store on a bad day: a few in a hundred requests meet each kind of trouble.
    pub fn stormy() -> Self {
        Self {
            error_before: 0.03,
            error_after: 0.03,
            stall: 0.005,
            cut_body: 0.03,
            slow_down: 0.002,
            late_put: 0.02,
            duplicate_put: 0.02,
            false_conflict: 0.02,
            torn_list: 0.3,
            latency: Latency::Tailed {
                median: Duration::from_millis(30),
                tail: 0.02,
                worst: Duration::from_secs(3),
            },
            ..Self::none()
        }
    }
}

/// The dice of one store.
pub(super) struct State {
    pub(super) rng: StdRng,
    pub(super) faults: Faults,
    pub(super) slow_until: Option<Instant>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl State {
    pub(super) fn hits(&mut self, kind: &'static str, chance: f64) -> bool {
        // Always drawn, so that a chance changed elsewhere does not shift all that follows.
        let hit = self.rng.random::<f64>() < chance;
        if hit {
            *self.counts.entry(kind).or_default() += 1;
        }
        hit
    }

    pub(super) fn time(&mut self, range: &Range<Duration>) -> Duration {
        let (from, to) = (range.start.as_micros() as u64, range.end.as_micros() as u64);
        Duration::from_micros(self.rng.random_range(from..=to.max(from)))
    }

    fn latency(&mut self) -> Duration {
        match self.faults.latency.clone() {
            Latency::None => Duration::ZERO,
            Latency::Uniform(range) => self.time(&range),
            Latency::Tailed { median, tail, worst } => {
                if self.hits("slow answer", tail) {
                    self.time(&(median..worst))
                } else {
                    self.time(&(median / 2..median + median / 2))
                }
            }
        }
    }

    /// Trouble that any request may meet: how long it takes, and whether it fails without effect.
    pub(super) fn any(&mut self) -> (Duration, Option<Error>) {
        let faults = self.faults.clone();
        let mut wait = self.latency();
        if self.hits("stall", faults.stall) {
            wait += self.time(&faults.stall_for);
        }
        let now = Instant::now();
        if self.hits("slow-down burst", faults.slow_down) {
            self.slow_until = Some(now + self.time(&faults.slow_down_for));
        }
        if self.slow_until.is_some_and(|until| now < until) && self.hits("slow-down", 0.8) {
            return (wait, Some(injected("503 SlowDown")));
        }
        let failed = self.hits("error before", faults.error_before);
        (wait, failed.then(|| injected("500 before the effect")))
    }

    pub(super) fn put_fate(&mut self, if_absent: bool) -> PutFate {
        let faults = self.faults.clone();
        if faults.full {
            *self.counts.entry("full").or_default() += 1;
            return PutFate::Fail(LocalFailure::Full(io::ErrorKind::StorageFull.into()).into());
        }
        if self.hits("fsync failed", faults.fsync_failed) {
            return PutFate::FailAfter(LocalFailure::Fsync(io::Error::other("injected")).into());
        }
        if self.hits("late put", faults.late_put) {
            return PutFate::Late(self.time(&faults.late_by));
        }
        if self.hits("duplicate put", faults.duplicate_put) {
            return PutFate::Twice(self.time(&faults.late_by));
        }
        if self.hits("error after", faults.error_after) {
            return PutFate::FailAfter(injected("connection reset after the effect"));
        }
        if if_absent && self.hits("false conflict", faults.false_conflict) {
            return PutFate::Conflict;
        }
        PutFate::Lands
    }
}

pub(super) enum PutFate {
    Lands,
    Fail(Error),
    FailAfter(Error),
    Late(Duration),
    Twice(Duration),
    Conflict,
}

pub(super) fn injected(what: &'static str) -> Error {
    Error::Generic {
        store: "fault",
        source: format!("injected: {what}").into(),
    }
}
