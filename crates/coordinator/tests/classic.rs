//! Classic groups, as clients see them.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use drumlin_coordinator::{Caller, ErrorCode, GroupConfig, GroupRequest, GroupResponse, MemberMemory};
use drumlin_wire::Str;
use drumlin_wire::messages::describe_groups_response::DescribedGroup;
use drumlin_wire::messages::leave_group_request::LeaveGroupRequest;
use drumlin_wire::messages::list_groups_request::ListGroupsRequest;
use drumlin_wire::messages::list_groups_response::ListedGroup;

use common::{World, commit, identity, join, subscription, sync};

const NONE: i16 = ErrorCode::None as i16;

fn range() -> Vec<(&'static str, Bytes)> {
    vec![("range", subscription(&["a"]))]
}

/// A dynamic member's id, as its first JoinGroup is answered.
fn new_id(world: &mut World, group: &str) -> Str {
    let token = world.join(join(group, &Str::EMPTY, &range()));
    let answer = world.joined(token);
    assert_eq!(answer.error_code, ErrorCode::MemberIdRequired.code());
    assert!(answer.member_id.starts_with("client-"));
    answer.member_id
}

/// A stable group of so many dynamic members: their ids, the leader first, and the generation.
fn stable(world: &mut World, group: &str, members: usize) -> (Vec<Str>, i32) {
    let mut ids: Vec<Str> = (0..members).map(|_| new_id(world, group)).collect();
    let tokens: Vec<u64> = ids
        .iter()
        .map(|id| world.join(join(group, id, &range())))
        .collect();
    world.pass(6_000);
    let answers: Vec<_> = tokens.iter().map(|t| world.joined(*t)).collect();
    assert!(answers.iter().all(|a| a.error_code == NONE));
    let (leader, generation) = (answers[0].leader.clone(), answers[0].generation_id);
    ids.sort_by_key(|id| *id != leader);
    finish(world, group, &ids, generation);
    (ids, generation)
}

/// Everybody syncs; each member's assignment is its own id.
fn finish(world: &mut World, group: &str, ids: &[Str], generation: i32) {
    let assignments: Vec<(&Str, &str)> = ids.iter().map(|id| (id, id.as_str())).collect();
    let followers: Vec<u64> = ids[1..]
        .iter()
        .map(|id| world.ask(GroupRequest::SyncGroup(sync(group, id, generation, &[]))))
        .collect();
    let leader = world.ask(GroupRequest::SyncGroup(sync(
        group,
        &ids[0],
        generation,
        &assignments,
    )));
    for (id, token) in ids.iter().zip(std::iter::once(leader).chain(followers)) {
        let answer = world.synced(token);
        assert_eq!(
            (answer.error_code, &answer.assignment[..]),
            (NONE, id.as_bytes().as_ref())
        );
    }
}

