//! OffsetCommit 0 and 1 and OffsetFetch 0, which Kafka 4 has dropped and clients still send: byte for byte.

use bytes::Bytes;
use drumlin_wire::messages as m;
use drumlin_wire::{ApiKey, ResponseHeader};
use tokio::io::AsyncWriteExt;

use crate::groups::{committed, loaded};
use crate::harness::*;

/// Sends a request of these bytes; the body of the answer, or nothing where the connection was closed.
async fn raw(client: &mut Client, key: ApiKey, version: i16, body: &[&[u8]]) -> Option<Bytes> {
    // Correlation id 77, no client id.
    let header = [
        key.as_i16().to_be_bytes(),
        version.to_be_bytes(),
        [0, 0],
        [0, 77],
        [0xff, 0xff],
    ];
    let frame = [header.concat(), body.concat()].concat();
    client
        .stream
        .write_i32(i32::try_from(frame.len()).unwrap())
        .await
        .unwrap();
    client.stream.write_all(&frame).await.unwrap();
    let answer = client.frame().await?;
    let (header, body) = ResponseHeader::parse(&answer, key, version).unwrap();
    assert_eq!(header.correlation_id, 77);
    Some(body)
}

/// The topic `t`, one partition, 0.
const T0: &[u8] = b"\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0";
const GROUP: &[u8] = b"\0\x01g";
const NOTE: &[u8] = b"\0\x04note";

fn offset(n: u8) -> [u8; 8] {
    [0, 0, 0, 0, 0, 0, 0, n]
}

async fn test() -> (Test, Client) {
    let test = Test::new(&[("offsets.topic.num.partitions", "1")]).await;
    let mut client = test.connect();
    client.create("t", 2, &[]).await;
    (test, client)
}

