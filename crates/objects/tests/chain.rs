//! The chain against memory and the local directory.

use bytes::{BufMut, BytesMut};
use drumlin_objects::chain::{
    self, BirthOutcome, ChainEnd, ChainId, ChainName, ChainOptions, ChainWriter, ENTRY_HEADER_LEN, EntryKind,
};
use drumlin_objects::{Bucket, BucketOptions, Env, Reason};

fn buf(body: &[u8]) -> BytesMut {
    let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
    buf.put_slice(body);
    buf
}

fn name(env: &Env) -> ChainName {
    ChainName {
        prefix: "wal/3f/1/17".to_owned(),
        id: ChainId(env.random_id()),
    }
}

async fn lives_and_ends(env: &Env, bucket: &Bucket) {
    let name = name(env);
    let born = chain::put_birth(bucket, &name, 7, buf(b"birth"), Reason::Wal)
        .await
        .unwrap();
    assert_eq!(born, BirthOutcome::Created);
    match chain::put_birth(bucket, &name, 7, buf(b"again"), Reason::Wal)
        .await
        .unwrap()
    {
        BirthOutcome::Exists(entry) => assert_eq!(&entry.body()[..], b"birth"),
        other => panic!("{other:?}"),
    }
    let writer = ChainWriter::start(env, bucket, name.clone(), 1, ChainOptions::default());
    for n in 1..=40_u64 {
        writer.ready().await.unwrap();
        let body = vec![n as u8; 100];
        let footer_at = ENTRY_HEADER_LEN as u64 + 90;
        let appended = writer.append(EntryKind::Data, 7, buf(&body), footer_at).unwrap();
        assert_eq!(appended.slot, n);
    }
    writer.committed(40).await.unwrap();
    let (header, footer) = chain::read_header_and_footer(bucket, &name, 9, Reason::Recovery)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((header.slot, header.epoch, footer.len()), (9, 7, 10));

    bucket
        .put(
            &name.body_key(&[1; 16]),
            vec![b"state".as_slice().into()],
            Reason::Checkpoint,
        )
        .await
        .unwrap();
    let slot = writer
        .checkpoint(31, &name.body_key(&[1; 16]), 7, buf(b""))
        .await
        .unwrap();
    assert_eq!(slot, 41);
    assert_eq!(writer.trim(u64::MAX).await.unwrap(), 30);
    assert_eq!(writer.sweep_strays().await.unwrap(), 0);
    let found = chain::newest_checkpoint(bucket, &name, Reason::Recovery)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.covers_below, found.entry_slot), (31, 41));
    assert!(
        chain::read_entry(bucket, &name, 30, Reason::Recovery)
            .await
            .unwrap()
            .is_none()
    );
    let entry = chain::read_entry(bucket, &name, 41, Reason::Recovery)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(entry.checkpoint().unwrap(), found);

    let fenced = chain::fence(env, bucket, &name, 8, b"taken over", Reason::Recovery)
        .await
        .unwrap();
    assert_eq!(fenced.end, 42);
    assert_eq!(fenced.checkpoint, Some(found));
    let again = chain::fence(env, bucket, &name, 9, b"another", Reason::Recovery)
        .await
        .unwrap();
    assert_eq!(again.end, 42, "an existing fence is adopted");
    let late = writer.append(EntryKind::Data, 7, buf(b"late"), 0).unwrap();
    assert_eq!(
        writer.committed(late.slot).await,
        Err(ChainEnd::Fenced { slot: 42 })
    );
    let fence = chain::read_entry(bucket, &name, 42, Reason::Recovery)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fence.header.kind, EntryKind::Fence);
    assert_eq!(
        chain::fence::fence_body(&fence.body()).unwrap(),
        b"taken over".as_slice()
    );
}

#[tokio::test]
async fn in_memory() {
    let env = Env::real();
    let bucket = Bucket::open("memory:", &env, &BucketOptions::default()).unwrap();
    lives_and_ends(&env, &bucket).await;
}

#[tokio::test]
async fn on_a_directory() {
    for local_buffered in [false, true] {
        let env = Env::real();
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = BucketOptions {
            local_buffered,
            ..BucketOptions::default()
        };
        let url = format!("file://{}", dir.path().display());
        let bucket = Bucket::open(&url, &env, &options).unwrap();
        let _guard = bucket.lock_local().unwrap();
        lives_and_ends(&env, &bucket).await;
    }
}
