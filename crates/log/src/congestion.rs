//! How much is on its way to the store at a time.
//!
//! Puts that are sent together over a narrow link share it, and arrive together: sixteen objects of 8 MiB over 13 MB/s are
//! all acknowledged after ten seconds, and none before. So what is in flight is bounded by what the store takes in a
//! fraction of a second, and objects are made smaller with it. A put that takes as long whatever else is on its way says
//! nothing of the link: what counts is how much longer commits take than the fastest ones of late.

use std::time::Duration;

use tokio::time::Instant;

/// A commit that takes so much longer than the fastest of late says that too much is in flight.
const SLOWER: Duration = Duration::from_millis(100);
/// What is in flight then is cut to what the store takes in the time of the fastest commit, and this.
const SPARE: Duration = Duration::from_millis(50);
/// The fastest commit is one of the last one or two of these.
const OF_LATE: Duration = Duration::from_secs(3);
/// Before anything was slow, the bound grows by this part of what is committed; afterwards by the other.
const GROWTH: [usize; 2] = [2, 16];
/// In flight before anything is known of the store: it grows quickly.
const FIRST: usize = 4 << 20;
/// Objects on their way at a time, at least, where their size can be chosen.
const OBJECTS: usize = 4;
/// No object is made smaller than this, bytes.
const SMALLEST: usize = 256 << 10;
/// The rate is measured over at least this long.
const MEASURED_OVER: Duration = Duration::from_millis(250);
/// Slow commits that follow one another within this are one observation.
const REACTION: Duration = Duration::from_millis(200);

/// The bounds of one WAL. Pure arithmetic over what the caller tells.
#[derive(Debug)]
pub(crate) struct Congestion {
    /// The size of a whole object.
    flush_bytes: usize,
    most: usize,
    /// Bytes that may be in flight.
    bound: usize,
    in_flight: usize,
    /// Bytes a second, while something was in flight all the time.
    rate: Option<f64>,
    measured_since: Instant,
    measured_bytes: usize,
    /// When the bound was last cut, if ever.
    reacted: Option<Instant>,
    fastest: Fastest,
}

/// The shortest time that a commit took of late.
#[derive(Debug)]
struct Fastest {
    since: Instant,
    now: Duration,
    before: Duration,
}

impl Fastest {
    fn note(&mut self, now: Instant, latency: Duration) -> Duration {
        if now.saturating_duration_since(self.since) >= OF_LATE {
            (self.since, self.before, self.now) = (now, self.now, Duration::MAX);
        }
        self.now = self.now.min(latency);
        self.now.min(self.before)
    }
}

impl Congestion {
    /// `window` objects of `flush_bytes` are in flight at most.
    pub(crate) fn new(flush_bytes: usize, window: u64, now: Instant) -> Self {
        let most = flush_bytes.saturating_mul(usize::try_from(window).unwrap_or(usize::MAX));
        Self {
            flush_bytes,
            most,
            bound: FIRST.min(most),
            in_flight: 0,
            rate: None,
            measured_since: now,
            measured_bytes: 0,
            reacted: None,
            fastest: Fastest {
                since: now,
                now: Duration::MAX,
                before: Duration::MAX,
            },
        }
    }

