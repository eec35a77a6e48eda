//! A bad network between a broker and its object store: a proxy that stalls, refuses
//! with 503, cuts requests before they arrive and answers before they are whole.
//!
//! A cut answer is the fault that matters most: the store has done what it was asked,
//! and the broker is not told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ports;

/// What a proxy did to those who came through.
#[derive(Default, Debug)]
pub struct Harm {
    /// Connections that passed.
    pub connections: AtomicU64,
    /// Requests answered with 503 without the store's knowledge.
    pub refused: AtomicU64,
    /// Pieces of requests that never arrived.
    pub requests_cut: AtomicU64,
    /// Answers that were cut off, most of them whole.
    pub answers_cut: AtomicU64,
    /// Pauses.
    pub stalls: AtomicU64,
}

impl Harm {
    /// The counts by name.
    pub fn figures(&self) -> BTreeMap<&'static str, u64> {
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        BTreeMap::from([
            ("network_connections", count(&self.connections)),
            ("network_refused", count(&self.refused)),
            ("network_requests_cut", count(&self.requests_cut)),
            ("network_answers_cut", count(&self.answers_cut)),
            ("network_stalls", count(&self.stalls)),
        ])
    }
}

/// The proxy. Ends when dropped.
pub struct Flaky {
    port: u16,
    harm: Arc<Harm>,
    stop: Arc<AtomicBool>,
}

impl Flaky {
    /// Starts one in front of a port of this machine; its choices follow from `seed`.
    pub fn start(target: u16, seed: u64) -> anyhow::Result<Flaky> {
        let port = ports::free()?;
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let (harm, stop) = (Arc::new(Harm::default()), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (harm.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut rng = StdRng::seed_from_u64(seed);
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", target))) else {
                    continue;
                };
                seen.connections.fetch_add(1, Ordering::Relaxed);
                let pair = (client.try_clone(), server.try_clone());
                let (Ok(back), Ok(front)) = pair else { continue };
                let (to, from) = (seen.clone(), seen.clone());
                let mut choices = || StdRng::seed_from_u64(rng.random());
                let (there, home) = (choices(), choices());
                std::thread::spawn(move || pump(client, server, Direction::Requests, there, &to));
                std::thread::spawn(move || pump(front, back, Direction::Answers, home, &from));
            }
        });
        Ok(Flaky { port, harm, stop })
    }

    /// Where to find the store behind it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has done so far.
    pub fn harm(&self) -> &Harm {
        &self.harm
    }
}

impl Drop for Flaky {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for the next connection; it ends either way with the process.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

const BUSY: &[u8] = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fn pump(mut from: TcpStream, mut to: TcpStream, direction: Direction, mut rng: StdRng, harm: &Harm) {
    let count = |c: &AtomicU64| c.fetch_add(1, Ordering::Relaxed);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        let mut pass = n;
        match rng.random_range(0..400) {
            0..2 => {
                count(&harm.stalls);
                std::thread::sleep(Duration::from_millis(rng.random_range(50..3_000)));
            }
            2..6 if direction == Direction::Requests => {
                count(&harm.refused);
                // What the client makes of it is what the test is about.
                if from.write_all(BUSY).is_err() {
                    count(&harm.requests_cut);
                }
                break;
            }
            6..9 if direction == Direction::Requests => {
                count(&harm.requests_cut);
                pass = rng.random_range(0..n);
            }
            6..12 if direction == Direction::Answers => {
                count(&harm.answers_cut);
                pass = if rng.random_bool(0.7) {
                    0
                } else {
                    rng.random_range(0..n)
                };
            }
            _ => {}
        }
        if to.write_all(&buffer[..pass]).is_err() || pass < n {
            break;
        }
    }
    for socket in [&from, &to] {
        if socket.shutdown(Shutdown::Both).is_err() {
            continue; // Closed already from the other side.
        }
    }
}
