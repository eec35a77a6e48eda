//! One seed: brokers that live and die over one store, writers, readers, and changes of configuration.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_log::check::{CheckOptions, Finding, Kind, check};
use drumlin_log::{
    AppendOptions, CleanerOptions, Commit, Identity, Log, LogOptions, Partition, PartitionConfig,
    PartitionSpec, Previous, ReadError, TopicId, TopicPartition, recover,
};
use drumlin_objects::cache::MemoryBlockCache;
use drumlin_objects::fault::{FaultStore, Faults, Latency};
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::{Bucket, BucketKind, Env};
use drumlin_records::{BatchBuilder, BatchHeader, Compression, iter_batches};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use super::history::{History, Known, Reading, Seen, decode};

const START_MS: i64 = 1_700_000_000_000;
const PARTITIONS: i32 = 2;
const PIPELINE: usize = 3;

fn id(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicId([5; 16]),
        partition,
    }
}

/// What stays the same through all lives of a seed.
struct World {
    rng: RefCell<StdRng>,
    env: Env,
    store: Arc<InMemory>,
    kind: BucketKind,
    options: LogOptions,
    base: PartitionConfig,
    config: RefCell<PartitionConfig>,
    keys: u64,
    tombstones: f64,
    faults: Faults,
    histories: Vec<RefCell<History>>,
    found: RefCell<Vec<String>>,
    figures: RefCell<BTreeMap<&'static str, u64>>,
    /// No compaction until further notice: `cleanup.policy=delete`.
    paused: Cell<bool>,
}

impl World {
    fn new(seed: u64) -> Rc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let millis = |rng: &mut StdRng, from: u64, to: u64| Duration::from_millis(rng.random_range(from..to));
        let grace = millis(&mut rng, 0, 3000);
        let cleaner = CleanerOptions {
            interval: millis(&mut rng, 20, 500),
            map_bytes: *pick(&mut rng, &[0, 24 * 40, 1 << 20]),
            io_bytes_per_second: rng.random_bool(0.1).then_some(20_000),
            small_bytes: rng.random_range(0..2000),
            small_wait: millis(&mut rng, 0, 1000),
            ..CleanerOptions::default()
        };
        let options = LogOptions {
            flush_bytes: rng.random_range(500..8000),
            linger_max: millis(&mut rng, 1, 50),
            memory_bytes: rng.random_range(0..8000),
            round_interval: millis(&mut rng, 50, 1000),
            segment_min_bytes: rng.random_range(500..6000),
            bundle_max_age: millis(&mut rng, 500, 20_000),
            bundle_merge_count: rng.random_range(2..6),
            manifest_fold: rng.random_range(1..5),
            manifest_root_segments: rng.random_range(1..4),
            manifest_leaf_segments: rng.random_range(1..4),
            wal_grace: grace,
            segment_grace: grace,
            retention_interval: Duration::from_secs(1),
            cleaner,
            ..LogOptions::default()
        };
        let trouble = rng.random_bool(0.6);
        let some = |chance: f64| if trouble { chance } else { 0.0 };
        let faults = Faults {
            error_before: some(0.02),
            error_after: some(0.02),
            cut_body: some(0.02),
            late_put: some(0.02),
            duplicate_put: some(0.02),
            stall: some(0.01),
            stall_for: Duration::from_millis(10)..Duration::from_secs(2),
            late_by: Duration::from_millis(1)..Duration::from_secs(5),
            latency: Latency::Uniform(Duration::from_micros(100)..Duration::from_millis(20)),
            ..Faults::none()
        };
        let retention = *pick(&mut rng, &[0, 300, 3000, 20_000]);
        let base = PartitionConfig {
            segment_bytes: rng.random_range(400..6000),
            retention_ms: rng.random_bool(0.15).then_some(15_000),
            retention_bytes: None,
            delete: rng.random_bool(0.3),
            compact: true,
            min_cleanable_dirty_ratio: *pick(&mut rng, &[0.0, 0.3, 0.5]),
            min_compaction_lag_ms: *pick(&mut rng, &[0, 0, 0, 200, 3000]),
            max_compaction_lag_ms: *pick(&mut rng, &[i64::MAX, i64::MAX, 1000]),
            delete_retention_ms: retention,
        };
        let kind = *pick(&mut rng, &[BucketKind::Remote, BucketKind::Memory]);
        let (keys, tombstones) = (rng.random_range(1..40), rng.random_range(0.0..0.5));
        Rc::new(Self {
            env: Env::simulated(seed, START_MS),
            rng: RefCell::new(rng),
            store: Arc::new(InMemory::new()),
            kind,
            options,
            config: RefCell::new(base.clone()),
            base,
            keys,
            tombstones,
            faults,
            histories: (0..PARTITIONS).map(|_| RefCell::default()).collect(),
            found: RefCell::default(),
            figures: RefCell::default(),
            paused: Cell::new(false),
        })
    }

    fn below(&self, limit: u64) -> u64 {
        self.rng.borrow_mut().random_range(0..limit.max(1))
    }

    fn chance(&self, chance: f64) -> bool {
        self.rng.borrow_mut().random_bool(chance)
    }

    fn count(&self, what: &'static str, by: u64) {
        *self.figures.borrow_mut().entry(what).or_default() += by;
    }

    fn note(&self, what: String) {
        self.found.borrow_mut().push(what);
    }

    async fn nap(&self, most_ms: u64) {
        let wait = self.below(most_ms * 1000);
        sleep(Duration::from_micros(wait)).await;
    }
}

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// A broker's log, and what ends with it.
struct Life {
    env: Env,
    network: FaultStore,
    log: Log,
}

