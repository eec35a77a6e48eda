//! The marker of a checkpoint, and the same bytes as the footer of the entry that names it.
//!
//! Format version 1, integers big-endian:
//!
//! | at | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `DRMK` |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | zero |
//! | 6 | 2 | length of the body's key, k |
//! | 8 | 16 | chain id |
//! | 24 | 8 | covers below: the first slot that the checkpoint does not replace |
//! | 32 | 8 | slot of the entry that names it |
//! | 40 | k | key of the body |
//! | 40 + k | 4 | CRC32C of all before |

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{FORMAT_VERSION, array};
use crate::chain::{ChainId, FormatError};

const MAGIC: [u8; 4] = *b"DRMK";
const KEY_AT: usize = 40;

/// A checkpoint that has taken effect: it replaces all entries below `covers_below`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Readers go on at this slot.
    pub covers_below: u64,
    /// Key of the object with the checkpoint's contents.
    pub body_key: String,
    /// Slot of the entry that made it true; it is void unless this is below the fence (rule D1).
    pub entry_slot: u64,
}

impl Checkpoint {
    /// The marker's bytes. Keys of more than 65,535 bytes do not exist in any store.
    pub fn encode(&self, chain: &ChainId) -> Bytes {
        let mut bytes = BytesMut::with_capacity(KEY_AT + self.body_key.len() + 4);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(FORMAT_VERSION);
        bytes.put_u8(0);
        bytes.put_u16(u16::try_from(self.body_key.len()).expect("keys are far shorter"));
        bytes.put_slice(&chain.0);
        bytes.put_u64(self.covers_below);
        bytes.put_u64(self.entry_slot);
        bytes.put_slice(self.body_key.as_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.put_u32(crc);
        bytes.freeze()
    }

    /// Reads a marker of `chain`; all of `bytes` must be the marker.
    pub fn decode(bytes: &[u8], chain: &ChainId) -> Result<Self, FormatError> {
        let Some((told, crc)) = bytes
            .split_last_chunk::<4>()
            .filter(|(told, _)| told.len() >= KEY_AT)
        else {
            return Err(FormatError::Short(bytes.len()));
        };
        if told[0..4] != MAGIC {
            return Err(FormatError::Magic);
        }
        if told[4] != FORMAT_VERSION {
            return Err(FormatError::Version(told[4]));
        }
        if crc32c::crc32c(told) != u32::from_be_bytes(*crc) || told[5] != 0 {
            return Err(FormatError::Header);
        }
        let key_len = usize::from(u16::from_be_bytes(array(&told[6..8])));
        let key = &told[KEY_AT..];
        if key.len() != key_len {
            let told = (KEY_AT + key_len + 4) as u64;
            return Err(FormatError::Length {
                found: bytes.len() as u64,
                told,
            });
        }
        let found = ChainId(array(&told[8..24]));
        if found != *chain {
            return Err(FormatError::Chain(found));
        }
        Ok(Self {
            covers_below: u64::from_be_bytes(array(&told[24..32])),
            entry_slot: u64::from_be_bytes(array(&told[32..40])),
            body_key: std::str::from_utf8(key)
                .map_err(|_| FormatError::Header)?
                .to_owned(),
        })
    }
}
