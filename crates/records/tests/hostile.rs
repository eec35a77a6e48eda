//! Hostile bytes: whatever comes in, an answer comes out, in bounded time and memory and without a panic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{Dice, LIMITS, build, five, reseal, seed};
use drumlin_records::{
    BatchBuilder, BatchError, BatchHeader, Compression, Depth, FilterOptions, Flaw, HEADER_LEN, Limits,
    RecordReader, TimestampType, ValidateRules, check_crc, end_marker, end_marker_batch, filter,
    find_first_since, find_newest, iter_batches, patch_append_time, patch_attributes_and_max_timestamp,
    patch_offset_and_epoch, recompress, records, validate,
};

/// Calls everything that takes a batch's bytes.
fn everything(input: &[u8], codec: Compression) {
    let full = ValidateRules {
        limits: LIMITS,
        ..ValidateRules::new(1_700_000_000_100)
    };
    let walked = validate(input, &full);
    let compacted = validate(
        input,
        &ValidateRules {
            compacted: true,
            ..full
        },
    );
    assert!(walked.is_ok() || compacted.is_err());
    let header_only = ValidateRules {
        depth: Depth::Header,
        // The header's times are not held against the clock then.
        timestamp_type: TimestampType::LogAppendTime,
        ..full
    };
    assert!(walked.is_err() || validate(input, &header_only).is_ok());
    // What the walk accepts, the reader reads, and the other codecs too.
    let all: Result<Vec<_>, _> = records(input, LIMITS).collect();
    if let Ok(header) = walked {
        let all = all.expect("the walk took it");
        assert_eq!(all.len(), header.records_count as usize);
        let keyed = all.iter().all(|record| record.key.is_some());
        assert_eq!(keyed, compacted.is_ok());
        assert!(recompress(input, Compression::None, None, LIMITS).is_ok());
        check_correction(input, &header);
    }
    let _ = check_crc(input);
    assert!(iter_batches(input).count() <= input.len() / 61 + 1);
    let _ = recompress(input, codec, Some(1), LIMITS);
    let options = FilterOptions {
        limits: LIMITS,
        delete_horizon_ms: Some(5),
        keep_empty: true,
    };
    let _ = filter(input, &options, |record| record.key.is_some());
    let _ = find_first_since(input, 1_700_000_000_004, 2);
    let _ = find_newest(input, 1);
    let _ = end_marker(input);
    let mut patched = input.to_vec();
    patch_offset_and_epoch(&mut patched, i64::MAX, i32::MAX);
    patch_append_time(&mut patched, i64::MIN);
    if let Ok(header) = BatchHeader::parse(input) {
        let wrong = BatchHeader {
            max_timestamp: i64::MAX,
            ..header
        };
        patch_attributes_and_max_timestamp(&mut patched, &wrong);
    }
}

/// The copy that is stored says what its records say, and its CRC is right.
fn check_correction(input: &[u8], header: &BatchHeader) {
    let mut stored = input[..header.size_in_bytes()].to_vec();
    patch_attributes_and_max_timestamp(&mut stored, header);
    let after = check_crc(&stored).expect("a right CRC");
    assert_eq!(after.attributes & 0x68, 0, "none of the broker's bits");
    let read = records(&stored, LIMITS).map(|record| record.expect("it was read before").timestamp);
    assert_eq!(after.max_timestamp, read.fold(-1, i64::max));
    let newest = find_newest(&stored, 0).expect("it was read before");
    let found = find_first_since(&stored, after.max_timestamp, 0).expect("it was read before");
    if after.max_timestamp >= 0 {
        assert_eq!(newest, found);
        assert_eq!(newest.map(|newest| newest.timestamp), Some(after.max_timestamp));
    }
}

/// The same bytes of records, in forms that this crate reads and does not write.
fn foreign(codec: Compression, payload: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut batch = build(BatchBuilder::new(Compression::None), &five()).to_vec();
    let records = batch.split_off(61);
    batch.extend_from_slice(&payload(&records));
    batch[22] = codec.id() as u8;
    reseal(&mut batch);
    batch
}

fn lz4(records: &[u8], info: lz4_flex::frame::FrameInfo) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(records).unwrap();
    encoder.finish().unwrap()
}

