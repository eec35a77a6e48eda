//! Identifiers of 128 bits, printed as Kafka prints them.

use std::fmt;
use std::str::FromStr;

/// A UUID. Kafka prints the 16 bytes in URL-safe base64 without padding: 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// The id that stands for none.
    pub const ZERO: Uuid = Uuid([0; 16]);
    /// The id that Kafka keeps for the metadata topic.
    pub const METADATA_TOPIC: Uuid = Uuid::from_u128(1);

    /// The id whose big-endian bytes are this number's.
    pub const fn from_u128(number: u128) -> Uuid {
        Uuid(number.to_be_bytes())
    }

    /// A random (version 4) id from 16 random bytes, or `None` for those that Kafka does not use: ids
    /// whose printed form starts with a dash look like an option on a command line.
    pub fn from_random(mut bytes: [u8; 16]) -> Option<Uuid> {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let id = Uuid(bytes);
        (bytes[0] >> 2 != 62).then_some(id)
    }

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Uuid::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        let mut text = [0u8; 22];
        for (i, c) in text.iter_mut().enumerate() {
            // 21 digits of six bits from the top; the last has two bits, and four zeros below them.
            let six = if i == 21 {
                number << 4
            } else {
                number >> (122 - 6 * i)
            };
            *c = ALPHABET[(six & 63) as usize];
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a UUID in base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID in URL-safe base64 of 22 characters")]
pub struct ParseUuidError;

impl FromStr for Uuid {
    type Err = ParseUuidError;

    /// Takes the printed form, with or without its padding.
    fn from_str(text: &str) -> Result<Uuid, ParseUuidError> {
        let digits = text.strip_suffix("==").unwrap_or(text).as_bytes();
        let mut number = 0u128;
        let [head @ .., last] = digits else {
            return Err(ParseUuidError);
        };
        if head.len() != 21 {
            return Err(ParseUuidError);
        }
        let value = |c: &u8| ALPHABET.iter().position(|a| a == c).ok_or(ParseUuidError);
        for c in head {
            number = number << 6 | value(c)? as u128;
        }
        Ok(Uuid((number << 2 | (value(last)? >> 4) as u128).to_be_bytes()))
    }
}
