//! Reading in a group against reading by partition, Kafka's consumer tool, and a coordinator that loads its offsets.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use drumlin_tests::process;
use serde_json::json;

use crate::load::group::{Protocol, offsets};
use crate::load::summary::Summary;
use crate::process::cpu_seconds;
use crate::suite::bench::Bench;
use crate::suite::groups::{KEPT, Sides};
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};

/// Partitions of the topic that is read, and members of the group.
const READERS: i32 = 4;
/// 1,000 groups with 100 offsets each, all kept by one partition of the offsets topic.
const GROUPS: usize = 1_000;
const OFFSETS_EACH: i32 = 100;
/// The offset that they all commit.
const COMMITTED: i64 = 7;
const PATIENCE: Duration = Duration::from_secs(120);

impl Bench {
    /// Fills a topic on each and reads it in all ways.
    pub fn grouped(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        let mut filled = Vec::new();
        for subject in subjects.iter_mut() {
            filled.push(self.fill_for_groups(subject)?);
            self.settle()?;
        }
        let size = self.plan.group_bytes as f64 / (1u64 << 30) as f64;
        let name = format!("read {size:.1} GiB in a group of {READERS}");
        let mut runs: [[Vec<Summary>; 2]; 2] = Default::default();
        for (subject, (topic, _)) in subjects.iter_mut().zip(&filled) {
            // Whoever reads first pays for what it leaves warm.
            self.read_once(subject, topic, false, "read once before it counts")?;
            self.runs.pop();
        }
        for turn in 0..self.plan.group_repetitions {
            for (subject, (topic, _)) in subjects.iter_mut().zip(&filled) {
                let mut cases = [(false, "read by partition"), (true, "read in a group")];
                cases.rotate_left(turn % 2);
                for (grouped, case) in cases {
                    let found = self.read_once(subject, topic, grouped, case)?;
                    runs[usize::from(!subject.is_ours())][usize::from(!grouped)].push(found);
                }
            }
        }
        let of = |side: usize, plain: usize, figure: fn(&Summary) -> f64| {
            median(runs[side][plain].iter().map(figure).collect())
        };
        let (speed, cpu) = (Summary::mb_per_second, Summary::cpu_per_gb);
        let goal = [Goal::RatioAtLeast(1.0)];
        self.stored((&name, "MB/s"), of(0, 0, speed), of(1, 0, speed), &goal);
        let at = (name.as_str(), "broker CPU-s/GB out");
        self.stored(at, of(0, 0, cpu), of(1, 0, cpu), &[]);
        let goal = [Goal::RatioAtLeast(0.95)];
        let at = ("the same, against ours by partition", "MB/s");
        self.stored(at, of(0, 0, speed), of(0, 1, speed), &goal);
        self.perf_tool(subjects, &filled)?;
        for (subject, (topic, _)) in subjects.iter().zip(&filled) {
            subject.delete_topic(topic)?;
        }
        self.settle()
    }

    fn fill_for_groups(&mut self, subject: &mut Subject) -> anyhow::Result<(String, i64)> {
        let topic = self.topic();
        subject.create_topic(&topic, READERS, &[KEPT])?;
        let mut command = Command::new(&self.load);
        command
            .args(["produce", "--bootstrap", &subject.bootstrap(), "--topic", &topic])
            .args(["--partitions", &READERS.to_string(), "--warmup", "0"])
            .args(["--seconds", "0", "--max-seconds", "200"])
            .args(["--bytes", &self.plan.group_bytes.to_string()]);
        self.measured(subject.name(), "fill for groups", command, 300.0)?;
        self.runs.pop();
        let mut connection = subject.connect()?;
        let mut records = 0;
        for partition in 0..READERS {
            records += connection.list_offset(&topic, partition, -1)?;
        }
        Ok((topic, records))
    }

    fn read_once(
        &mut self,
        subject: &mut Subject,
        topic: &str,
        grouped: bool,
        case: &str,
    ) -> anyhow::Result<Summary> {
        let (readers, group) = (READERS.to_string(), self.topic());
        let mut command = Command::new(&self.load);
        command
            .args(["group-consume", "--bootstrap", &subject.bootstrap()])
            .args(["--topic", topic, "--partitions", &readers, "--group", &group])
            .args(["--passes", &self.plan.group_passes.to_string()])
            .args(["--pid", &subject.pid()?.to_string()]);
        if !grouped {
            command.arg("--by-partition");
        }
        self.measured(subject.name(), case, command, 300.0)
    }

    /// Kafka's own consumer-perf-test, with its defaults, in both protocols.
    fn perf_tool(&mut self, subjects: &mut [Subject], filled: &[(String, i64)]) -> anyhow::Result<()> {
        for protocol in [Protocol::Classic, Protocol::Consumer] {
            if protocol == Protocol::Consumer && self.plan.quick {
                continue;
            }
            let name = format!("Kafka's consumer-perf-test, {}", protocol.name());
            let (mut all, mut reading, mut cpu) = (Sides::default(), Sides::default(), Sides::default());
            for _ in 0..self.plan.repetitions {
                for (subject, (topic, records)) in subjects.iter_mut().zip(filled) {
                    let found = self.perf_tool_once(subject, &name, protocol, (topic, *records))?;
                    all.add(subject, found[0]);
                    reading.add(subject, found[1]);
                    cpu.add(subject, found[2]);
                }
            }
            let rows: [(&str, Sides, &[Goal]); 3] = [
                ("MB/s, the join included", all, &[Goal::RatioAtLeast(0.95)]),
                ("MB/s", reading, &[Goal::RatioAtLeast(0.95)]),
                ("broker CPU-s/GB out", cpu, &[]),
            ];
            for (measure, sides, goals) in rows {
                let (ours, kafka) = sides.medians();
                self.stored((&name, measure), ours, kafka, goals);
            }
        }
        Ok(())
    }

