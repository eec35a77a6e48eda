//! What comes over the wire in the wrong shape, out of turn, too slowly or too much at once.

use std::time::Duration;

use bytes::Bytes;
use drumlin_wire::messages as m;
use drumlin_wire::registry::APIS;
use drumlin_wire::{ApiKey, Message, ResponseHeader, Str, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::*;

fn header(key: i16, version: i16, id: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&id.to_be_bytes());
    // No client id.
    frame.extend_from_slice(&(-1i16).to_be_bytes());
    frame
}

async fn send_raw(client: &mut Client, body: &[u8]) {
    let mut all = (body.len() as u32).to_be_bytes().to_vec();
    all.extend_from_slice(body);
    // The broker may have closed already.
    let _ = client.stream.write_all(&all).await;
}

/// True if the broker closes the connection rather than answering.
async fn is_closed(client: &mut Client) -> bool {
    client.frame().await.is_none()
}

async fn is_healthy(test: &Test) {
    let mut client = test.connect();
    let (error, _) = client.produce("t", 0, batch(&["healthy"])).await;
    assert_eq!((error, panics()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn unknown_apis_and_versions_close_the_connection() {
    let test = Test::new(&[]).await;
    test.connect().create("t", 1, &[]).await;
    for (key, version) in [
        (8, 1),
        (9, 0),
        (24, 0),
        (76, 0),
        (0, 14),
        (1, 3),
        (1, 19),
        (-1, 0),
        (3, -1),
        (93, 0),
        (9999, 0),
        (19, 8),
    ] {
        let mut client = test.connect();
        send_raw(&mut client, &header(key, version, 1)).await;
        assert!(is_closed(&mut client).await, "API {key} version {version}");
    }
    is_healthy(&test).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let mut body = header(18, 99, 5);
    body.extend_from_slice(b"\0whatever this means");
    send_raw(&mut client, &body).await;
    let frame = client.frame().await.unwrap();
    let (header, body) = ResponseHeader::parse(&frame, ApiKey::ApiVersions, 0).unwrap();
    let answer = m::api_versions_response::ApiVersionsResponse::decode_exact(&body, 0).unwrap();
    assert_eq!((header.correlation_id, answer.error_code), (5, 35));
    let ranges: Vec<_> = answer
        .api_keys
        .iter()
        .map(|key| (key.api_key, key.min_version, key.max_version))
        .collect();
    assert_eq!(ranges, [(18, 0, 4)]);
    // The client goes on with what it learned.
    let request = m::api_versions_request::ApiVersionsRequest::default();
    assert_eq!(client.call(0, &request).await.api_keys.len(), APIS.len());
}

#[tokio::test(start_paused = true)]
async fn a_bad_software_name_is_an_invalid_request() {
    let test = Test::new(&[]).await;
    let request = m::api_versions_request::ApiVersionsRequest {
        client_software_name: Str::from("no spaces"),
        client_software_version: Str::from("1"),
        ..Default::default()
    };
    assert_eq!(test.connect().call(3, &request).await.error_code, 42);
}

#[tokio::test(start_paused = true)]
async fn lengths_that_lie_close_the_connection() {
    let test = Test::new(&[("socket.request.max.bytes", "100000")]).await;
    test.connect().create("t", 1, &[]).await;
    for length in [-1i32, 0, 3, 7, 100_001, i32::MAX, i32::MIN] {
        let mut client = test.connect();
        client.stream.write_all(&length.to_be_bytes()).await.unwrap();
        assert!(is_closed(&mut client).await, "length {length}");
    }
    is_healthy(&test).await;
}

#[tokio::test(start_paused = true)]
async fn truncated_and_mangled_requests_harm_nobody() {
    let test = Test::new(&[]).await;
    test.connect().create("t", 2, &[]).await;
    let mut samples: Vec<Vec<u8>> = Vec::new();
    for version in [3, 9, 13] {
        let request = produce_request("t", 0, batch(&["a", "b"]), -1);
        let request = m::produce_request::ProduceRequest {
            topic_data: if version >= 13 {
                Vec::new()
            } else {
                request.topic_data.clone()
            },
            ..request
        };
        samples.push(
            frame::request(&request, version, 1, Some("c"))
                .unwrap()
                .into_bytes()[4..]
                .to_vec(),
        );
    }
    for version in [4, 12] {
        let request = fetch_request("t", &[(0, 0), (1, 0)], 0, 0);
        samples.push(
            frame::request(&request, version, 1, Some("c"))
                .unwrap()
                .into_bytes()[4..]
                .to_vec(),
        );
    }
    // Plenty of zero bytes are a request of almost every API.
    for api in APIS {
        for version in api.min..=api.max {
            let mut body = header(api.key.as_i16(), version, 1);
            body.extend_from_slice(&[0; 64]);
            samples.push(body);
        }
    }
    for sample in &samples {
        for cut in (0..sample.len()).step_by(3) {
            let mut client = test.connect();
            send_raw(&mut client, &sample[..cut]).await;
            drop(client);
        }
        for at in (8..sample.len()).step_by(2) {
            let mut mangled = sample.clone();
            mangled[at] ^= 0xff;
            let mut client = test.connect();
            send_raw(&mut client, &mangled).await;
            drop(client);
        }
    }
    is_healthy(&test).await;
}

/// The body of a request with default values, as Kafka's own classes write it.
fn default_body(key: ApiKey, version: i16) -> Option<&'static [u8]> {
    let mut vectors: &'static [u8] = include_bytes!("../../../wire/tests/vectors/defaults.bin");
    // Kind (0 is a request), API key, version, flags, length.
    while let Some((head, rest)) = vectors.split_first_chunk::<10>() {
        let length = u32::from_be_bytes([head[6], head[7], head[8], head[9]]) as usize;
        let (body, rest) = rest.split_at(length);
        let of = |at: usize| i16::from_be_bytes([head[at], head[at + 1]]);
        if (head[0], of(1), of(3)) == (0, key.as_i16(), version) {
            return Some(body);
        }
        vectors = rest;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_a_request_are_ignored_on_every_api() {
    let test = Test::new(&[]).await;
    let mut tried = 0;
    for api in APIS {
        for version in api.served_from..=api.max {
            // Kafka has dropped the oldest versions of two APIs, so there are no bodies of theirs.
            let Some(body) = default_body(api.key, version) else {
                continue;
            };
            let mut frame = header(api.key.as_i16(), version, 1);
            if api.key.is_flexible(version) {
                frame.push(0);
            }
            frame.extend_from_slice(body);
            frame.extend_from_slice(&[0xde, 0xad, 0xff]);
            let mut client = test.connect();
            send_raw(&mut client, &frame).await;
            // A default Produce has acks=0 and no answer: another request shows that the connection lives.
            send_raw(&mut client, &header(18, 0, 2)).await;
            let answered = if api.key == ApiKey::Produce { 2 } else { 1 };
            let answer = client.frame().await;
            let answer = answer.unwrap_or_else(|| panic!("{} version {version} closed", api.key));
            assert_eq!(answer[..4], [0, 0, 0, answered], "{} version {version}", api.key);
            tried += 1;
        }
    }
    assert!(tried > 120, "{tried} versions");
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let mut ids = Vec::new();
    for round in 0..50 {
        let acks = if round % 2 == 0 { -1 } else { 1 };
        ids.push((
            'p',
            client
                .send(9, &produce_request("t", 0, batch(&["x"]), acks))
                .await,
        ));
        if round % 10 == 0 {
            let request = m::metadata_request::MetadataRequest::default();
            ids.push(('m', client.send(9, &request).await));
        }
    }
    let mut next = 0;
    for (kind, id) in ids {
        if kind == 'm' {
            client
                .receive::<m::metadata_request::MetadataRequest>(9, id)
                .await;
            continue;
        }
        let answer = client.receive::<m::produce_request::ProduceRequest>(9, id).await;
        let part = &answer.responses[0].partition_responses[0];
        assert_eq!(
            (part.error_code, part.base_offset),
            (0, next),
            "appends keep the order of the requests"
        );
        next += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_pins_little_and_gets_everything() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let big = "x".repeat(700_000);
    assert_eq!(client.produce("t", 0, batch(&[&big])).await.0, 0);
    let mut slow = test.connect();
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(slow.send(11, &fetch_request("t", &[(0, 0)], 0, 1)).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_, pinned) = test.broker.connection_memory();
    assert!(
        pinned > 0 && pinned < 8 << 20,
        "{pinned} bytes wait for a client that does not read"
    );
    for id in ids {
        let answer = slow.receive::<m::fetch_request::FetchRequest>(11, id).await;
        assert!(answer.responses[0].partitions[0].records.as_ref().unwrap().len() > 700_000);
    }
    // Buffers of quiet connections are given back.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(test.broker.connection_memory(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_cut_off() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let big = "x".repeat(900_000);
    assert_eq!(client.produce("t", 0, batch(&[&big])).await.0, 0);
    let mut stuck = test.connect();
    stuck.send(11, &fetch_request("t", &[(0, 0)], 0, 1)).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let mut rest = Vec::new();
    stuck.stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < 900_000, "the connection was closed in mid-answer");
    is_healthy(&test).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let test = Test::new(&[("connections.max.idle.ms", "60000")]).await;
    let mut idle = test.connect();
    let began = tokio::time::Instant::now();
    assert!(is_closed(&mut idle).await);
    let waited = began.elapsed().as_secs();
    assert!((60..65).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_its_long_poll() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let mut waiting = test.connect();
    waiting
        .send(11, &fetch_request("t", &[(0, 0)], i32::MAX, 1))
        .await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(waiting);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let open = test
        .broker
        .shared()
        .metrics
        .connections
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(open, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_pieces_is_a_request() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let request = m::metadata_request::MetadataRequest::default();
    let bytes: Bytes = frame::request(&request, 9, 77, None).unwrap().into_bytes();
    for piece in bytes.chunks(3) {
        client.stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    client
        .receive::<m::metadata_request::MetadataRequest>(9, 77)
        .await;
}