/// The lives of one seed, each over what the one before left.
struct Lives {
    world: Rc<World>,
    seed: u64,
    incarnation: u64,
    previous: Option<Previous>,
}

impl Lives {
    async fn begin(&mut self) -> Result<Life, String> {
        let world = &self.world;
        self.incarnation += 1;
        let seed = self.seed.wrapping_mul(1000) + self.incarnation;
        let now_ms = world.env.now_ms();
        let env = Env::simulated(seed, now_ms);
        let network = FaultStore::new(world.store.clone(), seed);
        network.change(|faults| faults.latency = world.faults.latency.clone());
        let bucket = Bucket::from_store(Arc::new(network.clone()), world.kind, &env);
        let recovered = recover(&env, &bucket, self.previous.as_ref()).await;
        let recovered = recovered.map_err(|error| format!("no start: {error}"))?;
        let identity = Identity {
            cluster_id: "simulation".into(),
            node: 1,
            incarnation: self.incarnation,
        };
        self.previous = Some(Previous {
            identity: identity.clone(),
            estate: recovered.estate.clone(),
        });
        let config = Arc::new(world.config.borrow().clone());
        let spec = |p| PartitionSpec {
            id: id(p),
            leader_epoch: self.incarnation as i32,
            config: config.clone(),
        };
        let specs = (0..PARTITIONS).map(spec).collect();
        let cache = Arc::new(MemoryBlockCache::new(16 << 10));
        let options = world.options.clone();
        let log = Log::start(&env, &bucket, cache, options, identity, Some(recovered), specs).await;
        let log = log.map_err(|error| format!("no start: {error}"))?;
        for p in 0..PARTITIONS {
            let partition = log.partition(&id(p)).unwrap();
            if let Some(what) = partition.unavailable() {
                return Err(format!("partition {p} cannot be served: {what}"));
            }
            let mut history = world.histories[p as usize].borrow_mut();
            history
                .restart(partition.high_watermark())
                .map_err(|what| format!("partition {p}: {what}"))?;
        }
        network.set(world.faults.clone());
        world.count("starts", 1);
        Ok(Life { env, network, log })
    }
}

