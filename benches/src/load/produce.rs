//! Produces as fast as answers come, or at a fixed rate with latency from the intended time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::load::batches::{self, ProduceFrame, Shape};
use crate::load::link::{Answer, Link};
use crate::load::seconds::Recorder;
use crate::load::summary::{Latencies, Summary};
use crate::process::{MemoryWatch, cpu_seconds};

/// Longest wait for answers once sending has ended.
const DRAIN: Duration = Duration::from_secs(40);

/// Different frames that a connection sends in turn.
const FRAMES: u64 = 5;

/// What is sent, how fast and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the broker listens.
    pub bootstrap: String,
    /// The topic, which exists.
    pub topic: String,
    /// Partitions to spread over.
    pub partitions: i32,
    /// What batches look like.
    pub shape: Shape,
    /// Connections.
    pub connections: usize,
    /// Requests without an answer, for each connection.
    pub depth: usize,
    /// Requests a second; as fast as answers come without.
    pub rate: Option<f64>,
    /// Time before the window.
    pub warmup: Duration,
    /// Length of the window, at least.
    pub seconds: Duration,
    /// Bytes that the run sends at least, the warm-up's included.
    pub bytes: u64,
    /// Length of the window, at most.
    pub max_seconds: Duration,
    /// The broker's process, to be watched.
    pub pid: Option<u32>,
    /// A file for the figures of each second, warm-up and end included.
    pub seconds_to: Option<PathBuf>,
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Summary> {
    // The default slack of 50 µs would show in latencies at a low rate.
    if let Err(error) = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000)) {
        eprintln!("timers stay coarse: {error}");
    }
    let mut run = Run::prepare(options)?;
    let watch = options.pid.map(MemoryWatch::start);
    run.send()?;
    run.drain()?;
    run.finish(watch)
}

struct Run<'a> {
    options: &'a Options,
    links: Vec<Link>,
    ready: Vec<PollFlags>,
    latencies: Latencies,
    summary: Summary,
    window: Option<Window>,
    closed: bool,
    turn: usize,
    recorder: Option<Recorder>,
}

/// The start of what counts.
struct Window {
    began: Instant,
    broker: f64,
    client: f64,
}

