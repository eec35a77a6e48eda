use drumlin_records::{BatchBuilder, Compression, EndMarker, end_marker_batch, iter_batches, records};

use super::*;
use crate::manifest::AbortedTransaction;

const NOW: i64 = 1_700_000_000_000;
const RETENTION: i64 = 1_000;

type Pair = (&'static str, Option<&'static str>);

/// A batch of records with consecutive offsets.
fn batch(codec: Compression, base: i64, pairs: &[Pair]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec).base_offset(base).leader_epoch(3);
    for (n, (key, value)) in pairs.iter().enumerate() {
        let value = value.map(str::as_bytes);
        builder.push(
            NOW - 500 + n as i64,
            Some(key.as_bytes()),
            value,
            &[("h".as_bytes(), None)],
        );
    }
    builder
}

fn plain(base: i64, pairs: &[Pair]) -> Vec<u8> {
    batch(Compression::None, base, pairs).build().unwrap().to_vec()
}

/// A pass over `log`, of which all from `from` on is dirty.
struct Run {
    from: i64,
    now_ms: i64,
    producers: BTreeMap<i64, i64>,
    aborted: Vec<AbortedTransaction>,
    stretch: usize,
    /// More stands behind what is passed, unless a test says that it ends there.
    log_end: i64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            from: 0,
            now_ms: NOW,
            producers: BTreeMap::new(),
            aborted: Vec::new(),
            stretch: 100,
            log_end: i64::MAX,
        }
    }
}

impl Run {
    fn of(&self, log: &[u8]) -> (Vec<u8>, Tally) {
        self.sift(&mut self.learnt(log), log)
    }

    /// A sieve that has learnt what is dirty.
    fn learnt(&self, log: &[u8]) -> Sieve {
        let mut learner = Learner::new(OffsetMap::new(1000, 1 << 20), self.from);
        learner.transactions.learn(&self.aborted);
        for part in log.chunks(self.stretch) {
            assert!(learner.push(part).unwrap());
        }
        learner.finish_source().unwrap();
        let rules = Rules {
            map_end: learner.end,
            now_ms: self.now_ms,
            delete_retention_ms: RETENTION,
            last_of_producers: self.producers.clone(),
            log_end: self.log_end,
        };
        Sieve::new(learner.map, rules)
    }

    fn sift(&self, sieve: &mut Sieve, log: &[u8]) -> (Vec<u8>, Tally) {
        sieve.transactions.learn(&self.aborted);
        let mut out = Vec::new();
        for part in log.chunks(self.stretch) {
            out.extend_from_slice(&sieve.push(part).unwrap());
        }
        sieve.finish_source().unwrap();
        (out, sieve.tally)
    }
}

fn headers(log: &[u8]) -> Vec<BatchHeader> {
    iter_batches(log).map(|item| item.unwrap().1).collect()
}

/// Offsets, keys and values of all records.
fn contents(log: &[u8]) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let batches = iter_batches(log).map(|item| item.unwrap().0);
    batches
        .flat_map(|at| records(&log[at..], Limits::default()).map(Result::unwrap))
        .map(|record| {
            let key = record.key.map_or_else(|| "(null)".to_owned(), |key| text(&key));
            (record.offset, key, record.value.map(|value| text(&value)))
        })
        .collect()
}

fn kept(offset: i64, key: &str, value: &str) -> (i64, String, Option<String>) {
    (offset, key.to_owned(), Some(value.to_owned()))
}

