//! Strings that share the frame they came in.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

/// A UTF-8 string over [`Bytes`]: decoding one neither copies nor allocates.
///
/// It keeps the whole frame alive that it was decoded from: call [`Str::detach`] before storing one for
/// longer than a request lasts.
///
/// **Invalid UTF-8** is replaced by U+FFFD when decoded, exactly as Java does, so that a client whose client id
/// is Latin-1 works here as it does there; a name with a replacement in it is no legal topic's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Str(Bytes);

impl Str {
    /// The empty string.
    pub const EMPTY: Str = Str(Bytes::new());

    /// A string of the program's own, without allocation.
    pub const fn from_static(text: &'static str) -> Str {
        Str(Bytes::from_static(text.as_bytes()))
    }

    /// The bytes as a string, by reference; the bytes again if they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Str, Bytes> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Str(bytes)),
            Err(_) => Err(bytes),
        }
    }

    /// A copy of the bytes, with U+FFFD for what is not UTF-8. It may be three times as long.
    pub fn from_utf8_lossy(bytes: &[u8]) -> Str {
        let mut text = String::with_capacity(Str::repaired_len(bytes));
        repair(bytes, |piece| text.push_str(piece));
        Str::from(text)
    }

    /// Length of what [`Str::from_utf8_lossy`] makes of the bytes.
    pub(crate) fn repaired_len(bytes: &[u8]) -> usize {
        let mut len = 0;
        repair(bytes, |piece| len += piece.len());
        len
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked again rather than assumed: names are short, and the crate does without unsafe code.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy of its own, which keeps no frame alive.
    pub fn detach(&self) -> Str {
        Str(Bytes::copy_from_slice(&self.0))
    }
}

/// Gives the bytes as text, piece by piece, with U+FFFD in the place of each malformed sequence.
///
/// Java's decoder and Rust's agree on which sequences those are, but for one: an encoded surrogate is one to
/// Java and two or three to Rust.
fn repair(mut bytes: &[u8], mut take: impl FnMut(&str)) {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => return take(text),
            Err(error) => error,
        };
        let (valid, malformed) = bytes.split_at(error.valid_up_to());
        take(std::str::from_utf8(valid).unwrap_or_default());
        take("\u{fffd}");
        let skipped = match malformed {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => 3,
            [0xed, 0xa0..=0xbf, ..] => 2,
            // The text ends within a sequence if there is no length.
            _ => error.error_len().unwrap_or(malformed.len()),
        };
        bytes = malformed.get(skipped..).unwrap_or_default();
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Str {
        Str(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        Str(Bytes::from(text))
    }
}

impl From<&Str> for String {
    fn from(text: &Str) -> String {
        text.as_str().to_owned()
    }
}

impl std::ops::Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl std::borrow::Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

// As `str` hashes, so that maps keyed by `Str` can be asked with a `&str`.
impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