fn describe(world: &mut World, group: &str) -> DescribedGroup {
    let token = world.ask(GroupRequest::DescribeGroup {
        group_id: group.into(),
    });
    match world.got(token) {
        Some(GroupResponse::DescribeGroup(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn list(world: &mut World, states: &[&str], types: &[&str]) -> Vec<ListedGroup> {
    let strs = |list: &[&str]| list.iter().map(|s| Str::from(*s)).collect();
    let request = ListGroupsRequest {
        states_filter: strs(states),
        types_filter: strs(types),
        ..ListGroupsRequest::default()
    };
    let token = world.ask(GroupRequest::ListGroups(request));
    match world.got(token) {
        Some(GroupResponse::ListGroups(answer)) => answer.groups,
        other => panic!("{other:?}"),
    }
}

fn delete(world: &mut World, group: &str) -> i16 {
    let token = world.ask(GroupRequest::DeleteGroup {
        group_id: group.into(),
    });
    match world.got(token) {
        Some(GroupResponse::DeleteGroup(answer)) => answer.error_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_gathers_assigns_and_beats() {
    let mut world = World::new(GroupConfig::default());
    let id = new_id(&mut world, "g");
    assert_eq!(world.log.len(), 1, "a new group's name is stored");
    let first = world.join(join("g", &id, &range()));
    assert!(world.got(first).is_none(), "it waits for others");
    world.pass(2_999);
    assert!(world.got(first).is_none());
    world.pass(1);
    let answer = world.joined(first);
    assert_eq!((answer.error_code, answer.generation_id), (NONE, 1));
    assert_eq!(answer.leader, id);
    assert_eq!(answer.protocol_name, Some("range".into()));
    assert_eq!(answer.protocol_type, Some("consumer".into()));
    assert_eq!(answer.members.len(), 1);
    assert_eq!(answer.members[0].metadata, subscription(&["a"]));
    finish(&mut world, "g", std::slice::from_ref(&id), 1);
    assert_eq!(world.heartbeat("g", &id, 1), NONE);
    assert_eq!(world.heartbeat("g", &id, 0), ErrorCode::IllegalGeneration.code());
    assert_eq!(
        world.heartbeat("g", &"x".into(), 1),
        ErrorCode::UnknownMemberId.code()
    );
    assert_eq!(world.heartbeat("h", &id, 1), ErrorCode::UnknownMemberId.code());
    let described = describe(&mut world, "g");
    assert_eq!(described.group_state, "Stable");
    assert_eq!(described.protocol_data, "range");
    assert_eq!(described.members[0].client_host, "/127.0.0.1");
    assert_eq!(described.members[0].member_assignment, id.as_bytes());
    // A session ends without heartbeats, and the group is empty again.
    world.pass(9_000);
    assert_eq!(world.heartbeat("g", &id, 1), NONE);
    world.pass(9_999);
    assert_eq!(describe(&mut world, "g").group_state, "Stable");
    world.pass(1);
    assert_eq!(describe(&mut world, "g").group_state, "Empty");
    assert_eq!(world.shard.figures().members, 0);
    assert_eq!(world.heartbeat("g", &id, 1), ErrorCode::UnknownMemberId.code());
}

/// The first rebalance goes on waiting while members come, but not above the rebalance timeout.
#[test]
fn the_first_rebalance_waits_for_newcomers() {
    let mut world = World::new(GroupConfig::default());
    let a = new_id(&mut world, "g");
    let first = world.join(join("g", &a, &range()));
    world.pass(2_000);
    let b = new_id(&mut world, "g");
    let second = world.join(join("g", &b, &range()));
    world.pass(2_000);
    assert!(
        !world.answers.contains_key(&first),
        "somebody came: it waits once more"
    );
    world.pass(2_000);
    let (first, second) = (world.joined(first), world.joined(second));
    assert_eq!((first.generation_id, second.generation_id), (1, 1));
    assert_eq!(
        first.members.len() + second.members.len(),
        2,
        "only the leader is told"
    );
}

#[test]
fn a_newcomer_makes_everybody_join_again() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 2);
    let c = new_id(&mut world, "g");
    let newcomer = world.join(join("g", &c, &range()));
    for id in &ids {
        assert_eq!(
            world.heartbeat("g", id, generation),
            ErrorCode::RebalanceInProgress.code()
        );
    }
    // Commits of the old generation are still taken while members gather.
    assert_eq!(world.commit(commit("g", &ids[0], generation, ("a", 0), 5)), NONE);
    let again: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    let answers: Vec<_> = again.into_iter().map(|t| world.joined(t)).collect();
    assert!(answers.iter().all(|a| a.generation_id == generation + 1));
    assert_eq!(world.joined(newcomer).generation_id, generation + 1);
    assert_eq!(
        world.commit(commit("g", &ids[0], generation + 1, ("a", 0), 6)),
        ErrorCode::RebalanceInProgress.code()
    );
    assert_eq!(
        world.commit(commit("g", &ids[0], generation, ("a", 0), 6)),
        ErrorCode::IllegalGeneration.code()
    );
    let leader = answers[0].leader.clone();
    let mut all = vec![ids[0].clone(), ids[1].clone(), c];
    all.sort_by_key(|id| *id != leader);
    finish(&mut world, "g", &all, generation + 1);
    assert_eq!(world.committed("g", "a", 0), 5);
}

#[test]
fn who_does_not_come_back_in_time_is_out() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 3);
    // The leader joins again; the others beat, but do not join.
    let token = world.join(join("g", &ids[0], &range()));
    for _ in 0..11 {
        world.pass(5_000);
        for id in &ids[1..] {
            assert_eq!(
                world.heartbeat("g", id, generation),
                ErrorCode::RebalanceInProgress.code()
            );
        }
    }
    world.pass(5_000);
    let answer = world.joined(token);
    assert_eq!((answer.generation_id, answer.members.len()), (generation + 1, 1));
    assert_eq!(
        world.heartbeat("g", &ids[1], generation),
        ErrorCode::UnknownMemberId.code()
    );
}

#[test]
fn who_does_not_sync_in_time_is_out() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 2);
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    tokens
        .iter()
        .for_each(|t| assert_eq!(world.joined(*t).error_code, NONE));
    let token = world.ask(GroupRequest::SyncGroup(sync("g", &ids[1], generation + 1, &[])));
    for _ in 0..12 {
        world.pass(5_000);
        world.heartbeat("g", &ids[0], generation + 1);
    }
    // The leader beat but never assigned: it is removed, and the other has to join again.
    assert_eq!(
        world.synced(token).error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    assert_eq!(
        world.heartbeat("g", &ids[0], generation + 1),
        ErrorCode::UnknownMemberId.code()
    );
    assert_eq!(
        world.heartbeat("g", &ids[1], generation + 1),
        ErrorCode::RebalanceInProgress.code()
    );
}

#[test]
fn leaving_hands_over_at_once() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 3);
    let answer = world.leave("g", vec![identity(&ids[0], None), identity(&"x".into(), None)]);
    assert_eq!(answer.members[0].error_code, NONE);
    assert_eq!(answer.members[1].error_code, ErrorCode::UnknownMemberId.code());
    let tokens: Vec<u64> = ids[1..]
        .iter()
        .map(|id| world.join(join("g", id, &range())))
        .collect();
    for token in tokens {
        assert_eq!(world.joined(token).generation_id, generation + 1);
    }
    // Version 2 has one member id, and its error is the answer's.
    world.version = 2;
    for (member, error) in [(&ids[1], NONE), (&ids[1], ErrorCode::UnknownMemberId.code())] {
        let request = LeaveGroupRequest {
            group_id: "g".into(),
            member_id: member.clone(),
            ..LeaveGroupRequest::default()
        };
        let token = world.ask(GroupRequest::LeaveGroup(request));
        let Some(GroupResponse::LeaveGroup(answer)) = world.got(token) else {
            panic!("no answer");
        };
        assert_eq!((answer.error_code, answer.members.len()), (error, 0));
    }
    // The last one leaves: the group is empty, in a record.
    let records = world.log.len();
    world.leave("g", vec![identity(&ids[2], None)]);
    world.version = 3;
    world.leave("g", vec![identity(&ids[2], None)]);
    assert_eq!(describe(&mut world, "g").group_state, "Empty");
    assert!(world.log.len() > records);
    world.move_away();
    assert_eq!(describe(&mut world, "g").group_state, "Empty");
}

