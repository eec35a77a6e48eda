//! What this crate's tests share.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::image::Image;
use crate::record::{Endpoint, Fenced, Pin, Record};
use crate::{ClusterId, ResourceKind};

/// The seed of a randomised test, from `DRUMLIN_SEED` if that is set, printed so that a failure can be replayed.
pub fn seed(test: &str) -> u64 {
    let set = std::env::var("DRUMLIN_SEED").ok();
    let seed = set.map_or_else(rand::random, |seed| {
        seed.parse().expect("DRUMLIN_SEED is a number")
    });
    println!("{test}: DRUMLIN_SEED={seed}");
    seed
}

pub fn seeded(test: &str) -> (u64, StdRng) {
    let seed = seed(test);
    (seed, StdRng::seed_from_u64(seed))
}

pub fn text(rng: &mut StdRng, max: usize) -> String {
    let len = rng.random_range(0..=max);
    (0..len)
        .map(|_| {
            if rng.random_ratio(1, 8) {
                'ü'
            } else {
                rng.random_range('a'..='z')
            }
        })
        .collect()
}

fn maybe<T>(rng: &mut StdRng, make: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    rng.random::<bool>().then(|| make(rng))
}

pub fn endpoint(rng: &mut StdRng) -> Endpoint {
    Endpoint {
        listener: text(rng, 9),
        host: text(rng, 30),
        port: rng.random(),
        security_protocol: rng.random_range(0..4),
    }
}

/// A record with fields of any value, whether or not it fits an image.
pub fn any_record(rng: &mut StdRng, kind: u8) -> Record {
    let id = rng.random();
    match kind {
        1 => Record::NewController {
            node_id: rng.random(),
        },
        2 => Record::BrokerRegistered {
            node_id: rng.random(),
            endpoints: (0..rng.random_range(0..3)).map(|_| endpoint(rng)).collect(),
            rack: maybe(rng, |rng| text(rng, 9)),
            previous: maybe(rng, |rng| Fenced {
                node_id: rng.random(),
                incarnation: rng.random(),
                fence_slot: rng.random(),
                estate: maybe(rng, |rng| text(rng, 40)),
            }),
        },
        3 => Record::TopicCreated {
            name: text(rng, 40),
            id,
            partitions: rng.random(),
            leader: rng.random(),
            configs: (0..rng.random_range(0..4))
                .map(|_| (text(rng, 20), text(rng, 20)))
                .collect(),
        },
        4 => Record::PartitionsAdded {
            id,
            partitions: rng.random(),
            leader: rng.random(),
        },
        5 => Record::TopicDeleted { id },
        6 => Record::TopicSwept { id },
        7 => Record::ConfigSet {
            resource: [
                ResourceKind::Topic,
                ResourceKind::Broker,
                ResourceKind::ClientMetrics,
                ResourceKind::Group,
            ][rng.random_range(0..4)],
            name: text(rng, 20),
            key: text(rng, 20),
            value: maybe(rng, |rng| text(rng, 20)),
        },
        8 => Record::ProducerIdsAllocated {
            node_id: rng.random(),
            end: rng.random(),
        },
        9 => Record::FeatureFinalised {
            name: text(rng, 20),
            level: rng.random(),
        },
        10 => Record::PartitionPinned {
            id,
            partition: rng.random(),
            pin: Pin {
                incarnation: rng.random(),
                end_slot: rng.random(),
            },
        },
        11 => Record::PartitionUnpinned {
            id,
            partition: rng.random(),
            incarnation: rng.random(),
            leader_epoch: rng.random(),
        },
        12 => Record::ChainUnpinned {
            incarnation: rng.random(),
            heir: rng.random(),
        },
        13 => Record::ChainSwept {
            incarnation: rng.random(),
        },
        14 => Record::Checkpoint {
            covers_below: rng.random(),
            body: text(rng, 40),
        },
        other => unreachable!("kind {other}"),
    }
}

pub fn newborn() -> Image {
    Image::newborn(ClusterId::from_random([9; 16]), crate::FORMAT_LEVEL)
}