#[test]
fn the_newest_of_each_key_stays_where_it_was() {
    for codec in Compression::ALL {
        for stretch in [1, 7, 61, 100_000] {
            let batches = [
                batch(codec, 0, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]),
                batch(codec, 3, &[("a", Some("2"))]),
                batch(codec, 4, &[("d", Some("1")), ("e", Some("1"))]),
                batch(codec, 6, &[("a", Some("3")), ("b", Some("2"))]),
            ];
            let log = batches.map(|batch| batch.build().unwrap().to_vec());
            let (out, tally) = Run {
                stretch,
                ..Run::default()
            }
            .of(&log.concat());
            let expected = [
                kept(2, "c", "1"),
                kept(4, "d", "1"),
                kept(5, "e", "1"),
                kept(6, "a", "3"),
                kept(7, "b", "2"),
            ];
            assert_eq!(contents(&out), expected);
            assert_eq!((tally.records_in, tally.records_out, tally.changed), (8, 5, 2));
            let headers = headers(&out);
            assert_eq!(headers.len(), 3, "an empty batch that nobody needs is gone");
            let first = &headers[0];
            assert_eq!(
                (first.base_offset, first.last_offset()),
                (0, 2),
                "its range stays"
            );
            assert_eq!(first.compression().unwrap(), codec);
            assert_eq!(first.partition_leader_epoch, 3);
            let untouched = [log[2].clone(), log[3].clone()].concat();
            assert!(
                out.ends_with(&untouched),
                "what loses nothing stays byte for byte"
            );
        }
    }
}

#[test]
fn tombstones_stay_for_their_time_after_the_pass_that_saw_them() {
    let log = [
        plain(0, &[("a", Some("1")), ("b", Some("1"))]),
        plain(2, &[("a", None), ("c", Some("1"))]),
        plain(4, &[("d", Some("1"))]),
    ]
    .concat();
    let (first, _) = Run::default().of(&log);
    let expected = [
        kept(1, "b", "1"),
        (2, "a".to_owned(), None),
        kept(3, "c", "1"),
        kept(4, "d", "1"),
    ];
    assert_eq!(contents(&first), expected);
    let marked = &headers(&first)[1];
    assert_eq!(marked.delete_horizon_ms(), Some(NOW + RETENTION));
    assert_eq!(marked.max_timestamp, NOW - 499);
    let times: Vec<i64> = iter_batches(&first)
        .map(|item| item.unwrap().0)
        .flat_map(|at| records(&first[at..], Limits::default()).map(|record| record.unwrap().timestamp))
        .collect();
    assert_eq!(
        times,
        [NOW - 499, NOW - 500, NOW - 499, NOW - 500],
        "records keep their times"
    );
    // Everything is clean now, but for one record.
    let more = [first, plain(5, &[("e", Some("1"))])].concat();
    let later = |now_ms| Run {
        from: 5,
        now_ms,
        ..Run::default()
    };
    let (second, tally) = later(NOW + RETENTION - 1).of(&more);
    assert_eq!(
        (second.as_slice(), tally.changed),
        (more.as_slice(), 0),
        "not before its time"
    );
    let mut sieve = later(NOW + RETENTION - 1).learnt(&more);
    later(NOW + RETENTION - 1).sift(&mut sieve, &more);
    assert_eq!(sieve.tombstones_from, 0);
    let mut sieve = later(NOW + RETENTION).learnt(&more);
    let (third, _) = later(NOW + RETENTION).sift(&mut sieve, &more);
    assert_eq!(sieve.tombstones_from, 3, "that at offset 2 is gone");
    let expected = [
        kept(1, "b", "1"),
        kept(3, "c", "1"),
        kept(4, "d", "1"),
        kept(5, "e", "1"),
    ];
    assert_eq!(contents(&third), expected);
}

#[test]
fn headers_stay_where_a_sequence_or_the_end_of_the_log_stands_on_them() {
    let producer = |id, base| batch(Compression::Lz4, base, &[("a", Some("1"))]).producer(id, 0, 5);
    let log = [
        producer(7, 0).build().unwrap().to_vec(),
        producer(8, 1).build().unwrap().to_vec(),
        producer(7, 2).build().unwrap().to_vec(),
        plain(3, &[("a", None)]),
        plain(4, &[("b", None), ("a", None)]),
    ]
    .concat();
    let run = Run {
        producers: [(7, 2), (8, 1), (9, 3)].into(),
        ..Run::default()
    };
    let (out, _) = run.of(&log);
    let found = headers(&out);
    let offsets: Vec<(i64, i32)> = found
        .iter()
        .map(|header| (header.last_offset(), header.records_count))
        .collect();
    assert_eq!(offsets, [(1, 0), (2, 0), (5, 2)], "the last of each producer");
    assert_eq!((found[1].producer_id, found[1].base_sequence), (7, 5));
    // Tombstones at the very end, and past their time: the last header says how far the log goes.
    let again = Run {
        from: 5,
        now_ms: NOW + RETENTION,
        producers: [(8, 1)].into(),
        ..Run::default()
    };
    let (again, _) = again.of(&out);
    let offsets: Vec<(i64, i32)> = headers(&again)
        .iter()
        .map(|header| (header.last_offset(), header.records_count))
        .collect();
    assert_eq!(offsets, [(1, 0), (5, 0)]);
    // A pass over what is empty keeps and drops whole headers.
    let more = [again, plain(6, &[("z", Some("1"))])].concat();
    let (last, _) = Run {
        from: 6,
        ..Run::default()
    }
    .of(&more);
    assert_eq!(contents(&last), [kept(6, "z", "1")]);
    assert_eq!(headers(&last).len(), 1);
}

