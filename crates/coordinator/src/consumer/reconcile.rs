//! One step of a member towards its target: KIP-848's reconciliation, as a pure function.
//!
//! A member gives up what it is not to own while it stays in its epoch; once it no longer reports those
//! partitions, it goes to the target's epoch with what is free of its target, and gets the rest as others
//! release it. A partition is free when no member has it, neither assigned nor yet to be given up, so it
//! never has two owners (Kafka's CurrentAssignmentBuilder).
//!
//! In one thing this is stricter than Kafka: what a member has given up is free only when the member goes to
//! its next epoch, never within one. A member that does not report a partition may be about to take it,
//! having been assigned it, and may not hear that it was taken back; if it then has an epoch of before, what
//! it does with the partition is refused. Kafka frees it within the epoch where a subscription changes.

use std::collections::BTreeMap;

use drumlin_wire::Uuid;

use super::assignment::{self, Owned, Reported, Target};
use super::member::{Current, MemberState};

/// What a step depends on besides the member's own state.
pub struct Goal<'a> {
    /// The epoch of the target assignment.
    pub epoch: i32,
    /// What the member is to own at that epoch.
    pub target: &'a Target,
    /// Whether the member is subscribed to a topic now. The target may be older than its subscription.
    pub subscribed: &'a dyn Fn(Uuid) -> bool,
    /// Whether the subscription has changed in this request.
    pub subscription_changed: bool,
    /// What the member says it owns; `None` if it did not say.
    pub reported: Option<&'a Reported>,
    /// Whether any member has a partition.
    pub is_taken: &'a dyn Fn(Uuid, i32) -> bool,
}

/// The member's next state; `None` if it stays as it is. A member in [`MemberState::Unknown`] must have
/// been fenced before unless it owns nothing.
pub fn step(member: &Current, goal: &Goal<'_>) -> Option<Current> {
    let next = match member.state {
        MemberState::Stable if member.epoch != goal.epoch => advance(member, goal),
        MemberState::Stable if goal.subscription_changed => drop_unsubscribed(member, goal)?,
        MemberState::Stable => return None,
        MemberState::UnrevokedPartitions if still_owned(&member.revoking, goal) => {
            if !goal.subscription_changed {
                return None;
            }
            drop_unsubscribed(member, goal)?
        }
        MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => advance(member, goal),
        // It owns nothing, and starts over.
        MemberState::Unknown => advance(
            &Current {
                epoch: -1,
                ..member.clone()
            },
            goal,
        ),
    };
    (next != *member).then_some(next)
}

/// A member that does not say what it owns may own all of it.
fn still_owned(set: &Owned, goal: &Goal<'_>) -> bool {
    match goal.reported {
        Some(reported) => assignment::reports_any(reported, set),
        None => true,
    }
}

/// Without a new target: only what the member is no longer subscribed to is taken from it.
fn drop_unsubscribed(member: &Current, goal: &Goal<'_>) -> Option<Current> {
    let mut assigned = member.assigned.clone();
    let mut revoking = member.revoking.clone();
    assigned.retain(|topic, partitions| {
        let keep = (goal.subscribed)(*topic);
        if !keep {
            revoking.entry(*topic).or_default().append(partitions);
        }
        keep
    });
    if assigned.len() == member.assigned.len() {
        return None;
    }
    Some(Current {
        epoch: member.epoch,
        previous_epoch: member.epoch,
        state: MemberState::UnrevokedPartitions,
        assigned,
        revoking,
    })
}

fn advance(member: &Current, goal: &Goal<'_>) -> Current {
    let nothing = BTreeMap::new();
    let mut assigned = Owned::new();
    let mut revoking = Owned::new();
    let mut free: Vec<(Uuid, i32)> = Vec::new();
    let mut unreleased = false;

    for (topic, partitions) in &member.assigned {
        let target = target_of(goal, *topic);
        for (partition, epoch) in partitions {
            let kept = target.binary_search(partition).is_ok();
            let set = if kept { &mut assigned } else { &mut revoking };
            set.entry(*topic).or_default().insert(*partition, *epoch);
        }
    }
    for topic in goal.target.keys() {
        let has = member.assigned.get(topic).unwrap_or(&nothing);
        // What the member itself was to give up and has given up is free, though the group has it as its.
        let own = member.revoking.get(topic).unwrap_or(&nothing);
        for partition in target_of(goal, *topic) {
            if has.contains_key(partition) {
                continue;
            }
            if (goal.is_taken)(*topic, *partition) && !own.contains_key(partition) {
                unreleased = true;
            } else {
                free.push((*topic, *partition));
            }
        }
    }

    let stays = goal.epoch == member.epoch && member.state == MemberState::UnrevokedPartitions;
    if stays || (!revoking.is_empty() && (goal.epoch == member.epoch || still_owned(&revoking, goal))) {
        // Given up or not, all of it is freed together, with the next epoch.
        for (topic, partitions) in &member.revoking {
            revoking.entry(*topic).or_default().extend(partitions);
        }
        return Current {
            epoch: member.epoch,
            previous_epoch: member.epoch,
            state: MemberState::UnrevokedPartitions,
            assigned,
            revoking,
        };
    }
    for (topic, partition) in free {
        assigned.entry(topic).or_default().insert(partition, goal.epoch);
    }
    Current {
        epoch: goal.epoch,
        previous_epoch: member.epoch,
        state: if unreleased {
            MemberState::UnreleasedPartitions
        } else {
            MemberState::Stable
        },
        assigned,
        revoking: Owned::new(),
    }
}

fn target_of<'a>(goal: &Goal<'a>, topic: Uuid) -> &'a [i32] {
    match goal.target.get(&topic) {
        Some(partitions) if (goal.subscribed)(topic) => partitions,
        _ => &[],
    }
}
