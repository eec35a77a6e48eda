//! Options that Kafka does not have: the object store, the write-ahead log, caches, the process itself.

use crate::config::spec::OptionSpec;

// One row an option, so that rows can be compared and searched.
#[rustfmt::skip]
pub(super) const OWN: &[OptionSpec] = &[
    OptionSpec::string("admin.listener").default("localhost:9644").doc("Address of the HTTP listener for health and metrics, as `host:port`; empty for none."),
    OptionSpec::string("cache.dir").default("./drumlin-cache").non_empty().doc("Directory of the caches on local disk. Used with a remote store only; it holds nothing that cannot be fetched again."),
    OptionSpec::long("cache.disk.bytes").default("10737418240").at_least(0).doc("Disk space that the caches may take; 0 for none."),
    OptionSpec::long("cache.memory.bytes").default("67108864").at_least(0).doc("Memory that the block cache may take."),
    OptionSpec::long("cold.read.inflight.bytes").default("67108864").at_least(1048576).doc("Bytes that reads of old data may have under way from the object store at one time, over all consumers."),
    OptionSpec::string("drumlin.test.store.faults").hidden().doc("Seed of injected store faults. For tests only."),
    OptionSpec::int("drumlin.test.store.put.ms").default("0").at_least(0).hidden().doc("Delay that is added to each put. For tests and benchmarks only."),
    OptionSpec::long("hot.memory.bytes").default("67108864").at_least(0).doc("Memory that keeps the newest committed data for readers at the tail."),
    OptionSpec::boolean("local.store.buffered").default("false").doc("Write a local store through the page cache, even where the file system takes direct writes."),
    OptionSpec::string("log.format").default("text").one_of(&["text", "json"]).doc("Form of the lines that the broker logs."),
    OptionSpec::long("produce.timeout.min.ms").default("10000").between(0, 300000).doc("Shortest time after which a produce request fails because its records are not durable, whatever `timeout.ms` it brings: a put that is under way cannot be taken back, so that a shorter wait fails requests whose records are stored. Keep it below the clients' `request.timeout.ms`."),
    OptionSpec::string("record.validation").default("full").one_of(&["full", "header"]).doc("How much of a produced batch is looked at: `full` each record, as Kafka does, so that what cannot be read is refused and a wrong greatest timestamp is corrected; `header` the header and its CRC only, for producers that are trusted to send both right. Topics that are compacted are always checked in full."),
    OptionSpec::long("seal.round.bytes").default("2147483648").at_least(1048576).doc("Unsealed bytes at which a sealing round ends before its time."),
    OptionSpec::long("seal.round.ms").default("60000").at_least(100).doc("Time after which a sealing round ends."),
    OptionSpec::long("seal.segment.min.bytes").default("16777216").at_least(1).doc("Unsealed bytes from which a partition gets a segment of its own in a round; less goes into the round's bundle."),
    OptionSpec::long("shutdown.timeout.ms").default("25000").at_least(0).doc("How long a stop by SIGTERM or SIGINT may take to flush and answer what is under way."),
    OptionSpec::long("store.start.timeout.ms").default("60000").at_least(0).doc("How long an unreachable store is tried again at start before the broker gives up."),
    OptionSpec::string("store.url").default("file://./drumlin-data").non_empty().doc("Where the log is stored: `file:///dir` (or `file://./dir`), `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `memory:`. Credentials and endpoint come from the usual `AWS_*`, `GOOGLE_*` and `AZURE_*` variables."),
    OptionSpec::long("wal.flush.bytes").default("8388608").between(65536, 67108864).doc("Size at which a WAL object is put."),
    OptionSpec::int("wal.linger.max.ms").default("-1").between(-1, 10000).doc("Longest time that records wait for a WAL object to fill; -1 for 5 ms on a local store and 100 ms on any other."),
    OptionSpec::int("wal.puts.per.second").default("10").between(1, 1000).doc("Most WAL puts a second on a remote store, each of which costs money; also the burst."),
    OptionSpec::long("wal.unflushed.max.bytes").default("67108864").at_least(1048576).doc("Bytes taken and not yet durable over which produce requests wait, and then fail retriably."),
    OptionSpec::int("wal.window").default("16").between(1, 16).doc("Most WAL puts under way at a time. Fencing counts on 16 at most."),
];
