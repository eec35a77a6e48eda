//! A small blocking Kafka client of our own, for tests that need to see every
//! request, answer and lost connection: what a real client hides by trying again is
//! what such a test is about.

mod batches;
mod connection;

pub use batches::decoded;
pub use connection::{Connection, answers};
