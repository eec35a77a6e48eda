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
async fn a_second_lock_is_refused_and_litter_is_cleared() {
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
    assert!(!litter.exists());
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
