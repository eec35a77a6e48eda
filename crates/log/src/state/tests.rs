use proptest::prelude::*;

use super::*;
use crate::footer::tests::{producer_batch, sample_batch, sample_id};
use crate::formats::{Format, offsets};
use crate::manifest::tests::{sample_cleaned, sample_detail, sample_segment, segment};

fn extent() -> impl Strategy<Value = StoredExtent> {
    let place = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>());
    let told = (any::<i32>(), offsets(), 0..1_000_000i64, any::<i64>());
    ("wal/[0-9a-f]{2}/[0-9]/[0-9]{1,3}", any::<[u8; 16]>(), told, place).prop_map(
        |(
            chain,
            chain_id,
            (leader_epoch, base_offset, count, max_timestamp),
            (position, length, crc, slot),
        )| {
            StoredExtent {
                chain: chain.as_str().into(),
                chain_id,
                slot,
                leader_epoch,
                base_offset,
                last_offset: base_offset + count,
                position: position.into(),
                length: length.into(),
                max_timestamp,
                crc,
            }
        },
    )
}

fn producer() -> impl Strategy<Value = StoredProducer> {
    let batches = proptest::collection::vec(producer_batch(), 0..5);
    (any::<i64>(), any::<i16>(), any::<i64>(), batches).prop_map(
        |(producer_id, epoch, last_timestamp, mut batches)| {
            batches
                .iter_mut()
                .for_each(|batch| batch.producer_id = producer_id);
            StoredProducer {
                producer_id,
                epoch,
                last_timestamp,
                batches,
            }
        },
    )
}

fn span() -> impl Strategy<Value = Span> {
    ("wal/[0-9a-f]{2}/1/1/bundle/[0-9]", any::<u32>(), segment()).prop_map(|(bundle, position, segment)| {
        Span {
            bundle: bundle.as_str().into(),
            sealed_ms: segment.sealed_ms,
            base_offset: segment.base_offset,
            end_offset: segment.end_offset,
            position: position.into(),
            length: segment.size,
            max_timestamp: segment.max_timestamp,
            detail: segment.detail,
        }
    })
}

