//! What failed rounds upload: it goes when nothing can have named it, and not before.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{History, TOPIC, eventually, id, keys};
use drumlin_log::{AppendOptions, CommitError, Log, PartitionConfig};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};

/// The prefix of the newest start's chain.
fn chain(history: &History) -> String {
    let births = keys(&history.root()).into_iter();
    let mut births: Vec<String> = births
        .filter_map(|key| key.strip_suffix("/log/00000000000000000000").map(str::to_owned))
        .filter(|prefix| prefix.starts_with("wal/"))
        .collect();
    births.sort_by_key(|prefix| prefix.rsplit('/').next().unwrap().parse::<u64>().unwrap());
    births.pop().unwrap()
}

fn having(root: &Path, part: &str) -> Vec<String> {
    let all = keys(root).into_iter();
    all.filter(|key| key.contains(part)).collect()
}

/// A file where the folder of checkpoints' bodies should be: every round fails after its uploads.
struct NoBodies {
    folder: PathBuf,
    aside: Vec<PathBuf>,
}

impl NoBodies {
    fn put_up(history: &History) -> Self {
        let folder = history.file(&format!("{}/body", chain(history)));
        let mut aside = Vec::new();
        let obstacle = history.dir.path().join("obstacle");
        std::fs::write(&obstacle, b"in the way").unwrap();
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        // A round that is under way makes the folder again as soon as it is gone.
        while std::fs::rename(&obstacle, &folder).is_err() {
            let next = history.dir.path().join(format!("bodies-{}", aside.len()));
            std::fs::rename(&folder, &next).unwrap();
            aside.push(next);
        }
        Self { folder, aside }
    }

    fn take_away(self) {
        std::fs::remove_file(&self.folder).unwrap();
        std::fs::create_dir(&self.folder).unwrap();
        for body in self.aside.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap()) {
            let body = body.unwrap();
            std::fs::rename(body.path(), self.folder.join(body.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_rounds_uploaded_goes_without_a_restart() {
    let mut history = History::new();
    let root = history.root();
    let log = history.start().await;
    let obstacle = NoBodies::put_up(&history);
    history.append(&log, 0, 45).await;
    history.append(&log, 1, 2).await;
    let sealing = tokio::spawn({
        let log = log.clone();
        async move { log.seal_now().await }
    });
    let uploaded = |part: &str| having(&root, part).len();
    eventually("a round uploads", || uploaded("/segment/") > 0).await;
    eventually("what it uploaded goes", || {
        uploaded("/segment/") + uploaded("/bundle/") == 0
    })
    .await;
    assert!(!sealing.is_finished());
    obstacle.take_away();
    sealing.await.unwrap();
    // One more, so that what the first one replaced goes too.
    history.append(&log, 1, 1).await;
    log.seal_now().await;
    let log_start = log.partition(&id(0)).unwrap().log_start_offset();
    assert_eq!(log_start, 0);
    let mut bases: Vec<String> = having(&root, "/segment/")
        .iter()
        .map(|key| key.rsplit('/').next().unwrap()[..20].to_owned())
        .collect();
    let count = bases.len();
    bases.dedup();
    assert!(count > 0 && bases.len() == count, "each segment once: {bases:?}");
    eventually("nothing is left that no checkpoint names", || {
        uploaded("/body/") == 2 && uploaded("/bundle/") == 2
    })
    .await;
    history.stop(log).await;
    let report = history.checked().await;
    // Superseded markers have a grace of their own.
    let waiting = report.waiting.iter().filter(|key| !key.contains("/checkpoint/"));
    assert!(
        report.is_clean() && waiting.count() == 0,
        "{report}\n{:?}",
        report.waiting
    );
}

fn keyed(number: u64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let (key, value) = (format!("key {number}"), vec![number as u8; 2_000]);
    builder.push(1_700_000_000_000, Some(key.as_bytes()), Some(&value), &[]);
    builder.build().unwrap()
}

async fn append(log: &Log, batch: &Bytes) -> Result<(), CommitError> {
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline: tokio::time::Instant::now() + Duration::from_secs(10),
    };
    let header = BatchHeader::parse(batch).unwrap();
    let partition = log.partition(&id(0)).unwrap();
    let appended = log.append(&partition, &header, batch, options).await.unwrap();
    appended.commit.wait().await
}

/// A checkpoint is committed, but its maker does not learn that: its marker's place is taken. What it names must stay,
/// whatever becomes of it in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_checkpoint_in_doubt_names_stays() {
    let mut history = History::new();
    let root = history.root();
    let log = history.start().await;
    let batches: Vec<Bytes> = (0..20).map(keyed).collect();
    for batch in &batches {
        append(&log, batch).await.unwrap();
    }
    log.seal_now().await;
    let configure = |compact| {
        let config = PartitionConfig {
            compact,
            retention_ms: None,
            min_cleanable_dirty_ratio: 0.0,
            ..PartitionConfig::default()
        };
        log.configure(&id(0), Arc::new(config));
    };
    configure(true);
    let markers = history.file(&format!("{}/checkpoint", chain(&history)));
    let mut taken = Vec::new();
    for number in 0..200 {
        let path = markers.join(format!("{number:020}"));
        if !path.exists() {
            std::fs::write(&path, b"not a marker").unwrap();
            taken.push(path);
        }
    }
    let cleaning = tokio::spawn({
        let log = log.clone();
        async move { log.clean_now().await }
    });
    let segments = || having(&root, &format!("{TOPIC}/0/segment/"));
    eventually("compaction uploads", || !segments().is_empty()).await;
    const CHECKPOINT: u8 = 3;
    let log_of = format!("{}/log/", chain(&history));
    let checkpoints = || {
        let is_one =
            |key: &String| std::fs::read(root.join(key)).unwrap_or_default().get(5) == Some(&CHECKPOINT);
        having(&root, &log_of).iter().filter(|key| is_one(key)).count()
    };
    // Of two that come after the upload, the second was begun after it.
    let before = checkpoints();
    eventually("checkpoints are committed", || checkpoints() >= before + 2).await;
    // From here on no round gets as far as that, and what compaction made is not wanted any more.
    let obstacle = NoBodies::put_up(&history);
    let named = segments();
    configure(false);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let left = segments();
    cleaning.abort();
    // As a crash: nothing is sealed or tidied up.
    history.stop(log).await;
    obstacle.take_away();
    taken.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}\nnamed {named:?}, left {left:?}");
    let log = history.start().await;
    let partition = log.partition(&id(0)).unwrap();
    assert_eq!(partition.unavailable(), None);
    let mut offset = 0;
    while offset < partition.high_watermark() {
        let read = log.read(&partition, offset, 1, true).await.unwrap();
        assert!(read.records.concat()[61..] == batches[offset as usize][61..]);
        offset = read.next_offset;
    }
    // The next round that is committed decides, and nothing is left of the doubt.
    history.append(&log, 1, 1).await;
    log.seal_now().await;
    history.stop(log).await;
    let report = history.checked().await;
    assert!(report.is_clean(), "{report}");
}
