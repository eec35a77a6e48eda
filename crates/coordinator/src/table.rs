//! A group's members by their ids. In this crate's tests every member that is walked over is counted, so that they
//! can hold what a rebalance costs against the number of members; elsewhere it is the map and nothing else.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Deref, DerefMut};

/// A map whose walks are counted. Looking one entry up is not a walk.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table<K, V>(BTreeMap<K, V>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table(BTreeMap::new())
    }
}

impl<K, V> Deref for Table<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.0
    }
}

impl<K, V> DerefMut for Table<K, V> {
    fn deref_mut(&mut self) -> &mut BTreeMap<K, V> {
        &mut self.0
    }
}

impl<K, V> Table<K, V> {
    /// As [`BTreeMap::iter`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> + Clone {
        self.0.iter().inspect(|_| work::did(1))
    }

    /// As [`BTreeMap::keys`].
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.0.keys().inspect(|_| work::did(1))
    }

    /// As [`BTreeMap::values`].
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.0.values().inspect(|_| work::did(1))
    }

    /// As [`BTreeMap::values_mut`].
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut V> {
        self.0.values_mut().inspect(|_| work::did(1))
    }
}

impl<'a, K, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> btree_map::Iter<'a, K, V> {
        work::did(self.0.len());
        self.0.iter()
    }
}

/// The count.
pub(crate) mod work {
    #[cfg(test)]
    thread_local! {
        static DONE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// So much was done.
    #[inline]
    pub fn did(amount: usize) {
        #[cfg(test)]
        DONE.with(|done| done.set(done.get() + amount));
        #[cfg(not(test))]
        let _ = amount;
    }

    /// What `task` has done.
    #[cfg(test)]
    pub fn of<T>(task: impl FnOnce() -> T) -> (T, usize) {
        let before = DONE.get();
        let out = task();
        (out, DONE.get() - before)
    }
}

#[cfg(test)]
mod tests;
