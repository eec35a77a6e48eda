//! An ordered map whose clone is one reference count and whose change copies a few hundred entries at most.
//!
//! Two levels of shared vectors. A reader's clone stays as it was; a writer copies the top level and one
//! chunk, and neither if nobody shares them.

use std::borrow::Borrow;
use std::sync::Arc;

/// Entries in a chunk at most.
const FULL: usize = 128;
/// A chunk that falls below this is joined with its right neighbour, if that is small enough.
const SPARSE: usize = 32;

/// The map.
#[derive(Clone)]
pub struct SortedMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

/// A sorted run of entries; never empty.
type Chunk<K, V> = Arc<Vec<(K, V)>>;

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self {
            chunks: Arc::new(Vec::new()),
            len: 0,
        }
    }
}

impl<K, V> SortedMap<K, V> {
    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every entry, by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    /// Every value, by key.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key)?)?;
        let at = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// Whether `key` is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries whose keys are at or above `key`, by key.
    pub fn from<Q: Ord + ?Sized>(&self, key: &Q) -> impl Iterator<Item = (&K, &V)> + Clone
    where
        K: Borrow<Q>,
    {
        let first = self.chunk_of(key).unwrap_or(0);
        let (head, tail) = match self.chunks.get(first..).and_then(<[_]>::split_first) {
            Some((head, tail)) => {
                let at = head.partition_point(|(k, _)| k.borrow() < key);
                (head.get(at..).unwrap_or_default(), tail)
            }
            None => Default::default(),
        };
        head.iter()
            .chain(tail.iter().flat_map(|chunk| chunk.iter()))
            .map(|(k, value)| (k, value))
    }

    /// The chunk that holds `key` if any does: the last whose first key is not above it.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let above = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first.borrow() <= key));
        above.checked_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> SortedMap<K, V> {
    /// Puts `value` under `key`; returns what it replaced.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.chunk_of(&key).unwrap_or(0);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(shared) = chunks.get_mut(place) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(shared);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => {
                return chunk
                    .get_mut(at)
                    .map(|entry| std::mem::replace(&mut entry.1, value));
            }
            Err(at) if chunk.len() < FULL => chunk.insert(at, (key, value)),
            // Keys that only rise fill their chunks.
            Err(at) if at == chunk.len() => chunks.insert(place + 1, Arc::new(vec![(key, value)])),
            Err(at) => {
                let mut upper = chunk.split_off(FULL / 2);
                if at <= chunk.len() {
                    chunk.insert(at, (key, value));
                } else {
                    upper.insert(at - chunk.len(), (key, value));
                }
                chunks.insert(place + 1, Arc::new(upper));
            }
        }
        self.len += 1;
        None
    }

    /// Takes `key` out; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.chunk_of(key)?;
        let at = self
            .chunks
            .get(place)?
            .binary_search_by(|(k, _)| k.borrow().cmp(key))
            .ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(place)?);
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            chunks.remove(place);
        } else if left < SPARSE
            && chunks
                .get(place + 1)
                .is_some_and(|right| left + right.len() <= FULL - SPARSE)
        {
            let right = chunks.remove(place + 1);
            let chunk = Arc::make_mut(chunks.get_mut(place)?);
            chunk.extend(Arc::unwrap_or_clone(right));
        }
        Some(value)
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SortedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for SortedMap<K, V> {}

impl<K: std::fmt::Debug, V: std::fmt::Debug> std::fmt::Debug for SortedMap<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seeded;
    use rand::RngExt;
    use std::collections::BTreeMap;

    #[test]
    fn does_what_a_btree_map_does() {
        let (seed, mut rng) = seeded("sorted_map");
        for span in [10u32, 400, 20_000] {
            let mut map = SortedMap::default();
            let mut model = BTreeMap::new();
            for step in 0..6_000u32 {
                let key = rng.random_range(0..span);
                let before = map.clone();
                let size = model.len();
                if rng.random_range(0..10) < if step < 4_000 { 6 } else { 3 } {
                    assert_eq!(map.insert(key, step), model.insert(key, step), "seed {seed}");
                } else {
                    assert_eq!(map.remove(&key), model.remove(&key), "seed {seed}");
                }
                assert_eq!(map.len(), model.len(), "seed {seed}");
                assert_eq!(before.len(), size, "a clone changed, seed {seed}");
                if step % 97 == 0 {
                    assert!(map.iter().eq(model.iter()), "seed {seed}");
                    assert!(map.from(&key).eq(model.range(key..)), "seed {seed}");
                    assert_eq!(map.get(&key), model.get(&key), "seed {seed}");
                    assert_eq!(before.iter().count(), before.len(), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn rising_keys_fill_their_chunks() {
        let map: SortedMap<u32, ()> = (0..12_800).map(|key| (key, ())).collect();
        assert_eq!(map.chunks.len(), 100);
        assert!(map.from(&12_799).eq([(&12_799, &())]));
        assert_eq!(map.from(&12_800).count(), 0);
    }
}
