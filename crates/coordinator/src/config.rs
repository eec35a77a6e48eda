//! Options of the coordinator, with Kafka's names and defaults (4.3.1).

use drumlin_wire::Str;

/// Which way a live group may change its protocol (`group.consumer.migration.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MigrationPolicy {
    /// Classic to consumer and back.
    #[default]
    Bidirectional,
    /// Classic to consumer.
    Upgrade,
    /// Consumer to classic.
    Downgrade,
    /// Neither.
    Disabled,
}

impl MigrationPolicy {
    /// From the option's value, in any case.
    pub fn parse(text: &str) -> Option<MigrationPolicy> {
        match text.to_ascii_lowercase().as_str() {
            "bidirectional" => Some(MigrationPolicy::Bidirectional),
            "upgrade" => Some(MigrationPolicy::Upgrade),
            "downgrade" => Some(MigrationPolicy::Downgrade),
            "disabled" => Some(MigrationPolicy::Disabled),
            _ => None,
        }
    }

    /// Whether a classic group may become a consumer group.
    pub fn upgrades(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Upgrade)
    }

    /// Whether a consumer group may become a classic group.
    pub fn downgrades(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Downgrade)
    }
}

/// The broker's options for groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.coordinator.rebalance.protocols` contains `consumer`.
    pub consumer_protocol: bool,
    /// `group.min.session.timeout.ms`: 6,000.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`: 1,800,000.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: 3,000.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: no limit.
    pub max_size: i32,
    /// How long a member that has not joined yet is waited for: 300,000; no option in Kafka
    /// (`CLASSIC_GROUP_NEW_MEMBER_JOIN_TIMEOUT_MS`).
    pub new_member_join_timeout_ms: i32,

    /// `offset.metadata.max.bytes`: 4,096.
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes`, in milliseconds: seven days.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`: 600,000.
    pub offsets_retention_check_interval_ms: i64,

    /// `group.consumer.session.timeout.ms`: 45,000.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.min.session.timeout.ms`: 45,000.
    pub consumer_min_session_timeout_ms: i32,
    /// `group.consumer.max.session.timeout.ms`: 60,000.
    pub consumer_max_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`: 5,000.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.min.heartbeat.interval.ms`: 5,000.
    pub consumer_min_heartbeat_interval_ms: i32,
    /// `group.consumer.max.heartbeat.interval.ms`: 15,000.
    pub consumer_max_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`: no limit.
    pub consumer_max_size: i32,
    /// `group.consumer.assignors`: `uniform`, `range`; the first is the default.
    pub consumer_assignors: Vec<Str>,
    /// `group.consumer.migration.policy`: bidirectional.
    pub consumer_migration_policy: MigrationPolicy,
    /// `group.consumer.assignment.interval.ms`: 1,000.
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.min.assignment.interval.ms`: 0.
    pub consumer_min_assignment_interval_ms: i32,
    /// `group.consumer.max.assignment.interval.ms`: 15,000.
    pub consumer_max_assignment_interval_ms: i32,
    /// `group.consumer.regex.refresh.interval.ms`: 600,000.
    pub consumer_regex_refresh_interval_ms: i32,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            consumer_protocol: true,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 10_080 * 60_000,
            offsets_retention_check_interval_ms: 600_000,
            consumer_session_timeout_ms: 45_000,
            consumer_min_session_timeout_ms: 45_000,
            consumer_max_session_timeout_ms: 60_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_min_heartbeat_interval_ms: 5_000,
            consumer_max_heartbeat_interval_ms: 15_000,
            consumer_max_size: i32::MAX,
            consumer_assignors: vec![Str::from_static("uniform"), Str::from_static("range")],
            consumer_migration_policy: MigrationPolicy::default(),
            consumer_assignment_interval_ms: 1_000,
            consumer_min_assignment_interval_ms: 0,
            consumer_max_assignment_interval_ms: 15_000,
            consumer_regex_refresh_interval_ms: 600_000,
        }
    }
}

/// What a group has of its own (ConfigResource GROUP); what is not set is the broker's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupOverrides {
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: Option<i32>,
    /// `consumer.assignment.interval.ms`.
    pub assignment_interval_ms: Option<i32>,
}
