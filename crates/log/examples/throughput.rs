//! Appends batches as fast as the log commits them: `throughput [DIR] [BATCH_BYTES] [MIB] [IN_FLIGHT]`.
//! For profiles of the write path without the network; real figures come from `cargo xtask bench`.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drumlin_log::{
    AppendOptions, Identity, Log, LogOptions, PartitionConfig, PartitionSpec, TopicId, TopicPartition,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::{Bucket, BucketOptions, Env};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |at: usize, default: &str| args.get(at).cloned().unwrap_or_else(|| default.to_owned());
    let dir = arg(1, "/tmp/drumlin-throughput");
    let size: usize = arg(2, "65536").parse().unwrap();
    let total: u64 = arg(3, "4096").parse::<u64>().unwrap() << 20;
    let in_flight: usize = arg(4, "40").parse().unwrap();
    let env = Env::real();
    let url = if dir == "memory:" {
        dir
    } else {
        format!("file://{dir}")
    };
    let bucket = Bucket::open(&url, &env, &BucketOptions::default()).unwrap();
    let incarnation = env.now_ms() as u64;
    let identity = Identity {
        cluster_id: "throughput".into(),
        node: 1,
        incarnation,
    };
    let id = TopicPartition {
        topic: TopicId(env.random_id()),
        partition: 0,
    };
    let config = PartitionConfig {
        retention_bytes: Some(1 << 30),
        ..PartitionConfig::default()
    };
    let spec = PartitionSpec {
        id,
        leader_epoch: 0,
        config: Arc::new(config),
    };
    let options = LogOptions {
        linger_max: Duration::from_millis(5),
        round_objects: 20_000,
        retention_interval: Duration::from_secs(5),
        ..LogOptions::default()
    };
    let cache = Arc::new(MemoryBlockCache::new(8 << 20));
    let log = Log::start(&env, &bucket, cache, options, identity, None, vec![spec])
        .await
        .unwrap();
    let mut builder = BatchBuilder::new(Compression::None);
    while builder.uncompressed_size() + 1100 < size {
        builder.push(env.now_ms(), None, Some(&[7u8; 1024]), &[]);
    }
    let batch = builder.build().unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    let (begun, cpu, sent) = (Instant::now(), cpu_seconds(), Arc::new(AtomicU64::new(0)));
    let latencies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (log, batch, sent, latencies) = (log.clone(), batch.clone(), sent.clone(), latencies.clone());
            tokio::spawn(async move {
                let partition = log.partition(&id).unwrap();
                while sent.fetch_add(batch.len() as u64, Ordering::Relaxed) < total {
                    let from = Instant::now();
                    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
                    let options = AppendOptions {
                        expected_epoch: None,
                        log_append_time: None,
                        deadline,
                    };
                    drumlin_records::check_crc(&batch).unwrap();
                    let appended = log.append(&partition, &header, &batch, options).await.unwrap();
                    appended.commit.wait().await.unwrap();
                    latencies.lock().unwrap().push(from.elapsed());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let mut latencies = std::mem::take(&mut *latencies.lock().unwrap());
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    let gb = total as f64 / 1e9;
    let metrics = log.metrics();
    println!(
        "{:.0} MB/s, {:.2} CPU-s/GB, p50 {:.2} p99 {:.2} ms; {} puts of {} KiB, {} rounds, {} MiB sealed",
        total as f64 / 1e6 / elapsed,
        cpu / gb,
        at(0.5),
        at(0.99),
        metrics.wal_puts,
        metrics.wal_put_bytes / metrics.wal_puts.max(1) / 1024,
        metrics.rounds,
        metrics.sealed_bytes >> 20,
    );
    log.shutdown(tokio::time::Instant::now() + Duration::from_secs(5))
        .await;
}
