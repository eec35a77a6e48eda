//! The journal as users of a local directory meet it: what is there after a crash, what another process sees, and
//! what damage costs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::record::{FILE_BLOCKS, FileHeader, RecordHeader};
use super::*;
use crate::bucket::{Bucket, BucketOptions};
use crate::env::Env;
use crate::error::PutNewError;
use crate::local::{LocalStore, LockGuard};
use crate::stats::Reason;

const WHY: Reason = Reason::Wal;

/// A directory, opened and locked as a broker does.
struct Opened {
    bucket: Bucket,
    local: Arc<LocalStore>,
    _guard: Option<LockGuard>,
}

fn open(dir: &Path, locked: bool) -> Opened {
    let env = Env::real();
    let local = Arc::new(LocalStore::open(dir, &env, false).unwrap());
    let bucket = Bucket::from_local(local.clone(), local.clone(), &env, BucketOptions::default());
    let guard = locked.then(|| lock(&bucket));
    if locked {
        local.shared.tend_journal();
    }
    Opened {
        bucket,
        local,
        _guard: guard,
    }
}

/// A life before may still be looking through what it found.
fn lock(bucket: &Bucket) -> LockGuard {
    let began = Instant::now();
    loop {
        match bucket.lock_local() {
            Ok(guard) => return guard,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Opened {
    async fn put(&self, key: &str, body: Bytes) -> bool {
        match self.bucket.put_new_brief(key, body, WHY).await {
            Ok(()) => true,
            Err(PutNewError::Exists { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    async fn listed(&self) -> BTreeMap<String, u64> {
        let listed = self.bucket.list("", None, WHY).await.unwrap();
        listed
            .into_iter()
            .map(|object| (object.key, object.size))
            .collect()
    }

    async fn get(&self, key: &str) -> Option<Bytes> {
        match self.bucket.get(key, WHY).await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                assert!(error.is_not_found(), "{error}");
                None
            }
        }
    }

    fn journal(&self) -> Arc<Journal> {
        self.local.shared.journal().unwrap()
    }

    /// As a process that is killed before it comes to write down what happened.
    fn write_nothing_down(&self) {
        self.local.shared.writing_down.store(true, Ordering::Relaxed);
    }

    /// As a process that is killed: what was to be written down soon is not.
    fn kill(self) {
        *self.local.shared.lock.lock().unwrap() = std::sync::Weak::new();
    }

    fn has_file(&self, key: &str) -> bool {
        self.bucket.local_path(key).unwrap().exists()
    }

    /// File system refuses direct I/O: nothing to see.
    fn is_buffered(&self) -> bool {
        self.local.is_buffered()
    }
}

/// Bytes that tell which they are.
fn body(seed: u64, length: usize) -> Bytes {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes[..]);
    bytes.into()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join(".journal")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The records of a file, and where they begin.
fn records(path: &Path) -> Vec<(u64, RecordHeader)> {
    let bytes = fs::read(path).unwrap();
    let blocks = bytes.chunks(BLOCK).enumerate();
    blocks
        .filter_map(|(n, block)| Some(((n * BLOCK) as u64, RecordHeader::decode(block)?)))
        .collect()
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test]
async fn small_objects_that_do_not_stay_have_no_files_and_are_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    let lengths = [0, 1, 4095, 4096, 4097, 65_536, 65_537, 200_000, MAX_OBJECT];
    for (n, length) in lengths.into_iter().enumerate() {
        let key = format!("wal/a/{n:02}");
        assert!(one.put(&key, body(n as u64, length)).await);
        assert!(!one.put(&key, body(99, 10)).await, "{key} twice");
        assert_eq!(one.has_file(&key), one.is_buffered());
    }
    one.put("wal/a/large", body(50, MAX_OBJECT + 1)).await;
    assert!(one.has_file("wal/a/large"));
    one.bucket
        .put_new("wal/b/other", body(51, 10), Reason::Recovery)
        .await
        .unwrap();
    assert!(one.has_file("wal/b/other"));
    let settled = one.bucket.settle("wal/a/03").await;
    settled.unwrap();

    let range = one
        .bucket
        .get_range("wal/a/07", 5000..150_000, WHY)
        .await
        .unwrap();
    assert_eq!(range, body(7, 200_000).slice(5000..150_000));
    let below = one.bucket.list("wal/b", None, WHY).await.unwrap();
    assert_eq!(below.len(), 1, "a prefix is whole segments");
    one.bucket.delete("wal/a/05", WHY).await.unwrap();
    assert_eq!(one.get("wal/a/05").await, None);
    let before = one.listed().await;
    assert_eq!(before.len(), lengths.len() - 1 + 2);
    tokio::time::sleep(Duration::from_millis(200)).await;
    one.kill();

    // Another process looks, without the lock, and then the next start.
    for locked in [false, true] {
        let two = open(dir.path(), locked);
        assert_eq!(two.listed().await, before, "locked: {locked}");
        for (n, length) in lengths.into_iter().enumerate().filter(|(n, _)| *n != 5) {
            assert_eq!(
                two.get(&format!("wal/a/{n:02}")).await,
                Some(body(n as u64, length))
            );
        }
        assert!(!two.put("wal/a/02", body(0, 5)).await);
    }
}

/// Another process reads while the broker writes: `drumlin store check`.
#[tokio::test]
async fn who_has_no_lock_sees_what_is_there_now() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, other) = (open(dir.path(), true), open(dir.path(), false));
    assert_eq!(other.listed().await.len(), 0);
    broker.put("a/1", body(1, 5000)).await;
    assert_eq!(other.get("a/1").await, Some(body(1, 5000)), "put since it looked");
    broker.put("a/2", body(2, 5000)).await;
    assert_eq!(other.listed().await.len(), 2);
    broker.local.close().await.unwrap();
    assert_eq!(other.get("a/2").await, Some(body(2, 5000)), "it moved");
    assert_eq!(other.listed().await.len(), 2);
}

#[tokio::test]
async fn closed_a_directory_is_files_that_any_tool_can_copy() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    for n in 0..20 {
        one.put(&format!("a/{n:02}"), body(n, 9000)).await;
    }
    one.bucket.delete("a/07", WHY).await.unwrap();
    let before = one.listed().await;
    one.bucket.close().await.unwrap();
    assert_eq!(one.listed().await, before);
    one.put("b/late", body(1, 9000)).await;
    assert!(one.has_file("b/late"));
    drop(one);
    let _ = fs::remove_dir_all(dir.path().join(".journal"));
    let two = open(dir.path(), true);
    assert_eq!(two.get("b/late").await, Some(body(1, 9000)));
    for n in 0..20 {
        let expected = (n != 7).then(|| body(n, 9000));
        assert_eq!(two.get(&format!("a/{n:02}")).await, expected);
    }
}

#[tokio::test]
async fn what_a_crash_cut_off_is_no_object_and_never_becomes_one() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    one.write_nothing_down();
    if one.is_buffered() {
        return;
    }
    for n in 0..5 {
        one.put(&format!("a/{n}"), body(n, 20_000)).await;
    }
    one.kill();
    // The last two puts were in flight: of one the bytes are not all there, of the other the header is not.
    let written = records(&files(dir.path())[0]);
    flip(&files(dir.path())[0], written[4].0 + BLOCK as u64 + 700);
    flip(&files(dir.path())[0], written[3].0 + 20);
    let two = open(dir.path(), true);
    assert_eq!(two.listed().await.len(), 3);
    assert!(two.put("a/4", body(44, 8000)).await, "the key is free");
    for n in 10..10 + 2 * WINDOW {
        two.put(&format!("a/{n}"), body(n, 5000)).await;
    }
    let before = two.listed().await;
    two.kill();
    let three = open(dir.path(), true);
    assert_eq!(three.listed().await, before);
    assert_eq!(three.get("a/4").await, Some(body(44, 8000)));
    assert_eq!(three.get("a/3").await, None);
}

