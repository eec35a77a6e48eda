//! The stories that KIP-848 tells.

use super::*;

fn code<T>(result: Result<T, GroupError>) -> ErrorCode {
    result.err().map_or(ErrorCode::None, |error| error.code)
}

/// One member has everything.
fn alone(world: &mut World, topic: Uuid, partitions: i32) -> i32 {
    let response = world.heartbeat(&join("a", &["t"])).expect("joins");
    assert_eq!(assigned(&response), Some(set(topic, 0..partitions)));
    assert_eq!(world.group.state(), GroupState::Stable);
    response.member_epoch
}

#[test]
fn one_joins_a_second_joins_partitions_move_once() {
    let mut world = World::new();
    let t = world.topics.create("t", 4);
    let epoch = alone(&mut world, t, 4);
    assert_eq!(epoch, 1);
    assert_eq!(world.group.epoch(), 1);

    // The second gets nothing yet: everything is owned.
    let response = world.heartbeat(&join("b", &["t"])).expect("joins");
    assert_eq!(response.member_epoch, 2);
    assert_eq!(assigned(&response), Some(Set::new()));
    assert_eq!(world.member("b").current.state, MemberState::UnreleasedPartitions);
    assert_eq!(world.group.state(), GroupState::Reconciling);

    // The first hears what it keeps, and stays in its epoch until it has given up the rest.
    let response = world.heartbeat(&beat("a", 1, None)).expect("stays");
    assert_eq!(response.member_epoch, 1);
    let keeps = assigned(&response).expect("it changed");
    assert_eq!(keeps.len(), 2);
    assert_eq!(world.member("a").current.state, MemberState::UnrevokedPartitions);
    let response = world
        .heartbeat(&beat("a", 1, Some(&set(t, 0..4))))
        .expect("still owns all");
    assert_eq!((response.member_epoch, response.assignment), (1, None));
    let response = world.heartbeat(&beat("b", 2, Some(&Set::new()))).expect("waits");
    assert_eq!(response.assignment, None);

    let response = world.heartbeat(&beat("a", 1, Some(&keeps))).expect("gave up");
    assert_eq!(response.member_epoch, 2);
    assert_eq!(world.member("a").current.state, MemberState::Stable);
    let response = world.heartbeat(&beat("b", 2, None)).expect("gets the rest");
    let gets = assigned(&response).expect("it changed");
    assert_eq!(&gets | &keeps, set(t, 0..4));
    assert_eq!(gets.len(), 2);
    assert_eq!(world.group.state(), GroupState::Stable);
    assert_eq!(world.group.rebalances(), 2);
    let response = world.heartbeat(&beat("b", 2, Some(&gets))).expect("at rest");
    assert_eq!((response.member_epoch, response.assignment), (2, None));
    assert_eq!(response.heartbeat_interval_ms, 5_000);
}

#[test]
fn who_leaves_frees_at_once_and_who_dies_when_the_session_is_over() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    alone(&mut world, t, 2);
    world.heartbeat(&join("b", &["t"])).expect("joins");
    let response = world.heartbeat(&beat("a", 1, None)).expect("keeps one");
    let keeps = assigned(&response).expect("changed");
    world.heartbeat(&beat("a", 1, Some(&keeps))).expect("gave up");

    let response = world.heartbeat(&beat("a", -1, None)).expect("leaves");
    assert_eq!(
        (response.member_id.as_deref(), response.member_epoch),
        (Some("a"), -1)
    );
    assert_eq!(world.group.len(), 1);
    assert_eq!(world.group.state(), GroupState::Assigning);
    let response = world.heartbeat(&beat("b", 2, None)).expect("gets all");
    assert_eq!(response.member_epoch, 3);
    assert_eq!(assigned(&response), Some(set(t, 0..2)));

    world.pass(44_999);
    assert_eq!(world.group.len(), 1);
    world.pass(1);
    assert_eq!(world.group.len(), 0);
    assert_eq!(world.group.state(), GroupState::Empty);
    assert_eq!(world.group.epoch(), 4);
    assert_eq!(world.group.next_deadline(), None);
    assert_eq!(
        code(world.heartbeat(&beat("b", 3, None))),
        ErrorCode::UnknownMemberId
    );
    // It comes back and goes on from a higher epoch.
    let response = world.heartbeat(&join("b", &["t"])).expect("joins again");
    assert_eq!(response.member_epoch, 5);
}

