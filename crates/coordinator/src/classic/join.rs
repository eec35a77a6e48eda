//! JoinGroup: members are gathered until a generation can begin.

use bytes::Bytes;
use drumlin_wire::Str;
use drumlin_wire::messages::join_group_request::JoinGroupRequest;
use drumlin_wire::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};

use super::group::{ClassicGroup, InitialDelay, MAX_GROUP_BYTES, State, join_failed, refuse, sync_failed};
use super::member::{Member, Protocol, protocols_size};
use crate::consumer::records::MAX_METADATA_BYTES;
use crate::context::{Cx, Timer};
use crate::{Caller, ErrorCode, GroupResponse, keys};

/// From this version on a dynamic member is given its id first, and joins with it (KIP-394).
const KNOWN_ID_FROM: i16 = 4;
/// From this version on the answer can say that the leader need not assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// A rebalance that nobody came to is tried again no sooner than this.
const MIN_PATIENCE_MS: i32 = 1_000;

/// A JoinGroup and where its answer goes.
pub(crate) struct Join<'a> {
    pub token: u64,
    pub caller: &'a Caller,
    pub request: &'a JoinGroupRequest,
}

impl ClassicGroup {
    /// Serves a JoinGroup. A group that it made, and that nothing else was written of, must be
    /// [announced](ClassicGroup::announce).
    pub fn join(&mut self, join: &Join<'_>, cx: &mut Cx<'_>) {
        let request = join.request;
        let id = &request.member_id;
        if !self.has_room(id, cx) {
            self.remove(id, cx);
            let error = join_failed(ErrorCode::GroupMaxSizeReached, Str::EMPTY);
            return cx.step.reply_now(join.token, error);
        }
        if !self.supports(&request.protocol_type, request.protocols.iter().map(|p| &p.name)) {
            let error = join_failed(ErrorCode::InconsistentGroupProtocol, id.clone());
            return cx.step.reply_now(join.token, error);
        }
        self.held.count_in(cx.memory);
        if let Err(error) = self.check_size(join, cx) {
            return cx.step.reply_now(join.token, join_failed(error, id.clone()));
        }
        if id.is_empty() {
            self.join_new(join, cx);
        } else {
            self.join_known(join, cx);
        }
    }

    /// Whether one more fits. Those that wait are counted while members gather, since others may not come back.
    fn has_room(&self, id: &Str, cx: &Cx<'_>) -> bool {
        let max = usize::try_from(cx.config.max_size).unwrap_or(0);
        let member = self.members.get(id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => member.is_some_and(|m| m.joining.is_some()) || self.joining < max,
            State::CompletingRebalance | State::Stable => member.is_some() || self.members.len() < max,
        }
    }

    /// Whether what a member says fits: it is kept while the member's session lasts. One that says no more than
    /// before always does.
    fn check_size(&self, join: &Join<'_>, cx: &Cx<'_>) -> Result<(), ErrorCode> {
        let request = join.request;
        let asked = protocols_size(&request.protocols);
        if asked > MAX_METADATA_BYTES {
            return Err(ErrorCode::UnknownServerError);
        }
        let instance = request.group_instance_id.as_ref();
        let id = instance.and_then(|instance| self.statics.get(instance));
        let before = self.members.get(id.unwrap_or(&request.member_id));
        let more = asked.saturating_sub(before.map_or(0, Member::size));
        if more == 0 {
            return Ok(());
        }
        if self.held.bytes() + more > MAX_GROUP_BYTES {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        match cx.memory.fits(more) {
            true => Ok(()),
            false => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }

    /// A member without an id.
    fn join_new(&mut self, join: &Join<'_>, cx: &mut Cx<'_>) {
        let request = join.request;
        if let Some(instance) = &request.group_instance_id {
            let new = cx.ids.member(instance);
            match self.statics.get(instance).cloned() {
                Some(old) => self.rejoin_static(join, instance, &old, &new, cx),
                None => self.add_member(join, new, cx),
            }
            return;
        }
        let new = cx.ids.member(&keys::fitting(&join.caller.client_id));
        if join.caller.api_version < KNOWN_ID_FROM {
            return self.add_member(join, new, cx);
        }
        if let Some(dropped) = self.pending.add(new.clone()) {
            cx.timers.cancel(&Timer::Session(self.id.clone(), dropped));
        }
        cx.after(
            Timer::Session(self.id.clone(), new.clone()),
            request.session_timeout_ms,
        );
        cx.step
            .reply_now(join.token, join_failed(ErrorCode::MemberIdRequired, new));
    }

    /// A member with an id: one that was given it a moment ago, or one that joins again.
    fn join_known(&mut self, join: &Join<'_>, cx: &mut Cx<'_>) {
        let request = join.request;
        let id = request.member_id.detach();
        if self.pending.contains(&id) {
            if request.group_instance_id.is_some() {
                // Ids are handed out to dynamic members only: this is no member's request.
                let error = join_failed(ErrorCode::UnknownMemberId, id);
                return cx.step.reply_now(join.token, error);
            }
            return self.add_member(join, id, cx);
        }
        if let Err(error) = self.check_member(&id, request.group_instance_id.as_ref()) {
            return cx.step.reply_now(join.token, join_failed(error, id));
        }
        let changed = self
            .members
            .get(&id)
            .is_some_and(|m| !m.matches(&request.protocols));
        match self.state {
            State::PreparingRebalance => self.rejoin(join, &id, cx),
            State::CompletingRebalance | State::Stable if changed => self.rejoin(join, &id, cx),
            // A leader that joins again wants to assign again.
            State::Stable if self.is_leader(&id) => self.rejoin(join, &id, cx),
            // It missed the answer.
            State::CompletingRebalance | State::Stable => {
                let members = if self.state == State::CompletingRebalance && self.is_leader(&id) {
                    self.members_for_leader()
                } else {
                    Vec::new()
                };
                let answer = self.joined(&id, members);
                cx.step.reply(join.token, answer);
            }
            State::Empty => cx
                .step
                .reply_now(join.token, join_failed(ErrorCode::UnknownMemberId, id)),
        }
    }

    fn add_member(&mut self, join: &Join<'_>, id: Str, cx: &mut Cx<'_>) {
        let request = join.request;
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.detach());
        }
        if let Some(initial) = &mut self.initial {
            initial.joined = true;
        }
        self.add(Member {
            id: id.clone(),
            instance: request.group_instance_id.as_ref().map(Str::detach),
            client_id: keys::fitting(&join.caller.client_id),
            client_host: keys::fitting(&join.caller.client_host),
            rebalance_timeout_ms: patience(request),
            session_timeout_ms: request.session_timeout_ms,
            protocols: Protocol::list(&request.protocols),
            assignment: Bytes::new(),
            joining: Some(join.token),
            syncing: None,
            is_new: true,
        });
        // While it waits for the first time it sends no heartbeats: a client that has gone away in the
        // meantime must not be a member for ever.
        cx.after(
            Timer::Session(self.id.clone(), id),
            cx.config.new_member_join_timeout_ms,
        );
        self.rebalance_or_complete(cx);
    }

