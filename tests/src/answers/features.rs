//! What a lone broker answers for what it has not, or has little of: access lists, quotas, SCRAM users, delegation
//! tokens, transactions, reassignments, elections, the quorum.

use bytes::Bytes;
use drumlin_wire::ApiKey;
use drumlin_wire::messages::alter_client_quotas_request as quotas;
use drumlin_wire::messages::alter_partition_reassignments_request as reassign;
use drumlin_wire::messages::alter_replica_log_dirs_request as dirs;
use drumlin_wire::messages::alter_user_scram_credentials_request as scram;
use drumlin_wire::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use drumlin_wire::messages::create_delegation_token_request::CreateDelegationTokenRequest;
use drumlin_wire::messages::delete_acls_request::{DeleteAclsFilter, DeleteAclsRequest};
use drumlin_wire::messages::describe_acls_request::DescribeAclsRequest;
use drumlin_wire::messages::describe_client_quotas_request::{ComponentData, DescribeClientQuotasRequest};
use drumlin_wire::messages::describe_delegation_token_request::DescribeDelegationTokenRequest;
use drumlin_wire::messages::describe_quorum_request::{DescribeQuorumRequest, PartitionData, TopicData};
use drumlin_wire::messages::describe_transactions_request::DescribeTransactionsRequest;
use drumlin_wire::messages::describe_user_scram_credentials_request::{
    DescribeUserScramCredentialsRequest, UserName,
};
use drumlin_wire::messages::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
use drumlin_wire::messages::expire_delegation_token_request::ExpireDelegationTokenRequest;
use drumlin_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use drumlin_wire::messages::list_partition_reassignments_request::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};
use drumlin_wire::messages::list_transactions_request::ListTransactionsRequest;
use drumlin_wire::messages::renew_delegation_token_request::RenewDelegationTokenRequest;
use drumlin_wire::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use drumlin_wire::messages::sasl_handshake_request::SaslHandshakeRequest;
use drumlin_wire::messages::unregister_broker_request::UnregisterBrokerRequest;
use drumlin_wire::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};

use super::{Pair, Side, versions};

/// In requests about access lists: any resource, any pattern, any operation, any permission.
const ANY: i8 = 1;

pub(super) fn ask_all(pair: &mut Pair) -> anyhow::Result<()> {
    pair.create_topic("featured", 1, &[])?;
    access_lists(pair)?;
    users(pair)?;
    tokens(pair)?;
    placement(pair)?;
    transactions(pair)?;
    cluster(pair)
}

fn access_lists(pair: &mut Pair) -> anyhow::Result<()> {
    pair.ask("all", |_: &Side, _| DescribeAclsRequest {
        resource_type_filter: ANY,
        resource_name_filter: None,
        pattern_type_filter: ANY,
        principal_filter: None,
        host_filter: None,
        operation: ANY,
        permission_type: ANY,
        ..Default::default()
    })?;
    pair.ask("one", |_: &Side, _| CreateAclsRequest {
        creations: vec![AclCreation {
            // A topic, by its name; anybody may read.
            resource_type: 2,
            resource_name: "featured".into(),
            resource_pattern_type: 3,
            principal: "User:*".into(),
            host: "*".into(),
            operation: 3,
            permission_type: 3,
            ..Default::default()
        }],
        ..Default::default()
    })?;
    pair.ask("all", |_: &Side, _| DeleteAclsRequest {
        filters: vec![DeleteAclsFilter {
            resource_type_filter: ANY,
            resource_name_filter: None,
            pattern_type_filter: ANY,
            principal_filter: None,
            host_filter: None,
            operation: ANY,
            permission_type: ANY,
            ..Default::default()
        }],
        ..Default::default()
    })?;
    Ok(())
}

