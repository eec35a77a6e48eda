use super::*;
use crate::testing::{grown_image, seeded};
use rand::RngExt;

#[test]
fn images_round_trip() {
    let (seed, mut rng) = seeded("images_round_trip");
    for steps in [0, 1, 10, 100, 400, 1_000] {
        let image = grown_image(&mut rng, steps);
        let bytes = image.encode();
        assert_eq!(
            Image::decode(&bytes).as_ref(),
            Ok(&image),
            "seed {seed}, {steps} steps"
        );
        assert_eq!(
            Image::decode(&bytes).expect("decodes").encode(),
            bytes,
            "seed {seed}, {steps} steps"
        );
    }
}

#[test]
fn a_body_cut_or_changed_anywhere_is_refused() {
    let (seed, mut rng) = seeded("a_body_cut_or_changed_anywhere_is_refused");
    let bytes = grown_image(&mut rng, 60).encode();
    assert!(bytes.len() < 16_384);
    for end in 0..bytes.len() {
        assert!(Image::decode(&bytes[..end]).is_err(), "cut at {end}, seed {seed}");
        let mut flipped = bytes.clone();
        flipped[end] ^= 1 << rng.random_range(0..8);
        assert!(Image::decode(&flipped).is_err(), "flipped at {end}, seed {seed}");
        // With a checksum that matches, the cut alone must be noticed.
        let mut short = BytesMut::from(&bytes[..end]);
        let checksum = crc32c::crc32c(&short);
        short.put_u32_le(checksum);
        assert!(
            Image::decode(&short).is_err() || end == bytes.len() - 4,
            "cut at {end}, seed {seed}"
        );
    }
}

#[test]
fn unknown_versions_and_sections_are_refused() {
    let bytes = crate::testing::newborn().encode();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        let end = bytes.len() - 4;
        let checksum = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        Image::decode(&bytes).unwrap_err()
    };
    assert!(matches!(with(0, b'x'), DecodeError::Magic(_)));
    assert!(matches!(
        with(8, 2),
        DecodeError::UnknownVersion { version: 2, .. }
    ));
    assert_eq!(with(9, 77), DecodeError::UnknownSection(77));
    assert!(matches!(
        with(10, 9),
        DecodeError::UnknownVersion { version: 9, .. }
    ));
}

#[test]
fn mutated_bodies_never_panic() {
    let (_, mut rng) = seeded("mutated_images_never_panic");
    let bytes = grown_image(&mut rng, 40).encode();
    for _ in 0..5_000 {
        let mut bytes = bytes.clone();
        let end = bytes.len() - 4;
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..end);
            bytes[at] = rng.random();
        }
        let checksum = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        let _ = Image::decode(&bytes);
    }
}
