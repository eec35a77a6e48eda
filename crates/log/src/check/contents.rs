//! Verifying the contents of what is named: one object, or one partition, at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use drumlin_objects::chain::{ChainName, Checkpoint, Entry, EntryKind, number_of};
use drumlin_objects::{Bucket, Listed, Reason, StoreError};
use futures::StreamExt;
use tokio::sync::Semaphore;

use super::batches::{Joined, SealedWalk, Undecodable, check_batch};
use super::names::{ManifestError, read_leaf, read_roots};
use super::report::{Finding, Kind, Progress};
use crate::footer::{ExtentRecord, decode_edits, decode_footer};
use crate::layout;
use crate::manifest::{BLOCK_BYTES, Segment, Span};
use crate::seal::decode_bundle_table;
use crate::state::PartitionState;
use crate::types::TopicPartition;

/// Objects read at a time, as far as the bytes in flight allow.
pub(super) const READS: usize = 16;
/// Bytes in flight, in units of 1 KiB.
const BUDGET: usize = 96 << 10;
/// A segment is read by this much.
const STRETCH: u64 = 16 * BLOCK_BYTES as u64;

/// What the reading of an object came to.
type Outcome = Result<(), (Kind, String)>;

/// A span of a bundle, and whose it is.
pub(super) type OwnedSpan = (TopicPartition, Arc<Span>);

#[derive(Default)]
pub(super) struct Tally {
    pub findings: Vec<Finding>,
    pub verified: u64,
    pub verified_bytes: u64,
    /// Named, and gone when it was read: missing, unless a running broker has replaced it since.
    pub vanished: Vec<Finding>,
}