#[test]
fn who_does_not_give_up_in_time_is_fenced() {
    let mut world = World::new();
    world.config.consumer_session_timeout_ms = 60_000;
    let t = world.topics.create("t", 2);
    alone(&mut world, t, 2);
    world.heartbeat(&join("b", &["t"])).expect("joins");
    world
        .heartbeat(&beat("a", 1, Some(&set(t, 0..2))))
        .expect("is told");
    for _ in 0..29 {
        world.pass(1_000);
        world
            .heartbeat(&beat("a", 1, Some(&set(t, 0..2))))
            .expect("heartbeats do not prolong it");
    }
    world.pass(1_000);
    assert!(world.group.member("a").is_none());
    assert_eq!(
        code(world.heartbeat(&beat("a", 1, None))),
        ErrorCode::UnknownMemberId
    );
    let response = world.heartbeat(&beat("b", 2, None)).expect("gets all");
    assert_eq!(assigned(&response), Some(set(t, 0..2)));
}

#[test]
fn epochs_that_are_not_the_members_are_fenced_but_for_a_lost_answer() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    alone(&mut world, t, 2);
    assert_eq!(
        code(world.heartbeat(&beat("a", 2, None))),
        ErrorCode::FencedMemberEpoch
    );
    world.topics.create("t", 3);
    let response = world.heartbeat(&beat("a", 1, None)).expect("goes to epoch 2");
    assert_eq!(response.member_epoch, 2);
    // That answer was lost: the member comes with the epoch before, and says what it owns.
    assert_eq!(
        code(world.heartbeat(&beat("a", 1, None))),
        ErrorCode::FencedMemberEpoch
    );
    let owns_more = set(t, 0..4);
    assert_eq!(
        code(world.heartbeat(&beat("a", 1, Some(&owns_more)))),
        ErrorCode::FencedMemberEpoch
    );
    let response = world
        .heartbeat(&beat("a", 1, Some(&set(t, 0..2))))
        .expect("is let through");
    assert_eq!(response.member_epoch, 2);
    // A full heartbeat is always told its assignment.
    let full = ConsumerGroupHeartbeatRequest {
        member_epoch: 1,
        topic_partitions: Some(reported(&set(t, 0..2))),
        ..join("a", &["t"])
    };
    let response = world.heartbeat(&full).expect("is let through");
    assert_eq!(assigned(&response), Some(set(t, 0..3)));
    world.topics.create("t", 4);
    world.heartbeat(&beat("a", 2, None)).expect("epoch 3");
    assert_eq!(
        code(world.heartbeat(&beat("a", 1, Some(&Set::new())))),
        ErrorCode::FencedMemberEpoch
    );
    // Fenced members join again, and get what is theirs still.
    let response = world.heartbeat(&join("a", &["t"])).expect("joins again");
    assert_eq!(response.member_epoch, 3);
    assert_eq!(assigned(&response), Some(set(t, 0..4)));
}

