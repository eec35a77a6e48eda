//! One shard's task: mailbox in, steps of the state machine, batches out.
//!
//! A turn settles what was committed, takes what waits in the mailbox, makes a step of each, runs timers that are due,
//! and appends the records of all these steps together. So while one batch is under way the next gathers, and order is
//! kept. Requests come before timers: a member whose heartbeat waits is alive.
//!
//! State is applied when a step is made, and nothing is ever rolled back: a batch that the log has no room for is tried
//! again until it has, and meanwhile nothing else is taken. What waits for too long is told to come again.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_coordinator::{Caller, ErrorCode, GroupRequest, GroupResponse, Reply, Shard, ShardFigures, Step};
use drumlin_log::{AppendError, Partition, SnapshotName};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::append::{Flights, Gathered, append};
use super::clock::Clock;
use super::control::{Control, Stop};
use super::held::Held;
use super::report::{GroupOffset, ShardReport};
use super::view::View;
use super::{Hub, load, snapshot};

/// Requests that one turn takes.
const TURN: usize = 256;
/// How long one try to append waits for room.
const ROOM: Duration = Duration::from_millis(200);
/// The pause before a shard that could not write is loaded anew.
const RELOAD: Duration = Duration::from_secs(1);

/// What comes into a shard's mailbox.
pub(crate) enum Mail {
    /// A request.
    Request {
        /// Who asks.
        caller: Caller,
        /// For what.
        request: Box<GroupRequest>,
        /// Where the answer goes.
        answer: oneshot::Sender<GroupResponse>,
        /// It must have been taken until then.
        until: Instant,
    },
    /// A question for the metrics.
    Report {
        /// Committed offsets that are wanted at most.
        limit: usize,
        /// Where the answer goes.
        answer: oneshot::Sender<ShardReport>,
    },
}

/// Why a shard is served no longer.
enum End {
    Stopped(Stop),
    /// The log takes no more, or the partition is gone.
    LogEnded,
    /// What was stepped could not be written: the state is ahead of the log, and is read anew.
    Failed,
}

type SnapshotPut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A snapshot that is taken and waits until it is committed.
struct Taken {
    covers: i64,
    bytes: Bytes,
}

/// One shard.
pub(super) struct Driver {
    n: i32,
    hub: Arc<Hub>,
    partition: Arc<Partition>,
    mail: mpsc::Receiver<Mail>,
    control: Arc<Control>,
    clock: Clock,
    held: Held,
    /// Requests that the shard has and has not answered, by token.
    waiting: HashMap<u64, oneshot::Sender<GroupResponse>>,
    next_token: u64,
    flights: Flights,
    gathered: Gathered,
    /// Replies of this turn, which wait for what the turn appends.
    replies: Vec<(oneshot::Sender<GroupResponse>, GroupResponse)>,
    /// Records below this are in the shard's state.
    end: i64,
    /// Records below this are committed.
    committed: i64,
    /// Records since the last snapshot.
    since_snapshot: u64,
    looks: snapshot::Looks,
    taken: Option<Taken>,
    putting: Option<SnapshotPut>,
    view: Arc<View>,
    /// Counters of the shard that the totals have.
    counted: ShardFigures,
}

impl Driver {
    pub fn new(
        n: i32,
        partition: Arc<Partition>,
        hub: Arc<Hub>,
        mail: mpsc::Receiver<Mail>,
        control: Arc<Control>,
    ) -> Self {
        let config = hub.config();
        Self {
            n,
            clock: Clock::new(&hub.env, hub.origin),
            gathered: Gathered::new(config.codec),
            view: hub.view(),
            hub,
            partition,
            mail,
            control,
            held: Held::default(),
            waiting: HashMap::new(),
            next_token: 0,
            flights: Flights::default(),
            replies: Vec::new(),
            end: 0,
            committed: 0,
            since_snapshot: 0,
            looks: snapshot::Looks::default(),
            taken: None,
            putting: None,
            counted: ShardFigures::default(),
        }
    }

