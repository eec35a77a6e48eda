//! What members of classic groups hold, counted and bounded over all shards of a broker.
//!
//! A JoinGroup's metadata stays for as long as the member's session, whoever sent it and whether or not it is there
//! still; so there has to be a bound that does not depend on how many connect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of all members of a broker's classic groups: a thousand members with twenty thousand bytes each take a
/// sixth of it.
const LIMIT: usize = 128 << 20;

/// The count that shards share.
#[derive(Debug)]
pub struct MemberMemory {
    used: AtomicUsize,
    limit: usize,
}

impl Default for MemberMemory {
    fn default() -> MemberMemory {
        MemberMemory::with_limit(LIMIT)
    }
}

impl MemberMemory {
    /// Bounded by so many bytes.
    pub fn with_limit(limit: usize) -> MemberMemory {
        MemberMemory {
            used: AtomicUsize::new(0),
            limit,
        }
    }

    /// Bytes that members hold, about.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so many bytes more fit. Shards do not wait for each other: several may see the same room.
    pub(crate) fn fits(&self, more: usize) -> bool {
        self.used().saturating_add(more) <= self.limit
    }
}

/// A group's part of it, given back when the group is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: usize,
    of: Option<Arc<MemberMemory>>,
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From now on this counts there.
    pub fn count_in(&mut self, memory: &Arc<MemberMemory>) {
        if self.of.is_none() {
            memory.used.fetch_add(self.bytes, Ordering::Relaxed);
            self.of = Some(Arc::clone(memory));
        }
    }

    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes));
    }

    pub fn remove(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }

    pub fn set(&mut self, bytes: usize) {
        if let Some(memory) = &self.of {
            // Added first, so that the sum never passes below zero.
            memory.used.fetch_add(bytes, Ordering::Relaxed);
            memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}