/// A batch of a few records, and what the history is to know of them.
fn batch(world: &World, producer: Option<(i64, i32)>) -> (Bytes, Vec<Known>) {
    let codec = Compression::ALL[world.below(5) as usize];
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence);
    }
    let now_ms = world.env.now_ms();
    let keyless = world.paused.get();
    let mut records = Vec::new();
    for _ in 0..=world.below(5) {
        let key = (!keyless || world.chance(0.7)).then(|| {
            let key = world.below(world.keys);
            Bytes::from(format!("key {key}"))
        });
        let value = (!world.chance(world.tombstones)).then(|| {
            let length = world.below(120) as usize;
            Bytes::from(vec![world.below(256) as u8; length])
        });
        let timestamp = now_ms - world.below(5) as i64;
        builder.push(timestamp, key.as_deref(), value.as_deref(), &[]);
        records.push(Known {
            key,
            value,
            timestamp,
            at_ms: now_ms,
        });
    }
    (builder.build().unwrap(), records)
}

/// Appends until the broker dies, or `count` batches are acknowledged.
async fn write(world: &World, log: &Log, p: i32, count: u64) {
    let partition = log.partition(&id(p)).unwrap();
    let history = &world.histories[p as usize];
    let mut waiting: VecDeque<(i64, Commit)> = VecDeque::new();
    // An id that no earlier life has used.
    let producer_id = world.env.now_ms() * 10 + i64::from(p);
    let mut sequence = 0;
    let idempotent = world.chance(0.5);
    for n in 0..count {
        let (bytes, records) = batch(world, idempotent.then_some((producer_id, sequence)));
        sequence += records.len() as i32;
        let header = BatchHeader::parse(&bytes).unwrap();
        let options = AppendOptions {
            expected_epoch: None,
            log_append_time: None,
            deadline: Instant::now() + Duration::from_secs(600),
        };
        let Ok(appended) = log.append(&partition, &header, &bytes, options).await else {
            return;
        };
        let end = appended.base_offset + records.len() as i64;
        {
            let mut history = history.borrow_mut();
            for (offset, record) in (appended.base_offset..).zip(records) {
                history.records.insert(offset, record);
            }
        }
        waiting.push_back((end, appended.commit));
        while waiting.len() > PIPELINE || (n + 1 == count && !waiting.is_empty()) {
            let (end, commit) = waiting.pop_front().unwrap();
            if commit.wait().await.is_err() {
                return;
            }
            world.count("acknowledged batches", 1);
            let mut history = history.borrow_mut();
            history.acked_end = history.acked_end.max(end);
        }
        if world.chance(0.7) {
            world.nap(60).await;
        }
    }
}