#[test]
fn the_last_record_of_a_log_stays() {
    let log = [
        plain(0, &[("a", Some("1")), ("b", Some("1"))]),
        plain(2, &[("c", None), ("b", Some("2")), ("b", None)]),
    ]
    .concat();
    let ending = |now_ms| Run {
        log_end: 5,
        now_ms,
        ..Run::default()
    };
    let tombstone = |offset, key: &str| (offset, key.to_owned(), None);
    let (first, _) = ending(NOW).of(&log);
    let expected = [kept(0, "a", "1"), tombstone(2, "c"), tombstone(4, "b")];
    assert_eq!(contents(&first), expected);
    let mut sieve = ending(NOW + RETENTION).learnt(&first);
    let (second, _) = ending(NOW + RETENTION).sift(&mut sieve, &first);
    assert_eq!(
        contents(&second),
        [kept(0, "a", "1"), tombstone(4, "b")],
        "its time is over, and it stays"
    );
    assert_eq!(sieve.tombstones_from, 3, "nothing is said of it");
    // Once it is not the last any more, it goes like any other.
    let more = [second, plain(5, &[("d", Some("1"))])].concat();
    let later = Run {
        from: 5,
        now_ms: NOW + RETENTION,
        log_end: 6,
        ..Run::default()
    };
    let mut sieve = later.learnt(&more);
    let (third, _) = later.sift(&mut sieve, &more);
    assert_eq!(contents(&third), [kept(0, "a", "1"), kept(5, "d", "1")]);
    assert_eq!(sieve.tombstones_from, 5);
    // The same goes for a record without a key.
    let mut keyless = BatchBuilder::new(Compression::None).base_offset(6);
    keyless.push(NOW, None, Some(b"old"), &[]);
    keyless.push(NOW, None, Some(b"older"), &[]);
    let more = [third, keyless.build().unwrap().to_vec()].concat();
    let run = Run {
        from: 6,
        log_end: 8,
        ..Run::default()
    };
    let offsets: Vec<i64> = contents(&run.of(&more).0).iter().map(|(at, ..)| *at).collect();
    assert_eq!(offsets, [0, 5, 7]);
}

#[test]
fn records_without_keys_go_and_what_cannot_be_read_stays() {
    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.push(NOW, None, Some(b"old"), &[]);
    keyless.push(NOW, Some(b"a"), Some(b"1"), &[]);
    let mut damaged = batch(Compression::None, 2, &[("a", Some("2"))])
        .build()
        .unwrap()
        .to_vec();
    let length = damaged.len();
    damaged[length - 4] = 0x7f;
    let log = [
        keyless.build().unwrap().to_vec(),
        damaged.clone(),
        plain(3, &[("b", Some("1"))]),
    ]
    .concat();
    let (out, tally) = Run::default().of(&log);
    assert_eq!((tally.keyless, tally.unreadable), (1, 1));
    let start = headers(&out)[0].size_in_bytes();
    assert_eq!(contents(&out[..start]), [kept(1, "a", "1")]);
    assert_eq!(&out[start..start + length], damaged);
}

