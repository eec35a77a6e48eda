//! What can be wrong with bytes, and with messages that are to become bytes.

/// Why bytes are not the message that they claim to be. All of these mean a broken or hostile peer, or a
/// version mismatch: the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the message does, or a length claims more than there is.
    #[error("the message ends too early")]
    Truncated,
    /// The message ends before the bytes do.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    /// A length is above what its type allows.
    #[error("a length is out of range")]
    Length,
    /// A variable-length number does not end with its fifth byte.
    #[error("a variable-length number is longer than five bytes")]
    Varint,
    /// Null where the version does not allow it.
    #[error("null in a field that is not nullable")]
    Null,
    /// A tagged field belongs to other versions of the message.
    #[error("tagged field {0} is not valid in this version")]
    TagVersion(u32),
    /// The decoded form would take more memory than a message of this kind and size may.
    #[error("the message would take too much memory")]
    Budget,
    /// The schema has no such version.
    #[error("version {0} is not known")]
    Version(i16),
}

/// Why a message cannot be encoded in a version. These are mistakes of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The schema has no such version.
    #[error("version {0} is not known")]
    Version(i16),
    /// A field is set that the version cannot carry and that must not be dropped.
    #[error("field {field} cannot be sent in version {version}")]
    Field {
        /// The field's name in the schema.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is null and the version does not allow it.
    #[error("field {0} may not be null in this version")]
    Null(&'static str),
    /// A string, byte string or array is longer than its length prefix can say.
    #[error("a field is too long for its length prefix")]
    TooLong,
    /// An unknown tagged field has the tag of a known one.
    #[error("an unknown tagged field has the tag {0} of a known one")]
    KnownTag(u32),
}