#[tokio::test]
async fn damage_to_what_was_put_long_ago_does_not_hide_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    one.write_nothing_down();
    if one.is_buffered() {
        return;
    }
    for n in 0..2 * WINDOW {
        one.put(&format!("a/{n:03}"), body(n, 5000)).await;
    }
    let before = one.listed().await;
    one.kill();
    let file = &files(dir.path())[0];
    let written = records(file);
    let first = written
        .iter()
        .find(|(_, record)| record.this.key == "a/000")
        .unwrap();
    flip(file, first.0 + BLOCK as u64 + 700);
    let two = open(dir.path(), true);
    assert_eq!(two.listed().await, before);
    let damaged = two.get("a/000").await.unwrap();
    assert!(damaged != body(0, 5000) && damaged.len() == 5000);
    assert!(!two.put("a/000", body(0, 5000)).await);
    two.kill();
    // Nor does a torn header of the file.
    flip(file, 100);
    let three = open(dir.path(), true);
    assert_eq!(three.listed().await, before);
}

/// Also of the last ones, once it is written down that they are there.
#[tokio::test]
async fn damage_to_the_last_puts_does_not_hide_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    if one.is_buffered() {
        return;
    }
    for n in 0..3 {
        one.put(&format!("a/{n}"), body(n, 5000)).await;
    }
    one.journal().write_headers().unwrap();
    one.kill();
    let file = &files(dir.path())[0];
    flip(file, records(file)[2].0 + BLOCK as u64 + 700);
    flip(file, records(file)[1].0 + 70);
    let two = open(dir.path(), true);
    assert_eq!(two.listed().await.len(), 3);
    assert_eq!(two.get("a/1").await, Some(body(1, 5000)));
    assert_ne!(two.get("a/2").await, Some(body(2, 5000)));
}

