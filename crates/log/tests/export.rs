//! `export` writes every committed batch, byte for byte, with indexes as a stock broker has them.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{History, PARTITIONS, TOPIC, id};
use drumlin_log::export::{ExportError, ExportOptions, export};
use drumlin_records::{BatchHeader, iter_batches};

fn options(segment_bytes: u64) -> ExportOptions {
    ExportOptions {
        name: "a.topic".to_owned(),
        topic: TOPIC,
        partitions: PARTITIONS,
        segment_bytes,
    }
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    files.sort();
    files
}

fn base_of(file: &Path) -> i64 {
    file.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// Entries point at the starts of batches, and times never fall.
fn check_indexes(log: &Path, batches: &[(usize, BatchHeader)]) {
    let base = base_of(log);
    let index = std::fs::read(log.with_extension("index")).unwrap();
    assert_eq!(index.len() % 8, 0);
    let mut last = -1;
    for entry in index.chunks(8) {
        let offset = base + i64::from(i32::from_be_bytes(entry[..4].try_into().unwrap()));
        let position = i32::from_be_bytes(entry[4..].try_into().unwrap()) as usize;
        assert!(position as i64 - last > 4096, "sparse");
        last = position as i64;
        assert!(
            batches
                .iter()
                .any(|(at, header)| *at == position && header.last_offset() == offset)
        );
    }
    let times = std::fs::read(log.with_extension("timeindex")).unwrap();
    assert_eq!(times.len() % 12, 0);
    let mut newest = -1;
    for entry in times.chunks(12) {
        let timestamp = i64::from_be_bytes(entry[..8].try_into().unwrap());
        let offset = base + i64::from(i32::from_be_bytes(entry[8..].try_into().unwrap()));
        assert!(timestamp > newest);
        newest = timestamp;
        let told = batches
            .iter()
            .find(|(_, header)| header.last_offset() == offset)
            .unwrap();
        assert_eq!(told.1.max_timestamp, timestamp);
    }
    let largest = batches
        .iter()
        .map(|(_, header)| header.max_timestamp)
        .max()
        .unwrap_or(-1);
    assert_eq!(newest, largest, "the last entry tells the largest time");
}

async fn export_and_compare(history: &History, name: &str, segment_bytes: u64) {
    let dir = history.dir.path().join(name);
    let told = export(
        &history.env,
        &history.bucket,
        &options(segment_bytes),
        &dir,
        &|_| {},
    )
    .await
    .unwrap();
    assert_eq!(told.len(), PARTITIONS as usize);
    for p in 0..PARTITIONS {
        let path = dir.join(format!("a.topic-{p}"));
        let start = history.log_starts.get(&p).copied().unwrap_or(0);
        let expected: Vec<(i64, Vec<u8>)> = history.written.get(&p).cloned().unwrap_or_default();
        let expected: Vec<_> = expected.into_iter().filter(|(base, _)| *base >= start).collect();
        let (mut found, mut epochs) = (Vec::new(), Vec::<(i32, i64)>::new());
        let logs = files(&path, "log");
        assert!(!logs.is_empty(), "an empty partition has an empty log");
        for log in &logs {
            let bytes = std::fs::read(log).unwrap();
            assert!(bytes.len() as u64 <= segment_bytes);
            let batches: Vec<(usize, BatchHeader)> = iter_batches(&bytes).map(Result::unwrap).collect();
            assert_eq!(
                batches.first().map_or(base_of(log), |(_, h)| h.base_offset),
                base_of(log)
            );
            for (at, header) in &batches {
                let batch = &bytes[*at..*at + header.size_in_bytes()];
                drumlin_records::check_crc(batch).unwrap();
                found.push((header.base_offset, batch[16..].to_vec()));
                let epoch = header.partition_leader_epoch;
                if epochs.last().is_none_or(|(known, _)| *known < epoch) {
                    epochs.push((epoch, header.base_offset));
                }
            }
            check_indexes(log, &batches);
        }
        assert!(found == expected, "partition {p}");
        let text: String = epochs
            .iter()
            .map(|(epoch, start)| format!("{epoch} {start}\n"))
            .collect();
        let checkpoint = std::fs::read_to_string(path.join("leader-epoch-checkpoint")).unwrap();
        assert_eq!(checkpoint, format!("0\n{}\n{text}", epochs.len()));
        let metadata = std::fs::read_to_string(path.join("partition.metadata")).unwrap();
        assert_eq!(metadata, "version: 0\ntopic_id: BwcHBwcHBwcHBwcHBwcHBw\n");
    }
    let starts = std::fs::read_to_string(dir.join("log-start-offset-checkpoint")).unwrap();
    assert_eq!(starts, format!("0\n1\na.topic 0 {}\n", history.log_starts[&0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_committed_is_exported_beside_a_running_log_and_after() {
    let mut history = History::new();
    let log = history.write().await;
    export_and_compare(&history, "running", 1 << 30).await;
    export_and_compare(&history, "rolled", 100_000).await;
    history.stop(log).await;
    export_and_compare(&history, "stopped", 1 << 30).await;
    let log = history.start().await;
    log.seal_now().await;
    export_and_compare(&history, "sealed", 1 << 30).await;
    let (options, dir) = (options(1 << 30), history.dir.path().join("sealed"));
    let again = export(&history.env, &history.bucket, &options, &dir, &|_| {}).await;
    assert!(matches!(again, Err(ExportError::NotEmpty(_))));
    history.stop(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_under_an_export_is_followed_and_damage_is_told() {
    let mut history = History::new();
    let log = history.write().await;
    let dir = history.dir.path().join("racing");
    let (env, bucket, target) = (history.env.clone(), history.bucket.clone(), dir.clone());
    let exporting = tokio::spawn(async move {
        for turn in 0..10 {
            export(
                &env,
                &bucket,
                &options(1 << 30),
                &target.join(turn.to_string()),
                &|_| {},
            )
            .await
            .unwrap();
        }
    });
    while !exporting.is_finished() {
        history.append(&log, 0, 20).await;
        log.seal_now().await;
    }
    exporting.await.unwrap();
    let partition = log.partition(&id(0)).unwrap();
    assert_eq!(partition.log_start_offset(), history.log_starts[&0]);
    history.stop(log).await;
    let keys = common::keys(&history.root());
    let segment = keys.iter().rfind(|key| key.contains("/0/segment/")).unwrap();
    let mut bytes = std::fs::read(history.file(segment)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(history.file(segment), bytes).unwrap();
    let outcome = export(
        &history.env,
        &history.bucket,
        &options(1 << 30),
        &dir.join("harmed"),
        &|_| {},
    )
    .await;
    assert!(matches!(outcome, Err(ExportError::Damaged { .. })), "{outcome:?}");
}
