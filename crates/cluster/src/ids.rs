//! The names of clusters, topics and configured resources.

use std::sync::Arc;

/// A topic's id: a random (version 4) UUID, never used again.
pub type TopicId = [u8; 16];

/// A broker's incarnation: the slot of the entry that registered it [I1].
pub type Incarnation = u64;

/// A cluster's id: sixteen random bytes, which are also the metadata chain's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl ClusterId {
    /// From random bytes. The fixed bits of a version 4 UUID are set, as in Kafka's own.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        // Kafka's text form never starts with '-' (it would read as an option on a command line).
        if bytes[0] >> 2 == 62 {
            bytes[0] ^= 0x80;
        }
        Self(bytes)
    }

    /// Reads the 22 characters of [`Display`](std::fmt::Display).
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let (mut bits, mut held, mut at) = (0u32, 0u32, 0);
        if text.len() != 22 {
            return None;
        }
        for c in text.bytes() {
            let value = ALPHABET.iter().position(|known| *known == c)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
            held += 6;
            if held >= 8 {
                held -= 8;
                *bytes.get_mut(at)? = (bits >> held) as u8;
                bits &= (1 << held) - 1;
                at += 1;
            }
        }
        (bits == 0).then_some(Self(bytes))
    }
}

/// URL-safe base64 without padding, as Kafka writes its UUIDs.
impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let text: String = (0..22u32)
            .map(|i| {
                let group = if i == 21 { bits << 4 } else { bits >> (122 - 6 * i) };
                char::from(ALPHABET.get((group & 63) as usize).copied().unwrap_or(b'A'))
            })
            .collect();
        f.write_str(&text)
    }
}

impl std::fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What can be configured, with Kafka's `ConfigResource` codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ResourceKind {
    /// A topic, by name.
    Topic = 2,
    /// A broker, by node id in decimal; the empty name is every broker's default.
    Broker = 4,
    /// A client metrics subscription.
    ClientMetrics = 16,
    /// A consumer group.
    Group = 32,
}

impl ResourceKind {
    /// From Kafka's code.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Topic, Self::Broker, Self::ClientMetrics, Self::Group]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// Something that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Which one.
    pub name: Arc<str>,
}

impl Resource {
    /// Names a resource.
    pub fn new(kind: ResourceKind, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seeded;
    use rand::RngExt;

    #[test]
    fn cluster_ids_are_written_as_kafka_does() {
        // Uuid.toString() of Apache Kafka for these two.
        assert_eq!(ClusterId([0; 16]).to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(ClusterId([0xff; 16]).to_string(), "_____________________w");
        assert_eq!(ClusterId::parse("AAAAAAAAAAAAAAAAAAAAAB"), None, "stray bits");
        assert_eq!(ClusterId::parse("short"), None);
        let (seed, mut rng) = seeded("cluster_ids");
        for _ in 0..1_000 {
            let id = ClusterId::from_random(rng.random());
            let text = id.to_string();
            assert_eq!(text.len(), 22);
            assert!(!text.starts_with('-'), "seed {seed}");
            assert_eq!(ClusterId::parse(&text), Some(id), "seed {seed}");
        }
    }
}
