use super::*;
use crate::testing::{grown_image, newborn, registration, seeded, step, topic, topic_id};
use rand::RngExt;
use std::collections::BTreeMap;

fn fenced(node_id: i32, incarnation: Incarnation) -> Fenced {
    Fenced {
        node_id,
        incarnation,
        fence_slot: 7,
        estate: None,
    }
}

#[test]
fn a_restart_raises_every_epoch_by_one() {
    let mut image = newborn();
    let first = step(&mut image, &registration(1, None)).expect("registers");
    step(&mut image, &topic("a", 1, 3, 1)).expect("creates");
    assert_eq!(
        image.partition(&topic_id(1), 2),
        Some(crate::Leadership {
            leader: 1,
            incarnation: first,
            leader_epoch: 0
        })
    );
    let second = step(&mut image, &registration(1, Some(fenced(1, first)))).expect("restarts");
    step(&mut image, &topic("b", 2, 1, 1)).expect("creates");
    step(
        &mut image,
        &Record::PartitionsAdded {
            id: topic_id(1),
            partitions: 4,
            leader: 1,
        },
    )
    .expect("adds");
    let epochs =
        |image: &Image, id, partition| image.partition(&topic_id(id), partition).map(|p| p.leader_epoch);
    assert_eq!(epochs(&image, 1, 2), Some(1));
    assert_eq!(epochs(&image, 1, 3), Some(0), "a new partition starts at 0");
    assert_eq!(epochs(&image, 2, 0), Some(0), "a new topic starts at 0");
    // Another node takes over from it, and then it comes back.
    let third = step(&mut image, &registration(2, Some(fenced(1, second)))).expect("takes over");
    assert_eq!(
        image.partition(&topic_id(1), 0),
        Some(crate::Leadership {
            leader: 2,
            incarnation: third,
            leader_epoch: 2
        })
    );
    step(&mut image, &registration(1, Some(fenced(2, third)))).expect("takes back");
    assert_eq!(epochs(&image, 1, 0), Some(3));
    assert_eq!(epochs(&image, 1, 3), Some(2));
    assert_eq!(epochs(&image, 2, 0), Some(2));
    assert_eq!(image.partition_count(), 5);
}

#[test]
fn registering_needs_the_previous_incarnation_fenced() {
    let mut image = newborn();
    let first = step(&mut image, &registration(1, None)).expect("registers");
    assert_eq!(
        step(&mut image, &registration(1, None)),
        Err(ApplyError::NotFenced(first))
    );
    assert_eq!(
        step(&mut image, &registration(1, Some(fenced(1, 99)))),
        Err(ApplyError::UnknownIncarnation(99))
    );
    assert_eq!(
        step(&mut image, &registration(2, Some(fenced(2, first)))),
        Err(ApplyError::UnknownIncarnation(first)),
        "that incarnation is another node's"
    );
    step(&mut image, &registration(1, Some(fenced(1, first)))).expect("restarts");
    assert_eq!(
        step(&mut image, &registration(1, Some(fenced(1, first)))),
        Err(ApplyError::AlreadyFenced(first))
    );
}

#[test]
fn names_are_free_at_once_and_ids_never() {
    let mut image = newborn();
    step(&mut image, &registration(1, None)).expect("registers");
    step(&mut image, &topic("a", 1, 3, 1)).expect("creates");
    assert_eq!(
        step(&mut image, &topic("a", 2, 3, 1)),
        Err(ApplyError::TopicExists("a".into()))
    );
    assert_eq!(
        step(&mut image, &topic("b", 1, 3, 1)),
        Err(ApplyError::TopicIdUsed(topic_id(1)))
    );
    assert_eq!(
        step(&mut image, &topic("b", 2, 3, 9)),
        Err(ApplyError::UnknownBroker(9))
    );
    assert!(step(&mut image, &topic("b", 2, 0, 1)).is_err());
    let slot = step(&mut image, &Record::TopicDeleted { id: topic_id(1) }).expect("deletes");
    let tombstone = image.tombstones.get(&topic_id(1)).cloned();
    assert_eq!(
        tombstone,
        Some(Tombstone {
            name: "a".into(),
            partitions: 3,
            slot
        })
    );
    step(&mut image, &topic("a", 2, 1, 1)).expect("the name is free");
    assert_eq!(
        step(&mut image, &topic("c", 1, 3, 1)),
        Err(ApplyError::TopicIdUsed(topic_id(1)))
    );
    step(&mut image, &Record::TopicSwept { id: topic_id(1) }).expect("sweeps");
    assert!(image.tombstones.is_empty());
    assert!(
        step(&mut image, &Record::TopicSwept { id: topic_id(2) }).is_err(),
        "it is alive"
    );
}

