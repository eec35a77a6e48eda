//! A consumer group: its lasting state, which only [`Change`]s change, and what can be read from it.

use std::collections::{BTreeMap, HashMap};

use drumlin_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use drumlin_wire::{Str, Uuid};

use super::assignment::{Owned, Target};
use super::member::{Current, Member, MemberState, Metadata};
use super::records::{AssignmentEpoch, Change, GroupEpoch, Resolved};
use super::{Context, Outcome};
use crate::Record;
use crate::table::Table;
use crate::timers::Timers;

/// What a whole group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// It has no members.
    Empty,
    /// It needs a new target assignment.
    Assigning,
    /// Members are on their way to the target assignment.
    Reconciling,
    /// Everybody owns what the target assignment gives them.
    Stable,
    /// It is gone.
    Dead,
}

impl GroupState {
    /// Kafka's name for it, as ListGroups and ConsumerGroupDescribe write it.
    pub const fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::Assigning => "Assigning",
            GroupState::Reconciling => "Reconciling",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// What a timer of a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// The member must heartbeat before.
    Session,
    /// The member must have given up what it was told to before.
    Rebalance,
    /// The member speaks the classic protocol and must join again before.
    Join,
    /// The member speaks the classic protocol and must fetch its assignment before.
    Sync,
}

impl TimerKind {
    pub(super) const ALL: [TimerKind; 4] = [
        TimerKind::Session,
        TimerKind::Rebalance,
        TimerKind::Join,
        TimerKind::Sync,
    ];
}

/// What the group's records say.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct State {
    pub members: Table<Str, Member>,
    pub epoch: GroupEpoch,
    pub assignment: AssignmentEpoch,
    pub targets: BTreeMap<Str, Target>,
    pub regexes: BTreeMap<Str, Resolved>,
    /// Whether a record that older brokers wrote is to be removed with the next new epoch.
    pub partition_metadata: bool,
    /// By instance id: the member id. Follows from `members`, like all below.
    pub statics: BTreeMap<Str, Str>,
    /// By regular expression: how many members are subscribed by it.
    pub regex_members: BTreeMap<Str, usize>,
    pub classic_members: usize,
    /// The topics that anybody is subscribed to: by how many members by name, and by how many expressions.
    pub subscribed: BTreeMap<Str, usize>,
    /// The epoch of the member that has a partition, assigned or still to be given up.
    taken: BTreeMap<Uuid, BTreeMap<i32, i32>>,
}

/// What is not in records: it starts anew where the group is loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct Soft {
    pub timers: Timers<(TimerKind, Str)>,
    /// The version of the metadata that the group epoch has been compared with.
    pub compared: Option<u64>,
    /// When (monotonic) and at which version of the metadata all regular expressions were resolved.
    pub resolved: Option<(u64, u64)>,
    /// The hashes of subscribed topics at this version of the metadata.
    pub topic_hashes: (u64, HashMap<Str, Option<u64>>),
    pub rebalances: u64,
    /// What members that have to give up partitions have last said that they own.
    pub reported: BTreeMap<Str, Vec<TopicPartitions>>,
}

/// A group of the consumer protocol (KIP-848).
#[derive(Debug, Clone)]
pub struct ConsumerGroup {
    pub(super) id: Str,
    pub(super) state: State,
    pub(super) soft: Soft,
}

impl ConsumerGroup {
    /// A group without members, at epoch 0: there are no records of it yet.
    pub fn new(id: Str) -> ConsumerGroup {
        ConsumerGroup {
            id: id.detach(),
            state: State::default(),
            soft: Soft::default(),
        }
    }

    /// Takes a change that was read from a record. Whether it ended the group.
    pub fn replay(&mut self, change: Change) -> bool {
        self.state.apply(change)
    }

    /// Starts the timers of a group that was replayed or restored: every session in full.
    pub fn loaded(&mut self, ctx: &Context<'_>) {
        let ids: Vec<Str> = self.state.members.keys().cloned().collect();
        for id in ids {
            self.start_session(ctx, &id, None);
            self.time_revocation(ctx, &id);
        }
    }

