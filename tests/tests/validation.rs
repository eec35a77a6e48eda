//! Batches as hostile and careless clients send them, judged by Drumlin and by Apache Kafka's own classes: accepted or
//! refused alike, with the same code, the same records named and the same greatest timestamp stored.
//!
//! Everyday: some thousands. `DRUMLIN_ROUNDS=n` plays so many, `DRUMLIN_SEED=n` begins there. What is known to differ, and
//! why, is in `docs/architecture.md`; each of these is told from all else here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use drumlin_records::{
    BatchBuilder, BatchError, BatchHeader, Compression, Flaw, Limits, TimestampType, ValidateRules, validate,
};
use drumlin_tests::cache;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const NOW: i64 = 1_700_000_000_000;
const CORRUPT_MESSAGE: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TIMESTAMP: i16 = 32;
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
const INVALID_RECORD: i16 = 87;
const UNKNOWN_SERVER_ERROR: i16 = -1;

/// A batch and the topic that it is sent to.
struct Case {
    compacted: bool,
    append_time: bool,
    before_max_ms: i64,
    after_max_ms: i64,
    batch: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// With the greatest timestamp that is stored.
    Accepted(i64),
    /// With the code, and the records that are named.
    Refused(i16, Vec<i32>),
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Makes length and CRC right, so that what else is wrong decides.
fn reseal(batch: &mut [u8]) {
    if batch.len() < 61 {
        return;
    }
    let length = u32::try_from(batch.len() - 12).expect("a short batch");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn build(dice: &mut StdRng) -> Vec<u8> {
    let codec = Compression::ALL[dice.random_range(0..5)];
    let mut builder = BatchBuilder::new(codec);
    if dice.random_bool(0.3) {
        builder = builder.producer(
            dice.random_range(-2..3),
            dice.random_range(-1..2),
            dice.random_range(-1..3),
        );
    }
    if dice.random_bool(0.03) {
        builder = builder.control();
    }
    let spread = [0, 10, 2_000, 4_000_000][dice.random_range(0..4)];
    for index in 0..dice.random_range(1..6) {
        let timestamp = match dice.random_range(0..30) {
            0 => -1,
            1 => [0, -7, i64::MAX, i64::MIN][dice.random_range(0..4)],
            _ => NOW + dice.random_range(-spread..=spread),
        };
        let key = dice.random_bool(0.9).then_some(&b"key"[..]);
        let value = vec![b'v'; dice.random_range(0..40)];
        let value = dice.random_bool(0.9).then_some(value.as_slice());
        let header = [(&b"header"[..], dice.random_bool(0.5).then_some(&b"x"[..]))];
        let headers = if dice.random_bool(0.2) { &header[..] } else { &[] };
        let delta = if dice.random_bool(0.01) { index + 1 } else { index };
        builder.push_at(delta, timestamp, key, value, headers);
    }
    builder.build().expect("a batch").to_vec()
}

fn mutate(dice: &mut StdRng, batch: &mut Vec<u8>) {
    for _ in 0..dice.random_range(0..3) {
        let len = batch.len();
        let from = if dice.random_bool(0.5) { 61.min(len - 1) } else { 0 };
        let at = dice.random_range(from..len);
        match dice.random_range(0..8) {
            0..=2 => batch[at] ^= 1 << dice.random_range(0..8),
            3 => batch[at] = [0, 1, 0x7f, 0x80, 0xff][dice.random_range(0..5)],
            4 => batch.truncate(at.max(1)),
            5 => batch.extend_from_slice(&[dice.random_range(0..=255); 3][..dice.random_range(0..4)]),
            // The header's greatest timestamp, as clients get it wrong.
            6 if len >= 61 => {
                let claimed = [-1, 0, NOW - 5, NOW + 90_000_000, i64::MIN][dice.random_range(0..5)];
                batch[35..43].copy_from_slice(&claimed.to_be_bytes());
            }
            // Counts that agree with each other, and not with the records.
            _ if len >= 61 => {
                let count = dice.random_range(0..7);
                batch[23..27].copy_from_slice(&(count - 1_i32).to_be_bytes());
                batch[57..61].copy_from_slice(&count.to_be_bytes());
            }
            _ => {}
        }
    }
    if dice.random_bool(0.9) {
        reseal(batch);
    }
    if dice.random_bool(0.03) {
        let more = dice.random_range(0..batch.len());
        let copy = batch[..more].to_vec();
        batch.extend_from_slice(&copy);
    }
}

fn case(seed: u64) -> Case {
    let dice = &mut StdRng::seed_from_u64(seed);
    let mut batch = build(dice);
    mutate(dice, &mut batch);
    Case {
        compacted: dice.random_bool(0.3),
        append_time: dice.random_bool(0.2),
        before_max_ms: [i64::MAX, 1_000][dice.random_range(0..2)],
        after_max_ms: [3_600_000, 500, i64::MAX][dice.random_range(0..3)],
        batch,
    }
}

fn code_of(error: &BatchError) -> i16 {
    match error {
        BatchError::Corrupt(_) => CORRUPT_MESSAGE,
        BatchError::Invalid(_) | BatchError::InvalidRecords { .. } | BatchError::UnsupportedFormat { .. } => {
            INVALID_RECORD
        }
        BatchError::InvalidTimestamp { .. } | BatchError::InvalidTimestamps { .. } => INVALID_TIMESTAMP,
        BatchError::TooLarge { .. } => MESSAGE_TOO_LARGE,
        BatchError::UnsupportedCompression { .. } => UNSUPPORTED_COMPRESSION_TYPE,
    }
}

fn ours(case: &Case) -> Result<BatchHeader, BatchError> {
    let rules = ValidateRules {
        max_message_bytes: usize::MAX,
        timestamp_type: if case.append_time {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        before_max_ms: case.before_max_ms,
        after_max_ms: case.after_max_ms,
        compacted: case.compacted,
        limits: Limits::WALK,
        ..ValidateRules::new(NOW)
    };
    validate(&case.batch, &rules)
}

fn verdict(case: &Case, outcome: &Result<BatchHeader, BatchError>) -> Verdict {
    match outcome {
        Ok(_) if case.append_time => Verdict::Accepted(NOW),
        Ok(header) => Verdict::Accepted(header.max_timestamp),
        Err(error) => {
            let named = match error {
                BatchError::InvalidRecords { faults } | BatchError::InvalidTimestamps { faults } => {
                    faults.iter().map(|(index, _)| *index).collect()
                }
                _ => Vec::new(),
            };
            Verdict::Refused(code_of(error), named)
        }
    }
}

/// What Kafka's classes say of each case, and in which words.
fn kafkas(cases: &[Case]) -> Vec<(Verdict, String)> {
    let mut java = Command::new("java")
        .args([
            "-Xmx256M",
            "-XX:+UseSerialGC",
            "-cp",
            &cache::kafka_class_path().expect("Kafka's jars"),
        ])
        .arg(cache::repository().join("tests/clients/java/ValidateBatches.java"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("java runs");
    let mut input = java.stdin.take().expect("a pipe");
    let output = BufReader::new(java.stdout.take().expect("a pipe"));
    let lines: Vec<String> = cases.iter().map(line).collect();
    let writer = std::thread::spawn(move || {
        for line in lines {
            input.write_all(line.as_bytes()).expect("java reads");
        }
    });
    let answers = output
        .lines()
        .map(|line| parse(&line.expect("java writes")))
        .collect();
    writer.join().expect("all is written");
    assert!(java.wait().expect("java ends").success());
    answers
}

fn line(case: &Case) -> String {
    let (compacted, append_time) = (u8::from(case.compacted), u8::from(case.append_time));
    let (before, after) = (case.before_max_ms, case.after_max_ms);
    let mut line = format!("{compacted} {append_time} {before} {after} {NOW} ");
    for byte in &case.batch {
        write!(line, "{byte:02x}").expect("text grows");
    }
    line.push('\n');
    line
}

fn parse(line: &str) -> (Verdict, String) {
    let mut words = line.splitn(3, ' ');
    let (kind, value) = (words.next(), words.next().unwrap_or_default());
    let rest = words.next().unwrap_or_default();
    let verdict = if kind == Some("ok") {
        Verdict::Accepted(value.parse().expect("a timestamp"))
    } else {
        let indexes = if rest.starts_with('#') { "" } else { rest };
        let indexes = indexes.split(',').filter(|index| !index.is_empty());
        Verdict::Refused(
            value.parse().expect("a code"),
            indexes.map(|index| index.parse().expect("an index")).collect(),
        )
    };
    (verdict, rest.to_owned())
}

/// The difference that is meant, if it is one (`docs/architecture.md`).
fn meant(case: &Case, ours: &Result<BatchHeader, BatchError>, kafka: &Verdict) -> Option<&'static str> {
    let bit = |bit: i16| BatchHeader::parse(&case.batch).is_ok_and(|header| header.attributes & bit != 0);
    match (ours, kafka) {
        (Err(BatchError::UnsupportedCompression { .. }), Verdict::Refused(UNKNOWN_SERVER_ERROR, _)) => {
            Some("a codec that nobody has defined")
        }
        (Err(BatchError::Invalid(_)), Verdict::Refused(UNKNOWN_SERVER_ERROR, _)) => {
            Some("a payload that is no stream of its codec, a number that is too long")
        }
        (Err(BatchError::Invalid(Flaw::Record { what, .. })), _) if what.starts_with("offset delta") => {
            Some("offset deltas that do not count up from 0")
        }
        // Kafka passes over the fields of compressed records, and does not hold them against the record's length.
        (Err(BatchError::Invalid(Flaw::Record { .. } | Flaw::TrailingRecords)), _) if bit(7) => {
            Some("a length of a compressed record that its fields do not have")
        }
        (Err(BatchError::Invalid(Flaw::Payload(_))), _) => Some("a stream that Java's decoder alone reads"),
        _ if bit(8) && !case.append_time => Some("the append time's bit, set by a producer"),
        _ => None,
    }
}

#[test]
fn batches_are_judged_as_kafka_judges_them() {
    let rounds = number("DRUMLIN_ROUNDS").unwrap_or(6_000);
    let seed = number("DRUMLIN_SEED").unwrap_or_else(rand::random);
    println!("DRUMLIN_SEED={seed}");
    let (mut alike, mut differences, mut wrong) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut at = 0;
    while at < rounds {
        let seeds: Vec<u64> = (at..rounds.min(at + 50_000))
            .map(|n| seed.wrapping_add(n))
            .collect();
        at += seeds.len() as u64;
        let cases: Vec<Case> = seeds.iter().map(|seed| case(*seed)).collect();
        let answers = kafkas(&cases);
        assert_eq!(answers.len(), cases.len(), "one answer each");
        for ((seed, case), (kafka, words)) in seeds.iter().zip(&cases).zip(answers) {
            let outcome = ours(case);
            let verdict = verdict(case, &outcome);
            if verdict == kafka {
                let what = match &verdict {
                    Verdict::Accepted(_) => 0,
                    Verdict::Refused(code, _) => *code,
                };
                *alike.entry(what).or_insert(0u64) += 1;
            } else if let Some(difference) = meant(case, &outcome, &kafka) {
                *differences.entry(difference).or_insert(0u64) += 1;
            } else if wrong.len() < 20 {
                wrong.push(format!("DRUMLIN_SEED={seed} DRUMLIN_ROUNDS=1: {verdict:?} ({outcome:?}), Kafka says {kafka:?} {words}"));
            }
        }
    }
    println!("alike, by code: {alike:?}\nmeant to differ: {differences:#?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let lenient = differences
        .get("a stream that Java's decoder alone reads")
        .copied()
        .unwrap_or(0);
    assert!(
        lenient * 100 <= rounds.max(100),
        "{lenient} of {rounds} streams are read by Java alone"
    );
    assert!(
        alike.len() >= 4,
        "accepted, and refused for different reasons: {alike:?}"
    );
}
