//! Produce: what is taken, what is refused, and what is answered when.

use bytes::{Bytes, BytesMut};
use drumlin_broker::error_code::ErrorCode;
use drumlin_records::{BatchBuilder, BatchHeader, Compression, Limits, TimestampType, records};
use drumlin_wire::messages as m;
use drumlin_wire::{Str, Uuid};

use crate::harness::*;

fn built(codec: Compression, edit: impl FnOnce(BatchBuilder) -> BatchBuilder) -> Bytes {
    let mut builder = edit(BatchBuilder::new(codec));
    builder.push(NOW_MS, None, Some(&[b'v'; 100]), &[]);
    builder.build().expect("a batch")
}

async fn error_of(client: &mut Client, version: i16, batch: Bytes) -> ErrorCode {
    let answer = client.call(version, &produce_request("t", 0, batch, -1)).await;
    let part = &answer.responses[0].partition_responses[0];
    let known = [
        ErrorCode::None,
        ErrorCode::CorruptMessage,
        ErrorCode::MessageTooLarge,
        ErrorCode::InvalidTimestamp,
        ErrorCode::UnsupportedVersion,
        ErrorCode::UnsupportedCompressionType,
        ErrorCode::InvalidRecord,
        ErrorCode::OutOfOrderSequenceNumber,
        ErrorCode::InvalidProducerEpoch,
    ];
    if part.error_code != 0 {
        // As Kafka, which tells where the log starts beside errors of single records.
        let told = part.error_code == ErrorCode::InvalidTimestamp.code() || !part.record_errors.is_empty();
        let log_start = if told { 0 } else { -1 };
        assert_eq!((part.base_offset, part.log_start_offset), (-1, log_start));
    }
    known
        .into_iter()
        .find(|code| code.code() == part.error_code)
        .expect("a known code")
}

