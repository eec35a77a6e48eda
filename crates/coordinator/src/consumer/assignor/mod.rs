//! Server-side assignors: who of a group's members is to own which partition.
//!
//! Pure functions over a [`Spec`]. They cannot fail: the specification holds only topics that exist, and
//! what members own of other topics is dropped. Work is linear in members, subscriptions and partitions,
//! but for a logarithm where subscriptions differ.
//!
//! Like Kafka's (4.3) they do not look at racks: a change of racks only makes the group compute a new
//! assignment.

mod range;
mod uniform;

use drumlin_wire::Uuid;

use super::assignment::Target;

/// A topic that some member is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A member, for an assignor.
#[derive(Debug, Clone)]
pub struct MemberSpec<'a> {
    /// Its id.
    pub id: &'a str,
    /// The instance id of a static member (KIP-345).
    pub instance: Option<&'a str>,
    /// Its subscription: an index into [`Spec::subscriptions`].
    pub subscription: usize,
    /// What it is to own so far.
    pub current: Option<&'a Target>,
}

/// What is to be assigned to whom.
#[derive(Debug, Clone, Default)]
pub struct Spec<'a> {
    /// The topics, ascending by id.
    pub topics: Vec<Topic>,
    /// The different subscriptions, each a list of indices into `topics`, ascending. A group whose members
    /// are all subscribed to the same topics has one.
    pub subscriptions: Vec<Vec<usize>>,
    /// The members, ascending by id.
    pub members: Vec<MemberSpec<'a>>,
}

/// An assignor that the coordinator has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// Members get equally many partitions, within one where their subscriptions agree, and keep what they
    /// have as far as that allows.
    Uniform,
    /// Each topic's partitions are dealt in ranges to its subscribers, in order of instance and member ids,
    /// so that equal ranges of topics with equally many partitions meet in one member.
    Range,
}

impl Assignor {
    /// All of them, the default first.
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// The assignor of this name.
    pub fn by_name(name: &str) -> Option<Assignor> {
        Assignor::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// Its name in `group.consumer.assignors` and in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// What each member is to own, in the order of [`Spec::members`]. Every partition of a topic that
    /// anybody is subscribed to is in exactly one of them.
    pub fn assign(self, spec: &Spec<'_>) -> Vec<Target> {
        if spec.members.is_empty() {
            return Vec::new();
        }
        match self {
            Assignor::Uniform => uniform::assign(spec),
            Assignor::Range => range::assign(spec),
        }
    }
}

impl Spec<'_> {
    fn partitions(&self, topic: usize) -> usize {
        usize::try_from(self.topics[topic].partitions).unwrap_or(0)
    }

    fn subscription(&self, member: usize) -> &[usize] {
        &self.subscriptions[self.members[member].subscription]
    }

    fn topic_index(&self, id: Uuid) -> Option<usize> {
        self.topics.binary_search_by_key(&id, |topic| topic.id).ok()
    }
}

/// Who is to own each partition: members by their index, topics by theirs.
struct Owners(Vec<Vec<Option<u32>>>);

impl Owners {
    fn new(spec: &Spec<'_>) -> Owners {
        let topics = 0..spec.topics.len();
        Owners(topics.map(|topic| vec![None; spec.partitions(topic)]).collect())
    }

    fn set(&mut self, topic: usize, partition: usize, member: usize) {
        self.0[topic][partition] = u32::try_from(member).ok();
    }

    /// A place that nobody has yet, if the topic has such a partition.
    fn is_free(&self, topic: usize, partition: i32) -> Option<usize> {
        let partition = usize::try_from(partition).ok()?;
        self.0[topic].get(partition)?.is_none().then_some(partition)
    }

    fn into_targets(self, spec: &Spec<'_>) -> Vec<Target> {
        let mut targets = vec![Target::new(); spec.members.len()];
        for (topic, owners) in spec.topics.iter().zip(self.0) {
            for (partition, owner) in (0..).zip(owners) {
                if let Some(target) = owner.and_then(|owner| targets.get_mut(owner as usize)) {
                    target.entry(topic.id).or_default().push(partition);
                }
            }
        }
        targets
    }
}

#[cfg(test)]
mod tests;
