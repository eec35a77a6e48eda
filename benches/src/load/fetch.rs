//! Fetches ranges of offsets and throws them away, looking at batch headers only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use drumlin_records::BatchHeader;
use drumlin_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use drumlin_wire::{Reader, frame};

use crate::load::summary::{Latencies, Summary};
use crate::process::{MemoryWatch, cpu_seconds};

/// The last version that names topics instead of their ids.
const VERSION: i16 = 12;
/// An answer's fields before its records fit in here.
const HEAD: usize = 1024;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is fetched, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the broker listens.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// The offset behind the last one.
    pub to: i64,
    /// Connections; each has an equal part of the range.
    pub connections: usize,
    /// Bytes of an answer, at most.
    pub max_bytes: i32,
    /// Time before the window.
    pub warmup: Duration,
    /// Length of the window: parts are read again and again. Without, each is read once.
    pub seconds: Option<Duration>,
    /// The broker's process, to be watched.
    pub pid: Option<u32>,
}

const WARMING: u8 = 0;
const COUNTING: u8 = 1;
const OVER: u8 = 2;

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Summary> {
    if options.to <= options.from {
        bail!("nothing lies between {} and {}", options.from, options.to);
    }
    let phase = AtomicU8::new(if options.seconds.is_some() {
        WARMING
    } else {
        COUNTING
    });
    let cpu = || -> anyhow::Result<(f64, f64)> {
        let broker = options.pid.map(cpu_seconds).transpose()?.unwrap_or(0.0);
        Ok((broker, cpu_seconds(std::process::id())?))
    };
    let watch = options.pid.map(MemoryWatch::start);
    let mut summary = Summary::default();
    let mut latencies = Latencies::new()?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let (mut began, mut before) = (Instant::now(), cpu()?);
        let readers: Vec<_> = (0..options.connections)
            .map(|part| {
                scope.spawn({
                    let phase = &phase;
                    move || read_part(options, part, phase)
                })
            })
            .collect();
        let end = |summary: &mut Summary, began: Instant, before: (f64, f64)| -> anyhow::Result<()> {
            let after = cpu()?;
            summary.seconds = began.elapsed().as_secs_f64();
            summary.cpu_seconds = after.0 - before.0;
            summary.client_cpu_seconds = after.1 - before.1;
            Ok(())
        };
        if let Some(seconds) = options.seconds {
            std::thread::sleep(options.warmup);
            (began, before) = (Instant::now(), cpu()?);
            phase.store(COUNTING, Ordering::Relaxed);
            std::thread::sleep(seconds);
            phase.store(OVER, Ordering::Relaxed);
            end(&mut summary, began, before)?;
        }
        for reader in readers {
            let part = reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
            summary.requests += part.requests;
            summary.records += part.records;
            summary.bytes += part.bytes;
            summary.total_bytes += part.total_bytes;
            part.latencies.iter().for_each(|l| latencies.record(*l));
        }
        if options.seconds.is_none() {
            end(&mut summary, began, before)?;
        }
        Ok(())
    })?;
    summary.latency = latencies.summary();
    summary.rss_max = watch.map_or(0, |w| w.most());
    Ok(summary)
}

#[derive(Default)]
struct Part {
    requests: u64,
    records: u64,
    bytes: u64,
    total_bytes: u64,
    latencies: Vec<Duration>,
}

fn read_part(options: &Options, part: usize, phase: &AtomicU8) -> anyhow::Result<Part> {
    let (part, parts) = (i64::try_from(part)?, i64::try_from(options.connections)?);
    let length = options.to - options.from;
    let (from, to) = (
        options.from + length * part / parts,
        options.from + length * (part + 1) / parts,
    );
    let mut reader = Fetcher::open(&options.bootstrap)?;
    let source = Source {
        topic: options.topic.clone(),
        partition: options.partition,
        max_bytes: options.max_bytes,
    };
    let mut found = Part::default();
    let mut offset = from;
    loop {
        let state = phase.load(Ordering::Relaxed);
        if state == OVER {
            return Ok(found);
        }
        let began = Instant::now();
        let answer = reader.fetch(&source, offset)?;
        found.total_bytes += answer.bytes;
        if phase.load(Ordering::Relaxed) == COUNTING && state == COUNTING {
            found.requests += 1;
            found.records += u64::try_from(answer.next - offset).unwrap_or(0);
            found.bytes += answer.bytes;
            found.latencies.push(began.elapsed());
        }
        offset = answer.next;
        if offset >= to {
            if options.seconds.is_none() {
                return Ok(found);
            }
            offset = from;
        }
    }
}

