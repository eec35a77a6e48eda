//! What operators and admin clients rely on, over the whole of the configuration.

use std::time::Duration;

use super::live::ConfigSource::{
    Default as Fallback, DynamicBroker, DynamicDefaultBroker, StaticBroker, Topic,
};
use super::*;

/// The options that Apache Kafka 4.3.1 ships set in its `server.properties`.
const STOCK: &str = "
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn live(pairs: &[(&str, &str)]) -> Live {
    Live::new(Settings::from_pairs(pairs.iter().copied()).unwrap())
}

fn broker(pairs: &[(&str, &str)]) -> Result<BrokerConfig, String> {
    BrokerConfig::new(live(pairs)).map_err(|error| error.to_string())
}

#[test]
fn a_stock_server_properties_starts() {
    let file = Some(("server.properties".to_owned(), STOCK.to_owned()));
    let loaded = Settings::load(&Sources {
        file,
        ..Sources::default()
    })
    .unwrap();
    let warned = loaded.warnings.join("\n");
    for name in [
        "log.dirs",
        "num.io.threads",
        "controller.quorum.bootstrap.servers",
        "transaction.state.log.min.isr",
    ] {
        assert_eq!(warned.matches(name).count(), 1, "{name} in {warned}");
    }
    for name in ["listeners", "log.retention.hours", "socket.send.buffer.bytes"] {
        assert!(!warned.contains(name), "{name} in {warned}");
    }
    let config = BrokerConfig::new(Live::new(loaded.settings)).unwrap();
    assert_eq!(config.node_id, 1);
    let names: Vec<&str> = config
        .listeners
        .listeners
        .iter()
        .map(|l| l.name.as_str())
        .collect();
    assert_eq!(names, ["PLAINTEXT"]);
    let plaintext = &config.listeners.listeners[0];
    let candidates: Vec<String> = plaintext
        .bind_candidates()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(candidates, ["[::]:9092", "0.0.0.0:9092"]);
    assert_eq!(plaintext.advertised(9092).to_string(), "localhost:9092");
    assert_eq!(config.listeners.inter_broker, "PLAINTEXT");
    assert_eq!(config.topic_defaults.retention_ms, Some(604_800_000));
    assert_eq!(config.topic_defaults.segment_bytes, 1 << 30);
    assert_eq!(config.network.send_buffer, Some(102_400));
}

#[test]
fn defaults_are_sound() {
    let config = broker(&[]).unwrap();
    let cwd = std::env::current_dir().unwrap();
    assert_eq!(config.store.local_dir, Some(cwd.join("drumlin-data")));
    assert_eq!(config.store.url, format!("file://{}/drumlin-data", cwd.display()));
    assert_eq!(config.cache.dir, cwd.join("drumlin-cache"));
    let listener = &config.listeners.listeners[0];
    assert_eq!(
        (listener.name.as_str(), listener.bind.to_string().as_str()),
        ("PLAINTEXT", "localhost:9092")
    );
    assert_eq!(config.wal.linger_max, Duration::from_millis(5));
    assert_eq!(config.wal.flush_bytes.to_string(), "8 MiB");
    assert_eq!(config.admin.unwrap().to_string(), "localhost:9644");
    assert_eq!(config.network.max_idle, Some(Duration::from_secs(600)));
    assert_eq!(config.seal.bundle_max_age, Duration::from_secs(86_400));
    assert_eq!(
        broker(&[("log.roll.ms", "5")]).unwrap().seal.bundle_max_age,
        Duration::from_millis(5)
    );
    assert_eq!(
        broker(&[("log.roll.hours", "2")]).unwrap().seal.bundle_max_age,
        Duration::from_secs(7200)
    );
    assert_eq!(config.topics.num_partitions, 1);
    assert!(config.topics.auto_create);
    let topic = config.topic_defaults;
    assert_eq!(
        topic.cleanup,
        CleanupPolicy {
            delete: true,
            compact: false
        }
    );
    assert_eq!((topic.retention_bytes, topic.gzip_level), (None, None));
    assert_eq!(
        (topic.segment_bytes, topic.max_message_bytes),
        (64 << 20, 1_048_588)
    );
    assert_eq!(topic.compression, CompressionType::Producer);
    assert_eq!(topic.timestamp_type, TimestampType::CreateTime);
}

