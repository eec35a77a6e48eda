//! The world around the brokers: one bucket, one clock, whoever is running, and the hand that makes trouble.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drumlin_cluster::{Image, Record};
use drumlin_log::check::{CheckOptions, Finding, Kind, check};
use drumlin_log::{Partition, PartitionConfig, PartitionSpec, TopicId, TopicPartition};
use drumlin_objects::fault::{FaultStore, Faults, Outage};
use drumlin_objects::object_store::ObjectStore;
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::powercut::{PowerCutOptions, PowerCutStore};
use drumlin_objects::{Env, TaskKind};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::{Key, Ledger};
use super::node::{NODE_ID, NoStart, Node, bucket_of};
use super::plan::{Act, Plan, Store, TopicPlan};
use super::tap::Tap;
use super::trace::{Trace, lock};
use super::workload::Client;

/// Unix milliseconds at the start.
const START_MS: i64 = 1_700_000_000_000;
/// Starts that may fail one after the other while the store is well.
const STARTS: u32 = 200;

pub(super) struct World {
    pub plan: Plan,
    pub trace: Arc<Trace>,
    pub modelled: Option<PowerCutStore>,
    pub ledger: Mutex<Ledger>,
    tap: Tap,
    rng: Mutex<StdRng>,
    state: Mutex<State>,
    /// A broker began to serve.
    changed: Notify,
    stopping: AtomicBool,
    /// Writes, reads, clients; to be waited for at the end.
    clients: Mutex<Vec<JoinHandle<()>>>,
    /// Starts tried so far: nobody may be fenced but by one of them.
    starts: AtomicU64,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Node>>,
    /// Every broker that may still be running.
    running: Vec<Arc<Node>>,
    /// Why a start failed last.
    refused: Option<String>,
    /// Every network there was, for their counts.
    networks: Vec<FaultStore>,
    faults: Option<Faults>,
    topics: BTreeMap<TopicId, Topic>,
}

struct Topic {
    plan: TopicPlan,
    config: Arc<PartitionConfig>,
    /// Known to be in the metadata log.
    created: bool,
    deleting: bool,
    deleted: bool,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Arc<Self> {
        let trace = Arc::new(Trace::new());
        let modelled = (plan.store == Store::Directory).then(|| {
            let options = PowerCutOptions {
                step: Duration::from_millis(3),
                ..PowerCutOptions::default()
            };
            PowerCutStore::new(seed, options)
        });
        let store: Arc<dyn ObjectStore> = match &modelled {
            Some(model) => Arc::new(model.clone()),
            None => Arc::new(InMemory::new()),
        };
        let tap = Tap::new(store, &trace, START_MS);
        Arc::new(Self {
            plan,
            modelled,
            ledger: Mutex::new(Ledger::new(&trace)),
            tap,
            trace,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            state: Mutex::default(),
            changed: Notify::new(),
            stopping: AtomicBool::new(false),
            clients: Mutex::default(),
            starts: AtomicU64::new(0),
        })
    }

    fn random(&self) -> u64 {
        lock(&self.rng).random()
    }

    fn chance(&self, chance: f64) -> bool {
        lock(&self.rng).random_bool(chance)
    }

