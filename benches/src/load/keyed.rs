//! Records with keys that come again, for compaction.

use anyhow::{Context, bail};
use drumlin_records::{BatchBuilder, Compression};
use drumlin_tests::client::Connection;
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use serde::{Deserialize, Serialize};

use crate::load::batches::{Codec, Letters, PRODUCE_VERSION};

/// Requests in flight.
const DEPTH: usize = 5;
/// Bytes of a batch before compression.
const BATCH: usize = 64 << 10;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the broker listens.
    pub bootstrap: String,
    /// The topic; its partition is 0.
    pub topic: String,
    /// Bytes before compression, keys and values.
    pub bytes: u64,
    /// Bytes of a value.
    pub record: usize,
    /// Of so many records with a key, one is the last of it.
    pub per_key: u64,
    /// How batches are compressed.
    pub codec: Codec,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Written {
    /// Records.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Bytes before compression.
    pub plain_bytes: u64,
}

/// Writes records whose keys are drawn at random, so that what is alive lies everywhere.
pub fn run(options: &Options) -> anyhow::Result<Written> {
    let mut connection = Connection::open(&options.bootstrap, PATIENCE)?;
    let mut letters = Letters::new(1);
    let records = options.bytes / (options.record as u64 + 16);
    let keys = (records / options.per_key).max(1);
    let codec = match options.codec {
        Codec::None => Compression::None,
        Codec::Lz4 => Compression::Lz4,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now_ms = i64::try_from(now.as_millis())?;
    let (mut value, mut written, mut in_flight) = (vec![0; options.record], Written::default(), 0);
    while written.records < records {
        let mut batch = BatchBuilder::new(codec);
        while batch.uncompressed_size() + options.record + 64 <= BATCH || batch.is_empty() {
            let key = format!("key-{:012}", letters.next() % keys);
            letters.fill(&mut value);
            batch.push(now_ms, Some(key.as_bytes()), Some(&value), &[]);
        }
        let bytes = batch.build()?;
        written.records += batch.len() as u64;
        written.bytes += bytes.len() as u64;
        written.plain_bytes += batch.uncompressed_size() as u64;
        let data = PartitionProduceData {
            index: 0,
            records: Some(bytes.into()),
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: options.topic.as_str().into(),
                partition_data: vec![data],
                ..Default::default()
            }],
            ..Default::default()
        };
        if in_flight == DEPTH {
            answered(&mut connection)?;
            in_flight -= 1;
        }
        connection.send(&request, PRODUCE_VERSION)?;
        in_flight += 1;
    }
    for _ in 0..in_flight {
        answered(&mut connection)?;
    }
    Ok(written)
}

fn answered(connection: &mut Connection) -> anyhow::Result<()> {
    let answer = connection.receive::<ProduceRequest>()?;
    let partition = answer
        .responses
        .first()
        .and_then(|t| t.partition_responses.first())
        .context("an empty answer")?;
    match partition.error_code {
        0 => Ok(()),
        code => bail!("a batch was refused: error {code}"),
    }
}