pub(super) struct Checker<'a> {
    pub bucket: &'a Bucket,
    pub listed: &'a [Listed],
    pub progress: &'a (dyn Fn(Progress) + Send + Sync),
    pub total: Progress,
    budget: Semaphore,
    tally: Mutex<Tally>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        bucket: &'a Bucket,
        listed: &'a [Listed],
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Self {
        let total = Progress {
            objects_total: listed.len() as u64,
            bytes_total: listed.iter().map(|object| object.size).sum(),
            ..Progress::default()
        };
        Self {
            bucket,
            listed,
            progress,
            total,
            budget: Semaphore::new(BUDGET),
            tally: Mutex::default(),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn finish(self) -> Tally {
        self.tally.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, kind: Kind, key: impl Into<String>, what: impl Into<String>) {
        let finding = Finding {
            kind,
            key: key.into(),
            what: what.into(),
        };
        self.tally().findings.push(finding);
    }

    fn find_undecodable(&self, key: &str, whose: &str, undecodable: Undecodable) {
        for what in undecodable.into_sentences(whose) {
            self.find(Kind::Undecodable, key, what);
        }
    }

    /// Notes a store's failure to give an object.
    pub(super) fn refused(&self, key: &str, error: &StoreError) {
        if error.is_not_found() {
            self.tally().vanished.push(Finding {
                kind: Kind::Missing,
                key: key.to_owned(),
                what: "it is needed, and it is not there".to_owned(),
            });
        } else if let StoreError::Invalid { what, .. } = error {
            self.find(Kind::Damaged, key, format!("it is cut short: {what}"));
        } else {
            self.find(Kind::Unreadable, key, error.to_string());
        }
    }

    fn done(&self, key: &str, bytes: u64, outcome: Outcome) {
        if let Err((kind, what)) = outcome {
            self.find(kind, key, what);
        }
        let progress = {
            let mut tally = self.tally();
            tally.verified += 1;
            tally.verified_bytes += bytes;
            Progress {
                objects: tally.verified,
                bytes: tally.verified_bytes,
                ..self.total
            }
        };
        (self.progress)(progress);
    }

    pub(super) fn size_of(&self, key: &str) -> Option<u64> {
        let at = self
            .listed
            .binary_search_by(|object| object.key.as_str().cmp(key));
        at.ok().map(|at| self.listed[at].size)
    }

    async fn room(&self, bytes: u64) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let units = usize::try_from(bytes.div_ceil(1024))
            .unwrap_or(BUDGET)
            .clamp(1, BUDGET);
        self.budget.acquire_many(units as u32).await.ok()
    }

    /// A whole object, checked by `verify`.
    pub(super) async fn whole(&self, key: &str, verify: impl FnOnce(Bytes) -> Result<(), String>) {
        let _room = self.room(self.size_of(key).unwrap_or(0)).await;
        match self.bucket.get(key, Reason::Check).await {
            Ok(bytes) => {
                let length = bytes.len() as u64;
                let outcome = verify(bytes).map_err(|what| (Kind::Damaged, what));
                self.done(key, length, outcome);
            }
            Err(error) => self.refused(key, &error),
        }
    }

    /// An entry of a WAL (`deep`) or of another chain.
    pub(super) async fn entry(&self, name: &ChainName, key: &str, deep: bool) {
        let found = |whose: &str, undecodable| self.find_undecodable(key, whose, undecodable);
        self.whole(key, |bytes| check_entry(name, key, bytes, deep, &found))
            .await;
    }

    pub(super) async fn marker(&self, name: &ChainName, key: &str) {
        self.whole(key, |bytes| {
            let found = Checkpoint::decode(&bytes, &name.id).map_err(|error| error.to_string())?;
            if Some(found.covers_below) == number_of(key) {
                Ok(())
            } else {
                Err(format!(
                    "it is the marker of another slot, {}",
                    found.covers_below
                ))
            }
        })
        .await;
    }

    /// A bundle: its table, and each span that is still needed.
    pub(super) async fn bundle(&self, key: &str, spans: &[OwnedSpan]) {
        self.whole(key, |bytes| {
            let rows = decode_bundle_table(&bytes).map_err(|error| format!("its table: {error}"))?;
            let mut at = 0;
            for row in &rows {
                let whole = row.position == at
                    && range(&bytes, row.position, row.length)
                        .is_some_and(|part| crc32c::crc32c(&part) == row.crc);
                if !whole {
                    return Err(format!("the data of {} does not match its checksum", row.id));
                }
                at += row.length;
            }
            for (id, span) in spans {
                let part = range(&bytes, span.position, span.length);
                let part = part.ok_or_else(|| format!("it ends before the data of {id} does"))?;
                let mut walk = SealedWalk::new(span.base_offset, false, &span.detail);
                let pushed = walk.push(&part);
                self.find_undecodable(key, &format!("{id}: "), std::mem::take(&mut walk.undecodable));
                let walked = pushed.and_then(|()| walk.finish(span.end_offset));
                let crc = walked.map_err(|what| format!("{id}: {what}"))?;
                let told = rows
                    .iter()
                    .any(|row| row.id == *id && row.position == span.position && row.crc == crc);
                if !told {
                    return Err(format!("its table does not know the data of {id}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// A WAL object of which a round could not read what is named here.
    pub(super) async fn in_place(&self, key: &str, spans: &[OwnedSpan]) {
        self.whole(key, |bytes| {
            for (id, span) in spans {
                let part = range(&bytes, span.position, span.length);
                let crc = part.map(|part| crc32c::crc32c(&part));
                if crc.is_none() || crc.as_ref() != span.detail.block_crcs.first() {
                    let (first, last) = (span.base_offset, span.end_offset - 1);
                    return Err(format!(
                        "records {first} to {last} of {id} do not match their checksum"
                    ));
                }
            }
            Ok(())
        })
        .await;
    }

    /// A segment, by stretches.
    async fn segment(&self, id: &TopicPartition, segment: &Segment) {
        let key = segment.key(id);
        if let Some(size) = self.size_of(&key).filter(|size| *size != segment.size) {
            let what = format!("it has {size} bytes, its manifest says {}", segment.size);
            return self.done(&key, 0, Err((Kind::Damaged, what)));
        }
        let mut walk = SealedWalk::new(segment.base_offset, segment.cleaned, &segment.detail);
        let mut at = 0;
        while at < segment.size {
            let end = segment.size.min(at + STRETCH);
            let _room = self.room(end - at).await;
            let bytes = match self.bucket.get_range(&key, at..end, Reason::Check).await {
                Ok(bytes) => bytes,
                Err(error) => return self.refused(&key, &error),
            };
            if let Err(what) = walk.push(&bytes) {
                return self.done(&key, end, Err((Kind::Damaged, what)));
            }
            at = end;
        }
        self.find_undecodable(&key, "", std::mem::take(&mut walk.undecodable));
        let outcome = walk.finish(segment.end_offset).and_then(|crc| {
            let same = crc == segment.crc;
            same.then_some(())
                .ok_or_else(|| "it does not match its checksum".to_owned())
        });
        self.done(&key, at, outcome.map_err(|what| (Kind::Damaged, what)));
    }

    fn manifest_failed(&self, error: ManifestError) {
        match error {
            ManifestError::Store(key, error) => self.refused(&key, &error),
            ManifestError::Damaged(key, what) => self.find(Kind::Damaged, key, what.to_string()),
            ManifestError::Disagrees(key, what) => self.find(Kind::Damaged, key, what),
        }
    }

    /// A partition's manifest and segments, and whether all its data joins from log start to log end.
    pub(super) async fn partition(&self, state: &PartitionState) {
        let roots = match read_roots(self.bucket, state).await {
            Ok(roots) => roots,
            Err(error) => return self.manifest_failed(error),
        };
        if let Some(manifest) = &state.manifest {
            self.done(&manifest.key, roots.length, Ok(()));
        }
        let mut parts = Vec::new();
        for leaf in &roots.leaves {
            match read_leaf(self.bucket, leaf).await {
                Ok(segments) => {
                    self.done(&leaf.key, leaf.length, Ok(()));
                    parts.extend(segments.iter().map(|part| (part.base_offset, part.end_offset)));
                    let live: Vec<&Segment> = segments
                        .iter()
                        .filter(|segment| segment.end_offset > state.log_start)
                        .collect();
                    self.segments(&state.id, &live).await;
                }
                Err(error) => {
                    parts.push((leaf.base_offset, leaf.end_offset));
                    self.manifest_failed(error);
                }
            }
        }
        let newest: Vec<&Segment> = roots.segments.iter().collect();
        self.segments(&state.id, &newest).await;
        parts.extend(newest.iter().map(|part| (part.base_offset, part.end_offset)));
        parts.extend(state.spans.iter().map(|span| (span.base_offset, span.end_offset)));
        let extents = state.extents.iter();
        parts.extend(extents.map(|extent| (extent.base_offset, extent.last_offset + 1)));
        for (from, to) in gaps(state, &parts) {
            let what = format!(
                "partition {}: records {from} to {} are in no object",
                state.id,
                to - 1
            );
            self.find(Kind::Gap, layout::partition_prefix(&state.id), what);
        }
    }

    async fn segments(&self, id: &TopicPartition, segments: &[&Segment]) {
        futures::stream::iter(segments)
            .for_each_concurrent(READS, |segment| self.segment(id, segment))
            .await;
    }

    /// Entries that extents name and the list does not show.
    pub(super) async fn entries_of(&self, chain: &str, slots: &BTreeMap<u64, ChainName>) {
        for (slot, name) in slots {
            let key = drumlin_objects::chain::entry_key(chain, *slot);
            if self.size_of(&key).is_none() {
                self.entry(name, &key, true).await;
            }
        }
    }
}

/// Stretches of offsets between log start and log end that no part holds.
fn gaps(state: &PartitionState, parts: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut expected = state.log_start;
    let mut gaps = Vec::new();
    for (base, end) in parts.iter().filter(|(_, end)| *end > state.log_start) {
        if *base > expected {
            gaps.push((expected, *base));
        }
        expected = expected.max(*end);
    }
    if expected < state.log_end {
        gaps.push((expected, state.log_end));
    }
    gaps
}

fn range(bytes: &Bytes, position: u64, length: u64) -> Option<Bytes> {
    let start = usize::try_from(position).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    (end <= bytes.len()).then(|| bytes.slice(start..end))
}

fn check_entry(
    name: &ChainName,
    key: &str,
    bytes: Bytes,
    deep: bool,
    found: &dyn Fn(&str, Undecodable),
) -> Result<(), String> {
    let entry = Entry::decode(bytes).map_err(|error| error.to_string())?;
    let slot = number_of(key).ok_or("its name has no slot")?;
    let placed = entry.header.check_place(&name.id, slot);
    placed.map_err(|error| error.to_string())?;
    match entry.header.kind {
        EntryKind::GivenUp => {
            return Err(
                "it was given up with `drumlin store give-up`: the records that it held are lost".to_owned(),
            );
        }
        EntryKind::Checkpoint => {
            entry.checkpoint().map_err(|error| error.to_string())?;
        }
        EntryKind::Data if deep => {
            let extents = decode_footer(&entry.footer()).map_err(|error| format!("its footer: {error}"))?;
            for extent in &extents {
                check_extent(&entry, extent, found)
                    .map_err(|what| format!("{}, offset {}: {what}", extent.id, extent.base_offset))?;
            }
        }
        EntryKind::Edit if deep => {
            decode_edits(&entry.body()).map_err(|error| error.to_string())?;
        }
        _ => {}
    }
    Ok(())
}

fn check_extent(
    entry: &Entry,
    extent: &ExtentRecord,
    found: &dyn Fn(&str, Undecodable),
) -> Result<(), String> {
    let bytes = range(&entry.bytes, extent.position, extent.length).ok_or("it reaches beyond the object")?;
    if crc32c::crc32c(&bytes) != extent.crc {
        return Err("it does not match its checksum".to_owned());
    }
    let mut joined = Joined {
        end: extent.base_offset,
        epoch: extent.leader_epoch,
        holes: false,
    };
    let (mut at, mut batches, mut undecodable) = (0, 0, Undecodable::default());
    while at < bytes.len() {
        let (header, after) = check_batch(&bytes[at..], joined, extent.position + at as u64)?;
        (joined, batches) = (after, batches + 1);
        undecodable.look_into(&header, &bytes[at..]);
        at += header.size_in_bytes();
    }
    found(&format!("{}: ", extent.id), undecodable);
    let told = joined.end == extent.last_offset + 1 && batches == extent.batches;
    told.then_some(())
        .ok_or_else(|| "its footer tells of other batches".to_owned())
}
