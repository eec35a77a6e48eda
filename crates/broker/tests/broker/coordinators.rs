//! Group coordinators that must not be believed: deposed ones, and snapshots that are not what they say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drumlin_broker::config::BrokerConfig;
use drumlin_broker::error_code::ErrorCode;
use drumlin_broker::{Broker, ExitReason};
use drumlin_coordinator::{GroupConfig, Shard};
use drumlin_log::SnapshotName;
use drumlin_objects::fault::{FaultStore, Faults, Latency};
use drumlin_objects::object_store::ObjectStoreExt;
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::object_store::path::Path;
use drumlin_objects::stats::Operation;
use drumlin_objects::{Bucket, BucketKind, Env, Reason};
use drumlin_wire::coordinator_records::offset_commit_key::OffsetCommitKey;
use drumlin_wire::coordinator_records::offset_commit_value::OffsetCommitValue;
use drumlin_wire::messages as m;
use drumlin_wire::{Message, Request, ResponseHeader, Str, Uuid};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::groups::{commit, commit_request, committed, keys, loaded};
use crate::harness::*;

/// A broker with randomness of its own, on a store that takes its time.
async fn start(store: &Arc<InMemory>, seed: u64, latency: Latency) -> Test {
    start_over(store, seed, latency).await.0
}

/// And what the store takes its time by.
pub async fn start_over(store: &Arc<InMemory>, seed: u64, latency: Latency) -> (Test, Arc<FaultStore>) {
    watch_panics();
    let env = Env::simulated(seed, NOW_MS);
    let mut faults = Faults::none();
    faults.latency = latency;
    let slow = Arc::new(FaultStore::with_faults(store.clone(), seed, faults));
    let bucket = Bucket::from_store(slow.clone(), BucketKind::Memory, &env);
    let options = [
        ("store.url", "memory:"),
        ("wal.linger.max.ms", "1"),
        ("offsets.topic.num.partitions", "1"),
    ];
    let config = BrokerConfig::from_pairs(options).unwrap();
    let broker = Broker::start(&env, config, bucket).await.unwrap();
    let test = Test {
        env,
        store: store.clone(),
        broker,
    };
    (test, slow)
}

/// The answer, unless the connection is closed instead.
async fn perhaps<M: Request>(client: &mut Client, version: i16, request: &M) -> Option<M::Response> {
    client.send(version, request).await;
    let frame = client.frame().await?;
    let (_, body) = ResponseHeader::parse(&frame, M::KEY, version).unwrap();
    Some(M::Response::decode_exact(&body, version).unwrap())
}

/// Asks for `g`'s offset of `t-0` as this version does: the offset, or the error.
async fn asked(client: &mut Client, version: i16, id: Uuid) -> Option<Result<i64, i16>> {
    use m::offset_fetch_request::*;
    let mut request = OffsetFetchRequest::default();
    if version >= 8 {
        request.groups = vec![OffsetFetchRequestGroup {
            group_id: Str::from("g"),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: if version >= 10 {
                    Str::default()
                } else {
                    Str::from("t")
                },
                topic_id: if version >= 10 { id } else { Uuid::default() },
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }];
    } else {
        request.group_id = Str::from("g");
        request.topics = Some(vec![OffsetFetchRequestTopic {
            name: Str::from("t"),
            partition_indexes: vec![0],
            ..Default::default()
        }]);
    }
    let answer = perhaps(client, version, &request).await?;
    let (error, told) = match answer.groups.first() {
        Some(group) => (
            group.error_code,
            group
                .topics
                .first()
                .map(|t| (t.partitions[0].error_code, t.partitions[0].committed_offset)),
        ),
        None => (
            answer.error_code,
            answer
                .topics
                .first()
                .map(|t| (t.partitions[0].error_code, t.partitions[0].committed_offset)),
        ),
    };
    Some(match (error, told) {
        (0, Some((0, offset))) => Ok(offset),
        (0, Some((code, offset))) => {
            assert_eq!(offset, -1, "an offset beside an error");
            Err(code)
        }
        (code, told) => {
            assert_eq!(told, None, "offsets beside an error");
            Err(code)
        }
    })
}

