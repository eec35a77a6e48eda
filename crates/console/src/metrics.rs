//! The metrics page in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use drumlin_broker::Broker;
use drumlin_broker::metrics::LATENCY_BOUNDS_US;
use drumlin_log::LogMetrics;
use drumlin_objects::cache::BlockCache;
use drumlin_objects::stats;

use crate::{groups, memory};

/// Topics that have series of their own; the traffic of all others is added up under [`OTHERS`].
const TOPICS: usize = 1_000;
/// No topic can have this name.
const OTHERS: &str = "(others)";

/// A page being written.
#[derive(Default)]
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let _ = match labels.as_slice() {
            [] => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    pub(crate) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A histogram from counts that are not cumulative; bounds in microseconds, the last count is above them all.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds_us: &[u64],
        counts: impl Iterator<Item = u64>,
        sum_seconds: f64,
    ) {
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        let bounds = bounds_us
            .iter()
            .map(|us| (*us as f64 / 1e6).to_string())
            .chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            total += count;
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.sample(&bucket, &labels, total);
        }
        self.sample(&format!("{name}_sum"), labels, sum_seconds);
        self.sample(&format!("{name}_count"), labels, total);
    }
}

/// The whole page.
pub async fn page(broker: &Broker) -> String {
    let report = groups::report(broker).await;
    let mut page = Page::default();
    requests(&mut page, broker);
    connections(&mut page, broker);
    topics(&mut page, broker);
    log(&mut page, &broker.shared().log.metrics());
    cache(&mut page, broker);
    store(&mut page, broker);
    groups::page(&mut page, broker, &report);
    memory::page(&mut page, broker, &report);
    process(&mut page, broker);
    page.0
}

fn requests(page: &mut Page, broker: &Broker) {
    let metrics = &broker.shared().metrics;
    let used = || metrics.apis().filter(|(_, api)| api.requests() > 0);
    let name = "drumlin_request_seconds";
    page.family(
        name,
        "histogram",
        "From a request taken to its answer ready, by API.",
    );
    for (api, counters) in used() {
        let labels = [("api", api.key.name())];
        page.histogram(
            name,
            &labels,
            &LATENCY_BOUNDS_US,
            counters.buckets(),
            counters.latency().as_secs_f64(),
        );
    }
    let name = "drumlin_request_errors_total";
    page.family(
        name,
        "counter",
        "Errors in answers, by API and Kafka's error; one answer can hold several.",
    );
    for (api, counters) in metrics.apis() {
        for (error, count) in counters.errors() {
            page.sample(name, &[("api", api.key.name()), ("error", error)], count);
        }
    }
    page.one(
        "drumlin_requests_refused_total",
        "counter",
        "Requests that could not be answered: their connections were closed.",
        metrics.refused.load(Ordering::Relaxed),
    );
}

fn connections(page: &mut Page, broker: &Broker) {
    let metrics = &broker.shared().metrics;
    let (requests, answers) = broker.connection_memory();
    page.one(
        "drumlin_connections",
        "gauge",
        "Open connections.",
        metrics.connections.load(Ordering::Relaxed),
    );
    page.one(
        "drumlin_connections_opened_total",
        "counter",
        "Connections since start.",
        metrics.connections_opened.load(Ordering::Relaxed),
    );
    page.one(
        "drumlin_request_memory_bytes",
        "gauge",
        "Memory for requests, beyond what each connection has.",
        requests,
    );
    page.one(
        "drumlin_answer_memory_bytes",
        "gauge",
        "Answers that clients have not taken yet.",
        answers,
    );
    page.one(
        "drumlin_fetch_sessions",
        "gauge",
        "Incremental fetch sessions.",
        broker.shared().sessions.len(),
    );
}

