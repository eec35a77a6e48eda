//! What a produced batch costs: the check of its header and CRC, that of each record, and corrections in the copy that is
//! stored. `header` against `records none` is `record.validation=header` against `full`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drumlin_records::{
    BatchBuilder, BatchHeader, Compression, Depth, Limits, ValidateRules, patch_append_time,
    patch_attributes_and_max_timestamp, recompress, validate,
};
use std::hint::black_box;

/// A batch of records with values of `value` bytes, about `size` bytes in all before compression.
fn batch(size: usize, value: usize, codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut state = 1u32;
    while builder.uncompressed_size() + value + 26 < size {
        let value: Vec<u8> = (0..value)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b'a' + (state >> 28) as u8
            })
            .collect();
        builder.push(1_700_000_000_000, Some(b"key"), Some(&value), &[]);
    }
    builder.build().expect("a few records fit").to_vec()
}

fn benches(c: &mut Criterion) {
    let rules = ValidateRules::new(1_700_000_000_000);
    let trusting = ValidateRules {
        depth: Depth::Header,
        ..rules
    };
    let mut group = c.benchmark_group("validate");
    for kib in [16, 64] {
        let size = kib * 1024;
        group.throughput(Throughput::Bytes(size as u64));
        let plain = batch(size, 1_024, Compression::None);
        group.bench_function(format!("header {kib} KiB"), |b| {
            b.iter(|| validate(black_box(&plain), &trusting))
        });
        let small = batch(size, 100, Compression::None);
        group.bench_function(format!("records none {kib} KiB, of 100 bytes"), |b| {
            b.iter(|| validate(black_box(&small), &rules))
        });
        for codec in Compression::ALL {
            let packed = batch(size, 1_024, codec);
            group.bench_function(format!("records {codec} {kib} KiB"), |b| {
                b.iter(|| validate(black_box(&packed), &rules))
            });
        }
        let mut patched = plain.clone();
        group.bench_function(format!("append time {kib} KiB"), |b| {
            b.iter(|| patch_append_time(black_box(&mut patched), 1_700_000_000_001));
        });
        let header = BatchHeader::parse(&plain).expect("a batch has a header");
        let mut times = (1_700_000_000_001i64..).step_by(3);
        group.bench_function(format!("corrected timestamp {kib} KiB"), |b| {
            b.iter(|| {
                let max_timestamp = times.next().unwrap_or_default();
                let header = BatchHeader {
                    max_timestamp,
                    ..header
                };
                patch_attributes_and_max_timestamp(black_box(&mut patched), &header);
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("recompress");
    group.throughput(Throughput::Bytes(64 * 1024));
    let plain = batch(64 * 1024, 1_024, Compression::None);
    for codec in Compression::ALL {
        group.bench_function(format!("to {codec} 64 KiB"), |b| {
            b.iter(|| recompress(black_box(&plain), codec, None, Limits::default()));
        });
    }
    group.finish();
}

criterion_group!(validation, benches);
criterion_main!(validation);
