//! Simulated members against one group, at random: they reconcile slowly, lose answers, die, come back as if
//! nothing had happened, leave, change their subscriptions and protocols, while topics are created, grow and
//! are deleted, and the group moves to other brokers.
//!
//! Always: no partition is believed to be owned by two members whose epochs the group accepts; epochs never
//! go back; records replayed give the same state. And once things are quiet, every subscribed partition has
//! one owner again within a bounded number of rounds.
//!
//! `DRUMLIN_SEED=<n>` plays one seed, `DRUMLIN_SEEDS=<n>` that many from a seed of the clock's.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::classic::{classic_join, subscription};
use super::*;
use crate::MigrationPolicy;

const TOPICS: [&str; 5] = ["t1", "t2", "t3", "u1", "u2"];
const REGEXES: [&str; 4] = ["t.*", "u[12]", ".*", "none"];
const STEP_MS: u64 = 500;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Consumer,
    Cooperative,
    Eager,
}

/// A member as its own process sees things.
#[derive(Debug, Clone)]
struct Client {
    protocol: Protocol,
    id: String,
    instance: Option<String>,
    topics: Vec<&'static str>,
    regex: &'static str,
    alive: bool,
    /// Its epoch or generation; `None`: it has to join.
    epoch: Option<i32>,
    owned: Set,
    /// What it was told to own, if that is not what it owns.
    target: Option<Set>,
    /// Steps until it has given up what it has to.
    busy: usize,
    /// It says everything in its next heartbeat: its subscription is new, or an answer was lost.
    full: bool,
    /// It has told the coordinator that it owns this.
    said: Option<Set>,
    /// A classic member that has joined and has no assignment of this generation yet.
    syncs: bool,
    next_beat: u64,
}

