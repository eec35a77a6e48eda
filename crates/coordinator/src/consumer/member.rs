//! A member of a consumer group, as its three records have it.

use std::collections::BTreeSet;

use bytes::Bytes;
use drumlin_wire::Str;

use super::assignment::Owned;

/// The member epoch of a joining member.
pub const JOIN_EPOCH: i32 = 0;
/// The member epoch with which a member leaves.
pub const LEAVE_EPOCH: i32 = -1;
/// The member epoch with which a static member leaves for a while.
pub const STATIC_LEAVE_EPOCH: i32 = -2;

/// How far a member has come on the way to its target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberState {
    /// It owns what it is assigned.
    #[default]
    Stable,
    /// It has to give up partitions before it may go to the next epoch.
    UnrevokedPartitions,
    /// It is in the target's epoch and waits for partitions that others still own.
    UnreleasedPartitions,
    /// Written by a newer coordinator.
    Unknown,
}

impl MemberState {
    /// The number in the record.
    pub const fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    /// From the number in the record.
    pub const fn from_code(code: i8) -> MemberState {
        match code {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

/// What a member that speaks the classic protocol said when it joined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassicMember {
    /// Its session timeout.
    pub session_timeout_ms: i32,
    /// The assignors that it knows, with its subscription for each.
    pub protocols: Vec<(Str, Bytes)>,
}

/// What a member says of itself: the record ConsumerGroupMemberMetadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The instance id of a static member.
    pub instance_id: Option<Str>,
    /// Its rack.
    pub rack_id: Option<Str>,
    /// Its client id.
    pub client_id: Str,
    /// Its address, as Kafka writes it.
    pub client_host: Str,
    /// The topics that it is subscribed to by name.
    pub topics: BTreeSet<Str>,
    /// The regular expression that it is subscribed by; empty if by none.
    pub regex: Str,
    /// How long it may take to give up partitions.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it wishes for.
    pub assignor: Option<Str>,
    /// Set if it speaks the classic protocol.
    pub classic: Option<ClassicMember>,
}

impl Metadata {
    /// About how long its record is.
    pub(super) fn size(&self) -> usize {
        let optional = |text: &Option<Str>| text.as_ref().map_or(0, |text| text.len());
        let topics = self.topics.iter().map(|topic| topic.len() + 3);
        let protocols = self.classic.iter().flat_map(|classic| &classic.protocols);
        let protocols = protocols.map(|(name, metadata)| name.len() + metadata.len() + 7);
        let texts = optional(&self.instance_id) + optional(&self.rack_id) + optional(&self.assignor);
        let texts = texts + self.client_id.len() + self.client_host.len() + self.regex.len();
        64 + texts + topics.sum::<usize>() + protocols.sum::<usize>()
    }
}

impl Default for Metadata {
    fn default() -> Metadata {
        Metadata {
            instance_id: None,
            rack_id: None,
            client_id: Str::EMPTY,
            client_host: Str::EMPTY,
            topics: BTreeSet::new(),
            regex: Str::EMPTY,
            rebalance_timeout_ms: -1,
            assignor: None,
            classic: None,
        }
    }
}

/// What a member owns: the record ConsumerGroupCurrentMemberAssignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Its epoch.
    pub epoch: i32,
    /// The epoch before: a member that has not seen the answer with its new epoch comes with this one.
    pub previous_epoch: i32,
    /// How far it has come.
    pub state: MemberState,
    /// The partitions that it may read and commit.
    pub assigned: Owned,
    /// The partitions that it was told to give up and has not yet.
    pub revoking: Owned,
}

impl Default for Current {
    fn default() -> Current {
        Current {
            epoch: JOIN_EPOCH,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Owned::new(),
            revoking: Owned::new(),
        }
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// What it says of itself.
    pub metadata: Metadata,
    /// What it owns.
    pub current: Current,
}

impl Member {
    /// Whether it speaks the classic protocol.
    pub fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }

    /// Whether it owns what the target of this epoch gives it.
    pub fn is_reconciled_to(&self, assignment_epoch: i32) -> bool {
        self.current.state == MemberState::Stable && self.current.epoch == assignment_epoch
    }
}