#[test]
fn stores() {
    for (url, expected) in [
        ("memory:", "memory:"),
        ("file:///var/lib/drumlin/", "file:///var/lib/drumlin"),
        ("file:/var/lib/drumlin", "file:///var/lib/drumlin"),
        ("file:///a%20b/100%/c#d", "file:///a b/100%25/c%23d"),
        ("s3://bucket/pre/fix", "s3://bucket/pre/fix"),
        ("gs://bucket", "gs://bucket"),
        ("az://container/x", "az://container/x"),
    ] {
        let config = broker(&[("store.url", url)]).unwrap();
        assert_eq!(config.store.url, expected);
        let linger = if url.starts_with("file") { 5 } else { 100 };
        assert_eq!(config.wal.linger_max, Duration::from_millis(linger), "{url}");
    }
    for (url, reason) in [
        ("s3:///prefix", "`s3:///prefix` names no bucket"),
        ("file://", "`file://` names no directory"),
        (
            "/var/lib",
            "`/var/lib` is none of file:///dir, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, memory:",
        ),
    ] {
        assert_eq!(
            broker(&[("store.url", url)]).unwrap_err(),
            format!("option `store.url` (the program): {reason}")
        );
    }
}

#[test]
fn listeners_are_opened_and_advertised() {
    let config = broker(&[
        (
            "listeners",
            "plaintext://:0, INTERNAL://[::1]:9094 ,EXTERNAL://0.0.0.0:9095,C://:9096,SECURE://:9097",
        ),
        (
            "advertised.listeners",
            "EXTERNAL://broker-1.example.com:29095,PLAINTEXT://127.0.0.1:0",
        ),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,INTERNAL:plaintext,EXTERNAL:PLAINTEXT,SECURE:SSL,OTHER:SASL_SSL",
        ),
        ("controller.listener.names", "c,secure"),
        ("inter.broker.listener.name", "internal"),
    ])
    .unwrap();
    let told: Vec<String> = config
        .listeners
        .listeners
        .iter()
        .zip(40001..)
        .map(|(l, port)| {
            format!(
                "{} {} {}",
                l.name,
                l.bind,
                l.advertised(if l.bind.port == 0 { port } else { l.bind.port })
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "PLAINTEXT :0 127.0.0.1:40001",
            "INTERNAL [::1]:9094 [::1]:9094",
            "EXTERNAL 0.0.0.0:9095 broker-1.example.com:29095",
        ]
    );
    assert_eq!(config.listeners.inter_broker, "INTERNAL");
    // Listening everywhere without an advertised address: a name that can be looked up.
    let config = broker(&[("listeners", "PLAINTEXT://:0")]).unwrap();
    let told = config.listeners.listeners[0].advertised(4711);
    assert!(!told.host.is_empty() && told.port == 4711, "{told}");
    let config = broker(&[("listeners", "PLAINTEXT://localhost:0")]).unwrap();
    assert_eq!(
        config.listeners.listeners[0].advertised(4711).to_string(),
        "localhost:4711"
    );
}