/// The block before an object's bytes is damaged: the next record names the object, whose bytes are whole.
#[tokio::test]
async fn damage_to_the_header_of_a_record_does_not_hide_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    if one.is_buffered() {
        return;
    }
    // More than a file, so that one is full, and the last of its records has its successor in another.
    let large = 300_000;
    for n in 0..40 {
        one.put(&format!("a/{n:03}"), body(n, large)).await;
        one.local.shared.tend_journal();
    }
    for n in 40..40 + 2 * WINDOW {
        one.put(&format!("a/{n:03}"), body(n, 5000)).await;
    }
    one.bucket.delete("a/003", WHY).await.unwrap();
    one.journal().write_headers().unwrap();
    let before = one.listed().await;
    one.kill();
    let files = files(dir.path());
    let last = records(&files[0]).pop().unwrap();
    let within = &records(&files[0])[5];
    for (at, _) in [&last, within] {
        flip(&files[0], at + 70);
    }
    let two = open(dir.path(), true);
    assert_eq!(two.listed().await, before);
    for key in [&last.1.this.key, &within.1.this.key] {
        let n = key[2..].parse().unwrap();
        assert_eq!(two.get(key).await, Some(body(n, large)), "{key}");
    }
    two.kill();

    // Two that lie together: nobody can tell what the first was, unless it was deleted.
    let neighbours = &records(&files[0])[8..10];
    for (at, _) in neighbours {
        flip(&files[0], at + 70);
    }
    let env = Env::real();
    let local = Arc::new(LocalStore::open(dir.path(), &env, false).unwrap());
    let three = Bucket::from_local(local.clone(), local, &env, BucketOptions::default());
    let _guard = lock(&three);
    let said = three.list("", None, WHY).await.unwrap_err().to_string();
    assert!(said.contains("0000 is damaged after block"), "{said}");
}

#[tokio::test]
async fn numbers_go_on_where_they_were_though_all_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    for life in 0..3 {
        let one = open(dir.path(), true);
        for n in 0..100 {
            let key = format!("a/{life}/{n}");
            one.put(&key, body(n, 1000)).await;
            one.bucket.delete(&key, WHY).await.unwrap();
        }
        one.journal().write_headers().unwrap();
        let next = one.journal().lock().next_number;
        assert!(next >= number + 100 || one.is_buffered(), "{next} after {number}");
        number = next;
        one.kill();
    }
}

/// Another process has the directory now, and writes its journal.
#[tokio::test]
async fn who_lost_the_lock_reads_nothing_wrong_and_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = open(dir.path(), true);
    one.put("a/1", body(1, 5000)).await;
    one.put("a/2", body(2, 5000)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    one._guard = None;
    let two = open(dir.path(), true);
    two.bucket.delete("a/1", WHY).await.unwrap();
    two.bucket.delete("a/2", WHY).await.unwrap();
    // The file is empty, and begun again.
    two.journal().lock().active = None;
    two.journal().write_headers().unwrap();
    two.put("b/1", body(3, 5000)).await;
    assert_eq!(one.get("a/1").await, None);
    assert_eq!(one.get("b/1").await, Some(body(3, 5000)));
    assert_eq!(one.bucket.delete("b/1", WHY).await.is_ok(), one.is_buffered());
    assert_eq!(two.get("b/1").await, Some(body(3, 5000)));
}

