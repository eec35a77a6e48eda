//! Snapshots of a shard: the live records of its partition, as one object.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `DRMLGRPS` |
//! | 2 | format version: 1 |
//! | 4 | the partition |
//! | 8 | covers: the offset at which replay goes on |
//! | 4 | the leader epoch in which it was taken |
//! | 8 | how many records follow |
//! | … | each: length of the key (4), key, length of the value (4), value |
//! | 8 | how many times follow |
//! | … | each: length of a consumer group's id (4), id, when it came into its epoch (8): the time of that record |
//! | 4 | CRC32C of all before it |
//!
//! Numbers are big-endian. The records are in the order of groups, then of offsets, and those of a group
//! come before its offsets; taking them is the same as replaying the partition from its start. The object's
//! life is its partition's: a newer one takes its place.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use drumlin_wire::{DecodeError, Str};

use crate::Record;

const MAGIC: &[u8; 8] = b"DRMLGRPS";
const VERSION: u16 = 1;
const HEADER: usize = 8 + 2 + 4 + 8 + 4 + 8;

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The offset at which replay goes on.
    pub covers: i64,
    /// The leader epoch in which it was taken.
    pub leader_epoch: i32,
}

/// Why bytes are not a snapshot that can be used. Replay from the start gives the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not the bytes that were written.
    #[error("the snapshot is damaged")]
    Damaged,
    /// Written by a newer version.
    #[error("snapshot format {0} is not known")]
    Version(u16),
    /// Of another partition.
    #[error("the snapshot is of partition {0}")]
    Partition(i32),
    /// A record in it is not what its version says.
    #[error("a record of the snapshot is damaged: {0}")]
    Record(DecodeError),
}

/// A snapshot, taken apart.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub info: SnapshotInfo,
    pub records: Vec<Record>,
    pub epoch_times: BTreeMap<Str, i64>,
}

/// Writes one. Tombstones have no place in it: what they delete is left out.
pub(crate) fn write(
    partition: i32,
    info: SnapshotInfo,
    records: impl Iterator<Item = Record>,
    epoch_times: &BTreeMap<Str, i64>,
) -> Bytes {
    let mut bytes = BytesMut::with_capacity(4096);
    bytes.put_slice(MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_i32(partition);
    bytes.put_i64(info.covers);
    bytes.put_i32(info.leader_epoch);
    bytes.put_u64(0);
    let mut count = 0u64;
    for record in records {
        let Some(value) = &record.value else { continue };
        for part in [&record.key, value] {
            put_part(&mut bytes, part);
        }
        count += 1;
    }
    bytes[HEADER - 8..HEADER].copy_from_slice(&count.to_be_bytes());
    bytes.put_u64(epoch_times.len() as u64);
    for (group, time) in epoch_times {
        put_part(&mut bytes, group.as_bytes());
        bytes.put_i64(*time);
    }
    bytes.put_u32(crc32c::crc32c(&bytes));
    bytes.freeze()
}

fn put_part(bytes: &mut BytesMut, part: &[u8]) {
    bytes.put_u32(u32::try_from(part.len()).expect("a record's parts are below 2 GiB"));
    bytes.put_slice(part);
}

/// Takes one apart: its checksum first, so that nothing else needs to be doubted.
pub(crate) fn read(bytes: &[u8], partition: i32) -> Result<Snapshot, SnapshotError> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(SnapshotError::Damaged)?;
    let rest = body.strip_prefix(MAGIC).ok_or(SnapshotError::Damaged)?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return Err(SnapshotError::Damaged);
    }
    let mut rest = Parts(rest);
    let version = u16::from_be_bytes(rest.fixed()?);
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    let of = i32::from_be_bytes(rest.fixed()?);
    if of != partition {
        return Err(SnapshotError::Partition(of));
    }
    let covers = i64::from_be_bytes(rest.fixed()?);
    let leader_epoch = i32::from_be_bytes(rest.fixed()?);
    let count = u64::from_be_bytes(rest.fixed()?);
    let mut records = Vec::new();
    for _ in 0..count {
        let key = rest.part()?;
        let value = Some(rest.part()?);
        records.push(Record { key, value });
    }
    let mut epoch_times = BTreeMap::new();
    for _ in 0..u64::from_be_bytes(rest.fixed()?) {
        let group = Str::from_utf8(rest.part()?).map_err(|_| SnapshotError::Damaged)?;
        epoch_times.insert(group, i64::from_be_bytes(rest.fixed()?));
    }
    if !rest.0.is_empty() {
        return Err(SnapshotError::Damaged);
    }
    Ok(Snapshot {
        info: SnapshotInfo { covers, leader_epoch },
        records,
        epoch_times,
    })
}

struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(SnapshotError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    fn part(&mut self) -> Result<Bytes, SnapshotError> {
        let len = u32::from_be_bytes(self.fixed()?) as usize;
        let (head, rest) = self.0.split_at_checked(len).ok_or(SnapshotError::Damaged)?;
        self.0 = rest;
        Ok(Bytes::copy_from_slice(head))
    }
}
