//! A topic's configuration as the log needs it.

use super::live::{Live, Overrides};
use super::spec::split_list;
use super::table;

/// Codec that batches are stored with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    /// None.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// Which time a record carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// That of the append.
    LogAppendTime,
}

/// What happens to old data. Neither: everything is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupPolicy {
    /// Dropped by time and size.
    pub delete: bool,
    /// The newest record of each key is kept.
    pub compact: bool,
}

/// The configuration of a topic in force: its own overrides over the broker's.
#[derive(Clone, PartialEq, Debug)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `retention.ms`; `None` for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` for no bound.
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `max.decompressed.message.bytes`.
    pub max_decompressed_record_bytes: u64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`.
    pub compression: CompressionType,
    /// `compression.gzip.level`; `None` for the codec's own.
    pub gzip_level: Option<i32>,
    /// `compression.lz4.level`.
    pub lz4_level: i32,
    /// `compression.zstd.level`.
    pub zstd_level: i32,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
}

impl TopicConfig {
    /// The configuration in force of a topic with these overrides. An override that this version does not
    /// know or cannot read is passed over: it was checked when it was set.
    pub fn resolve(overrides: &Overrides, live: &Live) -> TopicConfig {
        let get = |name: &str| value(name, overrides, live);
        let number = |name: &str| -> i64 {
            get(name)
                .parse()
                .expect("the table gives a numeric topic option a numeric default")
        };
        let level = |name: &str| i32::try_from(number(name)).unwrap_or_default();
        let policy = get("cleanup.policy");
        let policies = split_list(&policy);
        TopicConfig {
            cleanup: CleanupPolicy {
                delete: policies.contains(&"delete"),
                compact: policies.contains(&"compact"),
            },
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            segment_bytes: u64::try_from(number("segment.bytes")).unwrap_or_default(),
            segment_ms: number("segment.ms"),
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or_default(),
            max_decompressed_record_bytes: u64::try_from(number("max.decompressed.message.bytes"))
                .unwrap_or_default(),
            timestamp_type: match get("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            compression: match get("compression.type").as_str() {
                "uncompressed" => CompressionType::Uncompressed,
                "gzip" => CompressionType::Gzip,
                "snappy" => CompressionType::Snappy,
                "lz4" => CompressionType::Lz4,
                "zstd" => CompressionType::Zstd,
                _ => CompressionType::Producer,
            },
            gzip_level: Some(level("compression.gzip.level")).filter(|level| *level != -1),
            lz4_level: level("compression.lz4.level"),
            zstd_level: level("compression.zstd.level"),
            delete_retention_ms: number("delete.retention.ms"),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: get("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
        }
    }
}

/// A topic option's value in force; empty where it has none.
pub(super) fn value(name: &str, overrides: &Overrides, live: &Live) -> String {
    let Some(option) = table::topic_option(name) else {
        return String::new();
    };
    let strongest = live.topic_levels(option, overrides).into_iter().next();
    match strongest {
        Some(level) => level.converted,
        None => option.default.unwrap_or_default().to_owned(),
    }
}
