//! A whole broker in this process, on a bucket in memory, spoken to over duplex streams in Kafka's protocol.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod answers;
mod configs;
mod coordinators;
mod fetching;
mod frames;
mod groups;
mod harness;
mod idle_commits;
mod lives;
mod lone;
mod old_offsets;
mod producing;
mod refusals;
mod topics;
mod versions;
