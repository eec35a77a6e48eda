//! `check` finds whatever is damaged or gone in a bucket that a real log wrote, and nothing where nothing is.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{History, keys};
use drumlin_log::check::Kind;

/// What an object is, by its key: each kind is damaged in each way.
fn kind(key: &str) -> String {
    let parts: Vec<&str> = key.split('/').collect();
    match parts[0] {
        "wal" if parts[4] == "log" && key.ends_with("/00000000000000000000") => "birth".to_owned(),
        _ => parts[4.min(parts.len() - 2)].to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_bucket_passes_with_a_broker_running_stopped_and_started_again() {
    let mut history = History::new();
    let log = history.write().await;
    let report = history.checked().await;
    assert!(report.is_clean(), "running: {report}");
    assert!(report.verified > 10 && report.records > 500, "{report}");
    history.stop(log).await;
    let report = history.checked().await;
    assert!(report.is_clean(), "stopped: {report}");
    let log = history.start().await;
    let report = history.checked().await;
    assert!(report.is_clean(), "started again: {report}");
    log.seal_now().await;
    let report = history.checked().await;
    assert!(report.is_clean(), "sealed: {report}");
    history.stop(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damaged_or_missing_object_is_found_and_named() {
    let mut history = History::new();
    let log = history.write().await;
    history.stop(log).await;
    let sound = history.checked().await;
    assert!(sound.is_clean(), "{sound}");
    let waiting: BTreeSet<&String> = sound.waiting.iter().collect();
    let mut tried = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    let checked: Vec<String> = keys(&history.root())
        .into_iter()
        .filter(|key| !waiting.contains(key))
        .collect();
    for key in &checked {
        // One of a kind is looked at in every way, the others in one.
        let first = kinds.insert(kind(key));
        let path = history.file(key);
        let whole = std::fs::read(&path).unwrap();
        // Fences of chains that nobody needs are kept and not read.
        let fence = key.contains("/log/") && whole.len() == drumlin_objects::chain::FENCE_LEN;
        if fence && !is_newest(&checked, key) && !key.ends_with("/00000000000000000000") {
            continue;
        }
        let mut harms: Vec<(&str, Option<Vec<u8>>)> = Vec::new();
        for (name, at) in [
            ("first", 0),
            ("middle", whole.len() / 2),
            ("last", whole.len() - 1),
        ] {
            let mut harmed = whole.clone();
            harmed[at] ^= 0x10;
            harms.push((name, Some(harmed)));
        }
        harms.push(("cut by one", Some(whole[..whole.len() - 1].to_vec())));
        harms.push(("cut in half", Some(whole[..whole.len() / 2].to_vec())));
        harms.push(("empty", Some(Vec::new())));
        harms.push(("gone", None));
        if !first {
            harms = harms.split_off(tried.len() % 7).into_iter().take(1).collect();
        }
        for (name, harm) in harms {
            // The newest entry of a chain, gone, leaves no trace: the module says so. Old markers are not needed.
            let entries = checked.iter().filter(|key| key.contains("/log/"));
            let newest_entry = entries.filter(|key| is_newest(&checked, key)).max() == Some(key);
            let spare =
                key.contains("/log/") && name == "gone" && (newest_entry || !is_newest(&checked, key));
            if spare {
                continue;
            }
            match &harm {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let report = history.checked().await;
            let named = report.findings.iter().any(|finding| finding.key == *key);
            // A marker that is gone is seen by the entries that it would have let go.
            let seen = named || (harm.is_none() && key.contains("/checkpoint/") && !report.is_clean());
            assert!(seen, "{key}, {name}: {report}");
            std::fs::write(&path, &whole).unwrap();
            tried.insert(format!("{key} {name}"));
        }
    }
    for kind in [
        "birth",
        "log",
        "checkpoint",
        "body",
        "bundle",
        "segment",
        "manifest",
    ] {
        assert!(kinds.contains(kind), "{kind} was not tried: {kinds:?}");
    }
    assert!(history.checked().await.is_clean());
}

/// Whether an entry belongs to the chain of the newest start.
fn is_newest(checked: &[String], key: &str) -> bool {
    let incarnation = |key: &str| key.split('/').nth(3).and_then(|n| n.parse::<u64>().ok());
    let newest = checked
        .iter()
        .filter(|k| k.starts_with("wal/"))
        .filter_map(|k| incarnation(k))
        .max();
    incarnation(key) == newest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_names_is_an_orphan() {
    let mut history = History::new();
    let log = history.write().await;
    history.stop(log).await;
    let all = keys(&history.root());
    let segment = all.iter().find(|key| key.contains("/segment/")).unwrap();
    let (folder, _) = segment.rsplit_once('/').unwrap();
    let old = format!("{folder}/00000000000000009999-1-1-00000000deadbeef.log");
    std::fs::write(history.file(&old), b"stray").unwrap();
    std::fs::create_dir_all(history.file("somebody")).unwrap();
    std::fs::write(history.file("somebody/elses"), b"stray").unwrap();
    let report = history.checked().await;
    let found: Vec<(Kind, &str)> = report.findings.iter().map(|f| (f.kind, f.key.as_str())).collect();
    assert_eq!(
        found,
        [(Kind::Orphan, "somebody/elses"), (Kind::Orphan, old.as_str())],
        "{report}"
    );
}