#[test]
fn requests_that_are_wrong_in_themselves() {
    let mut world = World::new();
    world.topics.create("t", 1);
    let mut refused = |request: ConsumerGroupHeartbeatRequest| {
        let error = world.heartbeat(&request).expect_err("refused");
        assert_eq!(error.heartbeat().error_code, error.code.code());
        assert!(error.heartbeat().error_message.is_some());
        assert_eq!(world.group.len(), 0);
        error.code
    };
    let good = join("m", &["t"]);
    let with = |change: &dyn Fn(&mut ConsumerGroupHeartbeatRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for wrong in [
        with(&|r| r.member_id = Str::EMPTY),
        with(&|r| r.group_id = Str::from(" ")),
        with(&|r| r.instance_id = Some(Str::EMPTY)),
        with(&|r| r.rack_id = Some(Str::EMPTY)),
        with(&|r| r.rebalance_timeout_ms = -1),
        with(&|r| r.topic_partitions = None),
        with(&|r| r.topic_partitions = Some(reported(&set(Uuid::from_u128(1), 0..1)))),
        with(&|r| r.subscribed_topic_names = None),
        with(&|r| r.member_epoch = -3),
        with(&|r| r.member_epoch = -2),
        with(&|r| r.member_id = Str::from("x".repeat(40_000))),
    ] {
        assert_eq!(refused(wrong), ErrorCode::InvalidRequest);
    }
    assert_eq!(
        refused(with(&|r| r.server_assignor = Some(Str::from("sticky")))),
        ErrorCode::UnsupportedAssignor
    );
    assert_eq!(
        refused(with(&|r| r.subscribed_topic_regex = Some(Str::from("(")))),
        ErrorCode::InvalidRegularExpression
    );
    assert_eq!(refused(with(&|r| r.member_epoch = 5)), ErrorCode::UnknownMemberId);
    assert_eq!(
        refused(with(&|r| r.member_epoch = -1)),
        ErrorCode::UnknownMemberId
    );

    // Version 0 leaves the id of a member that joins to the coordinator.
    world.caller.api_version = 0;
    let response = world.heartbeat(&join("", &["t"])).expect("joins");
    let id = response.member_id.expect("an id");
    assert!(id.starts_with("made-"));
    assert_eq!(
        code(world.heartbeat(&beat("", 1, None))),
        ErrorCode::InvalidRequest
    );
    world.heartbeat(&beat(&id, 1, None)).expect("stays");

    world.config.consumer_max_size = 1;
    assert_eq!(
        code(world.heartbeat(&join("n", &["t"]))),
        ErrorCode::GroupMaxSizeReached
    );
    world.heartbeat(&join(&id, &["t"])).expect("is in it");
}

fn is_static(mut request: ConsumerGroupHeartbeatRequest, instance: &str) -> ConsumerGroupHeartbeatRequest {
    request.instance_id = Some(Str::from(instance));
    request
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut world = World::new();
    let t = world.topics.create("t", 4);
    world
        .heartbeat(&is_static(join("a", &["t"]), "i1"))
        .expect("joins");
    world
        .heartbeat(&is_static(join("b", &["t"]), "i2"))
        .expect("joins");
    let keeps = assigned(
        &world
            .heartbeat(&is_static(beat("a", 1, None), "i1"))
            .expect("told"),
    )
    .expect("changed");
    world
        .heartbeat(&is_static(beat("a", 1, Some(&keeps)), "i1"))
        .expect("gave up");
    let rest = assigned(
        &world
            .heartbeat(&is_static(beat("b", 2, None), "i2"))
            .expect("gets"),
    )
    .expect("changed");

    // Nobody takes an instance id that is in use.
    assert_eq!(
        code(world.heartbeat(&is_static(join("x", &["t"]), "i1"))),
        ErrorCode::UnreleasedInstanceId
    );
    assert_eq!(
        code(world.heartbeat(&is_static(beat("x", 2, None), "i1"))),
        ErrorCode::FencedInstanceId
    );
    assert_eq!(
        code(world.heartbeat(&is_static(beat("a", 2, None), "i9"))),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        code(world.heartbeat(&is_static(beat("x", -1, None), "i1"))),
        ErrorCode::FencedInstanceId
    );
    // The one that has it may start anew itself.
    let response = world
        .heartbeat(&is_static(join("a", &["t"]), "i1"))
        .expect("joins again");
    assert_eq!(assigned(&response), Some(keeps.clone()));

    let response = world
        .heartbeat(&is_static(beat("a", -2, None), "i1"))
        .expect("leaves for a while");
    assert_eq!(response.member_epoch, -2);
    assert_eq!(world.group.len(), 2);
    assert_eq!(world.group.epoch(), 2, "nothing is rebalanced");
    world.pass(10_000);
    world
        .heartbeat(&is_static(beat("b", 2, Some(&rest)), "i2"))
        .expect("keeps what it has");
    let response = world
        .heartbeat(&is_static(join("a2", &["t"]), "i1"))
        .expect("comes back");
    assert_eq!(assigned(&response), Some(keeps));
    assert_eq!(response.member_epoch, 2);
    assert_eq!(world.group.epoch(), 2, "nothing is rebalanced");
    assert!(world.group.member("a").is_none());
    assert_eq!(world.group.static_member("i1").map(Str::as_str), Some("a2"));
    assert_eq!(
        code(world.heartbeat(&is_static(beat("a", 2, None), "i1"))),
        ErrorCode::FencedInstanceId
    );

    // One that does not come back in time is gone.
    world
        .heartbeat(&is_static(beat("a2", -2, None), "i1"))
        .expect("leaves for a while");
    world.pass(40_000);
    world
        .heartbeat(&is_static(beat("b", 2, Some(&rest)), "i2"))
        .expect("stays");
    world.pass(5_000);
    assert!(world.group.member("a2").is_none());
    let response = world
        .heartbeat(&is_static(beat("b", 2, Some(&rest)), "i2"))
        .expect("gets all");
    assert_eq!(assigned(&response), Some(set(t, 0..4)));
}

#[test]
fn a_static_member_may_come_back_with_another_subscription() {
    let mut world = World::new();
    world.topics.create("t", 2);
    let u = world.topics.create("u", 2);
    world
        .heartbeat(&is_static(join("a", &["t"]), "i"))
        .expect("joins");
    world
        .heartbeat(&is_static(beat("a", -2, None), "i"))
        .expect("leaves");
    let response = world
        .heartbeat(&is_static(join("b", &["u"]), "i"))
        .expect("comes back");
    assert_eq!(assigned(&response), Some(set(u, 0..2)));
    assert_eq!(world.group.len(), 1);
    assert_eq!(world.group.state(), GroupState::Stable);
}

#[test]
fn topics_come_grow_and_go() {
    let mut world = World::new();
    let response = world.heartbeat(&join("a", &["t", "later"])).expect("joins");
    assert_eq!(assigned(&response), Some(Set::new()));
    assert_eq!(
        response.member_epoch, 1,
        "a group leaves epoch 0 though there is nothing to assign"
    );

    let t = world.topics.create("t", 1);
    let response = world.heartbeat(&beat("a", 1, None)).expect("stays");
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (2, Some(set(t, 0..1)))
    );
    world.topics.create("unrelated", 9);
    let response = world.heartbeat(&beat("a", 2, None)).expect("stays");
    assert_eq!((response.member_epoch, response.assignment), (2, None));
    world.topics.create("t", 3);
    let response = world.heartbeat(&beat("a", 2, None)).expect("stays");
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (3, Some(set(t, 0..3)))
    );

    world.topics.delete("t");
    let response = world
        .heartbeat(&beat("a", 3, Some(&set(t, 0..3))))
        .expect("must give it up");
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (3, Some(Set::new()))
    );
    let response = world
        .heartbeat(&beat("a", 3, Some(&Set::new())))
        .expect("gave up");
    assert_eq!(response.member_epoch, 4);
    let again = world.topics.create("t", 2);
    assert_ne!(again, t);
    let response = world.heartbeat(&beat("a", 4, None)).expect("stays");
    assert_eq!(assigned(&response), Some(set(again, 0..2)));

    let before = world.group.epoch();
    world.topics.set_racks(again, &["r1", "r2"]);
    world.heartbeat(&beat("a", 5, None)).expect("stays");
    assert_eq!(world.group.epoch(), before + 1, "racks count as metadata");
    world.topics.set_racks(again, &["r2", "r1"]);
    world.heartbeat(&beat("a", 6, None)).expect("stays");
    assert_eq!(world.group.epoch(), before + 1, "their order does not");
}