#[test]
fn requests_of_others_are_refused() {
    let mut world = World::new(GroupConfig::default());
    let code = |world: &mut World, request| {
        let token = world.join(request);
        world.joined(token).error_code
    };
    assert_eq!(
        code(&mut world, join("", &Str::EMPTY, &range())),
        ErrorCode::InvalidGroupId.code()
    );
    let unknown = code(&mut world, join("g", &"x".into(), &range()));
    assert_eq!(unknown, ErrorCode::UnknownMemberId.code());
    assert!(
        list(&mut world, &[], &[]).is_empty(),
        "a refused member makes no group"
    );
    for session_timeout_ms in [5_999, 1_800_001, -1] {
        let mut request = join("g", &Str::EMPTY, &range());
        request.session_timeout_ms = session_timeout_ms;
        assert_eq!(code(&mut world, request), ErrorCode::InvalidSessionTimeout.code());
    }
    let (_, _) = stable(&mut world, "g", 1);
    let other = join("g", &Str::EMPTY, &[("roundrobin", Bytes::new())]);
    assert_eq!(
        code(&mut world, other),
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let mut connect = join("g", &Str::EMPTY, &range());
    connect.protocol_type = "connect".into();
    assert_eq!(
        code(&mut world, connect),
        ErrorCode::InconsistentGroupProtocol.code()
    );
    assert_eq!(
        code(&mut world, join("n", &Str::EMPTY, &[])),
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let long = join("n", &Str::EMPTY, &[(&"x".repeat(32_700), Bytes::new())]);
    assert_eq!(code(&mut world, long), ErrorCode::InvalidRequest.code());
}

/// A client id of any length and of any letters makes a member that can be stored.
#[test]
fn long_client_ids_are_stored() {
    let mut world = World::new(GroupConfig::default());
    let caller = Caller {
        client_id: "\u{fffd}".repeat(32_767).as_str().into(),
        client_host: "/::1".into(),
        api_version: 3,
    };
    let token = world.ask_as(&caller, GroupRequest::JoinGroup(join("g", &Str::EMPTY, &range())));
    world.pass(3_000);
    let answer = world.joined(token);
    let request = sync("g", &answer.member_id, 1, &[(&answer.member_id, "x")]);
    let token = world.ask(GroupRequest::SyncGroup(request));
    assert_eq!(world.synced(token).error_code, NONE);
    world.move_away();
    assert_eq!(world.heartbeat("g", &answer.member_id, 1), NONE);
}

#[test]
fn protocols_are_voted_for() {
    let mut world = World::new(GroupConfig::default());
    world.version = 3;
    let sticky = ("sticky", subscription(&["a"]));
    let range = ("range", subscription(&["b"]));
    let only = ("only-mine", Bytes::new());
    let votes = [
        vec![only, sticky.clone(), range.clone()],
        vec![range.clone(), sticky.clone()],
        vec![sticky, range],
    ];
    let tokens: Vec<u64> = votes
        .iter()
        .map(|p| world.join(join("g", &Str::EMPTY, p)))
        .collect();
    world.pass(6_000);
    for token in tokens {
        assert_eq!(world.joined(token).protocol_name, Some("sticky".into()));
    }
}

#[test]
fn a_group_takes_only_so_many() {
    let mut world = World::new(GroupConfig {
        max_size: 2,
        ..GroupConfig::default()
    });
    let (ids, _) = stable(&mut world, "g", 2);
    let token = world.join(join("g", &Str::EMPTY, &range()));
    assert_eq!(
        world.joined(token).error_code,
        ErrorCode::GroupMaxSizeReached.code()
    );
    // Members that are in may join again.
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    tokens
        .iter()
        .for_each(|t| assert_eq!(world.joined(*t).error_code, NONE));
}

fn static_join(
    group: &str,
    member: &Str,
    instance: &str,
) -> drumlin_wire::messages::join_group_request::JoinGroupRequest {
    let mut request = join(group, member, &range());
    request.group_instance_id = Some(instance.into());
    request
}

/// KIP-345 and KIP-814: a static member that comes back within its session keeps its assignment.
#[test]
fn static_members_come_back_without_a_rebalance() {
    let mut world = World::new(GroupConfig::default());
    let tokens: Vec<u64> = ["one", "two"]
        .iter()
        .map(|i| world.join(static_join("g", &Str::EMPTY, i)))
        .collect();
    world.pass(6_000);
    let answers: Vec<_> = tokens.into_iter().map(|t| world.joined(t)).collect();
    let leader = answers[0].leader.clone();
    let mut ids: Vec<Str> = answers.iter().map(|a| a.member_id.clone()).collect();
    assert!(ids[0].starts_with("one-") && ids[1].starts_with("two-"));
    let leads = ids.iter().position(|id| *id == leader).unwrap();
    ids.sort_by_key(|id| *id != leader);
    finish(&mut world, "g", &ids, 1);

    let instances = ["one", "two"];
    let token = world.join(static_join("g", &Str::EMPTY, instances[leads]));
    let answer = world.joined(token);
    assert_eq!(
        (answer.error_code, answer.generation_id),
        (NONE, 1),
        "no rebalance"
    );
    assert_ne!(answer.member_id, leader);
    assert_eq!(answer.leader, answer.member_id);
    assert!(answer.skip_assignment);
    assert_eq!(answer.members.len(), 2);
    // Its predecessor is fenced, whatever it does.
    let request = sync("g", &leader, 1, &[]);
    let mut fenced = request.clone();
    fenced.group_instance_id = Some(instances[leads].into());
    let token = world.ask(GroupRequest::SyncGroup(fenced));
    assert_eq!(world.synced(token).error_code, ErrorCode::FencedInstanceId.code());
    let token = world.ask(GroupRequest::SyncGroup(request));
    assert_eq!(world.synced(token).error_code, ErrorCode::UnknownMemberId.code());
    // It gets the assignment that its predecessor had, also after the coordinator has moved.
    world.move_away();
    let token = world.ask(GroupRequest::SyncGroup(sync("g", &answer.member_id, 1, &[])));
    assert_eq!(world.synced(token).assignment, *leader.as_bytes());
    // An older client is not told that it leads, since it would assign.
    world.version = 8;
    let token = world.join(static_join("g", &Str::EMPTY, instances[leads]));
    let old = world.joined(token);
    assert_eq!(old.leader, answer.member_id);
    assert!(old.members.is_empty() && !old.skip_assignment);
    // An administrator removes it by its instance.
    let answer = world.leave("g", vec![identity(&Str::EMPTY, Some(instances[leads]))]);
    assert_eq!(answer.members[0].error_code, NONE);
    assert_eq!(world.shard.figures().members, 1);
    let answer = world.leave("g", vec![identity(&Str::EMPTY, Some("nobody"))]);
    assert_eq!(answer.members[0].error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_second_static_member_of_the_same_id_takes_the_place() {
    let mut world = World::new(GroupConfig::default());
    let first = world.join(static_join("g", &Str::EMPTY, "one"));
    let second = world.join(static_join("g", &Str::EMPTY, "one"));
    assert_eq!(world.joined(first).error_code, ErrorCode::FencedInstanceId.code());
    world.pass(6_000);
    assert_eq!(world.joined(second).members.len(), 1);
}

/// Static members are waited for, one of whom has no patience at all: time goes on nevertheless.
#[test]
fn impatient_static_members_do_not_stop_time() {
    let mut world = World::new(GroupConfig::default());
    let other = new_id(&mut world, "g");
    let other_token = world.join(join("g", &other, &range()));
    let mut request = static_join("g", &Str::EMPTY, "one");
    request.rebalance_timeout_ms = 0;
    request.session_timeout_ms = 120_000;
    let token = world.join(request);
    world.pass(6_000);
    let id = world.joined(token).member_id;
    let leader = world.joined(other_token).leader;
    let mut ids = vec![id.clone(), other.clone()];
    ids.sort_by_key(|id| *id != leader);
    finish(&mut world, "g", &ids, 1);
    // The other one makes the group rebalance and is gone.
    world.join(join("g", &other, &[("range", subscription(&["b"]))]));
    world.leave("g", vec![identity(&other, None)]);
    world.pass(100_000);
    assert_eq!(world.shard.figures().classic_preparing, 1);
    assert!(
        world
            .shard
            .next_deadline()
            .is_some_and(|at| at > world.now.mono_ms)
    );
    world.pass(20_000);
    assert_eq!(describe(&mut world, "g").group_state, "Empty");
}

#[test]
fn a_member_that_missed_its_answer_gets_it_again() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 2);
    let token = world.join(join("g", &ids[1], &range()));
    let answer = world.joined(token);
    assert_eq!((answer.error_code, answer.generation_id), (NONE, generation));
    let token = world.ask(GroupRequest::SyncGroup(sync("g", &ids[1], generation, &[])));
    assert_eq!(world.synced(token).assignment, *ids[1].as_bytes());
    // With other metadata it is a rebalance.
    let token = world.join(join("g", &ids[1], &[("range", subscription(&["a", "b"]))]));
    assert!(!world.answers.contains_key(&token));
    // And one that sends its JoinGroup twice is answered twice, by the end.
    let again = world.join(join("g", &ids[1], &range()));
    assert_eq!(
        world.joined(token).error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    let leader = world.join(join("g", &ids[0], &range()));
    assert_eq!(world.joined(again).generation_id, generation + 1);
    assert_eq!(world.joined(leader).members.len(), 2);
}

#[test]
fn sync_is_checked() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 1);
    let code = |world: &mut World, request| {
        let token = world.ask(GroupRequest::SyncGroup(request));
        world.synced(token).error_code
    };
    let ok = sync("g", &ids[0], generation, &[]);
    assert_eq!(code(&mut world, ok.clone()), NONE);
    let wrong = sync("g", &ids[0], generation + 1, &[]);
    assert_eq!(code(&mut world, wrong), ErrorCode::IllegalGeneration.code());
    let nobody = sync("h", &ids[0], generation, &[]);
    assert_eq!(code(&mut world, nobody), ErrorCode::UnknownMemberId.code());
    let mut other = ok.clone();
    other.protocol_name = Some("roundrobin".into());
    assert_eq!(
        code(&mut world, other),
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let mut same = ok;
    same.protocol_name = Some("range".into());
    same.protocol_type = Some("consumer".into());
    assert_eq!(code(&mut world, same), NONE);
}

#[test]
fn a_loaded_group_goes_on() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 3);
    world.pass(9_000);
    world.move_away();
    // Sessions begin anew, in full.
    world.pass(9_999);
    for id in &ids {
        assert_eq!(world.heartbeat("g", id, generation), NONE);
    }
    // In the middle of a rebalance: it is as if that had not begun, and those who wait are told.
    let token = world.join(join("g", &ids[0], &range()));
    world.move_away();
    assert_eq!(world.joined(token).error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(world.heartbeat("g", &ids[1], generation), NONE);
    assert_eq!(describe(&mut world, "g").group_state, "Stable");
}

#[test]
fn nothing_is_served_before_it_is_loaded() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 1);
    world.shard = world.replayed();
    assert_eq!(world.shard.next_deadline(), None);
    let token = world.join(join("g", &ids[0], &range()));
    assert_eq!(
        world.joined(token).error_code,
        ErrorCode::CoordinatorLoadInProgress.code()
    );
    // Members must not lose heart meanwhile.
    assert_eq!(world.heartbeat("g", &ids[0], generation), NONE);
    assert_eq!(
        world.fetch("g", None).error_code,
        ErrorCode::CoordinatorLoadInProgress.code()
    );
    world.shard.unload();
    assert_eq!(
        world.heartbeat("g", &ids[0], generation),
        ErrorCode::NotCoordinator.code()
    );
}

