//! Load that goes on for minutes: whether acknowledgements pause while sealing works, and whether the backlog stays.
//!
//! - `sustained`: full speed, then 60 MB/s, on the local directory. Kafka goes first; the disk is synced between.
//! - `sustained-minio`: the same on MinIO through a forwarder that lets half of the input's rate through.
//! - `turns`: both brokers take turns on one disk, again and again, without a sync between: what Kafka leaves in the page
//!   cache slows the disk down in our turn.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use drumlin_tests::broker::Options;
use drumlin_tests::stores::{Minio, S3};

use crate::load::forwarder::Forwarder;
use crate::suite::bench::Bench;
use crate::suite::charts::Chart;
use crate::suite::record::{PAUSE_MS, Record};
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};
use crate::suite::timed::{Load, Phase};
use crate::suite::watch::Watch;
use crate::suite::{REMOTE_DEPTH, both};

const SECOND: Duration = Duration::from_secs(1);
/// Requests in flight for each connection on the local directory.
const DEPTH: usize = 5;
/// The rate of the second phase, in MB/s.
const RATE: f64 = 60.0;
/// Length of a turn's half.
const TURN: f64 = 8.0;
/// Length of the run that finds out how much a closed loop gets without a limit.
const CALIBRATION: f64 = 8.0;
const FULL_SPEED: &str = "full speed";
const AT_RATE: &str = "60 MB/s";
const PATIENCE: Duration = Duration::from_secs(120);

/// Both look at retention often, so that a run of minutes needs no more disk than a short one.
pub fn short_retention(subjects: &mut [Subject]) -> anyhow::Result<()> {
    for subject in subjects {
        subject.reconfigure(&[("log.retention.check.interval.ms", "5000".to_owned())])?;
        subject.stop()?;
        subject.start()?;
    }
    Ok(())
}

/// Creates a topic that keeps 2 GiB a partition, whatever the records' age. Kafka's keeps 5 GiB: what it deletes sooner than
/// the system has written it would never reach the disk. Its segments are made small enough to be deleted in time; ours are.
pub fn create_topic(subject: &Subject, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let keep = ("retention.ms", "-1");
    let configs: &[(&str, &str)] = match subject.is_ours() {
        true => &[keep, ("retention.bytes", "2147483648")],
        false => &[
            keep,
            ("retention.bytes", "5368709120"),
            ("segment.bytes", "268435456"),
        ],
    };
    subject.create_topic(topic, partitions, configs)
}

/// Our figure and Kafka's.
type Pair = (Option<f64>, Option<f64>);

impl Bench {
    /// Full speed, then 60 MB/s, on the local directory.
    pub fn sustained(&mut self, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
        let mut subjects = both(self, dir, Options::local(&dir.join("drumlin")), kafka_only)?;
        short_retention(&mut subjects)?;
        let mut record = Record::new(
            "sustained-local",
            "Sustained load on the local directory, beside Apache Kafka",
            &[
                "Full speed in batches of 64 KiB, then 60 MB/s in batches of 16 KiB; one partition, 8 connections with 5 requests in flight, acks=all.",
                "One broker after the other, both on the same disk, which was synced between. Kafka does not flush.",
            ],
        );
        for subject in &mut subjects {
            self.settle()?;
            self.sustain(&mut record, subject, DEPTH)?;
        }
        self.finish_record(
            "local",
            &record,
            Chart {
                apart: true,
                ..Chart::default()
            },
        )
    }

