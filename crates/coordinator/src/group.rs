//! A group of either protocol, and what both have in common.

use drumlin_wire::Str;
use drumlin_wire::messages::list_groups_response::ListedGroup;

use crate::classic::ClassicGroup;
use crate::consumer::ConsumerGroup;
use crate::offsets::ExpiryBase;
use crate::{ErrorCode, Record};

/// A group.
#[derive(Debug)]
pub(crate) enum Group {
    /// Its members assign among themselves.
    Classic(ClassicGroup),
    /// The coordinator assigns (KIP-848).
    Consumer(ConsumerGroup),
}

impl Group {
    /// How many members it has.
    pub fn len(&self) -> usize {
        match self {
            Group::Classic(group) => group.len(),
            Group::Consumer(group) => group.len(),
        }
    }

    /// Whether nobody is in it, nor on the way into it: without offsets it can go.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_abandoned(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    /// Whether nothing but its offsets says that it exists.
    pub fn is_only_a_name(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_only_a_name(),
            Group::Consumer(_) => false,
        }
    }

    /// Whether a member reads this topic: then its offsets are kept.
    pub fn subscribes(&self, topic: &Str) -> bool {
        match self {
            Group::Classic(group) => group.subscribes(topic),
            Group::Consumer(group) => group.is_subscribed_to(topic),
        }
    }

    /// Since when its offsets have been unused. A consumer group's epoch tells when it has become empty;
    /// Kafka deletes what was committed long ago as soon as such a group is empty, against what
    /// `offsets.retention.minutes` promises.
    pub fn expiry(&self, epoch_ms: Option<i64>) -> ExpiryBase {
        match self {
            Group::Classic(group) => group.expiry(),
            Group::Consumer(group) if group.is_empty() => ExpiryBase::Emptied(epoch_ms),
            Group::Consumer(_) => ExpiryBase::Commit,
        }
    }

    /// Whether its offsets may be deleted one by one.
    pub fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.check_offset_delete(),
            // Topics that somebody reads are guarded one by one.
            Group::Consumer(_) => Ok(()),
        }
    }

    /// Whether it may be deleted.
    pub fn check_delete(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.check_delete(),
            Group::Consumer(group) if group.is_empty() => Ok(()),
            Group::Consumer(_) => Err(ErrorCode::NonEmptyGroup),
        }
    }

    /// The records that make it as it is stored, in order.
    pub fn records(&self) -> Vec<Record> {
        match self {
            Group::Classic(group) => group.stored().into_iter().collect(),
            Group::Consumer(group) => group.live_records(),
        }
    }

    /// The records that delete it.
    pub fn tombstones(&self) -> Vec<Record> {
        match self {
            Group::Classic(group) => group.tombstone().into_iter().collect(),
            Group::Consumer(group) => group.tombstones(),
        }
    }

    /// Its line in a list.
    pub fn list(&self) -> ListedGroup {
        match self {
            Group::Classic(group) => group.list(),
            Group::Consumer(group) => ListedGroup {
                group_id: group.id().clone(),
                protocol_type: Str::from_static("consumer"),
                group_state: Str::from_static(group.state().name()),
                group_type: Str::from_static("consumer"),
                ..ListedGroup::default()
            },
        }
    }
}