struct Sim {
    world: World,
    random: Random,
    clients: Vec<Client>,
    made: usize,
    quiet: bool,
    epochs: BTreeMap<Str, i32>,
    group_epoch: i32,
    calls: u64,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut world = World::new();
        let mut random = Random(seed);
        world.config.consumer_session_timeout_ms = 20_000;
        world.config.consumer_assignment_interval_ms = [0, 1_000, 5_000][random.below(3)];
        world.config.consumer_migration_policy = MigrationPolicy::Upgrade;
        world.config.consumer_max_size = 9;
        if random.one_in(3) {
            world.config.consumer_assignors.reverse();
        }
        Sim {
            world,
            random,
            clients: Vec::new(),
            made: 0,
            quiet: false,
            epochs: BTreeMap::new(),
            group_epoch: 0,
            calls: 0,
        }
    }

    fn run(&mut self, steps: usize) {
        for topic in TOPICS {
            self.world.topics.create(topic, 1 + self.random.below(6) as i32);
        }
        for _ in 0..steps {
            self.happen();
            self.step();
        }
        self.settle();
    }

    /// Something happens that nobody asked for.
    fn happen(&mut self) {
        let topic = TOPICS[self.random.below(TOPICS.len())];
        match self.random.below(40) {
            0..4 if self.clients.len() < 12 => self.start_client(),
            4 => self.with_client(|client, _| client.alive = false),
            5 | 6 => self.with_client(|client, _| client.alive = true),
            7 => self.leave(),
            8 => self.come_back_static(),
            9 | 10 => self.with_client(|client, random| {
                let (topics, regex) = subscribe(random, client.protocol);
                client.topics = topics;
                client.regex = regex;
                client.full = true;
                if client.protocol != Protocol::Consumer {
                    client.epoch = None;
                }
            }),
            11 => {
                let now = self.world.topics.by_name(topic).map_or(0, |view| view.partitions);
                if now < 12 {
                    self.world
                        .topics
                        .create(topic, now + 1 + self.random.below(3) as i32);
                }
            }
            12 if self.random.one_in(2) => self.world.topics.delete(topic),
            13 => {
                let from_snapshot = self.random.one_in(2);
                self.world.reload(from_snapshot);
            }
            14 => {
                let ms = 1 + self.random.below(6_000) as u64;
                self.world.pass(ms);
            }
            15 if self.random.one_in(4) => self.world.pass(15_000),
            16 if self.world.hidden.remove(topic) => {}
            16 => {
                self.world.hidden.insert(topic.to_owned());
            }
            _ => {}
        }
    }

    fn with_client(&mut self, change: impl FnOnce(&mut Client, &mut Random)) {
        if !self.clients.is_empty() {
            let index = self.random.below(self.clients.len());
            change(&mut self.clients[index], &mut self.random);
        }
    }

    fn start_client(&mut self) {
        self.made += 1;
        let protocol = match self.random.below(6) {
            0 => Protocol::Cooperative,
            1 => Protocol::Eager,
            _ => Protocol::Consumer,
        };
        let (topics, regex) = subscribe(&mut self.random, protocol);
        let is_static = protocol == Protocol::Consumer && self.random.one_in(3);
        self.clients.push(Client {
            protocol,
            id: match protocol {
                Protocol::Consumer => format!("m{}", self.made),
                _ => String::new(),
            },
            instance: is_static.then(|| format!("i{}", self.made)),
            topics,
            regex,
            alive: true,
            epoch: None,
            owned: Set::new(),
            target: None,
            busy: 0,
            full: false,
            said: None,
            syncs: false,
            next_beat: 0,
        });
    }

    /// One leaves properly, for good or, if it is static, perhaps for a while.
    fn leave(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let index = self.random.below(self.clients.len());
        let mut client = self.clients.remove(index);
        if client.epoch.is_none() {
            return;
        }
        self.calls += 1;
        if client.protocol != Protocol::Consumer {
            let outcome = self.world.classic_leave(&[(&client.id, None)]);
            assert_eq!(outcome.downgrade, None);
            return;
        }
        let for_a_while = client.instance.is_some() && self.random.one_in(2);
        let mut request = beat(&client.id, if for_a_while { -2 } else { -1 }, None);
        request.instance_id = client.instance.as_deref().map(Str::from);
        let left = self.world.heartbeat(&request);
        if for_a_while && left.is_ok() {
            client.alive = false;
            client.epoch = None;
            client.owned.clear();
            client.target = None;
            self.clients.push(client);
        }
    }

    /// A static member that has ended starts again, as another process: with a new member id, and perhaps
    /// while the earlier one still runs somewhere.
    fn come_back_static(&mut self) {
        let candidates: Vec<usize> = (0..self.clients.len())
            .filter(|i| self.clients[*i].instance.is_some())
            .collect();
        if candidates.is_empty() {
            return;
        }
        let index = candidates[self.random.below(candidates.len())];
        self.made += 1;
        let mut twin = Client {
            id: format!("m{}", self.made),
            alive: true,
            epoch: None,
            owned: Set::new(),
            target: None,
            said: None,
            busy: 0,
            ..self.clients[index].clone()
        };
        if self.random.one_in(4) {
            twin.topics = vec!["t1"];
        }
        if self.random.one_in(2) {
            self.clients[index] = twin;
        } else {
            self.clients.push(twin);
        }
    }

    /// Time goes on; everybody does what is due.
    fn step(&mut self) {
        self.world.pass(STEP_MS);
        for index in 0..self.clients.len() {
            if self.clients[index].alive {
                self.work(index);
            }
            self.check();
        }
        self.clients
            .retain(|client| client.alive || client.epoch.is_some() || client.instance.is_some());
    }

    fn work(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if let Some(target) = &client.target {
            if client.busy > 0 {
                client.busy -= 1;
            } else {
                // Given up, and taken over what it was assigned; that is told at once.
                client.owned = target.clone();
                client.target = None;
                client.next_beat = 0;
                if client.protocol == Protocol::Cooperative {
                    client.epoch = None;
                }
            }
        }
        if self.clients[index].next_beat > self.world.now.mono_ms {
            return;
        }
        let pause = if self.quiet {
            2_000
        } else {
            500 + self.random.below(4_000) as u64
        };
        self.clients[index].next_beat = self.world.now.mono_ms + pause;
        self.calls += 1;
        match self.clients[index].protocol {
            Protocol::Consumer => self.heartbeat(index),
            _ => self.classic(index),
        }
    }

    /// What becomes of a call: it is never made, its answer is lost, or all is well.
    fn fate(&mut self) -> (bool, bool) {
        if self.quiet {
            return (true, true);
        }
        match self.random.below(20) {
            0 => (false, false),
            1 | 2 => (true, false),
            _ => (true, true),
        }
    }

    fn heartbeat(&mut self, index: usize) {
        let client = self.clients[index].clone();
        let epoch = client.epoch.unwrap_or(JOIN_EPOCH);
        // What it has given up it has given up; what it is to get it does not have yet.
        let mut request = beat(&client.id, epoch, None);
        request.instance_id = client.instance.as_deref().map(Str::from);
        if client.full || epoch == JOIN_EPOCH {
            request.rebalance_timeout_ms = 8_000;
            request.subscribed_topic_names = Some(client.topics.iter().map(|t| Str::from(*t)).collect());
            request.subscribed_topic_regex = Some(Str::from(client.regex));
            request.topic_partitions = Some(reported(&client.owned));
        } else if client.said.as_ref() != Some(&client.owned) {
            request.topic_partitions = Some(reported(&client.owned));
        }
        let (made, answered) = self.fate();
        if !made {
            return;
        }
        let result = self.world.heartbeat(&request);
        let slow = self.random.below(if self.quiet { 2 } else { 24 });
        let client = &mut self.clients[index];
        if !answered {
            // It does not know what the coordinator knows: it says everything again.
            client.full = true;
            return;
        }
        match result {
            Ok(response) => {
                client.epoch = Some(response.member_epoch);
                client.full = false;
                client.said = request
                    .topic_partitions
                    .map(|_| client.owned.clone())
                    .or(client.said.take());
                if let Some(assigned) = assigned(&response) {
                    let target = (assigned != client.owned).then_some(assigned);
                    if target.is_some() && target != client.target {
                        client.busy = slow;
                    }
                    client.target = target;
                }
            }
            Err(error) => {
                let fenced = [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId];
                if fenced.contains(&error.code) {
                    client.owned.clear();
                    client.target = None;
                    client.epoch = None;
                    client.next_beat = 0;
                } else if error.code == ErrorCode::FencedInstanceId {
                    // Another has its place: it ends.
                    client.owned.clear();
                    client.alive = false;
                    client.epoch = None;
                    client.instance = None;
                } else {
                    let later = [ErrorCode::UnreleasedInstanceId, ErrorCode::GroupMaxSizeReached];
                    assert!(later.contains(&error.code), "{error:?}");
                }
            }
        }
    }

    fn classic(&mut self, index: usize) {
        let client = self.clients[index].clone();
        let (made, answered) = self.fate();
        if !made || client.target.is_some() {
            // While it gives up partitions its heartbeats go on.
            if let Some(epoch) = client.epoch {
                self.world.classic_heartbeat(&client.id, epoch);
            }
            return;
        }
        if client.syncs && client.epoch.is_some() {
            return self.classic_sync(index, answered);
        }
        let Some(generation) = client.epoch else {
            return self.classic_joins(index, answered);
        };
        let code = self.world.classic_heartbeat(&client.id, generation);
        let client = &mut self.clients[index];
        match code {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress => {
                client.epoch = None;
                client.next_beat = 0;
            }
            _ => client.reset(),
        }
    }

    fn classic_joins(&mut self, index: usize, answered: bool) {
        let client = &mut self.clients[index];
        if client.protocol == Protocol::Eager {
            client.owned.clear();
        }
        let client = client.clone();
        let metadata = subscription(&self.world, &client.topics, &client.owned);
        let mut request = classic_join(&client.id, &metadata);
        request.session_timeout_ms = 10_000;
        if self.world.group.is_empty() && !self.world.group.members().any(|(_, m)| m.is_classic()) {
            // Such a group would be a classic one: the shard's business.
            return;
        }
        let result = self.world.classic_join(&request, 9);
        let client = &mut self.clients[index];
        if !answered {
            return;
        }
        match result {
            Ok(outcome) => {
                assert_eq!(outcome.downgrade, None);
                let response = outcome.response;
                client.id = response.member_id.to_string();
                client.next_beat = 0;
                if response.error_code == 0 {
                    client.epoch = Some(response.generation_id);
                    client.syncs = true;
                } else {
                    assert_eq!(response.error_code, ErrorCode::MemberIdRequired.code());
                }
            }
            Err(error) => {
                let expected = [ErrorCode::GroupMaxSizeReached, ErrorCode::UnknownMemberId];
                assert!(expected.contains(&error.code), "{error:?}");
                client.reset();
            }
        }
    }

    fn classic_sync(&mut self, index: usize, answered: bool) {
        let client = self.clients[index].clone();
        let generation = client.epoch.expect("it has joined");
        let result = self.world.classic_sync(&client.id, generation);
        let slow = self.random.below(6);
        let client = &mut self.clients[index];
        client.syncs = false;
        if !answered {
            client.epoch = None;
            return;
        }
        match result {
            Ok(assigned) => {
                let gives_up = client.owned.difference(&assigned).next().is_some();
                if gives_up {
                    // It joins again once it has given up.
                    client.target = Some(client.owned.intersection(&assigned).copied().collect());
                    client.busy = slow;
                } else {
                    client.owned = assigned;
                }
            }
            Err(error) if error.code == ErrorCode::RebalanceInProgress => client.epoch = None,
            Err(_) => client.reset(),
        }
    }

    /// What is true after every step.
    fn check(&mut self) {
        let group = &self.world.group;
        assert!(group.epoch() >= self.group_epoch, "the group's epoch went back");
        assert!(group.assignment_epoch() <= group.epoch());
        self.group_epoch = group.epoch();
        for (id, member) in group.members() {
            let epoch = member.current.epoch;
            let before = self.epochs.insert(id.clone(), epoch).unwrap_or(-1);
            assert!(
                epoch >= before || epoch == STATIC_LEAVE_EPOCH,
                "{id}: epoch {before} to {epoch}"
            );
            assert!(epoch <= group.epoch());
        }
        let mut owners: BTreeMap<(Uuid, i32), &str> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| self.is_accepted(client)) {
            // A classic member cannot say that it owns partitions of a topic that is gone.
            let exists = |at: &&(Uuid, i32)| self.world.topics.by_id(at.0).is_some();
            for at in client.owned.iter().filter(exists) {
                if let Some(other) = owners.insert(*at, &client.id) {
                    let clients = self
                        .clients
                        .iter()
                        .filter(|c| c.id == client.id || c.id == *other);
                    for client in clients {
                        println!("{client:?}\n  {:?}", self.world.group.member(&client.id));
                    }
                    panic!("{} and {other} both believe that they own {at:?}", client.id);
                }
            }
        }
    }

    /// Whether the group would accept the epoch of a client, so that what it owns counts.
    fn is_accepted(&self, client: &Client) -> bool {
        let Some(member) = self.world.group.member(&client.id) else {
            return false;
        };
        let current = &member.current;
        let in_set = |owned: &assignment::Owned| {
            let has =
                |(t, p): &(Uuid, i32)| owned.get(t).is_some_and(|partitions| partitions.contains_key(p));
            client.owned.iter().all(has)
        };
        // A classic member that is about to join again counts too: it may poll until it has.
        let epoch = client.epoch.unwrap_or(current.epoch);
        epoch == current.epoch || (epoch == current.previous_epoch && in_set(&current.assigned))
    }

    /// Nothing more happens, nobody is slow, and those who are dead stay dead: sessions end, and then
    /// everything has its owner.
    fn settle(&mut self) {
        self.quiet = true;
        // What was hidden is seen with the next look at the topics, for which any change of them will do.
        self.world.hidden.clear();
        self.world.topics.create("other", 1);
        self.world.topics.delete("other");
        // What may still be due: sessions, rebalance timeouts, the refresh of expressions.
        for _ in 0..(60_000 / STEP_MS) {
            self.step();
        }
        let group = &self.world.group;
        // Without anybody who speaks the consumer protocol the group is none of this protocol any more.
        if !group.members().any(|(_, member)| !member.is_classic()) {
            return;
        }
        let mut wanted: BTreeSet<Uuid> = BTreeSet::new();
        let mut owners: BTreeMap<(Uuid, i32), Vec<&str>> = BTreeMap::new();
        for client in self
            .clients
            .iter()
            .filter(|client| client.alive && self.is_accepted(client))
        {
            let topics = client.wants(&self.world);
            for at in &client.owned {
                assert!(
                    topics.contains(&at.0),
                    "{client:?} owns what it is not subscribed to: {at:?}"
                );
                owners.entry(*at).or_default().push(&client.id);
            }
            wanted.extend(topics);
        }
        assert_eq!(group.state(), GroupState::Stable, "{group:?}");
        for topic in wanted {
            let view = self.world.topics.by_id(topic).expect("it exists");
            for partition in 0..view.partitions {
                let owners = owners.get(&(topic, partition)).map_or(0, Vec::len);
                assert_eq!(
                    owners, 1,
                    "owners of {} {partition}: {:?}",
                    view.name, self.clients
                );
            }
        }
    }
}

