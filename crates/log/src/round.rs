//! What a round seals, and into what: segments for partitions with enough, bundles for all the rest.
//!
//! What is damaged stays where it is ([`damage`](crate::damage)), and the partition goes on around it, in bundles:
//! segments come before all spans, and the damaged piece is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use drumlin_objects::Reason;
use futures::StreamExt;

use crate::cleaner::replace::Replacing;
use crate::cold::NO_READ_AHEAD;
use crate::damage::in_place;
use crate::fold::fold;
use crate::keeper::{KeepError, Keeper, Resealed, Taken};
use crate::layout;
use crate::manifest::{Segment, Span};
use crate::object::Extent;
use crate::partition::{Partition, Sealed};
use crate::read::{ReadError, Source, whole_batches};
use crate::rope::Rope;
use crate::seal::{Builder, BundleRow, Piece, encode_bundle_table};
use crate::types::TopicPartition;

/// A bundle's size, about; a round that holds more writes several.
const BUNDLE_BYTES: u64 = 64 << 20;

/// A read of WAL objects that left memory, at most; bytes.
const LOAD_BYTES: u64 = 8 << 20;
/// Such reads on their way at a time.
const LOADS_IN_FLIGHT: usize = 4;
/// Segments of a partition that are read and written at a time.
pub(crate) const SEGMENTS_IN_FLIGHT: usize = 2;

/// What a round does to one partition.
pub(crate) struct Work {
    partition: Arc<Partition>,
    sealed: Sealed,
    taken: Taken,
    pieces: Vec<Piece>,
    segment_bytes: u64,
    to_segments: bool,
}

impl Work {
    /// Leaves what is in bundles there, and seals only what is new.
    fn leave_spans(&mut self) {
        for piece in std::mem::take(&mut self.pieces) {
            match piece {
                Piece::Span(span) => self.sealed.spans.push(span),
                Piece::Extent(_) => self.pieces.push(piece),
            }
        }
        self.to_segments = false;
    }
}

/// What a partition's pieces become, in order of offsets, where they do not become segments.
enum Made {
    /// It is damaged, and stays where it lies.
    Left(Arc<Span>),
    /// Goes into a bundle; and since when the oldest of it has waited there, if it has.
    Run(Builder, Option<i64>),
}

impl Keeper {
    /// Decides what becomes of each partition's unsealed data.
    pub(crate) fn plan(&mut self, cut: u64, mut replacing: Replacing) -> Vec<Work> {
        let wal = &self.log.shared().wal;
        let now_ms = wal.env.now_ms();
        let merge = self.recent_bundles.len() >= wal.options.bundle_merge_count;
        let own: &str = &wal.name.prefix;
        let mut works = Vec::new();
        let candidates = self.log.open_partitions().into_iter().filter(|partition| {
            let inner = partition.lock();
            let behind = self.behind.contains(&partition.id());
            inner.broken.is_none() && (behind || !inner.sealed.spans.is_empty())
        });
        for partition in candidates {
            let inner = partition.lock();
            let sealed_end = inner.sealed_end;
            let unsealed = inner.hot.iter().take_while(|extent| {
                extent.last_offset < sealed_end
                    || extent.object.chain.prefix != own
                    || extent.object.slot < cut
            });
            let fresh: Vec<Extent> = unsealed
                .filter(|extent| extent.base_offset >= sealed_end)
                .cloned()
                .collect();
            let taken = Taken {
                bytes: fresh.iter().map(|extent| u64::from(extent.length)).sum(),
                end: fresh.last().map_or(sealed_end, |extent| extent.last_offset + 1),
            };
            let log_start = inner.log_start;
            let live = fresh.into_iter().filter(|extent| extent.last_offset >= log_start);
            let replaced = replacing.remove(&partition.id());
            let mut sealed = replaced.unwrap_or_else(|| Sealed::clone(&inner.sealed));
            let spans: u64 = sealed.spans.iter().map(|span| span.length).sum();
            let extents: Vec<Piece> = live.map(Piece::Extent).collect();
            let bytes: u64 = extents.iter().map(Piece::length).sum();
            let age = wal.options.bundle_max_age.as_millis() as i64;
            // Jittered by the partition, so that a day's small data does not leave all at once.
            let jitter = age / 8 * i64::from(crc32c::crc32c(&inner_seed(partition.id())) % 64) / 64;
            let old = sealed
                .spans
                .first()
                .is_some_and(|span| now_ms - span.sealed_ms > age - jitter);
            let least = wal.options.segment_min_bytes.min(inner.config.segment_bytes);
            let damaged = match self.damaged.get(&partition.id()) {
                Some(end) if *end > log_start => true,
                // What was damaged is below the log start, and forgotten.
                Some(_) => self.damaged.remove(&partition.id()).is_none(),
                None => false,
            };
            let to_segments = !damaged && (old || spans + bytes >= least && bytes + spans > 0);
            let keep_spans = if to_segments {
                0
            } else if merge {
                // What is damaged lies among them. Around it spans take the place of segments: they have the size.
                let recent = |span: &Arc<Span>| self.recent_bundles.contains(&span.bundle);
                let full = |span: &Arc<Span>| damaged && span.length >= least;
                let first = sealed.spans.iter().position(recent);
                let after = sealed.spans.iter().rposition(full).map_or(0, |at| at + 1);
                first.unwrap_or(sealed.spans.len()).max(after)
            } else {
                sealed.spans.len()
            };
            let mut pieces: Vec<Piece> = sealed.spans.drain(keep_spans..).map(Piece::Span).collect();
            pieces.extend(extents);
            let merges_one = pieces.len() == 1 && matches!(pieces[0], Piece::Span(_)) && !to_segments;
            let idle = pieces.is_empty() || merges_one;
            if idle && !self.behind.contains(&partition.id()) {
                continue;
            }
            if merges_one && let Some(Piece::Span(span)) = pieces.pop() {
                sealed.spans.push(span);
            }
            let segment_bytes = inner.config.segment_bytes;
            drop(inner);
            works.push(Work {
                partition,
                sealed,
                taken,
                pieces,
                segment_bytes,
                to_segments,
            });
        }
        works
    }

