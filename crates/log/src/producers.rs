//! Sequence numbers of idempotent producers on one partition (KIP-98), as appended and as committed (A3, A4).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use drumlin_records::BatchHeader;
use thiserror::Error;
use tokio::time::Instant;

use crate::commit::Commit;
use crate::footer::ProducerBatch;
use crate::state::StoredProducer;

/// Committed batches remembered per producer: what a client may have in flight.
const REMEMBERED: usize = 5;

/// Producers remembered per partition. Expiry counts anew after each takeover (R4), so that a broker which is restarted
/// more often than `producer.id.expiration.ms` would never forget one.
const PRODUCERS: usize = 100_000;

/// Producers remembered whose first batch found no room.
const TURNED_AWAY: usize = 1000;

/// Why a producer's batch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SequenceError {
    /// A sequence number that does not follow the last one.
    #[error("sequence {found} of producer {producer_id} does not follow {last}")]
    OutOfOrder {
        /// The producer.
        producer_id: i64,
        /// Its last sequence, or -1.
        last: i32,
        /// The batch's first sequence.
        found: i32,
    },
    /// The producer's epoch is older than one seen before.
    #[error("epoch {found} of producer {producer_id} is older than {current}")]
    InvalidEpoch {
        /// The producer.
        producer_id: i64,
        /// The newest epoch seen.
        current: i16,
        /// The batch's.
        found: i16,
    },
}

/// What to do with a batch.
#[derive(Debug)]
pub(crate) enum Verdict {
    Append,
    /// It stands in the log already; to be answered when its first copy is committed (A4).
    Duplicate {
        base_offset: i64,
        timestamp: i64,
        commit: Option<Commit>,
    },
}

#[derive(Debug)]
struct Batch {
    epoch: i16,
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
    timestamp: i64,
    flags: u8,
    /// None when it was committed before this incarnation started, or its commit was seen.
    commit: Option<Commit>,
}

#[derive(Debug)]
struct Producer {
    /// Oldest first: those that are not committed, and the last five that are.
    batches: VecDeque<Batch>,
    last_seen: Instant,
}

/// The producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: BTreeMap<i64, Producer>,
    /// Producers of which nothing is known but that a batch of theirs found no room: its epoch and first sequence.
    turned_away: BTreeMap<i64, (i16, i32)>,
}

/// A producer as DescribeProducers shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer's id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The last sequence appended.
    pub last_sequence: i32,
    /// The last batch's largest timestamp, Unix milliseconds.
    pub last_timestamp: i64,
}

/// The sequence after `sequence`, which wraps from 2^31-1 to 0.
fn following(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}

/// The last sequence of a batch of `last_offset_delta + 1` records that starts at `first`.
fn last_sequence(first: i32, last_offset_delta: i32) -> i32 {
    let sum = i64::from(first) + i64::from(last_offset_delta);
    i32::try_from(sum).unwrap_or_else(|_| (sum - (1 << 31)) as i32)
}

impl Producers {
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Judges a batch that carries a producer id.
    pub(crate) fn judge(&self, header: &BatchHeader) -> Result<Verdict, SequenceError> {
        let first = header.base_sequence;
        let out_of_order = |last| SequenceError::OutOfOrder {
            producer_id: header.producer_id,
            last,
            found: first,
        };
        let Some(producer) = self.known.get(&header.producer_id) else {
            // A producer that is not known may begin anywhere: its state may have expired. But what it sent behind a
            // batch that is to come again must not be first.
            return match self.turned_away.get(&header.producer_id) {
                Some((epoch, earlier)) if *epoch == header.producer_epoch && first > *earlier => {
                    Err(out_of_order(-1))
                }
                _ => Ok(Verdict::Append),
            };
        };
        let Some(newest) = producer.batches.back() else {
            return Ok(Verdict::Append);
        };
        if header.producer_epoch < newest.epoch {
            return Err(SequenceError::InvalidEpoch {
                producer_id: header.producer_id,
                current: newest.epoch,
                found: header.producer_epoch,
            });
        }
        if header.producer_epoch > newest.epoch {
            return if first == 0 {
                Ok(Verdict::Append)
            } else {
                Err(out_of_order(-1))
            };
        }
        let last = last_sequence(first, header.last_offset_delta);
        // Only the last five count: an older one cannot be told from a gap.
        for batch in producer.batches.iter().rev().take(REMEMBERED) {
            let same_epoch = batch.epoch == header.producer_epoch;
            if same_epoch && batch.first_sequence == first && batch.last_sequence == last {
                return Ok(Verdict::Duplicate {
                    base_offset: batch.base_offset,
                    timestamp: batch.timestamp,
                    commit: batch.commit.clone(),
                });
            }
        }
        if first == following(newest.last_sequence) {
            Ok(Verdict::Append)
        } else {
            Err(out_of_order(newest.last_sequence))
        }
    }