#[test]
fn a_member_changes_its_subscription() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    let u = world.topics.create("u", 2);
    alone(&mut world, t, 2);
    world.config.consumer_assignment_interval_ms = 60_000;
    // The next assignment is not due yet, but what it gave up its subscription for is taken at once.
    let mut request = beat("a", 1, Some(&set(t, 0..2)));
    request.subscribed_topic_names = Some(vec![Str::from("u")]);
    let response = world.heartbeat(&request).expect("stays");
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (1, Some(Set::new()))
    );
    assert_eq!(world.group.state(), GroupState::Assigning);
    world
        .heartbeat(&beat("a", 1, Some(&Set::new())))
        .expect("gave up");
    world.pass(30_000);
    let response = world.heartbeat(&beat("a", 1, None)).expect("waits");
    assert_eq!(response.assignment, None);
    world.pass(30_000);
    let response = world.heartbeat(&beat("a", 1, None)).expect("it is time");
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (2, Some(set(u, 0..2)))
    );
    let response = world.heartbeat(&beat("a", 2, None)).expect("at rest");
    assert_eq!(response.assignment, None);
    // A clock that was set back does not hold up assignments.
    world.now.wall_ms -= 1_000_000;
    world.topics.create("u", 3);
    let response = world.heartbeat(&beat("a", 2, None)).expect("stays");
    assert_eq!(assigned(&response), Some(set(u, 0..3)));
}

