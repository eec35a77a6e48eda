//! Unmodified clients, by partition and by timestamp, against each kind of store.

use std::path::Path;
use std::time::Duration;

use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::process;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::scripts::{At, Client, Offsets};
use drumlin_tests::stores::{Azurite, Minio, Seaweed};
use drumlin_tests::tools;

const LINES: usize = 1000;
// Each record's timestamp is this, plus its offset: what a look-up must find is plain.
const FIRST_TIMESTAMP: i64 = 1_700_000_000_000;

/// Writes numbered lines to `file` and returns them.
fn lines(file: &Path, who: &str, count: usize) -> Vec<String> {
    let lines: Vec<String> = (0..count)
        .map(|n| format!("{who} {n:05} {}", "z".repeat(n % 97)))
        .collect();
    std::fs::write(file, lines.join("\n") + "\n").expect("a file");
    lines
}

/// Every client appends to one partition, one after another, each in a codec of its
/// own; then every client that can reads what all of them wrote.
fn all_write_all_read(
    broker: &Broker,
    scratch: &Scratch,
    writers: &[(Client, Option<&str>)],
    readers: &[Client],
) {
    let bootstrap = broker.bootstrap();
    let topic = "mixed";
    tools::java(
        tools::Tool::Topics,
        &[
            "--bootstrap-server",
            &bootstrap,
            "--create",
            "--topic",
            topic,
            "--partitions",
            "2",
        ],
    )
    .expect("the topic is created");
    let at = At {
        bootstrap: &bootstrap,
        topic,
        partition: 1,
    };
    let mut all = Vec::new();
    for (n, (writer, codec)) in writers.iter().enumerate() {
        let file = scratch.join(&format!("in-{n}"));
        let written = lines(&file, &format!("{writer:?}"), LINES);
        let begin = all.len() as i64;
        let first = writer
            .produce(&at, &file, *codec, FIRST_TIMESTAMP + begin)
            .expect("records are sent");
        assert_eq!(first, begin, "{writer:?}: the first offset");
        all.extend(written);
    }
    let end = all.len() as i64;
    for reader in readers {
        let out = scratch.join("out");
        let consumed = reader.consume(&at, 0, all.len(), &out).expect("records come");
        let came = std::fs::read_to_string(&out).expect("a file");
        assert!(
            came.lines().eq(all.iter().map(String::as_str)),
            "{reader:?} read something else than was sent"
        );
        assert_eq!(
            (consumed.first_offset, consumed.last_offset),
            (0, end - 1),
            "{reader:?}"
        );
        assert_eq!(consumed.first_timestamp, FIRST_TIMESTAMP, "{reader:?}");

        // In the middle of what the second client wrote, within a batch.
        let wanted = LINES as i64 + 500;
        let found = reader.offsets(&at, FIRST_TIMESTAMP + wanted).expect("offsets");
        assert_eq!(
            found,
            Offsets {
                earliest: 0,
                latest: end,
                at: wanted
            },
            "{reader:?}"
        );
        let consumed = reader.consume(&at, found.at, 10, &out).expect("records come");
        assert_eq!(consumed.first_timestamp, FIRST_TIMESTAMP + wanted, "{reader:?}");
        assert_eq!(consumed.first_offset, wanted, "{reader:?}");
        let late = reader
            .offsets(&at, FIRST_TIMESTAMP + end + 1000)
            .expect("offsets");
        assert!(
            late.at == -1 || late.at == end,
            "{reader:?}: nothing is that late, yet {late:?}"
        );
    }
}

const WRITERS: [(Client, Option<&str>); 10] = [
    (Client::Confluent, Some("zstd")),
    (Client::KafkaPython, Some("gzip")),
    (Client::Aiokafka, Some("lz4")),
    (Client::Sarama, Some("snappy")),
    (Client::Kafkajs, Some("gzip")),
    (Client::KafkaPython, Some("snappy")),
    (Client::Aiokafka, Some("snappy")),
    (Client::Sarama, None),
    (Client::Kafkajs, None),
    (Client::KafkaGo, Some("lz4")),
];

#[test]
fn every_client_on_minio() {
    let scratch = Scratch::new("clients-minio").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let broker =
        Broker::start(Options::on(&scratch.join("broker"), minio.store("clients"))).expect("a broker");
    all_write_all_read(&broker, &scratch, &WRITERS, &Client::BOTH_WAYS);
}

#[test]
fn every_client_on_a_local_directory() {
    let scratch = Scratch::new("clients-local").expect("a folder");
    let broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    all_write_all_read(
        &broker,
        &scratch,
        &WRITERS[..5],
        &[Client::Confluent, Client::Sarama],
    );
}

