//! Kafka's error codes, and the one place where errors become codes.
//!
//! Every match here is exhaustive, with no wildcard arm: a new error is a compile error until it has a code.

use drumlin_cluster::{ApplyError, ChangeError};
use drumlin_log::{AppendError, CommitError, DeleteRecordsError, ReadError, SequenceError};
use drumlin_records::BatchError;

use crate::config::AlterError;

/// The codes that this broker answers with; the numbers are the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i16)]
#[allow(missing_docs, reason = "the names are Kafka's own")]
pub enum ErrorCode {
    UnknownServerError = -1,
    None = 0,
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    InvalidFetchSize = 4,
    LeaderNotAvailable = 5,
    NotLeaderOrFollower = 6,
    RequestTimedOut = 7,
    MessageTooLarge = 10,
    OffsetMetadataTooLarge = 12,
    CoordinatorLoadInProgress = 14,
    CoordinatorNotAvailable = 15,
    NotCoordinator = 16,
    InvalidTopic = 17,
    InvalidRequiredAcks = 21,
    IllegalGeneration = 22,
    InconsistentGroupProtocol = 23,
    InvalidGroupId = 24,
    UnknownMemberId = 25,
    InvalidSessionTimeout = 26,
    RebalanceInProgress = 27,
    InvalidCommitOffsetSize = 28,
    InvalidTimestamp = 32,
    UnsupportedSaslMechanism = 33,
    IllegalSaslState = 34,
    UnsupportedVersion = 35,
    TopicAlreadyExists = 36,
    InvalidPartitions = 37,
    InvalidReplicationFactor = 38,
    InvalidReplicaAssignment = 39,
    InvalidConfig = 40,
    NotController = 41,
    InvalidRequest = 42,
    UnsupportedForMessageFormat = 43,
    PolicyViolation = 44,
    OutOfOrderSequenceNumber = 45,
    DuplicateSequenceNumber = 46,
    InvalidProducerEpoch = 47,
    TransactionalIdAuthorizationFailed = 53,
    SecurityDisabled = 54,
    KafkaStorageError = 56,
    LogDirNotFound = 57,
    DelegationTokenRequestNotAllowed = 64,
    NonEmptyGroup = 68,
    GroupIdNotFound = 69,
    FetchSessionIdNotFound = 70,
    InvalidFetchSessionEpoch = 71,
    TopicDeletionDisabled = 73,
    FencedLeaderEpoch = 74,
    UnknownLeaderEpoch = 75,
    UnsupportedCompressionType = 76,
    OffsetNotAvailable = 78,
    MemberIdRequired = 79,
    GroupMaxSizeReached = 81,
    FencedInstanceId = 82,
    ElectionNotNeeded = 84,
    NoReassignmentInProgress = 85,
    GroupSubscribedToTopic = 86,
    InvalidRecord = 87,
    UnstableOffsetCommit = 88,
    ResourceNotFound = 91,
    DuplicateResource = 92,
    UnacceptableCredential = 93,
    InvalidUpdateVersion = 95,
    UnknownTopicId = 100,
    BrokerIdNotRegistered = 102,
    InconsistentTopicId = 103,
    TransactionalIdNotFound = 105,
    FetchSessionTopicIdError = 106,
    FencedMemberEpoch = 110,
    UnreleasedInstanceId = 111,
    UnsupportedAssignor = 112,
    StaleMemberEpoch = 113,
    MismatchedEndpointType = 114,
    UnsupportedEndpointType = 115,
    UnknownSubscriptionId = 117,
    TelemetryTooLarge = 118,
    InvalidRegularExpression = 128,
}

