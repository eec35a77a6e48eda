//! Requests to consumer groups (KIP-848), of members of either protocol, and the changes of protocol that
//! they bring about.

use drumlin_wire::Str;
use drumlin_wire::messages::consumer_group_describe_response::DescribedGroup;
use drumlin_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use drumlin_wire::messages::join_group_request::JoinGroupRequest;
use drumlin_wire::messages::leave_group_response::MemberResponse;
use drumlin_wire::{Uuid, messages};

use crate::classic::{Join, join_failed, sync_failed};
use crate::consumer::{ConsumerGroup, Context, Downgrade, GroupError, JOIN_EPOCH, Outcome, validate};
use crate::context::{Cx, Timer};
use crate::group::Group;
use crate::{Caller, ErrorCode, GroupRequest, GroupResponse, Now, Record, Shard, Step, Topics, convert};

/// Has a consumer group do something, with all that it needs, and notes its timers.
pub(crate) fn with_consumer<T>(
    id: &Str,
    group: &mut ConsumerGroup,
    topics: &dyn Topics,
    cx: &mut Cx<'_>,
    act: impl FnOnce(&mut ConsumerGroup, &Context<'_>) -> T,
) -> T {
    let overrides = topics.group_overrides(id);
    let fresh_id = Str::from(Uuid(cx.ids.uuid()).to_string());
    let may_describe = |topic: &str| topics.may_describe(topic);
    let ctx = Context {
        now: cx.now,
        topics,
        config: cx.config,
        overrides: &overrides,
        fresh_id: &fresh_id,
        may_describe: &may_describe,
    };
    let (before, epoch) = (group.rebalances(), group.epoch());
    let done = act(group, &ctx);
    if group.epoch() != epoch {
        cx.epoch_times.insert(id.detach(), cx.now.wall_ms);
    }
    cx.counters.consumer_rebalances += group.rebalances().saturating_sub(before);
    match group.next_deadline() {
        Some(at) => cx.timers.set(Timer::Consumer(id.detach()), at),
        None => {
            cx.timers.cancel(&Timer::Consumer(id.clone()));
        }
    }
    done
}

/// A consumer group is no more: what is kept beside it goes too.
pub(crate) fn end_consumer(id: &Str, cx: &mut Cx<'_>) {
    cx.timers.cancel(&Timer::Consumer(id.clone()));
    cx.epoch_times.remove(id);
}

impl Shard {
    /// Serves what concerns a consumer group, or would make one.
    pub(super) fn serve_consumer(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        token: u64,
        caller: &Caller,
        request: GroupRequest,
        step: &mut Step,
    ) {
        match &request {
            GroupRequest::ConsumerGroupHeartbeat(beat) => {
                let body = self
                    .consumer_heartbeat(now, topics, caller, beat, step)
                    .unwrap_or_else(|error| error.heartbeat());
                step.reply(token, GroupResponse::ConsumerGroupHeartbeat(body));
            }
            GroupRequest::ConsumerGroupDescribe { group_id } => {
                let body = self.consumer_describe(now, topics, group_id);
                step.reply(token, GroupResponse::ConsumerGroupDescribe(body));
            }
            GroupRequest::JoinGroup(join) => self.mixed_join(now, topics, token, caller, join, step),
            GroupRequest::SyncGroup(sync) => {
                let answer = self.ask(now, topics, &sync.group_id, step, |group, ctx| {
                    group.classic_sync(ctx, sync)
                });
                let body = match answer {
                    Ok(body) => GroupResponse::SyncGroup(body),
                    Err(error) => sync_failed(error.code),
                };
                step.reply(token, body);
            }
            GroupRequest::Heartbeat(beat) => {
                let answer = self.ask(now, topics, &beat.group_id, step, |group, ctx| {
                    let mut outcome = group.classic_heartbeat(ctx, beat)?;
                    if outcome.response.error_code == 0 && needs_a_join(group) {
                        outcome.response.error_code = ErrorCode::RebalanceInProgress.code();
                    }
                    Ok(outcome)
                });
                let body = answer.unwrap_or_else(|error| messages::heartbeat_response::HeartbeatResponse {
                    error_code: error.code.code(),
                    ..Default::default()
                });
                step.reply(token, GroupResponse::Heartbeat(body));
            }
            GroupRequest::LeaveGroup(leave) => {
                let answer = self.ask(now, topics, &leave.group_id, step, |group, ctx| {
                    Ok(group.classic_leave(ctx, leave))
                });
                // No group, no member.
                let unknown = || messages::leave_group_response::LeaveGroupResponse {
                    members: leave.members.iter().map(unknown_member).collect(),
                    ..Default::default()
                };
                let body = answer.unwrap_or_else(|_| unknown());
                step.reply(token, GroupResponse::LeaveGroup(body));
            }
            GroupRequest::OffsetCommit(_)
            | GroupRequest::OffsetFetch { .. }
            | GroupRequest::OffsetDelete(_)
            | GroupRequest::DescribeGroup { .. }
            | GroupRequest::ListGroups(_)
            | GroupRequest::DeleteGroup { .. } => {
                step.reply(token, request.failed(ErrorCode::UnknownServerError));
            }
        }
    }

    /// Asks the consumer group of this id, and does what comes of it.
    fn ask<T>(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        id: &Str,
        step: &mut Step,
        act: impl FnOnce(&mut ConsumerGroup, &Context<'_>) -> Result<Outcome<T>, GroupError>,
    ) -> Result<T, GroupError> {
        let (groups, mut cx) = self.parts(now, step);
        let Some(Group::Consumer(group)) = groups.get_mut(id) else {
            return Err(not_a_consumer_group(id));
        };
        let outcome = with_consumer(id, group, topics, &mut cx, act)?;
        step.records.extend(outcome.records);
        if let Some(downgrade) = outcome.downgrade {
            self.downgrade(now, topics, id, &downgrade, step);
        }
        Ok(outcome.response)
    }

    /// Timers of a consumer group's members are due.
    pub(crate) fn consumer_due(&mut self, now: Now, topics: &dyn Topics, id: &Str, step: &mut Step) {
        let done = self.ask(now, topics, id, step, |group, ctx| Ok(group.expire(ctx)));
        if done.is_err() {
            tracing::debug!(group = %id, "a timer of a consumer group that is gone");
        }
    }

    fn consumer_heartbeat(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        step: &mut Step,
    ) -> Result<ConsumerGroupHeartbeatResponse, GroupError> {
        if !self.config.consumer_protocol {
            return Err(GroupError::new(
                ErrorCode::UnsupportedVersion,
                "The consumer group protocol is not enabled on this broker.",
            ));
        }
        validate(request, caller.api_version, &self.config)?;
        let id = &request.group_id;
        let (groups, mut cx) = self.parts(now, step);
        let (mut made, mut records) = match groups.get_mut(id) {
            Some(Group::Consumer(_)) => {
                return self.ask(now, topics, id, step, |group, ctx| {
                    group.heartbeat(ctx, caller, request)
                });
            }
            Some(Group::Classic(_)) if request.member_epoch != JOIN_EPOCH => {
                return Err(not_a_consumer_group(id));
            }
            None if request.member_epoch != JOIN_EPOCH => {
                return Err(GroupError::new(
                    ErrorCode::GroupIdNotFound,
                    format!("Consumer group {id} not found."),
                ));
            }
            None => (ConsumerGroup::new(id.clone()), Vec::new()),
            Some(Group::Classic(classic)) => {
                let tombstone: Vec<Record> = classic.tombstone().into_iter().collect();
                if classic.is_without_members() {
                    (ConsumerGroup::new(id.clone()), tombstone)
                } else {
                    let mut blank = ConsumerGroup::new(id.clone());
                    let made = with_consumer(id, &mut blank, topics, &mut cx, |_, ctx| {
                        convert::upgrade(classic, id, ctx)
                    });
                    let (group, written) = made?;
                    (group, tombstone.into_iter().chain(written).collect())
                }
            }
        };
        // Until here, and if this fails, everything is as it was.
        let outcome = with_consumer(id, &mut made, topics, &mut cx, |group, ctx| {
            group.heartbeat(ctx, caller, request)
        });
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                end_consumer(id, &mut cx);
                return Err(error);
            }
        };
        records.extend(outcome.records);
        // A group that was made is in a new epoch, whatever it began with.
        cx.epoch_times.insert(id.detach(), cx.now.wall_ms);
        let before = groups.insert(id.detach(), Group::Consumer(made));
        if let Some(Group::Classic(classic)) = before {
            convert::end_classic(classic, &mut cx);
        }
        cx.step.records.append(&mut records);
        Ok(outcome.response)
    }

    fn consumer_describe(&mut self, now: Now, topics: &dyn Topics, id: &Str) -> DescribedGroup {
        let mut unused = Step::default();
        let (groups, mut cx) = self.parts(now, &mut unused);
        let message = match groups.get_mut(id) {
            Some(Group::Consumer(group)) => {
                return with_consumer(id, group, topics, &mut cx, |group, ctx| group.describe(ctx));
            }
            Some(Group::Classic(_)) => format!("Group {id} is not a consumer group."),
            None => format!("Group {id} not found."),
        };
        DescribedGroup {
            error_code: ErrorCode::GroupIdNotFound.code(),
            error_message: Some(Str::from(message)),
            group_id: id.clone(),
            ..DescribedGroup::default()
        }
    }

    /// A JoinGroup to a consumer group: an empty one becomes a classic group again.
    fn mixed_join(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        token: u64,
        caller: &Caller,
        request: &JoinGroupRequest,
        step: &mut Step,
    ) {
        let id = &request.group_id;
        if let Some(Group::Consumer(group)) = self.groups.get(id)
            && group.is_empty()
        {
            if !request.member_id.is_empty() {
                let error = join_failed(ErrorCode::UnknownMemberId, request.member_id.clone());
                return step.reply_now(token, error);
            }
            let ending = group.tombstones();
            let join = Join {
                token,
                caller,
                request,
            };
            return self.join_new_group(now, &join, ending, step);
        }
        let answer = self.ask(now, topics, id, step, |group, ctx| {
            group.classic_join(ctx, caller, request)
        });
        let body = match answer {
            Ok(body) => GroupResponse::JoinGroup(body),
            Err(error) => join_failed(error.code, request.member_id.clone()),
        };
        step.reply(token, body);
    }

    /// A consumer group of members of the classic protocol only becomes a classic group.
    fn downgrade(&mut self, now: Now, topics: &dyn Topics, id: &Str, downgrade: &Downgrade, step: &mut Step) {
        let (groups, mut cx) = self.parts(now, step);
        let Some(Group::Consumer(group)) = groups.get_mut(id) else {
            return;
        };
        let Some(classic) = convert::downgrade(group, downgrade, topics, &mut cx) else {
            // They have no assignor in common, and cannot be a classic group.
            let records = with_consumer(id, group, topics, &mut cx, |group, ctx| {
                if let Some(joining) = &downgrade.joining {
                    group.stay(ctx, joining);
                }
                match downgrade.leaving.is_empty() {
                    true => Vec::new(),
                    false => group.remove_members(ctx, &downgrade.leaving),
                }
            });
            return step.records.extend(records);
        };
        cx.step.records.extend(group.tombstones());
        end_consumer(id, &mut cx);
        let classic = convert::start_classic(classic, downgrade.rebalance, &mut cx);
        groups.insert(id.detach(), classic);
    }
}

/// Whether the group waits for a target assignment that nobody will bring about: members of the consumer
/// protocol do so with any heartbeat, those of the classic protocol only when they join. Kafka leaves the
/// partitions of a member that has left to nobody here, where the group may not become a classic one.
fn needs_a_join(group: &ConsumerGroup) -> bool {
    group.epoch() > group.assignment_epoch() && group.members().all(|(_, member)| member.is_classic())
}

fn not_a_consumer_group(id: &Str) -> GroupError {
    GroupError::new(
        ErrorCode::GroupIdNotFound,
        format!("Group {id} is not a consumer group."),
    )
}

fn unknown_member(member: &messages::leave_group_request::MemberIdentity) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: ErrorCode::UnknownMemberId.code(),
        ..MemberResponse::default()
    }
}