/// Reads from an offset to the end. None: the log start moved beyond it.
async fn read_to_end(
    world: &World,
    log: &Log,
    partition: &Arc<Partition>,
    from: i64,
) -> Option<(Vec<Seen>, i64)> {
    let (mut seen, mut offset) = (Vec::new(), from);
    let mut records_of_last = None;
    let mut failures = 0;
    loop {
        let most = 1 + world.below(3000) as usize;
        match log.read(partition, offset, most, true).await {
            Ok(read) if read.records.is_empty() => {
                // librdkafka and kafkajs wait for ever at an end that holds no record [N9].
                if records_of_last == Some(0) {
                    world.note(format!(
                        "{}: the last batch, below {offset}, has no record",
                        partition.id()
                    ));
                }
                return Some((seen, read.high_watermark));
            }
            Ok(read) => match decode(&read.records.concat(), offset, &mut seen) {
                Ok(next) => {
                    let bytes = read.records.concat();
                    records_of_last = iter_batches(&bytes)
                        .last()
                        .and_then(Result::ok)
                        .map(|(_, header)| header.records_count);
                    offset = next;
                }
                Err(what) => {
                    world.note(format!("{}: {what}", partition.id()));
                    return None;
                }
            },
            Err(ReadError::OffsetOutOfRange { log_start, .. }) if offset < log_start => return None,
            // The store fails now and then; what is lost fails for ever.
            Err(error) => {
                failures += 1;
                if failures == 20 {
                    world.note(format!("{} cannot be read at {offset}: {error}", partition.id()));
                    return None;
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
        if world.chance(0.1) {
            world.nap(100).await;
        }
    }
}

/// One read from a random place, held against the history.
async fn read_and_check(world: &World, log: &Log, p: i32, whole: bool, quiet: bool) {
    let began_ms = world.env.now_ms();
    let partition = log.partition(&id(p)).unwrap();
    let (start, end) = (partition.log_start_offset(), partition.high_watermark());
    let from = if whole || end == start {
        start
    } else {
        start + world.below((end - start) as u64) as i64
    };
    let Some((seen, end)) = read_to_end(world, log, &partition, from).await else {
        return;
    };
    let reading = Reading {
        from,
        end,
        log_start: partition.log_start_offset(),
        began_ms,
        now_ms: world.env.now_ms(),
        quiet,
        min_lag_ms: world.base.min_compaction_lag_ms,
        delete_retention_ms: world.base.delete_retention_ms,
        tombstones_from: partition.tombstones_from(),
        seen: &seen,
    };
    world.count("reads", 1);
    world.count("records read", seen.len() as u64);
    if let Err(what) = world.histories[p as usize].borrow().check(&reading) {
        world.note(format!("partition {p}, read from {from} to {end}: {what}"));
    }
}

/// The first record at or after a time: it is one, and none that must be there comes before it.
async fn look_up(world: &World, log: &Log, p: i32) {
    let partition = log.partition(&id(p)).unwrap();
    let timestamp = world.env.now_ms() - world.below(8000) as i64;
    let end = partition.high_watermark();
    let Ok(found) = log.offset_for_timestamp(&partition, timestamp).await else {
        return;
    };
    world.count("look-ups", 1);
    let checked = world.histories[p as usize].borrow().check_look_up(
        timestamp,
        found.map(|found| (found.offset, found.timestamp)),
        partition.log_start_offset()..end,
    );
    if let Err(what) = checked {
        world.note(format!("partition {p}, look-up: {what}"));
    }
}

/// Readers, time look-ups, configuration, DeleteRecords; until the life ends.
async fn disturb(world: &World, log: &Log) {
    loop {
        world.nap(400).await;
        let p = world.below(PARTITIONS as u64) as i32;
        match world.below(20) {
            0 => set_paused(world, log, !world.paused.get()),
            1 => {
                let config = PartitionConfig {
                    // Never less than at first: what was promised then is checked to the end.
                    delete_retention_ms: world.base.delete_retention_ms + world.below(2) as i64 * 500,
                    segment_bytes: 300 + world.below(5000),
                    ..world.config.borrow().clone()
                };
                configure(world, log, config);
            }
            2 if world.chance(0.3) => {
                let partition = log.partition(&id(p)).unwrap();
                let (start, end) = (partition.log_start_offset(), partition.high_watermark());
                let offset = start + world.below((end - start) as u64 / 2) as i64;
                log.delete_records(vec![(partition, offset)]).await;
            }
            3..=5 => look_up(world, log, p).await,
            6 => log.seal_now().await,
            _ => read_and_check(world, log, p, world.chance(0.5), false).await,
        }
    }
}

fn configure(world: &World, log: &Log, config: PartitionConfig) {
    *world.config.borrow_mut() = config.clone();
    let config = Arc::new(config);
    (0..PARTITIONS).for_each(|p| log.configure(&id(p), config.clone()));
}

fn set_paused(world: &World, log: &Log, paused: bool) {
    world.paused.set(paused);
    let config = PartitionConfig {
        compact: !paused,
        ..world.config.borrow().clone()
    };
    configure(world, log, config);
}

/// One life: everything at once, until it is killed.
async fn live(world: &World, life: &Life, most: Duration) {
    let count = 10 + world.below(40);
    let writers = (0..PARTITIONS).map(|p| write(world, &life.log, p, count));
    let all = async {
        let writers = futures::future::join_all(writers);
        let disturb = disturb(world, &life.log);
        tokio::pin!(disturb);
        tokio::select! {
            biased;
            _ = writers => {}
            () = &mut disturb => {}
        }
        // Writers have finished before it is their time: some idle time.
        disturb.await;
    };
    let _ = timeout(most, all).await;
}

/// Whether a segment or a manifest was written by this start.
fn is_of(key: &str, incarnation: u64) -> bool {
    let fields: Vec<&str> = key.rsplit('/').next().unwrap_or(key).split('-').collect();
    let at = if key.contains("/segment/") { 2 } else { 1 };
    fields.len() == 4 && fields[at] == incarnation.to_string()
}

/// At the end, in peace: everything is compacted, tombstones go, and the bucket is sound.
async fn settle(world: &World, life: &Life, incarnation: u64) {
    life.network.set(Faults {
        latency: world.faults.latency.clone(),
        ..Faults::none()
    });
    let log = &life.log;
    let config = PartitionConfig {
        delete: false,
        compact: true,
        min_cleanable_dirty_ratio: 0.0,
        ..world.base.clone()
    };
    world.paused.set(false);
    configure(world, log, config);
    let wait = world
        .base
        .min_compaction_lag_ms
        .max(world.base.delete_retention_ms) as u64
        + 5;
    let mut ends = Vec::new();
    for round in 0..3 {
        if round < 2 {
            ends = (0..PARTITIONS)
                .map(|p| log.partition(&id(p)).unwrap().high_watermark())
                .collect();
        }
        for p in 0..PARTITIONS {
            write(world, log, p, 1).await;
        }
        sleep(Duration::from_millis(wait)).await;
        log.seal_now().await;
        // A map that is too small for all takes several passes, and each leaves the rest dirty.
        for _ in 0..2 {
            log.clean_now().await;
        }
        for p in 0..PARTITIONS {
            read_and_check(world, log, p, true, true).await;
        }
    }
    for p in 0..PARTITIONS {
        let partition = log.partition(&id(p)).unwrap();
        let from = partition.log_start_offset();
        if let Some((seen, _)) = read_to_end(world, log, &partition, from).await {
            let checked = world.histories[p as usize]
                .borrow()
                .check_compacted(&seen, ends[p as usize]);
            if let Err(what) = checked {
                world.note(format!("partition {p}, at the end: {what}"));
            }
        }
    }
    let metrics = log.metrics();
    world.count("passes", metrics.cleaner_passes);
    world.count("passes that failed", metrics.cleaner_failures);
    world.count("segments made for nothing", metrics.cleaner_refused);
    // What was dropped is gone after the grace, and what is left is sound.
    sleep(2 * world.options.segment_grace + Duration::from_secs(1)).await;
    let bucket = Bucket::from_store(world.store.clone(), world.kind, &world.env);
    match check(&world.env, &bucket, CheckOptions::default(), &|_| {}).await {
        Ok(report) => {
            // A put that lands late, or twice, lands after whoever would have removed it.
            let late = world.faults.late_put > 0.0;
            let excused = |finding: &Finding| late && finding.kind == Kind::Orphan;
            if !report.findings.iter().all(excused) {
                world.note(format!("the bucket: {report}"));
            }
            // Uploads of rounds and passes that failed went, too.
            let leaks = report.waiting.iter().filter(|key| key.starts_with("topic/"));
            let leaks: Vec<&String> = leaks.filter(|key| is_of(key, incarnation)).collect();
            if !late && !leaks.is_empty() {
                world.note(format!("dropped, and not deleted: {leaks:?}"));
            }
        }
        Err(error) => world.note(format!("the bucket: {error}")),
    }
}

/// Plays a seed: what was found, and figures.
pub async fn play(seed: u64) -> (Vec<String>, BTreeMap<&'static str, u64>) {
    let world = World::new(seed);
    let mut lives = Lives {
        world: Rc::clone(&world),
        seed,
        incarnation: 0,
        previous: None,
    };
    let count = 1 + world.below(3);
    for n in 0..=count {
        let life = match lives.begin().await {
            Ok(life) => life,
            Err(what) => {
                world.note(what);
                break;
            }
        };
        if n == count {
            settle(&world, &life, lives.incarnation).await;
        } else {
            let most = Duration::from_micros(world.below(6_000_000));
            live(&world, &life, most).await;
            let metrics = life.log.metrics();
            world.count("passes", metrics.cleaner_passes);
            world.count("passes that failed", metrics.cleaner_failures);
            world.count("segments made for nothing", metrics.cleaner_refused);
            if world.chance(0.2) {
                life.log.shutdown(Instant::now() + Duration::from_secs(5)).await;
            }
        }
        life.env.kill();
        if !world.found.borrow().is_empty() {
            break;
        }
    }
    let (found, figures) = (world.found.take(), world.figures.take());
    (found, figures)
}
