//! What steady load over six partitions costs on MinIO: CPU before any sealing and over minutes, and bytes put.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use drumlin_tests::broker::Options;
use drumlin_tests::stores::Minio;

use crate::suite::bench::Bench;
use crate::suite::charts::Chart;
use crate::suite::record::Record;
use crate::suite::subject::Subject;
use crate::suite::sustained::create_topic;
use crate::suite::table::Goal;
use crate::suite::timed::{Load, Phase};
use crate::suite::watch::{Sample, Watch};
use crate::suite::{REMOTE_DEPTH, ours};

const PARTITIONS: i32 = 6;
/// Two for each partition.
const CONNECTIONS: usize = 12;
const SECOND: Duration = Duration::from_secs(1);
/// Rounds end by time; what is left when the load ends is sealed within one more.
const PATIENCE: Duration = Duration::from_secs(180);
/// MB/s, bytes of a batch, and the goal of CPU seconds a GB.
const LOADS: [(f64, usize, &[Goal]); 2] = [(25.0, 64 << 10, &[Goal::AtMost(1.8)]), (5.0, 16 << 10, &[])];

impl Bench {
    /// Both loads, each with a broker of its own, so that one is not charged with what the other left.
    pub fn minio_cost(&mut self, dir: &Path) -> anyhow::Result<()> {
        let minio = Minio::start(dir)?;
        for (rate, batch, goals) in LOADS {
            let name = format!("{rate:.0} MB/s in {} KiB batches, six partitions", batch >> 10);
            let options = Options::on(
                &dir.join(format!("drumlin-{rate:.0}")),
                minio.store(&format!("rate-{rate:.0}")),
            );
            let mut subject = ours(self, options)?;
            subject.start()?;
            self.minio_cost_of(&mut subject, &name, rate, batch, goals)?;
            subject.stop()?;
        }
        Ok(())
    }

    fn minio_cost_of(
        &mut self,
        subject: &mut Subject,
        name: &str,
        rate: f64,
        batch: usize,
        goals: &[Goal],
    ) -> anyhow::Result<()> {
        let topic = self.topic();
        create_topic(subject, &topic, PARTITIONS)?;
        self.settle()?;
        let watch = Watch::start(subject, SECOND, false)?;
        let load = Load {
            partitions: PARTITIONS,
            connections: CONNECTIONS,
            batch,
            ..Load::at_rate(REMOTE_DEPTH, rate, self.plan.over_time.minio_cost)
        };
        let phase = self.timed(subject, &topic, name, &load)?;
        if !subject.wait_sealed(PATIENCE)? {
            self.note(format!("{name}: not all was sealed {PATIENCE:?} after the load"));
        }
        // The watch has to see the end of the last round.
        std::thread::sleep(SECOND * 2);
        let samples = watch.finish();
        let costs = Costs::of(&phase, &samples).with_context(|| format!("{name}: no figures"))?;
        let measures = [
            (
                "broker CPU-s/GB in, before any sealing",
                costs.before_sealing,
                goals,
            ),
            ("broker CPU-s/GB in, with sealing", costs.with_sealing, goals),
            ("bytes put per byte in", costs.bytes_put, &[][..]),
            ("page faults per MB in", costs.faults, &[][..]),
        ];
        let mut record = Record::new(
            &format!("minio-cost-{rate:.0}"),
            &format!("What {name} cost on MinIO"),
            &[
                "\"Before any sealing\" ends some seconds before the first put of sealing; \"with sealing\" ends when all is sealed.",
            ],
        );
        for (measure, value, goals) in measures {
            self.row(("minio", name, measure), value, None, goals);
            record
                .figures
                .extend(value.map(|value| (measure.to_owned(), value)));
        }
        record.phases.push(phase);
        record.samples.insert("drumlin", samples);
        let chart = Chart {
            puts: true,
            ..Chart::default()
        };
        let picture = chart.draw(&record, self.output.remark.as_deref());
        record.write(self, &picture)
    }
}

/// Figures of a load, per byte that it sent.
#[derive(Debug, Default, PartialEq)]
struct Costs {
    before_sealing: Option<f64>,
    with_sealing: Option<f64>,
    bytes_put: Option<f64>,
    faults: Option<f64>,
}

impl Costs {
    fn of(phase: &Phase, samples: &[Sample]) -> Option<Costs> {
        let known = |s: &&Sample| !s.metrics.is_empty();
        let first = samples.iter().filter(known).rfind(|s| s.at_ms <= phase.from_ms)?;
        let last = samples.iter().rfind(known)?;
        let sealing = |s: &Sample| s.metric("sealing_put_bytes");
        let unsealed = samples
            .iter()
            .filter(|s| s.at_ms > phase.from_ms && s.at_ms < phase.to_ms)
            .take_while(|s| s.metrics.is_empty() || sealing(s) == sealing(first));
        // What was put first was read and gathered before: the seconds in which that may have begun do not count.
        let unsealed: Vec<&Sample> = unsealed.collect();
        let quiet = unsealed.iter().rev().nth(3).copied();
        let bytes_until = |at_ms: u64| -> f64 {
            let seconds = phase.seconds.iter().filter(|s| s.at_ms + 1_000 <= at_ms);
            seconds.map(|s| s.bytes as f64).sum()
        };
        let all = phase.bytes() as f64;
        if all == 0.0 {
            return None;
        }
        let put = |s: &Sample| s.metric("put_bytes");
        Some(Costs {
            before_sealing: quiet
                .map(|s| (s.cpu_seconds - first.cpu_seconds) / (bytes_until(s.at_ms) / 1e9))
                .filter(|cost| cost.is_finite()),
            with_sealing: Some((last.cpu_seconds - first.cpu_seconds) / (all / 1e9)),
            bytes_put: Some((put(last)? - put(first)?) / all),
            faults: Some((last.page_faults.saturating_sub(first.page_faults)) as f64 / (all / 1e6)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::seconds::Second;

    #[test]
    fn costs_are_of_the_right_time() {
        let sample = |second: u64, cpu: f64, sealed: f64, put: f64| Sample {
            at_ms: second * 1_000,
            cpu_seconds: cpu,
            page_faults: second * 10,
            metrics: [
                ("sealing_put_bytes".to_owned(), sealed),
                ("put_bytes".to_owned(), put),
            ]
            .into(),
            ..Sample::default()
        };
        let mut samples: Vec<Sample> = (0..=11u32)
            .map(|n| sample(u64::from(n), f64::from(n), 1.0, 1e9 * f64::from(n)))
            .collect();
        samples.extend([sample(12, 20.0, 2.0, 18e9), sample(30, 30.0, 2.0, 21e9)]);
        let second = |n: u64| Second {
            at_ms: n * 1_000,
            length: 1.0,
            bytes: 1_000_000_000,
            ..Second::default()
        };
        let phase = Phase {
            broker: "drumlin".to_owned(),
            name: String::new(),
            from_ms: 1_000,
            to_ms: 15_000,
            summary: None,
            error: None,
            seconds: (1..=14).map(second).collect(),
        };
        let costs = Costs::of(&phase, &samples).expect("there are figures");
        // From second 1 to 8: seven seconds, seven CPU seconds, 7 GB.
        assert_eq!(costs.before_sealing, Some(1.0));
        assert_eq!(costs.with_sealing, Some(29.0 / 14.0));
        assert_eq!(costs.bytes_put, Some(20.0 / 14.0));
        assert_eq!(costs.faults, Some(290.0 / 14_000.0));
    }
}
