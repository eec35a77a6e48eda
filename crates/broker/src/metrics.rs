//! Counters of requests and connections: a few atomic adds a request, read by the console.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drumlin_wire::registry::APIS;
use drumlin_wire::{ApiKey, registry};

use crate::error_code::ErrorCode;

/// Upper bounds of the latency histogram, microseconds; one more bucket takes the rest.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 512_000, 2_000_000,
    30_000_000,
];

/// Error codes that are counted each for itself: -1 to this, exclusive; those above are counted together.
const CODES: usize = 130;

/// One API's counters.
#[derive(Debug)]
pub struct ApiMetrics {
    requests: AtomicU64,
    latency_us: AtomicU64,
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    errors: Box<[AtomicU64]>,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: AtomicU64::default(),
            latency_us: AtomicU64::default(),
            buckets: Default::default(),
            errors: (0..CODES).map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl ApiMetrics {
    /// Counts an answered request.
    pub fn answered(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.latency_us.fetch_add(us, Ordering::Relaxed);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an error in an answer; one request can have several.
    pub fn error(&self, code: i16) {
        if code == 0 {
            return;
        }
        let at = usize::try_from(code + 1).unwrap_or(0).min(CODES - 1);
        if let Some(count) = self.errors.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Sum of latencies.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Ordering::Relaxed))
    }

    /// Requests by latency, not cumulative.
    pub fn buckets(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// Errors by name, those that occurred.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.errors.iter().enumerate().filter_map(|(at, count)| {
            let count = count.load(Ordering::Relaxed);
            let code = i16::try_from(at).unwrap_or(i16::MAX) - 1;
            (count > 0).then(|| (ErrorCode::name(code), count))
        })
    }
}

/// All counters of the network front.
#[derive(Debug)]
pub struct Metrics {
    apis: Vec<ApiMetrics>,
    /// Connections opened since start.
    pub connections_opened: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Requests that ended in a closed connection.
    pub refused: AtomicU64,
    /// Topics created because somebody asked for their metadata.
    pub auto_created: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            apis: APIS.iter().map(|_| ApiMetrics::default()).collect(),
            connections_opened: AtomicU64::default(),
            connections: AtomicU64::default(),
            refused: AtomicU64::default(),
            auto_created: AtomicU64::default(),
        }
    }
}

impl Metrics {
    /// Counters of one API, if it is served.
    pub fn api(&self, key: ApiKey) -> Option<&ApiMetrics> {
        let at = APIS.binary_search_by_key(&key, |api| api.key).ok()?;
        self.apis.get(at)
    }

    /// Counts an error of an API.
    pub fn error(&self, key: ApiKey, code: i16) {
        if let Some(api) = self.api(key) {
            api.error(code);
        }
    }

    /// Every API with its counters.
    pub fn apis(&self) -> impl Iterator<Item = (&'static registry::Api, &ApiMetrics)> {
        APIS.iter().zip(&self.apis)
    }
}
