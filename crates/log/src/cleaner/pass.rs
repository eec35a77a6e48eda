//! One pass over a partition: learn the dirty part, filter everything below, hand over the results.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use drumlin_objects::Reason;
use tokio::sync::oneshot;

use super::filter::{Learner, Rules, Sieve, Tally};
use super::inputs::{Input, Stretches, inputs};
use super::map::OffsetMap;
use super::replace::{Pass, Replacement};
use super::{CleanError, Cleaner, Prospect};
use crate::log::Log;
use crate::manifest::{AbortedTransaction, Segment};
use crate::partition::Partition;
use crate::read::{ReadError, Source};
use crate::rope::Rope;
use crate::seal::Builder;
use crate::types::PartitionConfig;

/// A segment in the making is in memory: whatever `segment.bytes` says, compaction makes none larger than this.
const SEGMENT_BYTES: u64 = 64 << 20;

/// What is filtered and built, as it moves to where the work is done and back.
struct Writer {
    sieve: Sieve,
    builder: Builder,
}

impl Writer {
    fn push(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let kept = self.sieve.push(bytes)?;
        let mut rope = Rope::default();
        rope.push(kept);
        self.builder.push(&rope)
    }
}

/// Whether a pass learns of it.
fn is_dirty(input: &Input, prospect: &Prospect) -> bool {
    input.end_offset > prospect.first_dirty && input.end_offset <= prospect.until
}

/// The aborted transactions that sealed pieces tell of.
async fn aborted(log: &Log, inputs: &[Input]) -> Result<Vec<AbortedTransaction>, CleanError> {
    let mut aborted = Vec::new();
    for input in inputs {
        aborted.extend_from_slice(input.source(log).await?.aborted());
    }
    Ok(aborted)
}

/// Consecutive pieces that are replaced together.
struct Group {
    base_offset: i64,
    end_offset: i64,
    inputs: Vec<Input>,
    sealed_ms: i64,
    new: Vec<Arc<Segment>>,
    /// Where the segment in the making begins.
    from: i64,
    changed_before: u64,
}

impl Group {
    fn new(first: &Input, changed_before: u64) -> Self {
        Self {
            base_offset: first.base_offset,
            end_offset: first.base_offset,
            inputs: Vec::new(),
            sealed_ms: first.sealed_ms,
            new: Vec::new(),
            from: first.base_offset,
            changed_before,
        }
    }
}

/// Says to the keeper, for as long as it lives, that objects of a partition may be on their way.
struct Claim<'a>(&'a Log);

impl<'a> Claim<'a> {
    fn on(log: &'a Log, partition: &Partition) -> Self {
        log.shared().keeper.set_cleaning(Some(partition.id()));
        Self(log)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.shared().keeper.set_cleaning(None);
        self.0.shared().wal.seal.notify_one();
    }
}

impl Cleaner {
    /// `done` hears whether all that the pass handed over was committed.
    pub(super) async fn pass(
        &mut self,
        partition: &Arc<Partition>,
        prospect: &Prospect,
        done: oneshot::Sender<bool>,
    ) -> Result<Tally, CleanError> {
        let log = self.log.clone();
        let claim = Claim::on(&log, partition);
        let mut pass = Pass {
            partition: Arc::clone(partition),
            cleaned_to: prospect.first_dirty,
            tombstones_from: 0,
            failed: Arc::new(AtomicBool::new(false)),
            uploads: Vec::new(),
        };
        let outcome = self.learn_and_filter(&mut pass, prospect).await;
        let cleaned_to = outcome.is_ok().then_some(pass.cleaned_to);
        let end = Replacement::end(&pass, cleaned_to, done);
        log.shared().keeper.hand_over(end, &mut pass);
        drop(claim);
        outcome
    }

