//! One connection that writes produce frames and reads their answers, without blocking.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use drumlin_wire::messages::produce_response::ProduceResponse;
use drumlin_wire::{ApiKey, Message, ResponseHeader};

use crate::load::batches::{PRODUCE_VERSION, ProduceFrame};

/// Answers to one batch are under a hundred bytes; this holds many of them.
const INPUT: usize = 64 << 10;

/// A request that waits for its answer.
struct Sent {
    correlation: i32,
    intended: Instant,
    began: Instant,
    frame: usize,
}

/// An answer that has come.
pub struct Answer {
    /// When it came.
    pub at: Instant,
    /// From when the request was meant to be sent.
    pub latency: Duration,
    /// From when sending began.
    pub latency_from_send: Duration,
    /// Bytes of the batch.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
    /// What went wrong.
    pub error: Option<String>,
}

/// A connection and its frames.
pub struct Link {
    socket: TcpStream,
    frames: Vec<ProduceFrame>,
    next_frame: usize,
    /// The frame being written, and how much of it has been.
    writing: Option<(usize, usize)>,
    waiting: VecDeque<Sent>,
    correlation: i32,
    input: Vec<u8>,
    filled: usize,
    /// Where in an answer its error code stands, as the topic's name is known.
    error_at: usize,
}

impl Link {
    /// Connects.
    pub fn open(bootstrap: &str, topic: &str, frames: Vec<ProduceFrame>) -> anyhow::Result<Link> {
        let socket = TcpStream::connect(bootstrap).with_context(|| bootstrap.to_owned())?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Link {
            socket,
            frames,
            next_frame: 0,
            writing: None,
            waiting: VecDeque::new(),
            correlation: 0,
            input: vec![0; INPUT],
            filled: 0,
            // Correlation id, tags, one topic, its name, one partition, its index.
            error_at: 4 + 1 + 1 + 1 + topic.len() + 1 + 4,
        })
    }

    /// The socket, for polling.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether a frame is partly written.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Starts the next request, which must not come in the middle of one.
    pub fn start(&mut self, intended: Instant) -> anyhow::Result<()> {
        self.correlation = self.correlation.wrapping_add(1);
        let frame = self.next_frame;
        self.next_frame = (frame + 1) % self.frames.len();
        self.frames
            .get_mut(frame)
            .context("no frames were built")?
            .stamp(self.correlation);
        self.waiting.push_back(Sent {
            correlation: self.correlation,
            intended,
            began: Instant::now(),
            frame,
        });
        self.writing = Some((frame, 0));
        self.write()
    }

    /// Writes on, as far as the socket takes it.
    pub fn write(&mut self) -> anyhow::Result<()> {
        while let Some((frame, at)) = self.writing {
            let rest = self
                .frames
                .get(frame)
                .and_then(|f| f.bytes().get(at..))
                .unwrap_or_default();
            match self.socket.write(rest) {
                Ok(n) if n == rest.len() => self.writing = None,
                Ok(n) => self.writing = Some((frame, at + n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("the connection broke while writing"),
            }
        }
        Ok(())
    }

    /// Reads what is there and hands over each answer.
    pub fn read(&mut self, mut answered: impl FnMut(Answer) -> anyhow::Result<()>) -> anyhow::Result<()> {
        loop {
            let room = self.input.get_mut(self.filled..).unwrap_or_default();
            let space = room.len();
            let n = match self.socket.read(room) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e).context("the connection broke while reading"),
            };
            self.filled += n;
            let now = Instant::now();
            let mut at = 0;
            while let Some(body) = frame_at(self.input.get(at..self.filled).unwrap_or_default()) {
                answered(take(&mut self.waiting, &self.frames, self.error_at, body, now)?)?;
                at += 4 + body.len();
            }
            self.input.copy_within(at..self.filled, 0);
            self.filled -= at;
            if n < space {
                return Ok(());
            }
        }
    }
}

/// The body of the frame that leads the bytes, if all of it is there.
fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    let length = i32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    bytes.get(4..4 + usize::try_from(length).ok()?)
}

fn take(
    waiting: &mut VecDeque<Sent>,
    frames: &[ProduceFrame],
    error_at: usize,
    body: &[u8],
    now: Instant,
) -> anyhow::Result<Answer> {
    let sent = waiting.pop_front().context("an answer to nothing")?;
    let correlation = body
        .get(..4)
        .and_then(|b| b.try_into().ok())
        .map(i32::from_be_bytes);
    if correlation != Some(sent.correlation) {
        bail!("answer {correlation:?} to request {}", sent.correlation);
    }
    let frame = frames
        .get(sent.frame)
        .context("an answer to a frame that is gone")?;
    let fine = body.get(error_at..error_at + 2) == Some(&[0, 0]);
    Ok(Answer {
        at: now,
        latency: now.saturating_duration_since(sent.intended),
        latency_from_send: now.saturating_duration_since(sent.began),
        bytes: frame.batch_bytes,
        records: frame.records,
        value_bytes: frame.value_bytes,
        error: if fine { None } else { Some(explain(body)) },
    })
}

/// What an answer that is not the usual one says.
fn explain(body: &[u8]) -> String {
    let body = Bytes::copy_from_slice(body);
    let decoded = ResponseHeader::parse(&body, ApiKey::Produce, PRODUCE_VERSION)
        .and_then(|(_, body)| ProduceResponse::decode(&body, PRODUCE_VERSION));
    match decoded {
        Ok(answer) => match answer
            .responses
            .first()
            .and_then(|t| t.partition_responses.first())
        {
            Some(p) => format!(
                "error {}{}",
                p.error_code,
                p.error_message
                    .as_ref()
                    .map(|m| format!(": {}", m.as_str()))
                    .unwrap_or_default()
            ),
            None => "an empty answer".to_owned(),
        },
        Err(e) => format!("an answer that does not decode: {e}"),
    }
}