fn foreign_batches() -> Vec<Vec<u8>> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
    vec![
        foreign(Compression::Snappy, |records| {
            snap::raw::Encoder::new().compress_vec(records).unwrap()
        }),
        foreign(Compression::Lz4, |records| {
            lz4(
                records,
                FrameInfo::new()
                    .block_mode(BlockMode::Linked)
                    .block_size(BlockSize::Max64KB)
                    .content_checksum(true),
            )
        }),
        foreign(Compression::Lz4, |records| {
            let info = FrameInfo::new()
                .block_size(BlockSize::Max4MB)
                .block_checksums(true);
            lz4(records, info.content_size(Some(records.len() as u64)))
        }),
        foreign(Compression::Zstd, |records| {
            zstd::bulk::compress(records, 22).unwrap()
        }),
        foreign(Compression::Gzip, |records| {
            let (front, back) = records.split_at(records.len() / 2);
            let mut out = Vec::new();
            for member in [front, back] {
                let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                encoder.write_all(member).unwrap();
                encoder.finish().unwrap();
            }
            out
        }),
    ]
}

fn samples() -> Vec<Vec<u8>> {
    let keyed: Vec<_> = five().into_iter().filter(|record| record.1.is_some()).collect();
    let mut samples = foreign_batches();
    for codec in Compression::ALL {
        samples.push(build(BatchBuilder::new(codec), &keyed).to_vec());
        samples.push(
            build(
                BatchBuilder::new(codec).producer(9, 1, 7).transactional(),
                &five(),
            )
            .to_vec(),
        );
    }
    samples.push(
        end_marker_batch(drumlin_records::EndMarker::Commit, 1, 2, 3, 4)
            .unwrap()
            .to_vec(),
    );
    samples.push(samples.concat());
    samples
}

#[test]
fn foreign_forms_are_read() {
    for batch in foreign_batches() {
        assert_eq!(common::plains(&batch), five());
    }
}

#[test]
fn every_truncation_is_answered() {
    for sample in samples() {
        for end in 0..sample.len() {
            let mut cut = sample[..end].to_vec();
            everything(&cut, Compression::None);
            // The payload cut, length and CRC right.
            reseal(&mut cut);
            everything(&cut, Compression::None);
        }
    }
}

const INTERESTING: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xff, 0xfe, 0x40, 0x0f];

