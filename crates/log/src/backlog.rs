//! What is committed and not sealed yet, and how fast the log takes in more.
//!
//! Sealing must keep pace with the log. While less than one round is unsealed, appends are not slowed. Above that each
//! append waits its turn, so that the log takes in less the more is unsealed: twice the measured rate of sealing at
//! first, the rate itself half way to `full`, half of it at `full`, a quarter from there on. So a backlog shrinks by
//! itself, and acknowledgements go on without a pause. Only at the hard limit, which nothing but a store that seals
//! nothing at all can reach, appends wait for the next round.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// A turn may come early by so much: timers are no finer than a millisecond.
const EARLY: Duration = Duration::from_millis(2);
/// The longest wait after which a turn looks at the backlog again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Rounds smaller than this say little about the rate of sealing: their requests cost more than their bytes.
const MEASURABLE: u64 = 16 << 20;
/// The rate of sealing is never taken for less than this part of a whole round a second.
const SLOWEST: u64 = 2048;
/// Before anything was sealed, the rate is taken for this part of a whole round a second.
const UNKNOWN: u64 = 16;
/// A round is cut at what is sealed in this time, seconds.
const ROUND_SECONDS: f64 = 2.0;
/// No round is cut below this part of a whole one: smaller rounds make smaller segments.
const ROUND_LEAST: u64 = 32;
/// While the rate is not known, a round is this part of a whole one.
const FIRST_ROUND: u64 = 8;

/// One append that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The backlog of one log. All sizes in bytes.
#[derive(Debug)]
pub(crate) struct Backlog {
    unsealed: AtomicU64,
    /// Appends are slowed above this.
    soft: AtomicU64,
    /// They are slowed to half the rate of sealing here.
    full: AtomicU64,
    /// They wait above this.
    hard: u64,
    /// One round's worth, by the options.
    round: u64,
    /// Sealed bytes per second while a round runs; 0 before the first measurable round.
    sealing_rate: AtomicU64,
    /// Whoever holds this has the next turn; it says from when on.
    next_turn: Mutex<Instant>,
    /// Appends that wait for their turn.
    waiting: AtomicUsize,
    shrunk: Notify,
}

impl Backlog {
    /// `round` is the size of a round (`seal.round.bytes`).
    pub(crate) fn new(round: u64, now: Instant) -> Self {
        let hard = round.saturating_mul(2);
        Self {
            unsealed: AtomicU64::new(0),
            soft: AtomicU64::new(round),
            full: AtomicU64::new(round + round / 2),
            hard,
            round,
            sealing_rate: AtomicU64::new(0),
            next_turn: Mutex::new(now),
            waiting: AtomicUsize::new(0),
            shrunk: Notify::new(),
        }
    }

    /// Unsealed bytes now.
    pub(crate) fn note_unsealed(&self, bytes: u64) {
        self.unsealed.store(bytes, Ordering::Relaxed);
    }

    /// Wakes appends that wait at the hard limit.
    pub(crate) fn note_round_end(&self) {
        self.shrunk.notify_waiters();
    }

    /// Where appends are slowed. `memory` is the memory for recent data if sealing reads from there as long as it keeps
    /// pace: the backlog is kept within it then, since reading it back from the disk makes sealing slower still. None:
    /// a round's worth may be unsealed.
    pub(crate) fn set_limits(&self, memory: Option<u64>) {
        let (soft, full) = match memory {
            Some(memory) => ((memory / 2).min(self.round), memory.min(self.hard)),
            None => (self.round, self.round + self.round / 2),
        };
        self.soft.store(soft, Ordering::Relaxed);
        self.full.store(full.max(soft + 1), Ordering::Relaxed);
    }

    /// A round has sealed so many bytes in this time.
    pub(crate) fn note_sealed(&self, bytes: u64, took: Duration) {
        if bytes < MEASURABLE.min(self.round / ROUND_LEAST) {
            return;
        }
        let rate = (bytes as f64 / took.as_secs_f64().max(1e-3)) as u64;
        let known = self.sealing_rate.load(Ordering::Relaxed);
        let rate = if known == 0 { rate } else { known / 2 + rate / 2 };
        self.sealing_rate.store(rate.max(1), Ordering::Relaxed);
    }

    /// How much one round seals at most.
    pub(crate) fn round_limit(&self) -> u64 {
        match self.sealing_rate.load(Ordering::Relaxed) {
            // A short one tells the rate soon.
            0 => self.round / FIRST_ROUND,
            rate => ((rate as f64 * ROUND_SECONDS) as u64)
                .max(self.round / ROUND_LEAST)
                .min(self.round),
        }
    }