/// Whatever a deposed coordinator is asked first, in whichever version, it neither tells an offset that its
/// successor may have moved on from, nor acknowledges a commit that its successor will not have.
#[tokio::test(start_paused = true)]
async fn a_deposed_coordinator_tells_no_offset_and_takes_none() {
    let not_coordinator = ErrorCode::NotCoordinator.code();
    let mut spoken = 0;
    let versions = (0..=10).map(Some).chain([None]);
    // The commit that it must not take changes the offset that it knows, or asks for what it knows already.
    for (version, offset) in versions.flat_map(|version| [(version, 9), (version, 1)]) {
        let store = Arc::new(InMemory::new());
        let older = start(&store, 1, Latency::None).await;
        let mut zombie = older.connect();
        let id = zombie.create("t", 1, &[]).await;
        assert_eq!(commit(&mut zombie, &commit_request("g", &[(0, 1)])).await, 0);
        let newer = start(&store, 2, Latency::None).await;
        let mut client = newer.connect();
        assert_eq!(loaded(&mut client, "g").await, 1);
        assert_eq!(commit(&mut client, &commit_request("g", &[(0, 2)])).await, 0);
        // Nothing has told the older one yet.
        if let Some(version) = version
            && let Some(told) = asked(&mut zombie, version, id).await
        {
            assert_eq!(told, Err(not_coordinator), "OffsetFetch {version}");
            spoken += 1;
        }
        let mut zombie = older.connect();
        let taken = perhaps(&mut zombie, 8, &commit_request("g", &[(0, offset)])).await;
        let code = taken.map(|answer| answer.topics[0].partitions[0].error_code);
        assert!(code.is_none_or(|code| code == not_coordinator), "{code:?}");
        assert!(matches!(older.broker.ended().await, ExitReason::Fenced(_)));
        assert_eq!(committed(&mut client, "g").await, Ok(2));
        // Its end changes nothing either.
        drop(older);
        let last = start(&store, 3, Latency::None).await;
        assert_eq!(loaded(&mut last.connect(), "g").await, 2);
    }
    assert!(
        spoken > 0,
        "the connections were closed before anything was asked"
    );
    assert_eq!(panics(), 0);
}