#[test]
fn regular_expressions_follow_the_topics() {
    let mut world = World::new();
    let eu = world.topics.create("orders-eu", 1);
    world.topics.create("orders", 1);
    let secret = world.topics.create("orders-secret", 1);
    world.hidden.insert("orders-secret".into());
    let mut request = join("a", &[]);
    request.subscribed_topic_names = None;
    request.subscribed_topic_regex = Some(Str::from("orders-.*"));
    let response = world.heartbeat(&request).expect("joins");
    assert_eq!(
        assigned(&response),
        Some(set(eu, 0..1)),
        "at once, and only what it may see"
    );
    assert!(world.group.is_subscribed_to("orders-eu") && !world.group.is_subscribed_to("orders"));

    // A new topic is seen by the first heartbeat ten seconds after the last look.
    let us = world.topics.create("orders-us", 1);
    world.pass(9_999);
    let response = world.heartbeat(&beat("a", 1, None)).expect("stays");
    assert_eq!(response.assignment, None);
    world.pass(1);
    let response = world.heartbeat(&beat("a", 1, None)).expect("stays");
    assert_eq!(assigned(&response), Some(&set(eu, 0..1) | &set(us, 0..1)));

    // Grants are looked at when the interval is over.
    world.hidden.clear();
    let mut epoch = 2;
    for _ in 0..60 {
        world.pass(10_000);
        let response = world.heartbeat(&beat("a", epoch, None)).expect("stays");
        assert_eq!(response.assignment, None);
        epoch = response.member_epoch;
    }
    world.pass(1);
    let response = world.heartbeat(&beat("a", epoch, None)).expect("stays");
    assert_eq!(assigned(&response).expect("changed").len(), 3);
    assert!(assigned(&response).expect("changed").contains(&(secret, 0)));

    // A second member with the same expression; the record goes with the last of them.
    let mut other = join("b", &[]);
    other.subscribed_topic_regex = Some(Str::from("orders-.*"));
    world.heartbeat(&other).expect("joins");
    let mut change = beat("a", epoch + 1, None);
    change.subscribed_topic_regex = Some(Str::from("orders"));
    world.heartbeat(&change).expect("changes");
    assert!(world.group.is_subscribed_to("orders") && world.group.is_subscribed_to("orders-us"));
    let leaves = beat("b", -1, None);
    world.heartbeat(&leaves).expect("leaves");
    assert!(!world.group.is_subscribed_to("orders-us"));
    change.subscribed_topic_regex = Some(Str::from("["));
    change.member_epoch = world.member("a").current.epoch;
    let before = world.group.clone();
    assert_eq!(
        code(world.heartbeat(&change)),
        ErrorCode::InvalidRegularExpression
    );
    assert!(before.same_state(&world.group), "nothing has changed");
    change.subscribed_topic_regex = Some(Str::EMPTY);
    world.heartbeat(&change).expect("by nothing now");
    assert!(!world.group.is_subscribed_to("orders"));
}

