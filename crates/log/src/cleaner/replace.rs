//! The keeper's side of compaction: replacements become true with a round, all that are ready in one.
//!
//! A replacement names the pieces that were read and the segments that take their place. It is applied to what the
//! partition consists of by then: sealing, folding and retention may have gone on around those pieces, but if one of
//! them is not there any more, the replacement is refused, and so is the rest of its pass, since a later part may
//! have dropped a tombstone whose victims stand in an earlier one. What a committed round replaced is deleted after
//! the grace; what was refused, at once (D3: its upload is over, and nothing ever named it), or when nothing can name it
//! any more: a round that failed may have been committed ([`strays`](crate::strays)).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drumlin_objects::sabotage::{self, Sabotage};
use tokio::sync::oneshot;

use super::inputs::{Input, Replaced};
use crate::fold::{fold, load_leaf, put_leaf};
use crate::keeper::{KeepError, Keeper};
use crate::log::{KeeperHandle, Log};
use crate::manifest::{LeafPointer, Segment, Span};
use crate::partition::{Partition, Sealed};
use crate::read::ReadError;
use crate::types::TopicPartition;

/// What belongs to one pass over a partition.
pub(crate) struct Pass {
    pub partition: Arc<Partition>,
    /// Where it ends; exclusive. What is below has been held against all that is dirty below it.
    pub cleaned_to: i64,
    /// It has dropped tombstones below this offset, so far.
    pub tombstones_from: i64,
    /// A part of it was refused: the rest is, too.
    pub failed: Arc<AtomicBool>,
    /// Objects that were uploaded, or may have been, and are in no replacement yet.
    pub uploads: Vec<String>,
}

/// New segments in place of old pieces; or, at the end of a pass, how far it came.
pub(crate) struct Replacement {
    partition: Arc<Partition>,
    failed: Arc<AtomicBool>,
    replaced: Vec<Replaced>,
    from: i64,
    to: i64,
    new: Vec<Arc<Segment>>,
    /// Compaction has seen all below this once the replacement stands. All parts before it stand by then, filtered by a
    /// map of more than this, so that a pass that breaks off, or is refused in part, has come so far.
    cleaned_to: Option<i64>,
    /// Tombstones below this offset are missing from what it puts in place.
    tombstones_from: i64,
    done: Option<oneshot::Sender<bool>>,
}

impl Replacement {
    pub(crate) fn of(pass: &Pass, inputs: &[Input], from: i64, to: i64, new: Vec<Arc<Segment>>) -> Self {
        let id = pass.partition.id();
        Self {
            partition: Arc::clone(&pass.partition),
            failed: Arc::clone(&pass.failed),
            replaced: inputs.iter().map(|input| input.replaced(&id)).collect(),
            from,
            to,
            new,
            cleaned_to: Some(to.min(pass.cleaned_to)),
            tombstones_from: pass.tombstones_from,
            done: None,
        }
    }

    /// The end of a pass; `cleaned_to` is none if it broke off.
    pub(crate) fn end(pass: &Pass, cleaned_to: Option<i64>, done: oneshot::Sender<bool>) -> Self {
        Self {
            cleaned_to,
            done: Some(done),
            ..Self::of(pass, &[], 0, 0, Vec::new())
        }
    }

