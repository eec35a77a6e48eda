//! The answers of every API beside those of Apache Kafka: nulls, empty texts, defaults, codes.

use drumlin_tests::answers;
use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::kafka::Kafka;
use drumlin_tests::scratch::Scratch;
use drumlin_wire::ApiKey;
use drumlin_wire::registry::APIS;

/// APIs that are not asked, and why.
const NOT_ASKED: &[(ApiKey, &str)] = &[
    (
        ApiKey::GetTelemetrySubscriptions,
        "Kafka serves it only with a plugin that takes metrics",
    ),
    (
        ApiKey::PushTelemetry,
        "Kafka serves it only with a plugin that takes metrics",
    ),
];

#[test]
fn answers_are_kafkas() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("answers").expect("a folder");
    let settings = [
        ("auto.create.topics.enable", "false"),
        ("group.initial.rebalance.delay.ms", "0"),
    ];
    let options = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let kafka = Kafka::start(&scratch.join("kafka"), &options).expect("kafka");
    let mut options = Options::local(&scratch.join("broker"));
    for (key, value) in settings {
        options = options.set(key, value);
    }
    let broker = Broker::start(options.set("node.id", 1)).expect("a broker");
    let outcome = answers::compare(&broker.bootstrap(), &kafka.bootstrap()).expect("answers");
    println!("{} answers compared", outcome.answers);
    assert!(
        outcome.differences.is_empty(),
        "{} of {} answers differ:\n\n{}",
        outcome.differences.len(),
        outcome.answers,
        outcome.differences.join("\n\n")
    );
    let not_asked: Vec<ApiKey> = APIS
        .iter()
        .map(|api| api.key)
        .filter(|key| !outcome.asked.contains(key) && NOT_ASKED.iter().all(|(not, _)| not != key))
        .collect();
    assert!(not_asked.is_empty(), "served and never asked: {not_asked:?}");
}
