//! What online upgrade and downgrade need of a consumer group; the other half is the classic group's.

use std::collections::BTreeSet;

use bytes::Bytes;
use drumlin_wire::{Str, Uuid};

use super::assignment::{Target, at_epoch};
use super::embedded::{read_assignment, read_subscription};
use super::group::ConsumerGroup;
use super::member::{ClassicMember, Current, MemberState, Metadata};
use super::records::{AssignmentEpoch, Change, GroupEpoch, MAX_KEY_STRING};
use super::{Context, Downgrade, GroupError};
use crate::{ErrorCode, Record};

/// A member of a classic group that becomes a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassicSource {
    /// Its member id.
    pub member_id: Str,
    /// Its instance id.
    pub instance_id: Option<Str>,
    /// Its client id.
    pub client_id: Str,
    /// Its address.
    pub client_host: Str,
    /// Its rebalance timeout.
    pub rebalance_timeout_ms: i32,
    /// Its session timeout.
    pub session_timeout_ms: i32,
    /// The assignors that it knows, with its subscription for each.
    pub protocols: Vec<(Str, Bytes)>,
    /// Its subscription for the assignor that the group has chosen.
    pub subscription: Bytes,
    /// Its assignment; empty if it has none.
    pub assignment: Bytes,
}

/// A member of a consumer group that becomes a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DowngradedMember {
    /// Its member id.
    pub member_id: Str,
    /// What it says of itself.
    pub metadata: Metadata,
    /// What it said when it joined.
    pub classic: ClassicMember,
    /// What it is to own. The classic group hands it out as bytes (`write_assignment`, in the version of the
    /// member's subscription for the assignor that the group chooses).
    pub target: Target,
}

impl ConsumerGroup {
    /// Makes a consumer group of a classic one: the same members in the same generation, which own what they
    /// own there. The records are those of the new group alone; the classic group's tombstone goes before.
    ///
    /// GROUP_ID_NOT_FOUND, as in Kafka, if what a member says cannot be read, or an assignor has put data of
    /// its own into the assignment, which would be lost.
    pub fn from_classic(
        ctx: &Context<'_>,
        group_id: &Str,
        generation: i32,
        members: &[ClassicSource],
    ) -> Result<(ConsumerGroup, Vec<Record>), GroupError> {
        let refused = |reason: &str| {
            GroupError::new(
                ErrorCode::GroupIdNotFound,
                format!("Cannot upgrade classic group {group_id} to consumer group because {reason}."),
            )
        };
        let mut found: Vec<(Str, Metadata, Target)> = Vec::with_capacity(members.len());
        let mut claimed: BTreeSet<(Uuid, i32)> = BTreeSet::new();
        for member in members {
            if member.member_id.len() > MAX_KEY_STRING || group_id.len() > MAX_KEY_STRING {
                return Err(refused("an id is too long"));
            }
            let malformed = || refused("the embedded consumer protocol is malformed");
            let subscription = read_subscription(&member.subscription, ctx.topics).ok_or_else(malformed)?;
            let (mut target, custom) =
                read_assignment(&member.assignment, ctx.topics).ok_or_else(malformed)?;
            // Nothing has kept the members' own assignor from giving a partition to two of them.
            target.retain(|topic, partitions| {
                partitions.retain(|partition| claimed.insert((*topic, *partition)));
                !partitions.is_empty()
            });
            if custom {
                return Err(refused(
                    "an unsupported custom assignor is in use. Please refer to the documentation or switch \
                     to a default assignor before re-attempting the upgrade",
                ));
            }
            let metadata = Metadata {
                instance_id: member.instance_id.as_ref().map(Str::detach),
                rack_id: subscription.rack.as_ref().map(Str::detach),
                client_id: member.client_id.detach(),
                client_host: member.client_host.detach(),
                topics: subscription.topics.iter().map(Str::detach).collect(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                classic: Some(ClassicMember {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member
                        .protocols
                        .iter()
                        .map(|(name, metadata)| (name.detach(), Bytes::copy_from_slice(metadata)))
                        .collect(),
                }),
                ..Metadata::default()
            };
            found.push((member.member_id.detach(), metadata, target));
        }
        Ok(ConsumerGroup::migrated(ctx, group_id, generation, found))
    }

    fn migrated(
        ctx: &Context<'_>,
        group_id: &Str,
        generation: i32,
        members: Vec<(Str, Metadata, Target)>,
    ) -> (ConsumerGroup, Vec<Record>) {
        let mut group = ConsumerGroup::new(group_id.clone());
        let mut records = Vec::new();
        for (id, metadata, _) in &members {
            group.emit(Change::Member(id.clone(), Some(metadata.clone())), &mut records);
        }
        let epoch = GroupEpoch {
            epoch: generation,
            metadata_hash: group.metadata_hash(ctx.topics),
        };
        group.emit(Change::Epoch(Some(epoch)), &mut records);
        for (id, _, target) in &members {
            group.emit(Change::Target(id.clone(), Some(target.clone())), &mut records);
        }
        let epoch = AssignmentEpoch {
            epoch: generation,
            timestamp: 0,
        };
        group.emit(Change::AssignmentEpoch(Some(epoch)), &mut records);
        for (id, metadata, target) in members {
            let current = Current {
                epoch: generation,
                previous_epoch: generation,
                state: MemberState::Stable,
                assigned: at_epoch(&target, generation),
                ..Current::default()
            };
            group.emit(Change::Current(id.clone(), Some(current)), &mut records);
            let timeout = metadata.classic.map(|classic| classic.session_timeout_ms);
            group.start_session(ctx, &id, timeout);
        }
        tracing::info!(group = %group_id, generation, "classic group is now a consumer group");
        (group, records)
    }

    /// The members of the classic group that this one is to become; its generation is [`Self::epoch`].
    pub fn downgraded(&self, downgrade: &Downgrade) -> Vec<DowngradedMember> {
        let members = self.members().filter(|(id, _)| !downgrade.leaving.contains(id));
        members
            .filter_map(|(id, member)| {
                Some(DowngradedMember {
                    member_id: id.clone(),
                    metadata: member.metadata.clone(),
                    classic: member.metadata.classic.clone()?,
                    target: self.target(id).cloned().unwrap_or_default(),
                })
            })
            .collect()
    }
}
