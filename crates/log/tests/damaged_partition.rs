//! A partition whose manifest is damaged or gone: it alone is refused, nothing of it is lost, and it heals.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{History, PATIENCE, TOPIC, eventually, id, keys};
use drumlin_log::check::Kind;
use drumlin_log::{AppendError, AppendOptions, DeleteRecordsError, Log, ReadError, snapshot_prefix};
use drumlin_records::BatchHeader;

/// All batches of a partition, without offsets and epochs.
async fn read_all(log: &Log, p: i32) -> Vec<Vec<u8>> {
    let partition = log.partition(&id(p)).unwrap();
    let mut offset = partition.log_start_offset();
    let mut found = Vec::new();
    loop {
        let read = log.read(&partition, offset, 1 << 20, true).await.unwrap();
        if read.records.is_empty() {
            return found;
        }
        let bytes = read.records.concat();
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).unwrap();
            let (batch, after) = rest.split_at(header.size_in_bytes());
            found.push(batch[16..].to_vec());
            (offset, rest) = (header.last_offset() + 1, after);
        }
    }
}

fn prefix(p: i32) -> String {
    format!("{TOPIC}/{p}/")
}

/// Roots or leaves of the first partition's manifest, by what they begin with.
fn manifests(history: &History, magic: &[u8]) -> Vec<(String, Vec<u8>)> {
    let all = keys(&history.root()).into_iter();
    let found: Vec<_> = all
        .filter(|key| key.contains(&prefix(0)) && key.contains("/manifest/"))
        .map(|key| {
            let bytes = std::fs::read(history.file(&key)).unwrap();
            (key, bytes)
        })
        .filter(|(_, bytes)| bytes.starts_with(magic))
        .collect();
    assert!(!found.is_empty());
    found
}

fn harm(history: &History, objects: &[(String, Vec<u8>)], gone: bool) {
    for (key, bytes) in objects {
        let path = history.file(key);
        if gone {
            std::fs::remove_file(path).unwrap();
        } else {
            // Of a leaf, its table: each segment's part has a checksum of its own.
            let mut harmed = bytes.clone();
            harmed[40] ^= 0x40;
            std::fs::write(path, harmed).unwrap();
        }
    }
}