    /// Its id.
    pub fn id(&self) -> &Str {
        &self.id
    }

    /// The members by their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&Str, &Member)> {
        self.state.members.iter()
    }

    /// A member.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.state.members.get(id)
    }

    /// The member id of a static member.
    pub fn static_member(&self, instance_id: &str) -> Option<&Str> {
        self.state.statics.get(instance_id)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.state.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.state.members.is_empty()
    }

    /// The group epoch.
    pub fn epoch(&self) -> i32 {
        self.state.epoch.epoch
    }

    /// The epoch of the target assignment; -1 before the first.
    pub fn assignment_epoch(&self) -> i32 {
        self.state.assignment.epoch
    }

    /// What a member is to own.
    pub fn target(&self, member: &str) -> Option<&Target> {
        self.state.targets.get(member)
    }

    /// How many epochs the group has started since it was loaded: for metrics.
    pub fn rebalances(&self) -> u64 {
        self.soft.rebalances
    }

    /// What the group is doing.
    pub fn state(&self) -> GroupState {
        let assignment = self.state.assignment.epoch;
        if self.state.members.is_empty() {
            GroupState::Empty
        } else if self.state.epoch.epoch > assignment {
            GroupState::Assigning
        } else if self
            .state
            .members
            .values()
            .all(|m| m.is_reconciled_to(assignment))
        {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// Whether any member is subscribed to a topic, by name or by expression.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.state.subscribed.contains_key(topic)
    }

    /// Whether two groups are the same as far as records say: what a test of replay compares.
    pub fn same_state(&self, other: &ConsumerGroup) -> bool {
        self.id == other.id && self.state == other.state
    }

    /// The records that make this group out of nothing, in an order in which they can be replayed.
    pub fn live_records(&self) -> Vec<Record> {
        self.live_changes()
            .map(|change| change.record(&self.id))
            .collect()
    }

    pub(super) fn live_changes(&self) -> impl Iterator<Item = Change> {
        let state = &self.state;
        let members = state.members.iter();
        let metadata = members
            .clone()
            .map(|(id, m)| Change::Member(id.clone(), Some(m.metadata.clone())));
        let epoch = (state.epoch != GroupEpoch::default()).then_some(Change::Epoch(Some(state.epoch)));
        let old = state
            .partition_metadata
            .then_some(Change::PartitionMetadata(true));
        let regexes = state.regexes.iter();
        let targets = state.targets.iter();
        let assignment = state.assignment;
        let assigned =
            (assignment != AssignmentEpoch::default()).then_some(Change::AssignmentEpoch(Some(assignment)));
        let current = members.map(|(id, m)| Change::Current(id.clone(), Some(m.current.clone())));
        metadata
            .chain(epoch)
            .chain(old)
            .chain(regexes.map(|(id, resolved)| Change::Regex(id.clone(), Some(resolved.clone()))))
            .chain(targets.map(|(id, target)| Change::Target(id.clone(), Some(target.clone()))))
            .chain(assigned)
            .chain(current)
    }

    /// The tombstones that end the group, in Kafka's order. The group is to be forgotten.
    pub fn tombstones(&self) -> Vec<Record> {
        let state = &self.state;
        let members = state.members.keys();
        let current = members.clone().map(|id| Change::Current(id.clone(), None));
        let targets = state.targets.keys().map(|id| Change::Target(id.clone(), None));
        let metadata = members.map(|id| Change::Member(id.clone(), None));
        let regexes = state.regexes.keys().map(|id| Change::Regex(id.clone(), None));
        current
            .chain(targets)
            .chain([Change::AssignmentEpoch(None)])
            .chain(metadata)
            .chain(regexes)
            .chain([Change::PartitionMetadata(false), Change::Epoch(None)])
            .map(|change| change.record(&self.id))
            .collect()
    }

    /// When the next timer of a member is due, in the monotonic clock.
    pub fn next_deadline(&self) -> Option<u64> {
        self.soft.timers.next()
    }

    /// When this timer of a member is due.
    pub fn deadline(&self, kind: TimerKind, member: &Str) -> Option<u64> {
        self.soft.timers.when(&(kind, member.clone()))
    }

    /// Makes a change, and writes the record that says it.
    pub(super) fn emit(&mut self, change: Change, records: &mut Vec<Record>) {
        records.push(change.record(&self.id));
        self.state.apply(change);
    }

    /// Starts a new epoch of the group.
    pub(super) fn bump_epoch(&mut self, metadata_hash: i64, records: &mut Vec<Record>) {
        let epoch = self.state.epoch.epoch + 1;
        let change = GroupEpoch { epoch, metadata_hash };
        self.emit(Change::Epoch(Some(change)), records);
        self.soft.rebalances += 1;
        tracing::debug!(group = %self.id, epoch, "new group epoch");
    }

    /// Starts a member's session again; a classic member has a timeout of its own.
    pub(super) fn start_session(&mut self, ctx: &Context<'_>, member: &Str, timeout_ms: Option<i32>) {
        let timeout = timeout_ms
            .or(ctx.overrides.session_timeout_ms)
            .unwrap_or(ctx.config.consumer_session_timeout_ms);
        self.set_timer(ctx, TimerKind::Session, member, timeout);
    }

    /// Gives a member that has to give up partitions its rebalance timeout, from now; takes it from any other.
    pub(super) fn time_revocation(&mut self, ctx: &Context<'_>, id: &Str) {
        let Some(member) = self.state.members.get(id) else {
            return;
        };
        let timed = member.current.state == MemberState::UnrevokedPartitions && !member.is_classic();
        if timed {
            let timeout = member.metadata.rebalance_timeout_ms;
            self.set_timer(ctx, TimerKind::Rebalance, id, timeout);
        } else {
            self.cancel_timer(TimerKind::Rebalance, id);
        }
    }

    pub(super) fn set_timer(&mut self, ctx: &Context<'_>, kind: TimerKind, member: &Str, timeout_ms: i32) {
        let timeout = u64::try_from(timeout_ms).unwrap_or(0);
        let at = ctx.now.mono_ms.saturating_add(timeout);
        self.soft.timers.set((kind, member.clone()), at);
    }

    pub(super) fn cancel_timer(&mut self, kind: TimerKind, member: &Str) {
        self.soft.timers.cancel(&(kind, member.clone()));
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, member: &Str) {
        for kind in TimerKind::ALL {
            self.cancel_timer(kind, member);
        }
        self.soft.reported.remove(member);
    }

    /// The answer with what was written for it.
    pub(super) fn done<T>(response: T, records: Vec<Record>) -> Outcome<T> {
        Outcome {
            response,
            records,
            downgrade: None,
        }
    }
}

