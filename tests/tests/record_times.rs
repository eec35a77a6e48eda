//! What real clients send wrongly, and how it is stored: greatest timestamps that are not those of the records. And the
//! end of a compacted log, which every client reaches.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::scratch::Scratch;
use drumlin_tests::scripts::{At, Client};
use drumlin_tests::tools;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const PATIENCE: Duration = Duration::from_secs(90);

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    i64::try_from(since.as_millis()).expect("a time")
}

fn create(bootstrap: &str, topic: &str, configs: &[&str]) {
    let mut arguments = vec![
        "--bootstrap-server",
        bootstrap,
        "--create",
        "--topic",
        topic,
        "--partitions",
        "1",
    ];
    for config in configs {
        arguments.extend(["--config", config]);
    }
    tools::java(tools::Tool::Topics, &arguments).expect("the topic is created");
}

/// Asks until `is` says yes.
fn wait_for<T: std::fmt::Debug>(what: &str, ask: impl Fn() -> T, is: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = ask();
        if is(&found) {
            return found;
        }
        assert!(Instant::now() < end, "{what}: {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn batches_of_kafkajs_and_kafka_go_are_looked_up_and_kept_by_their_records() {
    let scratch = Scratch::new("record-times").expect("a folder");
    let options = Options::local(&scratch.join("broker"))
        .set("seal.round.ms", 500)
        .set("log.retention.check.interval.ms", 500);
    let broker = Broker::start(options).expect("a broker");
    let bootstrap = broker.bootstrap();
    let topics = [
        ("from-kafkajs", Client::Kafkajs),
        ("from-kafka-go", Client::KafkaGo),
    ];
    let at = |topic| At {
        bootstrap: &bootstrap,
        topic,
        partition: 0,
    };
    for (topic, client) in topics {
        create(&bootstrap, topic, &["retention.ms=3600000"]);
        let now = now_ms();
        client
            .produce_wrong_times(&at(topic), now)
            .expect("both records are taken");
        let newest = if client == Client::Kafkajs { 1 } else { 0 };
        // Between the two times: a trusted header would hide the one that is new.
        let found = Client::Confluent
            .offsets(&at(topic), now - HOUR)
            .expect("offsets");
        assert_eq!(
            (found.earliest, found.latest, found.at),
            (0, 2, newest),
            "{topic}"
        );
        let found = Client::Confluent
            .offsets(&at(topic), now - 2 * DAY)
            .expect("offsets");
        assert_eq!(found.at, 0, "{topic}");
    }
    // Something old is sealed after them, and goes: so retention has looked at them, too.
    create(&bootstrap, "old", &["retention.ms=3600000"]);
    let file = scratch.join("old-lines");
    std::fs::write(&file, "old\n").expect("a file");
    Client::Confluent
        .produce(&at("old"), &file, None, now_ms() - DAY)
        .expect("an old record is taken");
    let earliest = |topic| Client::Sarama.offsets(&at(topic), 0).expect("offsets").earliest;
    wait_for("what is old goes", || earliest("old"), |earliest| *earliest == 1);
    for (topic, _) in topics {
        assert_eq!(earliest(topic), 0, "{topic}: a record of now outlives an hour");
    }
}

#[test]
fn the_end_of_a_compacted_log_is_reached_by_librdkafka_and_kafkajs() {
    let scratch = Scratch::new("compacted-end").expect("a folder");
    let options = Options::local(&scratch.join("broker"))
        .set("seal.round.ms", 500)
        .set("log.cleaner.backoff.ms", 200);
    let broker = Broker::start(options).expect("a broker");
    let bootstrap = broker.bootstrap();
    create(&bootstrap, "compacted", &[]);
    let at = At {
        bootstrap: &bootstrap,
        topic: "compacted",
        partition: 0,
    };
    // Records without keys, from before the topic was compacted: compaction removes them all, but for the last.
    let file = scratch.join("lines");
    std::fs::write(&file, "no key\n".repeat(50)).expect("a file");
    Client::Confluent
        .produce(&at, &file, None, now_ms())
        .expect("records are taken");
    Client::compact(&at).expect("the topic is altered");
    wait_for(
        "all but the last record go",
        || {
            Client::Confluent
                .reach_end(&at, 49)
                .expect("librdkafka comes to the end")
        },
        |records| *records == 1,
    );
    let records = Client::Kafkajs
        .reach_end(&at, 49)
        .expect("kafkajs comes to the end");
    assert_eq!(records, 1);
    let found = Client::Sarama.offsets(&at, 0).expect("offsets");
    assert_eq!(found.latest, 50);
}
