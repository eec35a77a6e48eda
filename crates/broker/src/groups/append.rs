//! What a shard wrote, on its way: batches appended and not committed, and the answers that wait for them.
//!
//! An answer leaves when the batch that was the newest at its step is committed, which is after all before it. One that
//! waits for too long leaves as COORDINATOR_NOT_AVAILABLE, upon which clients try again, as Kafka's coordinator maps
//! its timeouts; what it was about stands or falls with the batch.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use drumlin_coordinator::{ErrorCode, GroupResponse, Record};
use drumlin_log::{AppendError, AppendOptions, Commit, CommitError, Log, Partition};
use drumlin_records::{BatchBuilder, BatchError, BatchHeader, Compression};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::failed::fail;

/// Records of several steps are put into one batch up to this size; those of one step always are, up to
/// [`STEP_BYTES`].
const BATCH_BYTES: usize = 512 << 10;
/// More than this of one step is cut into several batches: only the end of a topic or of many offsets is that large,
/// and there each record stands for itself.
const STEP_BYTES: usize = 16 << 20;
/// Batches under way over which no further request is taken.
const IN_FLIGHT: usize = 1_024;

/// An answer whose time has not come.
struct Waiting {
    to: oneshot::Sender<GroupResponse>,
    answer: GroupResponse,
    until: Instant,
}

/// A batch under way.
struct Flight {
    commit: Commit,
    /// Records below this are committed with it.
    end: i64,
    /// In the order in which they expire.
    answers: VecDeque<Waiting>,
}

/// Batches under way, oldest first.
#[derive(Default)]
pub(super) struct Flights {
    queue: VecDeque<Flight>,
}

impl Flights {
    /// True while so many batches are under way that no more should be added.
    pub fn full(&self) -> bool {
        self.queue.len() >= IN_FLIGHT
    }

    /// The oldest one's commit.
    pub fn oldest(&self) -> Option<Commit> {
        self.queue.front().map(|flight| flight.commit.clone())
    }

    /// A batch was appended that ends below `end`.
    pub fn push(&mut self, commit: Commit, end: i64) {
        self.queue.push_back(Flight {
            commit,
            end,
            answers: VecDeque::new(),
        });
    }

    /// Holds an answer until all that is under way is committed; it leaves at once where nothing is.
    pub fn hold(&mut self, to: oneshot::Sender<GroupResponse>, answer: GroupResponse, until: Instant) {
        match self.queue.back_mut() {
            Some(newest) => newest.answers.push_back(Waiting { to, answer, until }),
            None => {
                // Who asked may have gone.
                let _ = to.send(answer);
            }
        }
    }

    /// Lets go of what is committed. Returns the records below which everything is committed, if that has moved.
    pub fn settle(&mut self) -> Result<Option<i64>, CommitError> {
        let mut moved = None;
        while let Some(outcome) = self.queue.front().and_then(|oldest| oldest.commit.outcome()) {
            outcome?;
            let Some(flight) = self.queue.pop_front() else {
                break;
            };
            moved = Some(flight.end);
            for waiting in flight.answers {
                let _ = waiting.to.send(waiting.answer);
            }
        }
        Ok(moved)
    }

    /// When the next answer has waited for too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        let first = self.queue.iter().find_map(|flight| flight.answers.front());
        first.map(|waiting| waiting.until)
    }

    /// Sends away the answers that have waited for too long.
    pub fn expire(&mut self, now: Instant) {
        for flight in &mut self.queue {
            // Answers of later batches expire later.
            if flight.answers.front().is_some_and(|waiting| waiting.until > now) {
                return;
            }
            while flight.answers.front().is_some_and(|waiting| waiting.until <= now) {
                let Some(Waiting { to, answer, .. }) = flight.answers.pop_front() else {
                    break;
                };
                let _ = to.send(fail(answer, ErrorCode::CoordinatorNotAvailable));
            }
        }
    }

    /// Everybody is told to look for another coordinator: whether what was written stands is not known here.
    pub fn abandon(&mut self) {
        for Waiting { to, answer, .. } in self.queue.drain(..).flat_map(|flight| flight.answers) {
            let _ = to.send(fail(answer, ErrorCode::NotCoordinator));
        }
    }
}

/// Gathers the records of several steps into batches.
pub(super) struct Gathered {
    codec: Compression,
    batches: Vec<BatchBuilder>,
}

impl Gathered {
    /// Nothing yet.
    pub fn new(codec: Compression) -> Self {
        Self {
            codec,
            batches: Vec::new(),
        }
    }