fn partition() -> impl Strategy<Value = PartitionState> {
    let manifest = proptest::option::of(("topic/[a-z0-9/]{1,40}", any::<u64>()));
    let parts = (
        proptest::collection::vec((any::<i32>(), offsets()), 0..4),
        proptest::collection::vec(producer(), 0..4),
        proptest::collection::vec(segment(), 0..3),
        proptest::collection::vec(span(), 0..3),
        proptest::collection::vec(extent(), 0..4),
    );
    (
        any::<[u8; 16]>(),
        0..i32::MAX,
        offsets(),
        (offsets(), any::<bool>(), any::<bool>()),
        manifest,
        parts,
    )
        .prop_map(
            |(
                topic,
                partition,
                log_start,
                (more, cleaned, dropped),
                manifest,
                (epochs, producers, segments, spans, extents),
            )| {
                PartitionState {
                    id: TopicPartition {
                        topic: TopicId(topic),
                        partition,
                    },
                    log_start,
                    log_end: log_start + more,
                    cleaned_to: if cleaned { log_start } else { 0 },
                    tombstones_from: if cleaned && dropped { log_start / 2 } else { 0 },
                    epochs,
                    producers,
                    manifest: manifest.map(|(key, length)| ManifestRef {
                        key: key.as_str().into(),
                        length,
                    }),
                    segments,
                    spans,
                    extents,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn leaves_come_back(partitions in proptest::collection::vec(partition(), 0..4)) {
        prop_assert_eq!(decode_state_leaf(&encode_state_leaf(&partitions)).unwrap(), partitions);
    }

    #[test]
    fn roots_come_back(
        cluster_id in ".{0,40}",
        numbers in (any::<i32>(), any::<u64>(), any::<u64>(), any::<u64>()),
        leaves in proptest::collection::vec(
            ("[a-z0-9/]{1,40}", any::<u64>(), any::<[u8; 16]>(), 0..i32::MAX, any::<u32>(),
             proptest::collection::vec("[a-z0-9/]{1,40}", 0..3)),
            0..5,
        ),
    ) {
        let leaves = leaves.into_iter().map(|(key, length, topic, partition, partitions, names)| LeafRef {
            key: key.as_str().into(),
            length,
            first: TopicPartition { topic: TopicId(topic), partition },
            partitions,
            names: names.iter().map(|name| name.as_str().into()).collect(),
        });
        let (node, incarnation, covers_below, round) = numbers;
        let root = StateRoot { cluster_id, node, incarnation, covers_below, round, leaves: leaves.collect() };
        prop_assert_eq!(decode_state_root(&encode_state_root(&root)).unwrap(), root);
    }
}

#[test]
fn the_root_holds() {
    let root = StateRoot {
        cluster_id: "ZHJ1bWxpbi10ZXN0cy0wMQ".to_owned(),
        node: -1,
        incarnation: 300,
        covers_below: 70_000,
        round: 5,
        leaves: (1..4u8)
            .map(|n| LeafRef {
                key: format!("wal/3f/1/300/body/{n}").into(),
                length: 1 << (10 * n),
                first: sample_id(n),
                partitions: 1000,
                names: vec!["wal/3f/1/300/bundle/1".into(), "wal/aa/1/200".into()],
            })
            .collect(),
    };
    let rewrite = |bytes: &[u8]| decode_state_root(bytes).map(|read| encode_state_root(&read));
    Format::framed(encode_state_root(&root), &rewrite).hold((0x98d976a7, 278));
}

fn sample_leaf(cleaned: bool) -> Vec<PartitionState> {
    let bundle: Arc<str> = "wal/3f/1/300/bundle/00000000000000000005-0123456789abcdef".into();
    (1..5u8)
        .map(|n| PartitionState {
            id: sample_id(n),
            log_start: 1000,
            log_end: 9000 + i64::from(n),
            cleaned_to: if cleaned { 8000 } else { 0 },
            tombstones_from: if cleaned { 1000 * i64::from(n) } else { 0 },
            epochs: vec![(1, 1000), (3, 4000)],
            producers: vec![StoredProducer {
                producer_id: 1002,
                epoch: 2,
                last_timestamp: 1_700_000_000_002,
                batches: vec![ProducerBatch {
                    epoch: 2,
                    ..sample_batch(2)
                }],
            }],
            manifest: (n % 2 == 1).then(|| ManifestRef {
                key: format!("topic/ab/{n}/0/manifest/1-2-3-4").into(),
                length: 12_345,
            }),
            segments: vec![if cleaned {
                sample_cleaned(n.into())
            } else {
                sample_segment(n.into())
            }],
            spans: vec![Span {
                bundle: Arc::clone(&bundle),
                sealed_ms: 1_700_000_100_000,
                base_offset: 7000,
                end_offset: 8000,
                position: 1 << 20,
                length: 600_000,
                max_timestamp: -1,
                detail: sample_detail(600_000),
            }],
            extents: vec![StoredExtent {
                chain: "wal/aa/1/200".into(),
                chain_id: [9; 16],
                slot: 77,
                leader_epoch: 3,
                base_offset: 8000,
                last_offset: 8999,
                position: 96,
                length: 262_144,
                max_timestamp: 1_700_000_000_000,
                crc: 0x1234_5678,
            }],
        })
        .collect()
}

#[test]
fn the_leaf_holds() {
    let rewrite = |bytes: &[u8]| decode_state_leaf(bytes).map(|read| encode_state_leaf(&read));
    let hold = |cleaned, known| {
        let sample = encode_state_leaf(&sample_leaf(cleaned));
        Format::framed(sample, &rewrite).up_to(3).hold(known);
    };
    hold(false, (0xaa0bc6a2, 1518));
    hold(true, (0x57c68876, 1538));
}

#[test]
fn where_tombstones_may_be_missing_is_unknown_before_version_3() {
    let sample = sample_leaf(true);
    let old = encode_leaf(&sample, VERSION_CLEANED);
    assert_eq!((crc32c::crc32c(&old), old.len()), (0xb15b6304, 1530));
    let told = sample.into_iter().map(|partition| PartitionState {
        tombstones_from: partition.cleaned_to,
        ..partition
    });
    assert_eq!(decode_state_leaf(&old).unwrap(), told.collect::<Vec<_>>());
}
