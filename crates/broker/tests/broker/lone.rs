//! What a lone broker answers about features that are off, replicas that are only one, and authorized operations.

use drumlin_broker::error_code::ErrorCode;
use drumlin_wire::messages as m;
use drumlin_wire::{ApiKey, Request, Str, Uuid, registry};

use crate::harness::*;
use crate::versions::Asked;

/// Every version of the APIs whose feature is off.
pub async fn about_what_is_off(asked: &mut Asked, client: &mut Client) {
    let disabled = ErrorCode::SecurityDisabled.code();
    for version in 1..=3 {
        let request = m::describe_acls_request::DescribeAclsRequest {
            pattern_type_filter: 3,
            ..Default::default()
        };
        assert_eq!(asked.ask(client, version, &request).await.error_code, disabled);
        let request = m::create_acls_request::CreateAclsRequest {
            creations: vec![m::create_acls_request::AclCreation::default(); 2],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let codes: Vec<i16> = answer.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [disabled; 2]);
        let request = m::delete_acls_request::DeleteAclsRequest {
            filters: vec![m::delete_acls_request::DeleteAclsFilter::default(); 2],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.filter_results.len(), 2);
        assert!(answer.filter_results.iter().all(|r| r.error_code == disabled));
    }
    tokens(asked, client).await;
    sasl(asked, client).await;
    transactions(asked, client).await;
    quotas(asked, client).await;
}

async fn tokens(asked: &mut Asked, client: &mut Client) {
    let refused = ErrorCode::DelegationTokenRequestNotAllowed.code();
    for version in 1..=3 {
        let request = m::create_delegation_token_request::CreateDelegationTokenRequest::default();
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(
            (answer.error_code, answer.principal_name.as_str()),
            (refused, "ANONYMOUS")
        );
        let request = m::describe_delegation_token_request::DescribeDelegationTokenRequest::default();
        assert_eq!(asked.ask(client, version, &request).await.error_code, refused);
    }
    for version in 1..=2 {
        let request = m::renew_delegation_token_request::RenewDelegationTokenRequest::default();
        assert_eq!(asked.ask(client, version, &request).await.error_code, refused);
        let request = m::expire_delegation_token_request::ExpireDelegationTokenRequest::default();
        assert_eq!(asked.ask(client, version, &request).await.error_code, refused);
    }
}

async fn sasl(asked: &mut Asked, client: &mut Client) {
    let refused = ErrorCode::IllegalSaslState.code();
    for version in 0..=1 {
        let request = m::sasl_handshake_request::SaslHandshakeRequest::default();
        assert_eq!(asked.ask(client, version, &request).await.error_code, refused);
    }
    for version in 0..=2 {
        let request = m::sasl_authenticate_request::SaslAuthenticateRequest::default();
        assert_eq!(asked.ask(client, version, &request).await.error_code, refused);
    }
}

