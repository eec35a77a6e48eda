//! Controllers that come and go on a store that fails, and a ledger of what each was told.
//!
//! `DRUMLIN_SEED` replays one seed; `DRUMLIN_SEEDS` says how many are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drumlin_objects::fault::{FaultStore, Faults, Outage};
use drumlin_objects::{Bucket, BucketKind, Env, TaskKind};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use super::open::{OpenError, OpenOptions, Session};
use super::*;
use crate::ResourceKind;
use crate::testing::{seed, topic, topic_id};

const START_MS: i64 = 1_700_000_000_000;

/// What all the controllers of a run were told, and what they tried.
#[derive(Debug, Default)]
struct Ledger {
    next_topic: u64,
    created: BTreeMap<u64, u64>,
    delete_tried: BTreeSet<u64>,
    deleted: BTreeSet<u64>,
    /// Values that increments of the counter were told, and the slots of their entries.
    increments: BTreeMap<u64, u64>,
    increments_tried: u64,
    producer_ids: BTreeSet<i64>,
    incarnations: BTreeMap<Incarnation, u64>,
    /// The newest epoch whose opening has been answered.
    opened: u64,
    /// The checksum of the image at each position, whoever published it.
    images: BTreeMap<u64, u32>,
    panics: u64,
    told: BTreeMap<&'static str, u64>,
}

impl Ledger {
    fn tell(&mut self, what: &'static str) {
        *self.told.entry(what).or_default() += 1;
    }

    /// Every image at a position is the same one.
    fn published(&mut self, image: &Image, seed: u64) {
        let checksum = crc32c::crc32c(&image.encode());
        let known = *self.images.entry(image.position).or_insert(checksum);
        assert_eq!(
            known, checksum,
            "two images at position {}, seed {seed}",
            image.position
        );
    }
}

struct Life {
    seed: u64,
    number: u64,
    env: Env,
    bucket: Bucket,
    ledger: Arc<Mutex<Ledger>>,
}