    /// Runs until it is told to stop, or the log has ended.
    pub async fn run(mut self) {
        while let Some(mut shard) = self.load().await {
            let end = match self.serve(&mut shard).await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            if let End::Stopped(Stop::Shutdown(deadline)) = end {
                let _ = tokio::time::timeout_at(deadline, self.finish(&mut shard)).await;
            }
            self.count(&shard);
            self.counted = ShardFigures::default();
            self.unload(&mut shard);
            match end {
                End::Stopped(_) | End::LogEnded => return,
                End::Failed => tokio::time::sleep(RELOAD).await,
            }
        }
    }

    /// Loads; requests that come meanwhile are told so.
    async fn load(&mut self) -> Option<Shard> {
        let loading = load::load(Arc::clone(&self.hub), self.n, Arc::clone(&self.partition));
        let mut loading = Box::pin(loading);
        let loaded = loop {
            tokio::select! {
                biased;
                loaded = &mut loading => break loaded,
                () = self.control.changed() => {
                    if self.control.stopped().is_some() {
                        return None;
                    }
                }
                mail = self.mail.recv() => match mail? {
                    Mail::Request { request, answer, .. } => {
                        let _ = answer.send(request.failed(ErrorCode::CoordinatorLoadInProgress));
                    }
                    Mail::Report { .. } => {}
                }
            }
        };
        let mut shard = loaded.shard;
        self.end = loaded.end;
        self.committed = loaded.end;
        self.since_snapshot = loaded.replayed;
        self.view = self.hub.view();
        let step = shard.loaded(self.clock.now(), &*self.view);
        self.take_step(step);
        Some(shard)
    }

    /// Adds what the shard has done since to the totals, which outlive it and are told without asking it.
    fn count(&mut self, shard: &Shard) {
        let counters = shard.counters();
        if counters != self.counted {
            self.hub.totals.counted(&self.counted, &counters);
            self.counted = counters;
        }
    }

    async fn serve(&mut self, shard: &mut Shard) -> Result<std::convert::Infallible, End> {
        loop {
            self.settle()?;
            self.hear(shard)?;
            self.drain();
            self.requests(shard);
            self.timers(shard);
            self.count(shard);
            self.write().await?;
            self.snapshot(shard);
            self.wait(shard).await;
        }
    }

    /// Waits for anything to do.
    async fn wait(&mut self, shard: &Shard) {
        let timer = shard.next_deadline().map(|at| self.clock.wake_for(at));
        let commit = self.flights.oldest();
        let deaf = self.flights.full();
        let expiries = self
            .held
            .next_expiry()
            .into_iter()
            .chain(self.flights.next_expiry());
        let wake = timer.into_iter().chain(expiries).min();
        let asleep = self.clock.instant();
        tokio::select! {
            biased;
            () = self.control.changed() => {}
            () = committed(commit) => {}
            mail = self.mail.recv(), if !deaf => match mail {
                Some(mail) => self.held.push(mail),
                // The table let go of this shard: news of it follow.
                None => self.control.changed().await,
            },
            // One that was not put is not missed: the next comes with the next records.
            () = put(&mut self.putting) => self.putting = None,
            () = sleep_until(wake) => {}
        }
        if deaf {
            self.clock.deaf_since(asleep);
        } else if let Some(planned) = timer {
            self.clock.woke(planned);
        }
    }

    /// Answers what was committed, and sends away what waited for too long.
    fn settle(&mut self) -> Result<(), End> {
        match self.flights.settle() {
            Ok(Some(end)) => self.committed = end,
            Ok(None) => {}
            Err(error) => {
                debug!(partition = self.n, %error, "a group coordinator ends with the log");
                return Err(End::LogEnded);
            }
        }
        let now = self.clock.instant();
        self.flights.expire(now);
        self.held.expire(now);
        Ok(())
    }

    /// Takes news of the metadata.
    fn hear(&mut self, shard: &mut Shard) -> Result<(), End> {
        let news = self.control.take();
        if let Some(stop) = news.stop {
            return Err(End::Stopped(stop));
        }
        if news.reconfigured {
            let config = self.hub.config();
            shard.configure(Arc::clone(&config.coordinator));
            self.gathered = Gathered::new(config.codec);
        }
        for (id, name) in news.gone {
            let step = shard.topic_deleted(self.clock.now(), id, &name);
            self.take_step(step);
        }
        Ok(())
    }