#[test]
fn ten_thousand_vanished_clients_leave_nothing() {
    let mut world = World::new(GroupConfig::default());
    for n in 0..10_000 {
        new_id(&mut world, "g");
        if n % 100 == 0 {
            world.pass(1);
        }
    }
    assert_eq!(world.shard.figures().members, 0);
    world.pass(10_000);
    let before = world.log.len();
    world.pass(600_000);
    assert_eq!(world.log.len(), before + 1, "the empty group is deleted");
    assert!(list(&mut world, &[], &[]).is_empty());
    assert_eq!(world.shard.next_deadline(), None, "an idle shard has no timer");
    // Old clients become members at once, and vanish too.
    world.version = 0;
    for _ in 0..1_000 {
        world.join(join("h", &Str::EMPTY, &range()));
    }
    world.pass(600_000);
    assert_eq!(world.shard.figures().members, 0);
    assert!(list(&mut world, &[], &[]).is_empty());
}

/// More ids than a group keeps: the oldest has to ask again, and then gets in.
#[test]
fn ids_that_are_never_used_are_bounded() {
    let mut world = World::new(GroupConfig::default());
    let first = new_id(&mut world, "g");
    let second = new_id(&mut world, "g");
    for _ in 0..9_999 {
        new_id(&mut world, "g");
    }
    let token = world.join(join("g", &first, &range()));
    assert_eq!(world.joined(token).error_code, ErrorCode::UnknownMemberId.code());
    world.join(join("g", &second, &range()));
    assert_eq!(world.shard.figures().members, 1);
}

