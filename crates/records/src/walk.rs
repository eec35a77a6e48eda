//! The walk over a batch's records that looks at their structure and at what a broker must know of each: offset, time,
//! whether there is a key. Keys, values and headers are passed over. A compressed batch goes through a small window, and
//! a record that is larger than the window is never held, so that a walk takes a few KiB however much comes out.

use crate::error::{BatchError, Flaw};
use crate::header::BatchHeader;
use crate::payload::Payload;
use crate::record::Limits;
use crate::varint::{self, Cursor, MAX_VARINT, MAX_VARLONG};

/// Compressed records up to this size are parsed in the window in one piece; larger ones field by field.
const IN_ONE_PIECE: usize = 16 * 1024;

/// What a walk knows of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Its position in the batch.
    pub(crate) index: i32,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp_delta: i64,
    pub(crate) has_key: bool,
}

/// Walks the records of `batch`, which is exactly the batch of `header`, until `visit` says false. A walk that comes to
/// the end has found each record well-formed and as many as the header says.
pub(crate) fn walk(
    header: &BatchHeader,
    batch: &[u8],
    limits: Limits,
    visit: impl FnMut(Passed) -> Result<bool, BatchError>,
) -> Result<(), BatchError> {
    match Payload::new(header, batch, limits)? {
        Payload::Plain(records) => walk_plain(header.records_count, records, visit),
        packed => walk_packed(header.records_count, packed, limits, visit),
    }
}

fn walk_plain(
    count: i32,
    mut rest: &[u8],
    mut visit: impl FnMut(Passed) -> Result<bool, BatchError>,
) -> Result<(), BatchError> {
    for index in 0..count {
        let mut cursor = Cursor(rest);
        let length = cursor.varint().ok_or_else(|| flaw(index, CUT))?;
        let length = usize::try_from(length).map_err(|_| flaw(index, NEGATIVE_LENGTH))?;
        let (body, after) = cursor
            .0
            .split_at_checked(length)
            .ok_or_else(|| flaw(index, BEYOND_BATCH))?;
        let passed = parse_body(index, body).map_err(|what| flaw(index, what))?;
        if !visit(passed)? {
            return Ok(());
        }
        rest = after;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Flaw::TrailingRecords.into())
    }
}

fn walk_packed(
    count: i32,
    mut payload: Payload<'_>,
    limits: Limits,
    mut visit: impl FnMut(Passed) -> Result<bool, BatchError>,
) -> Result<(), BatchError> {
    for index in 0..count {
        payload.fill(MAX_VARINT)?;
        let (length, used) = varint::read_i32(payload.available()).ok_or_else(|| flaw(index, CUT))?;
        let length = usize::try_from(length).map_err(|_| flaw(index, NEGATIVE_LENGTH))?;
        limits.check_record(index, length)?;
        let passed = if length <= IN_ONE_PIECE {
            let size = used + length;
            if payload.fill(size)? < size {
                return Err(flaw(index, BEYOND_BATCH));
            }
            let body = payload.take(size).get(used..).unwrap_or(&[]);
            parse_body(index, body).map_err(|what| flaw(index, what))?
        } else {
            payload.take(used);
            let mut fields = Fields {
                payload: &mut payload,
                left: length,
                index,
            };
            fields.record()?
        };
        if !visit(passed)? {
            return Ok(());
        }
    }
    if payload.fill(1)? > 0 {
        return Err(Flaw::TrailingRecords.into());
    }
    Ok(())
}

const CUT: &str = "bad or cut number";
const NEGATIVE_LENGTH: &str = "negative length";
const BEYOND_BATCH: &str = "longer than the batch";
const BEYOND_RECORD: &str = "field longer than the record";
const NEGATIVE_HEADERS: &str = "negative number of headers";
const NULL_HEADER_KEY: &str = "null header key";
const BEYOND_FIELDS: &str = "longer than its fields";

#[cold]
fn flaw(index: i32, what: &'static str) -> BatchError {
    Flaw::Record { index, what }.into()
}

/// Passes over a length and its bytes; false for null.
#[inline(always)]
fn pass_field(cursor: &mut Cursor<'_>) -> Result<bool, &'static str> {
    let length = cursor.varint().ok_or(CUT)?;
    match usize::try_from(length) {
        Ok(length) => {
            cursor.0 = cursor.0.get(length..).ok_or(BEYOND_RECORD)?;
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

/// Walks the fields of a record that is in memory, without its length.
#[inline(always)]
fn parse_body(index: i32, body: &[u8]) -> Result<Passed, &'static str> {
    // The first byte are attributes, which nobody has defined.
    let mut cursor = Cursor(body.get(1..).ok_or(BEYOND_RECORD)?);
    let timestamp_delta = cursor.varlong().ok_or(CUT)?;
    let offset_delta = cursor.varint().ok_or(CUT)?;
    let has_key = pass_field(&mut cursor)?;
    pass_field(&mut cursor)?;
    let headers = cursor.varint().ok_or(CUT)?;
    if headers < 0 {
        return Err(NEGATIVE_HEADERS);
    }
    for _ in 0..headers {
        if !pass_field(&mut cursor)? {
            return Err(NULL_HEADER_KEY);
        }
        pass_field(&mut cursor)?;
    }
    if !cursor.0.is_empty() {
        return Err(BEYOND_FIELDS);
    }
    Ok(Passed {
        index,
        offset_delta,
        timestamp_delta,
        has_key,
    })
}

/// The rest of one record that is not held.
struct Fields<'p, 'a> {
    payload: &'p mut Payload<'a>,
    left: usize,
    index: i32,
}

impl Fields<'_, '_> {
    fn flaw(&self, what: &'static str) -> BatchError {
        flaw(self.index, what)
    }

    /// Walks the fields after the length.
    fn record(&mut self) -> Result<Passed, BatchError> {
        self.skip(1)?;
        let timestamp_delta = self.varlong()?;
        let offset_delta = self.varint()?;
        let has_key = self.field()?;
        self.field()?;
        let headers = self.varint()?;
        if headers < 0 {
            return Err(self.flaw(NEGATIVE_HEADERS));
        }
        for _ in 0..headers {
            if !self.field()? {
                return Err(self.flaw(NULL_HEADER_KEY));
            }
            self.field()?;
        }
        if self.left != 0 {
            return Err(self.flaw(BEYOND_FIELDS));
        }
        Ok(Passed {
            index: self.index,
            offset_delta,
            timestamp_delta,
            has_key,
        })
    }

    /// Passes over a length and its bytes; false for null.
    fn field(&mut self) -> Result<bool, BatchError> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.skip(length).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn skip(&mut self, n: usize) -> Result<(), BatchError> {
        self.left = self.left.checked_sub(n).ok_or_else(|| self.flaw(BEYOND_RECORD))?;
        if self.payload.skip(n)? {
            Ok(())
        } else {
            Err(self.flaw(BEYOND_BATCH))
        }
    }

    fn varint(&mut self) -> Result<i32, BatchError> {
        self.payload.fill(MAX_VARINT)?;
        let (value, used) = varint::read_i32(self.payload.available()).ok_or_else(|| self.flaw(CUT))?;
        self.skip(used)?;
        Ok(value)
    }

    fn varlong(&mut self) -> Result<i64, BatchError> {
        self.payload.fill(MAX_VARLONG)?;
        let (value, used) = varint::read_i64(self.payload.available()).ok_or_else(|| self.flaw(CUT))?;
        self.skip(used)?;
        Ok(value)
    }
}
