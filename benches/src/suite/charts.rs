//! Which panels the pictures have.

use crate::load::seconds::Second;
use crate::picture::{BLUE, GREEN, GREY, Line, ORANGE, PURPLE, Panel, Picture, Scale, Span};
use crate::suite::record::{PAUSE_MS, Record};
use crate::suite::watch::Sample;

/// Points of each second and half as much again are joined; a missing second is a gap.
const GAP: f64 = 2.5;
/// Backgrounds of Kafka's turns and of ours.
const TINTS: [(&str, &str); 2] = [("kafka", "#fbf1e6"), ("drumlin", "#e9f2fa")];

/// What a picture is to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chart {
    /// Each broker's seconds count from the start of its own part; else all from the start of the first.
    pub apart: bool,
    /// Latencies count from when requests were sent, not from when they were meant to be.
    pub from_send: bool,
    /// Show bytes put to the store.
    pub puts: bool,
    /// Show what is left of a deleted topic, and requests that delete.
    pub deletions: bool,
}

impl Chart {
    /// Draws a record.
    pub fn draw(self, record: &Record, remark: Option<&str>) -> Picture {
        let latency = move |second: &Second| match self.from_send {
            true => second.latency_from_send,
            false => second.latency,
        };
        let since = if self.from_send {
            "from the send"
        } else {
            "from the intended send"
        };
        let seconds = |title: String, scale, figure: &dyn Fn(&Second) -> f64| Panel {
            title,
            scale,
            lines: self.of_seconds(record, figure),
            goal: None,
        };
        let samples = |title: &str, figure: &dyn Fn(&Sample) -> Option<f64>| Panel {
            title: title.to_owned(),
            scale: Scale::Linear,
            lines: self.of_samples(record, figure),
            goal: None,
        };
        let mut panels = vec![
            seconds(
                "acknowledged, MB/s".to_owned(),
                Scale::Linear,
                &Second::mb_per_second,
            ),
            Panel {
                goal: Some((PAUSE_MS, format!("goal: {PAUSE_MS:.0} ms"))),
                ..seconds(
                    "longest pause between acknowledgements, ms".to_owned(),
                    Scale::Log,
                    &|s| s.pause_ms,
                )
            },
            seconds(format!("p50 {since}, ms"), Scale::Log, &|s| latency(s).p50),
            seconds(format!("p99 {since}, ms"), Scale::Log, &|s| latency(s).p99),
            seconds(format!("p999 {since}, ms"), Scale::Log, &|s| latency(s).p999),
            samples("not sealed yet (drumlin_unsealed_bytes), MB", &|s| {
                s.metric("drumlin_unsealed_bytes").map(|bytes| bytes / 1e6)
            }),
        ];
        if self.puts {
            panels.push(self.of_counter(record, "put to the store, MB/s", 1e-6, &|s| s.metric("put_bytes")));
        }
        if self.deletions {
            panels.push(samples("segments of the deleted topic that are left", &|s| {
                s.metric("segments_left")
            }));
            panels.push(
                self.of_counter(record, "requests that delete, a second", 1.0, &|s| {
                    s.metric("delete_requests")
                }),
            );
        }
        panels.push(samples("resident memory, MB", &|s| Some(s.rss as f64 / 1e6)));
        panels.push(self.of_counter(record, "CPU, % of one processor", 100.0, &|s| Some(s.cpu_seconds)));
        let remark = remark.map(str::to_owned);
        Picture {
            title: record.title.clone(),
            notes: remark.into_iter().chain(record.about.iter().cloned()).collect(),
            spans: self.spans(record),
            panels,
            gap: GAP,
        }
    }

    fn begin(self, record: &Record, broker: &str) -> u64 {
        if self.apart {
            record.begin_of(broker)
        } else {
            record.begin()
        }
    }

    fn of_seconds(self, record: &Record, figure: &dyn Fn(&Second) -> f64) -> Vec<Line> {
        brokers(record, |broker| {
            let begin = self.begin(record, broker);
            let phases = record.phases.iter().filter(|p| p.broker == broker);
            phases
                .flat_map(|p| &p.seconds)
                // A last second of some milliseconds has no rate that means anything.
                .filter(|s| s.length > 0.3)
                .map(|s| (seconds_after(begin, s.at_ms), figure(s)))
                .collect()
        })
    }

    fn of_samples(self, record: &Record, figure: &dyn Fn(&Sample) -> Option<f64>) -> Vec<Line> {
        brokers(record, |broker| {
            let begin = self.begin(record, broker);
            let samples = record.samples.get(broker).map_or(&[][..], Vec::as_slice);
            let points = samples.iter().filter(|s| s.at_ms >= begin);
            points
                .filter_map(|s| Some((seconds_after(begin, s.at_ms), figure(s)?)))
                .collect()
        })
    }

