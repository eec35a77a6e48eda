//! The hand-written parts: strings, ids, records, tags, headers, frames, the registry.

use bytes::{BufMut, Bytes, BytesMut};
use drumlin_wire::header::HeaderError;
use drumlin_wire::messages::api_versions_request::ApiVersionsRequest;
use drumlin_wire::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use drumlin_wire::messages::fetch_request::FetchRequest;
use drumlin_wire::messages::fetch_response::{FetchResponse, NodeEndpoint};
use drumlin_wire::messages::metadata_request::MetadataRequest;
use drumlin_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use drumlin_wire::messages::offset_fetch_request::OffsetFetchRequest;
use drumlin_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use drumlin_wire::messages::produce_response::ProduceResponse;
use drumlin_wire::registry::{self, Route};
use drumlin_wire::{
    ApiKey, DecodeError, EncodeError, Message, Records, RequestHeader, ResponseHeader, Str, UnknownTags,
    Uuid, Writer, frame,
};

#[test]
fn uuids_print_and_parse_as_kafkas() {
    // By Java: new Uuid(0x0123456789abcdefL, 0xfedcba9876543210L), Uuid.METADATA_TOPIC_ID, Uuid.ZERO_UUID.
    let id = Uuid::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    assert_eq!(id.to_string(), "ASNFZ4mrze_-3LqYdlQyEA");
    assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!("ASNFZ4mrze_-3LqYdlQyEA".parse(), Ok(id));
    assert_eq!("ASNFZ4mrze_-3LqYdlQyEA==".parse(), Ok(id));
    for wrong in [
        "",
        "A",
        "ASNFZ4mrze_-3LqYdlQyE",
        "ASNFZ4mrze_-3LqYdlQyEAA",
        "ASNFZ4mrze/-3LqYdlQyEA",
        "é",
    ] {
        assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
    }
    let mut bytes = [0u8; 16];
    for i in 0..1000u32 {
        bytes.rotate_left(3);
        bytes[0] = bytes[0].wrapping_mul(31).wrapping_add(i as u8);
        assert_eq!(Uuid(bytes).to_string().parse(), Ok(Uuid(bytes)));
    }
    assert_eq!(
        Uuid::from_random([62 << 2; 16]),
        None,
        "it would print with a leading dash"
    );
    assert!(Uuid::from_random([1; 16]).is_some());
}

