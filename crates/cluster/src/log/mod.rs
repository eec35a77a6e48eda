//! The metadata log: one chain, one controller, one entry on its way at a time [F5].
//!
//! | module | owns |
//! | --- | --- |
//! | this one | the handle: proposing changes, waiting for them, following the image |
//! | [`open`] | birth, replay, and the `NewController` entry that fences the controller before |
//! | [`owner`] | the one task that writes: entries, checkpoints, looks at the next slot |
//!
//! A change is decided on the *tip*, the image after all that was accepted, and is accepted into the one open
//! entry. The owner takes the open entry, puts it, waits until it is committed, publishes the image after it,
//! and only then takes the next: there is never a second one on its way. Nobody is told anything that rests on
//! an entry that is not committed, a refusal included.

pub(crate) mod open;
mod owner;

use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::apply::ApplyError;
use crate::ids::Incarnation;
use crate::image::{Image, PRODUCER_ID_BLOCK};
use crate::record::{Endpoint, Fenced, Record};

/// The records of one change take no more than this.
pub const MAX_CHANGE_BYTES: usize = 4 << 20;
/// An entry that holds more than this takes no further change.
const FULL_BYTES: usize = 4 << 20;

/// Why this process is not the controller any more. Final.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetaEnd {
    /// A newer start on the same bucket took over.
    #[error(
        "another broker{} has started on this bucket and taken over its metadata log (slot {slot}, epoch {epoch}); this one must stop. If that was not meant, give each broker a store.url of its own", by(.node_id)
    )]
    Fenced {
        /// The slot of its `NewController` entry.
        slot: u64,
        /// Its epoch.
        epoch: u64,
        /// Its node, where that could be read.
        node_id: Option<i32>,
    },
    /// The log cannot be written, or is not what it has to be.
    #[error("the metadata log failed: {what}")]
    Failed {
        /// Why.
        what: String,
    },
    /// [`MetadataLog::close`] was called.
    #[error("the metadata log is closed")]
    Closed,
}

