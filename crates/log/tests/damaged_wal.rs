//! A WAL object that is damaged or gone before its data was sealed: it costs the offsets that it held, and no round.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{History, PATIENCE, eventually, harm, id, keys};
use drumlin_log::check::Kind;
use drumlin_log::{Log, PartitionConfig, ReadError};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};

/// The WAL object that holds a batch.
fn object_of(history: &History, p: i32, number: usize) -> (String, PathBuf) {
    let (_, batch) = &history.written[&p][number];
    let holds = |key: &String| {
        let bytes = std::fs::read(history.file(key)).unwrap();
        key.contains("/log/")
            && bytes
                .windows(batch.len())
                .any(|window| window == batch.as_slice())
    };
    let key = keys(&history.root())
        .into_iter()
        .find(holds)
        .expect("it lies in the WAL");
    let path = history.file(&key);
    (key, path)
}

/// Reads each batch by itself: which of them, by number, cannot be read; and what is said of it.
async fn unreadable(history: &History, log: &Log, p: i32) -> Vec<(usize, String)> {
    let partition = log.partition(&id(p)).unwrap();
    let mut failed = Vec::new();
    for (number, (offset, batch)) in history.written[&p].iter().enumerate() {
        if *offset < partition.log_start_offset() {
            continue;
        }
        match log.read(&partition, *offset, 1, true).await {
            Ok(read) => {
                let bytes = read.records.concat();
                assert_eq!(BatchHeader::parse(&bytes).unwrap().base_offset, *offset);
                assert!(bytes[16..] == batch[..], "batch {number} of partition {p}");
            }
            Err(ReadError::Corrupt { what } | ReadError::Store(what)) => failed.push((number, what)),
            Err(error) => panic!("{error}"),
        }
    }
    failed
}

async fn seal(log: &Log) {
    let sealed = tokio::time::timeout(PATIENCE, log.seal_now());
    sealed.await.expect("rounds go on");
}

/// WAL entries that hold records.
fn entries(history: &History) -> Vec<String> {
    const DATA: u8 = 1;
    let is_data = |key: &String| {
        // One that is being deleted is gone.
        let bytes = std::fs::read(history.file(key)).unwrap_or_default();
        key.contains("/log/") && bytes.get(5) == Some(&DATA)
    };
    keys(&history.root()).into_iter().filter(is_data).collect()
}

/// After a restart, with nothing of it in memory.
async fn an_inherited_object_is_lost(gone: bool) {
    let mut history = History::new();
    let log = history.start().await;
    for p in [0, 1, 0, 2, 0] {
        history.append(&log, p, 1).await;
    }
    history.stop(log).await;
    let (key, path) = object_of(&history, 0, 1);
    let sound = harm(&path, 600);
    // Twice: what one start carries on is what the next one finds. With enough for segments and merges of bundles.
    for life in 0..2 {
        let log = history.start().await;
        if gone && life == 0 {
            // Not before: to who takes over, a slot that is empty is where the chain ends.
            std::fs::remove_file(&path).unwrap();
        }
        for round in 0..5 {
            history.append(&log, 0, if round == 2 { 45 } else { 2 }).await;
            history.append(&log, 1, 1).await;
            seal(&log).await;
        }
        let failed = unreadable(&history, &log, 0).await;
        assert!(
            matches!(&failed[..], [(1, what)] if what.contains(&key)),
            "{failed:?}"
        );
        for p in [1, 2] {
            assert_eq!(unreadable(&history, &log, p).await, []);
        }
        let sealed = || entries(&history).iter().all(|entry| *entry == key);
        eventually("all that is sealed goes from the WAL", sealed).await;
        assert_eq!(path.exists(), !gone, "life {life}");
        history.stop(log).await;
        let report = history.checked().await;
        let kind = if gone { Kind::Missing } else { Kind::Damaged };
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|found| (found.kind, &found.key))
            .collect();
        assert_eq!(found, [(kind, &key)], "{report}");
    }
    std::fs::write(&path, sound).unwrap();
    let log = history.start().await;
    assert_eq!(
        unreadable(&history, &log, 0).await,
        [],
        "it comes back with its object"
    );
    history.append(&log, 0, 45).await;
    seal(&log).await;
    assert_eq!(unreadable(&history, &log, 0).await, []);
    history.stop(log).await;
    let log = history.start().await;
    history.append(&log, 1, 1).await;
    seal(&log).await;
    eventually("what is sealed at last goes", || !path.exists()).await;
    assert_eq!(unreadable(&history, &log, 0).await, []);
    history.stop(log).await;
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_wal_object_costs_what_it_held() {
    an_inherited_object_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wal_object_that_is_gone_costs_what_it_held() {
    an_inherited_object_is_lost(true).await;
}

/// Of this start's own chain: what is sealed around it goes at once, and the object itself when retention passes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_around_a_damaged_one_are_deleted() {
    let mut history = History::new();
    let log = history.start().await;
    for p in [0, 1, 0, 1] {
        history.append(&log, p, 1).await;
    }
    // Beyond what memory holds: the first ones leave it.
    for p in 1..=3 {
        history.append(&log, p, 8).await;
    }
    let (key, path) = object_of(&history, 0, 1);
    harm(&path, 600);
    let end = tokio::time::Instant::now() + PATIENCE;
    while unreadable(&history, &log, 0).await.is_empty() {
        assert!(tokio::time::Instant::now() < end, "it stays in memory");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seal(&log).await;
    let failed = unreadable(&history, &log, 0).await;
    assert!(
        matches!(&failed[..], [(1, what)] if what.contains(&key)),
        "{failed:?}"
    );
    for _ in 0..3 {
        history.append(&log, 0, 2).await;
        history.append(&log, 3, 1).await;
        seal(&log).await;
        eventually("the entries around it go", || entries(&history) == [key.as_str()]).await;
    }
    for p in [1, 2, 3] {
        assert_eq!(unreadable(&history, &log, p).await, []);
    }
    let after = history.written[&0][2].0;
    let partition = log.partition(&id(0)).unwrap();
    assert_eq!(log.delete_records(vec![(partition, after)]).await, [Ok(after)]);
    for _ in 0..2 {
        history.append(&log, 0, 1).await;
        seal(&log).await;
    }
    eventually("it goes with the records", || !path.exists()).await;
    assert_eq!(unreadable(&history, &log, 0).await, []);
    history.stop(log).await;
}

/// Longer than the blocks that sealed data is verified by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_batch_comes_back_with_its_object() {
    let mut history = History::new();
    let log = history.start().await;
    history.append(&log, 0, 1).await;
    let large = common::batch(3, 600_000, 5);
    assert!(large.len() > 3 << 19);
    history.append_batch(&log, 0, large).await.wait().await.unwrap();
    history.append(&log, 0, 1).await;
    history.stop(log).await;
    let (key, path) = object_of(&history, 0, 1);
    // In its first block and in its last.
    for at in [600, 1_500_000] {
        let sound = harm(&path, at);
        let log = history.start().await;
        history.append(&log, 0, 1).await;
        seal(&log).await;
        let failed = unreadable(&history, &log, 0).await;
        assert!(
            matches!(&failed[..], [(1, what)] if what.contains(&key)),
            "{failed:?}"
        );
        std::fs::write(&path, sound).unwrap();
        assert_eq!(unreadable(&history, &log, 0).await, []);
        history.stop(log).await;
    }
}

