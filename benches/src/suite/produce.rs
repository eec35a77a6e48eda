//! Produce at full speed and at fixed rates, with what it costs in CPU, memory and store requests.

use std::collections::BTreeMap;

use serde_json::json;

use crate::load::batches::Codec;
use crate::load::summary::Summary;
use crate::suite::bench::{Bench, Produce};
use crate::suite::metrics::Metrics;
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};

const KIB: usize = 1 << 10;
/// 4 GiB, as the issue asks.
const RETENTION: (&str, &str) = ("retention.bytes", "4294967296");

/// Full speed with one shape of batches.
pub struct Peak {
    /// How it is called in the table.
    pub name: &'static str,
    /// Bytes of a batch.
    pub batch: usize,
    /// Bytes of a record.
    pub record: usize,
    /// Codec.
    pub codec: Codec,
    /// Goals of MB/s and of CPU seconds per GB.
    pub goals: [&'static [Goal]; 2],
    /// Whether a quick run has it.
    pub quick: bool,
}

/// The case whose peak decides the rate of another.
pub const MAIN: &str = "produce 64 KiB batches, 1 KiB, none";

/// All of them.
pub const PEAKS: &[Peak] = &[
    Peak {
        name: MAIN,
        batch: 64 * KIB,
        record: KIB,
        codec: Codec::None,
        goals: [&[Goal::RatioAtLeast(3.0)], &[Goal::RatioAtMost(0.25)]],
        quick: true,
    },
    Peak {
        name: "produce 16 KiB batches, 1 KiB, none",
        batch: 16 * KIB,
        record: KIB,
        codec: Codec::None,
        goals: [&[], &[Goal::RatioAtMost(0.25)]],
        quick: true,
    },
    Peak {
        name: "produce 1 MiB batches, 1 KiB, none",
        batch: 1024 * KIB,
        record: KIB,
        codec: Codec::None,
        goals: [&[], &[]],
        quick: true,
    },
    Peak {
        name: "produce 64 KiB batches, 1 KiB, lz4",
        batch: 64 * KIB,
        record: KIB,
        codec: Codec::Lz4,
        goals: [&[], &[]],
        quick: true,
    },
    Peak {
        name: "produce 64 KiB batches, 100 B, none",
        batch: 64 * KIB,
        record: 100,
        codec: Codec::None,
        goals: [&[], &[]],
        quick: false,
    },
    Peak {
        name: "produce 64 KiB batches, 100 B, lz4",
        batch: 64 * KIB,
        record: 100,
        codec: Codec::Lz4,
        goals: [&[], &[]],
        quick: false,
    },
    Peak {
        name: "produce 64 KiB batches, 10 KiB, none",
        batch: 64 * KIB,
        record: 10 * KIB,
        codec: Codec::None,
        goals: [&[], &[]],
        quick: false,
    },
    Peak {
        name: "produce 64 KiB batches, 10 KiB, lz4",
        batch: 64 * KIB,
        record: 10 * KIB,
        codec: Codec::Lz4,
        goals: [&[], &[]],
        quick: false,
    },
];

/// Reads one figure of a run.
type Figure = fn(&Summary) -> f64;

/// Runs of one case: Kafka's and ours.
#[derive(Default)]
pub struct Pair {
    /// Kafka's.
    pub kafka: Vec<Summary>,
    /// Ours.
    pub ours: Vec<Summary>,
}

impl Pair {
    fn add(&mut self, subject: &Subject, summary: Summary) {
        match subject.is_ours() {
            true => self.ours.push(summary),
            false => self.kafka.push(summary),
        }
    }

    /// The medians of a figure: ours, then Kafka's.
    pub fn medians(&self, figure: impl Fn(&Summary) -> f64) -> (Option<f64>, Option<f64>) {
        let of = |all: &[Summary]| median(all.iter().map(&figure).collect());
        (of(&self.ours), of(&self.kafka))
    }
}

impl Bench {
    pub(super) fn peak(&self, peak: &Peak) -> Produce {
        Produce {
            batch: peak.batch,
            record: peak.record,
            codec: peak.codec,
            rate: None,
            seconds: self.plan.peak_seconds,
            bytes: self.plan.peak_bytes,
            max_seconds: self.plan.peak_max_seconds,
            warmup: self.plan.warmup,
        }
    }

