//! A part of a checkpoint that is damaged or gone: its partitions are refused, nothing of them is lost, and they heal.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{History, PATIENCE, id, keys};
use drumlin_log::{AppendError, AppendOptions, Log, ReadError};
use drumlin_records::BatchHeader;

/// A leaf holds a thousand; these are in the second.
const FIRST: i32 = 1000;
const WRITTEN: i32 = 1005;
const COUNT: i32 = 1010;

/// What was written to a partition is what is there.
async fn is_whole(history: &History, log: &Log, p: i32) {
    let partition = log.partition(&id(p)).unwrap();
    assert_eq!(partition.unavailable(), None, "partition {p}");
    let written = history.written.get(&p).cloned().unwrap_or_default();
    for (offset, batch) in &written {
        let read = log.read(&partition, *offset, 1, true).await.unwrap();
        assert!(
            read.records.concat()[16..] == batch[..],
            "partition {p} at {offset}"
        );
    }
    let last = written.last().map_or(0, |(offset, _)| *offset);
    assert!(partition.high_watermark() - last <= 3 && partition.log_start_offset() == 0);
}

async fn is_refused(log: &Log, p: i32, key: &str) {
    let partition = log.partition(&id(p)).unwrap();
    let what = partition.unavailable().unwrap_or_default();
    assert!(what.contains(key), "partition {p}: the damage is named: {what:?}");
    let read = log.read(&partition, 0, 1 << 20, true).await;
    assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{read:?}");
    let batch = common::batch(1, 10, 1);
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline: tokio::time::Instant::now() + Duration::from_secs(1),
    };
    let header = BatchHeader::parse(&batch).unwrap();
    let append = log.append(&partition, &header, &batch, options).await;
    assert!(matches!(append, Err(AppendError::Unavailable(_))), "{append:?}");
}

async fn a_leaf_is_lost(gone: bool) {
    let mut history = History::new();
    history.partitions = COUNT;
    let log = history.start().await;
    history.append_each(&log, 0..COUNT - 1, 1).await;
    log.seal_now().await;
    // Above the checkpoint, of a partition of each leaf.
    history.append(&log, 0, 2).await;
    history.append(&log, WRITTEN, 2).await;
    history.stop(log).await;
    let leaves = keys(&history.root())
        .into_iter()
        .filter(|key| key.contains("/body/"));
    let mut leaves: Vec<(u64, String, PathBuf)> = leaves
        .map(|key| (history.file(&key), key))
        .filter(|(path, _)| std::fs::read(path).unwrap().starts_with(b"DRCL"))
        .map(|(path, key)| (path.metadata().unwrap().len(), key, path))
        .collect();
    leaves.sort();
    assert_eq!(leaves.len(), 2);
    let (_, key, path) = leaves.remove(0);
    let sound = std::fs::read(&path).unwrap();
    if gone {
        std::fs::remove_file(&path).unwrap();
    } else {
        let mut harmed = sound.clone();
        let middle = harmed.len() / 2;
        harmed[middle] ^= 0x20;
        std::fs::write(&path, harmed).unwrap();
    }
    // Again and again, so that what one start carries on is what the next one finds: with and without a round.
    for life in 0..4 {
        let log = history.start().await;
        for p in FIRST..COUNT {
            is_refused(&log, p, &key).await;
        }
        for p in [0, 1, 500, 999] {
            is_whole(&history, &log, p).await;
        }
        if life > 0 {
            // Those that came after the damage, one of them never written.
            is_whole(&history, &log, COUNT).await;
            is_whole(&history, &log, COUNT + 1).await;
        }
        if life == 0 {
            for p in [COUNT, COUNT + 1] {
                log.open_partition(history.spec(p));
            }
            history.partitions = COUNT + 2;
        }
        if life != 2 {
            history.append(&log, COUNT, 1).await;
            history.append_each(&log, 0..3, 1).await;
            let sealed = tokio::time::timeout(PATIENCE, log.seal_now());
            sealed.await.expect("rounds go on");
        }
        if life != 3 {
            history.append(&log, COUNT, 1).await;
        }
        history.stop(log).await;
        if life % 3 == 0 {
            let report = history.checked().await;
            assert!(report.findings.iter().any(|found| found.key == key), "{report}");
        }
    }
    std::fs::write(&path, sound).unwrap();
    for _ in 0..2 {
        let log = history.start().await;
        for p in 0..COUNT + 2 {
            is_whole(&history, &log, p).await;
        }
        history.append(&log, WRITTEN, 1).await;
        log.seal_now().await;
        is_whole(&history, &log, WRITTEN).await;
        history.stop(log).await;
    }
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_leaf_of_a_checkpoint_costs_its_partitions_only() {
    a_leaf_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_of_a_checkpoint_that_is_gone_costs_its_partitions_only() {
    a_leaf_is_lost(true).await;
}
