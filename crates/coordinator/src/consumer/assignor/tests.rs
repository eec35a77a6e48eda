use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const A: Uuid = Uuid::from_u128(0xA);
const B: Uuid = Uuid::from_u128(0xB);

/// A group as a test writes it down: members with their topics and what they have.
#[derive(Debug, Clone, Default)]
struct Group {
    topics: BTreeMap<Uuid, i32>,
    members: BTreeMap<String, (BTreeSet<Uuid>, Target)>,
    instances: BTreeMap<String, String>,
    /// How long the last assignment took, without the test's own work.
    spent: Duration,
}

impl Group {
    fn new(topics: &[(Uuid, i32)]) -> Group {
        Group {
            topics: topics.iter().copied().collect(),
            ..Group::default()
        }
    }

    fn join(mut self, id: &str, topics: &[Uuid]) -> Group {
        let topics = topics.iter().copied().collect();
        self.members.insert(id.to_owned(), (topics, Target::new()));
        self
    }

    fn leave(mut self, id: &str) -> Group {
        self.members.remove(id).expect("a member");
        self
    }

    /// Assigns, and checks what is true of every assignment. Gives how many partitions changed hands.
    fn assign(&mut self, assignor: Assignor) -> usize {
        let subscribed: BTreeSet<Uuid> = self.members.values().flat_map(|(t, _)| t.clone()).collect();
        let topics: Vec<Topic> = subscribed
            .iter()
            .filter_map(|id| {
                let partitions = *self.topics.get(id)?;
                Some(Topic { id: *id, partitions })
            })
            .collect();
        let mut subscriptions: Vec<Vec<usize>> = Vec::new();
        let mut members = Vec::new();
        for (id, (wanted, current)) in &self.members {
            let subscription: Vec<usize> = (0..topics.len())
                .filter(|t| wanted.contains(&topics[*t].id))
                .collect();
            let known = subscriptions.iter().position(|s| *s == subscription);
            let subscription = known.unwrap_or_else(|| {
                subscriptions.push(subscription);
                subscriptions.len() - 1
            });
            members.push(MemberSpec {
                id,
                instance: self.instances.get(id).map(String::as_str),
                subscription,
                current: Some(current),
            });
        }
        let spec = Spec {
            topics,
            subscriptions,
            members,
        };
        let start = Instant::now();
        let targets = assignor.assign(&spec);
        let spent = start.elapsed();
        assert_eq!(targets.len(), self.members.len());

        let mut owners = BTreeMap::new();
        for (member, target) in spec.members.iter().zip(&targets) {
            for (topic, partitions) in target {
                assert!(self.members[member.id].0.contains(topic), "not subscribed");
                assert!(!partitions.is_empty() && partitions.is_sorted());
                for partition in partitions {
                    assert!((0..self.topics[topic]).contains(partition));
                    let before = owners.insert((*topic, *partition), member.id.to_owned());
                    assert_eq!(before, None, "two owners of {topic} {partition}");
                }
            }
        }
        let all: usize = spec.topics.iter().map(|t| t.partitions as usize).sum();
        assert_eq!(owners.len(), all, "every subscribed partition has an owner");

        let old: BTreeMap<(Uuid, i32), String> = self
            .members
            .iter()
            .flat_map(|(id, (_, target))| flat(target).map(move |at| (at, id.clone())))
            .collect();
        let moves = owners
            .iter()
            .filter(|(at, owner)| old.get(at).is_some_and(|before| before != *owner))
            .count();
        for ((_, target), new) in self.members.values_mut().zip(targets) {
            *target = new;
        }
        self.spent = spent;
        moves
    }

    fn target(&self, id: &str) -> &Target {
        &self.members[id].1
    }

    fn loads(&self) -> Vec<usize> {
        self.members
            .values()
            .map(|(_, target)| flat(target).count())
            .collect()
    }

    /// The most that any two members differ by.
    fn spread(&self) -> usize {
        let loads = self.loads();
        loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0)
    }

    /// Whether some partition could move to another subscriber of its topic and make the two more equal.
    fn improvable(&self) -> bool {
        self.members.values().any(|(_, from)| {
            from.keys().any(|topic| {
                self.members
                    .values()
                    .any(|(wanted, to)| wanted.contains(topic) && flat(to).count() + 1 < flat(from).count())
            })
        })
    }
}

fn flat(target: &Target) -> impl Iterator<Item = (Uuid, i32)> + '_ {
    target
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)))
}

fn target(parts: &[(Uuid, &[i32])]) -> Target {
    parts
        .iter()
        .map(|(topic, partitions)| (*topic, partitions.to_vec()))
        .collect()
}

#[test]
fn nobody_gets_nothing() {
    for assignor in Assignor::ALL {
        assert!(assignor.assign(&Spec::default()).is_empty());
        let mut group = Group::new(&[]).join("m", &[]).join("n", &[A]);
        group.assign(assignor);
        assert_eq!(group.loads(), [0, 0]);
        assert_eq!(Assignor::by_name(assignor.name()), Some(assignor));
    }
    assert_eq!(Assignor::by_name("sticky"), None);
}

