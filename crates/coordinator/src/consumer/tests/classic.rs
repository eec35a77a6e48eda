//! Members of the classic protocol in a consumer group: online upgrade and downgrade.

use bytes::Bytes;
use drumlin_wire::messages::consumer_protocol_subscription::{ConsumerProtocolSubscription, TopicPartition};
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use drumlin_wire::messages::join_group_response::JoinGroupResponse;
use drumlin_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use drumlin_wire::messages::leave_group_response::LeaveGroupResponse;
use drumlin_wire::messages::sync_group_request::SyncGroupRequest;
use drumlin_wire::{Message, Writer};

use super::*;
use crate::MigrationPolicy;

/// A subscription as a consumer puts it into JoinGroup.
pub fn subscription(world: &World, topics: &[&str], owned: &Set) -> Bytes {
    let mut partitions: BTreeMap<Str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in owned {
        if let Some(view) = world.topics.by_id(*topic) {
            partitions.entry(view.name).or_default().push(*partition);
        }
    }
    let owned = partitions
        .into_iter()
        .map(|(topic, partitions)| TopicPartition { topic, partitions });
    let message = ConsumerProtocolSubscription {
        topics: topics.iter().map(|topic| Str::from(*topic)).collect(),
        owned_partitions: owned.collect(),
        ..ConsumerProtocolSubscription::default()
    };
    let mut writer = Writer::contiguous();
    writer.i16(3);
    message.encode(3, &mut writer).expect("a subscription");
    writer.into_bytes()
}

pub fn classic_join(id: &str, metadata: &Bytes) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: Str::from("g"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: Str::from(id),
        protocol_type: Str::from("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from("range"),
            metadata: metadata.clone(),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    }
}

impl World {
    pub fn classic_join(
        &mut self,
        request: &JoinGroupRequest,
        version: i16,
    ) -> Result<Outcome<JoinGroupResponse>, GroupError> {
        self.caller.api_version = version;
        let result = self.call(|group, ctx, caller| group.classic_join(ctx, caller, request));
        self.caller.api_version = 1;
        result
    }

    /// What SyncGroup gives.
    pub fn classic_sync(&mut self, id: &str, generation: i32) -> Result<Set, GroupError> {
        let request = SyncGroupRequest {
            group_id: Str::from("g"),
            generation_id: generation,
            member_id: Str::from(id),
            protocol_type: Some(Str::from("consumer")),
            protocol_name: Some(Str::from("range")),
            ..SyncGroupRequest::default()
        };
        let outcome = self.call(|group, ctx, _| group.classic_sync(ctx, &request))?;
        let (target, custom) =
            read_assignment(&outcome.response.assignment, &self.topics).expect("an assignment");
        assert!(!custom);
        Ok(target
            .into_iter()
            .flat_map(|(t, partitions)| partitions.into_iter().map(move |p| (t, p)))
            .collect())
    }

    pub fn classic_heartbeat(&mut self, id: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: Str::from("g"),
            generation_id: generation,
            member_id: Str::from(id),
            ..HeartbeatRequest::default()
        };
        match self.call(|group, ctx, _| group.classic_heartbeat(ctx, &request)) {
            Err(error) => error.code,
            Ok(outcome) if outcome.response.error_code == 0 => ErrorCode::None,
            Ok(outcome) => {
                assert_eq!(outcome.response.error_code, ErrorCode::RebalanceInProgress.code());
                ErrorCode::RebalanceInProgress
            }
        }
    }

    pub fn classic_leave(&mut self, members: &[(&str, Option<&str>)]) -> Outcome<LeaveGroupResponse> {
        let identity = |(id, instance): &(&str, Option<&str>)| MemberIdentity {
            member_id: Str::from(*id),
            group_instance_id: instance.map(Str::from),
            ..MemberIdentity::default()
        };
        let request = LeaveGroupRequest {
            group_id: Str::from("g"),
            members: members.iter().map(identity).collect(),
            ..LeaveGroupRequest::default()
        };
        self.call(|group, ctx, _| Ok(group.classic_leave(ctx, &request)))
            .expect("no error")
    }
}

