//! The program's allocator: jemalloc, set to give freed memory back to the system within seconds.
//!
//! Why this one: `docs/decisions/0006-the-allocator.md`. The variable `_RJEM_MALLOC_CONF` sets its options, as its manual
//! describes them, in place of what is set here.

use tikv_jemalloc_ctl::{Access, AsName, background_thread};
use tikv_jemallocator::Jemalloc;
use tracing::warn;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Freed pages are given back after this long, in milliseconds. Large buffers are freed and allocated anew within it, and
/// so cost no page faults.
const GIVE_BACK_AFTER_MS: isize = 2_000;
/// For how long freed pages stay with the process: in arenas that are made from now on, and in the one that served the
/// start. Dirty pages become muzzy ones, or go back at once where those may not stay.
const SETTINGS: [(&[u8], isize); 4] = [
    (b"arenas.dirty_decay_ms\0", GIVE_BACK_AFTER_MS),
    (b"arena.0.dirty_decay_ms\0", GIVE_BACK_AFTER_MS),
    (b"arenas.muzzy_decay_ms\0", 0),
    (b"arena.0.muzzy_decay_ms\0", 0),
];

/// Sets how soon freed memory is given back. Threads of the allocator's own do it, so that a broker that is idle after a
/// burst gives memory back too.
pub fn give_memory_back_soon() {
    if std::env::var_os("_RJEM_MALLOC_CONF").is_some() {
        return;
    }
    if let Err(error) = set_decay() {
        warn!(%error, "the allocator keeps its defaults: freed memory is given back later");
    }
}

fn set_decay() -> tikv_jemalloc_ctl::Result<()> {
    for (name, value) in SETTINGS {
        name.name().write(value)?;
    }
    background_thread::write(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_takes_the_settings() {
        set_decay().expect("the settings are known");
        for (name, value) in SETTINGS {
            let read: isize = name.name().read().expect("it can be read");
            assert_eq!(read, value);
        }
        assert!(background_thread::read().expect("it can be read"));
    }
}
