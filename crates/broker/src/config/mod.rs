//! Configuration: one table of options, and what is derived from it.
//!
//! [`table`] lists the options. [`Settings::load`] reads them from file, environment and command line;
//! [`Live`] puts what was altered while running on top; [`BrokerConfig`] and [`TopicConfig`] are what the
//! broker works with. [`describe`] and [`alter`] answer the APIs about configs, [`page`] the operator.

pub mod alter;
pub mod broker;
pub mod describe;
pub mod error;
pub mod groups;
pub mod listeners;
pub mod live;
pub mod page;
pub mod properties;
mod refusal;
pub mod settings;
pub mod spec;
mod store_url;
pub mod table;
pub mod topic;

pub use alter::{AlterError, Alteration, ConfigOp, Target};
pub use broker::{
    BrokerConfig, ByteSize, CacheConfig, CleanerConfig, LogFormat, NetworkConfig, RequestsConfig, SealConfig,
    StoreConfig, TopicsConfig, WalConfig,
};
pub use describe::{
    DescribedConfig, DescribedSynonym, describe_all_brokers, describe_broker, describe_client_metrics,
    describe_group, describe_topic,
};
pub use error::{ConfigError, Origin};
pub use groups::GroupsConfig;
pub use listeners::{HostPort, ListenerConfig, ListenersConfig};
pub use live::{ConfigSource, Level, Live, Overrides};
pub use settings::{Loaded, Settings, Sources};
pub use spec::{Dynamic, Effect, Kind, OptionSpec};
pub use topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};

#[cfg(test)]
mod tests;