#[test]
fn names_and_an_expression_together() {
    let mut world = World::new();
    let t = world.topics.create("t", 1);
    let x = world.topics.create("x1", 1);
    let mut request = join("a", &["t"]);
    request.subscribed_topic_regex = Some(Str::from("x."));
    let response = world.heartbeat(&request).expect("joins");
    assert_eq!(assigned(&response), Some(&set(t, 0..1) | &set(x, 0..1)));
}

#[test]
fn the_assignor_that_most_wish_for() {
    let mut world = World::new();
    let t = world.topics.create("t", 3);
    let u = world.topics.create("u", 3);
    let wish = |id: &str, assignor: &str| {
        let mut request = join(id, &["t", "u"]);
        request.server_assignor = Some(Str::from(assignor));
        request
    };
    world.heartbeat(&wish("a", "uniform")).expect("joins");
    world.heartbeat(&wish("b", "range")).expect("joins");
    let target = |world: &World, id: &str| world.group.target(id).cloned().unwrap_or_default();
    assert_eq!(
        target(&world, "a").len(),
        1,
        "uniform is configured first: one topic each"
    );
    world.heartbeat(&wish("c", "range")).expect("joins");
    for id in ["a", "b", "c"] {
        let target = target(&world, id);
        assert_eq!(
            (target[&t].len(), target[&u].len()),
            (1, 1),
            "range: one of each topic"
        );
        assert_eq!(target[&t], target[&u]);
    }
}

#[test]
fn a_changed_wish_for_an_assignor_assigns_anew() {
    let mut world = World::new();
    let t = world.topics.create("t", 1);
    let u = world.topics.create("u", 1);
    for id in ["a", "b", "c"] {
        world.heartbeat(&join(id, &["t", "u"])).expect("joins");
    }
    world.pass(1_000);
    let epoch = world.group.epoch();
    let wish = |world: &mut World, id: &str, assignor: &str| {
        let mut request = beat(id, world.member(id).current.epoch, None);
        request.server_assignor = Some(Str::from(assignor));
        world.heartbeat(&request).expect("stays");
    };
    // Range gives the first partition of every topic to the same member, and uniform to different ones.
    let is_range = |world: &World| {
        ["a", "b", "c"].iter().any(|id| {
            let target = world.group.target(id).cloned().unwrap_or_default();
            target.contains_key(&t) && target.contains_key(&u)
        })
    };
    assert!(!is_range(&world), "uniform is configured first");

    // The vote of one decides when nobody else has voted.
    wish(&mut world, "a", "range");
    assert_eq!(world.group.epoch(), epoch + 1);
    assert!(is_range(&world));
    // The same wish again, and one more for what is in force, change nothing.
    wish(&mut world, "a", "range");
    wish(&mut world, "b", "range");
    assert_eq!(world.group.epoch(), epoch + 1);
    // A vote that loses changes nothing either, and is remembered.
    wish(&mut world, "c", "uniform");
    assert_eq!(world.group.epoch(), epoch + 1);
    world.reload(false);
    world.pass(1_000);
    wish(&mut world, "b", "uniform");
    assert_eq!(world.group.epoch(), epoch + 2);
    assert!(!is_range(&world), "two wish for uniform now");
    // Soon after an assignment the next one waits, and whoever comes then makes it.
    world.config.consumer_assignment_interval_ms = 1_000;
    wish(&mut world, "b", "range");
    assert_eq!(world.group.epoch(), epoch + 3);
    assert!(!is_range(&world));
    world.pass(1_000);
    let request = beat("c", world.member("c").current.epoch, None);
    world.heartbeat(&request).expect("stays");
    assert!(is_range(&world));
}

