//! One partition's groups and offsets: what the owner of the partition calls.
//!
//! Owns loading, timers, snapshots and counts; requests are taken apart in `serve`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use drumlin_wire::coordinator_records::group_metadata_key::GroupMetadataKey;
use drumlin_wire::{DecodeError, Str, Uuid};

use crate::classic::{ClassicGroup, State};
use crate::consumer::{Change, ConsumerGroup, GroupState};
use crate::context::{Counters, Cx, Timer};
use crate::group::Group;
use crate::ids::MemberIds;
use crate::memory::MemberMemory;
use crate::offsets::Offsets;
use crate::serve::{end_consumer, with_consumer};
use crate::timers::Timers;
use crate::{ErrorCode, GroupConfig, Now, Reply, Step, Topics, keys, snapshot};

pub use crate::snapshot::{SnapshotError, SnapshotInfo};

/// Where a shard is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Loading,
    Serving,
    Unloaded,
}

/// All the groups and committed offsets of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Shard {
    pub(crate) partition: i32,
    pub(crate) config: Arc<GroupConfig>,
    pub(crate) phase: Phase,
    pub(crate) groups: BTreeMap<Str, Group>,
    pub(crate) offsets: Offsets,
    pub(crate) timers: Timers<Timer>,
    pub(crate) ids: MemberIds,
    /// When each consumer group has come into its epoch: its records do not say, their time does. Since the
    /// last member's leaving is an epoch too, an empty group has been empty for so long.
    pub(crate) epoch_times: BTreeMap<Str, i64>,
    pub(crate) counters: Counters,
    pub(crate) memory: Arc<MemberMemory>,
}

impl Shard {
    /// An empty shard, to be loaded. `seed` makes the member ids that it hands out; it must be another at
    /// every load.
    pub fn new(partition: i32, config: Arc<GroupConfig>, seed: u64) -> Shard {
        Shard {
            partition,
            config,
            phase: Phase::Loading,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            timers: Timers::default(),
            ids: MemberIds::new(seed),
            epoch_times: BTreeMap::new(),
            counters: Counters::default(),
            memory: Arc::default(),
        }
    }

    /// Counts what members hold together with other shards; to be called before anything is loaded.
    pub fn count_members_in(&mut self, memory: Arc<MemberMemory>) {
        self.memory = memory;
    }

    /// Options from now on: they were changed while the broker runs.
    pub fn configure(&mut self, config: Arc<GroupConfig>) {
        self.config = config;
    }