fn topics(page: &mut Page, broker: &Broker) {
    let all = broker.shared().topics.sorted();
    let mut traffic: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for (at, topic) in all.iter().enumerate() {
        let counters = traffic
            .entry(if at < TOPICS { topic.name.as_str() } else { OTHERS })
            .or_default();
        let now = [
            &topic.traffic.bytes_in,
            &topic.traffic.batches_in,
            &topic.traffic.bytes_out,
        ];
        for (sum, counter) in counters.iter_mut().zip(now) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
    let families = [
        (
            "drumlin_topic_bytes_in_total",
            "Bytes of batches appended, by topic.",
        ),
        ("drumlin_topic_batches_in_total", "Batches appended, by topic."),
        (
            "drumlin_topic_bytes_out_total",
            "Bytes of batches fetched, by topic.",
        ),
    ];
    for (at, (name, help)) in families.into_iter().enumerate() {
        page.family(name, "counter", help);
        for (topic, counters) in &traffic {
            page.sample(name, &[("topic", topic)], counters.get(at).copied().unwrap_or(0));
        }
    }
    page.one("drumlin_topics", "gauge", "Topics.", all.len());
    page.one(
        "drumlin_partitions",
        "gauge",
        "Partitions.",
        broker.shared().image().partition_count(),
    );
}

fn log(page: &mut Page, log: &LogMetrics) {
    let counter = "counter";
    page.one(
        "drumlin_wal_puts_total",
        counter,
        "WAL objects put.",
        log.wal_puts,
    );
    page.one(
        "drumlin_wal_put_bytes_total",
        counter,
        "Their bytes.",
        log.wal_put_bytes,
    );
    let name = "drumlin_wal_commit_seconds";
    page.family(name, "histogram", "From a WAL object's dispatch to its commit.");
    let counts = log.wal_commit_buckets.iter().copied();
    page.histogram(
        name,
        &[],
        &drumlin_log::metrics::LATENCY_BOUNDS_US,
        counts,
        log.wal_commit_us as f64 / 1e6,
    );
    page.one(
        "drumlin_appends_throttled_total",
        counter,
        "Appends that had to wait for room.",
        log.throttled,
    );
    page.one(
        "drumlin_unflushed_bytes",
        "gauge",
        "Bytes appended and not durable yet.",
        log.unflushed_bytes,
    );
    page.one(
        "drumlin_unsealed_bytes",
        "gauge",
        "Durable bytes not sealed yet.",
        log.unsealed_bytes,
    );
    page.one(
        "drumlin_pending_deletions",
        "gauge",
        "Dropped objects that wait for their deletion, and partitions of deleted topics.",
        log.pending_deletions,
    );
    let name = "drumlin_cleaner_passes_total";
    page.family(name, counter, "Passes of compaction over a partition.");
    page.sample(name, &[("result", "done")], log.cleaner_passes);
    page.sample(name, &[("result", "failed")], log.cleaner_failures);
    let name = "drumlin_cleaner_bytes_total";
    page.family(name, counter, "Bytes that compaction read and wrote.");
    page.sample(name, &[("direction", "read")], log.cleaner_read_bytes);
    page.sample(name, &[("direction", "written")], log.cleaner_written_bytes);
    page.one(
        "drumlin_cleaner_refused_segments_total",
        counter,
        "Segments that compaction wrote for nothing.",
        log.cleaner_refused,
    );
    page.one(
        "drumlin_cleaner_max_dirty_percent",
        "gauge",
        "The largest part of a compacted partition that no pass has seen.",
        log.cleaner_max_dirty_percent,
    );
    page.one(
        "drumlin_cleaner_uncleanable_partitions",
        "gauge",
        "Partitions that are not compacted because their data is damaged.",
        log.cleaner_uncleanable_partitions,
    );
    let name = "drumlin_served_bytes_total";
    page.family(name, counter, "Bytes read by where they were found.");
    page.sample(name, &[("from", "hot")], log.hot_bytes);
    page.sample(name, &[("from", "cached")], log.cached_bytes);
    page.sample(name, &[("from", "cold")], log.cold_bytes);
    page.one(
        "drumlin_sealing_rounds_total",
        counter,
        "Sealing rounds.",
        log.rounds,
    );
    page.one(
        "drumlin_sealed_bytes_total",
        counter,
        "Bytes sealed into segments and bundles.",
        log.sealed_bytes,
    );
}

fn cache(page: &mut Page, broker: &Broker) {
    let stats = broker.cache().stats();
    let name = "drumlin_block_cache_lookups_total";
    page.family(name, "counter", "Look-ups in the block cache.");
    page.sample(name, &[("result", "hit")], stats.hits);
    page.sample(name, &[("result", "miss")], stats.misses);
    page.sample(name, &[("result", "damaged")], stats.damaged);
    page.one(
        "drumlin_block_cache_memory_bytes",
        "gauge",
        "Memory that the block cache holds.",
        stats.memory_bytes,
    );
}

fn store(page: &mut Page, broker: &Broker) {
    let all = broker.shared().bucket.stats().snapshot();
    let used: Vec<&stats::Counters> = all.iter().filter(|counters| counters.requests > 0).collect();
    type Value = fn(&stats::Counters) -> u64;
    let families: [(&str, &str, Value); 3] = [
        (
            "drumlin_store_requests_total",
            "Requests to the object store, by operation and reason.",
            |c| c.requests,
        ),
        ("drumlin_store_errors_total", "Requests that failed.", |c| {
            c.errors
        }),
        ("drumlin_store_bytes_total", "Bytes sent or received.", |c| {
            c.bytes
        }),
    ];
    for (name, help, value) in families {
        page.family(name, "counter", help);
        for counters in &used {
            let labels = [
                ("operation", counters.operation.as_str()),
                ("reason", counters.reason.as_str()),
            ];
            page.sample(name, &labels, value(counters));
        }
    }
    let name = "drumlin_store_seconds";
    page.family(name, "histogram", "Latency of requests to the object store.");
    for counters in &used {
        let labels = [
            ("operation", counters.operation.as_str()),
            ("reason", counters.reason.as_str()),
        ];
        let counts = counters.buckets.iter().copied();
        page.histogram(
            name,
            &labels,
            &stats::LATENCY_BOUNDS_US,
            counts,
            counters.latency.as_secs_f64(),
        );
    }
}

fn process(page: &mut Page, broker: &Broker) {
    let mut tasks: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in broker.shared().env.running() {
        *tasks.entry(kind.name()).or_default() += 1;
    }
    let name = "drumlin_tasks";
    page.family(name, "gauge", "Running tasks by name.");
    for (task, count) in tasks {
        page.sample(name, &[("task", task)], count);
    }
    if let Some(bytes) = resident_bytes() {
        page.one(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            bytes,
        );
    }
    let cpu = cpu_seconds();
    if let Some(seconds) = cpu {
        page.one(
            "process_cpu_seconds_total",
            "counter",
            "CPU time, user and system.",
            seconds,
        );
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields after the command in brackets: the state, then user and system time at 14 and 15 of the whole.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = rest.next()?.parse::<u64>().ok()? + rest.next()?.parse::<u64>().ok()?;
    // Linux has had 100 ticks a second for user space since ever.
    Some(ticks as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let mut page = Page::default();
        page.histogram(
            "x",
            &[("a", "b")],
            &[1_000, 2_000_000],
            [3, 0, 4].into_iter(),
            0.5,
        );
        assert_eq!(
            page.0,
            "x_bucket{a=\"b\",le=\"0.001\"} 3\nx_bucket{a=\"b\",le=\"2\"} 3\nx_bucket{a=\"b\",le=\"+Inf\"} 7\n\
             x_sum{a=\"b\"} 0.5\nx_count{a=\"b\"} 7\n"
        );
    }

    #[test]
    fn the_process_knows_itself() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(cpu_seconds().unwrap() >= 0.0);
    }
}
