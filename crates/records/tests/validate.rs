//! What is accepted and refused on produce, rule by rule.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use bytes::Bytes;
use common::{Plain, build, five, reseal};
use drumlin_records::{
    BatchBuilder, BatchError, Compression, Corruption, Depth, Flaw, Limits, RecordFault, TimestampType,
    ValidateRules, check_crc, find_first_since, find_newest, patch_append_time,
    patch_attributes_and_max_timestamp, validate,
};

const NOW: i64 = 1_700_000_000_100;

fn rules() -> ValidateRules {
    ValidateRules::new(NOW)
}

fn compacted() -> ValidateRules {
    ValidateRules {
        compacted: true,
        ..rules()
    }
}

fn keyed() -> Vec<Plain> {
    five().into_iter().filter(|record| record.1.is_some()).collect()
}

fn batch() -> Bytes {
    build(BatchBuilder::new(Compression::None), &keyed())
}

/// The batch with bytes replaced at `at`, its CRC right again.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = batch().to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    reseal(&mut changed);
    changed
}

#[test]
fn batches_of_every_codec_and_producer_are_accepted() {
    for codec in Compression::ALL {
        for rules in [rules(), compacted()] {
            let plain = build(BatchBuilder::new(codec), &keyed());
            let header = validate(&plain, &rules).unwrap();
            assert_eq!(header.compression(), Ok(codec));
            assert_eq!(header.size_in_bytes(), plain.len());
            let idempotent = BatchBuilder::new(codec).producer(7, 0, i32::MAX);
            assert!(validate(&build(idempotent.clone(), &keyed()), &rules).is_ok());
            assert!(validate(&build(idempotent.transactional(), &keyed()), &rules).is_ok());
        }
    }
    // kafkajs and sarama leave epoch and sequence at 0 without a producer id.
    let sloppy = build(
        BatchBuilder::new(Compression::None)
            .producer(-1, 0, 0)
            .leader_epoch(0),
        &keyed(),
    );
    assert!(validate(&sloppy, &rules()).is_ok());
}

#[test]
fn damage_is_corrupt() {
    let good = batch();
    for at in 21..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        assert!(
            matches!(
                validate(&bad, &rules()),
                Err(BatchError::Corrupt(Corruption::Crc { .. }))
            ),
            "byte {at}"
        );
    }
    // What is no whole batch is none: a client that sends it again is not helped.
    for end in 0..good.len() {
        assert_eq!(
            validate(&good[..end], &rules()),
            Err(BatchError::Invalid(Flaw::Empty(end)))
        );
    }
    for length in [0, -1, 13, i32::MIN] {
        let mut bad = good.to_vec();
        bad[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            validate(&bad, &rules()),
            Err(BatchError::Corrupt(Corruption::Length(length)))
        );
    }
    for magic in [3i8, -1, 120] {
        let mut bad = good.to_vec();
        bad[16] = magic as u8;
        assert_eq!(
            validate(&bad, &rules()),
            Err(BatchError::Corrupt(Corruption::Magic(magic)))
        );
    }
}

#[test]
fn exactly_one_batch_is_taken() {
    let good = batch();
    let twice = [&good[..], &good[..]].concat();
    assert_eq!(
        validate(&twice, &rules()),
        Err(BatchError::Invalid(Flaw::Trailing(good.len())))
    );
    // Less than a batch behind it is left alone, as Kafka does; the header says what is stored.
    for more in [&[0][..], b"less", &good[..good.len() - 1]] {
        let followed = [&good[..], more].concat();
        assert_eq!(
            validate(&followed, &rules()).map(|header| header.size_in_bytes()),
            Ok(good.len())
        );
    }
}

#[test]
fn old_formats_are_named() {
    for magic in [0i8, 1] {
        let mut old = batch().to_vec();
        old[16] = magic as u8;
        let refused = Err(BatchError::UnsupportedFormat { magic });
        assert_eq!(validate(&old, &rules()), refused);
        // A message of format 0 or 1 may be shorter than a header of format 2.
        old[8..12].copy_from_slice(&22i32.to_be_bytes());
        assert_eq!(validate(&old[..34], &rules()), refused);
    }
}

#[test]
fn size_is_limited() {
    let good = batch();
    let fits = ValidateRules {
        max_message_bytes: good.len(),
        ..rules()
    };
    assert!(validate(&good, &fits).is_ok());
    let tight = ValidateRules {
        max_message_bytes: good.len() - 1,
        ..rules()
    };
    let (size, max) = (good.len() as u64, good.len() as u64 - 1);
    assert_eq!(validate(&good, &tight), Err(BatchError::TooLarge { size, max }));
}