    fn is_wanted(&self) -> bool {
        let inner = self.partition.lock();
        inner.config.compact && !inner.deleted && inner.broken.is_none()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeeperHandle {
    /// Gives a replacement, and with it its uploads, to the keeper. At the end of a pass, uploads that are in no
    /// replacement are strays.
    pub(crate) fn hand_over(&self, replacement: Replacement, pass: &mut Pass) {
        let uploads = std::mem::take(&mut pass.uploads);
        if replacement.done.is_some() {
            lock(&self.strays).extend(uploads);
        }
        lock(&self.replacements).push(replacement);
    }

    /// The partition of which the cleaner may have objects on their way.
    pub(crate) fn set_cleaning(&self, id: Option<TopicPartition>) {
        *lock(&self.cleaning) = id;
    }

    pub(crate) fn cleaning(&self) -> Option<TopicPartition> {
        *lock(&self.cleaning)
    }
}

/// A leaf, as it was or taken apart.
enum Leaf {
    Kept(Arc<LeafPointer>),
    Loaded {
        pointer: Arc<LeafPointer>,
        segments: Vec<Arc<Segment>>,
        changed: bool,
    },
}

/// A partition's sealed data while replacements are applied to it.
struct Content {
    id: TopicPartition,
    sealed: Sealed,
    leaves: Vec<Leaf>,
    /// The manifest does not say any more what there is.
    refold: bool,
}

/// Puts `new` in the place of what lies within the range; says whether anything did.
fn put_in(list: &mut Vec<Arc<Segment>>, range: (i64, i64), new: &mut Option<Vec<Arc<Segment>>>) -> bool {
    let within = |segment: &Arc<Segment>| segment.base_offset >= range.0 && segment.end_offset <= range.1;
    let Some(first) = list.iter().position(within) else {
        return false;
    };
    let count = list[first..].iter().take_while(|segment| within(segment)).count();
    list.splice(first..first + count, new.take().unwrap_or_default());
    true
}

impl Content {
    fn of(id: TopicPartition, sealed: &Sealed) -> Self {
        let mut sealed = sealed.clone();
        let leaves = std::mem::take(&mut sealed.leaves);
        Self {
            id,
            sealed,
            leaves: leaves.into_iter().map(Leaf::Kept).collect(),
            refold: false,
        }
    }

    /// The pieces that lie within a range, in order.
    fn within(&self, from: i64, to: i64) -> Vec<Replaced> {
        let loaded = self.leaves.iter().flat_map(|leaf| match leaf {
            Leaf::Kept(_) => &[][..],
            Leaf::Loaded { segments, .. } => segments,
        });
        let segments = loaded
            .chain(self.sealed.segments())
            .filter(|segment| segment.base_offset >= from && segment.end_offset <= to);
        let spans = self.sealed.spans.iter();
        let spans = spans.filter(|span| span.base_offset >= from && span.end_offset <= to);
        segments
            .map(|segment| Replaced::segment(&self.id, segment))
            .chain(spans.map(|span| Replaced::span(span)))
            .collect()
    }

    /// Segments come before all spans: none may be left before one that becomes a segment, but what nobody reads.
    fn keeps_order(&mut self, replacement: &Replacement, log_start: i64) -> bool {
        let is_span = |piece: &Replaced| matches!(piece, Replaced::Span { .. });
        if !replacement.replaced.iter().any(is_span) {
            return true;
        }
        let spans = &mut self.sealed.spans;
        spans.retain(|span| span.end_offset > log_start);
        spans
            .first()
            .is_none_or(|span| span.base_offset >= replacement.from)
    }

    /// False: what was read is not what there is any more.
    async fn apply(
        &mut self,
        log: &Log,
        replacement: &Replacement,
        log_start: i64,
    ) -> Result<bool, ReadError> {
        let (from, to) = (replacement.from, replacement.to);
        let cleaned_to = self.sealed.cleaned_to.max(replacement.cleaned_to.unwrap_or(0));
        if replacement.replaced.is_empty() {
            self.sealed.cleaned_to = cleaned_to;
            return Ok(true);
        }
        for leaf in &mut self.leaves {
            let Leaf::Kept(pointer) = leaf else { continue };
            if pointer.base_offset < to && pointer.end_offset > from {
                let segments = match load_leaf(log, pointer).await {
                    Ok(segments) => segments.into_iter().map(Arc::new).collect(),
                    Err(ReadError::Corrupt { .. }) => return Ok(false),
                    Err(error) => return Err(error),
                };
                *leaf = Leaf::Loaded {
                    pointer: Arc::clone(pointer),
                    segments,
                    changed: false,
                };
            }
        }
        if self.within(from, to) != replacement.replaced || !self.keeps_order(replacement, log_start) {
            return Ok(false);
        }
        let mut new = replacement.new.clone();
        if sabotage::on(Sabotage::KeyDroppedByCompaction) {
            self.drop_the_next(to, &mut new);
        }
        let mut new = Some(new);
        for leaf in &mut self.leaves {
            if let Leaf::Loaded {
                segments, changed, ..
            } = leaf
                && put_in(segments, (from, to), &mut new)
            {
                (*changed, self.refold) = (true, true);
            }
        }
        self.refold |= put_in(&mut self.sealed.folded, (from, to), &mut new);
        put_in(&mut self.sealed.added, (from, to), &mut new);
        // Nothing but spans, which are the newest.
        self.sealed.added.extend(new.unwrap_or_default());
        let spans = &mut self.sealed.spans;
        spans.retain(|span: &Arc<Span>| span.base_offset < from || span.end_offset > to);
        self.sealed.cleaned_to = cleaned_to;
        self.sealed.tombstones_from = self.sealed.tombstones_from.max(replacement.tombstones_from);
        Ok(true)
    }

    /// Sabotage: the new segment stands for a piece more than was read.
    fn drop_the_next(&mut self, to: i64, new: &mut [Arc<Segment>]) {
        let next = |base: i64| base == to;
        let segment = self.sealed.segments().find(|segment| next(segment.base_offset));
        let span = self.sealed.spans.iter().find(|span| next(span.base_offset));
        let end = segment.map(|segment| segment.end_offset);
        let Some(end) = end.or(span.map(|span| span.end_offset)) else {
            return;
        };
        if let Some(last) = new.last_mut() {
            let longer = Segment::clone(last);
            *last = Arc::new(Segment {
                end_offset: end,
                ..longer
            });
        }
        self.sealed.folded.retain(|segment| !next(segment.base_offset));
        self.sealed.added.retain(|segment| !next(segment.base_offset));
        self.sealed.spans.retain(|span| !next(span.base_offset));
    }

    /// Writes what changed of the manifest. Returns the keys that are not needed any more once that is committed.
    async fn finish(
        mut self,
        log: &Log,
        partition: &Partition,
        round: u64,
    ) -> Result<(Sealed, Vec<String>), ReadError> {
        let mut gone = Vec::new();
        for leaf in std::mem::take(&mut self.leaves) {
            let (pointer, segments) = match leaf {
                Leaf::Kept(pointer)
                | Leaf::Loaded {
                    pointer,
                    changed: false,
                    ..
                } => {
                    self.sealed.leaves.push(pointer);
                    continue;
                }
                Leaf::Loaded {
                    pointer, segments, ..
                } => (pointer, segments),
            };
            gone.push(pointer.key.to_string());
            let segments: Vec<Segment> = segments.iter().map(|segment| Segment::clone(segment)).collect();
            for chunk in segments.chunks(log.shared().wal.options.manifest_leaf_segments) {
                let pointer = put_leaf(log, partition, chunk, round).await?;
                self.sealed.leaves.push(Arc::new(pointer));
            }
        }
        if self.refold {
            gone.extend(fold(log, partition, &mut self.sealed, round).await?);
        }
        Ok((self.sealed, gone))
    }
}

/// What partitions consist of once all replacements are applied.
pub(crate) type Replacing = BTreeMap<TopicPartition, Sealed>;

impl Keeper {
    /// Takes what the cleaner has finished, and what it left lying about.
    pub(crate) fn take_replacements(&mut self) {
        let log = self.log.clone();
        let keeper = &log.shared().keeper;
        let now = log.shared().wal.env.instant();
        let strays = std::mem::take(&mut *lock(&keeper.strays));
        self.delete_at(now, strays);
        let mut new = std::mem::take(&mut *lock(&keeper.replacements));
        if !new.is_empty() {
            self.replaced_since.get_or_insert(now);
            self.replacements.append(&mut new);
        }
    }

    /// Applies all replacements; those that do not fit are refused for good. Nothing is changed yet.
    pub(crate) async fn apply_replacements(&mut self, round: u64) -> Result<Replacing, KeepError> {
        let replacements = std::mem::take(&mut self.replacements);
        let outcome = self.try_apply(&replacements, round).await;
        let fits = match outcome {
            Ok((ref fits, _)) => fits.clone(),
            // They are applied again with the next round.
            Err(_) => vec![true; replacements.len()],
        };
        for (replacement, fits) in replacements.into_iter().zip(fits) {
            if fits {
                self.replacements.push(replacement);
                continue;
            }
            let id = replacement.partition.id();
            let counters = self.log.counters();
            counters.add_cleaner_refused(replacement.new.len());
            tracing::debug!(partition = %id, "what compaction read has changed meanwhile");
            // Of a deleted topic too: they are gone then, or go now. What a checkpoint in doubt may name has to wait.
            let refused = replacement.new.iter().map(|segment| segment.key(&id)).collect();
            self.discard_unless_named(refused);
            if let Some(done) = replacement.done {
                let _ = done.send(false);
            }
        }
        if self.replacements.is_empty() {
            self.replaced_since = None;
        }
        let (_, replacing) = outcome?;
        self.behind.extend(replacing.keys());
        Ok(replacing)
    }

    async fn try_apply(
        &mut self,
        replacements: &[Replacement],
        round: u64,
    ) -> Result<(Vec<bool>, Replacing), KeepError> {
        let log = self.log.clone();
        let mut contents: BTreeMap<TopicPartition, (Arc<Partition>, Content)> = BTreeMap::new();
        let mut fits = Vec::with_capacity(replacements.len());
        for replacement in replacements {
            let partition = &replacement.partition;
            let id = partition.id();
            if replacement.failed.load(Ordering::Relaxed) || !replacement.is_wanted() {
                replacement.failed.store(true, Ordering::Relaxed);
                fits.push(false);
                continue;
            }
            if replacement.replaced.is_empty() && replacement.cleaned_to.is_none() {
                fits.push(true);
                continue;
            }
            let (_, content) = contents.entry(id).or_insert_with(|| {
                let sealed = Arc::clone(&partition.lock().sealed);
                (Arc::clone(partition), Content::of(id, &sealed))
            });
            let log_start = partition.lock().log_start;
            let fit = content.apply(&log, replacement, log_start).await?;
            if !fit {
                replacement.failed.store(true, Ordering::Relaxed);
            }
            fits.push(fit);
        }
        let mut replacing = Replacing::new();
        for (id, (partition, content)) in contents {
            let (sealed, gone) = content.finish(&log, &partition, round).await?;
            self.folded_away.extend(gone);
            replacing.insert(id, sealed);
        }
        Ok((fits, replacing))
    }

    /// The round that applied them is committed: what they replaced may go, after the grace.
    pub(crate) fn settle_replacements(&mut self) {
        let options = &self.log.shared().wal.options;
        let at = self.log.shared().wal.env.instant() + self.grace(options.segment_grace);
        self.replaced_since = None;
        for replacement in std::mem::take(&mut self.replacements) {
            // Bundles go when no checkpoint names them any more.
            let keys = replacement.replaced.into_iter().filter_map(|piece| match piece {
                Replaced::Segment(key) => Some(key),
                Replaced::Span { .. } => None,
            });
            self.delete_at(at, keys.collect());
            // What came into a leaf below the log start, after that was pruned: nobody looks there again.
            let id = replacement.partition.id();
            let pruned = self.pruned.get(&id).copied().unwrap_or(0);
            let late = replacement.new.iter().filter(|new| new.end_offset <= pruned);
            self.delete_at(at, late.map(|new| new.key(&id)).collect());
            if !replacement.new.is_empty() {
                // Readers are to see what there is now, not what is still in memory of before.
                replacement.partition.lock().forget_hot_below(replacement.to);
            }
            if let Some(done) = replacement.done {
                let _ = done.send(true);
            }
        }
    }
}