fn code<T>(result: Result<T, GroupError>) -> ErrorCode {
    result.err().map_or(ErrorCode::None, |error| error.code)
}

/// A classic group of two, in generation 5, that becomes a consumer group.
fn upgraded(world: &mut World) -> Uuid {
    let t = world.topics.create("t", 4);
    let metadata = subscription(world, &["t"], &Set::new());
    let source = |id: &str, partitions: Vec<i32>| ClassicSource {
        member_id: Str::from(id),
        client_id: Str::from("client"),
        client_host: Str::from("/127.0.0.1"),
        rebalance_timeout_ms: 20_000,
        session_timeout_ms: 10_000,
        protocols: vec![(Str::from("range"), metadata.clone())],
        subscription: metadata.clone(),
        assignment: write_assignment(&[(t, partitions)].into(), 3, &world.topics),
        ..ClassicSource::default()
    };
    let sources = [source("c1", vec![0, 1]), source("c2", vec![2, 3])];
    world
        .call(|group, ctx, _| {
            let (made, records) = ConsumerGroup::from_classic(ctx, &Str::from("g"), 5, &sources)?;
            *group = made;
            Ok(ConsumerGroup::done((), records))
        })
        .expect("upgrades");
    t
}

#[test]
fn a_classic_group_becomes_a_consumer_group_while_it_runs() {
    let mut world = World::new();
    let t = upgraded(&mut world);
    assert_eq!(
        (world.group.epoch(), world.group.state()),
        (5, GroupState::Stable)
    );
    // Those who do not know yet go on as they were.
    assert_eq!(world.classic_heartbeat("c1", 5), ErrorCode::None);
    assert_eq!(world.classic_sync("c2", 5).expect("its assignment"), set(t, 2..4));

    // The first member of the new protocol comes: the others are told to join again.
    let response = world.heartbeat(&join("n", &["t"])).expect("joins");
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (6, Some(Set::new()))
    );
    assert_eq!(world.classic_heartbeat("c1", 5), ErrorCode::RebalanceInProgress);
    assert_eq!(code(world.classic_sync("c1", 5)), ErrorCode::RebalanceInProgress);

    // A cooperative one says what it owns, is given less, gives up, and joins again.
    let owns = subscription(&world, &["t"], &set(t, 2..4));
    let joined = world
        .classic_join(&classic_join("c2", &owns), 9)
        .expect("joins")
        .response;
    assert_eq!(
        (joined.generation_id, joined.leader.as_str(), joined.members.len()),
        (5, "", 0)
    );
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    let keeps = world.classic_sync("c2", 5).expect("less");
    assert_eq!(keeps.len(), 1);
    assert_eq!(
        world.classic_heartbeat("c2", 5),
        ErrorCode::RebalanceInProgress,
        "until it has given up"
    );
    let owns = subscription(&world, &["t"], &keeps);
    let joined = world
        .classic_join(&classic_join("c2", &owns), 9)
        .expect("joins")
        .response;
    assert_eq!(joined.generation_id, 6);
    assert_eq!(world.classic_sync("c2", 6).expect("the same"), keeps);
    assert_eq!(world.classic_heartbeat("c2", 6), ErrorCode::None);
    let response = world.heartbeat(&beat("n", 6, None)).expect("gets it");
    assert_eq!(assigned(&response).expect("changed"), &set(t, 2..4) - &keeps);

    // An eager one has given up everything before it joins.
    let owns = subscription(&world, &["t"], &Set::new());
    let joined = world
        .classic_join(&classic_join("c1", &owns), 9)
        .expect("joins")
        .response;
    assert_eq!(joined.generation_id, 6);
    assert_eq!(world.classic_sync("c1", 6).expect("its share"), set(t, 0..2));
    assert_eq!(world.classic_heartbeat("c1", 6), ErrorCode::None);
    assert_eq!(world.group.state(), GroupState::Stable);
}

