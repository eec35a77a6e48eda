//! What a produced batch costs: validation by header and CRC, the walk of a compacted topic, the append-time patch.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drumlin_records::{
    BatchBuilder, Compression, Limits, ValidateRules, patch_append_time, recompress, validate,
};
use std::hint::black_box;

/// A batch of records of 1 KiB, about `size` bytes in all before compression.
fn batch(size: usize, codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut state = 1u32;
    while builder.uncompressed_size() + 1_050 < size {
        let value: Vec<u8> = (0..1_024)
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
    let compacted = ValidateRules {
        compacted: true,
        ..rules
    };
    let mut group = c.benchmark_group("validate");
    for kib in [16, 64] {
        let size = kib * 1024;
        group.throughput(Throughput::Bytes(size as u64));
        let plain = batch(size, Compression::None);
        group.bench_function(format!("header {kib} KiB"), |b| {
            b.iter(|| validate(black_box(&plain), &rules))
        });
        for codec in Compression::ALL {
            let packed = batch(size, codec);
            group.bench_function(format!("walk {codec} {kib} KiB"), |b| {
                b.iter(|| validate(black_box(&packed), &compacted))
            });
        }
        let mut patched = plain.clone();
        group.bench_function(format!("append time {kib} KiB"), |b| {
            b.iter(|| patch_append_time(black_box(&mut patched), 1_700_000_000_001));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("recompress");
    group.throughput(Throughput::Bytes(64 * 1024));
    let plain = batch(64 * 1024, Compression::None);
    for codec in Compression::ALL {
        group.bench_function(format!("to {codec} 64 KiB"), |b| {
            b.iter(|| recompress(black_box(&plain), codec, None, Limits::default()));
        });
    }
    group.finish();
}

criterion_group!(validation, benches);
criterion_main!(validation);
