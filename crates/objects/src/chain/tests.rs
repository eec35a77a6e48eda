//! Formats: round trips, every truncation, every flipped bit. Writers: order, hedges, ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::bucket::{Bucket, BucketKind, BucketOptions};
use crate::env::Env;
use crate::fault::{FaultStore, Faults, Outage};
use crate::stats::{Operation, Reason};

fn header() -> impl Strategy<Value = EntryHeader> {
    (
        0_u8..8,
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<[u8; 16]>(),
        any::<u64>(),
        0_u64..1 << 40,
        any::<u32>(),
    )
        .prop_map(
            |(kind, chain, slot, put_id, epoch, body_len, body_crc)| EntryHeader {
                kind: [
                    EntryKind::Birth,
                    EntryKind::Data,
                    EntryKind::Fence,
                    EntryKind::Checkpoint,
                    EntryKind::Release,
                    EntryKind::Edit,
                    EntryKind::Control,
                    EntryKind::GivenUp,
                ][usize::from(kind)],
                chain: ChainId(chain),
                slot,
                put_id,
                epoch,
                body_len,
                footer_at: if body_crc.is_multiple_of(2) {
                    0
                } else {
                    96 + body_len / 2
                },
                body_crc,
            },
        )
}

proptest! {
    #[test]
    fn headers_round_trip(header in header()) {
        prop_assert_eq!(EntryHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(EntryHeader::decode(&bytes).is_err());
        prop_assert!(Entry::decode(bytes.clone().into()).is_err());
        prop_assert!(Checkpoint::decode(&bytes, &ChainId([0; 16])).is_err());
    }

    #[test]
    fn markers_round_trip(key in "[a-z0-9/]{0,80}", covers_below: u64, entry_slot: u64, id: [u8; 16]) {
        let checkpoint = Checkpoint { covers_below, body_key: key, entry_slot };
        let bytes = checkpoint.encode(&ChainId(id));
        prop_assert_eq!(Checkpoint::decode(&bytes, &ChainId(id)), Ok(checkpoint));
    }
}

fn name() -> ChainName {
    ChainName {
        prefix: "wal/3f/1/17".to_owned(),
        id: ChainId([7; 16]),
    }
}

fn buf(body: &[u8]) -> BytesMut {
    let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
    buf.extend_from_slice(body);
    buf
}

#[test]
fn an_entry_cut_anywhere_or_with_any_bit_flipped_is_refused() {
    let whole = writer::freeze(EntryKind::Data, &name(), 5, [9; 16], 3, buf(&[0xa5; 60]), 120);
    assert_eq!(Entry::decode(whole.clone()).unwrap().footer().len(), 36);
    for len in 0..whole.len() {
        assert!(Entry::decode(whole.slice(..len)).is_err(), "cut at {len}");
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Entry::decode(bytes.into()).is_err(), "bit {bit}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert!(Entry::decode(longer.into()).is_err());
}

#[test]
fn a_marker_cut_anywhere_or_with_any_bit_flipped_is_refused() {
    let checkpoint = Checkpoint {
        covers_below: 31,
        body_key: "wal/3f/1/17/body/00ff".to_owned(),
        entry_slot: 41,
    };
    let whole = checkpoint.encode(&ChainId([7; 16]));
    for len in 0..whole.len() {
        assert!(
            Checkpoint::decode(&whole[..len], &ChainId([7; 16])).is_err(),
            "cut at {len}"
        );
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Checkpoint::decode(&bytes, &ChainId([7; 16])).is_err(),
            "bit {bit}"
        );
    }
    assert!(
        Checkpoint::decode(&whole, &ChainId([8; 16])).is_err(),
        "another chain's"
    );
}

#[test]
fn the_header_lies_as_its_page_says() {
    let bytes = writer::freeze(EntryKind::Edit, &name(), 0x0102, [9; 16], 3, buf(b"body"), 98);
    assert_eq!(&bytes[..8], b"DRML\x01\x05\0\0");
    assert_eq!(&bytes[8..24], &[7; 16]);
    assert_eq!(&bytes[24..32], &[0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(&bytes[32..48], &[9; 16]);
    assert_eq!(
        &bytes[48..72],
        &[&[0; 7][..], &[3], &[0; 7], &[4], &[0; 7], &[98]].concat()
    );
    assert_eq!(&bytes[72..76], &crc32c::crc32c(b"body").to_be_bytes());
    assert_eq!(&bytes[76..92], &[0; 16]);
    assert_eq!(&bytes[92..96], &crc32c::crc32c(&bytes[..92]).to_be_bytes());
    // A newer version, even with a right CRC.
    for (at, value) in [(4, 2), (5, 8), (6, 1), (80, 1)] {
        let mut newer = bytes.to_vec();
        newer[at] = value;
        let crc = crc32c::crc32c(&newer[..92]).to_be_bytes();
        newer[92..96].copy_from_slice(&crc);
        assert!(EntryHeader::decode(&newer).is_err(), "byte {at}");
    }
}

#[test]
fn keys() {
    assert_eq!(entry_key("meta", 7), "meta/log/00000000000000000007");
    assert_eq!(
        marker_key("meta", u64::MAX),
        "meta/checkpoint/18446744073709551615"
    );
    assert_eq!(
        body_key("meta", &[0xab; 16]),
        format!("meta/body/{}", "ab".repeat(16))
    );
    assert_eq!(number_of(&entry_key("meta", 7)), Some(7));
    assert_eq!(number_of("meta/log/7"), None);
    assert_eq!(number_of("meta/log/0000000000000000000x"), None);
    assert_eq!(number_of("meta/log/99999999999999999999"), None);
}

struct Rig {
    env: Env,
    store: FaultStore,
    bucket: Bucket,
}

fn rig(seed: u64, kind: BucketKind) -> Rig {
    let env = Env::simulated(seed, 0);
    let store = FaultStore::new(Arc::new(InMemory::new()), seed);
    let options = BucketOptions {
        retry_for: Duration::from_secs(600),
        ..BucketOptions::default()
    };
    let bucket = Bucket::from_store_with(Arc::new(store.clone()), kind, &env, options);
    Rig { env, store, bucket }
}

impl Rig {
    fn writer(&self, options: ChainOptions) -> ChainWriter {
        ChainWriter::start(&self.env, &self.bucket, name(), 1, options)
    }
}

fn data(writer: &ChainWriter) -> u64 {
    writer.append(EntryKind::Data, 1, buf(b"x"), 0).unwrap().slot
}

#[tokio::test(start_paused = true)]
async fn the_window_counts_from_the_first_uncommitted_slot() {
    let rig = rig(1, BucketKind::Memory);
    let writer = rig.writer(ChainOptions::default());
    rig.store.set_outage(Outage::Hang);
    for _ in 0..MAX_WINDOW {
        data(&writer);
    }
    assert_eq!(
        writer.append(EntryKind::Data, 1, buf(b""), 0).unwrap_err(),
        AppendRefused::Full
    );
    assert!(
        tokio::time::timeout(Duration::from_secs(300), writer.ready())
            .await
            .is_err()
    );
    assert_eq!(writer.state().borrow().committed, 1);
    rig.store.set_outage(Outage::None);
    writer.ready().await.unwrap();
    writer.committed(MAX_WINDOW).await.unwrap();
    assert_eq!(writer.state().borrow().committed, MAX_WINDOW + 1);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_put_is_hedged_and_the_second_is_known_as_ones_own() {
    let rig = rig(2, BucketKind::Remote);
    let writer = rig.writer(ChainOptions::default());
    rig.store.change(|faults| {
        faults.stall = 1.0;
        faults.stall_for = Duration::from_secs(12)..Duration::from_secs(12);
    });
    let slot = data(&writer);
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.store.set(Faults::none());
    let began = tokio::time::Instant::now();
    writer.committed(slot).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // The first lands later, on a slot that is taken: nothing comes of it.
    tokio::time::sleep(Duration::from_secs(20)).await;
    writer.committed(data(&writer)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_read_back_as_ones_own_and_a_false_conflict_is_tried_again() {
    let rig = rig(3, BucketKind::Memory);
    let writer = rig.writer(ChainOptions::default());
    rig.store.change(|faults| faults.error_after = 1.0);
    writer.committed(data(&writer)).await.unwrap();
    rig.store.set(Faults {
        false_conflict: 1.0,
        ..Faults::none()
    });
    let slot = data(&writer);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        writer.state().borrow().committed,
        slot,
        "rule F1: a conflict without an object is no fence"
    );
    rig.store.set(Faults::none());
    writer.committed(slot).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_fsync_ends_the_chain_and_a_full_disk_does_not() {
    let rig = rig(4, BucketKind::Local);
    let writer = rig.writer(ChainOptions::default());
    rig.store.change(|faults| faults.full = true);
    let slot = data(&writer);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(writer.state().borrow().end, None);
    rig.store.set(Faults::none());
    writer.committed(slot).await.unwrap();
    rig.store.change(|faults| faults.fsync_failed = 1.0);
    let end = writer.committed(data(&writer)).await.unwrap_err();
    assert!(matches!(end, ChainEnd::Failed { .. }), "{end}");
    assert!(matches!(
        writer.append(EntryKind::Data, 1, buf(b""), 0),
        Err(AppendRefused::Ended(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_above_a_hole_or_after_an_end() {
    let rig = rig(5, BucketKind::Memory);
    let writer = rig.writer(ChainOptions::default());
    // Somebody else has slot 2.
    let fenced = fence(&rig.env, &rig.bucket, &name(), 9, b"", Reason::Recovery)
        .await
        .unwrap();
    assert_eq!(
        fenced.end, 0,
        "a chain that was never born is fenced at its birth"
    );
    rig.bucket
        .delete(&entry_key(&name().prefix, MAX_WINDOW), Reason::Sweep)
        .await
        .unwrap();
    rig.bucket
        .put_new(
            &entry_key(&name().prefix, 2),
            Bytes::from_static(b"garbage"),
            Reason::Check,
        )
        .await
        .unwrap();
    let slots: Vec<u64> = (0..3).map(|_| data(&writer)).collect();
    assert_eq!(
        writer.committed(slots[2]).await,
        Err(ChainEnd::Fenced { slot: 2 })
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(writer.state().borrow().committed <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_or_dropped_writer_tries_no_more() {
    let rig = rig(6, BucketKind::Memory);
    let writer = rig.writer(ChainOptions::default());
    rig.store.set_outage(Outage::Refuse);
    let slot = data(&writer);
    let state = writer.state();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(writer);
    rig.store.set_outage(Outage::None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state.borrow().end, Some(ChainEnd::Stopped));
    assert!(
        read_entry(&rig.bucket, &name(), slot, Reason::Check)
            .await
            .unwrap()
            .is_none()
    );
    assert!(rig.env.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn markers_stay_for_their_grace_and_fences_and_births_for_ever() {
    let rig = rig(7, BucketKind::Memory);
    put_birth(&rig.bucket, &name(), 1, buf(b""), Reason::Meta)
        .await
        .unwrap();
    let writer = rig.writer(ChainOptions {
        window: 1,
        ..ChainOptions::default()
    });
    for n in 1..=10 {
        writer.ready().await.unwrap();
        let kind = if n == 3 { EntryKind::Fence } else { EntryKind::Data };
        writer
            .committed(writer.append(kind, 1, buf(b""), 0).unwrap().slot)
            .await
            .unwrap();
    }
    assert_eq!(writer.checkpoint(6, "b1", 1, buf(b"")).await.unwrap(), 11);
    writer.trim(6).await.unwrap();
    drop(writer);
    // Another owner goes on: what the first left is found by a list.
    let writer = ChainWriter::start(&rig.env, &rig.bucket, name(), 12, ChainOptions::default());
    writer.committed(data(&writer)).await.unwrap();
    assert_eq!(writer.checkpoint(12, "b2", 1, buf(b"")).await.unwrap(), 13);
    assert_eq!(writer.trim(9).await.unwrap(), 3, "no further than asked");
    assert_eq!(
        writer.trim(100).await.unwrap(),
        3,
        "9 to 11, and no further than the checkpoint"
    );
    let prefix = name().prefix;
    let keys = async |what: &str| -> Vec<u64> {
        let listed = rig
            .bucket
            .list(&format!("{prefix}/{what}"), None, Reason::Check)
            .await
            .unwrap();
        listed
            .iter()
            .filter_map(|object| number_of(&object.key))
            .collect()
    };
    assert_eq!(keys("log").await, [0, 3, 12, 13]);
    assert_eq!(keys("checkpoint").await, [6, 12]);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(writer.trim(100).await.unwrap(), 1);
    assert_eq!(keys("checkpoint").await, [12]);
    // A late put brings an entry back: rule D4.
    rig.bucket
        .put_new(
            &entry_key(&prefix, 5),
            writer::freeze(EntryKind::Data, &name(), 5, [1; 16], 1, buf(b""), 0),
            Reason::Check,
        )
        .await
        .unwrap();
    assert_eq!(writer.sweep_strays().await.unwrap(), 1);
    assert_eq!(keys("log").await, [0, 3, 12, 13]);
}

#[tokio::test(start_paused = true)]
async fn reading_a_footer_costs_one_get_for_a_small_object_and_two_for_a_large_one() {
    let rig = rig(8, BucketKind::Memory);
    let writer = rig.writer(ChainOptions::default());
    for len in [100, 100_000] {
        let slot = writer
            .append(EntryKind::Data, 1, buf(&vec![3; len]), 150)
            .unwrap()
            .slot;
        writer.committed(slot).await.unwrap();
    }
    let mut before = 0;
    for (slot, gets) in [(1, 1), (2, 2)] {
        let (header, footer) = read_header_and_footer(&rig.bucket, &name(), slot, Reason::Recovery)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(header.object_len() - 150, footer.len() as u64);
        let now = rig.bucket.stats().get(Operation::Get, Reason::Recovery).requests;
        assert_eq!(now - before, gets);
        before = now;
    }
    assert!(
        read_header_and_footer(&rig.bucket, &name(), 3, Reason::Recovery)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn damaged_and_foreign_entries_are_named() {
    let rig = rig(9, BucketKind::Memory);
    let good = writer::freeze(EntryKind::Data, &name(), 5, [1; 16], 1, buf(&[1; 50_000]), 50_000);
    let other = ChainName {
        id: ChainId([8; 16]),
        ..name()
    };
    let foreign = writer::freeze(EntryKind::Data, &other, 6, [1; 16], 1, buf(b""), 0);
    let mut torn = good.to_vec();
    torn[7000] ^= 1;
    for (slot, bytes) in [
        (4, good.clone()),
        (5, torn.into()),
        (6, foreign),
        (7, good.slice(..60)),
    ] {
        rig.bucket
            .put_new(&name().entry_key(slot), bytes, Reason::Check)
            .await
            .unwrap();
        let error = read_entry(&rig.bucket, &name(), slot, Reason::Check)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&name().entry_key(slot)), "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_chain_still_stops_an_owner_that_wakes_up() {
    let rig = rig(10, BucketKind::Memory);
    put_birth(&rig.bucket, &name(), 1, buf(b""), Reason::Wal)
        .await
        .unwrap();
    let writer = rig.writer(ChainOptions::default());
    writer.committed(data(&writer)).await.unwrap();
    let fenced = fence(&rig.env, &rig.bucket, &name(), 9, b"", Reason::Recovery)
        .await
        .unwrap();
    assert_eq!(fenced.end, 2);
    assert_eq!(
        remove_chain(&rig.bucket, &name(), fenced.end).await.unwrap(),
        3,
        "birth, entry, stopper"
    );
    let end = writer.committed(data(&writer)).await.unwrap_err();
    assert_eq!(end, ChainEnd::Fenced { slot: 2 });
}

/// A chain of data entries in these slots, and nothing else.
async fn chain_with(slots: impl IntoIterator<Item = u64>) -> (Env, Bucket) {
    let env = Env::real();
    let bucket = Bucket::from_store(Arc::new(InMemory::new()), BucketKind::Memory, &env);
    for slot in slots {
        let bytes = writer::freeze(
            EntryKind::Data,
            &name(),
            slot,
            [slot as u8; 16],
            0,
            buf(b"data"),
            0,
        );
        bucket
            .put_new(&name().entry_key(slot), bytes, Reason::Wal)
            .await
            .unwrap();
    }
    (env, bucket)
}

async fn fenced(env: &Env, bucket: &Bucket) -> Result<FenceOutcome, ChainError> {
    fence(env, bucket, &name(), 0, b"test", Reason::Recovery).await
}

#[tokio::test]
async fn a_hole_is_proven_by_an_entry_sixteen_slots_above_and_by_no_nearer_one() {
    for last in [18, 19] {
        let (env, bucket) = chain_with((0..=last).filter(|slot| ![3, 7].contains(slot))).await;
        let outcome = fenced(&env, &bucket).await;
        if last == 18 {
            assert_eq!(outcome.unwrap().end, 3);
            continue;
        }
        let Err(ChainError::Missing(missing)) = outcome else {
            panic!("{outcome:?}")
        };
        // What is 12 slots above the second hole does not prove that one.
        assert_eq!((missing.slots, missing.proof), (vec![3], 19));
        let listed = bucket.list("wal", None, Reason::Check).await.unwrap();
        assert_eq!(listed.len(), 18, "no fence is put into the hole");
        assert!(
            give_up_entry(&bucket, &name(), 3, Reason::Recovery)
                .await
                .unwrap()
        );
        assert!(
            !give_up_entry(&bucket, &name(), 3, Reason::Recovery)
                .await
                .unwrap(),
            "once"
        );
        assert_eq!(fenced(&env, &bucket).await.unwrap().end, 7);
    }
}

#[tokio::test]
async fn a_stopper_proves_nothing() {
    let (env, bucket) = chain_with(0..3).await;
    // Two fencers, the second while the first one's fences stand, and once more: the end is the same.
    for _ in 0..3 {
        assert_eq!(fenced(&env, &bucket).await.unwrap().end, 3);
    }
    // The window of the owner that lost slot 3 may have reached up to here.
    for slot in 4..19 {
        let bytes = writer::freeze(EntryKind::Data, &name(), slot, [9; 16], 0, buf(b"late"), 0);
        bucket
            .put_new(&name().entry_key(slot), bytes, Reason::Wal)
            .await
            .unwrap();
    }
    assert_eq!(fenced(&env, &bucket).await.unwrap().end, 3);
    assert_eq!(
        missing_entries(&bucket, &name(), Reason::Check).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_fence_in_a_proven_hole_ends_nothing_and_gives_way() {
    let (env, bucket) = chain_with((0..3).chain(4..30)).await;
    let put = |slot| {
        let bytes = writer::freeze(
            EntryKind::Fence,
            &name(),
            slot,
            [8; 16],
            0,
            buf(&[0; FENCE_LEN - 96]),
            0,
        );
        let (bucket, key) = (bucket.clone(), name().entry_key(slot));
        async move { bucket.put_new(&key, bytes, Reason::Recovery).await.unwrap() }
    };
    put(3).await;
    let Err(ChainError::Missing(missing)) = fenced(&env, &bucket).await else {
        panic!("refused")
    };
    assert_eq!(missing.slots, [3]);
    assert!(
        give_up_entry(&bucket, &name(), 3, Reason::Recovery)
            .await
            .unwrap()
    );
    assert_eq!(fenced(&env, &bucket).await.unwrap().end, 30);
}

#[tokio::test]
async fn what_a_checkpoint_replaced_is_not_missing() {
    let (env, bucket) = chain_with((0..1).chain(20..40)).await;
    let Err(ChainError::Missing(missing)) = fenced(&env, &bucket).await else {
        panic!("refused")
    };
    assert_eq!(
        (missing.slots.first(), missing.slots.last()),
        (Some(&1), Some(&19))
    );
    let checkpoint = Checkpoint {
        covers_below: 20,
        body_key: "body".to_owned(),
        entry_slot: 25,
    };
    let marker = checkpoint.encode(&name().id);
    bucket
        .put_new(&name().marker_key(20), marker, Reason::Wal)
        .await
        .unwrap();
    assert_eq!(fenced(&env, &bucket).await.unwrap().end, 40);
}
