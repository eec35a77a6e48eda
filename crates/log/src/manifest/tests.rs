use proptest::prelude::*;

use super::*;
use crate::formats::{Format, offsets};

fn detail(blocks: usize) -> impl Strategy<Value = SegmentDetail> {
    let index = proptest::collection::vec((0..1u64 << 40, 0..1u64 << 40, any::<i64>()), 0..10);
    let aborted = proptest::collection::vec((any::<i64>(), offsets(), offsets(), offsets()), 0..3);
    (proptest::collection::vec(any::<u32>(), blocks), index, aborted).prop_map(
        |(block_crcs, steps, aborted)| {
            let (mut offset_delta, mut position) = (0, 0);
            let index = steps
                .into_iter()
                .map(|(offset, bytes, max_timestamp_before)| {
                    (offset_delta, position) = (offset_delta + offset, position + bytes);
                    IndexEntry {
                        offset_delta,
                        position,
                        max_timestamp_before,
                    }
                })
                .collect();
            let aborted = aborted
                .into_iter()
                .map(
                    |(producer_id, first_offset, last_offset, last_stable_offset)| AbortedTransaction {
                        producer_id,
                        first_offset,
                        last_offset,
                        last_stable_offset,
                    },
                )
                .collect();
            SegmentDetail {
                block_crcs,
                index,
                aborted,
            }
        },
    )
}

pub(crate) fn segment() -> impl Strategy<Value = Segment> {
    (1..20u64 * BLOCK_BYTES as u64).prop_flat_map(|size| {
        let names = (
            any::<i32>(),
            any::<u64>(),
            any::<u64>(),
            any::<u32>(),
            any::<bool>(),
        );
        let times = (any::<i64>(), any::<i64>());
        let blocks = size.div_ceil(BLOCK_BYTES as u64) as usize;
        (offsets(), 1..1_000_000i64, names, times, detail(blocks)).prop_map(
            move |(
                base_offset,
                count,
                (epoch, incarnation, unique, crc, cleaned),
                (max_timestamp, sealed_ms),
                detail,
            )| {
                Segment {
                    base_offset,
                    end_offset: base_offset + count,
                    size,
                    max_timestamp,
                    sealed_ms,
                    epoch,
                    incarnation,
                    unique,
                    cleaned,
                    crc,
                    detail,
                }
            },
        )
    })
}

fn pointer() -> impl Strategy<Value = LeafPointer> {
    let sizes = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>());
    ("[a-z0-9/-]{1,80}", offsets(), offsets(), any::<i64>(), sizes).prop_map(
        |(key, base_offset, end_offset, max_timestamp, (bytes, segments, table_length, length))| {
            LeafPointer {
                key: key.as_str().into(),
                base_offset,
                end_offset,
                max_timestamp,
                bytes,
                segments,
                table_length,
                length,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn roots_come_back(
        leaves in proptest::collection::vec(pointer(), 0..5),
        segments in proptest::collection::vec(segment(), 0..5),
    ) {
        let root = ManifestRoot { leaves, segments };
        prop_assert_eq!(decode_root(&encode_root(&root)).unwrap(), root);
    }

    #[test]
    fn leaves_come_back_whole_and_by_ranges(segments in proptest::collection::vec(segment(), 0..8)) {
        let (bytes, table_length) = encode_leaf(&segments);
        prop_assert_eq!(&decode_leaf(&bytes, table_length).unwrap(), &segments);
        let rows = decode_leaf_table(&bytes[..table_length as usize]).unwrap();
        for (row, segment) in rows.iter().zip(&segments) {
            let range = row.detail_position as usize..(row.detail_position + row.detail_length) as usize;
            prop_assert_eq!(&decode_leaf_detail(&bytes[range]).unwrap(), &segment.detail);
        }
    }
}

pub(crate) fn sample_detail(size: u64) -> SegmentDetail {
    let entries = size / INDEX_INTERVAL as u64;
    SegmentDetail {
        block_crcs: (0..size.div_ceil(BLOCK_BYTES as u64))
            .map(|n| 7 + n as u32)
            .collect(),
        index: (0..entries)
            .map(|n| IndexEntry {
                offset_delta: 60 * n,
                position: 65_600 * n,
                max_timestamp_before: 1_700_000_000_000 + n as i64,
            })
            .collect(),
        aborted: vec![AbortedTransaction {
            producer_id: 5,
            first_offset: 10,
            last_offset: 20,
            last_stable_offset: 10,
        }],
    }
}

pub(crate) fn sample_segment(n: u64) -> Segment {
    let size = 700_000 + 300_000 * n;
    Segment {
        base_offset: 1000 * n as i64,
        end_offset: 1000 * n as i64 + 1000,
        size,
        max_timestamp: 1_700_000_000_000 + n as i64,
        sealed_ms: 1_700_000_100_000,
        epoch: 3,
        incarnation: 17,
        unique: 0x0123_4567_89ab_cdef,
        cleaned: false,
        crc: 0xcafe_0000 + n as u32,
        detail: sample_detail(size),
    }
}

/// The same after compaction.
pub(crate) fn sample_cleaned(n: u64) -> Segment {
    Segment {
        cleaned: n % 2 == 1,
        ..sample_segment(n)
    }
}

fn sample_root(segments: Vec<Segment>) -> ManifestRoot {
    ManifestRoot {
        leaves: vec![LeafPointer {
            key: "topic/ab/0123/0/manifest/1-2-3-4".into(),
            base_offset: 0,
            end_offset: 1000,
            max_timestamp: -1,
            bytes: 1 << 40,
            segments: 1000,
            table_length: 40_000,
            length: 4_000_000,
        }],
        segments,
    }
}

#[test]
fn the_root_holds() {
    let rewrite = |bytes: &[u8]| decode_root(bytes).map(|read| encode_root(&read));
    let hold = |segments, known| {
        let sample = encode_root(&sample_root(segments));
        Format::framed(sample, &rewrite).up_to(2).hold(known);
    };
    hold((1..6).map(sample_segment).collect(), (0xeeab004f, 951));
    hold((1..6).map(sample_cleaned).collect(), (0x30828177, 956));
}

fn hold_leaf(segments: &[Segment], known: (u32, usize)) {
    let (sample, table_length) = encode_leaf(segments);
    let rewrite = move |bytes: &[u8]| {
        decode_leaf(bytes, table_length).map(|read| {
            let (mut again, _) = encode_leaf(&read);
            again.truncate(bytes.len());
            again
        })
    };
    let whole = Format {
        sample,
        rewrite: &rewrite,
        frame_at: 0,
        frame_len: table_length as usize,
        newest: 2,
    };
    whole.hold(known);
}

#[test]
fn the_leaf_and_its_parts_hold() {
    let cleaned: Vec<Segment> = (1..6).map(sample_cleaned).collect();
    hold_leaf(&cleaned, (0xff5da224, 979));
    let segments: Vec<Segment> = (1..6).map(sample_segment).collect();
    hold_leaf(&segments, (0x9e32956f, 974));
    let detail = |bytes: &[u8]| {
        decode_leaf_detail(bytes).map(|read| {
            let mut out = Encoder::framed(LEAF_MAGIC, VERSION);
            read.encode(&mut out);
            out.finish()
        })
    };
    let mut out = Encoder::framed(LEAF_MAGIC, VERSION);
    segments[4].detail.encode(&mut out);
    Format::framed(out.finish(), &detail).hold((0x9e7b32db, 204));
}
