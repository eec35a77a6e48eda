//! The local store: what lies on the disk after a put, by which way, and what a second process is told.

use super::*;
use crate::bucket::{Bucket, BucketOptions};
use crate::error::PutNewError;
use crate::stats::Reason;
use bytes::Bytes;

const WHY: Reason = Reason::Check;

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn bucket(dir: &FsPath, local_buffered: bool) -> Bucket {
    let options = BucketOptions {
        local_buffered,
        ..BucketOptions::default()
    };
    Bucket::open(&format!("file://{}", dir.display()), &Env::real(), &options).unwrap()
}

/// Bytes whose address is a multiple of a block; the same ones for a length.
fn aligned(len: usize) -> Bytes {
    let mut bytes = vec![0; len + aligned::BLOCK];
    let skip = bytes.as_ptr().addr().next_multiple_of(aligned::BLOCK) - bytes.as_ptr().addr();
    for (at, byte) in bytes[skip..skip + len].iter_mut().enumerate() {
        *byte = (at * 7 % 253) as u8;
    }
    Bytes::from(bytes).slice(skip..skip + len)
}

#[tokio::test]
async fn every_length_and_alignment_is_written_as_it_is() {
    for buffered in [false, true] {
        let dir = temp();
        let bucket = bucket(dir.path(), buffered);
        for len in [
            0,
            1,
            4096,
            65_535,
            65_536,
            65_537,
            69_632,
            1 << 20,
            (1 << 20) + 5,
            (3 << 20) - 1,
        ] {
            for skip in [0, 1, 512] {
                let body = aligned(len + skip).slice(skip..);
                let key = format!("a/b{buffered}/{len}-{skip}");
                bucket.put_new(&key, body.clone(), WHY).await.unwrap();
                let path = bucket.local_path(&key).unwrap();
                assert!(
                    fs::read(path).unwrap() == body,
                    "{len} bytes from {skip}, buffered {buffered}"
                );
            }
        }
        let parts = vec![
            aligned(8192),
            aligned(100),
            aligned(1 << 20).slice(3..),
            aligned(4096),
        ];
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        bucket.put("parts", parts.clone(), WHY).await.unwrap();
        bucket.put("parts", parts, WHY).await.unwrap();
        assert!(bucket.get("parts", WHY).await.unwrap() == whole);
        for n in 0..TMP_DIRS {
            let left = fs::read_dir(dir.path().join(TMP).join(n.to_string()))
                .unwrap()
                .count();
            assert_eq!(left, 0, "no temporary file stays");
        }
        assert!(
            bucket
                .list("", None, WHY)
                .await
                .unwrap()
                .iter()
                .all(|object| !object.key.starts_with('.'))
        );
    }
}

#[tokio::test]
async fn put_if_absent_leaves_the_first_and_settles() {
    let dir = temp();
    let bucket = bucket(dir.path(), false);
    let (first, second) = (aligned(70_000), aligned(80_000));
    bucket.put_new("x/y", first.clone(), WHY).await.unwrap();
    let refused = bucket.put_new("x/y", second, WHY).await;
    assert!(matches!(refused, Err(PutNewError::Exists { .. })), "{refused:?}");
    bucket.settle("x/y").await.unwrap();
    assert!(bucket.get("x/y", WHY).await.unwrap() == first);
}

#[tokio::test]
async fn a_directory_that_somebody_removed_is_made_again() {
    let dir = temp();
    let bucket = bucket(dir.path(), false);
    bucket.put_new("x/y/1", aligned(10), WHY).await.unwrap();
    fs::remove_dir_all(dir.path().join("x")).unwrap();
    bucket.put_new("x/y/2", aligned(10), WHY).await.unwrap();
    assert_eq!(bucket.get("x/y/2", WHY).await.unwrap(), aligned(10));
}

#[tokio::test]
async fn a_second_lock_is_refused_and_what_was_left_is_used_or_cleared() {
    let dir = temp();
    let one = bucket(dir.path(), false);
    let guard = one.lock_local().unwrap();
    let other = bucket(dir.path(), false);
    let text = other.lock_local().unwrap_err().to_string();
    assert!(
        text.contains(&dir.path().canonicalize().unwrap().display().to_string()),
        "{text}"
    );
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    let litter = dir.path().join(TMP).join("3").join("half-written");
    fs::write(&litter, b"x").unwrap();
    drop(guard);
    let _guard = other.lock_local().unwrap();
    let mut puts = 0;
    while litter.exists() {
        assert!(puts < 500, "left lying");
        other
            .put_new(&format!("a/{puts}"), aligned(9), WHY)
            .await
            .unwrap();
        assert_eq!(other.get(&format!("a/{puts}"), WHY).await.unwrap(), aligned(9));
        puts += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Where the page cache is bypassed, files are written again; readers never see another object's bytes.
#[tokio::test]
async fn the_file_of_a_deleted_object_is_written_again() {
    use std::os::unix::fs::MetadataExt;
    let dir = temp();
    let local = Arc::new(LocalStore::open(dir.path(), &Env::real(), false).unwrap());
    let bucket = Bucket::from_local(
        local.clone(),
        local.clone(),
        &Env::real(),
        BucketOptions::default(),
    );
    let body = |n: usize, len: usize| aligned(len + n).slice(n..);
    let inode = |key: &str| fs::metadata(bucket.local_path(key).unwrap()).unwrap().ino();
    for len in [10, 5000, 70_000, 300_001] {
        bucket
            .put_new(&format!("old/{len}"), body(0, len), WHY)
            .await
            .unwrap();
    }
    let inodes: std::collections::BTreeSet<u64> = [10, 5000, 70_000, 300_001]
        .map(|len| inode(&format!("old/{len}")))
        .into();
    for len in [10, 5000, 70_000, 300_001] {
        bucket.delete(&format!("old/{len}"), WHY).await.unwrap();
        assert!(
            bucket
                .get(&format!("old/{len}"), WHY)
                .await
                .unwrap_err()
                .is_not_found()
        );
    }
    assert_eq!(bucket.list("", None, WHY).await.unwrap(), []);
    // A directory is synced, and with it the names that were lost.
    bucket
        .put_new("new/9999999", body(0, 9_999_999), WHY)
        .await
        .unwrap();
    let mut again = 0;
    for len in [9, 4000, 60_000, 250_000] {
        let key = format!("new/{len}");
        bucket.put_new(&key, body(1, len), WHY).await.unwrap();
        assert_eq!(bucket.get(&key, WHY).await.unwrap(), body(1, len));
        again += usize::from(inodes.contains(&inode(&key)));
    }
    // A put that comes too late spends a file, too.
    for len in [9, 4000, 60_000, 250_000] {
        let key = format!("new/{len}");
        assert!(matches!(
            bucket.put_new(&key, body(2, len), WHY).await,
            Err(PutNewError::Exists { .. })
        ));
        assert_eq!(bucket.get(&key, WHY).await.unwrap(), body(1, len));
    }
    assert_eq!(again, if local.is_buffered() { 0 } else { 4 });
}

#[tokio::test]
async fn a_directory_without_write_permission_says_so() {
    let dir = temp();
    let bucket = bucket(dir.path(), false);
    // A file where a directory should be: works for root as well, whom permissions do not stop.
    fs::write(dir.path().join("f"), b"").unwrap();
    let error = bucket.put_new("f/x", aligned(10), WHY).await.unwrap_err();
    assert!(matches!(error, PutNewError::Store(_)), "{error}");
}
