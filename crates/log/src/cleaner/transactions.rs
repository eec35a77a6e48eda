//! Which data was aborted, and which transaction markers are still needed.
//!
//! Batches pass in order of offsets, as in Kafka's `CleanedTransactionMetadata`: data of an aborted transaction is
//! not kept, and a marker may go once a pass has met no data of its transaction any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drumlin_records::{BatchHeader, EndMarker, end_marker};

use crate::manifest::AbortedTransaction;

/// The state of transactions at the batch that a pass has come to.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Not begun yet, by first offset.
    coming: VecDeque<AbortedTransaction>,
    /// Begun, by producer, and whether data of theirs was met.
    aborted: BTreeMap<i64, (AbortedTransaction, bool)>,
    committed: BTreeSet<i64>,
    /// Aborted transactions of which data was met: the new segment must still tell of them.
    kept: Vec<AbortedTransaction>,
}

impl Transactions {
    /// Learns of aborted transactions. It must know of all before the first batch: a segment tells of those whose markers
    /// it has, and data may stand in an earlier one.
    pub(crate) fn learn(&mut self, aborted: &[AbortedTransaction]) {
        for transaction in aborted {
            let at = self
                .coming
                .partition_point(|known| known.first_offset <= transaction.first_offset);
            self.coming.insert(at, *transaction);
        }
    }

    /// Whether nothing of the batch is needed: aborted data, or the marker of a transaction without data.
    pub(crate) fn is_done_with(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        if !header.is_transactional() && !header.is_control() {
            return false;
        }
        self.begin_up_to(header.last_offset());
        let producer = header.producer_id;
        if !header.is_control() {
            if let Some((_, met)) = self.aborted.get_mut(&producer) {
                *met = true;
                return true;
            }
            self.committed.insert(producer);
            return false;
        }
        if header.records_count == 0 {
            return true;
        }
        match end_marker(batch) {
            Ok(Some((EndMarker::Abort, _))) => match self.aborted.remove(&producer) {
                Some((transaction, true)) => {
                    self.kept.push(transaction);
                    false
                }
                _ => true,
            },
            Ok(Some((EndMarker::Commit, _))) => !self.committed.remove(&producer),
            // A marker of a kind that is not known here, or a damaged one: not ours to judge.
            Ok(None) | Err(_) => false,
        }
    }

    /// The aborted transactions that a segment that ends here must tell of.
    pub(crate) fn take_kept(&mut self) -> Vec<AbortedTransaction> {
        std::mem::take(&mut self.kept)
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(next) = self.coming.front().filter(|next| next.first_offset <= offset) {
            self.aborted.entry(next.producer_id).or_insert((*next, false));
            self.coming.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use drumlin_records::{BatchBuilder, Compression, end_marker_batch};

    use super::*;

    fn data(producer: i64, offset: i64) -> Bytes {
        BatchBuilder::new(Compression::None)
            .base_offset(offset)
            .producer(producer, 0, 0)
            .transactional()
            .push(1, Some(b"key"), Some(b"value"), &[])
            .build()
            .unwrap()
    }

    fn marker(producer: i64, offset: i64, kind: EndMarker) -> Bytes {
        let mut batch = end_marker_batch(kind, producer, 0, 0, 1).unwrap().to_vec();
        drumlin_records::patch_offset_and_epoch(&mut batch, offset, 0);
        batch.into()
    }

    fn judge(transactions: &mut Transactions, batch: &Bytes) -> bool {
        transactions.is_done_with(&BatchHeader::parse(batch).unwrap(), batch)
    }

    #[test]
    fn aborted_data_goes_and_markers_stay_while_data_is_met() {
        let aborted = AbortedTransaction {
            producer_id: 1,
            first_offset: 10,
            last_offset: 14,
            last_stable_offset: 10,
        };
        let mut pass = Transactions::default();
        pass.learn(&[aborted]);
        assert!(!judge(&mut pass, &data(1, 5)), "of an earlier, committed one");
        assert!(!judge(&mut pass, &marker(1, 6, EndMarker::Commit)));
        assert!(judge(&mut pass, &data(1, 10)));
        assert!(!judge(&mut pass, &data(2, 11)));
        assert!(
            !judge(&mut pass, &marker(1, 14, EndMarker::Abort)),
            "its data was met"
        );
        assert_eq!(pass.take_kept(), [aborted]);
        assert!(!judge(&mut pass, &marker(2, 15, EndMarker::Commit)));
        // The next pass meets the markers alone.
        let mut pass = Transactions::default();
        pass.learn(&[aborted]);
        assert!(judge(&mut pass, &marker(1, 6, EndMarker::Commit)));
        assert!(judge(&mut pass, &marker(1, 14, EndMarker::Abort)));
        assert!(pass.take_kept().is_empty());
        let plain = BatchBuilder::new(Compression::None)
            .push(1, Some(b"key"), None, &[])
            .build()
            .unwrap();
        assert!(!judge(&mut pass, &plain));
    }
}
