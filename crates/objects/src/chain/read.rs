//! Reading a chain, and its birth.
//!
//! Every reader checks magic, version, chain id, slot and CRCs before it believes anything. A slot that is
//! missing may be deleted rather than future: whoever meets one starts again from the newest checkpoint (F4).

use bytes::{Bytes, BytesMut};

use super::header::{ENTRY_HEADER_LEN, EntryHeader, EntryKind, FormatError};
use super::marker::Checkpoint;
use super::{ChainError, ChainName, number_of};
use crate::bucket::Bucket;
use crate::error::{PutNewError, StoreError};
use crate::stats::Reason;

/// What the first of the two gets of [`read_header_and_footer`] asks for: a small object whole.
const FRONT: u64 = 16 << 10;

/// An entry, read and checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its header.
    pub header: EntryHeader,
    /// The whole object, header included.
    pub bytes: Bytes,
}

impl Entry {
    /// Checks a whole object and takes it apart.
    pub fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        let header = EntryHeader::decode(&bytes)?;
        header.check_body(&bytes)?;
        Ok(Self { header, bytes })
    }

    /// All after the header, the footer included.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(ENTRY_HEADER_LEN..)
    }

    /// The footer; all after the header where there is none.
    pub fn footer(&self) -> Bytes {
        footer_of(&self.header, &self.bytes)
    }

    /// The checkpoint that an entry of that kind names.
    pub fn checkpoint(&self) -> Result<Checkpoint, FormatError> {
        if self.header.kind != EntryKind::Checkpoint {
            return Err(FormatError::Kind(self.header.kind as u8));
        }
        Checkpoint::decode(&self.footer(), &self.header.chain)
    }
}

fn footer_of(header: &EntryHeader, object: &Bytes) -> Bytes {
    let at = usize::try_from(header.footer_at)
        .unwrap_or(usize::MAX)
        .max(ENTRY_HEADER_LEN);
    object.slice(at.min(object.len())..)
}

fn damaged(key: &str, what: FormatError) -> ChainError {
    ChainError::Damaged {
        key: key.to_owned(),
        what,
    }
}

fn unless_missing<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Entry `slot`, checked; `None` if there is no such object.
pub async fn read_entry(
    bucket: &Bucket,
    name: &ChainName,
    slot: u64,
    why: Reason,
) -> Result<Option<Entry>, ChainError> {
    let key = name.entry_key(slot);
    let Some(bytes) = unless_missing(bucket.get(&key, why).await)? else {
        return Ok(None);
    };
    let entry = Entry::decode(bytes).map_err(|what| damaged(&key, what))?;
    entry
        .header
        .check_place(&name.id, slot)
        .map_err(|what| damaged(&key, what))?;
    Ok(Some(entry))
}

/// The header of entry `slot` alone, checked against its name.
pub async fn read_header(
    bucket: &Bucket,
    name: &ChainName,
    slot: u64,
    why: Reason,
) -> Result<Option<EntryHeader>, ChainError> {
    let key = name.entry_key(slot);
    let front = bucket.get_front(&key, ENTRY_HEADER_LEN as u64, why).await;
    let Some(front) = unless_missing(front)? else {
        return Ok(None);
    };
    let header = EntryHeader::decode(&front).map_err(|what| damaged(&key, what))?;
    header
        .check_place(&name.id, slot)
        .map_err(|what| damaged(&key, what))?;
    Ok(Some(header))
}

/// The header and the footer of entry `slot`: one get for a small object, two ranged ones for a large one.
/// An entry without a footer gives all after its header.
///
/// The body is checked only where there is no footer; a footer carries a CRC of its own, which its owner checks.
pub async fn read_header_and_footer(
    bucket: &Bucket,
    name: &ChainName,
    slot: u64,
    why: Reason,
) -> Result<Option<(EntryHeader, Bytes)>, ChainError> {
    let key = name.entry_key(slot);
    let Some(front) = unless_missing(bucket.get_front(&key, FRONT, why).await)? else {
        return Ok(None);
    };
    let header = EntryHeader::decode(&front).map_err(|what| damaged(&key, what))?;
    header
        .check_place(&name.id, slot)
        .map_err(|what| damaged(&key, what))?;
    let (found, told) = (front.len() as u64, header.object_len());
    if found >= told || found < FRONT {
        // Where there is a footer, damage to what it describes is for the readers of that to find and name.
        if header.footer_at == 0 || found != told {
            header.check_body(&front).map_err(|what| damaged(&key, what))?;
        }
        return Ok(Some((header, footer_of(&header, &front))));
    }
    let from = header.footer_at.max(ENTRY_HEADER_LEN as u64);
    let footer = unless_missing(bucket.get_range(&key, from..told, why).await)?;
    Ok(footer.map(|footer| (header, footer)))
}

/// The newest checkpoint of the chain. Its marker is put only after the entry that names it was committed, so
/// it has taken effect, unless the chain is a fenced one and the entry lies beyond the fence ([`super::fence`]
/// looks after that).
pub async fn newest_checkpoint(
    bucket: &Bucket,
    name: &ChainName,
    why: Reason,
) -> Result<Option<Checkpoint>, ChainError> {
    checkpoint_below(bucket, name, u64::MAX, why).await
}

