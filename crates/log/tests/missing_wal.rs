//! A WAL object that somebody deleted while no broker ran: a start is refused where it is known that its records were
//! acknowledged, `store check` says so, and giving it up costs no more than it held.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{History, id, keys};
use drumlin_log::check::Kind;
use drumlin_log::{GiveUpError, Log, ReadError, give_up};

/// The entries of the newest chain, in order.
fn entries(history: &History) -> Vec<String> {
    let mut logs: Vec<String> = keys(&history.root());
    logs.retain(|key| key.contains("/log/"));
    let newest = |key: &String| key.split('/').nth(3).unwrap().parse::<u64>().unwrap();
    let last = logs.iter().map(newest).max().unwrap();
    logs.retain(|key| newest(key) == last);
    logs
}

/// One entry for each batch: 8 of partition 0, one of partition 1, 18 of partition 2.
async fn written(history: &mut History) -> Vec<String> {
    let log = history.start().await;
    for p in [0, 0, 0, 0, 0, 0, 0, 0, 1] {
        history.append(&log, p, 1).await;
    }
    for _ in 0..18 {
        history.append(&log, 2, 1).await;
    }
    history.stop(log).await;
    let entries = entries(history);
    assert_eq!(entries.len(), 1 + 27, "{entries:?}");
    entries
}

fn remove(history: &History, key: &str) -> Vec<u8> {
    let bytes = std::fs::read(history.file(key)).unwrap();
    std::fs::remove_file(history.file(key)).unwrap();
    bytes
}

/// Offsets of a partition's batches that cannot be read.
async fn unreadable(history: &History, log: &Log, p: i32) -> Vec<i64> {
    let partition = log.partition(&id(p)).unwrap();
    let mut failed = Vec::new();
    for (offset, batch) in &history.written[&p] {
        if *offset < partition.log_start_offset() {
            continue;
        }
        match log.read(&partition, *offset, 1, true).await {
            Ok(read) => assert!(read.records.concat()[16..] == batch[..], "offset {offset} of {p}"),
            Err(ReadError::Corrupt { .. } | ReadError::Store(_)) => failed.push(*offset),
            Err(error) => panic!("{error}"),
        }
    }
    failed
}

