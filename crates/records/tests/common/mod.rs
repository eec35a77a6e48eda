//! What the tests of this crate share: the records of the vectors, and small random numbers with a seed.
#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use drumlin_records::{BatchBuilder, BatchError, Limits, OffsetAndTime, Record, records};

pub const LIMITS: Limits = Limits {
    max_decompressed: 1 << 20,
    max_record: 1 << 20,
};

/// A record as the tests write it down.
pub type Plain = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

/// The five records of `vectors/README.md`.
pub fn five() -> Vec<Plain> {
    let header =
        |key: &str, value: Option<&str>| (key.as_bytes().to_vec(), value.map(|v| v.as_bytes().to_vec()));
    let some = |text: &str| Some(text.as_bytes().to_vec());
    vec![
        (1_700_000_000_000, some("k0"), some("v0"), vec![]),
        (1_700_000_000_007, None, some("no key"), vec![]),
        (1_700_000_000_003, some("tombstone"), None, vec![]),
        (
            1_700_000_000_042,
            some("k3"),
            Some("drumlin ".repeat(500).into_bytes()),
            vec![
                header("h1", Some("x")),
                header("h2", None),
                header("h1", Some("again")),
            ],
        ),
        (1_699_999_999_999, some(""), some(""), vec![header("é", Some(""))]),
    ]
}

pub fn push_all(builder: &mut BatchBuilder, plain: &[Plain]) {
    for (timestamp, key, value, headers) in plain {
        let headers: Vec<_> = headers
            .iter()
            .map(|(k, v)| (k.as_slice(), v.as_deref()))
            .collect();
        builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers);
    }
}

pub fn build(mut builder: BatchBuilder, plain: &[Plain]) -> Bytes {
    push_all(&mut builder, plain);
    builder.build().unwrap()
}

pub fn read(batch: &[u8]) -> Vec<Record> {
    records(batch, Limits::default())
        .collect::<Result<_, _>>()
        .unwrap()
}

pub fn plain(record: &Record) -> Plain {
    (
        record.timestamp,
        record.key.as_ref().map(|k| k.to_vec()),
        record.value.as_ref().map(|v| v.to_vec()),
        record
            .headers
            .iter()
            .map(|(k, v)| (k.to_vec(), v.as_ref().map(|v| v.to_vec())))
            .collect(),
    )
}

pub fn plains(batch: &[u8]) -> Vec<Plain> {
    read(batch).iter().map(plain).collect()
}

/// What a lookup found, as a pair.
pub fn found(found: Result<Option<OffsetAndTime>, BatchError>) -> Result<Option<(i64, i64)>, BatchError> {
    found.map(|found| found.map(|found| (found.offset, found.timestamp)))
}

/// Makes length and CRC right again, so that a change elsewhere gets past them.
pub fn reseal(batch: &mut [u8]) {
    if batch.len() >= 61 {
        let length = (batch.len() - 12) as u32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

/// The seed of a randomised test: `DRUMLIN_SEED`, or the clock; printed, so that a failure can be replayed.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("DRUMLIN_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_nanos() as u64
        });
    println!("{test}: replay with DRUMLIN_SEED={seed}");
    seed
}

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }
}
