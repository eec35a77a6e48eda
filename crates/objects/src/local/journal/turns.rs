//! Waiting for another thread, in a way that a test can order.
//!
//! In production these are a lock and a condition variable. In tests, threads may take turns instead
//! ([`simulated`](super::simulated)): who waits passes its turn on, so that a run is the same for the same seed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Locks a mutex that is held while something is written.
pub(super) fn lock_over_write<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    while super::simulated::takes_turns() {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(_) => super::simulated::pass_turn(),
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a change of what a mutex guards.
pub(super) fn wait<'a, T>(
    mutex: &'a Mutex<T>,
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    #[cfg(test)]
    if super::simulated::takes_turns() {
        drop(guard);
        super::simulated::pass_turn();
        return mutex.lock().unwrap_or_else(PoisonError::into_inner);
    }
    let _ = mutex;
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
