//! Options of a single group (ConfigResource GROUP), with the broker options that give their defaults.

use super::reasons::{SHARE, STREAMS};
use crate::config::spec::OptionSpec;

// One row an option, so that rows can be compared and searched.
#[rustfmt::skip]
pub(super) const GROUP: &[OptionSpec] = &[
    OptionSpec::int("consumer.assignment.interval.ms").default("1000").at_least(0).synonyms(&[("group.consumer.assignment.interval.ms", 1)]).doc("Least time between two assignments of this consumer group."),
    OptionSpec::int("consumer.heartbeat.interval.ms").default("5000").at_least(1).synonyms(&[("group.consumer.heartbeat.interval.ms", 1)]).doc("How often members of this consumer group are told to heartbeat."),
    OptionSpec::int("consumer.session.timeout.ms").default("45000").at_least(1).synonyms(&[("group.consumer.session.timeout.ms", 1)]).doc("After how long without a heartbeat a member of this consumer group is gone."),
    OptionSpec::int("share.assignment.interval.ms").default("1000").at_least(0).synonyms(&[("group.share.assignment.interval.ms", 1)]).planned(SHARE),
    OptionSpec::string("share.auto.offset.reset").default("latest").offset_reset().planned(SHARE),
    OptionSpec::int("share.delivery.count.limit").default("5").at_least(2).synonyms(&[("group.share.delivery.count.limit", 1)]).planned(SHARE),
    OptionSpec::int("share.heartbeat.interval.ms").default("5000").at_least(1).synonyms(&[("group.share.heartbeat.interval.ms", 1)]).planned(SHARE),
    OptionSpec::string("share.isolation.level").default("read_uncommitted").one_of(&["read_committed", "read_uncommitted"]).planned(SHARE),
    OptionSpec::int("share.partition.max.record.locks").default("2000").at_least(100).synonyms(&[("group.share.partition.max.record.locks", 1)]).planned(SHARE),
    OptionSpec::int("share.record.lock.duration.ms").default("30000").at_least(1000).synonyms(&[("group.share.record.lock.duration.ms", 1)]).planned(SHARE),
    OptionSpec::boolean("share.renew.acknowledge.enable").default("true").planned(SHARE),
    OptionSpec::int("share.session.timeout.ms").default("45000").at_least(1).synonyms(&[("group.share.session.timeout.ms", 1)]).planned(SHARE),
    OptionSpec::int("streams.assignment.interval.ms").default("1000").at_least(0).synonyms(&[("group.streams.assignment.interval.ms", 1)]).planned(STREAMS),
    OptionSpec::int("streams.heartbeat.interval.ms").default("5000").at_least(1).synonyms(&[("group.streams.heartbeat.interval.ms", 1)]).planned(STREAMS),
    OptionSpec::int("streams.initial.rebalance.delay.ms").default("3000").at_least(0).synonyms(&[("group.streams.initial.rebalance.delay.ms", 1)]).planned(STREAMS),
    OptionSpec::int("streams.num.standby.replicas").default("0").at_least(0).synonyms(&[("group.streams.num.standby.replicas", 1)]).planned(STREAMS),
    OptionSpec::int("streams.session.timeout.ms").default("45000").at_least(1).synonyms(&[("group.streams.session.timeout.ms", 1)]).planned(STREAMS),
];
