//! Recycled memory for WAL objects.
//!
//! On virtual machines the first touch of a page costs about as much CPU as all else that is done to it, so
//! arenas are used again as soon as nothing refers to them. Each object starts at a 4 KiB boundary, which lets
//! the local store write it to disk without a copy.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

/// Objects begin at multiples of this, bytes: a block of a local directory's disk.
pub(crate) const ALIGNMENT: usize = 4096;
/// An arena that nobody wants for this long is given back to the system.
const RELEASE_AFTER: Duration = Duration::from_secs(10);

/// Hands out the memory of one WAL object after the other.
#[derive(Debug)]
pub(crate) struct Arenas {
    size: usize,
    /// The rest of the arena that objects are being cut from.
    current: BytesMut,
    /// Arenas whose memory is all given out; reclaimed when the last reference is gone.
    used: Vec<(BytesMut, Instant)>,
}

impl Arenas {
    /// `size` is that of an arena, bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            current: BytesMut::new(),
            used: Vec::new(),
        }
    }

    /// Empty, 4 KiB-aligned memory with room for `room` bytes.
    pub(crate) fn take(&mut self, room: usize, now: Instant) -> BytesMut {
        if room + 2 * ALIGNMENT > self.size {
            return aligned(BytesMut::with_capacity(room + ALIGNMENT));
        }
        if self.current.capacity() < room + ALIGNMENT {
            let old = std::mem::take(&mut self.current);
            if old.capacity() > 0 || !self.used.is_empty() {
                self.used.push((old, now));
            }
            self.current = self
                .reclaimed()
                .unwrap_or_else(|| BytesMut::with_capacity(self.size));
        }
        aligned(std::mem::take(&mut self.current))
    }

    /// Takes back what an object left of its memory.
    pub(crate) fn give_back(&mut self, rest: BytesMut, now: Instant) {
        if self.current.capacity() == 0 {
            self.current = rest;
        } else {
            self.used.push((rest, now));
        }
    }

    fn reclaimed(&mut self) -> Option<BytesMut> {
        let wanted = self.size - ALIGNMENT;
        for at in 0..self.used.len() {
            if self.used[at].0.try_reclaim(wanted) {
                return Some(self.used.swap_remove(at).0);
            }
        }
        None
    }

    /// Gives memory that was not wanted for a while back to the system.
    pub(crate) fn release_unused(&mut self, now: Instant) {
        let wanted = self.size - ALIGNMENT;
        self.used.retain_mut(|(arena, since)| {
            let idle = now.saturating_duration_since(*since) > RELEASE_AFTER;
            !(idle && arena.try_reclaim(wanted))
        });
        // What is left of an arena whose objects are all gone is given back too.
        if self.current.capacity() > 0 && self.current.try_reclaim(wanted) {
            self.current = BytesMut::new();
        }
    }
}

/// Advances to the next aligned address.
fn aligned(mut memory: BytesMut) -> BytesMut {
    let misaligned = memory.as_ptr().addr() % ALIGNMENT;
    if misaligned != 0 {
        let skip = ALIGNMENT - misaligned;
        memory.resize(skip, 0);
        drop(memory.split());
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_used_again() {
        let mut arenas = Arenas::new(1 << 20);
        let now = Instant::now();
        let mut held = Vec::new();
        let mut addresses = std::collections::BTreeSet::new();
        for round in 0..64 {
            let mut object = arenas.take(100_000, now);
            assert_eq!(object.as_ptr().addr() % ALIGNMENT, 0);
            addresses.insert(object.as_ptr().addr());
            object.resize(100_000, 7);
            let frozen = object.split().freeze();
            arenas.give_back(object, now);
            held.push(frozen);
            if round % 8 == 7 {
                held.clear();
            }
        }
        assert!(addresses.len() <= 30, "{} different places", addresses.len());
        assert!(arenas.take(10 << 20, now).capacity() >= 10 << 20);
    }
}
