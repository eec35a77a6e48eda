//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// `max.connections`, `max.connections.per.ip` and its overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub total: usize,
    /// From one address.
    pub per_address: usize,
    /// From these addresses.
    pub overrides: HashMap<IpAddr, usize>,
}

/// Counts connections against their bounds.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    inner: Arc<Mutex<Counts>>,
}

#[derive(Debug)]
struct Counts {
    bounds: Bounds,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// `max.connections` is reached.
    #[error("max.connections ({0}) is reached")]
    InAll(usize),
    /// `max.connections.per.ip` is reached.
    #[error("max.connections.per.ip ({0}) is reached")]
    FromAddress(usize),
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    limits: ConnectionLimits,
    address: IpAddr,
}

impl ConnectionLimits {
    /// Nothing counted yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Counts {
                bounds,
                total: 0,
                by_address: HashMap::new(),
            })),
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the bounds; connections that are there stay.
    pub fn set(&self, bounds: Bounds) {
        self.counts().bounds = bounds;
    }

    /// Connections at this moment.
    pub fn total(&self) -> usize {
        self.counts().total
    }

    /// A place for a connection from `address`.
    pub fn take(&self, address: IpAddr) -> Result<Place, TooMany> {
        let mut counts = self.counts();
        if counts.total >= counts.bounds.total {
            return Err(TooMany::InAll(counts.bounds.total));
        }
        let bound = counts
            .bounds
            .overrides
            .get(&address)
            .copied()
            .unwrap_or(counts.bounds.per_address);
        if counts.by_address.get(&address).copied().unwrap_or(0) >= bound {
            return Err(TooMany::FromAddress(bound));
        }
        counts.total += 1;
        *counts.by_address.entry(address).or_default() += 1;
        Ok(Place {
            limits: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        counts.total = counts.total.saturating_sub(1);
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let overrides = HashMap::from([(ip(9), 0)]);
        let limits = ConnectionLimits::new(Bounds {
            total: 3,
            per_address: 2,
            overrides,
        });
        let first = limits.take(ip(1)).unwrap();
        let _second = limits.take(ip(1)).unwrap();
        assert_eq!(limits.take(ip(1)).unwrap_err(), TooMany::FromAddress(2));
        assert_eq!(limits.take(ip(9)).unwrap_err(), TooMany::FromAddress(0));
        let _third = limits.take(ip(2)).unwrap();
        assert_eq!(limits.take(ip(3)).unwrap_err(), TooMany::InAll(3));
        drop(first);
        assert_eq!(limits.total(), 2);
        let _again = limits.take(ip(1)).unwrap();
    }
}
