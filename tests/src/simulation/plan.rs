//! What one seed decides before anything runs: the store, how small everything is, what goes wrong and how often.

use std::time::Duration;

use drumlin_log::{LogOptions, PartitionConfig};
use drumlin_objects::fault::{Faults, Latency};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The kind of store that a run has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    /// An object store over a network, on which a stopped broker may wake up again.
    Remote,
    /// A local directory that loses what was not fsynced when the power is cut.
    Directory,
}

/// What the broken variants need more of than chance gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Emphasis {
    /// As the seed has it.
    #[default]
    None,
    /// Brokers that sleep and wake, on a remote store.
    Zombies,
    /// Kills in the middle of rounds, on a remote store.
    Kills,
    /// Takeovers with slow lists while rounds go on, entries deleted at once.
    SlowLists,
}

impl Emphasis {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Zombies, Self::Kills, Self::SlowLists];
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub store: Store,
    pub options: LogOptions,
    pub duration: Duration,
    pub topics: Vec<TopicPlan>,
    /// How often an overtaken broker sleeps meanwhile.
    pub sleeps: f64,
    pub calm: Faults,
    pub storm: Faults,
    /// Relative frequencies of what is done to the brokers.
    pub weights: Vec<(Act, u32)>,
    /// Mean time between two of them.
    pub pace: Duration,
    pub meta_checkpoint: u64,
}

#[derive(Clone, Debug)]
pub(super) struct TopicPlan {
    pub partitions: i32,
    pub config: PartitionConfig,
    /// Time between a producer's batches.
    pub every: Duration,
    pub batch_bytes: usize,
}

/// What is done to the brokers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Kill,
    /// At a write of some kind.
    KillAtWrite,
    /// A new start while the old one runs, or sleeps.
    Takeover,
    /// Two starts at once.
    Race,
    Shutdown,
    Outage,
    Storm,
    ClockJump,
    Seal,
    PowerCut,
}

fn ms(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..=to))
}

impl Plan {
    pub(super) fn new(seed: u64, emphasis: Emphasis) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x706c_616e);
        let store = match emphasis {
            Emphasis::None if rng.random_bool(0.25) => Store::Directory,
            _ => Store::Remote,
        };
        let remote = store == Store::Remote;
        let mut options = options(&mut rng);
        let topics: Vec<TopicPlan> = (0..rng.random_range(1..=3))
            .map(|_| TopicPlan::new(&mut rng))
            .collect();
        let calm = Faults {
            latency: Latency::Uniform(Duration::from_millis(1)..ms(&mut rng, 2, 60)),
            ..Faults::none()
        };
        let storm = if remote {
            stormy(&mut rng)
        } else {
            bad_disk(&mut rng)
        };
        let mut weights = vec![
            (Act::Kill, rng.random_range(1..6)),
            (Act::KillAtWrite, rng.random_range(1..8)),
            (Act::Shutdown, rng.random_range(1..4)),
            (Act::Outage, rng.random_range(0..3)),
            (Act::Storm, rng.random_range(1..6)),
            (Act::ClockJump, rng.random_range(0..2)),
            (Act::Seal, rng.random_range(0..3)),
        ];
        if remote {
            weights.push((Act::Takeover, rng.random_range(1..8)));
            weights.push((Act::Race, rng.random_range(0..3)));
        } else {
            weights.push((Act::PowerCut, rng.random_range(2..8)));
        }
        let mut pace = ms(&mut rng, 1_500, 6_000);
        let (mut calm, mut topics, mut sleeps) = (calm, topics, 0.6);
        match emphasis {
            Emphasis::None => {}
            Emphasis::Zombies => {
                weights = vec![(Act::Takeover, 6), (Act::Race, 1), (Act::Storm, 1)];
            }
            Emphasis::Kills => {
                weights = vec![(Act::KillAtWrite, 6), (Act::Takeover, 1), (Act::Kill, 1)];
                pace = pace.min(Duration::from_secs(3));
                calm.latency = Latency::Uniform(Duration::from_millis(5)..Duration::from_millis(150));
            }
            Emphasis::SlowLists => {
                weights = vec![(Act::Takeover, 1)];
                pace = Duration::from_millis(1_500);
                sleeps = 0.0;
                calm.torn_list = 0.5;
                calm.list_for = Duration::from_millis(200)..Duration::from_secs(3);
                calm.stall = 0.06;
                calm.stall_for = Duration::from_millis(500)..Duration::from_secs(4);
                calm.latency = Latency::Uniform(Duration::from_millis(2)..Duration::from_millis(40));
                options.round_interval = Duration::from_millis(800);
                options.wal_grace = Duration::ZERO;
                options.flush_bytes = 2 << 10;
                options.linger_max = Duration::from_millis(1);
                options.puts_per_second = 500.0;
                for topic in &mut topics {
                    topic.every = Duration::from_millis(20);
                }
            }
        }
        Self {
            store,
            options,
            duration: ms(&mut rng, 40_000, 90_000),
            topics,
            sleeps,
            calm,
            storm,
            weights,
            pace,
            meta_checkpoint: rng.random_range(3..40),
        }
    }
}