    async fn learn_and_filter(&mut self, pass: &mut Pass, prospect: &Prospect) -> Result<Tally, CleanError> {
        let log = self.log.clone();
        let wal = &log.shared().wal;
        // Kafka's clock for a pass: horizons are set and compared as of its start.
        let now_ms = wal.env.now_ms();
        let (config, sealed, log_start, log_end, last_of_producers) = {
            let inner = pass.partition.lock();
            (
                Arc::clone(&inner.config),
                Arc::clone(&inner.sealed),
                inner.log_start,
                inner.high_watermark,
                inner.producers.last_offsets(inner.high_watermark),
            )
        };
        let inputs = inputs(&log, &sealed, log_start).await?;
        let keys = u64::try_from(prospect.until - prospect.first_dirty).unwrap_or(0);
        let map = OffsetMap::new(keys, wal.options.cleaner.map_bytes);
        let mut learner = Learner::new(map, prospect.first_dirty);
        let aborted = aborted(&log, &inputs).await?;
        // Transactions that ended below what is read would never be seen to end.
        let dirty = inputs.iter().find(|input| is_dirty(input, prospect));
        let from = dirty.map_or(i64::MAX, |input| input.base_offset);
        let ends_later: Vec<_> = aborted
            .iter()
            .filter(|one| one.last_offset >= from)
            .copied()
            .collect();
        learner.transactions.learn(&ends_later);
        let (learner, cleaned_to) = self.learn(&pass.partition, learner, &inputs, prospect).await?;
        pass.cleaned_to = cleaned_to;
        if learner.end == prospect.first_dirty {
            // No batch reaches above what is clean.
            return Ok(Tally::default());
        }
        let rules = Rules {
            map_end: learner.end,
            now_ms,
            delete_retention_ms: config.delete_retention_ms,
            last_of_producers,
            log_end,
        };
        let mut sieve = Sieve::new(learner.map, rules);
        sieve.transactions.learn(&aborted);
        self.filter(pass, sieve, &inputs, &config).await
    }

    /// Reads the dirty part. Returns the map, and the offset below which all is in it.
    async fn learn(
        &mut self,
        partition: &Arc<Partition>,
        mut learner: Learner,
        inputs: &[Input],
        prospect: &Prospect,
    ) -> Result<(Learner, i64), CleanError> {
        let log = self.log.clone();
        let env = &log.shared().wal.env;
        let mut cleaned_to = prospect.first_dirty;
        let dirty = inputs.iter().filter(|input| is_dirty(input, prospect));
        for input in dirty {
            let source = input.source(&log).await?;
            let mut stretches = Stretches::new(&log, partition.id(), &source);
            let mut next = stretches.next().await?;
            while let Some(bytes) = next {
                self.go_on(partition, bytes.len()).await?;
                log.counters().add_cleaner_read(bytes.len());
                let work = env.blocking(move || {
                    let went = learner.push(&bytes);
                    (learner, went)
                });
                let ((back, went), ahead) = futures::join!(work, stretches.next());
                learner = back;
                if !went? {
                    let end = learner.end;
                    if end == prospect.first_dirty {
                        let what = "a batch has more records than the map of keys can hold: \
                                    log.cleaner.dedupe.buffer.size is too small for it";
                        return Err(ReadError::Corrupt {
                            what: what.to_owned(),
                        }
                        .into());
                    }
                    return Ok((learner, end));
                }
                next = ahead?;
            }
            learner.finish_source()?;
            cleaned_to = input.end_offset;
        }
        Ok((learner, cleaned_to))
    }

    async fn filter(
        &mut self,
        pass: &mut Pass,
        sieve: Sieve,
        inputs: &[Input],
        config: &PartitionConfig,
    ) -> Result<Tally, CleanError> {
        let log = self.log.clone();
        let limit = config.segment_bytes.clamp(1, SEGMENT_BYTES);
        let map_end = sieve.rules.map_end;
        let mut writer = Writer {
            sieve,
            builder: Builder::new(),
        };
        let mut group: Option<Group> = None;
        for input in inputs.iter().filter(|input| input.base_offset < map_end) {
            let full = group.as_ref().is_some_and(|group| {
                let holds = writer.builder.size > 0 || !group.new.is_empty();
                let long = input.end_offset - group.base_offset > i64::from(i32::MAX);
                holds && (long || writer.builder.size + input.size > limit)
            });
            if full && let Some(group) = group.take() {
                self.close(pass, &mut writer, group).await?;
            }
            let mut open = match group.take() {
                Some(open) => open,
                None => {
                    writer.builder.base_offset = input.base_offset;
                    Group::new(input, writer.sieve.tally.changed)
                }
            };
            let source = input.source(&log).await?;
            writer = self
                .filter_source(pass, writer, &source, &mut open, limit)
                .await?;
            open.end_offset = input.end_offset;
            open.sealed_ms = open.sealed_ms.max(input.sealed_ms);
            open.inputs.push(input.clone());
            group = Some(open);
        }
        if let Some(group) = group {
            self.close(pass, &mut writer, group).await?;
        }
        for (base_offset, error) in writer.sieve.take_unreadable() {
            pass.partition.note_undecodable(base_offset, &error);
        }
        Ok(writer.sieve.tally)
    }

