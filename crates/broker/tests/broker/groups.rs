//! Consumer groups over real frames: what members and admin clients see, and what outlives the process.

use std::sync::Arc;
use std::time::Duration;

use drumlin_broker::Broker;
use drumlin_broker::config::BrokerConfig;
use drumlin_broker::error_code::ErrorCode;
use drumlin_objects::fault::{FaultStore, Faults, Latency};
use drumlin_objects::object_store::ObjectStoreExt;
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::{Bucket, BucketKind, Env};
use drumlin_wire::Str;
use drumlin_wire::messages as m;
use futures::TryStreamExt;

use crate::harness::*;

/// A member of a classic group.
#[derive(Clone, Debug)]
struct Member {
    group: Str,
    id: Str,
    generation: i32,
    leader: bool,
}

pub fn join(group: &str, member: &Str, session_ms: i32) -> m::join_group_request::JoinGroupRequest {
    use m::join_group_request::*;
    JoinGroupRequest {
        group_id: Str::from(group),
        session_timeout_ms: session_ms,
        rebalance_timeout_ms: session_ms,
        member_id: member.clone(),
        protocol_type: Str::from("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from("range"),
            metadata: vec![0; 10].into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

impl Member {
    /// Joins and syncs; the leader gives everybody what it is called.
    async fn join(client: &mut Client, group: &str, session_ms: i32) -> Member {
        let first = client.call(5, &join(group, &Str::default(), session_ms)).await;
        assert_eq!(first.error_code, ErrorCode::MemberIdRequired.code());
        Member::rejoin(client, group, &first.member_id, session_ms).await
    }

    async fn rejoin(client: &mut Client, group: &str, id: &Str, session_ms: i32) -> Member {
        let joined = client.call(5, &join(group, id, session_ms)).await;
        assert_eq!(joined.error_code, 0);
        let member = Member {
            group: Str::from(group),
            id: joined.member_id.clone(),
            generation: joined.generation_id,
            leader: joined.leader == joined.member_id,
        };
        let names: Vec<Str> = joined
            .members
            .iter()
            .map(|member| member.member_id.clone())
            .collect();
        let assignment = member.sync(client, &names).await;
        assert_eq!(assignment, (0, member.id.to_string()));
        member
    }

    async fn sync(&self, client: &mut Client, members: &[Str]) -> (i16, String) {
        use m::sync_group_request::*;
        let assignments = members.iter().map(|member| SyncGroupRequestAssignment {
            member_id: member.clone(),
            assignment: member.as_bytes().clone(),
            ..Default::default()
        });
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            assignments: if self.leader {
                assignments.collect()
            } else {
                Vec::new()
            },
            ..Default::default()
        };
        let answer = client.call(3, &request).await;
        (
            answer.error_code,
            String::from_utf8(answer.assignment.to_vec()).unwrap(),
        )
    }

    async fn heartbeat(&self, client: &mut Client) -> i16 {
        let request = m::heartbeat_request::HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..Default::default()
        };
        client.call(3, &request).await.error_code
    }

    fn commit(&self, offset: i64) -> m::offset_commit_request::OffsetCommitRequest {
        let mut request = commit_request(&self.group, &[(0, offset)]);
        request.generation_id_or_member_epoch = self.generation;
        request.member_id = self.id.clone();
        request
    }
}

/// Commits offsets of `t` for a group without members.
pub fn commit_request(group: &str, offsets: &[(i32, i64)]) -> m::offset_commit_request::OffsetCommitRequest {
    use m::offset_commit_request::*;
    let partitions = offsets
        .iter()
        .map(|(partition, offset)| OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *offset,
            committed_leader_epoch: -1,
            committed_metadata: None,
            ..Default::default()
        });
    OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("t"),
            partitions: partitions.collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub async fn commit(client: &mut Client, request: &m::offset_commit_request::OffsetCommitRequest) -> i16 {
    client.call(8, request).await.topics[0].partitions[0].error_code
}

/// The committed offset of `t-0`, or the error of the whole.
pub async fn committed(client: &mut Client, group: &str) -> Result<i64, i16> {
    use m::offset_fetch_request::*;
    let request = OffsetFetchRequest {
        group_id: Str::from(group),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: Str::from("t"),
            partition_indexes: vec![0],
            ..Default::default()
        }]),
        ..Default::default()
    };
    let answer = client.call(7, &request).await;
    match answer.error_code {
        0 => Ok(answer.topics[0].partitions[0].committed_offset),
        code => Err(code),
    }
}

