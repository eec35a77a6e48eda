//! Sealed bytes as they pass: checksums of blocks and of the whole, batches, offsets, the sparse index.

use bytes::Bytes;
use drumlin_records::{BatchHeader, HEADER_LEN, check_crc, find_newest};

use crate::manifest::{BLOCK_BYTES, SegmentDetail};

/// Batches of an object that cannot be decoded are named one by one up to this number.
const MAX_UNDECODABLE_NAMED: usize = 10;

/// Sentences on batches whose records cannot be decoded, of one object.
#[derive(Debug, Default)]
pub(crate) struct Undecodable {
    pub named: Vec<String>,
    more: u64,
}

impl Undecodable {
    /// Decodes a batch that is whole.
    pub(crate) fn look_into(&mut self, header: &BatchHeader, batch: &[u8]) {
        let Err(error) = find_newest(batch, 0) else { return };
        if self.named.len() < MAX_UNDECODABLE_NAMED {
            let (first, last) = (header.base_offset, header.last_offset());
            self.named.push(format!(
                "the records of offsets {first} to {last} cannot be decoded: {error}"
            ));
        } else {
            self.more += 1;
        }
    }

    /// All sentences, each about `whose`.
    pub(crate) fn into_sentences(self, whose: &str) -> impl Iterator<Item = String> {
        let more = (self.more > 0).then(|| format!("{} more batches cannot be decoded", self.more));
        let whose = whose.to_owned();
        self.named
            .into_iter()
            .chain(more)
            .map(move |what| format!("{whose}{what}"))
    }
}

/// Whole batches whose offsets join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The offset after the last batch.
    pub end: i64,
    pub epoch: i32,
    /// Compaction wrote them: offsets may be missing, as long as they ascend.
    pub holes: bool,
}

/// Checks one batch, which comes after `before`.
pub(crate) fn check_batch(batch: &[u8], before: Joined, at: u64) -> Result<(BatchHeader, Joined), String> {
    let header = check_crc(batch).map_err(|error| format!("the batch at byte {at}: {error}"))?;
    let joins = header.base_offset == before.end || before.holes && header.base_offset > before.end;
    if !joins {
        return Err(format!(
            "the batch at byte {at} begins at offset {}, not at {}",
            header.base_offset, before.end
        ));
    }
    if header.partition_leader_epoch < before.epoch {
        return Err(format!(
            "the batch at byte {at} has leader epoch {}, after {}",
            header.partition_leader_epoch, before.epoch
        ));
    }
    let after = Joined {
        end: header.last_offset() + 1,
        epoch: header.partition_leader_epoch,
        holes: before.holes,
    };
    Ok((header, after))
}

/// Length of the batch at the start of `bytes`; none while too little of it is there.
fn whole_batch(bytes: &[u8], at: u64) -> Result<Option<usize>, String> {
    if bytes.len() < HEADER_LEN {
        return Ok(None);
    }
    let header = BatchHeader::parse(bytes).map_err(|error| format!("the batch at byte {at}: {error}"))?;
    let size = header.size_in_bytes();
    Ok((size <= bytes.len()).then_some(size))
}

/// A segment or a bundle's span, checked as its bytes come.
pub(crate) struct SealedWalk<'a> {
    detail: &'a SegmentDetail,
    base: i64,
    joined: Joined,
    at: u64,
    /// The batch that is not whole yet.
    rest: Vec<u8>,
    indexed: usize,
    crc: u32,
    block: usize,
    block_crc: u32,
    block_filled: usize,
    pub undecodable: Undecodable,
}

impl<'a> SealedWalk<'a> {
    /// `holes`: compaction wrote it, so that offsets may be missing.
    pub(crate) fn new(base: i64, holes: bool, detail: &'a SegmentDetail) -> Self {
        Self {
            detail,
            base,
            joined: Joined {
                end: base,
                epoch: -1,
                holes,
            },
            at: 0,
            rest: Vec::new(),
            indexed: 0,
            crc: 0,
            block: 0,
            block_crc: 0,
            block_filled: 0,
            undecodable: Undecodable::default(),
        }
    }

    /// Takes the bytes that follow. The text says what is wrong with them.
    pub(crate) fn push(&mut self, bytes: &Bytes) -> Result<(), String> {
        self.checksum(bytes)?;
        let joined;
        let mut left: &[u8] = if self.rest.is_empty() {
            bytes
        } else {
            joined = [self.rest.as_slice(), bytes].concat();
            &joined
        };
        while let Some(size) = whole_batch(left, self.at)? {
            let (batch, after) = left.split_at(size);
            let (header, joined) = check_batch(batch, self.joined, self.at)?;
            self.check_index(&header)?;
            self.undecodable.look_into(&header, batch);
            (self.joined, left) = (joined, after);
            self.at += size as u64;
        }
        self.rest = left.to_vec();
        Ok(())
    }

    fn check_index(&mut self, header: &BatchHeader) -> Result<(), String> {
        let Some(entry) = self.detail.index.get(self.indexed) else {
            return Ok(());
        };
        if entry.position > self.at {
            return Ok(());
        }
        let delta = u64::try_from(header.base_offset - self.base).unwrap_or(u64::MAX);
        if entry.position < self.at || entry.offset_delta != delta {
            return Err(format!(
                "the index entry for byte {} and offset {} is not the start of a batch",
                entry.position,
                self.base.saturating_add_unsigned(entry.offset_delta)
            ));
        }
        self.indexed += 1;
        Ok(())
    }

    fn checksum(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block_filled));
            self.block_crc = crc32c::crc32c_append(self.block_crc, head);
            self.crc = crc32c::crc32c_append(self.crc, head);
            self.block_filled += head.len();
            if self.block_filled == BLOCK_BYTES {
                self.end_block()?;
            }
            bytes = tail;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), String> {
        if self.detail.block_crcs.get(self.block) != Some(&self.block_crc) {
            let from = self.block * BLOCK_BYTES;
            return Err(format!(
                "bytes {from} to {} do not match their checksum",
                from + self.block_filled
            ));
        }
        self.block += 1;
        (self.block_crc, self.block_filled) = (0, 0);
        Ok(())
    }

    /// All bytes have come. Returns the checksum of the whole.
    pub(crate) fn finish(mut self, end: i64) -> Result<u32, String> {
        if self.block_filled > 0 {
            self.end_block()?;
        }
        if !self.rest.is_empty() {
            return Err(format!("the batch at byte {} is cut short", self.at));
        }
        let ends = self.joined.end == end || self.joined.holes && self.joined.end < end;
        if !ends {
            return Err(format!(
                "its records end at offset {}, not at {end}",
                self.joined.end
            ));
        }
        if self.indexed != self.detail.index.len() {
            return Err("its index reaches beyond its end".to_owned());
        }
        Ok(self.crc)
    }
}
