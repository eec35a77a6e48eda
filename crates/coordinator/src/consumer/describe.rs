//! ConsumerGroupDescribe.

use std::collections::BTreeMap;

use drumlin_wire::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use drumlin_wire::{Str, Uuid};

use super::Context;
use super::assignment::Target;
use super::group::ConsumerGroup;
use super::member::Member;
use crate::Topics;

/// The member types of version 1: 0 speaks the classic protocol.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

impl ConsumerGroup {
    /// The group as ConsumerGroupDescribe tells of it; authorized operations are the caller's to fill in.
    pub fn describe(&self, ctx: &Context<'_>) -> DescribedGroup {
        let member = |(id, member): (&Str, &Member)| self.describe_member(id, member, ctx.topics);
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Str::from_static(self.state().name()),
            group_epoch: self.epoch(),
            assignment_epoch: self.assignment_epoch(),
            assignor_name: Str::from_static(self.preferred_assignor(ctx).name()),
            members: self.members().map(member).collect(),
            ..DescribedGroup::default()
        }
    }

    fn describe_member(&self, id: &Str, member: &Member, topics: &dyn Topics) -> DescribedMember {
        let metadata = &member.metadata;
        // What is still to be given up is still owned.
        let mut owned = Target::new();
        for (topic, partitions) in member.current.assigned.iter().chain(&member.current.revoking) {
            owned.entry(*topic).or_default().extend(partitions.keys());
        }
        owned
            .values_mut()
            .for_each(|partitions| partitions.sort_unstable());
        let nothing = BTreeMap::new();
        DescribedMember {
            member_id: id.clone(),
            instance_id: metadata.instance_id.clone(),
            rack_id: metadata.rack_id.clone(),
            member_epoch: member.current.epoch,
            client_id: metadata.client_id.clone(),
            client_host: metadata.client_host.clone(),
            subscribed_topic_names: metadata.topics.iter().cloned().collect(),
            subscribed_topic_regex: Some(metadata.regex.clone()),
            assignment: assignment(&owned, topics),
            target_assignment: assignment(self.target(id).unwrap_or(&nothing), topics),
            member_type: if member.is_classic() { CLASSIC } else { CONSUMER },
            ..DescribedMember::default()
        }
    }
}

fn assignment(target: &Target, topics: &dyn Topics) -> Assignment {
    let topic = |(id, partitions): (&Uuid, &Vec<i32>)| {
        Some(TopicPartitions {
            topic_id: *id,
            topic_name: topics.by_id(*id)?.name,
            partitions: partitions.clone(),
            ..TopicPartitions::default()
        })
    };
    Assignment {
        topic_partitions: target.iter().filter_map(topic).collect(),
        ..Assignment::default()
    }
}
