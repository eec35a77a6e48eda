//! A broker's life: start, serve, end.
//!
//! Everything goes through the [`Env`] and the [`Bucket`] that are handed in, and nothing is global: a simulation runs
//! several brokers in one process, connects through [`Broker::connect`], and ends one with [`Env::kill`].
//!
//! A stop goes in this order, under one deadline: accept no more connections; read no more requests; end the group
//! coordinators, which commit and answer what they have written; put what is appended and wait until it is durable; let
//! the connections write their answers; close the metadata log. Whatever is then left is abandoned, which is as safe as
//! a crash.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drumlin_cluster::{Image, MetaEnd, Record};
use drumlin_log::{LogEnd, SweptChains};
use drumlin_objects::cache::{BlockCache, HybridBlockCache};
use drumlin_objects::{Bucket, BucketKind, Env, LockGuard, TaskKind};
use futures::FutureExt;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::config::{BrokerConfig, HostPort};
use crate::dispatch::Dispatcher;
use crate::net::budget::RequestBudget;
use crate::net::connection::{ConnectionOptions, serve};
use crate::net::limits::{Bounds, ConnectionLimits};
use crate::net::listener::Acceptor;
use crate::net::{Peer, PinnedBytes};
use crate::startup::{self, StartError, Started};
use crate::state::Shared;

/// Answers that all connections together may hold before slow clients are cut off.
const PINNED_BYTES: usize = 256 << 20;
/// What the buffers of a simulated connection hold in each direction.
const DUPLEX_BYTES: usize = 64 << 10;

/// Incarnations that one entry of the metadata log forgets.
const CHAINS_AT_ONCE: usize = 256;
/// A stop on a local directory seals what is left, for no longer than this.
const SEAL_AT_STOP: Duration = Duration::from_secs(5);

/// Why a broker ended by itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExitReason {
    /// Another start took over.
    #[error("{0}")]
    Fenced(String),
    /// It cannot go on.
    #[error("{0}")]
    Failed(String),
}

/// A listener as it is.
#[derive(Clone, Debug)]
pub struct ListenerAddress {
    /// Its name.
    pub name: String,
    /// Where it listens; none in a simulation.
    pub bound: Option<SocketAddr>,
    /// What clients are told.
    pub advertised: HostPort,
}

/// A running broker.
pub struct Broker {
    shared: Arc<Shared>,
    dispatcher: Arc<Dispatcher>,
    listeners: Vec<ListenerAddress>,
    options: ConnectionOptions,
    limits: ConnectionLimits,
    cache: Arc<HybridBlockCache>,
    stop_accepting: watch::Sender<bool>,
    stop_reading: watch::Sender<bool>,
    connection_ids: Arc<AtomicU64>,
    created: bool,
    /// Held until the process has let go of everything.
    _lock: LockGuard,
}

impl Broker {
    /// Starts a broker on a bucket and serves.
    ///
    /// # Errors
    /// [`StartError`], one readable sentence each. What was started until then is left to [`Env::kill`].
    pub async fn start(env: &Env, config: BrokerConfig, bucket: Bucket) -> Result<Broker, StartError> {
        let Started {
            lock,
            listening,
            metadata,
            log,
            cache,
            identity,
            created,
        } = startup::start(env, &config, &bucket).await?;
        let options = ConnectionOptions {
            max_frame: config.network.request_max.as_usize(),
            idle: config.network.max_idle,
            requests: RequestBudget::new(
                config
                    .network
                    .queued_max
                    .map_or(usize::MAX, |bytes| bytes.as_usize()),
            ),
            complaints: Arc::default(),
            pinned: Arc::new(PinnedBytes::new(PINNED_BYTES)),
        };
        let limits = ConnectionLimits::new(bounds(&config));
        let sockets = startup::socket_options(&config);
        let shared = Shared::new(env, &bucket, log, metadata, config);
        let (stop_accepting, _) = watch::channel(false);
        let (stop_reading, _) = watch::channel(false);
        let mut broker = Broker {
            dispatcher: Arc::new(Dispatcher {
                shared: Arc::clone(&shared),
            }),
            shared,
            listeners: Vec::new(),
            options,
            limits,
            cache,
            stop_accepting,
            stop_reading,
            connection_ids: Arc::new(AtomicU64::new(1)),
            created,
            _lock: lock,
        };
        broker.spawn_followers();
        let acceptor = Arc::new(Acceptor {
            env: env.clone(),
            service: Arc::clone(&broker.dispatcher),
            options: broker.options.clone(),
            limits: broker.limits.clone(),
            sockets,
            ids: Arc::clone(&broker.connection_ids),
            stop_accepting: broker.stop_accepting.subscribe(),
            stop_reading: broker.stop_reading.subscribe(),
        });
        // Everything that answers requests stands, so connections are taken now and not before.
        for listening in listening {
            let (address, accepting) = listening.accept(sockets)?;
            broker.listeners.push(address);
            if let Some(accepting) = accepting {
                let (acceptor, accepting) = (Arc::clone(&acceptor), Arc::new(accepting));
                env.spawn_restarting(TaskKind::Listener, move || {
                    Arc::clone(&acceptor).run(Arc::clone(&accepting))
                });
            }
        }
        info!(node = identity.node, incarnation = identity.incarnation, cluster = %identity.cluster_id,
            topics = broker.shared.topics.len(), "serving");
        Ok(broker)
    }

