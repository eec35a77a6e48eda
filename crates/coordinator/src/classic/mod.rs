//! Groups whose members assign among themselves: the classic protocol (KIP-62, KIP-345, KIP-394, KIP-814).
//!
//! [`group`] is the state: members, votes, leader, and the record that keeps it. [`join`] gathers members
//! for a generation, [`sync`] hands their leader's assignment out, [`session`] is heartbeats, leaving and
//! what happens when neither comes; [`describe`] answers about it.
//!
//! A generation is stored when its leader has assigned; what is not stored (members that join, a rebalance
//! under way) is not there after a load, and its members join again. As in Kafka's `ClassicGroup`.

mod describe;
mod group;
mod join;
mod member;
mod session;
mod sync;

pub(crate) use group::{ClassicGroup, State, join_failed, sync_failed};
pub(crate) use join::Join;
pub(crate) use member::{Member as ClassicMember, Protocol};
