//! Figures of each second of a run, written to a file while the run goes on.
//!
//! A run that is cut off leaves the seconds that it had.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::load::summary::{Latencies, Latency};

const SECOND: Duration = Duration::from_secs(1);

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its start, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its length in seconds: 1, and less for the last one of a run.
    pub length: f64,
    /// Requests acknowledged in it.
    pub requests: u64,
    /// Bytes of their batches as on the wire.
    pub bytes: u64,
    /// Answers with an error.
    pub errors: u64,
    /// The longest time without an acknowledgement, in milliseconds. A pause that spans several seconds counts in each
    /// of them with its length so far.
    pub pause_ms: f64,
    /// Latencies of the requests acknowledged in it, from when they were meant to be sent.
    pub latency: Latency,
    /// The same from when they were sent: at a fixed rate that the broker does not take, the first kind grows for ever.
    pub latency_from_send: Latency,
}

impl Second {
    /// Millions of bytes a second.
    pub fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.length.max(1e-3)
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Gathers the current second, and writes those that are over.
pub struct Recorder {
    out: File,
    began: Instant,
    began_ms: u64,
    over: u32,
    current: Second,
    intended: Latencies,
    sent: Latencies,
    last_answer: Instant,
}

impl Recorder {
    /// Begins the first second now, and writes to a new file at `path`.
    pub fn create(path: &Path) -> anyhow::Result<Recorder> {
        let out = File::create(path).with_context(|| path.display().to_string())?;
        let now = Instant::now();
        Ok(Recorder {
            out,
            began: now,
            began_ms: now_ms(),
            over: 0,
            current: Second::default(),
            intended: Latencies::new()?,
            sent: Latencies::new()?,
            last_answer: now,
        })
    }

    /// Adds an acknowledgement.
    pub fn note_acknowledged(
        &mut self,
        now: Instant,
        (from_intended, from_send): (Duration, Duration),
        bytes: u64,
    ) -> anyhow::Result<()> {
        self.close_seconds(now)?;
        self.note_pause(now);
        self.last_answer = now;
        self.current.requests += 1;
        self.current.bytes += bytes;
        self.intended.record(from_intended);
        self.sent.record(from_send);
        Ok(())
    }

    /// Adds an answer with an error. It is no acknowledgement, so a pause goes on.
    pub fn note_error(&mut self, now: Instant) -> anyhow::Result<()> {
        self.close_seconds(now)?;
        self.current.errors += 1;
        Ok(())
    }

    /// Writes the seconds that are over.
    pub fn close_seconds(&mut self, now: Instant) -> anyhow::Result<()> {
        loop {
            let end = self.began + SECOND * (self.over + 1);
            if now < end {
                return Ok(());
            }
            self.note_pause(end);
            self.write(1.0)?;
            self.over += 1;
        }
    }

    /// Writes the last second as far as it has come.
    pub fn finish(&mut self, now: Instant) -> anyhow::Result<()> {
        self.close_seconds(now)?;
        let length = now.duration_since(self.began + SECOND * self.over).as_secs_f64();
        if self.current.requests + self.current.errors > 0 {
            self.write(length)?;
        }
        Ok(())
    }

    fn note_pause(&mut self, until: Instant) {
        let pause = until.saturating_duration_since(self.last_answer).as_micros() as f64 / 1e3;
        self.current.pause_ms = self.current.pause_ms.max(pause);
    }

    fn write(&mut self, length: f64) -> anyhow::Result<()> {
        let second = Second {
            at_ms: self.began_ms + u64::from(self.over) * 1_000,
            length,
            latency: self.intended.summary(),
            latency_from_send: self.sent.summary(),
            ..std::mem::take(&mut self.current)
        };
        self.intended.clear();
        self.sent.clear();
        writeln!(self.out, "{}", serde_json::to_string(&second)?).context("the file of seconds")
    }
}

/// Reads what a recorder has written. A last line that is cut off is left out.
pub fn read(path: &Path) -> anyhow::Result<Vec<Second>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let seconds = whole.lines().map(serde_json::from_str);
    seconds.collect::<Result<_, _>>().context("a line of seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_in_each_second_that_it_spans() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("seconds");
        let mut recorder = Recorder::create(&path).expect("the folder takes files");
        let start = recorder.began;
        let at = |ms: u64| start + Duration::from_millis(ms);
        let took = (Duration::from_millis(4), Duration::from_millis(3));
        for ms in [100, 200, 2_700] {
            recorder
                .note_acknowledged(at(ms), took, 1_000)
                .expect("it writes");
        }
        recorder.note_error(at(2_800)).expect("it writes");
        recorder.finish(at(3_500)).expect("it writes");
        let seconds = read(&path).expect("it reads");
        let pauses: Vec<f64> = seconds.iter().map(|s| s.pause_ms.round()).collect();
        assert_eq!(pauses, [800.0, 1_800.0, 2_500.0]);
        let requests: Vec<u64> = seconds.iter().map(|s| s.requests).collect();
        assert_eq!((requests, seconds[2].errors), (vec![2, 0, 1], 1));
        assert_eq!(seconds[1].latency.p50, 0.0);
        assert!(seconds[2].latency.p50 >= 4.0 && seconds[2].latency_from_send.p50 < 4.0);
        assert_eq!(seconds[2].at_ms, seconds[0].at_ms + 2_000);
    }

    #[test]
    fn the_last_second_may_be_short() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("seconds");
        let mut recorder = Recorder::create(&path).expect("the folder takes files");
        let now = recorder.began + Duration::from_millis(500);
        recorder
            .note_acknowledged(now, (Duration::ZERO, Duration::ZERO), 1_000_000)
            .expect("it writes");
        recorder.finish(now).expect("it writes");
        let seconds = read(&path).expect("it reads");
        assert_eq!((seconds.len(), seconds[0].length), (1, 0.5));
        assert_eq!(seconds[0].mb_per_second(), 2.0);
    }
}
