//! Options of a topic, with the broker options that give their defaults.

use super::reasons::{QUOTAS, REPLICATION, ROLL, STORAGE, TIERED};
use crate::config::spec::OptionSpec;

// One row an option, so that rows can be compared and searched.
#[rustfmt::skip]
pub(super) const TOPIC: &[OptionSpec] = &[
    OptionSpec::list("cleanup.policy").default("delete").subset_of(&["compact", "delete"]).synonyms(&[("log.cleanup.policy", 1)]).doc("What happens to old data: `delete` drops it by time and size, `compact` keeps the newest record of each key and refuses records without a key; empty keeps everything."),
    OptionSpec::int("compression.gzip.level").default("-1").between_or_minus_one(1, 9).synonyms(&[("compression.gzip.level", 1)]).doc("Level when `compression.type` is gzip: 1 to 9, -1 for the codec's own."),
    OptionSpec::int("compression.lz4.level").default("9").between(1, 17).synonyms(&[("compression.lz4.level", 1)]).doc("Level when `compression.type` is lz4."),
    OptionSpec::string("compression.type").default("producer").one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]).synonyms(&[("compression.type", 1)]).doc("Codec that batches are stored with; `producer` keeps them as they come."),
    OptionSpec::int("compression.zstd.level").default("3").between(-131072, 22).synonyms(&[("compression.zstd.level", 1)]).doc("Level when `compression.type` is zstd."),
    OptionSpec::long("delete.retention.ms").default("86400000").at_least(0).synonyms(&[("log.cleaner.delete.retention.ms", 1)]).doc("How long a tombstone of a compacted topic stays after it was cleaned first, for consumers that are slow."),
    OptionSpec::long("file.delete.delay.ms").default("60000").at_least(0).synonyms(&[("log.segment.delete.delay.ms", 1)]).kept(STORAGE),
    OptionSpec::long("flush.messages").default("9223372036854775807").at_least(1).synonyms(&[("log.flush.interval.messages", 1)]).kept(STORAGE),
    OptionSpec::long("flush.ms").default("9223372036854775807").at_least(0).synonyms(&[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)]).kept(STORAGE),
    OptionSpec::list("follower.replication.throttled.replicas").default("").throttled_replicas().planned(QUOTAS),
    OptionSpec::int("index.interval.bytes").default("4096").at_least(0).synonyms(&[("log.index.interval.bytes", 1)]).kept(STORAGE),
    OptionSpec::int("internal.segment.bytes").hidden().kept(STORAGE),
    OptionSpec::list("leader.replication.throttled.replicas").default("").throttled_replicas().planned(QUOTAS),
    OptionSpec::long("local.retention.bytes").default("-2").at_least(-2).synonyms(&[("log.local.retention.bytes", 1)]).kept(TIERED),
    OptionSpec::long("local.retention.ms").default("-2").at_least(-2).synonyms(&[("log.local.retention.ms", 1)]).kept(TIERED),
    OptionSpec::long("max.compaction.lag.ms").default("9223372036854775807").at_least(1).synonyms(&[("log.cleaner.max.compaction.lag.ms", 1)]).doc("After this a record of a compacted topic is due for compaction however little is dirty."),
    OptionSpec::int("max.decompressed.message.bytes").default("2147483639").at_least(1).synonyms(&[("max.decompressed.message.bytes", 1)]).doc("Largest record that a compressed batch of this topic may hold, decompressed and without its length. Apache Kafka has it from 4.4 on."),
    OptionSpec::int("max.message.bytes").default("1048588").at_least(0).synonyms(&[("message.max.bytes", 1)]).doc("Largest record batch that this topic accepts."),
    OptionSpec::long("message.timestamp.after.max.ms").default("3600000").at_least(0).synonyms(&[("log.message.timestamp.after.max.ms", 1)]).doc("How far in the future a producer's timestamp may lie."),
    OptionSpec::long("message.timestamp.before.max.ms").default("9223372036854775807").at_least(0).synonyms(&[("log.message.timestamp.before.max.ms", 1)]).doc("How far in the past a producer's timestamp may lie."),
    OptionSpec::string("message.timestamp.type").default("CreateTime").one_of(&["CreateTime", "LogAppendTime"]).synonyms(&[("log.message.timestamp.type", 1)]).doc("Whether a record carries the time its producer gave (CreateTime) or that of its append (LogAppendTime)."),
    OptionSpec::double("min.cleanable.dirty.ratio").default("0.5").ratio().synonyms(&[("log.cleaner.min.cleanable.ratio", 1)]).doc("Share of a compacted topic that must be dirty before it is compacted again."),
    OptionSpec::long("min.compaction.lag.ms").default("0").at_least(0).synonyms(&[("log.cleaner.min.compaction.lag.ms", 1)]).doc("How long a record of a compacted topic is left as it is."),
    OptionSpec::int("min.insync.replicas").default("1").at_least(1).synonyms(&[("min.insync.replicas", 1)]).kept(REPLICATION),
    OptionSpec::boolean("preallocate").default("false").synonyms(&[("log.preallocate", 1)]).kept(STORAGE),
    OptionSpec::boolean("remote.log.copy.disable").default("false").kept(TIERED),
    OptionSpec::boolean("remote.log.delete.on.disable").default("false").kept(TIERED),
    OptionSpec::boolean("remote.storage.enable").default("false").kept(TIERED),
    OptionSpec::long("retention.bytes").default("-1").at_least(-1).synonyms(&[("log.retention.bytes", 1)]).doc("How much of a partition is kept; -1 without bound. Whole segments are dropped, oldest first, while at least this much stays."),
    OptionSpec::long("retention.ms").default("604800000").at_least(-1).synonyms(&[("log.retention.ms", 1), ("log.retention.minutes", 60000), ("log.retention.hours", 3600000)]).doc("How long records are kept; -1 for ever."),
    OptionSpec::int("segment.bytes").default("67108864").at_least(1048576).synonyms(&[("log.segment.bytes", 1)]).doc("Largest segment object. One is never larger than what a sealing round gathers of its partition either. Kafka's default is 1073741824."),
    OptionSpec::int("segment.index.bytes").default("10485760").at_least(4).synonyms(&[("log.index.size.max.bytes", 1)]).kept(STORAGE),
    OptionSpec::long("segment.jitter.ms").default("0").at_least(0).synonyms(&[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3600000)]).kept(STORAGE),
    OptionSpec::long("segment.ms").default("604800000").at_least(1).synonyms(&[("log.roll.ms", 1), ("log.roll.hours", 3600000)]).kept(ROLL),
    OptionSpec::boolean("unclean.leader.election.enable").default("false").synonyms(&[("unclean.leader.election.enable", 1)]).kept(REPLICATION),
];