#[test]
fn listeners_that_cannot_be_are_refused() {
    for (pairs, message) in [
        (
            vec![("listeners", "SSL://:9093")],
            "option `listeners` (the program): listener SSL uses SSL, which is not there yet: only PLAINTEXT \
             listeners can be opened",
        ),
        (
            vec![("listeners", "PLAINTEXT://:9092,SASL_SSL://:9093")],
            "option `listeners` (the program): listener SASL_SSL uses SASL_SSL, which is not there yet: only \
             PLAINTEXT listeners can be opened",
        ),
        (
            vec![("listeners", "INTERNAL://:9093")],
            "option `listener.security.protocol.map`: it has no protocol for listener INTERNAL",
        ),
        (
            vec![("listener.security.protocol.map", "PLAINTEXT:PLAIN")],
            "option `listener.security.protocol.map` (the program): `PLAIN` is not one of PLAINTEXT, SSL, \
             SASL_PLAINTEXT, SASL_SSL",
        ),
        (
            vec![("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")],
            "option `advertised.listeners` (the program): clients cannot connect to 0.0.0.0:9092: give a host \
             name or address for PLAINTEXT",
        ),
        (
            vec![("advertised.listeners", "EXTERNAL://a:9092")],
            "option `advertised.listeners` (the program): `listeners` has no listener named EXTERNAL",
        ),
        (
            vec![("inter.broker.listener.name", "INTERNAL")],
            "option `inter.broker.listener.name` (the program): `listeners` has no listener named INTERNAL that is opened",
        ),
        (
            vec![("controller.listener.names", "PLAINTEXT")],
            "option `listeners`: no listener is left to open for clients",
        ),
        (
            vec![("listeners", "")],
            "option `listeners` (the program): no listener is left to open for clients",
        ),
        (
            vec![("listeners", "localhost:9092")],
            "option `listeners` (the program): `localhost:9092` is not of the form NAME://host:port",
        ),
        (
            vec![("listeners", "PLAINTEXT://localhost")],
            "option `listeners` (the program): `PLAINTEXT://localhost`: `localhost` has no port",
        ),
        (
            vec![("listeners", "PLAINTEXT://localhost:70000")],
            "option `listeners` (the program): `PLAINTEXT://localhost:70000`: `70000` is not a port (0 to 65535)",
        ),
        (
            vec![("listeners", "PLAINTEXT://::1:9092")],
            "option `listeners` (the program): `PLAINTEXT://::1:9092`: `::1` needs brackets if it is an IPv6 address",
        ),
        (
            vec![("listeners", "PLAINTEXT://a:1,plaintext://b:2")],
            "option `listeners` (the program): listener PLAINTEXT stands in it twice",
        ),
        (
            vec![("listeners", "PLAINTEXT://a:1,B://b:1")],
            "option `listeners` (the program): listeners PLAINTEXT and B have the same port 1",
        ),
    ] {
        assert_eq!(broker(&pairs).unwrap_err(), message);
    }
    let both = [
        ("listeners", "PLAINTEXT://127.0.0.1:9092,SIX://[::1]:9092"),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,SIX:PLAINTEXT",
        ),
    ];
    assert_eq!(broker(&both).unwrap().listeners.listeners.len(), 2);
}

#[test]
fn options_that_disagree_are_refused() {
    for (pairs, message) in [
        (
            vec![("process.roles", "controller")],
            "option `process.roles` (the program): it must have `broker`: there are no processes without that role",
        ),
        (
            vec![("node.id", "1"), ("broker.id", "2")],
            "option `broker.id` (the program): 2 differs from `node.id`, which is 1",
        ),
        (
            vec![
                ("wal.unflushed.max.bytes", "16777216"),
                ("wal.flush.bytes", "33554432"),
            ],
            "option `wal.unflushed.max.bytes` (the program): 16 MiB is less than `wal.flush.bytes`, which is 32 MiB",
        ),
        (
            vec![("max.connections.per.ip.overrides", "10.0.0.1")],
            "option `max.connections.per.ip.overrides` (the program): `10.0.0.1` is not of the form address:count",
        ),
        (
            vec![("admin.listener", "9644")],
            "option `admin.listener` (the program): `9644` has no port",
        ),
        (
            vec![("drumlin.test.store.faults", "x")],
            "option `drumlin.test.store.faults` (the program): `x` is not a seed",
        ),
    ] {
        assert_eq!(broker(&pairs).unwrap_err(), message);
    }
    assert_eq!(broker(&[("broker.id", "7")]).unwrap().node_id, 7);
    assert_eq!(
        broker(&[("broker.id", "7"), ("node.id", "7")]).unwrap().node_id,
        7
    );
    assert_eq!(broker(&[("admin.listener", "")]).unwrap().admin, None);
    let config = broker(&[("max.connections.per.ip.overrides", "10.0.0.1:5,[::1]:6")]).unwrap();
    assert_eq!(
        config
            .network
            .per_ip_overrides
            .values()
            .copied()
            .collect::<Vec<usize>>(),
        [5, 6]
    );
}

