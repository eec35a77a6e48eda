//! Group coordination: everything between the handlers and the state machines of `drumlin-coordinator`.
//!
//! Owns which partitions of `__consumer_offsets` are loaded, and one task for each ([`driver`]) that feeds its state
//! machine, appends what it writes as ordinary batches, and lets answers go once what they rest on is durable (A3, R3).
//! What a group is, and every record, is the coordinator crate's business; this module knows none of it.
//!
//! | module | owns |
//! | --- | --- |
//! | this one | the table of shards, routing a request to the shard of its group |
//! | [`topic`] | `__consumer_offsets` itself, and who coordinates a group |
//! | [`driver`] | one shard's task: mailbox, steps, timers |
//! | [`append`] | batches under way and the answers that wait for them |
//! | [`held`] | what a task has taken from its mailbox and not served yet |
//! | [`load`] | replaying a partition into a shard |
//! | [`snapshot`] | snapshot objects: when, where, which are deleted |
//! | [`view`] | the metadata as the coordinator sees it |
//! | [`report`] | figures for metrics |

mod append;
mod clock;
pub mod control;
mod driver;
mod failed;
mod held;
mod load;
pub mod report;
mod snapshot;
pub mod topic;
mod view;

pub(crate) use failed::fail;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use drumlin_cluster::Image;
use drumlin_coordinator::{Caller, ErrorCode, GroupRequest, GroupResponse, MemberMemory, partition_for};
use drumlin_log::{Log, Partition};
use drumlin_objects::{Bucket, Env, TaskKind};
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::control::{Control, Stop};
use self::driver::{Driver, Mail};
use self::report::{GroupsReport, Totals};
use self::view::View;
use crate::config::{BrokerConfig, GroupsConfig};
use crate::names::GROUP_METADATA_TOPIC;
use crate::topics::{Applied, Topics};

/// Requests that may wait for one shard, beside those that it has taken.
const MAILBOX: usize = 256;
/// Bytes of JoinGroup and SyncGroup requests, of all connections together, that may wait for the other members.
const PARKED_BYTES: usize = 64 << 20;
/// Loads at one time: each holds what it reads in one go in memory.
const LOADS: usize = 2;

/// The coordinators of one broker.
pub struct Groups {
    hub: Arc<Hub>,
    table: Mutex<Table>,
    parked: Arc<Semaphore>,
}

/// What all shards of a broker share.
pub(crate) struct Hub {
    pub env: Env,
    pub log: Log,
    pub bucket: Bucket,
    pub origin: Instant,
    /// This broker's registration, which names what it puts.
    pub incarnation: u64,
    pub loads: Semaphore,
    pub totals: Totals,
    /// What members of all groups hold.
    pub members: Arc<MemberMemory>,
    view: Mutex<Arc<View>>,
    config: Mutex<Arc<GroupsConfig>>,
}

impl Hub {
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn config(&self) -> Arc<GroupsConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Default)]
struct Table {
    /// Partitions of `__consumer_offsets`; 0 while there is none.
    partitions: i32,
    shards: BTreeMap<i32, Entry>,
    closed: bool,
}

impl Table {
    fn partition_of(&self, group: &str) -> Option<i32> {
        (self.partitions > 0).then(|| partition_for(group, self.partitions))
    }

    fn mailbox_of(&self, group: &str) -> Option<mpsc::Sender<Mail>> {
        let entry = self.shards.get(&self.partition_of(group)?)?;
        Some(entry.mail.clone())
    }
}

/// One shard's task.
struct Entry {
    partition: Arc<Partition>,
    mail: mpsc::Sender<Mail>,
    control: Arc<Control>,
    task: JoinHandle<()>,
}

/// A request that was handed to a shard.
pub enum Sent {
    /// It is answered already.
    Answered(GroupResponse),
    /// It waits for its answer.
    Pending {
        /// The answer.
        answered: oneshot::Receiver<GroupResponse>,
        /// The answer, if the shard was unloaded with the request in its mailbox.
        otherwise: GroupResponse,
    },
}

impl Sent {
    /// Waits for the answer; for as long as it takes where members wait for one another.
    pub async fn answer(self) -> GroupResponse {
        match self {
            Sent::Answered(answer) => answer,
            Sent::Pending { answered, otherwise } => answered.await.unwrap_or(otherwise),
        }
    }
}

/// From this version of SyncGroup on its protocol's type and name must be there (KIP-559): `KafkaApis` looks before any
/// coordinator is asked.
const SYNC_NAMES_FROM: i16 = 5;

fn lacks_names(request: &GroupRequest, version: i16) -> bool {
    match request {
        GroupRequest::SyncGroup(sync) if version >= SYNC_NAMES_FROM => {
            sync.protocol_type.is_none() || sync.protocol_name.is_none()
        }
        _ => false,
    }
}