#[test]
fn bad_utf8_is_replaced_as_java_does() {
    let mut body = BytesMut::new();
    body.put_i16(18);
    body.put_i16(1);
    body.put_i32(5);
    body.put_i16(4);
    body.put_slice(b"caf\xe9");
    let (header, rest) = RequestHeader::parse(&body.freeze()).unwrap();
    assert_eq!(header.client_id, Some("caf\u{fffd}".into()));
    assert!(rest.is_empty());
    // By Java: new String(bytes, UTF_8). An encoded surrogate is one malformed sequence there.
    for (bytes, text) in [
        (&b"a\xed\xa0\x80b"[..], "a\u{fffd}b"),
        (b"\xed\xbf\xbf\xed\xa0", "\u{fffd}\u{fffd}"),
        (b"\xed\xa0A\xedB", "\u{fffd}A\u{fffd}B"),
        (b"\xe0\x80\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xf0\x90\x80", "\u{fffd}"),
        (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xc0\xafok", "\u{fffd}\u{fffd}ok"),
    ] {
        assert_eq!(Str::from_utf8_lossy(bytes), *text, "{bytes:?}");
    }
    // The longest client id fits, however bad.
    let frame = [&[0, 18, 0, 1, 0, 0, 0, 5, 0x7f, 0xff][..], &[0xff; 0x7fff]].concat();
    let (header, _) = RequestHeader::parse(&Bytes::from(frame)).unwrap();
    assert_eq!(header.client_id.map(|id| id.len()), Some(3 * 0x7fff));
}

#[test]
fn strings_share_their_frame_until_detached() {
    let frame = Bytes::from_static(b"topic");
    let name = Str::from_utf8(frame.clone()).unwrap();
    assert_eq!(name.as_bytes().as_ptr(), frame.as_ptr());
    assert_ne!(name.detach().as_bytes().as_ptr(), frame.as_ptr());
    let map = std::collections::HashMap::from([(name, 1)]);
    assert_eq!(map.get("topic"), Some(&1));
}

#[test]
fn records_in_pieces_are_one_field() {
    let large = Bytes::from(vec![1u8; 5000]);
    let small = Bytes::from_static(&[2; 10]);
    let records: Records = [large.clone(), small.clone(), large.clone(), Bytes::new()]
        .into_iter()
        .collect();
    assert_eq!((records.len(), records.pieces().len()), (10_010, 4));
    let mut w = Writer::new();
    w.i8(9);
    w.records(&records, false).unwrap();
    w.i8(8);
    let segments = w.into_segments();
    let lens: Vec<_> = segments.iter().map(Bytes::len).collect();
    assert_eq!(lens, [5, 5000, 10, 5000, 1]);
    assert_eq!(segments[1].as_ptr(), large.as_ptr());
    let whole = Records::from(segments).into_bytes();
    assert_eq!(whole[1..5], 10_010i32.to_be_bytes());
    assert_eq!(Records::from(whole.slice(5..10_015)), records);
    assert_eq!(Records::default(), Records::from(Vec::new()));
}

#[test]
fn unknown_tags_are_merged_in_order() {
    // FetchResponse 17 knows tag 0 at the top level; the others come around it.
    let mut response = FetchResponse {
        node_endpoints: vec![NodeEndpoint {
            node_id: 1,
            host: "h".into(),
            port: 9,
            ..Default::default()
        }],
        ..Default::default()
    };
    response.unknown.push(3, Bytes::from_static(b"three"));
    response.unknown.push(200, Bytes::from_static(&[7; 300]));
    let bytes = response.to_bytes(17).unwrap();
    let again = FetchResponse::decode_exact(&bytes, 17).unwrap();
    assert_eq!(again, response);
    assert_eq!(again.unknown.as_slice().len(), 2);

    let mut known = UnknownTags::default();
    known.push(0, Bytes::new());
    let clash = FetchResponse {
        unknown: known,
        ..response.clone()
    };
    assert_eq!(clash.to_bytes(17).err(), Some(EncodeError::KnownTag(0)));
    // Out of order and with one of them twice, as a peer may send them: the last one counts.
    let mut mixed = UnknownTags::default();
    for (tag, data) in [(200, &[7; 300][..]), (3, b"once"), (3, b"three")] {
        mixed.push(tag, Bytes::from_static(data));
    }
    let mixed = FetchResponse {
        unknown: mixed,
        ..response
    };
    assert_eq!(mixed.to_bytes(17), Ok(bytes));
}

/// FetchRequest 17 without partitions, and with this section of tagged fields.
fn fetch_with_tags(section: &[u8]) -> Result<FetchRequest, DecodeError> {
    let plain = FetchRequest::default()
        .to_bytes(17)
        .expect("an encodable request");
    let body = [&plain[..plain.len() - 1], section].concat();
    FetchRequest::decode_exact(&Bytes::from(body), 17)
}

#[test]
fn tagged_fields_are_taken_in_any_order_and_again() {
    // Tag 0 is the cluster's id, tag 1 the replica's state: id (4 bytes), epoch (8 bytes), no tagged fields.
    let state = |id: u8| [&[1, 13, 0, 0, 0, id][..], &[0; 8], &[0]].concat();
    let cluster = |id: u8| [0, 2, 2, id].to_vec();
    let unknown = [9, 1, 0xee].to_vec();
    let section = |fields: &[Vec<u8>]| [&[fields.len() as u8][..], &fields.concat()].concat();
    let in_order = fetch_with_tags(&section(&[cluster(b'c'), state(7), unknown.clone()])).unwrap();
    assert_eq!(in_order.cluster_id, Some("c".into()));
    assert_eq!(in_order.replica_state.replica_id, 7);
    assert_eq!(in_order.unknown.as_slice().len(), 1);
    let descending = section(&[unknown, state(7), cluster(b'c')]);
    assert_eq!(fetch_with_tags(&descending), Ok(in_order.clone()));
    let again = section(&[state(1), cluster(b'x'), vec![9, 1, 0xee], cluster(b'c'), state(7)]);
    assert_eq!(fetch_with_tags(&again), Ok(in_order));
}

#[test]
fn sizes_of_known_tagged_fields_are_not_looked_at() {
    for size in [0, 1, 2, 3, 100] {
        let request = fetch_with_tags(&[1, 0, size, 2, b'c']).unwrap();
        assert_eq!(request.cluster_id, Some("c".into()), "size {size}");
    }
    // That of an unknown one is all that is known of it.
    assert_eq!(fetch_with_tags(&[1, 9, 2, 1]).err(), Some(DecodeError::Truncated));
    // A count that is negative in 32 bits stands for none.
    assert!(fetch_with_tags(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_ok());
}

#[test]
fn tags_of_other_versions_are_refused() {
    let request = FetchRequest::default().to_bytes(14).unwrap();
    let body = [&request[..request.len() - 1], &[1, 1, 13], &[0; 13]].concat();
    let decoded = FetchRequest::decode(&Bytes::from(body), 14);
    assert_eq!(decoded.err(), Some(DecodeError::TagVersion(1)));
}

#[test]
fn every_negative_length_is_null() {
    for len in [-1i32, -2, i32::MIN] {
        let body = Bytes::from([&len.to_be_bytes()[..], &[1]].concat());
        assert_eq!(MetadataRequest::decode(&body, 4).unwrap().topics, None, "{len}");
    }
    // The same in the compact encoding, which adds one: 0x8000_0001 stands for -2^31.
    for len in [
        &[0][..],
        &[0x81, 0x80, 0x80, 0x80, 0x08],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
    ] {
        let body = Bytes::from([len, &[1, 0, 0]].concat());
        assert_eq!(
            MetadataRequest::decode(&body, 12).unwrap().topics,
            None,
            "{len:?}"
        );
    }
    for len in [-1i16, -2, i16::MIN] {
        let frame = [&[0, 18, 0, 0, 0, 0, 0, 1][..], &len.to_be_bytes()].concat();
        let (header, _) = RequestHeader::parse(&Bytes::from(frame)).unwrap();
        assert_eq!(header.client_id, None, "{len}");
    }
}

#[test]
fn bytes_behind_a_request_are_ignored() {
    // All topics, as librdkafka 2.3 to 2.16 asks for them: null takes one byte, and it writes four.
    // In version 9, which has a field more, two of the three are taken for a tagged field.
    for (version, left) in [(9, 1), (12, 3), (13, 3)] {
        let operations: &[u8] = if version < 11 { &[0, 0] } else { &[0] };
        let body = Bytes::from([&[0, 0, 0, 0, 1][..], operations, &[0]].concat());
        let request = MetadataRequest::decode(&body, version).unwrap();
        assert_eq!(request.topics, None, "version {version}");
        let exact = MetadataRequest::decode_exact(&body, version);
        assert_eq!(
            exact.err(),
            Some(DecodeError::Trailing(left)),
            "version {version}"
        );
    }
}

#[test]
fn long_tagged_fields_have_their_sizes_in_front() {
    // A known tagged field longer than 127, and than 16,383, bytes needs a size of two, and three, bytes.
    for hosts in [1, 4, 40, 4000] {
        let endpoint = NodeEndpoint {
            host: "x".repeat(30).into(),
            ..Default::default()
        };
        let mut response = FetchResponse {
            node_endpoints: vec![endpoint; hosts],
            ..Default::default()
        };
        response.unknown.push(9, Bytes::from_static(b"after"));
        assert_eq!(
            FetchResponse::decode(&response.to_bytes(18).unwrap(), 18),
            Ok(response)
        );
    }
}

#[test]
fn varints_are_bounded() {
    for (bytes, value) in [
        (&[0x00][..], Ok(0)),
        (&[0x80, 0x01], Ok(128)),
        (&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX)),
        (&[0x80, 0x80, 0x80, 0x80, 0x00], Ok(0)),
        // Kafka drops the bits for which there is no room.
        (&[0x81, 0x80, 0x80, 0x80, 0x70], Ok(1)),
        (&[0xff, 0xff, 0xff, 0xff, 0x7f], Ok(u32::MAX)),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Err(DecodeError::Varint)),
        (&[0xff], Err(DecodeError::Truncated)),
    ] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert_eq!(drumlin_wire::Reader::new(&bytes, 0).uvarint(), value, "{bytes:?}");
    }
}

