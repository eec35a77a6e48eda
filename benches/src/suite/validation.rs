//! What the check of each record costs: `record.validation=full` beside `header`, and beside Kafka.

use std::path::Path;

use drumlin_tests::broker::Options;

use crate::load::summary::Summary;
use crate::suite::bench::Bench;
use crate::suite::ours;
use crate::suite::produce::{PEAKS, Peak};
use crate::suite::subject::Subject;
use crate::suite::table::{Goal, median};

const OPTION: &str = "record.validation";
/// The peaks of batches of 64 KiB, and what the full check may cost: against the header check, and against Kafka.
const CASES: [(&str, &[Goal], Goal); 2] = [
    (
        "produce 64 KiB batches, 1 KiB, none",
        &[Goal::RatioAtMost(1.15)],
        Goal::RatioAtMost(0.3),
    ),
    ("produce 64 KiB batches, 1 KiB, lz4", &[], Goal::RatioAtMost(0.6)),
];

impl Bench {
    /// Kafka, ours with the full check, and ours with the header check, in turn; all three run all the time.
    pub fn validation(&mut self, dir: &Path) -> anyhow::Result<()> {
        let with =
            |bench: &Bench, value: &str| ours(bench, Options::local(&dir.join(value)).set(OPTION, value));
        let mut subjects = [
            Subject::kafka(&dir.join("kafka"))?,
            with(self, "full")?,
            with(self, "header")?,
        ];
        for subject in &mut subjects {
            if let Err(error) = subject.start() {
                if format!("{error:#}").contains("unknown option") {
                    self.note(format!("this build of the broker has no option {OPTION}"));
                    return Ok(());
                }
                return Err(error);
            }
        }
        self.warm_up(&mut subjects[..1])?;
        for (name, against_header, against_kafka) in CASES {
            if let Some(peak) = PEAKS.iter().find(|peak| peak.name == name) {
                self.validation_case(&mut subjects, peak, against_header, against_kafka)?;
            }
        }
        Ok(())
    }

    fn validation_case(
        &mut self,
        subjects: &mut [Subject; 3],
        peak: &Peak,
        against_header: &[Goal],
        against_kafka: Goal,
    ) -> anyhow::Result<()> {
        let load = self.peak(peak);
        let mut runs: [Vec<Summary>; 3] = Default::default();
        for _ in 0..self.plan.repetitions.max(2) {
            for (subject, runs) in subjects.iter_mut().zip(&mut runs) {
                runs.push(self.produce_once(subject, peak.name, &load, &[])?);
            }
        }
        let of = |at: usize, figure: fn(&Summary) -> f64| -> Option<f64> {
            median(runs.get(at)?.iter().map(figure).collect())
        };
        let (kafka, full, header) = (0, 1, 2);
        let case = |what: &str| format!("{}, {what}", peak.name);
        let (cost, speed) = (Summary::cpu_per_gb, Summary::mb_per_second);
        let measure = "broker CPU-s/GB in";
        self.row(
            ("local", &case("full check : header check"), measure),
            of(full, cost),
            of(header, cost),
            against_header,
        );
        self.row(
            ("local", &case("full check : Kafka"), measure),
            of(full, cost),
            of(kafka, cost),
            &[against_kafka],
        );
        self.row(
            ("local", &case("header check : Kafka"), measure),
            of(header, cost),
            of(kafka, cost),
            &[],
        );
        self.row(
            ("local", &case("full check : header check"), "MB/s"),
            of(full, speed),
            of(header, speed),
            &[],
        );
        self.row(
            ("local", &case("full check : Kafka"), "MB/s"),
            of(full, speed),
            of(kafka, speed),
            &[],
        );
        Ok(())
    }
}