    /// Uploads segments and bundles; returns each partition's new sealed state.
    pub(crate) async fn upload(&mut self, works: Vec<Work>) -> Result<Vec<Resealed>, KeepError> {
        let mut done = Vec::new();
        let mut bundle = BundleWriter::new(self);
        for mut work in works {
            let id = work.partition.id();
            if !work.pieces.is_empty() {
                self.behind.insert(id);
            }
            let mut sealed = work.sealed.clone();
            let made = if self.damaged.contains_key(&id) {
                self.seal_around(&work).await
            } else {
                let before = self.log.shared().keeper.upload_count();
                match self.seal(&work, &mut sealed).await {
                    // What it holds is lost to its readers; all else is to be sealed all the same.
                    Err(KeepError::Read(ReadError::Corrupt { what })) => {
                        let segments = self.log.shared().keeper.take_uploads(before);
                        self.discard(segments);
                        work.leave_spans();
                        sealed = work.sealed.clone();
                        let made = self.seal_around(&work).await;
                        self.note_damaged_bundle(id, &sealed, &what);
                        made
                    }
                    made => made,
                }
            };
            for made in made? {
                match made {
                    Made::Left(span) => sealed.spans.push(span),
                    Made::Run(builder, sealed_ms) => {
                        if bundle.size >= BUNDLE_BYTES {
                            let next = BundleWriter::new(self);
                            std::mem::replace(&mut bundle, next).write(self).await?;
                        }
                        sealed.spans.push(bundle.add(id, builder, sealed_ms));
                    }
                }
            }
            let (partition, taken) = (work.partition, work.taken);
            let wal = &self.log.shared().wal;
            if sealed.added.len() >= wal.options.manifest_fold {
                let old = fold(&self.log, &partition, &mut sealed, self.round + 1).await?;
                self.folded_away.extend(old);
            }
            done.push((partition, sealed, taken));
        }
        bundle.write(self).await?;
        Ok(done)
    }

    /// Uploads a partition's segments, or makes what it puts into a bundle.
    async fn seal(&self, work: &Work, sealed: &mut Sealed) -> Result<Vec<Made>, KeepError> {
        let (partition, pieces) = (&work.partition, &work.pieces);
        if work.to_segments {
            self.upload_segments(partition, pieces, work.segment_bytes, sealed)
                .await?;
            return Ok(Vec::new());
        }
        if pieces.is_empty() {
            return Ok(Vec::new());
        }
        let sealed_ms = pieces.iter().find_map(Piece::sealed_ms);
        let mut builder = Builder::new();
        self.load_into(partition, pieces, &mut builder).await?;
        builder.finish();
        Ok(vec![Made::Run(builder, sealed_ms)])
    }

