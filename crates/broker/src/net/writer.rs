//! The writing half of a connection: answers in the order of their requests.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{Answer, Boxed, Refusal};

/// Answers that are ready are written together up to this size.
const TOGETHER: usize = 256 * 1024;
/// Pieces in one system call.
const SLICES: usize = 64;
/// A client that takes nothing for this long is given up.
const STALLED: Duration = Duration::from_secs(60);
/// While all connections together pin too much, an answer must go out within this, and [`SLOWEST`] beyond it.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOWEST: usize = 1 << 20;

/// Bytes of answers that all connections hold and have not sent, against what they may hold without being hurried.
#[derive(Debug)]
pub struct PinnedBytes {
    now: AtomicUsize,
    limit: usize,
}

impl PinnedBytes {
    /// With the limit in bytes over which slow clients are cut off.
    pub fn new(limit: usize) -> Self {
        Self {
            now: AtomicUsize::new(0),
            limit,
        }
    }

    /// Bytes held at this moment.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    fn over(&self) -> bool {
        self.now() > self.limit
    }
}

/// An answer's place in the order.
pub(super) enum Queued {
    Ready(Answer),
    Later(Boxed<Result<Answer, Refusal>>, usize),
}

/// What the two halves of a connection share: how much waits to be written.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    drained: Notify,
    all: Arc<PinnedBytes>,
}

impl Backlog {
    pub(super) fn new(all: Arc<PinnedBytes>) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            drained: Notify::new(),
            all,
        }
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.all.now.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.all.now.fetch_sub(bytes, Ordering::Relaxed);
        self.drained.notify_one();
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until at most `limit` bytes wait. One waiter at a time: the connection's reader.
    pub(super) async fn below(&self, limit: usize) {
        while self.bytes() > limit {
            self.drained.notified().await;
        }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.all.now.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the client takes its answers too slowly ({0} bytes were waiting)")]
    Slow(usize),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes what comes through the queue until it ends.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    mut to: W,
    mut queue: mpsc::Receiver<Queued>,
    backlog: &Backlog,
) -> Result<(), WriteError> {
    let mut out = Outgoing::default();
    let mut waiting: Option<(Boxed<Result<Answer, Refusal>>, usize)> = None;
    loop {
        // Whatever is ready goes out in one call; before waiting for anything else it has gone out.
        let next = match waiting.take() {
            Some(later) => Some(Queued::Later(later.0, later.1)),
            None if out.is_empty() => match queue.recv().await {
                Some(queued) => Some(queued),
                None => break,
            },
            None => queue.try_recv().ok(),
        };
        match next {
            Some(Queued::Ready(answer)) => out.push(answer),
            Some(Queued::Later(mut answer, weight)) => {
                let ready = if out.is_empty() {
                    Some((&mut answer).await)
                } else {
                    (&mut answer).now_or_never()
                };
                match ready {
                    Some(answer) => {
                        let answer = answer?;
                        backlog.add(answer.len());
                        backlog.sub(weight);
                        out.push(answer);
                    }
                    None => {
                        out.write(&mut to, backlog).await?;
                        waiting = Some((answer, weight));
                        continue;
                    }
                }
            }
            None => {
                out.write(&mut to, backlog).await?;
                continue;
            }
        }
        if out.bytes >= TOGETHER {
            out.write(&mut to, backlog).await?;
        }
    }
    to.shutdown().await?;
    Ok(())
}

/// Pieces on their way out.
#[derive(Default)]
struct Outgoing {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, answer: Answer) {
        self.bytes += answer.bytes;
        self.parts
            .extend(answer.parts.into_iter().filter(|part| !part.is_empty()));
    }

    async fn write<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        backlog: &Backlog,
    ) -> Result<(), WriteError> {
        let began = Instant::now();
        let mut progress = began;
        let all = self.bytes;
        while self.bytes > 0 {
            let wrote = {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let mut used = 0;
                for (slice, part) in slices.iter_mut().zip(&self.parts) {
                    *slice = IoSlice::new(part);
                    used += 1;
                }
                let filled = slices.get(..used).unwrap_or(&[]);
                tokio::time::timeout(Duration::from_secs(1), to.write_vectored(filled)).await
            };
            match wrote {
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(Ok(count)) => {
                    progress = Instant::now();
                    self.advance(count);
                    backlog.sub(count);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if progress.elapsed() >= STALLED => return Err(WriteError::Slow(backlog.bytes())),
                Err(_) => {}
            }
            let allowed = PATIENCE + Duration::from_secs((all / SLOWEST) as u64);
            if backlog.all.over() && began.elapsed() > allowed {
                return Err(WriteError::Slow(backlog.bytes()));
            }
        }
        to.flush().await?;
        Ok(())
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(first) = self.parts.front_mut() else {
                return;
            };
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.parts.pop_front();
        }
        if self.parts.is_empty() && self.parts.capacity() > SLICES {
            self.parts = VecDeque::new();
        }
    }
}