    /// The same on MinIO, whose uploads are limited to half of what a closed loop sends without a limit.
    pub fn sustained_minio(&mut self, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
        let minio = Minio::start(dir)?;
        let forwarder = Forwarder::start(minio.port())?;
        let options = Options::on(&dir.join("drumlin"), S3::at(forwarder.port(), "bench"));
        let mut subjects = both(self, dir, options, kafka_only)?;
        short_retention(&mut subjects)?;
        let mut record = Record::new(
            "sustained-minio",
            "Sustained load on MinIO with uploads limited to half of the input",
            &[
                "Full speed in batches of 64 KiB, then 60 MB/s in batches of 16 KiB; one partition, 8 connections with 64 requests in flight, acks=all.",
                "Latencies count from the send: 60 MB/s are more than a limited store takes, so that the intended times run away. Kafka is on its own disk, without a limit.",
            ],
        );
        for subject in &mut subjects {
            self.settle()?;
            if subject.is_ours() {
                let input = self.calibrate(subject)?;
                let limit = input / 2.0;
                forwarder.set_limit(Some((limit * 1e6) as u64));
                record.about.push(format!(
                    "Without a limit a closed loop got {input:.0} MB/s, so uploads were limited to {limit:.0} MB/s, WAL and segments together."
                ));
            }
            self.sustain(&mut record, subject, REMOTE_DEPTH)?;
        }
        record.figures = vec![
            (
                "MB sent towards the store".to_owned(),
                forwarder.passed() as f64 / 1e6,
            ),
            (
                "connections to the store that were cut".to_owned(),
                forwarder.broken() as f64,
            ),
        ];
        let chart = Chart {
            apart: true,
            from_send: true,
            puts: true,
            ..Chart::default()
        };
        self.finish_record("minio, limited", &record, chart)
    }

    /// What a closed loop gets, in MB/s.
    fn calibrate(&mut self, subject: &mut Subject) -> anyhow::Result<f64> {
        let topic = self.topic();
        create_topic(subject, &topic, 1)?;
        let load = Load::full_speed(REMOTE_DEPTH, CALIBRATION);
        let phase = self.timed(subject, &topic, "without a limit", &load)?;
        subject.delete_topic(&topic)?;
        phase
            .mb_per_second()
            .context("the run without a limit has no figures")
    }

    fn sustain(&mut self, record: &mut Record, subject: &mut Subject, depth: usize) -> anyhow::Result<()> {
        let lengths = self.plan.over_time;
        let topic = self.topic();
        create_topic(subject, &topic, 1)?;
        let watch = Watch::start(subject, SECOND, false)?;
        let loads = [
            (FULL_SPEED, Load::full_speed(depth, lengths.full_speed)),
            (AT_RATE, Load::at_rate(depth, RATE, lengths.at_rate)),
        ];
        for (name, load) in loads {
            let phase = self.timed(subject, &topic, name, &load)?;
            let cut_off = phase.error.is_some();
            record.phases.push(phase);
            if cut_off {
                break;
            }
        }
        record.samples.insert(subject.name(), watch.finish());
        subject.delete_topic(&topic)?;
        if !subject.wait_sealed(PATIENCE)? {
            self.note(format!(
                "{}: not all was sealed {PATIENCE:?} after the load",
                subject.name()
            ));
        }
        Ok(())
    }