fn counter(image: &Image) -> u64 {
    let configs = image.configs(ResourceKind::Broker, "counter");
    configs
        .and_then(|configs| configs.get("n"))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

impl Life {
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.env.spawn(TaskKind::Test, work);
        let ledger = self.ledger.clone();
        tokio::spawn(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                ledger.lock().unwrap_or_else(PoisonError::into_inner).panics += 1;
            }
        });
    }

    async fn open(&self) -> Session {
        let options = OpenOptions {
            checkpoint_entries: 15,
            ..OpenOptions::new(1)
        };
        loop {
            match MetadataLog::open(&self.env, &self.bucket, &options).await {
                Ok(session) => return session,
                Err(OpenError::Chain(error)) if error.is_transient() => {}
                Err(OpenError::Unwritable(_)) => {}
                // The probe met nothing but faults.
                Err(OpenError::Probe(drumlin_objects::probe::ProbeError::Store(_))) => {}
                Err(error) => panic!("{error}, seed {}", self.seed),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn opened(&self, session: &Session) -> u64 {
        let epoch = session.log.image().epoch;
        let mut ledger = self.ledger();
        ledger.opened = ledger.opened.max(epoch);
        epoch
    }

    async fn run(self: Arc<Self>) {
        let session = self.open().await;
        let epoch = self.opened(&session);
        let previous = session.previous.clone().map(|previous| Fenced {
            node_id: previous.node_id,
            incarnation: previous.incarnation,
            fence_slot: previous.incarnation + 5,
            estate: Some(format!("estate/{}", previous.incarnation)),
        });
        let watcher = self.clone();
        let mut images = session.log.watch();
        self.spawn(async move {
            loop {
                let image = images.borrow_and_update().clone();
                watcher.ledger().published(&image, watcher.seed);
                if images.changed().await.is_err() {
                    return;
                }
            }
        });
        let broker = RegisterBroker {
            node_id: 1,
            endpoints: Vec::new(),
            rack: None,
            previous,
        };
        match session.log.register(broker).await {
            Ok(incarnation) => {
                let twice = self.ledger().incarnations.insert(incarnation, self.number);
                assert_eq!(
                    twice, None,
                    "incarnation {incarnation} given out twice, seed {}",
                    self.seed
                );
            }
            Err(ChangeError::Ended(_)) => return,
            Err(error) => panic!("{error}, seed {}", self.seed),
        }
        for worker in 0..4 {
            let (life, log) = (self.clone(), session.log.clone());
            self.env.spawn(
                TaskKind::Test,
                async move { life.work(&log, worker, epoch).await },
            );
        }
        let mut ended = session.log.ended();
        let _ = ended.wait_for(Option::is_some).await;
        self.ledger().tell("ended");
    }

    async fn work(&self, log: &MetadataLog, worker: u64, epoch: u64) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (self.number << 8 | worker));
        loop {
            sleep(Duration::from_micros(rng.random_range(0..400_000))).await;
            let opened_before = self.ledger().opened;
            let done = match rng.random_range(0..10) {
                0..3 => self.create(log).await,
                3 => self.delete(log, &mut rng).await,
                4..7 => self.increment(log).await,
                7 => self.producer_ids(log).await,
                8 => self.refusal(log, &mut rng).await,
                _ => log.confirm_alone().await.map_err(ChangeError::from),
            };
            match done {
                Ok(()) => {
                    self.ledger().tell("answered");
                    let seed = self.seed;
                    assert!(
                        opened_before <= epoch,
                        "epoch {epoch} was answered though {opened_before} had begun before it asked, seed {seed}"
                    );
                }
                Err(ChangeError::Ended(_)) => return self.ledger().tell("refused for good"),
                Err(error) => panic!("{error}, seed {}", self.seed),
            }
        }
    }

    async fn create(&self, log: &MetadataLog) -> Result<(), MetaError> {
        let id = {
            let mut ledger = self.ledger();
            ledger.next_topic += 1;
            ledger.next_topic
        };
        let slot = log
            .change(|_| Ok(vec![topic(&format!("t{id}"), id, 3, 1)]))
            .await?;
        self.ledger().created.insert(id, slot);
        Ok(())
    }

    async fn delete(&self, log: &MetadataLog, rng: &mut StdRng) -> Result<(), MetaError> {
        let id = {
            let mut ledger = self.ledger();
            let free: Vec<u64> = ledger
                .created
                .keys()
                .copied()
                .filter(|id| !ledger.delete_tried.contains(id))
                .collect();
            let id = free.get(rng.random_range(0..free.len().max(1))).copied();
            ledger.delete_tried.extend(id);
            id
        };
        let Some(id) = id else {
            return log.confirm_alone().await.map_err(ChangeError::from);
        };
        match log
            .change(|_| Ok(vec![Record::TopicDeleted { id: topic_id(id) }]))
            .await
        {
            Ok(_) => {}
            // Another may have created it since it took over from this one. If none did, it is lost.
            Err(ChangeError::Invalid(error)) => {
                log.confirm_alone().await?;
                panic!("{error}, seed {}", self.seed);
            }
            Err(error) => return Err(error),
        }
        self.ledger().deleted.insert(id);
        Ok(())
    }

    async fn increment(&self, log: &MetadataLog) -> Result<(), MetaError> {
        self.ledger().increments_tried += 1;
        let mut value = 0;
        let slot = log
            .change(|image| {
                value = counter(image) + 1;
                Ok(vec![Record::ConfigSet {
                    resource: ResourceKind::Broker,
                    name: "counter".into(),
                    key: "n".into(),
                    value: Some(value.to_string()),
                }])
            })
            .await?;
        let twice = self.ledger().increments.insert(value, slot);
        assert_eq!(twice, None, "{value} was told twice, seed {}", self.seed);
        Ok(())
    }

    async fn producer_ids(&self, log: &MetadataLog) -> Result<(), MetaError> {
        let block = log.allocate_producer_ids(1).await?;
        assert!(
            self.ledger().producer_ids.insert(block.start),
            "{block:?} twice, seed {}",
            self.seed
        );
        Ok(())
    }

    /// Told that a topic exists: then it does, for ever after (or somebody tried to delete it).
    async fn refusal(&self, log: &MetadataLog, rng: &mut StdRng) -> Result<(), MetaError> {
        let id = rng.random_range(0..=self.ledger().next_topic);
        let asked = log
            .change(|image| match image.topic_by_id(&topic_id(id)) {
                Some(_) => Err(true),
                None => Err(false),
            })
            .await;
        match asked {
            Err(ChangeError::Refused(true)) => {
                self.ledger().created.entry(id).or_insert(0);
                log.confirm_alone().await.map_err(ChangeError::from)
            }
            // True when it was committed; whether it still is, only a confirmation tells.
            Err(ChangeError::Refused(false)) => log.confirm_alone().await.map_err(ChangeError::from),
            Err(ChangeError::Ended(end)) => Err(end.into()),
            other => panic!("{other:?}"),
        }
    }
}

