//! The `range` assignor: each topic is cut into as many ranges as it has subscribers.

use super::{Owners, Spec};
use crate::consumer::assignment::Target;

/// How far a topic has been dealt.
#[derive(Clone, Default)]
struct Dealt {
    subscribers: usize,
    next: usize,
    /// How many subscribers have had their turn; the first of them get the partitions that are left over.
    turns: usize,
}

/// Deals every topic in the order of members. Static members come first, by their instance ids, so that one
/// that returns under a new member id gets the same range.
pub(super) fn assign(spec: &Spec<'_>) -> Vec<Target> {
    let mut order: Vec<usize> = (0..spec.members.len()).collect();
    order.sort_by_key(|member| {
        let member = &spec.members[*member];
        (member.instance.is_none(), member.instance, member.id)
    });

    let mut dealt = vec![Dealt::default(); spec.topics.len()];
    for member in &order {
        for topic in spec.subscription(*member) {
            dealt[*topic].subscribers += 1;
        }
    }

    let mut owners = Owners::new(spec);
    for member in order {
        for topic in spec.subscription(member) {
            let partitions = spec.partitions(*topic);
            let state = &mut dealt[*topic];
            let extra = usize::from(state.turns < partitions % state.subscribers);
            let end = state.next + partitions / state.subscribers + extra;
            for partition in state.next..end {
                owners.set(*topic, partition, member);
            }
            state.next = end;
            state.turns += 1;
        }
    }
    owners.into_targets(spec)
}