fn options(rng: &mut StdRng) -> LogOptions {
    LogOptions {
        flush_bytes: rng.random_range(2..48) << 10,
        linger_max: ms(rng, 1, 120),
        puts_per_second: f64::from(rng.random_range(3..60)),
        window: rng.random_range(1..=16),
        unflushed_max_bytes: rng.random_range(16..512) << 10,
        memory_bytes: rng.random_range(0..64) << 10,
        round_interval: ms(rng, 700, 6_000),
        round_bytes: rng.random_range(16..400) << 10,
        round_objects: rng.random_range(4..200),
        segment_min_bytes: rng.random_range(2..24) << 10,
        bundle_max_age: ms(rng, 3_000, 60_000),
        bundle_merge_count: rng.random_range(2..6),
        manifest_fold: rng.random_range(1..5),
        manifest_root_segments: rng.random_range(1..4),
        manifest_leaf_segments: rng.random_range(1..5),
        wal_grace: ms(rng, 0, 4_000),
        segment_grace: ms(rng, 0, 6_000),
        retention_interval: ms(rng, 800, 5_000),
        producer_expiration: Duration::from_secs(24 * 3600),
        cold_inflight_bytes: rng.random_range(64..4096) << 10,
        read_ahead_max: 1 << 20,
        cache_dir: None,
        ..LogOptions::default()
    }
}

fn stormy(rng: &mut StdRng) -> Faults {
    let mut chance = |most: f64| -> f64 {
        if rng.random_bool(0.4) {
            0.0
        } else {
            rng.random::<f64>() * most
        }
    };
    Faults {
        error_before: chance(0.15),
        error_after: chance(0.15),
        stall: chance(0.03),
        stall_for: Duration::from_secs(1)..Duration::from_secs(30),
        cut_body: chance(0.1),
        slow_down: chance(0.01),
        late_put: chance(0.1),
        duplicate_put: chance(0.1),
        false_conflict: chance(0.1),
        torn_list: chance(0.8),
        latency: Latency::Tailed {
            median: Duration::from_millis(20),
            tail: 0.02,
            worst: Duration::from_secs(3),
        },
        ..Faults::none()
    }
}

fn bad_disk(rng: &mut StdRng) -> Faults {
    Faults {
        error_before: rng.random::<f64>() * 0.1,
        fsync_failed: if rng.random_bool(0.5) { 0.0 } else { 0.02 },
        full: rng.random_bool(0.3),
        latency: Latency::Uniform(Duration::from_millis(0)..Duration::from_millis(40)),
        ..Faults::none()
    }
}

impl TopicPlan {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let segment_bytes = rng.random_range(6..48) << 10;
        let (mut retention_ms, mut retention_bytes) = (None, None);
        match rng.random_range(0..5) {
            0 => retention_ms = Some(rng.random_range(4_000..40_000)),
            1 => retention_bytes = Some(rng.random_range(10..120) << 10),
            _ => {}
        }
        Self {
            partitions: rng.random_range(1..=3),
            config: PartitionConfig {
                segment_bytes,
                retention_ms,
                retention_bytes,
                ..PartitionConfig::default()
            },
            every: ms(rng, 30, 1_500),
            batch_bytes: rng.random_range(50..2_500),
        }
    }
}
