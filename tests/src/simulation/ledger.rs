//! What was promised and seen, and whether it still holds.
//!
//! A batch is known by its CRC, size and first timestamp, which nothing on the way may change. The first who tells
//! where a batch lies, an answer to `acks=all` or a read below the high watermark, fixes what lies there for ever:
//! every later answer and read must agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use drumlin_log::TopicPartition;
use drumlin_records::{BatchHeader, check_crc};

use super::trace::Trace;

/// What identifies a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    stamp: i64,
    crc: u32,
    size: usize,
}

impl Key {
    pub(super) fn of(header: &BatchHeader) -> Self {
        Self {
            stamp: header.base_timestamp,
            crc: header.crc,
            size: header.size_in_bytes(),
        }
    }
}

/// A batch as it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub producer: i64,
    pub sequence: i32,
    pub records: i64,
    pub first_ms: i64,
    pub last_ms: i64,
}

impl Sent {
    fn is_idempotent(&self) -> bool {
        self.producer >= 0
    }
}

/// A batch that is known to be part of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub last: i64,
    pub key: Key,
    pub sent: Sent,
    pub acked: bool,
    /// The leader epoch, once it was read.
    pub epoch: Option<i32>,
}

/// The ends that one incarnation was seen with.
#[derive(Clone, Copy, Debug)]
struct Ends {
    least: (i64, i64),
    most: (i64, i64),
}

/// One partition's account.
#[derive(Default)]
pub(super) struct Account {
    sent: BTreeMap<Key, Sent>,
    pub facts: BTreeMap<i64, Fact>,
    placed: BTreeMap<Key, i64>,
    /// High watermark and log start by incarnation.
    ends: BTreeMap<u64, Ends>,
    /// The furthest that DeleteRecords was asked for, and that it answered.
    delete_asked: i64,
    deleted_to: i64,
    /// Answers to `acks=1`: promises only if that incarnation stops in order.
    soft: Vec<(u64, i64, Key)>,
}

/// All accounts.
pub(super) struct Ledger {
    trace: Arc<Trace>,
    pub accounts: BTreeMap<TopicPartition, Account>,
    /// How far ahead of the true time any broker's wall clock has been.
    pub ahead_ms: i64,
    /// Blocks of producer ids given out.
    blocks: BTreeMap<i64, i64>,
}

impl Ledger {
    pub(super) fn new(trace: &Arc<Trace>) -> Self {
        Self {
            trace: Arc::clone(trace),
            accounts: BTreeMap::new(),
            ahead_ms: 0,
            blocks: BTreeMap::new(),
        }
    }

    fn account(&mut self, id: &TopicPartition) -> &mut Account {
        self.accounts.entry(*id).or_default()
    }

    /// About to be sent for the first time. False: another batch looks the same; make it different.
    pub(super) fn sending(&mut self, id: &TopicPartition, header: &BatchHeader, sent: Sent) -> bool {
        let account = self.account(id);
        account.sent.insert(Key::of(header), sent).is_none()
    }

    /// `acks=all` was answered.
    pub(super) fn acked(&mut self, id: &TopicPartition, base: i64, key: Key) {
        self.trace
            .note("acked", &[base, key.stamp, i64::from(id.partition)]);
        self.trace.count("acknowledged batches");
        if let Err(what) = self.account(id).place(base, key, true, None) {
            self.trace
                .violation(format!("{id}: acknowledged at {base}: {what}"));
        }
    }

    /// `acks=1` was answered.
    pub(super) fn acked_softly(&mut self, id: &TopicPartition, incarnation: u64, base: i64, key: Key) {
        self.trace
            .note("acked softly", &[base, key.stamp, i64::from(id.partition)]);
        self.trace.count("batches answered with acks=1");
        self.account(id).soft.push((incarnation, base, key));
    }

    /// An incarnation stopped in order: all that it took is durable.
    pub(super) fn stopped_in_order(&mut self, incarnation: u64) {
        let mut broken = Vec::new();
        for (id, account) in &mut self.accounts {
            let soft: Vec<_> = account
                .soft
                .extract_if(.., |soft| soft.0 == incarnation)
                .collect();
            for (_, base, key) in soft {
                if let Err(what) = account.place(base, key, true, None) {
                    broken.push(format!("{id}: answered at {base} before a clean stop: {what}"));
                }
            }
        }
        broken.into_iter().for_each(|what| self.trace.violation(what));
    }