#[test]
fn counts_must_agree_and_fit() {
    for (delta, count) in [
        (3i32, 5i32),
        (4, 4),
        (-1, 0),
        (0, 0),
        (-1, 4),
        (i32::MAX, i32::MIN),
        (i32::MIN, 4),
    ] {
        let mut bad = with(23, &delta.to_be_bytes());
        bad[57..61].copy_from_slice(&count.to_be_bytes());
        reseal(&mut bad);
        let refused = Flaw::Count {
            count,
            last_offset_delta: delta,
        };
        assert_eq!(validate(&bad, &rules()), Err(BatchError::Invalid(refused)));
    }
    for codec in Compression::ALL {
        let mut bad = build(BatchBuilder::new(codec), &keyed()).to_vec();
        bad[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        bad[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        reseal(&mut bad);
        assert!(matches!(
            validate(&bad, &rules()),
            Err(BatchError::Invalid(Flaw::TooManyRecords { count: i32::MAX, .. }))
        ));
    }
    assert_eq!(
        validate(&with(0, &5i64.to_be_bytes()), &rules()),
        Err(BatchError::Invalid(Flaw::BaseOffset(5)))
    );
}

#[test]
fn attributes_are_checked() {
    let set = |attributes: i16| with(21, &attributes.to_be_bytes());
    assert_eq!(
        validate(&set(0x20), &rules()),
        Err(BatchError::Invalid(Flaw::Control))
    );
    // Bits that nobody has defined are stored as they come; what the broker sets is taken away.
    for bit in 7..16 {
        let attributes = (1u16 << bit) as i16;
        let header = validate(&set(attributes), &rules()).unwrap();
        assert_eq!(header.attributes, attributes);
    }
    for broker in [0x08, 0x40, 0x48] {
        for depth in [Depth::Header, Depth::Records] {
            let mut stored = set(broker);
            let rules = ValidateRules { depth, ..rules() };
            let header = validate(&stored, &rules).unwrap();
            patch_attributes_and_max_timestamp(&mut stored, &header);
            assert_eq!(stored, batch(), "{broker} {depth:?}");
        }
    }
    let append_time = ValidateRules {
        timestamp_type: TimestampType::LogAppendTime,
        ..rules()
    };
    let count = keyed().len() as i32;
    let faults = (0..count)
        .map(|index| (index, RecordFault::TimestampType))
        .collect();
    assert_eq!(
        validate(&set(0x08), &append_time),
        Err(BatchError::InvalidTimestamps { faults }),
        "there a producer may not say so"
    );
    for codec in 5..8 {
        assert_eq!(
            validate(&set(codec), &rules()),
            Err(BatchError::UnsupportedCompression { codec })
        );
    }
    let zstd = build(BatchBuilder::new(Compression::Zstd), &keyed());
    let old = ValidateRules {
        allow_zstd: false,
        ..rules()
    };
    assert_eq!(
        validate(&zstd, &old),
        Err(BatchError::UnsupportedCompression { codec: 4 })
    );
    assert!(validate(&batch(), &old).is_ok());
}

#[test]
fn a_producer_that_has_an_id_has_a_sequence() {
    let made = |id, epoch, sequence| BatchBuilder::new(Compression::None).producer(id, epoch, sequence);
    for sequence in [-1, i32::MIN] {
        assert_eq!(
            validate(&build(made(5, 0, sequence), &keyed()), &rules()),
            Err(BatchError::Invalid(Flaw::Sequence { id: 5, sequence }))
        );
    }
    for builder in [made(-2, -1, -1), made(-1, 5, 7), made(5, -1, 0)] {
        assert!(validate(&build(builder, &keyed()), &rules()).is_ok());
    }
}

/// A batch of records with these timestamps, under a header that says these ones.
fn timed(codec: Compression, timestamps: &[i64], max: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for timestamp in timestamps {
        builder.push(*timestamp, Some(b"k"), Some(b"v"), &[]);
    }
    let mut batch = builder.build().unwrap().to_vec();
    batch[35..43].copy_from_slice(&max.to_be_bytes());
    reseal(&mut batch);
    batch
}

#[test]
fn timestamps_of_records_are_held_against_the_clock() {
    let rules = ValidateRules {
        before_max_ms: 1_000,
        after_max_ms: 500,
        ..rules()
    };
    for codec in Compression::ALL {
        // The header's own are not asked.
        for max in [NOW, -1, 0, i64::MIN, i64::MAX] {
            let header = validate(&timed(codec, &[NOW - 1_000, NOW + 500, -1], max), &rules).unwrap();
            assert_eq!(header.max_timestamp, NOW + 500, "{codec} {max}");
        }
        let header = validate(&timed(codec, &[-1, -1], NOW), &rules).unwrap();
        assert_eq!(header.max_timestamp, -1);
        let bad = timed(
            codec,
            &[NOW, NOW - 1_001, NOW, NOW + 501, i64::MAX, i64::MIN, -2],
            NOW,
        );
        let Err(BatchError::InvalidTimestamps { faults }) = validate(&bad, &rules) else {
            panic!("{codec}: accepted");
        };
        let indexes: Vec<i32> = faults.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, [1, 3, 4, 5, 6]);
        let (earliest, latest) = (NOW - 1_000, NOW + 500);
        let fault = RecordFault::Timestamp {
            timestamp: NOW - 1_001,
            earliest,
            latest,
        };
        assert_eq!(faults[0].1, fault);
        let append = ValidateRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..rules
        };
        assert!(validate(&bad, &append).is_ok(), "append time takes any");
    }
    let any = ValidateRules {
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        ..rules
    };
    assert!(validate(&timed(Compression::None, &[0, i64::MAX, -5], 0), &any).is_ok());
}

