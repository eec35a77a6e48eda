//! Listening sockets and their accept loops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drumlin_objects::{Env, TaskKind};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::config::ListenerConfig;

use super::connection::{ConnectionOptions, serve};
use super::limits::ConnectionLimits;
use super::{Peer, Service};

/// Socket options of accepted connections.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// `socket.send.buffer.bytes`; none leaves it to the system.
    pub send_buffer: Option<usize>,
    /// `socket.receive.buffer.bytes`; none leaves it to the system.
    pub receive_buffer: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub backlog: i32,
}

/// An address that is taken for a listener, on which nothing is accepted yet: connections to it are refused.
#[derive(Debug)]
pub struct Bound {
    /// Listener name.
    pub name: Arc<str>,
    socket: Socket,
    /// Where it will listen; a port of 0 has become one.
    pub address: SocketAddr,
}

/// A socket that takes connections, with its listener's name.
#[derive(Debug)]
pub struct Accepting {
    name: Arc<str>,
    socket: TcpListener,
}

impl Bound {
    /// Takes connections from now on. Not before requests can be answered: a check of the port is to be right.
    ///
    /// # Errors
    /// Another process may listen by now: until then an address is shared with whoever else asks for it.
    pub fn listen(self, options: SocketOptions) -> io::Result<Accepting> {
        let listening = self.socket.listen(options.backlog.max(128));
        listening.map_err(|error| at(self.address, &error))?;
        Ok(Accepting {
            name: self.name,
            socket: TcpListener::from_std(self.socket.into())?,
        })
    }
}

/// Takes the first of a listener's addresses that this machine has. If another process listens on any address of the
/// host's name, that is an error: clients would reach one or the other.
pub async fn bind(listener: &ListenerConfig) -> io::Result<Bound> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for candidate in listener.bind_candidates() {
        let mut found: Vec<SocketAddr> = match lookup_host((candidate.host.as_str(), candidate.port)).await {
            Ok(found) => found.collect(),
            Err(error) => {
                last = error;
                continue;
            }
        };
        // Clients that know only IPv4 are more than those that know only IPv6.
        found.sort_by_key(SocketAddr::is_ipv6);
        let mut first = None;
        for address in found {
            match reserve(address) {
                Ok(socket) if first.is_none() => first = Some(socket),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(at(address, &error)),
                Err(error) => last = at(address, &error),
            }
        }
        if let Some(socket) = first {
            let address = socket.local_addr()?;
            let address = address.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
            return Ok(Bound {
                name: listener.name.as_str().into(),
                socket,
                address,
            });
        }
    }
    Err(last)
}

fn at(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // A restarted broker takes its port although old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What every accept loop of a broker shares.
pub struct Acceptor<S> {
    /// Tasks.
    pub env: Env,
    /// Answers the requests.
    pub service: Arc<S>,
    /// Bounds of each connection.
    pub options: ConnectionOptions,
    /// Bounds on their number.
    pub limits: ConnectionLimits,
    /// Socket options.
    pub sockets: SocketOptions,
    /// Numbers connections.
    pub ids: Arc<AtomicU64>,
    /// True ends the accepting.
    pub stop_accepting: watch::Receiver<bool>,
    /// True ends the reading on every connection.
    pub stop_reading: watch::Receiver<bool>,
}

impl<S: Service> Acceptor<S> {
    /// Accepts connections until told to stop.
    pub async fn run(self: Arc<Self>, listener: Arc<Accepting>) {
        let mut stop = self.stop_accepting.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address, &listener.name),
                Err(error) => {
                    // Out of descriptors, mostly; a connection that was reset before it was accepted is harmless.
                    warn!(listener = %listener.name, %error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, listener: &Arc<str>) {
        let place = match self.limits.take(address.ip().to_canonical()) {
            Ok(place) => place,
            Err(reason) => {
                debug!(peer = %address, %reason, "connection refused");
                return;
            }
        };
        if let Err(error) = self.tune(&stream) {
            debug!(peer = %address, %error, "socket options could not be set");
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let peer = Arc::new(Peer {
            address,
            listener: Arc::clone(listener),
            id,
        });
        let (from, to) = stream.into_split();
        let (service, options, stop) = (
            Arc::clone(&self.service),
            self.options.clone(),
            self.stop_reading.clone(),
        );
        self.env.spawn(TaskKind::Connection, async move {
            serve(from, to, peer, service, options, stop).await;
            drop(place);
        });
    }

    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some(bytes) = self.sockets.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.sockets.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(())
    }
}