#[test]
fn some_clients_on_seaweedfs() {
    let scratch = Scratch::new("clients-seaweed").expect("a folder");
    let seaweed = Seaweed::start(scratch.path()).expect("seaweedfs");
    let mut options = Options::on(&scratch.join("broker"), seaweed.store("clients"));
    // Its conditional puts take turns at a lock that is tried once a second, so that
    // the first start's probe, which races for 50 keys, takes minutes.
    options.patience = Duration::from_secs(480);
    let broker = Broker::start(options).expect("a broker");
    all_write_all_read(&broker, &scratch, &WRITERS[..3], &[Client::Confluent]);
}

/// Azure's blob storage, as far as its emulator goes: clients, and what a killed broker left.
#[test]
fn some_clients_on_azurite() {
    let scratch = Scratch::new("clients-azurite").expect("a folder");
    let azurite = Azurite::start(scratch.path()).expect("azurite");
    let options = Options::on(&scratch.join("broker"), azurite.store("clients"));
    let mut broker = Broker::start(options).expect("a broker");
    all_write_all_read(&broker, &scratch, &WRITERS[..2], &[Client::Confluent]);
    if against_kafka() {
        return;
    }
    let file = scratch.join("lines");
    std::fs::write(&file, "one\ntwo\nthree\n").expect("a file");
    let file = file.display().to_string();
    tools::kcat(&broker.bootstrap(), &["-P", "-t", "kept", "-p", "0", "-l", &file]).expect("kcat produces");
    broker.kill9().expect("killed");
    std::fs::remove_dir_all(broker.cache_dir()).expect("the cache");
    broker.restart().expect("it starts");
    let read = tools::kcat(&broker.bootstrap(), &["-C", "-q", "-e", "-t", "kept", "-p", "0"]);
    assert_eq!(read.expect("kcat consumes").stdout, "one\ntwo\nthree\n");
    broker.terminate().expect("it stops");
    let check = broker.command_of(&["store", "check"]).expect("a command");
    let told = process::run_any(check, Duration::from_secs(120)).expect("store check");
    assert_eq!(told.status.code(), Some(0), "{told:?}");
}

/// kcat's own ways: metadata, keys and headers, look-up by time, the tail, an offset before the end.
#[test]
fn kcat_keys_headers_and_times() {
    let scratch = Scratch::new("kcat").expect("a folder");
    let broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    let bootstrap = broker.bootstrap();
    let file = scratch.join("in");
    std::fs::write(&file, "a:one\nb:two\nc:three\n").expect("a file");
    let topic = "kcat";
    let file_name = file.display().to_string();
    let sent = [
        "-P", "-t", topic, "-p", "0", "-K", ":", "-H", "trace=17", "-l", &file_name,
    ];
    tools::kcat(&bootstrap, &sent).expect("kcat produces");
    let listed = tools::kcat(&bootstrap, &["-L", "-t", topic]).expect("kcat lists");
    assert!(
        listed.stdout.contains("topic \"kcat\" with 1 partitions"),
        "{}",
        listed.stdout
    );
    let read = |offset: &str| {
        let arguments = [
            "-C",
            "-q",
            "-e",
            "-t",
            topic,
            "-p",
            "0",
            "-o",
            offset,
            "-f",
            "%o %k %h %s\\n",
        ];
        tools::kcat(&bootstrap, &arguments).expect("kcat consumes").stdout
    };
    assert_eq!(
        read("beginning"),
        "0 a trace=17 one\n1 b trace=17 two\n2 c trace=17 three\n"
    );
    assert_eq!(read("-1"), "2 c trace=17 three\n");
    assert_eq!(read("1"), "1 b trace=17 two\n2 c trace=17 three\n");
    assert_eq!(read("s@1"), read("beginning"));
    let found = tools::kcat(&bootstrap, &["-Q", "-t", "kcat:0:1"]).expect("kcat queries");
    assert!(found.stdout.contains("kcat [0] offset 0"), "{}", found.stdout);
}

/// librdkafka 2.3 to 2.16 asks for all topics with three bytes too many, which Kafka ignores. Listing topics and
/// subscribing to a pattern in a classic group both ask so.
#[test]
fn confluent_lists_topics_and_subscribes_to_a_pattern() {
    let scratch = Scratch::new("pattern").expect("a folder");
    let broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    let bootstrap = broker.bootstrap();
    let file = scratch.join("in");
    for topic in ["seen-a", "seen-b", "unseen"] {
        std::fs::write(&file, format!("of {topic}\n")).expect("a file");
        let at = At {
            bootstrap: &bootstrap,
            topic,
            partition: 0,
        };
        Client::Confluent
            .produce(&at, &file, None, FIRST_TIMESTAMP)
            .expect("a record is sent");
    }
    let topics = Client::Confluent.topics(&bootstrap).expect("topics");
    let made: Vec<&String> = topics.iter().filter(|name| !name.starts_with("__")).collect();
    assert_eq!(made, ["seen-a", "seen-b", "unseen"]);
    let values = Client::Confluent
        .consume_pattern(&bootstrap, "watchers", "^seen-.*", 2)
        .expect("records come");
    assert_eq!(values, ["of seen-a", "of seen-b"]);
}
