//! The one task that writes the metadata log.
//!
//! It does one thing at a time, so nothing of it is ever on its way twice: an entry, a checkpoint's entry, or a
//! look at the next slot. A checkpoint's body is uploaded, and old entries are deleted, by tasks beside it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drumlin_objects::chain::{
    AppendRefused, ChainEnd, ChainWriter, CheckpointError, ENTRY_HEADER_LEN, EntryKind, body_key, read_entry,
};
use drumlin_objects::{Bucket, Env, PutNewError, Reason, StoreError, TaskKind};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::{MetaEnd, Shared};
use crate::image::Image;
use crate::record::{BODY_OVERHEAD, Record, decode_body, encode_body, encode_single};

/// A controller that has nothing to write looks this often whether somebody took over: 24 times an hour.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(150);
/// A checkpoint is made when the entries above the last one reach this size, if not for their number.
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// How long after a failure a checkpoint is tried again.
const CHECKPOINT_AGAIN: Duration = Duration::from_secs(10);

/// The task's own state.
pub(super) struct Owner {
    shared: Arc<Shared>,
    env: Env,
    bucket: Bucket,
    /// With a window of one.
    writer: Arc<ChainWriter>,
    epoch: u64,
    /// Since the last checkpoint.
    written: Written,
    checkpoint_entries: u64,
    upload: Upload,
    look_at: Instant,
}

/// How much log there is above a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// How far the next checkpoint is.
enum Upload {
    /// None is on its way; not to be begun before that time.
    Idle(Instant),
    /// Its body is being uploaded.
    Running(Pending, JoinHandle<Result<(), StoreError>>),
    /// Its body is there; its entry comes next.
    Ready(Pending),
}

/// A checkpoint that has not taken effect.
struct Pending {
    covers_below: u64,
    body_key: String,
    /// What it will spare its readers.
    covers: Written,
}

enum Work {
    /// Put this entry; then, if it is ready, the checkpoint's.
    Append {
        slot: u64,
        buf: BytesMut,
        image: Arc<Image>,
        asked: u64,
        then_checkpoint: bool,
    },
    /// Put the checkpoint's entry.
    Checkpoint,
    /// See whether the next slot is empty.
    Look { asked: u64 },
    /// All is written and [`super::MetadataLog::close`] was called.
    Close,
}

impl Owner {
    pub(super) fn new(
        shared: Arc<Shared>,
        env: &Env,
        bucket: &Bucket,
        writer: ChainWriter,
        epoch: u64,
        written: Written,
        checkpoint_entries: u64,
    ) -> Self {
        Self {
            shared,
            env: env.clone(),
            bucket: bucket.clone(),
            writer: Arc::new(writer),
            epoch,
            written,
            checkpoint_entries,
            upload: Upload::Idle(env.instant()),
            look_at: env.instant() + LOOK_EVERY,
        }
    }

    /// Works until the end, and tells it.
    pub(super) async fn run(mut self) {
        let end = loop {
            self.begin_checkpoint();
            let done = match self.next_work().await {
                Ok(work) => self.perform(work).await,
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                break end;
            }
        };
        self.writer.stop();
        match &end {
            MetaEnd::Closed => tracing::debug!("metadata log closed"),
            end => tracing::error!(%end, "metadata log ended"),
        }
        self.shared.ended.send_replace(Some(end));
    }

    async fn next_work(&mut self) -> Result<Work, MetaEnd> {
        loop {
            if let Some(work) = self.take_work() {
                return Ok(work);
            }
            let looks = !self.shared.locked;
            tokio::select! {
                biased;
                () = self.shared.wake.notified() => {}
                result = uploaded(&mut self.upload, &self.env) => result?,
                () = sleep_until(self.look_at), if looks => {
                    return Ok(Work::Look { asked: self.shared.queue().asked });
                }
            }
        }
    }

