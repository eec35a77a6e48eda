//! The cluster as a whole: versions, brokers, coordinators, configurations of brokers, producer ids, telemetry.

use drumlin_wire::messages::api_versions_request::ApiVersionsRequest;
use drumlin_wire::messages::describe_cluster_request::DescribeClusterRequest;
use drumlin_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use drumlin_wire::messages::init_producer_id_request::InitProducerIdRequest;
use drumlin_wire::messages::list_config_resources_request::ListConfigResourcesRequest;

use super::{Pair, Side};

pub(super) fn ask_all(pair: &mut Pair) -> anyhow::Result<()> {
    for (what, software) in [
        ("by a sound name", "librdkafka"),
        ("by a name with a space", "no name"),
    ] {
        let request = |_: &Side, version| ApiVersionsRequest {
            client_software_name: if version >= 3 { software.into() } else { "".into() },
            client_software_version: if version >= 3 { "1".into() } else { "".into() },
            ..Default::default()
        };
        // Each broker lists what it serves itself; where one lists nothing, neither may the other.
        pair.ask_but(what, request, |answer| {
            answer.api_keys.truncate(1);
            answer.supported_features.clear();
            answer.finalized_features.clear();
        })?;
    }
    for endpoint_type in [1, 2, 7] {
        let request = |_: &Side, version| DescribeClusterRequest {
            endpoint_type: if version >= 1 { endpoint_type } else { 1 },
            ..Default::default()
        };
        pair.ask(&format!("endpoints of type {endpoint_type}"), request)?;
    }
    find_coordinators(pair)?;
    let request = |_: &Side, _| InitProducerIdRequest {
        // The type's default is an empty text.
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    // Kafka fetches a block of ids when it is first asked.
    pair.wait_until(
        "a block of producer ids",
        0,
        |side| request(side, 0),
        |answer| answer.error_code == 0,
    )?;
    pair.ask("without a transactional id", request)?;
    let request = |_: &Side, _| InitProducerIdRequest {
        transactional_id: Some("".into()),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    pair.ask("an empty transactional id", request)?;
    for kind in [2, 16, 99] {
        let request = |_: &Side, version| ListConfigResourcesRequest {
            resource_types: if version >= 1 { vec![kind] } else { Vec::new() },
            ..Default::default()
        };
        // Topics of the brokers' own come and go.
        pair.ask_but(&format!("resources of type {kind}"), request, |answer| {
            answer
                .config_resources
                .retain(|r| !r.resource_name.starts_with("__"));
        })?;
    }
    Ok(())
}

fn find_coordinators(pair: &mut Pair) -> anyhow::Result<()> {
    let find = |key: &str, kind: i8| {
        let key = key.to_owned();
        move |_: &Side, version: i16| FindCoordinatorRequest {
            key: if version < 4 {
                key.as_str().into()
            } else {
                "".into()
            },
            key_type: if version >= 1 { kind } else { 0 },
            coordinator_keys: if version >= 4 {
                vec![key.as_str().into()]
            } else {
                Vec::new()
            },
            ..Default::default()
        }
    };
    // Kafka makes the groups' topic when it is first asked for.
    let make = find("group", 0);
    pair.wait_until(
        "the group coordinator",
        2,
        |side| make(side, 2),
        |answer| answer.error_code == 0,
    )?;
    pair.ask("a group", find("group", 0))?;
    // Drumlin refuses key types in its own words and code where there are no transactions yet: only groups here.
    for version in 4..=6 {
        pair.ask_in(version, "an unknown type of key", &find("key", 9), &|_| {})?;
    }
    Ok(())
}