#[test]
fn what_a_classic_member_is_refused() {
    let mut world = World::new();
    let t = upgraded(&mut world);
    let metadata = subscription(&world, &["t"], &Set::new());
    let asked = world
        .classic_join(&classic_join("", &metadata), 4)
        .expect("an id")
        .response;
    assert_eq!(asked.error_code, ErrorCode::MemberIdRequired.code());
    assert_eq!(world.group.len(), 2);
    let joined = world
        .classic_join(&classic_join(&asked.member_id, &metadata), 4)
        .expect("joins")
        .response;
    assert_eq!(joined.error_code, 0);
    let old = world
        .classic_join(&classic_join("", &metadata), 3)
        .expect("joins at once")
        .response;
    assert_eq!((old.error_code, world.group.len()), (0, 4));

    assert_eq!(world.classic_heartbeat("nobody", 5), ErrorCode::UnknownMemberId);
    assert_eq!(world.classic_heartbeat("c1", 4), ErrorCode::IllegalGeneration);
    assert_eq!(code(world.classic_sync("c1", 9)), ErrorCode::IllegalGeneration);
    world.heartbeat(&join("n", &["t"])).expect("joins");
    assert_eq!(
        world.classic_heartbeat("n", 8),
        ErrorCode::UnknownMemberId,
        "it speaks the other protocol"
    );

    let mut other = classic_join("x", &metadata);
    other.protocols[0].name = Str::from("mine");
    assert_eq!(
        code(world.classic_join(&other, 9)),
        ErrorCode::InconsistentGroupProtocol
    );
    other = classic_join("x", &metadata);
    other.protocol_type = Str::from("connect");
    assert_eq!(
        code(world.classic_join(&other, 9)),
        ErrorCode::InconsistentGroupProtocol
    );
    let garbage = classic_join("x", &Bytes::from_static(&[0]));
    assert_eq!(
        code(world.classic_join(&garbage, 9)),
        ErrorCode::UnknownServerError
    );
    let mut long = classic_join("x", &metadata);
    long.protocols[0].metadata = [&metadata[..], &[0; 1_000_000]].concat().into();
    assert_eq!(code(world.classic_join(&long, 9)), ErrorCode::UnknownServerError);
    let owns = subscription(&world, &["t"], &set(t, 0..1));
    assert_eq!(
        code(world.classic_join(&classic_join("x", &owns), 9)),
        ErrorCode::UnknownMemberId
    );
    let mut known = classic_join("x", &metadata);
    known.group_instance_id = Some(Str::from("i"));
    assert_eq!(code(world.classic_join(&known, 9)), ErrorCode::UnknownMemberId);
    world.config.consumer_max_size = 5;
    assert_eq!(
        code(world.classic_join(&classic_join("x", &metadata), 9)),
        ErrorCode::GroupMaxSizeReached
    );
    world.config.consumer_migration_policy = MigrationPolicy::Disabled;
    assert_eq!(
        code(world.classic_join(&classic_join("c1", &metadata), 9)),
        ErrorCode::InconsistentGroupProtocol
    );

    // Its commits are refused with its protocol's error.
    let stale = world
        .group
        .validate_commit("c1", None, 9, false, 7)
        .map(|_| ())
        .map_err(|e| e.code);
    assert_eq!(stale, Err(ErrorCode::IllegalGeneration));
    world
        .group
        .validate_commit("c1", None, 5, false, 2)
        .expect("any version")
        .check(t, 0)
        .expect("its own");
}

#[test]
fn classic_members_that_are_late_are_fenced() {
    for late in ["session", "join", "sync"] {
        let mut world = World::new();
        upgraded(&mut world);
        world.config.consumer_migration_policy = MigrationPolicy::Upgrade;
        world.heartbeat(&join("n", &["t"])).expect("joins");
        let metadata = subscription(&world, &["t"], &Set::new());
        let alive = |world: &mut World, ms: u64| {
            for _ in 0..ms / 1_000 {
                world.pass(1_000);
                if world.group.member("c2").is_some() {
                    world.classic_heartbeat("c2", 5);
                }
                if late != "session" && world.group.member("c1").is_some() {
                    let generation = world.member("c1").current.epoch;
                    world.classic_heartbeat("c1", generation);
                }
            }
        };
        match late {
            "session" => {
                alive(&mut world, 9_000);
                assert!(world.group.member("c1").is_some());
                alive(&mut world, 1_000);
            }
            "join" => {
                assert_eq!(world.classic_heartbeat("c1", 5), ErrorCode::RebalanceInProgress);
                alive(&mut world, 19_000);
                assert!(world.group.member("c1").is_some());
                alive(&mut world, 1_000);
            }
            _ => {
                world
                    .classic_join(&classic_join("c1", &metadata), 9)
                    .expect("joins");
                alive(&mut world, 19_000);
                assert!(world.group.member("c1").is_some());
                alive(&mut world, 1_000);
            }
        }
        assert!(world.group.member("c1").is_none(), "{late}");
    }
}

