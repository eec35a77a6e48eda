//! Committed offsets, as clients see them; expiry, deleted topics, snapshots.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use drumlin_coordinator::{
    Caller, ErrorCode, GroupConfig, GroupRequest, GroupResponse, Shard, SnapshotError,
};
use drumlin_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use drumlin_wire::messages::offset_commit_request::OffsetCommitRequest;
use drumlin_wire::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use drumlin_wire::{Str, Uuid};

use common::{World, commit, identity, join, subscription, sync};

const NONE: i16 = ErrorCode::None as i16;

/// A stable group of one that reads `a`: its member. It beats once a second for ever after, in `beat`.
fn consumer(world: &mut World, group: &str) -> Str {
    let token = world.join(join(group, &Str::EMPTY, &[("range", subscription(&["a"]))]));
    let id = world.joined(token).member_id;
    let token = world.join(join(group, &id, &[("range", subscription(&["a"]))]));
    world.pass(3_000);
    assert_eq!(world.joined(token).error_code, NONE);
    let token = world.ask(GroupRequest::SyncGroup(sync(group, &id, 1, &[(&id, "x")])));
    assert_eq!(world.synced(token).error_code, NONE);
    id
}

fn beat(world: &mut World, group: &str, member: &Str, seconds: u64) {
    for _ in 0..seconds / 5 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(group, member, 1), NONE);
    }
}

#[test]
fn commits_are_read_back_and_survive() {
    let mut world = World::new(GroupConfig::default());
    let mut request = commit("g", "", -1, ("a", 1), 42);
    request.topics[0].partitions[0].committed_leader_epoch = 3;
    request.topics[0].partitions[0].committed_metadata = Some("note".into());
    assert_eq!(world.commit(request), NONE);
    for _ in 0..2 {
        let answer = world.fetch("g", Some(&[("a", 1), ("a", 0), ("nothing", 0)]));
        let read = &answer.topics[0].partitions[0];
        assert_eq!((read.committed_offset, read.committed_leader_epoch), (42, 3));
        assert_eq!(read.metadata, Some("note".into()));
        assert_eq!(answer.topics[1].partitions[0].committed_offset, -1);
        assert_eq!(answer.topics[2].partitions[0].error_code, NONE);
        let all = world.fetch("g", None);
        assert_eq!(all.topics.len(), 1);
        world.move_away();
    }
    assert_eq!(world.fetch("unknown", None).topics.len(), 0);
    assert_eq!(world.committed("unknown", "a", 0), -1);
    let figures = world.shard.figures();
    assert_eq!((figures.offsets, figures.classic_empty), (1, 1));
    let lag: Vec<_> = world
        .shard
        .committed_offsets()
        .map(|c| (c.partition, c.offset))
        .collect();
    assert_eq!(lag, [(1, 42)]);
}

#[test]
fn commits_are_checked_against_the_group() {
    let mut world = World::new(GroupConfig::default());
    let at = ("a", 0);
    // Generations of a group that is not there: the error depends on the version.
    world.version = 9;
    assert_eq!(
        world.commit(commit("g", "m", 1, at, 1)),
        ErrorCode::GroupIdNotFound.code()
    );
    world.version = 8;
    assert_eq!(
        world.commit(commit("g", "m", 1, at, 1)),
        ErrorCode::IllegalGeneration.code()
    );
    let id = consumer(&mut world, "g");
    assert_eq!(world.commit(commit("g", &id, 1, at, 1)), NONE);
    assert_eq!(
        world.commit(commit("g", "", -1, at, 2)),
        ErrorCode::UnknownMemberId.code()
    );
    assert_eq!(
        world.commit(commit("g", "x", 1, at, 2)),
        ErrorCode::UnknownMemberId.code()
    );
    assert_eq!(
        world.commit(commit("g", &id, 0, at, 2)),
        ErrorCode::IllegalGeneration.code()
    );
    let mut fenced = commit("g", &id, 1, at, 2);
    fenced.group_instance_id = Some("i".into());
    assert_eq!(world.commit(fenced), ErrorCode::UnknownMemberId.code());
    assert_eq!(world.committed("g", "a", 0), 1, "what was refused is not stored");
    // Empty again, anybody may: this is how offsets are reset.
    world.leave("g", vec![identity(&id, None)]);
    assert_eq!(world.commit(commit("g", "", -1, at, 0)), NONE);
    assert_eq!(
        world.commit(commit("g", &id, 1, at, 9)),
        ErrorCode::UnknownMemberId.code()
    );
    assert_eq!(world.committed("g", "a", 0), 0);
    // The empty group id is a group for commits.
    assert_eq!(world.commit(commit("", "", -1, at, 4)), NONE);
    assert_eq!(world.committed("", "a", 0), 4);
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut world = World::new(GroupConfig::default());
    let id = consumer(&mut world, "g");
    for offset in 0..10 {
        world.pass(9_000);
        assert_eq!(world.commit(commit("g", &id, 1, ("a", 0), offset)), NONE);
    }
}