impl<'a> Run<'a> {
    fn prepare(options: &'a Options) -> anyhow::Result<Run<'a>> {
        let links = (0..options.connections)
            .map(|connection| {
                let partition = i32::try_from(connection)? % options.partitions;
                // Several of them, so that nothing can profit from one that it has seen.
                let frames = (0..FRAMES.min(options.depth as u64))
                    .map(|i| {
                        let built = batches::build(options.shape, connection as u64 * 1_000 + i)?;
                        ProduceFrame::new(&options.topic, partition, &built)
                    })
                    .collect::<anyhow::Result<Vec<_>>>()?;
                Link::open(&options.bootstrap, &options.topic, frames)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Run {
            options,
            ready: vec![PollFlags::empty(); links.len()],
            links,
            latencies: Latencies::new()?,
            summary: Summary::default(),
            window: None,
            closed: false,
            turn: 0,
            recorder: options.seconds_to.as_deref().map(Recorder::create).transpose()?,
        })
    }

    fn cpu(&self) -> anyhow::Result<(f64, f64)> {
        let broker = self.options.pid.map(cpu_seconds).transpose()?.unwrap_or(0.0);
        Ok((broker, cpu_seconds(std::process::id())?))
    }

    fn send(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let interval = self.options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut sent = 0u32;
        loop {
            let now = Instant::now();
            if self.window.is_none() && now.duration_since(began) >= self.options.warmup {
                let (broker, client) = self.cpu()?;
                self.window = Some(Window {
                    began: now,
                    broker,
                    client,
                });
            }
            if self
                .window
                .as_ref()
                .is_some_and(|w| self.is_over(now.duration_since(w.began)))
            {
                return self.close_window();
            }
            // However busy, look at the clock again before long.
            let mut wait = Duration::from_millis(20);
            match interval {
                None => self.fill(now)?,
                Some(interval) => loop {
                    let due = began + interval * sent;
                    if due > now {
                        wait = wait.min(due - now);
                        break;
                    }
                    if !self.start_one(due)? {
                        break;
                    }
                    sent += 1;
                },
            }
            self.poll(wait)?;
        }
    }

    fn is_over(&self, window: Duration) -> bool {
        let o = self.options;
        window >= o.max_seconds.max(o.seconds) || (window >= o.seconds && self.summary.total_bytes >= o.bytes)
    }

    /// Closed loop: every connection that has room gets a request.
    fn fill(&mut self, now: Instant) -> anyhow::Result<()> {
        for link in &mut self.links {
            while !link.is_writing() && link.in_flight() < self.options.depth {
                link.start(now)?;
            }
        }
        Ok(())
    }

    /// Open loop: the next connection in turn that has room gets the request; false if none has.
    fn start_one(&mut self, due: Instant) -> anyhow::Result<bool> {
        for _ in 0..self.links.len() {
            self.turn = (self.turn + 1) % self.links.len();
            let link = self.links.get_mut(self.turn).context("a connection")?;
            if !link.is_writing() && link.in_flight() < self.options.depth {
                link.start(due)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn poll(&mut self, wait: Duration) -> anyhow::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs())?,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut sockets: Vec<PollFd<'_>> = self
            .links
            .iter()
            .map(|link| {
                let out = if link.is_writing() {
                    PollFlags::OUT
                } else {
                    PollFlags::empty()
                };
                PollFd::new(link.socket(), PollFlags::IN | out)
            })
            .collect();
        match poll(&mut sockets, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other.context("poll")?,
        };
        for (ready, socket) in self.ready.iter_mut().zip(&sockets) {
            *ready = socket.revents();
        }
        drop(sockets);
        let counts = self.window.is_some() && !self.closed;
        let (summary, latencies) = (&mut self.summary, &mut self.latencies);
        let recorder = &mut self.recorder;
        let mut answered = |answer: Answer| -> anyhow::Result<()> {
            if let Some(recorder) = recorder {
                let latencies = (answer.latency, answer.latency_from_send);
                match &answer.error {
                    None => recorder.note_acknowledged(answer.at, latencies, answer.bytes)?,
                    Some(_) => recorder.note_error(answer.at)?,
                }
            }
            note(summary, latencies, counts, answer);
            Ok(())
        };
        for (link, ready) in self.links.iter_mut().zip(&self.ready) {
            if ready.contains(PollFlags::OUT) {
                link.write()?;
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                link.read(&mut answered)?;
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.close_seconds(Instant::now())?;
        }
        let s = &self.summary;
        if s.errors > 1_000 && s.errors > s.requests {
            bail!(
                "hardly a request succeeds: {}",
                s.first_error.as_deref().unwrap_or("?")
            );
        }
        Ok(())
    }

    fn close_window(&mut self) -> anyhow::Result<()> {
        let (broker, client) = self.cpu()?;
        if let Some(window) = &self.window {
            self.summary.seconds = window.began.elapsed().as_secs_f64();
            self.summary.cpu_seconds = broker - window.broker;
            self.summary.client_cpu_seconds = client - window.client;
        }
        self.closed = true;
        Ok(())
    }

    /// What is under way is waited for, but no longer counted.
    fn drain(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + DRAIN;
        while self.links.iter().any(|l| l.in_flight() > 0) {
            if Instant::now() > end {
                bail!("requests are still unanswered after {DRAIN:?}");
            }
            self.poll(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn finish(mut self, watch: Option<MemoryWatch>) -> anyhow::Result<Summary> {
        if let Some(recorder) = &mut self.recorder {
            recorder.finish(Instant::now())?;
        }
        self.summary.rss_max = watch.map_or(0, |w| w.most());
        self.summary.latency = self.latencies.summary();
        Ok(self.summary)
    }
}

fn note(summary: &mut Summary, latencies: &mut Latencies, counts: bool, answer: Answer) {
    if let Some(error) = answer.error {
        summary.errors += 1;
        summary.first_error.get_or_insert(error);
        return;
    }
    summary.total_bytes += answer.bytes;
    if counts {
        summary.requests += 1;
        summary.records += answer.records;
        summary.bytes += answer.bytes;
        summary.value_bytes += answer.value_bytes;
        latencies.record(answer.latency);
    }
}
