//! Memory, idle connections and partitions, requests of an idle broker, and how long a start takes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drumlin_tests::broker::Options;
use drumlin_tests::process;

use crate::load::{first, idle};
use crate::process::{peak_resident, resident};
use crate::suite::bench::Bench;
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};

const MB: f64 = 1e6;
const PATIENCE: Duration = Duration::from_secs(60);

impl Bench {
    /// Memory of brokers that have nothing to do, and what ours asks of the store meanwhile.
    pub fn idle(&mut self, store: &str, subjects: &mut [Subject]) -> anyhow::Result<()> {
        std::thread::sleep(Duration::from_secs(3));
        let (mut ours, mut kafka, mut before) = (None, None, None);
        for subject in subjects.iter_mut() {
            if subject.is_ours() {
                before = subject.metrics()?;
            }
        }
        let seconds = self.plan.idle_seconds;
        self.say(&format!("idle for {seconds} s"));
        std::thread::sleep(Duration::from_secs(seconds));
        let mut hourly = None;
        for subject in subjects.iter_mut() {
            let rss = resident(subject.pid()?)? as f64 / MB;
            if subject.is_ours() {
                ours = Some(rss);
                if let (Some(before), Some(after)) = (&before, subject.metrics()?) {
                    let requests = after.since(before).sum("drumlin_store_requests_total", &[]);
                    hourly = Some(requests * 3600.0 / seconds as f64);
                }
            } else {
                kafka = Some(rss);
            }
        }
        let goals: &[Goal] = if store == "local" {
            &[Goal::AtMost(25.0)]
        } else {
            &[]
        };
        self.row((store, "idle, empty", "RSS MB"), ours, kafka, goals);
        self.row(
            (store, "idle, empty", "store requests an hour"),
            hourly,
            None,
            &[Goal::AtMost(30.0)],
        );
        Ok(())
    }

    /// Memory at its most so far, and a while after the load.
    pub fn loaded(&mut self, store: &str, subjects: &mut [Subject]) -> anyhow::Result<()> {
        std::thread::sleep(Duration::from_secs(self.plan.after_seconds));
        let mut figures = [(None, None), (None, None)];
        for subject in subjects.iter_mut() {
            let pid = subject.pid()?;
            let found = (
                Some(peak_resident(pid)? as f64 / MB),
                Some(resident(pid)? as f64 / MB),
            );
            figures[usize::from(!subject.is_ours())] = found;
        }
        let [ours, kafka] = figures;
        let goals: &[Goal] = if store == "local" {
            &[Goal::RatioAtMost(0.25)]
        } else {
            &[]
        };
        self.row((store, "loaded, at most", "RSS MB"), ours.0, kafka.0, goals);
        let after = format!("{} s after the load", self.plan.after_seconds);
        self.row((store, &after, "RSS MB"), ours.1, kafka.1, &[]);
        Ok(())
    }

    /// 10,000 connections, and many partitions, on a broker of its own.
    pub fn many(&mut self, dir: &Path) -> anyhow::Result<()> {
        const CONNECTIONS: usize = 10_000;
        let mut figures = [None, None];
        for ours in [true, false] {
            let mut subject = match ours {
                true => Subject::drumlin(Options::local(&dir.join("many")))?,
                false => Subject::kafka(&dir.join("many-kafka"))?,
            };
            subject.start()?;
            std::thread::sleep(Duration::from_secs(2));
            let pid = subject.pid()?;
            let before = resident(pid)?;
            let held = idle::connections(&subject.bootstrap(), CONNECTIONS)?;
            std::thread::sleep(Duration::from_secs(3));
            let each = resident(pid)?.saturating_sub(before) as f64 / held.len() as f64 / 1e3;
            self.say(&format!(
                "{}: {each:.1} KB for each of {CONNECTIONS} connections",
                subject.name()
            ));
            figures[usize::from(!ours)] = Some(each);
            drop(held);
            if ours {
                self.partitions(&mut subject)?;
            }
            subject.stop()?;
        }
        let at = ("local", "10,000 idle connections", "RSS KB each");
        self.row(at, figures[0], figures[1], &[Goal::AtMost(20.0)]);
        Ok(())
    }