#[tokio::test(start_paused = true)]
async fn bad_batches_get_kafkas_errors() {
    let test = Test::new(&[("message.max.bytes", "10000")]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let good = built(Compression::None, |b| b);
    let mut corrupt = BytesMut::from(&good[..]);
    *corrupt.last_mut().unwrap() ^= 1;
    let mut two = BytesMut::from(&good[..]);
    two.extend_from_slice(&good);
    let mut large = BatchBuilder::new(Compression::None);
    large.push(NOW_MS, None, Some(&[0; 10_000]), &[]);
    let mut future = BatchBuilder::new(Compression::None);
    future.push(NOW_MS + 100_000_000, None, None, &[]);
    for (batch, code) in [
        (corrupt.freeze(), ErrorCode::CorruptMessage),
        (good.slice(..good.len() - 1), ErrorCode::CorruptMessage),
        (Bytes::from_static(b"short"), ErrorCode::CorruptMessage),
        (Bytes::new(), ErrorCode::InvalidRecord),
        (two.freeze(), ErrorCode::InvalidRecord),
        (large.build().unwrap(), ErrorCode::MessageTooLarge),
        (future.build().unwrap(), ErrorCode::InvalidTimestamp),
        (
            built(Compression::None, |b| b.producer(1, 0, 0).transactional()),
            ErrorCode::UnsupportedVersion,
        ),
        (
            built(Compression::None, BatchBuilder::control),
            ErrorCode::InvalidRecord,
        ),
        (good, ErrorCode::None),
    ] {
        assert_eq!(error_of(&mut client, 9, batch).await, code);
    }
    let zstd = built(Compression::Zstd, |b| b);
    assert_eq!(
        error_of(&mut client, 6, zstd.clone()).await,
        ErrorCode::UnsupportedCompressionType
    );
    assert_eq!(error_of(&mut client, 7, zstd).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn bad_requests_get_kafkas_errors() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let code =
        |answer: m::produce_response::ProduceResponse| answer.responses[0].partition_responses[0].error_code;
    let request = produce_request("t", 0, batch(&["x"]), 5);
    assert_eq!(
        code(client.call(9, &request).await),
        ErrorCode::InvalidRequiredAcks.code()
    );
    let mut request = produce_request("t", 0, batch(&["x"]), -1);
    request.transactional_id = Some(Str::from("tx"));
    assert_eq!(
        code(client.call(9, &request).await),
        ErrorCode::UnsupportedVersion.code()
    );
    for (topic, partition) in [("t", 1), ("t", -1), ("u", 0), ("", 0)] {
        let request = produce_request(topic, partition, batch(&["x"]), -1);
        assert_eq!(
            code(client.call(9, &request).await),
            ErrorCode::UnknownTopicOrPartition.code()
        );
    }
    let mut request = produce_request("", 0, batch(&["x"]), -1);
    request.topic_data[0].topic_id = Uuid([9; 16]);
    assert_eq!(
        code(client.call(13, &request).await),
        ErrorCode::UnknownTopicId.code()
    );
}

#[tokio::test(start_paused = true)]
async fn acks_0_says_nothing_and_closes_on_an_error() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    client.send(9, &produce_request("t", 0, batch(&["x"]), 0)).await;
    // The next answer is that of the next request.
    assert_eq!(client.produce("t", 0, batch(&["y"])).await, (0, 1));
    client.send(9, &produce_request("u", 0, batch(&["x"]), 0)).await;
    assert!(client.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn idempotent_producers_are_answered_once_and_in_order() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let of = |epoch, sequence| built(Compression::None, |b| b.producer(5, epoch, sequence));
    assert_eq!(client.produce("t", 0, of(0, 0)).await, (0, 0));
    assert_eq!(client.produce("t", 0, of(0, 1)).await, (0, 1));
    assert_eq!(
        client.produce("t", 0, of(0, 1)).await,
        (0, 1),
        "a duplicate is told its first offset"
    );
    assert_eq!(
        error_of(&mut client, 9, of(0, 3)).await,
        ErrorCode::OutOfOrderSequenceNumber
    );
    assert_eq!(client.produce("t", 0, of(1, 0)).await, (0, 2));
    assert_eq!(
        error_of(&mut client, 9, of(0, 2)).await,
        ErrorCode::InvalidProducerEpoch
    );
    let request = m::describe_producers_request::DescribeProducersRequest {
        topics: vec![m::describe_producers_request::TopicRequest {
            name: Str::from("t"),
            partition_indexes: vec![0],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.call(0, &request).await;
    let producer = &answer.topics[0].partitions[0].active_producers[0];
    assert_eq!(
        (
            producer.producer_id,
            producer.producer_epoch,
            producer.last_sequence
        ),
        (5, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn log_append_time_is_stamped_and_told() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client
        .create("t", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await;
    let answer = client.call(9, &produce_request("t", 0, batch(&["x"]), -1)).await;
    let stamped = answer.responses[0].partition_responses[0].log_append_time_ms;
    assert!(stamped >= NOW_MS, "{stamped}");
    let stored = client.fetch("t", 0, 0).await.records.unwrap().into_bytes();
    let header = BatchHeader::parse(&stored).unwrap();
    assert_eq!(
        (header.timestamp_type(), header.max_timestamp),
        (TimestampType::LogAppendTime, stamped)
    );
}

#[tokio::test(start_paused = true)]
async fn compacted_topics_want_keys() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[("cleanup.policy", "compact")]).await;
    let mut builder = BatchBuilder::new(Compression::Gzip);
    builder
        .push(NOW_MS, Some(b"k"), Some(b"1"), &[])
        .push(NOW_MS, None, Some(b"2"), &[]);
    let answer = client
        .call(9, &produce_request("t", 0, builder.build().unwrap(), -1))
        .await;
    let part = &answer.responses[0].partition_responses[0];
    assert_eq!(part.error_code, ErrorCode::InvalidRecord.code());
    let at: Vec<_> = part.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(at, [1]);
    assert_eq!(client.produce("t", 0, batch(&["x"])).await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_topics_codec_is_what_is_stored() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    for (name, codec) in [
        ("zstd", Compression::Zstd),
        ("lz4", Compression::Lz4),
        ("uncompressed", Compression::None),
    ] {
        client.create(name, 1, &[("compression.type", name)]).await;
        let mut builder = BatchBuilder::new(Compression::Gzip);
        builder.push(NOW_MS, Some(b"k"), Some(&[b'v'; 5_000]), &[]);
        assert_eq!(client.produce(name, 0, builder.build().unwrap()).await, (0, 0));
        let stored = client.fetch(name, 0, 0).await.records.unwrap().into_bytes();
        assert_eq!(BatchHeader::parse(&stored).unwrap().compression().unwrap(), codec);
        let values: Vec<_> = records(&stored, Limits::default())
            .map(|r| r.unwrap().value)
            .collect();
        assert_eq!(values.len(), 1);
        assert_eq!(values[0].as_deref(), Some(&[b'v'; 5_000][..]));
    }
}
