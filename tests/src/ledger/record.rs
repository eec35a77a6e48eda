//! What the ledger's records hold: enough to know each one again wherever it turns up.

use drumlin_records::Record;

/// Which record it is. Producers count by partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The producer.
    pub producer: u32,
    /// The partition that it was sent to.
    pub partition: i32,
    /// The producer's count of records on this partition, from 0.
    pub counter: u64,
}

impl Identity {
    /// The value of the record: its identity, and filling that follows from it.
    pub fn value(self) -> Vec<u8> {
        let mut x =
            (self.counter << 20) ^ (u64::from(self.producer) << 8) ^ self.partition as u64 ^ 0x9e37_79b9;
        let mut step = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let filling = (step() % 300) as usize;
        let mut value = Vec::with_capacity(16 + filling);
        value.extend(self.producer.to_be_bytes());
        value.extend(self.partition.to_be_bytes());
        value.extend(self.counter.to_be_bytes());
        // Few letters, so that the codecs have something to do.
        value.extend((0..filling).map(|_| b'a' + (step() % 6) as u8));
        value
    }

    /// The identity in a value; `None` if the value is not what [`Identity::value`] makes.
    pub fn of(value: &[u8]) -> Option<Identity> {
        let identity = Identity {
            producer: u32::from_be_bytes(value.get(..4)?.try_into().ok()?),
            partition: i32::from_be_bytes(value.get(4..8)?.try_into().ok()?),
            counter: u64::from_be_bytes(value.get(8..16)?.try_into().ok()?),
        };
        (identity.value() == value).then_some(identity)
    }
}

/// A record as a consumer sees it, in 32 bits: everything but its offset.
pub fn fingerprint(record: &Record) -> u32 {
    let mut sum = crc32c::crc32c(&record.timestamp.to_be_bytes());
    sum = crc32c::crc32c_append(sum, record.key.as_deref().unwrap_or(b"(null)"));
    crc32c::crc32c_append(sum, record.value.as_deref().unwrap_or(b"(null)"))
}