#[test]
fn a_topic_takes_what_it_does_not_override_from_the_broker() {
    let at_start = live(&[
        ("log.retention.hours", "2"),
        ("log.segment.bytes", "2097152"),
        ("compression.type", "zstd"),
    ]);
    let resolve = |live: &Live, pairs: &[(&str, &str)]| TopicConfig::resolve(&overrides(pairs), live);
    assert_eq!(resolve(&at_start, &[]).retention_ms, Some(7_200_000));
    assert_eq!(resolve(&at_start, &[]).segment_bytes, 2 << 20);
    assert_eq!(resolve(&at_start, &[]).compression, CompressionType::Zstd);
    assert_eq!(
        resolve(
            &live(&[("log.retention.hours", "2"), ("log.retention.minutes", "5")]),
            &[]
        )
        .retention_ms,
        Some(300_000)
    );
    assert_eq!(
        resolve(&live(&[("log.retention.hours", "-1")]), &[]).retention_ms,
        None
    );
    assert_eq!(resolve(&at_start, &[("retention.ms", "-1")]).retention_ms, None);

    let altered = at_start.altered(overrides(&[("log.retention.ms", "7")]), overrides(&[]));
    assert_eq!(resolve(&altered, &[]).retention_ms, Some(7));
    let altered = at_start.altered(
        overrides(&[("log.retention.ms", "7")]),
        overrides(&[("log.retention.ms", "8")]),
    );
    assert_eq!(resolve(&altered, &[]).retention_ms, Some(8));
    assert_eq!(resolve(&altered, &[("retention.ms", "9")]).retention_ms, Some(9));
    // An override that this version cannot read is passed over.
    assert_eq!(
        resolve(&altered, &[("retention.ms", "long"), ("x", "y")]).retention_ms,
        Some(8)
    );

    let topic = resolve(
        &at_start,
        &[
            ("cleanup.policy", "compact,delete"),
            ("message.timestamp.type", "LogAppendTime"),
            ("compression.type", "gzip"),
            ("compression.gzip.level", "9"),
            ("retention.bytes", "1000"),
            ("min.cleanable.dirty.ratio", "0.25"),
        ],
    );
    assert_eq!(
        topic.cleanup,
        CleanupPolicy {
            delete: true,
            compact: true
        }
    );
    assert_eq!(
        (topic.timestamp_type, topic.compression),
        (TimestampType::LogAppendTime, CompressionType::Gzip)
    );
    assert_eq!((topic.gzip_level, topic.retention_bytes), (Some(9), Some(1000)));
    assert!((topic.min_cleanable_dirty_ratio - 0.25).abs() < 1e-9);
    let nothing = resolve(&at_start, &[("cleanup.policy", "")]).cleanup;
    assert_eq!(
        nothing,
        CleanupPolicy {
            delete: false,
            compact: false
        }
    );
}

#[test]
fn described_topics_show_every_level() {
    let live = live(&[("log.retention.hours", "2")]).altered(
        overrides(&[("log.retention.ms", "7")]),
        overrides(&[("log.retention.ms", "8")]),
    );
    let own = overrides(&[("retention.ms", "9")]);
    let described = describe_topic(&live, &own, Some(&["retention.ms", "no.such.option"]));
    assert_eq!(described.len(), 1);
    let retention = &described[0];
    assert_eq!(
        (retention.value.as_deref(), retention.source, retention.read_only),
        (Some("9"), Topic, false)
    );
    assert_eq!((retention.kind.wire_code(), retention.source.wire_code()), (5, 1));
    let levels: Vec<_> = retention
        .synonyms
        .iter()
        .map(|s| (s.name, s.value.as_deref().unwrap(), s.source))
        .collect();
    assert_eq!(
        levels,
        [
            ("retention.ms", "9", Topic),
            ("log.retention.ms", "8", DynamicBroker),
            ("log.retention.ms", "7", DynamicDefaultBroker),
            ("log.retention.hours", "2", StaticBroker),
            ("log.retention.hours", "168", Fallback),
        ]
    );
    let all = describe_topic(&live, &Overrides::new(), None);
    assert_eq!(all.len(), 34);
    let find = |name: &str| all.iter().find(|c| c.name == name).unwrap();
    assert_eq!(
        (find("retention.ms").value.as_deref(), find("retention.ms").source),
        (Some("8"), DynamicBroker)
    );
    assert_eq!(
        (
            find("cleanup.policy").value.as_deref(),
            find("cleanup.policy").source
        ),
        (Some("delete"), Fallback)
    );
    assert_eq!(find("remote.storage.enable").value.as_deref(), Some("false"));
    assert!(
        all.iter()
            .all(|c| c.value.is_some() && !c.documentation.is_empty())
    );
}

