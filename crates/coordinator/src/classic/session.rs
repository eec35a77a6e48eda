//! Heartbeat, LeaveGroup, and members that are not heard of any more.

use drumlin_wire::Str;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::leave_group_request::MemberIdentity;

use super::group::{ClassicGroup, State};
use crate::ErrorCode;
use crate::context::Cx;

impl ClassicGroup {
    /// Serves a Heartbeat.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, cx: &mut Cx<'_>) -> ErrorCode {
        let id = &request.member_id;
        if let Err(error) = self.check_member(id, request.group_instance_id.as_ref()) {
            return error;
        }
        if request.generation_id != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        match self.state {
            State::Empty => ErrorCode::UnknownMemberId,
            State::PreparingRebalance => {
                self.touch_own(id, cx);
                ErrorCode::RebalanceInProgress
            }
            State::CompletingRebalance | State::Stable => {
                self.touch_own(id, cx);
                ErrorCode::None
            }
        }
    }

    /// As [`ClassicGroup::touch`], with the group's own copy of the id: a request's keeps its frame alive.
    pub(super) fn touch_own(&self, id: &Str, cx: &mut Cx<'_>) {
        if let Some((own, _)) = self.members.get_key_value(id) {
            self.touch(&own.clone(), cx);
        }
    }

    /// Whether a commit from this member of this generation may be stored. It counts as a heartbeat.
    pub fn check_commit(
        &self,
        member: &Str,
        instance: Option<&Str>,
        generation: i32,
        cx: &mut Cx<'_>,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.state == State::Empty {
            // Somebody without a group's membership: an administrator, or a consumer that assigns itself.
            return Ok(());
        }
        if generation < 0 && member.is_empty() && instance.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(member, instance)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            State::CompletingRebalance => return Err(ErrorCode::RebalanceInProgress),
            State::Stable | State::PreparingRebalance => self.touch_own(member, cx),
            State::Empty => {}
        }
        Ok(())
    }

    /// Serves a LeaveGroup: an error code for each, in order.
    pub fn leave(&mut self, leaving: &[MemberIdentity], cx: &mut Cx<'_>) -> Vec<ErrorCode> {
        let codes: Vec<ErrorCode> = leaving.iter().map(|member| self.leave_one(member, cx)).collect();
        if codes.contains(&ErrorCode::None) {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(cx),
                State::PreparingRebalance => self.complete_if_all_joined(cx),
                State::Empty => {}
            }
        }
        codes
    }

    fn leave_one(&mut self, leaving: &MemberIdentity, cx: &mut Cx<'_>) -> ErrorCode {
        let instance = leaving.group_instance_id.as_ref();
        if leaving.member_id.is_empty() {
            // An administrator knows the instance only.
            let Some(id) = instance.and_then(|i| self.statics.get(i)).cloned() else {
                return ErrorCode::UnknownMemberId;
            };
            self.remove(&id, cx);
            return ErrorCode::None;
        }
        if !self.pending.contains(&leaving.member_id)
            && let Err(error) = self.check_member(&leaving.member_id, instance)
        {
            return error;
        }
        self.remove(&leaving.member_id, cx);
        ErrorCode::None
    }

    /// A member's session is over, unless a request of its own waits here.
    pub fn session_due(&mut self, id: &Str, cx: &mut Cx<'_>) {
        if self.pending.contains(id) {
            self.remove(id, cx);
            self.complete_if_all_joined(cx);
            return;
        }
        if self.members.get(id).is_none_or(|member| member.waits()) {
            return;
        }
        self.remove(id, cx);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(cx),
            // The first rebalance waits for newcomers, whoever has gone (Kafka's maybeCompleteJoinPhase).
            State::PreparingRebalance => self.complete_if_all_joined(cx),
            State::Empty => {}
        }
    }
}