    /// As [`Keeper::seal`] for a partition of which something is damaged: that stays where it is.
    async fn seal_around(&mut self, work: &Work) -> Result<Vec<Made>, KeepError> {
        let id = work.partition.id();
        let now_ms = self.log.shared().wal.env.now_ms();
        let mut made = Vec::new();
        let (mut builder, mut sealed_ms) = (Builder::new(), None);
        for piece in &work.pieces {
            let loaded = match self.load(&work.partition, piece).await {
                // Half a batch would be noticed when its first half is in the bundle already.
                Ok(rope) => match whole_batches(&rope) {
                    Ok(length) if length == rope.len() => Ok(rope),
                    Ok(_) => Err("a batch is cut short".to_owned()),
                    Err(error) => Err(error.to_string()),
                },
                Err(ReadError::Corrupt { what }) => Err(what),
                Err(error) => return Err(error.into()),
            };
            let full = loaded.is_err() || builder.size >= BUNDLE_BYTES;
            if full && builder.size > 0 {
                let mut run = std::mem::replace(&mut builder, Builder::new());
                run.finish();
                made.push(Made::Run(run, sealed_ms.take()));
            }
            match loaded {
                Ok(rope) => {
                    sealed_ms = sealed_ms.or(piece.sealed_ms());
                    builder.push(&rope)?;
                }
                Err(what) => {
                    let span = match piece {
                        Piece::Span(span) => Arc::clone(span),
                        Piece::Extent(extent) => Arc::new(in_place(extent, now_ms)),
                    };
                    self.note_damage(id, &span, &what);
                    made.push(Made::Left(span));
                }
            }
        }
        if builder.size > 0 {
            builder.finish();
            made.push(Made::Run(builder, sealed_ms));
        }
        Ok(made)
    }

    /// The bytes of a piece, verified.
    async fn load(&self, partition: &Partition, piece: &Piece) -> Result<Rope, ReadError> {
        self.load_run(partition, std::slice::from_ref(piece)).await
    }

    /// The bytes of a span, or of extents that lie back to back in one WAL object, verified. An object that is gone is
    /// as bad as a damaged one: only a round drops it, and what it drops is sealed by then.
    async fn load_run(&self, partition: &Partition, run: &[Piece]) -> Result<Rope, ReadError> {
        let log = &self.log;
        match run {
            [Piece::Span(span)] => {
                let (id, whole) = (partition.id(), 0..span.length);
                let source = Source::Span(Arc::clone(span));
                let loaded = log.cold().load(log, &id, &source, whole, NO_READ_AHEAD);
                loaded.await.map_err(|failure| failure.lost(&span.bundle))
            }
            pieces => {
                let extents: Vec<Extent> = pieces.iter().filter_map(Piece::extent).cloned().collect();
                let Some(first) = extents.first() else {
                    return Ok(Rope::default());
                };
                let loaded = log.load_extents(&extents).await;
                loaded.map_err(|failure| failure.lost(&first.object.key()))
            }
        }
    }

    /// Uploads a partition's pieces as segments of about equal sizes, a few at a time: while one is written, the next
    /// is read.
    async fn upload_segments(
        &self,
        partition: &Arc<Partition>,
        pieces: &[Piece],
        segment_bytes: u64,
        sealed: &mut Sealed,
    ) -> Result<(), KeepError> {
        let failed = AtomicBool::new(false);
        let uploads = split_evenly(pieces, segment_bytes)
            .into_iter()
            .map(|pieces| async {
                // After a failure none is begun. Those under way come to their end, so that all uploads are over when the
                // round fails.
                if failed.load(Ordering::Relaxed) {
                    return None;
                }
                let uploaded = self.upload_segment(partition, pieces).await;
                failed.fetch_or(uploaded.is_err(), Ordering::Relaxed);
                Some(uploaded)
            });
        let uploads: Vec<_> = uploads.collect();
        let uploaded = futures::stream::iter(uploads).buffered(SEGMENTS_IN_FLIGHT);
        let uploaded: Vec<_> = uploaded.filter_map(std::future::ready).collect().await;
        for segment in uploaded {
            sealed.added.push(segment?);
        }
        Ok(())
    }

    async fn upload_segment(
        &self,
        partition: &Arc<Partition>,
        pieces: &[Piece],
    ) -> Result<Arc<Segment>, KeepError> {
        let mut builder = Builder::new();
        self.load_into(partition, pieces, &mut builder).await?;
        self.put_segment(partition, builder).await
    }

    /// Adds pieces to an object in the making. They are loaded several at a time, those that lie back to back in one
    /// WAL object at once.
    async fn load_into(
        &self,
        partition: &Partition,
        pieces: &[Piece],
        builder: &mut Builder,
    ) -> Result<(), KeepError> {
        let loads: Vec<_> = back_to_back(pieces)
            .into_iter()
            .map(|run| self.load_run(partition, run))
            .collect();
        let mut loaded = futures::stream::iter(loads).buffered(LOADS_IN_FLIGHT);
        while let Some(rope) = loaded.next().await {
            builder.push(&rope?)?;
        }
        Ok(())
    }

