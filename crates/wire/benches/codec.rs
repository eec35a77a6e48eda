//! Decoding Produce and encoding Fetch, with 64 KiB of records that are never copied.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use drumlin_wire::messages::fetch_response::{FetchResponse, FetchableTopicResponse, PartitionData};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use drumlin_wire::messages::produce_response::{
    PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use drumlin_wire::{Message, Records, Str, Uuid, frame};

fn records() -> Bytes {
    Bytes::from(vec![7u8; 64 << 10])
}

fn decode_produce(c: &mut Criterion) {
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Str::from_static("benchmark-topic"),
            partition_data: vec![PartitionProduceData {
                index: 3,
                records: Some(Records::from(records())),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let body = request.to_bytes(11).expect("a valid request");
    let mut group = c.benchmark_group("produce");
    group.bench_function("decode v11, 64 KiB", |b| {
        b.iter(|| ProduceRequest::decode(black_box(&body), 11).expect("a valid request"));
    });
    let response = ProduceResponse {
        responses: vec![TopicProduceResponse {
            name: Str::from_static("benchmark-topic"),
            partition_responses: vec![PartitionProduceResponse {
                base_offset: 42,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    group.bench_function("encode answer v11", |b| {
        b.iter(|| frame::response(black_box(&response), 11, 1).expect("a valid answer"));
    });
    group.finish();
}

fn encode_fetch(c: &mut Criterion) {
    let records = records();
    let mut group = c.benchmark_group("fetch");
    for extents in [1usize, 16] {
        let response = FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic_id: Uuid::from_u128(7),
                partitions: vec![PartitionData {
                    high_watermark: 1000,
                    records: Some((0..extents).map(|_| records.clone()).collect()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        group.bench_function(format!("encode v16, {extents} x 64 KiB"), |b| {
            b.iter(|| frame::response(black_box(&response), 16, 1).expect("a valid answer"));
        });
    }
    group.finish();
}

criterion_group!(benches, decode_produce, encode_fetch);
criterion_main!(benches);
