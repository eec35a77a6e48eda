//! Record bytes, in one piece or several.

use std::fmt;

use bytes::{Bytes, BytesMut};

/// The value of a `records` field: bytes that are taken and given by reference.
///
/// Decoding gives one piece, a slice of the frame. A fetch answers with as many pieces as it has extents,
/// in order and as if they were one, without copying them together. Null is `Option::None` around it.
#[derive(Clone, Default)]
pub struct Records(Pieces);

#[derive(Clone)]
enum Pieces {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Default for Pieces {
    fn default() -> Self {
        Pieces::One(Bytes::new())
    }
}

impl Records {
    /// No bytes (not null).
    pub const EMPTY: Records = Records(Pieces::One(Bytes::new()));

    /// The pieces in order; some may be empty.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.0 {
            Pieces::One(bytes) => std::slice::from_ref(bytes),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// Adds bytes at the end, by reference.
    pub fn push(&mut self, bytes: Bytes) {
        match &mut self.0 {
            Pieces::One(first) if first.is_empty() => *first = bytes,
            Pieces::One(first) => self.0 = Pieces::Many(vec![std::mem::take(first), bytes]),
            Pieces::Many(pieces) => pieces.push(bytes),
        }
    }

    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.pieces().iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces().iter().all(Bytes::is_empty)
    }

    /// The bytes in one piece; copies only if there are several.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Pieces::One(bytes) => bytes,
            Pieces::Many(pieces) => {
                let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
                for piece in pieces {
                    all.extend_from_slice(&piece);
                }
                all.freeze()
            }
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records(Pieces::One(bytes))
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(pieces: Vec<Bytes>) -> Records {
        Records(Pieces::Many(pieces))
    }
}

impl FromIterator<Bytes> for Records {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Records {
        let mut records = Records::default();
        for piece in pieces {
            records.push(piece);
        }
        records
    }
}

/// By content, however it is cut.
impl PartialEq for Records {
    fn eq(&self, other: &Records) -> bool {
        self.len() == other.len() && self.pieces().iter().flatten().eq(other.pieces().iter().flatten())
    }
}

impl Eq for Records {}

/// Prints sizes: the content is somebody's data.
impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Records({} bytes in {} pieces)",
            self.len(),
            self.pieces().len()
        )
    }
}
