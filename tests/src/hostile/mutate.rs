//! Breaks frames.

use drumlin_wire::{ApiKey, RequestHeader, Writer};
use rand::RngExt;
use rand::rngs::StdRng;

use super::templates;

/// Numbers that code trips over.
const NUMBERS: [i32; 10] = [
    -1,
    0,
    1,
    -2,
    i32::MAX,
    i32::MIN,
    1 << 24,
    0x7fff,
    0x8000,
    i32::MAX - 1,
];

/// A frame with its length: mostly a request of some API and version with something broken.
pub fn frame(rng: &mut StdRng) -> Vec<u8> {
    let mut body = match rng.random_range(0..20) {
        0 => noise(rng),
        1 => foreign(rng),
        _ => request(rng),
    };
    if rng.random_range(0..8) > 0 {
        for _ in 0..rng.random_range(1..4) {
            damage(rng, &mut body);
        }
    }
    let honest = i32::try_from(body.len()).unwrap_or(0);
    // A false length makes nonsense of all that follows on the connection: seldom.
    let length = match rng.random_range(0..100) {
        0 => NUMBERS[rng.random_range(0..NUMBERS.len())],
        1 => honest + rng.random_range(1..1000),
        2 => rng.random_range(0..=honest),
        _ => honest,
    };
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn request(rng: &mut StdRng) -> Vec<u8> {
    let (key, version, body) = templates::body(rng);
    let mut bytes = header(rng, key, version);
    bytes.extend(body);
    bytes
}

/// An API that is not served, or a version that does not exist, with noise for a body.
fn foreign(rng: &mut StdRng) -> Vec<u8> {
    let key = ApiKey::ALL[rng.random_range(0..ApiKey::ALL.len())];
    let mut bytes = header(rng, key, 0);
    bytes[2..4].copy_from_slice(&rng.random_range(-2_i16..30).to_be_bytes());
    bytes.extend(noise(rng));
    bytes
}

fn header(rng: &mut StdRng, api_key: ApiKey, api_version: i16) -> Vec<u8> {
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id: rng.random(),
        client_id: Some("hostile".into()),
        unknown: Default::default(),
    };
    let mut writer = Writer::contiguous();
    match header.write(&mut writer) {
        Ok(()) => writer.into_bytes().to_vec(),
        Err(_) => vec![0; 12],
    }
}

fn noise(rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(0..200);
    (0..length).map(|_| rng.random()).collect()
}

fn damage(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return bytes.push(rng.random());
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..8) {
        0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes[at] = rng.random(),
        3 => {
            let number = NUMBERS[rng.random_range(0..NUMBERS.len())].to_be_bytes();
            bytes[at..]
                .iter_mut()
                .zip(number)
                .for_each(|(to, from)| *to = from);
        }
        4 => bytes.truncate(at),
        5 => {
            let inserted = noise(rng);
            bytes.splice(at..at, inserted);
        }
        6 => {
            let end = rng.random_range(at..bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let end = rng.random_range(at..=bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}
