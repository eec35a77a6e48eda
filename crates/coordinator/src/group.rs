//! A group of either protocol, and what both have in common.

use drumlin_wire::Str;
use drumlin_wire::messages::list_groups_request::ListGroupsRequest;
use drumlin_wire::messages::list_groups_response::ListedGroup;

use crate::classic::{ClassicGroup, State};
use crate::consumer::{ConsumerGroup, GroupState};
use crate::offsets::ExpiryBase;
use crate::{ErrorCode, Record};

/// Types of groups, as ListGroups names them.
const TYPES: [&str; 2] = ["classic", "consumer"];
/// States that a group in a list can have.
const STATES: [&str; 6] = [
    State::Empty.name(),
    State::PreparingRebalance.name(),
    State::CompletingRebalance.name(),
    State::Stable.name(),
    GroupState::Assigning.name(),
    GroupState::Reconciling.name(),
];
/// Kafka's name of what it does not know, which no group has.
const UNKNOWN: &str = "Unknown";

/// Brings the filters of a ListGroups down to names that there are, each once: a client may send a million of
/// others, and every shard compares what is left with every group.
pub fn known_filters(request: &mut ListGroupsRequest) {
    reduce(&mut request.states_filter, &STATES);
    reduce(&mut request.types_filter, &TYPES);
}

fn reduce(filter: &mut Vec<Str>, known: &[&'static str]) {
    if filter.is_empty() {
        // Everything is wanted.
        return;
    }
    let asked = |name: &&&'static str| filter.iter().any(|f| f.trim().eq_ignore_ascii_case(name));
    let mut left: Vec<Str> = known
        .iter()
        .filter(asked)
        .map(|name| Str::from_static(name))
        .collect();
    if left.is_empty() {
        left.push(Str::from_static(UNKNOWN));
    }
    *filter = left;
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(states: &[&str], types: &[&str]) -> (Vec<Str>, Vec<Str>) {
        let strs = |list: &[&str]| list.iter().map(|s| Str::from(*s)).collect();
        let mut request = ListGroupsRequest {
            states_filter: strs(states),
            types_filter: strs(types),
            ..ListGroupsRequest::default()
        };
        known_filters(&mut request);
        (request.states_filter, request.types_filter)
    }

    #[test]
    fn filters_are_brought_down_to_names_that_there_are() {
        assert_eq!(reduced(&[], &[]), (Vec::new(), Vec::new()), "all are wanted");
        let mut many = vec!["x"; 10_000];
        many.extend([" stable ", "STABLE", "empty", "reconciling"]);
        let (states, types) = reduced(&many, &["Consumer", "share"]);
        assert_eq!(states, ["Empty", "Stable", "Reconciling"]);
        assert_eq!(types, ["consumer"]);
        // Nothing is wanted that there could be: that is not the same as no filter.
        assert_eq!(
            reduced(&["Dead", ""], &["share"]),
            (vec![UNKNOWN.into()], vec![UNKNOWN.into()])
        );
    }
}
