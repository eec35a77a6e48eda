use proptest::prelude::*;

use super::*;
use crate::formats::{Format, offsets};

fn topic_partition() -> impl Strategy<Value = TopicPartition> {
    (any::<[u8; 16]>(), 0..i32::MAX).prop_map(|(topic, partition)| TopicPartition {
        topic: TopicId(topic),
        partition,
    })
}

pub(crate) fn producer_batch() -> impl Strategy<Value = ProducerBatch> {
    let sequences = (any::<i16>(), any::<i32>(), any::<i32>());
    (
        any::<i64>(),
        sequences,
        offsets(),
        0..1_000_000i64,
        any::<i64>(),
        0..4u8,
    )
        .prop_map(
            |(producer_id, (epoch, first_sequence, last_sequence), base_offset, count, timestamp, flags)| {
                ProducerBatch {
                    producer_id,
                    epoch,
                    first_sequence,
                    last_sequence,
                    base_offset,
                    last_offset: base_offset + count,
                    timestamp,
                    flags,
                }
            },
        )
}

fn extent() -> impl Strategy<Value = ExtentRecord> {
    let place = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let producers = proptest::collection::vec(producer_batch(), 0..4);
    let told = (any::<i32>(), offsets(), 0..1_000_000i64, any::<i64>());
    (topic_partition(), told, place, producers).prop_map(
        |(
            id,
            (leader_epoch, base_offset, count, max_timestamp),
            (position, length, crc, batches),
            producers,
        )| {
            ExtentRecord {
                id,
                leader_epoch,
                base_offset,
                last_offset: base_offset + count,
                position: position.into(),
                length: length.into(),
                max_timestamp,
                crc,
                batches,
                producers,
            }
        },
    )
}

proptest! {
    #[test]
    fn footers_come_back(extents in proptest::collection::vec(extent(), 0..20)) {
        let bytes = encode_footer(extents.iter());
        prop_assert_eq!(decode_footer(&bytes).unwrap(), extents);
    }

    #[test]
    fn edits_come_back(moves in proptest::collection::vec((topic_partition(), offsets()), 0..20)) {
        let edits: Vec<Edit> = moves.into_iter().map(|(id, offset)| Edit::LogStart { id, offset }).collect();
        let bytes = encode_edits(&edits);
        prop_assert_eq!(decode_edits(&bytes.into()).unwrap(), edits);
    }
}

pub(crate) fn sample_id(n: u8) -> TopicPartition {
    TopicPartition {
        topic: TopicId([n; 16]),
        partition: i32::from(n) * 300,
    }
}

pub(crate) fn sample_batch(n: i64) -> ProducerBatch {
    ProducerBatch {
        producer_id: 1000 + n,
        epoch: n as i16,
        first_sequence: 10 * n as i32,
        last_sequence: 10 * n as i32 + 9,
        base_offset: 5000 + 10 * n,
        last_offset: 5009 + 10 * n,
        timestamp: 1_700_000_000_000 + n,
        flags: 0,
    }
}

#[test]
fn the_footer_holds() {
    let extents: Vec<ExtentRecord> = (1..6u8)
        .map(|n| ExtentRecord {
            id: sample_id(n % 3),
            leader_epoch: n.into(),
            base_offset: 5000,
            last_offset: 5000 + i64::from(n),
            position: 96 + 1000 * u64::from(n),
            length: 1000,
            max_timestamp: 1_700_000_000_000,
            crc: 0xdead_0000 + u32::from(n),
            batches: n.into(),
            producers: (0..i64::from(n)).map(sample_batch).collect(),
        })
        .collect();
    let rewrite = |bytes: &[u8]| decode_footer(bytes).map(|read| encode_footer(read.iter()));
    Format::framed(encode_footer(extents.iter()), &rewrite).hold((0xc7822e37, 383));
}

#[test]
fn edits_hold() {
    let edits: Vec<Edit> = (0..5u8)
        .map(|n| Edit::LogStart {
            id: sample_id(n),
            offset: 1 << (8 * n),
        })
        .collect();
    let rewrite = |bytes: &[u8]| decode_edits(&Bytes::copy_from_slice(bytes)).map(|read| encode_edits(&read));
    Format::framed(encode_edits(&edits), &rewrite).hold((0xd629e2aa, 119));
}