#[test]
fn groups_are_listed_and_described() {
    let mut world = World::new(GroupConfig::default());
    stable(&mut world, "g", 1);
    assert_eq!(world.commit(commit("simple", "", -1, ("a", 0), 1)), NONE);
    let names = |groups: Vec<ListedGroup>| groups.into_iter().map(|g| g.group_id).collect::<Vec<_>>();
    assert_eq!(names(list(&mut world, &[], &[])), ["g", "simple"]);
    assert_eq!(names(list(&mut world, &["sTABLE"], &[])), ["g"]);
    assert_eq!(
        names(list(&mut world, &["Empty", "Stable"], &["Classic"])),
        ["g", "simple"]
    );
    assert_eq!(names(list(&mut world, &[], &["consumer"])), Vec::<Str>::new());
    assert_eq!(list(&mut world, &[], &[])[0].group_type, "classic");
    assert_eq!(list(&mut world, &[], &[])[1].protocol_type, "");
    world.version = 5;
    let missing = describe(&mut world, "x");
    assert_eq!((missing.error_code, missing.group_state.as_str()), (NONE, "Dead"));
    world.version = 6;
    let missing = describe(&mut world, "x");
    assert_eq!(missing.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(missing.group_state, "Dead");
    assert!(missing.error_message.is_some());
}

#[test]
fn only_empty_groups_are_deleted() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 1);
    assert_eq!(world.commit(commit("g", &ids[0], generation, ("a", 0), 7)), NONE);
    assert_eq!(delete(&mut world, "g"), ErrorCode::NonEmptyGroup.code());
    world.leave("g", vec![identity(&ids[0], None)]);
    assert_eq!(delete(&mut world, "g"), NONE);
    assert_eq!(delete(&mut world, "g"), ErrorCode::GroupIdNotFound.code());
    assert_eq!(world.committed("g", "a", 0), -1);
    world.move_away();
    assert!(list(&mut world, &[], &[]).is_empty());
    assert_eq!(world.committed("g", "a", 0), -1);
}

