//! Fetches of what is in memory, of what was written lately, and of what is in no cache.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use drumlin_tests::process;

use crate::load::batches::Codec;
use crate::load::summary::Summary;
use crate::process::cpu_seconds;
use crate::suite::bench::{Bench, Fetch, Produce};
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};

/// Connections of a fetch, and of the proxy.
const CONNECTIONS: &str = "4";

/// A topic that was filled with batches of 64 KiB.
struct Filled {
    topic: String,
    from: i64,
    end: i64,
    bytes_per_record: f64,
}

impl Filled {
    /// The range that holds the last so many bytes.
    fn last(&self, bytes: u64, seconds: f64) -> Fetch {
        let records = (bytes as f64 / self.bytes_per_record) as i64;
        Fetch {
            from: (self.end - records).max(self.from),
            to: self.end,
            seconds: Some(seconds),
        }
    }

    /// The range that holds the first so many bytes, once.
    fn first(&self, bytes: u64) -> Fetch {
        let records = (bytes as f64 / self.bytes_per_record) as i64;
        Fetch {
            from: self.from,
            to: (self.from + records).min(self.end),
            seconds: None,
        }
    }
}

impl Bench {
    fn fill(&mut self, subject: &mut Subject, bytes: u64) -> anyhow::Result<Filled> {
        let topic = self.topic();
        // The records have timestamps of long ago.
        subject.create_topic(&topic, 1, &[("retention.ms", "-1")])?;
        let load = Produce {
            batch: 64 << 10,
            record: 1 << 10,
            codec: Codec::None,
            rate: None,
            seconds: 0.0,
            bytes,
            max_seconds: 200.0,
            warmup: 0.0,
        };
        let summary = self.produce(subject, &topic, "fill", &load)?;
        self.runs.pop();
        let (from, end) = subject.offsets(&topic)?;
        let bytes_per_record = summary.total_bytes as f64 / (end - from).max(1) as f64;
        Ok(Filled {
            topic,
            from,
            end,
            bytes_per_record,
        })
    }

    /// Fills a topic on each, fetches the hot ranges, then the cold one after a restart.
    pub fn consume(&mut self, store: &str, subjects: &mut [Subject]) -> anyhow::Result<()> {
        let mut filled = Vec::new();
        for subject in subjects.iter_mut() {
            filled.push(self.fill(subject, self.plan.fill_bytes)?);
            self.settle()?;
        }
        let local = store == "local";
        let (hot, seconds) = (self.plan.hot_bytes, self.plan.fetch_seconds);
        let large = format!("fetch the last {} GiB", hot >> 30);
        let goals: [&[Goal]; 2] = match local {
            true => [&[Goal::RatioAtLeast(0.9)], &[Goal::RatioAtMost(1.2)]],
            false => [&[], &[]],
        };
        let cases: [(&str, u64, [&[Goal]; 2]); 2] = [
            ("fetch the last 64 MiB", 64 << 20, goals),
            (&large, hot, [&[], &[]]),
        ];
        for (name, bytes, goals) in cases {
            let mut runs: [Vec<Summary>; 2] = Default::default();
            for _ in 0..self.plan.repetitions {
                for (subject, filled) in subjects.iter_mut().zip(&filled) {
                    let summary = self.fetch(subject, &filled.topic, name, filled.last(bytes, seconds))?;
                    runs[usize::from(!subject.is_ours())].push(summary);
                }
            }
            let of = |at: usize, figure: fn(&Summary) -> f64| median(runs[at].iter().map(figure).collect());
            let (speed, cpu) = (Summary::mb_per_second, Summary::cpu_per_gb);
            self.row((store, name, "MB/s"), of(0, speed), of(1, speed), goals[0]);
            self.row(
                (store, name, "broker CPU-s/GB out"),
                of(0, cpu),
                of(1, cpu),
                goals[1],
            );
        }
        self.cold(store, subjects, &filled)?;
        for (subject, filled) in subjects.iter().zip(&filled) {
            subject.delete_topic(&filled.topic)?;
        }
        self.settle()
    }

