//! One connection, one task: the reading half takes requests one after another, the writing half answers in order.
//!
//! A request that only waits for durability ([`Reply::Later`]) lets the next one be read at once; any other is answered
//! before the next is taken, as Kafka does.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::budget::RequestBudget;
use super::frame::{FrameReader, ReadError};
use super::writer::{Backlog, PinnedBytes, Queued, WriteError, write};
use super::{Peer, Refusal, Reply, Service};

/// Requests of one connection that may wait for their answers.
const PIPELINE: usize = 128;
/// Answers waiting for a slow client, in bytes, over which no further request of it is taken.
const BACKLOG: usize = 4 << 20;

/// What bounds a connection.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// `socket.request.max.bytes`.
    pub max_frame: usize,
    /// `connections.max.idle.ms`; none is for ever.
    pub idle: Option<Duration>,
    /// Memory for requests, of all connections.
    pub requests: RequestBudget,
    /// Bounds the log lines about connections that had to be closed.
    pub complaints: Arc<Complaints>,
    /// Memory pinned by answers, of all connections.
    pub pinned: Arc<PinnedBytes>,
}

enum End {
    Read(ReadError),
    Refused(Refusal),
    Stopped,
}

/// Serves one connection until it ends. `stop` turning true ends the reading; what was taken is still answered.
pub async fn serve<R, W, S>(
    from: R,
    to: W,
    peer: Arc<Peer>,
    service: Arc<S>,
    options: ConnectionOptions,
    stop: watch::Receiver<bool>,
) where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
    S: Service,
{
    service.opened(&peer);
    let closed = Closed {
        service: Arc::clone(&service),
        peer: Arc::clone(&peer),
    };
    let backlog = Backlog::new(options.pinned.clone());
    let (queue, answers) = mpsc::channel(PIPELINE);
    let reader = FrameReader::new(options.requests.share(), options.max_frame);
    {
        let reading = read(from, reader, &peer, &service, options.idle, queue, &backlog, stop);
        let writing = write(to, answers, &backlog);
        tokio::pin!(reading);
        tokio::pin!(writing);
        let mut over = false;
        loop {
            tokio::select! {
                biased;
                written = &mut writing => {
                    if let Err(error) = written {
                        report_write(&peer, &error, &options.complaints);
                    }
                    break;
                }
                end = &mut reading, if !over => {
                    over = true;
                    report_read(&peer, &end, &options.complaints);
                }
            }
        }
    }
    drop(closed);
}

/// Tells the service that the connection is over, also when its task is ended from outside.
struct Closed<S: Service> {
    service: Arc<S>,
    peer: Arc<Peer>,
}

impl<S: Service> Drop for Closed<S> {
    fn drop(&mut self) {
        self.service.closed(&self.peer);
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "the parts of one connection, named once"
)]
async fn read<R, S>(
    mut from: R,
    mut reader: FrameReader,
    peer: &Arc<Peer>,
    service: &Arc<S>,
    idle: Option<Duration>,
    queue: mpsc::Sender<Queued>,
    backlog: &Backlog,
    mut stop: watch::Receiver<bool>,
) -> End
where
    R: AsyncRead + Unpin + Send,
    S: Service,
{
    loop {
        backlog.below(BACKLOG).await;
        let frame = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return End::Stopped,
            frame = next(&mut reader, &mut from, idle, backlog) => match frame {
                Ok(frame) => frame,
                Err(error) => return End::Read(error),
            },
        };
        let may_drop = service.may_drop(&frame);
        let call = Arc::clone(service).call(Arc::clone(peer), frame);
        let reply = if may_drop {
            tokio::select! {
                biased;
                reply = call => reply,
                end = reader.watch(&mut from) => return End::Read(end),
                _ = stop.wait_for(|stop| *stop) => return End::Stopped,
            }
        } else {
            call.await
        };
        let queued = match reply {
            Ok(Reply::Now(answer)) => {
                backlog.add(answer.len());
                Queued::Ready(answer)
            }
            Ok(Reply::Later { answer, weight }) => {
                backlog.add(weight);
                Queued::Later(answer, weight)
            }
            Ok(Reply::Nothing) => continue,
            Err(refusal) => return End::Refused(refusal),
        };
        if queue.send(queued).await.is_err() {
            return End::Stopped;
        }
    }
}

/// The next frame; a connection with answers under way is not idle.
async fn next<R: AsyncRead + Unpin>(
    reader: &mut FrameReader,
    from: &mut R,
    idle: Option<Duration>,
    backlog: &Backlog,
) -> Result<bytes::Bytes, ReadError> {
    loop {
        match reader.next(from, idle).await {
            Err(ReadError::Idle) if backlog.bytes() > 0 => {}
            other => return other,
        }
    }
}

/// Lines about closed connections, at most so many in a second: a hostile client must not fill the log.
#[derive(Debug)]
pub struct Complaints(std::sync::Mutex<(tokio::time::Instant, u32, u64)>);

/// Lines a second.
const COMPLAINTS: u32 = 10;

impl Default for Complaints {
    fn default() -> Self {
        Self(std::sync::Mutex::new((tokio::time::Instant::now(), 0, 0)))
    }
}

impl Complaints {
    fn warn(&self, peer: &Peer, reason: &dyn std::fmt::Display) {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.0.elapsed() >= Duration::from_secs(1) {
            if state.2 > 0 {
                warn!("{} more connections were closed for such reasons", state.2);
            }
            *state = (tokio::time::Instant::now(), 0, 0);
        }
        if state.1 < COMPLAINTS {
            state.1 += 1;
            warn!(peer = %peer.address, %reason, "connection closed");
        } else {
            state.2 += 1;
        }
    }
}

fn report_read(peer: &Peer, end: &End, complaints: &Complaints) {
    match end {
        End::Stopped | End::Read(ReadError::Closed) => {}
        End::Read(ReadError::Io(error)) => debug!(peer = %peer.address, %error, "connection lost"),
        End::Read(error @ (ReadError::Idle | ReadError::Truncated)) => {
            debug!(peer = %peer.address, reason = %error, "connection closed");
        }
        End::Read(error) => complaints.warn(peer, error),
        End::Refused(refusal) => complaints.warn(peer, refusal),
    }
}

fn report_write(peer: &Peer, error: &WriteError, complaints: &Complaints) {
    match error {
        WriteError::Io(error) => debug!(peer = %peer.address, %error, "connection lost"),
        WriteError::Refused(_) | WriteError::Slow(_) => complaints.warn(peer, error),
    }
}
