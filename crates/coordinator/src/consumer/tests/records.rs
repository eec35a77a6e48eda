//! The records are Kafka's.

use bytes::Bytes;

use super::*;
use crate::consumer::records::{AssignmentEpoch, GroupEpoch, Resolved};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn types(records: &[Record]) -> Vec<(u8, bool)> {
    records
        .iter()
        .map(|record| (record.key[1], record.value.is_some()))
        .collect()
}

#[test]
fn a_first_member_writes_what_kafka_writes_in_its_order() {
    let mut world = World::new();
    world.topics.create("t", 1);
    world.heartbeat(&join("a", &["t"])).expect("joins");
    // Member, group epoch, target, target epoch, current.
    assert_eq!(
        types(&world.log),
        [(5, true), (3, true), (7, true), (6, true), (8, true)]
    );
    world.log.clear();
    let mut request = beat("a", 1, None);
    request.subscribed_topic_regex = Some(Str::from("t"));
    world.heartbeat(&request).expect("stays");
    assert_eq!(
        types(&world.log),
        [(5, true), (16, true), (3, true), (6, true), (8, true)]
    );
    world.log.clear();
    world.heartbeat(&beat("a", 2, None)).expect("stays");
    assert!(
        world.log.is_empty(),
        "a heartbeat that changes nothing writes nothing"
    );
    world.heartbeat(&beat("a", -1, None)).expect("leaves");
    assert_eq!(
        types(&world.log),
        [(8, false), (7, false), (5, false), (16, false), (3, true)]
    );
}

#[test]
fn a_static_member_that_comes_back_is_replaced_in_kafkas_order() {
    let mut world = World::new();
    world.topics.create("t", 1);
    let mut request = join("a", &["t"]);
    request.instance_id = Some(Str::from("i"));
    world.heartbeat(&request).expect("joins");
    let mut leave = beat("a", -2, None);
    leave.instance_id = Some(Str::from("i"));
    world.log.clear();
    world.heartbeat(&leave).expect("leaves");
    assert_eq!(types(&world.log), [(8, true)]);
    world.log.clear();
    request.member_id = Str::from("b");
    world.heartbeat(&request).expect("comes back");
    assert_eq!(
        types(&world.log),
        [
            (8, false),
            (7, false),
            (5, false),
            (5, true),
            (7, true),
            (8, true),
            (8, true)
        ]
    );
}

/// Bytes that Kafka 4.3.1's own GroupCoordinatorRecordSerde gave for the same values.
#[test]
fn bytes_are_kafkas() {
    let topic = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let m = Str::from("m");
    let current = Current {
        epoch: 2,
        previous_epoch: 1,
        state: MemberState::UnrevokedPartitions,
        assigned: [(topic, [(0, 1), (4, 2)].into())].into(),
        revoking: Default::default(),
    };
    let by_name = Metadata {
        instance_id: Some(Str::from("i")),
        client_id: Str::from("c"),
        client_host: Str::from("/h"),
        topics: [Str::from("t"), Str::from("u")].into(),
        rebalance_timeout_ms: 5,
        ..Metadata::default()
    };
    let classic = Metadata {
        rack_id: Some(Str::from("r")),
        client_id: Str::from("c"),
        client_host: Str::from("/h"),
        regex: Str::from("x"),
        rebalance_timeout_ms: 5,
        assignor: Some(Str::from("range")),
        classic: Some(ClassicMember {
            session_timeout_ms: 9,
            protocols: vec![(Str::from("p"), Bytes::from_static(&[1, 2]))],
        }),
        ..Metadata::default()
    };
    let resolved = Resolved {
        topics: [Str::from("x1")].into(),
        version: 7,
        timestamp: 1_000,
    };
    let target = [(topic, vec![1, 2])].into();
    for (change, key, value) in [
        (
            Change::Epoch(Some(GroupEpoch {
                epoch: 3,
                metadata_hash: 0x1122,
            })),
            "0003000167",
            "0000000000030100080000000000001122",
        ),
        (
            Change::Current(m.clone(), Some(current)),
            "000800016700016d",
            "0000000000020000000101020102030405060708090a0b0c0d0e0f10030000000000000004010009030000000100\
             0000020100",
        ),
        (
            Change::Member(m.clone(), Some(by_name)),
            "000500016700016d",
            "00000269000263032f68030274027501000000050001000100",
        ),
        (
            Change::Member(m.clone(), Some(classic)),
            "000500016700016d",
            "00000002720263032f68010278000000050672616e676501000d01000000090202700301020000",
        ),
        (
            Change::AssignmentEpoch(Some(AssignmentEpoch {
                epoch: 4,
                timestamp: 1_000,
            })),
            "0006000167",
            "00000000000401000800000000000003e8",
        ),
        (
            Change::Target(m, Some(target)),
            "000700016700016d",
            "0000020102030405060708090a0b0c0d0e0f100300000001000000020000",
        ),
        (
            Change::Regex(Str::from("x.*"), Some(resolved)),
            "00100001670003782e2a",
            "000002037831000000000000000700000000000003e800",
        ),
        (Change::PartitionMetadata(false), "0004000167", ""),
    ] {
        let record = change.record(&Str::from("g"));
        assert_eq!(hex(&record.key), key);
        assert_eq!(
            hex(&record.value.clone().unwrap_or_default()),
            value,
            "{change:?}"
        );
        let decoded = Change::decode(&record.key, record.value.as_deref());
        assert_eq!(decoded, Ok(Some((Str::from("g"), change))));
    }
}