    async fn filter_source(
        &mut self,
        pass: &mut Pass,
        mut writer: Writer,
        source: &Source,
        group: &mut Group,
        limit: u64,
    ) -> Result<Writer, CleanError> {
        let log = self.log.clone();
        let env = &log.shared().wal.env;
        let mut stretches = Stretches::new(&log, pass.partition.id(), source);
        let mut next = stretches.next().await?;
        while let Some(bytes) = next {
            self.go_on(&pass.partition, bytes.len()).await?;
            log.counters().add_cleaner_read(bytes.len());
            let work = env.blocking(move || {
                let pushed = writer.push(&bytes);
                (writer, pushed)
            });
            let ((back, pushed), ahead) = futures::join!(work, stretches.next());
            writer = back;
            pushed?;
            next = ahead?;
            // A piece that is larger than segments are to be now.
            if writer.builder.size >= limit && next.is_some() {
                let end = writer.builder.end_offset;
                self.put(pass, &mut writer, group, end).await?;
            }
        }
        writer.sieve.finish_source()?;
        Ok(writer)
    }

    /// Ends a group: uploads what is left of it and hands it over. The last batch of a pass always stays, so that no
    /// group is without one.
    async fn close(
        &mut self,
        pass: &mut Pass,
        writer: &mut Writer,
        mut group: Group,
    ) -> Result<(), CleanError> {
        let unchanged = writer.sieve.tally.changed == group.changed_before;
        // A span does not stay one even so: what comes after it becomes segments, and those come before all spans.
        let stays = group.inputs.len() == 1 && group.inputs.iter().all(Input::is_segment);
        if unchanged && group.new.is_empty() && stays {
            writer.builder = Builder::new();
            writer.sieve.take_max_timestamp();
            writer.sieve.transactions.take_kept();
            return Ok(());
        }
        let end = group.end_offset;
        if writer.builder.size == 0
            && let Some(last) = group.new.last_mut()
        {
            // Nothing stays of the rest: its offsets belong to the segment before.
            let longer = Segment::clone(last);
            *last = Arc::new(Segment {
                end_offset: end,
                ..longer
            });
        } else {
            self.put(pass, writer, &mut group, end).await?;
        }
        pass.tombstones_from = writer.sieve.tombstones_from;
        let replacement = Replacement::of(pass, &group.inputs, group.base_offset, end, group.new);
        self.log.shared().keeper.hand_over(replacement, pass);
        Ok(())
    }

    /// Uploads what was built, as the segment of the offsets up to `end`.
    async fn put(
        &mut self,
        pass: &mut Pass,
        writer: &mut Writer,
        group: &mut Group,
        end: i64,
    ) -> Result<(), CleanError> {
        let log = self.log.clone();
        let wal = &log.shared().wal;
        let mut builder = std::mem::replace(&mut writer.builder, Builder::new());
        writer.builder.base_offset = end;
        builder.finish();
        builder.detail.aborted = writer.sieve.transactions.take_kept();
        let segment = Segment {
            base_offset: group.from,
            end_offset: end,
            size: builder.size,
            max_timestamp: writer.sieve.take_max_timestamp(),
            sealed_ms: group.sealed_ms,
            epoch: pass.partition.leader_epoch(),
            incarnation: log.shared().identity.incarnation,
            unique: wal.env.random_u64(),
            cleaned: true,
            crc: builder.crc,
            detail: builder.detail,
        };
        let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
        self.go_on(&pass.partition, size).await?;
        let key = segment.key(&pass.partition.id());
        // Known before it is on its way: whatever becomes of the pass, it is not forgotten.
        pass.uploads.push(key.clone());
        log.put_parts(&key, builder.parts, Reason::Compaction).await?;
        wal.counters.add_cleaner_written(segment.size);
        self.go_on(&pass.partition, 0).await?;
        group.from = end;
        group.new.push(Arc::new(segment));
        Ok(())
    }

    /// Before more work on a partition: whether it is still wanted, and within the budget.
    async fn go_on(&mut self, partition: &Partition, bytes: usize) -> Result<(), CleanError> {
        let wanted = {
            let inner = partition.lock();
            !inner.deleted && inner.config.compact
        };
        // Whoever was fenced uploads for nobody.
        if !wanted || self.log.ended().borrow().is_some() {
            return Err(CleanError::Cancelled);
        }
        self.pay(bytes).await;
        Ok(())
    }
}