#[test]
fn range_deals_equal_ranges_of_equal_topics_to_one_member() {
    let mut group = Group::new(&[(A, 5), (B, 5)])
        .join("m1", &[A, B])
        .join("m2", &[A, B]);
    group.assign(Assignor::Range);
    assert_eq!(*group.target("m1"), target(&[(A, &[0, 1, 2]), (B, &[0, 1, 2])]));
    assert_eq!(*group.target("m2"), target(&[(A, &[3, 4]), (B, &[3, 4])]));

    let mut group = group.join("m3", &[B]);
    group.assign(Assignor::Range);
    assert_eq!(*group.target("m1"), target(&[(A, &[0, 1, 2]), (B, &[0, 1])]));
    assert_eq!(*group.target("m2"), target(&[(A, &[3, 4]), (B, &[2, 3])]));
    assert_eq!(*group.target("m3"), target(&[(B, &[4])]));
}

#[test]
fn range_gives_none_to_those_beyond_the_partitions() {
    let mut group = Group::new(&[(A, 2)])
        .join("a", &[A])
        .join("b", &[A])
        .join("c", &[A]);
    group.assign(Assignor::Range);
    assert_eq!(group.loads(), [1, 1, 0]);
}

#[test]
fn range_orders_static_members_first_and_by_instance() {
    let mut group = Group::new(&[(A, 3)])
        .join("x", &[A])
        .join("y", &[A])
        .join("a", &[A]);
    group.instances.insert("x".into(), "i2".into());
    group.instances.insert("y".into(), "i1".into());
    group.assign(Assignor::Range);
    let before = group.target("y").clone();
    assert_eq!(before, target(&[(A, &[0])]));
    assert_eq!(*group.target("x"), target(&[(A, &[1])]));
    // The same instance under another member id gets the same range.
    let mut group = group.leave("y").join("zz", &[A]);
    group.instances.insert("zz".into(), "i1".into());
    group.assign(Assignor::Range);
    assert_eq!(*group.target("zz"), before);
}

#[test]
fn uniform_moves_no_more_than_it_must() {
    let mut group = Group::new(&[(A, 3), (B, 3)])
        .join("m1", &[A, B])
        .join("m2", &[A, B]);
    assert_eq!(group.assign(Assignor::Uniform), 0);
    assert_eq!(*group.target("m1"), target(&[(A, &[0, 1, 2])]));
    assert_eq!(*group.target("m2"), target(&[(B, &[0, 1, 2])]));

    let mut group = group.join("m3", &[A, B]);
    assert_eq!(group.assign(Assignor::Uniform), 2, "one from each");
    assert_eq!(group.loads(), [2, 2, 2]);

    let mut group = group.leave("m1");
    assert_eq!(group.assign(Assignor::Uniform), 0, "only what m1 had");
    assert_eq!(group.loads(), [3, 3]);

    let mut group = group.leave("m2").leave("m3").join("m4", &[A, B]);
    group.assign(Assignor::Uniform);
    assert_eq!(group.loads(), [6]);
}

#[test]
fn uniform_extras_stay_where_they_are() {
    // Four partitions for three members: the one with two keeps them, whoever comes first.
    let mut group = Group::new(&[(A, 4)])
        .join("z", &[A])
        .join("y", &[A])
        .join("x", &[A]);
    group.members.get_mut("z").expect("z").1 = target(&[(A, &[2, 3])]);
    assert_eq!(group.assign(Assignor::Uniform), 0);
    assert_eq!(*group.target("z"), target(&[(A, &[2, 3])]));
    assert_eq!(group.loads(), [1, 1, 2]);
}

#[test]
fn what_no_longer_exists_is_dropped_and_what_is_claimed_twice_has_one_owner() {
    for subscriptions in [[&[A][..], &[A][..]], [&[A][..], &[A, B][..]]] {
        let mut group = Group::new(&[(A, 2), (B, 1)])
            .join("m", subscriptions[0])
            .join("n", subscriptions[1]);
        let gone = Uuid::from_u128(7);
        let odd = target(&[(gone, &[0, 1]), (A, &[0, 1, 2, 9])]);
        group.members.get_mut("m").expect("m").1 = odd.clone();
        group.members.get_mut("n").expect("n").1 = odd;
        group.assign(Assignor::Uniform);
        assert!(group.spread() <= 1);
    }
}

#[test]
fn uniform_with_different_subscriptions_balances_through_chains() {
    let mut group = Group::new(&[(A, 6), (B, 6)])
        .join("a", &[A])
        .join("ab", &[A, B])
        .join("b", &[B]);
    group.assign(Assignor::Uniform);
    assert_eq!(group.loads(), [4, 4, 4]);
    // Only `a` is left of those who may own A: it takes all of A, and B is shared by the two others.
    let mut group = group.leave("ab").join("b2", &[B]);
    group.assign(Assignor::Uniform);
    assert_eq!(group.loads(), [6, 3, 3]);
}

