//! Requests, sound and broken, are decoded as Kafka's own classes decode them.

use drumlin_tests::decoders::{self, Plan};
use drumlin_tests::scratch::Scratch;

/// Versions of requests in Apache Kafka 4.3.1, and APIs.
const VERSIONS: u64 = 302;
const APIS: u64 = 89;

#[test]
fn forty_thousand_broken_requests_are_decoded_as_by_kafka() {
    let scratch = Scratch::new("decoders").expect("a folder");
    let plan = Plan {
        seed: decoders::seed(),
        requests: 40_000,
        until: None,
    };
    let figures = decoders::run(scratch.path(), &plan).expect("no difference but the listed ones");
    // All APIs and versions, and enough of both verdicts to mean something.
    assert_eq!((figures["max_apis"], figures["max_versions"]), (APIS, VERSIONS));
    assert!(figures["taken_alike"] > plan.requests / 10, "{figures:?}");
    assert!(figures["refused_alike"] > plan.requests / 10, "{figures:?}");
}
