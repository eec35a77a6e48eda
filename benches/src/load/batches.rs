//! Batches and frames, built before anything is timed.

use anyhow::Context;
use bytes::Bytes;
use clap::ValueEnum;
use drumlin_records::{BatchBuilder, Compression};
use drumlin_wire::frame;
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use serde::{Deserialize, Serialize};

/// Version of the Produce requests: the newest but one shape that names topics instead of their ids.
pub const PRODUCE_VERSION: i16 = 9;
/// Where a request's correlation id lies: after the length, the key and the version.
const CORRELATION_AT: usize = 8;

/// Codecs that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not compressed.
    None,
    /// LZ4 frames.
    Lz4,
}

impl Codec {
    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
        }
    }
}

/// What batches look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of a batch on the wire that are not exceeded, as far as at least one record fits.
    pub batch: usize,
    /// Bytes of a record's value.
    pub record: usize,
    /// How records are compressed.
    pub codec: Codec,
}

/// One batch, ready to send.
#[derive(Clone)]
pub struct Built {
    /// Its bytes.
    pub bytes: Bytes,
    /// Records in it.
    pub records: u64,
    /// Bytes of the values, before compression.
    pub value_bytes: u64,
}

/// A source of bytes that LZ4 makes about half as large: pieces of sixteen letters, every other one seen before.
pub(crate) struct Letters {
    state: u64,
    seen: [[u8; 16]; 32],
}

impl Letters {
    pub(crate) fn new(seed: u64) -> Letters {
        let mut letters = Letters {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            seen: [[0; 16]; 32],
        };
        letters.seen = std::array::from_fn(|_| letters.piece());
        letters
    }

    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn piece(&mut self) -> [u8; 16] {
        let bits = self.next();
        std::array::from_fn(|at| b'a' + (bits >> (at * 4) & 15) as u8)
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(16) {
            let choice = self.next() >> 58;
            let piece = match self.seen.get(choice as usize) {
                Some(seen) => *seen,
                None => self.piece(),
            };
            if let Some(part) = piece.get(..chunk.len()) {
                chunk.copy_from_slice(part);
            }
        }
    }
}

/// Builds one batch; another seed gives other contents.
pub fn build(shape: Shape, seed: u64) -> anyhow::Result<Built> {
    let codec = match shape.codec {
        Codec::None => Compression::None,
        Codec::Lz4 => Compression::Lz4,
    };
    let mut letters = Letters::new(seed);
    let mut value = vec![0; shape.record];
    let mut builder = BatchBuilder::new(codec);
    let mut records = 0u64;
    // What one more record can add besides its value, and the batch's own header.
    let overhead = 24;
    while records == 0 || builder.uncompressed_size() + shape.record + overhead + 61 <= shape.batch {
        letters.fill(&mut value);
        builder.push(1_700_000_000_000, None, Some(&value), &[]);
        records += 1;
    }
    let bytes = builder.build().context("a batch of plain records")?;
    Ok(Built {
        bytes,
        records,
        value_bytes: records * shape.record as u64,
    })
}

/// A Produce request with one batch, in one piece.
pub struct ProduceFrame {
    bytes: Vec<u8>,
    /// Bytes of the batch.
    pub batch_bytes: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
}

impl ProduceFrame {
    /// Frames a batch for one partition, acks=all.
    pub fn new(topic: &str, partition: i32, batch: &Built) -> anyhow::Result<ProduceFrame> {
        let data = PartitionProduceData {
            index: partition,
            records: Some(batch.bytes.clone().into()),
            ..Default::default()
        };
        let topic = TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        let bytes = frame::request(&request, PRODUCE_VERSION, 0, Some("drumlin-load"))?
            .into_bytes()
            .to_vec();
        Ok(ProduceFrame {
            bytes,
            batch_bytes: batch.bytes.len() as u64,
            records: batch.records,
            value_bytes: batch.value_bytes,
        })
    }

    /// Gives the frame its correlation id; not while it is being written.
    pub fn stamp(&mut self, correlation: i32) {
        if let Some(place) = self.bytes.get_mut(CORRELATION_AT..CORRELATION_AT + 4) {
            place.copy_from_slice(&correlation.to_be_bytes());
        }
    }

    /// The whole frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drumlin_records::BatchHeader;

    #[test]
    fn batches_fill_their_size() {
        for (batch, record) in [(16 << 10, 1 << 10), (64 << 10, 100), (1 << 20, 10 << 10)] {
            let built = build(
                Shape {
                    batch,
                    record,
                    codec: Codec::None,
                },
                1,
            )
            .expect("it builds");
            let header = BatchHeader::parse(&built.bytes).expect("it is a batch");
            assert_eq!(header.records_count as u64, built.records);
            assert!(built.bytes.len() <= batch && built.bytes.len() + record + 90 > batch);
        }
    }

    #[test]
    fn contents_compress_by_half() {
        let of = |codec| {
            build(
                Shape {
                    batch: 64 << 10,
                    record: 1 << 10,
                    codec,
                },
                1,
            )
            .expect("it builds")
        };
        let (plain, packed) = (of(Codec::None), of(Codec::Lz4));
        let ratio = packed.bytes.len() as f64 / plain.bytes.len() as f64;
        assert!((0.4..0.8).contains(&ratio), "{ratio}");
    }

    #[test]
    fn only_the_correlation_id_changes() {
        let shape = Shape {
            batch: 16 << 10,
            record: 1 << 10,
            codec: Codec::Lz4,
        };
        let mut frame = ProduceFrame::new("t", 3, &build(shape, 1).expect("it builds")).expect("it frames");
        let before = frame.bytes().to_vec();
        frame.stamp(0x0102_0304);
        assert_eq!(&frame.bytes()[8..12], &[1, 2, 3, 4]);
        assert_eq!(
            (&frame.bytes()[..8], &frame.bytes()[12..]),
            (&before[..8], &before[12..])
        );
    }
}