    /// Whether another object may be sent now. One always may.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.in_flight == 0 || self.in_flight.saturating_add(bytes) <= self.bound
    }

    /// The size at which an object is closed.
    pub(crate) fn object_bytes(&self) -> usize {
        if self.bound >= self.most {
            return self.flush_bytes;
        }
        (self.bound / OBJECTS).max(SMALLEST).min(self.flush_bytes)
    }

    /// An object is on its way.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) {
        if self.in_flight == 0 {
            // What comes before says how much there was to send, not what the store takes.
            (self.measured_since, self.measured_bytes) = (now, 0);
        }
        self.in_flight += bytes;
    }

    /// An object was committed so long after it was sent.
    pub(crate) fn committed(&mut self, now: Instant, bytes: usize, latency: Duration) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.measured_bytes += bytes;
        let measured = now.saturating_duration_since(self.measured_since);
        if measured >= MEASURED_OVER {
            let rate = self.measured_bytes as f64 / measured.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |known| 0.5 * known + 0.5 * rate));
            (self.measured_since, self.measured_bytes) = (now, 0);
        }
        let fastest = self.fastest.note(now, latency);
        if latency <= fastest.saturating_add(SLOWER) {
            let part = GROWTH[usize::from(self.reacted.is_some())];
            self.bound = self.bound.saturating_add(bytes / part).min(self.most);
            return;
        }
        let due = self
            .reacted
            .is_none_or(|last| now.saturating_duration_since(last) >= REACTION);
        if let Some(rate) = self.rate.filter(|_| due) {
            self.reacted = Some(now);
            let takes = (rate * (fastest + SPARE).as_secs_f64()) as usize;
            let least = SMALLEST.min(self.flush_bytes).saturating_mul(2);
            self.bound = takes.max(least).min(self.bound.max(least)).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(2);
    const FLUSH: usize = 8 << 20;

    /// A store with a link of `link` bytes a second that all puts share, each of which takes `delay` besides.
    struct Link {
        bytes_per_second: f64,
        delay: Duration,
    }

    /// Always has something to send. Returns bytes a second and the longest time between two commits, both after
    /// ten seconds.
    fn saturate(link: &Link) -> (f64, Duration) {
        let start = Instant::now();
        let (mut now, mut congestion) = (start, Congestion::new(FLUSH, 16, start));
        // Sent at, size, bytes left.
        let mut puts: std::collections::VecDeque<(Instant, usize, f64)> = Default::default();
        let (mut committed, mut last, mut longest) = (0, None, Duration::ZERO);
        while now < start + Duration::from_secs(70) {
            while puts.len() < 16 && congestion.has_room(congestion.object_bytes()) {
                let size = congestion.object_bytes();
                congestion.sent(now, size);
                puts.push_back((now, size, size as f64));
            }
            now += STEP;
            let sending = puts.iter().filter(|(_, _, left)| *left > 0.0).count().max(1);
            let share = link.bytes_per_second * STEP.as_secs_f64() / sending as f64;
            puts.iter_mut().for_each(|(_, _, left)| *left -= share);
            while let Some((sent, size, left)) = puts.front().copied()
                && left <= 0.0
                && now >= sent + link.delay
            {
                puts.pop_front();
                congestion.committed(now, size, now - sent);
                if now >= start + Duration::from_secs(10) {
                    committed += size;
                    longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
                    last = Some(now);
                }
            }
        }
        (committed as f64 / 60.0, longest)
    }

    #[test]
    fn commits_follow_one_another_over_a_narrow_link() {
        // The narrowest passes the smallest object in a tenth of a second.
        for (mb, pause) in [
            (3.0, 400),
            (6.0, 250),
            (13.0, 250),
            (25.0, 250),
            (60.0, 250),
            (200.0, 250),
        ] {
            let link = Link {
                bytes_per_second: mb * 1e6,
                delay: Duration::from_millis(10),
            };
            let (rate, longest) = saturate(&link);
            assert!(
                longest < Duration::from_millis(pause),
                "{mb} MB/s: a pause of {longest:?}"
            );
            assert!(rate > 0.95e6 * mb, "{mb} MB/s: only {rate} bytes a second");
        }
    }

    #[test]
    fn a_wide_link_is_filled_whatever_its_delay() {
        for delay in [5, 30, 100, 200, 500, 800] {
            let link = Link {
                bytes_per_second: 1e9,
                delay: Duration::from_millis(delay),
            };
            let (rate, _) = saturate(&link);
            let window = 16.0 * FLUSH as f64 / (delay as f64 / 1e3 + 0.14);
            assert!(
                rate > 0.9 * window.min(0.9e9),
                "{delay} ms: only {rate} bytes a second"
            );
        }
    }

    #[test]
    fn a_store_that_recovers_is_used_in_full_again() {
        let mut now = Instant::now();
        let mut congestion = Congestion::new(FLUSH, 16, now);
        let mut commit = |congestion: &mut Congestion, took| {
            let size = congestion.object_bytes();
            congestion.sent(now, size);
            now += took;
            congestion.committed(now, size, took);
        };
        for _ in 0..50 {
            commit(&mut congestion, Duration::from_millis(20));
            commit(&mut congestion, Duration::from_secs(1));
        }
        assert!(congestion.object_bytes() < FLUSH / 4);
        for _ in 0..5_000 {
            commit(&mut congestion, Duration::from_millis(20));
        }
        assert_eq!(congestion.object_bytes(), FLUSH);
        assert!(congestion.has_room(FLUSH));
    }
}
