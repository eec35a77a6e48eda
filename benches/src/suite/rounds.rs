//! Kafka's own producer tool in turns with Kafka, round after round: what holds in the first must hold in the last.

use std::path::Path;
use std::time::{Duration, Instant};

use drumlin_tests::broker::Options;
use serde_json::json;

use crate::load::seconds::now_ms;
use crate::picture::{BLUE, Line, ORANGE, Panel, Picture, Scale};
use crate::suite::bench::Bench;
use crate::suite::both;
use crate::suite::record::Record;
use crate::suite::table::{Goal, median};

const CASE: &str = "Kafka's producer-perf-test in rounds, 1 KiB, none";
const SPEED: Goal = Goal::RatioAtLeast(1.2);
const COST: Goal = Goal::RatioAtMost(0.35);

/// One turn: when it ended, in seconds; MB/s; CPU seconds a GB.
type Turn = (f64, f64, f64);
/// Picks a figure of a turn.
type Figure = fn(&Turn) -> f64;

impl Bench {
    /// Six partitions, records of 1 KiB; the disk is synced between turns.
    pub fn tool_rounds(&mut self, dir: &Path, kafka_only: bool) -> anyhow::Result<()> {
        let mut subjects = both(self, dir, Options::local(&dir.join("drumlin")), kafka_only)?;
        self.warm_up(&mut subjects)?;
        self.plan.tool_records = self.plan.over_time.tool_records;
        let began = Instant::now();
        let end = began + Duration::from_secs_f64(self.plan.over_time.tool_rounds);
        let begin_ms = now_ms();
        // Kafka's and ours.
        let mut turns: [Vec<Turn>; 2] = Default::default();
        while Instant::now() < end {
            for (subject, turns) in subjects.iter_mut().zip(&mut turns) {
                let (speed, cost) = self.producer_tool_once(subject, CASE, "none")?;
                turns.push((began.elapsed().as_secs_f64(), speed, cost));
            }
        }
        let [kafka, ours] = &turns;
        let ratios =
            |pick: Figure| -> Vec<f64> { ours.iter().zip(kafka).map(|(o, k)| pick(o) / pick(k)).collect() };
        let middle = |turns: &[Turn], pick: Figure| median(turns.iter().map(pick).collect());
        let (speed, cost): (Figure, Figure) = (|t| t.1, |t| t.2);
        self.row(
            ("local", CASE, "MB/s"),
            middle(ours, speed),
            middle(kafka, speed),
            &[SPEED],
        );
        self.row(
            ("local", CASE, "broker CPU-s/GB in"),
            middle(ours, cost),
            middle(kafka, cost),
            &[COST],
        );
        let (speeds, costs) = (ratios(speed), ratios(cost));
        let least = speeds.iter().copied().min_by(f64::total_cmp);
        let most = costs.iter().copied().max_by(f64::total_cmp);
        self.row(
            ("local", CASE, "MB/s, worst round's ratio"),
            least,
            None,
            &[Goal::AtLeast(1.2)],
        );
        self.row(
            ("local", CASE, "CPU, worst round's ratio"),
            most,
            None,
            &[Goal::AtMost(0.35)],
        );
        self.runs.push(json!({
            "case": CASE, "began_ms": begin_ms, "mb_per_second_ratios": speeds, "cpu_ratios": costs,
        }));
        self.write_rounds(&turns, &speeds, &costs)
    }

    fn write_rounds(&mut self, turns: &[Vec<Turn>; 2], speeds: &[f64], costs: &[f64]) -> anyhow::Result<()> {
        let records = self.plan.tool_records;
        let mut record = Record::new(
            "tool-rounds",
            "Kafka's producer tool, round after round",
            &[
                &format!(
                    "kafka-producer-perf-test sends {records} records of 1 KiB to six partitions, acks=all and its defaults otherwise; a new topic each time, which is deleted afterwards."
                ),
                "Kafka and Drumlin in turn; the disk is synced between turns. A point is one turn, a ratio one round.",
            ],
        );
        for (round, (speed, cost)) in speeds.iter().zip(costs).enumerate() {
            record
                .figures
                .push((format!("round {}: MB/s, ratio", round + 1), *speed));
            record
                .figures
                .push((format!("round {}: CPU a GB, ratio", round + 1), *cost));
        }
        let line = |name: &str, colour, points: Vec<(f64, f64)>| Line {
            name: name.to_owned(),
            colour,
            points,
        };
        let each = |pick: Figure| {
            let points = |turns: &[Turn]| turns.iter().map(|t| (t.0, pick(t))).collect();
            vec![
                line("Kafka", ORANGE, points(&turns[0])),
                line("Drumlin", BLUE, points(&turns[1])),
            ]
        };
        let by_round = |ratios: &[f64]| {
            let times = turns[1].iter().map(|t| t.0);
            vec![line(
                "Drumlin : Kafka",
                BLUE,
                times.zip(ratios.iter().copied()).collect(),
            )]
        };
        let panel = |title: &str, lines, goal: Option<(f64, &str)>| Panel {
            title: title.to_owned(),
            scale: Scale::Linear,
            lines,
            goal: goal.map(|(value, name)| (value, name.to_owned())),
        };
        let picture = Picture {
            title: record.title.clone(),
            notes: self.output.remark.iter().chain(&record.about).cloned().collect(),
            spans: Vec::new(),
            panels: vec![
                panel("MB/s", each(|t| t.1), None),
                panel("broker CPU-seconds a GB", each(|t| t.2), None),
                panel("MB/s, ratio", by_round(speeds), Some((1.2, "goal: at least 1.2"))),
                panel(
                    "CPU a GB, ratio",
                    by_round(costs),
                    Some((0.35, "goal: at most 0.35")),
                ),
            ],
            gap: f64::INFINITY,
        };
        record.write(self, &picture)
    }
}
