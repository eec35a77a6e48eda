//! Consumer groups as pure state machines: requests and time go in; answers, timers and records come out.
//!
//! A [`Shard`] is all the groups and committed offsets of one partition of `__consumer_offsets`. It has no
//! sockets, no clock and no storage of its own. Whoever leads the partition owns one shard, feeds it, and
//! appends what it writes:
//!
//! 1. [`Shard::new`]; then [`Shard::restore`] if there is a snapshot, and [`Shard::replay`] for every record
//!    of the partition from there to its end; then [`Shard::loaded`], which starts the timers. A request
//!    before that is answered with COORDINATOR_LOAD_IN_PROGRESS.
//! 2. [`Shard::request`] for each request, [`Shard::tick`] whenever [`Shard::next_deadline`] is reached,
//!    [`Shard::topic_deleted`] when a topic is gone. Each gives a [`Step`]: records to append, in order, and
//!    replies to requests of this step or of earlier ones.
//! 3. A [`Reply`] whose `waits` is set may go out only when everything appended so far, the records of its
//!    own step included, is committed. State changes when the step is made: nothing is ever rolled back, so
//!    an append that was accepted must be committed, or the owner must end.
//! 4. [`Shard::unload`] when the partition moves away: everyone who still waits gets NOT_COORDINATOR.
//!
//! Records have Kafka's own formats ([`keys`]), so that its tools read the topic, and
//! loading it by replay gives the same state as living through it. A snapshot ([`Shard::snapshot`]) is only a
//! shortcut.
//!
//! Start reading at [`Shard`]; `offsets` has the committed offsets, `classic` the groups whose members
//! assign among themselves, [`consumer`] those that the coordinator assigns (KIP-848).

mod classic;
pub mod config;
pub mod consumer;
mod context;
mod convert;
mod error_code;
mod group;
mod ids;
pub mod keys;
mod memory;
mod offsets;
mod partition;
mod serve;
mod shard;
mod snapshot;
mod step;
mod table;
pub mod timers;
mod topics;

pub use config::{GroupConfig, GroupOverrides, MigrationPolicy};
pub use error_code::ErrorCode;
pub use group::known_filters;
pub use ids::MemberIds;
pub use memory::MemberMemory;
pub use partition::partition_for;
pub use shard::{CommittedOffset, ReplayError, Shard, ShardFigures, SnapshotError, SnapshotInfo};
pub use step::{Caller, GroupRequest, GroupResponse, Now, Record, Reply, Step};
pub use topics::{TopicView, Topics};
