//! The state of a classic group, and the record that keeps it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drumlin_wire::coordinator_records::group_metadata_key::GroupMetadataKey;
use drumlin_wire::coordinator_records::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use drumlin_wire::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use drumlin_wire::messages::join_group_response::JoinGroupResponse;
use drumlin_wire::messages::sync_group_response::SyncGroupResponse;
use drumlin_wire::{DecodeError, Message, Reader, Str};

use super::member::{Member, Protocol};
use crate::context::{Cx, Timer};
use crate::memory::Held;
use crate::offsets::ExpiryBase;
use crate::table::Table;
use crate::{ErrorCode, GroupResponse, Record, keys};

/// The protocol type of consumers, whose metadata the coordinator can read.
const CONSUMER: &str = "consumer";

/// So many members may have been given an id and not have come back with it. More push the oldest out,
/// which will ask for an id again.
const MAX_PENDING: usize = 10_000;

/// What the members of one group may hold, and what its record may: much more than Kafka can store unless its
/// `max.message.bytes` is raised, and little enough to be written.
pub(super) const MAX_GROUP_BYTES: usize = 16 << 20;

/// Where a group is. A group that is gone ("Dead") is not in the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No members.
    Empty,
    /// Members are awaited.
    PreparingRebalance,
    /// The leader's assignment is awaited.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
}

impl State {
    /// Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// Member ids that were handed out (KIP-394) and not used yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ids: BTreeMap<Str, u64>,
    order: BTreeMap<u64, Str>,
    next: u64,
}

