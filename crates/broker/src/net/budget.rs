//! The broker-wide budget of request bytes.
//!
//! A connection's first [`FREE_BYTES`] of read buffer are its own; what it grows beyond them is taken from here, as the
//! bytes arrive and not by what a length prefix claims. A client that sends small requests therefore never meets the
//! budget, however greedy its neighbours are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What each connection may buffer without asking.
pub const FREE_BYTES: usize = 64 * 1024;

/// Permits are counted in units of this many bytes, so that any budget fits a `u32`.
const UNIT: usize = 4096;

/// Bytes that the read buffers of all connections may hold together, beyond what each has for free.
#[derive(Clone, Debug)]
pub struct RequestBudget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    permits: Arc<Semaphore>,
    units: usize,
    waiting: AtomicUsize,
    /// Sizes of all read buffers, the free part included.
    buffers: AtomicUsize,
}

impl RequestBudget {
    /// A budget of `bytes`, at least one unit.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let inner = Inner {
            permits: Arc::new(Semaphore::new(units)),
            units,
            waiting: AtomicUsize::new(0),
            buffers: AtomicUsize::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Bytes taken at this moment.
    pub fn used(&self) -> usize {
        self.inner
            .units
            .saturating_sub(self.inner.permits.available_permits())
            * UNIT
    }

    /// Bytes of all read buffers, what each connection has for free included.
    pub fn buffer_bytes(&self) -> usize {
        self.inner.buffers.load(Ordering::Relaxed)
    }

    /// True while some connection waits for room.
    pub fn contended(&self) -> bool {
        self.inner.waiting.load(Ordering::Relaxed) > 0
    }

    /// A share of nothing, to be grown.
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            permit: None,
            units: 0,
            buffer: 0,
        }
    }
}

/// What one read buffer holds of the budget; returned when dropped.
#[derive(Debug)]
pub struct Share {
    budget: RequestBudget,
    permit: Option<OwnedSemaphorePermit>,
    units: usize,
    /// Size of the buffer, bytes.
    buffer: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.note_buffer(0);
    }
}

impl Share {
    /// The budget this is a share of.
    pub fn budget(&self) -> &RequestBudget {
        &self.budget
    }

    /// Makes the share cover a buffer of `capacity` bytes, waiting for room if need be; giving back when it shrinks.
    ///
    /// A buffer larger than the whole budget takes all of it, so that no permitted frame can wait for ever.
    pub async fn cover(&mut self, capacity: usize) {
        let wanted = capacity
            .saturating_sub(FREE_BYTES)
            .div_ceil(UNIT)
            .min(self.budget.inner.units);
        if wanted <= self.units {
            self.shrink(wanted);
            return;
        }
        let more = u32::try_from(wanted - self.units).unwrap_or(u32::MAX);
        let inner = &self.budget.inner;
        let got = match Arc::clone(&inner.permits).try_acquire_many_owned(more) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::new(&inner.waiting);
                match Arc::clone(&inner.permits).acquire_many_owned(more).await {
                    Ok(permit) => permit,
                    // The semaphore is never closed.
                    Err(_) => return,
                }
            }
        };
        match &mut self.permit {
            Some(permit) => permit.merge(got),
            none => *none = Some(got),
        }
        self.units = wanted;
    }

    /// Tells the size of the buffer as it is now, for the count of all.
    pub fn note_buffer(&mut self, capacity: usize) {
        let all = &self.budget.inner.buffers;
        all.fetch_add(capacity, Ordering::Relaxed);
        all.fetch_sub(self.buffer, Ordering::Relaxed);
        self.buffer = capacity;
    }

    /// Gives back what a buffer of `capacity` bytes does not need. Never grows.
    pub fn give_back(&mut self, capacity: usize) {
        let wanted = capacity.saturating_sub(FREE_BYTES).div_ceil(UNIT);
        if wanted < self.units {
            self.shrink(wanted);
        }
    }

    fn shrink(&mut self, wanted: usize) {
        if let Some(permit) = &mut self.permit {
            drop(permit.split(self.units - wanted));
        }
        self.units = wanted;
    }
}

/// Counts a waiter for as long as it lives, also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn small_buffers_are_free_and_large_ones_wait() {
        let budget = RequestBudget::new(1 << 20);
        let mut first = budget.share();
        first.cover(FREE_BYTES).await;
        assert_eq!(budget.used(), 0);
        first.cover(FREE_BYTES + (1 << 20)).await;
        assert_eq!(budget.used(), 1 << 20);

        let mut second = budget.share();
        second.cover(FREE_BYTES / 2).await;
        let waits = tokio::time::timeout(Duration::from_secs(1), second.cover(FREE_BYTES + 1)).await;
        assert!(waits.is_err());
        assert!(!budget.contended(), "a dropped waiter is no longer counted");
        first.cover(0).await;
        second.cover(FREE_BYTES + 1).await;
        assert_eq!(budget.used(), UNIT);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_budget_takes_all_of_it() {
        let budget = RequestBudget::new(UNIT);
        let mut share = budget.share();
        share.cover(100 << 20).await;
        assert_eq!(budget.used(), UNIT);
    }
}
