//! The cluster's metadata: what topics there are, who leads them, who is a broker, and the log that says so.
mod apply;
mod birth;
mod codec;
mod ids;
mod image;
mod record;
mod snapshot;
mod sorted_map;
#[cfg(test)]
mod testing;

pub use apply::{ApplyError, MAX_PARTITIONS};
pub use birth::Birth;
pub use codec::DecodeError;
pub use ids::{ClusterId, Incarnation, Resource, ResourceKind, TopicId};
pub use image::*;
pub use record::{Endpoint, Fenced, Pin, Record, decode_body};
pub use sorted_map::SortedMap;
