//! Compacts a partition and says what it took: `compaction [DIR] [none|lz4|…] [MIB] [RECORD_BYTES]`.
//!
//! There are ten times as many records as keys, which come at random, and values are words. Everything is written and sealed first; what is
//! measured is the pass: bytes of the log by CPU-second of the whole process, peak memory, requests and bytes of
//! the store. `DIR` may be `memory:`, whose objects count as the process's memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use drumlin_log::{
    AppendOptions, CleanerOptions, Identity, Log, LogOptions, PartitionConfig, PartitionSpec, TopicId,
    TopicPartition,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::{Bucket, BucketOptions, Env, Reason};
use drumlin_records::{BatchBuilder, BatchHeader, Compression};

/// Records that each key has.
const VERSIONS: u64 = 10;
const BATCH_BYTES: usize = 64 << 10;

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn memory_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Requests and bytes of compaction, and requests of all else.
fn store(bucket: &Bucket) -> (u64, u64, u64) {
    let all = bucket.stats().snapshot();
    let (own, other): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.reason == Reason::Compaction);
    (
        own.iter().map(|one| one.requests).sum(),
        own.iter().map(|one| one.bytes).sum(),
        other.iter().map(|one| one.requests).sum(),
    )
}

/// Words that come again, so that a codec has something to do.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn fill(&mut self, out: &mut Vec<u8>, length: usize) {
        out.clear();
        while out.len() < length {
            let word = self.next() % 500;
            out.extend_from_slice(format!("word-{word:03x} ").as_bytes());
        }
        out.truncate(length);
    }
}

async fn write(log: &Log, id: &TopicPartition, codec: Compression, total: u64, size: usize) -> (u64, u64) {
    let partition = log.partition(id).unwrap();
    let records = total / size as u64;
    let keys = (records / VERSIONS).max(1);
    let (mut words, mut value) = (Words(88_172_645_463_325_252), Vec::new());
    let (mut written, mut stored) = (0u64, 0u64);
    let mut commits = std::collections::VecDeque::new();
    while written < records {
        let mut builder = BatchBuilder::new(codec);
        while builder.uncompressed_size() < BATCH_BYTES && written < records {
            let key = words.next() % keys;
            words.fill(&mut value, size - 24);
            let key = format!("key-{key:012}");
            builder.push(
                1_700_000_000_000 + written as i64,
                Some(key.as_bytes()),
                Some(&value),
                &[],
            );
            written += 1;
        }
        let batch = builder.build().unwrap();
        stored += batch.len() as u64;
        let header = BatchHeader::parse(&batch).unwrap();
        let options = AppendOptions {
            expected_epoch: None,
            log_append_time: None,
            deadline: tokio::time::Instant::now() + Duration::from_secs(60),
        };
        commits.push_back(
            log.append(&partition, &header, &batch, options)
                .await
                .unwrap()
                .commit,
        );
        if commits.len() > 100 {
            commits.pop_front().unwrap().wait().await.unwrap();
        }
    }
    for commit in commits {
        commit.wait().await.unwrap();
    }
    (written, stored)
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |at: usize, default: &str| args.get(at).cloned().unwrap_or_else(|| default.to_owned());
    let dir = arg(1, "/tmp/drumlin-compaction");
    let codec = Compression::from_name(&arg(2, "none")).unwrap();
    let total = arg(3, "1024").parse::<u64>().unwrap() << 20;
    let size: usize = arg(4, "1024").parse().unwrap();
    let env = Env::real();
    let url = if dir == "memory:" {
        dir
    } else {
        format!("file://{dir}")
    };
    let bucket = Bucket::open(&url, &env, &BucketOptions::default()).unwrap();
    let id = TopicPartition {
        topic: TopicId(env.random_id()),
        partition: 0,
    };
    let identity = Identity {
        cluster_id: "compaction".into(),
        node: 1,
        incarnation: env.now_ms() as u64,
    };
    let spec = PartitionSpec {
        id,
        leader_epoch: 0,
        config: Arc::new(PartitionConfig {
            compact: true,
            delete: false,
            ..PartitionConfig::default()
        }),
    };
    let options = LogOptions {
        memory_bytes: 16 << 20,
        cleaner: CleanerOptions {
            // Only when it is asked for.
            interval: Duration::from_secs(100_000),
            ..CleanerOptions::default()
        },
        ..LogOptions::default()
    };
    let cache = Arc::new(MemoryBlockCache::new(16 << 20));
    let log = Log::start(&env, &bucket, cache, options, identity, None, vec![spec])
        .await
        .unwrap();
    let (records, stored) = write(&log, &id, codec, total, size).await;
    log.seal_now().await;
    // Arenas go back to the system.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let idle = memory_mib("VmRSS");
    let (before, requests_before) = (log.metrics(), store(&bucket));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    log.clean_now().await;
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (after, requests) = (log.metrics(), store(&bucket));
    let peak = memory_mib("VmHWM");
    let mb = stored as f64 / 1e6;
    let read = (after.cleaner_read_bytes - before.cleaner_read_bytes) as f64 / 1e6;
    let out = (after.cleaner_written_bytes - before.cleaner_written_bytes) as f64 / 1e6;
    println!("{codec}: {records} records of {size} B, {mb:.0} MB stored, {VERSIONS} for each key");
    println!(
        "  {wall:.2} s, {cpu:.2} CPU-s: {:.0} MB/s, {:.0} MB/s a core",
        mb / wall,
        mb / cpu
    );
    println!("  read {read:.0} MB (what is dirty twice), wrote {out:.0} MB");
    println!("  memory: {idle} MiB before, {peak} MiB at most");
    println!(
        "  store: {} requests and {:.0} MB for compaction, {} other requests",
        requests.0 - requests_before.0,
        (requests.1 - requests_before.1) as f64 / 1e6,
        requests.2 - requests_before.2,
    );
    log.shutdown(tokio::time::Instant::now() + Duration::from_secs(10))
        .await;
}
