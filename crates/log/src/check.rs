//! `drumlin store check`: walks a bucket and reports every broken, missing or orphaned object. Changes nothing.
//!
//! Owns no format: it reads with the readers of the rest. The newest incarnation says what there must
//! be ([`view`]); all of that is read whole and verified ([`contents`]). What nothing names, and no broker will
//! remove by itself, is an orphan. It needs no lock and fences nobody: a broker may run meanwhile, so what seems
//! to be missing or orphaned is looked at a second time before it is reported.
//!
//! What cannot be seen from the bucket: the loss of the newest entries of a chain, as far as nothing above them
//! is left. That is what the object store promises not to do.
//!
//! Memory: keys of all objects, the state of the partitions, and about 100 MiB of contents at a time.

pub(crate) mod batches;
mod contents;
pub(crate) mod names;
mod report;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_objects::chain::{
    ChainError, ChainId, ChainName, EntryKind, missing_entries, newest_checkpoint, number_of, read_birth,
    read_header,
};
use drumlin_objects::{Bucket, BucketKind, Env, Listed, Reason, StoreError};
use futures::StreamExt;

use self::contents::{Checker, OwnedSpan, READS};
use self::names::{Names, names};
pub use self::report::{Finding, Kind, Progress, Report};
use self::view::{NewestChain, View, end_of, newest_chain, parse_wal_key, read_view};
use crate::layout;
use crate::recover::RecoverError;
use crate::state::decode_state_root;
use crate::types::TopicId;

/// The prefix of the metadata log, which the cluster's layer owns.
const META: &str = "meta";
/// Before what seems wrong is looked at again.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// The longest grace of dropped objects on a remote store.
const GRACE_MS: i64 = 3_600_000;

/// Reads a metadata checkpoint's body, and says what is wrong with it.
pub type MetaBody<'a> = &'a (dyn Fn(&Bytes) -> Result<(), String> + Send + Sync);

/// What a check knows beside the bucket.
#[derive(Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// Topics that exist, by name, from the metadata log: records of others are orphans. None: every topic that
    /// has records is taken to exist.
    pub topics: Option<&'a BTreeMap<TopicId, String>>,
    /// Verifies the bodies of metadata checkpoints, whose format is not this crate's. None: they need only exist.
    pub meta_body: Option<MetaBody<'a>>,
}

/// Walks the bucket.
///
/// # Errors
/// When the store does not even list its objects; a single object that it does not give is a finding.
pub async fn check(
    env: &Env,
    bucket: &Bucket,
    options: CheckOptions<'_>,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Report, StoreError> {
    let listed = bucket.list("", None, Reason::Check).await?;
    let checker = Checker::new(bucket, &listed, progress);
    let (views, blind) = views(&checker).await;
    let walk = Walk {
        env,
        bucket,
        options,
        checker: &checker,
        listed: &listed,
        views: &views,
        blind,
    };
    walk.metadata().await;
    walk.chains().await;
    walk.states().await;
    let named = names(bucket, &views).await;
    let (suspects, waiting) = walk.unnamed(&named);
    let mut report = Report {
        objects: listed.len() as u64,
        bytes: checker.total.bytes_total,
        partitions: views.iter().map(|view| view.found.states.len() as u64).sum(),
        records: views
            .iter()
            .flat_map(|view| view.found.states.values())
            .map(|state| (state.log_end - state.log_start).max(0) as u64)
            .sum(),
        waiting_bytes: waiting.iter().filter_map(|key| checker.size_of(key)).sum(),
        waiting,
        ..Report::default()
    };
    let tally = checker.finish();
    (report.verified, report.verified_bytes) = (tally.verified, tally.verified_bytes);
    report.findings = tally.findings;
    second_look(bucket, tally.vanished, suspects, &mut report).await?;
    report.findings.sort();
    report.findings.dedup_by(|a, b| {
        a.kind == b.kind && a.key == b.key && (a.kind != Kind::Undecodable || a.what == b.what)
    });
    Ok(report)
}