async fn transactions(asked: &mut Asked, client: &mut Client) {
    for version in 0..=2 {
        let request = m::list_transactions_request::ListTransactionsRequest {
            state_filters: vec!["Ongoing".into(), "Sleeping".into()],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!((answer.error_code, answer.transaction_states.len()), (0, 0));
        assert_eq!(answer.unknown_state_filters, [Str::from("Sleeping")]);
    }
    let request = m::list_transactions_request::ListTransactionsRequest {
        transactional_id_pattern: Some("((".into()),
        ..Default::default()
    };
    let code = asked.ask(client, 2, &request).await.error_code;
    assert_eq!(code, ErrorCode::InvalidRegularExpression.code());
    let request = m::describe_transactions_request::DescribeTransactionsRequest {
        transactional_ids: vec!["x".into(), Str::EMPTY],
        ..Default::default()
    };
    let answer = asked.ask(client, 0, &request).await;
    let codes: Vec<i16> = answer.transaction_states.iter().map(|s| s.error_code).collect();
    let expected = [ErrorCode::TransactionalIdNotFound, ErrorCode::InvalidRequest];
    assert_eq!(codes, expected.map(ErrorCode::code));
}

async fn quotas(asked: &mut Asked, client: &mut Client) {
    use m::alter_client_quotas_request::{AlterClientQuotasRequest, EntityData, EntryData, OpData};
    for version in 0..=1 {
        let request = m::describe_client_quotas_request::DescribeClientQuotasRequest::default();
        let answer = asked.ask(client, version, &request).await;
        assert_eq!((answer.error_code, answer.entries), (0, Some(Vec::new())));
        let op = |value, remove| OpData {
            key: "producer_byte_rate".into(),
            value,
            remove,
            ..Default::default()
        };
        let entry = |op| EntryData {
            entity: vec![EntityData {
                entity_type: "user".into(),
                entity_name: Some("a".into()),
                ..Default::default()
            }],
            ops: vec![op],
            ..Default::default()
        };
        let request = AlterClientQuotasRequest {
            entries: vec![
                entry(op(1e6, false)),
                entry(op(0.0, true)),
                entry(op(-1.0, false)),
            ],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let codes: Vec<i16> = answer.entries.iter().map(|entry| entry.error_code).collect();
        // A quota that nothing enforces is not taken; taking one away that is not there succeeds.
        let expected = [
            ErrorCode::UnsupportedVersion,
            ErrorCode::None,
            ErrorCode::InvalidRequest,
        ];
        assert_eq!(codes, expected.map(ErrorCode::code));
    }
    scram(asked, client).await;
}

async fn scram(asked: &mut Asked, client: &mut Client) {
    use m::alter_user_scram_credentials_request::{
        AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
    };
    let request = m::describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest {
        users: None,
        ..Default::default()
    };
    let answer = asked.ask(client, 0, &request).await;
    assert_eq!((answer.error_code, answer.results.len()), (0, 0));
    let upsertion = |name: &str, iterations| ScramCredentialUpsertion {
        name: name.into(),
        mechanism: 1,
        iterations,
        ..Default::default()
    };
    let request = AlterUserScramCredentialsRequest {
        deletions: vec![ScramCredentialDeletion {
            name: "a".into(),
            mechanism: 1,
            ..Default::default()
        }],
        upsertions: vec![
            upsertion("b", 4_096),
            upsertion("c", 4_095),
            upsertion("d", 4_096),
            upsertion("d", 4_096),
        ],
        ..Default::default()
    };
    let answer = asked.ask(client, 0, &request).await;
    let codes: Vec<(&str, i16)> = answer
        .results
        .iter()
        .map(|result| (result.user.as_str(), result.error_code))
        .collect();
    let expected = [
        ("a", ErrorCode::ResourceNotFound),
        ("b", ErrorCode::UnsupportedVersion),
        ("c", ErrorCode::UnacceptableCredential),
        ("d", ErrorCode::DuplicateResource),
    ];
    assert_eq!(codes, expected.map(|(user, code)| (user, code.code())));
}

/// Every version of the APIs about replicas and where they are. There is topic `t` with two partitions.
pub async fn about_replicas(asked: &mut Asked, client: &mut Client) {
    elections(asked, client).await;
    let request = m::list_partition_reassignments_request::ListPartitionReassignmentsRequest::default();
    let answer = asked.ask(client, 0, &request).await;
    assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
    for version in 0..=1 {
        use m::alter_partition_reassignments_request as r;
        let partition = |partition_index, replicas| r::ReassignablePartition {
            partition_index,
            replicas,
            ..Default::default()
        };
        let node = client.node().await;
        let request = r::AlterPartitionReassignmentsRequest {
            topics: vec![r::ReassignableTopic {
                name: "t".into(),
                partitions: vec![
                    partition(0, None),
                    partition(0, Some(vec![node])),
                    partition(0, Some(vec![node + 1])),
                    partition(0, Some(vec![node, node])),
                    partition(0, Some(Vec::new())),
                    partition(2, None),
                ],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let partitions = &answer.responses[0].partitions;
        let codes: Vec<i16> = partitions.iter().map(|p| p.error_code).collect();
        let invalid = ErrorCode::InvalidReplicaAssignment;
        let expected = [
            ErrorCode::NoReassignmentInProgress,
            ErrorCode::None,
            invalid,
            invalid,
            invalid,
            ErrorCode::UnknownTopicOrPartition,
        ];
        assert_eq!(codes, expected.map(ErrorCode::code));
        assert_eq!(partitions[0].error_message, None);
    }
    for version in 1..=2 {
        use m::alter_replica_log_dirs_request as r;
        let dir = |path: &str| r::AlterReplicaLogDir {
            path: path.into(),
            topics: vec![r::AlterReplicaLogDirTopic {
                name: "t".into(),
                partitions: vec![0, 2],
                ..Default::default()
            }],
            ..Default::default()
        };
        let request = r::AlterReplicaLogDirsRequest {
            dirs: vec![dir("memory:"), dir("/elsewhere")],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let codes: Vec<Vec<i16>> = answer
            .results
            .iter()
            .map(|topic| topic.partitions.iter().map(|p| p.error_code).collect())
            .collect();
        assert_eq!(codes, [[0, 3], [57, 57]]);
    }
}

async fn elections(asked: &mut Asked, client: &mut Client) {
    use m::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
    for version in 0..=2 {
        let topic = |name: &str, partitions: &[i32]| TopicPartitions {
            topic: name.into(),
            partitions: partitions.to_vec(),
            ..Default::default()
        };
        let request = ElectLeadersRequest {
            topic_partitions: Some(vec![topic("t", &[0, 1, 2]), topic("nope", &[0])]),
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        assert_eq!(answer.error_code, 0);
        let codes: Vec<Vec<i16>> = answer
            .replica_election_results
            .iter()
            .map(|topic| topic.partition_result.iter().map(|p| p.error_code).collect())
            .collect();
        assert_eq!(codes, [vec![84, 84, 3], vec![3]]);
        let request = ElectLeadersRequest {
            topic_partitions: None,
            ..Default::default()
        };
        let answer = asked.ask(client, version, &request).await;
        let all = answer.replica_election_results;
        assert!(all.iter().any(|topic| topic.topic == *"t"));
        assert!(all.iter().all(|topic| topic.partition_result.is_empty()));
    }
    let request = ElectLeadersRequest {
        election_type: 5,
        topic_partitions: None,
        ..Default::default()
    };
    assert_eq!(asked.ask(client, 2, &request).await.error_code, 42);
}

/// Every version of the APIs about the quorum, features and registrations.
pub async fn about_the_quorum(asked: &mut Asked, client: &mut Client) {
    use m::describe_quorum_request::{DescribeQuorumRequest, PartitionData, TopicData};
    let node = client.node().await;
    for version in 0..=2 {
        let about = |topic: &str| DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: topic.into(),
                partitions: vec![PartitionData::default()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = asked.ask(client, version, &about("__cluster_metadata")).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!(
            (answer.error_code, partition.error_code, partition.leader_id),
            (0, 0, node)
        );
        assert!(partition.high_watermark > 0 && partition.leader_epoch > 0);
        assert_eq!(partition.current_voters.len(), 1);
        assert_eq!(
            partition.current_voters[0].log_end_offset,
            partition.high_watermark
        );
        assert_eq!(answer.nodes.len(), usize::from(version >= 2));
        let answer = asked.ask(client, version, &about("t")).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 3);
    }
    for version in 0..=2 {
        use m::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
        let update = |feature: &str, level| UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: feature.into(),
                max_version_level: level,
                ..Default::default()
            }],
            ..Default::default()
        };
        for (feature, level, code) in [
            ("group.version", 1, 0),
            ("group.version", 0, 95),
            ("group.version", 2, 95),
            ("nope", 1, 95),
        ] {
            let answer = asked.ask(client, version, &update(feature, level)).await;
            assert_eq!(answer.error_code, code, "{feature} {level}");
            let told = usize::from(version < 2 && code == 0);
            assert_eq!(answer.results.len(), told);
        }
    }
    for (broker_id, code) in [(node + 1, 102), (node, 42)] {
        let request = m::unregister_broker_request::UnregisterBrokerRequest {
            broker_id,
            ..Default::default()
        };
        assert_eq!(asked.ask(client, 0, &request).await.error_code, code);
    }
}

impl Client {
    /// The broker's node.
    async fn node(&mut self) -> i32 {
        let request = m::describe_cluster_request::DescribeClusterRequest::default();
        self.call(1, &request).await.brokers[0].broker_id
    }
}

const TOPIC: i32 = 3576;
const GROUP: i32 = 3400;
const CLUSTER: i32 = 8096;
const UNASKED: i32 = i32::MIN;

#[tokio::test(start_paused = true)]
async fn who_asks_for_authorized_operations_is_told_all_of_them() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    for asked in [true, false] {
        let or = |operations| if asked { operations } else { UNASKED };
        for version in 8..=13 {
            use m::metadata_request::{MetadataRequest, MetadataRequestTopic};
            let named = |name: &str| MetadataRequestTopic {
                name: Some(name.into()),
                ..Default::default()
            };
            let request = MetadataRequest {
                topics: Some(vec![named("t"), named("nope")]),
                allow_auto_topic_creation: false,
                include_topic_authorized_operations: asked,
                include_cluster_authorized_operations: asked && version <= 10,
                ..Default::default()
            };
            let answer = client.call(version, &request).await;
            for topic in answer.topics {
                assert_eq!(topic.topic_authorized_operations, or(TOPIC));
            }
            let cluster = if version <= 10 { or(CLUSTER) } else { UNASKED };
            assert_eq!(answer.cluster_authorized_operations, cluster);
        }
        for version in 0..=2 {
            let request = m::describe_cluster_request::DescribeClusterRequest {
                include_cluster_authorized_operations: asked,
                ..Default::default()
            };
            let answer = client.call(version, &request).await;
            assert_eq!(answer.cluster_authorized_operations, or(CLUSTER));
        }
        for version in 3..=6 {
            let request = m::describe_groups_request::DescribeGroupsRequest {
                groups: vec!["g".into()],
                include_authorized_operations: asked,
                ..Default::default()
            };
            let answer = client.call(version, &request).await;
            let group = &answer.groups[0];
            // From version 6 on a group that is not there is an error, and errors carry no operations.
            let expected = if group.error_code == 0 { or(GROUP) } else { UNASKED };
            assert_eq!(
                (group.authorized_operations, version < 6),
                (expected, group.error_code == 0)
            );
        }
    }
    // Here there is no way to ask, or not to.
    let request = m::describe_topic_partitions_request::DescribeTopicPartitionsRequest {
        response_partition_limit: 10,
        ..Default::default()
    };
    let answer = client.call(0, &request).await;
    assert_eq!(answer.topics[0].topic_authorized_operations, TOPIC);
    join(&mut client).await;
    for (asked, expected) in [(true, GROUP), (false, UNASKED)] {
        let request = m::consumer_group_describe_request::ConsumerGroupDescribeRequest {
            group_ids: vec!["c".into()],
            include_authorized_operations: asked,
            ..Default::default()
        };
        let answer = client.call(1, &request).await;
        assert_eq!(
            (
                answer.groups[0].error_code,
                answer.groups[0].authorized_operations
            ),
            (0, expected)
        );
    }
}

/// A consumer joins group `c`.
async fn join(client: &mut Client) {
    let request = m::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest {
        group_id: "c".into(),
        member_id: "m".into(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    client.until(1, &request, |answer| answer.error_code).await;
}

impl Client {
    /// Repeats a request while the coordinator is being loaded.
    pub async fn until<M: Request>(
        &mut self,
        version: i16,
        request: &M,
        code: impl Fn(&M::Response) -> i16,
    ) -> M::Response {
        loop {
            let answer = self.call(version, request).await;
            match code(&answer) {
                0 => return answer,
                other => {
                    assert!((14..=16).contains(&other), "error {other}");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_named_twice_is_answered_twice() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    join(&mut client).await;
    let request = m::consumer_group_describe_request::ConsumerGroupDescribeRequest {
        group_ids: vec!["c".into(), "c".into()],
        ..Default::default()
    };
    let groups = client.call(1, &request).await.groups;
    assert_eq!(
        (groups.len(), groups[0].error_code, groups[0].members.len()),
        (2, 0, 1)
    );
    assert_eq!(groups[0], groups[1]);
    let describe = |times| m::describe_groups_request::DescribeGroupsRequest {
        groups: vec!["g".into(); times],
        ..Default::default()
    };
    let groups = client.call(5, &describe(2)).await.groups;
    assert_eq!((groups[0].error_code, &groups[0]), (0, &groups[1]));
    // But not without bound: a few bytes a time could make an answer of any size.
    let groups = client.call(5, &describe(1_000)).await.groups;
    let answered = groups.iter().filter(|group| group.error_code == 0).count();
    assert_eq!((groups.len(), answered), (1_000, 9));
}

#[tokio::test(start_paused = true)]
async fn answers_stay_small_however_often_a_name_is_repeated() {
    use m::alter_partition_reassignments_request as r;
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let request = r::AlterPartitionReassignmentsRequest {
        topics: vec![r::ReassignableTopic {
            name: Str::from("n".repeat(30_000)),
            partitions: vec![r::ReassignablePartition::default(); 50_000],
            ..Default::default()
        }],
        ..Default::default()
    };
    let id = client.send(1, &request).await;
    let frame = client.frame().await.unwrap();
    assert!(frame.len() < 3 << 20, "{id}: {} bytes", frame.len());
}

#[tokio::test]
async fn log_dirs_tell_the_space_of_the_file_system() {
    let cache = std::env::temp_dir().join("drumlin-no-such-cache").join("yet");
    let cache = cache.to_str().unwrap();
    let with_cache = [("cache.dir", cache), ("cache.disk.bytes", "1048576")];
    for (options, known) in [(&with_cache[..], true), (&[("cache.disk.bytes", "0")], false)] {
        let test = Test::new(options).await;
        let mut client = test.connect();
        let request = m::describe_log_dirs_request::DescribeLogDirsRequest {
            topics: None,
            ..Default::default()
        };
        let dir = &client.call(5, &request).await.results[0];
        assert_eq!(
            (dir.total_bytes > 0, dir.usable_bytes > 0),
            (known, known),
            "{dir:?}"
        );
        assert!(dir.total_bytes >= dir.usable_bytes && !dir.is_cordoned);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_named_twice_is_one_in_log_dirs() {
    use m::describe_log_dirs_request::{DescribableLogDirTopic, DescribeLogDirsRequest};
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let _: Uuid = client.create("t", 3, &[]).await;
    let topic = |partitions: &[i32]| DescribableLogDirTopic {
        topic: "t".into(),
        partitions: partitions.to_vec(),
        ..Default::default()
    };
    let request = DescribeLogDirsRequest {
        topics: Some(vec![topic(&[0, 0]), topic(&[2, 7])]),
        ..Default::default()
    };
    let answer = client.call(4, &request).await;
    let [found] = answer.results[0].topics.as_slice() else {
        panic!("{answer:?}");
    };
    let mut indexes: Vec<i32> = found.partitions.iter().map(|p| p.partition_index).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [0, 2]);
}

/// Every API that is not served stands in the docs, with the reason.
#[test]
fn the_docs_say_what_is_not_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/apis.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, absent) = page.split_once("## Not served").unwrap();
    let named = |name: &str| {
        let is_name = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()) == name;
        absent.split_whitespace().any(is_name)
    };
    for key in (0..200).filter_map(ApiKey::from_i16) {
        // Those that schemas still have, and no version of which is served anywhere.
        let is_served = registry::find(key).is_some();
        assert_eq!(named(key.name()), !is_served, "{key}");
    }
}
