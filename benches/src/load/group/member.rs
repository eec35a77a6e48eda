//! The life of one member, on a thread and a connection of its own.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_tests::client::Connection;
use drumlin_wire::Str;
use drumlin_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};

use super::classic::Classic;
use super::consumer::Consumer;
use super::{AGAIN, Beat, Group, PASSING, PATIENCE, Protocol, commit, commit_request, find_coordinator};
use crate::load::fetch::{self, Fetcher};

/// Heartbeats while reading, and commits: the defaults of the Java client are three and five seconds.
const WHILE_READING: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(1)];

/// What a member is told to do.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Keep the place.
    Stay,
    /// Commit one offset after the other, each after the answer to the one before, between these times.
    Commit {
        from: Instant,
        to: Instant,
        /// The first commit counts from here and the next ones so much later each, whenever they are sent.
        pace: Option<(Instant, Duration)>,
    },
    /// Read what is owned so many times, from the first offset to the end given for each partition.
    Read {
        from: Instant,
        ends: Vec<i64>,
        passes: u32,
    },
    /// Leave the group.
    Leave,
    /// Do nothing more, and close the connection.
    Die,
}

/// What a member owns.
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    /// Of the classic protocol.
    pub(super) generation: i32,
    pub(super) partitions: Vec<i32>,
    /// When it was learnt.
    pub(super) since: Option<Instant>,
}

/// What is known of a member from outside.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) owned: Owned,
    /// When its first record was there.
    pub(super) first: Option<Instant>,
    /// When its last heartbeat was sent.
    pub(super) heartbeat: Option<Instant>,
    /// Times of its commits within their window.
    pub(super) commits: Vec<Duration>,
    pub(super) commit_errors: u64,
    /// Why it is no more.
    pub(super) failed: Option<String>,
    /// Bytes that it read, and when it was done with an order.
    pub(super) bytes: u64,
    pub(super) done: Option<Instant>,
}

/// A member as the scenes see it.
pub(super) struct Handle {
    order: Mutex<Order>,
    changed: Condvar,
    seen: Mutex<Seen>,
}

impl Handle {
    pub(super) fn new() -> Handle {
        Handle {
            order: Mutex::new(Order::Stay),
            changed: Condvar::new(),
            seen: Mutex::new(Seen::default()),
        }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn order(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
        self.changed.notify_all();
    }

    /// The next order, or none within so long.
    fn wait(&self, patience: Duration) -> Order {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |order: &mut Order| matches!(order, Order::Stay);
        let (mut order, _) = self
            .changed
            .wait_timeout_while(order, patience, idle)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *order, Order::Stay)
    }
}

enum Side {
    Classic(Classic),
    Consumer(Consumer),
}

/// A member.
pub(super) struct Member<'a> {
    group: &'a Group,
    handle: &'a Handle,
    connection: Connection,
    side: Side,
    next_heartbeat: Instant,
    committed: i64,
}