    /// A batch was read below the high watermark.
    pub(super) fn seen(&mut self, id: &TopicPartition, header: &BatchHeader, bytes: &[u8]) {
        let (base, epoch) = (header.base_offset, header.partition_leader_epoch);
        self.trace
            .note("seen", &[base, header.base_timestamp, i64::from(id.partition)]);
        self.trace.count("batches read");
        let broken = match check_crc(bytes) {
            Err(error) => Some(error.to_string()),
            Ok(_) => {
                let account = self.account(id);
                account.place(base, Key::of(header), false, Some(epoch)).err()
            }
        };
        if let Some(what) = broken {
            self.trace.violation(format!("{id}: read at {base}: {what}"));
        }
    }

    /// A broker's own view of a partition's ends.
    pub(super) fn ends(&mut self, id: &TopicPartition, incarnation: u64, high: i64, start: i64) {
        if let Err(what) = self.account(id).see_ends(incarnation, high, start) {
            self.trace.violation(format!("{id}: {what}"));
        }
    }

    pub(super) fn asks_deletion(&mut self, id: &TopicPartition, offset: i64) {
        let account = self.account(id);
        account.delete_asked = account.delete_asked.max(offset);
    }

    pub(super) fn records_deleted(&mut self, id: &TopicPartition, low: i64) {
        self.trace
            .note("records deleted", &[low, i64::from(id.partition)]);
        self.trace.count("DeleteRecords answered");
        let account = self.account(id);
        account.deleted_to = account.deleted_to.max(low);
        account.delete_asked = account.delete_asked.max(low);
    }

    /// A block of producer ids was given out.
    pub(super) fn block(&mut self, block: std::ops::Range<i64>) {
        let before = self.blocks.range(..block.end).next_back().map(|(_, end)| *end);
        if before.is_some_and(|end| end > block.start) {
            self.trace
                .violation(format!("producer ids {block:?} were given out twice"));
        }
        self.blocks.insert(block.start, block.end);
    }

    /// Whether a log start that no DeleteRecords explains is what retention may do.
    pub(super) fn check_retention(
        &self,
        id: &TopicPartition,
        (start, high): (i64, i64),
        now_ms: i64,
        (ms, bytes): (Option<i64>, Option<u64>),
    ) {
        let latest_ms = now_ms + self.ahead_ms;
        let Some(account) = self.accounts.get(id) else {
            return;
        };
        if start <= account.delete_asked {
            return;
        }
        let gone = account
            .facts
            .range(account.delete_asked..start)
            .filter(|(_, fact)| fact.last < start);
        let by_time = |fact: &Fact| ms.is_some_and(|ms| fact.sent.last_ms < latest_ms - ms);
        let kept: u64 = account
            .facts
            .range(start..high)
            .map(|(_, fact)| fact.key.size as u64)
            .sum();
        let by_size = bytes.is_some_and(|limit| kept >= limit);
        if ms.is_none() && bytes.is_none() {
            self.trace.violation(format!(
                "{id}: the log starts at {start}, and nobody asked for that"
            ));
        } else if !by_size && gone.into_iter().any(|(_, fact)| !by_time(fact)) {
            self.trace.violation(format!(
                "{id}: retention went too far, to {start}; {kept} bytes are left of {bytes:?}"
            ));
        }
    }
}