/// Connect and others have types and metadata of their own; the coordinator does not look into it.
#[test]
fn any_protocol_type_works() {
    let mut world = World::new(GroupConfig::default());
    let mut request = join(
        "connect",
        &Str::EMPTY,
        &[("sessioned", Bytes::from_static(&[0xff; 9]))],
    );
    request.protocol_type = "connect".into();
    let token = world.join(request.clone());
    request.member_id = world.joined(token).member_id;
    let token = world.join(request.clone());
    world.pass(3_000);
    assert_eq!(world.joined(token).members[0].metadata, vec![0xff; 9]);
    finish(&mut world, "connect", std::slice::from_ref(&request.member_id), 1);
    assert_eq!(describe(&mut world, "connect").protocol_type, "connect");
}

/// A consumer whose metadata cannot be read is served too.
#[test]
fn unreadable_metadata_is_passed_on() {
    let mut world = World::new(GroupConfig::default());
    world.version = 3;
    let odd = Bytes::from_static(&[0, 9, 0x7f, 0xff, 0xff, 0xff]);
    let token = world.join(join("g", &Str::EMPTY, &[("mine", odd.clone())]));
    world.pass(3_000);
    let answer = world.joined(token);
    assert_eq!(answer.members[0].metadata, odd);
    finish(&mut world, "g", &[answer.member_id], 1);
    world.move_away();
}

