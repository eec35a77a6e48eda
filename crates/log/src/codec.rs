//! The bytes of persisted formats: varints, strings, and a frame with magic, version and checksum.
//!
//! Every object of this crate's own is `magic (4) · version (1) · body · CRC32C of all before (4, big-endian)`.
//! A reader refuses an unknown magic or version, a wrong sum and trailing bytes; it never allocates for a
//! count that the rest of the input could not hold.

use thiserror::Error;

/// Why persisted bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The bytes end before their content does.
    #[error("cut short")]
    Short,
    /// Another kind of object, or none of ours.
    #[error("not a {0}")]
    Magic(&'static str),
    /// Written by a newer release.
    #[error("format version {0} is not known to this release; a newer one wrote it")]
    Version(u8),
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// A value that no writer produces.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

impl FormatError {
    /// What an operator can do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Version(_) => "start that release, or a later one",
            Self::Short | Self::Magic(_) | Self::Checksum | Self::Invalid(_) => {
                "restore it from a copy of the bucket; `drumlin store check` names all that is wrong"
            }
        }
    }
}

const FRAME_HEAD: usize = 5;
const FRAME_TAIL: usize = 4;

/// Appends encoded values to a vector.
#[derive(Debug, Default)]
pub(crate) struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    pub(crate) fn framed(magic: [u8; 4], version: u8) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&magic);
        bytes.push(version);
        Self(bytes)
    }

    /// Ends a frame.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.0);
        self.0.extend_from_slice(&crc.to_be_bytes());
        self.0
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn uvar(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn var(&mut self, value: i64) {
        self.uvar(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(crate) fn len(&mut self, value: usize) {
        self.uvar(value as u64);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.raw(bytes);
    }

    pub(crate) fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }
}

/// Reads what [`Encoder`] wrote.
#[derive(Debug)]
pub(crate) struct Decoder<'a>(&'a [u8]);

type Result<T> = std::result::Result<T, FormatError>;

impl<'a> Decoder<'a> {
    #[cfg(test)]
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Checks a frame and returns its version with a decoder of its body.
    pub(crate) fn framed(
        bytes: &'a [u8],
        magic: [u8; 4],
        name: &'static str,
        newest: u8,
    ) -> Result<(u8, Self)> {
        if bytes.len() < FRAME_HEAD + FRAME_TAIL {
            return Err(FormatError::Short);
        }
        let (content, tail) = bytes.split_at(bytes.len() - FRAME_TAIL);
        if content[..4] != magic {
            return Err(FormatError::Magic(name));
        }
        let version = content[4];
        if version == 0 || version > newest {
            return Err(FormatError::Version(version));
        }
        if crc32c::crc32c(content).to_be_bytes() != tail {
            return Err(FormatError::Checksum);
        }
        Ok((version, Self(&content[FRAME_HEAD..])))
    }

    /// Ends reading: everything must have been read.
    pub(crate) fn finish(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Invalid("trailing bytes"))
        }
    }

    pub(crate) fn raw(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.0.len() {
            return Err(FormatError::Short);
        }
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(FormatError::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn uvar(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FormatError::Invalid("varint"))
    }

    pub(crate) fn var(&mut self) -> Result<i64> {
        let raw = self.uvar()?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        i32::try_from(self.var()?).map_err(|_| FormatError::Invalid("number"))
    }

    pub(crate) fn i16(&mut self) -> Result<i16> {
        i16::try_from(self.var()?).map_err(|_| FormatError::Invalid("number"))
    }

    /// A non-negative offset or position.
    pub(crate) fn offset(&mut self) -> Result<i64> {
        i64::try_from(self.uvar()?).map_err(|_| FormatError::Invalid("offset"))
    }

    /// A count of items that take at least `least` bytes each.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize> {
        let count = usize::try_from(self.uvar()?).map_err(|_| FormatError::Short)?;
        if count > self.0.len() / least.max(1) {
            return Err(FormatError::Short);
        }
        Ok(count)
    }

    pub(crate) fn list<T>(
        &mut self,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.count(least)?;
        let mut items = Vec::with_capacity(count.min(4096));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.count(1)?;
        self.raw(count)
    }

    pub(crate) fn str(&mut self) -> Result<String> {
        std::str::from_utf8(self.bytes()?)
            .map(str::to_owned)
            .map_err(|_| FormatError::Invalid("text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_keep_the_whole_range() {
        for value in [0i64, 1, -1, 63, 64, i64::MAX, i64::MIN, 1 << 35] {
            let mut out = Encoder::default();
            out.var(value);
            out.uvar(value as u64);
            let mut input = Decoder::new(&out.0);
            assert_eq!((input.var(), input.uvar()), (Ok(value), Ok(value as u64)));
        }
        assert_eq!(
            Decoder::new(&[0xff; 11]).uvar(),
            Err(FormatError::Invalid("varint"))
        );
    }

    #[test]
    fn frames_refuse_what_is_not_theirs() {
        let mut out = Encoder::framed(*b"TEST", 1);
        out.str("hello");
        let frame = out.finish();
        assert!(Decoder::framed(&frame, *b"TEST", "test", 1).is_ok());
        assert_eq!(
            Decoder::framed(&frame, *b"NOPE", "nope", 1).unwrap_err(),
            FormatError::Magic("nope")
        );
        assert_eq!(
            Decoder::framed(&frame[..8], *b"TEST", "test", 1).unwrap_err(),
            FormatError::Short
        );
        let mut newer = frame.clone();
        newer[4] = 9;
        assert_eq!(
            Decoder::framed(&newer, *b"TEST", "test", 1).unwrap_err(),
            FormatError::Version(9)
        );
        for at in 5..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 1;
            assert_eq!(
                Decoder::framed(&bad, *b"TEST", "test", 1).unwrap_err(),
                FormatError::Checksum
            );
        }
    }
}