impl Client {
    fn reset(&mut self) {
        self.id.clear();
        self.epoch = None;
        self.syncs = false;
        self.owned.clear();
        self.target = None;
        self.next_beat = 0;
    }

    fn wants(&self, world: &World) -> BTreeSet<Uuid> {
        let matches = |name: &str| match self.regex {
            "t.*" => name.starts_with('t'),
            "u[12]" => name.starts_with('u'),
            ".*" => true,
            _ => false,
        };
        let names = world.topics.names();
        let wanted = names
            .iter()
            .filter(|name| self.topics.contains(&name.as_str()) || matches(name));
        wanted
            .filter_map(|name| world.topics.by_name(name))
            .map(|view| view.id)
            .collect()
    }
}

fn subscribe(random: &mut Random, protocol: Protocol) -> (Vec<&'static str>, &'static str) {
    let mut topics: Vec<&str> = TOPICS.into_iter().filter(|_| random.one_in(2)).collect();
    if random.one_in(2) {
        topics = vec!["t1", "t2"];
    }
    if protocol != Protocol::Consumer || random.one_in(2) {
        return (topics, "");
    }
    let regex = REGEXES[random.below(REGEXES.len())];
    (if random.one_in(2) { Vec::new() } else { topics }, regex)
}

/// Plays one seed.
fn play(seed: u64) -> u64 {
    let mut sim = Sim::new(seed);
    let steps = 100 + sim.random.below(300);
    sim.run(steps);
    sim.calls
}

