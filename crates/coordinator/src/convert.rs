//! A live group changes its protocol (KIP-848): a classic group becomes a consumer group when the first
//! member of the consumer protocol joins it, and the other way when the last one leaves. Nobody loses what
//! it owns; members of the classic protocol go on in either.
//!
//! `group.consumer.migration.policy` says which of the two may happen.

use drumlin_wire::Str;

use crate::classic::{ClassicGroup, ClassicMember, Protocol};
use crate::consumer::{
    ClassicSource, ConsumerGroup, Context, Downgrade, DowngradedMember, GroupError, write_assignment,
};
use crate::context::Cx;
use crate::group::Group;
use crate::{ErrorCode, Record, Topics};

/// The consumer group that a classic group can become, and its records. The classic group is as it was: it
/// is [ended](end_classic) once the member that made this necessary is in.
pub(crate) fn upgrade(
    classic: &ClassicGroup,
    id: &Str,
    ctx: &Context<'_>,
) -> Result<(ConsumerGroup, Vec<Record>), GroupError> {
    let refused = |reason: &str| {
        GroupError::new(
            ErrorCode::GroupIdNotFound,
            format!("Cannot upgrade classic group {id} to consumer group because {reason}."),
        )
    };
    if !ctx.config.consumer_migration_policy.upgrades() {
        return Err(refused("online upgrade is disabled"));
    }
    if !classic.is_of_consumers() {
        return Err(refused("the group does not use the consumer embedded protocol"));
    }
    if classic.len() > usize::try_from(ctx.config.consumer_max_size).unwrap_or(0) {
        return Err(refused("the group size exceeds the consumer group maximum size"));
    }
    let sources: Vec<ClassicSource> = classic
        .members()
        .map(|member| ClassicSource {
            member_id: member.id.clone(),
            instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            protocols: member
                .protocols
                .iter()
                .map(|p| (p.name.clone(), p.metadata.clone()))
                .collect(),
            // A group that gathers for the first time has not chosen yet: what it would choose.
            subscription: classic
                .chosen_protocol()
                .and_then(|name| member.metadata(&name).cloned())
                .unwrap_or_default(),
            assignment: member.assignment.clone(),
        })
        .collect();
    ConsumerGroup::from_classic(ctx, id, classic.generation(), &sources)
}

/// Ends a classic group that another takes the place of: its members have to ask again.
pub(crate) fn end_classic(mut classic: ClassicGroup, cx: &mut Cx<'_>) {
    classic.cancel_timers(cx);
    classic.refuse_all(ErrorCode::RebalanceInProgress, cx);
}

/// The classic group that a consumer group becomes, with its record; the consumer group's tombstones go before
/// it, and have been written. `None` if its members have no assignor in common.
pub(crate) fn downgrade(
    group: &ConsumerGroup,
    downgrade: &Downgrade,
    topics: &dyn Topics,
    cx: &mut Cx<'_>,
) -> Option<ClassicGroup> {
    let members = group.downgraded(downgrade);
    let mut classic = ClassicGroup::taken_over(group.id(), group.epoch(), cx.now.wall_ms);
    for member in &members {
        classic.take_over(taken_over(member));
    }
    let protocol = classic.settle()?;
    for DowngradedMember {
        member_id, target, ..
    } in &members
    {
        classic.hand_over(member_id, |metadata| {
            let version = metadata.first_chunk().map_or(0, |head| i16::from_be_bytes(*head));
            write_assignment(target, version, topics)
        });
    }
    tracing::info!(group = %group.id(), %protocol, "consumer group becomes a classic group");
    Some(classic)
}

fn taken_over(member: &DowngradedMember) -> ClassicMember {
    ClassicMember {
        id: member.member_id.clone(),
        instance: member.metadata.instance_id.clone(),
        client_id: member.metadata.client_id.clone(),
        client_host: member.metadata.client_host.clone(),
        rebalance_timeout_ms: member.metadata.rebalance_timeout_ms,
        session_timeout_ms: member.classic.session_timeout_ms,
        protocols: member
            .classic
            .protocols
            .iter()
            .map(|(name, metadata)| Protocol {
                name: name.clone(),
                metadata: metadata.clone(),
            })
            .collect(),
        assignment: Default::default(),
        joining: None,
        syncing: None,
        is_new: false,
    }
}

/// Starts what [`downgrade`] has made, and has it gather again if it is to.
pub(crate) fn start_classic(mut classic: ClassicGroup, rebalance: bool, cx: &mut Cx<'_>) -> Group {
    classic.start(cx);
    if rebalance {
        classic.prepare_rebalance(cx);
    }
    Group::Classic(classic)
}
