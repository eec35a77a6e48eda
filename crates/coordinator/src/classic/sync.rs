//! SyncGroup: the leader's assignment goes to the members.

use std::collections::BTreeMap;

use bytes::Bytes;
use drumlin_wire::Str;
use drumlin_wire::messages::sync_group_request::SyncGroupRequest;
use drumlin_wire::messages::sync_group_response::SyncGroupResponse;

use super::group::{ClassicGroup, MAX_GROUP_BYTES, State, sync_failed};
use crate::context::{Cx, Timer};
use crate::{ErrorCode, GroupResponse};

impl ClassicGroup {
    /// Serves a SyncGroup: a follower's waits for the leader's.
    pub fn sync(&mut self, token: u64, request: &SyncGroupRequest, cx: &mut Cx<'_>) {
        if let Err(error) = self.check_sync(request) {
            return cx.step.reply_now(token, sync_failed(error));
        }
        let id = &request.member_id;
        match self.state {
            State::Empty => cx.step.reply_now(token, sync_failed(ErrorCode::UnknownMemberId)),
            State::PreparingRebalance => {
                cx.step
                    .reply_now(token, sync_failed(ErrorCode::RebalanceInProgress));
            }
            State::CompletingRebalance => {
                if self.is_leader(id)
                    && let Err(error) = self.check_room(request, cx)
                {
                    return match error {
                        ErrorCode::UnknownServerError => self.refuse_assignment(token, cx),
                        error => cx.step.reply_now(token, sync_failed(error)),
                    };
                }
                self.has_synced(id, cx);
                let before = self.members.get_mut(id).and_then(|m| m.syncing.replace(token));
                if let Some(before) = before {
                    cx.step.reply(before, sync_failed(ErrorCode::RebalanceInProgress));
                }
                if self.is_leader(id) {
                    self.assign(request, cx);
                }
            }
            State::Stable => {
                self.has_synced(id, cx);
                let answer = self.assigned(id);
                cx.step.reply(token, answer);
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // What a request does not name is not compared (KIP-559).
        let differs = |asked: &Option<Str>, have: &Option<Str>| {
            asked.as_ref().is_some_and(|asked| have.as_ref() != Some(asked))
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// Whether an assignment fits in the group's record, and into what all groups may hold.
    fn check_room(&self, request: &SyncGroupRequest, cx: &Cx<'_>) -> Result<(), ErrorCode> {
        let protocol = self.protocol.clone().unwrap_or_default();
        let parts = request.assignments.iter();
        let assigned: BTreeMap<&Str, &Bytes> = parts.map(|a| (&a.member_id, &a.assignment)).collect();
        let (mut stored, mut more) = (0, 0);
        for member in self.members.values() {
            let assignment = assigned.get(&member.id).map_or(&[][..], |bytes| bytes);
            stored += member.stored_size(&protocol, assignment);
            more += assignment.len().saturating_sub(member.assignment.len());
        }
        match stored > MAX_GROUP_BYTES {
            true => Err(ErrorCode::UnknownServerError),
            false if !cx.memory.fits(more) => Err(ErrorCode::CoordinatorNotAvailable),
            false => Ok(()),
        }
    }

    /// An assignment that cannot be stored is nobody's, as one that Kafka refuses with RECORD_TOO_LARGE: everybody
    /// who waits for it is told, and members have to gather again.
    fn refuse_assignment(&mut self, token: u64, cx: &mut Cx<'_>) {
        tracing::warn!(group = %self.id, "an assignment is too large to be stored");
        let refused = || sync_failed(ErrorCode::UnknownServerError);
        cx.step.reply(token, refused());
        let waiting: Vec<(Str, u64)> = self
            .members
            .values_mut()
            .filter_map(|m| Some((m.id.clone(), m.syncing.take()?)))
            .collect();
        for (id, token) in waiting {
            cx.step.reply(token, refused());
            self.touch(&id, cx);
        }
        self.prepare_rebalance(cx);
    }

    fn has_synced(&mut self, id: &Str, cx: &mut Cx<'_>) {
        self.unsynced.remove(id);
        if self.unsynced.is_empty() {
            cx.timers.cancel(&Timer::Sync(self.id.clone()));
        }
    }

    /// Takes the leader's assignment: it is stored, and then everybody who waits has it.
    fn assign(&mut self, request: &SyncGroupRequest, cx: &mut Cx<'_>) {
        let mut assignments: BTreeMap<&Str, &Bytes> = request
            .assignments
            .iter()
            .map(|a| (&a.member_id, &a.assignment))
            .collect();
        for member in self.members.values_mut() {
            // The leader may have left somebody out: nothing is assigned to it.
            member.assignment = assignments
                .remove(&member.id)
                .map(|bytes| Bytes::copy_from_slice(bytes))
                .unwrap_or_default();
        }
        self.count_held();
        self.store(&mut cx.step.records);
        self.enter(State::Stable, cx.now.wall_ms);
        cx.counters.classic_rebalances += 1;
        let waiting: Vec<(Str, u64)> = self
            .members
            .values_mut()
            .filter_map(|m| Some((m.id.clone(), m.syncing.take()?)))
            .collect();
        for (id, token) in waiting {
            let answer = self.assigned(&id);
            cx.step.reply(token, answer);
            self.touch(&id, cx);
        }
    }

    fn assigned(&self, id: &Str) -> GroupResponse {
        let assignment = self.members.get(id).map(|m| m.assignment.clone());
        GroupResponse::SyncGroup(SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
            ..SyncGroupResponse::default()
        })
    }

    /// Members that have not asked for their assignment in time are no members (KAFKA-9846 and later).
    pub fn sync_due(&mut self, cx: &mut Cx<'_>) {
        let late = std::mem::take(&mut self.unsynced);
        if late.is_empty() || !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        for id in &late {
            self.remove(id, cx);
        }
        self.prepare_rebalance(cx);
    }
}
