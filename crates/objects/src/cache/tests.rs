//! Both caches: what is put in comes out or nothing does.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;

fn block(n: u64) -> Bytes {
    vec![n as u8; 10_000].into()
}

#[tokio::test]
async fn memory_evicts_backfills_first_and_then_the_least_recently_used() {
    let cache = MemoryBlockCache::new(60_000);
    for n in 0..3 {
        cache.insert("tail", n, block(n), CacheHint::Keep);
    }
    for n in 0..100 {
        cache.insert("old", n, block(n), CacheHint::Backfill);
    }
    for n in 0..3 {
        assert_eq!(
            cache.get("tail", n).await,
            Some(block(n)),
            "a backfill evicted the tail"
        );
    }
    assert_eq!(cache.get("old", 0).await, None);
    assert!(cache.stats().memory_bytes <= 60_000);
    for n in 0..4 {
        cache.insert("new", n, block(n), CacheHint::Keep);
    }
    assert_eq!(cache.get("tail", 0).await, None);
    assert_eq!(cache.get("new", 3).await, Some(block(3)));
    cache.remove("new", 3);
    assert_eq!(cache.get("new", 3).await, None);
    cache.insert("huge", 0, vec![0; 100_000].into(), CacheHint::Keep);
    assert_eq!(cache.get("huge", 0).await, None);
}

fn config(dir: Option<&Path>) -> CacheConfig {
    CacheConfig {
        memory_bytes: 1 << 20,
        disk_bytes: 64 << 20,
        dir: dir.map(Path::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_brings_blocks_back_after_a_restart_and_damage_is_a_miss() {
    let dir = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
    let cache = HybridBlockCache::new(config(Some(dir.path())));
    cache.insert("a", 0, block(1), CacheHint::Keep);
    assert_eq!(
        cache.get("a", 0).await,
        Some(block(1)),
        "memory serves before the disk is open"
    );
    assert!(cache.open_disk().await);
    for n in 0..200 {
        cache.insert("a", n, block(n), CacheHint::Keep);
    }
    cache.insert("b", 0, block(7), CacheHint::Backfill);
    assert_eq!(cache.get("b", 0).await, Some(block(7)));
    cache.close().await;
    drop(cache);

    let cache = HybridBlockCache::new(config(Some(dir.path())));
    assert!(cache.open_disk().await);
    let mut back = 0;
    for n in 0..200 {
        if let Some(found) = cache.get("a", n).await {
            assert_eq!(found, block(n));
            back += 1;
        }
    }
    assert!(back >= 150, "{back} of 200 came back");
    assert_eq!(cache.get("b", 0).await, None, "backfills are not written to disk");
    cache.close().await;
    drop(cache);

    // Every byte that holds a block's contents may be wrong.
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(file.unwrap().path())
            .unwrap();
        let len = file.metadata().unwrap().len();
        for at in (6_000..len).step_by(8_192) {
            let mut byte = [0];
            if file.read_at(&mut byte, at).unwrap() == 1 && byte != [0] {
                file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
            }
        }
    }
    let cache = HybridBlockCache::new(config(Some(dir.path())));
    assert!(cache.open_disk().await);
    let mut missing = 0;
    for n in 0..200 {
        match cache.get("a", n).await {
            Some(found) => assert_eq!(found, block(n), "a damaged block was served"),
            None => missing += 1,
        }
    }
    assert!(missing >= 100, "only {missing} of 200 damaged blocks were missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_opened_is_done_without() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let cache = HybridBlockCache::new(config(Some(file.path())));
    assert!(!cache.open_disk().await);
    cache.insert("a", 0, block(1), CacheHint::Keep);
    assert_eq!(cache.get("a", 0).await, Some(block(1)));
    assert!(!HybridBlockCache::new(config(None)).open_disk().await);
}
