//! One suite for every store: what chains and logs rely on. For tests of this crate and of others.
//!
//! Each function panics with what is wrong, as a test does. All keys lie below one fresh prefix, so that the
//! suite may run on a bucket in use.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test suite, compiled for tests only"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::bucket::Bucket;
use crate::chain::{
    self, BirthOutcome, ChainEnd, ChainId, ChainName, ChainOptions, ChainWriter, ENTRY_HEADER_LEN, EntryKind,
};
use crate::error::{PutNewError, StoreError};
use crate::probe::{ProbeError, ProbeReport, probe};
use crate::stats::{Operation, Reason};

const WHY: Reason = Reason::Check;

/// Runs all of it. Not for a store whose puts land late: a deleted object may then come back.
pub async fn conformance(bucket: &Bucket) {
    let prefix: String = bucket
        .env()
        .random_id()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let at = |name: &str| format!("conformance/{prefix}/{name}");
    puts_and_gets(bucket, &at("objects")).await;
    put_if_absent(bucket, &at("absent")).await;
    lists(bucket, &at("lists")).await;
    deletes(bucket, &at("deletes")).await;
    chain_life(bucket, &at("chain")).await;
    owner_and_fencer(bucket, &at("race")).await;
    let report = probed(bucket).await;
    assert!(report.refused + report.failed >= 4 * 7, "{report:?}");
    // What is still on its way to a fenced chain may land after this; the prefix is a fresh one every time.
    for object in bucket
        .list(&format!("conformance/{prefix}"), None, WHY)
        .await
        .unwrap()
    {
        bucket.delete(&object.key, WHY).await.unwrap();
    }
}

