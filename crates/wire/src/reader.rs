//! Reading the protocol's types from bytes, by reference and within a budget.

use bytes::Bytes;

use crate::{DecodeError, Records, Str, UnknownTags, Uuid, limits};

type Result<T> = std::result::Result<T, DecodeError>;

/// Longest string that either encoding allows.
const MAX_STRING: usize = i16::MAX as usize;

/// A position in a body. `flex` in its methods chooses the compact encoding of flexible versions.
///
/// It takes and refuses what Kafka's own reader does, oddities included, since some client relies on each:
/// any length below zero is null, tagged fields may come in any order and again (the last one counts), the
/// size of a known one is not looked at, and bits of a variable-length number beyond the 32nd are dropped.
/// Only the budget is stricter. `docs/protocol-differences.md` has the list.
pub struct Reader<'a> {
    body: &'a Bytes,
    rest: &'a [u8],
    budget: usize,
}

macro_rules! fixed {
    ($($method:ident $ty:ty),*) => {$(
        #[doc = concat!("Reads a big-endian `", stringify!($ty), "`.")]
        #[inline]
        pub fn $method(&mut self) -> Result<$ty> {
            Ok(<$ty>::from_be_bytes(*self.chunk()?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the start of the body, which may reserve at most `cap` bytes of memory.
    pub fn new(body: &'a Bytes, cap: usize) -> Reader<'a> {
        Reader {
            body,
            rest: body,
            budget: limits::budget(body.len(), cap),
        }
    }

    /// Bytes that were not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Refuses bytes that are left over: for what Drumlin itself wrote, never for a peer's request.
    pub fn finish(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(DecodeError::Trailing(more)),
        }
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fixed!(i8 i8, i16 i16, u16 u16, i32 i32, u32 u32, i64 i64, f64 f64);

    /// Reads a byte that is true unless it is zero.
    #[inline]
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    /// Reads 16 bytes.
    #[inline]
    pub fn uuid(&mut self) -> Result<Uuid> {
        Ok(Uuid(*self.chunk()?))
    }

    /// Reads a variable-length number of at most five bytes; bits beyond the 32nd are dropped.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21] {
            let [byte] = *self.chunk()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        let [byte] = *self.chunk()?;
        if byte > 0x7f {
            return Err(DecodeError::Varint);
        }
        Ok(value | u32::from(byte) << 28)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<Bytes> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(self.slice(head))
    }

    #[inline]
    fn slice(&self, part: &'a [u8]) -> Bytes {
        // An empty slice would keep the whole frame alive for nothing.
        if part.is_empty() {
            Bytes::new()
        } else {
            self.body.slice_ref(part)
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or(DecodeError::Budget)?;
        Ok(())
    }

    /// A length in its compact encoding, one more than its value; `None`, for null, if it is negative in 32 bits.
    #[inline]
    fn compact_length(&mut self) -> Result<Option<usize>> {
        let len = self.uvarint()?.wrapping_sub(1).cast_signed();
        Ok(usize::try_from(len).ok())
    }

    /// The length of an array or a byte string; `None`, for null, if it is negative.
    #[inline]
    fn length(&mut self, flex: bool) -> Result<Option<usize>> {
        if flex {
            return self.compact_length();
        }
        Ok(usize::try_from(self.i32()?).ok())
    }

    /// Reads a string that may be null.
    pub fn nullable_string(&mut self, flex: bool) -> Result<Option<Str>> {
        let len = if flex {
            self.compact_length()?
        } else {
            usize::try_from(self.i16()?).ok()
        };
        let Some(len) = len else { return Ok(None) };
        if len > MAX_STRING {
            return Err(DecodeError::Length);
        }
        match Str::from_utf8(self.take(len)?) {
            Ok(text) => Ok(Some(text)),
            Err(bytes) => {
                self.charge(Str::repaired_len(&bytes))?;
                Ok(Some(Str::from_utf8_lossy(&bytes)))
            }
        }
    }

    /// Reads a string.
    pub fn string(&mut self, flex: bool) -> Result<Str> {
        self.nullable_string(flex)?.ok_or(DecodeError::Null)
    }

    /// Reads a byte string that may be null, by reference.
    pub fn nullable_bytes(&mut self, flex: bool) -> Result<Option<Bytes>> {
        match self.length(flex)? {
            None => Ok(None),
            Some(len) => self.take(len).map(Some),
        }
    }

    /// Reads a byte string, by reference.
    pub fn bytes(&mut self, flex: bool) -> Result<Bytes> {
        self.nullable_bytes(flex)?.ok_or(DecodeError::Null)
    }

    /// Reads records that may be null, by reference, in one piece.
    pub fn nullable_records(&mut self, flex: bool) -> Result<Option<Records>> {
        Ok(self.nullable_bytes(flex)?.map(Records::from))
    }

    /// Reads records, by reference, in one piece.
    pub fn records(&mut self, flex: bool) -> Result<Records> {
        Ok(Records::from(self.bytes(flex)?))
    }

    /// Reads a structure that a leading byte says is there or null.
    pub fn nullable_struct<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.i8()? < 0 {
            Ok(None)
        } else {
            read(self).map(Some)
        }
    }

    /// The same in a tagged field, where Kafka's generator has 0 for null and 1 for a structure.
    pub fn nullable_tagged_struct<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Option<T>> {
        if self.uvarint()?.cast_signed() <= 0 {
            Ok(None)
        } else {
            read(self).map(Some)
        }
    }

    /// Reads an array that may be null, whose elements take at least `min` bytes each.
    #[inline]
    pub fn nullable_array<T>(
        &mut self,
        flex: bool,
        min: usize,
        read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        match self.length(flex)? {
            None => Ok(None),
            Some(count) => self.elements(count, min, read).map(Some),
        }
    }

    /// Reads an array whose elements take at least `min` bytes each.
    #[inline]
    pub fn array<T>(
        &mut self,
        flex: bool,
        min: usize,
        read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.length(flex)?.ok_or(DecodeError::Null)?;
        self.elements(count, min, read)
    }

    #[inline]
    fn elements<T>(
        &mut self,
        count: usize,
        min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        // Both before anything is reserved: the count must fit what is left, and the memory the budget.
        if count > self.rest.len() / min {
            return Err(DecodeError::Truncated);
        }
        self.charge(count.saturating_mul(size_of::<T>()))?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    /// Reads a section of tagged fields. `known` reads a field and says true, or says false without reading
    /// if it does not know the tag; such fields are returned in the order in which they came.
    ///
    /// As Kafka's reader does: a known field ends where its content ends, whatever its size says; one that
    /// comes again replaces the earlier one; a count that is negative in 32 bits stands for none.
    #[inline]
    pub fn tags(&mut self, mut known: impl FnMut(&mut Self, u32) -> Result<bool>) -> Result<UnknownTags> {
        let mut unknown = UnknownTags::default();
        // Each field takes at least two bytes, so the loop ends with the body, whatever the count claims.
        for _ in 0..self.uvarint()?.cast_signed() {
            let tag = self.uvarint()?;
            let size = self.uvarint()?;
            if known(self, tag)? {
                continue;
            }
            // A growing vector may hold half as much again as it has, and had both for a moment.
            self.charge(3 * size_of::<crate::UnknownTag>())?;
            let size = usize::try_from(size).map_err(|_| DecodeError::Length)?;
            unknown.push(tag, self.take(size)?);
        }
        Ok(unknown)
    }

    /// Reads a section of tagged fields of which none is known.
    pub fn unknown_tags(&mut self) -> Result<UnknownTags> {
        self.tags(|_, _| Ok(false))
    }
}