/// What seems to be missing is, if it is still named and still not there; an orphan, if it is still there and unnamed.
async fn second_look(
    bucket: &Bucket,
    vanished: Vec<Finding>,
    suspects: Vec<Finding>,
    report: &mut Report,
) -> Result<(), StoreError> {
    if vanished.is_empty() && suspects.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let listed = bucket.list("", None, Reason::Check).await?;
    let there = |key: &str| {
        listed
            .binary_search_by(|object| object.key.as_str().cmp(key))
            .is_ok()
    };
    let mut views = Vec::new();
    let mut all_seen = true;
    match newest_chain(bucket, &listed).await {
        None => {}
        Some(Ok(chain)) => match read_view(bucket, &chain, true).await {
            Ok(view) => views.push(view),
            Err(_) => all_seen = false,
        },
        Some(Err(_)) => all_seen = false,
    }
    let named = names(bucket, &views).await;
    // Where the state cannot be read, nothing has taken the place of what it named before.
    let is_named = |key: &str| named.keys.contains(key) || !all_seen || key.starts_with(META);
    report.findings.extend(
        vanished
            .into_iter()
            .filter(|finding| !there(&finding.key) && is_named(&finding.key)),
    );
    report.findings.extend(
        suspects
            .into_iter()
            .filter(|finding| there(&finding.key) && !named.keys.contains(&finding.key)),
    );
    Ok(())
}

/// The newest state, as far as it can be read, and whether some of it cannot.
async fn views(checker: &Checker<'_>) -> (Vec<View>, bool) {
    let chain = match newest_chain(checker.bucket, checker.listed).await {
        None => return (Vec::new(), false),
        Some(Ok(chain)) => chain,
        Some(Err(error)) => {
            chain_failed(checker, error);
            return (Vec::new(), true);
        }
    };
    match read_view(checker.bucket, &chain, true).await {
        Ok(view) => return (vec![view], false),
        Err(error) => recover_failed(checker, &chain, error).await,
    }
    // What the newest checkpoint says can be checked all the same.
    let view = read_view(checker.bucket, &chain, false).await;
    (view.into_iter().collect(), true)
}

fn chain_failed(checker: &Checker<'_>, error: ChainError) {
    match error {
        ChainError::Store(StoreError::NotFound { key }) => {
            checker.find(Kind::Missing, key, "it is needed, and it is not there");
        }
        ChainError::Store(error) => checker.find(Kind::Unreadable, "", error.to_string()),
        ChainError::Damaged { key, what } => checker.find(Kind::Damaged, key, what.to_string()),
        ChainError::Missing(missing) => {
            let what = format!(
                "the entry is gone, and entry {} shows that it was committed: records that were acknowledged are lost \
                 with it, and a start is refused; restore it from a copy of the bucket, or go on without it: \
                 `drumlin store give-up KEY...`",
                missing.proof
            );
            for key in missing.keys() {
                checker.find(Kind::Gap, key, what.as_str());
            }
        }
    }
}

async fn recover_failed(checker: &Checker<'_>, chain: &NewestChain, error: RecoverError) {
    match error {
        RecoverError::Chain(error) => chain_failed(checker, error),
        RecoverError::Store(error) => checker.find(Kind::Unreadable, &chain.name.prefix, error.to_string()),
        RecoverError::Damaged { key, what } => checker.find(Kind::Damaged, key, what.to_string()),
        RecoverError::Gap { .. } | RecoverError::Lost(_) | RecoverError::Unsteady(_) => {
            missing_bodies(checker, chain).await
        }
    }
}

/// A reader of the state begins again when an object of it is gone; this says which, if it stays gone.
async fn missing_bodies(checker: &Checker<'_>, chain: &NewestChain) {
    let bucket = checker.bucket;
    let root = match newest_checkpoint(bucket, &chain.name, Reason::Check).await {
        Ok(Some(checkpoint)) => Some(checkpoint.body_key),
        Ok(None) => chain.estate.clone(),
        Err(error) => return chain_failed(checker, error),
    };
    let Some(root) = root else { return };
    let bytes = match bucket.get(&root, Reason::Check).await {
        Ok(bytes) => bytes,
        Err(error) => return checker.refused(&root, &error),
    };
    let Ok(root) = decode_state_root(&bytes) else {
        return;
    };
    for leaf in root.leaves {
        if let Err(error) = bucket.get(&leaf.key, Reason::Check).await {
            checker.refused(&leaf.key, &error);
        }
    }
}

struct Walk<'a> {
    env: &'a Env,
    bucket: &'a Bucket,
    options: CheckOptions<'a>,
    checker: &'a Checker<'a>,
    listed: &'a [Listed],
    views: &'a [View],
    /// Some state could not be read, so that not all that is named is known.
    blind: bool,
}