/// 500 members: every JoinGroup, SyncGroup and answer costs about the same, however many there are.
#[test]
fn a_rebalance_of_many_is_one_pass() {
    let mut world = World::new(GroupConfig::default());
    let (ids, generation) = stable(&mut world, "g", 500);
    let records = world.log.len();
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    let answers: Vec<_> = tokens.into_iter().map(|t| world.joined(t)).collect();
    assert!(answers.iter().all(|a| a.generation_id == generation + 1));
    assert_eq!(answers.iter().map(|a| a.members.len()).sum::<usize>(), 500);
    assert_eq!(world.log.len(), records, "gathering writes nothing");
    finish(&mut world, "g", &ids, generation + 1);
    assert_eq!(world.log.len(), records + 1, "a generation is one record");
    assert_eq!(world.shard.figures().classic_rebalances, 2);
}

#[test]
fn a_member_names_only_so_many_protocols() {
    let mut world = World::new(GroupConfig::default());
    let names: Vec<String> = (0..230_000).map(|n| n.to_string()).collect();
    let with = |count: usize| {
        let named = names.iter().take(count).map(|name| (name.as_str(), Bytes::new()));
        join("g", &Str::EMPTY, &named.collect::<Vec<_>>())
    };
    let token = world.join(with(names.len()));
    assert_eq!(world.joined(token).error_code, ErrorCode::InvalidRequest.code());
    assert!(list(&mut world, &[], &[]).is_empty());
    let token = world.join(with(100));
    assert_eq!(world.joined(token).error_code, ErrorCode::MemberIdRequired.code());
}

