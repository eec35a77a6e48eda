//! ConsumerGroupHeartbeat: how members join, stay, hear of their assignment, and leave (KIP-848).

use std::collections::BTreeSet;

use drumlin_wire::Str;
use drumlin_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest as Request;
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse as Response;

use super::assignment::{self, Owned, Reported, Target};
use super::group::{ConsumerGroup, TimerKind};
use super::member::{Current, JOIN_EPOCH, LEAVE_EPOCH, Member, MemberState, Metadata, STATIC_LEAVE_EPOCH};
use super::reconcile::{self, Goal};
use super::records::{Change, MAX_KEY_STRING, MAX_METADATA_BYTES};
use super::{Context, GroupError, Outcome, regex};
use crate::{Caller, ErrorCode, GroupConfig, Record};

/// The errors that a request has in itself, before any group is looked at.
pub fn validate(request: &Request, api_version: i16, config: &GroupConfig) -> Result<(), GroupError> {
    let invalid = |message: &str| Err(GroupError::new(ErrorCode::InvalidRequest, message));
    let epoch = request.member_epoch;
    // Version 0 lets the coordinator make the id of a member that joins.
    let named = api_version >= 1 || epoch > JOIN_EPOCH || epoch == LEAVE_EPOCH;
    if named && request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    let blank = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    if blank(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if blank(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    if request.group_id.len() > MAX_KEY_STRING || request.member_id.len() > MAX_KEY_STRING {
        return invalid("GroupId or MemberId is too long.");
    }
    match epoch {
        JOIN_EPOCH => {
            if request.rebalance_timeout_ms == -1 {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            if request
                .topic_partitions
                .as_ref()
                .is_none_or(|owned| !owned.is_empty())
            {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        }
        STATIC_LEAVE_EPOCH if request.instance_id.is_none() => {
            return invalid("InstanceId can't be null.");
        }
        ..STATIC_LEAVE_EPOCH => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    match &request.server_assignor {
        Some(wished) if !config.consumer_assignors.contains(wished) => {
            let supported: Vec<&str> = config.consumer_assignors.iter().map(Str::as_str).collect();
            Err(GroupError::new(
                ErrorCode::UnsupportedAssignor,
                format!(
                    "ServerAssignor {wished} is not supported. Supported assignors: {}.",
                    supported.join(", ")
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Who a request comes from: found before anything changes.
pub(super) enum Comer {
    /// A member that the group has.
    Known(Str),
    /// A new one.
    New(Str),
    /// A static member that takes the place of its earlier self.
    Replaces {
        /// The earlier member id.
        old: Str,
        /// The one from now on.
        new: Str,
    },
}

impl Comer {
    /// The member id from now on.
    pub fn id(&self) -> &Str {
        match self {
            Comer::Known(id) | Comer::New(id) | Comer::Replaces { new: id, .. } => id,
        }
    }

    /// The member id under which the group has it so far.
    pub fn known_as(&self) -> Option<&Str> {
        match self {
            Comer::Known(id) | Comer::Replaces { old: id, .. } => Some(id),
            Comer::New(_) => None,
        }
    }
}

impl ConsumerGroup {
    /// Serves a heartbeat, to which [`validate`] has no objection. A group for whom it is the first must be
    /// made before, for a member that joins (epoch 0); for any other the answer is GROUP_ID_NOT_FOUND.
    pub fn heartbeat(
        &mut self,
        ctx: &Context<'_>,
        caller: &Caller,
        request: &Request,
    ) -> Result<Outcome<Response>, GroupError> {
        match request.member_epoch {
            LEAVE_EPOCH | STATIC_LEAVE_EPOCH => self.heartbeat_leave(ctx, request),
            _ => self.heartbeat_stay(ctx, caller, request),
        }
    }

    fn heartbeat_stay(
        &mut self,
        ctx: &Context<'_>,
        caller: &Caller,
        request: &Request,
    ) -> Result<Outcome<Response>, GroupError> {
        // All refusals come first, so that an error leaves everything as it was.
        self.check_room(ctx, &request.member_id)?;
        let comer = self.comer(ctx, request)?;
        let known = comer.known_as().and_then(|id| self.state.members.get(id));
        let metadata = updated(known.map(|member| &member.metadata), caller, request);
        check_size(&metadata)?;
        self.check_regex(&metadata.regex)?;
        let reported = request.topic_partitions.as_deref();
        check_known_state(known, &comer, reported)?;
        let before: Owned = known
            .map(|member| member.current.assigned.clone())
            .unwrap_or_default();

        // Votes are counted only where the outcome decides: counting takes as long as the group is large.
        let nothing = Metadata::default();
        let old = known.map_or(&nothing, |member| &member.metadata);
        let same_subscription = old.topics == metadata.topics && old.regex == metadata.regex;
        let votes_again = same_subscription && old.assignor != metadata.assignor;
        let preferred = votes_again.then(|| self.preferred_assignor(ctx));

        let mut records = Vec::new();
        self.replace(&comer, &mut records);
        let id = comer.id().clone();
        let changed = self.set_member(&id, metadata, &mut records);
        // Another assignor is a reason for a new target assignment, as another subscription is (KAFKA-20434).
        let outvoted = preferred.is_some_and(|before| before != self.preferred_assignor(ctx));
        self.update_epoch(ctx, changed || outvoted, &mut records);
        self.update_target(ctx, &mut records);
        // A member says what it owns when that has changed. What it said before an earlier coordinator is
        // not known; but it says everything to a new one.
        let remembered = self.soft.reported.remove(&id);
        let owns = reported.or(remembered.as_deref());
        self.reconcile(ctx, &id, changed, owns, &mut records);
        self.start_session(ctx, &id, None);
        self.cancel_timer(TimerKind::Join, &id);
        self.cancel_timer(TimerKind::Sync, &id);

        let nothing = Current::default();
        let current = self
            .state
            .members
            .get(&id)
            .map_or(&nothing, |member| &member.current);
        let full = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
            && reported.is_some();
        let tell = request.member_epoch == JOIN_EPOCH || full || current.assigned != before;
        let response = Response {
            member_epoch: current.epoch,
            heartbeat_interval_ms: ctx
                .overrides
                .heartbeat_interval_ms
                .unwrap_or(ctx.config.consumer_heartbeat_interval_ms),
            assignment: tell.then(|| assignment::to_response(&current.assigned)),
            member_id: Some(id),
            ..Response::default()
        };
        Ok(ConsumerGroup::done(response, records))
    }

    /// GROUP_MAX_SIZE_REACHED for a member that the full group does not have.
    pub(super) fn check_room(&self, ctx: &Context<'_>, member_id: &str) -> Result<(), GroupError> {
        let max = ctx.config.consumer_max_size;
        let full = self.len() >= usize::try_from(max).unwrap_or(0);
        if full && !self.state.members.contains_key(member_id) {
            return Err(GroupError::new(
                ErrorCode::GroupMaxSizeReached,
                format!("The consumer group has reached its maximum capacity of {max} members."),
            ));
        }
        Ok(())
    }

    fn comer(&self, ctx: &Context<'_>, request: &Request) -> Result<Comer, GroupError> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let id = match request.member_id.is_empty() {
            true => ctx.fresh_id.detach(),
            false => request.member_id.detach(),
        };
        let comer = match &request.instance_id {
            None => self.dynamic_comer(id, joins)?,
            Some(instance) if joins => self.static_joiner(id, instance, false)?,
            Some(instance) => Comer::Known(self.static_comer(&id, instance)?),
        };
        if let Comer::Known(id) = &comer
            && let Some(member) = self.state.members.get(id)
        {
            check_epoch(&member.current, request)?;
        }
        Ok(comer)
    }

    pub(super) fn dynamic_comer(&self, id: Str, joins: bool) -> Result<Comer, GroupError> {
        match self.state.members.contains_key(&id) {
            true => Ok(Comer::Known(id)),
            false if joins => Ok(Comer::New(id)),
            false => Err(self.unknown_member(&id)),
        }
    }

    /// A static member joins: as a new one, or in the place of its earlier self, if that has left for a while
    /// or either of them speaks the classic protocol (then the newer one wins, as it does there). The same
    /// member that joins again, having been fenced, is still itself.
    pub(super) fn static_joiner(
        &self,
        id: Str,
        instance: &str,
        is_classic: bool,
    ) -> Result<Comer, GroupError> {
        let Some(old) = self.state.statics.get(instance) else {
            return self.dynamic_comer(id, true);
        };
        if *old == id {
            return Ok(Comer::Known(id));
        }
        let member = self.state.members.get(old);
        let released = member.is_none_or(|m| m.is_classic() || m.current.epoch == STATIC_LEAVE_EPOCH);
        if !is_classic && !released {
            return Err(GroupError::new(
                ErrorCode::UnreleasedInstanceId,
                format!(
                    "Static member {id} with instance id {instance} cannot join the group because the \
                     instance id is owned by {old} member."
                ),
            ));
        }
        Ok(Comer::Replaces {
            old: old.clone(),
            new: id,
        })
    }

    /// The member id of a static member that the group has, if it is the one that asks.
    pub(super) fn static_comer(&self, id: &str, instance: &str) -> Result<Str, GroupError> {
        match self.state.statics.get(instance) {
            None => Err(GroupError::new(
                ErrorCode::UnknownMemberId,
                format!("Instance id {instance} is unknown."),
            )),
            Some(owner) if *owner != *id => Err(GroupError::new(
                ErrorCode::FencedInstanceId,
                format!("Static member {id} with instance id {instance} was fenced by member {owner}."),
            )),
            Some(owner) => Ok(owner.clone()),
        }
    }

    pub(super) fn unknown_member(&self, id: &str) -> GroupError {
        GroupError::new(
            ErrorCode::UnknownMemberId,
            format!("Member {id} is not a member of group {}.", self.id),
        )
    }

    /// An expression that some member has is known to be one.
    pub(super) fn check_regex(&self, expression: &Str) -> Result<(), GroupError> {
        if expression.is_empty() || self.state.regex_members.contains_key(expression) {
            return Ok(());
        }
        regex::compile(expression).map(|_| ()).map_err(|reason| {
            GroupError::new(
                ErrorCode::InvalidRegularExpression,
                format!("SubscribedTopicRegex `{expression}` is not a valid regular expression: {reason}."),
            )
        })
    }

    /// Moves everything that the group has of a static member to its new id, at epoch 0. The order of
    /// records matters: the partitions are free before they are taken.
    pub(super) fn replace(&mut self, comer: &Comer, records: &mut Vec<Record>) {
        let Comer::Replaces { old, new } = comer else {
            return;
        };
        let Some(member) = self.state.members.get(old).cloned() else {
            return;
        };
        let target = self.state.targets.get(old).cloned().unwrap_or_default();
        self.remove_member(old, records);
        self.emit(Change::Member(new.clone(), Some(member.metadata)), records);
        self.emit(Change::Target(new.clone(), Some(target)), records);
        let current = Current {
            epoch: JOIN_EPOCH,
            previous_epoch: JOIN_EPOCH,
            ..member.current
        };
        self.emit(Change::Current(new.clone(), Some(current)), records);
        tracing::info!(group = %self.id, member = %new, replaces = %old, "static member is back");
    }

    /// Writes what a member says of itself, if that is new. Whether its subscription is.
    pub(super) fn set_member(&mut self, id: &Str, metadata: Metadata, records: &mut Vec<Record>) -> bool {
        let old = self.state.members.get(id).map(|member| &member.metadata);
        if old == Some(&metadata) {
            return false;
        }
        let nothing = Metadata::default();
        let before = old.unwrap_or(&nothing);
        let changed = before.topics != metadata.topics || before.regex != metadata.regex;
        self.emit(Change::Member(id.clone(), Some(metadata)), records);
        changed
    }

    /// Starts a new epoch if a subscription or the assignor changed, an expression matches other topics, or the subscribed
    /// topics are not what they were at the last one.
    pub(super) fn update_epoch(&mut self, ctx: &Context<'_>, changed: bool, records: &mut Vec<Record>) {
        let regexes_changed = self.update_regexes(ctx, records);
        // A group must leave epoch 0, even if its first member is subscribed to nothing.
        let bump = changed || regexes_changed || self.state.epoch.epoch == 0;
        let version = ctx.topics.version();
        if !bump && self.soft.compared == Some(version) {
            return;
        }
        let hash = self.metadata_hash(ctx.topics);
        if bump || hash != self.state.epoch.metadata_hash {
            self.bump_epoch(hash, records);
        }
        if self.state.partition_metadata {
            self.emit(Change::PartitionMetadata(false), records);
        }
        self.soft.compared = Some(version);
    }

    /// Takes a member one step towards its target.
    pub(super) fn reconcile(
        &mut self,
        ctx: &Context<'_>,
        id: &Str,
        subscription_changed: bool,
        reported: Option<&Reported>,
        records: &mut Vec<Record>,
    ) {
        let state = &self.state;
        let Some(member) = state.members.get(id) else {
            return;
        };
        let nothing = Target::new();
        let subscribed = |topic| {
            ctx.topics
                .by_id(topic)
                .is_some_and(|view| state.subscribes(&member.metadata, &view.name))
        };
        let is_taken = |topic, partition| state.is_taken(topic, partition);
        let goal = Goal {
            epoch: state.assignment.epoch,
            target: state.targets.get(id).unwrap_or(&nothing),
            subscribed: &subscribed,
            subscription_changed,
            reported,
            is_taken: &is_taken,
        };
        if let Some(next) = reconcile::step(&member.current, &goal) {
            tracing::debug!(group = %self.id, member = %id, epoch = next.epoch, state = ?next.state, "reconciled");
            self.emit(Change::Current(id.clone(), Some(next)), records);
            self.time_revocation(ctx, id);
        }
        let current = self.member(id).map(|member| &member.current);
        let revoking = current.filter(|current| current.state == MemberState::UnrevokedPartitions);
        match (revoking, reported) {
            (Some(current), Some(reported)) => {
                // Who has given up all that it has to waits for the group's next assignment: no delay of its own.
                if !assignment::reports_any(reported, &current.revoking) {
                    self.cancel_timer(TimerKind::Rebalance, id);
                }
                self.soft.reported.insert(id.clone(), reported.to_vec());
            }
            (Some(_), None) => {}
            (None, _) => {
                self.soft.reported.remove(id);
            }
        }
    }
}

/// A member may come with the epoch before its own if it owns nothing but what it has now: the answer that
/// told it the new one was lost.
fn check_epoch(current: &Current, request: &Request) -> Result<(), GroupError> {
    let received = request.member_epoch;
    if received == JOIN_EPOCH || received == current.epoch {
        return Ok(());
    }
    let reported = request.topic_partitions.as_deref();
    let behind = received < current.epoch
        && received == current.previous_epoch
        && reported.is_some_and(|owned| assignment::reports_only(owned, &current.assigned));
    if behind {
        return Ok(());
    }
    let than = if received > current.epoch {
        "greater"
    } else {
        "smaller"
    };
    Err(GroupError::new(
        ErrorCode::FencedMemberEpoch,
        format!(
            "The consumer group member has a {than} member epoch ({received}) than the one known by the \
             group coordinator ({}). The member must abandon all its partitions and rejoin.",
            current.epoch
        ),
    ))
}

/// Kafka's answer too to what is too much for one record.
pub(super) fn check_size(metadata: &Metadata) -> Result<(), GroupError> {
    if metadata.size() <= MAX_METADATA_BYTES {
        return Ok(());
    }
    Err(GroupError::new(
        ErrorCode::UnknownServerError,
        format!("The subscription takes more than {MAX_METADATA_BYTES} bytes."),
    ))
}

/// A member whose state a newer coordinator has written can only start from nothing.
fn check_known_state(
    member: Option<&Member>,
    comer: &Comer,
    reported: Option<&Reported>,
) -> Result<(), GroupError> {
    let unknown = member.is_some_and(|member| member.current.state == MemberState::Unknown);
    let owns = reported.is_none_or(|owned| !owned.is_empty());
    if unknown && owns && matches!(comer, Comer::Known(_)) {
        return Err(GroupError::new(
            ErrorCode::FencedMemberEpoch,
            "The consumer group member is in a unknown state. The member must abandon all its partitions \
             and rejoin.",
        ));
    }
    Ok(())
}

/// What a member says of itself from now on: what it does not say stays.
fn updated(old: Option<&Metadata>, caller: &Caller, request: &Request) -> Metadata {
    let mut metadata = old.cloned().unwrap_or_default();
    let set = |field: &mut Option<Str>, value: &Option<Str>| {
        if let Some(value) = value {
            *field = Some(value.detach());
        }
    };
    set(&mut metadata.instance_id, &request.instance_id);
    set(&mut metadata.rack_id, &request.rack_id);
    set(&mut metadata.assignor, &request.server_assignor);
    if request.rebalance_timeout_ms != -1 {
        metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topics) = &request.subscribed_topic_names {
        metadata.topics = topics.iter().map(Str::detach).collect::<BTreeSet<Str>>();
    }
    if let Some(regex) = &request.subscribed_topic_regex {
        metadata.regex = regex.detach();
    }
    metadata.client_id = caller.client_id.detach();
    metadata.client_host = caller.client_host.detach();
    metadata.classic = None;
    metadata
}