fn mutate(dice: &mut Dice, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut sample = &samples[dice.below(samples.len())];
    // Unoptimised, an lz4 decoder clears its 64 KiB byte by byte: take those less often.
    while sample[22] & 7 == 3 && dice.below(4) != 0 {
        sample = &samples[dice.below(samples.len())];
    }
    let mut bytes = sample.clone();
    for _ in 0..=dice.below(4) {
        let len = bytes.len();
        // Headers and the first bytes of a payload decide most; aim there half of the time.
        let at = if dice.below(2) == 0 {
            dice.below(len.min(96))
        } else {
            dice.below(len)
        };
        match dice.below(9) {
            _ if len == 0 => bytes.push(dice.roll() as u8),
            0 | 1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes[at] = INTERESTING[dice.below(INTERESTING.len())],
            3 => bytes[at] = dice.roll() as u8,
            4 => {
                let value = INTERESTING[dice.below(INTERESTING.len())];
                bytes[at..(at + 1 + dice.below(8)).min(len)].fill(value);
            }
            5 => bytes.truncate(at),
            6 => {
                bytes.splice(at..at, std::iter::repeat_n(dice.roll() as u8, 1 + dice.below(12)));
            }
            7 => {
                bytes.drain(at..(at + dice.below(12)).min(len));
            }
            _ => {
                let other = &samples[dice.below(samples.len())];
                let from = dice.below(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    if dice.below(8) != 0 {
        reseal(&mut bytes);
    }
    bytes
}

#[test]
fn mutated_batches_are_answered() {
    let rounds = std::env::var("DRUMLIN_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(30_000);
    let seed = seed("mutated_batches_are_answered");
    let samples = samples();
    let mut accepted = 0;
    for round in 0..rounds {
        let mut dice = Dice(seed.wrapping_add(round));
        let input = mutate(&mut dice, &samples);
        // Compressors cost the most here, and none of them depends on the input's bytes: the cheap ones suffice.
        let codec = if dice.below(64) == 0 {
            Compression::ALL[dice.below(5)]
        } else {
            Compression::None
        };
        let answered = std::panic::catch_unwind(|| everything(&input, codec));
        assert!(
            answered.is_ok(),
            "round {round}: replay with DRUMLIN_SEED={} DRUMLIN_ROUNDS=1",
            seed + round
        );
        accepted += usize::from(validate(&input, &ValidateRules::new(1_700_000_000_100)).is_ok());
    }
    println!("{accepted} of {rounds} accepted");
    assert!(
        rounds < 1_000 || accepted > 0,
        "mutations never get past the CRC: the test tests nothing"
    );
}

/// One record whose value is `zeros` bytes of 0, streamed into `encoder`.
fn zeros(mut encoder: impl Write, zeros: usize) {
    let varint = |mut raw: u64| {
        let mut out = Vec::new();
        while raw >= 0x80 {
            out.push(raw as u8 | 0x80);
            raw >>= 7;
        }
        out.push(raw as u8);
        out
    };
    let length = varint(zeros as u64 * 2);
    let body = [&[0u8, 0, 0, 2, b'k'][..], &length].concat();
    encoder
        .write_all(&varint((body.len() + zeros + 1) as u64 * 2))
        .unwrap();
    encoder.write_all(&body).unwrap();
    let block = vec![0; 1 << 20];
    for _ in 0..zeros >> 20 {
        encoder.write_all(&block).unwrap();
    }
    encoder.write_all(&[0]).unwrap();
}

fn bomb(codec: Compression, size: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    match codec {
        Compression::None => zeros(&mut payload, size),
        Compression::Gzip => zeros(
            flate2::write::GzEncoder::new(&mut payload, flate2::Compression::best()),
            size,
        ),
        Compression::Snappy => {
            let mut records = Vec::new();
            zeros(&mut records, size);
            payload = snap::raw::Encoder::new().compress_vec(&records).unwrap();
        }
        Compression::Lz4 => zeros(
            lz4_flex::frame::FrameEncoder::new(&mut payload).auto_finish(),
            size,
        ),
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(&mut payload, 3).unwrap();
            encoder.window_log(27).unwrap();
            zeros(encoder.auto_finish(), size);
        }
    }
    let mut builder = BatchBuilder::new(Compression::None);
    let mut batch = builder
        .push(1_700_000_000_000, Some(b"k"), None, &[])
        .build()
        .unwrap()[..61]
        .to_vec();
    batch.extend_from_slice(&payload);
    batch[22] = codec.id() as u8;
    reseal(&mut batch);
    batch
}

#[cfg(target_os = "linux")]
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn bombs_cost_no_more_than_the_cap() {
    let cap = 16 << 20;
    for (codec, size) in [
        (Compression::Gzip, 1 << 30),
        (Compression::Snappy, 24 << 20),
        (Compression::Lz4, 1 << 30),
        (Compression::Zstd, 1 << 30),
    ] {
        let bomb = bomb(codec, size);
        let before = peak_rss();
        let start = Instant::now();
        let rules = ValidateRules {
            max_message_bytes: usize::MAX,
            ..ValidateRules::new(1_700_000_000_000)
        };
        // A reader holds a record; it asks for its length first.
        let held = Limits {
            max_record: cap,
            ..Limits::WALK
        };
        let too_long = |error: BatchError| matches!(error, BatchError::Invalid(Flaw::RecordTooLarge { max, .. }) if max == cap);
        let bounded = ValidateRules {
            limits: held,
            ..rules
        };
        assert!(too_long(validate(&bomb, &bounded).unwrap_err()), "{codec}");
        let read = RecordReader::new(&bomb, held).unwrap().next_record().map(|_| ());
        assert!(too_long(read.unwrap_err()), "{codec}");
        let again = recompress(&bomb, Compression::Zstd, None, held);
        assert!(too_long(again.unwrap_err()), "{codec}");
        // What comes out in all can be bounded as well.
        let in_all = ValidateRules {
            limits: Limits {
                max_decompressed: cap,
                ..Limits::WALK
            },
            ..rules
        };
        let refused = validate(&bomb, &in_all).unwrap_err();
        assert!(
            matches!(refused, BatchError::TooLarge { max, .. } if max == cap),
            "{codec}: {refused}"
        );
        let grown = peak_rss() - before;
        println!(
            "{codec}: {} bytes, {} KiB grown, {:?}",
            bomb.len(),
            grown >> 10,
            start.elapsed()
        );
        assert!(grown < 6 * cap, "{codec}: {grown} bytes");
        assert!(start.elapsed() < Duration::from_secs(20), "{codec}");
    }
}

/// Kafka takes a record of any size that its options allow, so a walk must not hold it.
#[test]
#[cfg(target_os = "linux")]
fn a_walk_holds_no_record() {
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let bomb = bomb(codec, 192 << 20);
        let before = peak_rss();
        let rules = ValidateRules::new(1_700_000_000_000);
        let header = validate(&bomb, &rules).unwrap();
        assert_eq!(header.max_timestamp, 1_700_000_000_000);
        let found = find_newest(&bomb, 0).unwrap().unwrap();
        assert_eq!((found.offset, found.timestamp), (0, 1_700_000_000_000));
        assert_eq!(find_first_since(&bomb, 1_700_000_000_000, 0), Ok(Some(found)));
        let grown = peak_rss().saturating_sub(before);
        assert!(grown < 48 << 20, "{codec}: {grown} bytes");
    }
}

/// The fast way through records that are in memory, and the way through a window, say the same.
#[test]
fn plain_and_compressed_records_are_judged_alike() {
    let seed = seed("plain_and_compressed_records_are_judged_alike");
    let mut large = five();
    large[2].2 = Some(vec![7; 40_000]);
    let samples = [five(), large].map(|plain| build(BatchBuilder::new(Compression::None), &plain).to_vec());
    let mut refused = 0;
    for round in 0..20_000 {
        let mut dice = Dice(seed.wrapping_add(round));
        let mut plain = samples[usize::from(dice.below(16) == 0)].clone();
        for _ in 0..dice.below(3) {
            let at = HEADER_LEN + dice.below((plain.len() - HEADER_LEN).min(200));
            plain[at] ^= 1 << dice.below(8);
        }
        if dice.below(8) == 0 {
            let cut = HEADER_LEN + 1 + dice.below(plain.len() - HEADER_LEN - 1);
            plain.truncate(cut);
        }
        reseal(&mut plain);
        let codec = [Compression::Snappy, Compression::Zstd][dice.below(2)];
        let mut packed = plain[..HEADER_LEN].to_vec();
        packed.extend(match codec {
            Compression::Snappy => snap::raw::Encoder::new()
                .compress_vec(&plain[HEADER_LEN..])
                .unwrap(),
            _ => zstd::bulk::compress(&plain[HEADER_LEN..], 1).unwrap(),
        });
        packed[22] = codec.id() as u8;
        reseal(&mut packed);
        let rules = ValidateRules {
            compacted: dice.below(2) == 0,
            ..ValidateRules::new(1_700_000_000_100)
        };
        let judged = |batch: &[u8]| validate(batch, &rules).map(|header| header.max_timestamp);
        match (judged(&plain), judged(&packed)) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "DRUMLIN_SEED={}", seed + round),
            (Err(a), Err(b)) => {
                refused += 1;
                let kind = |error: &BatchError| match error {
                    BatchError::InvalidRecords { .. } | BatchError::InvalidTimestamps { .. } => error.clone(),
                    BatchError::Invalid(_) => BatchError::Invalid(Flaw::TrailingRecords),
                    other => panic!("{other} for records alone"),
                };
                assert_eq!(kind(&a), kind(&b), "DRUMLIN_SEED={}", seed + round);
            }
            (a, b) => panic!("{a:?} and {b:?}: DRUMLIN_SEED={}", seed + round),
        }
    }
    assert!(refused > 1_000, "{refused} were refused");
}

#[test]
fn claimed_lengths_buy_nothing() {
    for codec in Compression::ALL {
        // A record that says it has 2 GiB, with three bytes behind it.
        let payload = [0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
        let mut batch = bomb(Compression::None, 0);
        batch.truncate(61);
        match codec {
            Compression::None => batch.extend_from_slice(&payload),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(&mut batch, flate2::Compression::fast());
                encoder.write_all(&payload).unwrap();
                encoder.finish().unwrap();
            }
            Compression::Snappy => batch.extend(snap::raw::Encoder::new().compress_vec(&payload).unwrap()),
            Compression::Lz4 => batch.extend(lz4(&payload, lz4_flex::frame::FrameInfo::new())),
            Compression::Zstd => batch.extend(zstd::bulk::compress(&payload, 1).unwrap()),
        }
        batch[22] = codec.id() as u8;
        reseal(&mut batch);
        let any = Limits {
            max_record: u64::MAX,
            ..Limits::WALK
        };
        let refused = records(&batch, any).next().unwrap();
        assert_eq!(
            refused,
            Err(BatchError::Invalid(Flaw::Record {
                index: 0,
                what: "longer than the batch"
            })),
            "{codec}"
        );
        let refused = validate(&batch, &ValidateRules::new(1_700_000_000_000));
        assert!(
            matches!(refused, Err(BatchError::Invalid(_))),
            "{codec}: {refused:?}"
        );
    }
    // A snappy block that says it has 4 GiB.
    let mut batch = bomb(Compression::None, 0);
    batch.truncate(61);
    batch.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
    batch[22] = Compression::Snappy.id() as u8;
    reseal(&mut batch);
    let refused = records(&batch, Limits::WALK).next().unwrap();
    assert_eq!(
        refused,
        Err(BatchError::Invalid(Flaw::Payload(Compression::Snappy)))
    );
}