    /// Adds the records of one step. They stay together.
    pub fn add(&mut self, now_ms: i64, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let full = |batch: &BatchBuilder, limit| batch.uncompressed_size() >= limit;
        if self.batches.last().is_none_or(|batch| full(batch, BATCH_BYTES)) {
            self.batches.push(BatchBuilder::new(self.codec));
        }
        for record in records {
            if self.batches.last().is_some_and(|batch| full(batch, STEP_BYTES)) {
                self.batches.push(BatchBuilder::new(self.codec));
            }
            if let Some(batch) = self.batches.last_mut() {
                batch.push(now_ms, Some(&record.key), record.value.as_deref(), &[]);
            }
        }
    }

    /// Takes the batches, in order, and how many records they hold.
    pub fn take(&mut self) -> Result<Vec<(BatchHeader, Bytes)>, BatchError> {
        let built = std::mem::take(&mut self.batches);
        built
            .iter()
            .map(|batch| {
                let bytes = batch.build()?;
                Ok((BatchHeader::parse(&bytes)?, bytes))
            })
            .collect()
    }
}

/// One try to append a batch, which waits for room until the deadline.
pub(super) async fn append(
    log: &Log,
    partition: &Arc<Partition>,
    header: &BatchHeader,
    batch: &Bytes,
    deadline: Instant,
) -> Result<(Commit, i64), AppendError> {
    let options = AppendOptions {
        expected_epoch: None,
        log_append_time: None,
        deadline,
    };
    let appended = log.append(partition, header, batch, options).await?;
    let end = appended.base_offset + i64::from(header.last_offset_delta) + 1;
    Ok((appended.commit, end))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drumlin_records::{Limits, RecordReader};
    use drumlin_wire::messages::heartbeat_response::HeartbeatResponse;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn answer() -> GroupResponse {
        GroupResponse::Heartbeat(HeartbeatResponse::default())
    }

    fn code(answer: GroupResponse) -> i16 {
        match answer {
            GroupResponse::Heartbeat(answer) => answer.error_code,
            other => unreachable!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_what_is_under_way_and_no_longer_than_it_may() {
        let mut flights = Flights::default();
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let ask = || oneshot::channel();
        let (to, mut at_once) = ask();
        flights.hold(to, answer(), later(1));
        assert_eq!(code(at_once.try_recv().unwrap()), 0, "nothing is under way");
        flights.push(Commit::default(), 10);
        let (to, mut first) = ask();
        flights.hold(to, answer(), later(5));
        flights.push(Commit::default(), 20);
        let (to, mut second) = ask();
        flights.hold(to, answer(), later(6));
        assert_eq!(flights.settle(), Ok(None));
        assert_eq!(flights.next_expiry(), Some(later(5)));
        flights.expire(later(4));
        assert!(matches!(first.try_recv(), Err(TryRecvError::Empty)));
        flights.expire(later(5));
        assert_eq!(
            code(first.try_recv().unwrap()),
            ErrorCode::CoordinatorNotAvailable.code()
        );
        assert!(matches!(second.try_recv(), Err(TryRecvError::Empty)));
        assert_eq!(flights.next_expiry(), Some(later(6)));
        flights.abandon();
        assert_eq!(code(second.try_recv().unwrap()), ErrorCode::NotCoordinator.code());
    }

    #[test]
    fn what_one_step_wrote_stays_in_one_batch() {
        let record = |n: usize, size: usize| Record {
            key: Bytes::from(format!("{n:08}")),
            value: (!n.is_multiple_of(3)).then(|| Bytes::from(vec![7; size])),
        };
        let mut gathered = Gathered::new(Compression::None);
        gathered.add(5, &[]);
        assert_eq!(gathered.take().unwrap().len(), 0);
        let mut next = 0;
        let mut steps = Vec::new();
        for size in [10, 200_000, 40, 300_000, 30_000, 5] {
            let records: Vec<Record> = (0..5).map(|n| record(next + n, size)).collect();
            steps.push(next);
            next += 5;
            gathered.add(5, &records);
        }
        let batches = gathered.take().unwrap();
        assert!(
            batches.len() > 1 && batches.len() < steps.len(),
            "{}",
            batches.len()
        );
        let mut seen = 0;
        for (header, bytes) in &batches {
            assert!(steps.contains(&seen), "a batch begins within a step");
            let mut reader = RecordReader::new(bytes, Limits::default()).unwrap();
            while let Some(found) = reader.next_record().unwrap() {
                assert_eq!(found.key, Some(format!("{seen:08}").as_bytes()));
                assert_eq!((found.value.is_some(), found.timestamp), (seen % 3 > 0, 5));
                seen += 1;
            }
            assert_eq!(header.last_offset_delta + 1, header.records_count);
        }
        assert_eq!(seen, next);
        assert!(gathered.take().unwrap().is_empty());
    }
}
