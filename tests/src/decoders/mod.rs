//! Our decoder of requests beside Kafka's own.
//!
//! Sound requests of every API and version are broken in some way, and decoded by both: they must be taken or
//! refused alike, with the same number of bytes left over, and what was taken must be the same when each side
//! writes it again. `docs/protocol-differences.md` lists what may differ; [`Listed`] is that list.

mod java;
mod mutate;

// The generated table from API keys to types, which the codec's own tests use too.
#[path = "../../../crates/wire/tests/dispatch/mod.rs"]
mod dispatch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use drumlin_wire::header::HeaderError;
use drumlin_wire::{ApiKey, DecodeError, EncodeError, Message, RequestHeader};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use dispatch::{Visit, by_key};
use java::{Answer, Java, Stage};
use mutate::{Sample, TaggedFields};

/// Requests that Kafka's classes wrote: random ones, with default values, with one element in every array.
const SAMPLES: [&[u8]; 3] = [
    include_bytes!("../../../crates/wire/tests/vectors/random.bin"),
    include_bytes!("../../../crates/wire/tests/vectors/defaults.bin"),
    include_bytes!("../../../crates/wire/tests/vectors/nested.bin"),
];
/// Frames that are decoded before the clock is looked at.
const BATCH: u64 = 500;

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What every random choice follows from.
    pub seed: u64,
    /// How many requests.
    pub requests: u64,
    /// Or until when.
    pub until: Option<Instant>,
}

/// The seed for an everyday run: `DRUMLIN_DECODER_SEED`, or one that nobody chose.
pub fn seed() -> u64 {
    match std::env::var("DRUMLIN_DECODER_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        Some(seed) => seed,
        None => rand::random(),
    }
}

/// A difference that is meant; `docs/protocol-differences.md` gives the reason of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listed {
    /// The decoded form would take more memory than a request of this size may.
    Memory,
    /// A version that Kafka 4 has dropped and we read.
    OlderVersion,
    /// An unknown tag of 2^31 - 1 or more, which Kafka reads and cannot write.
    GreatTag,
}

/// What came of one frame.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    Refused,
    Listed(Listed),
    Different(String),
}

/// Decodes requests on both sides until the plan is done; an error if any is decoded differently. `dir` is for
/// what is compiled.
pub fn run(dir: &Path, plan: &Plan) -> anyhow::Result<BTreeMap<String, u64>> {
    println!("decoders: seed {} (DRUMLIN_DECODER_SEED replays it)", plan.seed);
    let mut java = Java::start(dir)?;
    let samples = samples(&mut java)?;
    let tagged = TaggedFields::of(&samples);
    let mut by_api: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (n, sample) in samples.iter().enumerate() {
        by_api.entry(sample.key).or_default().push(n);
    }
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut tally = Tally::default();
    let mut next = rng.random_range(0..samples.len());
    while tally.requests < plan.requests && plan.until.is_none_or(|until| Instant::now() < until) {
        let count = BATCH.min(plan.requests - tally.requests);
        let frames: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                // In turn, so that every API and version has its share.
                next = (next + 1) % samples.len();
                let sample = &samples[next];
                let same = &by_api[&sample.key];
                let other = &samples[same[rng.random_range(0..same.len())]];
                let body = mutate::mutate_body(&mut rng, sample, other, &tagged);
                mutate::frame(&mut rng, sample, is_flexible(sample), &body)
            })
            .collect();
        let answers = java
            .decode(&frames)
            .with_context(|| format!("after {} requests", tally.requests))?;
        for (frame, answer) in frames.iter().zip(&answers) {
            tally.add(frame, answer);
        }
    }
    tally.finish(plan.seed)
}

fn is_flexible(sample: &Sample) -> bool {
    i16::try_from(sample.key)
        .ok()
        .and_then(ApiKey::from_i16)
        .is_some_and(|key| key.is_flexible(sample.version))
}

/// Reads the samples, and has Kafka say where their values stand.
fn samples(java: &mut Java) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for mut file in SAMPLES {
        // Kind (0 is a request), API key, version, flags, length.
        while let Some((head, rest)) = file.split_first_chunk::<10>() {
            let length = u32::from_be_bytes([head[6], head[7], head[8], head[9]]) as usize;
            let (body, rest) = rest.split_at(length);
            file = rest;
            if head[0] == 0 {
                samples.push(Sample {
                    key: u16::from_be_bytes([head[1], head[2]]),
                    version: i16::from_be_bytes([head[3], head[4]]),
                    body: body.to_vec(),
                    tokens: Vec::new(),
                });
            }
        }
    }
    let frames: Vec<Vec<u8>> = samples
        .iter()
        .map(|sample| mutate::sound_frame(sample, is_flexible(sample)))
        .collect();
    for (sample, tokens) in samples.iter_mut().zip(java.tokens(&frames)?) {
        sample.tokens = tokens;
    }
    Ok(samples)
}

/// Decodes a body and writes it again.
struct Again {
    version: i16,
    body: Bytes,
}

impl Visit for Again {
    type Out = Result<(usize, Result<Bytes, EncodeError>), DecodeError>;

    fn visit<M: Message>(&mut self, _: fn(i16) -> M) -> Self::Out {
        let (message, left) = M::decode_prefix(&self.body, self.version)?;
        Ok((left, message.to_bytes(self.version)))
    }
}