    /// What the handlers work on: for the console, and for tests.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where it listens.
    pub fn listeners(&self) -> &[ListenerAddress] {
        &self.listeners
    }

    /// True where the bucket was empty before this start.
    pub fn created(&self) -> bool {
        self.created
    }

    /// True until it is told to stop, or cannot go on.
    pub fn is_serving(&self) -> bool {
        !*self.stop_accepting.borrow() && self.end().is_none()
    }

    /// Why the broker ended by itself, if it has.
    pub fn end(&self) -> Option<ExitReason> {
        // A stop ends the logs too, in order.
        if *self.stop_accepting.borrow() {
            return None;
        }
        self.ended().now_or_never()
    }

    /// The block cache.
    pub fn cache(&self) -> &Arc<HybridBlockCache> {
        &self.cache
    }

    /// Bytes of requests and of answers that connections hold now.
    pub fn connection_memory(&self) -> (usize, usize) {
        (self.options.requests.used(), self.options.pinned.now())
    }

    /// Bytes of all connections' read buffers.
    pub fn read_buffer_bytes(&self) -> usize {
        self.options.requests.buffer_bytes()
    }

    /// A connection without a socket, through the first listener.
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(DUPLEX_BYTES);
        let id = self.connection_ids.fetch_add(1, Ordering::Relaxed);
        let listener = self
            .listeners
            .first()
            .map_or("", |listener| listener.name.as_str());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let peer = Arc::new(Peer {
            address,
            listener: listener.into(),
            id,
        });
        let (from, to) = tokio::io::split(server);
        let stop = self.stop_reading.subscribe();
        self.shared.env.spawn(
            TaskKind::Connection,
            serve(
                from,
                to,
                peer,
                Arc::clone(&self.dispatcher),
                self.options.clone(),
                stop,
            ),
        );
        client
    }

    fn spawn_followers(&self) {
        let env = &self.shared.env;
        env.spawn(
            TaskKind::ImageFollower,
            follow_image(Arc::clone(&self.shared), self.limits.clone()),
        );
        let shared = Arc::clone(&self.shared);
        env.spawn_restarting(TaskKind::SweepFollower, move || {
            follow_sweeps(Arc::clone(&shared))
        });
        let shared = Arc::clone(&self.shared);
        env.spawn_restarting(TaskKind::ChainFollower, move || {
            follow_chains(Arc::clone(&shared))
        });
        if self.shared.bucket.kind() == BucketKind::Remote && !env.is_simulated() {
            let cache = Arc::clone(&self.cache);
            // After serving has begun: a large cache takes its time to open.
            env.spawn(TaskKind::CacheOpen, async move {
                cache.open_disk().await;
            });
        }
    }

    /// Waits until the broker ends by itself, and says why.
    pub async fn ended(&self) -> ExitReason {
        let mut metadata = self.shared.metadata.ended();
        let mut log = self.shared.log.ended();
        let mut failed = self.shared.env.failed();
        loop {
            if let Some(failure) = failed.borrow_and_update().clone() {
                return ExitReason::Failed(failure.to_string());
            }
            if let Some(end) = metadata.borrow_and_update().clone() {
                return match end {
                    MetaEnd::Fenced { .. } => ExitReason::Fenced(end.to_string()),
                    MetaEnd::Failed { .. } | MetaEnd::Closed => ExitReason::Failed(end.to_string()),
                };
            }
            if let Some(end) = log.borrow_and_update().clone() {
                return match end {
                    LogEnd::Fenced => ExitReason::Fenced(end.to_string()),
                    LogEnd::Failed(_) | LogEnd::Stopped => ExitReason::Failed(end.to_string()),
                };
            }
            tokio::select! {
                biased;
                _ = metadata.changed() => {}
                _ = log.changed() => {}
                _ = failed.changed() => {}
            }
        }
    }

    /// Stops in order. Returns whether everything that was taken became durable and was answered in time.
    pub async fn shutdown(&self) -> bool {
        let deadline = Instant::now() + self.shared.config().shutdown_timeout;
        self.stop_accepting.send_replace(true);
        self.stop_reading.send_replace(true);
        self.shared.groups.shutdown(deadline).await;
        if self.shared.bucket.kind() == BucketKind::Local {
            // Few objects are left to give files to then, and little to read at the next start.
            let soon = deadline.min(Instant::now() + SEAL_AT_STOP);
            let _ = tokio::time::timeout_at(soon, self.shared.log.seal_now()).await;
        }
        let flushed = self.shared.log.shutdown(deadline).await;
        if !flushed {
            warn!("not all that was appended became durable in time");
        }
        let answered = self.drained(deadline).await;
        if !answered {
            debug!(
                connections = self.open_connections(),
                "connections are cut off in mid-answer"
            );
        }
        let _ = tokio::time::timeout_at(deadline, self.shared.metadata.close()).await;
        let _ = tokio::time::timeout_at(deadline, self.cache.close()).await;
        // A local directory is one that any tool can copy then. Without that, nothing is lost.
        match tokio::time::timeout_at(deadline, self.shared.bucket.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the directory's journal could not be emptied"),
            Err(_) => debug!("no time was left to empty the directory's journal"),
        }
        flushed && answered
    }

    fn open_connections(&self) -> u64 {
        self.shared.metrics.connections.load(Ordering::Relaxed)
    }

    async fn drained(&self, deadline: Instant) -> bool {
        while self.open_connections() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

fn bounds(config: &BrokerConfig) -> Bounds {
    Bounds {
        total: config.network.max_connections,
        per_address: config.network.max_connections_per_ip,
        overrides: config
            .network
            .per_ip_overrides
            .iter()
            .map(|(ip, count)| (*ip, *count))
            .collect::<HashMap<_, _>>(),
    }
}

/// Keeps topics and configuration up to the image.
async fn follow_image(shared: Arc<Shared>, limits: ConnectionLimits) {
    let mut images = shared.metadata.watch();
    loop {
        let image = images.borrow_and_update().clone();
        shared.follow(&image);
        limits.set(bounds(&shared.config()));
        if images.changed().await.is_err() {
            return;
        }
    }
}

/// Takes the incarnations of which nothing is left out of the metadata, so that the image does not grow with starts.
///
/// Each is unpinned and swept in one entry, after the sweep and the checkpoint that it followed: the data that the heir
/// inherited is its own by then, or lies in a chain that is kept (D2, D3). A crash before the entry costs nothing but
/// the entry: a sweep goes by the bucket and not by the image, and the next start's tells of the same chains again. What
/// the image forgets here is never asked for: fences and slot 0 stay in the bucket, so that an owner that slept through
/// all this still finds its slot taken, and a number is a slot of the metadata log, which is never given twice (I1).
async fn follow_chains(shared: Arc<Shared>) {
    let mut swept = shared.log.swept_chains();
    loop {
        let gone = swept.borrow_and_update().clone();
        loop {
            let mut some = false;
            let outcome = shared
                .change(Duration::from_secs(60), |image| {
                    let records = forgotten(image, &gone);
                    some = !records.is_empty();
                    Ok(records)
                })
                .await;
            if let Err(error) = &outcome {
                debug!(error = %error.message, "swept chains could not be noted; the next start will");
            }
            if outcome.is_err() || !some {
                break;
            }
        }
        if swept.changed().await.is_err() {
            return;
        }
    }
}

/// The records that take swept chains out of the image, as many as one entry is to hold.
fn forgotten(image: &Image, gone: &SweptChains) -> Vec<Record> {
    // The newest first: from there it is not far to the heir of all.
    let older =
        image.incarnations.iter().rev().filter(|(incarnation, state)| {
            state.end.is_some() && gone.contains(state.node_id, **incarnation)
        });
    let heirs = older.filter_map(|(incarnation, _)| Some((*incarnation, image.heir_of(*incarnation)?)));
    let records = heirs.take(CHAINS_AT_ONCE).flat_map(|(incarnation, heir)| {
        [
            Record::ChainUnpinned { incarnation, heir },
            Record::ChainSwept { incarnation },
        ]
    });
    records.collect()
}

/// Takes the tombstones of swept topics out of the metadata.
async fn follow_sweeps(shared: Arc<Shared>) {
    let mut swept = shared.log.swept();
    loop {
        let gone = swept.borrow_and_update().clone();
        let outcome = shared
            .change(Duration::from_secs(60), |image| {
                let known = gone.iter().filter(|id| image.tombstones.get(&id.0).is_some());
                Ok(known.map(|id| Record::TopicSwept { id: id.0 }).collect())
            })
            .await;
        match outcome {
            Ok(_) => shared.log.forget_swept(&gone),
            Err(error) => debug!(error = %error.message, "swept topics could not be noted"),
        }
        if swept.changed().await.is_err() {
            return;
        }
    }
}
