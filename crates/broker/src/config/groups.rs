//! Options of groups: the broker's, and those of a single group.

use std::sync::Arc;
use std::time::Duration;

use drumlin_coordinator::{GroupConfig, GroupOverrides, MigrationPolicy};
use drumlin_records::Compression;
use drumlin_wire::Str;

use super::broker::{ByteSize, Reader};
use super::error::ConfigError;
use super::live::{Live, Overrides};
use super::spec::split_list;
use super::table;

/// Smallest segment that a topic may have.
const SEGMENT_MIN: i64 = 1 << 20;

/// Groups and their offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupsConfig {
    /// What the coordinator goes by.
    pub coordinator: Arc<GroupConfig>,
    /// `offsets.topic.num.partitions`, of a topic that is yet to be created.
    pub partitions: u32,
    /// `offsets.topic.segment.bytes`, no less than a topic may have.
    pub segment_bytes: ByteSize,
    /// `offsets.topic.compression.codec`.
    pub codec: Compression,
    /// `offsets.commit.timeout.ms`.
    pub commit_timeout: Duration,
    /// `offsets.load.buffer.size`.
    pub load_buffer: ByteSize,
}

impl Reader<'_> {
    pub(super) fn groups(&self) -> Result<GroupsConfig, ConfigError> {
        let codec = match self.number::<u8>("offsets.topic.compression.codec")? {
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => Compression::None,
        };
        let segment: i64 = self.number("offsets.topic.segment.bytes")?;
        Ok(GroupsConfig {
            coordinator: Arc::new(self.coordinator()?),
            partitions: self.number("offsets.topic.num.partitions")?,
            segment_bytes: ByteSize(u64::try_from(segment.max(SEGMENT_MIN)).unwrap_or_default()),
            codec,
            commit_timeout: self.duration("offsets.commit.timeout.ms")?,
            load_buffer: self.size("offsets.load.buffer.size")?,
        })
    }

    fn coordinator(&self) -> Result<GroupConfig, ConfigError> {
        let protocols = self.text("group.coordinator.rebalance.protocols");
        let protocols = split_list(&protocols);
        if !protocols.contains(&"classic") {
            return self.refuse(
                "group.coordinator.rebalance.protocols",
                "`classic` cannot be disabled",
            );
        }
        let assignors = self.text("group.consumer.assignors");
        let consumer_assignors: Vec<Str> = split_list(&assignors).into_iter().map(Str::from).collect();
        if consumer_assignors.is_empty() {
            return self.refuse("group.consumer.assignors", "it must not be empty");
        }
        let policy = self.text("group.consumer.migration.policy");
        let minutes: i64 = self.number("offsets.retention.minutes")?;
        let config = GroupConfig {
            consumer_protocol: protocols.contains(&"consumer"),
            min_session_timeout_ms: self.number("group.min.session.timeout.ms")?,
            max_session_timeout_ms: self.number("group.max.session.timeout.ms")?,
            initial_rebalance_delay_ms: self.number("group.initial.rebalance.delay.ms")?,
            max_size: self.number("group.max.size")?,
            offset_metadata_max_bytes: self.number("offset.metadata.max.bytes")?,
            offsets_retention_ms: minutes.saturating_mul(60_000),
            offsets_retention_check_interval_ms: self.number("offsets.retention.check.interval.ms")?,
            consumer_session_timeout_ms: self.number("group.consumer.session.timeout.ms")?,
            consumer_min_session_timeout_ms: self.number("group.consumer.min.session.timeout.ms")?,
            consumer_max_session_timeout_ms: self.number("group.consumer.max.session.timeout.ms")?,
            consumer_heartbeat_interval_ms: self.number("group.consumer.heartbeat.interval.ms")?,
            consumer_min_heartbeat_interval_ms: self.number("group.consumer.min.heartbeat.interval.ms")?,
            consumer_max_heartbeat_interval_ms: self.number("group.consumer.max.heartbeat.interval.ms")?,
            consumer_max_size: self.number("group.consumer.max.size")?,
            consumer_assignors,
            consumer_migration_policy: MigrationPolicy::parse(&policy).unwrap_or_default(),
            consumer_assignment_interval_ms: self.number("group.consumer.assignment.interval.ms")?,
            consumer_min_assignment_interval_ms: self.number("group.consumer.min.assignment.interval.ms")?,
            consumer_max_assignment_interval_ms: self.number("group.consumer.max.assignment.interval.ms")?,
            consumer_regex_refresh_interval_ms: self.number("group.consumer.regex.refresh.interval.ms")?,
            ..GroupConfig::default()
        };
        self.within("consumer", "heartbeat.interval.ms")?;
        self.within("consumer", "session.timeout.ms")?;
        self.within("consumer", "assignment.interval.ms")?;
        if config.consumer_heartbeat_interval_ms >= config.consumer_session_timeout_ms {
            return self.refuse(
                "group.consumer.heartbeat.interval.ms",
                "it must be less than `group.consumer.session.timeout.ms`",
            );
        }
        Ok(config)
    }

    /// Holds an option between its `min` and `max` (`GroupCoordinatorConfig` of Kafka).
    fn within(&self, kind: &str, what: &str) -> Result<(), ConfigError> {
        let (name, min, max) = (
            format!("group.{kind}.{what}"),
            format!("group.{kind}.min.{what}"),
            format!("group.{kind}.max.{what}"),
        );
        let (value, low, high): (i64, i64, i64) =
            (self.number(&name)?, self.number(&min)?, self.number(&max)?);
        if high < low {
            return self.refuse(&max, format!("it must not be less than `{min}`, which is {low}"));
        }
        if !(low..=high).contains(&value) {
            let reason = format!("it must be from `{min}` ({low}) to `{max}` ({high})");
            return self.refuse(&name, reason);
        }
        Ok(())
    }
}

