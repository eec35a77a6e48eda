//! The deletion of a big topic beside steady load: nobody else is to see it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_tests::broker::Options;
use drumlin_tests::stores::Minio;

use crate::load::seconds::now_ms;
use crate::suite::bench::Bench;
use crate::suite::charts::Chart;
use crate::suite::record::{PAUSE_MS, Record};
use crate::suite::subject::Subject;
use crate::suite::table::Goal;
use crate::suite::timed::{Load, Phase};
use crate::suite::watch::{Sample, Watch};
use crate::suite::{REMOTE_DEPTH, ours};

const SECOND: Duration = Duration::from_secs(1);
const SEGMENT: u64 = 1 << 20;
/// The steady load, in MB/s.
const RATE: f64 = 20.0;
const PATIENCE: Duration = Duration::from_secs(180);
/// The part of the run that counts as the deletion is no shorter.
const AT_LEAST_MS: u64 = 5_000;
/// Rounds come so often that several fall into each part of the run: a round that waits for the deletion shows.
const ROUND_MS: u32 = 5_000;

impl Bench {
    /// On the local directory.
    pub fn delete_topic_local(&mut self, dir: &Path) -> anyhow::Result<()> {
        let segments = self.plan.over_time.segments[0];
        let options = Options::local(&dir.join("drumlin"));
        self.delete_topic_on("local", options, &dir.join("drumlin/store"), 5, segments)
    }

    /// On MinIO.
    pub fn delete_topic_minio(&mut self, dir: &Path) -> anyhow::Result<()> {
        let minio = Minio::start(dir)?;
        let segments = self.plan.over_time.segments[1];
        let options = Options::on(&dir.join("drumlin"), minio.store("bench"));
        self.delete_topic_on("minio", options, minio.data(), REMOTE_DEPTH, segments)
    }

    fn delete_topic_on(
        &mut self,
        store: &str,
        options: Options,
        objects: &Path,
        depth: usize,
        segments: u64,
    ) -> anyhow::Result<()> {
        let options = options.set("seal.round.ms", ROUND_MS);
        let mut subject = ours(self, options)?;
        subject.start()?;
        let (big, steady) = (self.topic(), self.topic());
        let keep = ("retention.ms", "-1");
        subject.create_topic(&big, 1, &[keep, ("segment.bytes", &SEGMENT.to_string())])?;
        subject.create_topic(&steady, 1, &[keep])?;
        let folder = self.fill_segments(&mut subject, &big, objects, depth, segments)?;
        let filled = entries(&folder)?;
        self.settle()?;

        let [before, after] = self.plan.over_time.around_deletion;
        let count = Count::start(folder);
        let watch = Watch::start(&mut subject, SECOND, false)?;
        let load = Load::at_rate(depth, RATE, before + after);
        let running = self.start_load(&mut subject, &steady, "20 MB/s", &load)?;
        std::thread::sleep(Duration::from_secs_f64(before));
        let asked = now_ms();
        subject.delete_topic(&big)?;
        let answered = now_ms();
        let whole = self.finish_load(running)?;
        let mut samples = watch.finish();
        let counts = count.finish()?;
        add_counts(&mut samples, &counts);
        let gone = counts
            .iter()
            .find(|(at, left)| *at >= asked && *left == 0)
            .map(|c| c.0);
        if gone.is_none() {
            let left = counts.last().map_or(filled, |c| c.1);
            self.note(format!(
                "{store}: {left} of {filled} segments were left {after:.0} s after the deletion of the topic"
            ));
        }
        // A deletion of a blink still has seconds to show what it did.
        let end = gone.map_or(u64::MAX, |gone| gone.max(asked + AT_LEAST_MS));

        let mut record = Record::new(
            &format!("delete-topic-{store}"),
            &format!("Deleting a topic of {filled} segments beside 20 MB/s ({store})"),
            &[
                "The steady load has a topic of its own: one partition, batches of 16 KiB, 8 connections, acks=all; a sealing round every 5 s.",
                "\"While it is deleted\" lasts from the request until none of its segments is left in the store's folder, or to the end of the run; at least 5 s.",
            ],
        );
        record.phases = vec![
            whole.part("before", 0, asked),
            whole.part("while it is deleted", asked, end),
            whole.part("after", end, u64::MAX),
        ];
        for phase in &mut record.phases {
            phase.from_ms = phase.from_ms.clamp(whole.from_ms, whole.to_ms);
            phase.to_ms = phase.to_ms.clamp(whole.from_ms, whole.to_ms);
        }
        record.figures = vec![
            ("segments".to_owned(), filled as f64),
            (
                "segments left at the end".to_owned(),
                counts.last().map_or(0.0, |c| c.1 as f64),
            ),
            (
                "ms until DeleteTopics was answered".to_owned(),
                (answered - asked) as f64,
            ),
        ];
        if let Some(gone) = gone {
            let seconds = (gone - asked) as f64 / 1e3;
            record
                .figures
                .push(("seconds until its segments were deleted".to_owned(), seconds));
        }
        record.samples.insert("drumlin", samples);
        self.deletion_rows(store, &record);
        let chart = Chart {
            deletions: true,
            ..Chart::default()
        };
        let picture = chart.draw(&record, self.output.remark.as_deref());
        record.write(self, &picture)
    }

