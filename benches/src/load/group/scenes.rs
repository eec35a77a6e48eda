//! What is measured with many members at once: joins, rebalances and commits.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::Group;
use super::member::{Handle, Member, Order};
use crate::load::summary::{Latencies, Summary};
use crate::process::cpu_seconds;

/// A member's thread does little.
const STACK: usize = 256 << 10;
/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(2);
/// How long a group must stand still before something is done to it.
const CALM: Duration = Duration::from_millis(500);
/// Longest wait for a group to get where it should.
const SETTLE: Duration = Duration::from_secs(120);

/// From the start of all members to their first records, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Joined {
    /// Of the first member that had one.
    pub first: f64,
    /// Of the last.
    pub last: f64,
}

/// Until all partitions were owned again, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rebalanced {
    /// After a member said that it leaves.
    pub left: f64,
    /// After the session timeout of a member that died, counted from its last heartbeat.
    pub died: f64,
}

/// Members under way.
pub(super) struct Stage<'a> {
    group: &'a Group,
    pub(super) members: &'a [Handle],
    /// When all were started.
    pub(super) began: Instant,
}

/// Starts members at once and runs `scene` with them; afterwards they leave.
pub(super) fn with_members<T>(
    group: &Group,
    count: usize,
    scene: impl FnOnce(&Stage<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let handles: Vec<Handle> = (0..count).map(|_| Handle::new()).collect();
    let barrier = Barrier::new(count + 1);
    std::thread::scope(|scope| {
        let threads = handles
            .iter()
            .enumerate()
            .map(|(at, handle)| {
                let barrier = &barrier;
                std::thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, move || {
                        barrier.wait();
                        let lived = Member::open(group, handle, at).and_then(Member::live);
                        if let Err(error) = &lived {
                            handle.seen().failed = Some(format!("{error:#}"));
                        }
                        lived
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        barrier.wait();
        let stage = Stage {
            group,
            members: &handles,
            began: Instant::now(),
        };
        let found = scene(&stage);
        handles.iter().for_each(|handle| handle.order(Order::Leave));
        for thread in threads {
            let lived = thread.join().map_err(|_| anyhow::anyhow!("a member panicked"))?;
            if found.is_ok() {
                lived.context("a member")?;
            }
        }
        found
    })
}

impl Stage<'_> {
    /// Looks until something is there.
    pub(super) fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Option<T>,
        every: Duration,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + SETTLE;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if let Some(failed) = self.members.iter().find_map(|m| m.seen().failed.clone()) {
                bail!("{what}: a member failed: {failed}");
            }
            if Instant::now() > end {
                bail!("{what}: not within {SETTLE:?}; {}", self.shown());
            }
            std::thread::sleep(every);
        }
    }

    /// When each had its first record, in order.
    pub(super) fn first_records(&self) -> anyhow::Result<Vec<Instant>> {
        let mut firsts: Vec<Instant> = self.until(
            "first records",
            || self.members.iter().map(|m| m.seen().first).collect(),
            LOOK,
        )?;
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// When the members from `from` on had learnt of a division of all partitions among them, if they have one.
    fn divided(&self, from: usize) -> Option<Instant> {
        let (mut all, mut latest, mut generation) = (Vec::new(), None, None);
        for member in self.members.get(from..)? {
            let owned = member.seen().owned.clone();
            latest = latest.max(Some(owned.since?));
            if *generation.get_or_insert(owned.generation) != owned.generation {
                return None;
            }
            all.extend(owned.partitions);
        }
        all.sort_unstable();
        let whole = all.iter().copied().eq(0..self.group.partitions);
        latest.filter(|_| whole)
    }

    /// Waits for a division that stands still.
    pub(super) fn calm(&self, from: usize) -> anyhow::Result<()> {
        self.until(
            "a calm group",
            || self.divided(from).filter(|since| since.elapsed() >= CALM),
            LOOK,
        )
        .map(drop)
    }

    fn shown(&self) -> String {
        let owned = |m: &Handle| {
            let seen = m.seen();
            (seen.owned.generation, seen.owned.partitions.len())
        };
        let all: Vec<_> = self.members.iter().map(owned).collect();
        format!("generations and partitions: {all:?}")
    }
}

/// Starts members at once and waits for the first record of each.
pub fn join(group: &Group, count: usize) -> anyhow::Result<Joined> {
    with_members(group, count, |stage| {
        let firsts = stage.first_records()?;
        let ms = |at: Option<&Instant>| {
            at.map_or(0.0, |t| {
                t.saturating_duration_since(stage.began).as_secs_f64() * 1e3
            })
        };
        Ok(Joined {
            first: ms(firsts.first()),
            last: ms(firsts.last()),
        })
    })
}

/// Has one member leave and then another die. `session` is the broker's session timeout for them.
pub fn rebalance(group: &Group, count: usize, session: Duration) -> anyhow::Result<Rebalanced> {
    with_members(group, count, |stage| {
        stage.first_records()?;
        stage.calm(0)?;
        // Heartbeats of all are in step since the last rebalance: be as far from the last ones as from the next.
        std::thread::sleep(group.heartbeat / 2);
        let after = |at: usize, order: Order| -> anyhow::Result<(Instant, Instant)> {
            let member = stage.members.get(at).context("members to spare")?;
            let told = Instant::now();
            member.order(order);
            let whole = stage.until("a rebalance", || stage.divided(at + 1), LOOK)?;
            stage.calm(at + 1)?;
            let last_heartbeat = member.seen().heartbeat.unwrap_or(told);
            Ok((told.max(last_heartbeat), whole))
        };
        let (told, whole) = after(0, Order::Leave)?;
        let left = whole.saturating_duration_since(told);
        after(1, Order::Die)?;
        // The clock of the session began with the last heartbeat.
        let member = stage.members.get(1).context("members to spare")?;
        let last = member.seen().heartbeat.context("it had heartbeats")?;
        let whole = stage.divided(2).context("the group is calm")?;
        Ok(Rebalanced {
            left: left.as_secs_f64() * 1e3,
            died: (whole.saturating_duration_since(last).as_secs_f64() - session.as_secs_f64()) * 1e3,
        })
    })
}

/// How commits are made.
#[derive(Clone, Copy, Debug)]
pub struct Commits {
    /// Members; each commits what it owns.
    pub consumers: usize,
    /// Commits a second of all together; without, each goes on with the answer to the one before.
    pub rate: Option<f64>,
    /// Time before the window.
    pub warmup: Duration,
    /// The window.
    pub seconds: Duration,
    /// The broker's process.
    pub pid: Option<u32>,
}

/// Synchronous commits of a group's members.
pub fn commit(group: &Group, how: &Commits) -> anyhow::Result<Summary> {
    with_members(group, how.consumers, |stage| {
        stage.first_records()?;
        stage.calm(0)?;
        let start = Instant::now() + Duration::from_millis(50);
        let from = start + how.warmup;
        let to = from + how.seconds;
        let interval = how
            .rate
            .map(|rate| Duration::from_secs_f64(how.consumers as f64 / rate));
        for (at, member) in stage.members.iter().enumerate() {
            // Spread over the interval, as clients that know nothing of each other are.
            let pace = interval.map(|i| (start + i * at as u32 / how.consumers as u32, i));
            member.order(Order::Commit { from, to, pace });
        }
        let cpu = || how.pid.map(cpu_seconds).transpose().map(|c| c.unwrap_or(0.0));
        std::thread::sleep(from.saturating_duration_since(Instant::now()));
        let before = (cpu()?, cpu_seconds(std::process::id())?);
        std::thread::sleep(to.saturating_duration_since(Instant::now()));
        let mut summary = Summary {
            seconds: how.seconds.as_secs_f64(),
            cpu_seconds: cpu()? - before.0,
            client_cpu_seconds: cpu_seconds(std::process::id())? - before.1,
            ..Summary::default()
        };
        let done = || {
            stage
                .members
                .iter()
                .all(|m| m.seen().done.is_some())
                .then_some(())
        };
        stage.until("commits", done, LOOK)?;
        let mut latencies = Latencies::new()?;
        for member in stage.members {
            let seen = member.seen();
            seen.commits.iter().for_each(|time| latencies.record(*time));
            summary.requests += seen.commits.len() as u64;
            summary.errors += seen.commit_errors;
        }
        if summary.errors > 0 {
            summary.first_error = Some("a commit was refused".to_owned());
        }
        summary.latency = latencies.summary();
        Ok(summary)
    })
}
