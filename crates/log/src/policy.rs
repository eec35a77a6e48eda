//! When the open WAL object is put.
//!
//! Pure arithmetic over times and sizes that the caller supplies. On a remote store each put costs money, so a
//! bucket of tokens refills with 2 a second and 1 more per MiB/s of ingest, up to the budget; an object goes at
//! once while there is a token. On a local directory a put costs CPU, so a quiet log puts at once and a busy one
//! gathers more the more puts are in flight.

use std::time::Duration;

use tokio::time::Instant;

const MIB: f64 = 1_048_576.0;
/// The time constant of the ingest estimate.
const SMOOTHING: Duration = Duration::from_millis(500);
/// Local: below this rate, MiB/s, a put goes at once while none is in flight.
const QUIET_RATE: f64 = 16.0;
/// Local: size worth a put while none is in flight; doubled for each that is.
const BUSY_BYTES: usize = 128 << 10;
const BUSY_LINGER: Duration = Duration::from_millis(1);

/// What to do with the open object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Put,
    /// Look again then, or when something changes.
    WaitUntil(Instant),
}

#[derive(Debug)]
pub(crate) struct PutPolicy {
    remote: bool,
    flush_bytes: usize,
    linger_max: Duration,
    budget: f64,
    tokens: f64,
    /// MiB/s.
    ingest: f64,
    updated: Instant,
}

impl PutPolicy {
    pub(crate) fn new(
        remote: bool,
        flush_bytes: usize,
        linger_max: Duration,
        budget: f64,
        now: Instant,
    ) -> Self {
        Self {
            remote,
            flush_bytes,
            linger_max,
            budget,
            tokens: budget,
            ingest: 0.0,
            updated: now,
        }
    }

    fn refill_rate(&self) -> f64 {
        (2.0 + self.ingest).min(self.budget)
    }

    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        self.tokens = (self.tokens + elapsed * self.refill_rate()).min(self.budget);
        self.ingest *= (-elapsed / SMOOTHING.as_secs_f64()).exp();
    }

    /// Judges an open object of `bytes` whose first append came at `since`.
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        bytes: usize,
        since: Instant,
        in_flight: usize,
    ) -> Decision {
        self.advance(now);
        if bytes >= self.flush_bytes {
            return Decision::Put;
        }
        let due = if self.remote {
            if self.tokens >= 1.0 {
                return Decision::Put;
            }
            let token = now + Duration::from_secs_f64((1.0 - self.tokens) / self.refill_rate());
            // When the budget is short the linger may grow to five times its maximum, never further.
            token
                .max(since + self.linger_max.min(Duration::from_millis(1)))
                .min(since + 5 * self.linger_max)
        } else {
            if in_flight == 0 && self.ingest < QUIET_RATE {
                return Decision::Put;
            }
            if bytes >= self.enough(in_flight) {
                return Decision::Put;
            }
            since
                + if in_flight < 2 {
                    BUSY_LINGER.min(self.linger_max)
                } else {
                    self.linger_max
                }
        };
        if due <= now {
            Decision::Put
        } else {
            Decision::WaitUntil(due)
        }
    }

    /// So many bytes are put without waiting longer.
    pub(crate) fn enough(&self, in_flight: usize) -> usize {
        if self.remote {
            self.flush_bytes
        } else {
            self.flush_bytes.min(BUSY_BYTES << in_flight.min(5))
        }
    }

    /// Accounts for a put of `bytes`.
    pub(crate) fn put(&mut self, now: Instant, bytes: usize) {
        self.advance(now);
        // Full objects go whatever the budget; they may use it up, not run it into debt.
        self.tokens = (self.tokens - 1.0).max(-1.0);
        self.ingest += bytes as f64 / MIB / SMOOTHING.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts per GiB under a steady `rate`, MiB/s, in appends of 64 KiB.
    fn puts_per_gib(rate: f64) -> f64 {
        let start = Instant::now();
        let mut policy = PutPolicy::new(true, 8 << 20, Duration::from_millis(100), 10.0, start);
        let step = Duration::from_secs_f64(65536.0 / MIB / rate);
        let (mut now, mut bytes, mut since, mut puts, mut total) = (start, 0usize, start, 0u64, 0u64);
        let target = 2u64 << 30;
        while total < target {
            if bytes == 0 {
                since = now;
            }
            bytes += 65536;
            total += 65536;
            if policy.decide(now, bytes, since, 4) == Decision::Put {
                policy.put(now, bytes);
                (bytes, puts) = (0, puts + 1);
            }
            now += step;
        }
        puts as f64 / 2.0
    }

    #[test]
    fn a_remote_store_sees_no_more_puts_than_the_refill_rule_gives() {
        for rate in [20.0, 40.0, 80.0, 120.0, 400.0] {
            let allowed = f64::max(128.0, 10_240.0 / rate);
            let puts = puts_per_gib(rate);
            assert!(
                puts <= allowed * 1.05 + 10.0,
                "{rate} MiB/s: {puts} puts per GiB, {allowed} allowed"
            );
        }
    }

    #[test]
    fn a_quiet_broker_puts_at_once_and_a_busy_local_one_gathers() {
        let now = Instant::now();
        let mut remote = PutPolicy::new(true, 8 << 20, Duration::from_millis(100), 10.0, now);
        assert_eq!(remote.decide(now, 1, now, 0), Decision::Put);
        let mut local = PutPolicy::new(false, 8 << 20, Duration::from_millis(5), 10.0, now);
        assert_eq!(local.decide(now, 1, now, 0), Decision::Put);
        assert!(matches!(local.decide(now, 1, now, 1), Decision::WaitUntil(_)));
        for _ in 0..100 {
            local.put(now, 1 << 20);
        }
        assert!(matches!(local.decide(now, 1, now, 0), Decision::WaitUntil(_)));
        assert_eq!(local.decide(now, 300 << 10, now, 0), Decision::Put);
    }
}
