//! Records of `__consumer_offsets`: Kafka's own keys and values, as bytes and as types.
//!
//! A key is its type (two bytes, big-endian) and the key's fields; a value is its version (two bytes) and the
//! value's fields. The schemas are Kafka's, in [`drumlin_wire::coordinator_records`]; types:
//!
//! | type | what | here |
//! | --- | --- | --- |
//! | 0, 1 | a committed offset | `offsets` |
//! | 2 | a classic group | `classic` |
//! | 3–8, 16 | a consumer group: epoch, topics (4, no longer written), member, target, current assignment, pattern | `consumer` |
//! | 9–15, 17–22 | share and streams groups | skipped and counted |

use bytes::{BufMut, Bytes, BytesMut};
use drumlin_wire::{CoordinatorRecord, DecodeError, Message, Reader, Str};

use crate::Record;

/// The longest string, in bytes, that is let into a record. The formats have lengths of 16 bits with a sign;
/// the rest is for what is appended to a client's id to make a member's.
pub const MAX_STRING: usize = 32_000;

/// What decoding one record may reserve in memory. A record was written by a coordinator and fits a batch.
const DECODE_CAP: usize = 256 << 20;

fn prefixed<M: Message>(prefix: i16, message: &M, version: i16) -> Bytes {
    let body = message
        .to_bytes(version)
        .expect("strings in records are within MAX_STRING, and the version is the schema's");
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_i16(prefix);
    bytes.put_slice(&body);
    bytes.freeze()
}

/// A key's bytes.
pub fn key<K: CoordinatorRecord>(key: &K) -> Bytes {
    prefixed(K::TYPE, key, 0)
}

/// A value's bytes, in this version of its schema.
pub fn value<V: CoordinatorRecord>(value: &V, version: i16) -> Bytes {
    prefixed(version, value, version)
}

/// A record.
pub fn record<K: CoordinatorRecord, V: CoordinatorRecord>(
    record_key: &K,
    record_value: &V,
    version: i16,
) -> Record {
    Record {
        key: key(record_key),
        value: Some(value(record_value, version)),
    }
}

/// The record that deletes what was stored under this key.
pub fn tombstone<K: CoordinatorRecord>(record_key: &K) -> Record {
    Record {
        key: key(record_key),
        value: None,
    }
}

fn split(bytes: &Bytes) -> Result<(i16, Bytes), DecodeError> {
    let prefix = bytes.first_chunk::<2>().ok_or(DecodeError::Truncated)?;
    Ok((i16::from_be_bytes(*prefix), bytes.slice(2..)))
}

/// The type of the record that has this key.
pub fn record_type(key: &Bytes) -> Result<i16, DecodeError> {
    split(key).map(|(kind, _)| kind)
}

/// The key, of a record of this type.
pub fn read_key<K: CoordinatorRecord>(key: &Bytes) -> Result<K, DecodeError> {
    let (kind, body) = split(key)?;
    if kind != K::TYPE {
        return Err(DecodeError::Version(kind));
    }
    read(&body, 0)
}

/// The value, in whichever version it was written.
pub fn read_value<V: CoordinatorRecord>(value: &Bytes) -> Result<V, DecodeError> {
    let (version, body) = split(value)?;
    if !(V::MIN_VERSION..=V::MAX_VERSION).contains(&version) {
        return Err(DecodeError::Version(version));
    }
    read(&body, version)
}

fn read<M: Message>(body: &Bytes, version: i16) -> Result<M, DecodeError> {
    let mut reader = Reader::new(body, DECODE_CAP);
    let message = M::read(&mut reader, version)?;
    reader.finish()?;
    Ok(message)
}

/// The text, cut to what fits into a record, on its own memory.
pub fn fitting(text: &Str) -> Str {
    if text.len() <= MAX_STRING {
        return text.detach();
    }
    let text = text.as_str();
    let end = (0..=MAX_STRING).rev().find(|i| text.is_char_boundary(*i));
    Str::from(&text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use drumlin_wire::coordinator_records::offset_commit_key::OffsetCommitKey;
    use drumlin_wire::coordinator_records::offset_commit_value::OffsetCommitValue;

    use super::*;

    fn bytes(hex: &str) -> Bytes {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect::<Vec<u8>>()
            .into()
    }

    /// The bytes that Kafka's OffsetCommitKey and -Value serialise to, written out by hand from the schema.
    #[test]
    fn layouts_are_kafkas() {
        let offset_key = OffsetCommitKey {
            group: "g".into(),
            topic: "to".into(),
            partition: 3,
        };
        assert_eq!(
            key(&offset_key),
            bytes("0001000167 0002746f 00000003".replace(' ', "").as_str())
        );
        let offset_value = OffsetCommitValue {
            offset: 5,
            leader_epoch: 2,
            metadata: "m".into(),
            commit_timestamp: 1,
            ..OffsetCommitValue::default()
        };
        let expected = "0003 0000000000000005 00000002 00016d 0000000000000001";
        assert_eq!(value(&offset_value, 3), bytes(expected.replace(' ', "").as_str()));
        let expected = "0004 0000000000000005 00000002 026d 0000000000000001 00";
        assert_eq!(value(&offset_value, 4), bytes(expected.replace(' ', "").as_str()));
    }

    #[test]
    fn every_version_of_a_value_is_read() {
        for version in OffsetCommitValue::MIN_VERSION..=OffsetCommitValue::MAX_VERSION {
            let offset_value = OffsetCommitValue {
                offset: 7,
                ..OffsetCommitValue::default()
            };
            let read: OffsetCommitValue = read_value(&value(&offset_value, version)).unwrap();
            assert_eq!(read.offset, 7);
        }
        let unknown = bytes("0009");
        assert_eq!(
            read_value::<OffsetCommitValue>(&unknown),
            Err(DecodeError::Version(9))
        );
        assert_eq!(
            read_value::<OffsetCommitValue>(&bytes("00")),
            Err(DecodeError::Truncated)
        );
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = Str::from("é".repeat(MAX_STRING));
        assert_eq!(fitting(&long).len(), MAX_STRING);
        let odd = Str::from(format!("x{}", "é".repeat(MAX_STRING)));
        assert_eq!(fitting(&odd).len(), MAX_STRING - 1);
        assert_eq!(fitting(&"short".into()), "short");
    }
}
