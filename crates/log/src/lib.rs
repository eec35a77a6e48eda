//! A broker's partitions over object storage: append, hot log, WAL, sealing, manifests, reads, retention.
//!
//! Owns all of a partition's life and every format in the bucket below `wal/` and `topic/`, but for the chain
//! itself, which is `objects`'. Leaves to others: what topics exist and who leads them (`cluster`), the protocol
//! (`wire`, `broker`), the inside of a batch (`records`).
//!
//! Start reading at [`log`](mod@log), follow an append into `wal`, a commit into `partition`, a round through
//! `keeper`, compaction through `cleaner`, a fetch through [`read`], a restart through [`recover`](mod@recover).
//!
//! Rules in brackets, (A3) or (D1), are those of the project's safety page.

mod arena;
mod backlog;
pub mod check;
mod cleaner;
mod codec;
mod cold;
mod commit;
mod congestion;
mod damage;
mod deletion;
pub mod export;
mod fold;
mod footer;
#[cfg(test)]
mod formats;
mod give_up;
mod hotcache;
mod keeper;
mod layout;
mod leaves;
pub mod log;
mod lookup;
mod lost;
mod manifest;
pub mod metrics;
mod object;
mod partition;
mod policy;
mod producers;
pub mod read;
pub mod recover;
mod retention;
mod rope;
mod round;
mod seal;
mod state;
mod strays;
mod sweep;
mod types;
mod wal;

pub use codec::FormatError;
pub use commit::{Commit, CommitError};
pub use give_up::{GiveUpError, give_up};
pub use layout::{SnapshotName, snapshot_prefix};
pub use log::{AppendError, AppendOptions, Appended, DeleteRecordsError, Log, StartError};
pub use metrics::{LogMemory, LogMetrics};
pub use partition::{Partition, Waiter};
pub use producers::{ActiveProducer, SequenceError};
pub use read::{Read, ReadError, TimestampOffset};
pub use recover::{RecoverError, Recovered, recover};
pub use types::{
    CleanerOptions, Identity, LogOptions, PartitionConfig, PartitionSpec, Previous, SweptChains, TopicId,
    TopicPartition,
};
pub use wal::LogEnd;