    /// Whether an append of any size goes on at once. Not while others wait: what came first is appended first, or a
    /// producer's second batch would be taken before its first.
    pub(crate) fn is_open(&self) -> bool {
        self.unsealed.load(Ordering::Relaxed) <= self.soft.load(Ordering::Relaxed)
            && self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Waits until `bytes` more may be appended, first come, first served.
    pub(crate) async fn wait_turn(&self, bytes: usize) {
        let _waiting = Waiting::begin(&self.waiting);
        let mut next_turn = self.next_turn.lock().await;
        loop {
            let shrunk = self.shrunk.notified();
            let now = Instant::now();
            let unsealed = self.unsealed.load(Ordering::Relaxed);
            if unsealed > self.hard {
                shrunk.await;
                continue;
            }
            let Some(rate) = self.intake_rate(unsealed) else {
                *next_turn = now;
                return;
            };
            let turn = (*next_turn).max(now.checked_sub(EARLY).unwrap_or(now));
            if turn <= now {
                *next_turn = turn + Duration::from_secs_f64(bytes as f64 / rate);
                return;
            }
            tokio::time::sleep_until(turn.min(now + LOOK_AGAIN)).await;
        }
    }

    /// How fast the log takes in with so much unsealed, bytes a second; none: as fast as it can.
    fn intake_rate(&self, unsealed: u64) -> Option<f64> {
        let soft = self.soft.load(Ordering::Relaxed);
        let sealing = self.sealing_rate.load(Ordering::Relaxed);
        if unsealed <= soft {
            return None;
        }
        let sealing = match sealing {
            0 => self.round / UNKNOWN,
            known => known.max(self.round / SLOWEST),
        };
        let full = self.full.load(Ordering::Relaxed).max(soft + 1);
        let depth = (unsealed - soft) as f64 / (full - soft) as f64;
        let share = 2f64.powf(1.0 - 2.0 * depth.min(1.5));
        Some(sealing as f64 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn backlog(unsealed: u64, sealing: u64) -> Backlog {
        let backlog = Backlog::new(1024 * MIB, Instant::now());
        backlog.note_sealed(10 * sealing, Duration::from_secs(10));
        backlog.note_unsealed(unsealed);
        backlog
    }

    #[test]
    fn intake_falls_smoothly_as_the_backlog_grows() {
        let rate = |unsealed| backlog(0, 100 * MIB).intake_rate(unsealed);
        assert_eq!(rate(1024 * MIB), None);
        let just_above = rate(1024 * MIB + 1).unwrap();
        assert!((just_above / (200 * MIB) as f64 - 1.0).abs() < 0.01);
        assert_eq!(rate(1280 * MIB).unwrap(), (100 * MIB) as f64);
        assert_eq!(rate(1536 * MIB).unwrap(), (50 * MIB) as f64);
        assert_eq!(rate(u64::MAX).unwrap(), (25 * MIB) as f64);
        let mut last = f64::INFINITY;
        for step in 1025..3000 {
            let now = rate(step * MIB).unwrap();
            assert!(now <= last && now > last * 0.99 || last.is_infinite());
            last = now;
        }
    }

    #[test]
    fn a_round_is_cut_at_what_is_sealed_in_seconds() {
        assert_eq!(Backlog::new(1024 * MIB, Instant::now()).round_limit(), 128 * MIB);
        assert_eq!(backlog(0, 100 * MIB).round_limit(), 200 * MIB);
        assert_eq!(backlog(0, 10 * MIB).round_limit(), 32 * MIB);
        assert_eq!(backlog(0, 10_000 * MIB).round_limit(), 1024 * MIB);
    }

    /// A closed loop of producers against a sealing task, in simulated time: acknowledgements never pause, and the
    /// backlog stays below the hard limit.
    #[tokio::test(start_paused = true)]
    async fn producers_are_slowed_without_a_pause() {
        let backlog = std::sync::Arc::new(backlog(1200 * MIB, 100 * MIB));
        let sealing = {
            let backlog = std::sync::Arc::clone(&backlog);
            tokio::spawn(async move {
                // 30 MiB every 300 ms, a third of the time at a tenth of that.
                for round in 0u64.. {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    let sealed = if round % 30 < 10 { 3 * MIB } else { 30 * MIB };
                    backlog.note_sealed(10 * sealed / 3, Duration::from_secs(1));
                    backlog.unsealed.fetch_sub(sealed, Ordering::Relaxed);
                    backlog.note_round_end();
                }
            })
        };
        let began = Instant::now();
        let (mut last, mut longest, mut most) = (began, Duration::ZERO, 0);
        while began.elapsed() < Duration::from_secs(120) {
            backlog.wait_turn(64 << 10).await;
            let unsealed = backlog.unsealed.fetch_add(64 << 10, Ordering::Relaxed);
            most = most.max(unsealed);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        sealing.abort();
        assert!(longest < Duration::from_millis(250), "a pause of {longest:?}");
        assert!(most < 2048 * MIB, "{most} bytes unsealed");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_one_who_waits() {
        let backlog = std::sync::Arc::new(backlog(2049 * MIB, 100 * MIB));
        let waits = {
            let backlog = std::sync::Arc::clone(&backlog);
            tokio::spawn(async move { backlog.wait_turn(1).await })
        };
        tokio::task::yield_now().await;
        // The backlog is gone, and the one who waits does not know yet.
        backlog.note_unsealed(0);
        assert!(!backlog.is_open());
        backlog.note_round_end();
        waits.await.unwrap();
        assert!(backlog.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn appends_wait_at_the_hard_limit_until_a_round_ends() {
        let backlog = backlog(2049 * MIB, 100 * MIB);
        let waited = tokio::time::timeout(Duration::from_secs(60), backlog.wait_turn(1)).await;
        assert!(waited.is_err(), "nothing was sealed");
        let turn = backlog.wait_turn(1);
        let sealed = async {
            backlog.note_unsealed(MIB);
            backlog.note_round_end();
        };
        tokio::join!(turn, sealed);
    }
}
