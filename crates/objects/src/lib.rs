//! What lies in the bucket.
//!
//! This crate owns every call to the object store: [`Bucket`] with its retries, deadlines and counters, the
//! local store ([`local`]), what remote stores differ in (`remote`), the [`chain`] that everything durable is built on, the [`probe`] that refuses a
//! store whose put-if-absent is not atomic, the [`cache`] of blocks, and the faults ([`fault`], [`powercut`])
//! that tests and simulations put in their way. It knows nothing of records, partitions or metadata: bodies
//! are bytes.
//!
//! The rules in brackets (`[A1]`, `[F2]`, …) are those of the safety page of the design.
//!
//! Start reading at [`bucket`], then [`chain`].

mod answer;
pub mod bucket;
pub mod cache;
pub mod chain;
pub mod crc;
pub mod env;
mod error;
pub mod fault;
pub mod local;
pub mod memory;
pub mod open;
mod panics;
pub mod powercut;
pub mod probe;
mod remote;
#[doc(hidden)]
pub mod sabotage;
pub mod stats;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use bucket::{Bucket, BucketKind, BucketOptions, Listed};
pub use env::Env;
pub use error::{LockError, OpenError, PutNewError, StoreError};
pub use local::{LockGuard, write_cache_file};
pub use memory::BufferCount;
pub use panics::log_panics;
pub use stats::{Operation, Reason, StoreStats};
pub use task::{Failure, TaskKind};

/// The crates of the object store interface, for those who write stores of their own.
pub use object_store;
