//! Connections: frames in, answers out, in order and within bounds.
//!
//! Owns sockets, framing, pipelining and the bounds on connections and memory. What a request means is the
//! [`Service`]'s business: this module hands it frames and writes what it answers.
//!
//! Start at [`connection::serve`]; [`listener`] is what feeds it in production, a simulation feeds it duplex streams.

pub mod budget;
pub mod connection;
pub mod frame;
pub mod limits;
pub mod listener;
mod writer;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use writer::PinnedBytes;

/// A future on the heap, so that an idle connection does not carry the size of the largest handler.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A whole answer, its length prefix included: pieces that are written one after another without being copied.
#[derive(Debug, Default)]
pub struct Answer {
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Answer {
    /// From its pieces.
    pub fn new(parts: Vec<Bytes>) -> Self {
        let bytes = parts.iter().map(Bytes::len).sum();
        Self { parts, bytes }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True for no answer at all.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The pieces.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }
}

/// What becomes of a request.
pub enum Reply {
    /// Its answer.
    Now(Answer),
    /// The request has been taken in its place; its answer comes later. The connection goes on with the next request.
    Later {
        /// Resolves to the answer, or to the reason why the connection ends.
        answer: Boxed<Result<Answer, Refusal>>,
        /// About how much memory it holds until then, in bytes.
        weight: usize,
    },
    /// Nothing is answered.
    Nothing,
}

/// A request that cannot be answered: the connection is closed, and a line says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Who sits at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address; a simulation makes one up.
    pub address: SocketAddr,
    /// Name of the listener it came through.
    pub listener: Arc<str>,
    /// A number no other connection of this process has.
    pub id: u64,
}

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Takes one request. Requests of a connection come one at a time, in order.
    fn call(self: Arc<Self>, peer: Arc<Peer>, frame: Bytes) -> Boxed<Result<Reply, Refusal>>;

    /// True where the request may wait for long, and is given up when its client goes away: to wait on changes nothing.
    fn may_drop(&self, frame: &Bytes) -> bool;

    /// A connection began.
    fn opened(&self, peer: &Peer);

    /// A connection ended.
    fn closed(&self, peer: &Peer);
}