#[test]
fn by_the_header_alone_its_timestamps_are_held_against_the_clock() {
    let rules = ValidateRules {
        before_max_ms: 1_000,
        after_max_ms: 500,
        depth: Depth::Header,
        ..rules()
    };
    let judged = |base: i64, max: i64| validate(&timed(Compression::Lz4, &[base], max), &rules);
    for (base, max) in [
        (NOW, NOW),
        (NOW - 1_000, NOW + 500),
        (-1, -1),
        (NOW, -1),
        (NOW, NOW - 1),
    ] {
        assert_eq!(judged(base, max).map(|header| header.max_timestamp), Ok(max));
    }
    for (base, max) in [(NOW - 1_001, NOW), (NOW, NOW + 501), (-2, NOW), (NOW, i64::MIN)] {
        assert!(
            matches!(judged(base, max), Err(BatchError::InvalidTimestamp { .. })),
            "{base} {max}"
        );
    }
}

#[test]
fn the_greatest_timestamp_is_that_of_the_records() {
    let times = [NOW - 20, NOW - 5, NOW - 30];
    for codec in Compression::ALL {
        let right = timed(codec, &times, NOW - 5);
        for max in [NOW - 20, NOW - 30, NOW + 50, -1, 0, i64::MAX] {
            let mut stored = timed(codec, &times, max);
            let header = validate(&stored, &rules()).unwrap();
            assert_eq!(header.max_timestamp, NOW - 5, "{codec} {max}");
            patch_attributes_and_max_timestamp(&mut stored, &header);
            assert!(check_crc(&stored).is_ok());
            assert_eq!(stored, right, "{codec} {max}");
        }
    }
}

#[test]
fn lookups_go_by_the_records_from_an_offset_on() {
    let times = [NOW - 20, NOW - 5, NOW - 30, NOW - 5, NOW - 10];
    for codec in Compression::ALL {
        let batch = timed(codec, &times, 7);
        let since = |timestamp, from| find_first_since(&batch, timestamp, from).unwrap();
        let offset = |found: Option<drumlin_records::OffsetAndTime>| found.map(|found| found.offset);
        assert_eq!(offset(since(NOW - 30, 0)), Some(0));
        assert_eq!(offset(since(NOW - 19, 0)), Some(1));
        assert_eq!(offset(since(NOW - 19, 2)), Some(3));
        assert_eq!(offset(since(NOW - 4, 0)), None);
        let newest = |from| find_newest(&batch, from).unwrap();
        assert_eq!(offset(newest(0)), Some(1), "the first of two");
        assert_eq!(offset(newest(2)), Some(3));
        assert_eq!(newest(4).map(|found| found.timestamp), Some(NOW - 10));
        assert_eq!(newest(5), None);
    }
}

#[test]
fn patches_leave_alone_what_is_no_batch() {
    let good = batch();
    let header = validate(&good, &rules()).unwrap();
    let other = drumlin_records::BatchHeader {
        max_timestamp: 5,
        ..header
    };
    for length in 0..good.len() {
        let mut short = good[..length].to_vec();
        patch_append_time(&mut short, NOW);
        patch_attributes_and_max_timestamp(&mut short, &other);
        assert_eq!(short, good[..length]);
    }
    let mut followed = [&good[..], &good[..]].concat();
    patch_append_time(&mut followed, NOW);
    assert!(check_crc(&followed).is_ok());
    assert_eq!(followed[good.len()..], good);
    // A CRC that was wrong is not made right.
    let mut damaged = good.to_vec();
    damaged[70] ^= 1;
    patch_append_time(&mut damaged, NOW);
    assert!(check_crc(&damaged).is_err());
}