/// The newest checkpoint whose entry lies below `end`, the fence's slot: where a reader of a fenced chain begins,
/// and begins again when an entry that it needs is gone (rule F4).
pub async fn checkpoint_below(
    bucket: &Bucket,
    name: &ChainName,
    end: u64,
    why: Reason,
) -> Result<Option<Checkpoint>, ChainError> {
    'again: loop {
        let listed = bucket
            .list(&format!("{}/checkpoint", name.prefix), None, why)
            .await?;
        for object in listed.iter().rev() {
            let Some(covers_below) = number_of(&object.key) else {
                continue;
            };
            let Some(bytes) = unless_missing(bucket.get(&object.key, why).await)? else {
                // Superseded and past its grace since it was listed: there is a newer one.
                tokio::time::sleep(bucket.backoff(1)).await;
                continue 'again;
            };
            let found = Checkpoint::decode(&bytes, &name.id).map_err(|what| damaged(&object.key, what))?;
            if found.covers_below != covers_below {
                return Err(damaged(&object.key, FormatError::Slot(found.covers_below)));
            }
            if found.entry_slot < end {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    }
}

/// What came of putting a birth entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BirthOutcome {
    /// The chain is new and is the caller's.
    Created,
    /// There is one already: the birth of another attempt, or the fence of somebody who was faster.
    Exists(Entry),
}

/// Puts slot 0 of a new chain, durably. `body` has [`ENTRY_HEADER_LEN`] bytes reserved at its front.
///
/// Tried until the bucket's deadline; a conflict is resolved by reading back.
pub async fn put_birth(
    bucket: &Bucket,
    name: &ChainName,
    epoch: u64,
    body: BytesMut,
    why: Reason,
) -> Result<BirthOutcome, ChainError> {
    let put_id = bucket.env().random_id();
    let bytes = super::writer::freeze(EntryKind::Birth, name, 0, put_id, epoch, body, 0);
    match put_slot(bucket, name, 0, put_id, &bytes, why).await? {
        SlotPut::Ours => Ok(BirthOutcome::Created),
        SlotPut::Theirs => {
            let entry = read_birth(bucket, &name.prefix, why).await?;
            entry.map(BirthOutcome::Exists).ok_or_else(|| {
                ChainError::Store(StoreError::NotFound {
                    key: name.entry_key(0),
                })
            })
        }
    }
}

/// Slot 0 of whatever chain lies at `prefix`, its chain id not yet known; `None` if there is none.
pub async fn read_birth(bucket: &Bucket, prefix: &str, why: Reason) -> Result<Option<Entry>, ChainError> {
    let key = super::entry_key(prefix, 0);
    let Some(bytes) = unless_missing(bucket.get(&key, why).await)? else {
        return Ok(None);
    };
    let entry = Entry::decode(bytes).map_err(|what| damaged(&key, what))?;
    if entry.header.slot != 0 {
        return Err(damaged(&key, FormatError::Slot(entry.header.slot)));
    }
    Ok(Some(entry))
}

/// Who has a slot after a put of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotPut {
    Ours,
    Theirs,
}

/// Puts `bytes` into `slot` until it is known whose the slot is, or the bucket's deadline has passed.
pub(crate) async fn put_slot(
    bucket: &Bucket,
    name: &ChainName,
    slot: u64,
    put_id: [u8; 16],
    bytes: &Bytes,
    why: Reason,
) -> Result<SlotPut, ChainError> {
    let key = name.entry_key(slot);
    let began = tokio::time::Instant::now();
    let mut failed = 0;
    loop {
        let error = match bucket.put_new(&key, bytes.clone(), why).await {
            Ok(()) => return Ok(SlotPut::Ours),
            Err(PutNewError::Exists { .. }) => match read_back(bucket, &key, put_id, why).await? {
                ReadBack::Ours => return Ok(SlotPut::Ours),
                ReadBack::Theirs => return Ok(SlotPut::Theirs),
                ReadBack::Absent => StoreError::Unavailable {
                    operation: "create",
                    key: key.clone(),
                    attempts: 1,
                    what: "the store reports a conflict, but there is no such object".to_owned(),
                },
            },
            Err(PutNewError::Store(error)) => error,
        };
        failed += 1;
        let wait = bucket.backoff(failed);
        if !error.is_transient() || began.elapsed() + wait >= bucket.options().retry_for {
            return Err(error.after(failed).into());
        }
        tokio::time::sleep(wait).await;
    }
}

/// Whose object lies at a key where one's own put met a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadBack {
    Ours,
    Theirs,
    /// There is none: S3 answers 409 while another put of the key is on its way (rule F1).
    Absent,
}

/// Resolves *AlreadyExists*: it may be one's own success whose reply was lost.
pub(crate) async fn read_back(
    bucket: &Bucket,
    key: &str,
    put_id: [u8; 16],
    why: Reason,
) -> Result<ReadBack, StoreError> {
    let Some(front) = unless_missing(bucket.get_front(key, ENTRY_HEADER_LEN as u64, why).await)? else {
        return Ok(ReadBack::Absent);
    };
    // Bytes that are no header are certainly not what we put: stores answer whole objects.
    if EntryHeader::decode(&front).is_ok_and(|header| header.put_id == put_id) {
        bucket.settle(key).await?;
        return Ok(ReadBack::Ours);
    }
    Ok(ReadBack::Theirs)
}