/// A batch of one record, whose key is its number modulo three.
fn keyed(number: i64) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let (key, value) = (format!("key {}", number % 3), vec![number as u8; 2_000]);
    builder.push(1_700_000_000_000, Some(key.as_bytes()), Some(&value), &[]);
    builder.build().unwrap()
}

/// A compacted partition is left alone while some of it cannot be read, and compacted when it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_waits_for_the_damaged_object() {
    let mut history = History::new();
    let start = async |history: &mut History| {
        let log = history.start().await;
        let config = PartitionConfig {
            compact: true,
            delete: false,
            min_cleanable_dirty_ratio: 0.0,
            ..PartitionConfig::default()
        };
        log.configure(&id(0), Arc::new(config));
        log
    };
    let log = start(&mut history).await;
    for number in 0..6 {
        let commit = history.append_batch(&log, 0, keyed(number)).await;
        commit.wait().await.unwrap();
    }
    history.stop(log).await;
    let (_, path) = object_of(&history, 0, 1);
    let sound = harm(&path, 600);
    let log = start(&mut history).await;
    for number in 6..9 {
        let commit = history.append_batch(&log, 0, keyed(number)).await;
        commit.wait().await.unwrap();
        seal(&log).await;
    }
    let cleaned = tokio::time::timeout(PATIENCE, log.clean_now());
    cleaned.await.expect("it is put off");
    let failed = unreadable(&history, &log, 0).await;
    assert!(matches!(&failed[..], [(1, _)]), "{failed:?}");
    history.stop(log).await;
    std::fs::write(&path, sound).unwrap();
    let log = start(&mut history).await;
    history.append(&log, 1, 1).await;
    seal(&log).await;
    // A pass that began with the start is refused where that round has merged bundles meanwhile.
    for _ in 0..3 {
        log.clean_now().await;
    }
    let partition = log.partition(&id(0)).unwrap();
    let read = log.read(&partition, 0, 1 << 20, true).await.unwrap();
    let (bytes, newest) = (read.records.concat(), 6..9);
    let values: Vec<u8> = newest
        .clone()
        .filter(|n| bytes.windows(2_000).any(|w| w == [*n; 2_000]))
        .collect();
    assert_eq!(values, newest.collect::<Vec<u8>>());
    assert!(
        bytes.len() < 4 * 2_100,
        "the newest of each key is left: {} bytes",
        bytes.len()
    );
    history.stop(log).await;
    let log = start(&mut history).await;
    seal(&log).await;
    history.append(&log, 1, 1).await;
    seal(&log).await;
    eventually("what is compacted goes", || !path.exists()).await;
    history.stop(log).await;
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}");
}
