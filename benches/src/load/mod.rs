//! A client that costs little: batches and frames are built beforehand, and only the correlation ids change.
//!
//! [`produce`] sends them, as fast as answers come or at a fixed rate; [`fetch`] reads a range of offsets and throws
//! it away; [`group`] is members of consumer groups; [`keyed`] writes what compaction thins out; [`first`] waits for a start; [`idle`] holds connections; [`proxy`] is what cold reads are held against.
//! [`seconds`] writes down each second of a long run, and [`forwarder`] stands in front of a store and limits its uploads.
//! Everything that is not timed goes over the blocking client of the tests.

pub mod batches;
pub mod fetch;
pub mod first;
pub mod forwarder;
pub mod group;
pub mod idle;
pub mod keyed;
mod link;
pub mod produce;
pub mod proxy;
pub mod seconds;
pub mod summary;