#[tokio::test]
async fn a_record_within_an_objects_bytes_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    one.write_nothing_down();
    if one.is_buffered() {
        return;
    }
    one.put("a/1", body(1, 5000)).await;
    let (_, mut forged) = records(&files(dir.path())[0]).remove(0);
    forged.this.key = "a/forged".to_owned();
    forged.this.number += 1;
    let mut bytes = vec![0; 3 * BLOCK];
    // Where it comes to lie: behind the header of its object, and that object's first block.
    forged.this.block += forged.this.blocks() + 2;
    forged.encode(&mut bytes[BLOCK..]);
    one.put("a/2", bytes.clone().into()).await;
    // Without the tag, which nobody outside knows, it is none even where the record around it is cut off.
    forged.tag = [7; 16];
    forged.this.block += 4;
    forged.encode(&mut bytes[BLOCK..]);
    one.put("a/3", bytes.into()).await;
    one.kill();
    let file = &files(dir.path())[0];
    let around = records(file)
        .into_iter()
        .find(|(_, record)| record.this.key == "a/3")
        .unwrap();
    flip(file, around.0 + 30);
    let two = open(dir.path(), true);
    assert_eq!(two.listed().await.into_keys().collect::<Vec<_>>(), ["a/1", "a/2"]);
}

#[tokio::test]
async fn a_journal_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    if one.is_buffered() {
        return;
    }
    one.put("a/1", body(1, 5000)).await;
    one.kill();
    let path = &files(dir.path())[0];
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut block = vec![0; BLOCK];
    file.read_exact_at(&mut block, 0).unwrap();
    assert!(FileHeader::decode(&block).is_ok());
    block[8..16].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 0]);
    let crc = crc32c::crc32c(&block);
    block[12..16].copy_from_slice(&crc.to_be_bytes());
    file.write_all_at(&block, 0).unwrap();
    let options = BucketOptions {
        retry_for: Duration::ZERO,
        ..BucketOptions::default()
    };
    let local = Arc::new(LocalStore::open(dir.path(), &Env::real(), false).unwrap());
    let two = Bucket::from_local(local.clone(), local, &Env::real(), options);
    let _guard = lock(&two);
    let said = two.list("", None, WHY).await.unwrap_err().to_string();
    assert!(
        said.contains("newer version") && said.contains(".journal"),
        "{said}"
    );
}

#[tokio::test]
async fn one_of_many_puts_of_a_key_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    for round in 0..20 {
        let key = format!("a/{round}");
        let puts = (0..8).map(|n| {
            // A fence is no brief object and goes the other way.
            let why = if n % 2 == 0 { WHY } else { Reason::Recovery };
            let (bucket, key) = (one.bucket.clone(), key.clone());
            async move {
                let put = match why {
                    WHY => bucket.put_new_brief(&key, body(n, 5000), why).await,
                    _ => bucket.put_new(&key, body(n, 5000), why).await,
                };
                put.is_ok().then_some(n)
            }
        });
        let won: Vec<u64> = futures::future::join_all(puts)
            .await
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(one.get(&key).await, Some(body(won[0], 5000)));
    }
    one.kill();
    assert_eq!(open(dir.path(), true).listed().await.len(), 20);
}

