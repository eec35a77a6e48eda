//! Compaction of a topic in which nine of ten records are of no use any more.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use crate::load::batches::Codec;
use crate::load::keyed::Written;
use crate::process::{MemoryWatch, cpu_seconds};
use crate::suite::bench::Bench;
use crate::suite::metrics::Metrics;
use crate::suite::subject::Subject;
use crate::suite::table::Goal;

/// Both cut the log into segments of this size: a pass rewrites whole ones.
const SEGMENT: &str = "16777216";
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(50);

/// What one pass cost.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// Millions of bytes that were there before, and after.
    before_mb: f64,
    after_mb: f64,
    seconds: f64,
    cpu_seconds: f64,
    rss_mb: f64,
    /// To the store, for compaction; ours only.
    requests: Option<f64>,
    store_mb: Option<f64>,
}

impl Pass {
    fn speed(&self) -> f64 {
        self.before_mb / self.seconds
    }

    fn per_core(&self) -> f64 {
        self.before_mb / self.cpu_seconds
    }
}

impl Bench {
    /// Uncompressed and lz4, on each.
    pub fn compaction(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        for codec in [Codec::None, Codec::Lz4] {
            let size = self.plan.compaction_bytes >> 20;
            let case = format!("compact {size} MiB, 90 % duplicates, {}", codec.name());
            let mut passes = [None, None];
            for subject in subjects.iter_mut() {
                let (topic, written) = self.fill_with_keys(subject, codec)?;
                let pass = self.pass(subject, &topic, &written)?;
                self.say(&format!(
                    "{:<8} {case}: {:.0} MB to {:.0} MB in {:.2} s: {:.0} MB/s, {:.0} MB/s a core, RSS {:.0} MB",
                    subject.name(),
                    pass.before_mb,
                    pass.after_mb,
                    pass.seconds,
                    pass.speed(),
                    pass.per_core(),
                    pass.rss_mb
                ));
                self.runs.push(
                    json!({"broker": subject.name(), "case": case, "pass": format!("{pass:?}"), "written": written}),
                );
                passes[usize::from(!subject.is_ours())] = Some(pass);
                subject.delete_topic(&topic)?;
                self.settle()?;
            }
            self.pass_rows(&case, passes);
        }
        Ok(())
    }

    fn pass_rows(&mut self, case: &str, passes: [Option<Pass>; 2]) {
        type Figure = fn(&Pass) -> Option<f64>;
        let rows: [(&str, Figure, &[Goal]); 7] = [
            ("MB/s", |p| Some(p.speed()), &[Goal::RatioAtLeast(1.0)]),
            ("MB/s a core", |p| Some(p.per_core()), &[Goal::AtLeast(100.0)]),
            (
                "broker CPU-s/GB",
                |p| Some(p.cpu_seconds / p.before_mb * 1e3),
                &[],
            ),
            ("RSS MB, at most", |p| Some(p.rss_mb), &[Goal::RatioAtMost(1.0)]),
            (
                "bytes kept per byte",
                |p| Some(p.after_mb / p.before_mb),
                &[Goal::AtMost(0.15)],
            ),
            (
                "store requests per GB",
                |p| Some(p.requests? / p.before_mb * 1e3),
                &[],
            ),
            (
                "bytes to and from the store per byte",
                |p| Some(p.store_mb? / p.before_mb),
                &[],
            ),
        ];
        let [ours, kafka] = passes;
        for (measure, figure, goals) in rows {
            let (ours, kafka) = (ours.as_ref().and_then(figure), kafka.as_ref().and_then(figure));
            self.stored((case, measure), ours, kafka, goals);
        }
    }

    /// A topic that is not compacted yet, with all that it holds at rest.
    fn fill_with_keys(&mut self, subject: &Subject, codec: Codec) -> anyhow::Result<(String, Written)> {
        let topic = self.topic();
        subject.create_topic(&topic, 1, &[("segment.bytes", SEGMENT), ("retention.ms", "-1")])?;
        let bytes = self.plan.compaction_bytes.to_string();
        let arguments = [
            "keyed",
            "--topic",
            &topic,
            "--bytes",
            &bytes,
            "--codec",
            codec.name(),
        ];
        let written: Written = self.found(subject, "fill with keys", &arguments, 300.0)?;
        if !subject.wait_sealed(self.plan.seal_patience)? {
            self.note("not all was sealed before compaction");
        }
        self.settle()?;
        Ok((topic, written))
    }

