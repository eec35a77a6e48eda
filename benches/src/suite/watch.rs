//! Looks at a broker from the side, again and again: memory, CPU, and figures of its metrics page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drumlin_tests::stores;
use serde::Serialize;

use crate::load::seconds::now_ms;
use crate::process::{self, Resident};
use crate::suite::metrics::Metrics;
use crate::suite::subject::Subject;

/// How often the watch looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// Parts of the broker's memory, by a label, where the broker says them.
pub const MEMORY_FAMILY: &str = "drumlin_memory_bytes";

/// One look.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// CPU seconds since the process started.
    pub cpu_seconds: f64,
    /// Page faults since the process started.
    pub page_faults: u64,
    /// Resident memory without a file; only where a case looks at memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<u64>,
    /// Resident pages of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// Figures of the metrics page: sizes, and counters of sealing and of the store. Empty where the page was not answered.
    pub metrics: BTreeMap<String, f64>,
}

impl Sample {
    /// A figure of the metrics page.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// The memory that the metrics page accounts for: the parts that it names, or else the buffers that older versions
    /// tell of.
    pub fn explained(&self) -> Option<f64> {
        if self.metrics.is_empty() {
            return None;
        }
        let sum = |wanted: &dyn Fn(&str) -> bool| -> f64 {
            self.metrics
                .iter()
                .filter(|(name, _)| wanted(name))
                .map(|(_, value)| *value)
                .sum()
        };
        match sum(&|name| name.starts_with(MEMORY_FAMILY)) {
            parts if parts > 0.0 => Some(parts),
            _ => Some(sum(&|name| {
                name.ends_with("_memory_bytes") || name == "drumlin_unflushed_bytes"
            })),
        }
    }
}

/// What is kept of a metrics page.
fn figures(page: &Metrics) -> BTreeMap<String, f64> {
    let mut kept = page.sums(|family| {
        let is_size = family.starts_with("drumlin_") && family.ends_with("_bytes") && family != MEMORY_FAMILY;
        is_size || family == "drumlin_sealing_rounds_total" || family == "drumlin_sealed_bytes_total"
    });
    kept.extend(
        page.series(MEMORY_FAMILY)
            .map(|(series, value)| (series.to_owned(), value)),
    );
    let store = |family: &str, operation: &str| page.sum(family, &[("operation", operation)]);
    let bytes = "drumlin_store_bytes_total";
    kept.insert(
        "put_bytes".to_owned(),
        store(bytes, "put") + store(bytes, "create"),
    );
    let sealing =
        ["segment", "bundle"].map(|reason| page.sum(bytes, &[("operation", "put"), ("reason", reason)]));
    kept.insert("sealing_put_bytes".to_owned(), sealing.iter().sum());
    let requests = "drumlin_store_requests_total";
    kept.insert("delete_requests".to_owned(), store(requests, "delete"));
    kept
}

/// A watch that looks until it is finished.
pub struct Watch {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at a running broker every so often. `kinds` splits its memory by kind each time.
    pub fn start(subject: &mut Subject, every: Duration, kinds: bool) -> anyhow::Result<Watch> {
        let pid = subject.pid()?;
        let admin = match subject {
            Subject::Drumlin(broker) => Some(broker.admin_port()),
            Subject::Kafka(_) => None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let (stop, samples) = (Arc::clone(&stop), Arc::clone(&samples));
            move || {
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    if Instant::now() < due {
                        std::thread::sleep(LOOK);
                        continue;
                    }
                    due = due.max(Instant::now().checked_sub(every).unwrap_or(due)) + every;
                    // A process that has ended is seen by whoever waits for its answers.
                    if let Ok(sample) = look(pid, admin, kinds) {
                        samples
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(sample);
                    }
                }
            }
        });
        Ok(Watch {
            stop,
            samples,
            thread: Some(thread),
        })
    }

    /// The newest look.
    pub fn last(&self) -> Option<Sample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.last().cloned()
    }

    /// Ends it; all looks.
    pub fn finish(mut self) -> Vec<Sample> {
        self.end();
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the watch panicked");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

fn look(pid: u32, admin: Option<u16>, kinds: bool) -> anyhow::Result<Sample> {
    let at_ms = now_ms();
    let resident: Option<Resident> = kinds.then(|| process::resident_by_kind(pid)).transpose()?;
    let page = admin.and_then(|port| stores::http_get(port, "/metrics").ok());
    Ok(Sample {
        at_ms,
        rss: process::resident(pid)?,
        cpu_seconds: process::cpu_seconds(pid)?,
        page_faults: process::page_faults(pid)?,
        anonymous: resident.map(|r| r.anonymous),
        file: resident.map(|r| r.file),
        metrics: page
            .map(|page| figures(&Metrics::parse(&page)))
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(page: &str) -> Sample {
        Sample {
            metrics: figures(&Metrics::parse(page)),
            ..Sample::default()
        }
    }

    #[test]
    fn what_a_page_accounts_for() {
        let old = "drumlin_block_cache_memory_bytes 50\ndrumlin_answer_memory_bytes 7\n\
            drumlin_unflushed_bytes 3\ndrumlin_unsealed_bytes 1000\n\
            drumlin_store_bytes_total{operation=\"put\",reason=\"wal\"} 40\n\
            drumlin_store_bytes_total{operation=\"create\",reason=\"wal\"} 2\n";
        let found = sample(old);
        assert_eq!(found.explained(), Some(60.0));
        assert_eq!(
            (found.metric("drumlin_unsealed_bytes"), found.metric("put_bytes")),
            (Some(1000.0), Some(42.0))
        );
        let new =
            format!("{old}drumlin_memory_bytes{{part=\"a\"}} 90\ndrumlin_memory_bytes{{part=\"b\"}} 30\n");
        assert_eq!(sample(&new).explained(), Some(120.0));
        assert_eq!(Sample::default().explained(), None);
    }
}