    fn partitions(&mut self, subject: &mut Subject) -> anyhow::Result<()> {
        let count = self.plan.partitions;
        let began = std::time::Instant::now();
        let created = idle::partitions(&subject.bootstrap(), count);
        if let Err(error) = created {
            self.note(format!("{count} partitions could not be created: {error:#}"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(5));
        let rss = resident(subject.pid()?)? as f64 / MB;
        self.say(&format!(
            "drumlin: {count} partitions created in {:.1} s, RSS {rss:.0} MB",
            began.elapsed().as_secs_f64() - 5.0
        ));
        let goals: &[Goal] = if self.plan.quick {
            &[]
        } else {
            &[Goal::AtMost(256.0)]
        };
        self.row(
            ("local", &format!("{count} idle partitions"), "RSS MB"),
            Some(rss),
            None,
            goals,
        );
        Ok(())
    }

    /// From the start of the process to the first acknowledged record.
    pub fn starts(&mut self, dir: &Path) -> anyhow::Result<()> {
        let mut all: [[Vec<f64>; 3]; 2] = Default::default();
        for at in 0..self.plan.starts {
            for ours in [true, false] {
                if !ours && at > 0 {
                    continue;
                }
                let here = dir.join(format!("start-{at}"));
                let mut subject = match ours {
                    true => Subject::drumlin(Options::local(&here))?,
                    false => Subject::kafka(&here.join("kafka"))?,
                };
                let found = self.three_starts(&mut subject)?;
                self.say(&format!(
                    "{:<8} first record: empty {:.1} ms, after a clean stop {:.1} ms, after kill -9 {:.1} ms",
                    subject.name(),
                    found[0],
                    found[1],
                    found[2]
                ));
                for (times, ms) in all[usize::from(!ours)].iter_mut().zip(found) {
                    times.push(ms);
                }
                drop(subject);
                std::fs::remove_dir_all(&here)?;
            }
        }
        let cases: [(&str, &[Goal]); 3] = [
            ("start on an empty directory", &[Goal::AtMost(100.0)]),
            ("start after a clean stop", &[Goal::AtMost(100.0)]),
            ("start after kill -9 under load", &[]),
        ];
        let [ours, kafka] = all;
        for ((name, goals), (ours, kafka)) in cases.into_iter().zip(ours.into_iter().zip(kafka)) {
            let at = ("local", name, "ms to the first acknowledged record");
            self.row(at, median(ours), median(kafka), goals);
        }
        Ok(())
    }

    fn three_starts(&mut self, subject: &mut Subject) -> anyhow::Result<[f64; 3]> {
        let bootstrap = subject.bootstrap();
        let start = |subject: &mut Subject| -> anyhow::Result<f64> {
            let began = subject.spawn()?;
            Ok(first::acknowledged(&bootstrap, "first", began, PATIENCE)?.as_secs_f64() * 1e3)
        };
        let empty = start(subject)?;
        subject.stop()?;
        let clean = start(subject)?;
        subject.create_topic("load", 1, &[])?;
        let mut load = Command::new(&self.load);
        load.args(["produce", "--bootstrap", &subject.bootstrap(), "--topic", "load"])
            .args(["--rate-mb", "100", "--seconds", "60"]);
        let mut load = process::Process::start("load", load, &self.dir.join("start-load.log"))?;
        std::thread::sleep(Duration::from_secs(if self.plan.quick { 3 } else { 10 }));
        subject.kill9()?;
        load.kill9()?;
        let killed = start(subject)?;
        subject.stop()?;
        Ok([empty, clean, killed])
    }
}
