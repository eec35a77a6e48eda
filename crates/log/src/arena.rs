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
/// An arena that lay unused for this long is given back to the system.
const RELEASE_AFTER: Duration = Duration::from_secs(10);

/// What is left of an arena's memory, from its start on while nothing refers to it.
#[derive(Debug, Default)]
struct Arena {
    memory: BytesMut,
    /// Bytes at its front that were written to since it was allocated. The system gives memory for those only.
    touched: usize,
}

/// Hands out the memory of one WAL object after the other.
#[derive(Debug)]
pub(crate) struct Arenas {
    size: usize,
    /// The rest of the arena that objects are being cut from.
    current: Arena,
    /// Arenas whose memory is all given out, and some of it still referred to.
    used: Vec<Arena>,
    /// Arenas that nothing refers to, and since when.
    unused: Vec<(Arena, Instant)>,
    /// The object that was taken last has memory of its own.
    is_single: bool,
}

impl Arenas {
    /// `size` is that of an arena, bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            current: Arena::default(),
            used: Vec::new(),
            unused: Vec::new(),
            is_single: false,
        }
    }

    /// Memory that all arenas take, bytes. Objects that are larger than an arena are not in it.
    pub(crate) fn bytes(&self) -> usize {
        let unused = self.unused.iter().map(|(arena, _)| arena);
        let others: usize = self.used.iter().chain(unused).map(|arena| arena.touched).sum();
        self.current.touched + others
    }

    /// Empty, 4 KiB-aligned memory with room for `room` bytes.
    pub(crate) fn take(&mut self, room: usize, now: Instant) -> BytesMut {
        self.is_single = room + 2 * ALIGNMENT > self.size;
        if self.is_single {
            return aligned(BytesMut::with_capacity(room + ALIGNMENT));
        }
        if self.current.memory.capacity() < room + ALIGNMENT {
            let old = std::mem::take(&mut self.current);
            if old.memory.capacity() > 0 {
                self.used.push(old);
            }
            self.collect_unused(now);
            // The one that was used last is the likeliest to be in the processor's cache.
            self.current = match self.unused.pop() {
                Some((arena, _)) => arena,
                None => Arena {
                    memory: BytesMut::with_capacity(self.size),
                    touched: 0,
                },
            };
        }
        aligned(std::mem::take(&mut self.current.memory))
    }

    /// Takes back what an object left of its memory.
    pub(crate) fn give_back(&mut self, rest: BytesMut) {
        if !self.is_single {
            let touched = self.size.saturating_sub(rest.capacity());
            self.current.touched = self.current.touched.max(touched);
            self.current.memory = rest;
        }
    }

    /// Finds the arenas that nothing refers to any more.
    fn collect_unused(&mut self, now: Instant) {
        let wanted = self.size - ALIGNMENT;
        let mut at = 0;
        while at < self.used.len() {
            if self.used[at].memory.try_reclaim(wanted) {
                self.unused.push((self.used.swap_remove(at), now));
            } else {
                at += 1;
            }
        }
    }

    /// Gives memory that lay unused for a while back to the system. An arena that is needed every few seconds stays:
    /// each page of a new one costs a page fault.
    pub(crate) fn release_unused(&mut self, now: Instant) {
        let current = &mut self.current.memory;
        if current.capacity() > 0 && current.try_reclaim(self.size - ALIGNMENT) {
            self.used.push(std::mem::take(&mut self.current));
        }
        self.collect_unused(now);
        self.unused
            .retain(|(_, since)| now.saturating_duration_since(*since) <= RELEASE_AFTER);
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
            arenas.give_back(object);
            held.push(frozen);
            if round % 8 == 7 {
                held.clear();
            }
        }
        assert!(addresses.len() <= 30, "{} different places", addresses.len());
        assert!(arenas.take(10 << 20, now).capacity() >= 10 << 20);
    }
    #[test]
    fn arenas_in_steady_use_are_kept_and_others_are_given_back() {
        let mut arenas = Arenas::new(1 << 20);
        let mut now = Instant::now();
        let mut held = std::collections::VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        // An arena is full every 5 s, and its objects are in memory for longer than an unused arena is kept.
        for _ in 0..100 {
            now += Duration::from_secs(5);
            let mut object = arenas.take(900_000, now);
            places.insert(object.as_ptr().addr());
            object.resize(900_000, 7);
            held.push_back(object.split().freeze());
            arenas.give_back(object);
            if held.len() > 3 {
                held.pop_front();
            }
            arenas.release_unused(now);
        }
        assert!(places.len() <= 5, "{} different places", places.len());
        assert!(
            (3 << 20..=5 << 20).contains(&arenas.bytes()),
            "{}",
            arenas.bytes()
        );
        held.clear();
        arenas.release_unused(now);
        arenas.release_unused(now + RELEASE_AFTER + Duration::from_secs(1));
        assert_eq!(arenas.bytes(), 0);
    }

    #[test]
    fn memory_that_was_never_touched_does_not_count() {
        let mut arenas = Arenas::new(1 << 20);
        let mut object = arenas.take(100_000, Instant::now());
        object.resize(100_000, 7);
        let frozen = object.split().freeze();
        arenas.give_back(object);
        assert!((100_000..120_000).contains(&arenas.bytes()), "{}", arenas.bytes());
        drop(frozen);
    }
}
