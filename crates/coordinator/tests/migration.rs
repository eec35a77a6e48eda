//! A live group changes its protocol and back; nobody loses what it owns (KIP-848).

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use drumlin_coordinator::consumer::{read_assignment, write_assignment};
use drumlin_coordinator::{ErrorCode, GroupConfig, GroupRequest, GroupResponse, MigrationPolicy};
use drumlin_wire::Str;
use drumlin_wire::messages::consumer_group_describe_response::DescribedGroup;
use drumlin_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;

use common::{World, commit, identity, join, subscription, sync};

const NONE: i16 = ErrorCode::None as i16;
const REBALANCE: i16 = ErrorCode::RebalanceInProgress as i16;

fn range() -> Vec<(&'static str, Bytes)> {
    vec![("range", subscription(&["a"]))]
}

fn assigned(world: &World, partitions: &[i32]) -> Bytes {
    let target = [(world.topics.id("a"), partitions.to_vec())];
    write_assignment(&target.into_iter().collect(), 0, &world.topics)
}

fn read(world: &World, bytes: &Bytes) -> BTreeSet<i32> {
    let (target, _) = read_assignment(bytes, &world.topics).unwrap();
    target.into_values().flatten().collect()
}

/// Two classic members that own 0, 1 and 2, 3 of `a`: the leader first.
fn classic(world: &mut World) -> (Vec<Str>, i32) {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let token = world.join(join("g", &Str::EMPTY, &range()));
        ids.push(world.joined(token).member_id);
    }
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    world.pass(6_000);
    let answers: Vec<_> = tokens.into_iter().map(|t| world.joined(t)).collect();
    let leader = answers[0].leader.clone();
    ids.sort_by_key(|id| *id != leader);
    let generation = answers[0].generation_id;
    let follower = world.ask(GroupRequest::SyncGroup(sync("g", &ids[1], generation, &[])));
    let mut request = sync("g", &ids[0], generation, &[(&ids[0], ""), (&ids[1], "")]);
    request.assignments[0].assignment = assigned(world, &[0, 1]);
    request.assignments[1].assignment = assigned(world, &[2, 3]);
    let token = world.ask(GroupRequest::SyncGroup(request));
    assert_eq!(world.synced(token).error_code, NONE);
    assert_eq!(world.synced(follower).error_code, NONE);
    (ids, generation)
}