impl Groups {
    /// None loaded yet.
    pub fn new(env: &Env, log: &Log, bucket: &Bucket, image: &Arc<Image>, config: &BrokerConfig) -> Self {
        Self {
            hub: Arc::new(Hub {
                env: env.clone(),
                log: log.clone(),
                bucket: bucket.clone(),
                origin: env.instant(),
                incarnation: (image.brokers.get(&config.node_id)).map_or(0, |broker| broker.incarnation),
                loads: Semaphore::new(LOADS),
                totals: Totals::default(),
                members: Arc::default(),
                view: Mutex::new(Arc::new(View::new(Arc::clone(image), 0))),
                config: Mutex::new(Arc::new(config.groups.clone())),
            }),
            table: Mutex::default(),
            parked: Arc::new(Semaphore::new(PARKED_BYTES)),
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings shards up to an image that the open topics were brought up to before: loads what is led, unloads what is
    /// not, passes on deleted topics and changed options.
    pub(crate) fn follow(
        &self,
        image: &Arc<Image>,
        topics: &Topics,
        applied: &Applied,
        config: &BrokerConfig,
    ) {
        let hub = &self.hub;
        *hub.view.lock().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(View::new(Arc::clone(image), applied.version));
        let reconfigured = *hub.config() != config.groups;
        if reconfigured {
            *hub.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.groups.clone());
        }
        let mut table = self.table();
        if table.closed {
            return;
        }
        let known = topics.by_name(GROUP_METADATA_TOPIC);
        let led = known.iter().flat_map(|topic| &topic.partitions);
        let led: BTreeMap<i32, &Arc<Partition>> = (0..)
            .zip(led)
            .filter_map(|(n, partition)| Some((n, partition.as_ref()?)))
            .collect();
        table.partitions = known.as_ref().map_or(0, |topic| {
            i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
        });
        table.shards.retain(|n, entry| {
            let same = led.get(n).is_some_and(|led| Arc::ptr_eq(led, &entry.partition));
            if !same {
                entry.control.stop(Stop::Unload);
            }
            same
        });
        for entry in table.shards.values() {
            entry.control.tell(&applied.gone, reconfigured);
        }
        for (n, partition) in led {
            let open = || self.open(n, partition);
            table.shards.entry(n).or_insert_with(open);
        }
    }

    fn open(&self, n: i32, partition: &Arc<Partition>) -> Entry {
        let (mail, mailbox) = mpsc::channel(MAILBOX);
        let control = Arc::new(Control::default());
        let driver = Driver::new(
            n,
            Arc::clone(partition),
            Arc::clone(&self.hub),
            mailbox,
            Arc::clone(&control),
        );
        Entry {
            partition: Arc::clone(partition),
            mail,
            control,
            task: self.hub.env.spawn(TaskKind::GroupCoordinator, driver.run()),
        }
    }

    /// The shard of a group.
    pub fn partition_of(&self, group: &str) -> Option<i32> {
        self.table().partition_of(group)
    }

    /// Hands a request to the shard of its group: what is handed over first is served first.
    pub async fn send(&self, caller: Caller, request: GroupRequest) -> Sent {
        if lacks_names(&request, caller.api_version) {
            return Sent::Answered(request.failed(ErrorCode::InconsistentGroupProtocol));
        }
        let mailbox = request
            .group_id()
            .and_then(|group| self.table().mailbox_of(group));
        match mailbox {
            Some(mail) => self.hand(mail, caller, request).await,
            None => Sent::Answered(request.failed(ErrorCode::NotCoordinator)),
        }
    }

    async fn hand(&self, mail: mpsc::Sender<Mail>, caller: Caller, request: GroupRequest) -> Sent {
        let patience = self.hub.config().commit_timeout;
        // A full mailbox is a shard that waits for the store.
        let place = match tokio::time::timeout(patience, mail.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Sent::Answered(request.failed(ErrorCode::NotCoordinator)),
            Err(_) => return Sent::Answered(request.failed(ErrorCode::CoordinatorNotAvailable)),
        };
        let (answer, answered) = oneshot::channel();
        let otherwise = request.failed(ErrorCode::NotCoordinator);
        place.send(Mail::Request {
            caller,
            request: Box::new(request),
            answer,
            until: self.hub.env.instant() + patience,
        });
        Sent::Pending { answered, otherwise }
    }

    /// Of all shards, in the order of the partitions.
    fn mailboxes(&self) -> Vec<mpsc::Sender<Mail>> {
        let table = self.table();
        table.shards.values().map(|entry| entry.mail.clone()).collect()
    }

    /// Asks every shard, and gives the answers in the order of the partitions.
    pub async fn call_all(&self, caller: &Caller, request: impl Fn() -> GroupRequest) -> Vec<GroupResponse> {
        let ask = |mail| async { self.hand(mail, caller.clone(), request()).await.answer().await };
        join_all(self.mailboxes().into_iter().map(ask)).await
    }

    /// Room for a request of so many bytes that waits for other members; none while such requests hold too much.
    pub fn park(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.clamp(1, PARKED_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.parked).try_acquire_many_owned(bytes).ok()
    }

    /// Figures of all shards, and committed offsets up to a limit.
    pub async fn report(&self, offsets: usize) -> GroupsReport {
        report::gather(&self.hub, self.mailboxes(), offsets).await
    }

    /// Ends all shards in order: no more requests, what was written is committed and answered, everybody who still
    /// waits is told to look for another coordinator; snapshots where they save replay.
    pub async fn shutdown(&self, deadline: Instant) {
        let shards = {
            let mut table = self.table();
            table.closed = true;
            std::mem::take(&mut table.shards)
        };
        for entry in shards.values() {
            entry.control.stop(Stop::Shutdown(deadline));
        }
        for entry in shards.into_values() {
            if tokio::time::timeout_at(deadline, entry.task).await.is_err() {
                tracing::warn!("a group coordinator did not end in time");
                return;
            }
        }
    }
}