impl ErrorCode {
    /// The number that goes over the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name in lower case, for metrics.
    pub fn name(code: i16) -> &'static str {
        match code {
            -1 => "unknown_server_error",
            0 => "none",
            1 => "offset_out_of_range",
            2 => "corrupt_message",
            3 => "unknown_topic_or_partition",
            4 => "invalid_fetch_size",
            5 => "leader_not_available",
            6 => "not_leader_or_follower",
            7 => "request_timed_out",
            10 => "message_too_large",
            12 => "offset_metadata_too_large",
            14 => "coordinator_load_in_progress",
            15 => "coordinator_not_available",
            16 => "not_coordinator",
            17 => "invalid_topic",
            21 => "invalid_required_acks",
            22 => "illegal_generation",
            23 => "inconsistent_group_protocol",
            24 => "invalid_group_id",
            25 => "unknown_member_id",
            26 => "invalid_session_timeout",
            27 => "rebalance_in_progress",
            28 => "invalid_commit_offset_size",
            32 => "invalid_timestamp",
            33 => "unsupported_sasl_mechanism",
            34 => "illegal_sasl_state",
            35 => "unsupported_version",
            36 => "topic_already_exists",
            37 => "invalid_partitions",
            38 => "invalid_replication_factor",
            39 => "invalid_replica_assignment",
            40 => "invalid_config",
            41 => "not_controller",
            42 => "invalid_request",
            43 => "unsupported_for_message_format",
            44 => "policy_violation",
            45 => "out_of_order_sequence_number",
            46 => "duplicate_sequence_number",
            47 => "invalid_producer_epoch",
            53 => "transactional_id_authorization_failed",
            54 => "security_disabled",
            56 => "kafka_storage_error",
            57 => "log_dir_not_found",
            64 => "delegation_token_request_not_allowed",
            68 => "non_empty_group",
            69 => "group_id_not_found",
            70 => "fetch_session_id_not_found",
            71 => "invalid_fetch_session_epoch",
            73 => "topic_deletion_disabled",
            74 => "fenced_leader_epoch",
            75 => "unknown_leader_epoch",
            76 => "unsupported_compression_type",
            78 => "offset_not_available",
            79 => "member_id_required",
            81 => "group_max_size_reached",
            82 => "fenced_instance_id",
            84 => "election_not_needed",
            85 => "no_reassignment_in_progress",
            86 => "group_subscribed_to_topic",
            87 => "invalid_record",
            88 => "unstable_offset_commit",
            91 => "resource_not_found",
            92 => "duplicate_resource",
            93 => "unacceptable_credential",
            95 => "invalid_update_version",
            100 => "unknown_topic_id",
            102 => "broker_id_not_registered",
            103 => "inconsistent_topic_id",
            105 => "transactional_id_not_found",
            106 => "fetch_session_topic_id_error",
            110 => "fenced_member_epoch",
            111 => "unreleased_instance_id",
            112 => "unsupported_assignor",
            113 => "stale_member_epoch",
            114 => "mismatched_endpoint_type",
            115 => "unsupported_endpoint_type",
            117 => "unknown_subscription_id",
            118 => "telemetry_too_large",
            128 => "invalid_regular_expression",
            _ => "other",
        }
    }
}

impl From<&BatchError> for ErrorCode {
    fn from(error: &BatchError) -> Self {
        match error {
            BatchError::Corrupt(_) => Self::CorruptMessage,
            BatchError::Invalid(_) | BatchError::InvalidRecords { .. } => Self::InvalidRecord,
            BatchError::InvalidTimestamp { .. } | BatchError::InvalidTimestamps { .. } => {
                Self::InvalidTimestamp
            }
            BatchError::TooLarge { .. } => Self::MessageTooLarge,
            BatchError::UnsupportedCompression { .. } => Self::UnsupportedCompressionType,
            BatchError::UnsupportedFormat { .. } => Self::InvalidRecord,
        }
    }
}