pub fn registration(node_id: i32, previous: Option<Fenced>) -> Record {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: "localhost".into(),
        port: 9092,
        security_protocol: 0,
    };
    Record::BrokerRegistered {
        node_id,
        endpoints: vec![endpoint],
        rack: None,
        previous,
    }
}

pub fn topic(name: &str, id: u64, partitions: u32, leader: i32) -> Record {
    Record::TopicCreated {
        name: name.into(),
        id: topic_id(id),
        partitions,
        leader,
        configs: vec![("retention.ms".into(), "1000".into())],
    }
}

pub fn topic_id(id: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    bytes
}

/// Applies one record as an entry of its own.
pub fn step(image: &mut Image, record: &Record) -> Result<u64, crate::ApplyError> {
    let slot = image.position;
    let mut next = image.clone();
    next.apply(record, slot)?;
    next.position = slot + 1;
    *image = next;
    Ok(slot)
}

/// An image that grew by `steps` random records that fit it.
pub fn grown_image(rng: &mut StdRng, steps: usize) -> Image {
    let mut image = newborn();
    step(&mut image, &registration(1, None)).expect("the first registration");
    for _ in 0..steps {
        let record = fitting_record(rng, &image);
        step(&mut image, &record).unwrap_or_else(|error| panic!("{record:?}: {error}"));
    }
    image
}

fn fitting_record(rng: &mut StdRng, image: &Image) -> Record {
    let node_id = *image.brokers.iter().next().expect("a broker").0;
    let some_topic = image
        .topics()
        .values()
        .nth(rng.random_range(0..image.topics().len().max(1)))
        .cloned();
    let (live, _) = image.live_incarnations().next().expect("one is live");
    match (rng.random_range(0..12), some_topic) {
        (0, _) => {
            let fenced = Fenced {
                node_id,
                incarnation: live,
                fence_slot: rng.random_range(1..1 << 40),
                estate: maybe(rng, |rng| text(rng, 40)),
            };
            registration(
                if rng.random_ratio(1, 4) {
                    node_id % 3 + 1
                } else {
                    node_id
                },
                Some(fenced),
            )
        }
        (1, Some(topic)) => Record::TopicDeleted { id: topic.id },
        (2, Some(topic)) => Record::PartitionsAdded {
            id: topic.id,
            partitions: topic.partitions.len() as u32 + rng.random_range(1..5),
            leader: node_id,
        },
        (3, Some(topic)) => Record::ConfigSet {
            resource: ResourceKind::Topic,
            name: topic.name.to_string(),
            key: text(rng, 3),
            value: maybe(rng, |rng| text(rng, 9)),
        },
        (4, Some(topic)) => Record::PartitionPinned {
            id: topic.id,
            partition: 0,
            pin: Pin {
                incarnation: live,
                end_slot: rng.random(),
            },
        },
        (5, Some(topic)) => Record::PartitionUnpinned {
            id: topic.id,
            partition: 0,
            incarnation: live,
            leader_epoch: image.partition(&topic.id, 0).expect("partition 0").leader_epoch,
        },
        (6, _) => Record::ConfigSet {
            resource: ResourceKind::Broker,
            name: text(rng, 1),
            key: text(rng, 3),
            value: maybe(rng, |rng| text(rng, 9)),
        },
        (7, _) => Record::ProducerIdsAllocated {
            node_id,
            end: image.next_producer_id + 1_000,
        },
        (8, _) => Record::FeatureFinalised {
            name: text(rng, 9),
            level: rng.random_range(0..9),
        },
        (9, _) if image.incarnations.len() > 1 => {
            let (oldest, _) = image.incarnations.iter().next().expect("several");
            if image.may_sweep_chain(*oldest) {
                Record::ChainSwept { incarnation: *oldest }
            } else {
                Record::ChainUnpinned {
                    incarnation: *oldest,
                    heir: live,
                }
            }
        }
        (10, _) if !image.tombstones.is_empty() => Record::TopicSwept {
            id: *image.tombstones.iter().next().expect("one").0,
        },
        _ => topic(
            &format!("t{}-{}", image.position, text(rng, 9)),
            rng.random(),
            rng.random_range(1..20),
            node_id,
        ),
    }
}