async fn simulate(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let store = Arc::new(FaultStore::with_faults(
        Arc::new(InMemory::new()),
        seed,
        Faults::stormy(),
    ));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut envs: Vec<Env> = Vec::new();
    for number in 1..=rng.random_range(3..8) {
        let env = Env::simulated(seed.wrapping_mul(31).wrapping_add(number), START_MS);
        let bucket = Bucket::from_store(store.clone(), BucketKind::Remote, &env);
        let life = Arc::new(Life {
            seed,
            number,
            env: env.clone(),
            bucket,
            ledger: ledger.clone(),
        });
        life.spawn(life.clone().run());
        envs.push(env.clone());
        if rng.random_ratio(1, 4) {
            sleep(Duration::from_millis(rng.random_range(0..10_000))).await;
            store.set_outage(if rng.random() {
                Outage::Hang
            } else {
                Outage::Refuse
            });
            sleep(Duration::from_millis(rng.random_range(0..60_000))).await;
            store.set_outage(Outage::None);
        }
        let ms = rng.random_range(0..30_000);
        sleep(Duration::from_millis(if rng.random_ratio(1, 4) {
            ms / 30
        } else {
            ms
        }))
        .await;
        // Killed at whatever await it stands, or left alive beside its successor.
        if rng.random_ratio(2, 3) {
            env.kill();
        }
    }
    // The last one, in peace.
    store.set(Faults::none());
    let env = Env::simulated(seed ^ u64::MAX, START_MS);
    let bucket = Bucket::from_store(store.clone(), BucketKind::Remote, &env);
    let last = Life {
        seed,
        number: u64::MAX,
        env: env.clone(),
        bucket,
        ledger: ledger.clone(),
    };
    let session = timeout(Duration::from_secs(600), last.open())
        .await
        .expect("opens in time");
    last.opened(&session);
    // Those who were left alive have this long to be answered wrongly.
    sleep(Duration::from_secs(20)).await;
    envs.iter().for_each(Env::kill);
    // One of them may have opened still later, so once more.
    let session = timeout(Duration::from_secs(600), last.open())
        .await
        .expect("opens in time");
    assert_eq!(session.log.confirm_alone().await, Ok(()), "seed {seed}");
    check(&session.log.image(), &last.ledger(), seed);
    let panics = last.ledger().panics;
    assert_eq!(panics, 0, "a task panicked, see above, seed {seed}");
    last.ledger().told.clone()
}

fn check(image: &Image, ledger: &Ledger, seed: u64) {
    for id in ledger.created.keys() {
        let there = image.topic_by_id(&topic_id(*id)).is_some();
        assert!(
            there || ledger.delete_tried.contains(id),
            "topic {id} is lost, seed {seed}"
        );
        assert!(
            !(there && ledger.deleted.contains(id)),
            "topic {id} came back, seed {seed}"
        );
    }
    for id in &ledger.deleted {
        assert!(
            image.tombstones.contains_key(&topic_id(*id)),
            "the tombstone of {id} is lost, seed {seed}"
        );
    }
    let told = ledger.increments.len() as u64;
    let count = counter(image);
    assert!(
        count >= told && count <= ledger.increments_tried,
        "{told} ≤ {count} increments, seed {seed}"
    );
    assert!(
        ledger.increments.values().is_sorted(),
        "increments out of order, seed {seed}"
    );
    assert!(
        ledger.increments.keys().all(|value| *value <= count),
        "seed {seed}"
    );
    let last = ledger.producer_ids.last();
    assert!(
        last.is_none_or(|last| last + PRODUCER_ID_BLOCK <= image.next_producer_id),
        "seed {seed}"
    );
    for incarnation in ledger.incarnations.keys() {
        assert!(
            image.incarnations.contains_key(incarnation),
            "{incarnation} is lost, seed {seed}"
        );
    }
    assert_eq!(
        image.live_incarnations().count(),
        usize::from(!image.incarnations.is_empty()),
        "seed {seed}"
    );
}

#[test]
fn controllers_that_come_and_go_lose_nothing() {
    let seeds = std::env::var("DRUMLIN_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let first = seed("controllers_that_come_and_go_lose_nothing");
    let replay = std::env::var("DRUMLIN_SEED").is_ok();
    let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
    for n in 0..if replay { 1 } else { seeds } {
        let seed = first.wrapping_add(n);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(simulate(seed)));
        match std::panic::catch_unwind(run) {
            Ok(counts) => counts
                .into_iter()
                .for_each(|(what, n)| *told.entry(what).or_default() += n),
            Err(panic) => {
                println!("failed with DRUMLIN_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seeds} seeds: {told:?}");
    assert!(
        replay
            || told
                .get("answered")
                .is_some_and(|answered| *answered > 50 * seeds)
    );
}