    /// A batch found no room in time: the client sends it again.
    pub(crate) fn turn_away(&mut self, header: &BatchHeader) {
        if self.known.contains_key(&header.producer_id) {
            return;
        }
        if self.turned_away.len() >= TURNED_AWAY {
            self.turned_away.pop_first();
        }
        let (epoch, first) = (header.producer_epoch, header.base_sequence);
        let noted = self
            .turned_away
            .entry(header.producer_id)
            .or_insert((epoch, first));
        if noted.0 < epoch || (noted.0 == epoch && first < noted.1) {
            *noted = (epoch, first);
        }
    }

    /// Remembers an appended batch; returns what the footer says of it.
    pub(crate) fn appended(
        &mut self,
        header: &BatchHeader,
        base_offset: i64,
        committed_end: i64,
        now: Instant,
        commit: Commit,
    ) -> ProducerBatch {
        let record = ProducerBatch {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header.base_sequence, header.last_offset_delta),
            base_offset,
            last_offset: base_offset + i64::from(header.last_offset_delta),
            timestamp: header.max_timestamp,
            flags: 0,
        };
        self.remember(&record, Some(commit), committed_end, now);
        record
    }

    /// Takes over a committed batch from a footer.
    pub(crate) fn replay(&mut self, record: &ProducerBatch, now: Instant) {
        self.remember(record, None, i64::MAX, now);
    }

    fn remember(&mut self, record: &ProducerBatch, commit: Option<Commit>, committed_end: i64, now: Instant) {
        self.turned_away.remove(&record.producer_id);
        if self.known.len() >= PRODUCERS && !self.known.contains_key(&record.producer_id) {
            self.forget_longest_silent(committed_end);
        }
        let producer = self.known.entry(record.producer_id).or_insert_with(|| Producer {
            batches: VecDeque::new(),
            last_seen: now,
        });
        producer.last_seen = now;
        producer.batches.push_back(Batch {
            epoch: record.epoch,
            first_sequence: record.first_sequence,
            last_sequence: record.last_sequence,
            base_offset: record.base_offset,
            last_offset: record.last_offset,
            timestamp: record.timestamp,
            flags: record.flags,
            commit,
        });
        // Keep five committed ones: a checkpoint needs them while the newer are in flight (A3).
        let committed = producer
            .batches
            .partition_point(|batch| batch.last_offset < committed_end);
        for batch in producer.batches.iter_mut().take(committed) {
            batch.commit = None;
        }
        if committed > REMEMBERED {
            producer.batches.drain(..committed - REMEMBERED);
        }
    }

    /// Makes room: forgets an eighth of the producers, those whose last batches have the lowest offsets. That is the order
    /// in which they fell silent, whatever clocks and restarts say. One with a batch in flight stays.
    fn forget_longest_silent(&mut self, committed_end: i64) {
        let last = |producer: &Producer| producer.batches.back().map_or(-1, |batch| batch.last_offset);
        let mut silent: Vec<i64> = self.known.values().map(last).collect();
        let at = silent.len() / 8;
        let (_, bound, _) = silent.select_nth_unstable(at);
        let bound = (*bound).min(committed_end);
        self.known.retain(|_, producer| last(producer) >= bound);
    }

    /// Committed state as of `committed_end`.
    pub(crate) fn committed(&self, committed_end: i64) -> Vec<StoredProducer> {
        let mut stored = Vec::new();
        for (producer_id, producer) in &self.known {
            let mut batches: Vec<ProducerBatch> = Vec::new();
            for batch in producer
                .batches
                .iter()
                .take_while(|batch| batch.last_offset < committed_end)
            {
                batches.push(ProducerBatch {
                    producer_id: *producer_id,
                    epoch: batch.epoch,
                    first_sequence: batch.first_sequence,
                    last_sequence: batch.last_sequence,
                    base_offset: batch.base_offset,
                    last_offset: batch.last_offset,
                    timestamp: batch.timestamp,
                    flags: batch.flags,
                });
            }
            let surplus = batches.len().saturating_sub(REMEMBERED);
            batches.drain(..surplus);
            if let Some(last) = batches.last() {
                let (epoch, last_timestamp) = (last.epoch, last.timestamp);
                stored.push(StoredProducer {
                    producer_id: *producer_id,
                    epoch,
                    last_timestamp,
                    batches,
                });
            }
        }
        stored
    }

    /// The last committed offset of each producer: the cleaner leaves that batch's header in place, as Kafka does.
    pub(crate) fn last_offsets(&self, committed_end: i64) -> BTreeMap<i64, i64> {
        let committed = |batches: &VecDeque<Batch>| {
            let mut newest = batches.iter().rev();
            newest
                .find(|batch| batch.last_offset < committed_end)
                .map(|batch| batch.last_offset)
        };
        let last = self
            .known
            .iter()
            .filter_map(|(id, producer)| Some((*id, committed(&producer.batches)?)));
        last.collect()
    }

    pub(crate) fn restore(&mut self, stored: &[StoredProducer], now: Instant) {
        for producer in stored {
            for batch in &producer.batches {
                self.replay(batch, now);
            }
        }
    }

    /// Forgets producers that have been silent for `expiration`, by elapsed time (R4), and have nothing in flight.
    pub(crate) fn expire(&mut self, committed_end: i64, now: Instant, expiration: Duration) {
        self.known.retain(|_, producer| {
            let in_flight = producer
                .batches
                .back()
                .is_some_and(|batch| batch.last_offset >= committed_end);
            in_flight || now.saturating_duration_since(producer.last_seen) < expiration
        });
    }

    pub(crate) fn active(&self) -> Vec<ActiveProducer> {
        self.known
            .iter()
            .filter_map(|(producer_id, producer)| {
                producer.batches.back().map(|batch| ActiveProducer {
                    producer_id: *producer_id,
                    producer_epoch: batch.epoch,
                    last_sequence: batch.last_sequence,
                    last_timestamp: batch.timestamp,
                })
            })
            .collect()
    }
}