fn by(node_id: &Option<i32>) -> String {
    node_id
        .map(|node_id| format!(" (node {node_id})"))
        .unwrap_or_default()
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeError<E> {
    /// The caller's own decision.
    #[error("{0}")]
    Refused(E),
    /// The records do not fit the image.
    #[error(transparent)]
    Invalid(#[from] ApplyError),
    /// The records are too large.
    #[error("the change takes {0} bytes, and may take {MAX_CHANGE_BYTES} at most")]
    TooLarge(usize),
    /// This process is not the controller any more. Whether the change was made, its successor knows.
    #[error(transparent)]
    Ended(#[from] MetaEnd),
}

/// Why a change that the caller has no say in was not made.
pub type MetaError = ChangeError<Infallible>;

/// A broker's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBroker {
    /// Its node.
    pub node_id: i32,
    /// Where it is reached.
    pub endpoints: Vec<Endpoint>,
    /// Its rack.
    pub rack: Option<String>,
    /// The incarnation before, fenced, whose partitions this one takes over [I1].
    pub previous: Option<Fenced>,
}

/// The handle on the metadata log of this process, which is its controller.
#[derive(Debug)]
pub struct MetadataLog {
    shared: Arc<Shared>,
}

/// What the handle and the owner share.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Published after the commit, before the end.
    image: watch::Sender<Arc<Image>>,
    ended: watch::Sender<Option<MetaEnd>>,
    /// Tickets up to this have seen that nobody took over after they were drawn.
    confirmed: watch::Sender<u64>,
    /// Nobody else can have taken over: the directory is locked.
    locked: bool,
}

/// What came of a change, and the slot of the entry that the answer rests on.
type Accepted<E> = (Result<(), ChangeError<E>>, u64);

/// The open entry has no room; the decision comes back.
struct Full<D>(D);

/// What was accepted and is not on its way yet.
#[derive(Debug)]
struct Queue {
    /// The image after all that was accepted.
    tip: Image,
    /// The records of the open entry, encoded.
    open: BytesMut,
    /// How many they are.
    count: usize,
    /// The slot that the open entry takes.
    next_slot: u64,
    /// Tickets drawn by [`MetadataLog::confirm_alone`].
    asked: u64,
    closing: bool,
}

impl MetadataLog {
    /// The newest committed image.
    pub fn image(&self) -> Arc<Image> {
        self.shared.image.borrow().clone()
    }

    /// Follows the committed image. Slow followers skip images.
    pub fn watch(&self) -> watch::Receiver<Arc<Image>> {
        self.shared.image.subscribe()
    }

    /// The slot after the newest committed entry.
    pub fn position(&self) -> u64 {
        self.shared.image.borrow().position
    }

    /// Tells when this process stops being the controller, and why. Final.
    pub fn ended(&self) -> watch::Receiver<Option<MetaEnd>> {
        self.shared.ended.subscribe()
    }

    /// Changes the metadata: `decide` sees the image after all that was accepted before and returns the records
    /// that change it, which become one entry with their neighbours'. Returns the entry's slot once it is
    /// committed; with no records, the slot of the entry that the decision rests on, likewise.
    ///
    /// Changes are atomic and in order. `decide` runs under a lock: no more than a look and a decision. A future
    /// that is dropped leaves open whether its change is made.
    pub async fn change<E>(
        &self,
        decide: impl FnOnce(&Image) -> Result<Vec<Record>, E>,
    ) -> Result<u64, ChangeError<E>> {
        let mut decide = decide;
        let (answer, rests_on) = loop {
            self.room().await?;
            match self.accept(decide) {
                Ok(accepted) => break accepted,
                Err(full) => decide = full.0,
            }
        };
        if answer.is_ok() {
            self.shared.wake.notify_one();
        }
        self.committed(rests_on).await?;
        answer.map(|()| rests_on)
    }

    /// Takes a change into the open entry. Returns the entry that the answer has to wait for.
    fn accept<E, D>(&self, decide: D) -> Result<Accepted<E>, Full<D>>
    where
        D: FnOnce(&Image) -> Result<Vec<Record>, E>,
    {
        let mut queue = self.shared.queue();
        let newest = queue.tip.position.saturating_sub(1);
        if queue.closing {
            return Ok((Err(MetaEnd::Closed.into()), 0));
        }
        if queue.is_full() {
            return Err(Full(decide));
        }
        let records = match decide(&queue.tip) {
            Ok(records) if records.is_empty() => return Ok((Ok(()), newest)),
            Ok(records) => records,
            Err(refusal) => return Ok((Err(ChangeError::Refused(refusal)), newest)),
        };
        let slot = queue.next_slot;
        let mut tip = queue.tip.clone();
        let mut bytes = BytesMut::new();
        for record in &records {
            if let Err(error) = tip.apply(record, slot) {
                return Ok((Err(error.into()), newest));
            }
            record.encode(&mut bytes);
        }
        if bytes.len() > MAX_CHANGE_BYTES {
            return Ok((Err(ChangeError::TooLarge(bytes.len())), newest));
        }
        tip.position = slot + 1;
        queue.tip = tip;
        queue.open.extend_from_slice(&bytes);
        queue.count += records.len();
        Ok((Ok(()), slot))
    }

    /// Waits until the open entry has room for one more change of any size.
    async fn room(&self) -> Result<(), MetaEnd> {
        let mut image = self.shared.image.subscribe();
        let mut ended = self.shared.ended.subscribe();
        loop {
            image.mark_unchanged();
            if let Some(end) = ended.borrow_and_update().clone() {
                return Err(end);
            }
            if !self.shared.queue().is_full() {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = image.changed() => {}
                _ = ended.changed() => {}
            }
        }
    }

    /// Waits until the entry at `slot` is committed.
    async fn committed(&self, slot: u64) -> Result<(), MetaEnd> {
        self.reached(&self.shared.image, |image| image.position > slot)
            .await
    }

    /// Waits until what `of` publishes fulfils `enough`, or the end.
    async fn reached<T>(&self, of: &watch::Sender<T>, enough: impl Fn(&T) -> bool) -> Result<(), MetaEnd> {
        let mut values = of.subscribe();
        let mut ended = self.shared.ended.subscribe();
        loop {
            // In this order: what is published before the end is seen before the end.
            let end = ended.borrow_and_update().clone();
            if enough(&values.borrow_and_update()) {
                return Ok(());
            }
            if let Some(end) = end {
                return Err(end);
            }
            tokio::select! {
                biased;
                _ = values.changed() => {}
                _ = ended.changed() => {}
            }
        }
    }

    /// Waits for proof that nobody had taken over when this was called [R2]: an entry of one's own that was
    /// dispatched since, or a read since that found the next slot empty. One proof serves all who wait. On a
    /// locked directory there is nothing to prove.
    ///
    /// While the store is away this waits: bound it.
    pub async fn confirm_alone(&self) -> Result<(), MetaEnd> {
        if self.shared.locked {
            return self.shared.ended.borrow().clone().map_or(Ok(()), Err);
        }
        let ticket = {
            let mut queue = self.shared.queue();
            queue.asked += 1;
            queue.asked
        };
        self.shared.wake.notify_one();
        self.reached(&self.shared.confirmed, |confirmed| *confirmed >= ticket)
            .await
    }

    /// Registers a broker and makes it the leader of all that its fenced predecessor led, in one small entry.
    /// Returns its incarnation, the entry's slot.
    pub async fn register(&self, broker: RegisterBroker) -> Result<Incarnation, MetaError> {
        let RegisterBroker {
            node_id,
            endpoints,
            rack,
            previous,
        } = broker;
        let record = Record::BrokerRegistered {
            node_id,
            endpoints,
            rack,
            previous,
        };
        self.change(|_| Ok(vec![record])).await
    }

    /// Allocates a block of [`PRODUCER_ID_BLOCK`] producer ids that were never given out.
    pub async fn allocate_producer_ids(&self, node_id: i32) -> Result<Range<i64>, MetaError> {
        let mut block = 0..0;
        self.change(|image| {
            block = image.next_producer_id..image.next_producer_id.saturating_add(PRODUCER_ID_BLOCK);
            Ok(vec![Record::ProducerIdsAllocated {
                node_id,
                end: block.end,
            }])
        })
        .await?;
        Ok(block)
    }

    /// Takes no more changes, commits those that were accepted, and ends with [`MetaEnd::Closed`].
    pub async fn close(&self) {
        self.shared.queue().closing = true;
        self.shared.wake.notify_one();
        let mut ended = self.shared.ended.subscribe();
        // The sender lives in `self`.
        let _ = ended.wait_for(Option::is_some).await;
    }
}

impl Queue {
    fn is_full(&self) -> bool {
        self.open.len() > FULL_BYTES
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A decision that panics does so before the queue is touched.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
