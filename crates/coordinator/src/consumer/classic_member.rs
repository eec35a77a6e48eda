//! Members that speak the classic protocol in a consumer group: the online upgrade (KIP-848).
//!
//! JoinGroup is their heartbeat that takes them one step towards their target, SyncGroup hands out what they
//! own then, and Heartbeat tells them by REBALANCE_IN_PROGRESS to join again. Nobody leads; the generation is
//! the member epoch.

use std::collections::BTreeSet;

use bytes::Bytes;
use drumlin_wire::Str;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::heartbeat_response::HeartbeatResponse;
use drumlin_wire::messages::join_group_request::JoinGroupRequest;
use drumlin_wire::messages::join_group_response::JoinGroupResponse;
use drumlin_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use drumlin_wire::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use drumlin_wire::messages::sync_group_request::SyncGroupRequest;
use drumlin_wire::messages::sync_group_response::SyncGroupResponse;

use super::assignment::Target;
use super::embedded::{PROTOCOL_TYPE, Subscription, malformed, read_subscription, write_assignment};
use super::group::{ConsumerGroup, TimerKind};
use super::heartbeat::{Comer, check_size};
use super::member::{ClassicMember, Member, MemberState, Metadata};
use super::records::MAX_KEY_STRING;
use super::{Context, Downgrade, GroupError, Outcome};
use crate::classic::Protocol;
use crate::{Caller, ErrorCode, MigrationPolicy};

/// Kafka asks a dynamic member to come back with the id it is given from this version of JoinGroup on
/// (KIP-394).
const KNOWN_ID_FROM: i16 = 4;

impl ConsumerGroup {
    /// Serves a JoinGroup. What every JoinGroup is checked for (group id, session timeout, protocols that
    /// are not empty) was checked before.
    pub fn classic_join(
        &mut self,
        ctx: &Context<'_>,
        caller: &Caller,
        request: &JoinGroupRequest,
    ) -> Result<Outcome<JoinGroupResponse>, GroupError> {
        if ctx.config.consumer_migration_policy == MigrationPolicy::Disabled {
            return Err(GroupError::new(
                ErrorCode::InconsistentGroupProtocol,
                format!(
                    "Cannot join the consumer group {} with the classic protocol because the group migration \
                     is disabled.",
                    self.id
                ),
            ));
        }
        let unnamed = request.member_id.is_empty();
        let id = if unnamed { ctx.fresh_id } else { &request.member_id }.detach();
        if id.len() > MAX_KEY_STRING || self.id.len() > MAX_KEY_STRING {
            return Err(GroupError::new(
                ErrorCode::InvalidRequest,
                "GroupId or MemberId is too long.",
            ));
        }
        self.check_room(ctx, &id)?;
        self.check_protocols(&id, request)?;
        if unnamed && request.group_instance_id.is_none() && caller.api_version >= KNOWN_ID_FROM {
            let response = JoinGroupResponse {
                error_code: ErrorCode::MemberIdRequired.code(),
                protocol_name: None,
                member_id: id,
                ..JoinGroupResponse::default()
            };
            return Ok(ConsumerGroup::done(response, Vec::new()));
        }
        let comer = match &request.group_instance_id {
            None => self.dynamic_comer(id, true)?,
            Some(instance) if unnamed => self.static_joiner(id, instance, true)?,
            Some(instance) => Comer::Known(self.static_comer(&id, instance)?),
        };
        let first = request.protocols.first();
        let subscription = first
            .and_then(|protocol| read_subscription(&protocol.metadata, ctx.topics))
            .ok_or_else(|| malformed("subscription"))?;
        // Kafka lets it in, since it cannot know the ids that it has handed out. But one that owns partitions
        // was a member once, was fenced, and does not know: they may be others' by now. Told so, it lets go.
        if matches!(comer, Comer::New(_)) && !unnamed && !subscription.owned.is_empty() {
            return Err(self.unknown_member(comer.id()));
        }
        let known = comer.known_as().and_then(|id| self.state.members.get(id));
        let metadata = joined(
            known.map(|member| &member.metadata),
            caller,
            request,
            &subscription,
        );
        check_size(&metadata)?;
        Ok(self.classic_joined(ctx, request, &comer, &subscription, metadata))
    }