/// Applies committed batches, in order, to stored producer state.
pub(crate) fn replay_stored(stored: &mut Vec<StoredProducer>, batches: impl Iterator<Item = ProducerBatch>) {
    for batch in batches {
        let at = match stored.binary_search_by_key(&batch.producer_id, |producer| producer.producer_id) {
            Ok(at) => at,
            Err(at) => {
                let producer_id = batch.producer_id;
                let new = StoredProducer {
                    producer_id,
                    epoch: batch.epoch,
                    last_timestamp: 0,
                    batches: Vec::new(),
                };
                stored.insert(at, new);
                at
            }
        };
        let producer = &mut stored[at];
        producer.epoch = batch.epoch;
        producer.last_timestamp = batch.timestamp;
        producer.batches.push(batch);
        let surplus = producer.batches.len().saturating_sub(REMEMBERED);
        producer.batches.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_id: i64, epoch: i16, first: i32) -> BatchHeader {
        BatchHeader {
            producer_id,
            producer_epoch: epoch,
            base_sequence: first,
            last_offset_delta: 1,
            records_count: 2,
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: 0,
            base_timestamp: 0,
            max_timestamp: 0,
        }
    }

    #[tokio::test]
    async fn the_longest_silent_are_forgotten_when_there_are_too_many() {
        let (mut producers, count) = (Producers::default(), PRODUCERS as i64);
        let mut offset = 0;
        let mut append = |producers: &mut Producers, id: i64, first: i32, committed: i64| {
            producers.appended(
                &batch(id, 0, first),
                offset,
                committed,
                Instant::now(),
                Commit::done(),
            );
            offset += 2;
        };
        for id in 0..count {
            append(&mut producers, id, 0, 0);
        }
        append(&mut producers, 2, 2, 2 * count);
        let stored = producers.committed(2 * count);
        assert_eq!(stored.len(), PRODUCERS);
        append(&mut producers, count, 0, 2 * count);
        let knows = |producers: &Producers, id: i64| producers.known.contains_key(&id);
        assert!(!knows(&producers, 1) && knows(&producers, 2) && knows(&producers, count));
        assert!(producers.known.len() < PRODUCERS);
        // The same after a restart, which has heard of all of them at one moment.
        let mut restored = Producers::default();
        restored.restore(&stored, Instant::now());
        append(&mut restored, count, 0, 2 * count);
        assert!(!knows(&restored, 1) && knows(&restored, count - 1) && knows(&restored, count));
        // What is in flight stays.
        let mut in_flight = Producers::default();
        for id in 0..=count {
            append(&mut in_flight, id, 0, 0);
        }
        assert_eq!(in_flight.known.len(), PRODUCERS + 1);
    }

    /// Found by the simulation: the first batch of a producer waits for room in vain, and the one behind it gets some.
    #[tokio::test]
    async fn what_was_sent_behind_a_batch_that_found_no_room_waits_for_it() {
        let mut producers = Producers::default();
        let takes = |producers: &Producers, header: &BatchHeader| producers.judge(header).is_ok();
        assert!(takes(&producers, &batch(7, 0, 4)), "a state that expired");
        producers.turn_away(&batch(7, 0, 2));
        producers.turn_away(&batch(7, 0, 0));
        producers.turn_away(&batch(7, 0, 2));
        assert!(!takes(&producers, &batch(7, 0, 2)) && !takes(&producers, &batch(7, 0, 4)));
        assert!(takes(&producers, &batch(7, 1, 4)), "it has begun anew");
        assert!(takes(&producers, &batch(8, 0, 4)), "another");
        assert!(takes(&producers, &batch(7, 0, 0)));
        producers.appended(&batch(7, 0, 0), 0, 0, Instant::now(), Commit::done());
        assert!(takes(&producers, &batch(7, 0, 2)) && !takes(&producers, &batch(7, 0, 4)));
        // Of one that is known the sequence says it all.
        producers.turn_away(&batch(7, 0, 2));
        assert!(takes(&producers, &batch(7, 0, 2)) && !takes(&producers, &batch(7, 0, 4)));
        for n in 0..2 * TURNED_AWAY as i64 {
            producers.turn_away(&batch(100 + n, 0, 0));
        }
        assert_eq!(producers.turned_away.len(), TURNED_AWAY);
    }
}
