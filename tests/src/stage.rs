//! Where groups are tried out: a broker whose groups gather and miss members quickly,
//! and topics that are fed. For tests: what fails here is a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::{Broker, Options};
use crate::client::Connection;
use crate::members::{Kind, Member, Plan, SESSION, committed};
use crate::scratch::Scratch;

/// Options that make a broker's groups gather quickly and miss members after three seconds.
pub fn quick_groups(options: Options) -> Options {
    options
        .set("group.initial.rebalance.delay.ms", 300)
        .set("group.min.session.timeout.ms", 1_000)
        .set("group.consumer.min.session.timeout.ms", 1_000)
        .set("group.consumer.session.timeout.ms", SESSION.as_millis())
        .set("group.consumer.min.heartbeat.interval.ms", 100)
        .set("group.consumer.heartbeat.interval.ms", 500)
        .set("group.consumer.assignment.interval.ms", 0)
}

/// Has groups of KIP-848 miss nobody for long, as [`Plan::patient`] does with classic members.
pub fn patient_groups(options: Options) -> Options {
    options.set("group.consumer.session.timeout.ms", 30_000)
}

/// A broker with a folder of its own.
pub struct Stage {
    /// The broker.
    pub broker: Broker,
    /// For what members print and the broker keeps.
    pub scratch: Scratch,
}

impl Stage {
    /// A broker with [`quick_groups`] on a local directory.
    pub fn new(name: &str) -> Stage {
        Stage::with(name, |options| options)
    }

    /// The same with other options besides.
    pub fn with(name: &str, more: impl FnOnce(Options) -> Options) -> Stage {
        let scratch = Scratch::new(name).expect("a folder");
        let options = more(quick_groups(Options::local(&scratch.join("broker"))));
        let broker = Broker::start(options).expect("a broker");
        Stage { broker, scratch }
    }

    /// A connection to it.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.broker.bootstrap(), Duration::from_secs(60)).expect("a connection")
    }

    /// Makes a topic.
    pub fn topic(&self, name: &str, partitions: i32) -> Topic {
        let mut connection = self.connect();
        connection.create_topic(name, partitions, &[]).expect("a topic");
        Topic {
            name: name.to_owned(),
            partitions,
            fed: BTreeSet::new(),
            connection,
        }
    }

    /// A plan for members that read a topic.
    pub fn plan(&self, topic: &Topic, group: &str) -> Plan {
        Plan::new(&self.broker.bootstrap(), &topic.name, group)
    }

    /// Starts a member.
    pub fn member(&self, kind: Kind, plan: &Plan, name: &str) -> Member {
        Member::start(kind, plan, self.scratch.path(), &format!("{}-{name}", plan.group)).expect("a member")
    }

    /// What a group has committed.
    pub fn committed(&self, plan: &Plan, partitions: i32) -> BTreeMap<i32, i64> {
        committed(&self.broker.bootstrap(), &plan.group, &plan.topic, partitions).expect("offsets")
    }
}

/// A topic and all that was sent to it.
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Every value, each another.
    pub fed: BTreeSet<String>,
    /// For this and other requests.
    pub connection: Connection,
}

impl Topic {
    /// Connects again, to a broker that was started again.
    pub fn reconnect(&mut self, stage: &Stage) {
        self.connection = stage.connect();
    }

    /// Adds records to each partition.
    pub fn feed(&mut self, count: usize) {
        let from = self.fed.len();
        for p in 0..self.partitions {
            let values: Vec<String> = (from..from + count).map(|n| format!("{p}-{n}")).collect();
            self.connection
                .produce_surely(&self.name, p, &values)
                .expect("records are accepted");
            self.fed.extend(values);
        }
    }
}