/// Many objects that are not deleted in time, and one in each file that never is.
#[tokio::test]
async fn the_journal_is_bounded_and_remnants_do_not_fill_it() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), true);
    if one.is_buffered() {
        return;
    }
    let per_file = (FILE_BLOCKS as usize - 1) / (MAX_OBJECT / BLOCK + 1);
    let count = per_file * MAX_FILES + 20;
    let mut in_files = 0;
    for n in 0..count {
        let key = format!("a/{n:04}");
        one.put(&key, body(n as u64, MAX_OBJECT)).await;
        one.local.shared.tend_journal();
        in_files += usize::from(one.has_file(&key));
        assert!(files(dir.path()).len() <= MAX_FILES);
    }
    assert!(in_files >= 10, "{in_files} did not fit");
    let listed = one.listed().await;
    assert_eq!(listed.len(), count);
    for n in (0..count).filter(|n| n % per_file != 0) {
        one.bucket.delete(&format!("a/{n:04}"), WHY).await.unwrap();
    }
    one.put("b/small", body(1, 100)).await;
    // Where nothing could be done, it is not tried again at once; and what is young goes by itself under load.
    tokio::time::sleep(GROW_AGAIN / 10).await;
    let shared = &one.local.shared;
    let later = |ms| {
        one.journal().tend(shared.env.now_ms() + ms, |key, bytes| {
            shared.give_file(key, bytes)
        })
    };
    later(OLD_MS / 2).unwrap();
    assert!(!one.has_file(&format!("a/{per_file:04}")));
    tokio::time::sleep(GROW_AGAIN / 10).await;
    later(2 * OLD_MS).unwrap();
    for n in 0..per_file {
        let key = format!("c/{n}");
        one.put(&key, body(n as u64, MAX_OBJECT)).await;
    }
    let in_journal = one.journal().list("c/").len();
    assert!(in_journal + 1 >= per_file, "{in_journal} of {per_file}");
    for _ in 0..3 {
        one.bucket.release_unused().await;
    }
    assert!(files(dir.path()).len() < 6, "{:?}", files(dir.path()));
    let before = one.listed().await;
    one.kill();
    assert_eq!(open(dir.path(), true).listed().await, before);
}

/// Against a map: puts, deletes, crashes, stops.
#[tokio::test]
async fn random_lives_agree_with_a_map() {
    let given = std::env::var("DRUMLIN_JOURNAL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| Env::real().random_u64());
    println!("DRUMLIN_JOURNAL_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut there: BTreeMap<u64, usize> = BTreeMap::new();
    // Deleted in this life: a crash may bring these back.
    let mut gone: BTreeMap<u64, usize> = BTreeMap::new();
    let mut next = 0;
    let key = |n: u64| format!("a/{:02}/{n:06}", n % 3);
    for _ in 0..12 {
        let one = open(dir.path(), true);
        let listed = one.listed().await;
        for (n, length) in &there {
            assert_eq!(listed.get(&key(*n)), Some(&(*length as u64)), "{n}");
        }
        let back: Vec<u64> = gone
            .keys()
            .copied()
            .filter(|n| listed.contains_key(&key(*n)))
            .collect();
        assert_eq!(listed.len(), there.len() + back.len());
        for n in back {
            assert_eq!(one.get(&key(n)).await, Some(body(n, gone[&n])));
            one.bucket.delete(&key(n), WHY).await.unwrap();
        }
        for _ in 0..rng.random_range(20..250) {
            match rng.random_range(0..10) {
                0..=4 => {
                    let length = match rng.random_range(0..10) {
                        0 => rng.random_range(0..MAX_OBJECT + 50_000),
                        1..=3 => rng.random_range(0..200_000),
                        _ => rng.random_range(0..12_000),
                    };
                    assert!(one.put(&key(next), body(next, length)).await);
                    one.local.shared.tend_journal();
                    there.insert(next, length);
                    next += 1;
                }
                // Mostly the oldest, as a log that trims itself.
                5..=8 => {
                    let at = if rng.random_bool(0.8) {
                        0
                    } else {
                        rng.random_range(0..there.len().max(1))
                    };
                    if let Some((n, length)) = there.iter().nth(at).map(|(n, length)| (*n, *length)) {
                        one.bucket.delete(&key(n), WHY).await.unwrap();
                        there.remove(&n);
                        gone.insert(n, length);
                    }
                }
                _ => {
                    if let Some((n, length)) = there.iter().next_back() {
                        assert_eq!(one.get(&key(*n)).await, Some(body(*n, *length)));
                        assert!(!one.put(&key(*n), body(0, 10)).await);
                    }
                }
            }
        }
        if rng.random_bool(0.3) {
            one.bucket.close().await.unwrap();
            let lost_none = one.listed().await.len() == there.len();
            assert!(lost_none && one.journal().list("").is_empty());
        }
        if rng.random_bool(0.5) {
            one.journal().write_headers().unwrap();
            gone.clear();
        }
        one.kill();
    }
}