#[test]
fn a_chain_goes_only_when_nothing_needs_it() {
    let mut image = newborn();
    let a = step(&mut image, &registration(1, None)).expect("registers");
    step(&mut image, &topic("t", 1, 1, 1)).expect("creates");
    let sweep = |incarnation| Record::ChainSwept { incarnation };
    let unpin = |incarnation, heir| Record::ChainUnpinned { incarnation, heir };
    assert_eq!(
        step(&mut image, &sweep(a)),
        Err(ApplyError::ChainInUse(a)),
        "it lives"
    );
    assert_eq!(
        step(&mut image, &unpin(a, a)),
        Err(ApplyError::ChainInUse(a)),
        "it lives"
    );
    let b = step(&mut image, &registration(1, Some(fenced(1, a)))).expect("restarts");
    let c = step(&mut image, &registration(1, Some(fenced(1, b)))).expect("restarts");
    assert_eq!(image.heir_of(a), Some(c));
    assert_eq!(
        step(&mut image, &sweep(a)),
        Err(ApplyError::ChainInUse(a)),
        "it is pinned"
    );
    assert_eq!(
        step(&mut image, &unpin(a, b)),
        Err(ApplyError::ChainInUse(a)),
        "b is dead"
    );
    // The middle one goes first: the oldest is still the newest one's to give up.
    step(&mut image, &unpin(b, c)).expect("unpins");
    step(&mut image, &sweep(b)).expect("sweeps");
    assert_eq!(image.heir_of(a), Some(c));
    let pin = Pin {
        incarnation: a,
        end_slot: 7,
    };
    step(
        &mut image,
        &Record::PartitionPinned {
            id: topic_id(1),
            partition: 0,
            pin,
        },
    )
    .expect("pins");
    step(&mut image, &unpin(a, c)).expect("unpins");
    assert_eq!(
        step(&mut image, &sweep(a)),
        Err(ApplyError::ChainInUse(a)),
        "a partition pins it"
    );
    let unpinned = |leader_epoch| Record::PartitionUnpinned {
        id: topic_id(1),
        partition: 0,
        incarnation: a,
        leader_epoch,
    };
    assert_eq!(
        step(&mut image, &unpinned(1)),
        Err(ApplyError::LeaderEpoch { asked: 1, current: 2 })
    );
    step(&mut image, &unpinned(2)).expect("unpins");
    step(&mut image, &sweep(a)).expect("sweeps");
    assert_eq!(image.incarnations.len(), 1);
}

#[test]
fn producer_ids_and_features_move_one_way() {
    let mut image = newborn();
    let allocate = |end| Record::ProducerIdsAllocated { node_id: 1, end };
    step(&mut image, &allocate(1_000)).expect("the first block");
    assert!(step(&mut image, &allocate(1_000)).is_err());
    let finalise = |name: &str, level| Record::FeatureFinalised {
        name: name.into(),
        level,
    };
    let slot = step(&mut image, &finalise("group.version", 1)).expect("finalises");
    assert_eq!(image.features_epoch, slot);
    for level in [-1, 0, 2, i16::MAX] {
        assert!(
            step(&mut image, &finalise(FORMAT_FEATURE, level)).is_err(),
            "level {level}"
        );
    }
    step(&mut image, &finalise("group.version", 0)).expect("takes back");
    assert_eq!(image.features.len(), 1);
    assert_eq!(image.format_level(), FORMAT_LEVEL);
}

#[test]
fn configs_are_set_and_deleted() {
    let mut image = newborn();
    step(&mut image, &registration(1, None)).expect("registers");
    step(&mut image, &topic("a", 1, 1, 1)).expect("creates");
    let set = |resource, name: &str, value: Option<&str>| Record::ConfigSet {
        resource,
        name: name.into(),
        key: "k".into(),
        value: value.map(Into::into),
    };
    step(&mut image, &set(ResourceKind::Topic, "a", Some("v"))).expect("sets");
    step(&mut image, &set(ResourceKind::Broker, "", Some("w"))).expect("sets");
    assert!(step(&mut image, &set(ResourceKind::Topic, "b", Some("v"))).is_err());
    assert_eq!(
        image
            .configs(ResourceKind::Topic, "a")
            .and_then(|c| c.get("k"))
            .map(String::as_str),
        Some("v")
    );
    assert_eq!(
        image
            .topic_by_id(&topic_id(1))
            .and_then(|t| t.configs.get("k"))
            .map(String::as_str),
        Some("v")
    );
    assert_eq!(
        image
            .configs(ResourceKind::Broker, "")
            .and_then(|c| c.get("k"))
            .map(String::as_str),
        Some("w")
    );
    step(&mut image, &set(ResourceKind::Topic, "a", None)).expect("deletes");
    step(&mut image, &set(ResourceKind::Broker, "", None)).expect("deletes");
    assert_eq!(
        image.configs(ResourceKind::Topic, "a").map(BTreeMap::len),
        Some(1)
    );
    assert_eq!(image.configs(ResourceKind::Broker, ""), None);
}