/// Decodes a frame here and holds it against Kafka's answer.
fn compare(frame: &[u8], kafka: &Answer) -> Outcome {
    let different = |ours: String| {
        Outcome::Different(format!(
            "{ours}; Kafka: {:?} {}, {:?}, {:?}",
            kafka.stage, kafka.why, kafka.header, kafka.body
        ))
    };
    let (header, body) = match RequestHeader::parse(&Bytes::copy_from_slice(frame)) {
        Ok(parsed) => parsed,
        Err(_) if kafka.stage == Stage::Header => return Outcome::Refused,
        Err(HeaderError::Malformed(DecodeError::Budget)) => return Outcome::Listed(Listed::Memory),
        Err(error) => return different(format!("header refused: {error}")),
    };
    let Some((correlation_id, client_id)) = &kafka.header else {
        return different(format!("header taken: {header:?}"));
    };
    // Kafka takes no client id for an empty one.
    let ours = header.client_id.as_ref().map_or("", |id| id.as_str());
    if (header.correlation_id, ours) != (*correlation_id, client_id.as_str()) {
        return different(format!("header: {header:?}"));
    }
    let mut again = Again {
        version: header.api_version,
        body,
    };
    let Some(decoded) = by_key(false, header.api_key.as_i16() as u16, &mut again) else {
        return different(format!("there is no request of {}", header.api_key));
    };
    match (decoded, &kafka.body) {
        (Err(DecodeError::Version(_)), None) if kafka.stage == Stage::Version => Outcome::Refused,
        (Err(DecodeError::Version(_)), _) => different("version not known".to_owned()),
        (_, None) if kafka.stage == Stage::Version => older_version(&header).unwrap_or_else(|| {
            different(format!(
                "{} version {} is known",
                header.api_key, header.api_version
            ))
        }),
        (Err(_), None) => Outcome::Refused,
        (Err(DecodeError::Budget), Some(_)) => Outcome::Listed(Listed::Memory),
        (Err(error), Some(_)) => different(format!("refused: {error}")),
        (Ok(ours), None) => different(format!("taken: {ours:?}")),
        (Ok((left, ours)), Some((kafkas_left, kafkas))) => match (&ours, kafkas) {
            _ if left != *kafkas_left => different(format!("{left} bytes left over")),
            (Ok(ours), Ok(kafkas)) if *ours == kafkas[..] => Outcome::Taken,
            // A text in bad UTF-8 grows when it is repaired, on both sides.
            (Err(EncodeError::TooLong), Err(why)) if why.contains("too long") => Outcome::Taken,
            (Ok(_), Err(why)) if GREAT_TAG.iter().any(|words| why.contains(words)) => {
                Outcome::Listed(Listed::GreatTag)
            }
            _ => different(format!("decoded as {ours:?}")),
        },
    }
}

/// What Kafka says when it writes an unknown tag that is negative in 32 bits, and the greatest one that is not.
const GREAT_TAG: [&str; 2] = ["Invalid raw tag field list", "Attempted to use tag 2147483647"];

/// Kafka's own schema no longer has the version, and ours adds it.
fn older_version(header: &RequestHeader) -> Option<Outcome> {
    let schema = header.api_key.schema();
    let older = (schema.oldest_version..schema.min_version).contains(&header.api_version);
    older.then_some(Outcome::Listed(Listed::OlderVersion))
}

/// What came of all frames so far.
#[derive(Default)]
struct Tally {
    requests: u64,
    taken: u64,
    refused: u64,
    listed: BTreeMap<Listed, u64>,
    apis: BTreeSet<[u8; 2]>,
    versions: BTreeSet<[u8; 4]>,
    /// By API and kind of error, what the classes of requests refuse in content that was decoded.
    content: BTreeMap<String, u64>,
    different: Vec<String>,
    different_count: u64,
}

/// Differences that are shown in full.
const SHOWN: usize = 20;

impl Tally {
    fn add(&mut self, frame: &[u8], answer: &Answer) {
        self.requests += 1;
        if answer.stage >= Stage::Body
            && let Some(start) = frame.first_chunk::<4>()
        {
            self.versions.insert(*start);
            self.apis.insert([start[0], start[1]]);
        }
        if answer.stage == Stage::Content
            && let Some([a, b, _, _]) = frame.first_chunk::<4>()
            && let Some(key) = ApiKey::from_i16(i16::from_be_bytes([*a, *b]))
        {
            let why = answer.why.split(':').next().unwrap_or_default();
            *self.content.entry(format!("{key} {why}")).or_default() += 1;
        }
        match compare(frame, answer) {
            Outcome::Taken => self.taken += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Listed(listed) => *self.listed.entry(listed).or_default() += 1,
            Outcome::Different(why) => {
                self.different_count += 1;
                if self.different.len() < SHOWN {
                    self.different.push(format!("{}\n  {why}", hex(frame)));
                }
            }
        }
    }

    fn finish(self, seed: u64) -> anyhow::Result<BTreeMap<String, u64>> {
        for (what, count) in &self.content {
            println!("decoders: decoded alike, content refused by Kafka's request class: {what}: {count}");
        }
        if self.different_count > 0 {
            bail!(
                "seed {seed}: {} of {} requests are decoded differently:\n{}",
                self.different_count,
                self.requests,
                self.different.join("\n")
            );
        }
        let listed = |listed| self.listed.get(&listed).copied().unwrap_or_default();
        let figures = [
            ("requests", self.requests),
            ("taken_alike", self.taken),
            ("refused_alike", self.refused),
            ("listed_memory", listed(Listed::Memory)),
            ("listed_older_version", listed(Listed::OlderVersion)),
            ("listed_great_tag", listed(Listed::GreatTag)),
            ("content_refused_by_kafka", self.content.values().sum()),
            ("max_apis", self.apis.len() as u64),
            ("max_versions", self.versions.len() as u64),
        ];
        let figures = figures.map(|(name, count)| (name.to_owned(), count));
        println!("decoders: {figures:?}");
        Ok(figures.into())
    }
}

fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(600).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes: {shown}", bytes.len())
}