    /// Turns of 8 s at full speed and 8 s at 60 MB/s, Kafka's and ours, on one disk.
    pub fn turns(&mut self, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
        let mut subjects = both(self, dir, Options::local(&dir.join("drumlin")), kafka_only)?;
        short_retention(&mut subjects)?;
        let mut record = Record::new(
            "turns",
            "Kafka and Drumlin take turns on one disk",
            &[
                "Kafka's turns have a yellow background, Drumlin's a blue one: 8 s at full speed in batches of 64 KiB, then 8 s at 60 MB/s in batches of 16 KiB.",
                "One partition each, the local directory, 8 connections with 5 requests in flight, acks=all. No sync between turns: Kafka's pages go to the disk in Drumlin's turn too.",
            ],
        );
        let topic = self.topic();
        let mut watches = Vec::new();
        for subject in &mut subjects {
            create_topic(subject, &topic, 1)?;
            watches.push((subject.name(), Watch::start(subject, SECOND, false)?));
        }
        self.settle()?;
        let end = Instant::now() + Duration::from_secs_f64(self.plan.over_time.turns);
        'rounds: while Instant::now() < end {
            for subject in &mut subjects {
                let loads = [
                    (FULL_SPEED, Load::full_speed(DEPTH, TURN)),
                    (AT_RATE, Load::at_rate(DEPTH, RATE, TURN)),
                ];
                for (name, load) in loads {
                    let phase = self.timed(subject, &topic, name, &load)?;
                    let cut_off = phase.error.is_some();
                    record.phases.push(phase);
                    if cut_off {
                        break 'rounds;
                    }
                }
            }
        }
        for (broker, watch) in watches {
            record.samples.insert(broker, watch.finish());
        }
        self.finish_record("turns on one disk", &record, Chart::default())
    }

    /// Rows of the common table, the page and the picture.
    fn finish_record(&mut self, store: &str, record: &Record, chart: Chart) -> anyhow::Result<()> {
        for name in [FULL_SPEED, AT_RATE] {
            self.phase_rows(store, name, record);
        }
        let mb = |bytes: Option<f64>| bytes.map(|b| b / 1e6);
        let backlog = record.most("drumlin", |s| s.metric("drumlin_unsealed_bytes"));
        self.row(
            (store, "sustained, at most", "MB not sealed"),
            mb(backlog),
            None,
            &[],
        );
        let rss = |broker| mb(record.most(broker, |s| Some(s.rss as f64)));
        self.row(
            (store, "sustained, at most", "RSS MB"),
            rss("drumlin"),
            rss("kafka"),
            &[],
        );
        let picture = chart.draw(record, self.output.remark.as_deref());
        record.write(self, &picture)
    }

    fn phase_rows(&mut self, store: &str, name: &str, record: &Record) {
        let case = format!("sustained, {name}");
        let phases = |broker: &str| -> Vec<&Phase> {
            let of = record
                .phases
                .iter()
                .filter(|p| p.broker == broker && p.name == name);
            of.collect()
        };
        let (ours, kafka) = (phases("drumlin"), phases("kafka"));
        let over = |phases: &[&Phase], figure: &dyn Fn(&Phase) -> Option<f64>| -> Vec<f64> {
            phases.iter().filter_map(|p| figure(p)).collect()
        };
        let typical = |figure: &dyn Fn(&Phase) -> Option<f64>| {
            (median(over(&ours, figure)), median(over(&kafka, figure)))
        };
        let worst = |figure: &dyn Fn(&Phase) -> Option<f64>| {
            let most = |phases: &[&Phase]| over(phases, figure).into_iter().max_by(f64::total_cmp);
            (most(&ours), most(&kafka))
        };
        let figures: [(&str, Pair, &[Goal]); 8] = [
            ("MB/s", typical(&Phase::mb_per_second), &[]),
            (
                "longest pause ms",
                worst(&|p| p.worst(|s| s.pause_ms)),
                &[Goal::AtMost(PAUSE_MS)],
            ),
            ("p50 ms", typical(&|p| Some(p.summary.as_ref()?.latency.p50)), &[]),
            ("p99 ms", typical(&|p| Some(p.summary.as_ref()?.latency.p99)), &[]),
            (
                "p999 ms",
                typical(&|p| Some(p.summary.as_ref()?.latency.p999)),
                &[],
            ),
            (
                "p50 ms, worst second",
                worst(&|p| p.worst(|s| s.latency.p50)),
                &[],
            ),
            (
                "p99 ms, worst second",
                worst(&|p| p.worst(|s| s.latency.p99)),
                &[],
            ),
            (
                "broker CPU-s/GB in",
                typical(&|p| Some(p.summary.as_ref()?.cpu_per_gb())),
                &[],
            ),
        ];
        for (measure, (ours, kafka), goals) in figures {
            self.row((store, &case, measure), ours, kafka, goals);
        }
    }
}
