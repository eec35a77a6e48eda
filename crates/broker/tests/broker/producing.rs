//! Produce: what is taken, what is refused, and what is answered when.

use bytes::{Bytes, BytesMut};
use drumlin_broker::error_code::ErrorCode;
use drumlin_records::{
    BatchBuilder, BatchHeader, Compression, Limits, TimestampType, patch_attributes_and_max_timestamp,
    records,
};
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
        (good.slice(..good.len() - 1), ErrorCode::InvalidRecord),
        (Bytes::from_static(b"short"), ErrorCode::InvalidRecord),
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

/// A batch of records with these timestamps, under a header that says this greatest one.
fn timed(codec: Compression, timestamps: &[i64], max_timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for timestamp in timestamps {
        builder.push(*timestamp, Some(b"k"), Some(b"v"), &[]);
    }
    let batch = builder.build().expect("a batch");
    let mut changed = BytesMut::from(&batch[..]);
    let header = BatchHeader {
        max_timestamp,
        ..BatchHeader::parse(&batch).expect("a header")
    };
    patch_attributes_and_max_timestamp(&mut changed, &header);
    changed.freeze()
}

/// A batch whose CRC is right, and whose payload is not what its codec makes.
fn undecodable() -> Bytes {
    let mut changed = timed(Compression::Gzip, &[NOW_MS], NOW_MS).to_vec();
    for byte in &mut changed[61..] {
        *byte = !*byte;
    }
    let crc = crc32c::crc32c(&changed[21..]);
    changed[17..21].copy_from_slice(&crc.to_be_bytes());
    changed.into()
}

async fn offset_of(client: &mut Client, topic: &str, timestamp: i64) -> (i16, i64, i64) {
    use m::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
    let request = ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: Str::from(topic),
            partitions: vec![ListOffsetsPartition {
                timestamp,
                current_leader_epoch: -1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.call(7, &request).await;
    let part = &answer.topics[0].partitions[0];
    (part.error_code, part.offset, part.timestamp)
}

#[tokio::test(start_paused = true)]
async fn a_wrong_greatest_timestamp_is_corrected_in_the_copy_that_is_stored() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    for (n, codec) in Compression::ALL.into_iter().enumerate() {
        let topic = format!("t{n}");
        client.create(&topic, 1, &[]).await;
        let times = [NOW_MS - 500, NOW_MS - 100, NOW_MS - 900];
        for (base, claimed) in [(0, NOW_MS - 900), (3, -1), (6, 0), (9, NOW_MS + 50_000_000)] {
            let sent = timed(codec, &times, claimed);
            assert_eq!(client.produce(&topic, 0, sent).await, (0, base));
        }
        let found = offset_of(&mut client, &topic, NOW_MS - 400).await;
        assert_eq!(found, (0, 1, NOW_MS - 100));
        assert_eq!(offset_of(&mut client, &topic, NOW_MS).await, (0, -1, -1));
        assert_eq!(offset_of(&mut client, &topic, -3).await, (0, 1, NOW_MS - 100));
        let stored = client
            .fetch(&topic, 0, 0)
            .await
            .records
            .expect("records")
            .into_bytes();
        for item in drumlin_records::iter_batches(&stored) {
            let (at, header) = item.expect("a batch");
            assert_eq!(header.max_timestamp, NOW_MS - 100);
            drumlin_records::check_crc(&stored[at..]).expect("a right CRC");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_are_checked_unless_producers_are_trusted() {
    let full = Test::new(&[]).await;
    let mut client = full.connect();
    client.create("t", 1, &[]).await;
    assert_eq!(
        error_of(&mut client, 9, undecodable()).await,
        ErrorCode::InvalidRecord
    );
    let trusting = Test::new(&[("record.validation", "header")]).await;
    let mut client = trusting.connect();
    client.create("t", 1, &[]).await;
    client
        .create("compacted", 1, &[("cleanup.policy", "compact")])
        .await;
    assert_eq!(
        client.produce("compacted", 0, undecodable()).await.0,
        ErrorCode::InvalidRecord.code()
    );
    assert_eq!(client.produce("t", 0, undecodable()).await, (0, 0));
    let after = timed(Compression::None, &[NOW_MS - 10], NOW_MS - 10);
    assert_eq!(client.produce("t", 0, after).await, (0, 1));
    // Lookups go past it.
    assert_eq!(
        offset_of(&mut client, "t", NOW_MS - 20).await,
        (0, 1, NOW_MS - 10)
    );
    assert_eq!(offset_of(&mut client, "t", -3).await, (0, 1, NOW_MS - 10));
}

#[tokio::test(start_paused = true)]
async fn each_record_at_fault_is_named() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let narrow = [
        ("message.timestamp.before.max.ms", "1000"),
        ("message.timestamp.after.max.ms", "500"),
    ];
    client.create("t", 1, &narrow).await;
    let wrong = timed(
        Compression::Zstd,
        &[NOW_MS, NOW_MS - 1_001, NOW_MS + 501, NOW_MS - 1_000, NOW_MS + 500],
        NOW_MS,
    );
    let answer = client.call(9, &produce_request("t", 0, wrong.clone(), -1)).await;
    let part = &answer.responses[0].partition_responses[0];
    assert_eq!(part.error_code, ErrorCode::InvalidTimestamp.code());
    let indexes: Vec<i32> = part.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(indexes, [1, 2]);
    assert!(part.record_errors.iter().all(|error| {
        let message = error.batch_index_error_message.as_deref();
        message.is_some_and(|text| text.contains("outside the accepted range"))
    }));
    assert!(part.error_message.is_some());
    // The broker's clock counts there.
    client
        .create(
            "u",
            1,
            &[narrow[0], narrow[1], ("message.timestamp.type", "LogAppendTime")],
        )
        .await;
    assert_eq!(client.produce("u", 0, wrong).await, (0, 0));
    assert_eq!(offset_of(&mut client, "u", -3).await, (0, 0, NOW_MS));
}

#[tokio::test(start_paused = true)]
async fn large_records_are_bounded_before_they_are_decompressed() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let of = |size: usize| {
        let mut builder = BatchBuilder::new(Compression::Zstd);
        builder.push(NOW_MS, Some(b"k"), Some(&vec![0; size]), &[]);
        builder.build().expect("a batch")
    };
    // More than is walked in place: it goes to a thread of its own, and is taken.
    assert_eq!(client.produce("t", 0, of(40 << 20)).await, (0, 0));
    assert_eq!(offset_of(&mut client, "t", NOW_MS).await, (0, 0, NOW_MS));
    client
        .create("u", 1, &[("max.decompressed.message.bytes", "1000")])
        .await;
    assert_eq!(client.produce("u", 0, of(900)).await, (0, 0));
    assert_eq!(
        client.produce("u", 0, of(1_000)).await.0,
        ErrorCode::InvalidRecord.code()
    );
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_answered_with_the_time_under_which_it_is_stored() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client
        .create("t", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await;
    client.create("u", 1, &[]).await;
    let batch = built(Compression::None, |b| b.producer(5, 0, 0));
    let mut answers = Vec::new();
    for topic in ["t", "t", "u", "u"] {
        let request = produce_request(topic, 0, batch.clone(), -1);
        let answer = client.call(9, &request).await;
        let part = &answer.responses[0].partition_responses[0];
        answers.push((part.error_code, part.base_offset, part.log_append_time_ms));
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].2 >= NOW_MS);
    assert_eq!(offset_of(&mut client, "t", -3).await, (0, 0, answers[0].2));
    assert_eq!(answers[2], (0, 0, -1));
    assert_eq!(answers[2], answers[3]);
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