#[test]
fn when_only_classic_members_remain_the_group_is_to_become_one_of_theirs() {
    let mut world = World::new();
    let t = upgraded(&mut world);
    world.heartbeat(&join("n", &["t"])).expect("joins");
    let request = beat("n", -1, None);
    let before = world.group.clone();
    let outcome = world
        .call(|group, ctx, caller| group.heartbeat(ctx, caller, &request))
        .expect("leaves");
    let downgrade = outcome.downgrade.expect("only classic members remain");
    assert_eq!(downgrade.leaving, ["n"]);
    assert!(downgrade.rebalance && outcome.records.is_empty() && before.same_state(&world.group));
    let members = world.group.downgraded(&downgrade);
    assert_eq!(
        members.iter().map(|m| m.member_id.as_str()).collect::<Vec<_>>(),
        ["c1", "c2"]
    );
    assert_eq!(members[0].classic.session_timeout_ms, 10_000);
    let bytes = write_assignment(&members[0].target, 3, &world.topics);
    let (target, _) = read_assignment(&bytes, &world.topics).expect("an assignment");
    assert_eq!(target.keys().collect::<Vec<_>>(), [&t]);

    // If it cannot be done, the member leaves all the same.
    world
        .call(|group, ctx, _| {
            let records = group.remove_members(ctx, &downgrade.leaving);
            Ok(ConsumerGroup::done((), records))
        })
        .expect("leaves");
    assert_eq!(world.group.len(), 2);

    // Nor is it done against the options.
    world.heartbeat(&join("n", &["t"])).expect("joins");
    world.config.max_size = 1;
    world
        .heartbeat(&request)
        .expect("leaves, and the group stays what it is");
    world.config.max_size = i32::MAX;
    world.heartbeat(&join("n", &["t"])).expect("joins");
    world.config.consumer_migration_policy = MigrationPolicy::Upgrade;
    world
        .heartbeat(&request)
        .expect("leaves, and the group stays what it is");
    // Nor while another member of the new protocol is there, nor when nobody remains.
    world.config.consumer_migration_policy = MigrationPolicy::Bidirectional;
    world.heartbeat(&join("n", &["t"])).expect("joins");
    let outcome = world.classic_leave(&[("c1", None), ("c1", None), ("x", None)]);
    let codes: Vec<i16> = outcome.response.members.iter().map(|m| m.error_code).collect();
    assert_eq!(codes, [0, 0, ErrorCode::UnknownMemberId.code()]);
    assert_eq!((outcome.downgrade, world.group.len()), (None, 2));
    let outcome = world.classic_leave(&[("c2", None), ("n", None)]);
    assert_eq!(
        (outcome.downgrade, world.group.state()),
        (None, GroupState::Empty)
    );
}

#[test]
fn a_session_that_is_over_downgrades_too() {
    let mut world = World::new();
    upgraded(&mut world);
    world.heartbeat(&join("n", &["t"])).expect("joins");
    for _ in 0..9 {
        world.pass(5_000 - 1);
        world.classic_heartbeat("c1", 5);
        world.classic_heartbeat("c2", 5);
        // They were told to join, and do.
        let metadata = subscription(&world, &["t"], &Set::new());
        for id in ["c1", "c2"] {
            let generation = world
                .classic_join(&classic_join(id, &metadata), 9)
                .expect("joins")
                .response
                .generation_id;
            world.classic_sync(id, generation).expect("syncs");
        }
    }
    world.now.mono_ms += 9;
    let outcome = world
        .call(|group, ctx, _| Ok(group.expire(ctx)))
        .expect("no error");
    assert_eq!(
        outcome.downgrade.expect("only classic members remain").leaving,
        ["n"]
    );
}

