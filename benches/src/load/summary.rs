//! What a run of load reports, as JSON between processes.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// 999 of 1,000 are no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// A histogram of latencies from a microsecond to two minutes, to three digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// An empty one.
    pub fn new() -> anyhow::Result<Latencies> {
        Ok(Latencies(Histogram::new_with_bounds(1, 120_000_000, 3)?))
    }

    /// Adds one; what is above the range counts as its end.
    pub fn record(&mut self, latency: Duration) {
        self.0
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The figures.
    pub fn summary(&self) -> Latency {
        let ms = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            p50: ms(0.5),
            p99: ms(0.99),
            p999: ms(0.999),
            max: self.0.max() as f64 / 1e3,
        }
    }
}

/// What one run did within its window, warm-up and end left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Length of the window.
    pub seconds: f64,
    /// Requests answered in it.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of batches as on the wire.
    pub bytes: u64,
    /// Bytes of values before compression; 0 where nobody looked.
    pub value_bytes: u64,
    /// CPU seconds of the broker within the window.
    pub cpu_seconds: f64,
    /// CPU seconds of this client within the window.
    pub client_cpu_seconds: f64,
    /// Most resident memory of the broker, sampled.
    pub rss_max: u64,
    /// Bytes moved in all, warm-up and end included.
    pub total_bytes: u64,
    /// Answers with an error.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Latencies, in milliseconds.
    pub latency: Latency,
}

impl Summary {
    /// Millions of bytes of batches a second.
    pub fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// CPU seconds of the broker per 10⁹ bytes.
    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9)
    }
}