#[test]
fn a_record_that_lies_about_its_offset_supersedes_nothing() {
    // From when the topic was not compacted, and nobody looked at records.
    let lying = |deltas: &[i32]| {
        let mut builder = BatchBuilder::new(Compression::None).base_offset(1);
        for delta in deltas {
            builder.push_at(*delta, NOW, Some(b"a"), Some(b"lie"), &[]);
        }
        let mut batch = builder.build().unwrap().to_vec();
        let last = deltas.len() as i32 - 1;
        batch[23..27].copy_from_slice(&last.to_be_bytes());
        batch
    };
    for deltas in [&[1_000_000_000][..], &[0, 9], &[1, 0], &[0, 0], &[-1, 0]] {
        let lie = lying(deltas);
        let end = 1 + deltas.len() as i64;
        let log = [
            plain(0, &[("b", Some("1"))]),
            lie.clone(),
            plain(end, &[("a", Some("true"))]),
        ]
        .concat();
        let (out, tally) = Run::default().of(&log);
        assert_eq!(out, log, "{deltas:?}: nothing goes");
        assert_eq!(tally.unreadable, 1, "{deltas:?}");
    }
}

#[test]
fn what_the_map_does_not_know_stays_and_a_full_map_says_how_far_it_came() {
    let log: Vec<Vec<u8>> = (0..30)
        .map(|n| {
            let key: &'static str = format!("key {n}").leak();
            plain(2 * n, &[(key, Some("1")), ("all", Some("1"))])
        })
        .collect();
    let log = log.concat();
    let mut learner = Learner::new(OffsetMap::new(u64::MAX, 0), 10);
    assert!(!learner.push(&log).unwrap());
    assert!(
        learner.end > 12 && learner.end < 40 && learner.end % 2 == 0,
        "{}",
        learner.end
    );
    let end = learner.end;
    let rules = Rules {
        map_end: end,
        now_ms: NOW,
        delete_retention_ms: RETENTION,
        last_of_producers: BTreeMap::new(),
        log_end: i64::MAX,
    };
    let (out, _) = Run::default().sift(&mut Sieve::new(learner.map, rules), &log);
    let all: Vec<i64> = contents(&out)
        .into_iter()
        .filter(|(_, key, _)| key == "all")
        .map(|(offset, ..)| offset)
        .collect();
    let expected: Vec<i64> = (end - 1..60).step_by(2).collect();
    assert_eq!(all, expected);
}

#[test]
fn aborted_data_goes_and_its_marker_after_it() {
    let data = |base| {
        batch(Compression::None, base, &[("a", Some("9"))])
            .producer(1, 0, 0)
            .transactional()
    };
    let mut marker = end_marker_batch(EndMarker::Abort, 1, 0, 0, NOW).unwrap().to_vec();
    drumlin_records::patch_offset_and_epoch(&mut marker, 2, 3);
    let log = [
        plain(0, &[("a", Some("1"))]),
        data(1).build().unwrap().to_vec(),
        marker,
        plain(3, &[("b", Some("1"))]),
    ]
    .concat();
    let aborted = vec![AbortedTransaction {
        producer_id: 1,
        first_offset: 1,
        last_offset: 2,
        last_stable_offset: 1,
    }];
    let run = |from, now_ms| Run {
        from,
        now_ms,
        aborted: aborted.clone(),
        ..Run::default()
    };
    let ends = |log: &[u8]| -> Vec<i64> { headers(log).iter().map(BatchHeader::last_offset).collect() };
    let (first, _) = run(0, NOW).of(&log);
    assert_eq!(
        ends(&first),
        [0, 2, 3],
        "what was aborted did not supersede anything"
    );
    assert_eq!(contents(&first)[0], kept(0, "a", "1"));
    let more = [first, plain(4, &[("c", Some("1"))])].concat();
    let (second, _) = run(4, NOW).of(&more);
    assert_eq!(headers(&second)[1].delete_horizon_ms(), Some(NOW + RETENTION));
    let (third, _) = run(4, NOW + RETENTION - 1).of(&second);
    assert_eq!(ends(&third), [0, 2, 3, 4]);
    let run = run(4, NOW + RETENTION);
    let mut sieve = run.learnt(&third);
    let (fourth, _) = run.sift(&mut sieve, &third);
    assert_eq!(sieve.tombstones_from, 3, "markers count: they decided something");
    assert_eq!(ends(&fourth), [0, 3, 4]);
}