    fn classic_joined(
        &mut self,
        ctx: &Context<'_>,
        request: &JoinGroupRequest,
        comer: &Comer,
        subscription: &Subscription,
        metadata: Metadata,
    ) -> Outcome<JoinGroupResponse> {
        let id = comer.id().clone();
        let known = comer.known_as().and_then(|id| self.state.members.get(id));
        let downgrades = request.group_instance_id.is_some()
            && known.is_some_and(|replaced| self.downgrades_without(ctx, replaced));

        let mut records = Vec::new();
        self.replace(comer, &mut records);
        let changed = self.set_member(&id, metadata, &mut records);
        self.update_epoch(ctx, changed, &mut records);
        let rebalance = self.state.assignment.epoch < self.state.epoch.epoch;
        if !downgrades {
            self.update_target(ctx, &mut records);
        }
        if !downgrades || !rebalance {
            self.reconcile(ctx, &id, changed, Some(&subscription.owned), &mut records);
        }
        self.cancel_timer(TimerKind::Join, &id);
        if !downgrades {
            self.start_session(ctx, &id, Some(request.session_timeout_ms));
            self.set_timer(ctx, TimerKind::Sync, &id, rebalance_timeout(request));
        }
        let member = self.state.members.get(&id);
        let response = JoinGroupResponse {
            generation_id: member.map_or(0, |member| member.current.epoch),
            protocol_type: Some(Str::from_static(PROTOCOL_TYPE)),
            protocol_name: request.protocols.first().map(|protocol| protocol.name.detach()),
            member_id: id.clone(),
            ..JoinGroupResponse::default()
        };
        Outcome {
            response,
            records,
            downgrade: downgrades.then(|| Downgrade {
                leaving: Vec::new(),
                joining: Some(id),
                rebalance,
            }),
        }
    }

    /// Starts what [`ConsumerGroup::classic_join`] has left to the classic group that did not come about: nobody may
    /// be a member without a session.
    pub fn stay(&mut self, ctx: &Context<'_>, id: &Str) {
        let Some(member) = self.state.members.get(id) else {
            return;
        };
        let timeout = member.metadata.rebalance_timeout_ms;
        let session = member.metadata.classic.as_ref().map(|c| c.session_timeout_ms);
        self.start_session(ctx, id, session);
        self.set_timer(ctx, TimerKind::Sync, id, timeout);
    }

    /// INCONSISTENT_GROUP_PROTOCOL unless some assignor of the member is one that all classic members have.
    fn check_protocols(&self, id: &str, request: &JoinGroupRequest) -> Result<(), GroupError> {
        let requested = request.protocols.iter();
        let mut shared: BTreeSet<&Str> = requested.map(|protocol| &protocol.name).collect();
        let members = self.state.members.values();
        for classic in members.filter_map(|member| member.metadata.classic.as_ref()) {
            let names = classic.protocols.iter().map(|(name, _)| name);
            shared = names.filter(|name| shared.contains(name)).collect();
        }
        if request.protocol_type == *PROTOCOL_TYPE && !shared.is_empty() {
            return Ok(());
        }
        Err(GroupError::new(
            ErrorCode::InconsistentGroupProtocol,
            format!("Member {id}'s protocols are not supported."),
        ))
    }

    /// Whether only classic members are left once a classic one has taken this member's place.
    fn downgrades_without(&self, ctx: &Context<'_>, replaced: &Member) -> bool {
        !replaced.is_classic()
            && self.state.classic_members == self.len() - 1
            && ctx.config.consumer_migration_policy.downgrades()
            && self.len() <= usize::try_from(ctx.config.max_size).unwrap_or(0)
    }