#[test]
fn a_static_member_may_change_its_protocol_both_ways() {
    let mut world = World::new();
    let t = world.topics.create("t", 4);
    let mut one = join("a", &["t"]);
    one.instance_id = Some(Str::from("i1"));
    world.heartbeat(&one).expect("joins");

    // To classic, while another of the new protocol is there: it takes over what it had.
    world.heartbeat(&join("b", &["t"])).expect("joins");
    let metadata = subscription(&world, &["t"], &Set::new());
    let mut request = classic_join("", &metadata);
    request.group_instance_id = Some(Str::from("i1"));
    let outcome = world.classic_join(&request, 9).expect("takes its place");
    assert_eq!(outcome.downgrade, None);
    let id = outcome.response.member_id.clone();
    assert!(world.group.member("a").is_none() && world.member(&id).is_classic());
    assert_eq!(outcome.response.generation_id, 2);

    // And back: the consumer protocol takes the place of a classic member without waiting.
    let mut back = join("a3", &["t"]);
    back.instance_id = Some(Str::from("i1"));
    world.heartbeat(&back).expect("takes its place");
    assert!(!world.member("a3").is_classic());
    assert_eq!(world.group.len(), 2);

    // The last of the new protocol changes: the group is to be a classic one.
    world.heartbeat(&beat("b", -1, None)).expect("leaves");
    world
        .heartbeat(&ConsumerGroupHeartbeatRequest {
            instance_id: Some(Str::from("i1")),
            ..beat("a3", 2, None)
        })
        .expect("gets all");
    let outcome = world.classic_join(&request, 9).expect("takes its place");
    let downgrade = outcome.downgrade.expect("only classic members");
    assert_eq!(downgrade.joining.as_ref(), Some(&outcome.response.member_id));
    assert!(!downgrade.rebalance, "its subscription is the same");
    let members = world.group.downgraded(&downgrade);
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].target, [(t, vec![0, 1, 2, 3])].into());
    assert_eq!(outcome.response.generation_id, world.group.epoch());
}

#[test]
fn what_two_classic_members_claim_has_one_owner() {
    let mut world = World::new();
    let t = world.topics.create("t", 3);
    let metadata = subscription(&world, &["t"], &Set::new());
    let source = |id: &str, partitions: Vec<i32>| ClassicSource {
        member_id: Str::from(id),
        subscription: metadata.clone(),
        assignment: write_assignment(&[(t, partitions)].into(), 3, &world.topics),
        ..ClassicSource::default()
    };
    let sources = [source("a", vec![0, 1]), source("b", vec![1, 2])];
    world
        .call(|group, ctx, _| {
            let (made, records) = ConsumerGroup::from_classic(ctx, &Str::from("g"), 5, &sources)?;
            *group = made;
            Ok(ConsumerGroup::done((), records))
        })
        .expect("upgrades");
    assert_eq!(world.group.target("b"), Some(&[(t, vec![2])].into()));
}

#[test]
fn groups_that_cannot_be_upgraded() {
    let mut world = World::new();
    world.topics.create("t", 1);
    let metadata = subscription(&world, &["t"], &Set::new());
    let good = ClassicSource {
        member_id: Str::from("c"),
        subscription: metadata,
        ..ClassicSource::default()
    };
    // An assignment with data of its own: version, no topics, four bytes.
    let custom = Bytes::from_static(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
    for broken in [
        ClassicSource {
            subscription: Bytes::new(),
            ..good.clone()
        },
        ClassicSource {
            assignment: Bytes::from_static(&[0, 3, 9]),
            ..good.clone()
        },
        ClassicSource {
            assignment: custom,
            ..good.clone()
        },
    ] {
        let refused = world.call(|_, ctx, _| {
            let made = ConsumerGroup::from_classic(ctx, &Str::from("g"), 1, &[broken])?;
            Ok(ConsumerGroup::done(made, Vec::new()))
        });
        assert_eq!(code(refused), ErrorCode::GroupIdNotFound);
    }
}
