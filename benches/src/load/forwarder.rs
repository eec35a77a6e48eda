//! A TCP forwarder in front of a store that lets only so many bytes a second through towards it.
//!
//! Answers pass at once. The limit is shared by all connections, first come, first served.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Bytes that are passed on in one piece.
const PIECE: usize = 64 << 10;
/// The time whose bytes may pass at once after a rest.
const BURST: Duration = Duration::from_millis(50);

/// A limit of bytes a second. Each piece is given the time at which it may pass.
#[derive(Default)]
struct Limit {
    /// 0 is no limit.
    bytes_per_second: AtomicU64,
    passed: AtomicU64,
    broken: AtomicU64,
    next: Mutex<Option<Instant>>,
}

impl Limit {
    /// Takes the turn of a piece; how long it has to wait from `now`.
    fn take_turn(&self, bytes: usize, now: Instant) -> Duration {
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if rate == 0 {
            *next = None;
            return Duration::ZERO;
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = next.map_or(earliest, |next| next.max(earliest));
        *next = Some(at + Duration::from_secs_f64(bytes as f64 / rate as f64));
        at.saturating_duration_since(now)
    }
}

/// A forwarder that runs until it is dropped.
pub struct Forwarder {
    address: SocketAddr,
    limit: Arc<Limit>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Listens on a free port of this machine and forwards to `port` of it, without a limit at first.
    pub fn start(port: u16) -> anyhow::Result<Forwarder> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let limit = Arc::new(Limit::default());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("forwarder".to_owned())
            .spawn({
                let limit = Arc::clone(&limit);
                move || {
                    runtime.block_on(async {
                        tokio::select! {
                            () = accept(&listener, port, &limit) => {}
                            _ = stopped => {}
                        }
                    });
                }
            })
            .context("a thread for the forwarder")?;
        Ok(Forwarder {
            address,
            limit,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Limits bytes a second towards the store from now on; `None` lifts the limit.
    pub fn set_limit(&self, bytes_per_second: Option<u64>) {
        let rate = bytes_per_second.map_or(0, |rate| rate.max(1));
        self.limit.bytes_per_second.store(rate, Ordering::Relaxed);
    }

    /// Connections that one side has cut so far.
    pub fn broken(&self) -> u64 {
        self.limit.broken.load(Ordering::Relaxed)
    }

    /// Bytes that went towards the store so far.
    pub fn passed(&self) -> u64 {
        self.limit.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the forwarder panicked");
        }
    }
}

async fn accept(listener: &TcpListener, port: u16, limit: &Arc<Limit>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let limit = Arc::clone(limit);
                tokio::spawn(async move {
                    // The broker cuts connections of requests that it gives up, such as the slower one of a hedged pair.
                    if forward(client, port, &limit).await.is_err() {
                        limit.broken.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            Err(error) => {
                eprintln!("the forwarder cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn forward(client: TcpStream, port: u16, limit: &Limit) -> std::io::Result<()> {
    let store = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    client.set_nodelay(true)?;
    store.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_store, mut to_store) = store.into_split();
    let upload = async {
        let mut piece = vec![0; PIECE];
        loop {
            let n = from_client.read(&mut piece).await?;
            if n == 0 {
                return to_store.shutdown().await;
            }
            let wait = limit.take_turn(n, Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            to_store.write_all(piece.get(..n).unwrap_or_default()).await?;
        }
    };
    let download = async {
        tokio::io::copy(&mut from_store, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(upload, download).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_limit_is_shared_and_kept() {
        let limit = Limit::default();
        limit.bytes_per_second.store(1_000_000, Ordering::Relaxed);
        let now = Instant::now();
        let waits: Vec<Duration> = (0..11).map(|_| limit.take_turn(100_000, now)).collect();
        // 50 ms are forgiven at the start; each further piece waits 100 ms more.
        assert_eq!(waits[0], Duration::ZERO);
        assert_eq!(waits[10].as_millis(), 950);
        assert_eq!(limit.passed.load(Ordering::Relaxed), 1_100_000);
        limit.bytes_per_second.store(0, Ordering::Relaxed);
        assert_eq!(limit.take_turn(1 << 30, now), Duration::ZERO);
    }

    #[test]
    fn bytes_go_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let echo = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("the forwarder connects");
            let mut all = Vec::new();
            socket.read_to_end(&mut all).expect("it reads");
            socket.write_all(&all).expect("it writes");
        });
        let forwarder = Forwarder::start(port).expect("it starts");
        forwarder.set_limit(Some(100_000_000));
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", forwarder.port())).expect("it listens");
        let sent: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        socket.write_all(&sent).expect("it takes bytes");
        socket.shutdown(std::net::Shutdown::Write).expect("half closed");
        let mut back = Vec::new();
        socket.read_to_end(&mut back).expect("it answers");
        assert!(back == sent);
        assert_eq!(forwarder.passed(), 300_000);
        echo.join().expect("it echoed");
    }
}