impl Walk<'_> {
    fn below(&self, prefix: &str) -> impl Iterator<Item = &Listed> {
        let prefix = format!("{prefix}/");
        let from = self.listed.partition_point(|object| object.key < prefix);
        self.listed[from..]
            .iter()
            .take_while(move |object| object.key.starts_with(&prefix))
    }

    /// The metadata chain: headers, checksums, gaps; bodies by the caller's reader.
    async fn metadata(&self) {
        if self.below(META).next().is_none() {
            return;
        }
        let id = match read_birth(self.bucket, META, Reason::Check).await {
            Ok(Some(birth)) => birth.header.chain,
            Ok(None) => {
                let key = drumlin_objects::chain::entry_key(META, 0);
                return self
                    .checker
                    .find(Kind::Missing, key, "the metadata log has no birth entry");
            }
            Err(error) => return chain_failed(self.checker, error),
        };
        let name = ChainName {
            prefix: META.to_owned(),
            id,
        };
        let checkpoint = match newest_checkpoint(self.bucket, &name, Reason::Check).await {
            Ok(checkpoint) => checkpoint,
            Err(error) => return chain_failed(self.checker, error),
        };
        let from = checkpoint.as_ref().map_or(0, |known| known.covers_below);
        let slots: Vec<u64> = self
            .below("meta/log")
            .filter_map(|object| number_of(&object.key))
            .collect();
        let mut expected = from;
        for slot in slots.iter().copied().filter(|slot| *slot >= from) {
            if slot > expected {
                self.missing_entry(&name, expected);
            }
            expected = slot + 1;
        }
        if let Some(known) = checkpoint.as_ref().filter(|known| known.entry_slot >= expected) {
            self.missing_entry(&name, known.entry_slot);
        }
        futures::stream::iter(slots)
            .for_each_concurrent(READS, |slot| {
                let name = &name;
                async move { self.checker.entry(name, &name.entry_key(slot), false).await }
            })
            .await;
        for object in self.below("meta/checkpoint") {
            self.checker.marker(&name, &object.key).await;
        }
        if let Some(checkpoint) = checkpoint {
            let read = self.options.meta_body;
            self.checker
                .whole(&checkpoint.body_key, |bytes| {
                    read.map_or(Ok(()), |read| read(&bytes))
                })
                .await;
        }
    }

    fn missing_entry(&self, name: &ChainName, slot: u64) {
        let what = "the entry is gone, and entries above it are there; if no broker has started since one was \
                    killed, it may be a put that never arrived and was never acknowledged: start it, and check again";
        self.checker.find(Kind::Gap, name.entry_key(slot), what);
    }

    /// All chains below `wal/`: entries, markers, and gaps of those that say what there is.
    async fn chains(&self) {
        let mut chains: BTreeMap<String, ChainName> = BTreeMap::new();
        for view in self.views {
            chains.insert(view.chain.name.prefix.clone(), view.chain.name.clone());
            self.holes(view).await;
            for state in view.found.states.values() {
                for extent in &state.extents {
                    chains
                        .entry(extent.chain.to_string())
                        .or_insert_with(|| ChainName {
                            prefix: extent.chain.to_string(),
                            id: ChainId(extent.chain_id),
                        });
                }
            }
        }
        let mut entries = Vec::new();
        for object in self.below("wal") {
            let Some((node, incarnation, rest)) = parse_wal_key(&object.key) else {
                continue;
            };
            let prefix = layout::wal_prefix(node, incarnation);
            let known = chains.get(&prefix);
            let newest = self.views.iter().find(|view| view.chain.name.prefix == prefix);
            let slot = number_of(&object.key).unwrap_or(0);
            if rest.starts_with("log/") {
                let needed = match newest {
                    Some(view) => slot == 0 || view_covers(view, slot),
                    None => known.is_some() || slot == 0,
                };
                if needed {
                    let name = match known {
                        Some(name) => Some(name.clone()),
                        None => self.chain_of(&prefix, slot).await,
                    };
                    entries.extend(name.map(|name| (name, object.key.clone())));
                }
            } else if rest.starts_with("checkpoint/")
                && let Some(view) = newest
            {
                self.checker.marker(&view.chain.name, &object.key).await;
            }
        }
        futures::stream::iter(entries)
            .for_each_concurrent(READS, |(name, key)| async move {
                self.checker.entry(&name, &key, true).await;
            })
            .await;
    }

    /// The id of a chain of which only its first slot is left.
    async fn chain_of(&self, prefix: &str, slot: u64) -> Option<ChainName> {
        let name = |id| ChainName {
            prefix: prefix.to_owned(),
            id,
        };
        match read_birth(self.bucket, prefix, Reason::Check).await {
            Ok(birth) => birth.map(|birth| name(birth.header.chain)),
            Err(error) => {
                debug_assert_eq!(slot, 0);
                chain_failed(self.checker, error);
                None
            }
        }
    }

    /// Entries that lack below others, which a broker of this very moment may be about to put.
    async fn holes(&self, view: &View) {
        let name = &view.chain.name;
        let above = |end: u64| {
            let prefix = format!("{}/log", name.prefix);
            let numbers = self.below(&prefix).filter_map(|object| number_of(&object.key));
            numbers.filter(|slot| *slot > end).count() > 0
        };
        match missing_entries(self.bucket, name, Reason::Check).await {
            Ok(None) => {}
            Ok(Some(missing)) => return chain_failed(self.checker, ChainError::Missing(missing)),
            Err(error) => return chain_failed(self.checker, error),
        }
        let entry = view.checkpoint.as_ref().map(|checkpoint| checkpoint.entry_slot);
        let cut_off = |end: u64| entry.is_some_and(|slot| slot >= end);
        if !cut_off(view.end) && (!above(view.end) || self.is_fence(name, view.end).await) {
            return;
        }
        tokio::time::sleep(SECOND_LOOK).await;
        match end_of(self.bucket, name, view.end).await {
            Ok(end) if end == view.end && !self.is_fence(name, end).await => self.missing_entry(name, end),
            Ok(_) => {}
            Err(error) => chain_failed(self.checker, error),
        }
    }

    async fn is_fence(&self, name: &ChainName, slot: u64) -> bool {
        match read_header(self.bucket, name, slot, Reason::Check).await {
            Ok(header) => header.is_some_and(|header| header.kind == EntryKind::Fence),
            Err(_) => false,
        }
    }

    /// What the states name: roots and leaves were read to get here; now manifests, segments and bundles.
    async fn states(&self) {
        for view in self.views {
            let mut bundles: BTreeMap<Arc<str>, Vec<OwnedSpan>> = BTreeMap::new();
            let mut entries: BTreeMap<Arc<str>, BTreeMap<u64, ChainName>> = BTreeMap::new();
            for key in view.bodies() {
                // Decoded by the reader of the state already, so this can only count it.
                self.checker.whole(&key, |_| Ok(())).await;
            }
            for state in view.found.states.values() {
                for span in state
                    .spans
                    .iter()
                    .filter(|span| span.end_offset > state.log_start)
                {
                    let span = (state.id, Arc::new(span.clone()));
                    bundles.entry(Arc::clone(&span.1.bundle)).or_default().push(span);
                }
                for extent in state
                    .extents
                    .iter()
                    .filter(|extent| extent.last_offset >= state.log_start)
                {
                    let slots = entries.entry(Arc::clone(&extent.chain)).or_default();
                    slots.entry(extent.slot).or_insert_with(|| ChainName {
                        prefix: extent.chain.to_string(),
                        id: ChainId(extent.chain_id),
                    });
                }
                self.checker.partition(state).await;
            }
            futures::stream::iter(&bundles)
                .for_each_concurrent(READS, |(key, spans)| async move {
                    if layout::is_wal_entry(key) {
                        self.checker.in_place(key, spans).await;
                    } else {
                        self.checker.bundle(key, spans).await;
                    }
                })
                .await;
            for (chain, slots) in &entries {
                self.checker.entries_of(chain, slots).await;
            }
        }
    }

    /// Objects that nothing names: suspected orphans, and those that await their deletion or their naming.
    fn unnamed(&self, named: &Names) -> (Vec<Finding>, Vec<String>) {
        let (mut suspects, mut waiting) = (Vec::new(), Vec::new());
        for object in self.listed {
            if named.keys.contains(&object.key) {
                continue;
            }
            match self.place_of(object, named) {
                Place::Kept => {}
                Place::Waiting => waiting.push(object.key.clone()),
                Place::Orphan(what) => suspects.push(Finding {
                    kind: Kind::Orphan,
                    key: object.key.clone(),
                    what: what.to_owned(),
                }),
            }
        }
        (suspects, waiting)
    }

    fn place_of(&self, object: &Listed, named: &Names) -> Place {
        let key = object.key.as_str();
        let mut parts = key.split('/');
        match (parts.next(), parts.next()) {
            (Some("meta"), Some("log")) => Place::Kept,
            (Some("meta"), Some("checkpoint" | "body")) | (Some("probe"), Some(_)) => Place::Waiting,
            (Some("wal"), _) => match parse_wal_key(key) {
                Some((node, incarnation, rest)) => {
                    self.place_in_chain(object, node, incarnation, rest, named)
                }
                None => Place::Orphan("it is under no key of this release"),
            },
            (Some("topic"), _) => self.place_in_topic(key, named),
            _ => Place::Orphan("it is under no key of this release"),
        }
    }

    fn place_in_chain(
        &self,
        object: &Listed,
        node: i32,
        incarnation: u64,
        rest: &str,
        named: &Names,
    ) -> Place {
        // Fences and first slots stay for ever; a list tells a fence by its length.
        let slot = number_of(&object.key);
        let fence = object.size == drumlin_objects::chain::FENCE_LEN as u64;
        if rest.starts_with("log/") && (slot == Some(0) || fence) {
            return Place::Kept;
        }
        if named.chains.contains(&layout::wal_prefix(node, incarnation)) && rest.starts_with("log/") {
            return Place::Kept;
        }
        // Bundles and bodies of earlier starts are dropped one by one as rounds replace them, and the next start
        // removes what a stop left of them; entries went as a whole when this start swept.
        match self.views.first() {
            Some(view) if incarnation < view.chain.incarnation && !self.unsettled(view) && slot.is_some() => {
                Place::Orphan("it is an entry of an earlier start, and nothing names it")
            }
            _ => Place::Waiting,
        }
    }

    /// The newest start has not swept yet, or may hold dropped objects in their grace, or is not understood.
    fn unsettled(&self, view: &View) -> bool {
        let Some(checkpoint) = &view.checkpoint else {
            return true;
        };
        let marker = view.chain.name.marker_key(checkpoint.covers_below);
        let at = self.listed.binary_search_by(|object| object.key.cmp(&marker));
        let since = at.map_or(0, |at| self.env.now_ms() - self.listed[at].modified_ms);
        self.blind || self.bucket.kind() == BucketKind::Remote && since < GRACE_MS
    }

    fn place_in_topic(&self, key: &str, named: &Names) -> Place {
        let Some(object) = TopicObject::parse(key) else {
            return Place::Orphan("it is under no key of this release");
        };
        let newest: BTreeSet<u64> = self.views.iter().map(|view| view.chain.incarnation).collect();
        if object.snapshot && !self.gone(&object) {
            return Place::Kept;
        }
        let unsettled = self.views.iter().any(|view| self.unsettled(view)) || self.views.is_empty();
        if unsettled || named.unknown.contains(object.prefix) {
            return Place::Waiting;
        }
        if self.gone(&object) {
            return Place::Orphan("its topic does not exist any more");
        }
        // Dropped by retention, or folded into another manifest: the next start removes what a stop left of them.
        let log_start = named.log_starts.get(object.prefix).copied().unwrap_or(0);
        let dropped = object.base_offset.is_none_or(|base| base < log_start);
        if dropped || newest.contains(&object.incarnation) {
            return Place::Waiting;
        }
        Place::Orphan("an earlier start uploaded it, and nothing names it")
    }

    fn gone(&self, object: &TopicObject<'_>) -> bool {
        let topics = self.options.topics.as_ref();
        topics.is_some_and(|topics| !topics.contains_key(&object.topic))
    }
}