    /// Takes what waits in the mailbox, within bounds.
    fn drain(&mut self) {
        while self.held.len() < TURN
            && let Ok(mail) = self.mail.try_recv()
        {
            self.held.push(mail);
        }
    }

    fn requests(&mut self, shard: &mut Shard) {
        for mail in self.held.take_reports() {
            if let Mail::Report { limit, answer } = mail {
                let _ = answer.send(report(shard, limit));
            }
        }
        if self.held.len() == 0 || self.flights.full() {
            return;
        }
        self.view = self.hub.view();
        for mail in self.held.take() {
            match mail {
                Mail::Report { .. } => {}
                // Nobody waits for the answer, and nothing was begun.
                Mail::Request { answer, .. } if answer.is_closed() => {}
                Mail::Request {
                    caller,
                    request,
                    answer,
                    ..
                } => {
                    let token = self.next_token;
                    self.next_token += 1;
                    self.waiting.insert(token, answer);
                    let step = shard.request(self.clock.now(), &*self.view, token, &caller, *request);
                    self.take_step(step);
                }
            }
        }
    }

    fn timers(&mut self, shard: &mut Shard) {
        if self.flights.full() {
            return;
        }
        let now = self.clock.now();
        if shard.next_deadline().is_some_and(|at| at <= now.mono_ms) {
            self.view = self.hub.view();
            let step = shard.tick(now, &*self.view);
            self.take_step(step);
        }
    }

    fn take_step(&mut self, step: Step) {
        self.gathered.add(self.hub.env.now_ms(), &step.records);
        for Reply { token, body, waits } in step.replies {
            let Some(answer) = self.waiting.remove(&token) else {
                continue;
            };
            if waits {
                self.replies.push((answer, body));
            } else {
                let _ = answer.send(body);
            }
        }
    }

    /// Appends what the turn has gathered, and lets its answers wait for it.
    async fn write(&mut self) -> Result<(), End> {
        let batches = match self.gathered.take() {
            Ok(batches) => batches,
            Err(error) => {
                // What was stepped can be neither written nor undone: the state must be read again.
                error!(partition = self.n, %error, "a group coordinator cannot write its records");
                return Err(End::Failed);
            }
        };
        let patience = self.hub.config().commit_timeout;
        for (header, batch) in &batches {
            let began = self.clock.instant();
            loop {
                let now = self.clock.instant();
                match append(&self.hub.log, &self.partition, header, batch, now + ROOM).await {
                    Ok((commit, end)) => {
                        self.flights.push(commit, end);
                        self.end = end;
                        break;
                    }
                    Err(AppendError::NoRoom) => self.stalled(began)?,
                    Err(error @ (AppendError::Stopped | AppendError::Deleted)) => {
                        debug!(partition = self.n, %error, "a group coordinator ends with its partition");
                        return Err(End::LogEnded);
                    }
                    Err(error) => {
                        error!(partition = self.n, %error, "a group coordinator cannot write");
                        return Err(End::Failed);
                    }
                }
            }
            self.clock.deaf_since(began);
            let records = u64::try_from(header.records_count).unwrap_or(0);
            self.since_snapshot = self.since_snapshot.saturating_add(records);
            self.hub.totals.wrote(records, 1);
        }
        let until = self.clock.instant() + patience;
        for (to, answer) in self.replies.drain(..) {
            self.flights.hold(to, answer, until);
        }
        Ok(())
    }

    /// The log has no room: nothing is taken, and who has waited for too long is told to come again.
    fn stalled(&mut self, began: Instant) -> Result<(), End> {
        let now = self.clock.instant();
        let patience = self.hub.config().commit_timeout;
        if now >= began + patience && !self.replies.is_empty() {
            warn!(partition = self.n, "a group coordinator waits for the store");
            for (to, answer) in self.replies.drain(..) {
                let _ = to.send(super::failed::fail(answer, ErrorCode::CoordinatorNotAvailable));
            }
        }
        self.drain();
        // There is no shard to ask here: they ask again.
        drop(self.held.take_reports());
        self.settle()?;
        match self.control.stopped() {
            Some(Stop::Unload) => Err(End::Stopped(Stop::Unload)),
            Some(Stop::Shutdown(deadline)) if now >= deadline => Err(End::LogEnded),
            _ => Ok(()),
        }
    }

