//! Writing the protocol's types, with large byte fields by reference.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{EncodeError, Records, Str, UnknownTag, UnknownTags, Uuid};

type Result<T> = std::result::Result<T, EncodeError>;

/// From this length on, byte fields and records are taken by reference rather than copied: below it one
/// more segment in a vectored write costs more than the copy.
pub const SHARE_FROM: usize = 1024;

/// Collects a message: small fields in one buffer, large byte fields by reference between parts of it.
///
/// `flex` in its methods chooses the compact encoding of flexible versions.
#[derive(Debug)]
pub struct Writer {
    small: BytesMut,
    /// What is to stand before the byte of `small` at this position.
    shared: Vec<(usize, Bytes)>,
    shared_len: usize,
    share_from: usize,
}

macro_rules! fixed {
    ($($method:ident $ty:ty),*) => {$(
        #[doc = concat!("Writes a big-endian `", stringify!($ty), "`.")]
        #[inline]
        pub fn $method(&mut self, value: $ty) {
            self.small.put_slice(&value.to_be_bytes());
        }
    )*};
}

impl Default for Writer {
    fn default() -> Self {
        Writer::new()
    }
}

impl Writer {
    /// A writer that takes large byte fields by reference.
    pub fn new() -> Writer {
        Writer {
            small: BytesMut::with_capacity(256),
            shared: Vec::new(),
            shared_len: 0,
            share_from: SHARE_FROM,
        }
    }

    /// A writer that copies everything into one buffer.
    pub fn contiguous() -> Writer {
        Writer {
            share_from: usize::MAX,
            ..Writer::new()
        }
    }

    /// Bytes written so far, shared ones included.
    pub fn len(&self) -> usize {
        self.small.len() + self.shared_len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was written, in order, as few pieces as possible and none of them empty.
    pub fn into_segments(self) -> Vec<Bytes> {
        let small = self.small.freeze();
        let mut segments = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut done = 0;
        for (at, bytes) in self.shared {
            if at > done {
                segments.push(small.slice(done..at));
                done = at;
            }
            segments.push(bytes);
        }
        if done < small.len() {
            segments.push(small.slice(done..));
        }
        segments
    }

    /// What was written, in one piece; copies unless the writer is contiguous or shared nothing.
    pub fn into_bytes(self) -> Bytes {
        if self.shared.is_empty() {
            return self.small.freeze();
        }
        let mut all = BytesMut::with_capacity(self.len());
        for segment in self.into_segments() {
            all.put_slice(&segment);
        }
        all.freeze()
    }

    /// Reserves four bytes at the start for a length, to be filled by [`Writer::patch_length`].
    pub(crate) fn framed() -> Writer {
        let mut writer = Writer::new();
        writer.i32(0);
        writer
    }

    /// Fills the four bytes at the start with the length of what follows.
    pub(crate) fn patch_length(&mut self) -> Result<()> {
        let len = i32::try_from(self.len() - 4).map_err(|_| EncodeError::TooLong)?;
        self.small[..4].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    fixed!(i8 i8, i16 i16, u16 u16, i32 i32, u32 u32, i64 i64, f64 f64);

    /// Writes one byte, 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.i8(value.into());
    }

    /// Writes 16 bytes.
    #[inline]
    pub fn uuid(&mut self, value: Uuid) {
        self.small.put_slice(&value.0);
    }

    /// Writes a variable-length number.
    #[inline]
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.small.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.small.put_u8(value as u8);
    }

    /// The length of an array or a byte string.
    #[inline]
    fn length(&mut self, len: usize, flex: bool) -> Result<()> {
        let len = i32::try_from(len)
            .ok()
            .filter(|len| *len < i32::MAX)
            .ok_or(EncodeError::TooLong)?;
        if flex {
            self.uvarint(len as u32 + 1)
        } else {
            self.i32(len)
        }
        Ok(())
    }

    #[inline]
    fn null(&mut self, flex: bool) {
        if flex { self.uvarint(0) } else { self.i32(-1) }
    }

    fn share(&mut self, bytes: &Bytes) {
        if bytes.len() < self.share_from {
            self.small.put_slice(bytes);
        } else {
            self.shared_len += bytes.len();
            self.shared.push((self.small.len(), bytes.clone()));
        }
    }

    /// Writes a string.
    pub fn string(&mut self, text: &Str, flex: bool) -> Result<()> {
        let len = i16::try_from(text.len()).map_err(|_| EncodeError::TooLong)?;
        if flex {
            self.uvarint(len as u32 + 1)
        } else {
            self.i16(len)
        }
        self.small.put_slice(text.as_bytes());
        Ok(())
    }

    /// Writes a string or null.
    pub fn nullable_string(&mut self, text: Option<&Str>, flex: bool) -> Result<()> {
        match (text, flex) {
            (Some(text), _) => self.string(text, flex)?,
            (None, true) => self.uvarint(0),
            (None, false) => self.i16(-1),
        }
        Ok(())
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, bytes: &Bytes, flex: bool) -> Result<()> {
        self.length(bytes.len(), flex)?;
        self.share(bytes);
        Ok(())
    }

    /// Writes a byte string or null.
    pub fn nullable_bytes(&mut self, bytes: Option<&Bytes>, flex: bool) -> Result<()> {
        match bytes {
            Some(bytes) => self.bytes(bytes, flex)?,
            None => self.null(flex),
        }
        Ok(())
    }