/// Against a model that keeps every partition's epoch as a plain number.
#[test]
fn epochs_are_exact() {
    let (seed, mut rng) = seeded("epochs_are_exact");
    for _ in 0..30 {
        let mut image = newborn();
        let mut node = 1;
        let mut live = step(&mut image, &registration(node, None)).expect("registers");
        let mut model: BTreeMap<(TopicId, u32), i32> = BTreeMap::new();
        for n in 0..60 {
            match rng.random_range(0..4) {
                0 => {
                    step(&mut image, &topic(&format!("t{n}"), n, 2, node)).expect("creates");
                    model.extend((0..2).map(|partition| ((topic_id(n), partition), 0)));
                }
                1 if !model.is_empty() => {
                    let id = *image.topics_by_id().iter().next().expect("a topic").0;
                    step(&mut image, &Record::TopicDeleted { id }).expect("deletes");
                    model.retain(|(of, _), _| *of != id);
                }
                _ => {
                    let was = fenced(node, live);
                    node = if rng.random_ratio(1, 2) {
                        node
                    } else {
                        rng.random_range(1..4)
                    };
                    live = step(&mut image, &registration(node, Some(was))).expect("takes over");
                    model.values_mut().for_each(|epoch| *epoch += 1);
                }
            }
            for ((id, partition), epoch) in &model {
                let led = image.partition(id, *partition).expect("there");
                assert_eq!(
                    (led.leader, led.incarnation, led.leader_epoch),
                    (node, live, *epoch),
                    "seed {seed}"
                );
            }
        }
    }
}

#[test]
fn both_topic_indexes_and_the_count_agree() {
    let (seed, mut rng) = seeded("both_topic_indexes_and_the_count_agree");
    for _ in 0..10 {
        let image = grown_image(&mut rng, 300);
        assert_eq!(image.topics().len(), image.topics_by_id().len(), "seed {seed}");
        for topic in image.topics().values() {
            assert!(
                Arc::ptr_eq(topic, image.topic_by_id(&topic.id).expect("by id")),
                "seed {seed}"
            );
        }
        let count: u64 = image
            .topics()
            .values()
            .map(|topic| topic.partitions.len() as u64)
            .sum();
        assert_eq!(image.partition_count(), count, "seed {seed}");
        let orphan = image
            .pins
            .iter()
            .find(|((id, _), _)| image.topic_by_id(id).is_none());
        assert_eq!(orphan, None, "seed {seed}");
    }
}

#[test]
fn a_large_image_is_lean_and_quick_to_change() {
    let mut image = newborn();
    let mut live = step(&mut image, &registration(1, None)).expect("registers");
    let began = std::time::Instant::now();
    for n in 0..10_000 {
        step(&mut image, &topic(&format!("topic-{n}"), n, 10, 1)).expect("creates");
    }
    let created = began.elapsed();
    let began = std::time::Instant::now();
    for n in 0..1_000 {
        let seen = image.clone();
        let id = topic_id(n * 7 % 10_000);
        step(
            &mut image,
            &Record::PartitionsAdded {
                id,
                partitions: 11,
                leader: 1,
            },
        )
        .expect("adds");
        assert_eq!(seen.partition_count() + 1, image.partition_count());
    }
    let changed = began.elapsed() / 1_000;
    let began = std::time::Instant::now();
    live = step(&mut image, &registration(1, Some(fenced(1, live)))).expect("restarts");
    let restarted = began.elapsed();
    let began = std::time::Instant::now();
    step(&mut image, &registration(2, Some(fenced(1, live)))).expect("takes over");
    let moved = began.elapsed();
    let began = std::time::Instant::now();
    let bytes = image.encode();
    let encoded = began.elapsed();
    let began = std::time::Instant::now();
    let back = Image::decode(&bytes).expect("decodes");
    let decoded = began.elapsed();
    println!(
        "10,000 topics, 101,000 partitions, this build: created in {created:?}, a change {changed:?}, a restart \
         {restarted:?}, a takeover by another node {moved:?}; checkpoint of {} bytes written in {encoded:?}, read \
         in {decoded:?}",
        bytes.len()
    );
    assert_eq!(back, image);
    assert!(size_of::<PartitionImage>() <= 16);
    assert!(changed.as_millis() < 5, "a change takes {changed:?}");
}
