//! The primitives of this crate's stored formats, and how reading them fails.
//!
//! | primitive | bytes |
//! | --- | --- |
//! | `uint` | LEB128, 1–10 bytes, low groups first |
//! | `int` | zigzag, then `uint` |
//! | `string` | `uint` length, UTF-8 |
//! | `id` | 16 bytes as they are |
//! | `option` | one byte, 0 or 1; then the value if 1 |
//! | `list` | `uint` count, then the items |
//!
//! A reader never allocates more than its input could hold, and refuses what it does not know.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// Why stored bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("ends too early, in {0}")]
    Truncated(&'static str),
    /// Bytes are left after the last field.
    #[error("{0} bytes are left over after {1}")]
    LeftOver(usize, &'static str),
    /// A field holds what no writer puts there.
    #[error("{0}")]
    Invalid(&'static str),
    /// Not this kind of object at all.
    #[error("is not a {0}: its first bytes are wrong")]
    Magic(&'static str),
    /// The checksum does not match.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// What the bytes say.
        stored: u32,
        /// What the bytes are.
        computed: u32,
    },
    /// A record of a kind that this build does not know.
    #[error(
        "holds a metadata record of unknown kind {0}; it was written by a newer drumlin: start that or a later version"
    )]
    UnknownKind(u8),
    /// A part of a kind that this build does not know.
    #[error(
        "holds a section of unknown kind {0}; it was written by a newer drumlin: start that or a later version"
    )]
    UnknownSection(u8),
    /// A format version that this build does not know.
    #[error(
        "{what} has format version {version}, and this build reads up to {newest}; it was written by a newer drumlin: start that or a later version"
    )]
    UnknownVersion {
        /// What was being read.
        what: &'static str,
        /// The version found.
        version: u16,
        /// The newest version known.
        newest: u16,
    },
}

/// Reads primitives off the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, naming `what` in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated(self.what))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated(self.what))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn id(&mut self) -> Result<[u8; 16], DecodeError> {
        self.array()
    }

    pub(crate) fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                break;
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid("an integer is longer than 64 bits"))
    }

    pub(crate) fn int(&mut self) -> Result<i64, DecodeError> {
        let raw = self.uint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// An `int` that must fit the narrower type that its field has.
    pub(crate) fn narrow<T: TryFrom<i64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.int()?).map_err(|_| DecodeError::Invalid("an integer is out of its field's range"))
    }

    /// A `uint` that must fit the narrower type that its field has.
    pub(crate) fn narrow_uint<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.uint()?).map_err(|_| DecodeError::Invalid("an integer is out of its field's range"))
    }

    /// A count of items that take at least a byte each, so that a lying count cannot allocate.
    pub(crate) fn count(&mut self) -> Result<usize, DecodeError> {
        let count = self.narrow_uint::<usize>()?;
        if count > self.rest.len() {
            return Err(DecodeError::Truncated(self.what));
        }
        Ok(count)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.count()?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| DecodeError::Invalid("a string is not UTF-8"))
    }

    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        Ok(self.str()?.to_owned())
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        Ok(if self.flag()? { Some(read(self)?) } else { None })
    }

    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count()?;
        (0..count).map(|_| read(self)).collect()
    }

    /// A part whose length stands before it, as a reader of its own.
    pub(crate) fn part(&mut self, what: &'static str) -> Result<Reader<'a>, DecodeError> {
        let len = self.count()?;
        Ok(Reader::new(self.bytes(len)?, what))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::LeftOver(self.rest.len(), self.what))
        }
    }
}

/// Writes the primitives that [`Reader`] reads.
pub(crate) trait Write: BufMut {
    fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    fn int(&mut self, value: i64) {
        self.uint((value << 1).cast_unsigned() ^ (value >> 63).cast_unsigned());
    }

    fn count(&mut self, count: usize) {
        self.uint(count as u64);
    }

    fn string(&mut self, value: &str) {
        self.count(value.len());
        self.put_slice(value.as_bytes());
    }

    fn flag(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

impl Write for BytesMut {}

/// Writes a part with its length before it.
pub(crate) fn part(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let mut inner = BytesMut::new();
    write(&mut inner);
    out.count(inner.len());
    out.put_slice(&inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip_at_their_edges() {
        for value in [0, 1, 63, 64, -1, -64, -65, i64::MAX, i64::MIN, 1 << 35] {
            let mut out = BytesMut::new();
            out.int(value);
            out.uint(value.cast_unsigned());
            let mut reader = Reader::new(&out, "test");
            assert_eq!(reader.int(), Ok(value));
            assert_eq!(reader.uint(), Ok(value.cast_unsigned()));
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn lies_are_refused_without_allocating() {
        assert!(Reader::new(&[0xff; 11], "test").uint().is_err());
        let mut over = [0xff; 10];
        over[9] = 2;
        assert!(Reader::new(&over, "test").uint().is_err());
        let mut out = BytesMut::new();
        out.uint(u64::MAX);
        assert!(Reader::new(&out, "test").str().is_err());
        assert!(Reader::new(&out, "test").list(|r| r.u8()).is_err());
        assert!(Reader::new(&[2], "test").flag().is_err());
        assert!(Reader::new(&[2, 0xc3, 0x28], "test").str().is_err());
    }
}
