//! Ports for the servers that tests start.
//!
//! They lie below the range that the system takes for outgoing connections: a
//! server that is killed and started again must find its port free, and a client
//! that retries meanwhile must not connect to itself.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 that nobody listens on and that this process has not handed out before.
pub fn free() -> anyhow::Result<u16> {
    let mut taken = TAKEN
        .lock()
        .map_err(|_| anyhow::anyhow!("another test panicked while taking a port"))?;
    for _ in 0..1000 {
        let port = rand::random_range(15_000..30_000);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    anyhow::bail!("found no free port")
}