impl From<&AppendError> for ErrorCode {
    fn from(error: &AppendError) -> Self {
        match error {
            // The name may belong to a new topic soon: the client asks for metadata again.
            AppendError::Deleted => Self::UnknownTopicOrPartition,
            AppendError::FencedEpoch { .. } => Self::FencedLeaderEpoch,
            AppendError::UnknownEpoch { .. } => Self::UnknownLeaderEpoch,
            AppendError::Sequence(SequenceError::OutOfOrder { .. }) => Self::OutOfOrderSequenceNumber,
            AppendError::Sequence(SequenceError::InvalidEpoch { .. }) => Self::InvalidProducerEpoch,
            AppendError::Unavailable(_) => Self::KafkaStorageError,
            AppendError::NoRoom => Self::RequestTimedOut,
            AppendError::Stopped => Self::NotLeaderOrFollower,
        }
    }
}

impl From<CommitError> for ErrorCode {
    fn from(error: CommitError) -> Self {
        match error {
            // Whether the records stand is not known here; whoever leads now knows, and an idempotent producer asks.
            CommitError::Fenced | CommitError::Stopped => Self::NotLeaderOrFollower,
        }
    }
}

impl From<&ReadError> for ErrorCode {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::OffsetOutOfRange { .. } => Self::OffsetOutOfRange,
            ReadError::Deleted => Self::UnknownTopicOrPartition,
            // Clients try again, and reads of what is in memory go on.
            ReadError::Store(_) | ReadError::Unavailable { .. } => Self::KafkaStorageError,
            ReadError::Corrupt { .. } => Self::CorruptMessage,
        }
    }
}

impl From<&DeleteRecordsError> for ErrorCode {
    fn from(error: &DeleteRecordsError) -> Self {
        match error {
            DeleteRecordsError::OutOfRange { .. } => Self::OffsetOutOfRange,
            DeleteRecordsError::Deleted => Self::UnknownTopicOrPartition,
            DeleteRecordsError::Unavailable(_) => Self::KafkaStorageError,
            DeleteRecordsError::Commit(error) => (*error).into(),
        }
    }
}

/// An error that is told to the client: a code, and words where the response has room for them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Told {
    /// The code.
    pub code: ErrorCode,
    /// The words.
    pub message: String,
}

impl Told {
    /// With words.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<ChangeError<Told>> for Told {
    fn from(error: ChangeError<Told>) -> Self {
        match error {
            ChangeError::Refused(told) => told,
            ChangeError::Invalid(error) => {
                let code = match &error {
                    ApplyError::TopicExists(_) => ErrorCode::TopicAlreadyExists,
                    ApplyError::UnknownTopic(_) | ApplyError::UnknownTopicName(_) => {
                        ErrorCode::UnknownTopicOrPartition
                    }
                    ApplyError::PartitionCount { .. } => ErrorCode::InvalidPartitions,
                    ApplyError::TopicIdUsed(_)
                    | ApplyError::UnknownTombstone(_)
                    | ApplyError::UnknownPartition { .. }
                    | ApplyError::UnknownBroker(_)
                    | ApplyError::UnknownIncarnation(_)
                    | ApplyError::AlreadyFenced(_)
                    | ApplyError::NotFenced(_)
                    | ApplyError::ChainInUse(_)
                    | ApplyError::LeaderEpoch { .. }
                    | ApplyError::ProducerIds { .. }
                    | ApplyError::FeatureLevel { .. }
                    | ApplyError::Misplaced => ErrorCode::UnknownServerError,
                };
                Told::new(code, error.to_string())
            }
            ChangeError::TooLarge(_) => Told::new(ErrorCode::PolicyViolation, error.to_string()),
            // Retriable: another broker is the controller now, or this one is going down.
            ChangeError::Ended(_) => Told::new(ErrorCode::NotController, error.to_string()),
        }
    }
}

impl From<AlterError> for Told {
    fn from(error: AlterError) -> Self {
        let code = match &error {
            AlterError::InvalidConfig(_) => ErrorCode::InvalidConfig,
            AlterError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        };
        Told::new(code, error.to_string())
    }
}
