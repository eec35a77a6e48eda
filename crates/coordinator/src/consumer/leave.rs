//! How members go: by their own will, because their time is over, or because an administrator says so.

use drumlin_wire::Str;
use drumlin_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest as Request;
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse as Response;

use super::group::{ConsumerGroup, TimerKind};
use super::member::{Current, MemberState, STATIC_LEAVE_EPOCH};
use super::records::Change;
use super::{Context, Downgrade, GroupError, Outcome};
use crate::Record;

impl ConsumerGroup {
    pub(super) fn heartbeat_leave(
        &mut self,
        ctx: &Context<'_>,
        request: &Request,
    ) -> Result<Outcome<Response>, GroupError> {
        let id = match &request.instance_id {
            Some(instance) => self.static_comer(&request.member_id, instance)?,
            None if self.state.members.contains_key(&request.member_id) => request.member_id.detach(),
            None => return Err(self.unknown_member(&request.member_id)),
        };
        let response = Response {
            member_id: Some(id.clone()),
            member_epoch: request.member_epoch,
            ..Response::default()
        };
        let mut records = Vec::new();
        if request.member_epoch == STATIC_LEAVE_EPOCH {
            self.leave_for_a_while(&id, &mut records);
            return Ok(ConsumerGroup::done(response, records));
        }
        tracing::info!(group = %self.id, member = %id, "member left");
        Ok(self.fence(ctx, &[id], response))
    }

    /// A static member keeps its assignment for as long as its session lasts; whoever comes with its
    /// instance id takes it over. Its epochs of assignment start anew, since its own epoch will.
    fn leave_for_a_while(&mut self, id: &Str, records: &mut Vec<Record>) {
        let Some(member) = self.state.members.get(id) else {
            return;
        };
        let mut assigned = member.current.assigned.clone();
        for epoch in assigned
            .values_mut()
            .flat_map(|partitions| partitions.values_mut())
        {
            *epoch = 0;
        }
        let current = Current {
            epoch: STATIC_LEAVE_EPOCH,
            assigned,
            revoking: Default::default(),
            ..member.current.clone()
        };
        self.emit(Change::Current(id.clone(), Some(current)), records);
        self.cancel_timer(TimerKind::Rebalance, id);
        self.soft.reported.remove(id);
        tracing::info!(group = %self.id, member = %id, "static member left for a while");
    }

    /// Runs the timers of members that are due.
    pub fn expire(&mut self, ctx: &Context<'_>) -> Outcome<()> {
        let mut due: Vec<Str> = Vec::new();
        while let Some((kind, id)) = self.soft.timers.pop(ctx.now.mono_ms) {
            let Some(member) = self.state.members.get(&id) else {
                continue;
            };
            let waits = member.current.state == MemberState::UnrevokedPartitions;
            if (kind == TimerKind::Rebalance && !waits) || due.contains(&id) {
                continue;
            }
            tracing::info!(group = %self.id, member = %id, timer = ?kind, "member is fenced: its time is over");
            due.push(id);
        }
        self.fence(ctx, &due, ())
    }

    /// Takes members out. Where only members remain that speak the classic protocol, the group is to become
    /// a classic one: then nothing has changed yet, and [`Outcome::downgrade`] says what to do.
    pub fn fence<T>(&mut self, ctx: &Context<'_>, members: &[Str], response: T) -> Outcome<T> {
        if members.is_empty() {
            return ConsumerGroup::done(response, Vec::new());
        }
        if self.may_downgrade(ctx, members) {
            return Outcome {
                response,
                records: Vec::new(),
                downgrade: Some(Downgrade {
                    leaving: members.to_vec(),
                    joining: None,
                    rebalance: true,
                }),
            };
        }
        let records = self.remove_members(ctx, members);
        ConsumerGroup::done(response, records)
    }

    /// Takes members out, whatever remains: the group stays a consumer group.
    pub fn remove_members(&mut self, ctx: &Context<'_>, members: &[Str]) -> Vec<Record> {
        let mut records = Vec::new();
        for id in members {
            self.remove_member(id, &mut records);
        }
        let unused: Vec<Str> = self
            .state
            .regexes
            .keys()
            .filter(|regex| !self.state.regex_members.contains_key(*regex))
            .cloned()
            .collect();
        for regex in unused {
            self.emit(Change::Regex(regex, None), &mut records);
        }
        let hash = self.metadata_hash(ctx.topics);
        self.bump_epoch(hash, &mut records);
        records
    }

    /// In this order, so that a replay that ends in between has no member whose partitions nobody frees.
    pub(super) fn remove_member(&mut self, id: &Str, records: &mut Vec<Record>) {
        self.emit(Change::Current(id.clone(), None), records);
        self.emit(Change::Target(id.clone(), None), records);
        self.emit(Change::Member(id.clone(), None), records);
        self.forget(id);
    }

    fn may_downgrade(&self, ctx: &Context<'_>, leaving: &[Str]) -> bool {
        let classic = leaving
            .iter()
            .filter(|id| self.member(id).is_some_and(|m| m.is_classic()));
        let remaining = self.len().saturating_sub(leaving.len());
        remaining > 0
            && self.state.classic_members - classic.count() == remaining
            && ctx.config.consumer_migration_policy.downgrades()
            && remaining <= usize::try_from(ctx.config.max_size).unwrap_or(0)
    }
}
