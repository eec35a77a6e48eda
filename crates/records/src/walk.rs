//! The walk over a batch's records on produce to a compacted topic: structure, offsets and keys. Values are passed over
//! in the decompression window and never held, so a walk takes a few KiB however large the records are.

use crate::error::{BatchError, Flaw, RecordFault};
use crate::header::BatchHeader;
use crate::payload::Payload;
use crate::record::Limits;
use crate::varint::{self, MAX_VARINT, MAX_VARLONG};

/// Walks all records of `batch`, which is exactly the batch of `header`: each well-formed, its offset delta its index, its
/// key not null.
pub(crate) fn walk(header: &BatchHeader, batch: &[u8], limits: Limits) -> Result<(), BatchError> {
    let mut payload = Payload::new(header, batch, limits)?;
    let mut keyless = Vec::new();
    for index in 0..header.records_count {
        let mut fields = Fields {
            payload: &mut payload,
            left: MAX_VARINT,
            index,
        };
        let length = fields.varint()?;
        fields.left = usize::try_from(length).map_err(|_| fields.flaw("negative length"))?;
        if fields.record()? && keyless.len() < RecordFault::MAX_LISTED {
            keyless.push(index);
        }
    }
    if payload.fill(1)? > 0 {
        return Err(Flaw::TrailingRecords.into());
    }
    if !keyless.is_empty() {
        return Err(BatchError::InvalidRecords {
            fault: RecordFault::NullKey,
            indexes: keyless,
        });
    }
    Ok(())
}

/// The rest of one record.
struct Fields<'p, 'a> {
    payload: &'p mut Payload<'a>,
    left: usize,
    index: i32,
}

impl Fields<'_, '_> {
    fn flaw(&self, what: &'static str) -> BatchError {
        Flaw::Record {
            index: self.index,
            what,
        }
        .into()
    }

    /// Walks the fields after the length; true when the key is null.
    fn record(&mut self) -> Result<bool, BatchError> {
        self.skip(1)?;
        self.varlong()?;
        if self.varint()? != self.index {
            return Err(self.flaw("offset delta is not its index"));
        }
        let keyless = self.field()?.is_none();
        self.field()?;
        let headers = self.varint()?;
        if headers < 0 {
            return Err(self.flaw("negative number of headers"));
        }
        for _ in 0..headers {
            if self.field()?.is_none() {
                return Err(self.flaw("null header key"));
            }
            self.field()?;
        }
        if self.left != 0 {
            return Err(self.flaw("longer than its fields"));
        }
        Ok(keyless)
    }

    /// Passes over a length and its bytes; `None` for null.
    fn field(&mut self) -> Result<Option<()>, BatchError> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.skip(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn skip(&mut self, n: usize) -> Result<(), BatchError> {
        self.left = self
            .left
            .checked_sub(n)
            .ok_or_else(|| self.flaw("field longer than the record"))?;
        if self.payload.skip(n)? {
            Ok(())
        } else {
            Err(self.flaw("longer than the batch"))
        }
    }

    fn varint(&mut self) -> Result<i32, BatchError> {
        self.payload.fill(MAX_VARINT)?;
        let (value, used) =
            varint::read_i32(self.payload.available()).ok_or_else(|| self.flaw("bad or cut number"))?;
        self.skip(used)?;
        Ok(value)
    }

    fn varlong(&mut self) -> Result<i64, BatchError> {
        self.payload.fill(MAX_VARLONG)?;
        let (value, used) =
            varint::read_i64(self.payload.available()).ok_or_else(|| self.flaw("bad or cut number"))?;
        self.skip(used)?;
        Ok(value)
    }
}
