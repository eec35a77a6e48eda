use super::*;
use crate::testing::{any_record, seeded};
use rand::RngExt;

#[test]
fn every_record_round_trips() {
    let (seed, mut rng) = seeded("every_record_round_trips");
    for round in 0..400 {
        let records: Vec<Record> = if round < 100 {
            (1..=LAST_KIND).map(|kind| any_record(&mut rng, kind)).collect()
        } else {
            (0..rng.random_range(0..9))
                .map(|_| {
                    let kind = rng.random_range(1..=LAST_KIND);
                    any_record(&mut rng, kind)
                })
                .collect()
        };
        let body = encode(&records);
        assert_eq!(decode_body(&body).as_ref(), Ok(&records), "seed {seed}");
    }
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let (seed, mut rng) = seeded("a_body_cut_anywhere_is_refused");
    let records: Vec<Record> = (1..=LAST_KIND).map(|kind| any_record(&mut rng, kind)).collect();
    let mut body = encode(&records);
    for end in 0..body.len() {
        assert!(decode_body(&body[..end]).is_err(), "cut at {end}, seed {seed}");
    }
    body.put_u8(0);
    assert!(
        matches!(decode_body(&body), Err(DecodeError::LeftOver(1, _))),
        "seed {seed}"
    );
}

#[test]
fn unknown_kinds_and_versions_are_refused() {
    let mut body = encode(&[Record::TopicDeleted { id: [1; 16] }]);
    let good = body.clone();
    for kind in [0, LAST_KIND + 1, 20, 255] {
        body[2] = kind;
        assert_eq!(decode_body(&body), Err(DecodeError::UnknownKind(kind)));
    }
    body = good.clone();
    body[3] = 2;
    let error = decode_body(&body).unwrap_err();
    assert!(
        error.to_string().contains("start that or a later version"),
        "{error}"
    );
    body = good;
    body[0] = 2;
    assert!(matches!(
        decode_body(&body),
        Err(DecodeError::UnknownVersion {
            version: 2,
            newest: 1,
            ..
        })
    ));
}

#[test]
fn mutated_bodies_never_panic() {
    let (_, mut rng) = seeded("mutated_bodies_never_panic");
    for _ in 0..20_000 {
        let kind = rng.random_range(1..=LAST_KIND);
        let mut body = encode(&[any_record(&mut rng, kind)]);
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..body.len());
            body[at] = rng.random();
        }
        let _ = decode_body(&body);
    }
}

#[test]
fn a_restart_is_a_small_record() {
    let previous = Some(Fenced {
        node_id: 1,
        incarnation: 1_000_000,
        fence_slot: 10_000_000,
        estate: Some("wal/3f/1/1000000/estate/0123456789abcdef0123456789abcdef".into()),
    });
    assert!(encode(&[crate::testing::registration(1, previous)]).len() < 200);
}

fn encode(records: &[Record]) -> BytesMut {
    let (mut bytes, mut body) = (BytesMut::new(), BytesMut::new());
    records.iter().for_each(|record| record.encode(&mut bytes));
    encode_body(&mut body, records.len(), &bytes);
    body
}
