//! The codec against Java's: byte for byte over every version of every message.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod dispatch;
mod vectors;

use bytes::Bytes;
use dispatch::{Visit, by_key, by_name};
use drumlin_wire::{ApiKey, DecodeError, Message};
use vectors::{DEFAULTS, HEADERS, NESTED, RANDOM, RECORDS, REFUSED, Vector, named, vectors};

/// Decodes a body and encodes it again.
struct Again {
    version: i16,
    body: Bytes,
}

impl Visit for Again {
    type Out = Result<Bytes, String>;

    fn visit<M: Message>(&mut self, _: fn(i16) -> M) -> Self::Out {
        let message =
            M::decode_exact(&self.body, self.version).map_err(|e| format!("{} decode: {e}", M::NAME))?;
        message
            .to_bytes(self.version)
            .map_err(|e| format!("{} encode: {e}", M::NAME))
    }
}

fn complaints(files: &[Vector], mut check: impl FnMut(&Vector) -> Result<(), String>) -> usize {
    let mut wrong = Vec::new();
    for v in files {
        if let Err(why) = check(v) {
            wrong.push(format!(
                "response {} key {} version {}: {why}",
                v.response, v.key, v.version
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        files.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    files.len()
}

#[test]
fn random_messages_of_every_version_encode_again_exactly() {
    let count = complaints(&vectors(RANDOM), |v| {
        let mut again = Again {
            version: v.version,
            body: Bytes::from_static(v.body),
        };
        let bytes = by_key(v.response, v.key, &mut again).ok_or("no such message")??;
        if bytes == v.body {
            Ok(())
        } else {
            Err(format!("{bytes:?} is not {:?}", again.body))
        }
    });
    assert_eq!(count, 7243);
}

#[test]
fn records_and_data_structures_encode_again_exactly() {
    let mut count = 0;
    for (name, version, body) in named(RECORDS) {
        let mut again = Again {
            version,
            body: Bytes::from_static(body),
        };
        let bytes = by_name(name, &mut again).unwrap_or_else(|| panic!("no message {name}"));
        assert_eq!(bytes.as_deref(), Ok(body), "{name} {version}");
        count += 1;
    }
    assert_eq!(count, 608);
}

/// Encodes the default message, or the sample.
struct Make {
    version: i16,
    sample: bool,
}

impl Visit for Make {
    type Out = Result<Bytes, String>;

    fn visit<M: Message>(&mut self, sample: fn(i16) -> M) -> Self::Out {
        let message = if self.sample {
            sample(self.version)
        } else {
            M::default()
        };
        message
            .to_bytes(self.version)
            .map_err(|e| format!("{}: {e}", M::NAME))
    }
}

#[test]
fn defaults_are_javas() {
    for (file, sample) in [(DEFAULTS, false), (NESTED, true)] {
        let count = complaints(&vectors(file), |v| {
            let mut make = Make {
                version: v.version,
                sample,
            };
            let bytes = by_key(v.response, v.key, &mut make).ok_or("no such message")??;
            if bytes == v.body {
                Ok(())
            } else {
                Err(format!("{bytes:?} is not {:?}", Bytes::from_static(v.body)))
            }
        });
        assert_eq!(count, 604);
    }
}

struct Verdict {
    version: i16,
    body: Bytes,
}

impl Visit for Verdict {
    type Out = Result<(), DecodeError>;

    fn visit<M: Message>(&mut self, _: fn(i16) -> M) -> Self::Out {
        M::decode_exact(&self.body, self.version).map(drop)
    }
}

/// The flag of a mutated body says whether Java takes all of it.
#[test]
fn java_and_we_refuse_the_same() {
    let (mut refused, mut taken) = (0, 0);
    complaints(&vectors(REFUSED), |v| {
        let mut verdict = Verdict {
            version: v.version,
            body: Bytes::from_static(v.body),
        };
        let ours = by_key(v.response, v.key, &mut verdict).ok_or("no such message")?;
        match (v.flags, ours) {
            (0, Ok(())) => Err(format!("taken, and Java refuses it: {:?}", verdict.body)),
            (0, Err(_)) => {
                refused += 1;
                Ok(())
            }
            (_, Ok(())) => {
                taken += 1;
                Ok(())
            }
            (_, Err(why)) => Err(format!("refused ({why}), and Java takes it: {:?}", verdict.body)),
        }
    });
    assert_eq!((refused, taken), (3020, 1196));
}

#[test]
fn header_versions_are_javas() {
    let mut keys = std::collections::BTreeSet::new();
    for line in HEADERS.lines() {
        let row: Vec<i16> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let [key, version, request, response] = row[..] else {
            panic!("{line}")
        };
        let api = ApiKey::from_i16(key).unwrap();
        assert_eq!(api.request_header_version(version), request, "{line}");
        assert_eq!(api.response_header_version(version), response, "{line}");
        assert!(
            (api.schema().min_version..=api.schema().max_version).contains(&version),
            "{line}"
        );
        keys.insert(api);
    }
    assert!(
        keys.iter().copied().eq(ApiKey::ALL.iter().copied()),
        "Java's APIs and ours differ"
    );
    assert_eq!(keys.len(), 89);
}

#[test]
fn versions_outside_the_schema_are_refused() {
    struct Outside;
    impl Visit for Outside {
        type Out = ();
        fn visit<M: Message>(&mut self, _: fn(i16) -> M) {
            for version in [M::MIN_VERSION - 1, M::MAX_VERSION + 1, i16::MIN, i16::MAX] {
                assert!(M::default().to_bytes(version).is_err(), "{} {version}", M::NAME);
                assert_eq!(
                    M::decode(&Bytes::new(), version).err(),
                    Some(DecodeError::Version(version))
                );
            }
        }
    }
    for key in ApiKey::ALL {
        for response in [false, true] {
            by_key(response, key.as_i16() as u16, &mut Outside).expect("every API has both");
        }
    }
}

/// Every prefix of a message is refused. A message with bytes too many is taken by the broker, as by Kafka, and
/// refused where our own messages are read back.
#[test]
fn truncated_messages_are_refused_and_trailing_bytes_ignored() {
    struct Longer<'a> {
        version: i16,
        body: &'a Bytes,
        longer: Bytes,
    }
    impl Visit for Longer<'_> {
        type Out = Result<(), String>;

        fn visit<M: Message>(&mut self, _: fn(i16) -> M) -> Self::Out {
            let taken = M::decode(&self.longer, self.version)
                .map_err(|e| format!("refused with bytes too many: {e}"))?;
            if taken.to_bytes(self.version).as_ref() != Ok(self.body) {
                return Err("bytes too many change the message".to_owned());
            }
            match M::decode_exact(&self.longer, self.version) {
                Err(DecodeError::Trailing(3)) => Ok(()),
                other => Err(format!("three bytes too many: {:?}", other.err())),
            }
        }
    }
    let all = vectors(RANDOM);
    complaints(&all, |v| {
        let mut longer = Longer {
            version: v.version,
            body: &Bytes::from_static(v.body),
            longer: Bytes::from([v.body, &[0, 0, 0]].concat()),
        };
        by_key(v.response, v.key, &mut longer).ok_or("no such message")??;
        let step = 1 + v.body.len() / 64;
        let cuts = (0..v.body.len())
            .step_by(step)
            .map(|n| Bytes::from_static(&v.body[..n]));
        for body in cuts {
            let mut verdict = Verdict {
                version: v.version,
                body,
            };
            if by_key(v.response, v.key, &mut verdict)
                .ok_or("no such message")?
                .is_ok()
            {
                return Err(format!(
                    "{} bytes of {} are taken",
                    verdict.body.len(),
                    v.body.len()
                ));
            }
        }
        Ok(())
    });
}
