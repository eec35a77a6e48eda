//! What a round seals, and into what: segments for partitions with enough, bundles for all the rest.

use std::sync::Arc;

use drumlin_objects::Reason;

use crate::cleaner::replace::Replacing;
use crate::cold::NO_READ_AHEAD;
use crate::fold::fold;
use crate::keeper::{KeepError, Keeper, Resealed, Taken};
use crate::layout;
use crate::manifest::{Segment, Span};
use crate::object::Extent;
use crate::partition::{Partition, Sealed};
use crate::read::{ReadError, Source};
use crate::rope::Rope;
use crate::seal::{Builder, BundleRow, Piece, encode_bundle_table};
use crate::types::TopicPartition;

/// A bundle's size, about; a round that holds more writes several.
const BUNDLE_BYTES: u64 = 64 << 20;

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
    /// Leaves what is in bundles there, and seals only what is new; false if there was no such thing.
    fn leave_spans(&mut self) -> bool {
        let pieces = std::mem::take(&mut self.pieces);
        let before = pieces.len();
        for piece in pieces {
            match piece {
                Piece::Span(span) => self.sealed.spans.push(span),
                Piece::Extent(_) => self.pieces.push(piece),
            }
        }
        self.to_segments = false;
        self.pieces.len() < before
    }
}

