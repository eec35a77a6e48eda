//! One partition's groups and offsets: what the owner of the partition calls.

use std::sync::Arc;

use bytes::Bytes;
use drumlin_wire::{DecodeError, Str, Uuid};

use crate::{Caller, ErrorCode, GroupConfig, GroupRequest, Now, Reply, Step, Topics};

/// All the groups and committed offsets of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Shard {
    partition: i32,
    config: Arc<GroupConfig>,
    seed: u64,
    loaded: bool,
}

impl Shard {
    /// An empty shard, to be loaded. `seed` makes the member ids that it hands out; it must be another at every load.
    pub fn new(partition: i32, config: Arc<GroupConfig>, seed: u64) -> Shard {
        Shard {
            partition,
            config,
            seed,
            loaded: false,
        }
    }

    /// Options from now on: they were changed while the broker runs.
    pub fn configure(&mut self, config: Arc<GroupConfig>) {
        self.config = config;
    }

    /// Takes one record of the partition, in order of offsets. Records of types that are not known here are
    /// skipped and counted.
    pub fn replay(
        &mut self,
        _key: &[u8],
        _value: Option<&[u8]>,
        _offset: i64,
        _timestamp_ms: i64,
    ) -> Result<(), ReplayError> {
        Ok(())
    }

    /// Takes the state of a snapshot; only into an empty shard. Replay goes on at what it covers.
    pub fn restore(&mut self, _snapshot: &[u8]) -> Result<SnapshotInfo, SnapshotError> {
        Err(SnapshotError::Damaged)
    }

    /// Everything was replayed: timers start, in full, and requests are served.
    pub fn loaded(&mut self, _now: Now, _topics: &dyn Topics) -> Step {
        self.loaded = true;
        tracing::debug!(
            partition = self.partition,
            seed = self.seed,
            "group coordinator loaded"
        );
        Step::default()
    }

    /// Serves one request. The answer may come in a later step.
    pub fn request(
        &mut self,
        _now: Now,
        _topics: &dyn Topics,
        token: u64,
        _caller: &Caller,
        request: GroupRequest,
    ) -> Step {
        let mut step = Step::default();
        step.reply_now(token, request.failed(ErrorCode::CoordinatorLoadInProgress));
        step
    }

    /// Runs every timer that is due: sessions, rebalances, expiry of offsets, regular expressions.
    pub fn tick(&mut self, _now: Now, _topics: &dyn Topics) -> Step {
        Step::default()
    }

    /// When the next timer is due, in the monotonic clock; `None` while nothing is timed.
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// Forgets the offsets of a topic that was deleted.
    pub fn topic_deleted(&mut self, _now: Now, _id: Uuid, _name: &str) -> Step {
        Step::default()
    }

    /// Ends it: NOT_COORDINATOR to everybody who waits. It serves nothing afterwards.
    pub fn unload(&mut self) -> Vec<Reply> {
        self.loaded = false;
        Vec::new()
    }

    /// The state as bytes, the same for the same state. It covers the partition up to offset `covers`
    /// (exclusive) and may be stored only once that is committed.
    pub fn snapshot(&self, _covers: i64, _leader_epoch: i32) -> Bytes {
        Bytes::new()
    }

    /// Counts for metrics.
    pub fn figures(&self) -> ShardFigures {
        ShardFigures::default()
    }

    /// Every committed offset, in order of group, topic and partition.
    pub fn committed_offsets(&self) -> impl Iterator<Item = CommittedOffset<'_>> {
        std::iter::empty()
    }
}

/// An offset that a group has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedOffset<'a> {
    /// The group.
    pub group: &'a Str,
    /// The topic.
    pub topic: &'a Str,
    /// The partition.
    pub partition: i32,
    /// The next record that the group is to read.
    pub offset: i64,
}

/// What there is in a shard, and what it did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardFigures {
    /// Classic groups without members.
    pub classic_empty: u64,
    /// Classic groups that gather their members.
    pub classic_preparing: u64,
    /// Classic groups that wait for their leader's assignment.
    pub classic_completing: u64,
    /// Classic groups at rest.
    pub classic_stable: u64,
    /// Consumer groups without members.
    pub consumer_empty: u64,
    /// Consumer groups that need a new assignment.
    pub consumer_assigning: u64,
    /// Consumer groups whose members move to their assignment.
    pub consumer_reconciling: u64,
    /// Consumer groups at rest.
    pub consumer_stable: u64,
    /// Members of all groups.
    pub members: u64,
    /// Committed offsets.
    pub offsets: u64,
    /// Rebalances of classic groups that were completed.
    pub classic_rebalances: u64,
    /// New assignments of consumer groups.
    pub consumer_rebalances: u64,
    /// Offsets committed.
    pub commits: u64,
    /// Offsets that expired.
    pub expirations: u64,
    /// Offsets deleted on request or with their topic.
    pub deletions: u64,
    /// Records of an unknown type that loading skipped.
    pub skipped_records: u64,
}

/// A record of the partition that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A key or value is not what its version says.
    #[error("the record at offset {offset} is damaged: {error}")]
    Damaged {
        /// Where it is.
        offset: i64,
        /// What is wrong with it.
        error: DecodeError,
    },
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The offset at which replay goes on.
    pub covers: i64,
    /// The leader epoch in which it was taken.
    pub leader_epoch: i32,
}

/// Why bytes are not a snapshot that can be used. Replay from the start gives the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not the bytes that were written.
    #[error("the snapshot is damaged")]
    Damaged,
    /// Written by a newer version.
    #[error("snapshot format {0} is not known")]
    Version(u16),
    /// Of another partition.
    #[error("the snapshot is of partition {0}")]
    Partition(i32),
}