#[test]
fn members_at_random() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = variable("DRUMLIN_SEED") {
        println!("seed {seed}: {} calls", play(seed));
        return;
    }
    let seeds = variable("DRUMLIN_SEEDS").unwrap_or(40);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let first = u64::try_from(clock.as_nanos() % u128::from(u32::MAX)).unwrap_or(0);
    let (start, mut calls) = (Instant::now(), 0);
    for seed in first..first + seeds {
        let played = std::panic::catch_unwind(|| play(seed));
        match played {
            Ok(made) => calls += made,
            Err(panic) => {
                println!("seed {seed} fails: DRUMLIN_SEED={seed} plays it again");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!(
        "{seeds} seeds from {first}, {calls} calls of members in {:?}",
        start.elapsed()
    );
}

/// Heartbeats whose time is taken, without the checks that a [`World`] makes after each.
#[derive(Default)]
struct Timed {
    spent: Duration,
    calls: usize,
    records: usize,
}

impl Timed {
    fn call(&mut self, world: &mut World, request: &ConsumerGroupHeartbeatRequest) -> (i32, Option<Set>) {
        let fresh_id = Str::from("fresh");
        let ctx = Context {
            now: world.now,
            topics: &world.topics,
            config: &world.config,
            overrides: &world.overrides,
            fresh_id: &fresh_id,
            may_describe: &|_| true,
        };
        let start = Instant::now();
        let outcome = world
            .group
            .heartbeat(&ctx, &world.caller, request)
            .expect("all is well");
        self.spent += start.elapsed();
        self.calls += 1;
        self.records += outcome.records.len();
        (outcome.response.member_epoch, assigned(&outcome.response))
    }

    /// Everybody heartbeats until the group is at rest.
    fn settle(&mut self, world: &mut World, members: &mut BTreeMap<&str, (i32, Set)>, what: &str) {
        let mut rounds = 0;
        while world.group.state() != GroupState::Stable {
            rounds += 1;
            assert!(rounds < 10);
            world.now.mono_ms += 5_000;
            world.now.wall_ms += 5_000;
            for (id, (epoch, owned)) in members.iter_mut() {
                let (now, assigned) = self.call(world, &beat(id, *epoch, Some(owned)));
                *epoch = now;
                if let Some(assigned) = assigned {
                    *owned = assigned;
                }
            }
        }
        let Timed {
            spent,
            calls,
            records,
        } = std::mem::take(self);
        println!("{what}: {calls} heartbeats ({rounds} rounds), {records} records, {spent:?}");
    }
}

/// Prints what a big group costs: 500 members of 5,000 partitions; one leaves, one joins, a topic grows.
#[test]
fn a_rebalance_of_500_members_is_one_pass() {
    let mut world = World::new();
    world.config.consumer_assignment_interval_ms = 1_000;
    let topics: Vec<String> = (0..50).map(|t| format!("topic-{t:02}")).collect();
    for topic in &topics {
        world.topics.create(topic, 100);
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let ids: Vec<String> = (0..500).map(|m| format!("member-{m:03}")).collect();
    let mut timed = Timed::default();
    let mut members: BTreeMap<&str, (i32, Set)> = BTreeMap::new();
    for id in &ids {
        let (epoch, owned) = timed.call(&mut world, &join(id, &names));
        members.insert(id, (epoch, owned.unwrap_or_default()));
    }
    timed.settle(&mut world, &mut members, "500 join");
    assert_eq!(
        members.values().map(|(_, owned)| owned.len()).sum::<usize>(),
        5_000
    );
    assert!(members.values().all(|(_, owned)| owned.len() == 10));

    let gone = ids[250].as_str();
    timed.call(&mut world, &beat(gone, -1, None));
    members.remove(gone);
    timed.settle(&mut world, &mut members, "one leaves");
    assert_eq!(
        members.values().map(|(_, owned)| owned.len()).sum::<usize>(),
        5_000
    );

    let (epoch, owned) = timed.call(&mut world, &join("new", &names));
    members.insert("new", (epoch, owned.unwrap_or_default()));
    timed.settle(&mut world, &mut members, "one joins");

    world.topics.create("topic-00", 150);
    let (id, (epoch, owned)) = members.iter_mut().next().expect("members");
    let (now, assigned) = timed.call(&mut world, &beat(id, *epoch, Some(owned)));
    *epoch = now;
    *owned = assigned.unwrap_or_else(|| owned.clone());
    timed.settle(&mut world, &mut members, "a topic grows");
    assert_eq!(
        members.values().map(|(_, owned)| owned.len()).sum::<usize>(),
        5_050
    );
}
