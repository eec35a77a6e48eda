//! One API, one file: request in, call into the broker, response out. A handler returns a value and never touches a
//! socket; which version may carry what is the codec's business.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod get_telemetry_subscriptions;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_config_resources;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod push_telemetry;

/// Authorized operations where they were not asked for, or nobody authorizes (protocol guide).
pub(crate) const NO_OPERATIONS: i32 = i32::MIN;