    fn perf_tool_once(
        &mut self,
        subject: &mut Subject,
        name: &str,
        protocol: Protocol,
        (topic, records): (&str, i64),
    ) -> anyhow::Result<[f64; 3]> {
        let (pid, group) = (subject.pid()?, self.topic());
        let mut command = super::tools::java("org.apache.kafka.tools.ConsumerPerformance")?;
        command
            .args(["--bootstrap-server", &subject.bootstrap(), "--topic", topic])
            .args(["--num-records", &records.to_string(), "--timeout", "60000"])
            .args(["--group", &group, "--hide-header"])
            .args([
                "--command-property",
                &format!("group.protocol={}", protocol.name()),
            ]);
        let before = cpu_seconds(pid)?;
        let output = process::run(command, Duration::from_secs(300))?;
        let cpu = cpu_seconds(pid)? - before;
        let figures = perf_line(&output.stdout).with_context(|| output.stdout.clone())?;
        let cost = cpu / (figures.bytes / 1e9);
        self.say(&format!(
            "{:<8} {name}: {:.0} MB/s, {:.0} MB/s while reading, {cost:.2} CPU-s/GB",
            subject.name(),
            figures.rate,
            figures.reading_rate
        ));
        self.runs.push(json!({
            "broker": subject.name(), "case": name, "mb_per_second": figures.rate,
            "reading_mb_per_second": figures.reading_rate, "cpu_per_gb": cost,
            "printed": output.stdout.lines().last(),
        }));
        Ok([figures.rate, figures.reading_rate, cost])
    }

    /// From the start of the process until a coordinator of 100,000 offsets gives some of them.
    pub fn coordinator_loads(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        let (count, each) = (GROUPS.to_string(), OFFSETS_EACH.to_string());
        let last = offsets::groups(GROUPS).pop().context("groups")?;
        let mut topics = Vec::new();
        for subject in subjects.iter_mut() {
            let topic = self.topic();
            subject.create_topic(&topic, OFFSETS_EACH, &[])?;
            let committed = COMMITTED.to_string();
            let arguments = [
                "offsets-fill",
                "--topic",
                &topic,
                "--partitions",
                &each,
                "--groups",
                &count,
                "--offset",
                &committed,
            ];
            let began = std::time::Instant::now();
            self.found::<()>(subject, "fill of a coordinator", &arguments, 200.0)?;
            self.say(&format!(
                "{:<8} 100,000 offsets committed in {:.1} s",
                subject.name(),
                began.elapsed().as_secs_f64()
            ));
            topics.push(topic);
        }
        for (clean, how) in [(true, "a clean stop"), (false, "kill -9")] {
            let (mut loaded, mut answering) = (Sides::default(), Sides::default());
            for _ in 0..self.plan.group_repetitions {
                for (subject, topic) in subjects.iter_mut().zip(&topics) {
                    if clean {
                        subject.stop()?;
                    } else {
                        subject.kill9()?;
                    }
                    let began = subject.spawn()?;
                    let (took, answered) = offsets::first_fetch(
                        &subject.bootstrap(),
                        &last,
                        topic,
                        OFFSETS_EACH,
                        COMMITTED,
                        began,
                        PATIENCE,
                    )?;
                    let ms = |d: Duration| d.as_secs_f64() * 1e3;
                    self.say(&format!(
                        "{:<8} after {how}: first answer {:.1} ms, offsets {:.1} ms after the start",
                        subject.name(),
                        ms(answered),
                        ms(took)
                    ));
                    self.runs.push(json!({
                        "broker": subject.name(), "case": format!("load 100,000 offsets after {how}"),
                        "first_answer_ms": ms(answered), "offsets_ms": ms(took),
                    }));
                    loaded.add(subject, ms(took));
                    answering.add(subject, ms(took.saturating_sub(answered)));
                }
            }
            let case = format!("100,000 offsets after {how}");
            let (ours, kafka) = loaded.medians();
            let at = (case.as_str(), "ms from the start to the first OffsetFetch");
            self.stored(at, ours, kafka, &[Goal::RatioAtMost(1.0)]);
            let (ours, kafka) = answering.medians();
            let at = (case.as_str(), "ms of it after the first refusal");
            self.stored(at, ours, kafka, &[]);
        }
        Ok(())
    }
}

/// What the tool found, in millions of bytes a second.
struct Perf {
    bytes: f64,
    rate: f64,
    reading_rate: f64,
}

/// The tool's line: start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, MB/s of fetching, records/s of it.
/// Its megabytes are 2²⁰ bytes.
fn perf_line(printed: &str) -> Option<Perf> {
    const MIB: f64 = (1 << 20) as f64 / 1e6;
    let line = printed.lines().rfind(|l| l.split(',').count() >= 10)?;
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    let number = |at: usize| cells.get(at)?.parse::<f64>().ok();
    Some(Perf {
        bytes: number(2)? * MIB * 1e6,
        rate: number(3)? * MIB,
        reading_rate: number(8)? * MIB,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tools_line_is_read() {
        let printed = "2026-01-01 10:00:00:000, 2026-01-01 10:00:05:000, 1024.0000, 204.8000, 1048576, 209715.2, 3100, \
            1900, 538.9474, 551882.1\n";
        let found = super::perf_line(printed).expect("it is such a line");
        assert_eq!(
            (found.bytes, found.rate.round(), found.reading_rate.round()),
            (1_073_741_824.0, 215.0, 565.0)
        );
    }
}