    /// Takes one record of the partition, in order of offsets, while loading. Records of types that are not
    /// known here are skipped and counted.
    pub fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        offset: i64,
        timestamp_ms: i64,
    ) -> Result<(), ReplayError> {
        let key = Bytes::copy_from_slice(key);
        let value = value.map(Bytes::copy_from_slice);
        self.replay_bytes(&key, value.as_ref(), timestamp_ms)
            .map_err(|error| ReplayError::Damaged { offset, error })
    }

    fn replay_bytes(
        &mut self,
        key: &Bytes,
        value: Option<&Bytes>,
        timestamp_ms: i64,
    ) -> Result<(), DecodeError> {
        match keys::record_type(key)? {
            kind @ 0..=1 => {
                if let Some(group) = self.offsets.replay(kind, key, value)? {
                    // A consumer that takes part in no group commits too: its group is but a name.
                    if !self.groups.contains_key(&group) {
                        let simple = ClassicGroup::new(&group, None);
                        self.groups.insert(group.detach(), Group::Classic(simple));
                    }
                }
            }
            2 => {
                let id = keys::read_key::<GroupMetadataKey>(key)?.group;
                match value {
                    Some(value) => {
                        let group = ClassicGroup::from_record(&id, value)?;
                        self.epoch_times.remove(&id);
                        self.groups.insert(id.detach(), Group::Classic(group));
                    }
                    None => {
                        self.groups.remove(&id);
                    }
                }
            }
            kind if Change::is_key_type(kind) => match Change::decode(key, value.map(|v| &v[..]))? {
                Some((id, change)) => self.replay_consumer(&id, change, timestamp_ms),
                None => self.counters.skipped_records += 1,
            },
            _ => self.counters.skipped_records += 1,
        }
        Ok(())
    }

    fn replay_consumer(&mut self, id: &Str, change: Change, timestamp_ms: i64) {
        if !matches!(self.groups.get(id), Some(Group::Consumer(_))) {
            if change.is_tombstone() {
                return;
            }
            // A classic group here is but a name that offsets were committed under, or it has just ended.
            let group = ConsumerGroup::new(id.clone());
            self.groups.insert(id.detach(), Group::Consumer(group));
        }
        if let Some(Group::Consumer(group)) = self.groups.get_mut(id) {
            if matches!(change, Change::Epoch(_)) {
                self.epoch_times.insert(id.detach(), timestamp_ms);
            }
            if group.replay(change) {
                self.groups.remove(id);
                self.epoch_times.remove(id);
            }
        }
    }

    /// Takes the state of a snapshot; only into an empty shard. Replay goes on at what it covers. After an
    /// error the shard is of no use: begin with a new one, and replay from the start.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<SnapshotInfo, SnapshotError> {
        let snapshot = snapshot::read(bytes, self.partition)?;
        for record in &snapshot.records {
            self.replay_bytes(&record.key, record.value.as_ref(), -1)
                .map_err(SnapshotError::Record)?;
        }
        self.epoch_times.extend(snapshot.epoch_times);
        Ok(snapshot.info)
    }

    /// The state as bytes, the same for the same state. It covers the partition up to offset `covers`
    /// (exclusive: where replay goes on) and may be stored only once all below that is committed.
    pub fn snapshot(&self, covers: i64, leader_epoch: i32) -> Bytes {
        // Groups go first: a commit makes a group where there is none.
        let groups = self.groups.values().flat_map(Group::records);
        let info = SnapshotInfo { covers, leader_epoch };
        let records = groups.chain(self.offsets.records());
        snapshot::write(self.partition, info, records, &self.epoch_times)
    }

    /// Everything was replayed: timers start, in full, and requests are served.
    pub fn loaded(&mut self, now: Now, topics: &dyn Topics) -> Step {
        self.phase = Phase::Serving;
        let mut step = Step::default();
        // Whoever led before may have ended between the topic's deletion and these tombstones. An id that is not
        // known is of a topic that is gone: offsets are committed for topics that there are, and ids never come back.
        let gone = |id: Uuid| topics.by_id(id).is_none();
        let deleted = self.offsets.delete_gone(gone, &mut step.records);
        self.counters.deletions += deleted as u64;
        // A name whose offsets have all been deleted again is none: nothing of it is stored.
        let offsets = &self.offsets;
        self.groups
            .retain(|id, group| !group.is_only_a_name() || offsets.has(id));
        let (groups, mut cx) = self.parts(now, &mut step);
        for (id, group) in groups {
            match group {
                Group::Classic(group) => group.loaded(&mut cx),
                Group::Consumer(group) => with_consumer(id, group, topics, &mut cx, |group, ctx| {
                    group.loaded(ctx);
                }),
            }
        }
        self.time_expiry(now);
        step
    }

    /// Runs every timer that is due: sessions, rebalances, expiry of offsets, regular expressions.
    pub fn tick(&mut self, now: Now, topics: &dyn Topics) -> Step {
        let mut step = Step::default();
        if self.phase != Phase::Serving {
            return step;
        }
        while let Some(timer) = self.timers.pop(now.mono_ms) {
            match timer {
                Timer::Expiry => self.expire(now, &mut step),
                Timer::Consumer(id) => self.consumer_due(now, topics, &id, &mut step),
                Timer::Join(id) => self.with_classic(now, &id, &mut step, ClassicGroup::join_due),
                Timer::Sync(id) => self.with_classic(now, &id, &mut step, ClassicGroup::sync_due),
                Timer::Session(id, member) => {
                    let due = |group: &mut ClassicGroup, cx: &mut Cx<'_>| group.session_due(&member, cx);
                    self.with_classic(now, &id, &mut step, due);
                }
            }
        }
        self.time_expiry(now);
        step
    }

    /// When the next timer is due, in the monotonic clock; `None` while nothing is timed.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Serving => self.timers.next(),
            Phase::Loading | Phase::Unloaded => None,
        }
    }

    /// Offsets expire only where there are groups: an idle shard has no timer.
    pub(crate) fn time_expiry(&mut self, now: Now) {
        if self.groups.is_empty() {
            self.timers.cancel(&Timer::Expiry);
        } else if self.timers.when(&Timer::Expiry).is_none() {
            let every = u64::try_from(self.config.offsets_retention_check_interval_ms).unwrap_or(1);
            self.timers.set(Timer::Expiry, now.mono_ms + every.max(1));
        }
    }

    /// Deletes what has expired: offsets, and groups that have neither members nor offsets.
    fn expire(&mut self, now: Now, step: &mut Step) {
        let times = (now.wall_ms, self.config.offsets_retention_ms);
        let mut gone = Vec::new();
        for (id, group) in &self.groups {
            let subscribed = |topic: &Str| group.subscribes(topic);
            let base = group.expiry(self.epoch_times.get(id).copied());
            let expired = self
                .offsets
                .expire(id, base, subscribed, times, &mut step.records);
            self.counters.expirations += expired as u64;
            if group.is_abandoned() && !self.offsets.has(id) {
                step.records.append(&mut group.tombstones());
                gone.push(id.clone());
            }
        }
        for id in &gone {
            tracing::debug!(group = %id, "group without members and offsets is deleted");
            self.forget(id, now, step);
        }
    }

    /// Removes a group whose tombstones are written.
    pub(crate) fn forget(&mut self, id: &Str, now: Now, step: &mut Step) {
        let Some(group) = self.groups.remove(id) else {
            return;
        };
        let (_, mut cx) = self.parts(now, step);
        match group {
            Group::Classic(mut group) => {
                group.cancel_timers(&mut cx);
                group.refuse_all(ErrorCode::UnknownMemberId, &mut cx);
            }
            Group::Consumer(_) => end_consumer(id, &mut cx),
        }
    }

    fn with_classic(
        &mut self,
        now: Now,
        id: &Str,
        step: &mut Step,
        act: impl FnOnce(&mut ClassicGroup, &mut Cx<'_>),
    ) {
        let (groups, mut cx) = self.parts(now, step);
        if let Some(Group::Classic(group)) = groups.get_mut(id) {
            act(group, &mut cx);
        }
    }

    /// Forgets the offsets of a topic that was deleted. To be called again for a topic that was deleted while
    /// the shard was loading.
    pub fn topic_deleted(&mut self, _now: Now, id: Uuid, name: &str) -> Step {
        let mut step = Step::default();
        if self.phase == Phase::Serving {
            let deleted = self.offsets.delete_topic(id, &Str::from(name), &mut step.records);
            self.counters.deletions += deleted as u64;
        }
        step
    }

    /// Ends it: NOT_COORDINATOR to everybody who waits. It serves nothing afterwards.
    pub fn unload(&mut self) -> Vec<Reply> {
        let mut step = Step::default();
        let (groups, mut cx) = self.parts(Now::default(), &mut step);
        for group in groups.values_mut() {
            // Members of a consumer group never wait.
            if let Group::Classic(group) = group {
                group.refuse_all(ErrorCode::NotCoordinator, &mut cx);
            }
        }
        self.phase = Phase::Unloaded;
        self.groups.clear();
        self.offsets = Offsets::default();
        self.epoch_times.clear();
        self.timers.clear();
        for reply in &mut step.replies {
            reply.waits = false;
        }
        step.replies
    }

    /// The groups, and what they need to take a step.
    pub(crate) fn parts<'a>(
        &'a mut self,
        now: Now,
        step: &'a mut Step,
    ) -> (&'a mut BTreeMap<Str, Group>, Cx<'a>) {
        let cx = Cx {
            now,
            config: &self.config,
            timers: &mut self.timers,
            ids: &mut self.ids,
            epoch_times: &mut self.epoch_times,
            counters: &mut self.counters,
            memory: &self.memory,
            step,
        };
        (&mut self.groups, cx)
    }

    /// The answer while it cannot serve, if so.
    pub(crate) fn refusal(&self) -> Option<ErrorCode> {
        match self.phase {
            Phase::Loading => Some(ErrorCode::CoordinatorLoadInProgress),
            Phase::Serving => None,
            Phase::Unloaded => Some(ErrorCode::NotCoordinator),
        }
    }

    /// What it did since it was made: the counters alone, which cost nothing.
    pub fn counters(&self) -> ShardFigures {
        ShardFigures {
            classic_rebalances: self.counters.classic_rebalances,
            consumer_rebalances: self.counters.consumer_rebalances,
            commits: self.counters.commits,
            expirations: self.counters.expirations,
            deletions: self.counters.deletions,
            skipped_records: self.counters.skipped_records,
            ..ShardFigures::default()
        }
    }

    /// Counts for metrics.
    pub fn figures(&self) -> ShardFigures {
        let mut figures = ShardFigures {
            offsets: self.offsets.len() as u64,
            ..self.counters()
        };
        for group in self.groups.values() {
            figures.members += group.len() as u64;
            let count = match group {
                Group::Classic(group) => match group.state() {
                    State::Empty => &mut figures.classic_empty,
                    State::PreparingRebalance => &mut figures.classic_preparing,
                    State::CompletingRebalance => &mut figures.classic_completing,
                    State::Stable => &mut figures.classic_stable,
                },
                Group::Consumer(group) => match group.state() {
                    GroupState::Empty | GroupState::Dead => &mut figures.consumer_empty,
                    GroupState::Assigning => &mut figures.consumer_assigning,
                    GroupState::Reconciling => &mut figures.consumer_reconciling,
                    GroupState::Stable => &mut figures.consumer_stable,
                },
            };
            *count += 1;
        }
        figures
    }

    /// Every committed offset, in order of group, topic and partition.
    pub fn committed_offsets(&self) -> impl Iterator<Item = CommittedOffset<'_>> {
        self.offsets.iter()
    }
}

