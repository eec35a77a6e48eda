//! Timers by key: at most one for each key, due in order of their time, then of their keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::work;

/// Timers that somebody else's clock drives.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    due: BTreeSet<(u64, K)>,
    at: BTreeMap<K, u64>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers {
            due: BTreeSet::new(),
            at: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the timer of a key to this time, in place of what it was set to.
    pub fn set(&mut self, key: K, at: u64) {
        work::did(1);
        match self.at.insert(key.clone(), at) {
            Some(old) if old == at => return,
            Some(old) => {
                self.due.remove(&(old, key.clone()));
            }
            None => {}
        }
        self.due.insert((at, key));
    }

    /// Takes a key's timer away. Whether there was one.
    pub fn cancel(&mut self, key: &K) -> bool {
        work::did(1);
        match self.at.remove(key) {
            Some(at) => self.due.remove(&(at, key.clone())),
            None => false,
        }
    }

    /// When a key's timer is due.
    pub fn when(&self, key: &K) -> Option<u64> {
        self.at.get(key).copied()
    }

    /// When the first timer is due.
    pub fn next(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due at this time.
    pub fn pop(&mut self, now: u64) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    /// How many are set.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Takes all of them away.
    pub fn clear(&mut self) {
        self.due.clear();
        self.at.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Timers;

    #[test]
    fn come_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set("b", 5);
        timers.set("a", 5);
        timers.set("c", 1);
        timers.set("c", 9);
        assert_eq!(timers.next(), Some(5));
        assert_eq!(timers.pop(4), None);
        assert_eq!(timers.pop(5), Some("a"));
        assert!(timers.cancel(&"b"));
        assert!(!timers.cancel(&"b"));
        assert_eq!(timers.pop(8), None);
        assert_eq!(timers.when(&"c"), Some(9));
        assert_eq!(timers.pop(100), Some("c"));
        assert!(timers.is_empty());
        assert_eq!(timers.next(), None);
    }
}