impl Account {
    /// Fixes what lies at `base`, or compares with what is fixed.
    fn place(&mut self, base: i64, key: Key, acked: bool, epoch: Option<i32>) -> Result<(), String> {
        let Some(sent) = self.sent.get(&key).copied() else {
            return Err(format!("nobody ever sent {key:?}"));
        };
        let last = base + sent.records - 1;
        if let Some(fact) = self.facts.get_mut(&base) {
            if fact.key != key {
                return Err(format!("{sent:?} lies where {:?} was{}", fact.sent, told(fact)));
            }
            fact.acked |= acked;
            if let (Some(known), Some(epoch)) = (fact.epoch, epoch)
                && known != epoch
            {
                return Err(format!("epoch {epoch} instead of {known}"));
            }
            fact.epoch = fact.epoch.or(epoch);
            return Ok(());
        }
        let overlapping = self
            .facts
            .range(..=last)
            .next_back()
            .filter(|(_, fact)| fact.last >= base);
        if let Some((at, fact)) = overlapping {
            return Err(format!("{sent:?} overlaps {:?} at {at}{}", fact.sent, told(fact)));
        }
        if sent.is_idempotent()
            && let Some(first) = self.placed.get(&key).filter(|first| **first != base)
        {
            return Err(format!("{sent:?} is there twice, at {first} too"));
        }
        let epoch_before = self.facts.range(..base).rev().find_map(|(_, fact)| fact.epoch);
        if epoch
            .zip(epoch_before)
            .is_some_and(|(epoch, before)| epoch < before)
        {
            return Err(format!("epoch {epoch:?} after {epoch_before:?}"));
        }
        self.placed.insert(key, base);
        let fact = Fact {
            last,
            key,
            sent,
            acked,
            epoch,
        };
        self.facts.insert(base, fact);
        Ok(())
    }

    fn see_ends(&mut self, incarnation: u64, high: i64, start: i64) -> Result<(), String> {
        let now = (high, start);
        let ends = self.ends.entry(incarnation).or_insert(Ends {
            least: now,
            most: now,
        });
        if high < ends.most.0 || start < ends.most.1 {
            return Err(format!(
                "ends went back from {:?} to {now:?} in incarnation {incarnation}",
                ends.most
            ));
        }
        ends.most = now;
        for (older, ends) in self.ends.range(..incarnation) {
            if high < ends.most.0 || start < ends.most.1 {
                return Err(format!(
                    "incarnation {incarnation} has ends {now:?}, and {older} before it had {:?}",
                    ends.most
                ));
            }
        }
        for (newer, ends) in self.ends.range(incarnation + 1..) {
            if high > ends.least.0 || start > ends.least.1 {
                return Err(format!(
                    "incarnation {incarnation} has ends {now:?}, and {newer} after it started with {:?}",
                    ends.least
                ));
            }
        }
        if self.ends.range(incarnation + 1..).next().is_none() && start < self.deleted_to {
            return Err(format!(
                "the log starts at {start}, and records up to {} were deleted",
                self.deleted_to
            ));
        }
        Ok(())
    }

    /// What a whole read of the partition, from its log start to its high watermark, must show.
    pub(super) fn check_whole(&self, found: &[(i64, Key)], start: i64, high: i64) -> Result<(), String> {
        let mut next = None;
        let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
        for (base, key) in found {
            let sent = self
                .sent
                .get(key)
                .ok_or(format!("nobody sent what lies at {base}"))?;
            if next.is_some_and(|next| next != *base) || next.is_none() && *base > start {
                return Err(format!("a gap before {base}"));
            }
            next = Some(base + sent.records);
            if !sent.is_idempotent() {
                continue;
            }
            let after = sequences.insert(sent.producer, sent.sequence + sent.records as i32);
            let expected = after;
            if expected.is_some_and(|expected| expected != sent.sequence) {
                return Err(format!("{sent:?} at {base} where sequence {expected:?} was due"));
            }
        }
        if next.unwrap_or(start) != high {
            return Err(format!("it ends at {next:?} and not at {high}"));
        }
        let found: BTreeMap<i64, Key> = found.iter().copied().collect();
        for (base, fact) in self.facts.range(start..) {
            if found.get(base) != Some(&fact.key) {
                return Err(format!("lost: {:?} at {base}{}", fact.sent, told(fact)));
            }
        }
        Ok(())
    }

    /// The first record at or after `from` and below `to` whose timestamp is `ms` or later, of the known ones.
    pub(super) fn first_since(&self, ms: i64, from: i64, to: i64) -> Option<i64> {
        if from >= to {
            return None;
        }
        let reach = self
            .facts
            .range(..=from)
            .next_back()
            .map_or(from, |(base, _)| *base);
        self.facts.range(reach..to).find_map(|(base, fact)| {
            // Records of a batch are a millisecond apart.
            let at = base + (ms - fact.sent.first_ms).max(0);
            let at = at.max(from);
            (at <= fact.last && fact.last >= from).then_some(at)
        })
    }
}

fn told(fact: &Fact) -> &'static str {
    if fact.acked {
        ", acknowledged"
    } else {
        ", seen by a consumer"
    }
}