impl Keeper {
    /// Decides what becomes of each partition's unsealed data.
    pub(crate) fn plan(&self, cut: u64, mut replacing: Replacing) -> Vec<Work> {
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
            let damaged = self.damaged.contains(&partition.id());
            let to_segments = !damaged && (old || spans + bytes >= least && bytes + spans > 0);
            let keep_spans = if to_segments {
                0
            } else if merge && !damaged {
                sealed
                    .spans
                    .partition_point(|span| !self.recent_bundles.contains(&span.bundle))
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
        let mut bundle = BundleWriter::default();
        for mut work in works {
            let id = work.partition.id();
            if !work.pieces.is_empty() {
                self.behind.insert(id);
            }
            let mut sealed = work.sealed.clone();
            let mut made = self.seal(&work, &mut sealed).await;
            if let Err(KeepError::Read(ReadError::Corrupt { what })) = &made
                && work.leave_spans()
            {
                // What it holds is lost to its readers; that of all others is to be sealed all the same.
                tracing::error!(partition = %id, damage = %what, "sealed data is damaged, and stays where it is");
                self.damaged.insert(id);
                sealed = work.sealed.clone();
                made = self.seal(&work, &mut sealed).await;
            }
            if let Some((builder, sealed_ms)) = made? {
                if bundle.size >= BUNDLE_BYTES {
                    std::mem::take(&mut bundle).write(self, &mut done).await?;
                }
                bundle.add(done.len(), id, builder, sealed_ms);
            }
            let (partition, taken) = (work.partition, work.taken);
            let wal = &self.log.shared().wal;
            if sealed.added.len() >= wal.options.manifest_fold {
                let old = fold(&self.log, &partition, &mut sealed, self.round + 1).await?;
                self.folded_away.extend(old);
            }
            done.push((partition, sealed, taken));
        }
        bundle.write(self, &mut done).await?;
        Ok(done)
    }

    /// Uploads a partition's segments, or returns what it puts into a bundle, and since when that has waited.
    async fn seal(
        &self,
        work: &Work,
        sealed: &mut Sealed,
    ) -> Result<Option<(Builder, Option<i64>)>, KeepError> {
        let (partition, pieces) = (&work.partition, &work.pieces);
        if work.to_segments {
            self.upload_segments(partition, pieces, work.segment_bytes, sealed)
                .await?;
            return Ok(None);
        }
        if pieces.is_empty() {
            return Ok(None);
        }
        let sealed_ms = pieces.iter().find_map(|piece| match piece {
            Piece::Span(span) => Some(span.sealed_ms),
            Piece::Extent(_) => None,
        });
        let mut builder = Builder::new();
        for piece in pieces {
            builder.push(&self.load(partition, piece).await?)?;
        }
        builder.finish();
        Ok(Some((builder, sealed_ms)))
    }

    /// The bytes of a piece, verified. A bundle that is gone is as bad as a damaged one: only a round drops it.
    async fn load(&self, partition: &Partition, piece: &Piece) -> Result<Rope, ReadError> {
        let log = &self.log;
        match piece {
            Piece::Extent(extent) => log.load_extent(extent).await.map_err(ReadError::from),
            Piece::Span(span) => {
                let (id, whole) = (partition.id(), 0..span.length);
                let source = Source::Span(Arc::clone(span));
                let loaded = log.cold().load(log, &id, &source, whole, NO_READ_AHEAD);
                loaded.await.map_err(|failure| failure.lost(&span.bundle))
            }
        }
    }

    async fn upload_segments(
        &self,
        partition: &Arc<Partition>,
        pieces: &[Piece],
        segment_bytes: u64,
        sealed: &mut Sealed,
    ) -> Result<(), KeepError> {
        let total: u64 = pieces.iter().map(Piece::length).sum();
        let count = total.div_ceil(segment_bytes.max(1)).max(1);
        let target = total.div_ceil(count);
        let mut builder = Builder::new();
        for (at, piece) in pieces.iter().enumerate() {
            builder.push(&self.load(partition, piece).await?)?;
            let next = pieces.get(at + 1).map_or(0, Piece::length);
            if builder.size >= target || builder.size + next > segment_bytes {
                let full = std::mem::replace(&mut builder, Builder::new());
                sealed.added.push(self.put_segment(partition, full).await?);
            }
        }
        if builder.size > 0 {
            sealed.added.push(self.put_segment(partition, builder).await?);
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
        self.log
            .put_parts(&segment.key(&partition.id()), builder.parts, Reason::Segment)
            .await?;
        wal.counters.add_sealed(segment.size);
        Ok(Arc::new(segment))
    }
}

fn inner_seed(id: TopicPartition) -> [u8; 20] {
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(&id.topic.0);
    seed[16..].copy_from_slice(&id.partition.to_be_bytes());
    seed
}

/// A bundle in the making.
#[derive(Default)]
struct BundleWriter {
    spans: Vec<(usize, TopicPartition, Builder, Option<i64>)>,
    size: u64,
}

impl BundleWriter {
    /// `at` is the place of the partition in the list of results.
    fn add(&mut self, at: usize, id: TopicPartition, builder: Builder, sealed_ms: Option<i64>) {
        self.size += builder.size;
        self.spans.push((at, id, builder, sealed_ms));
    }

    async fn write(self, keeper: &mut Keeper, done: &mut [Resealed]) -> Result<(), KeepError> {
        if self.spans.is_empty() {
            return Ok(());
        }
        let wal = Arc::clone(&keeper.log.shared().wal);
        let key: Arc<str> =
            layout::bundle_key(&wal.name.prefix, keeper.round + 1, wal.env.random_u64()).into();
        let now_ms = wal.env.now_ms();
        let (mut parts, mut rows, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        let mut position = 0;
        for (at, id, builder, sealed_ms) in self.spans {
            rows.push(BundleRow {
                id,
                base_offset: builder.base_offset,
                end_offset: builder.end_offset,
                position,
                length: builder.size,
                crc: builder.crc,
            });
            let span = Span {
                bundle: Arc::clone(&key),
                sealed_ms: sealed_ms.unwrap_or(now_ms),
                base_offset: builder.base_offset,
                end_offset: builder.end_offset,
                position,
                length: builder.size,
                max_timestamp: builder.max_timestamp,
                detail: builder.detail,
            };
            spans.push((at, Arc::new(span)));
            position += builder.size;
            parts.extend(builder.parts);
        }
        parts.push(encode_bundle_table(&rows).into());
        keeper.log.put_parts(&key, parts, Reason::Bundle).await?;
        wal.counters.add_sealed(position);
        for (at, span) in spans {
            done[at].1.spans.push(span);
        }
        keeper.recent_bundles.insert(key);
        Ok(())
    }
}
