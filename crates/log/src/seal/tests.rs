use proptest::prelude::*;

use super::*;
use crate::footer::tests::sample_id;
use crate::formats::{Format, offsets};

/// A bundle of rows whose data is nothing but zeros.
fn bundle(rows: &[BundleRow]) -> Vec<u8> {
    let data: u64 = rows.iter().map(|row| row.length).sum();
    let mut bytes = vec![0; data as usize];
    bytes.extend_from_slice(&encode_bundle_table(rows));
    bytes
}

proptest! {
    #[test]
    fn tables_come_back(
        rows in proptest::collection::vec(
            (any::<[u8; 16]>(), 0..i32::MAX, offsets(), 0..1_000_000i64, 0..300u64, any::<u32>()),
            0..20,
        ),
    ) {
        let mut position = 0;
        let rows: Vec<BundleRow> = rows
            .into_iter()
            .map(|(topic, partition, base_offset, count, length, crc)| {
                let row = BundleRow {
                    id: TopicPartition { topic: TopicId(topic), partition },
                    base_offset,
                    end_offset: base_offset + count,
                    position,
                    length,
                    crc,
                };
                position += length;
                row
            })
            .collect();
        prop_assert_eq!(decode_bundle_table(&bundle(&rows)).unwrap(), rows);
    }
}

#[test]
fn the_bundle_holds() {
    let rows: Vec<BundleRow> = (0..6u8)
        .map(|n| BundleRow {
            id: sample_id(n),
            base_offset: 1000 * i64::from(n),
            end_offset: 1000 * i64::from(n) + 10,
            position: 100 * u64::from(n),
            length: 100,
            crc: 0xbeef_0000 + u32::from(n),
        })
        .collect();
    let rewrite = |bytes: &[u8]| {
        decode_bundle_table(bytes).map(|rows| {
            let mut again = vec![0; 600];
            again.extend_from_slice(&encode_bundle_table(&rows));
            again
        })
    };
    let sample = bundle(&rows);
    let format = Format {
        frame_at: 600,
        frame_len: sample.len() - 604,
        sample,
        rewrite: &rewrite,
        newest: 1,
    };
    format.hold((0x04ab19b2, 778));
}