#[test]
fn each_partition_has_its_error() {
    let mut world = World::new(GroupConfig::default());
    assert_eq!(
        world.commit(commit("g", "", -1, ("nothing", 0), 1)),
        ErrorCode::UnknownTopicOrPartition.code()
    );
    for partition in [4, -1] {
        let error = world.commit(commit("g", "", -1, ("a", partition), 1));
        assert_eq!(error, ErrorCode::UnknownTopicOrPartition.code());
    }
    let mut long = commit("g", "", -1, ("a", 0), 1);
    long.topics[0].partitions[0].committed_metadata = Some("x".repeat(4_097).into());
    assert_eq!(world.commit(long), ErrorCode::OffsetMetadataTooLarge.code());
    assert_eq!(world.log.len(), 0);
    assert_eq!(
        world.shard.figures().classic_empty,
        0,
        "nothing was stored, no group was made"
    );
    // One that is wrong does not spoil those that are right.
    let mut mixed = commit("g", "", -1, ("nothing", 0), 1);
    mixed.topics.extend(commit("g", "", -1, ("a", 3), 8).topics);
    assert_eq!(world.commit(mixed), ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(world.committed("g", "a", 3), 8);
}

fn by_id(mut request: OffsetCommitRequest, id: Uuid) -> OffsetCommitRequest {
    request.topics[0].name = Str::EMPTY;
    request.topics[0].topic_id = id;
    request
}

#[test]
fn topics_go_by_id_from_version_10_on() {
    let mut world = World::new(GroupConfig::default());
    world.version = 10;
    let id = world.topics.id("a");
    assert_eq!(world.commit(by_id(commit("g", "", -1, ("", 2), 5), id)), NONE);
    let unknown = by_id(commit("g", "", -1, ("", 2), 5), Uuid::from_u128(9));
    assert_eq!(world.commit(unknown), ErrorCode::UnknownTopicId.code());
    assert_eq!(world.committed("g", "a", 2), 5);
    assert_eq!(world.fetch("g", None).topics[0].topic_id, id);
    let gone = world.fetch("g", Some(&[("nothing", 0)]));
    assert_eq!(
        gone.topics[0].partitions[0].error_code,
        ErrorCode::UnknownTopicId.code()
    );
    // A topic of the same name is another one.
    world.topics.delete("a");
    world.topics.create("a", 4);
    assert_eq!(world.committed("g", "a", 2), -1);
    world.version = 9;
    assert_eq!(world.committed("g", "a", 2), 5);
}

#[test]
fn a_deleted_topics_offsets_go() {
    let mut world = World::new(GroupConfig::default());
    for group in ["g", "h"] {
        assert_eq!(world.commit(commit(group, "", -1, ("a", 0), 1)), NONE);
        assert_eq!(world.commit(commit(group, "", -1, ("b", 0), 2)), NONE);
    }
    let id = world.topics.delete("a");
    let other = world.shard.topic_deleted(world.now, Uuid::from_u128(77), "a");
    assert!(other.records.is_empty(), "not of this topic");
    let step = world.shard.topic_deleted(world.now, id, "a");
    assert_eq!(step.records.len(), 2);
    world.take(step);
    for _ in 0..2 {
        assert_eq!(world.committed("g", "a", 0), -1);
        assert_eq!(world.committed("h", "b", 0), 2);
        world.move_away();
    }
}

/// The broker ended between the deletion of a topic and the tombstones: the next coordinator writes them.
#[test]
fn offsets_of_a_topic_that_was_deleted_unseen_go_when_they_are_loaded() {
    let mut world = World::new(GroupConfig::default());
    for group in ["g", "h"] {
        assert_eq!(world.commit(commit(group, "", -1, ("a", 0), 1)), NONE);
        assert_eq!(world.commit(commit(group, "", -1, ("b", 0), 2)), NONE);
    }
    world.topics.delete("a");
    world.topics.create("a", 4);
    // Until it is told, it answers nobody with them who asks by id, for all or for one.
    world.version = 10;
    let all = world.fetch("g", None);
    assert_eq!(all.topics.len(), 1);
    assert_eq!(all.topics[0].topic_id, world.topics.id("b"));
    let before = world.log.len();
    world.move_away();
    let tombstones = &world.log[before..];
    assert_eq!(tombstones.len(), 2);
    assert!(tombstones.iter().all(|record| record.value.is_none()));
    for version in [9, 10] {
        world.version = version;
        assert_eq!(world.committed("g", "a", 0), -1);
        assert_eq!(world.committed("h", "b", 0), 2);
    }
    let before = world.log.len();
    world.move_away();
    assert_eq!(world.log.len(), before, "once");
}

fn offset_delete(world: &mut World, group: &str, topic: &str) -> (i16, i16) {
    let request = OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let token = world.ask(GroupRequest::OffsetDelete(request));
    match world.got(token) {
        Some(GroupResponse::OffsetDelete(answer)) => {
            let partition = answer.topics.first().map_or(0, |t| t.partitions[0].error_code);
            (answer.error_code, partition)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn offsets_are_deleted_unless_somebody_reads_them() {
    let mut world = World::new(GroupConfig::default());
    assert_eq!(
        offset_delete(&mut world, "g", "a").0,
        ErrorCode::GroupIdNotFound.code()
    );
    let id = consumer(&mut world, "g");
    for topic in ["a", "b"] {
        assert_eq!(world.commit(commit("g", &id, 1, (topic, 0), 1)), NONE);
    }
    let subscribed = ErrorCode::GroupSubscribedToTopic.code();
    assert_eq!(offset_delete(&mut world, "g", "a"), (NONE, subscribed));
    assert_eq!(offset_delete(&mut world, "g", "b"), (NONE, NONE));
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(offset_delete(&mut world, "g", "nothing"), (NONE, unknown));
    assert_eq!(world.committed("g", "b", 0), -1);
    world.leave("g", vec![identity(&id, None)]);
    assert_eq!(offset_delete(&mut world, "g", "a"), (NONE, NONE));
    world.move_away();
    assert_eq!(world.fetch("g", None).topics.len(), 0);
}

/// KIP-211: the clock of a group's offsets starts when it has become empty; of a simple group's, at their commit.
#[test]
fn offsets_expire_by_the_groups_state() {
    let day = 24 * 3_600_000;
    let mut world = World::new(GroupConfig {
        offsets_retention_ms: day,
        ..GroupConfig::default()
    });
    let id = consumer(&mut world, "g");
    for topic in ["a", "b"] {
        assert_eq!(world.commit(commit("g", &id, 1, (topic, 0), 1)), NONE);
    }
    assert_eq!(world.commit(commit("simple", "", -1, ("a", 0), 1)), NONE);
    beat(&mut world, "g", &id, 24 * 3_600 + 1_200);
    assert_eq!(world.committed("simple", "a", 0), -1);
    assert_eq!(world.committed("g", "b", 0), -1, "nobody is subscribed to it");
    assert_eq!(world.committed("g", "a", 0), 1, "in use");
    world.leave("g", vec![identity(&id, None)]);
    world.move_away();
    world.pass(day as u64 - 1_000_000);
    assert_eq!(
        world.committed("g", "a", 0),
        1,
        "the group has been empty for less than a day"
    );
    world.pass(2_000_000);
    assert_eq!(world.committed("g", "a", 0), -1);
    assert_eq!(
        world.shard.figures().classic_empty,
        0,
        "groups without offsets go too"
    );
    world.move_away();
    assert_eq!(world.shard.figures().classic_empty, 0);
    assert_eq!(world.shard.next_deadline(), None);
}

/// A consumer group's offsets are kept for the whole retention after it has become empty, however old they
/// are, and whoever coordinates it by then.
#[test]
fn offsets_of_a_consumer_group_expire_when_it_has_been_empty_for_long() {
    let day = 24 * 3_600_000;
    for snapshot in [false, true] {
        let mut world = World::new(GroupConfig {
            offsets_retention_ms: day,
            ..GroupConfig::default()
        });
        world.version = 1;
        let beat = |world: &mut World, epoch: i32| {
            let joins = epoch == 0;
            let request = ConsumerGroupHeartbeatRequest {
                group_id: "n".into(),
                member_id: "m".into(),
                member_epoch: epoch,
                rebalance_timeout_ms: if joins { 5_000 } else { -1 },
                subscribed_topic_names: joins.then(|| vec!["a".into()]),
                topic_partitions: joins.then(Vec::new),
                ..ConsumerGroupHeartbeatRequest::default()
            };
            let token = world.ask(GroupRequest::ConsumerGroupHeartbeat(request));
            match world.got(token) {
                Some(GroupResponse::ConsumerGroupHeartbeat(answer)) => {
                    assert_eq!(answer.error_code, NONE);
                    answer.member_epoch
                }
                other => panic!("{other:?}"),
            }
        };
        let epoch = beat(&mut world, 0);
        world.version = 9;
        assert_eq!(world.commit(commit("n", "m", epoch, ("a", 0), 8)), NONE);
        world.version = 1;
        for _ in 0..2 * 24 * 120 {
            world.pass(30_000);
            beat(&mut world, epoch);
        }
        assert_eq!(world.committed("n", "a", 0), 8, "in use");
        beat(&mut world, -1);
        world.pass(day as u64 / 2);
        if snapshot {
            let bytes = world.shard.snapshot(0, 0);
            world.shard = Shard::new(0, world.config.clone(), 5);
            world.shard.restore(&bytes).unwrap();
            world.shard.loaded(world.now, &world.topics);
        } else {
            world.move_away();
        }
        world.pass(day as u64 / 2 - 700_000);
        assert_eq!(world.committed("n", "a", 0), 8, "empty for less than a day");
        world.pass(1_400_000);
        assert_eq!(world.committed("n", "a", 0), -1);
        assert_eq!(world.shard.figures().consumer_empty, 0);
    }
}

/// Version 1 may say when it was made.
#[test]
fn a_commit_of_version_1_can_have_its_own_time() {
    let config = GroupConfig::default();
    let retention = config.offsets_retention_ms;
    let mut world = World::new(config);
    let at = |world: &World, age: i64, partition: i32| {
        let mut request = commit("g", "", -1, ("a", partition), 5);
        request.topics[0].partitions[0].commit_timestamp = world.now.wall_ms - age;
        request
    };
    // What a client says of its clock is taken as it is; no number does harm.
    let (young, old) = (at(&world, retention / 2, 0), at(&world, retention, 1));
    assert_eq!((world.commit(young), world.commit(old)), (NONE, NONE));
    for (partition, timestamp) in [(2, i64::MIN), (3, i64::MAX)] {
        let mut request = commit("g", "", -1, ("a", partition), 5);
        request.topics[0].partitions[0].commit_timestamp = timestamp;
        assert_eq!(world.commit(request), NONE);
    }
    assert_eq!(world.commit(commit("g", "", -1, ("b", 0), 5)), NONE);
    let left = |world: &mut World| -> Vec<bool> {
        let all = [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 0)];
        all.iter()
            .map(|(t, p)| world.committed("g", t, *p) == 5)
            .collect()
    };
    world.move_away();
    world.pass(700_000);
    assert_eq!(left(&mut world), [true, false, false, true, true]);
    world.pass(retention as u64 / 2);
    assert_eq!(left(&mut world), [false, false, false, true, true]);
}

/// Versions 2 to 4 say how long an offset is to be kept.
#[test]
fn a_commit_can_have_its_own_retention() {
    let mut world = World::new(GroupConfig::default());
    world.version = 4;
    let mut request = commit("g", "", -1, ("a", 0), 1);
    request.retention_time_ms = 1_000;
    assert_eq!(world.commit(request), NONE);
    assert_eq!(world.commit(commit("g", "", -1, ("b", 0), 1)), NONE);
    world.move_away();
    world.pass(700_000);
    assert_eq!(world.committed("g", "a", 0), -1);
    assert_eq!(world.committed("g", "b", 0), 1);
}

/// Records that a commit of this to partition 0 of topic `a` in group `g` writes; it must be accepted.
fn written(world: &mut World, change: impl FnOnce(&mut OffsetCommitRequest)) -> usize {
    let mut request = commit("g", "", -1, ("a", 0), 5);
    change(&mut request);
    let before = world.log.len();
    assert_eq!(world.commit(request), NONE);
    world.log.len() - before
}

#[test]
fn a_commit_that_changes_nothing_writes_nothing() {
    let mut world = World::new(GroupConfig::default());
    let same = |_: &mut OffsetCommitRequest| {};
    assert_eq!(written(&mut world, same), 1);
    for _ in 0..5 {
        world.pass(5_000);
        assert_eq!(written(&mut world, same), 0);
    }
    let commits = world.shard.counters().commits;
    assert_eq!(commits, 6, "it counts as a commit all the same");
    // Where it was read is of no account: another coordinator knows it too.
    world.move_away();
    assert_eq!(written(&mut world, same), 0);

    // Whatever a client can see is written.
    let changes: [fn(&mut OffsetCommitRequest); 4] = [
        |r| r.topics[0].partitions[0].committed_offset = 4,
        |r| r.topics[0].partitions[0].committed_leader_epoch = 7,
        |r| r.topics[0].partitions[0].committed_metadata = Some("note".into()),
        |r| r.retention_time_ms = 1_000_000,
    ];
    for change in changes {
        assert_eq!(written(&mut world, change), 1);
        assert_eq!(written(&mut world, same), 1, "and back");
        assert_eq!(written(&mut world, same), 0);
    }
    // A topic of the same name is another topic, and what was deleted is not there.
    world.topics.delete("a");
    world.topics.create("a", 1);
    assert_eq!(written(&mut world, same), 1);
    assert_eq!(offset_delete(&mut world, "g", "a"), (NONE, NONE));
    assert_eq!(written(&mut world, same), 1);
    // One partition of two has moved on: the other is not written.
    let two = |r: &mut OffsetCommitRequest| {
        let mut other = r.topics[0].clone();
        other.name = "b".into();
        r.topics.push(other);
    };
    assert_eq!(written(&mut world, two), 1);
}

#[test]
fn an_unchanged_commit_still_needs_the_right_to_commit() {
    let mut world = World::new(GroupConfig::default());
    let id = consumer(&mut world, "g");
    let at = ("a", 0);
    assert_eq!(world.commit(commit("g", &id, 1, at, 1)), NONE);
    assert_eq!(
        world.commit(commit("g", &id, 0, at, 1)),
        ErrorCode::IllegalGeneration.code()
    );
    assert_eq!(
        world.commit(commit("g", "", -1, at, 1)),
        ErrorCode::UnknownMemberId.code()
    );
    // It keeps the session alive, as any commit does.
    for _ in 0..20 {
        world.pass(5_000);
        assert_eq!(world.commit(commit("g", &id, 1, at, 1)), NONE);
    }
    assert_eq!(world.heartbeat("g", &id, 1), NONE);
}

#[test]
fn an_answer_without_a_record_waits_for_the_first_copy() {
    let mut world = World::new(GroupConfig::default());
    let token = world.ask(GroupRequest::OffsetCommit(commit("g", "", -1, ("a", 0), 5)));
    assert!(matches!(
        world.answers.remove(&token),
        Some(GroupResponse::OffsetCommit(_))
    ));
    let request = GroupRequest::OffsetCommit(commit("g", "", -1, ("a", 0), 5));
    let caller = Caller {
        api_version: world.version,
        ..Caller::default()
    };
    let step = world
        .shard
        .request(world.now, &world.topics, 99, &caller, request);
    assert!(step.records.is_empty());
    let [reply] = step.replies.as_slice() else {
        panic!("{:?}", step.replies);
    };
    // The owner holds it until all before it is committed, and asks whether it still leads.
    assert!(reply.waits && matches!(reply.body, GroupResponse::OffsetCommitUnchanged(_)));
}

#[test]
fn an_unchanged_commit_prolongs_the_offsets_life() {
    let hours = |n: u64| n * 3_600_000;
    let config = GroupConfig::default();
    let retention = u64::try_from(config.offsets_retention_ms).unwrap();
    let mut world = World::new(config);
    let same = |_: &mut OffsetCommitRequest| {};
    // For as long as somebody commits it, and for all but an hour of the retention after the last commit.
    let mut records = 0;
    for _ in 0..3 * 7 * 24 * 2 {
        records += written(&mut world, same);
        world.pass(hours(1) / 2);
    }
    assert!((400..=600).contains(&records), "one an hour: {records}");
    world.pass(retention - hours(2));
    assert_eq!(world.committed("g", "a", 0), 5);
    world.pass(hours(2));
    assert_eq!(world.committed("g", "a", 0), -1);

    // With a short retention the time is written more often: it may be late by a hundredth.
    let mut world = World::new(GroupConfig {
        offsets_retention_ms: 100_000,
        offsets_retention_check_interval_ms: 100,
        ..GroupConfig::default()
    });
    assert_eq!(written(&mut world, same), 1);
    world.pass(999);
    assert_eq!(written(&mut world, same), 0);
    world.pass(1);
    assert_eq!(written(&mut world, same), 1);
    world.pass(999);
    assert_eq!(written(&mut world, same), 0);
    world.pass(99_000);
    assert_eq!(world.committed("g", "a", 0), 5);
    world.pass(1_000);
    assert_eq!(world.committed("g", "a", 0), -1);
}

fn busy() -> World {
    let mut world = World::new(GroupConfig::default());
    let id = consumer(&mut world, "g");
    for topic in ["a", "b", "c"] {
        assert_eq!(world.commit(commit("g", &id, 1, (topic, 0), 1)), NONE);
    }
    assert_eq!(world.commit(commit("simple", "", -1, ("a", 0), 1)), NONE);
    world
}

#[test]
fn a_snapshot_is_as_good_as_a_replay() {
    let mut world = busy();
    let covers = world.log.len() as i64;
    let snapshot = world.shard.snapshot(covers, 7);
    assert_eq!(world.replayed().snapshot(covers, 7), snapshot);
    let mut shard = Shard::new(0, world.config.clone(), 9);
    let info = shard.restore(&snapshot).unwrap();
    assert_eq!((info.covers, info.leader_epoch), (covers, 7));
    assert_eq!(shard.snapshot(covers, 7), snapshot);
    // And with what came after.
    assert_eq!(world.commit(commit("simple", "", -1, ("a", 0), 2)), NONE);
    for record in &world.log[covers as usize..] {
        shard
            .replay(&record.key, record.value.as_deref(), covers, record.at)
            .unwrap();
    }
    assert_eq!(shard.snapshot(0, 0), world.shard.snapshot(0, 0));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let snapshot = busy().shard.snapshot(3, 1);
    let config = World::new(GroupConfig::default()).config;
    let restore = |partition, bytes: &[u8]| Shard::new(partition, config.clone(), 1).restore(bytes);
    for len in 0..snapshot.len() {
        assert_eq!(
            restore(0, &snapshot[..len]),
            Err(SnapshotError::Damaged),
            "cut to {len}"
        );
    }
    for at in 0..snapshot.len() {
        let mut bytes = snapshot.to_vec();
        bytes[at] ^= 0x10;
        assert_eq!(restore(0, &bytes), Err(SnapshotError::Damaged), "changed at {at}");
    }
    assert_eq!(restore(1, &snapshot), Err(SnapshotError::Partition(0)));
    assert!(restore(0, &snapshot).is_ok());
}

#[test]
fn records_of_other_kinds_are_skipped_and_damaged_ones_are_not() {
    let mut shard = World::new(GroupConfig::default()).replayed();
    shard.replay(&[0, 200, 1], Some(&[0]), 0, 0).unwrap();
    assert_eq!(shard.figures().skipped_records, 1);
    for (key, value) in [
        (&[][..], &[][..]),
        (&[0, 1, 0], &[0, 0]),
        (&[0, 2, 0, 1, b'g'], &[0, 99]),
    ] {
        assert!(shard.replay(key, Some(value), 5, 0).is_err());
    }
}