    /// Has the topic compacted, and watches.
    fn pass(&mut self, subject: &mut Subject, topic: &str, written: &Written) -> anyhow::Result<Pass> {
        let pid = subject.pid()?;
        let compact = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        let (watch, cpu) = (MemoryWatch::start(pid), cpu_seconds(pid)?);
        let mut pass = if subject.is_ours() {
            let before = subject.metrics()?.unwrap_or_default();
            subject.alter_topic(topic, &compact)?;
            our_pass(subject, &before, written)?
        } else {
            subject.alter_topic(topic, &compact)?;
            kafkas_pass(subject, topic)?
        };
        pass.cpu_seconds = cpu_seconds(pid)? - cpu;
        pass.rss_mb = watch.most() as f64 / 1e6;
        if subject.is_ours() {
            // Bring it to its end, so that the next case does not pay for it.
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(pass)
    }
}

/// As our log tells; what it asked of the store is from the metrics.
fn our_pass(subject: &mut Subject, before: &Metrics, written: &Written) -> anyhow::Result<Pass> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seconds) = compacted(&subject.printed()?, written.bytes) {
            let added = subject.metrics()?.unwrap_or_default().since(before);
            let store = added.store();
            let of = |pick: fn(&(f64, f64)) -> f64| {
                let compaction = store.iter().filter(|((_, reason), _)| reason == "compaction");
                compaction.map(|(_, v)| pick(v)).sum::<f64>()
            };
            let kept = added.sum("drumlin_cleaner_bytes_total", &[("direction", "written")]);
            return Ok(Pass {
                before_mb: written.bytes as f64 / 1e6,
                after_mb: kept / 1e6,
                seconds,
                requests: Some(of(|v| v.0)),
                store_mb: Some(of(|v| v.1) / 1e6),
                ..Pass::default()
            });
        }
        if Instant::now() > end {
            bail!("no pass came to its end within {PATIENCE:?}");
        }
        std::thread::sleep(LOOK);
    }
}

/// Seconds of the pass over a topic of so many bytes: the offsets topic is compacted too, and is small.
fn compacted(printed: &str, bytes: u64) -> Option<f64> {
    printed.lines().rev().find_map(|line| {
        let (_, fields) = line.split_once(" compacted ")?;
        let field = |name: &str| -> Option<f64> {
            let (_, value) = fields
                .split_whitespace()
                .filter_map(|f| f.split_once('='))
                .find(|(n, _)| *n == name)?;
            value.parse().ok()
        };
        // The last bytes may not have been sealed.
        let whole = (field("dirty_bytes")? / bytes as f64 - 1.0).abs() < 0.1;
        whole.then(|| field("ms").map(|ms| ms / 1e3))?
    })
}

/// As the log cleaner itself tells.
fn kafkas_pass(subject: &mut Subject, topic: &str) -> anyhow::Result<Pass> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(pass) = cleaned(&subject.printed()?, topic) {
            return Ok(pass);
        }
        if Instant::now() > end {
            bail!("Kafka's cleaner did not come to {topic} within {PATIENCE:?}");
        }
        std::thread::sleep(LOOK);
    }
}

/// Kafka's report on a pass; its megabytes are 2²⁰ bytes.
fn cleaned(printed: &str, topic: &str) -> Option<Pass> {
    const MIB: f64 = (1 << 20) as f64 / 1e6;
    let (_, report) = printed.rsplit_once(&format!("cleaned log {topic}-0 "))?;
    let before = |mark: &str| -> Option<f64> {
        let word = report.split(mark).next()?.split_whitespace().last()?;
        word.replace(',', "").parse().ok()
    };
    let after = |mark: &str| -> Option<f64> {
        let word = report.split(mark).nth(1)?.split_whitespace().next()?;
        word.replace(',', "").parse().ok()
    };
    Some(Pass {
        before_mb: before(" MB of log processed")? * MIB,
        seconds: after("MB of log processed in")?,
        after_mb: after("End size:")? * MIB,
        ..Pass::default()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn kafkas_report_is_read() {
        let printed = "[2026-01-01 10:00:00,000] INFO [kafka-log-cleaner-thread-0]:\n\
            \tLog cleaner thread 0 cleaned log t-0 (dirty section = [0, 262000])\n\
            \t1,024.0 MB of log processed in 5.3 seconds (193.2 MB/sec).\n\
            \tIndexed 1,020.0 MB in 2.0 seconds (510.0 Mb/sec, 37.7% of total time)\n\
            \tBuffer utilization: 0.1%\n\
            \tCleaned 1,024.0 MB in 3.3 seconds (310.3 Mb/sec, 62.3% of total time)\n\
            \tStart size: 1,024.0 MB (1,000,000 messages)\n\
            \tEnd size: 102.4 MB (100,000 messages)\n\
            \t90.0% size reduction (90.0% fewer messages)\n";
        let pass = super::cleaned(printed, "t").expect("it is such a report");
        assert_eq!((pass.before_mb.round(), pass.seconds), (1074.0, 5.3));
        assert_eq!(pass.after_mb.round(), 107.0);
        assert!(super::cleaned(printed, "other").is_none());
    }

    #[test]
    fn our_report_is_read() {
        let printed = "2026-01-01T10:00:00Z  INFO compacted partition=ab-0 ratio=1.0 dirty_bytes=1000 records_in=22 \
            records_out=12 keyless=0 unreadable_batches=0 ms=21\n\
            2026-01-01T10:00:01Z  INFO compacted partition=cd-10 ratio=1.0 dirty_bytes=20 ms=1\n";
        assert_eq!(super::compacted(printed, 1_010), Some(0.021));
        assert_eq!(super::compacted(printed, 2_000), None);
    }
}