    /// Writes until the topic has so many segments, all sealed; the folder that they lie in.
    fn fill_segments(
        &mut self,
        subject: &mut Subject,
        topic: &str,
        objects: &Path,
        depth: usize,
        segments: u64,
    ) -> anyhow::Result<PathBuf> {
        let end = Instant::now() + PATIENCE * 10;
        let mut there = 0;
        while Instant::now() < end {
            let load = Load {
                bytes: segments.saturating_sub(there) * SEGMENT,
                ..Load::full_speed(depth, 1.0)
            };
            let phase = self.timed(subject, topic, "filling", &load)?;
            if let Some(error) = phase.error {
                bail!("filling the topic: {error}");
            }
            if !subject.wait_sealed(PATIENCE)? {
                bail!("what fills the topic was not sealed within {PATIENCE:?}");
            }
            let folder = fullest_folder(objects)?.context("nothing was sealed into segments")?;
            there = entries(&folder)?;
            if there >= segments {
                return Ok(folder);
            }
        }
        bail!("the topic has {there} segments of {segments}")
    }

    fn deletion_rows(&mut self, store: &str, record: &Record) {
        let [before, during, after] = record.phases.as_slice() else {
            return;
        };
        for (phase, name) in [
            (before, "before"),
            (during, "while it is deleted"),
            (after, "after"),
        ] {
            let case = format!("delete a big topic: {name}");
            let p50 = phase.typical(|s| s.latency.p50);
            let p99 = phase.typical(|s| s.latency.p99);
            self.row((store, &case, "p50 ms, median second"), p50, None, &[]);
            self.row((store, &case, "p99 ms, median second"), p99, None, &[]);
            let pause = phase.worst(|s| s.pause_ms);
            self.row(
                (store, &case, "longest pause ms"),
                pause,
                None,
                &[Goal::AtMost(PAUSE_MS)],
            );
        }
        let typical = |phase: &Phase| phase.typical(|s| s.latency.p99);
        self.row(
            (store, "delete a big topic", "p99 ms, while : before"),
            typical(during),
            typical(before),
            &[Goal::RatioAtMost(1.5)],
        );
        for (name, value) in &record.figures {
            self.row((store, "delete a big topic", name), Some(*value), None, &[]);
        }
    }
}

/// The folder of segments with the most entries.
fn fullest_folder(objects: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut fullest: Option<(u64, PathBuf)> = None;
    let mut folders = vec![objects.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.file_name().is_some_and(|name| name == "segment") {
            let count = entries(&folder)?;
            if fullest.as_ref().is_none_or(|(most, _)| count > *most) {
                fullest = Some((count, folder));
            }
            continue;
        }
        // Objects come and go while the folders are read.
        let Ok(inner) = std::fs::read_dir(&folder) else {
            continue;
        };
        folders.extend(
            inner
                .flatten()
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path()),
        );
    }
    Ok(fullest.map(|(_, folder)| folder))
}

/// Entries of a folder, which may be gone.
fn entries(folder: &Path) -> anyhow::Result<u64> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(entries.count() as u64),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| folder.display().to_string()),
    }
}

/// Counts the entries of a folder from the side.
struct Count {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<(u64, u64)>>>,
}

impl Count {
    fn start(folder: PathBuf) -> Count {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut counts = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    counts.push((now_ms(), entries(&folder)?));
                    std::thread::sleep(SECOND / 4);
                }
                counts.push((now_ms(), entries(&folder)?));
                Ok(counts)
            }
        });
        Count { stop, thread }
    }

    /// Times in milliseconds since 1970, and what was there.
    fn finish(self) -> anyhow::Result<Vec<(u64, u64)>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the count panicked"))?
    }
}

/// Gives each sample the newest count before it.
fn add_counts(samples: &mut [Sample], counts: &[(u64, u64)]) {
    for sample in samples {
        let before = counts.iter().take_while(|(at, _)| *at <= sample.at_ms);
        if let Some((_, left)) = before.last() {
            sample.metrics.insert("segments_left".to_owned(), *left as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_folder_of_segments_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        for (topic, count) in [("a", 2), ("b", 3)] {
            let folder = dir.path().join(format!("topic/{topic}/0/segment"));
            std::fs::create_dir_all(&folder).expect("it is made");
            for n in 0..count {
                std::fs::write(folder.join(n.to_string()), "x").expect("it is written");
            }
        }
        let found = fullest_folder(dir.path())
            .expect("it is read")
            .expect("there are segments");
        assert!(found.ends_with("b/0/segment"));
        assert_eq!(entries(&found).expect("it is read"), 3);
        assert_eq!(entries(&found.join("gone")).expect("it may be gone"), 0);
    }

    #[test]
    fn samples_get_the_newest_count() {
        let mut samples = [0, 1_000, 2_000].map(|at_ms| Sample {
            at_ms,
            ..Sample::default()
        });
        add_counts(&mut samples, &[(500, 9), (900, 8), (1_500, 0)]);
        let left: Vec<_> = samples.iter().map(|s| s.metric("segments_left")).collect();
        assert_eq!(left, [None, Some(8.0), Some(0.0)]);
    }
}
