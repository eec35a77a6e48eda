//! `kill -9` again and again, with an account of what was acknowledged and seen.

use std::time::Duration;

use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::flaky::Flaky;
use drumlin_tests::ledger::{self, Plan};
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stores::{Minio, S3};

#[test]
fn on_a_local_directory() {
    let scratch = Scratch::new("ledger-local").expect("a folder");
    let mut broker =
        Broker::start(Options::local(&scratch.join("broker")).sealing_often()).expect("a broker");
    ledger::run(&mut broker, &Plan::everyday(ledger::seed())).expect("every promise is kept");
    broker.terminate().expect("stopped");
}

#[test]
fn on_minio() {
    let scratch = Scratch::new("ledger-minio").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let options = Options::on(&scratch.join("broker"), minio.store("ledger")).sealing_often();
    let mut broker = Broker::start(options).expect("a broker");
    let plan = Plan {
        delete_cache_every: Some(5),
        min_kills: 8,
        ..Plan::everyday(ledger::seed())
    };
    ledger::run(&mut broker, &plan).expect("every promise is kept");
    broker.terminate().expect("stopped");
}

/// Stalls, 503s, requests that never arrive, answers that are lost.
#[test]
fn on_minio_over_a_bad_network() {
    let scratch = Scratch::new("ledger-network").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let seed = ledger::seed();
    let network = Flaky::start(minio.port(), seed).expect("a bad network");
    let store = S3::at(network.port(), "ledger");
    let mut options = Options::on(&scratch.join("broker"), store).sealing_often();
    options.patience = Duration::from_secs(120);
    let mut broker = Broker::start(options).expect("a broker");
    let plan = Plan {
        delete_cache_every: Some(5),
        min_kills: 5,
        ..Plan::everyday(seed)
    };
    ledger::run(&mut broker, &plan).expect("every promise is kept");
    println!("bad network: {:?}", network.harm());
    broker.terminate().expect("stopped");
}
