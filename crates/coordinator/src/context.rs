//! What a group needs of its shard while it takes a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use drumlin_wire::Str;

use crate::ids::MemberIds;
use crate::memory::MemberMemory;
use crate::timers::Timers;
use crate::{GroupConfig, Now, Step};

/// What a timer is for. One of each at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Expiry of offsets and of empty groups.
    Expiry,
    /// A classic group's members have joined, or have not.
    Join(Str),
    /// A classic group's members have asked for their assignment, or have not.
    Sync(Str),
    /// A member of a classic group, the second, has been heard of, or has not.
    Session(Str, Str),
    /// The first of a consumer group's own timers.
    Consumer(Str),
}

/// Counts of what a shard did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub classic_rebalances: u64,
    pub consumer_rebalances: u64,
    pub commits: u64,
    pub expirations: u64,
    pub deletions: u64,
    pub skipped_records: u64,
}

/// The time, the options, and where effects go.
pub(crate) struct Cx<'a> {
    pub now: Now,
    pub config: &'a GroupConfig,
    pub timers: &'a mut Timers<Timer>,
    pub ids: &'a mut MemberIds,
    /// When consumer groups have come into their epochs, by the wall clock.
    pub epoch_times: &'a mut BTreeMap<Str, i64>,
    pub counters: &'a mut Counters,
    /// What members of all groups hold.
    pub memory: &'a Arc<MemberMemory>,
    pub step: &'a mut Step,
}

impl Cx<'_> {
    /// Sets a timer this many milliseconds from now; what is negative is due at once.
    pub fn after(&mut self, timer: Timer, ms: i32) {
        let at = self.now.mono_ms + u64::try_from(ms).unwrap_or(0);
        self.timers.set(timer, at);
    }
}