    /// What is added to a counter each second.
    fn of_counter(
        self,
        record: &Record,
        title: &str,
        factor: f64,
        figure: &dyn Fn(&Sample) -> Option<f64>,
    ) -> Panel {
        let mut lines = self.of_samples(record, figure);
        for line in &mut lines {
            line.points = rates(&line.points, factor);
        }
        Panel {
            title: title.to_owned(),
            scale: Scale::Linear,
            lines,
            goal: None,
        }
    }

    fn spans(self, record: &Record) -> Vec<Span> {
        // Where brokers are drawn over each other, their phases are the same: one broker's are enough.
        let first = record
            .phases
            .last()
            .map(|p| p.broker.as_str())
            .unwrap_or_default();
        let shown = |broker: &str| !self.apart || broker == first;
        let phases = record.phases.iter().filter(|p| shown(&p.broker));
        phases
            .enumerate()
            .map(|(number, phase)| {
                let begin = self.begin(record, &phase.broker);
                let by_broker = TINTS.iter().find(|(broker, _)| *broker == phase.broker);
                let tint = match by_broker {
                    Some((_, tint)) if !self.apart && record.samples.len() > 1 => tint,
                    _ if number % 2 == 0 => "#f1f1f1",
                    _ => "#fafafa",
                };
                Span {
                    from: seconds_after(begin, phase.from_ms),
                    to: seconds_after(begin, phase.to_ms),
                    name: phase.name.clone(),
                    tint,
                }
            })
            .collect()
    }
}

/// Growth between neighbours, a second.
pub fn rates(points: &[(f64, f64)], factor: f64) -> Vec<(f64, f64)> {
    let pairs = points.iter().zip(points.iter().skip(1));
    pairs
        .filter(|(a, b)| b.0 > a.0)
        .map(|(a, b)| (b.0, (b.1 - a.1) * factor / (b.0 - a.0)))
        .collect()
}

/// Kafka below ours; a broker without points is left out.
fn brokers(record: &Record, points: impl Fn(&str) -> Vec<(f64, f64)>) -> Vec<Line> {
    let known = [("kafka", "Kafka", ORANGE), ("drumlin", "Drumlin", BLUE)];
    known
        .into_iter()
        .filter(|(broker, _, _)| record.phases.iter().any(|p| p.broker == *broker))
        .map(|(broker, name, colour)| Line {
            name: name.to_owned(),
            colour,
            points: points(broker),
        })
        .filter(|line| !line.points.is_empty())
        .collect()
}

fn seconds_after(begin: u64, at_ms: u64) -> f64 {
    at_ms.saturating_sub(begin) as f64 / 1e3
}

/// The picture of a broker's memory: resident by kind, what the metrics page accounts for, page faults, CPU.
pub fn memory(title: &str, notes: Vec<String>, samples: &[Sample]) -> Picture {
    let begin = samples.first().map_or(0, |s| s.at_ms);
    let line = |name: &str, colour, figure: &dyn Fn(&Sample) -> Option<f64>| Line {
        name: name.to_owned(),
        colour,
        points: samples
            .iter()
            .filter_map(|s| Some((seconds_after(begin, s.at_ms), figure(s)?)))
            .collect(),
    };
    let panel = |title: &str, lines| Panel {
        title: title.to_owned(),
        scale: Scale::Linear,
        lines,
        goal: None,
    };
    let rate = |mut line: Line, factor| {
        line.points = rates(&line.points, factor);
        vec![line]
    };
    let mb = |bytes: u64| bytes as f64 / 1e6;
    Picture {
        title: title.to_owned(),
        notes,
        spans: Vec::new(),
        panels: vec![
            panel(
                "memory, MB",
                vec![
                    line("resident", BLUE, &|s| Some(mb(s.rss))),
                    line("of it without a file", GREEN, &|s| s.anonymous.map(mb)),
                    line("of it files", GREY, &|s| s.file.map(mb)),
                    line("the metrics page's sum", ORANGE, &|s| Some(s.explained()? / 1e6)),
                ],
            ),
            panel(
                "not sealed yet (drumlin_unsealed_bytes), MB",
                vec![line("Drumlin", BLUE, &|s| {
                    Some(s.metric("drumlin_unsealed_bytes")? / 1e6)
                })],
            ),
            panel(
                "page faults, a second",
                rate(line("Drumlin", PURPLE, &|s| Some(s.page_faults as f64)), 1.0),
            ),
            panel(
                "CPU, % of one processor",
                rate(line("Drumlin", PURPLE, &|s| Some(s.cpu_seconds)), 100.0),
            ),
        ],
        gap: 30.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_rates() {
        assert_eq!(
            rates(&[(0.0, 5.0), (2.0, 9.0), (3.0, 9.0)], 10.0),
            [(2.0, 20.0), (3.0, 0.0)]
        );
    }
}