async fn gaps_found(history: &History) -> Vec<String> {
    let findings = history.checked().await.findings;
    let gaps = findings.into_iter().filter(|finding| finding.kind == Kind::Gap);
    gaps.map(|finding| finding.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_an_acknowledged_object_is_refused_until_it_is_back() {
    let mut history = History::new();
    let entries = written(&mut history).await;
    let (first, second) = (&entries[3], &entries[5]);
    let sound = [remove(&history, first), remove(&history, second)];
    let before = keys(&history.root());
    for _ in 0..2 {
        let refused = history.refused().await;
        assert!(
            refused.contains(first) && refused.contains(second) && refused.contains("drumlin store give-up"),
            "{refused}"
        );
        assert_eq!(keys(&history.root()), before, "a refused start puts nothing");
    }
    assert_eq!(gaps_found(&history).await, [first.clone(), second.clone()]);
    for (key, bytes) in [first, second].into_iter().zip(sound) {
        std::fs::write(history.file(key), bytes).unwrap();
    }
    let log = history.start().await;
    for p in 0..3 {
        assert_eq!(unreadable(&history, &log, p).await, [0_i64; 0]);
    }
    history.stop(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_costs_only_what_it_held() {
    let mut history = History::new();
    let entries = written(&mut history).await;
    // Batches 2 and 3 of partition 0, and all of partition 1, which nothing tells of any more.
    let lost = [&entries[3], &entries[4], &entries[9]].map(Clone::clone);
    for key in &lost {
        remove(&history, key);
    }
    let other = give_up(&history.bucket, "test", &[entries[6].clone()]).await;
    assert!(matches!(other, Err(GiveUpError::NotMissing(_))), "{other:?}");
    let nothing = give_up(&history.bucket, "test", &["topic/x".to_owned()]).await;
    assert!(matches!(nothing, Err(GiveUpError::NotAnEntry(_))), "{nothing:?}");
    give_up(&history.bucket, "test", &lost).await.unwrap();
    let expected: Vec<i64> = history.written[&0][2..4]
        .iter()
        .map(|(offset, _)| *offset)
        .collect();
    for life in 0..3 {
        let log = history.start().await;
        assert_eq!(unreadable(&history, &log, 0).await, expected, "life {life}");
        assert_eq!(unreadable(&history, &log, 2).await, [0_i64; 0], "life {life}");
        if life == 0 {
            assert_eq!(log.partition(&id(1)).unwrap().high_watermark(), 0);
            history.written.remove(&1);
        }
        history.append(&log, 0, 2).await;
        history.append(&log, 1, 1).await;
        tokio::time::timeout(common::PATIENCE, log.seal_now())
            .await
            .unwrap();
        assert_eq!(
            unreadable(&history, &log, 0).await,
            expected,
            "sealed, life {life}"
        );
        assert_eq!(
            unreadable(&history, &log, 1).await,
            [0_i64; 0],
            "sealed, life {life}"
        );
        history.stop(log).await;
        let report = history.checked().await;
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|found| (found.kind, found.key.as_str()))
            .collect();
        assert_eq!(found, [(Kind::Damaged, lost[0].as_str())], "{report}");
    }
    // Retention passes the offsets, and nothing of it is left.
    let log = history.start().await;
    let partition = log.partition(&id(0)).unwrap();
    let after = history.written[&0][4].0;
    assert_eq!(log.delete_records(vec![(partition, after)]).await, [Ok(after)]);
    history.append(&log, 0, 1).await;
    tokio::time::timeout(common::PATIENCE, log.seal_now())
        .await
        .unwrap();
    history.stop(log).await;
    let log = history.start().await;
    history.append(&log, 0, 1).await;
    tokio::time::timeout(common::PATIENCE, log.seal_now())
        .await
        .unwrap();
    history.stop(log).await;
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}");
}

/// Fifteen above it are what the window of appends may hold beside a put that never arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_a_crash_may_leave_ends_the_log_as_ever() {
    let mut history = History::new();
    let entries = written(&mut history).await;
    let hole = &entries[entries.len() - 16];
    remove(&history, hole);
    let log = history.start().await;
    let partition = log.partition(&id(2)).unwrap();
    assert_eq!(partition.high_watermark(), history.written[&2][2].0);
    history.stop(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_entry_that_was_deleted_is_written_again() {
    let mut history = History::new();
    let entries = written(&mut history).await;
    let birth = remove(&history, &entries[0]);
    let log = history.start().await;
    for p in 0..3 {
        assert_eq!(unreadable(&history, &log, p).await, [0_i64; 0]);
    }
    let again = std::fs::read(history.file(&entries[0])).unwrap();
    assert_eq!(again[96..], birth[96..]);
    history.stop(log).await;
}

/// The same bucket under another `node.id`: all is there, once, and nothing of the old name stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_node_id_leaves_nothing_behind() {
    let mut history = History::new();
    let log = history.write().await;
    history.stop(log).await;
    let before = history.checked().await;
    history.node = 8;
    let log = history.start().await;
    let beside = history.checked().await;
    assert!(beside.is_clean(), "{beside}");
    assert_eq!(
        (beside.records, beside.partitions),
        (before.records, before.partitions)
    );
    for p in 0..3 {
        assert_eq!(unreadable(&history, &log, p).await, [0_i64; 0]);
    }
    // Merged bundles leave nothing under the old prefix.
    for _ in 0..4 {
        history.append_each(&log, 0..4, 1).await;
        tokio::time::timeout(common::PATIENCE, log.seal_now())
            .await
            .unwrap();
    }
    history.stop(log).await;
    let log = history.start().await;
    history.append(&log, 0, 1).await;
    tokio::time::timeout(common::PATIENCE, log.seal_now())
        .await
        .unwrap();
    history.stop(log).await;
    let mut old = keys(&history.root());
    old.retain(|key| key.starts_with("wal/") && key.split('/').nth(2) == Some("1"));
    for key in old {
        let kind = std::fs::read(history.file(&key)).unwrap()[5];
        assert!(
            key.contains("/log/") && matches!(kind, 0 | 2),
            "{key} was left behind"
        );
    }
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.partitions, before.partitions.max(4));
}
