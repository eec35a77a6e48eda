//! The broker: listeners, connections, one handler per API, configuration, assembly.
//!
//! Owns everything between a socket and the crates below: frames and pipelining ([`net`]), routing ([`dispatch`]), the
//! handlers ([`handlers`]), errors as Kafka's codes ([`error_code`]), the options ([`config`]), and how the parts are
//! started, run and stopped ([`broker`]). It stores nothing itself: records are the log's, metadata the cluster's.
//!
//! Start reading at [`broker::Broker::start`]; then follow a frame through [`net::connection`] and [`dispatch`] into
//! [`handlers::produce`].

pub mod broker;
pub mod config;
pub mod dispatch;
pub mod epochs;
pub mod error_code;
pub mod groups;
pub mod handlers;
pub mod metrics;
pub mod names;
pub mod net;
mod patience;
pub mod sessions;
pub mod startup;
pub mod state;
pub mod topics;

pub use broker::{Broker, ExitReason};
pub use startup::StartError;
