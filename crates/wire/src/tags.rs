//! Tagged fields that a schema does not know.

use bytes::Bytes;

/// A tagged field as raw bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTag {
    /// The tag.
    pub tag: u32,
    /// The field's bytes, without tag and size.
    pub data: Bytes,
}

/// Unknown tagged fields in the order in which they came. They are written among the known ones, in ascending
/// order of their tags; of several with the same tag the last one is written.
///
/// One machine word, as nearly every structure of nearly every message has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(
    clippy::box_collection,
    reason = "a vector is three words, and this is almost always empty"
)]
pub struct UnknownTags(Option<Box<Vec<UnknownTag>>>);

impl UnknownTags {
    /// The fields.
    pub fn as_slice(&self) -> &[UnknownTag] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Adds a field.
    pub fn push(&mut self, tag: u32, data: Bytes) {
        // Room for one: by itself the vector would begin with four, which is what a hostile peer could use.
        let fields = self.0.get_or_insert_with(|| Box::new(Vec::with_capacity(1)));
        fields.push(UnknownTag { tag, data });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}