impl<'a> Member<'a> {
    /// Connects.
    pub(super) fn open(group: &'a Group, handle: &'a Handle, at: usize) -> anyhow::Result<Member<'a>> {
        let mut connection = Connection::open(&group.bootstrap, PATIENCE)?;
        find_coordinator(&mut connection, &group.name)?;
        let side = match group.protocol {
            Protocol::Classic => Side::Classic(Classic::new(group)?),
            Protocol::Consumer => Side::Consumer(Consumer::new(at)),
        };
        Ok(Member {
            group,
            handle,
            connection,
            side,
            next_heartbeat: Instant::now(),
            committed: 0,
        })
    }

    /// Joins, and follows orders until the last one.
    pub(super) fn live(mut self) -> anyhow::Result<()> {
        self.join()?;
        loop {
            let due = self.next_heartbeat.saturating_duration_since(Instant::now());
            match self.handle.wait(due) {
                Order::Stay => self.heartbeat()?,
                Order::Commit { from, to, pace } => self.commits(from, to, pace)?,
                Order::Read { from, ends, passes } => self.read(from, &ends, passes)?,
                Order::Die => return Ok(()),
                Order::Leave => {
                    return match &mut self.side {
                        Side::Classic(member) => member.leave(&mut self.connection, self.group),
                        Side::Consumer(member) => member.leave(&mut self.connection, self.group),
                    };
                }
            }
        }
    }

    fn join(&mut self) -> anyhow::Result<()> {
        self.handle.seen().owned = Owned::default();
        self.handle.seen().heartbeat = Some(Instant::now());
        let beat = match &mut self.side {
            Side::Classic(member) => Beat::Assigned(member.join(&mut self.connection, self.group)?),
            Side::Consumer(member) => member.join(&mut self.connection, self.group)?,
        };
        self.take(beat)
    }

    fn heartbeat(&mut self) -> anyhow::Result<()> {
        self.handle.seen().heartbeat = Some(Instant::now());
        let beat = match &mut self.side {
            Side::Classic(member) => member.heartbeat(&mut self.connection, self.group)?,
            Side::Consumer(member) => member.heartbeat(&mut self.connection, self.group)?,
        };
        self.take(beat)
    }

    fn take(&mut self, beat: Beat) -> anyhow::Result<()> {
        match beat {
            Beat::Fine(wait) => {
                self.next_heartbeat = Instant::now() + wait.unwrap_or(self.group.heartbeat);
                Ok(())
            }
            Beat::Rejoin => self.join(),
            Beat::Assigned(partitions) => {
                let now = Instant::now();
                let classic = match &self.side {
                    Side::Classic(member) => Some(member.generation),
                    Side::Consumer(_) => None,
                };
                let first = partitions.first().copied();
                self.handle.seen().owned = Owned {
                    generation: classic.unwrap_or(0),
                    partitions,
                    since: Some(now),
                };
                // The other protocol is told at once what is owned now.
                self.next_heartbeat = if classic.is_some() {
                    now + self.group.heartbeat
                } else {
                    now
                };
                let unread = self.handle.seen().first.is_none();
                match first {
                    Some(partition) if unread => self.first_record(partition),
                    _ => Ok(()),
                }
            }
        }
    }

    fn identity(&self) -> (Str, i32) {
        match &self.side {
            Side::Classic(member) => (member.id.clone(), member.generation),
            Side::Consumer(member) => (member.id.clone(), member.epoch),
        }
    }

    /// What a consumer does once it owns partitions: where did the group stand, where does the log begin, fetch.
    fn first_record(&mut self, partition: i32) -> anyhow::Result<()> {
        let topic = self.group.topic.as_str();
        let owned = self.handle.seen().owned.partitions.clone();
        let group = OffsetFetchRequestGroup {
            group_id: self.group.name.as_str().into(),
            member_epoch: -1,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.into(),
                partition_indexes: owned,
                ..Default::default()
            }]),
            ..Default::default()
        };
        let request = OffsetFetchRequest {
            groups: vec![group],
            require_stable: true,
            ..Default::default()
        };
        loop {
            let answer = self.connection.call(&request, 8)?;
            match answer.groups.first().map(|g| g.error_code) {
                Some(0) => break,
                Some(code) if PASSING.contains(&code) => std::thread::sleep(AGAIN),
                other => bail!("OffsetFetch: {other:?}"),
            }
        }
        let start = self.connection.list_offset(topic, partition, -2)?;
        let (error, records) = self.connection.fetch(topic, partition, start, 500)?;
        if error != 0 || records.is_empty() {
            bail!("the first fetch: error {error}, {} records", records.len());
        }
        self.handle.seen().first = Some(Instant::now());
        Ok(())
    }

    fn commit(&mut self) -> anyhow::Result<i16> {
        self.committed += 1;
        let (id, epoch) = self.identity();
        let owned = self.handle.seen().owned.partitions.clone();
        let (group, topic) = (&self.group.name, &self.group.topic);
        let request = commit_request(group, topic, (&id, epoch), owned.into_iter(), self.committed);
        commit(&mut self.connection, &request)
    }

    fn commits(
        &mut self,
        from: Instant,
        to: Instant,
        pace: Option<(Instant, Duration)>,
    ) -> anyhow::Result<()> {
        // The default slack of 50 µs would show in latencies at a low rate.
        if let Err(error) = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000)) {
            eprintln!("timers stay coarse: {error}");
        }
        let (mut times, mut errors, mut sent) = (Vec::new(), 0, 0u32);
        loop {
            let mut intended = Instant::now();
            if let Some((start, interval)) = pace {
                let due = start + interval * sent;
                std::thread::sleep(due.saturating_duration_since(intended));
                intended = due;
            }
            if intended >= to {
                break;
            }
            sent += 1;
            let code = self.commit()?;
            if code != 0 {
                errors += 1;
            } else if intended >= from && Instant::now() <= to {
                times.push(intended.elapsed());
            }
        }
        let mut seen = self.handle.seen();
        seen.commits.append(&mut times);
        seen.commit_errors += errors;
        seen.done = Some(Instant::now());
        Ok(())
    }

    fn read(&mut self, from: Instant, ends: &[i64], passes: u32) -> anyhow::Result<()> {
        std::thread::sleep(from.saturating_duration_since(Instant::now()));
        let owned = self.handle.seen().owned.partitions.clone();
        let mut fetcher = Fetcher::open(&self.group.bootstrap)?;
        let (mut beat, mut committed, mut bytes) = (Instant::now(), Instant::now(), 0);
        for partition in owned.iter().cycle().take(owned.len() * passes as usize) {
            let end = usize::try_from(*partition)
                .ok()
                .and_then(|p| ends.get(p))
                .context("an end for each partition")?;
            let source = fetch::Source::new(&self.group.topic, *partition);
            let mut offset = 0;
            while offset < *end {
                let got = fetcher.fetch(&source, offset)?;
                (offset, bytes) = (got.next, bytes + got.bytes);
                if beat.elapsed() >= WHILE_READING[0] {
                    self.heartbeat()?;
                    beat = Instant::now();
                }
                if committed.elapsed() >= WHILE_READING[1] {
                    self.checked_commit()?;
                    committed = Instant::now();
                }
            }
        }
        self.checked_commit()?;
        let mut seen = self.handle.seen();
        seen.bytes = bytes;
        seen.done = Some(Instant::now());
        Ok(())
    }

    fn checked_commit(&mut self) -> anyhow::Result<()> {
        match self.commit()? {
            0 => Ok(()),
            code => bail!("OffsetCommit: error {code}"),
        }
    }
}