#[test]
fn described_brokers_hide_secrets() {
    let live = live(&[("ssl.key.password", "hunter2"), ("log.retention.hours", "2")]);
    let live = live.altered(Overrides::new(), overrides(&[("ssl.keystore.key", "hunter2")]));
    let all = describe_broker(&live, None);
    let find = |name: &str| all.iter().find(|c| c.name == name).unwrap();
    let password = find("ssl.key.password");
    assert_eq!(
        (password.value.as_deref(), password.sensitive, password.source),
        (None, true, StaticBroker)
    );
    assert!(password.synonyms.iter().all(|s| s.value.is_none()));
    assert!(!format!("{all:?} {live:?}").contains("hunter2"));
    assert_eq!(
        (find("node.id").value.as_deref(), find("node.id").read_only),
        (Some("1"), true)
    );
    assert!(!find("message.max.bytes").read_only);
    assert!(all.iter().all(|c| !c.name.starts_with("drumlin.test.")));
    assert_eq!(
        describe_broker(&live, Some(&["log.retention.hours"]))[0]
            .value
            .as_deref(),
        Some("2")
    );

    assert!(describe_all_brokers(&live, None).is_empty());
    let live = live.altered(
        overrides(&[("log.retention.ms", "7")]),
        overrides(&[("log.retention.ms", "8")]),
    );
    let altered = describe_all_brokers(&live, None);
    assert_eq!(altered.len(), 1);
    assert_eq!(
        (altered[0].value.as_deref(), altered[0].source),
        (Some("7"), DynamicDefaultBroker)
    );
}

#[test]
fn overrides_are_checked_when_set() {
    let live = live(&[("log.cleanup.policy", "compact")]);
    let set = |configs: &[(&'static str, Option<&'static str>)]| {
        alter::replace(Target::Topic, configs.iter().copied(), &live)
    };
    assert_eq!(
        set(&[
            ("retention.ms", Some(" 5 ")),
            ("cleanup.policy", Some("compact , delete"))
        ]),
        Ok(overrides(&[
            ("retention.ms", "5"),
            ("cleanup.policy", "compact,delete")
        ]))
    );
    for (configs, message) in [
        (
            vec![("retention.m", Some("5"))],
            "Unknown topic config name: retention.m; did you mean `retention.ms`?",
        ),
        (
            vec![("log.retention.ms", Some("5"))],
            "Unknown topic config name: log.retention.ms; did you mean `retention.ms`?",
        ),
        (
            vec![("retention.ms", Some("-2"))],
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            vec![("retention.ms", Some("week"))],
            "Invalid value week for configuration retention.ms: Not a number of type LONG",
        ),
        (
            vec![("cleanup.policy", Some("remove"))],
            "Invalid value remove for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (
            vec![("compression.type", Some("none"))],
            "Invalid value none for configuration compression.type: String must be one of: uncompressed, zstd, lz4, \
             snappy, gzip, producer",
        ),
        (
            vec![
                ("min.compaction.lag.ms", Some("5")),
                ("max.compaction.lag.ms", Some("4")),
            ],
            "conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (4)",
        ),
    ] {
        assert_eq!(set(&configs), Err(AlterError::InvalidConfig(message.to_owned())));
    }
    assert!(matches!(
        set(&[("retention.ms", Some("1")), ("retention.ms", Some("2"))]),
        Err(AlterError::InvalidRequest(_))
    ));
    assert_eq!(
        set(&[("retention.ms", None)]),
        Err(AlterError::InvalidRequest(
            "Null value not supported for : retention.ms".to_owned()
        ))
    );
}

