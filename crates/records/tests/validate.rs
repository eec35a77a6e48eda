//! What is accepted and refused on produce, rule by rule.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use bytes::Bytes;
use common::{Plain, build, five, reseal};
use drumlin_records::{
    BatchBuilder, BatchError, Compression, Corruption, Flaw, Limits, RecordFault, TimestampType,
    ValidateRules, patch_append_time, patch_max_timestamp, record_with_max_timestamp, validate,
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
    assert_eq!(validate(&[], &rules()), Err(BatchError::Invalid(Flaw::Empty)));
    for end in 1..good.len() {
        assert!(
            matches!(
                validate(&good[..end], &rules()),
                Err(BatchError::Corrupt(Corruption::Truncated { .. }))
            ),
            "{end} bytes"
        );
    }
    for length in [0, -1, 48, i32::MIN, i32::MAX] {
        let mut bad = good.to_vec();
        bad[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            validate(&bad, &rules()),
            Err(BatchError::Corrupt(Corruption::Length(length)))
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
    let more = [&good[..], &[0]].concat();
    assert_eq!(
        validate(&more, &rules()),
        Err(BatchError::Invalid(Flaw::Trailing(1)))
    );
}

#[test]
fn old_formats_are_named() {
    for magic in [0i8, 1, 3, -1] {
        let mut old = batch().to_vec();
        old[16] = magic as u8;
        let refused = Err(BatchError::UnsupportedFormat { magic });
        assert_eq!(validate(&old, &rules()), refused);
        // A message of format 0 or 1 is shorter than a header of format 2.
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
    assert_eq!(
        validate(&set(0x08), &rules()),
        Err(BatchError::InvalidTimestampType)
    );
    for bit in 6..16 {
        let attributes = (1u16 << bit) as i16;
        let refused = Err(BatchError::Invalid(Flaw::ReservedAttributes(attributes)));
        assert_eq!(validate(&set(attributes), &rules()), refused);
    }
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
fn producer_fields_must_go_together() {
    let made = |id, epoch, sequence| BatchBuilder::new(Compression::None).producer(id, epoch, sequence);
    for builder in [
        made(-2, -1, -1),
        made(5, -1, 0),
        made(5, 0, -1),
        made(5, 0, i32::MIN),
        BatchBuilder::new(Compression::None).transactional(),
    ] {
        let refused = validate(&build(builder, &keyed()), &rules());
        assert!(
            matches!(refused, Err(BatchError::Invalid(Flaw::Producer { .. }))),
            "{refused:?}"
        );
    }
}

#[test]
fn timestamps_are_held_against_the_clock() {
    let at = |base: i64, max: i64| {
        let mut changed = with(27, &base.to_be_bytes());
        changed[35..43].copy_from_slice(&max.to_be_bytes());
        reseal(&mut changed);
        changed
    };
    let rules = ValidateRules {
        before_max_ms: 1_000,
        after_max_ms: 500,
        ..rules()
    };
    let refused = |base, max| {
        matches!(
            validate(&at(base, max), &rules),
            Err(BatchError::InvalidTimestamp { .. })
        )
    };
    for (base, max) in [
        (NOW, NOW),
        (NOW - 1_000, NOW + 500),
        (-1, -1),
        (NOW, -1),
        (-1, NOW),
    ] {
        assert!(validate(&at(base, max), &rules).is_ok(), "{base} {max}");
    }
    for (base, max) in [
        (NOW - 1_001, NOW),
        (NOW, NOW + 501),
        (NOW, NOW - 1),
        (-2, NOW),
        (i64::MIN, i64::MAX),
        (i64::MAX, i64::MAX),
    ] {
        assert!(refused(base, max), "{base} {max}");
        let append = ValidateRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..rules
        };
        assert!(
            validate(&at(base, max), &append).is_ok(),
            "append time takes {base} {max}"
        );
    }
    let any_past = ValidateRules {
        before_max_ms: i64::MAX,
        ..rules
    };
    assert!(validate(&at(0, NOW), &any_past).is_ok());
    let any = ValidateRules {
        after_max_ms: i64::MAX,
        ..any_past
    };
    assert!(validate(&at(0, i64::MAX), &any).is_ok());
}

#[test]
fn a_missing_max_timestamp_can_be_mended() {
    let mut old = with(35, &(-1i64).to_be_bytes());
    assert_eq!(validate(&old, &rules()).unwrap().max_timestamp, -1);
    let (offset, timestamp) = record_with_max_timestamp(&old, Limits::default())
        .unwrap()
        .unwrap();
    assert_eq!((offset, timestamp), (2, 1_700_000_000_042));
    patch_max_timestamp(&mut old, timestamp);
    assert_eq!(old, batch());
}

#[test]
fn patches_leave_alone_what_is_no_batch() {
    let good = batch();
    for length in 0..good.len() {
        let mut short = good[..length].to_vec();
        patch_append_time(&mut short, NOW);
        patch_max_timestamp(&mut short, NOW);
        assert_eq!(short, good[..length]);
    }
    let mut followed = [&good[..], &good[..]].concat();
    patch_append_time(&mut followed, NOW);
    assert!(drumlin_records::check_crc(&followed).is_ok());
    assert_eq!(followed[good.len()..], good);
}

#[test]
fn null_keys_are_named_on_compacted_topics_only() {
    let mut records = five();
    records[3].1 = None;
    for codec in Compression::ALL {
        let made = build(BatchBuilder::new(codec), &records);
        assert!(validate(&made, &rules()).is_ok());
        let refused = BatchError::InvalidRecords {
            fault: RecordFault::NullKey,
            indexes: vec![1, 3],
        };
        assert_eq!(validate(&made, &compacted()), Err(refused));
    }
    let many = vec![(NOW, None, None, vec![]); 5_000];
    let made = build(BatchBuilder::new(Compression::Zstd), &many);
    let Err(BatchError::InvalidRecords { indexes, .. }) = validate(&made, &compacted()) else {
        panic!("accepted");
    };
    assert_eq!(indexes, (0..RecordFault::MAX_LISTED as i32).collect::<Vec<_>>());
}

#[test]
fn records_are_not_looked_at_unless_the_topic_is_compacted() {
    for codec in Compression::ALL {
        let mut bad = build(BatchBuilder::new(codec), &keyed()).to_vec();
        for byte in &mut bad[61..] {
            *byte = !*byte;
        }
        reseal(&mut bad);
        assert!(validate(&bad, &rules()).is_ok(), "{codec}");
        assert!(
            matches!(validate(&bad, &compacted()), Err(BatchError::Invalid(_))),
            "{codec}"
        );
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
        assert!(validate(&gap, &rules()).is_ok());
        assert!(matches!(
            validate(&gap, &compacted()),
            Err(BatchError::Invalid(Flaw::Record { index: 1, .. }))
        ));
        for (delta, count, flaw) in [(4, 5, "cut"), (2, 3, "trailing")] {
            let mut bad = build(BatchBuilder::new(codec), &keyed()).to_vec();
            bad[23..27].copy_from_slice(&i32::to_be_bytes(delta));
            bad[57..61].copy_from_slice(&i32::to_be_bytes(count));
            reseal(&mut bad);
            assert!(validate(&bad, &rules()).is_ok());
            assert!(
                matches!(validate(&bad, &compacted()), Err(BatchError::Invalid(_))),
                "{codec} {flaw}"
            );
        }
    }
}
