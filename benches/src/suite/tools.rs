//! Apache Kafka's own producer tool, unmodified, against both.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use drumlin_tests::{cache, process};
use serde_json::json;

use crate::process::cpu_seconds;
use crate::suite::bench::Bench;
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};

/// A tool of Apache Kafka with the heap that its own scripts give it.
pub fn java(class: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("java");
    command.args([
        "-Xmx512M",
        "-Dlog4j2.level=ERROR",
        "-cp",
        &cache::kafka_class_path()?,
        class,
    ]);
    Ok(command)
}

/// The rate in the tool's last line: `… records sent, … records/sec (97.66 MB/sec), …`, in millions of bytes a second.
fn rate(printed: &str) -> Option<f64> {
    let line = printed.lines().rfind(|l| l.contains(" records sent"))?;
    let before = line.split(" MB/sec").next()?;
    let mib: f64 = before.rsplit('(').next()?.parse().ok()?;
    Some(mib * (1 << 20) as f64 / 1e6)
}

impl Bench {
    /// Records of 1 KiB, acks=all, with the tool's defaults otherwise.
    pub fn producer_tool(&mut self, subjects: &mut [Subject]) -> anyhow::Result<()> {
        for codec in ["none", "lz4"] {
            if codec == "lz4" && self.plan.quick {
                continue;
            }
            let goals: [&[Goal]; 2] = match codec {
                "none" => [&[Goal::RatioAtLeast(1.2)], &[Goal::RatioAtMost(0.35)]],
                _ => [&[], &[]],
            };
            let name = format!("Kafka's producer-perf-test, 1 KiB, {codec}");
            let mut figures: [Vec<(f64, f64)>; 2] = Default::default();
            for _ in 0..self.plan.repetitions {
                for subject in subjects.iter_mut() {
                    let found = self.producer_tool_once(subject, &name, codec)?;
                    figures[usize::from(!subject.is_ours())].push(found);
                }
            }
            let of = |at: usize, pick: fn(&(f64, f64)) -> f64| median(figures[at].iter().map(pick).collect());
            self.row(("local", &name, "MB/s"), of(0, |f| f.0), of(1, |f| f.0), goals[0]);
            self.row(
                ("local", &name, "broker CPU-s/GB in"),
                of(0, |f| f.1),
                of(1, |f| f.1),
                goals[1],
            );
        }
        Ok(())
    }

    pub(super) fn producer_tool_once(
        &mut self,
        subject: &mut Subject,
        name: &str,
        codec: &str,
    ) -> anyhow::Result<(f64, f64)> {
        let topic = self.topic();
        // Six partitions, as in the figures of the past.
        subject.create_topic(&topic, 6, &[("retention.bytes", "715827882")])?;
        let records = self.plan.tool_records;
        let pid = subject.pid()?;
        let mut command = java("org.apache.kafka.tools.ProducerPerformance")?;
        command
            .args(["--topic", &topic, "--num-records", &records.to_string()])
            .args(["--record-size", "1024", "--throughput", "-1"])
            .args(["--bootstrap-server", &subject.bootstrap()])
            .args([
                "--command-property",
                "acks=all",
                &format!("compression.type={codec}"),
            ]);
        let before = cpu_seconds(pid)?;
        let output = process::run(command, Duration::from_secs(400))?;
        let cpu = cpu_seconds(pid)? - before;
        let rate = rate(&output.stdout).with_context(|| output.stdout.clone())?;
        let cost = cpu / (records as f64 * 1024.0 / 1e9);
        self.say(&format!(
            "{:<8} {name}: {rate:.0} MB/s, {cost:.2} CPU-s/GB",
            subject.name()
        ));
        self.runs.push(json!({
            "broker": subject.name(), "case": name, "mb_per_second": rate, "cpu_per_gb": cost,
            "printed": output.stdout.lines().last(),
        }));
        subject.delete_topic(&topic)?;
        self.settle()?;
        Ok((rate, cost))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tools_last_line_is_read() {
        let printed = "301 records sent, 60.2 records/sec (0.06 MB/sec), 1.0 ms avg latency.\n\
            600000 records sent, 142857.1 records/sec (139.51 MB/sec), 3.1 ms avg latency, 9.0 ms max latency, \
            2 ms 50th, 3 ms 95th, 4 ms 99th, 5 ms 99.9th.\n";
        assert_eq!(super::rate(printed).map(f64::round), Some(146.0));
    }
}
