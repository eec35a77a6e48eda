//! Hostile bodies, headers and frames: never a panic, and memory stays within the budget.
//!
//! One seed a run, printed; `DRUMLIN_SEED` replays it and `DRUMLIN_FUZZ_BODIES` sets how many bodies are tried.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod dispatch;
mod vectors;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use dispatch::{Visit, by_key, by_name};
use drumlin_wire::messages::fetch_response::{FetchResponse, FetchableTopicResponse, PartitionData};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use drumlin_wire::{
    ApiKey, DecodeError, EncodeError, Message, Records, RequestHeader, Str, Writer, frame, limits,
};
use vectors::{RANDOM, RECORDS, named, vectors};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread has allocated.
struct Counting;

fn grown(bytes: usize) {
    LIVE.with(|live| {
        live.set(live.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
    COUNT.with(|count| count.set(count.get() + 1));
}

fn shrunk(bytes: usize) {
    LIVE.with(|live| live.set(live.get().saturating_sub(bytes)));
}

// SAFETY: every call is passed on unchanged to the system's allocator, which upholds the contract; the
// counters are constant-initialised thread-locals without destructors, so touching them never allocates.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as for the implementation.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: as for the implementation.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may live at once.
        grown(size);
        shrunk(layout.size());
        // SAFETY: as for the implementation.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that the work held at once beyond what was there before, and the number of allocations.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let (live, count) = (LIVE.get(), COUNT.get());
    PEAK.set(live);
    let out = work();
    (out, PEAK.get() - live, COUNT.get() - count)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn seeded(test: &str) -> Random {
    let seed = std::env::var("DRUMLIN_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_nanos() as u64
        });
    println!("{test}: DRUMLIN_SEED={seed}");
    Random(seed)
}

fn mutate(random: &mut Random, body: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = body.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(out.len());
        match random.below(9) {
            0 => out.truncate(at),
            _ if out.is_empty() => out.push(random.next() as u8),
            1 => out[at] ^= 1 << random.below(8),
            2 => out[at] = [0, 1, 2, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff][random.below(9)],
            3 => out[at] = random.next() as u8,
            // A length of four bytes, a compact one, or a short one.
            4 => {
                let claim = [u32::MAX, 0x7fff_ffff, 0x8000_0000, 1 << 20, out.len() as u32][random.below(5)];
                for (to, from) in out[at..].iter_mut().zip(claim.to_be_bytes()) {
                    *to = from;
                }
            }
            5 => drop(out.splice(
                at..at,
                [0xff, 0xff, 0xff, 0xff, [0x07, 0x0f, 0x10][random.below(3)]],
            )),
            // Many of the same: empty elements are the cheapest way to claim memory.
            6 => {
                let fill = [0u8, 1, 2][random.below(3)];
                let n = random.below(400);
                drop(out.splice(at..at, std::iter::repeat_n(fill, n)));
            }
            7 => {
                let cut = random.below(other.len());
                out.truncate(at);
                out.extend_from_slice(&other[cut..]);
            }
            _ => {
                let (from, n) = (random.below(out.len()), random.below(16));
                let piece = out[from..out.len().min(from + n)].to_vec();
                drop(out.splice(at..at, piece));
            }
        }
    }
    out
}

/// Decodes a body in bounds; encodes what it was taken for, which must then be taken and encode the same.
struct Attack {
    version: i16,
    body: Bytes,
    worst: (f64, usize),
}

impl Attack {
    /// Enough of the body to see what it is.
    fn start(&self) -> Bytes {
        self.body.slice(..self.body.len().min(400))
    }
}

impl Visit for Attack {
    type Out = Result<(), DecodeError>;

    fn visit<M: Message>(&mut self, _: fn(i16) -> M) -> Self::Out {
        let (message, peak, _) = measured(|| M::decode(&self.body, self.version));
        // What is beyond the budget is the bookkeeping of a few `Bytes`.
        let budget = (limits::FIXED + limits::PER_BYTE * self.body.len()).min(M::DECODE_CAP) + 256;
        assert!(
            peak <= budget,
            "{} v{}: {peak} bytes of {budget}: {:?}",
            M::NAME,
            self.version,
            self.start()
        );
        self.worst.0 = self.worst.0.max(peak as f64 / self.body.len().max(256) as f64);
        self.worst.1 = self.worst.1.max(peak);
        let message = message?;
        match message.to_bytes(self.version) {
            Ok(first) => match M::decode(&first, self.version) {
                Ok(again) => {
                    let second = again.to_bytes(self.version);
                    assert_eq!(
                        second.as_ref(),
                        Ok(&first),
                        "{} v{}: {:?}",
                        M::NAME,
                        self.version,
                        self.start()
                    );
                }
                // The canonical form may be shorter, and then so is the budget.
                Err(DecodeError::Budget) => {}
                Err(why) => panic!("{} v{}: {why}: {:?}", M::NAME, self.version, self.start()),
            },
            // A string in bad UTF-8 grows when it is repaired.
            Err(EncodeError::TooLong) => {}
            Err(why) => panic!("{} v{}: {why}: {:?}", M::NAME, self.version, self.start()),
        }
        Ok(())
    }
}

#[test]
fn mutated_bodies_neither_panic_nor_take_memory() {
    let bodies = std::env::var("DRUMLIN_FUZZ_BODIES")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(300_000);
    let mut random = seeded("mutated bodies");
    let all = vectors(RANDOM);
    let (mut taken, mut refused) = (0, BTreeMap::new());
    let mut worst = (0f64, 0);
    for i in 0..bodies {
        let v = &all[i % all.len()];
        // A neighbour is most often of the same message.
        let other = &all[(i + random.below(12)) % all.len()];
        let version = if random.below(8) == 0 {
            other.version
        } else {
            v.version
        };
        let body = Bytes::from(mutate(&mut random, v.body, other.body));
        let mut attack = Attack { version, body, worst };
        match by_key(v.response, v.key, &mut attack).expect("a message") {
            Ok(()) => taken += 1,
            Err(why) => {
                let kind = format!("{why:?}");
                let kind = kind.split('(').next().unwrap_or_default().to_owned();
                *refused.entry(kind).or_insert(0) += 1;
            }
        }
        worst = attack.worst;
    }
    println!("{bodies} bodies: {taken} taken, refused: {refused:?}");
    println!(
        "most memory for one: {} bytes, {:.1} times its length",
        worst.1, worst.0
    );
    assert!(taken > 0 && refused.len() >= 5, "{refused:?}");
}

/// Some of these come from clients too: a consumer's subscription and assignment.
#[test]
fn mutated_records_neither_panic_nor_take_memory() {
    let mut random = seeded("mutated records");
    let all = named(RECORDS);
    for i in 0..30_000 {
        let (name, version, body) = all[i % all.len()];
        let body = Bytes::from(mutate(&mut random, body, all[(i + 1) % all.len()].2));
        let mut attack = Attack {
            version,
            body,
            worst: (0.0, 0),
        };
        let _ = by_name(name, &mut attack).expect("a message");
    }
}

/// The largest claims that still fit the wire, over every message: arrays of empty elements to the brim.
#[test]
fn big_bodies_stay_under_the_caps() {
    for fill in [0u8, 1, 2] {
        for v in vectors(RANDOM).iter().step_by(12) {
            let mut body = v.body[..v.body.len() / 2].to_vec();
            for claim in [&0x00ff_ffffu32.to_be_bytes()[..], &[0xff, 0xff, 0x7f]] {
                body.extend_from_slice(claim);
                body.resize(body.len() + (128 << 10), fill);
            }
            let mut attack = Attack {
                version: v.version,
                body: Bytes::from(body),
                worst: (0.0, 0),
            };
            let _ = by_key(v.response, v.key, &mut attack).expect("a message");
        }
    }
    // Three million topics without a name in six megabytes would be 200 MB.
    let body = Bytes::from([&[0x00, 0x2f, 0xff, 0xff][..], &vec![0; 6 << 20]].concat());
    let (out, peak, _) =
        measured(|| drumlin_wire::messages::metadata_request::MetadataRequest::decode(&body, 1));
    assert_eq!(out.err(), Some(DecodeError::Budget));
    assert!(
        peak < 4096,
        "refused before anything is reserved, not after {peak} bytes"
    );
}

#[test]
fn hostile_headers_and_frames_are_refused() {
    let mut random = seeded("headers");
    let header = RequestHeader {
        api_key: ApiKey::Metadata,
        api_version: 9,
        correlation_id: 7,
        client_id: Some(Str::from_static("client")),
        unknown: Default::default(),
    };
    let mut w = Writer::contiguous();
    header.write(&mut w).unwrap();
    let good = w.into_bytes();
    for _ in 0..50_000 {
        let bytes = Bytes::from(mutate(&mut random, &good, &good));
        let (_, peak, _) = measured(|| RequestHeader::parse(&bytes).map(drop));
        let budget = (limits::FIXED + limits::PER_BYTE * bytes.len()).min(limits::HEADER_CAP) + 256;
        assert!(peak <= budget, "{peak} bytes for {bytes:?}");
    }
    for cut in 0..good.len() {
        assert!(RequestHeader::parse(&good.slice(..cut)).is_err(), "{cut}");
    }
    assert_eq!(frame::length([0, 0, 1, 0], 1024), Ok(256));
    assert!(frame::length([0xff; 4], 1024).is_err());
    assert!(frame::length([0, 0, 4, 1], 1024).is_err());
}

#[test]
fn record_bytes_are_never_copied() {
    let records = Bytes::from(vec![7u8; 64 << 10]);
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData {
            name: Str::from_static("topic"),
            partition_data: vec![PartitionProduceData {
                records: Some(Records::from(records.clone())),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let body = request.to_bytes(11).unwrap();
    let _ = body.clone();
    let (decoded, _, allocations) = measured(|| ProduceRequest::decode(&body, 11).unwrap());
    let piece = &decoded.topic_data[0].partition_data[0]
        .records
        .as_ref()
        .unwrap()
        .pieces()[0];
    assert!(
        body.as_ptr_range().contains(&piece.as_ptr()),
        "the records are not in the frame"
    );
    // One for the topics, one for the partitions.
    assert_eq!(allocations, 2);

    let extents: Records = (0..5).map(|_| records.clone()).collect();
    let response = FetchResponse {
        responses: vec![FetchableTopicResponse {
            partitions: vec![PartitionData {
                records: Some(extents),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let (frame, peak, _) = measured(|| frame::response(&response, 16, 1).unwrap());
    let shared = frame
        .segments
        .iter()
        .filter(|s| s.as_ptr() == records.as_ptr())
        .count();
    assert_eq!((shared, frame.segments.len()), (5, 7));
    assert!(peak < 2048, "{peak} bytes for an answer of 320 KiB");
    assert_eq!(frame.len, frame.segments.iter().map(Bytes::len).sum::<usize>());
    let whole = frame.into_bytes();
    let decoded = FetchResponse::decode(&whole.slice(4 + 4 + 1..), 16).unwrap();
    assert_eq!(decoded, response);
}
