//! Properties: whatever is built is read back, in every codec, through every rewrite.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{Plain, build, found, plain, plains, read};
use drumlin_records::{
    BatchBuilder, Compression, FilterOptions, Filtered, Limits, TimestampType, ValidateRules, check_crc,
    filter, find_first_since, find_newest, iter_batches, patch_append_time, patch_offset_and_epoch,
    recompress, validate,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..32),
        // Compressible and longer than a block of snappy or a window of the reader, now and then.
        1 => (any::<u8>(), 0..max).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn record() -> impl Strategy<Value = Plain> {
    (
        0..10_000_000i64,
        option::of(bytes(2_000)),
        option::of(bytes(80_000)),
        vec((vec(any::<u8>(), 0..8), option::of(vec(any::<u8>(), 0..8))), 0..4),
    )
        .prop_map(|(ago, key, value, headers)| (NOW - ago, key, value, headers))
}

fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

fn level() -> impl Strategy<Value = Option<i32>> {
    option::of(-5..12i32)
}

fn made(codec: Compression) -> BatchBuilder {
    BatchBuilder::new(codec)
        .base_offset(1_000)
        .leader_epoch(9)
        .producer(77, 2, 41)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_is_read(records in vec(record(), 1..40), codec in codec(), level in level()) {
        let mut builder = made(codec);
        if let Some(level) = level {
            builder = builder.level(level);
        }
        let batch = build(builder, &records);
        let header = check_crc(&batch).unwrap();
        prop_assert_eq!(plains(&batch), &records[..]);
        prop_assert_eq!(header.last_offset(), 1_000 + records.len() as i64 - 1);
        prop_assert_eq!(header.last_sequence(), 41 + records.len() as i32 - 1);
        prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.0).max().unwrap());
        let mut sent = batch.to_vec();
        patch_offset_and_epoch(&mut sent, 0, -1);
        let rules = ValidateRules { compacted: true, ..ValidateRules::new(NOW) };
        let valid = validate(&sent, &ValidateRules { max_message_bytes: usize::MAX, ..rules });
        prop_assert_eq!(valid.is_ok(), records.iter().all(|r| r.1.is_some()), "{:?}", valid);
    }

    #[test]
    fn another_codec_changes_nothing_else(
        records in vec(record(), 1..20), from in codec(), to in codec(), level in level()
    ) {
        let batch = build(made(from).transactional(), &records);
        let other = recompress(&batch, to, level, Limits::default()).unwrap();
        let (mut before, after) = (check_crc(&batch).unwrap(), check_crc(&other).unwrap());
        prop_assert_eq!(after.compression(), Ok(to));
        prop_assert_eq!(read(&other), read(&batch));
        before.attributes = after.attributes;
        before.batch_length = after.batch_length;
        before.crc = after.crc;
        prop_assert_eq!(before, after);
        prop_assert!(after.is_transactional());
    }

    #[test]
    fn the_filter_keeps_what_it_is_told(
        records in vec(record(), 1..20), keep in vec(any::<bool>(), 20), codec in codec(), horizon in option::of(0..i64::MAX)
    ) {
        let batch = build(made(codec), &records);
        let before = check_crc(&batch).unwrap();
        let expected: Vec<_> =
            read(&batch).into_iter().zip(&keep).filter(|(_, keep)| **keep).map(|(record, _)| record).collect();
        let options = FilterOptions { delete_horizon_ms: horizon, ..FilterOptions::default() };
        match filter(&batch, &options, |record| keep[record.offset_delta as usize]).unwrap() {
            Filtered::Unchanged => {
                prop_assert!(horizon.is_none());
                prop_assert_eq!(expected.len(), records.len());
            }
            Filtered::Removed => prop_assert!(expected.is_empty()),
            Filtered::Rewritten(out) => {
                let after = check_crc(&out).unwrap();
                let found = read(&out);
                prop_assert_eq!(found.iter().map(plain).collect::<Vec<_>>(), expected.iter().map(plain).collect::<Vec<_>>());
                prop_assert!(found.iter().zip(&expected).all(|(a, b)| a.offset == b.offset));
                prop_assert_eq!((after.base_offset, after.last_offset()), (before.base_offset, before.last_offset()));
                prop_assert_eq!((after.producer_id, after.producer_epoch, after.last_sequence()), (77, 2, before.last_sequence()));
                prop_assert_eq!(after.partition_leader_epoch, 9);
                prop_assert_eq!(after.compression(), Ok(codec));
                prop_assert_eq!(after.max_timestamp, expected.iter().map(|r| r.timestamp).max().unwrap());
                prop_assert_eq!(after.records_count as usize, expected.len());
                prop_assert_eq!(after.delete_horizon_ms(), horizon);
                // A second stamp changes nothing: the first horizon stands.
                let again = FilterOptions { delete_horizon_ms: Some(1), ..options };
                if horizon.is_some() {
                    prop_assert_eq!(filter(&out, &again, |_| true), Ok(Filtered::Unchanged));
                }
            }
        }
    }

    #[test]
    fn time_look_ups_agree_with_a_scan(records in vec(record(), 1..20), codec in codec(), ago in 0..10_000_000i64) {
        let batch = build(made(codec), &records);
        let timestamp = NOW - ago;
        let expected = read(&batch).iter().find(|r| r.timestamp >= timestamp).map(|r| (r.offset, r.timestamp));
        prop_assert_eq!(found(find_first_since(&batch, timestamp, 0)), Ok(expected));
        let max = records.iter().map(|r| r.0).max().unwrap();
        let first = records.iter().position(|r| r.0 == max).unwrap() as i64;
        prop_assert_eq!(found(find_newest(&batch, 0)), Ok(Some((1_000 + first, max))));
    }

    #[test]
    fn the_append_time_crc_is_the_whole_crc(records in vec(record(), 1..10), codec in codec(), now in any::<i64>()) {
        let mut batch = build(made(codec), &records).to_vec();
        patch_append_time(&mut batch, now);
        let header = check_crc(&batch).unwrap();
        prop_assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, now));
    }

    #[test]
    fn a_run_of_batches_is_walked(sizes in vec(1..5usize, 0..6), codec in codec(), cut in any::<prop::sample::Index>()) {
        let mut run = Vec::new();
        let mut starts = Vec::new();
        for size in sizes {
            starts.push(run.len());
            run.extend_from_slice(&build(made(codec), &vec![(NOW, None, None, vec![]); size]));
        }
        let found: Vec<_> = iter_batches(&run).map(|item| item.unwrap().0).collect();
        prop_assert_eq!(&found, &starts);
        if !run.is_empty() {
            let cut = cut.index(run.len());
            let items: Vec<_> = iter_batches(&run[..cut]).collect();
            let whole = starts.iter().chain([&run.len()]).skip(1).filter(|end| **end <= cut).count();
            prop_assert_eq!(items.iter().filter(|item| item.is_ok()).count(), whole);
            let clean = cut == 0 || starts.contains(&cut);
            prop_assert_eq!(items.last().is_some_and(|item| item.is_err()), !clean);
        }
    }
}