/// A JoinGroup's metadata is kept as long as its session, and there may be any number of them.
#[test]
fn what_members_that_vanish_have_said_is_bounded() {
    let mut world = World::new(GroupConfig::default());
    let memory = Arc::new(MemberMemory::with_limit(8 << 20));
    world.shard.count_members_in(memory.clone());
    let said = |bytes: usize| vec![("range", Bytes::from(vec![7; bytes]))];
    let large = |group: &str, id: &Str, bytes: usize| join(group, id, &said(bytes));
    // One by one.
    world.version = 0;
    let token = world.join(large("g", &Str::EMPTY, 1_000_001));
    assert_eq!(
        world.joined(token).error_code,
        ErrorCode::UnknownServerError.code()
    );
    assert_eq!((memory.used(), world.shard.figures().members), (0, 0));
    // All together, over groups.
    let mut refused = 0;
    for n in 0..100 {
        let token = world.join(large(&format!("g{}", n % 7), &Str::EMPTY, 900_000));
        match world.got(token) {
            None => {}
            Some(GroupResponse::JoinGroup(answer)) => {
                assert_eq!(answer.error_code, ErrorCode::CoordinatorNotAvailable.code());
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((world.shard.figures().members, refused), (9, 91));
    assert!(memory.used() <= 8 << 20, "{}", memory.used());
    // They never come back: what they held is given back, and others can join.
    world.pass(600_000);
    assert_eq!((memory.used(), world.shard.figures().members), (0, 0));
    world.version = 9;
    stable(&mut world, "h", 3);
    let held = memory.used();
    assert!(held > 0);
    // As much after a move, and nothing once it is gone.
    world.move_away();
    assert_eq!(memory.used(), 0);
    world.shard = world.replayed();
    world.shard.count_members_in(memory.clone());
    world.shard.loaded(world.now, &world.topics);
    assert_eq!(memory.used(), held);
    world.shard.unload();
    assert_eq!(memory.used(), 0);
}

/// One group's members may not outgrow what can be written of them.
#[test]
fn a_group_holds_only_so_much() {
    let mut world = World::new(GroupConfig::default());
    world.version = 0;
    let said = vec![("range", Bytes::from(vec![7; 900_000]))];
    let tokens: Vec<u64> = (0..30)
        .map(|_| world.join(join("g", &Str::EMPTY, &said)))
        .collect();
    let full = ErrorCode::GroupMaxSizeReached.code();
    let refused: Vec<_> = tokens.into_iter().filter_map(|t| world.got(t)).collect();
    assert_eq!(refused.len(), 12);
    let is_full =
        |answer: &GroupResponse| matches!(answer, GroupResponse::JoinGroup(a) if a.error_code == full);
    assert!(refused.iter().all(is_full));
}

/// Kafka's way with a record that is too large: who waits is told, and members gather again.
#[test]
fn an_assignment_that_cannot_be_stored_is_refused() {
    let mut world = World::new(GroupConfig::default());
    let (ids, _) = stable(&mut world, "g", 2);
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    let generation = world.joined(tokens[1]).generation_id;
    assert_eq!(world.joined(tokens[0]).error_code, NONE);
    let written = world.log.len();
    let follower = world.ask(GroupRequest::SyncGroup(sync("g", &ids[1], generation, &[])));
    let huge = "x".repeat(9 << 20);
    let parts = [(&ids[0], huge.as_str()), (&ids[1], huge.as_str())];
    let leader = world.ask(GroupRequest::SyncGroup(sync("g", &ids[0], generation, &parts)));
    for token in [follower, leader] {
        let code = world.synced(token).error_code;
        assert_eq!(code, ErrorCode::UnknownServerError.code());
    }
    assert_eq!(world.log.len(), written, "nothing was written of it");
    let rebalancing = ErrorCode::RebalanceInProgress.code();
    assert_eq!(world.heartbeat("g", &ids[0], generation), rebalancing);
    let tokens: Vec<u64> = ids.iter().map(|id| world.join(join("g", id, &range()))).collect();
    let generation = world.joined(tokens[0]).generation_id;
    assert_eq!(world.joined(tokens[1]).error_code, NONE);
    finish(&mut world, "g", &ids, generation);
}

/// KIP-134's wait is for newcomers: one that has gone does not cut it short.
#[test]
fn who_goes_away_does_not_end_the_first_wait() {
    let mut world = World::new(GroupConfig {
        initial_rebalance_delay_ms: 20_000,
        ..GroupConfig::default()
    });
    let first = new_id(&mut world, "g");
    let _never_comes = new_id(&mut world, "g");
    let token = world.join(join("g", &first, &range()));
    // The session of the id that was never used is over.
    world.pass(12_000);
    assert!(world.got(token).is_none(), "the wait was cut short");
    let second = new_id(&mut world, "g");
    let other = world.join(join("g", &second, &range()));
    world.pass(60_000);
    let (answer, other) = (world.joined(token), world.joined(other));
    assert_eq!(
        (answer.generation_id, other.generation_id),
        (1, 1),
        "one rebalance for both"
    );
}