    fn pick(&self, from: u64, to: u64) -> u64 {
        lock(&self.rng).random_range(from..=to)
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.pick(from, to))
    }

    pub(super) fn wall_ms(&self) -> i64 {
        START_MS + self.trace.now_ms()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn is_deleted(&self, id: &TopicPartition) -> bool {
        lock(&self.state)
            .topics
            .get(&id.topic)
            .is_none_or(|topic| topic.deleting)
    }

    pub(super) fn config_of(&self, topic: &TopicId) -> Arc<PartitionConfig> {
        let state = lock(&self.state);
        state
            .topics
            .get(topic)
            .map(|topic| Arc::clone(&topic.config))
            .unwrap_or_default()
    }

    /// What was committed must be there.
    pub(super) fn check_image(&self, image: &Image) {
        for (id, topic) in &lock(&self.state).topics {
            let there = image.topic_by_id(&id.0).is_some();
            if there && topic.deleted {
                self.trace
                    .violation(format!("topic {id} is back after its deletion"));
            }
            if !there && topic.created && !topic.deleting {
                self.trace
                    .violation(format!("topic {id} is gone from the metadata"));
            }
        }
    }

    fn current(&self) -> Option<Arc<Node>> {
        lock(&self.state).current.clone()
    }

    /// The broker that serves, as soon as there is one.
    pub(super) async fn connect(&self) -> Arc<Node> {
        loop {
            let changed = self.changed.notified();
            if let Some(node) = self.current() {
                return node;
            }
            changed.await;
        }
    }

    /// An id for an idempotent producer, each from a block of its own.
    pub(super) async fn producer_id(&self) -> Option<i64> {
        while !self.is_stopping() {
            let node = self.connect().await;
            let meta = Arc::clone(&node.meta);
            let asked = node.call(async move { meta.allocate_producer_ids(NODE_ID).await });
            if let Ok(Some(Ok(block))) = timeout(Duration::from_secs(10), asked).await {
                lock(&self.ledger).block(block.clone());
                return Some(block.start);
            }
            sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// Notes a broker's own view of a partition.
    pub(super) fn look(&self, node: &Node, partition: &Partition) {
        if self.is_deleted(&partition.id()) {
            return;
        }
        let mut ledger = lock(&self.ledger);
        let (high, start) = (partition.high_watermark(), partition.log_start_offset());
        ledger.ends(&partition.id(), node.incarnation, high, start);
    }

    fn look_at_all(&self, node: &Node) {
        let ids: Vec<TopicPartition> = self.partitions();
        for id in ids {
            if let Some(partition) = node.partition(&id) {
                self.look(node, &partition);
            }
        }
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        let state = lock(&self.state);
        let live = state
            .topics
            .iter()
            .filter(|(_, topic)| topic.created && !topic.deleting);
        live.flat_map(|(id, topic)| {
            (0..topic.plan.partitions).map(|partition| TopicPartition {
                topic: *id,
                partition,
            })
        })
        .collect()
    }

    // Brokers.

    /// Starts a broker, however often it takes. None: a newer one was faster, or it died on the way.
    async fn start(self: &Arc<Self>, dies_after: Option<Duration>) -> Option<Arc<Node>> {
        let (env, network) = self.process();
        self.trace.note("start", &[]);
        let number = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        let starting = env.spawn(
            TaskKind::Test,
            Node::start(Arc::clone(self), env.clone(), network),
        );
        let outcome = match dies_after {
            None => starting.await,
            Some(after) => match timeout(after, starting).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.trace.count("kills in the middle of a start");
                    env.kill();
                    return None;
                }
            },
        };
        match outcome {
            Ok(Ok(node)) => Some(self.serve(node, number)),
            Ok(Err(error)) => {
                env.kill();
                self.trace.note(&format!("no start: {error:?}"), &[]);
                match error {
                    NoStart::Retry(why) => {
                        lock(&self.state).refused = Some(why);
                        self.trace.count("starts that failed in the store");
                    }
                    NoStart::Fenced => self.trace.count("starts overtaken by a newer one"),
                    NoStart::Broken(what) => self.trace.violation(format!("a start found: {what}")),
                }
                None
            }
            Err(_) => None,
        }
    }

    /// A new process: its clock, its randomness, its way to the store.
    fn process(&self) -> (Env, FaultStore) {
        let skew = match self.pick(0, 9) {
            0 => 3_600_000,
            1 => -3_600_000,
            _ => 0,
        };
        let env = Env::simulated(self.random(), self.wall_ms() + skew);
        self.note_clock(&env);
        let network = FaultStore::new(Arc::new(self.tap.clone()), self.random());
        let mut state = lock(&self.state);
        network.set(state.faults.clone().unwrap_or_else(|| self.plan.calm.clone()));
        state.networks.push(network.clone());
        (env, network)
    }

    fn note_clock(&self, env: &Env) {
        let ahead = env.now_ms() - self.wall_ms();
        let mut ledger = lock(&self.ledger);
        ledger.ahead_ms = ledger.ahead_ms.max(ahead + 1);
    }

    fn serve(self: &Arc<Self>, node: Node, starts: u64) -> Arc<Node> {
        let node = Arc::new(node);
        self.trace.note("serves", &[node.incarnation as i64]);
        self.trace.count("starts");
        self.look_at_all(&node);
        {
            let mut state = lock(&self.state);
            state.running.push(Arc::clone(&node));
            let newer = state
                .current
                .as_ref()
                .is_none_or(|current| current.incarnation < node.incarnation);
            if newer {
                state.current = Some(Arc::clone(&node));
            }
        }
        self.changed.notify_waiters();
        let (world, watched) = (Arc::clone(self), Arc::clone(&node));
        tokio::spawn(async move {
            let (fenced, why) = watched.ended().await;
            world
                .trace
                .note(&format!("ended: {why}"), &[watched.incarnation as i64]);
            if fenced && world.starts.load(Ordering::Relaxed) == starts {
                let what = format!(
                    "incarnation {} was fenced, and nobody started",
                    watched.incarnation
                );
                world.trace.violation(what);
            }
            world.trace.count(if fenced {
                "brokers fenced"
            } else {
                "brokers stopped or failed"
            });
            // Its connections hear of it first.
            sleep(world.millis(0, 3_000)).await;
            world.kill(&watched);
        });
        node
    }

    fn kill(&self, node: &Arc<Node>) {
        node.env.kill();
        if let Some(model) = &self.modelled {
            self.trace
                .count_by("deletions undone by kills", model.process_killed());
        }
        let mut state = lock(&self.state);
        state.running.retain(|other| !Arc::ptr_eq(other, node));
        if state
            .current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, node))
        {
            state.current = None;
        }
    }

    /// Starts brokers until one serves.
    async fn restart(self: &Arc<Self>) {
        for tried in 0..STARTS {
            if self.current().is_some() || self.trace.is_violated() {
                return;
            }
            let dies = (tried < 3 && self.chance(0.15)).then(|| self.millis(0, 800));
            if self.start(dies).await.is_none() {
                sleep(self.millis(10, 1_000)).await;
            }
        }
        let last = lock(&self.state).refused.take();
        self.trace.violation(format!(
            "no broker started in {STARTS} attempts, at last: {last:?}"
        ));
    }

    fn set_faults(&self, faults: &Faults) {
        let mut state = lock(&self.state);
        state.faults = Some(faults.clone());
        for node in &state.running {
            node.network.set(faults.clone());
        }
    }

    // Topics.

    async fn create_topic(self: &Arc<Self>, plan: TopicPlan) {
        let id = TopicId((u128::from(self.random()) << 64 | u128::from(self.random())).to_be_bytes());
        let topic = Topic {
            config: Arc::new(plan.config.clone()),
            plan: plan.clone(),
            created: false,
            deleting: false,
            deleted: false,
        };
        lock(&self.state).topics.insert(id, topic);
        let name = format!("topic-{id}");
        while !self.is_stopping() {
            let node = self.connect().await;
            let (meta, name, partitions) = (Arc::clone(&node.meta), name.clone(), plan.partitions as u32);
            let asked = node.call(async move {
                meta.change(|image| {
                    if image.topic_by_id(&id.0).is_some() {
                        return Ok(Vec::new());
                    }
                    let created = Record::TopicCreated {
                        name,
                        id: id.0,
                        partitions,
                        leader: NODE_ID,
                        configs: Vec::new(),
                    };
                    Ok::<_, std::convert::Infallible>(vec![created])
                })
                .await
            });
            if let Ok(Some(Ok(_))) = timeout(Duration::from_secs(20), asked).await {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        if self.is_stopping() {
            return;
        }
        self.trace.note("topic created", &[]);
        if let Some(topic) = lock(&self.state).topics.get_mut(&id) {
            topic.created = true;
        }
        self.follow_image();
        self.spawn_clients(id, &plan);
    }

    /// Opens what the metadata of running brokers has, as the broker does when its image moves.
    fn follow_image(&self) {
        let nodes = lock(&self.state).running.clone();
        for node in nodes {
            let image = node.meta.image();
            for (raw, topic) in image.topics_by_id().iter() {
                let config = self.config_of(&TopicId(*raw));
                for (number, partition) in topic.partitions.iter().enumerate() {
                    let id = TopicPartition {
                        topic: TopicId(*raw),
                        partition: number as i32,
                    };
                    node.log.open_partition(PartitionSpec {
                        id,
                        leader_epoch: image.leader_epoch(*partition),
                        config: Arc::clone(&config),
                    });
                }
            }
        }
    }

    fn spawn_clients(self: &Arc<Self>, topic: TopicId, plan: &TopicPlan) {
        for partition in 0..plan.partitions {
            let id = TopicPartition { topic, partition };
            let client = || Client::new(self, self.random(), id, plan);
            let mut tasks = Vec::new();
            for _ in 0..self.pick(0, 2) {
                tasks.push(tokio::spawn(client().idempotent()));
            }
            if self.chance(0.5) {
                tasks.push(tokio::spawn(client().plain(true)));
            }
            if self.chance(0.3) {
                tasks.push(tokio::spawn(client().plain(false)));
            }
            tasks.push(tokio::spawn(client().consumer(true)));
            if self.chance(0.7) {
                tasks.push(tokio::spawn(client().consumer(false)));
            }
            if self.chance(0.4) {
                tasks.push(tokio::spawn(client().deleter()));
            }
            lock(&self.clients).extend(tasks);
        }
    }

    async fn delete_topic(self: &Arc<Self>, id: TopicId) {
        if let Some(topic) = lock(&self.state).topics.get_mut(&id) {
            topic.deleting = true;
        }
        while !self.is_stopping() {
            let node = self.connect().await;
            let meta = Arc::clone(&node.meta);
            let asked = node.call(async move {
                meta.change(|image| {
                    let there = image.topic_by_id(&id.0).is_some();
                    let records = there
                        .then_some(Record::TopicDeleted { id: id.0 })
                        .into_iter()
                        .collect();
                    Ok::<_, std::convert::Infallible>(records)
                })
                .await
            });
            if let Ok(Some(Ok(_))) = timeout(Duration::from_secs(20), asked).await {
                self.trace.note("topic deleted", &[]);
                self.trace.count("topics deleted");
                let mut partitions = 0;
                if let Some(topic) = lock(&self.state).topics.get_mut(&id) {
                    topic.deleted = true;
                    partitions = topic.plan.partitions;
                }
                for partition in 0..partitions {
                    node.log.drop_partition(TopicPartition { topic: id, partition });
                }
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Topics come and go.
    async fn administer(self: Arc<Self>) {
        for plan in self.plan.topics.clone() {
            self.create_topic(plan).await;
        }
        while !self.is_stopping() {
            sleep(self.millis(3_000, 40_000)).await;
            if self.is_stopping() {
                return;
            }
            let live: Vec<TopicId> = {
                let state = lock(&self.state);
                let live = state
                    .topics
                    .iter()
                    .filter(|(_, topic)| topic.created && !topic.deleting);
                live.map(|(id, _)| *id).collect()
            };
            if !live.is_empty() && self.chance(0.5) {
                let id = live[self.pick(0, live.len() as u64 - 1) as usize];
                self.delete_topic(id).await;
            }
            let plan = TopicPlan::new(&mut lock(&self.rng));
            self.create_topic(plan).await;
        }
    }

    // Trouble.

    async fn trouble(self: &Arc<Self>, until: Instant) {
        let total: u32 = self.plan.weights.iter().map(|(_, weight)| weight).sum();
        while Instant::now() < until && !self.trace.is_violated() {
            let pace = self.plan.pace.as_millis() as u64;
            sleep(self.millis(20, 2 * pace)).await;
            self.yields().await;
            if self.current().is_none() {
                self.restart().await;
            }
            let mut at = self.pick(0, u64::from(total) - 1) as u32;
            let act = self.plan.weights.iter().find(|(_, weight)| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            });
            let Some((act, _)) = act else { continue };
            self.trace.note(&format!("{act:?}"), &[]);
            self.trace.count(&format!("{act:?}"));
            self.act(*act).await;
        }
    }

    /// Time's grain is a millisecond, in which much happens: a few steps into it.
    async fn yields(&self) {
        for _ in 0..self.pick(0, 12) {
            tokio::task::yield_now().await;
        }
    }

    async fn act(self: &Arc<Self>, act: Act) {
        let Some(node) = self.current() else { return };
        match act {
            Act::Kill => {
                self.kill(&node);
                sleep(self.millis(0, 2_000)).await;
                self.restart().await;
            }
            Act::KillAtWrite => {
                const CLASSES: [&str; 9] = [
                    "wal entry",
                    "segment",
                    "bundle",
                    "checkpoint body",
                    "marker",
                    "manifest",
                    "estate",
                    "metadata entry",
                    "metadata checkpoint",
                ];
                let class = CLASSES[self.pick(0, CLASSES.len() as u64 - 1) as usize];
                let fired = self.tap.arm(class, self.pick(1, 6));
                let _ = timeout(Duration::from_secs(6), fired).await;
                self.yields().await;
                if self.chance(0.3) {
                    sleep(self.millis(0, 100)).await;
                }
                self.kill(&node);
                sleep(self.millis(0, 1_000)).await;
                self.restart().await;
            }
            Act::Takeover => self.take_over(&node).await,
            Act::Race => {
                let (first, second) = (Arc::clone(self), Arc::clone(self));
                let lag = self.millis(0, 200);
                let first = tokio::spawn(async move { first.start(None).await.is_some() });
                let second = tokio::spawn(async move {
                    sleep(lag).await;
                    second.start(None).await.is_some()
                });
                let _ = futures::join!(first, second);
                let dying = self.millis(0, 3_000);
                sleep(dying).await;
                self.kill(&node);
            }
            Act::Shutdown => {
                let deadline = Instant::now() + self.millis(100, 15_000);
                let flushed = node.log.shutdown(deadline).await;
                if flushed {
                    lock(&self.ledger).stopped_in_order(node.incarnation);
                    self.trace.count("clean shutdowns in time");
                }
                let _ = timeout(Duration::from_secs(5), node.meta.close()).await;
                self.kill(&node);
                sleep(self.millis(0, 1_000)).await;
                self.restart().await;
            }
            Act::Outage => {
                let kind = if self.chance(0.5) {
                    Outage::Refuse
                } else {
                    Outage::Hang
                };
                node.network.set_outage(kind);
                sleep(self.millis(100, 25_000)).await;
                node.network.set_outage(Outage::None);
            }
            Act::Storm => {
                self.set_faults(&self.plan.storm);
                sleep(self.millis(500, 12_000)).await;
                self.set_faults(&self.plan.calm);
            }
            Act::ClockJump => {
                let hour = 3_600_000;
                let by = self.pick(0, 2 * hour) as i64 - hour as i64;
                node.env.jump_wall_clock(by);
                self.note_clock(&node.env);
            }
            Act::Seal => {
                let log = node.log.clone();
                let asked = node.call(async move { log.seal_now().await });
                let _ = timeout(Duration::from_secs(10), asked).await;
            }
            Act::PowerCut => {
                if let Some(model) = &self.modelled {
                    let lost = model.power_cut().await;
                    self.kill(&node);
                    self.trace.note("power cut", &[lost as i64]);
                    self.trace.count_by("names undone by power cuts", lost);
                    sleep(self.millis(0, 1_000)).await;
                    self.restart().await;
                }
            }
        }
    }

    /// A newer start while the old broker runs on, or sleeps and wakes.
    async fn take_over(self: &Arc<Self>, old: &Arc<Node>) {
        let sleeps = self.chance(self.plan.sleeps);
        if sleeps {
            old.network.set_outage(Outage::Hang);
        }
        sleep(self.millis(0, 500)).await;
        let before = old.incarnation;
        for _ in 0..20 {
            let dies = self.chance(0.15).then(|| self.millis(0, 500));
            self.start(dies).await;
            if self.current().is_some_and(|current| current.incarnation > before) || self.trace.is_violated()
            {
                break;
            }
            sleep(self.millis(10, 500)).await;
        }
        let (world, old) = (Arc::clone(self), Arc::clone(old));
        let wakes = self.millis(0, 12_000);
        let dies = self.chance(0.5).then(|| self.millis(0, 15_000));
        tokio::spawn(async move {
            if sleeps {
                sleep(wakes).await;
                old.network.set_outage(Outage::None);
            }
            if let Some(dies) = dies {
                sleep(dies).await;
                world.kill(&old);
            }
        });
    }

    // The whole run.

    pub(super) async fn run(self: &Arc<Self>) {
        let until = Instant::now() + self.plan.duration;
        self.restart().await;
        let administrator = tokio::spawn(Arc::clone(self).administer());
        self.trouble(until).await;
        self.set_faults(&Faults::none());
        self.restart().await;
        self.stopping.store(true, Ordering::Relaxed);
        if !self.trace.is_violated() {
            self.drain(administrator).await;
        }
        if !self.trace.is_violated() {
            self.check_all().await;
        }
        self.count_faults();
    }

    /// With a store that is well and a broker that runs, everybody must get an answer.
    async fn drain(self: &Arc<Self>, administrator: JoinHandle<()>) {
        let running = lock(&self.state).running.clone();
        for node in running {
            node.network.set_outage(Outage::None);
        }
        let clients = std::mem::take(&mut *lock(&self.clients));
        let deadline = Instant::now() + Duration::from_secs(400);
        let all = futures::future::join_all(clients.into_iter().chain([administrator]));
        let mut all = std::pin::pin!(all);
        loop {
            if timeout(Duration::from_secs(2), &mut all).await.is_ok() {
                return;
            }
            if Instant::now() > deadline {
                self.trace
                    .violation("clients wait for answers while all is well".to_owned());
                return;
            }
            if self.current().is_none() {
                self.restart().await;
            }
            if self.trace.is_violated() {
                return;
            }
        }
    }

    /// Fresh brokers over the bucket: one as it was left, one more after everything was sealed.
    async fn check_all(self: &Arc<Self>) {
        for round in 0..2 {
            let running = lock(&self.state).running.clone();
            running.iter().for_each(|node| self.kill(node));
            self.restart().await;
            let Some(node) = self.current() else { return };
            for id in self.partitions() {
                self.check_partition(&node, id).await;
            }
            self.check_bucket(&node).await;
            if round == 0 {
                let log = node.log.clone();
                let sealed = node.call(async move { log.seal_now().await });
                if timeout(Duration::from_secs(120), sealed).await.is_err() {
                    self.trace
                        .violation("a round does not end while all is well".to_owned());
                }
                sleep(Duration::from_secs(15)).await;
            }
        }
    }

    /// The bucket must be whole by `drumlin store check`, too.
    async fn check_bucket(&self, node: &Node) {
        let names: BTreeMap<TopicId, String> = {
            let image = node.meta.image();
            let topics = image.topics_by_id().iter();
            topics
                .map(|(id, topic)| (TopicId(*id), topic.name.to_string()))
                .collect()
        };
        let options = CheckOptions {
            topics: Some(&names),
            meta_body: None,
        };
        let bucket = bucket_of(self, &node.env, &node.network);
        let live =
            |key: &str| !key.starts_with("topic/") || names.keys().any(|id| key.contains(&id.to_string()));
        let mut before: Option<Vec<Finding>> = None;
        // A broker that runs trims and sweeps meanwhile: what is wrong stays wrong.
        for _ in 0..3 {
            let report = match check(&node.env, &bucket, options, &|_| {}).await {
                Ok(report) => report,
                Err(error) => return self.trace.violation(format!("the check failed: {error}")),
            };
            self.trace
                .count_by("objects verified by store check", report.verified);
            let mut findings = report.findings;
            findings.retain(|finding| before.as_ref().is_none_or(|before| before.contains(finding)));
            if findings.is_empty() {
                return;
            }
            before = Some(findings);
            sleep(Duration::from_secs(20)).await;
        }
        for finding in before.unwrap_or_default() {
            if finding.kind == Kind::Orphan {
                self.trace.count("orphans");
            } else if live(&finding.key) {
                self.trace.violation(format!("store check: {finding}"));
            } else {
                self.trace
                    .count("findings of store check in what deleted topics left");
            }
        }
    }

    async fn check_partition(&self, node: &Node, id: TopicPartition) {
        let Some(partition) = node.partition(&id) else {
            self.trace.violation(format!("{id} is not open"));
            return;
        };
        self.look(node, &partition);
        let mut found: Vec<(i64, Key)> = Vec::new();
        let start = partition.log_start_offset();
        let mut next = start;
        while next < partition.high_watermark() {
            let read = node.log.read(&partition, next, 256 << 10, true).await;
            let bytes = match read {
                Ok(read) if read.bytes > 0 => read.records.concat(),
                Ok(_) => {
                    self.trace.violation(format!("{id}: nothing to read at {next}"));
                    return;
                }
                // Retention goes on.
                Err(_) if partition.log_start_offset() > next => return self.trace.count("checks cut short"),
                Err(error) => {
                    self.trace
                        .violation(format!("{id}: {next} cannot be read: {error}"));
                    return;
                }
            };
            for item in drumlin_records::iter_batches(&bytes) {
                let Ok((at, header)) = item else {
                    self.trace
                        .violation(format!("{id}: bytes at {next} are no batch"));
                    return;
                };
                let batch = &bytes[at..at + header.size_in_bytes()];
                lock(&self.ledger).seen(&id, &header, batch);
                found.push((header.base_offset, Key::of(&header)));
                next = header.last_offset() + 1;
            }
        }
        let ledger = lock(&self.ledger);
        if let Some(account) = ledger.accounts.get(&id)
            && let Err(what) = account.check_whole(&found, start, partition.high_watermark())
        {
            self.trace.violation(format!("{id}: {what}"));
        }
        let config = self.config_of(&id.topic);
        let limits = (config.retention_ms, config.retention_bytes);
        ledger.check_retention(&id, (start, next), self.wall_ms(), limits);
    }

    fn count_faults(&self) {
        for network in &lock(&self.state).networks {
            for (kind, count) in network.counts() {
                self.trace.count_by(&format!("fault: {kind}"), count);
            }
        }
    }
}