impl Pending {
    pub fn contains(&self, id: &Str) -> bool {
        self.ids.contains_key(id)
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Str> {
        self.ids.keys()
    }

    pub fn remove(&mut self, id: &Str) -> bool {
        match self.ids.remove(id) {
            Some(n) => self.order.remove(&n).is_some(),
            None => false,
        }
    }

    /// Adds one. The oldest, if there are too many.
    pub fn add(&mut self, id: Str) -> Option<Str> {
        self.order.insert(self.next, id.clone());
        self.ids.insert(id, self.next);
        self.next += 1;
        if self.ids.len() <= MAX_PENDING {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.ids.remove(&oldest);
        Some(oldest)
    }
}

/// A classic group.
#[derive(Debug)]
pub(crate) struct ClassicGroup {
    pub(super) id: Str,
    pub(super) state: State,
    /// When it came into its state, by the wall clock; kept in its record.
    pub(super) since: Option<i64>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Str>,
    pub(super) protocol: Option<Str>,
    pub(super) leader: Option<Str>,
    pub(super) members: Table<Str, Member>,
    /// Static members: instance id to member id.
    pub(super) statics: BTreeMap<Str, Str>,
    pub(super) pending: Pending,
    /// What its members hold.
    pub(super) held: Held,
    /// How many members support a protocol.
    votes: BTreeMap<Str, usize>,
    /// How many members have a JoinGroup waiting.
    pub(super) joining: usize,
    /// Members of this generation that have not asked for their assignment.
    pub(super) unsynced: BTreeSet<Str>,
    /// The topics that its consumers subscribe to, as far as they can be known.
    subscribed: Option<BTreeSet<Str>>,
    /// The rebalance under way is the first: it waits for more members, and this is what is left of the
    /// time that it may wait for them, and what it waits for now.
    pub(super) initial: Option<InitialDelay>,
    /// The value of its newest record; `None` while it has none.
    stored: Option<Bytes>,
}

/// The wait of a group that was empty (KIP-134).
#[derive(Debug, Clone, Copy)]
pub(super) struct InitialDelay {
    pub delay_ms: i32,
    pub remaining_ms: i32,
    /// Somebody came while it waited.
    pub joined: bool,
}

impl ClassicGroup {
    /// An empty group, without a record.
    pub fn new(id: &Str, wall_ms: Option<i64>) -> ClassicGroup {
        ClassicGroup {
            id: id.detach(),
            state: State::Empty,
            since: wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Table::default(),
            statics: BTreeMap::new(),
            pending: Pending::default(),
            held: Held::default(),
            votes: BTreeMap::new(),
            joining: 0,
            unsynced: BTreeSet::new(),
            subscribed: None,
            initial: None,
            stored: None,
        }
    }

    /// The group that a record says: stable with its members, or empty.
    pub fn from_record(id: &Str, value: &Bytes) -> Result<ClassicGroup, DecodeError> {
        let read: GroupMetadataValue = keys::read_value(value)?;
        let mut group = ClassicGroup::new(
            id,
            (read.current_state_timestamp != -1).then_some(read.current_state_timestamp),
        );
        if !read.members.is_empty() {
            group.state = State::Stable;
        }
        group.generation = read.generation;
        group.protocol = read.protocol.as_ref().map(Str::detach);
        group.protocol_type = (!read.protocol_type.is_empty()).then(|| read.protocol_type.detach());
        for member in &read.members {
            group.add(Member {
                id: member.member_id.detach(),
                instance: member.group_instance_id.as_ref().map(Str::detach),
                client_id: member.client_id.detach(),
                client_host: member.client_host.detach(),
                // Records of version 0 have none.
                rebalance_timeout_ms: match member.rebalance_timeout {
                    -1 => member.session_timeout,
                    timeout => timeout,
                },
                session_timeout_ms: member.session_timeout,
                protocols: vec![Protocol {
                    name: group.protocol.clone().unwrap_or_default(),
                    metadata: Bytes::copy_from_slice(&member.subscription),
                }],
                assignment: Bytes::copy_from_slice(&member.assignment),
                joining: None,
                syncing: None,
                is_new: false,
            });
        }
        if let Some(leader) = &read.leader {
            group.leader = Some(leader.detach());
        }
        group.subscribed = group.compute_subscribed();
        group.stored = Some(Bytes::copy_from_slice(value));
        Ok(group)
    }

    /// A stable group in this generation of consumers, without a record yet; members are to be
    /// [taken over](ClassicGroup::take_over).
    pub fn taken_over(id: &Str, generation: i32, wall_ms: i64) -> ClassicGroup {
        ClassicGroup {
            state: State::Stable,
            generation,
            protocol_type: Some(Str::from_static(CONSUMER)),
            ..ClassicGroup::new(id, Some(wall_ms))
        }
    }

    /// Takes a member over from a group of another protocol.
    pub fn take_over(&mut self, member: Member) {
        self.add(member);
    }

    /// Chooses the protocol of members that were taken over; `None` if they have none in common.
    pub fn settle(&mut self) -> Option<Str> {
        self.protocol = Some(self.choose_protocol()?);
        self.subscribed = self.compute_subscribed();
        self.protocol.clone()
    }

    /// Sets the assignment of a member that was taken over, by what it says under the chosen protocol.
    pub fn hand_over(&mut self, id: &Str, assignment: impl FnOnce(&[u8]) -> Bytes) {
        let protocol = self.protocol.clone().unwrap_or_default();
        if let Some(member) = self.members.get_mut(id) {
            let metadata = member.metadata(&protocol).cloned().unwrap_or_default();
            member.assignment = assignment(&metadata);
        }
    }

    /// Stores a group that was taken over, and starts its members' sessions.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        self.count_held();
        self.held.count_in(cx.memory);
        self.store(&mut cx.step.records);
        for id in self.members.keys() {
            self.touch(id, cx);
        }
    }

    /// Its members.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Its generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The protocol of its generation; before the first, the one that its members would choose.
    pub fn chosen_protocol(&self) -> Option<Str> {
        self.protocol.clone().or_else(|| self.choose_protocol())
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is in it.
    pub fn is_without_members(&self) -> bool {
        self.state == State::Empty
    }

    /// Whether nobody is in it, nor on the way into it.
    pub fn is_abandoned(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// Whether it has no record: it is but a name that offsets are committed under, or nothing yet.
    pub fn is_only_a_name(&self) -> bool {
        self.stored.is_none()
    }

    /// Whether its members are consumers.
    pub fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_ref().is_some_and(|kind| *kind == CONSUMER)
    }

    /// Whether a member may read this topic: then its offsets are kept.
    pub fn subscribes(&self, topic: &Str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    /// Since when its offsets have been unused.
    pub fn expiry(&self) -> ExpiryBase {
        match self.state {
            _ if self.protocol_type.is_none() => ExpiryBase::Commit,
            State::Empty => ExpiryBase::Emptied(self.since),
            State::Stable if self.is_of_consumers() && self.subscribed.is_some() => ExpiryBase::Commit,
            _ => ExpiryBase::Never,
        }
    }

    fn key(&self) -> GroupMetadataKey {
        GroupMetadataKey {
            group: self.id.clone(),
        }
    }

    /// Its newest record, if it has one.
    pub fn stored(&self) -> Option<Record> {
        self.stored.as_ref().map(|value| Record {
            key: keys::key(&self.key()),
            value: Some(value.clone()),
        })
    }

    /// The record that deletes it, if it has one.
    pub fn tombstone(&self) -> Option<Record> {
        self.stored.as_ref().map(|_| keys::tombstone(&self.key()))
    }

    /// Writes its record, as it is now.
    pub(super) fn store(&mut self, records: &mut Vec<Record>) {
        self.write(self.value(), records);
    }

    /// Writes the record that a new group gets at once, so that its name is taken and survives: an empty
    /// group, whoever may be joining.
    pub fn announce(&mut self, records: &mut Vec<Record>) {
        let empty = ClassicGroup::new(&self.id, self.since);
        self.write(empty.value(), records);
    }

    fn write(&mut self, value: GroupMetadataValue, records: &mut Vec<Record>) {
        // Version 3, the newest that Kafka 4.3 writes.
        let record = keys::record(&self.key(), &value, 3);
        self.stored.clone_from(&record.value);
        records.push(record);
    }

    fn value(&self) -> GroupMetadataValue {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.values().map(|member| MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(&protocol).cloned().unwrap_or_default(),
            assignment: member.assignment.clone(),
            ..MemberMetadata::default()
        });
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.since.unwrap_or(-1),
            members: members.collect(),
            ..GroupMetadataValue::default()
        }
    }

    pub(super) fn enter(&mut self, state: State, wall_ms: i64) {
        self.state = state;
        self.since = Some(wall_ms);
    }

    /// Adds a member, with its JoinGroup waiting if it has one.
    pub(super) fn add(&mut self, member: Member) {
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending.remove(&member.id);
        self.count_votes(&member, true);
        self.joining += usize::from(member.joining.is_some());
        self.members.insert(member.id.clone(), member);
    }

    /// Counts what members hold anew: they were given other assignments.
    pub(super) fn count_held(&mut self) {
        self.held.set(self.members.values().map(Member::size).sum());
    }

    /// Counts what a member votes for and what it holds, or no longer.
    fn count_votes(&mut self, member: &Member, add: bool) {
        if add {
            self.held.add(member.size());
        } else {
            self.held.remove(member.size());
        }
        for protocol in &member.protocols {
            let votes = self.votes.entry(protocol.name.clone()).or_default();
            if add {
                *votes += 1;
            } else {
                *votes -= 1;
                if *votes == 0 {
                    self.votes.remove(&protocol.name);
                }
            }
        }
    }

    /// Removes a member or a pending one, with its timer. What waits for it is answered with UNKNOWN_MEMBER_ID.
    pub(super) fn remove(&mut self, id: &Str, cx: &mut Cx<'_>) {
        cx.timers.cancel(&Timer::Session(self.id.clone(), id.clone()));
        self.pending.remove(id);
        self.unsynced.remove(id);
        if let Some(mut member) = self.members.remove(id) {
            self.count_votes(&member, false);
            self.joining -= usize::from(member.joining.is_some());
            if let Some(instance) = &member.instance {
                self.statics.remove(instance);
            }
            refuse(&mut member, ErrorCode::UnknownMemberId, Str::EMPTY, cx);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member that came without its id a new one (KIP-345). Who had it is fenced.
    pub(super) fn replace(&mut self, instance: &Str, old: &Str, new: &Str, cx: &mut Cx<'_>) {
        let Some(mut member) = self.members.remove(old) else {
            return;
        };
        cx.timers.cancel(&Timer::Session(self.id.clone(), old.clone()));
        self.joining -= usize::from(member.joining.is_some());
        refuse(&mut member, ErrorCode::FencedInstanceId, old.clone(), cx);
        member.id = new.clone();
        member.is_new = false;
        self.members.insert(new.clone(), member);
        self.statics.insert(instance.clone(), new.clone());
        if self.leader.as_ref() == Some(old) {
            self.leader = Some(new.clone());
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(new.clone());
        }
    }

    /// Whether a joining member's protocols go with the others'.
    pub(super) fn supports<'a>(&self, kind: &Str, mut protocols: impl Iterator<Item = &'a Str>) -> bool {
        if self.state == State::Empty {
            return !kind.is_empty() && protocols.next().is_some();
        }
        self.protocol_type.as_ref() == Some(kind)
            && protocols.any(|name| self.votes.get(name).copied().unwrap_or(0) == self.members.len())
    }

    /// Updates what a member says of itself, and who of its requests waits.
    pub(super) fn update(&mut self, id: &Str, update: impl FnOnce(&mut Member)) {
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        self.count_votes(&member, false);
        self.joining -= usize::from(member.joining.is_some());
        update(&mut member);
        self.joining += usize::from(member.joining.is_some());
        self.count_votes(&member, true);
        self.members.insert(id.clone(), member);
    }

    /// The protocol that most members prefer among those that all support. The first by name of several.
    pub(super) fn choose_protocol(&self) -> Option<Str> {
        let supported_by_all = |name: &Str| self.votes.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().map(|p| &p.name);
            if let Some(name) = vote.into_iter().find(|name| supported_by_all(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(name, _)| name.clone())
    }

    /// The topics of consumers' subscriptions; `None` where they cannot be known.
    pub(super) fn compute_subscribed(&self) -> Option<BTreeSet<Str>> {
        if !self.is_of_consumers() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let metadata = member.metadata(self.protocol.as_ref()?)?;
            topics.extend(subscription_topics(metadata)?);
        }
        Some(topics)
    }

    /// Begins the next generation with the members that there are.
    pub(super) fn next_generation(&mut self, wall_ms: i64) {
        // The number comes around to where it is still above "none".
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.choose_protocol();
        self.subscribed = self.compute_subscribed();
        self.unsynced.clear();
        let state = if self.members.is_empty() {
            State::Empty
        } else {
            State::CompletingRebalance
        };
        self.enter(state, wall_ms);
    }

    /// How long to wait for members: as long as the most patient of them.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
            .max(0)
    }

    pub(super) fn have_all_joined(&self) -> bool {
        self.joining == self.members.len() && self.pending.is_empty()
    }

    pub(super) fn is_leader(&self, id: &Str) -> bool {
        self.leader.as_ref() == Some(id)
    }

    /// Whether this is a member, and under this instance id if it claims one.
    pub(super) fn check_member(&self, id: &Str, instance: Option<&Str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    /// Starts a member's session again.
    pub(super) fn touch(&self, id: &Str, cx: &mut Cx<'_>) {
        if let Some(member) = self.members.get(id) {
            let timer = Timer::Session(self.id.clone(), id.clone());
            cx.after(timer, member.session_timeout_ms);
        }
    }
}

/// Answers whatever of a member's waits with an error.
pub(super) fn refuse(member: &mut Member, error: ErrorCode, told_id: Str, cx: &mut Cx<'_>) {
    if let Some(token) = member.joining.take() {
        cx.step.reply(token, join_failed(error, told_id));
    }
    if let Some(token) = member.syncing.take() {
        cx.step.reply(token, sync_failed(error));
    }
}

/// A JoinGroup's answer that is an error.
pub(crate) fn join_failed(error: ErrorCode, member_id: Str) -> GroupResponse {
    GroupResponse::JoinGroup(JoinGroupResponse {
        error_code: error.code(),
        generation_id: -1,
        // Null, not empty, where there is none (versions from 7 on; before, the broker says so with an empty name).
        protocol_name: None,
        member_id,
        ..JoinGroupResponse::default()
    })
}

/// A SyncGroup's answer that is an error.
pub(crate) fn sync_failed(error: ErrorCode) -> GroupResponse {
    GroupResponse::SyncGroup(SyncGroupResponse {
        error_code: error.code(),
        ..SyncGroupResponse::default()
    })
}

/// The topics in a consumer's metadata: a version, and a subscription that begins alike in all versions.
fn subscription_topics(metadata: &Bytes) -> Option<Vec<Str>> {
    const CAP: usize = 1 << 20;
    let mut reader = Reader::new(metadata, CAP);
    if reader.i16().ok()? < 0 {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::read(&mut reader, 0).ok()?;
    Some(subscription.topics.iter().map(Str::detach).collect())
}
