//! The `uniform` assignor: equal numbers of partitions first, and then as few moves as possible.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Owners, Spec};
use crate::consumer::assignment::Target;

/// Kafka's bound too: a round that moves nothing ends it long before in any group seen so far.
const MAX_ROUNDS: usize = 16;

pub(super) fn assign(spec: &Spec<'_>) -> Vec<Target> {
    match spec.subscriptions.as_slice() {
        [subscription] => homogeneous(spec, subscription),
        _ => heterogeneous(spec),
    }
}

/// All members are subscribed to the same topics. With `n` partitions and `m` members, everybody gets
/// `n / m` and `n % m` of them one more: those first who have more already, then those who come first.
fn homogeneous(spec: &Spec<'_>, subscription: &[usize]) -> Vec<Target> {
    let total: usize = subscription.iter().map(|topic| spec.partitions(*topic)).sum();
    let quota = total / spec.members.len();
    let mut extras = total % spec.members.len();

    let mut owners = Owners::new(spec);
    let mut kept = vec![0; spec.members.len()];
    for (index, member) in spec.members.iter().enumerate() {
        let room = quota + usize::from(extras > 0);
        for (id, partitions) in member.current.into_iter().flatten() {
            let Some(topic) = spec.topic_index(*id) else {
                continue;
            };
            for partition in partitions {
                if kept[index] == room {
                    break;
                }
                if let Some(partition) = owners.is_free(topic, *partition) {
                    owners.set(topic, partition, index);
                    kept[index] += 1;
                }
            }
        }
        if kept[index] > quota {
            extras -= 1;
        }
    }

    let mut member = 0;
    let mut room = None;
    for topic in subscription {
        for partition in 0..spec.partitions(*topic) {
            if owners.0[*topic][partition].is_some() {
                continue;
            }
            // The rooms of all members add up to the partitions that are left, so there is a next member.
            while member < spec.members.len() {
                let left = room.get_or_insert_with(|| {
                    let extra = kept[member] <= quota && extras > 0;
                    extras -= usize::from(extra);
                    (quota + usize::from(extra)).saturating_sub(kept[member])
                });
                if *left > 0 {
                    *left -= 1;
                    owners.set(*topic, partition, member);
                    break;
                }
                member += 1;
                room = None;
            }
        }
    }
    owners.into_targets(spec)
}

/// Members' subscriptions differ: everybody keeps what is still subscribed to, free partitions go to the
/// subscriber with the least, and then topic by topic partitions move from the most to the least loaded of
/// its subscribers until no single move makes any two of them more equal.
fn heterogeneous(spec: &Spec<'_>) -> Vec<Target> {
    let mut work = Heterogeneous::new(spec);
    work.keep();
    work.assign_free();
    work.balance();
    work.owners.into_targets(spec)
}

struct Heterogeneous<'a, 'b> {
    spec: &'a Spec<'b>,
    subscribers: Vec<Vec<usize>>,
    /// The topics in the order in which they are dealt: those with the most partitions for each subscriber
    /// first, since they leave the least choice.
    order: Vec<usize>,
    owners: Owners,
    loads: Vec<usize>,
}

impl<'a, 'b> Heterogeneous<'a, 'b> {
    fn new(spec: &'a Spec<'b>) -> Heterogeneous<'a, 'b> {
        let mut subscribers = vec![Vec::new(); spec.topics.len()];
        for member in 0..spec.members.len() {
            for topic in spec.subscription(member) {
                subscribers[*topic].push(member);
            }
        }
        let mut order: Vec<usize> = (0..spec.topics.len())
            .filter(|topic| !subscribers[*topic].is_empty())
            .collect();
        order.sort_by(|a, b| {
            // a.partitions / a.subscribers against b.partitions / b.subscribers, without fractions.
            let left = spec.partitions(*a) * subscribers[*b].len();
            let right = spec.partitions(*b) * subscribers[*a].len();
            let fewer_subscribers = subscribers[*a].len().cmp(&subscribers[*b].len());
            right.cmp(&left).then(fewer_subscribers).then(a.cmp(b))
        });
        Heterogeneous {
            spec,
            subscribers,
            order,
            owners: Owners::new(spec),
            loads: vec![0; spec.members.len()],
        }
    }

    fn keep(&mut self) {
        for (index, member) in self.spec.members.iter().enumerate() {
            let subscription = self.spec.subscription(index);
            for (id, partitions) in member.current.into_iter().flatten() {
                let Some(topic) = self.spec.topic_index(*id) else {
                    continue;
                };
                if subscription.binary_search(&topic).is_err() {
                    continue;
                }
                for partition in partitions {
                    if let Some(partition) = self.owners.is_free(topic, *partition) {
                        self.owners.set(topic, partition, index);
                        self.loads[index] += 1;
                    }
                }
            }
        }
    }

    fn assign_free(&mut self) {
        for topic in &self.order {
            let mut free = (0..self.spec.partitions(*topic))
                .filter(|partition| self.owners.0[*topic][*partition].is_none())
                .peekable();
            if free.peek().is_none() {
                continue;
            }
            let loads = &self.loads;
            let mut least: BinaryHeap<_> = self.subscribers[*topic]
                .iter()
                .map(|member| Reverse((loads[*member], *member)))
                .collect();
            let free: Vec<usize> = free.collect();
            for partition in free {
                let Some(Reverse((load, member))) = least.pop() else {
                    break;
                };
                self.owners.set(*topic, partition, member);
                self.loads[member] = load + 1;
                least.push(Reverse((load + 1, member)));
            }
        }
    }

    fn balance(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for topic in self.order.clone() {
                moved |= self.balance_topic(topic);
            }
            if !moved {
                return;
            }
        }
    }

    /// Moves partitions of one topic until no move between its subscribers helps. Each move takes at least
    /// two from the sum of squares of loads, so that this ends.
    fn balance_topic(&mut self, topic: usize) -> bool {
        let subscribers = &self.subscribers[topic];
        let load = |member: &usize| self.loads[*member];
        let lightest = subscribers.iter().map(load).min().unwrap_or(0);
        let heaviest = subscribers.iter().map(load).max().unwrap_or(0);
        if heaviest - lightest <= 1 {
            return false;
        }

        let mut owned = vec![Vec::new(); self.spec.members.len()];
        for (partition, owner) in self.owners.0[topic].iter().enumerate() {
            if let Some(owner) = owner {
                owned[*owner as usize].push(partition);
            }
        }
        let mut least: BinaryHeap<_> = subscribers.iter().map(|m| Reverse((load(m), *m))).collect();
        let mut most: BinaryHeap<_> = subscribers
            .iter()
            .filter(|member| !owned[**member].is_empty())
            .map(|member| (load(member), Reverse(*member)))
            .collect();

        let mut moved = false;
        while let (Some((high, Reverse(from))), Some(Reverse((low, to)))) = (most.pop(), least.pop()) {
            // An entry is stale once its member's load has changed; a fresh one was pushed then.
            if high != self.loads[from] || owned[from].is_empty() {
                least.push(Reverse((low, to)));
                continue;
            }
            if low != self.loads[to] {
                most.push((high, Reverse(from)));
                continue;
            }
            if high <= low + 1 {
                break;
            }
            let Some(partition) = owned[from].pop() else { break };
            self.owners.set(topic, partition, to);
            owned[to].push(partition);
            self.loads[from] -= 1;
            self.loads[to] += 1;
            moved = true;
            for member in [from, to] {
                let load = self.loads[member];
                least.push(Reverse((load, member)));
                most.push((load, Reverse(member)));
            }
        }
        moved
    }
}