    /// What there is to do. Slots are given out here, under the lock, and nowhere else.
    fn take_work(&mut self) -> Option<Work> {
        let ready = matches!(self.upload, Upload::Ready(_));
        let mut queue = self.shared.queue();
        if queue.count > 0 {
            let slot = queue.next_slot;
            let mut buf = BytesMut::with_capacity(ENTRY_HEADER_LEN + BODY_OVERHEAD + queue.open.len());
            buf.resize(ENTRY_HEADER_LEN, 0);
            encode_body(&mut buf, queue.count, &queue.open);
            queue.open = BytesMut::new();
            queue.count = 0;
            let image = Arc::new(queue.tip.clone());
            // A busy log would never get to its checkpoint otherwise.
            queue.next_slot = slot + 1 + u64::from(ready);
            queue.tip.position = queue.next_slot;
            return Some(Work::Append {
                slot,
                buf,
                image,
                asked: queue.asked,
                then_checkpoint: ready,
            });
        }
        if queue.asked > *self.shared.confirmed.borrow() {
            return Some(Work::Look { asked: queue.asked });
        }
        if queue.closing {
            return Some(Work::Close);
        }
        if ready {
            queue.next_slot += 1;
            queue.tip.position = queue.next_slot;
            return Some(Work::Checkpoint);
        }
        None
    }

    async fn perform(&mut self, work: Work) -> Result<(), MetaEnd> {
        match work {
            Work::Append {
                slot,
                buf,
                image,
                asked,
                then_checkpoint,
            } => {
                self.append(slot, buf, image).await?;
                self.confirm(asked);
                if then_checkpoint {
                    self.checkpoint().await
                } else {
                    Ok(())
                }
            }
            Work::Checkpoint => self.checkpoint().await,
            Work::Look { asked } => self.look(asked).await,
            Work::Close => Err(MetaEnd::Closed),
        }
    }

    async fn append(&mut self, slot: u64, buf: BytesMut, image: Arc<Image>) -> Result<(), MetaEnd> {
        let bytes = buf.len() as u64;
        if self.writer.next_slot() != slot {
            return Err(out_of_step(slot, self.writer.next_slot()));
        }
        match self.writer.append(EntryKind::Data, self.epoch, buf, 0) {
            Ok(_) => {}
            Err(AppendRefused::Ended(end)) => return Err(self.explain(end).await),
            Err(error) => {
                return Err(MetaEnd::Failed {
                    what: error.to_string(),
                });
            }
        }
        if let Err(end) = self.writer.committed(slot).await {
            return Err(self.explain(end).await);
        }
        self.publish(image, bytes);
        Ok(())
    }

    fn publish(&mut self, image: Arc<Image>, bytes: u64) {
        self.written.entries += 1;
        self.written.bytes += bytes;
        self.look_at = self.env.instant() + LOOK_EVERY;
        self.shared.image.send_replace(image);
    }

    fn confirm(&self, asked: u64) {
        self.shared.confirmed.send_replace(asked);
    }