#[test]
fn what_is_not_ours_is_left_and_what_is_damaged_is_said() {
    assert_eq!(Change::decode(b"", None), Ok(None));
    assert_eq!(Change::decode(&[0, 1, 0, 1, b'g'], None), Ok(None));
    let key = [0, 3, 0, 1, b'g'];
    assert!(Change::decode(&key[..4], None).is_err());
    assert!(Change::decode(&key, Some(&[0])).is_err());
    assert!(Change::decode(&key, Some(&[0, 0, 1])).is_err());
    assert_eq!(
        Change::decode(&key, Some(&[0, 9, 1])),
        Ok(None),
        "a version from the future"
    );
    let (group, change) = Change::decode(&key, None).expect("sound").expect("ours");
    assert_eq!((group.as_str(), &change), ("g", &Change::Epoch(None)));
    assert!(change.is_tombstone() && Change::is_key_type(3) && !Change::is_key_type(2));
}

#[test]
fn records_of_before_assignment_epochs_are_read() {
    let group = Str::from("g");
    let owned: Bytes = {
        let current = Current {
            epoch: 7,
            previous_epoch: 6,
            assigned: [(Uuid::from_u128(1), [(0, 3)].into())].into(),
            ..Current::default()
        };
        let value = Change::Current(Str::from("m"), Some(current))
            .record(&group)
            .value
            .expect("a value");
        // Without the tagged field of epochs: it is "01 00 05 02 00000003" after the partition.
        let mut bytes = value.to_vec();
        let tags = bytes
            .windows(4)
            .position(|w| w == [1, 0, 5, 2])
            .expect("the epochs");
        bytes.splice(tags..tags + 8, [0]);
        bytes.into()
    };
    let key = Change::Current(Str::from("m"), None).record(&group).key;
    let (_, change) = Change::decode(&key, Some(&owned)).expect("sound").expect("ours");
    let Change::Current(_, Some(current)) = change else {
        panic!("a current assignment")
    };
    assert_eq!(current.assigned[&Uuid::from_u128(1)], [(0, 7)].into());
}

#[test]
fn an_old_record_of_partition_metadata_is_removed_with_the_next_epoch() {
    let mut world = World::new();
    world.topics.create("t", 1);
    for group in [&mut world.group, &mut world.mirror] {
        group.replay(Change::PartitionMetadata(true));
    }
    assert!(types(&world.group.live_records()).contains(&(4, true)));
    world.heartbeat(&join("a", &["t"])).expect("joins");
    assert!(types(&world.log).contains(&(4, false)));
    assert!(!types(&world.group.live_records()).contains(&(4, true)));
}

#[test]
fn tombstones_end_the_group_and_replay_of_less_does_no_harm() {
    let mut world = World::new();
    world.topics.create("t", 3);
    let mut request = join("a", &["t"]);
    request.subscribed_topic_regex = Some(Str::from("x.*"));
    world.heartbeat(&request).expect("joins");
    world.heartbeat(&join("b", &["t"])).expect("joins");
    let tombstones = world.group.tombstones();
    assert_eq!(
        types(&tombstones),
        [8, 8, 7, 7, 6, 5, 5, 16, 4, 3].map(|key_type| (key_type, false))
    );
    let mut group = world.group.clone();
    for (index, record) in tombstones.iter().enumerate() {
        let (_, change) = Change::decode(&record.key, None).expect("sound").expect("ours");
        assert_eq!(group.replay(change), index + 1 == tombstones.len());
    }
    assert!(group.same_state(&ConsumerGroup::new(Str::from("g"))));
    // Compaction may leave any of them out, once it is old enough.
    for missing in 0..tombstones.len() - 1 {
        let mut group = world.group.clone();
        for (index, record) in tombstones.iter().enumerate() {
            if index != missing {
                let (_, change) = Change::decode(&record.key, None).expect("sound").expect("ours");
                group.replay(change);
            }
        }
        assert!(group.same_state(&ConsumerGroup::new(Str::from("g"))));
    }
}

/// The record with which the first owner released a partition may be compacted away, because a later one of
/// the same member is in the log, behind the second owner's.
#[test]
fn a_compacted_log_may_name_two_owners_for_a_while() {
    let t = Uuid::from_u128(1);
    let owns = |epoch: i32, partitions: &[i32]| Current {
        epoch,
        previous_epoch: epoch,
        assigned: match partitions {
            [] => Default::default(),
            _ => [(t, partitions.iter().map(|p| (*p, epoch)).collect())].into(),
        },
        ..Current::default()
    };
    let mut group = ConsumerGroup::new(Str::from("g"));
    for change in [
        Change::Epoch(Some(GroupEpoch {
            epoch: 6,
            metadata_hash: 1,
        })),
        Change::Current(Str::from("a"), Some(owns(5, &[0, 1]))),
        Change::Current(Str::from("b"), Some(owns(6, &[1]))),
        Change::Current(Str::from("a"), Some(owns(6, &[0]))),
    ] {
        group.replay(change);
    }
    let mut clean = ConsumerGroup::new(Str::from("g"));
    for record in group.live_records() {
        let (_, change) = Change::decode(&record.key, record.value.as_deref())
            .expect("sound")
            .expect("ours");
        clean.replay(change);
    }
    assert!(clean.same_state(&group), "as if it had never named two");
}
