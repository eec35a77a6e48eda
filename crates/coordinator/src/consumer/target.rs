//! From subscriptions to a target assignment: which topics exist, who is subscribed to what, who is to own
//! what. One pass over members, subscriptions and partitions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use drumlin_wire::{Str, Uuid};

use super::Context;
use super::assignment::Target;
use super::assignor::{Assignor, MemberSpec, Spec, Topic};
use super::group::{ConsumerGroup, State};
use super::member::Metadata;
use super::records::{AssignmentEpoch, Change};
use crate::{Record, Topics};

impl ConsumerGroup {
    /// Computes the target assignment for the group's epoch if there is none yet and the last one is old
    /// enough, and writes what it changes.
    pub(super) fn update_target(&mut self, ctx: &Context<'_>, records: &mut Vec<Record>) {
        if self.state.assignment.epoch >= self.state.epoch.epoch || !self.may_assign(ctx) {
            return;
        }
        let targets = self
            .state
            .compute_targets(self.preferred_assignor(ctx), ctx.topics);
        for (member, target) in targets {
            if self.state.targets.get(&member) != Some(&target) {
                self.emit(Change::Target(member, Some(target)), records);
            }
        }
        let epoch = AssignmentEpoch {
            epoch: self.state.epoch.epoch,
            timestamp: ctx.now.wall_ms,
        };
        self.emit(Change::AssignmentEpoch(Some(epoch)), records);
    }

    /// `group.consumer.assignment.interval.ms` must have passed since the last assignment, so that members
    /// who come one after another do not move everything each time. A clock that was set back is no reason
    /// to wait.
    fn may_assign(&self, ctx: &Context<'_>) -> bool {
        let last = self.state.assignment.timestamp;
        let interval = ctx
            .overrides
            .assignment_interval_ms
            .unwrap_or(ctx.config.consumer_assignment_interval_ms);
        let since = ctx.now.wall_ms.saturating_sub(last);
        last == 0 || interval <= 0 || since < 0 || since >= i64::from(interval)
    }

    /// The assignor that most members wish for, the one that is configured first among equals and if nobody
    /// wishes for one.
    pub(super) fn preferred_assignor(&self, ctx: &Context<'_>) -> Assignor {
        let mut wishes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.state.members.values() {
            if let Some(assignor) = &member.metadata.assignor {
                *wishes.entry(assignor).or_default() += 1;
            }
        }
        let configured = ctx.config.consumer_assignors.iter();
        let mut best: Option<(usize, Assignor)> = None;
        for name in configured {
            let Some(assignor) = Assignor::by_name(name) else {
                continue;
            };
            let votes = wishes.get(name).copied().unwrap_or(0);
            if best.is_none_or(|(most, _)| votes > most) {
                best = Some((votes, assignor));
            }
        }
        best.map_or(Assignor::Uniform, |(_, assignor)| assignor)
    }

    /// What the subscribed topics look like now, as a number that changes with their ids, their numbers of
    /// partitions and their replicas' racks. 0 if none exists.
    ///
    /// Kafka's (KIP-1101) is another function of the same things. It is only ever compared with one of the
    /// same broker software; a log that came from elsewhere costs one new epoch.
    pub(super) fn metadata_hash(&mut self, topics: &dyn Topics) -> i64 {
        let (version, hashes) = &mut self.soft.topic_hashes;
        if *version != topics.version() {
            *version = topics.version();
            hashes.clear();
        }
        let mut hash = Fnv::default();
        let mut any = false;
        for name in self.state.subscribed.keys() {
            let known = match hashes.get(name) {
                Some(known) => *known,
                None => *hashes
                    .entry(name.clone())
                    .or_insert_with(|| topic_hash(topics, name)),
            };
            if let Some(known) = known {
                hash.bytes(&known.to_be_bytes());
                any = true;
            }
        }
        if any { hash.finish() } else { 0 }
    }
}

fn topic_hash(topics: &dyn Topics, name: &str) -> Option<u64> {
    let view = topics.by_name(name)?;
    let mut hash = Fnv::default();
    hash.bytes(&view.id.0);
    hash.bytes(&view.partitions.to_be_bytes());
    for partition in 0..view.partitions {
        let mut racks = topics.racks(view.id, partition);
        racks.sort_unstable();
        hash.bytes(&racks.len().to_be_bytes());
        for rack in &racks {
            hash.bytes(&rack.len().to_be_bytes());
            hash.bytes(rack.as_bytes());
        }
    }
    Some(hash.0)
}

impl State {
    /// Whether a member's subscription holds a topic, by name or by what its expression matched.
    pub fn subscribes(&self, metadata: &Metadata, topic: &str) -> bool {
        metadata.topics.contains(topic)
            || self
                .regexes
                .get(&metadata.regex)
                .is_some_and(|resolved| resolved.topics.contains(topic))
    }

    fn compute_targets(&self, assignor: Assignor, topics: &dyn Topics) -> Vec<(Str, Target)> {
        let views: BTreeMap<&Str, Topic> = self
            .subscribed
            .keys()
            .filter_map(|name| {
                let view = topics.by_name(name)?;
                let topic = Topic {
                    id: view.id,
                    partitions: view.partitions,
                };
                Some((name, topic))
            })
            .collect();
        let mut known: Vec<Topic> = views.values().copied().collect();
        known.sort_unstable_by_key(|topic| topic.id);
        let index: HashMap<Uuid, usize> = known.iter().map(|topic| topic.id).zip(0..).collect();

        // Members mostly say the same: each different subscription is looked up once, and those that come to
        // the same topics are one.
        let mut said: HashMap<(&BTreeSet<Str>, &Str), usize> = HashMap::new();
        let mut meant: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut subscriptions: Vec<Vec<usize>> = Vec::new();
        let mut members = Vec::with_capacity(self.members.len());
        for (id, member) in &self.members {
            let metadata = &member.metadata;
            let subscription = *said
                .entry((&metadata.topics, &metadata.regex))
                .or_insert_with(|| {
                    let matched = self.regexes.get(&metadata.regex).map(|resolved| &resolved.topics);
                    let names = metadata.topics.iter().chain(matched.into_iter().flatten());
                    let mut wanted: Vec<usize> = names
                        .filter_map(|name| index.get(&views.get(name)?.id).copied())
                        .collect();
                    wanted.sort_unstable();
                    wanted.dedup();
                    *meant.entry(wanted).or_insert_with_key(|wanted| {
                        subscriptions.push(wanted.clone());
                        subscriptions.len() - 1
                    })
                });
            members.push(MemberSpec {
                id,
                instance: metadata.instance_id.as_deref(),
                subscription,
                current: self.targets.get(id),
            });
        }
        let spec = Spec {
            topics: known,
            subscriptions,
            members,
        };
        let targets = assignor.assign(&spec);
        self.members.keys().cloned().zip(targets).collect()
    }
}

/// FNV-1a: it must give the same on every machine and in every version of this software.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Never 0, which stands for no topics.
    fn finish(self) -> i64 {
        i64::from_be_bytes(self.0.max(1).to_be_bytes())
    }
}