    /// Reads the next slot. With nothing of one's own on its way, whoever took over did so there, and its entry
    /// is never deleted; so an empty slot is proof. Given up for a change, whose commit is as good.
    async fn look(&mut self, asked: u64) -> Result<(), MetaEnd> {
        let slot = self.writer.next_slot();
        let (shared, bucket, name) = (
            self.shared.clone(),
            self.bucket.clone(),
            self.writer.name().clone(),
        );
        let mut read = pin!(read_entry(&bucket, &name, slot, Reason::Meta));
        let found = loop {
            tokio::select! {
                biased;
                found = &mut read => break found,
                () = shared.wake.notified() => {
                    if shared.queue().count > 0 {
                        return Ok(());
                    }
                }
            }
        };
        self.look_at = self.env.instant() + LOOK_EVERY;
        match found {
            Ok(None) => self.confirm(asked),
            Ok(Some(_)) => return Err(self.explain(ChainEnd::Fenced { slot }).await),
            // Asked again at once by those who wait, else at the next time.
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "cannot see whether another broker took over");
            }
            Err(error) => {
                return Err(MetaEnd::Failed {
                    what: error.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Why the chain has ended for this writer.
    async fn explain(&self, end: ChainEnd) -> MetaEnd {
        let ChainEnd::Fenced { slot } = end else {
            return MetaEnd::Failed {
                what: end.to_string(),
            };
        };
        // Stopping must not wait for a store that is slow.
        let read = read_entry(&self.bucket, self.writer.name(), slot, Reason::Meta);
        let Ok(Ok(Some(entry))) = timeout(Duration::from_secs(5), read).await else {
            return MetaEnd::Fenced {
                slot,
                epoch: self.epoch + 1,
                node_id: None,
            };
        };
        let epoch = entry.header.epoch;
        if epoch <= self.epoch {
            // Void for every reader, so nothing is lost; but it cannot be, so nothing goes on here either.
            let what =
                format!("slot {slot} holds a stray entry of epoch {epoch}; start again, which skips it");
            return MetaEnd::Failed { what };
        }
        let node_id = decode_body(&entry.body())
            .ok()
            .and_then(|records| match records.first() {
                Some(Record::NewController { node_id }) => Some(*node_id),
                _ => None,
            });
        MetaEnd::Fenced { slot, epoch, node_id }
    }

    /// Starts the upload of a checkpoint's body if it is time.
    fn begin_checkpoint(&mut self) {
        let Upload::Idle(not_before) = &self.upload else {
            return;
        };
        let enough =
            self.written.entries >= self.checkpoint_entries || self.written.bytes >= CHECKPOINT_BYTES;
        if !enough || self.env.instant() < *not_before {
            return;
        }
        let image = self.shared.image.borrow().clone();
        let pending = Pending {
            covers_below: image.position,
            body_key: body_key(&self.writer.name().prefix, &body_id(self.epoch, image.position)),
            covers: self.written,
        };
        let (env, bucket, key) = (self.env.clone(), self.bucket.clone(), pending.body_key.clone());
        let task = self.env.spawn(TaskKind::MetaCheckpoint, async move {
            let body: Bytes = env.blocking(move || image.encode().freeze()).await;
            put_body(&bucket, &key, body).await
        });
        self.upload = Upload::Running(pending, task);
    }

    /// Puts the entry and the marker of the checkpoint whose body is there, at the slot reserved for it.
    async fn checkpoint(&mut self) -> Result<(), MetaEnd> {
        let idle = Upload::Idle(self.env.instant());
        let Upload::Ready(pending) = std::mem::replace(&mut self.upload, idle) else {
            return Ok(());
        };
        let Pending {
            covers_below,
            body_key,
            covers,
        } = pending;
        let slot = self.writer.next_slot();
        let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
        encode_single(
            &mut buf,
            &Record::Checkpoint {
                covers_below,
                body: body_key.clone(),
            },
        );
        let bytes = buf.len() as u64;
        match self
            .writer
            .checkpoint(covers_below, &body_key, self.epoch, buf)
            .await
        {
            Ok(_) => {}
            Err(CheckpointError::Ended(end)) => return Err(self.explain(end).await),
            Err(error) => {
                return Err(MetaEnd::Failed {
                    what: error.to_string(),
                });
            }
        }
        let mut image = Image::clone(&self.shared.image.borrow());
        if image.position != slot {
            return Err(out_of_step(image.position, slot));
        }
        image.position = slot + 1;
        self.written.entries -= covers.entries;
        self.written.bytes -= covers.bytes;
        self.publish(Arc::new(image), bytes);
        self.spawn_trim(covers_below);
        Ok(())
    }

    /// Deletes what the checkpoint has replaced. What fails is left to the next one.
    fn spawn_trim(&self, covers_below: u64) {
        tracing::debug!(covers_below, "metadata checkpoint");
        let (writer, bucket, newest) = (
            self.writer.clone(),
            self.bucket.clone(),
            (self.epoch, covers_below),
        );
        self.env.spawn(TaskKind::MetaTrim, async move {
            if let Err(error) = writer.trim(covers_below).await {
                tracing::warn!(%error, "metadata entries below the checkpoint are not all deleted");
            }
            if let Err(error) = trim_bodies(&bucket, &writer.name().prefix, newest).await {
                tracing::warn!(%error, "bodies of older metadata checkpoints are not all deleted");
            }
        });
    }
}

/// The id of a checkpoint's body: the controller's epoch and what it covers. So no two have the same, and it
/// tells which are older.
fn body_id(epoch: u64, covers_below: u64) -> [u8; 16] {
    (u128::from(epoch) << 64 | u128::from(covers_below)).to_be_bytes()
}

/// Puts a checkpoint's body. Its name says what it holds, so whoever has put it already put the same.
async fn put_body(bucket: &Bucket, key: &str, body: Bytes) -> Result<(), StoreError> {
    match bucket.put_new(key, body.clone(), Reason::Checkpoint).await {
        Ok(()) => Ok(()),
        Err(PutNewError::Store(error)) => Err(error),
        Err(PutNewError::Exists { .. }) if bucket.get(key, Reason::Checkpoint).await? == body => Ok(()),
        Err(error @ PutNewError::Exists { .. }) => {
            let (operation, key, what) = ("create", key.to_owned(), error.to_string());
            Err(StoreError::Unavailable {
                operation,
                key,
                attempts: 1,
                what,
            })
        }
    }
}

/// Deletes the bodies of checkpoints that the one of this epoch and slot has replaced, and those that earlier
/// controllers, which can finish none any more, have left [D3]. A reader that misses one begins again at the
/// newest checkpoint.
async fn trim_bodies(bucket: &Bucket, prefix: &str, newest: (u64, u64)) -> Result<(), StoreError> {
    let newest = body_id(newest.0, newest.1);
    for object in bucket
        .list(&format!("{prefix}/body"), None, Reason::Sweep)
        .await?
    {
        let id = object.key.rsplit('/').next().filter(|id| id.len() == 32);
        let id = id.and_then(|id| u128::from_str_radix(id, 16).ok());
        if id.is_some_and(|id| id.to_be_bytes() < newest) {
            bucket.delete(&object.key, Reason::Sweep).await?;
        }
    }
    Ok(())
}

/// Waits for the upload that is running, if any, and notes what came of it.
async fn uploaded(upload: &mut Upload, env: &Env) -> Result<(), MetaEnd> {
    let Upload::Running(_, task) = upload else {
        return std::future::pending().await;
    };
    let result = task.await;
    let again = Upload::Idle(env.instant() + CHECKPOINT_AGAIN);
    let Upload::Running(pending, _) = std::mem::replace(upload, again) else {
        return Ok(());
    };
    match result {
        Ok(Ok(())) => *upload = Upload::Ready(pending),
        // What the disk holds is unknown, and what is found there later proves nothing [S2].
        Ok(Err(error @ StoreError::FsyncFailed { .. })) => {
            return Err(MetaEnd::Failed {
                what: error.to_string(),
            });
        }
        Ok(Err(error)) => tracing::warn!(%error, "metadata checkpoint failed, will be tried again"),
        // The runtime is going down, or this broker was killed.
        Err(_) => {}
    }
    Ok(())
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Who waits must hear of it, whatever ended the task.
        self.shared.ended.send_if_modified(|ended| {
            let unheard = ended.is_none();
            ended.get_or_insert_with(|| MetaEnd::Failed {
                what: "its task was ended".to_owned(),
            });
            unheard
        });
    }
}

fn out_of_step(expected: u64, found: u64) -> MetaEnd {
    MetaEnd::Failed {
        what: format!("slot {expected} was reserved and the chain goes on at {found}"),
    }
}