/// What the probe saw. A store that refused all racers on a key has not been tried yet.
async fn probed(bucket: &Bucket) -> ProbeReport {
    loop {
        match probe(bucket, 4, 8).await {
            Ok(report) => return report,
            Err(ProbeError::Store(error)) => assert!(error.is_transient(), "{error}"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// Puts a new object whatever trouble the store makes. `true`: it is ours.
async fn put_new(bucket: &Bucket, key: &str, body: &Bytes) -> bool {
    loop {
        match bucket.put_new(key, body.clone(), WHY).await {
            Ok(()) => return true,
            Err(PutNewError::Exists { .. }) => match bucket.get(key, WHY).await {
                Ok(found) => return found == *body,
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            Err(PutNewError::Store(error)) => assert!(error.is_transient(), "{error}"),
        }
    }
}

async fn puts_and_gets(bucket: &Bucket, at: &str) {
    for len in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 300_001, 9 << 20] {
        let (body, key) = (pattern(len), format!("{at}/{len}"));
        assert!(put_new(bucket, &key, &body).await);
        assert_eq!(bucket.get(&key, WHY).await.unwrap(), body, "length {len}");
        for (from, to) in [
            (0, 1),
            (0, len),
            (len / 2, len / 2 + 1),
            (len.saturating_sub(1), len),
        ] {
            if to <= len && from < to {
                let got = bucket.get_range(&key, from as u64..to as u64, WHY).await.unwrap();
                assert_eq!(got, body.slice(from..to), "length {len}, {from}..{to}");
            }
        }
        assert_eq!(bucket.get_range(&key, 0..0, WHY).await.unwrap(), Bytes::new());
        assert!(
            bucket.get_range(&key, 0..len as u64 + 1, WHY).await.is_err(),
            "a short read is an error"
        );
    }
    let parts: Vec<Bytes> = (0..5).map(|n| pattern(n * 33_333)).collect();
    let whole: Bytes = parts.iter().flat_map(|part| part.iter().copied()).collect();
    bucket.put(&format!("{at}/parts"), parts, WHY).await.unwrap();
    assert_eq!(bucket.get(&format!("{at}/parts"), WHY).await.unwrap(), whole);
    let large: Vec<Bytes> = (0..5).map(|_| pattern(8 << 20)).collect();
    bucket
        .put(&format!("{at}/large"), large.clone(), WHY)
        .await
        .unwrap();
    let tail = bucket
        .get_range(&format!("{at}/large"), (33 << 20)..(40 << 20), WHY)
        .await
        .unwrap();
    assert_eq!(tail, large[4].slice(1 << 20..));
    let missing = bucket.get(&format!("{at}/missing"), WHY).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let missing = bucket
        .get_range(&format!("{at}/missing"), 0..1, WHY)
        .await
        .unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let counted = bucket.stats().get(Operation::Get, WHY);
    assert!(counted.requests > 30 && counted.bytes > 30 << 20, "{counted:?}");
}

async fn put_if_absent(bucket: &Bucket, at: &str) {
    let key = format!("{at}/one");
    assert!(put_new(bucket, &key, &pattern(100)).await);
    assert!(!put_new(bucket, &key, &pattern(200)).await);
    assert_eq!(bucket.get(&key, WHY).await.unwrap(), pattern(100));
    let key = format!("{at}/raced");
    let bodies: Vec<Bytes> = (0..8).map(|n| pattern(70_000 + n)).collect();
    let won = futures::future::join_all(bodies.iter().map(|body| put_new(bucket, &key, body))).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = won.iter().position(|won| *won).unwrap();
    assert_eq!(bucket.get(&key, WHY).await.unwrap(), bodies[winner]);
}

async fn lists(bucket: &Bucket, at: &str) {
    let mut keys: Vec<String> = (0..30)
        .rev()
        .map(|n| format!("{at}/d{}/{n:020}", n % 3))
        .collect();
    for key in &keys {
        assert!(put_new(bucket, key, &pattern(key.len())).await);
    }
    keys.sort();
    let listed = bucket.list(at, None, WHY).await.unwrap();
    assert_eq!(
        listed.iter().map(|object| &object.key).collect::<Vec<_>>(),
        keys.iter().collect::<Vec<_>>()
    );
    assert!(listed.iter().all(|object| object.size == object.key.len() as u64));
    let after = bucket
        .list(&format!("{at}/d1"), Some(&keys[12]), WHY)
        .await
        .unwrap();
    let wanted: Vec<&String> = keys
        .iter()
        .filter(|key| key.contains("/d1/") && **key > keys[12])
        .collect();
    assert_eq!(after.iter().map(|object| &object.key).collect::<Vec<_>>(), wanted);
    assert_eq!(
        bucket.list(&format!("{at}/d"), None, WHY).await.unwrap(),
        [],
        "prefixes are whole segments"
    );
    assert_eq!(bucket.list(&format!("{at}/none"), None, WHY).await.unwrap(), []);
}

async fn deletes(bucket: &Bucket, at: &str) {
    let key = format!("{at}/one");
    assert!(put_new(bucket, &key, &pattern(10)).await);
    bucket.delete(&key, WHY).await.unwrap();
    assert!(bucket.get(&key, WHY).await.unwrap_err().is_not_found());
    bucket.delete(&key, WHY).await.unwrap();
    assert!(
        put_new(bucket, &key, &pattern(11)).await,
        "a deleted name is free"
    );
}

fn buf(body: &[u8]) -> BytesMut {
    let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
    buf.put_slice(body);
    buf
}

/// A chain from its birth to its fence.
async fn chain_life(bucket: &Bucket, at: &str) {
    let env = bucket.env().clone();
    let name = ChainName {
        prefix: at.to_owned(),
        id: ChainId(env.random_id()),
    };
    let born = chain::put_birth(bucket, &name, 7, buf(b"birth"), WHY)
        .await
        .unwrap();
    assert_eq!(born, BirthOutcome::Created);
    match chain::put_birth(bucket, &name, 7, buf(b"again"), WHY)
        .await
        .unwrap()
    {
        BirthOutcome::Exists(entry) => assert_eq!(&entry.body()[..], b"birth"),
        other => panic!("{other:?}"),
    }
    let writer = ChainWriter::start(&env, bucket, name.clone(), 1, ChainOptions::default());
    for n in 1..=40_u64 {
        writer.ready().await.unwrap();
        let body = vec![n as u8; if n == 9 { 40_000 } else { 100 }];
        let footer_at = (ENTRY_HEADER_LEN + body.len() - 10) as u64;
        let appended = writer.append(EntryKind::Data, 7, buf(&body), footer_at).unwrap();
        assert_eq!(appended.slot, n);
    }
    writer.committed(40).await.unwrap();
    for slot in [9, 10] {
        let (header, footer) = chain::read_header_and_footer(bucket, &name, slot, WHY)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (header.slot, header.epoch, footer),
            (slot, 7, Bytes::from(vec![slot as u8; 10]))
        );
    }
    let body_key = name.body_key(&[1; 16]);
    bucket
        .put(&body_key, vec![Bytes::from_static(b"state")], Reason::Checkpoint)
        .await
        .unwrap();
    assert!(
        writer.checkpoint(42, &body_key, 7, buf(b"")).await.is_err(),
        "rule A3"
    );
    assert_eq!(writer.checkpoint(31, &body_key, 7, buf(b"")).await.unwrap(), 41);
    assert!(writer.checkpoint(31, &body_key, 7, buf(b"")).await.is_err());
    assert_eq!(writer.trim(u64::MAX).await.unwrap(), 30, "slots 1 to 30");
    let found = chain::newest_checkpoint(bucket, &name, WHY)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.covers_below, found.entry_slot), (31, 41));
    assert!(chain::read_entry(bucket, &name, 30, WHY).await.unwrap().is_none());
    assert!(
        chain::read_entry(bucket, &name, 0, WHY).await.unwrap().is_some(),
        "rule I1"
    );
    let entry = chain::read_entry(bucket, &name, 41, WHY).await.unwrap().unwrap();
    assert_eq!(entry.checkpoint().unwrap(), found);

    let fenced = chain::fence(&env, bucket, &name, 8, b"taken over", WHY)
        .await
        .unwrap();
    assert_eq!((fenced.end, fenced.checkpoint), (42, Some(found)));
    let again = chain::fence(&env, bucket, &name, 9, b"another", WHY)
        .await
        .unwrap();
    assert_eq!(again.end, 42, "an existing fence is adopted");
    let late = writer.append(EntryKind::Data, 7, buf(b"late"), 0).unwrap();
    assert_eq!(
        writer.committed(late.slot).await,
        Err(ChainEnd::Fenced { slot: 42 })
    );
    let fence = chain::read_entry(bucket, &name, 42, WHY).await.unwrap().unwrap();
    assert_eq!(fence.header.kind, EntryKind::Fence);
    assert_eq!(
        chain::fence::fence_body(&fence.body()).unwrap(),
        b"taken over".as_slice()
    );
}

/// A busy owner, who checkpoints and trims as it goes, against two fencers at once (rule F3). For every store,
/// whatever trouble it makes.
pub async fn owner_and_fencer(bucket: &Bucket, at: &str) {
    let env = bucket.env().clone();
    let name = ChainName {
        prefix: at.to_owned(),
        id: ChainId(env.random_id()),
    };
    chain::put_birth(bucket, &name, 1, buf(b""), WHY).await.unwrap();
    let writer = ChainWriter::start(&env, bucket, name.clone(), 1, ChainOptions::default());
    let mut written: BTreeMap<u64, Bytes> = BTreeMap::new();
    let owner = async {
        let mut n = 0_u64;
        while writer.ready().await.is_ok() {
            n += 1;
            let body = n.to_be_bytes();
            let Ok(appended) = writer.append(EntryKind::Data, 1, buf(&body), 0) else {
                break;
            };
            written.insert(appended.slot, appended.bytes);
            if n.is_multiple_of(64) {
                let covers = writer.state().borrow().committed;
                let _ = writer.checkpoint(covers, "body", 1, buf(b"")).await;
                let _ = writer.trim(covers).await;
            }
            tokio::task::yield_now().await;
        }
    };
    let fencers = async {
        // Some entries first, so that there is something to lose.
        let _ = writer.committed(40).await;
        let body = b"taken over";
        futures::join!(
            chain::fence(&env, bucket, &name, 2, body, WHY),
            chain::fence(&env, bucket, &name, 3, body, WHY)
        )
    };
    let ((), (one, other)) = futures::join!(owner, fencers);
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.end, other.end, "fencers agree");
    let state = writer.state().borrow().clone();
    assert!(matches!(state.end, Some(ChainEnd::Fenced { .. })), "{state:?}");
    assert!(
        state.committed <= one.end,
        "committed up to {}, fenced at {}",
        state.committed,
        one.end
    );
    // Rule F4: a checkpoint committed below the fence may get its marker, and delete, after the fence.
    'again: loop {
        let checkpoint = chain::checkpoint_below(bucket, &name, one.end, WHY)
            .await
            .unwrap();
        let from = checkpoint.map_or(1, |checkpoint| checkpoint.covers_below);
        for slot in from..one.end {
            let Some(entry) = chain::read_entry(bucket, &name, slot, WHY).await.unwrap() else {
                let newer = chain::checkpoint_below(bucket, &name, one.end, WHY)
                    .await
                    .unwrap();
                let covered = newer.is_some_and(|checkpoint| checkpoint.covers_below > slot);
                assert!(covered, "slot {slot} of {from}..{} is missing", one.end);
                continue 'again;
            };
            if entry.header.kind == EntryKind::Data {
                assert_eq!(Some(&entry.bytes), written.get(&slot), "slot {slot}");
            }
        }
        return;
    }
}
