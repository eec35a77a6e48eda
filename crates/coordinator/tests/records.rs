//! The bytes of records. Kafka 4.3.1's `GroupCoordinatorRecordSerde` reads each of these, and writes the same
//! bytes again for what it has read.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use drumlin_coordinator::{GroupConfig, GroupRequest};
use drumlin_wire::Str;

use common::{World, commit, identity, join, subscription, sync};

/// What a static member, a commit with metadata, one with a retention of its own and a deletion write.
const RECORDS: &[(&str, &str)] = &[
    ("0002000167", "0003000000000000ffffffff0000018bcfe5680000000000"),
    (
        "0002000167",
        "00030008636f6e73756d657200000001000572616e67650029696e73742d39313061326465632d383930322d346363312d626565622d3864613136353865656336370000018bcfe573b8000000010029696e73742d39313061326465632d383930322d346363312d626565622d3864613136353865656336370004696e73740006636c69656e74000a2f3132372e302e302e310000ea60000027100000000d000000000001000161ffffffff0000000378797a",
    ),
    (
        "000100016700016100000002",
        "0004000000000000004dffffffff046dc3a90000018bcfe573b801001000000000000000000000000000001001",
    ),
    (
        "000100036f6c6400016100000002",
        "0001000000000000004e00000000018bcfe573b80000018bcfe573bd",
    ),
    (
        "0002000167",
        "00030008636f6e73756d657200000002ffffffff0000018bcfe573b800000000",
    ),
    ("000100016700016100000002", ""),
    ("0002000167", ""),
];

#[test]
fn are_what_kafka_writes() {
    let mut world = World::new(GroupConfig::default());
    let mut request = join("g", &Str::EMPTY, &[("range", subscription(&["a"]))]);
    request.group_instance_id = Some("inst".into());
    let token = world.join(request);
    world.pass(3_000);
    let id = world.joined(token).member_id;
    let token = world.ask(GroupRequest::SyncGroup(sync("g", &id, 1, &[(&id, "xyz")])));
    assert_eq!(world.synced(token).error_code, 0);
    let mut request = commit("g", &id, 1, ("a", 2), 77);
    request.topics[0].partitions[0].committed_metadata = Some("mé".into());
    assert_eq!(world.commit(request), 0);
    let mut request = commit("old", "", -1, ("a", 2), 78);
    request.retention_time_ms = 5;
    assert_eq!(world.commit(request), 0);
    world.leave("g", vec![identity(&id, Some("inst"))]);
    world.ask(GroupRequest::DeleteGroup { group_id: "g".into() });
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let written: Vec<(String, String)> = world
        .log
        .iter()
        .map(|record| {
            (
                hex(&record.key),
                record.value.as_deref().map(hex).unwrap_or_default(),
            )
        })
        .collect();
    let expected: Vec<(String, String)> = RECORDS
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(written, expected);
}
