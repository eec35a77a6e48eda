//! Malformed, truncated, oversized, unknown and lying frames.

use std::time::{Duration, Instant};

use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::hostile::{self, Plan};
use drumlin_tests::scratch::Scratch;

#[test]
fn three_hundred_thousand_frames() {
    let scratch = Scratch::new("hostile").expect("a folder");
    let options = hostile::options(Options::local(&scratch.join("broker")));
    let mut broker = Broker::start(options).expect("a broker");
    let plan = Plan {
        seed: hostile::seed(),
        frames: 300_000,
        // A slow machine takes longer for as many; Apache Kafka is only here to try the test out.
        until: against_kafka().then(|| Instant::now() + Duration::from_secs(120)),
    };
    let figures = hostile::run(&mut broker, &plan).expect("the broker stands it");
    assert!(
        figures["frames"] >= plan.frames || against_kafka(),
        "it takes no more connections: {figures:?}"
    );
    broker.terminate().expect("stopped");
}