    /// Lets compilers and allocators warm up; nothing is kept. Ours has no compiler, and each run its own time before the
    /// window: a quick run leaves it out.
    pub fn warm_up(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        let kept = self.runs.len();
        let quick = self.plan.quick;
        for subject in subjects
            .iter_mut()
            .filter(|subject| !(quick && subject.is_ours()))
        {
            for peak in PEAKS.iter().take(2) {
                let load = Produce {
                    seconds: self.plan.peak_seconds,
                    bytes: 0,
                    max_seconds: self.plan.peak_seconds,
                    ..self.peak(peak)
                };
                self.produce_once(subject, "warm-up", &load, &[])?;
            }
        }
        self.runs.truncate(kept);
        Ok(())
    }

    /// One run on a topic of its own, which is gone afterwards.
    pub fn produce_once(
        &mut self,
        subject: &mut Subject,
        case: &str,
        load: &Produce,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<Summary> {
        let topic = self.topic();
        let configs: Vec<_> = configs.iter().copied().chain([RETENTION]).collect();
        subject.create_topic(&topic, 1, &configs)?;
        let summary = self.produce(subject, &topic, case, load);
        self.look_at_disk(0)?;
        subject.delete_topic(&topic)?;
        self.settle()?;
        summary
    }

    /// One case on each subject in turn.
    pub fn alternate(
        &mut self,
        subjects: &mut [Subject],
        case: &str,
        load: &Produce,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<Pair> {
        let mut pair = Pair::default();
        for _ in 0..self.plan.repetitions {
            for subject in subjects.iter_mut() {
                let summary = self.produce_once(subject, case, load, configs)?;
                pair.add(subject, summary);
            }
        }
        Ok(pair)
    }

    /// Full speed, all shapes; the runs of the main one.
    pub fn peaks(
        &mut self,
        store: &str,
        subjects: &mut [Subject],
        only: Option<&[&str]>,
    ) -> anyhow::Result<Pair> {
        let mut main = Pair::default();
        for peak in PEAKS {
            let wanted = only.map_or(!self.plan.quick || peak.quick, |names| names.contains(&peak.name));
            if !wanted {
                continue;
            }
            let load = self.peak(peak);
            let pair = self.alternate(subjects, peak.name, &load, &[])?;
            let goals = if store == "local" {
                peak.goals
            } else {
                [&[][..], &[][..]]
            };
            let (ours, kafka) = pair.medians(Summary::mb_per_second);
            self.row((store, peak.name, "MB/s"), ours, kafka, goals[0]);
            let (ours, kafka) = pair.medians(|s| s.records as f64 / s.seconds);
            self.row((store, peak.name, "records/s"), ours, kafka, &[]);
            let (ours, kafka) = pair.medians(Summary::cpu_per_gb);
            self.row((store, peak.name, "broker CPU-s/GB in"), ours, kafka, goals[1]);
            if peak.name == MAIN {
                main = pair;
            }
        }
        Ok(main)
    }

    /// Ours, which is durable, against Kafka when it flushes every batch.
    pub fn flushed(&mut self, kafka: &mut Subject, main: &Pair) -> anyhow::Result<()> {
        let Some(peak) = PEAKS.first() else { return Ok(()) };
        let mut flushed = Pair::default();
        for _ in 0..self.plan.repetitions {
            let load = Produce {
                bytes: 0,
                ..self.peak(peak)
            };
            let summary = self.produce_once(
                kafka,
                "64 KiB, flush.messages=1",
                &load,
                &[("flush.messages", "1")],
            )?;
            flushed.kafka.push(summary);
        }
        flushed.ours.clone_from(&main.ours);
        let (ours, kafka) = flushed.medians(Summary::mb_per_second);
        let at = ("local", "the same, Kafka with flush.messages=1", "MB/s");
        self.row(at, ours, kafka, &[Goal::RatioAtLeast(6.0)]);
        Ok(())
    }

    /// Latency at fixed rates. `half` is the rate of the third, in MB/s.
    pub fn latencies(
        &mut self,
        store: &str,
        subjects: &mut [Subject],
        half: Option<f64>,
    ) -> anyhow::Result<()> {
        let local = store == "local";
        let shape = |batch, rate, seconds: f64, plan_warmup| Produce {
            batch,
            record: KIB,
            codec: Codec::None,
            rate: Some(rate),
            seconds,
            bytes: 0,
            max_seconds: seconds,
            warmup: plan_warmup,
        };
        let (warmup, seconds) = (self.plan.warmup, self.plan.rate_seconds);
        let mut cases: Vec<(&str, Produce, &[Goal])> = vec![
            (
                "60 MB/s in 16 KiB batches",
                shape(16 * KIB, 60e6 / (16 * KIB) as f64, seconds[0], warmup),
                if local {
                    &[Goal::RatioAtMost(1.0), Goal::AtMost(4.0)]
                } else {
                    &[]
                },
            ),
            (
                "1,000 × 1 KiB a second",
                shape(KIB, 1_000.0, seconds[1], warmup),
                if local { &[Goal::AtMost(2.0)] } else { &[] },
            ),
        ];
        if let Some(half) = half {
            let load = shape(64 * KIB, half * 1e6 / (64 * KIB) as f64, seconds[2], warmup);
            cases.push(("half of the lower peak, 64 KiB batches", load, &[]));
        }
        for (name, load, goals) in cases {
            let mut pair = Pair::default();
            for subject in subjects.iter_mut() {
                let summary = self.produce_once(subject, name, &load, &[])?;
                pair.add(subject, summary);
            }
            let figures: [(&str, Figure); 4] = [
                ("p50 ms", |s| s.latency.p50),
                ("p99 ms", |s| s.latency.p99),
                ("p999 ms", |s| s.latency.p999),
                ("broker CPU-s/GB in", Summary::cpu_per_gb),
            ];
            for (measure, figure) in figures {
                let (ours, kafka) = pair.medians(figure);
                let goals = if measure == "p99 ms" { goals } else { &[] };
                self.row((store, name, measure), ours, kafka, goals);
            }
        }
        Ok(())
    }

    /// What full speed costs in requests to the store, the last round included.
    pub fn store_requests(&mut self, store: &str, ours: &mut Subject) -> anyhow::Result<()> {
        let Some(peak) = PEAKS.first() else { return Ok(()) };
        let topic = self.topic();
        subject_topic(ours, &topic)?;
        let before = ours.metrics()?.unwrap_or_default();
        let load = Produce {
            bytes: self.plan.remote_bytes,
            ..self.peak(peak)
        };
        let summary = self.produce(ours, &topic, "store requests", &load)?;
        if !ours.wait_sealed(self.plan.seal_patience)? {
            self.note(format!(
                "{store}: sealing had not ended when requests were counted"
            ));
        }
        let added = ours.metrics()?.unwrap_or_default().since(&before);
        self.look_at_disk(0)?;
        ours.delete_topic(&topic)?;
        self.settle()?;
        self.store_rows(store, &summary, &added);
        Ok(())
    }

    fn store_rows(&mut self, store: &str, summary: &Summary, added: &Metrics) {
        let gib = summary.total_bytes as f64 / (1u64 << 30) as f64;
        let rate = summary.mb_per_second() * 1e6 / (1u64 << 20) as f64;
        let mut written = BTreeMap::<&str, f64>::new();
        for ((operation, reason), (requests, bytes)) in &added.store() {
            self.requests.push(json!({
                "store": store, "operation": operation, "reason": reason,
                "requests_per_gib": requests / gib, "mib_per_gib": bytes / gib / (1u64 << 20) as f64,
            }));
            if operation == "create" && reason == "wal" {
                written.insert("puts", requests / gib);
            }
            if operation == "create" || operation == "put" {
                *written.entry("bytes").or_default() += bytes;
            }
        }
        let allowed = (10_240.0 / rate).max(128.0) * 1.05;
        // The refill rule is for stores that charge for requests.
        let goal = [Goal::AtMost(allowed.round())];
        let goals: &[Goal] = if store == "local" { &[] } else { &goal };
        self.row(
            (store, "store requests", "WAL puts per GiB"),
            written.get("puts").copied(),
            None,
            goals,
        );
        let twice = written
            .get("bytes")
            .map(|bytes| bytes / summary.total_bytes as f64);
        // Headers, footers, checkpoints and manifests come on top of the records.
        self.row(
            (store, "store requests", "bytes uploaded per byte in"),
            twice,
            None,
            &[Goal::AtMost(2.02)],
        );
    }
}

fn subject_topic(subject: &Subject, topic: &str) -> anyhow::Result<()> {
    subject.create_topic(topic, 1, &[RETENTION])
}