#[test]
fn headers_go_both_ways() {
    let request = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    for version in [1, 9] {
        let frame = frame::request(&request, version, 77, Some("me")).unwrap();
        let bytes = frame.clone().into_bytes();
        let prefix = *bytes.first_chunk::<4>().unwrap();
        assert_eq!(frame::length(prefix, 1 << 20), Ok(frame.len - 4));
        let (header, body) = RequestHeader::parse(&bytes.slice(4..)).unwrap();
        assert_eq!((header.api_key, header.api_version), (ApiKey::Metadata, version));
        assert_eq!((header.correlation_id, header.client_id), (77, Some("me".into())));
        assert_eq!(MetadataRequest::decode(&body, version).unwrap().topics, None);
    }
    let unknown = Bytes::from_static(&[0x03, 0xe7, 0, 1, 0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(
        RequestHeader::parse(&unknown),
        Err(HeaderError::UnknownApi { key: 999, version: 1 })
    );
}

#[test]
fn headers_of_unknown_versions_are_kafkas() {
    // All versions of WriteTxnMarkers are flexible, and only the newer ones of Metadata.
    for (api, version, header) in [
        (ApiKey::WriteTxnMarkers, 0, 2),
        (ApiKey::WriteTxnMarkers, i16::MIN, 2),
        (ApiKey::Metadata, i16::MIN, 1),
        (ApiKey::Metadata, i16::MAX, 2),
    ] {
        assert_eq!(api.request_header_version(version), header, "{api} {version}");
        assert_eq!(
            api.response_header_version(version),
            header - 1,
            "{api} {version}"
        );
    }
}

#[test]
fn api_versions_of_the_future_can_be_answered() {
    // Version 127, with a body that nobody can read.
    let mut bytes = BytesMut::new();
    bytes.put_i16(18);
    bytes.put_i16(127);
    bytes.put_i32(5);
    bytes.put_i16(-1);
    bytes.put_slice(&[0, 0xff, 0xff, 0xff]);
    let (header, _) = RequestHeader::parse(&bytes.freeze()).unwrap();
    assert_eq!(
        registry::route(header.api_key, header.api_version),
        Route::ApiVersionsFallback
    );
    let api = registry::find(ApiKey::ApiVersions).unwrap();
    let answer = ApiVersionsResponse {
        error_code: 35,
        api_keys: vec![ApiVersion {
            api_key: api.key.as_i16(),
            min_version: api.min,
            max_version: api.max,
            ..Default::default()
        }],
        ..Default::default()
    };
    let bytes = frame::response(&answer, 0, 5).unwrap().into_bytes();
    assert_eq!(&bytes[4..], [0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    // And the header stays in version 0 for the flexible versions.
    let bytes = frame::response(&ApiVersionsResponse::default(), 3, 6)
        .unwrap()
        .into_bytes();
    assert_eq!(&bytes[4..], [0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0, 0]);
    let (header, body) = ResponseHeader::parse(&bytes.slice(4..), ApiKey::ApiVersions, 3).unwrap();
    assert_eq!(header.correlation_id, 6);
    assert!(ApiVersionsResponse::decode(&body, 3).is_ok());
    assert!(ApiVersionsRequest::default().to_bytes(5).is_err());
}

#[test]
fn legacy_produce_can_be_read_and_answered() {
    let request = ProduceRequest {
        acks: 1,
        topic_data: vec![TopicProduceData {
            name: "t".into(),
            partition_data: vec![PartitionProduceData {
                records: Some(Records::from(Bytes::from_static(b"legacy"))),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in 0..3 {
        assert_eq!(registry::route(ApiKey::Produce, version), Route::Unsupported);
        assert_eq!(ApiKey::Produce.request_header_version(version), 1);
        let bytes = request.to_bytes(version).unwrap();
        assert_eq!(&bytes[..6], [0, 1, 0, 0, 0, 0], "acks and timeout stand first");
        assert_eq!(ProduceRequest::decode(&bytes, version), Ok(request.clone()));
    }
    let throttled = ProduceResponse {
        throttle_time_ms: 1,
        ..Default::default()
    };
    assert_eq!(
        throttled.to_bytes(0).unwrap().len(),
        4,
        "version 0 has no throttle time"
    );
    assert_eq!(throttled.to_bytes(1).unwrap().len(), 8);
    assert_eq!(FetchRequest::default().to_bytes(0).unwrap().len(), 4 + 4 + 4 + 4);
}

/// As the protocol guide of Kafka 0.9 lays them out.
#[test]
fn legacy_offsets_can_be_read_and_answered() {
    let group = b"\0\x01g";
    let member = b"\0\0\0\x07\0\x01m";
    let topic = b"\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x02";
    let offset = b"\0\0\0\0\0\0\x01\0";
    let at = b"\0\0\x01\x8b\xcf\xe5\x68\0";
    let note = b"\0\x04note";
    let commit = |generation, member: &str, timestamp| OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 2,
                committed_offset: 256,
                commit_timestamp: timestamp,
                committed_metadata: Some("note".into()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let (v0, v1) = (commit(-1, "", -1), commit(7, "m", 1_700_000_000_000));
    let bytes = |parts: &[&[u8]]| Bytes::from(parts.concat());
    let body = bytes(&[group, topic, offset, note]);
    assert_eq!(v0.to_bytes(0).unwrap(), body);
    assert_eq!(OffsetCommitRequest::decode(&body, 0), Ok(v0));
    let body = bytes(&[group, member, topic, offset, at, note]);
    assert_eq!(v1.to_bytes(1).unwrap(), body);
    assert_eq!(OffsetCommitRequest::decode(&body, 1), Ok(v1.clone()));
    // A time of the commit is in version 1 alone.
    for version in [0, 2, 10] {
        let refused = EncodeError::Field {
            field: "CommitTimestamp",
            version,
        };
        assert_eq!(v1.to_bytes(version).err(), Some(refused));
    }
    // A null topic stands for all from OffsetFetch 2 on.
    let body = bytes(&[group, topic]);
    let fetch = OffsetFetchRequest::decode(&body, 0).unwrap();
    assert_eq!(fetch.topics.as_ref().unwrap()[0].partition_indexes, [2]);
    assert_eq!(fetch.to_bytes(0).unwrap(), body);
    let all = bytes(&[group, &[0xff; 4]]);
    assert_eq!(OffsetFetchRequest::decode(&all, 0).err(), Some(DecodeError::Null));
    assert!(OffsetFetchRequest::decode(&all, 2).is_ok());
    let answered = OffsetFetchResponse {
        throttle_time_ms: 1,
        error_code: 16,
        topics: vec![OffsetFetchResponseTopic {
            name: "t".into(),
            partitions: vec![OffsetFetchResponsePartition {
                partition_index: 2,
                committed_offset: 256,
                metadata: Some("note".into()),
                error_code: 3,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(
        answered.to_bytes(0).unwrap(),
        bytes(&[topic, offset, note, b"\0\x03"]),
        "neither throttle time nor an error of the whole"
    );
}

#[test]
fn what_a_version_cannot_say_is_refused() {
    let request = ProduceRequest {
        transactional_id: Some("tx".into()),
        ..Default::default()
    };
    let refused = EncodeError::Field {
        field: "TransactionalId",
        version: 2,
    };
    assert_eq!(request.to_bytes(2).err(), Some(refused));
    assert_eq!(
        MetadataRequest {
            topics: None,
            ..Default::default()
        }
        .to_bytes(0)
        .err(),
        Some(EncodeError::Null("Topics"))
    );
    let long = ProduceRequest {
        transactional_id: Some("x".repeat(40_000).into()),
        ..Default::default()
    };
    assert_eq!(long.to_bytes(3).err(), Some(EncodeError::TooLong));
    assert_eq!(long.to_bytes(9).err(), Some(EncodeError::TooLong));
}

#[test]
fn the_registry_routes() {
    assert_eq!(registry::route(ApiKey::Produce, 13), Route::Serve);
    assert_eq!(registry::route(ApiKey::Produce, 14), Route::Refuse);
    assert_eq!(registry::route(ApiKey::Produce, -1), Route::Refuse);
    assert_eq!(registry::route(ApiKey::Fetch, 3), Route::Refuse);
    assert_eq!(registry::route(ApiKey::Envelope, 0), Route::Refuse);
    assert_eq!(
        registry::route(ApiKey::ApiVersions, -1),
        Route::ApiVersionsFallback
    );
    for api in registry::APIS {
        assert_eq!(registry::find(api.key), Some(api));
        assert!((api.served_from..=api.max).all(|v| registry::route(api.key, v) == Route::Serve));
    }
}