fn groups(same: bool) -> impl Strategy<Value = Group> {
    let topics = prop::collection::vec(0..12i32, 1..5);
    let members = prop::collection::vec(any::<u8>(), 1..12);
    (topics, members).prop_map(move |(topics, members)| {
        let ids: Vec<Uuid> = (1..=topics.len() as u128).map(Uuid::from_u128).collect();
        let all: Vec<(Uuid, i32)> = ids.iter().copied().zip(topics).collect();
        let mut group = Group::new(&all);
        for (index, bits) in members.iter().enumerate() {
            let wanted: Vec<Uuid> = (0..ids.len())
                .filter(|t| same || bits & (1 << t) != 0)
                .map(|t| ids[t])
                .collect();
            group = group.join(&format!("m{index:02}"), &wanted);
        }
        group
    })
}

proptest! {
    #[test]
    fn uniform_is_balanced_and_sticky(mut group in groups(true), leaver in any::<prop::sample::Index>()) {
        group.assign(Assignor::Uniform);
        prop_assert!(group.spread() <= 1);
        let settled = group.clone();
        prop_assert_eq!(group.assign(Assignor::Uniform), 0);
        prop_assert_eq!(&group.members, &settled.members);

        // One joins: it alone gets partitions of others, and no more than its share.
        let topics: Vec<Uuid> = group.topics.keys().copied().collect();
        let mut group = group.join("new", &topics);
        let moves = group.assign(Assignor::Uniform);
        prop_assert!(group.spread() <= 1);
        prop_assert_eq!(moves, flat(group.target("new")).count());

        // One leaves: nobody else loses anything.
        let id = leaver.get(&group.members.keys().cloned().collect::<Vec<_>>()).clone();
        let mut group = group.leave(&id);
        if !group.members.is_empty() {
            let moves = group.assign(Assignor::Uniform);
            prop_assert!(group.spread() <= 1);
            prop_assert_eq!(moves, 0);
        }
    }

    #[test]
    fn uniform_with_any_subscriptions_cannot_be_improved_by_a_move(
        mut group in groups(false),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        group.assign(Assignor::Uniform);
        prop_assert!(!group.improvable());
        let ids: Vec<Uuid> = group.topics.keys().copied().collect();
        for (member, bits) in changes {
            let id = member.get(&group.members.keys().cloned().collect::<Vec<_>>()).clone();
            let wanted = ids.iter().enumerate().filter(|(t, _)| bits & (1 << t) != 0).map(|(_, id)| *id);
            group.members.get_mut(&id).expect("a member").0 = wanted.collect();
            group.assign(Assignor::Uniform);
            prop_assert!(!group.improvable());
        }
        let settled = group.clone();
        prop_assert_eq!(group.assign(Assignor::Uniform), 0);
        prop_assert_eq!(&group.members, &settled.members);
    }

    #[test]
    fn range_is_balanced_for_each_topic(mut group in groups(false)) {
        group.assign(Assignor::Range);
        for (topic, partitions) in &group.topics {
            let subscribers: Vec<_> = group.members.values().filter(|(t, _)| t.contains(topic)).collect();
            for (_, target) in &subscribers {
                let share = target.get(topic).map_or(0, Vec::len);
                let fair = *partitions as usize / subscribers.len();
                prop_assert!(share == fair || share == fair + 1);
                if let Some(range) = target.get(topic) {
                    prop_assert!(range.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                }
            }
        }
    }
}

/// Prints how long a group of 500 members and 5,000 partitions takes.
#[test]
fn big_groups() {
    let topics: Vec<(Uuid, i32)> = (1..=50).map(|t| (Uuid::from_u128(t), 100)).collect();
    let all: Vec<Uuid> = topics.iter().map(|(id, _)| *id).collect();
    for (name, assignor, same) in [
        ("uniform, one subscription", Assignor::Uniform, true),
        ("uniform, different subscriptions", Assignor::Uniform, false),
        ("range, one subscription", Assignor::Range, true),
        ("range, different subscriptions", Assignor::Range, false),
    ] {
        let mut group = Group::new(&topics);
        for member in 0..500 {
            let wanted: Vec<Uuid> = all
                .iter()
                .enumerate()
                .filter(|(t, _)| same || (t + member) % 5 != 0)
                .map(|(_, id)| *id)
                .collect();
            group = group.join(&format!("member-{member:04}"), &wanted);
        }
        group.assign(assignor);
        let first = group.spent;
        let mut group = group.leave("member-0100");
        let moves = group.assign(assignor);
        println!(
            "{name}: first {first:?}, after a leave {:?} ({moves} moves)",
            group.spent
        );
    }
}