fn beat(
    world: &mut World,
    member: &Str,
    epoch: i32,
    owned: Option<&[i32]>,
) -> ConsumerGroupHeartbeatResponse {
    let id = world.topics.id("a");
    let request = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.clone(),
        member_epoch: epoch,
        rebalance_timeout_ms: if epoch == 0 { 60_000 } else { -1 },
        subscribed_topic_names: (epoch == 0).then(|| vec!["a".into()]),
        topic_partitions: owned.map(|partitions| {
            let of = |partitions: &[i32]| TopicPartitions {
                topic_id: id,
                partitions: partitions.to_vec(),
                ..TopicPartitions::default()
            };
            partitions.first().map(|_| of(partitions)).into_iter().collect()
        }),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    world.version = 1;
    let token = world.ask(GroupRequest::ConsumerGroupHeartbeat(request));
    world.version = 9;
    match world.got(token) {
        Some(GroupResponse::ConsumerGroupHeartbeat(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn describe(world: &mut World) -> DescribedGroup {
    let token = world.ask(GroupRequest::ConsumerGroupDescribe { group_id: "g".into() });
    match world.got(token) {
        Some(GroupResponse::ConsumerGroupDescribe(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// A classic member joins and syncs as its heartbeats tell it to: its generation, and what it owns.
fn catch_up(world: &mut World, id: &Str) -> (i32, BTreeSet<i32>) {
    let token = world.join(join("g", id, &range()));
    let joined = world.joined(token);
    assert_eq!(joined.error_code, NONE);
    assert_eq!(joined.protocol_name, Some("range".into()));
    assert_eq!(joined.leader, "", "nobody leads");
    let token = world.ask(GroupRequest::SyncGroup(sync("g", id, joined.generation_id, &[])));
    let synced = world.synced(token);
    assert_eq!(synced.error_code, NONE);
    (joined.generation_id, read(world, &synced.assignment))
}

fn same_after_replay(world: &World) {
    assert_eq!(world.replayed().snapshot(0, 0), world.shard.snapshot(0, 0));
}

fn config() -> GroupConfig {
    GroupConfig {
        consumer_assignment_interval_ms: 0,
        ..GroupConfig::default()
    }
}

#[test]
fn up_and_down_again() {
    let mut world = World::new(config());
    let (ids, generation) = classic(&mut world);
    assert_eq!(world.commit(commit("g", &ids[0], generation, ("a", 0), 11)), NONE);
    let new = Str::from("new-member");
    let answer = beat(&mut world, &new, 0, Some(&[]));
    assert_eq!((answer.error_code, answer.member_epoch), (NONE, generation + 1));
    assert!(
        answer.assignment.is_none_or(|a| a.topic_partitions.is_empty()),
        "all is owned by others yet"
    );
    same_after_replay(&world);
    assert_eq!(world.committed("g", "a", 0), 11);
    let described = describe(&mut world);
    assert_eq!(
        (described.members.len(), described.group_state.as_str()),
        (3, "Reconciling")
    );

    // Those of the classic protocol are told, and find nothing lost.
    for id in &ids {
        assert_eq!(world.heartbeat("g", id, generation), REBALANCE);
    }
    let mut kept = Vec::new();
    for id in &ids {
        kept.push(catch_up(&mut world, id));
    }
    // An eager member gives up everything in JoinGroup, and gets what is its own.
    let total: usize = kept.iter().map(|(_, owned)| owned.len()).sum();
    assert!((2..=3).contains(&total), "{kept:?}");
    let epoch = generation + 1;
    let answer = beat(&mut world, &new, epoch, Some(&[]));
    let given: Vec<i32> = answer.assignment.unwrap().topic_partitions[0].partitions.clone();
    let mut all: BTreeSet<i32> = given.iter().copied().collect();
    for (_, owned) in &kept {
        assert!(all.is_disjoint(owned));
        all.extend(owned);
    }
    assert_eq!(all, (0..4).collect());
    same_after_replay(&world);
    world.move_away();
    assert_eq!(beat(&mut world, &new, epoch, Some(&given)).error_code, NONE);
    let (current, _) = kept[0];
    assert_eq!(world.commit(commit("g", &ids[0], current, ("a", 0), 12)), NONE);
    assert_eq!(world.commit(commit("g", &new, epoch, ("a", 1), 13)), NONE);

    // The last member of the consumer protocol leaves: the group is classic, and gathers.
    assert_eq!(beat(&mut world, &new, -1, None).error_code, NONE);
    same_after_replay(&world);
    assert_eq!(describe(&mut world).error_code, ErrorCode::GroupIdNotFound.code());
    for id in &ids {
        let code = world.heartbeat("g", id, epoch);
        assert!(code == REBALANCE, "{code}");
    }
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    let answers: Vec<_> = tokens.into_iter().map(|t| world.joined(t)).collect();
    assert!(
        answers
            .iter()
            .all(|a| a.generation_id > epoch && a.error_code == NONE)
    );
    assert_eq!(world.committed("g", "a", 0), 12);
    assert_eq!(world.committed("g", "a", 1), 13);
    world.move_away();
    assert_eq!(world.shard.figures().classic_stable, 1);
    assert_eq!(world.shard.figures().members, 2);
}

#[test]
fn the_last_consumer_that_is_not_heard_of_leaves_a_classic_group() {
    let mut world = World::new(config());
    let (ids, generation) = classic(&mut world);
    let new = Str::from("new-member");
    assert_eq!(beat(&mut world, &new, 0, Some(&[])).error_code, NONE);
    let mut generations = vec![generation; 2];
    for _ in 0..12 {
        world.pass(5_000);
        for (id, generation) in ids.iter().zip(&mut generations) {
            if world.heartbeat("g", id, *generation) == REBALANCE && describe(&mut world).error_code == NONE {
                (*generation, _) = catch_up(&mut world, id);
            }
        }
    }
    assert_eq!(world.shard.figures().classic_preparing, 1);
    same_after_replay(&world);
}

#[test]
fn the_policy_forbids() {
    for policy in [MigrationPolicy::Disabled, MigrationPolicy::Downgrade] {
        let mut world = World::new(GroupConfig {
            consumer_migration_policy: policy,
            ..config()
        });
        let (ids, generation) = classic(&mut world);
        let records = world.log.len();
        let answer = beat(&mut world, &"new".into(), 0, Some(&[]));
        assert_eq!(answer.error_code, ErrorCode::GroupIdNotFound.code());
        assert_eq!(world.heartbeat("g", &ids[0], generation), NONE);
        assert_eq!(world.log.len(), records);
    }
    // Upgrade only: the classic members stay in a consumer group, and own everything again.
    let mut world = World::new(GroupConfig {
        consumer_migration_policy: MigrationPolicy::Upgrade,
        ..config()
    });
    let (ids, generation) = classic(&mut world);
    let new = Str::from("new");
    assert_eq!(beat(&mut world, &new, 0, Some(&[])).error_code, NONE);
    let mut generations = [generation; 2];
    let mut owned = [BTreeSet::new(), BTreeSet::new()];
    let mut settle = |world: &mut World| {
        for _ in 0..6 {
            for i in 0..2 {
                if world.heartbeat("g", &ids[i], generations[i]) == REBALANCE {
                    (generations[i], owned[i]) = catch_up(world, &ids[i]);
                }
            }
        }
        owned.iter().map(BTreeSet::len).sum::<usize>()
    };
    assert!(settle(&mut world) < 4);
    assert_eq!(beat(&mut world, &new, -1, None).error_code, NONE);
    assert_eq!(describe(&mut world).members.len(), 2);
    assert_eq!(settle(&mut world), 4);
    same_after_replay(&world);
}

/// Members that gather when the group changes have to ask again, and nobody is forgotten.
#[test]
fn an_upgrade_in_the_middle_of_a_rebalance() {
    let mut world = World::new(config());
    let (ids, generation) = classic(&mut world);
    let waiting = world.join(join("g", &ids[0], &range()));
    let answer = beat(&mut world, &"new".into(), 0, Some(&[]));
    assert_eq!((answer.error_code, answer.member_epoch), (NONE, generation + 1));
    assert_eq!(world.joined(waiting).error_code, REBALANCE);
    same_after_replay(&world);
    for id in &ids {
        catch_up(&mut world, id);
    }
}

#[test]
fn empty_groups_change_freely() {
    let mut world = World::new(config());
    assert_eq!(world.commit(commit("g", "", -1, ("a", 0), 5)), NONE);
    let new = Str::from("new");
    let answer = beat(&mut world, &new, 0, Some(&[]));
    assert_eq!(answer.error_code, NONE);
    let all = answer.assignment.unwrap();
    assert_eq!(all.topic_partitions[0].partitions, [0, 1, 2, 3]);
    assert_eq!(world.committed("g", "a", 0), 5);
    same_after_replay(&world);
    assert_eq!(beat(&mut world, &new, -1, None).error_code, NONE);
    assert_eq!(world.shard.figures().consumer_empty, 1);
    // An administrator resets offsets of an empty group of either kind.
    assert_eq!(world.commit(commit("g", "", -1, ("a", 0), 2)), NONE);
    let (_, generation) = classic(&mut world);
    assert_eq!(generation, 1);
    assert_eq!(world.shard.figures().classic_stable, 1);
    assert_eq!(world.committed("g", "a", 0), 2);
    same_after_replay(&world);
}

#[test]
fn errors_are_told_apart() {
    let mut world = World::new(config());
    let unknown = beat(&mut world, &"m".into(), 3, None);
    assert_eq!(unknown.error_code, ErrorCode::GroupIdNotFound.code());
    let (ids, generation) = classic(&mut world);
    let unknown = beat(&mut world, &ids[0], generation, None);
    assert_eq!(unknown.error_code, ErrorCode::GroupIdNotFound.code());
    let new = Str::from("new");
    let epoch = beat(&mut world, &new, 0, Some(&[])).member_epoch;
    let stranger = beat(&mut world, &"stranger".into(), epoch, None);
    assert_eq!(stranger.error_code, ErrorCode::UnknownMemberId.code());
    let fenced = beat(&mut world, &new, epoch + 1, None);
    assert_eq!(fenced.error_code, ErrorCode::FencedMemberEpoch.code());
    // Commits: an epoch that is too new is stale, and a version without epochs cannot say one.
    let stale = ErrorCode::StaleMemberEpoch.code();
    assert_eq!(world.commit(commit("g", &new, epoch + 1, ("a", 0), 1)), stale);
    world.version = 8;
    let error = world.commit(commit("g", &new, epoch, ("a", 0), 1));
    assert_eq!(error, ErrorCode::UnsupportedVersion.code());
    world.version = 9;
    assert_eq!(
        world.commit(commit("g", "", -1, ("a", 0), 1)),
        ErrorCode::UnknownMemberId.code()
    );
    // The classic API does not know it, the list has it.
    world.version = 6;
    let token = world.ask(GroupRequest::DescribeGroup { group_id: "g".into() });
    let Some(GroupResponse::DescribeGroup(described)) = world.got(token) else {
        panic!("no answer");
    };
    assert_eq!(described.error_code, ErrorCode::GroupIdNotFound.code());
    let token = world.ask(GroupRequest::DeleteGroup { group_id: "g".into() });
    let Some(GroupResponse::DeleteGroup(deleted)) = world.got(token) else {
        panic!("no answer");
    };
    assert_eq!(deleted.error_code, ErrorCode::NonEmptyGroup.code());
    world.version = 9;
    let left = world.leave("g", vec![identity(&ids[0], None), identity(&"x".into(), None)]);
    let codes: Vec<i16> = left.members.iter().map(|m| m.error_code).collect();
    assert_eq!(codes, [NONE, ErrorCode::UnknownMemberId.code()]);
}

/// An assignor of the application's own has put data into the assignments, which would be lost.
#[test]
fn custom_assignors_are_not_upgraded() {
    let mut world = World::new(config());
    let (ids, generation) = classic(&mut world);
    let leader = world.join(join("g", &ids[0], &range()));
    let follower = world.join(join("g", &ids[1], &range()));
    assert_eq!(
        world.joined(leader).error_code + world.joined(follower).error_code,
        NONE
    );
    let mut custom = assigned(&world, &[0]).to_vec();
    let end = custom.len() - 4;
    custom.truncate(end);
    custom.extend([0, 0, 0, 1, 7]);
    assert_eq!((&custom[end..]).get_i32(), 1);
    let mut request = sync("g", &ids[0], generation + 1, &[(&ids[0], "")]);
    request.assignments[0].assignment = custom.into();
    let token = world.ask(GroupRequest::SyncGroup(request));
    assert_eq!(world.synced(token).error_code, NONE);
    let answer = beat(&mut world, &"new".into(), 0, Some(&[]));
    assert_eq!(answer.error_code, ErrorCode::GroupIdNotFound.code());
    assert!(answer.error_message.unwrap().contains("custom assignor"));
    assert_eq!(world.heartbeat("g", &ids[0], generation + 1), NONE);
}

/// A static consumer is started anew with the classic protocol, naming one assignor twice: it is the last of its kind,
/// and the group has to become a classic one all the same, with everybody's session running.
#[test]
fn an_assignor_named_twice_has_one_vote() {
    let mut world = World::new(config());
    let (ids, _) = classic(&mut world);
    world.version = 1;
    let token = world.ask(GroupRequest::ConsumerGroupHeartbeat(
        ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: "static-member".into(),
            instance_id: Some("i".into()),
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec!["a".into()]),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        },
    ));
    world.version = 9;
    match world.got(token) {
        Some(GroupResponse::ConsumerGroupHeartbeat(answer)) => assert_eq!(answer.error_code, NONE),
        other => panic!("{other:?}"),
    }
    assert_eq!(describe(&mut world).members.len(), 3);
    let twice = [range(), range()].concat();
    let mut request = join("g", &Str::EMPTY, &twice);
    request.group_instance_id = Some("i".into());
    let token = world.join(request);
    world.got(token);
    let figures = world.shard.figures();
    assert_eq!(
        (
            figures.members,
            figures.classic_stable + figures.classic_preparing
        ),
        (3, 1)
    );
    same_after_replay(&world);
    // Nobody is heard of any more: nobody stays.
    world.pass(120_000);
    assert_eq!(world.shard.figures().members, 0, "{ids:?}");
}