#[test]
fn commits_with_an_epoch_of_before() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    let allowed = |world: &World, member: &str, epoch: i32| {
        world
            .group
            .validate_commit(member, None, epoch, false, 9)
            .map(|_| ())
            .map_err(|e| e.code)
    };
    assert_eq!(allowed(&world, "", -1), Ok(()), "nobody is in the group");
    assert_eq!(allowed(&world, "a", 1), Err(ErrorCode::UnknownMemberId));
    alone(&mut world, t, 2);
    assert_eq!(allowed(&world, "", -1), Err(ErrorCode::UnknownMemberId));
    assert_eq!(allowed(&world, "a", 1), Ok(()));
    assert_eq!(allowed(&world, "a", 2), Err(ErrorCode::StaleMemberEpoch));
    let old = world
        .group
        .validate_commit("a", None, 1, false, 8)
        .map(|_| ())
        .map_err(|e| e.code);
    assert_eq!(old, Err(ErrorCode::UnsupportedVersion));
    world
        .group
        .validate_commit("", None, -1, true, 3)
        .expect("a transaction without group metadata");

    world.topics.create("t", 3);
    world.heartbeat(&beat("a", 1, None)).expect("epoch 2");
    let fence = world
        .group
        .validate_commit("a", None, 1, false, 9)
        .expect("looks at each partition");
    fence.check(t, 0).expect("it had it at epoch 1");
    assert_eq!(
        fence.check(t, 2).map_err(|e| e.code),
        Err(ErrorCode::StaleMemberEpoch)
    );
    assert_eq!(
        fence.check(t, 7).map_err(|e| e.code),
        Err(ErrorCode::StaleMemberEpoch)
    );
    world.heartbeat(&join("b", &["t"])).expect("joins");
    world
        .heartbeat(&beat("a", 2, None))
        .expect("is told to give one up");
    let fence = world
        .group
        .validate_commit("a", None, 1, false, 9)
        .expect("looks at each partition");
    fence.check(t, 1).expect("what it is to give up it may commit");

    world.group.validate_fetch(None, -1).expect("anybody");
    world.group.validate_fetch(Some("a"), 2).expect("its epoch");
    let stale = world.group.validate_fetch(Some("a"), 1).map_err(|e| e.code);
    assert_eq!(stale, Err(ErrorCode::StaleMemberEpoch));
    let unknown = world.group.validate_fetch(Some("x"), 1).map_err(|e| e.code);
    assert_eq!(unknown, Err(ErrorCode::UnknownMemberId));
}

#[test]
fn a_group_has_timeouts_of_its_own() {
    let mut world = World::new();
    let t = world.topics.create("t", 1);
    world.overrides = GroupOverrides {
        session_timeout_ms: Some(50_000),
        heartbeat_interval_ms: Some(7_000),
        assignment_interval_ms: Some(0),
    };
    let response = world.heartbeat(&join("a", &["t"])).expect("joins");
    assert_eq!(response.heartbeat_interval_ms, 7_000);
    assert_eq!(assigned(&response), Some(set(t, 0..1)));
    world.pass(49_999);
    assert_eq!(world.group.len(), 1);
    world.pass(1);
    assert_eq!(world.group.len(), 0);
}

#[test]
fn timers_start_again_where_the_group_is_loaded() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    alone(&mut world, t, 2);
    world.heartbeat(&join("b", &["t"])).expect("joins");
    world.heartbeat(&beat("a", 1, None)).expect("is told");
    world.pass(20_000);
    world.reload(true);
    let a = Str::from("a");
    assert_eq!(
        world.group.deadline(TimerKind::Session, &a),
        Some(world.now.mono_ms + 45_000)
    );
    assert_eq!(
        world.group.deadline(TimerKind::Rebalance, &a),
        Some(world.now.mono_ms + 30_000)
    );
    world.pass(30_000);
    assert!(world.group.member("a").is_none());
}