/// What a group has of its own. An override that cannot be read is passed over: it was checked when it was set.
pub fn group_overrides(overrides: &Overrides) -> GroupOverrides {
    let number = |name: &str| overrides.get(name).and_then(|value| value.parse().ok());
    GroupOverrides {
        session_timeout_ms: number("consumer.session.timeout.ms"),
        heartbeat_interval_ms: number("consumer.heartbeat.interval.ms"),
        assignment_interval_ms: number("consumer.assignment.interval.ms"),
    }
}

/// Holds a group's overrides against the broker's bounds, and against each other (`GroupConfig.validate` of Kafka).
pub(super) fn check_group(overrides: &Overrides, live: &Live) -> Result<(), String> {
    let in_force = |name: &str| -> Option<i64> {
        let option = table::group_option(name)?;
        let strongest = live.group_levels(option, overrides).into_iter().next();
        strongest?.converted.parse().ok()
    };
    let bound = |name: &str| live.value(name).and_then(|value| value.parse::<i64>().ok());
    for name in overrides.keys() {
        let Some((kind, what)) = name.split_once('.') else {
            continue;
        };
        let value = in_force(name);
        let min = format!("group.{kind}.min.{what}");
        if let (Some(value), Some(low)) = (value, bound(&min))
            && value < low
        {
            return Err(format!("{name} must be greater than or equal to {min}"));
        }
        let max = match what {
            "num.standby.replicas" => format!("group.{kind}.max.standby.replicas"),
            what => format!("group.{kind}.max.{what}"),
        };
        if let (Some(value), Some(high)) = (value, bound(&max))
            && value > high
        {
            return Err(format!("{name} must be less than or equal to {max}"));
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let (session, heartbeat) = (
            format!("{kind}.session.timeout.ms"),
            format!("{kind}.heartbeat.interval.ms"),
        );
        if in_force(&session) <= in_force(&heartbeat) {
            return Err(format!("{session} must be greater than {heartbeat}"));
        }
    }
    Ok(())
}
