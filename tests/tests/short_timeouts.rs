//! Requests with timeouts too short for anything to become durable, as clients send them.

use std::time::Duration;

use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::client::Connection;
use drumlin_tests::scratch::Scratch;
use drumlin_wire::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};

/// librdkafka's own tests delete records with a timeout of 0; the deletion is done, and said to be.
#[test]
fn records_are_deleted_within_no_time() {
    let scratch = Scratch::new("short-timeouts").expect("a folder");
    let broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    let mut connection =
        Connection::open(&broker.bootstrap(), Duration::from_secs(60)).expect("a connection");
    connection.create_topic("t", 1, &[]).expect("a topic");
    let values: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    connection
        .produce_surely("t", 0, &values)
        .expect("records are accepted");
    for end in 1..=20 {
        let partition = DeleteRecordsPartition {
            partition_index: 0,
            offset: end,
            ..Default::default()
        };
        let topic = DeleteRecordsTopic {
            name: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = DeleteRecordsRequest {
            topics: vec![topic],
            timeout_ms: 0,
            ..Default::default()
        };
        let answer = connection.call(&request, 2).expect("an answer");
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.low_watermark), (0, end));
    }
}
