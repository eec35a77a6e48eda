//! The cluster's metadata: which topics there are and who leads them, who is a broker, what is configured.
//!
//! Owns the metadata log (`meta/…` in the bucket), its records, and the [`Image`] that replaying them gives.
//! Leaves the chain beneath to `objects`, fencing and recovering a broker's own WAL to `log`, and the meaning of
//! configs to `broker`. One broker is its own controller so far; the formats have room for several.
//!
//! | stored | layout | life |
//! | --- | --- | --- |
//! | `meta/log/0` | [`birth`](Birth) | for ever |
//! | `meta/log/{n}`, kind fence | a `NewController` record | for ever |
//! | `meta/log/{n}`, kinds data and checkpoint | [`record`](Record) | until a checkpoint covers it |
//! | `meta/checkpoint/{n}` | a marker, see `objects` | 10 minutes after the next |
//! | `meta/body/{epoch}{n}` | [`snapshot`](Image::decode) | until the next checkpoint |
//!
//! Start reading at [`MetadataLog`], then [`Image`].

mod apply;
mod birth;
mod codec;
mod ids;
mod image;
mod log;
mod record;
mod snapshot;
mod sorted_map;
#[cfg(test)]
mod testing;

pub use apply::{ApplyError, MAX_PARTITIONS};
pub use birth::Birth;
pub use codec::DecodeError;
pub use ids::{ClusterId, Incarnation, Resource, ResourceKind, TopicId};
pub use image::{
    Broker, Configs, FORMAT_FEATURE, FORMAT_LEVEL, Image, IncarnationEnd, IncarnationState, Leadership,
    PRODUCER_ID_BLOCK, PartitionImage, Tombstone, TopicImage,
};
pub use log::open::{OpenError, OpenOptions, PREFIX, PreviousIncarnation, Session};
pub use log::{ChangeError, MAX_CHANGE_BYTES, MetaEnd, MetaError, MetadataLog, RegisterBroker};
pub use record::{Endpoint, Fenced, Pin, Record, decode_body};
pub use sorted_map::SortedMap;
