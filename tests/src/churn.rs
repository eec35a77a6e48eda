//! Groups under load whose members join, leave and die at random, and groups that
//! change their protocol as they work; with an account of who owned what, when.
//!
//! Kept to: every record is seen by a member of each group; a partition has one
//! owner at a time, and one a generation where libraries tell it; while a group moves
//! to KIP-848 and back no partition is without owner for longer than a session.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::Connection;
use crate::members::{Kind, Member, Plan, committed, refs, shared, wait_shared, wait_until};

const PARTITIONS: i32 = 8;
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_MEMBERS: usize = 5;
// Clocks are read after the fact, in milliseconds.
const SLACK_MS: i64 = 10;

/// What a run adds up to.
pub type Figures = BTreeMap<String, u64>;

/// Adds records to every partition of a topic until it is dropped.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Feeder {
    /// Creates the topic and begins.
    pub fn start(bootstrap: &str, topic: &str, partitions: i32) -> anyhow::Result<Feeder> {
        let mut connection = Connection::open(bootstrap, PATIENCE)?;
        connection.create_topic(topic, partitions, &[])?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (stop.clone(), topic.to_owned());
        let thread = std::thread::spawn(move || {
            for round in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                for p in 0..partitions {
                    let values: Vec<String> = (0..4).map(|n| format!("{p}-{round}-{n}")).collect();
                    connection.produce_surely(&topic, p, &values)?;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        Ok(Feeder {
            stop,
            thread: Some(thread),
        })
    }

    /// Adds no more.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.context("the producer"),
            Some(Err(_)) => bail!("the producer panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A group's members, those that are gone too.
struct Crew {
    plan: Plan,
    at_work: Vec<Member>,
    // With the time of its end.
    gone: Vec<(Member, i64)>,
    started: usize,
}

/// A stretch of time in which a member owned a partition.
struct Owned {
    member: usize,
    from: i64,
    to: i64,
    lost: bool,
}

impl Crew {
    fn new(plan: Plan) -> Crew {
        Crew {
            plan,
            at_work: Vec::new(),
            gone: Vec::new(),
            started: 0,
        }
    }

    fn join(&mut self, kind: Kind, plan: &Plan, dir: &Path) -> anyhow::Result<()> {
        let name = format!("{}-{:03}-{kind:?}", plan.group, self.started).to_lowercase();
        self.started += 1;
        self.at_work.push(Member::start(kind, plan, dir, &name)?);
        Ok(())
    }

    fn leave(&mut self, which: usize) -> anyhow::Result<()> {
        let mut member = self.at_work.remove(which);
        member.leave()?;
        self.gone.push((member, now_ms()));
        Ok(())
    }

    fn die(&mut self, which: usize) -> anyhow::Result<()> {
        let mut member = self.at_work.remove(which);
        member.die()?;
        self.gone.push((member, now_ms()));
        Ok(())
    }

    /// Waits until everything was seen and committed, and all members have left.
    fn finish(&mut self, what: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
        let mut connection = Connection::open(&self.plan.bootstrap, PATIENCE)?;
        let ends: BTreeMap<i32, i64> = (0..PARTITIONS)
            .map(|p| Ok((p, connection.list_offset(&self.plan.topic, p, -1)?)))
            .collect::<anyhow::Result<_>>()?;
        let plan = self.plan.clone();
        let mut told = BTreeMap::new();
        let waited = wait_until(what, PATIENCE, &mut refs(&mut self.at_work), |m| {
            told = committed(&plan.bootstrap, &plan.group, &plan.topic, PARTITIONS).unwrap_or_default();
            shared(m, PARTITIONS) && told == ends
        });
        waited.with_context(|| format!("committed {told:?}, written {ends:?}"))?;
        while !self.at_work.is_empty() {
            self.leave(0)?;
        }
        Ok(ends)
    }

    fn all(&self) -> impl Iterator<Item = &Member> {
        self.gone.iter().map(|(member, _)| member)
    }

    /// Every offset below the ends was seen by somebody.
    fn check_seen(&self, ends: &BTreeMap<i32, i64>, figures: &mut Figures) -> anyhow::Result<()> {
        let mut seen: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        let mut count = 0;
        for record in self.all().flat_map(|m| &m.records) {
            count += 1;
            seen.entry(record.partition).or_default().insert(record.offset);
        }
        let mut written = 0;
        for (p, end) in ends {
            written += *end as u64;
            let of = seen.remove(p).unwrap_or_default();
            if let Some(missing) = (0..*end).find(|o| !of.contains(o)) {
                bail!(
                    "{}: nobody saw offset {missing} of partition {p}",
                    self.plan.group
                );
            }
        }
        *figures.entry("records".to_owned()).or_default() += written;
        *figures.entry("seen_again".to_owned()).or_default() += count - written;
        Ok(())
    }

    fn stretches(&self) -> BTreeMap<i32, Vec<Owned>> {
        let mut found: BTreeMap<i32, Vec<Owned>> = BTreeMap::new();
        for (n, (member, ended)) in self.gone.iter().enumerate() {
            let mut since: BTreeMap<i32, i64> = BTreeMap::new();
            let mut end = |p: i32, from: i64, to: i64, lost: bool| {
                found.entry(p).or_default().push(Owned {
                    member: n,
                    from,
                    to,
                    lost,
                });
            };
            for change in &member.owned {
                let at = change.at.unwrap_or(*ended);
                since.retain(|p, from| {
                    let kept = change.partitions.contains(p);
                    if !kept {
                        end(*p, *from, at, change.lost);
                    }
                    kept
                });
                for p in &change.partitions {
                    since.entry(*p).or_insert(at);
                }
            }
            since
                .into_iter()
                .for_each(|(p, from)| end(p, from, *ended, false));
        }
        for all in found.values_mut() {
            all.sort_by_key(|o| (o.from, o.to));
        }
        found
    }

    /// One owner a partition at a time, and one a generation; the longest time without any.
    fn check_owners(&self, figures: &mut Figures) -> anyhow::Result<i64> {
        let group = &self.plan.group;
        let mut longest = 0;
        for (p, stretches) in self.stretches() {
            let mut last: Option<&Owned> = None;
            for next in &stretches {
                if let Some(last) = last {
                    if next.from + SLACK_MS < last.to && !last.lost && next.member != last.member {
                        let name = |o: &Owned| self.gone[o.member].0.log().display().to_string();
                        bail!(
                            "{group}: partition {p} had two owners from {} to {}: {} and {}",
                            next.from,
                            last.to,
                            name(last),
                            name(next)
                        );
                    }
                    longest = longest.max(next.from - last.to);
                }
                if last.is_none_or(|last| last.to < next.to) {
                    last = Some(next);
                }
            }
        }
        let mut owners: BTreeMap<(i64, i32), usize> = BTreeMap::new();
        let mut generations = BTreeSet::new();
        for (n, (member, _)) in self.gone.iter().enumerate() {
            for change in &member.owned {
                let Some(generation) = change.generation.filter(|g| *g > 0) else {
                    continue;
                };
                generations.insert(generation);
                for p in &change.partitions {
                    let owner = *owners.entry((generation, *p)).or_insert(n);
                    if owner != n {
                        bail!(
                            "{group}: partition {p} had two owners in generation {generation}: {} and {}",
                            self.gone[owner].0.log().display(),
                            member.log().display()
                        );
                    }
                }
            }
        }
        *figures.entry("generations_told".to_owned()).or_default() += generations.len() as u64;
        Ok(longest)
    }

    /// All checks, once everybody is gone.
    fn check(&self, ends: &BTreeMap<i32, i64>, figures: &mut Figures) -> anyhow::Result<i64> {
        self.check_seen(ends, figures)?;
        self.check_owners(figures)
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_millis() as i64)
}

fn longest(figures: &mut Figures, name: &str, ms: i64) {
    let figure = figures.entry(name.to_owned()).or_default();
    *figure = (*figure).max(ms.max(0) as u64);
}

/// Random joins, leaves and kills in a classic group and in one of KIP-848, one every
/// few seconds; the topic is fed all the while.
pub fn joins_leaves_and_kills(
    bootstrap: &str,
    seed: u64,
    time: Duration,
    dir: &Path,
) -> anyhow::Result<Figures> {
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + time;
    let mut feeder = Feeder::start(bootstrap, "churn", PARTITIONS)?;
    let classic = Plan::new(bootstrap, "churn", "churn-classic").batch(50);
    let new = Plan::new(bootstrap, "churn", "churn-new")
        .batch(50)
        .consumer_protocol();
    let kinds: [&[Kind]; 2] = [
        &[Kind::Confluent, Kind::KafkaPython, Kind::Aiokafka, Kind::Sarama],
        &[Kind::Confluent],
    ];
    let mut crews = [Crew::new(classic), Crew::new(new)];
    let mut figures = Figures::new();
    for (crew, kinds) in crews.iter_mut().zip(kinds) {
        let plan = crew.plan.clone();
        crew.join(kinds[0], &plan, dir)?;
        wait_shared(
            "the first member",
            PATIENCE,
            &mut refs(&mut crew.at_work),
            PARTITIONS,
        )?;
    }
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(random.random_range(200..5_000)));
        let which = random.random_range(0..crews.len());
        let (crew, kinds) = (&mut crews[which], kinds[which]);
        let count = crew.at_work.len();
        let event = match random.random_range(0..4) {
            _ if count < 2 => "joins",
            0 | 1 if count < MOST_MEMBERS => "joins",
            0 | 2 => "leaves",
            _ => "kills",
        };
        *figures.entry(event.to_owned()).or_default() += 1;
        match event {
            "joins" => {
                let plan = crew.plan.clone();
                crew.join(kinds[random.random_range(0..kinds.len())], &plan, dir)?;
            }
            "leaves" => crew.leave(random.random_range(0..count))?,
            _ => crew.die(random.random_range(0..count))?,
        }
        for crew in &mut crews {
            for member in &mut crew.at_work {
                member.look()?;
                if member.ended()? {
                    bail!("a member ended by itself: {}", member.log().display());
                }
            }
        }
    }
    feeder.stop()?;
    for crew in &mut crews {
        let ends = crew.finish("all is seen and committed after joins, leaves and kills")?;
        let unowned = crew.check(&ends, &mut figures)?;
        longest(&mut figures, "max_unowned_ms", unowned);
    }
    Ok(figures)
}

/// A live classic group whose members are replaced, one by one, by members of KIP-848,
/// and those again by classic ones; again and again until the time is over. `session` is that of both kinds.
pub fn upgrades_and_back(
    bootstrap: &str,
    session: Duration,
    time: Duration,
    dir: &Path,
) -> anyhow::Result<Figures> {
    let end = Instant::now() + time;
    let mut feeder = Feeder::start(bootstrap, "moving", PARTITIONS)?;
    let mut classic = Plan::new(bootstrap, "moving", "moving").batch(50);
    classic.session = session;
    let new = classic.clone().consumer_protocol();
    let session = session.as_millis() as i64;
    let mut crew = Crew::new(classic.clone());
    let mut figures = Figures::new();
    let mut connection = Connection::open(bootstrap, PATIENCE)?;
    for _ in 0..2 {
        crew.join(Kind::Confluent, &classic, dir)?;
    }
    wait_shared(
        "a classic group",
        PATIENCE,
        &mut refs(&mut crew.at_work),
        PARTITIONS,
    )?;
    while figures.is_empty() || Instant::now() < end {
        for (plan, is_new, figure) in [(&new, true, "upgrades"), (&classic, false, "downgrades")] {
            for _ in 0..2 {
                crew.join(Kind::Confluent, plan, dir)?;
                wait_shared("one more", PATIENCE, &mut refs(&mut crew.at_work), PARTITIONS)?;
                crew.leave(0)?;
                wait_shared("one less", PATIENCE, &mut refs(&mut crew.at_work), PARTITIONS)?;
            }
            let told = connection.members_of_consumer_group(&classic.group)?;
            if told.is_some() != is_new {
                bail!("after {figure} the group is of the other protocol: {told:?}");
            }
            *figures.entry(figure.to_owned()).or_default() += 1;
        }
    }
    feeder.stop()?;
    let ends = crew.finish("all is seen and committed after upgrades")?;
    let mut counted = Figures::new();
    let unowned = crew.check(&ends, &mut counted)?;
    figures.extend(counted.into_iter().map(|(k, v)| (format!("moving_{k}"), v)));
    longest(&mut figures, "max_moving_unowned_ms", unowned);
    if unowned > session {
        bail!("a partition had no owner for {unowned} ms; a session is {session} ms");
    }
    Ok(figures)
}