    /// Writes records, piece after piece as one field.
    pub fn records(&mut self, records: &Records, flex: bool) -> Result<()> {
        self.length(records.len(), flex)?;
        for piece in records.pieces() {
            self.share(piece);
        }
        Ok(())
    }

    /// Writes records or null.
    pub fn nullable_records(&mut self, records: Option<&Records>, flex: bool) -> Result<()> {
        match records {
            Some(records) => self.records(records, flex)?,
            None => self.null(flex),
        }
        Ok(())
    }

    /// Writes a byte that says whether the structure is there, and the structure.
    pub fn nullable_struct<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        match value {
            None => self.i8(-1),
            Some(value) => {
                self.i8(1);
                write(self, value)?;
            }
        }
        Ok(())
    }

    /// The same in a tagged field, where Kafka's generator has 0 for null and 1 for a structure.
    pub fn nullable_tagged_struct<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.uvarint(u32::from(value.is_some()));
        value.map_or(Ok(()), |value| write(self, value))
    }

    /// Writes an array.
    #[inline]
    pub fn array<T>(
        &mut self,
        elements: &[T],
        flex: bool,
        mut write: impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.length(elements.len(), flex)?;
        for element in elements {
            write(self, element)?;
        }
        Ok(())
    }

    /// Writes an array or null.
    #[inline]
    pub fn nullable_array<T>(
        &mut self,
        elements: Option<&[T]>,
        flex: bool,
        write: impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        match elements {
            Some(elements) => self.array(elements, flex, write)?,
            None => self.null(flex),
        }
        Ok(())
    }

    /// Starts a section of tagged fields with this many known ones, to which the unknown ones are merged.
    pub fn start_tags<'a>(&mut self, known: usize, unknown: &'a UnknownTags) -> Result<TagSection<'a>> {
        let mut unknown: Vec<&UnknownTag> = unknown.as_slice().iter().collect();
        if !unknown.is_sorted_by(|a, b| a.tag < b.tag) {
            unknown.sort_by_key(|field| field.tag);
            unknown.dedup_by(|later, kept| {
                let again = later.tag == kept.tag;
                if again {
                    *kept = *later;
                }
                again
            });
        }
        self.uvarint(u32::try_from(known + unknown.len()).map_err(|_| EncodeError::TooLong)?);
        Ok(TagSection {
            unknown: unknown.into_iter().peekable(),
        })
    }

    /// Writes a section of tagged fields of which none is known.
    pub fn unknown_tags(&mut self, unknown: &UnknownTags) -> Result<()> {
        self.start_tags(0, unknown)?.finish(self)
    }
}

/// A section of tagged fields that is being written, in ascending order of their tags.
pub struct TagSection<'a> {
    unknown: std::iter::Peekable<std::vec::IntoIter<&'a UnknownTag>>,
}

impl TagSection<'_> {
    /// Writes the unknown fields whose tags are below that of the known field that comes next; all, if none does.
    fn write_unknown_below(&mut self, w: &mut Writer, end: Option<u32>) -> Result<()> {
        while let Some(field) = self
            .unknown
            .next_if(|field| end.is_none_or(|end| field.tag < end))
        {
            w.uvarint(field.tag);
            w.uvarint(u32::try_from(field.data.len()).map_err(|_| EncodeError::TooLong)?);
            w.small.put_slice(&field.data);
        }
        Ok(())
    }

    /// Writes a known field, after the unknown ones that stand before it. Known fields are given in ascending order.
    pub fn known(
        &mut self,
        w: &mut Writer,
        tag: u32,
        write: impl FnOnce(&mut Writer) -> Result<()>,
    ) -> Result<()> {
        self.write_unknown_below(w, Some(tag))?;
        if self.unknown.peek().is_some_and(|field| field.tag == tag) {
            return Err(EncodeError::KnownTag(tag));
        }
        w.uvarint(tag);
        // The size stands before the content: one byte is left for it, and the content moves if it needs more.
        // Nothing is shared meanwhile, so that all of the content is in `small`.
        let share_from = std::mem::replace(&mut w.share_from, usize::MAX);
        let at = w.small.len();
        w.small.put_u8(0);
        let written = write(w);
        w.share_from = share_from;
        written?;
        let start = at + 1;
        let size = w.small.len() - start;
        if size < 0x80 {
            w.small[at] = size as u8;
        } else {
            let end = w.small.len();
            w.uvarint(u32::try_from(size).map_err(|_| EncodeError::TooLong)?);
            // What was just written behind the content comes to stand in front of it.
            let digits = w.small.len() - end;
            w.small[start..].rotate_right(digits);
            let moved = w.small.len() - 1;
            w.small.copy_within(start..=moved, at);
            w.small.truncate(moved);
        }
        Ok(())
    }

    /// Writes the unknown fields that are left.
    pub fn finish(mut self, w: &mut Writer) -> Result<()> {
        self.write_unknown_below(w, None)
    }
}

/// The value of a field that may be null, but not in this version.
pub(crate) fn required<'a, T>(value: &'a Option<T>, field: &'static str) -> Result<&'a T> {
    value.as_ref().ok_or(EncodeError::Null(field))
}
