//! The clock of a shard's timers: it stands still while the shard cannot hear its members.
//!
//! A member that heartbeats in time must not be taken for dead because the broker was paused, or waited for the store
//! with requests in its mailbox. So what the shard was deaf for is taken out of its time.

use std::time::Duration;

use drumlin_coordinator::Now;
use drumlin_objects::Env;
use tokio::time::Instant;

/// Lateness that is no pause: a busy machine is late by this much all the time.
const TOLERATED: Duration = Duration::from_millis(250);
/// Before a deadline the shard looks at the clock this often, so that a pause is seen as one.
const LOOK: Duration = Duration::from_secs(1);
/// So long before it. A pause that is over by then has left members the time to be heard again.
const WATCH: Duration = Duration::from_secs(10);

/// One shard's clock.
#[derive(Debug)]
pub struct Clock {
    env: Env,
    origin: Instant,
    deaf: Duration,
}

impl Clock {
    /// A clock that counts from `origin`.
    pub fn new(env: &Env, origin: Instant) -> Self {
        Self {
            env: env.clone(),
            origin,
            deaf: Duration::ZERO,
        }
    }

    /// The machine's monotonic clock.
    pub fn instant(&self) -> Instant {
        self.env.instant()
    }

    /// The time of a step.
    pub fn now(&self) -> Now {
        let heard = self
            .instant()
            .saturating_duration_since(self.origin)
            .saturating_sub(self.deaf);
        Now {
            wall_ms: self.env.now_ms(),
            mono_ms: u64::try_from(heard.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// When to wake for a deadline, at the latest.
    pub fn wake_for(&self, deadline_ms: u64) -> Instant {
        // What is bounded is the distance: the deadline itself counts from the start, which may be long ago.
        let distance = deadline_ms.saturating_sub(self.now().mono_ms);
        let at = self.instant() + Duration::from_millis(distance.min(u64::from(u32::MAX)));
        let look = self.instant() + LOOK;
        if at > look + WATCH {
            at - WATCH
        } else {
            at.min(look)
        }
    }

    /// The shard meant to wake at `planned` at the latest, and is awake now.
    pub fn woke(&mut self, planned: Instant) {
        let late = self.instant().saturating_duration_since(planned);
        if late > TOLERATED {
            self.deaf += late;
        }
    }

    /// The shard took no requests since then.
    pub fn deaf_since(&mut self, since: Instant) {
        self.woke(since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_was_heard_does_not_count() {
        let env = Env::simulated(1, 1_000);
        let mut clock = Clock::new(&env, env.instant());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!((clock.now().mono_ms, clock.now().wall_ms), (5_000, 6_000));
        // Meant to wake in a second, and slept for thirty.
        let planned = clock.wake_for(8_000);
        assert_eq!(planned, env.instant() + LOOK);
        let far = clock.wake_for(605_000);
        assert_eq!(far, env.instant() + Duration::from_secs(600) - WATCH);
        tokio::time::advance(Duration::from_secs(30)).await;
        clock.woke(planned);
        assert_eq!(clock.now().mono_ms, 6_000);
        // A little late is not deaf.
        let planned = clock.wake_for(6_500);
        tokio::time::advance(Duration::from_millis(600)).await;
        clock.woke(planned);
        assert_eq!(clock.now().mono_ms, 6_600);
    }

    #[tokio::test(start_paused = true)]
    async fn timers_run_however_long_the_broker_has_been_up() {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        let env = Env::simulated(1, 1_000);
        let mut clock = Clock::new(&env, env.instant());
        for _ in 0..4 {
            tokio::time::advance(60 * DAY).await;
            let deadline = clock.now().mono_ms + 500;
            let planned = clock.wake_for(deadline);
            assert_eq!(planned, env.instant() + Duration::from_millis(500));
            tokio::time::advance(Duration::from_millis(500)).await;
            clock.woke(planned);
            assert!(clock.now().mono_ms >= deadline, "time has stopped");
            // One that is over is now, and nobody was deaf.
            clock.woke(clock.wake_for(deadline - 400_000));
            assert!(clock.now().mono_ms >= deadline, "time went back");
        }
    }
}
