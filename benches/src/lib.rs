//! Load generators, and the comparison with Apache Kafka.
//!
//! [`load`] is the light client that the figures are taken with; `drumlin-load` runs it by hand and, for the
//! comparison, in a process of its own. [`suite`] is the comparison: which cases there are, the brokers it starts, and
//! the table that comes out; `cargo xtask bench` builds everything and runs it as `drumlin-bench`. [`process`] reads
//! what a broker costs from `/proc`, and [`picture`] draws figures over time.

pub mod load;
pub mod picture;
pub mod process;
pub mod suite;