/// What one answer held.
pub(crate) struct Got {
    /// Bytes of whole batches; Kafka cuts the last one off where the answer is full.
    pub(crate) bytes: u64,
    /// The offset to go on at.
    pub(crate) next: i64,
}

/// A partition, and how much of it is asked for at once.
pub(crate) struct Source {
    topic: String,
    partition: i32,
    max_bytes: i32,
}

impl Source {
    /// With answers of 1 MiB at most.
    pub(crate) fn new(topic: &str, partition: i32) -> Source {
        Source {
            topic: topic.to_owned(),
            partition,
            max_bytes: 1 << 20,
        }
    }
}

/// A connection that fetches from one partition at a time.
pub(crate) struct Fetcher {
    socket: TcpStream,
    input: Vec<u8>,
    correlation: i32,
}

impl Fetcher {
    pub(crate) fn open(bootstrap: &str) -> anyhow::Result<Fetcher> {
        let socket = TcpStream::connect(bootstrap)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Fetcher {
            socket,
            input: Vec::new(),
            correlation: 0,
        })
    }

    pub(crate) fn fetch(&mut self, source: &Source, offset: i64) -> anyhow::Result<Got> {
        self.correlation = self.correlation.wrapping_add(1);
        let partition = FetchPartition {
            partition: source.partition,
            current_leader_epoch: -1,
            fetch_offset: offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: source.max_bytes,
            ..Default::default()
        };
        let topic = FetchTopic {
            topic: source.topic.as_str().into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: source.max_bytes,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let bytes = frame::request(&request, VERSION, self.correlation, Some("drumlin-load"))?.into_bytes();
        self.socket.write_all(&bytes)?;
        let mut length = [0; frame::LENGTH_BYTES];
        self.socket.read_exact(&mut length)?;
        let length = frame::length(length, 256 << 20)?;
        if self.input.len() < length {
            self.input.resize(length, 0);
        }
        let body = self.input.get_mut(..length).unwrap_or_default();
        self.socket.read_exact(body)?;
        let records = records_in(body, self.correlation)?;
        walk(records, offset)
    }
}

/// Finds the records of the one partition that was asked for.
fn records_in(body: &[u8], correlation: i32) -> anyhow::Result<&[u8]> {
    let head = Bytes::copy_from_slice(body.get(..HEAD.min(body.len())).unwrap_or_default());
    let mut r = Reader::new(&head, 1 << 20);
    if r.i32()? != correlation {
        bail!("the answer is to another request");
    }
    r.unknown_tags()?;
    let (_throttle, error, _session) = (r.i32()?, r.i16()?, r.i32()?);
    if error != 0 || r.uvarint()? != 2 {
        bail!("fetch: error {error}");
    }
    r.string(true)?;
    let (one, _index, error) = (r.uvarint()?, r.i32()?, r.i16()?);
    if error != 0 || one != 2 {
        bail!("fetch: error {error}");
    }
    let (_high, _stable, _start) = (r.i64()?, r.i64()?, r.i64()?);
    let aborted = r.uvarint()?;
    if aborted > 1 {
        bail!("fetch: aborted transactions where there are none");
    }
    let _replica = r.i32()?;
    let length = (r.uvarint()? as usize).saturating_sub(1);
    let at = head.len() - r.remaining();
    body.get(at..at + length).context("fetch: the answer is cut off")
}

fn walk(records: &[u8], offset: i64) -> anyhow::Result<Got> {
    let mut got = Got {
        bytes: 0,
        next: offset,
    };
    let mut rest = records;
    while rest.len() >= drumlin_records::HEADER_LEN {
        let header = BatchHeader::parse(rest)?;
        let size = header.size_in_bytes();
        let Some(after) = rest.get(size..) else { break };
        if header.base_offset > got.next {
            bail!("offset {} where {} was due", header.base_offset, got.next);
        }
        got.next = header.last_offset() + 1;
        got.bytes += size as u64;
        rest = after;
    }
    if got.bytes == 0 {
        bail!("no batch at offset {offset}");
    }
    Ok(got)
}
