//! A consumer that commits the same offset again and again costs no writes, and is told nothing that is not so.

use std::sync::Arc;
use std::time::Duration;

use drumlin_objects::fault::Latency;
use drumlin_objects::object_store::memory::InMemory;
use drumlin_wire::Str;
use drumlin_wire::messages as m;
use tokio::time::Instant;

use crate::coordinators::start_over;
use crate::groups::{commit, commit_request, committed};
use crate::harness::*;

/// The end of the one partition of the groups' topic.
async fn end_of_group_records(client: &mut Client) -> i64 {
    use m::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: Str::from("__consumer_offsets"),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                current_leader_epoch: -1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.call(5, &request).await;
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.offset
}

#[tokio::test(start_paused = true)]
async fn an_idle_consumer_writes_nothing() {
    let test = Test::new(&[("offsets.topic.num.partitions", "1")]).await;
    let mut client = test.connect();
    client.create("t", 2, &[]).await;
    let request = commit_request("g", &[(0, 5), (1, 7)]);
    assert_eq!(commit(&mut client, &request).await, 0);
    let end = end_of_group_records(&mut client).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(commit(&mut client, &request).await, 0);
    }
    assert_eq!(end_of_group_records(&mut client).await, end);
    // What has changed is written, and only that.
    assert_eq!(
        commit(&mut client, &commit_request("g", &[(0, 6), (1, 7)])).await,
        0
    );
    assert_eq!(end_of_group_records(&mut client).await, end + 1);
    assert_eq!(committed(&mut client, "g").await, Ok(6));
    // Once an hour the time of the commit is written, by which offsets expire.
    let request = commit_request("g", &[(0, 6), (1, 7)]);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    // A connection that is silent for so long is closed.
    let mut client = test.connect();
    assert_eq!(commit(&mut client, &request).await, 0);
    assert_eq!(end_of_group_records(&mut client).await, end + 3);
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_repeats_a_commit_under_way_waits_for_it() {
    let store = Arc::new(InMemory::new());
    let (test, network) = start_over(&store, 1, Latency::None).await;
    let (mut first, mut second) = (test.connect(), test.connect());
    first.create("t", 1, &[]).await;
    assert_eq!(commit(&mut first, &commit_request("g", &[(0, 1)])).await, 0);
    let slow = Duration::from_secs(2);
    network.change(|faults| faults.latency = Latency::Uniform(slow..slow * 2));
    let began = Instant::now();
    let request = commit_request("g", &[(0, 2)]);
    let timed = async |client: &mut Client| {
        assert_eq!(commit(client, &request).await, 0);
        began.elapsed()
    };
    let (first, second) = tokio::join!(timed(&mut first), timed(&mut second));
    assert!(first >= slow && second >= slow, "{first:?} {second:?}");
    assert_eq!(panics(), 0);
}