/// Commits and fetches go on at the older broker while a newer one starts, at every moment of the start. What was
/// acknowledged is there afterwards; and from the first commit that the newer one has answered on, the older one
/// tells nothing more.
#[tokio::test(start_paused = true)]
async fn a_newer_start_amid_commits_loses_none_and_is_never_contradicted() {
    let seed = std::env::var("DRUMLIN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..24u64, |seed| seed..seed + 1);
    let (mut answered, mut silent) = (0, 0);
    for seed in seeds {
        println!("DRUMLIN_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let latency = Latency::Uniform(Duration::from_millis(1)..Duration::from_millis(20));
        let store = Arc::new(InMemory::new());
        let older = start(&store, 2 * seed + 1, latency.clone()).await;
        let (mut writer, mut reader) = (older.connect(), older.connect());
        let id = writer.create("t", 1, &[]).await;
        assert_eq!(commit(&mut writer, &commit_request("g", &[(0, 0)])).await, 0);
        let commits = async {
            let mut last = 0;
            for offset in 1..1_000_000 {
                match perhaps(&mut writer, 8, &commit_request("g", &[(0, offset)])).await {
                    Some(answer) if answer.topics[0].partitions[0].error_code == 0 => last = offset,
                    _ => break,
                }
            }
            last
        };
        let fetches = async {
            let mut told = Vec::new();
            loop {
                let began = tokio::time::Instant::now();
                match asked(&mut reader, 9, id).await {
                    Some(Ok(offset)) => told.push((began, offset)),
                    _ => return told,
                }
            }
        };
        let pause = Duration::from_millis(rng.random_range(0..150));
        let takeover = async {
            tokio::time::sleep(pause).await;
            let newer = start(&store, 2 * seed + 2, latency.clone()).await;
            let mut client = newer.connect();
            let found = loaded(&mut client, "g").await;
            assert_eq!(
                commit(&mut client, &commit_request("g", &[(0, 2_000_000)])).await,
                0
            );
            let moved_on = tokio::time::Instant::now();
            (newer, client, found, moved_on)
        };
        let (last, told, (_newer, mut client, found, moved_on)) = tokio::join!(commits, fetches, takeover);
        // What was under way may be there too.
        assert!(
            (last..=last + 1).contains(&found),
            "{last} acknowledged, {found} found"
        );
        let after: Vec<_> = told.iter().filter(|(began, _)| *began >= moved_on).collect();
        assert!(after.is_empty(), "told by the deposed one: {after:?}");
        assert!(told.iter().all(|(_, offset)| (0..=found).contains(offset)));
        assert_eq!(committed(&mut client, "g").await, Ok(2_000_000));
        answered += told.len();
        silent += usize::from(told.is_empty());
    }
    // Or there was nothing to see.
    assert!(
        answered > 0 || seed.is_some(),
        "{silent} of the runs told nothing"
    );
    assert_eq!(panics(), 0);
}

const PARTITIONS: i32 = 100;
const LIE: i64 = 666_666;

fn options() -> [(&'static str, &'static str); 1] {
    [("offsets.topic.num.partitions", "2")]
}

/// A snapshot's object that says that `g` has committed [`LIE`] and nothing else.
fn lie(partition: i32, covers: i64, epoch: i32) -> Vec<u8> {
    let key = OffsetCommitKey {
        group: Str::from("g"),
        topic: Str::from("t"),
        partition: 0,
    };
    let value = OffsetCommitValue {
        offset: LIE,
        leader_epoch: -1,
        commit_timestamp: NOW_MS,
        ..Default::default()
    };
    let prefixed = |prefix: i16, body: Bytes| [&prefix.to_be_bytes()[..], &body].concat();
    let (key, value) = (
        prefixed(1, key.to_bytes(0).unwrap()),
        prefixed(3, value.to_bytes(3).unwrap()),
    );
    let mut shard = Shard::new(partition, Arc::new(GroupConfig::default()), 1);
    shard.replay(&key, Some(&value), 0, NOW_MS).unwrap();
    shard.snapshot(covers, epoch).to_vec()
}

/// A bucket whose group `g` has committed 29,000 for `t-0`, the partition of its coordinator, and the name of the
/// snapshot that a clean stop has left.
async fn with_history() -> (Arc<InMemory>, i32, String, SnapshotName) {
    let test = Test::new(&options()).await;
    let mut client = test.connect();
    client.create("t", PARTITIONS, &[]).await;
    for round in 0..30 {
        let offsets: Vec<(i32, i64)> = (0..PARTITIONS).map(|n| (n, round * 1_000)).collect();
        assert_eq!(commit(&mut client, &commit_request("g", &offsets)).await, 0);
    }
    let n = test.broker.shared().groups.partition_of("g").unwrap();
    assert!(test.broker.shutdown().await);
    let snapshots = keys(&test, "/snapshot/").await;
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    let name = SnapshotName::parse(&snapshots[0]).unwrap();
    let prefix = snapshots[0].rsplit_once('/').unwrap().0.to_owned();
    let store = test.kill();
    store.delete(&Path::from(snapshots[0].as_str())).await.unwrap();
    (store, n, prefix, name)
}

/// What a start makes of these snapshots: `g`'s offset, and how many were used.
async fn start_with(
    store: &Arc<InMemory>,
    prefix: &str,
    snapshots: &[(SnapshotName, Vec<u8>)],
) -> (i64, u64) {
    // A bucket of its own for each: a start leaves traces.
    let copy = Arc::new(store.fork());
    for (name, bytes) in snapshots {
        let key = format!("{prefix}/{:020}-{}-{}", name.offset, name.epoch, name.incarnation);
        copy.put(&Path::from(key), bytes.clone().into()).await.unwrap();
    }
    let test = Test::on(copy, &options()).await;
    let offset = loaded(&mut test.connect(), "g").await;
    let report = test.broker.shared().groups.report(1_000).await;
    if offset != LIE {
        assert_eq!(report.offsets.len(), usize::try_from(PARTITIONS).unwrap());
    }
    (offset, report.restored)
}

/// A snapshot is believed only if it is whole, of this partition, of this log's history, and within what is committed;
/// else everything is replayed, to the same state.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_not_what_it_says_is_passed_over() {
    let (store, n, prefix, name) = with_history().await;
    let (end, epoch) = (name.offset, name.epoch);
    assert!(end >= 30 * i64::from(PARTITIONS));
    let truth = (29_000, 0);
    assert_eq!(start_with(&store, &prefix, &[]).await, truth);
    // The guards let a sound one through, whatever it says: a lie is told on, so that each case below can fail.
    let sound = || lie(n, end, epoch);
    assert_eq!(start_with(&store, &prefix, &[(name, sound())]).await, (LIE, 1));
    // Half of the log is replayed over one that is older.
    let half = SnapshotName {
        offset: end / 2,
        ..name
    };
    let older = (half, lie(n, end / 2, epoch));
    assert_eq!(
        start_with(&store, &prefix, std::slice::from_ref(&older)).await.1,
        1
    );

    let elsewhere = SnapshotName {
        offset: end + 1,
        ..name
    };
    let at_start = SnapshotName { offset: 0, ..name };
    let cases = [
        ("of another partition", name, lie(1 - n, end, epoch)),
        ("of a later epoch", name, lie(n, end, epoch + 1)),
        ("of an earlier epoch", name, lie(n, end, epoch - 1)),
        ("covers more than is committed", elsewhere, lie(n, end + 1, epoch)),
        ("covers more than its name says", half, lie(n, end, epoch)),
        ("covers less than its name says", name, lie(n, end / 2, epoch)),
        ("covers nothing", at_start, lie(n, 0, epoch)),
        ("empty", name, Vec::new()),
    ];
    for (what, name, bytes) in cases {
        assert_eq!(
            start_with(&store, &prefix, &[(name, bytes)]).await,
            truth,
            "{what}"
        );
    }
    let whole = sound();
    let mut rng = StdRng::seed_from_u64(9);
    for _ in 0..30 {
        let (mut damaged, at) = (whole.clone(), rng.random_range(0..whole.len()));
        match rng.random_bool(0.5) {
            true => damaged[at] ^= 1 << rng.random_range(0..8),
            false => damaged.truncate(at),
        }
        assert_eq!(
            start_with(&store, &prefix, &[(name, damaged)]).await,
            truth,
            "at {at}"
        );
    }
    // A sound one behind one that is not is used.
    let broken = (name, lie(n, end, epoch + 1));
    assert_eq!(start_with(&store, &prefix, &[broken, older]).await.1, 1);
    assert_eq!(panics(), 0);
}

/// Says how `__consumer_offsets` is compacted.
async fn compacted_with(client: &mut Client, configs: &[(&str, &str)]) {
    use m::incremental_alter_configs_request::*;
    let configs = configs.iter().map(|(name, value)| AlterableConfig {
        name: Str::from(*name),
        value: Some(Str::from(*value)),
        ..Default::default()
    });
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: Str::from("__consumer_offsets"),
            configs: configs.collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(client.call(1, &request).await.responses[0].error_code, 0);
}

/// One pass over all that there is; something of another group is written for it, or nothing were due.
async fn compact(test: &Test, client: &mut Client, turn: i64) {
    assert_eq!(commit(client, &commit_request("other", &[(1, turn)])).await, 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    test.broker.shared().log.seal_now().await;
    test.broker.shared().log.clean_now().await;
}

/// Offsets of all partitions of `t`, 29,000 in the end.
async fn commit_often(client: &mut Client, group: &str) {
    for round in 0..30 {
        let offsets: Vec<(i32, i64)> = (0..PARTITIONS).map(|n| (n, round * 1_000)).collect();
        assert_eq!(commit(client, &commit_request(group, &offsets)).await, 0);
    }
}

/// Deletes `g`, which is there.
async fn delete_group(client: &mut Client) {
    assert_eq!(loaded(client, "g").await, 29_000);
    let request = m::delete_groups_request::DeleteGroupsRequest {
        groups_names: vec![Str::from("g")],
        ..Default::default()
    };
    assert_eq!(client.call(2, &request).await.results[0].error_code, 0);
    assert_eq!(loaded(client, "g").await, -1);
}

/// Tombstones go with the second pass that meets them, and each pass takes what there is.
const EAGER: [(&str, &str); 2] = [("delete.retention.ms", "0"), ("min.cleanable.dirty.ratio", "0")];

/// A snapshot that still knows what was deleted after it is of no use once compaction has dropped the tombstones,
/// whatever `delete.retention.ms` says by then, and whenever it came into the bucket.
#[tokio::test(start_paused = true)]
async fn a_snapshot_revives_nothing_that_was_deleted_after_it() {
    let options = [("offsets.topic.num.partitions", "1")];
    let test = Test::new(&options).await;
    let mut client = test.connect();
    client.create("t", PARTITIONS, &[]).await;
    commit_often(&mut client, "g").await;
    assert!(test.broker.shutdown().await);
    let before = keys(&test, "/snapshot/").await;
    let path = Path::from(before[0].as_str());
    let snapshot = test.store.get(&path).await.unwrap().bytes().await.unwrap();

    // Its own bytes, its tombstones in the log: used, and the group is gone.
    let test = Test::on(test.kill(), &options).await;
    let mut client = test.connect();
    delete_group(&mut client).await;
    let test = Test::on(test.kill(), &options).await;
    let mut client = test.connect();
    assert_eq!(loaded(&mut client, "g").await, -1);
    assert_eq!(test.broker.shared().groups.report(1_000).await.restored, 1);

    // The tombstones' time is short, compaction drops them, and it is long again.
    compacted_with(&mut client, &EAGER).await;
    compact(&test, &mut client, 1).await;
    compact(&test, &mut client, 2).await;
    compacted_with(&mut client, &[("delete.retention.ms", "86400000")]).await;
    // A coordinator of before, which slept all the while, puts what it has.
    test.store.put(&path, snapshot.into()).await.unwrap();
    let test = Test::on(test.kill(), &options).await;
    let mut client = test.connect();
    assert_eq!(loaded(&mut client, "g").await, -1, "what was deleted is back");
    assert_eq!(test.broker.shared().groups.report(1_000).await.restored, 0);

    // One from after it is used, even if compaction has gone over all that it does not cover.
    commit_often(&mut client, "h").await;
    assert!(test.broker.shutdown().await);
    let test = Test::on(test.kill(), &options).await;
    let mut client = test.connect();
    assert_eq!(loaded(&mut client, "h").await, 29_000);
    assert_eq!(commit(&mut client, &commit_request("h", &[(0, 7)])).await, 0);
    compact(&test, &mut client, 3).await;
    compact(&test, &mut client, 4).await;
    let test = Test::on(test.kill(), &options).await;
    assert_eq!(loaded(&mut test.connect(), "h").await, 7);
    assert_eq!(test.broker.shared().groups.report(1_000).await.restored, 1);
    assert_eq!(panics(), 0);
}

/// Tombstones that compaction drops between the choice of a snapshot and the replay of what follows it.
#[tokio::test(start_paused = true)]
async fn a_load_that_compaction_overtakes_begins_again() {
    let options = [("offsets.topic.num.partitions", "1")];
    let test = Test::new(&options).await;
    let mut client = test.connect();
    client.create("t", PARTITIONS, &[]).await;
    commit_often(&mut client, "g").await;
    assert!(test.broker.shutdown().await);
    let test = Test::on(test.kill(), &options).await;
    let mut client = test.connect();
    delete_group(&mut client).await;
    compacted_with(&mut client, &EAGER).await;
    compact(&test, &mut client, 1).await;
    // For the next pass.
    assert_eq!(commit(&mut client, &commit_request("other", &[(1, 2)])).await, 0);
    let store = test.kill();

    let second = Duration::from_secs(1);
    let (test, network) = start_over(&store, 3, Latency::Uniform(second..second * 2)).await;
    let lists = || {
        let stats = test.broker.shared().bucket.stats();
        stats.get(Operation::List, Reason::Recovery).requests
    };
    let before = lists();
    // Below what an attempt may take.
    network.change(|faults| faults.latency = Latency::Uniform(second * 13..second * 14));
    while lists() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The snapshot is chosen, and on its way.
    let millisecond = Duration::from_millis(1);
    network.change(|faults| faults.latency = Latency::Uniform(millisecond..millisecond * 2));
    test.broker.shared().log.seal_now().await;
    test.broker.shared().log.clean_now().await;
    assert_eq!(
        loaded(&mut test.connect(), "g").await,
        -1,
        "what was deleted is back"
    );
    let report = test.broker.shared().groups.report(1_000).await;
    assert_eq!(report.restored, 1, "it was overtaken");
    assert_eq!(panics(), 0);
}