#[test]
fn incremental_changes() {
    let live = live(&[("log.cleanup.policy", "compact")]);
    let change = |name: &'static str, op, value| Alteration { name, op, value };
    let run = |current: &[(&str, &str)], changes: &[Alteration<'_>]| {
        alter::alter(Target::Topic, &overrides(current), changes, &live).map_err(|error| error.to_string())
    };
    let ops: Vec<_> = (-1..5).map(ConfigOp::from_wire).collect();
    assert_eq!(
        ops,
        [
            None,
            Some(ConfigOp::Set),
            Some(ConfigOp::Delete),
            Some(ConfigOp::Append),
            Some(ConfigOp::Subtract),
            None
        ]
    );
    assert_eq!(
        run(
            &[("retention.ms", "1"), ("segment.ms", "2")],
            &[
                change("retention.ms", ConfigOp::Delete, None),
                change("segment.ms", ConfigOp::Set, Some("3")),
                change("segment.bytes", ConfigOp::Delete, None),
            ]
        ),
        Ok(overrides(&[("segment.ms", "3")]))
    );
    // Appending starts from what is in force, which here comes from the broker.
    let append = [change("cleanup.policy", ConfigOp::Append, Some("delete,compact"))];
    assert_eq!(
        run(&[], &append),
        Ok(overrides(&[("cleanup.policy", "compact,delete")]))
    );
    let subtract = [change("cleanup.policy", ConfigOp::Subtract, Some("compact"))];
    assert_eq!(
        run(&[("cleanup.policy", "compact,delete")], &subtract),
        Ok(overrides(&[("cleanup.policy", "delete")]))
    );
    assert_eq!(
        run(&[], &[change("retention.ms", ConfigOp::Append, Some("1"))]).unwrap_err(),
        "Can't APPEND to key retention.ms because its type is not LIST."
    );
    assert!(run(&[], &[change("no.such", ConfigOp::Delete, None)]).is_err());
    assert_eq!(
        run(&[("no.such", "x")], &[change("no.such", ConfigOp::Delete, None)]),
        Ok(Overrides::new())
    );
    assert!(run(&[], &[change("segment.ms", ConfigOp::Set, None)]).is_err());

    let brokers = |target, changes: &[Alteration<'_>]| {
        alter::alter(target, &Overrides::new(), changes, &live).map_err(|error| error.to_string())
    };
    let set = |name, value| [change(name, ConfigOp::Set, Some(value))];
    assert!(brokers(Target::AllBrokers, &set("log.retention.ms", "5")).is_ok());
    assert!(brokers(Target::Broker, &set("log.retention.ms", "5")).is_ok());
    assert_eq!(
        brokers(Target::Broker, &set("node.id", "5")).unwrap_err(),
        "Cannot update these configs dynamically: [node.id]"
    );
    assert_eq!(
        brokers(Target::AllBrokers, &set("ssl.keystore.location", "x")).unwrap_err(),
        "These security configs can be dynamically updated only per-listener using the listener prefix: \
         [ssl.keystore.location]"
    );
    assert!(brokers(Target::AllBrokers, &set("max.connections.per.ip.overrides", "x")).is_err());
}

#[test]
fn the_docs_page_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = page::markdown();
    if std::env::var_os("DRUMLIN_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept == page,
        "docs/configuration.md differs from the table: run this test with DRUMLIN_WRITE_DOCS=1"
    );
    let text = page::text();
    let all = table::broker_options().iter().chain(table::topic_options());
    for option in all.chain(table::group_options()) {
        assert_eq!(
            page.contains(&format!("| `{}` |", option.name)),
            !option.hidden,
            "{}",
            option.name
        );
        assert_eq!(
            text.lines()
                .any(|l| l.split_whitespace().next() == Some(option.name)),
            !option.hidden,
            "{}",
            option.name
        );
    }
}