fn users(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, entity) in [
        ("of users", "user"),
        ("of a type that is none", "none"),
        ("of an empty type", ""),
    ] {
        pair.ask(what, |_: &Side, _| DescribeClientQuotasRequest {
            components: vec![ComponentData {
                entity_type: entity.into(),
                // Any name that is given.
                match_type: 2,
                r#match: None,
                ..Default::default()
            }],
            ..Default::default()
        })?;
    }
    // What Kafka would keep, Drumlin refuses: only what both refuse.
    for (what, entity, key, value) in [
        ("of a type that is none", "none", "producer_byte_rate", 1e6),
        ("a quota that is none", "user", "none", 1e6),
        ("a negative quota", "user", "producer_byte_rate", -1.0),
    ] {
        pair.ask(what, |_: &Side, _| quotas::AlterClientQuotasRequest {
            entries: vec![quotas::EntryData {
                entity: vec![quotas::EntityData {
                    entity_type: entity.into(),
                    entity_name: Some("somebody".into()),
                    ..Default::default()
                }],
                ops: vec![quotas::OpData {
                    key: key.into(),
                    value,
                    remove: false,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        })?;
    }
    for (what, users) in [
        ("all", None),
        ("one", Some("nobody")),
        ("an empty name", Some("")),
    ] {
        pair.ask(what, |_: &Side, _| DescribeUserScramCredentialsRequest {
            users: users.map(|name| {
                vec![UserName {
                    name: name.into(),
                    ..Default::default()
                }]
            }),
            ..Default::default()
        })?;
    }
    pair.ask("a deletion of nobody", |_: &Side, _| {
        scram::AlterUserScramCredentialsRequest {
            deletions: vec![scram::ScramCredentialDeletion {
                name: "nobody".into(),
                mechanism: 1,
                ..Default::default()
            }],
            ..Default::default()
        }
    })?;
    Ok(())
}

fn tokens(pair: &mut Pair) -> anyhow::Result<()> {
    // A connection without authentication cannot have tokens.
    pair.ask("a token", |_: &Side, _| CreateDelegationTokenRequest {
        max_lifetime_ms: -1,
        ..Default::default()
    })?;
    pair.ask("all", |_: &Side, _| DescribeDelegationTokenRequest {
        owners: None,
        ..Default::default()
    })?;
    pair.ask("an unknown token", |_: &Side, _| RenewDelegationTokenRequest {
        hmac: Bytes::from_static(b"token"),
        renew_period_ms: -1,
        ..Default::default()
    })?;
    pair.ask("an unknown token", |_: &Side, _| ExpireDelegationTokenRequest {
        hmac: Bytes::from_static(b"token"),
        expiry_time_period_ms: -1,
        ..Default::default()
    })?;
    Ok(())
}

fn placement(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, topic) in [
        ("all", None),
        ("a topic", Some("featured")),
        ("an unknown topic", Some("nowhere")),
    ] {
        pair.ask(what, |_: &Side, _| ListPartitionReassignmentsRequest {
            timeout_ms: 20_000,
            topics: topic.map(|name| {
                vec![ListPartitionReassignmentsTopics {
                    name: name.into(),
                    partition_indexes: vec![0, 7],
                    ..Default::default()
                }]
            }),
            ..Default::default()
        })?;
        for election_type in [0, 1] {
            let request = |_: &Side, version: i16| ElectLeadersRequest {
                election_type: if version >= 1 { election_type } else { 0 },
                topic_partitions: topic.map(|topic| {
                    vec![TopicPartitions {
                        topic: topic.into(),
                        partitions: vec![0, 7],
                        ..Default::default()
                    }]
                }),
                timeout_ms: 20_000,
                ..Default::default()
            };
            // Topics of the brokers' own have numbers of partitions of their own.
            pair.ask_but(
                &format!("{what}, election of type {election_type}"),
                request,
                |answer| {
                    answer
                        .replica_election_results
                        .retain(|result| !result.topic.starts_with("__"));
                    answer
                        .replica_election_results
                        .sort_by(|a, b| a.topic.as_str().cmp(b.topic.as_str()));
                },
            )?;
        }
    }
    for (what, topic, replicas) in [
        ("nothing to cancel", "featured", None),
        ("to a broker that is none", "featured", Some(vec![99])),
        ("an unknown topic", "nowhere", Some(vec![1])),
    ] {
        pair.ask(what, |_: &Side, _| reassign::AlterPartitionReassignmentsRequest {
            timeout_ms: 20_000,
            topics: vec![reassign::ReassignableTopic {
                name: topic.into(),
                partitions: vec![reassign::ReassignablePartition {
                    partition_index: 0,
                    replicas: replicas.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        })?;
    }
    for topic in ["featured", "nowhere"] {
        pair.ask(&format!("topic {topic}, to no folder there is"), |_: &Side, _| {
            dirs::AlterReplicaLogDirsRequest {
                dirs: vec![dirs::AlterReplicaLogDir {
                    path: "/no/such/folder".into(),
                    topics: vec![dirs::AlterReplicaLogDirTopic {
                        name: topic.into(),
                        partitions: vec![0],
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            }
        })?;
    }
    Ok(())
}

fn transactions(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, states) in [
        ("all", vec![]),
        ("by a state", vec!["Ongoing"]),
        ("by a state that is none", vec!["none"]),
    ] {
        pair.ask(what, |_: &Side, _| ListTransactionsRequest {
            state_filters: states.iter().map(|state| (*state).into()).collect(),
            ..Default::default()
        })?;
    }
    // Kafka has a coordinator for transactions from the first search for one on; Drumlin has no transactions.
    const NO_TRANSACTIONS: i16 = 53;
    pair.wait_until(
        "the transaction coordinator",
        2,
        |_| FindCoordinatorRequest {
            key: "nobody".into(),
            key_type: 1,
            ..Default::default()
        },
        |answer| matches!(answer.error_code, 0 | NO_TRANSACTIONS),
    )?;
    let request = |_: &Side, _: i16| DescribeTransactionsRequest {
        transactional_ids: vec!["nobody".into()],
        ..Default::default()
    };
    if !versions(ApiKey::DescribeTransactions).is_empty() {
        // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
        pair.wait_until(
            "the transactions",
            0,
            |side| request(side, 0),
            |answer| {
                let state = answer.transaction_states.first();
                state.is_some_and(|state| !matches!(state.error_code, 14..=16))
            },
        )?;
    }
    pair.ask("an unknown id", request)?;
    Ok(())
}

fn cluster(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, feature, level) in [
        ("a feature that is none", "no.such.feature", 1),
        ("a level that is none", "metadata.version", 32_000),
        ("an empty name", "", 1),
    ] {
        pair.ask(what, |_: &Side, version| UpdateFeaturesRequest {
            timeout_ms: 20_000,
            feature_updates: vec![FeatureUpdateKey {
                feature: feature.into(),
                max_version_level: level,
                upgrade_type: 1,
                ..Default::default()
            }],
            validate_only: version >= 1,
            ..Default::default()
        })?;
    }
    pair.ask("a topic that is not the metadata's", |_: &Side, _| {
        DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: "featured".into(),
                partitions: vec![PartitionData {
                    partition_index: 0,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    })?;
    pair.ask("an unknown broker", |_: &Side, _| UnregisterBrokerRequest {
        broker_id: 99,
        ..Default::default()
    })?;
    // On a listener without authentication there is nothing to authenticate.
    pair.ask("a mechanism", |_: &Side, _| SaslHandshakeRequest {
        mechanism: "PLAIN".into(),
    })?;
    pair.ask("a password", |_: &Side, _| SaslAuthenticateRequest {
        auth_bytes: Bytes::from_static(b"\0user\0password"),
        ..Default::default()
    })?;
    Ok(())
}