async fn one_partition_is_refused(gone: bool) {
    let mut history = History::new();
    let log = history.write().await;
    log.seal_now().await;
    let sound = read_all(&log, 0).await;
    history.stop(log).await;
    let kept = manifests(&history, b"DRMF");
    harm(&history, &kept, gone);
    let own = |history: &History| -> Vec<String> {
        let all = keys(&history.root()).into_iter();
        all.filter(|key| key.contains(&prefix(0))).collect()
    };
    let before = own(&history);
    // Twice, so that what one start carries on is what the next one finds.
    for _ in 0..2 {
        let log = history.start().await;
        let partition = log.partition(&id(0)).unwrap();
        let what = partition.unavailable().unwrap();
        assert!(what.contains("/manifest/"), "the damage is named: {what}");
        for offset in [0, partition.log_start_offset(), partition.high_watermark()] {
            let refused = log.read(&partition, offset, 1 << 20, true).await;
            assert!(
                matches!(refused, Err(ReadError::Unavailable { .. })),
                "{refused:?}"
            );
        }
        assert!(matches!(
            log.offset_for_timestamp(&partition, 0).await,
            Err(ReadError::Unavailable { .. })
        ));
        assert!(matches!(
            log.max_timestamp(&partition).await,
            Err(ReadError::Unavailable { .. })
        ));
        let batch = common::batch(1, 10, 1);
        let options = AppendOptions {
            expected_epoch: None,
            log_append_time: None,
            deadline: tokio::time::Instant::now() + Duration::from_secs(1),
        };
        let header = BatchHeader::parse(&batch).unwrap();
        let refused = log.append(&partition, &header, &batch, options).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        let refused = log.delete_records(vec![(partition, -1)]).await;
        assert!(
            matches!(refused[..], [Err(DeleteRecordsError::Unavailable(_))]),
            "{refused:?}"
        );
        // All else goes on, rounds and what they sweep included.
        history.append(&log, 1, 3).await;
        history.append(&log, 2, 40).await;
        log.seal_now().await;
        history.append(&log, 1, 1).await;
        log.seal_now().await;
        for p in [1, 2] {
            let written: Vec<Vec<u8>> = history.written[&p]
                .iter()
                .map(|(_, batch)| batch.clone())
                .collect();
            assert_eq!(read_all(&log, p).await, written);
        }
        history.stop(log).await;
        assert_eq!(own(&history), before, "nothing of it was deleted or written");
        let report = history.checked().await;
        let named = report.findings.iter().any(|finding| {
            matches!(finding.kind, Kind::Damaged | Kind::Missing) && what.contains(&finding.key)
        });
        assert!(named, "{report}");
    }
    for (key, bytes) in &kept {
        std::fs::write(history.file(key), bytes).unwrap();
    }
    let log = history.start().await;
    assert_eq!(log.partition(&id(0)).unwrap().unavailable(), None);
    assert!(read_all(&log, 0).await == sound, "it healed with its object");
    history.append(&log, 0, 5).await;
    log.seal_now().await;
    history.stop(log).await;
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_manifest_costs_its_partition_only() {
    one_partition_is_refused(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_gone_costs_its_partition_only() {
    one_partition_is_refused(true).await;
}

/// Rounds and sweeps go on beside a leaf that is damaged or gone; it costs the reads of what it describes.
async fn a_leaf_is_lost(gone: bool) {
    let mut history = History::new();
    let log = history.write().await;
    log.seal_now().await;
    let sound = read_all(&log, 0).await;
    history.stop(log).await;
    let kept = manifests(&history, b"DRML");
    harm(&history, &kept, gone);
    // An upload of the first start that nothing names.
    let snapshots = snapshot_prefix(&id(1));
    let of_partition = snapshots.trim_end_matches("/snapshot");
    let stray = history.file(&format!("{of_partition}/segment/{:020}-1-1-{:016x}.log", 0, 1));
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, b"stray").unwrap();
    let log = history.start().await;
    let partition = log.partition(&id(0)).unwrap();
    assert_eq!(partition.unavailable(), None);
    let before = history.written[&0].len();
    for _ in 0..6 {
        history.append(&log, 0, 45).await;
        history.append(&log, 1, 3).await;
        let sealed = tokio::time::timeout(PATIENCE, log.seal_now());
        sealed.await.expect("rounds go on");
    }
    eventually("what other partitions do not need goes", || !stray.exists()).await;
    let read = log
        .read(&partition, partition.log_start_offset(), 1 << 20, true)
        .await;
    assert!(read.is_err(), "what the leaf describes is lost: {read:?}");
    let (since, _) = history.written[&0][before];
    let read = log.read(&partition, since, 1 << 20, true).await.unwrap();
    assert!(read.bytes > 0, "what came after is served");
    history.stop(log).await;
    for (key, bytes) in &kept {
        std::fs::write(history.file(key), bytes).unwrap();
    }
    let log = history.start().await;
    let new = history.written[&0][before..]
        .iter()
        .map(|(_, batch)| batch.clone());
    let all: Vec<Vec<u8>> = sound.into_iter().chain(new).collect();
    assert!(read_all(&log, 0).await == all, "it healed with its object");
    history.stop(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_leaf_costs_what_it_describes() {
    a_leaf_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_that_is_gone_costs_what_it_describes() {
    a_leaf_is_lost(true).await;
}

/// Rounds go on beside a bundle that is damaged or gone; it costs the reads of what it holds.
async fn a_bundle_is_lost(gone: bool) {
    let mut history = History::new();
    let log = history.start().await;
    history.append(&log, 1, 3).await;
    history.append(&log, 2, 3).await;
    log.seal_now().await;
    history.stop(log).await;
    let bundles: Vec<String> = keys(&history.root())
        .into_iter()
        .filter(|key| key.contains("/bundle/"))
        .collect();
    assert_eq!(bundles.len(), 1);
    let path = history.file(&bundles[0]);
    if gone {
        std::fs::remove_file(path).unwrap();
    } else {
        // The first partition's part of it.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let log = history.start().await;
    // Enough for bundles to be merged, and for segments.
    for _ in 0..8 {
        history.append(&log, 0, 5).await;
        history.append(&log, 1, 5).await;
        history.append(&log, 2, 5).await;
        let sealed = tokio::time::timeout(PATIENCE, log.seal_now());
        sealed.await.expect("rounds go on");
    }
    history.append(&log, 1, 40).await;
    log.seal_now().await;
    for p in [0, 1, 2] {
        let partition = log.partition(&id(p)).unwrap();
        let lost = p == 1 || (gone && p == 2);
        let read = log.read(&partition, 0, 1 << 20, true).await;
        assert_eq!(read.is_err(), lost, "partition {p}");
        let written: Vec<Vec<u8>> = history.written[&p]
            .iter()
            .map(|(_, batch)| batch.clone())
            .collect();
        if !lost {
            assert!(read_all(&log, p).await == written);
            continue;
        }
        let (middle, _) = history.written[&p][3];
        let read = log.read(&partition, middle, 1 << 20, true).await.unwrap();
        assert!(read.bytes > 0, "what came after is served");
    }
    history.stop(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_bundle_costs_what_it_holds() {
    a_bundle_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_gone_costs_what_it_holds() {
    a_bundle_is_lost(true).await;
}