    /// Serves a SyncGroup: the assignment that the last JoinGroup came to.
    pub fn classic_sync(
        &mut self,
        ctx: &Context<'_>,
        request: &SyncGroupRequest,
    ) -> Result<Outcome<SyncGroupResponse>, GroupError> {
        let instance = request.group_instance_id.as_ref();
        let (id, member) = self.classic_member(&request.member_id, instance)?;
        let (member, classic) = classic_part(&id, member)?;
        check_generation(&id, member, request.generation_id)?;
        let first = classic.protocols.first();
        check_protocol(&id, request, first.map(|(name, _)| name))?;
        let timeout = classic.session_timeout_ms;
        let assigned = &member.current.assigned;
        let target: Target = assigned
            .iter()
            .map(|(topic, partitions)| (*topic, partitions.keys().copied().collect()))
            .collect();
        let version = first
            .and_then(|(_, metadata)| metadata.first_chunk().map(|head| i16::from_be_bytes(*head)))
            .ok_or_else(|| malformed("version"))?;
        let assignment: Bytes = write_assignment(&target, version, ctx.topics);

        let behind = self.state.assignment.epoch > member.current.epoch;
        if behind && member.current.state != MemberState::UnrevokedPartitions {
            self.expect_join(ctx, &id);
            return Err(GroupError::new(
                ErrorCode::RebalanceInProgress,
                format!(
                    "A new rebalance is triggered in group {} and member {id} should rejoin to catch up.",
                    self.id
                ),
            ));
        }
        self.cancel_timer(TimerKind::Sync, &id);
        self.start_session(ctx, &id, Some(timeout));
        let response = SyncGroupResponse {
            protocol_type: request.protocol_type.as_ref().map(Str::detach),
            protocol_name: request.protocol_name.as_ref().map(Str::detach),
            assignment,
            ..SyncGroupResponse::default()
        };
        Ok(ConsumerGroup::done(response, Vec::new()))
    }