#[test]
fn null_keys_are_named_on_compacted_topics_only() {
    let mut records = five();
    records[3].1 = None;
    for codec in Compression::ALL {
        let made = build(BatchBuilder::new(codec), &records);
        assert!(validate(&made, &rules()).is_ok());
        let faults = vec![(1, RecordFault::NullKey), (3, RecordFault::NullKey)];
        for depth in [Depth::Header, Depth::Records] {
            let rules = ValidateRules { depth, ..compacted() };
            let refused = BatchError::InvalidRecords {
                faults: faults.clone(),
            };
            assert_eq!(validate(&made, &rules), Err(refused));
        }
        // One wrong timestamp decides what the client is told of all of them.
        records[0].0 = NOW + 10_000_000;
        let made = build(BatchBuilder::new(codec), &records);
        records[0].0 = NOW;
        let Err(BatchError::InvalidTimestamps { faults }) = validate(&made, &compacted()) else {
            panic!("{codec}");
        };
        assert_eq!(
            faults.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            [0, 1, 3]
        );
    }
    let many = vec![(NOW, None, None, vec![]); 5_000];
    let made = build(BatchBuilder::new(Compression::Zstd), &many);
    let Err(BatchError::InvalidRecords { faults }) = validate(&made, &compacted()) else {
        panic!("accepted");
    };
    let listed = (0..RecordFault::MAX_LISTED as i32).map(|index| (index, RecordFault::NullKey));
    assert_eq!(faults, listed.collect::<Vec<_>>());
}

#[test]
fn records_are_looked_at_unless_the_header_is_to_be_believed() {
    for codec in Compression::ALL {
        let mut bad = build(BatchBuilder::new(codec), &keyed()).to_vec();
        for byte in &mut bad[61..] {
            *byte = !*byte;
        }
        reseal(&mut bad);
        let trusting = ValidateRules {
            depth: Depth::Header,
            ..rules()
        };
        assert!(validate(&bad, &trusting).is_ok(), "{codec}");
        let compacted = ValidateRules {
            compacted: true,
            ..trusting
        };
        for rules in [rules(), compacted] {
            assert!(
                matches!(validate(&bad, &rules), Err(BatchError::Invalid(_))),
                "{codec}"
            );
        }
    }
}

#[test]
fn a_walk_wants_every_record_whole_and_in_its_place() {
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new(codec);
        builder
            .push_at(0, NOW, Some(b"a"), None, &[])
            .push_at(2, NOW, Some(b"b"), None, &[]);
        let mut gap = builder.build().unwrap().to_vec();
        gap[23..27].copy_from_slice(&1i32.to_be_bytes());
        reseal(&mut gap);
        assert!(matches!(
            validate(&gap, &rules()),
            Err(BatchError::Invalid(Flaw::Record { index: 1, .. }))
        ));
        for (delta, count, flaw) in [(4, 5, "cut"), (2, 3, "trailing")] {
            let mut bad = build(BatchBuilder::new(codec), &keyed()).to_vec();
            bad[23..27].copy_from_slice(&i32::to_be_bytes(delta));
            bad[57..61].copy_from_slice(&i32::to_be_bytes(count));
            reseal(&mut bad);
            assert!(
                matches!(validate(&bad, &rules()), Err(BatchError::Invalid(_))),
                "{codec} {flaw}"
            );
        }
    }
}

#[test]
fn a_record_of_a_compressed_batch_may_not_be_longer_than_the_option_says() {
    let value = vec![b'v'; 30_000];
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new(codec);
        builder
            .push(NOW, Some(b"k"), Some(b"short"), &[])
            .push(NOW, Some(b"k"), Some(&value), &[]);
        let made = builder.build().unwrap();
        let within = |max_record| ValidateRules {
            limits: Limits {
                max_record,
                ..Limits::WALK
            },
            ..rules()
        };
        let length = 30_000 + 9;
        assert!(validate(&made, &within(length)).is_ok(), "{codec}");
        let judged = validate(&made, &within(length - 1)).map(|_| ());
        if codec == Compression::None {
            assert_eq!(judged, Ok(()), "max.message.bytes bounds it");
        } else {
            let (index, max) = (1, length - 1);
            let refused = Flaw::RecordTooLarge { index, length, max };
            assert_eq!(judged, Err(BatchError::Invalid(refused)), "{codec}");
        }
    }
}

#[test]
fn gzip_may_have_something_behind_it_that_is_none() {
    let made = build(BatchBuilder::new(Compression::Gzip), &keyed()).to_vec();
    for more in [&b"junk"[..], &[0; 20], &[0x1f]] {
        let mut followed = [&made[..], more].concat();
        reseal(&mut followed);
        assert!(validate(&followed, &rules()).is_ok());
    }
    let mut cut = made[..made.len() - 4].to_vec();
    reseal(&mut cut);
    assert_eq!(
        validate(&cut, &rules()),
        Err(BatchError::Invalid(Flaw::Payload(Compression::Gzip)))
    );
}
