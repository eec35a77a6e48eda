//! The newest offset of each key, in memory of fixed size.
//!
//! Keys are kept as 128 bits of SipHash under two secrets of the process, so that nobody can choose keys that
//! collide: as good as Kafka's MD5 here, and a good deal faster. The table is one allocation, and its pages are
//! taken from the system only as they are used.

use std::hash::{BuildHasher, RandomState};

/// The load at which the table counts as full, as a fraction: beyond it, looking for keys that are not there takes long.
const LOAD: (usize, usize) = (3, 4);

/// A key's hash, and one more than its offset; 0: empty. Of plain numbers, so that an empty table costs nothing.
type Slot = [u64; 3];
const NEXT: usize = 2;

/// Offsets by key.
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    taken: usize,
    hashers: (RandomState, RandomState),
}

impl OffsetMap {
    /// A map that takes `keys` keys, if `bytes` of memory allow so many.
    pub(crate) fn new(keys: u64, bytes: usize) -> Self {
        let most = (bytes / size_of::<Slot>()).max(16);
        let wanted = keys
            .saturating_mul(LOAD.1 as u64)
            .div_ceil(LOAD.0 as u64)
            .saturating_add(16);
        let slots = usize::try_from(wanted).unwrap_or(usize::MAX).min(most);
        Self {
            slots: vec![[0; 3]; slots],
            taken: 0,
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    /// Whether `more` further keys fit.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        self.taken.saturating_add(more) <= self.slots.len() / LOAD.1 * LOAD.0
    }

    /// Keys that it holds.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.taken
    }

    /// Notes that the key was last seen at `offset`. The caller has made sure of the room.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) {
        let hash = self.hash(key);
        let at = self.find(hash);
        let slot = &mut self.slots[at];
        if slot[NEXT] == 0 {
            self.taken += 1;
        }
        let next = u64::try_from(offset).unwrap_or(0) + 1;
        *slot = [hash.0, hash.1, slot[NEXT].max(next)];
    }

    /// Where the key was last seen.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let next = self.slots[self.find(self.hash(key))][NEXT];
        next.checked_sub(1).and_then(|offset| i64::try_from(offset).ok())
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }

    /// The slot that holds the hash, or the empty one where it belongs. One is always empty: the table is never full.
    fn find(&self, hash: (u64, u64)) -> usize {
        let count = self.slots.len();
        let mut at = ((u128::from(hash.0) * count as u128) >> 64) as usize;
        while self.slots[at][NEXT] != 0 && self.slots[at][..NEXT] != [hash.0, hash.1] {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_newest_offset_of_each_key_up_to_its_bound() {
        let mut map = OffsetMap::new(1_000, 1 << 20);
        for offset in 0..3_000i64 {
            let key = (offset % 1_000).to_be_bytes();
            assert!(map.has_room(1) || map.get(&key).is_some());
            map.put(&key, offset);
        }
        assert_eq!(map.len(), 1_000);
        for key in 0..1_000i64 {
            assert_eq!(map.get(&key.to_be_bytes()), Some(2_000 + key));
        }
        assert_eq!(map.get(b"another"), None);
        map.put(b"", 0);
        assert_eq!(map.get(b""), Some(0), "an empty key is a key, and 0 an offset");
    }

    #[test]
    fn memory_bounds_it() {
        let mut map = OffsetMap::new(u64::MAX, 24 * 100);
        let mut key = 0u64;
        while map.has_room(1) {
            map.put(&key.to_be_bytes(), 7);
            key += 1;
        }
        assert!((50..=100).contains(&key), "{key}");
        assert!(!map.has_room(usize::MAX));
    }
}
