//! Groups of the consumer protocol (KIP-848): the coordinator assigns, members reconcile.
//!
//! # Interface
//!
//! A [`ConsumerGroup`] is one group. It changes only through [`Change`]s, each of which is written as one
//! record of Kafka's own format ([`records`]): what a call returns in [`Outcome::records`] has already been
//! applied, and replaying those records gives the same state (timers apart, which start anew on loading).
//! A call that returns an error has changed nothing of that.
//!
//! - **Loading**: [`Change::decode`] reads a record; [`ConsumerGroup::replay`] takes it (`true`: the group
//!   has ended, forget it). A group that is not there yet is made with [`ConsumerGroup::new`] unless
//!   [`Change::is_tombstone`]. Afterwards [`ConsumerGroup::loaded`] starts the timers.
//! - **Snapshot**: [`ConsumerGroup::live_records`], restored by replay.
//! - **ConsumerGroupHeartbeat**: [`validate`], then [`ConsumerGroup::heartbeat`]. For a group that does not
//!   exist, a member that joins (epoch 0) gets a new one, which is kept only if the call succeeds; any other
//!   gets GROUP_ID_NOT_FOUND. [`GroupError::heartbeat`] is an error's response.
//! - **Classic members** (JoinGroup, SyncGroup, Heartbeat, LeaveGroup while the group is a consumer group
//!   with members): [`ConsumerGroup::classic_join`], [`ConsumerGroup::classic_sync`],
//!   [`ConsumerGroup::classic_heartbeat`], [`ConsumerGroup::classic_leave`].
//! - **Time**: [`ConsumerGroup::next_deadline`], and [`ConsumerGroup::expire`] when it is reached. Every other
//!   call may move the deadline.
//! - **Topics** need no call: a heartbeat of any member sees that [`crate::Topics::version`] has changed.
//! - **Migration**: [`ConsumerGroup::from_classic`] upgrades. Where a call returns [`Outcome::downgrade`],
//!   the group is to become a classic one: write [`ConsumerGroup::tombstones`], build the classic group from
//!   [`ConsumerGroup::downgraded`], and forget this one. If that is impossible,
//!   [`ConsumerGroup::remove_members`] takes the leaving ones out as if there was no downgrade.
//! - **Offsets**: [`ConsumerGroup::validate_commit`], [`ConsumerGroup::validate_fetch`],
//!   [`ConsumerGroup::is_subscribed_to`].
//! - **Administration**: [`ConsumerGroup::describe`], [`ConsumerGroup::state`] (for ListGroups too; the
//!   protocol type is `consumer`), [`ConsumerGroup::tombstones`] to delete an empty group.
//!
//! Behaviour follows Kafka 4.3.1's GroupMetadataManager, but for this:
//!
//! - what a member gives up is free with its next epoch only, never within one (`reconcile` says why), and
//!   what it last said it owns is remembered while it gives up, since it says so only when that changes;
//! - regular expressions are resolved in the heartbeat that brings them, not a moment later;
//! - a static member that was fenced may join again under its own member id at once;
//! - a classic member that was fenced and joins as if it still owned partitions gets UNKNOWN_MEMBER_ID;
//! - a group whose first member is subscribed to nothing starts at epoch 1, as in Kafka's next version;
//! - a group's metadata hash is another function of the same things;
//! - assignments are always computed in the call: `group.consumer.assignor.offload.enable` has no meaning.

pub mod assignment;
pub mod assignor;
mod classic_member;
mod describe;
mod embedded;
mod group;
mod heartbeat;
mod leave;
mod member;
mod migrate;
mod offsets;
mod reconcile;
pub mod records;
pub mod regex;
mod target;

#[cfg(test)]
mod tests;

use drumlin_wire::Str;
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;

use crate::{ErrorCode, GroupConfig, GroupOverrides, Now, Record, Topics};

pub use embedded::{Subscription, read_assignment, read_subscription, write_assignment};
pub use group::{ConsumerGroup, GroupState, TimerKind};
pub use heartbeat::validate;
pub use member::{
    ClassicMember, Current, JOIN_EPOCH, LEAVE_EPOCH, Member, MemberState, Metadata, STATIC_LEAVE_EPOCH,
};
pub use migrate::{ClassicSource, DowngradedMember};
pub use offsets::CommitFence;
pub use records::Change;

/// What every call depends on besides the group.
pub struct Context<'a> {
    /// The time.
    pub now: Now,
    /// The metadata; the same during the whole call.
    pub topics: &'a dyn Topics,
    /// The broker's options.
    pub config: &'a GroupConfig,
    /// What this group has of its own.
    pub overrides: &'a GroupOverrides,
    /// The id of a member that comes without one: random, 22 characters of base64 as Kafka's are.
    pub fresh_id: &'a Str,
    /// Whether whoever asks may describe a topic: which topics a regular expression may match.
    pub may_describe: &'a dyn Fn(&str) -> bool,
}

/// What a call gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<T> {
    /// The answer. It waits until the records, and those of earlier calls, are committed.
    pub response: T,
    /// To be appended in this order.
    pub records: Vec<Record>,
    /// The group is to become a classic one.
    pub downgrade: Option<Downgrade>,
}

/// Why and how a consumer group becomes a classic one: all that remain speak the classic protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downgrade {
    /// Members that are still in the group and are not to be in the classic one.
    pub leaving: Vec<Str>,
    /// The classic member that has taken the place of the last other one; it is in the group already.
    pub joining: Option<Str>,
    /// Whether the classic group is to rebalance at once.
    pub rebalance: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GroupError {
    /// The code.
    pub code: ErrorCode,
    /// For people; responses that have a place for it carry it.
    pub message: String,
}

impl GroupError {
    /// An error with a text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> GroupError {
        GroupError {
            code,
            message: message.into(),
        }
    }

    /// As the answer to a ConsumerGroupHeartbeat.
    pub fn heartbeat(&self) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse {
            error_code: self.code.code(),
            error_message: Some(Str::from(self.message.as_str())),
            ..ConsumerGroupHeartbeatResponse::default()
        }
    }
}