    fn rejoin(&mut self, join: &Join<'_>, id: &Str, cx: &mut Cx<'_>) {
        self.take_join(join, id, cx);
        self.rebalance_or_complete(cx);
    }

    /// Notes what a member says in its JoinGroup, and that it waits.
    fn take_join(&mut self, join: &Join<'_>, id: &Str, cx: &mut Cx<'_>) {
        let request = join.request;
        let mut before = None;
        self.update(id, |member| {
            member.protocols = Protocol::list(&request.protocols);
            member.rebalance_timeout_ms = patience(request);
            member.session_timeout_ms = request.session_timeout_ms;
            before = member.joining.replace(join.token);
        });
        if let Some(token) = before {
            // It sent a second one: whoever sent the first no longer waits, yet every token is answered.
            let error = join_failed(ErrorCode::RebalanceInProgress, id.clone());
            cx.step.reply(token, error);
        }
    }

    /// A static member comes back without its id (KIP-345): after a restart, within its session.
    fn rejoin_static(&mut self, join: &Join<'_>, instance: &Str, old: &Str, new: &Str, cx: &mut Cx<'_>) {
        let leader_before = self.leader.clone().unwrap_or_default();
        self.replace(instance, old, new, cx);
        self.touch(new, cx);
        self.take_join(join, new, cx);
        match self.state {
            State::Stable if self.choose_protocol() == self.protocol => {
                // Nothing that matters has changed: no rebalance. Who it is must be stored.
                self.update(new, |member| member.joining = None);
                self.store(&mut cx.step.records);
                let skips = join.caller.api_version >= SKIP_ASSIGNMENT_FROM;
                let leads = self.is_leader(new);
                let members = if skips && leads {
                    self.members_for_leader()
                } else {
                    Vec::new()
                };
                let mut answer = self.joined_as(new, members);
                if skips {
                    answer.skip_assignment = leads;
                } else {
                    // An older client that is told that it leads would assign: it is told of the old leader.
                    answer.leader = leader_before;
                }
                cx.step.reply(join.token, GroupResponse::JoinGroup(answer));
            }
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(cx),
            State::PreparingRebalance | State::Empty => self.complete_if_all_joined(cx),
        }
    }

    /// Something changed: members have to gather, or have done so.
    pub(super) fn rebalance_or_complete(&mut self, cx: &mut Cx<'_>) {
        match self.state {
            State::PreparingRebalance => self.complete_if_all_joined(cx),
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(cx),
        }
    }

    /// Completes the gathering if everybody is here, unless it is the first and waits for newcomers.
    pub(super) fn complete_if_all_joined(&mut self, cx: &mut Cx<'_>) {
        if self.state == State::PreparingRebalance && self.initial.is_none() && self.have_all_joined() {
            self.complete_join(cx);
        }
    }

