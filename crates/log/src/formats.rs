//! Tests that every stored format of this crate must pass: round trip, truncation, newer versions, mutation,
//! and bytes that were written once and must be read for ever.

use proptest::prelude::*;

use crate::codec::FormatError;

/// Reads bytes and writes again what was read.
type Rewrite<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>, FormatError>;

/// One format: a sample of its writer's, and its reader.
pub(crate) struct Format<'a> {
    /// Bytes as the writer makes them, at most 16 KiB.
    pub sample: Vec<u8>,
    /// Reads bytes and writes again what was read.
    pub rewrite: Rewrite<'a>,
    /// Where the frame that holds the version begins.
    pub frame_at: usize,
    /// Length of the frame; its last four bytes are its checksum.
    pub frame_len: usize,
    /// The newest version that its reader knows.
    pub newest: u8,
}

impl<'a> Format<'a> {
    /// A format that is one frame.
    pub(crate) fn framed(sample: Vec<u8>, rewrite: Rewrite<'a>) -> Self {
        let frame_len = sample.len();
        Self {
            sample,
            rewrite,
            frame_at: 0,
            frame_len,
            newest: 1,
        }
    }

    /// Its reader knows versions up to this one.
    pub(crate) fn up_to(self, newest: u8) -> Self {
        Self { newest, ..self }
    }

    /// All that must hold. `known` are the hex digits of the sample's CRC32C and its length, as first written.
    pub(crate) fn hold(&self, known: (u32, usize)) {
        assert!(self.sample.len() <= 16 << 10, "a sample is small");
        let written = (crc32c::crc32c(&self.sample), self.sample.len());
        assert_eq!(
            written, known,
            "the format changed: it needs a new version, not a new expectation"
        );
        assert_eq!((self.rewrite)(&self.sample).as_ref(), Ok(&self.sample));
        for length in 0..self.sample.len() {
            assert!((self.rewrite)(&self.sample[..length]).is_err(), "cut at {length}");
        }
        self.newer_is_named();
        self.mutations_end_well();
    }

    fn newer_is_named(&self) {
        for version in [0, self.newest + 1, 9, 255] {
            let mut newer = self.sample.clone();
            newer[self.frame_at + 4] = version;
            let error = (self.rewrite)(&newer).unwrap_err();
            assert_eq!(error, FormatError::Version(version));
            assert!(error.to_string().contains("newer"), "{error}");
        }
    }

    /// Whatever the bytes: an answer or an error, and no more memory than a multiple of the input.
    fn mutations_end_well(&self) {
        let seed = std::env::var("DRUMLIN_FORMAT_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(rand::random::<u64>);
        println!("DRUMLIN_FORMAT_SEED={seed}");
        let mut state = seed | 1;
        let mut next = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % below.max(1)
        };
        for turn in 0..20_000 {
            let mut bytes = self.sample.clone();
            for _ in 0..=next(4) {
                let at = self.frame_at + 5 + next(self.frame_len - 9);
                match next(4) {
                    0 => bytes[at] = [0, 0x7f, 0x80, 0xff][next(4)],
                    1 => bytes[at] ^= 1 << next(8),
                    2 => bytes[at..(at + 9).min(self.frame_at + self.frame_len - 4)].fill(0xff),
                    _ => bytes[at] = next(256) as u8,
                }
            }
            // With its checksum made good, so that what lies behind it is reached; sometimes left wrong.
            if turn % 16 != 0 {
                let end = self.frame_at + self.frame_len - 4;
                let crc = crc32c::crc32c(&bytes[self.frame_at..end]);
                bytes[end..end + 4].copy_from_slice(&crc.to_be_bytes());
            }
            if let Ok(again) = (self.rewrite)(&bytes) {
                // What was read is no more than what was there: rewriting it takes about as much.
                assert!(again.len() <= 16 * bytes.len() + 64, "turn {turn}");
            }
        }
    }
}

/// An offset that leaves room for what is added to it.
pub(crate) fn offsets() -> impl Strategy<Value = i64> {
    prop_oneof![0..100_000i64, 0..i64::MAX / 4]
}