/// The same, once the coordinator has loaded.
pub async fn loaded(client: &mut Client, group: &str) -> i64 {
    let began = tokio::time::Instant::now();
    loop {
        match committed(client, group).await {
            Ok(offset) => return offset,
            Err(code) => assert_eq!(code, ErrorCode::CoordinatorLoadInProgress.code()),
        }
        assert!(
            began.elapsed() < Duration::from_secs(100),
            "the coordinator never loads"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn groups(client: &mut Client) -> Vec<(String, String)> {
    let request = m::list_groups_request::ListGroupsRequest::default();
    let answer = client.call(5, &request).await;
    assert_eq!(answer.error_code, 0);
    let mut all: Vec<_> = answer
        .groups
        .iter()
        .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
        .collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn a_group_shares_and_loses_members() {
    let test = Test::new(&[("group.initial.rebalance.delay.ms", "100")]).await;
    let (mut a, mut b) = (test.connect(), test.connect());
    a.create("t", 2, &[]).await;
    let first = Member::join(&mut a, "g", 10_000).await;
    assert!(first.leader && first.generation == 1);
    assert_eq!(first.heartbeat(&mut a).await, 0);
    // A second one joins: the first hears of it and joins again.
    let id = b.call(5, &join("g", &Str::default(), 10_000)).await.member_id;
    let waits = b.send(5, &join("g", &id, 10_000)).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(
        first.heartbeat(&mut a).await,
        ErrorCode::RebalanceInProgress.code()
    );
    let again = a.call(5, &join("g", &first.id, 10_000)).await;
    let joined: m::join_group_response::JoinGroupResponse = b
        .receive::<m::join_group_request::JoinGroupRequest>(5, waits)
        .await;
    assert_eq!((again.error_code, joined.error_code), (0, 0));
    assert_eq!(
        (again.generation_id, again.members.len(), joined.members.len()),
        (2, 2, 0)
    );
    let member = |client: &m::join_group_response::JoinGroupResponse| Member {
        group: Str::from("g"),
        id: client.member_id.clone(),
        generation: client.generation_id,
        leader: client.leader == client.member_id,
    };
    let (first, second) = (member(&again), member(&joined));
    let names = [first.id.clone(), second.id.clone()];
    let (one, two) = tokio::join!(first.sync(&mut a, &names), second.sync(&mut b, &[]));
    assert_eq!(
        (one, two),
        ((0, first.id.to_string()), (0, second.id.to_string()))
    );
    assert_eq!(commit(&mut b, &second.commit(7)).await, 0);
    assert_eq!(committed(&mut a, "g").await, Ok(7));
    // A commit of another generation is refused.
    let stale = Member {
        generation: 1,
        ..first.clone()
    };
    assert_eq!(
        commit(&mut a, &stale.commit(8)).await,
        ErrorCode::IllegalGeneration.code()
    );
    // The second one vanishes: after its session the first has the group for itself.
    drop(b);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let code = first.heartbeat(&mut a).await;
        assert!(
            code == 0 || code == ErrorCode::RebalanceInProgress.code(),
            "{code}"
        );
    }
    let alone = Member::rejoin(&mut a, "g", &first.id, 10_000).await;
    assert!(alone.leader && alone.generation == 3);
    assert_eq!(groups(&mut a).await, [("g".to_owned(), "Stable".to_owned())]);
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn groups_and_offsets_outlive_the_process() {
    let mut store = None;
    let mut member: Option<Member> = None;
    for life in 0..6 {
        let options = [("group.initial.rebalance.delay.ms", "0")];
        let test = match store.take() {
            Some(store) => Test::on(store, &options).await,
            None => Test::new(&options).await,
        };
        let mut client = test.connect();
        let mut other = test.connect();
        match &member {
            None => {
                client.create("t", 2, &[]).await;
                member = Some(Member::join(&mut client, "g", 30_000).await);
            }
            Some(member) => {
                assert_eq!(loaded(&mut client, "g").await, life - 1);
                assert_eq!(loaded(&mut other, "alone").await, 100 + life - 1);
                assert_eq!(member.heartbeat(&mut client).await, 0, "life {life}");
            }
        }
        let known = member.as_ref().unwrap();
        assert_eq!(commit(&mut client, &known.commit(life)).await, 0);
        let request = commit_request("alone", &[(0, 100 + life)]);
        assert_eq!(commit(&mut other, &request).await, 0);
        if life % 2 == 0 {
            assert!(test.broker.shutdown().await);
        }
        store = Some(test.kill());
    }
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_offset_is_answered_only_when_it_is_durable() {
    let store = Arc::new(InMemory::new());
    let mut slow = Faults::none();
    slow.latency = Latency::Uniform(Duration::from_millis(50)..Duration::from_millis(51));
    let env = Env::simulated(7, NOW_MS);
    let faulty = Arc::new(FaultStore::with_faults(store.clone(), 7, slow));
    let bucket = Bucket::from_store(faulty, BucketKind::Memory, &env);
    let config = BrokerConfig::from_pairs([("store.url", "memory:")]).unwrap();
    let broker = Broker::start(&env, config, bucket).await.unwrap();
    let test = Test { env, store, broker };
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    assert_eq!(commit(&mut client, &commit_request("g", &[(0, 1)])).await, 0);
    // Killed while the batch is on its way into the store.
    client.send(8, &commit_request("g", &[(0, 2)])).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let store = test.kill();
    assert!(
        client.frame().await.is_none(),
        "an answer to what may not be durable"
    );
    let test = Test::on(store, &[]).await;
    let kept = loaded(&mut test.connect(), "g").await;
    assert!((1..=2).contains(&kept), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn the_topic_is_internal() {
    let test = Test::new(&[("num.partitions", "3")]).await;
    let mut client = test.connect();
    let metadata = |names: &[&str]| m::metadata_request::MetadataRequest {
        topics: Some(
            names
                .iter()
                .map(|name| m::metadata_request::MetadataRequestTopic {
                    name: Some(Str::from(*name)),
                    ..Default::default()
                })
                .collect(),
        ),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    // To ask for its metadata does not create it.
    let asked = ["__consumer_offsets", "__transaction_state", "plain"];
    let answer = client.call(9, &metadata(&asked)).await;
    let told: Vec<_> = answer
        .topics
        .iter()
        .map(|t| (t.error_code, t.partitions.len()))
        .collect();
    assert_eq!(told, [(3, 0), (3, 0), (0, 3)]);
    let find = m::find_coordinator_request::FindCoordinatorRequest {
        key: Str::from("g"),
        ..Default::default()
    };
    assert_eq!(client.call(3, &find).await.error_code, 0);
    let answer = client.call(9, &metadata(&asked[..1])).await;
    let topic = &answer.topics[0];
    assert_eq!(
        (topic.error_code, topic.partitions.len(), topic.is_internal),
        (0, 50, true)
    );
    let (error, _) = client.produce("__consumer_offsets", 0, batch(&["x"])).await;
    assert_eq!(error, ErrorCode::InvalidTopic.code());
    use m::create_partitions_request::*;
    let grow = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: Str::from("__consumer_offsets"),
            count: 60,
            assignments: None,
            ..Default::default()
        }],
        timeout_ms: 1_000,
        ..Default::default()
    };
    assert_ne!(client.call(3, &grow).await.results[0].error_code, 0);
    // Transactions and share groups: final errors, with words.
    for (key_type, code) in [(1, 53), (2, 42)] {
        let request = m::find_coordinator_request::FindCoordinatorRequest {
            key_type,
            coordinator_keys: vec![Str::from("k")],
            ..Default::default()
        };
        let answer = client.call(6, &request).await;
        assert_eq!(answer.coordinators[0].error_code, code);
        assert!(answer.coordinators[0].error_message.is_some());
    }
}

/// Keys below a prefix.
pub async fn keys(test: &Test, part: &str) -> Vec<String> {
    use drumlin_objects::object_store::ObjectStore;
    let listed: Vec<_> = test.store.list(None).try_collect().await.unwrap();
    let all = listed.into_iter().map(|object| object.location.to_string());
    let mut found: Vec<String> = all.filter(|key| key.contains(part)).collect();
    found.sort();
    found
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_saves_replay_and_a_damaged_one_is_passed_over() {
    let options = [("offsets.topic.num.partitions", "1")];
    let test = Test::new(&options).await;
    let mut client = test.connect();
    client.create("t", 500, &[]).await;
    for round in 0..30 {
        let offsets: Vec<(i32, i64)> = (0..500).map(|partition| (partition, round * 1_000)).collect();
        assert_eq!(commit(&mut client, &commit_request("g", &offsets)).await, 0);
    }
    assert!(test.broker.shutdown().await);
    let snapshots = keys(&test, "/snapshot/").await;
    assert!(!snapshots.is_empty() && snapshots.len() <= 2, "{snapshots:?}");
    let test = Test::on(test.kill(), &options).await;
    let mut client = test.connect();
    assert_eq!(loaded(&mut client, "g").await, 29_000);
    let report = test.broker.shared().groups.report(1_000).await;
    assert_eq!((report.loads, report.restored, report.offsets.len()), (1, 1, 500));
    assert!(report.replayed < 1_000, "{} were replayed", report.replayed);
    assert_eq!(commit(&mut client, &commit_request("g", &[(0, 7)])).await, 0);
    let store = test.kill();
    // Every snapshot is damaged: everything is replayed, to the same end.
    for key in snapshots {
        let path = drumlin_objects::object_store::path::Path::from(key);
        let mut bytes = store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        let at = bytes.len() / 2;
        bytes[at] ^= 0x55;
        store.put(&path, bytes.into()).await.unwrap();
    }
    let test = Test::on(store, &options).await;
    let mut client = test.connect();
    assert_eq!(loaded(&mut client, "g").await, 7);
    let report = test.broker.shared().groups.report(1_000).await;
    assert_eq!((report.restored, report.offsets.len()), (0, 500));
    assert!(report.replayed >= 15_000);
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_loading_coordinator_says_so() {
    let options = [("offsets.topic.num.partitions", "1")];
    let test = Test::new(&options).await;
    let mut client = test.connect();
    client.create("t", 100, &[]).await;
    for round in 0..20 {
        let offsets: Vec<(i32, i64)> = (0..100).map(|partition| (partition, round)).collect();
        assert_eq!(commit(&mut client, &commit_request("g", &offsets)).await, 0);
    }
    let options = [
        ("offsets.topic.num.partitions", "1"),
        ("offsets.load.buffer.size", "1"),
    ];
    let test = Test::on(test.kill(), &options).await;
    let mut client = test.connect();
    let loading = ErrorCode::CoordinatorLoadInProgress.code();
    assert_eq!(committed(&mut client, "g").await, Err(loading));
    assert_eq!(
        commit(&mut client, &commit_request("g", &[(0, 1)])).await,
        loading
    );
    assert_eq!(
        client
            .call(5, &join("g", &Str::default(), 10_000))
            .await
            .error_code,
        loading
    );
    let request = m::list_groups_request::ListGroupsRequest::default();
    assert_eq!(client.call(5, &request).await.error_code, loading);
    assert_eq!(loaded(&mut client, "g").await, 19);
}

#[tokio::test(start_paused = true)]
async fn offsets_go_with_their_topic() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    assert_eq!(
        commit(&mut client, &commit_request("g", &[(0, 5), (1, 6)])).await,
        0
    );
    let answer = client.call(8, &commit_request("g", &[(0, 5), (1, 6)])).await;
    let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
    use m::delete_topics_request::*;
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(Str::from("t")),
            ..Default::default()
        }],
        timeout_ms: 1_000,
        ..Default::default()
    };
    assert_eq!(client.call(6, &request).await.responses[0].error_code, 0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.create("t", 1, &[]).await;
    assert_eq!(committed(&mut client, "g").await, Ok(-1));
}

#[tokio::test(start_paused = true)]
async fn members_that_vanish_leave_nothing() {
    let test = Test::new(&[("group.initial.rebalance.delay.ms", "0")]).await;
    test.connect().create("t", 1, &[]).await;
    for round in 0..200 {
        let mut client = test.connect();
        let first = client.call(5, &join("g", &Str::default(), 6_000)).await;
        match round % 3 {
            // Never comes back with its id, comes back and does not wait, or stays until it is dead.
            0 => {}
            1 => {
                client.send(5, &join("g", &first.member_id, 6_000)).await;
            }
            _ => {
                client.send(5, &join("g", &first.member_id, 6_000)).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(400)).await;
    let report = test.broker.shared().groups.report(10).await;
    assert_eq!(report.figures.members, 0);
    let mut client = test.connect();
    assert_eq!(groups(&mut client).await, [("g".to_owned(), "Empty".to_owned())]);
    // And somebody who means it is served as ever.
    let member = Member::join(&mut client, "g", 10_000).await;
    assert_eq!(member.heartbeat(&mut client).await, 0);
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_has_options_of_its_own() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    use m::incremental_alter_configs_request::{
        AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
    };
    let set = |group: &str, name: &str, value: &str| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 32,
            resource_name: Str::from(group),
            configs: vec![AlterableConfig {
                name: Str::from(name),
                value: Some(Str::from(value)),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    for (group, name, value, code) in [
        ("g", "consumer.session.timeout.ms", "50000", 0),
        ("g", "consumer.session.timeout.ms", "5", 40),
        ("g", "consumer.heartbeat.interval.ms", "60000", 40),
        ("g", "no.such.option", "1", 40),
        ("", "consumer.session.timeout.ms", "50000", 42),
    ] {
        let answer = client.call(1, &set(group, name, value)).await;
        assert_eq!(
            answer.responses[0].error_code, code,
            "{name}={value} of {group:?}"
        );
    }
    let describe = m::describe_configs_request::DescribeConfigsRequest {
        resources: vec![m::describe_configs_request::DescribeConfigsResource {
            resource_type: 32,
            resource_name: Str::from("g"),
            configuration_keys: None,
            ..Default::default()
        }],
        include_synonyms: true,
        ..Default::default()
    };
    let answer = client.call(4, &describe).await;
    let configs = &answer.results[0].configs;
    let of = |name: &str| configs.iter().find(|config| config.name == *name).unwrap();
    let session = of("consumer.session.timeout.ms");
    assert_eq!(
        (session.value.as_deref(), session.config_source),
        (Some("50000"), 8)
    );
    assert_eq!(of("consumer.heartbeat.interval.ms").config_source, 5);
    let request = m::list_config_resources_request::ListConfigResourcesRequest {
        resource_types: vec![32],
        ..Default::default()
    };
    let answer = client.call(1, &request).await;
    let names: Vec<&str> = answer
        .config_resources
        .iter()
        .map(|r| r.resource_name.as_str())
        .collect();
    assert_eq!(names, ["g"]);
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(start_paused = true)]
async fn a_thousand_groups_of_five_members_fit() {
    use drumlin_coordinator::{Caller, GroupRequest, GroupResponse};
    const GROUPS: usize = 1_000;
    const MEMBERS: usize = 5;
    let test = Test::new(&[("group.initial.rebalance.delay.ms", "50")]).await;
    let mut client = test.connect();
    client.create("t", 16, &[]).await;
    // The topic, and what the first group of all costs.
    assert_eq!(commit(&mut client, &commit_request("first", &[(0, 1)])).await, 0);
    let shared = test.broker.shared().clone();
    let before = resident();
    let ask = |group: usize, member: usize| {
        let shared = shared.clone();
        async move {
            let caller = Caller {
                client_id: Str::from(format!("client-{member}")),
                client_host: Str::from("/127.0.0.1"),
                api_version: 3,
            };
            let group = format!("group-{group:05}");
            let mut request = join(&group, &Str::default(), 60_000);
            request.protocols[0].metadata = vec![7; 120].into();
            let request = GroupRequest::JoinGroup(request);
            let answer = shared.groups.send(caller.clone(), request).await.answer().await;
            let GroupResponse::JoinGroup(joined) = answer else {
                unreachable!("another answer")
            };
            assert_eq!(joined.error_code, 0);
            use m::sync_group_request::*;
            let assignments = joined.members.iter().map(|member| SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: vec![9; 120].into(),
                ..Default::default()
            });
            let request = SyncGroupRequest {
                group_id: Str::from(group),
                generation_id: joined.generation_id,
                member_id: joined.member_id.clone(),
                assignments: assignments.collect(),
                ..Default::default()
            };
            let request = GroupRequest::SyncGroup(request);
            let answer = shared.groups.send(caller, request).await.answer().await;
            let GroupResponse::SyncGroup(synced) = answer else {
                unreachable!("another answer")
            };
            assert_eq!((synced.error_code, synced.assignment.len()), (0, 120));
        }
    };
    let all = (0..GROUPS).flat_map(|group| (0..MEMBERS).map(move |member| (group, member)));
    futures::future::join_all(all.map(|(group, member)| ask(group, member))).await;
    let grown = resident().saturating_sub(before);
    let report = test.broker.shared().groups.report(10).await;
    assert_eq!(report.figures.members as usize, GROUPS * MEMBERS);
    assert_eq!(report.figures.classic_stable as usize, GROUPS);
    println!(
        "{GROUPS} groups, {} members: {:.1} MB more, {} records in {} batches",
        GROUPS * MEMBERS,
        grown as f64 / 1e6,
        report.records,
        report.batches
    );
    assert!(grown < 200_000_000, "{grown} bytes");
    // They are all there after a start.
    let store = test.kill();
    let test = Test::on(store, &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = test.broker.shared().groups.report(10).await;
    assert_eq!(
        (report.loading, report.figures.members as usize),
        (0, GROUPS * MEMBERS)
    );
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_told_of_and_loses_no_member() {
    let store = Arc::new(InMemory::new());
    let faulty = Arc::new(FaultStore::with_faults(store.clone(), 7, Faults::none()));
    let env = Env::simulated(7, NOW_MS);
    let bucket = Bucket::from_store(faulty.clone(), BucketKind::Memory, &env);
    let options = [
        ("store.url", "memory:"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("wal.unflushed.max.bytes", "1048576"),
        ("wal.flush.bytes", "65536"),
    ];
    let config = BrokerConfig::from_pairs(options).unwrap();
    let broker = Broker::start(&env, config, bucket).await.unwrap();
    let test = Test { env, store, broker };
    let (mut member_client, mut client) = (test.connect(), test.connect());
    client.create("t", 1, &[]).await;
    let member = Member::join(&mut member_client, "g", 30_000).await;
    assert_eq!(commit(&mut client, &commit_request("alone", &[(0, 1)])).await, 0);
    let mut away = Faults::none();
    away.latency = Latency::Uniform(Duration::from_secs(40)..Duration::from_secs(41));
    faulty.set(away);
    let not_available = ErrorCode::CoordinatorNotAvailable.code();
    let began = tokio::time::Instant::now();
    assert_eq!(
        commit(&mut client, &commit_request("alone", &[(0, 2)])).await,
        not_available
    );
    let waited = began.elapsed();
    assert!((4..8).contains(&waited.as_secs()), "{waited:?}");
    // What is not durable is not told, and a heartbeat needs nothing that is not there.
    assert_eq!(committed(&mut client, "alone").await, Err(not_available));
    assert_eq!(member.heartbeat(&mut member_client).await, 0);
    for offset in 3..10 {
        assert_eq!(
            commit(&mut client, &commit_request("alone", &[(0, offset)])).await,
            not_available
        );
        assert_eq!(member.heartbeat(&mut member_client).await, 0);
    }
    faulty.set(Faults::none());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(commit(&mut client, &commit_request("alone", &[(0, 20)])).await, 0);
    assert_eq!(committed(&mut client, "alone").await, Ok(20));
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn joins_that_wait_are_bounded_and_hold_up_nobody() {
    let test = Test::new(&[("group.initial.rebalance.delay.ms", "3000")]).await;
    let mut healthy = test.connect();
    healthy.create("t", 1, &[]).await;
    assert_eq!(commit(&mut healthy, &commit_request("alone", &[(0, 1)])).await, 0);
    let mut waiting = Vec::new();
    for n in 0..120 {
        let mut client = test.connect();
        let mut request = join(&format!("large-{n}"), &Str::default(), 10_000);
        request.protocols[0].metadata = vec![1; 900_000].into();
        // Before version 4 a member joins at once.
        let id = client.send(3, &request).await;
        waiting.push((client, id));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Others are served, with large requests too.
    assert_eq!(commit(&mut healthy, &commit_request("alone", &[(0, 2)])).await, 0);
    let offsets: Vec<(i32, i64)> = (0..40_000).map(|n| (n, 1)).collect();
    let answer = healthy.call(8, &commit_request("alone", &offsets)).await;
    assert_eq!(answer.topics[0].partitions.len(), 40_000);
    let mut codes = Vec::new();
    for (mut client, id) in waiting {
        let answer = client
            .receive::<m::join_group_request::JoinGroupRequest>(3, id)
            .await;
        codes.push(answer.error_code);
    }
    let refused = codes
        .iter()
        .filter(|code| **code == ErrorCode::CoordinatorNotAvailable.code());
    let refused = refused.count();
    assert!((30..60).contains(&refused), "{refused} of 120");
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 120 - refused);
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_topic_can_be_deleted_and_comes_back_empty() {
    let test = Test::new(&[]).await;
    let (mut client, mut parked) = (test.connect(), test.connect());
    client.create("t", 1, &[]).await;
    assert_eq!(commit(&mut client, &commit_request("g", &[(0, 5)])).await, 0);
    let waits = parked.send(3, &join("g", &Str::default(), 10_000)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    use m::delete_topics_request::*;
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(Str::from("__consumer_offsets")),
            ..Default::default()
        }],
        timeout_ms: 1_000,
        ..Default::default()
    };
    assert_eq!(client.call(6, &request).await.responses[0].error_code, 0);
    let joined = parked
        .receive::<m::join_group_request::JoinGroupRequest>(3, waits)
        .await;
    assert_eq!(joined.error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(loaded(&mut client, "g").await, -1);
    assert_eq!(commit(&mut client, &commit_request("g", &[(0, 6)])).await, 0);
    let test = Test::on(test.kill(), &[]).await;
    assert_eq!(loaded(&mut test.connect(), "g").await, 6);
    assert_eq!(panics(), 0);
}