#[tokio::test(start_paused = true)]
async fn offsets_of_every_version_are_the_same_offsets() {
    let (test, mut client) = test().await;
    let none = b"\0\x03";
    // What nobody has committed was no node in ZooKeeper: UNKNOWN_TOPIC_OR_PARTITION to version 0, no error later.
    let asked = [GROUP, T0];
    let nothing = [T0, &[0xff; 8], b"\0\0", none].concat();
    let fetched = raw(&mut client, ApiKey::OffsetFetch, 0, &asked).await;
    assert_eq!(fetched.unwrap(), nothing);
    let nothing = [T0, &[0xff; 8], b"\0\0", b"\0\0"].concat();
    let fetched = raw(&mut client, ApiKey::OffsetFetch, 1, &asked).await;
    assert_eq!(fetched.unwrap(), nothing);
    // Version 0 has neither generation nor member; 1 has both, and a time.
    let simple = b"\xff\xff\xff\xff\0\0";
    let old = [GROUP, T0, &offset(5), NOTE];
    let timed = [GROUP, simple, T0, &offset(6), b"\0\0\x01\x8b\xcf\xe5\x68\0", NOTE];
    let now = [GROUP, simple, T0, &offset(7), &[0xff; 8], NOTE];
    for (version, body, n) in [
        (0, &old[..], 5),
        (1, &timed[..], 6),
        (1, &now[..], 7),
        (0, &old[..], 5),
    ] {
        let done = raw(&mut client, ApiKey::OffsetCommit, version, body).await;
        assert_eq!(done.unwrap(), [T0, b"\0\0"].concat(), "version {version}");
        for version in [0, 1] {
            let fetched = raw(&mut client, ApiKey::OffsetFetch, version, &asked).await;
            assert_eq!(fetched.unwrap(), [T0, &offset(n), NOTE, b"\0\0"].concat());
        }
        assert_eq!(committed(&mut client, "g").await, Ok(i64::from(n)));
    }
    // They are records of the topic as all others.
    let test = Test::on(test.kill(), &[]).await;
    assert_eq!(loaded(&mut test.connect(), "g").await, 5);
    assert_eq!(panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_partition_has_its_error() {
    let (test, mut client) = test().await;
    let two = b"\0\0\0\x01\0\x01t\0\0\0\x02";
    let (first, ninth) = (b"\0\0\0\0", b"\0\0\0\x09");
    let body: [&[u8]; 8] = [
        GROUP,
        two,
        first,
        &offset(1),
        b"\xff\xff",
        ninth,
        &offset(1),
        NOTE,
    ];
    let done = raw(&mut client, ApiKey::OffsetCommit, 0, &body).await.unwrap();
    assert_eq!(done, [&two[..], first, b"\0\0", ninth, b"\0\x03"].concat());
    // A group with a member takes no offset from somebody who is none: version 0 cannot be one.
    let join = crate::groups::join("busy", &"".into(), 10_000);
    let joined = client.call(3, &join).await;
    assert_eq!(joined.error_code, 0);
    let body = [b"\0\x04busy", T0, &offset(1), NOTE];
    let done = raw(&mut client, ApiKey::OffsetCommit, 0, &body).await.unwrap();
    assert_eq!(done, [T0, b"\0\x19"].concat());
    // And takes them from its member, in its generation, once that has begun.
    let sync = m::sync_group_request::SyncGroupRequest {
        group_id: "busy".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    assert_eq!(client.call(3, &sync).await.error_code, 0);
    let member = joined.member_id.as_bytes();
    let length = u16::try_from(member.len()).unwrap().to_be_bytes();
    for (generation, code) in [(1u32, b"\0\0"), (2, b"\0\x16")] {
        let by = [&generation.to_be_bytes()[..], &length, member].concat();
        let body = [b"\0\x04busy", &by[..], T0, &offset(1), &[0xff; 8], NOTE];
        let done = raw(&mut client, ApiKey::OffsetCommit, 1, &body).await.unwrap();
        assert_eq!(done, [T0, code].concat(), "generation {generation}");
    }
    assert_eq!(panics(), 0);
    drop(test);
}

/// Each cut, each lying count and length: an answer or the end of the connection, and nobody else notices.
#[tokio::test(start_paused = true)]
async fn mangled_requests_harm_nobody() {
    let (test, mut healthy) = test().await;
    let simple = b"\xff\xff\xff\xff\0\0";
    let bodies = [
        (ApiKey::OffsetCommit, 0, [GROUP, T0, &offset(5), NOTE].concat()),
        (
            ApiKey::OffsetCommit,
            1,
            [GROUP, simple, T0, &offset(6), &[0xff; 8], NOTE].concat(),
        ),
        (ApiKey::OffsetFetch, 0, [GROUP, T0].concat()),
    ];
    for (key, version, body) in bodies {
        for cut in 0..body.len() {
            let mut client = test.connect();
            let answer = raw(&mut client, key, version, &[&body[..cut]]).await;
            assert_eq!(answer, None, "{key} {version} cut at {cut}");
        }
        // Bytes behind the end are ignored.
        let longer = [&body[..], b"\0"].concat();
        let answer = raw(&mut test.connect(), key, version, &[&body]).await;
        assert!(answer.is_some(), "{key} {version}");
        assert_eq!(raw(&mut test.connect(), key, version, &[&longer]).await, answer);
        for at in 0..body.len() - 4 {
            for claim in [
                [0x7f, 0xff, 0xff, 0xff],
                [0xff; 4],
                [0x80, 0, 0, 0],
                [0, 0x0f, 0xff, 0xff],
            ] {
                let mut lying = body.clone();
                lying[at..at + 4].copy_from_slice(&claim);
                let answer = raw(&mut test.connect(), key, version, &[&lying]).await;
                let size = answer.map_or(0, |answer| answer.len());
                assert!(
                    size <= 2 * body.len(),
                    "{key} {version}: {size} bytes for {}",
                    body.len()
                );
            }
        }
    }
    let versions = m::api_versions_request::ApiVersionsRequest::default();
    assert_eq!(healthy.call(0, &versions).await.error_code, 0);
    assert_eq!(panics(), 0);
}