    fn cold(&mut self, store: &str, subjects: &mut [Subject], filled: &[Filled]) -> anyhow::Result<()> {
        let bytes = self.plan.cold_bytes;
        let name = format!("fetch {:.1} GiB cold", bytes as f64 / (1u64 << 30) as f64);
        let (mut ours, mut kafka, mut proxied) = (None, None, None);
        for (subject, filled) in subjects.iter_mut().zip(filled) {
            if !subject.wait_sealed(self.plan.seal_patience)? {
                self.note(format!("{store}: not all was sealed before the cold fetch"));
            }
            subject.stop()?;
            if subject.is_ours() {
                subject.broker()?.delete_cache()?;
            }
            subject.start()?;
            std::thread::sleep(Duration::from_secs(2));
            self.drop_page_cache();
            let summary = self.fetch(subject, &filled.topic, &name, filled.first(bytes))?;
            if subject.is_ours() {
                self.drop_page_cache();
                proxied = Some(self.proxy(subject, summary.bytes)?);
                ours = Some(summary);
            } else {
                kafka = Some(summary);
            }
        }
        let (speed, cpu) = (Summary::mb_per_second, Summary::cpu_per_gb);
        let of = |s: &Option<Summary>, figure: fn(&Summary) -> f64| s.as_ref().map(figure);
        self.row((store, &name, "MB/s"), of(&ours, speed), of(&kafka, speed), &[]);
        self.row(
            (store, &name, "broker CPU-s/GB out"),
            of(&ours, cpu),
            of(&kafka, cpu),
            &[],
        );
        let goal = [Goal::RatioAtLeast(0.8)];
        let at = (store, "the same, against a bare GET-to-socket proxy", "MB/s");
        self.row(at, of(&ours, speed), of(&proxied, speed), &goal);
        Ok(())
    }

    /// Reads as many bytes of segments through the proxy.
    fn proxy(&mut self, subject: &Subject, bytes: u64) -> anyhow::Result<Summary> {
        let options = subject.broker()?.options();
        let mut command = Command::new(&self.load);
        command
            .args([
                "proxy",
                "--store",
                &options.store.url(),
                "--connections",
                CONNECTIONS,
            ])
            .args(["--bytes", &bytes.to_string()])
            .envs(options.store.environment());
        let log = self.dir.join("proxy.log");
        if let Err(error) = std::fs::remove_file(&log)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
        let mut proxy = process::Process::start("proxy", command, &log)?;
        proxy.wait_ready(Duration::from_secs(60), |p| p.printed().contains(':'))?;
        let printed = proxy.printed();
        let address = printed
            .lines()
            .next()
            .context("the proxy says where it listens")?
            .to_owned();
        let mut drain = Command::new(&self.load);
        drain
            .args(["drain", "--address", &address, "--connections", CONNECTIONS])
            .args(["--pid", &proxy.id().to_string()]);
        let summary = self.measured("proxy", "the same bytes", drain, 300.0)?;
        if summary.bytes < bytes {
            self.note(format!(
                "the store had segments for {} of {} MB when the proxy read them; the rest was in bundles or WAL objects",
                summary.bytes / 1_000_000,
                bytes / 1_000_000
            ));
        }
        Ok(summary)
    }

    fn drop_page_cache(&mut self) {
        rustix::fs::sync();
        if let Err(error) = std::fs::write("/proc/sys/vm/drop_caches", "3") {
            self.note(format!(
                "the page cache could not be dropped ({error}): cold reads may not be"
            ));
        }
    }

    /// Kafka's own consumer of one partition, which throws records away.
    pub fn consumer_tool(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        let name = "Kafka's console-consumer, one partition, no output";
        // Records of 1 KiB, and a few more than are read: the rest would be written for nothing.
        let bytes = self.plan.fill_bytes.min(self.plan.tool_records * 1100);
        let mut figures = [(None, None), (None, None)];
        for subject in subjects.iter_mut() {
            let filled = self.fill(subject, bytes)?;
            let pid = subject.pid()?;
            let records = (filled.end - filled.from).min(i64::try_from(self.plan.tool_records)?);
            let mut command = super::tools::java("org.apache.kafka.tools.consumer.ConsoleConsumer")?;
            command
                .args([
                    "--bootstrap-server",
                    &subject.bootstrap(),
                    "--topic",
                    &filled.topic,
                ])
                .args(["--partition", "0", "--offset", "earliest"])
                .args(["--max-messages", &records.to_string(), "--timeout-ms", "60000"])
                .args([
                    "--formatter",
                    "org.apache.kafka.tools.consumer.NoOpMessageFormatter",
                ]);
            let (began, before) = (std::time::Instant::now(), cpu_seconds(pid)?);
            process::run(command, Duration::from_secs(180))?;
            let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds(pid)? - before);
            let bytes = records as f64 * filled.bytes_per_record;
            let (speed, cost) = (bytes / 1e6 / seconds, cpu / (bytes / 1e9));
            self.say(&format!(
                "{:<8} {name}: {speed:.0} MB/s, {cost:.2} CPU-s/GB",
                subject.name()
            ));
            figures[usize::from(!subject.is_ours())] = (Some(speed), Some(cost));
            subject.delete_topic(&filled.topic)?;
            self.settle()?;
        }
        let [ours, kafka] = figures;
        self.row(
            ("local", name, "MB/s, start of the tool included"),
            ours.0,
            kafka.0,
            &[],
        );
        self.row(("local", name, "broker CPU-s/GB out"), ours.1, kafka.1, &[]);
        Ok(())
    }
}