    async fn put_segment(
        &self,
        partition: &Partition,
        mut builder: Builder,
    ) -> Result<Arc<Segment>, KeepError> {
        builder.finish();
        let wal = &self.log.shared().wal;
        let segment = Segment {
            base_offset: builder.base_offset,
            end_offset: builder.end_offset,
            size: builder.size,
            max_timestamp: builder.max_timestamp,
            sealed_ms: wal.env.now_ms(),
            epoch: partition.leader_epoch(),
            incarnation: self.log.shared().identity.incarnation,
            unique: wal.env.random_u64(),
            cleaned: false,
            crc: builder.crc,
            detail: builder.detail,
        };
        let key = segment.key(&partition.id());
        self.log.shared().keeper.note_upload(&key);
        self.log.put_parts(&key, builder.parts, Reason::Segment).await?;
        wal.counters.add_sealed(segment.size);
        Ok(Arc::new(segment))
    }
}

/// Cuts pieces into runs of about equal sizes, none of which is larger than `most` unless it is one piece.
fn split_evenly(pieces: &[Piece], most: u64) -> Vec<&[Piece]> {
    let total: u64 = pieces.iter().map(Piece::length).sum();
    let count = total.div_ceil(most.max(1)).max(1);
    let target = total.div_ceil(count);
    let (mut runs, mut from, mut size) = (Vec::new(), 0, 0);
    for (at, piece) in pieces.iter().enumerate() {
        size += piece.length();
        let next = pieces.get(at + 1).map_or(0, Piece::length);
        if size >= target || size + next > most || at + 1 == pieces.len() {
            runs.push(&pieces[from..=at]);
            (from, size) = (at + 1, 0);
        }
    }
    runs
}

/// Cuts pieces into runs that one read loads: a span, or extents that lie back to back in one WAL object.
fn back_to_back(pieces: &[Piece]) -> Vec<&[Piece]> {
    let mut runs = Vec::new();
    for joined in pieces.chunk_by(|a, b| match (a, b) {
        (Piece::Extent(a), Piece::Extent(b)) => {
            Arc::ptr_eq(&a.object, &b.object) && a.position + u64::from(a.length) == b.position
        }
        _ => false,
    }) {
        runs.extend(split_evenly(joined, LOAD_BYTES));
    }
    runs
}

fn inner_seed(id: TopicPartition) -> [u8; 20] {
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(&id.topic.0);
    seed[16..].copy_from_slice(&id.partition.to_be_bytes());
    seed
}

/// A bundle in the making. Its name is known from the start, so that spans stand in their places at once; nothing of
/// it is true before the round is.
struct BundleWriter {
    key: Arc<str>,
    now_ms: i64,
    rows: Vec<BundleRow>,
    parts: Vec<Bytes>,
    size: u64,
}

impl BundleWriter {
    fn new(keeper: &Keeper) -> Self {
        let wal = &keeper.log.shared().wal;
        let key = layout::bundle_key(&wal.name.prefix, keeper.round + 1, wal.env.random_u64());
        Self {
            key: key.into(),
            now_ms: wal.env.now_ms(),
            rows: Vec::new(),
            parts: Vec::new(),
            size: 0,
        }
    }

    fn add(&mut self, id: TopicPartition, builder: Builder, sealed_ms: Option<i64>) -> Arc<Span> {
        let position = self.size;
        self.rows.push(BundleRow {
            id,
            base_offset: builder.base_offset,
            end_offset: builder.end_offset,
            position,
            length: builder.size,
            crc: builder.crc,
        });
        self.size += builder.size;
        self.parts.extend(builder.parts);
        Arc::new(Span {
            bundle: Arc::clone(&self.key),
            sealed_ms: sealed_ms.unwrap_or(self.now_ms),
            base_offset: builder.base_offset,
            end_offset: builder.end_offset,
            position,
            length: builder.size,
            max_timestamp: builder.max_timestamp,
            detail: builder.detail,
        })
    }

    async fn write(mut self, keeper: &mut Keeper) -> Result<(), KeepError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let shared = keeper.log.shared();
        self.parts.push(encode_bundle_table(&self.rows).into());
        shared.keeper.note_upload(&self.key);
        keeper
            .log
            .put_parts(&self.key, self.parts, Reason::Bundle)
            .await?;
        shared.wal.counters.add_sealed(self.size);
        keeper.recent_bundles.insert(self.key);
        Ok(())
    }
}
