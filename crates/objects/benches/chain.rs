//! What the chain and the local store cost: formats, appends in memory, durable puts on the directory of
//! `DRUMLIN_BENCH_DIR` (else the temporary one).
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drumlin_objects::chain::{
    ChainId, ChainName, ChainOptions, ChainWriter, ENTRY_HEADER_LEN, Entry, EntryKind,
};
use drumlin_objects::{Bucket, BucketOptions, Env, Reason};
use tokio::runtime::Runtime;

/// Memory that begins at a block's boundary, as the arenas of the log do.
fn aligned(len: usize) -> Bytes {
    let memory = Bytes::from(vec![0x5a; len + 4096]);
    let skip = memory.as_ptr().addr().next_multiple_of(4096) - memory.as_ptr().addr();
    memory.slice(skip..skip + len)
}

fn entry(len: usize) -> BytesMut {
    BytesMut::zeroed(ENTRY_HEADER_LEN + len)
}

fn appends(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("chain");
    for len in [4 << 10, 1 << 20] {
        let env = Env::real();
        let bucket =
            runtime.block_on(async { Bucket::open("memory:", &env, &BucketOptions::default()).unwrap() });
        let name = ChainName {
            prefix: "wal/00/1/2".to_owned(),
            id: ChainId(env.random_id()),
        };
        let writer = ChainWriter::start(&env, &bucket, name, 1, ChainOptions::default());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("append to memory, {len} bytes"), |b| {
            b.to_async(&runtime).iter(|| async {
                writer.ready().await.unwrap();
                let appended = writer.append(EntryKind::Data, 1, entry(len), 0).unwrap();
                writer.committed(appended.slot).await.unwrap();
                bucket
                    .delete(&writer.name().entry_key(appended.slot), Reason::Wal)
                    .await
                    .unwrap();
                appended.bytes
            });
        });
        let sample = runtime.block_on(async {
            writer.ready().await.unwrap();
            writer.append(EntryKind::Data, 1, entry(len), 0).unwrap().bytes
        });
        group.bench_function(format!("read and check, {len} bytes"), |b| {
            b.iter(|| Entry::decode(sample.clone()).unwrap());
        });
    }
    group.finish();
}

fn puts(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir_in(
        std::env::var_os("DRUMLIN_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
    )
    .unwrap();
    let mut group = c.benchmark_group("local put");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    for (name, local_buffered) in [("direct", false), ("buffered", true)] {
        let env = Env::real();
        let options = BucketOptions {
            local_buffered,
            ..BucketOptions::default()
        };
        let url = format!("file://{}/{name}", dir.path().display());
        let bucket = runtime.block_on(async { Bucket::open(&url, &env, &options).unwrap() });
        for len in [4 << 10, 256 << 10, 8 << 20] {
            let body = aligned(len);
            let mut n = 0_u64;
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(format!("{name}, {len} bytes"), |b| {
                b.iter(|| {
                    n += 1;
                    let key = format!("wal/00/1/2/log/{n:020}");
                    runtime.block_on(async {
                        bucket.put_new(&key, body.clone(), Reason::Wal).await.unwrap();
                        // What a broker trims; keeps the disk small.
                        if n > 8 {
                            let old = format!("wal/00/1/2/log/{:020}", n - 8);
                            std::fs::remove_file(bucket.local_path(&old).unwrap()).unwrap();
                        }
                    });
                });
            });
            let _ = std::fs::remove_dir_all(bucket.local_path("wal").unwrap());
        }
    }
    group.finish();
}

criterion_group!(benches, appends, puts);
criterion_main!(benches);
