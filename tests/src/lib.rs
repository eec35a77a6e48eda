//! The machinery of the end-to-end tests: real processes, real stores, real clients.
//!
//! A test in `tests/tests` starts a [`broker::Broker`] on a [`stores::Store`],
//! lets unmodified clients ([`tools`], [`scripts`]) or the small client of our own
//! ([`client`]) loose on it, kills it, and compares what comes back. [`ledger`]
//! keeps account of what was acknowledged and seen while a broker is killed again
//! and again. Everything that is started dies with the test ([`process`]).
//!
//! With `DRUMLIN_TEST_BROKER=kafka` every [`broker::Broker`] is an Apache Kafka
//! node instead: a test that fails there is wrong.

pub mod answers;
pub mod broker;
pub mod cache;
pub mod churn;
pub mod client;
pub mod decoders;
pub mod faulty_s3;
pub mod flaky;
pub mod hostile;
pub mod input;
pub mod kafka;
pub mod ledger;
pub mod members;
pub mod ports;
pub mod process;
pub mod round_trip;
pub mod scratch;
pub mod scripts;
pub mod simulation;
pub mod stage;
pub mod stores;
pub mod suites;
pub mod tools;