#[test]
fn the_group_describes_itself() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    let mut request = is_static(join("a", &["t"]), "i");
    request.rack_id = Some(Str::from("r"));
    world.heartbeat(&request).expect("joins");
    world.heartbeat(&join("b", &["t"])).expect("joins");
    world
        .heartbeat(&is_static(beat("a", 1, None), "i"))
        .expect("is told");
    let mut described = None;
    world
        .call(|group, ctx, _| {
            described = Some(group.describe(ctx));
            Ok(ConsumerGroup::done((), Vec::new()))
        })
        .expect("no error");
    let described = described.expect("called");
    assert_eq!(described.group_state, "Reconciling");
    assert_eq!((described.group_epoch, described.assignment_epoch), (2, 2));
    assert_eq!(described.assignor_name, "uniform");
    let [a, b] = &described.members[..] else {
        panic!("two members")
    };
    assert_eq!((a.member_id.as_str(), a.member_epoch, a.member_type), ("a", 1, 1));
    assert_eq!(
        (a.instance_id.as_deref(), a.rack_id.as_deref()),
        (Some("i"), Some("r"))
    );
    assert_eq!(
        (a.client_id.as_str(), a.client_host.as_str()),
        ("client", "/127.0.0.1")
    );
    assert_eq!(a.subscribed_topic_names, ["t"]);
    assert_eq!(a.assignment.topic_partitions[0].topic_name, "t");
    assert_eq!(
        a.assignment.topic_partitions[0].partitions,
        [0, 1],
        "with what it has to give up"
    );
    assert_eq!(a.target_assignment.topic_partitions[0].partitions.len(), 1);
    assert!(b.assignment.topic_partitions.is_empty());
    assert_eq!(b.target_assignment.topic_partitions[0].topic_id, t);
}

#[test]
fn a_member_in_a_state_of_the_future_starts_over() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    alone(&mut world, t, 2);
    let current = Current {
        state: MemberState::Unknown,
        ..world.member("a").current.clone()
    };
    for group in [&mut world.group, &mut world.mirror] {
        group.replay(Change::Current(Str::from("a"), Some(current.clone())));
    }
    assert_eq!(
        code(world.heartbeat(&beat("a", 1, None))),
        ErrorCode::FencedMemberEpoch
    );
    assert_eq!(
        code(world.heartbeat(&beat("a", 1, Some(&set(t, 0..1))))),
        ErrorCode::FencedMemberEpoch
    );
    let response = world
        .heartbeat(&join("a", &["t"]))
        .expect("joins again with nothing");
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (1, Some(set(t, 0..2)))
    );
    assert_eq!(world.member("a").current.state, MemberState::Stable);
}

#[test]
fn who_has_given_up_in_time_is_not_fenced_for_what_it_waits_for() {
    let mut world = World::new();
    let t = world.topics.create("t", 2);
    world.topics.create("u", 2);
    alone(&mut world, t, 2);
    world.overrides.assignment_interval_ms = Some(1_000_000);
    world.overrides.session_timeout_ms = Some(1_000_000);
    let mut request = beat("a", 1, Some(&set(t, 0..2)));
    request.subscribed_topic_names = Some(vec![Str::from("u")]);
    world.heartbeat(&request).expect("is told to give up");
    assert!(
        world
            .group
            .deadline(TimerKind::Rebalance, &Str::from("a"))
            .is_some()
    );
    world
        .heartbeat(&beat("a", 1, Some(&Set::new())))
        .expect("has given up");
    world.pass(40_000);
    world.heartbeat(&beat("a", 1, None)).expect("is still there");
    assert_eq!(world.group.deadline(TimerKind::Rebalance, &Str::from("a")), None);
}