    /// Serves a Heartbeat of the classic protocol.
    pub fn classic_heartbeat(
        &mut self,
        ctx: &Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<Outcome<HeartbeatResponse>, GroupError> {
        let instance = request.group_instance_id.as_ref();
        let (id, member) = self.classic_member(&request.member_id, instance)?;
        let (member, classic) = classic_part(&id, member)?;
        check_generation(&id, member, request.generation_id)?;
        let timeout = classic.session_timeout_ms;
        let current = &member.current;
        let must_join = current.epoch < self.state.assignment.epoch
            || current.state == MemberState::UnrevokedPartitions
            || (current.state == MemberState::UnreleasedPartitions && !self.waits_for_others(&id, member));
        self.start_session(ctx, &id, Some(timeout));
        let mut response = HeartbeatResponse::default();
        if must_join {
            self.expect_join(ctx, &id);
            response.error_code = ErrorCode::RebalanceInProgress.code();
        }
        Ok(ConsumerGroup::done(response, Vec::new()))
    }

    /// Serves a LeaveGroup, of classic members and of others. Version 0 to 2 name the member at the top.
    pub fn classic_leave(
        &mut self,
        ctx: &Context<'_>,
        request: &LeaveGroupRequest,
    ) -> Outcome<LeaveGroupResponse> {
        let mut leaving: BTreeSet<Str> = BTreeSet::new();
        let mut members = Vec::with_capacity(request.members.len());
        for identity in &request.members {
            let found = self.leaver(identity);
            members.push(MemberResponse {
                member_id: identity.member_id.detach(),
                group_instance_id: identity.group_instance_id.as_ref().map(Str::detach),
                error_code: found.as_ref().err().map_or(0, |error| error.code.code()),
                ..MemberResponse::default()
            });
            leaving.extend(found);
        }
        let response = LeaveGroupResponse {
            members,
            ..LeaveGroupResponse::default()
        };
        let leaving: Vec<Str> = leaving.into_iter().collect();
        self.fence(ctx, &leaving, response)
    }

    fn leaver(&self, identity: &MemberIdentity) -> Result<Str, GroupError> {
        match &identity.group_instance_id {
            None if self.state.members.contains_key(&identity.member_id) => Ok(identity.member_id.detach()),
            None => Err(self.unknown_member(&identity.member_id)),
            // An administrator names the instance alone.
            Some(instance) if identity.member_id.is_empty() => self
                .static_member(instance)
                .cloned()
                .ok_or_else(|| self.unknown_member(instance)),
            Some(instance) => self.static_comer(&identity.member_id, instance),
        }
    }

    fn classic_member(&self, id: &Str, instance: Option<&Str>) -> Result<(Str, &Member), GroupError> {
        let id = match instance {
            Some(instance) => self.static_comer(id, instance)?,
            None => id.detach(),
        };
        match self.state.members.get(&id) {
            Some(member) => Ok((id, member)),
            None => Err(self.unknown_member(&id)),
        }
    }

    /// From the first time that it is told to, a member has its rebalance timeout to join again.
    fn expect_join(&mut self, ctx: &Context<'_>, id: &Str) {
        if self.deadline(TimerKind::Join, id).is_none() {
            let timeout = self
                .member(id)
                .map_or(0, |member| member.metadata.rebalance_timeout_ms);
            self.set_timer(ctx, TimerKind::Join, id, timeout);
        }
    }

    /// Whether any partition of a member's target is another's still.
    fn waits_for_others(&self, id: &str, member: &Member) -> bool {
        let target = self.state.targets.get(id).into_iter().flatten();
        let mut missing = target.flat_map(|(topic, partitions)| {
            let owned = member.current.assigned.get(topic);
            let missing = move |p: &&i32| owned.is_none_or(|owned| !owned.contains_key(*p));
            partitions.iter().filter(missing).map(|p| (*topic, *p))
        });
        missing.any(|(topic, partition)| self.state.is_taken(topic, partition))
    }
}

/// Version 0 of JoinGroup has no rebalance timeout: the session's stands for it.
fn rebalance_timeout(request: &JoinGroupRequest) -> i32 {
    match request.rebalance_timeout_ms {
        -1 => request.session_timeout_ms,
        timeout => timeout,
    }
}

/// What a classic member says of itself from now on.
fn joined(
    old: Option<&Metadata>,
    caller: &Caller,
    request: &JoinGroupRequest,
    subscription: &Subscription,
) -> Metadata {
    let mut metadata = old.cloned().unwrap_or_default();
    if let Some(instance) = &request.group_instance_id {
        metadata.instance_id = Some(instance.detach());
    }
    if let Some(rack) = &subscription.rack {
        metadata.rack_id = Some(rack.detach());
    }
    metadata.rebalance_timeout_ms = rebalance_timeout(request);
    metadata.topics = subscription.topics.iter().map(Str::detach).collect();
    // Its client resolves its expressions itself.
    metadata.regex = Str::EMPTY;
    metadata.client_id = caller.client_id.detach();
    metadata.client_host = caller.client_host.detach();
    // Each once: a name counts for one vote if the group becomes a classic one.
    let protocols = Protocol::list(&request.protocols).into_iter();
    metadata.classic = Some(ClassicMember {
        session_timeout_ms: request.session_timeout_ms,
        protocols: protocols
            .map(|protocol| (protocol.name, protocol.metadata))
            .collect(),
    });
    metadata
}

fn classic_part<'a>(id: &str, member: &'a Member) -> Result<(&'a Member, &'a ClassicMember), GroupError> {
    match &member.metadata.classic {
        Some(classic) => Ok((member, classic)),
        None => Err(GroupError::new(
            ErrorCode::UnknownMemberId,
            format!("Member {id} does not use the classic protocol."),
        )),
    }
}

fn check_generation(id: &str, member: &Member, generation: i32) -> Result<(), GroupError> {
    let epoch = member.current.epoch;
    if epoch == generation {
        return Ok(());
    }
    Err(GroupError::new(
        ErrorCode::IllegalGeneration,
        format!(
            "The request generation id {generation} is not equal to the member epoch {epoch} of member {id}."
        ),
    ))
}

fn check_protocol(id: &str, request: &SyncGroupRequest, name: Option<&Str>) -> Result<(), GroupError> {
    let wrong_type = request
        .protocol_type
        .as_ref()
        .is_some_and(|sent| *sent != *PROTOCOL_TYPE);
    let wrong_name = request
        .protocol_name
        .as_ref()
        .is_some_and(|sent| Some(sent) != name);
    if wrong_type || wrong_name {
        return Err(GroupError::new(
            ErrorCode::InconsistentGroupProtocol,
            format!("The protocol of member {id}'s request is not the one of its join."),
        ));
    }
    Ok(())
}
