//! Ids for members that bring none.

use drumlin_wire::Str;

/// A generator of ids, seeded by the shard's owner, so that a run can be repeated exactly.
#[derive(Debug, Clone)]
pub struct MemberIds {
    state: u64,
}

impl MemberIds {
    /// Generators of the same seed give the same ids: the seed must be another at every load.
    pub fn new(seed: u64) -> MemberIds {
        MemberIds { state: seed }
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014): ids must be distinct, not secret.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The bytes of a random (version 4) UUID.
    pub fn uuid(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes
    }

    /// `prefix-` and a UUID in hexadecimal, as Kafka names members of classic groups.
    pub fn member(&mut self, prefix: &str) -> Str {
        let n = u128::from_be_bytes(self.uuid());
        Str::from(format!(
            "{prefix}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            n >> 96,
            (n >> 80) & 0xffff,
            (n >> 64) & 0xffff,
            (n >> 48) & 0xffff,
            n & 0xffff_ffff_ffff
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::MemberIds;

    #[test]
    fn look_like_javas() {
        let mut ids = MemberIds::new(7);
        let (a, b) = (ids.member("client"), ids.member("client"));
        assert_ne!(a, b);
        assert_eq!(a.len(), "client-".len() + 36);
        assert_eq!(&a.as_str()["client-".len() + 14..][..1], "4");
        assert_eq!(MemberIds::new(7).member("client"), a);
    }
}