impl State {
    /// The only way in which the state changes, whether lived through or replayed. Whether the group ended.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Epoch(Some(epoch)) => self.epoch = epoch,
            Change::Epoch(None) => {
                *self = State::default();
                return true;
            }
            Change::PartitionMetadata(there) => self.partition_metadata = there,
            Change::Member(id, Some(metadata)) => self.set_metadata(id, metadata),
            Change::Member(id, None) => self.remove(&id),
            Change::AssignmentEpoch(epoch) => self.assignment = epoch.unwrap_or_default(),
            Change::Target(id, Some(target)) => {
                self.targets.insert(id, target);
            }
            Change::Target(id, None) => {
                self.targets.remove(&id);
            }
            Change::Current(id, Some(current)) => self.set_current(id, current),
            Change::Current(id, None) => {
                if self.members.contains_key(&id) {
                    let gone = Current {
                        epoch: -1,
                        previous_epoch: -1,
                        ..Current::default()
                    };
                    self.set_current(id, gone);
                }
            }
            Change::Regex(regex, resolved) => {
                let old = match resolved {
                    Some(resolved) => {
                        count_in(&mut self.subscribed, &resolved.topics);
                        self.regexes.insert(regex, resolved)
                    }
                    None => self.regexes.remove(&regex),
                };
                if let Some(old) = old {
                    count_out(&mut self.subscribed, &old.topics);
                }
            }
        }
        false
    }

    /// Whether any member has a partition.
    pub fn is_taken(&self, topic: Uuid, partition: i32) -> bool {
        self.taken
            .get(&topic)
            .is_some_and(|partitions| partitions.contains_key(&partition))
    }

    fn set_metadata(&mut self, id: Str, metadata: Metadata) {
        if let Some(instance) = &metadata.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.classic_members += usize::from(metadata.classic.is_some());
        count_in(&mut self.subscribed, &metadata.topics);
        if !metadata.regex.is_empty() {
            count_in(&mut self.regex_members, [&metadata.regex]);
        }
        let member = self.members.entry(id.clone()).or_default();
        let moved = member.metadata.instance_id != metadata.instance_id;
        let old = std::mem::replace(&mut member.metadata, metadata);
        self.uncount(&old);
        if let Some(instance) = old.instance_id.filter(|_| moved) {
            self.forget_instance(&instance, &id);
        }
    }

    fn set_current(&mut self, id: Str, current: Current) {
        let member = self.members.entry(id).or_default();
        let old = std::mem::replace(&mut member.current, current.clone());
        self.release(&old);
        self.take(&current);
    }

    fn remove(&mut self, id: &Str) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        self.release(&member.current);
        self.uncount(&member.metadata);
        self.targets.remove(id);
        if let Some(instance) = &member.metadata.instance_id {
            self.forget_instance(instance, id);
        }
    }

    /// The instance may have gone over to another member id already.
    fn forget_instance(&mut self, instance: &Str, id: &Str) {
        if self.statics.get(instance) == Some(id) {
            self.statics.remove(instance);
        }
    }

    fn uncount(&mut self, metadata: &Metadata) {
        self.classic_members -= usize::from(metadata.classic.is_some());
        count_out(&mut self.subscribed, &metadata.topics);
        count_out(&mut self.regex_members, [&metadata.regex]);
    }

    /// A compacted log may have lost the record in which one member released what the next one has, and
    /// then names two owners for a while: the younger epoch stands (KAFKA-19862).
    fn take(&mut self, current: &Current) {
        for (topic, partition) in partitions(current) {
            let epoch = self.taken.entry(topic).or_default().entry(partition);
            let epoch = epoch.or_insert(current.epoch);
            *epoch = (*epoch).max(current.epoch);
        }
    }

    fn release(&mut self, current: &Current) {
        for (topic, partition) in partitions(current) {
            let Some(epochs) = self.taken.get_mut(&topic) else {
                continue;
            };
            if epochs.get(&partition) == Some(&current.epoch) {
                epochs.remove(&partition);
                if epochs.is_empty() {
                    self.taken.remove(&topic);
                }
            }
        }
    }
}

fn count_in<'a>(counts: &mut BTreeMap<Str, usize>, names: impl IntoIterator<Item = &'a Str>) {
    for name in names {
        match counts.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                counts.insert(name.clone(), 1);
            }
        }
    }
}

fn count_out<'a>(counts: &mut BTreeMap<Str, usize>, names: impl IntoIterator<Item = &'a Str>) {
    for name in names {
        match counts.get_mut(name) {
            Some(1) => {
                counts.remove(name);
            }
            Some(count) => *count -= 1,
            None => {}
        }
    }
}

fn partitions(current: &Current) -> impl Iterator<Item = (Uuid, i32)> {
    let flat = |owned: &'_ Owned| -> Vec<(Uuid, i32)> {
        let topics = owned.iter();
        topics
            .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
            .collect()
    };
    flat(&current.assigned).into_iter().chain(flat(&current.revoking))
}
