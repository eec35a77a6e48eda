//! What every generated message can do.

use bytes::Bytes;

use crate::{ApiKey, DecodeError, EncodeError, Reader, Writer};

/// A message of the protocol. Implementations are generated.
///
/// A field that a version does not have is left at its default when read. When written, an ignorable or a
/// tagged one is dropped, so that a handler may fill in everything it knows; any other is refused unless it
/// has its default.
pub trait Message: Sized + Default {
    /// The schema's name.
    const NAME: &'static str;
    /// The oldest version that can be read and written.
    const MIN_VERSION: i16;
    /// The newest version that can be read and written.
    const MAX_VERSION: i16;
    /// The first version with compact lengths and tagged fields; `i16::MAX` if there is none.
    const FLEXIBLE_FROM: i16;
    /// The most memory that decoding one may reserve, in bytes, however long it is.
    const DECODE_CAP: usize = crate::limits::DEFAULT_CAP;

    /// Reads one from the reader, which may hold more. The version must be in range.
    fn read(r: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError>;

    /// Writes it. The version must be in range.
    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;

    /// Decodes what a peer sent: refuses unknown versions, and ignores bytes that follow the message's end.
    ///
    /// Kafka ignores them too, and clients rely on it: librdkafka 2.3 to 2.16 sends three bytes too many when
    /// it asks for all topics.
    fn decode(body: &Bytes, version: i16) -> Result<Self, DecodeError> {
        Ok(Self::decode_prefix(body, version)?.0)
    }

    /// As [`Message::decode`], and refuses bytes that follow the message's end. For the tests and tools that
    /// read what Drumlin itself wrote: bytes left over there are a mistake of the writer.
    fn decode_exact(body: &Bytes, version: i16) -> Result<Self, DecodeError> {
        match Self::decode_prefix(body, version)? {
            (message, 0) => Ok(message),
            (_, more) => Err(DecodeError::Trailing(more)),
        }
    }

    /// As [`Message::decode`], with the number of bytes that follow the message's end.
    fn decode_prefix(body: &Bytes, version: i16) -> Result<(Self, usize), DecodeError> {
        if !(Self::MIN_VERSION..=Self::MAX_VERSION).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let mut reader = Reader::new(body, Self::DECODE_CAP);
        let message = Self::read(&mut reader, version)?;
        Ok((message, reader.remaining()))
    }

    /// Appends it to what is written already; refuses unknown versions.
    fn encode(&self, version: i16, w: &mut Writer) -> Result<(), EncodeError> {
        if !(Self::MIN_VERSION..=Self::MAX_VERSION).contains(&version) {
            return Err(EncodeError::Version(version));
        }
        self.write(w, version)
    }

    /// Encodes it into bytes of its own, copying record bytes. For small messages and tests.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::contiguous();
        self.encode(version, &mut writer)?;
        Ok(writer.into_bytes())
    }
}

/// A message that a client sends.
pub trait Request: Message {
    /// The API.
    const KEY: ApiKey;
    /// What it is answered with.
    type Response: Response;
}

/// A message that a broker answers with.
pub trait Response: Message {
    /// The API.
    const KEY: ApiKey;
}

/// A key or value of a record in a coordinator's topic. The record's bytes are a version (for a key, the
/// record's type stands in its place) in two bytes, big-endian, and the message.
pub trait CoordinatorRecord: Message {
    /// The type of the record that this is the key or the value of.
    const TYPE: i16;
}
