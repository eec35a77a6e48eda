//! Answers of groups that Apache Kafka 4.3.1 gives in just this form: both were asked the same, at random.

use drumlin_broker::error_code::ErrorCode;
use drumlin_wire::Str;
use drumlin_wire::messages as m;

use crate::groups::join;
use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn a_join_that_fails_names_no_protocol() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let whole = join("g", &Str::default(), 10_000);
    let mut cases = vec![(ErrorCode::MemberIdRequired, whole.clone())];
    let mut case = |code, change: &dyn Fn(&mut m::join_group_request::JoinGroupRequest)| {
        let mut request = whole.clone();
        change(&mut request);
        cases.push((code, request));
    };
    case(ErrorCode::InvalidGroupId, &|r| r.group_id = Str::default());
    case(ErrorCode::InvalidSessionTimeout, &|r| r.session_timeout_ms = 1);
    case(ErrorCode::UnknownMemberId, &|r| r.member_id = Str::from("bogus"));
    case(ErrorCode::InconsistentGroupProtocol, &|r| r.protocols.clear());
    for (code, request) in cases {
        // Before version 7 there is no null in its place.
        for (version, name) in [(5, Some("")), (6, Some("")), (7, None), (9, None)] {
            let answer = client.call(version, &request).await;
            let told = (
                answer.error_code,
                answer.protocol_name.as_deref(),
                answer.generation_id,
            );
            assert_eq!(told, (code.code(), name, -1), "version {version}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_of_version_5_names_its_protocol() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    let names = [None, Some(Str::from("consumer"))];
    for (kind, name) in names
        .iter()
        .flat_map(|kind| names.iter().map(move |name| (kind, name)))
    {
        let request = m::sync_group_request::SyncGroupRequest {
            group_id: Str::from("g"),
            generation_id: 1,
            member_id: Str::from("nobody"),
            protocol_type: kind.clone(),
            protocol_name: name.clone(),
            ..Default::default()
        };
        let code = match (kind, name) {
            (Some(_), Some(_)) => ErrorCode::UnknownMemberId,
            _ => ErrorCode::InconsistentGroupProtocol,
        };
        assert_eq!(client.call(5, &request).await.error_code, code.code());
    }
    let unnamed = m::sync_group_request::SyncGroupRequest {
        group_id: Str::from("g"),
        ..Default::default()
    };
    let code = ErrorCode::UnknownMemberId.code();
    assert_eq!(client.call(4, &unnamed).await.error_code, code);
}

/// Whoever leaves without saying who it is was no member, of a group of either protocol.
#[tokio::test(start_paused = true)]
async fn nobody_leaves_no_group() {
    let test = Test::new(&[]).await;
    let mut client = test.connect();
    client.create("t", 1, &[]).await;
    let joins = m::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest {
        group_id: Str::from("new"),
        member_id: Str::from("AAAAAAAAAAAAAAAAAAAAAQ"),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![Str::from("t")]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    assert_eq!(client.call(1, &joins).await.error_code, 0);
    let first = client.call(3, &join("old", &Str::default(), 10_000)).await;
    assert_eq!(first.error_code, 0);
    for group in ["new", "old", "none"] {
        for version in 0..=5 {
            let mut request = m::leave_group_request::LeaveGroupRequest {
                group_id: Str::from(group),
                ..Default::default()
            };
            if version >= 3 {
                request.members.push(Default::default());
            }
            let answer = client.call(version, &request).await;
            let member = answer.members.first().map_or(answer.error_code, |m| m.error_code);
            assert_eq!(member, ErrorCode::UnknownMemberId.code(), "{group} {version}");
            assert_eq!(answer.error_code == 0, version >= 3);
        }
    }
    assert_eq!(panics(), 0);
}