enum Place {
    Kept,
    Waiting,
    Orphan(&'static str),
}

/// A segment's, a manifest's or a snapshot's key, taken apart.
struct TopicObject<'a> {
    prefix: &'a str,
    topic: TopicId,
    incarnation: u64,
    /// A segment's.
    base_offset: Option<i64>,
    /// Nothing names a coordinator's snapshots: they are its own to keep and to delete.
    snapshot: bool,
}

impl<'a> TopicObject<'a> {
    fn parse(key: &'a str) -> Option<Self> {
        let mut parts = key.split('/');
        let (_, _, topic) = (parts.next()?, parts.next()?, parts.next()?);
        let (_, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        let fields: Vec<&str> = name.trim_end_matches(".log").split('-').collect();
        let incarnation = match (kind, fields.as_slice(), parts.next()) {
            ("segment", [_, _, incarnation, _], None) | ("manifest", [_, incarnation, _, _], None) => {
                incarnation.parse().ok()?
            }
            ("snapshot", _, None) => layout::SnapshotName::parse(name)?.incarnation,
            _ => return None,
        };
        let digits = topic.as_bytes();
        let mut id = [0; 16];
        if digits.len() != 32 || !digits.is_ascii() {
            return None;
        }
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(topic.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        let prefix = key.get(..key.len() - name.len() - kind.len() - 2)?;
        Some(Self {
            prefix,
            topic: TopicId(id),
            incarnation,
            base_offset: fields[0].parse().ok().filter(|_| kind == "segment"),
            snapshot: kind == "snapshot",
        })
    }
}

fn view_covers(view: &View, slot: u64) -> bool {
    let from = view.checkpoint.as_ref().map_or(0, |known| known.covers_below);
    slot >= from && slot <= view.end
}