/// An offset that a group has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedOffset<'a> {
    /// The group.
    pub group: &'a Str,
    /// The topic.
    pub topic: &'a Str,
    /// The partition.
    pub partition: i32,
    /// The next record that the group is to read.
    pub offset: i64,
}

/// What there is in a shard, and what it did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardFigures {
    /// Classic groups without members.
    pub classic_empty: u64,
    /// Classic groups that gather their members.
    pub classic_preparing: u64,
    /// Classic groups that wait for their leader's assignment.
    pub classic_completing: u64,
    /// Classic groups at rest.
    pub classic_stable: u64,
    /// Consumer groups without members.
    pub consumer_empty: u64,
    /// Consumer groups that need a new assignment.
    pub consumer_assigning: u64,
    /// Consumer groups whose members move to their assignment.
    pub consumer_reconciling: u64,
    /// Consumer groups at rest.
    pub consumer_stable: u64,
    /// Members of all groups.
    pub members: u64,
    /// Committed offsets.
    pub offsets: u64,
    /// Rebalances of classic groups that were completed.
    pub classic_rebalances: u64,
    /// New assignments of consumer groups.
    pub consumer_rebalances: u64,
    /// Offsets committed.
    pub commits: u64,
    /// Offsets that expired.
    pub expirations: u64,
    /// Offsets deleted on request or with their topic.
    pub deletions: u64,
    /// Records of an unknown type that loading skipped.
    pub skipped_records: u64,
}

/// A record of the partition that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A key or value is not what its version says.
    #[error("the record at offset {offset} is damaged: {error}")]
    Damaged {
        /// Where it is.
        offset: i64,
        /// What is wrong with it.
        error: DecodeError,
    },
}