    /// Members have to join again.
    pub fn prepare_rebalance(&mut self, cx: &mut Cx<'_>) {
        if self.state == State::CompletingRebalance {
            self.withdraw_assignments(cx);
        }
        self.unsynced.clear();
        cx.timers.cancel(&Timer::Sync(self.id.clone()));
        let first = self.state == State::Empty;
        self.enter(State::PreparingRebalance, cx.now.wall_ms);
        if first {
            // More are likely to come: wait a little, as long as they keep coming (KIP-134).
            let delay_ms = cx.config.initial_rebalance_delay_ms;
            self.initial = Some(InitialDelay {
                delay_ms,
                remaining_ms: self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0),
                joined: false,
            });
            cx.after(Timer::Join(self.id.clone()), delay_ms);
        } else if self.have_all_joined() {
            self.complete_join(cx);
        } else {
            cx.after(Timer::Join(self.id.clone()), self.rebalance_timeout_ms());
        }
    }

    /// The rebalance in which assignments were awaited begins again.
    fn withdraw_assignments(&mut self, cx: &mut Cx<'_>) {
        let mut answered = Vec::new();
        for member in self.members.values_mut() {
            self.held.remove(member.assignment.len());
            member.assignment = Bytes::new();
            if let Some(token) = member.syncing.take() {
                cx.step.reply(token, sync_failed(ErrorCode::RebalanceInProgress));
                answered.push(member.id.clone());
            }
        }
        for id in answered {
            self.touch(&id, cx);
        }
    }

    /// The time to gather is over.
    pub fn join_due(&mut self, cx: &mut Cx<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        if let Some(initial) = self.initial
            && initial.joined
            && initial.remaining_ms > 0
        {
            let delay_ms = cx.config.initial_rebalance_delay_ms.min(initial.remaining_ms);
            self.initial = Some(InitialDelay {
                delay_ms,
                remaining_ms: (initial.remaining_ms - initial.delay_ms).max(0),
                joined: false,
            });
            return cx.after(Timer::Join(self.id.clone()), delay_ms);
        }
        self.complete_join(cx);
    }

    /// Begins the next generation, without the dynamic members that have not come.
    pub(super) fn complete_join(&mut self, cx: &mut Cx<'_>) {
        cx.timers.cancel(&Timer::Join(self.id.clone()));
        let absent: Vec<Str> = self
            .members
            .values()
            .filter(|m| m.joining.is_none() && m.instance.is_none())
            .map(|m| m.id.clone())
            .collect();
        for id in &absent {
            self.remove(id, cx);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Only static members are left, and none of them has come: until their sessions end. Not at once,
            // whatever they said: this timer is set by itself.
            let patience = self.rebalance_timeout_ms().max(MIN_PATIENCE_MS);
            return cx.after(Timer::Join(self.id.clone()), patience);
        }
        self.initial = None;
        self.next_generation(cx.now.wall_ms);
        if self.state == State::Empty {
            self.leader = None;
            return self.store(&mut cx.step.records);
        }
        let mut for_leader = self.members_for_leader();
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            let members = if self.is_leader(&id) {
                std::mem::take(&mut for_leader)
            } else {
                Vec::new()
            };
            let answer = self.joined(&id, members);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
                if let Some(token) = member.joining.take() {
                    self.joining -= 1;
                    cx.step.reply(token, answer);
                }
            }
            self.touch(&id, cx);
            self.unsynced.insert(id);
        }
        let patience = self.rebalance_timeout_ms();
        cx.after(Timer::Sync(self.id.clone()), patience);
    }

    /// Makes a member that has come the leader. Whether there is one.
    fn elect_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else {
            return false;
        };
        if self.members.get(leader).is_some_and(|m| m.joining.is_some()) {
            return true;
        }
        match self.members.values().find(|m| m.joining.is_some()) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// What the leader needs to assign.
    fn members_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.clone().unwrap_or_default();
        let told = self.members.values().map(|member| JoinGroupResponseMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance.clone(),
            metadata: member.metadata(&protocol).cloned().unwrap_or_default(),
            ..JoinGroupResponseMember::default()
        });
        told.collect()
    }

    fn joined_as(&self, id: &Str, members: Vec<JoinGroupResponseMember>) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: Some(self.protocol.clone().unwrap_or_default()),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.clone(),
            members,
            ..JoinGroupResponse::default()
        }
    }

    fn joined(&self, id: &Str, members: Vec<JoinGroupResponseMember>) -> GroupResponse {
        GroupResponse::JoinGroup(self.joined_as(id, members))
    }

    /// Answers everybody who waits with this error, and forgets that they do.
    pub fn refuse_all(&mut self, error: ErrorCode, cx: &mut Cx<'_>) {
        for member in self.members.values_mut() {
            let id = member.id.clone();
            refuse(member, error, id, cx);
        }
        self.joining = 0;
    }
}

/// How long a rebalance waits for this member. Version 0 has the session timeout only.
fn patience(request: &JoinGroupRequest) -> i32 {
    match request.rebalance_timeout_ms {
        -1 => request.session_timeout_ms,
        timeout => timeout,
    }
}