    /// Takes a snapshot when it is due, and puts it when it is committed.
    fn snapshot(&mut self, shard: &Shard) {
        if self.putting.is_some() {
            return;
        }
        if self.taken.is_none() && self.looks.due(self.since_snapshot, || live(shard)) {
            self.taken = self.take_snapshot(shard);
        }
        if self
            .taken
            .as_ref()
            .is_some_and(|taken| taken.covers <= self.committed)
            && let Some(taken) = self.taken.take()
        {
            self.putting = Some(Box::pin(self.put_snapshot(taken)));
        }
    }

    fn take_snapshot(&mut self, shard: &Shard) -> Option<Taken> {
        self.since_snapshot = 0;
        if self.end == 0 {
            return None;
        }
        // What is not committed was appended by this leader.
        let epoch = if self.end > self.committed {
            self.partition.leader_epoch()
        } else {
            self.partition.epoch_at(self.end - 1)
        };
        let bytes = shard.snapshot(self.end, epoch);
        (!bytes.is_empty()).then_some(Taken {
            covers: self.end,
            bytes,
        })
    }

    fn put_snapshot(&self, taken: Taken) -> impl Future<Output = ()> + Send + use<> {
        let (hub, partition) = (Arc::clone(&self.hub), Arc::clone(&self.partition));
        let name = SnapshotName {
            offset: taken.covers,
            epoch: partition.leader_epoch(),
            incarnation: self.hub.incarnation,
        };
        async move { snapshot::put(&hub, &partition, name, taken.bytes).await }
    }

    /// The broker stops: what was written is committed and answered, and the next start has less to replay.
    async fn finish(&mut self, shard: &mut Shard) {
        self.drain();
        self.requests(shard);
        let mut last = None;
        if self.write().await.is_ok() && snapshot::due_at_stop(self.since_snapshot, live(shard)) {
            last = self.take_snapshot(shard);
        }
        // Members that wait for others are told at once; they find this broker again, or its successor.
        let step = Step {
            records: Vec::new(),
            replies: shard.unload(),
        };
        self.take_step(step);
        if self.write().await.is_err() {
            return;
        }
        while let Some(commit) = self.flights.oldest() {
            let _ = commit.wait().await;
            if self.settle().is_err() {
                return;
            }
        }
        if let Some(putting) = self.putting.take() {
            putting.await;
        }
        if let Some(taken) = last.filter(|taken| taken.covers <= self.committed) {
            self.put_snapshot(taken).await;
        }
    }

    /// Everybody who still waits looks for another coordinator.
    fn unload(&mut self, shard: &mut Shard) {
        let step = Step {
            records: Vec::new(),
            replies: shard.unload(),
        };
        self.take_step(step);
        for (to, answer) in self.replies.drain(..) {
            let _ = to.send(super::failed::fail(answer, ErrorCode::NotCoordinator));
        }
        self.flights.abandon();
        self.waiting.clear();
        self.taken = None;
        self.held.refuse(ErrorCode::NotCoordinator);
    }
}

/// Records that a compacted log of this shard would have, about.
fn live(shard: &Shard) -> u64 {
    let figures = shard.figures();
    figures.offsets + figures.members
}

fn report(shard: &Shard, limit: usize) -> ShardReport {
    let offsets = shard.committed_offsets().take(limit);
    ShardReport {
        figures: shard.figures(),
        offsets: offsets
            .map(|offset| GroupOffset {
                group: offset.group.clone(),
                topic: offset.topic.clone(),
                partition: offset.partition,
                offset: offset.offset,
            })
            .collect(),
    }
}

async fn committed(commit: Option<drumlin_log::Commit>) {
    match commit {
        Some(commit) => {
            // How it ended is seen when it is settled.
            let _ = commit.wait().await;
        }
        None => std::future::pending().await,
    }
}

async fn put(putting: &mut Option<SnapshotPut>) {
    match putting {
        Some(putting) => putting.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
