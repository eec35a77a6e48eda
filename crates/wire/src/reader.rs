//! Reading the protocol's types from bytes, by reference and within a budget.

use bytes::Bytes;

use crate::{DecodeError, Records, Str, UnknownTags, Uuid, limits};

type Result<T> = std::result::Result<T, DecodeError>;

/// Longest string that either encoding allows.
const MAX_STRING: usize = i16::MAX as usize;

/// A position in a body. `flex` in its methods chooses the compact encoding of flexible versions.
///
/// As strict as Java's reader, and stricter where Java takes nonsense that nobody sends: tags must ascend, a
/// tagged field must have its claimed size, lengths below -1 and numbers of more than 32 bits are refused.
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

    /// Refuses bytes that are left over.
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

    /// Reads a variable-length number of at most 32 bits.
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
        if byte > 0x0f {
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

    /// The length of an array or a byte string; `None` for null.
    #[inline]
    fn length(&mut self, flex: bool) -> Result<Option<usize>> {
        if flex {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        match self.i32()? {
            -1 => Ok(None),
            len => usize::try_from(len).map(Some).map_err(|_| DecodeError::Length),
        }
    }

    /// Reads a string that may be null.
    pub fn nullable_string(&mut self, flex: bool) -> Result<Option<Str>> {
        let len = if flex {
            (self.uvarint()? as usize).checked_sub(1)
        } else {
            match self.i16()? {
                -1 => None,
                len => Some(usize::try_from(len).map_err(|_| DecodeError::Length)?),
            }
        };
        let Some(len) = len else { return Ok(None) };
        if len > MAX_STRING {
            return Err(DecodeError::Length);
        }
        match Str::from_utf8(self.take(len)?) {
            Ok(text) => Ok(Some(text)),
            Err(bytes) => {
                // Three times the length, and as much again while the copy grows.
                self.charge(6 * bytes.len())?;
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
        match self.uvarint()? {
            0 => Ok(None),
            _ => read(self).map(Some),
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
    /// if it does not know the tag; such fields are returned.
    #[inline]
    pub fn tags(&mut self, mut known: impl FnMut(&mut Self, u32) -> Result<bool>) -> Result<UnknownTags> {
        let mut unknown = UnknownTags::default();
        let count = self.uvarint()?;
        let mut previous = None;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if previous.is_some_and(|p| tag <= p) {
                return Err(DecodeError::TagOrder);
            }
            previous = Some(tag);
            let size = self.uvarint()? as usize;
            let (field, rest) = self.rest.split_at_checked(size).ok_or(DecodeError::Truncated)?;
            // The field is read from its own bytes alone, so that it cannot reach beyond its size.
            self.rest = field;
            if known(self, tag)? {
                if !self.rest.is_empty() {
                    return Err(DecodeError::TagSize);
                }
            } else {
                // A growing vector may hold half as much again as it has, and had both for a moment.
                self.charge(3 * size_of::<crate::UnknownTag>())?;
                unknown.push(tag, self.slice(field));
            }
            self.rest = rest;
        }
        Ok(unknown)
    }

    /// Reads a section of tagged fields of which none is known.
    pub fn unknown_tags(&mut self) -> Result<UnknownTags> {
        self.tags(|_, _| Ok(false))
    }
}
