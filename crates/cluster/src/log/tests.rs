use std::sync::Arc;
use std::time::Duration;

use drumlin_objects::chain::{ChainId, ChainName, EntryKind, entry_key, read_entry};
use drumlin_objects::fault::{FaultStore, Outage};
use drumlin_objects::{Bucket, BucketKind, BucketOptions, Env, Operation, Reason};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::open::{OpenError, OpenOptions, PREFIX, PreviousIncarnation, Session};
use super::*;
use crate::testing::{topic, topic_id};

const NOW: i64 = 1_700_000_000_000;

fn env(seed: u64) -> Env {
    Env::simulated(seed, NOW)
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn bucket(store: &Arc<dyn ObjectStore>, env: &Env) -> Bucket {
    Bucket::from_store(store.clone(), BucketKind::Memory, env)
}

async fn open(store: &Arc<dyn ObjectStore>, seed: u64) -> Session {
    let env = env(seed);
    MetadataLog::open(&env, &bucket(store, &env), &OpenOptions::new(1))
        .await
        .expect("opens")
}

fn registration(previous: Option<PreviousIncarnation>) -> RegisterBroker {
    let previous = previous.map(|previous| Fenced {
        node_id: previous.node_id,
        incarnation: previous.incarnation,
        fence_slot: 9,
        estate: Some(format!("estate-of-{}", previous.incarnation)),
    });
    RegisterBroker {
        node_id: 1,
        endpoints: Vec::new(),
        rack: None,
        previous,
    }
}

async fn create(log: &MetadataLog, id: u64) -> Result<u64, MetaError> {
    log.change(|_| Ok(vec![topic(&format!("t{id}"), id, 2, 1)])).await
}

/// Birth, changes, restarts with and without a close, on any store.
async fn a_life(bucket_of: impl Fn(&Env) -> Bucket) {
    let first_env = env(1);
    let session = MetadataLog::open(&first_env, &bucket_of(&first_env), &OpenOptions::new(1))
        .await
        .expect("opens");
    assert!(session.created && session.previous.is_none());
    let incarnation = session.log.register(registration(None)).await.expect("registers");
    assert_eq!(incarnation, 2, "after birth and new controller");
    assert_eq!(create(&session.log, 1).await, Ok(3));
    assert_eq!(session.log.allocate_producer_ids(1).await, Ok(0..1_000));
    assert_eq!(session.log.allocate_producer_ids(1).await, Ok(1_000..2_000));
    assert_eq!(session.log.confirm_alone().await, Ok(()));
    let cluster = session.log.image().cluster_id.clone();
    session.log.close().await;
    assert_eq!(create(&session.log, 2).await, Err(MetaEnd::Closed.into()));
    let mut expected = Image::clone(&session.log.image());

    let second_env = env(2);
    let bucket = bucket_of(&second_env);
    let other = OpenOptions {
        expected_cluster_id: Some("x".repeat(22)),
        ..OpenOptions::new(1)
    };
    let refused = MetadataLog::open(&second_env, &bucket, &other)
        .await
        .expect_err("another cluster");
    assert!(
        refused
            .to_string()
            .contains("point store.url at the right bucket"),
        "{refused}"
    );
    let same = OpenOptions {
        expected_cluster_id: Some(cluster.to_string()),
        ..OpenOptions::new(1)
    };
    let session = MetadataLog::open(&second_env, &bucket, &same)
        .await
        .expect("opens");
    expected.begin_epoch(2, 1);
    assert_eq!(*session.log.image(), expected);
    assert!(!session.created);
    assert_eq!(
        session.previous,
        Some(PreviousIncarnation {
            node_id: 1,
            incarnation,
            from: None
        })
    );
    let second = session
        .log
        .register(registration(session.previous))
        .await
        .expect("registers");
    let led = session.log.image().partition(&topic_id(1), 0).expect("there");
    assert_eq!((led.incarnation, led.leader_epoch), (second, 1));
    second_env.kill();

    let third_env = env(3);
    let session = MetadataLog::open(&third_env, &bucket_of(&third_env), &OpenOptions::new(1))
        .await
        .expect("opens");
    let previous = session.previous.expect("a previous one");
    assert_eq!(previous.incarnation, second);
    let from = previous.from.expect("it started from something");
    assert_eq!(
        (from.incarnation, from.estate.as_deref()),
        (incarnation, Some("estate-of-2"))
    );
    assert_eq!(session.log.allocate_producer_ids(1).await, Ok(2_000..3_000));
}

#[tokio::test(start_paused = true)]
async fn a_life_in_memory() {
    let store = memory();
    a_life(|env| bucket(&store, env)).await;
}

#[tokio::test]
async fn a_life_in_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", dir.path().display());
    a_life(|env| Bucket::open(&url, env, &BucketOptions::default()).expect("opens")).await;
    let name = |id| ChainName {
        prefix: PREFIX.into(),
        id: ChainId(id),
    };
    let env = env(4);
    let bucket = Bucket::open(&url, &env, &BucketOptions::default()).expect("opens");
    let session = MetadataLog::open(&env, &bucket, &OpenOptions::new(1))
        .await
        .expect("opens");
    let slot = session.log.image().position - 1;
    let entry = read_entry(&bucket, &name(session.birth.cluster_id.0), slot, Reason::Check).await;
    assert_eq!(
        entry.expect("reads").expect("is there").header.kind,
        EntryKind::Fence
    );
}

#[tokio::test(start_paused = true)]
async fn the_newer_start_fences_the_older() {
    let store = memory();
    let old = open(&store, 1).await;
    old.log.register(registration(None)).await.expect("registers");
    create(&old.log, 1).await.expect("creates");
    let new = open(&store, 2).await;
    assert_eq!(old.log.ended().borrow().clone(), None, "it has not looked yet");
    let error = create(&old.log, 2).await.expect_err("fenced");
    let ChangeError::Ended(MetaEnd::Fenced {
        slot: 4,
        epoch: 2,
        node_id: Some(1),
    }) = &error
    else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains("this one must stop"), "{error}");
    assert!(old.log.ended().borrow().is_some());
    assert!(old.log.confirm_alone().await.is_err());
    let image = new.log.image();
    assert!(image.topic("t1").is_some() && image.topic("t2").is_none());
    create(&new.log, 2).await.expect("creates");
}

#[tokio::test(start_paused = true)]
async fn an_idle_controller_looks_now_and_then_and_before_answers() {
    let store = memory();
    let old = open(&store, 1).await;
    let new = open(&store, 2).await;
    let mut ended = old.log.ended();
    let began = tokio::time::Instant::now();
    ended.wait_for(Option::is_some).await.expect("it looks");
    assert!(began.elapsed() <= Duration::from_secs(151));
    // One that is asked to confirm does not wait for that.
    let newest = open(&store, 3).await;
    let began = tokio::time::Instant::now();
    assert!(matches!(
        new.log.confirm_alone().await,
        Err(MetaEnd::Fenced { epoch: 3, .. })
    ));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(newest.log.confirm_alone().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_idle_hour_costs_24_requests_and_a_directory_none() {
    let store = memory();
    let env = env(1);
    let memory = bucket(&store, &env);
    let session = MetadataLog::open(&env, &memory, &OpenOptions::new(1))
        .await
        .expect("opens");
    session.log.register(registration(None)).await.expect("registers");
    let requests = |bucket: &Bucket| {
        let all = [
            Operation::Get,
            Operation::List,
            Operation::PutNew,
            Operation::Put,
            Operation::Delete,
        ];
        all.map(|operation| bucket.stats().get(operation, Reason::Meta).requests)
            .iter()
            .sum::<u64>()
    };
    let before = requests(&memory);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let looks = requests(&memory) - before;
    assert!((23..=24).contains(&looks), "{looks} requests");
    let before = requests(&memory);
    let confirms = (0..100).map(|_| session.log.confirm_alone());
    for result in futures::future::join_all(confirms).await {
        result.expect("alone");
    }
    assert!(requests(&memory) - before <= 2, "one look serves all who wait");

    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", dir.path().display());
    let local = Bucket::open(&url, &env, &BucketOptions::default()).expect("opens");
    let session = MetadataLog::open(&env, &local, &OpenOptions::new(1))
        .await
        .expect("opens");
    let before = requests(&local);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    session.log.confirm_alone().await.expect("nothing to prove");
    assert_eq!(requests(&local), before);
}

#[tokio::test(start_paused = true)]
async fn changes_are_grouped_and_refusals_wait_for_what_they_rest_on() {
    let faulty = FaultStore::new(memory(), 1);
    let store: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
    let session = open(&store, 1).await;
    let log = &session.log;
    log.register(registration(None)).await.expect("registers");
    let before = log.position();
    let all = futures::future::join_all((0..500).map(|id| create(log, id))).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(
        log.position() - before <= 2,
        "500 changes took {} entries",
        log.position() - before
    );
    assert_eq!(log.image().topics().len(), 500);

    faulty.set_outage(Outage::Hang);
    let change = create(log, 1_000);
    let refusal = create(log, 1_000);
    let nothing = log.change(|image| match image.topic("t1000") {
        Some(_) => Ok::<_, Infallible>(Vec::new()),
        None => unreachable!("the tip has it"),
    });
    let mut waiting = Box::pin(futures::future::join3(change, refusal, nothing));
    assert!(
        tokio::time::timeout(Duration::from_secs(60), &mut waiting)
            .await
            .is_err(),
        "told too early"
    );
    assert!(log.image().topic("t1000").is_none());
    faulty.set_outage(Outage::None);
    let (change, refusal, nothing) = waiting.await;
    let slot = change.expect("commits");
    assert_eq!(refusal, Err(ApplyError::TopicExists("t1000".into()).into()));
    assert_eq!(nothing, Ok(slot));
}

#[tokio::test(start_paused = true)]
async fn a_change_is_all_or_nothing_and_has_a_limit() {
    let store = memory();
    let session = open(&store, 1).await;
    let log = &session.log;
    log.register(registration(None)).await.expect("registers");
    let both = log
        .change(|_| Ok::<_, Infallible>(vec![topic("a", 1, 1, 1), topic("a", 2, 1, 1)]))
        .await;
    assert_eq!(both, Err(ApplyError::TopicExists("a".into()).into()));
    assert!(log.image().topic("a").is_none());
    let huge = "x".repeat(MAX_CHANGE_BYTES);
    let set = |value: String| Record::ConfigSet {
        resource: crate::ResourceKind::Broker,
        name: String::new(),
        key: "k".into(),
        value: Some(value),
    };
    let refused = log.change(|_| Ok::<_, Infallible>(vec![set(huge)])).await;
    assert!(matches!(refused, Err(ChangeError::TooLarge(_))), "{refused:?}");
    // Many large ones are spread over entries.
    let large = "x".repeat(MAX_CHANGE_BYTES / 2);
    let changes = (0..20).map(|_| log.change(|_| Ok::<_, Infallible>(vec![set(large.clone())])));
    for result in futures::future::join_all(changes).await {
        result.expect("commits");
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoints_keep_the_log_short() {
    let store = memory();
    let env = env(1);
    let bucket = bucket(&store, &env);
    let options = OpenOptions {
        checkpoint_entries: 20,
        ..OpenOptions::new(1)
    };
    let mut epochs = 0;
    for life in 0..6 {
        let session = MetadataLog::open(&env, &bucket, &options).await.expect("opens");
        epochs += 1;
        assert_eq!(session.log.image().topics().len(), life * 70, "life {life}");
        assert_eq!(session.log.image().epoch, epochs);
        session
            .log
            .register(registration(session.previous))
            .await
            .expect("registers");
        for n in 0..70 {
            create(&session.log, (life * 70 + n) as u64)
                .await
                .expect("creates");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        session.log.close().await;
    }
    let entries = bucket.list("meta/log", None, Reason::Check).await.expect("lists");
    assert!(entries.len() < 60, "{} entries are left", entries.len());
    let fences = 6;
    assert!(entries.len() > fences, "birth and fences stay");
    assert_eq!(entries[0].key, entry_key(PREFIX, 0));
    let bodies = bucket
        .list("meta/body", None, Reason::Check)
        .await
        .expect("lists");
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_foreign_or_newer_is_refused_with_advice() {
    let store = memory();
    let env = env(1);
    let bucket = bucket(&store, &env);
    let session = MetadataLog::open(&env, &bucket, &OpenOptions::new(1))
        .await
        .expect("opens");
    session.log.register(registration(None)).await.expect("registers");
    for id in 0..5 {
        create(&session.log, id).await.expect("creates");
    }
    session.log.close().await;
    let options = OpenOptions::new(1);
    let reopen = || MetadataLog::open(&env, &bucket, &options);
    // A hole.
    let key = entry_key(PREFIX, 4);
    let whole = bucket.get(&key, Reason::Check).await.expect("reads");
    bucket.delete(&key, Reason::Check).await.expect("deletes");
    let error = reopen().await.expect_err("a hole");
    assert!(
        matches!(&error, OpenError::Missing { key: missing } if *missing == key),
        "{error}"
    );
    // A flipped bit.
    let mut flipped = whole.to_vec();
    flipped[100] ^= 4;
    bucket
        .put_new(&key, flipped.into(), Reason::Check)
        .await
        .expect("puts");
    assert!(matches!(reopen().await, Err(OpenError::Chain(_))));
    // A newer version's record, in a sound entry.
    let mut newer = whole.to_vec();
    newer[drumlin_objects::chain::ENTRY_HEADER_LEN + 2] = 99;
    let mut header = drumlin_objects::chain::EntryHeader::decode(&newer).expect("decodes");
    header.body_crc = crc32c::crc32c(&newer[drumlin_objects::chain::ENTRY_HEADER_LEN..]);
    newer[..drumlin_objects::chain::ENTRY_HEADER_LEN].copy_from_slice(&header.encode());
    bucket.delete(&key, Reason::Check).await.expect("deletes");
    bucket
        .put_new(&key, newer.into(), Reason::Check)
        .await
        .expect("puts");
    let error = reopen().await.expect_err("a newer record");
    assert!(
        error.to_string().contains("start that or a later version"),
        "{error}"
    );
    assert!(error.to_string().contains(&key), "{error}");
    // All is well again.
    bucket.delete(&key, Reason::Check).await.expect("deletes");
    bucket.put_new(&key, whole, Reason::Check).await.expect("puts");
    assert_eq!(reopen().await.expect("opens").log.image().topics().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn starts_that_race_on_an_empty_bucket_agree_on_the_cluster() {
    let store = memory();
    let sessions = futures::future::join_all((0..8).map(|seed| open(&store, seed))).await;
    let ids: std::collections::BTreeSet<_> = sessions
        .iter()
        .map(|s| s.log.image().cluster_id.clone())
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(sessions.iter().filter(|session| session.created).count(), 1);
    let mut alone = 0;
    for session in &sessions {
        alone += usize::from(session.log.confirm_alone().await.is_ok());
    }
    assert_eq!(alone, 1, "one is the controller");
}

#[tokio::test(start_paused = true)]
async fn a_remote_bucket_is_probed_and_its_birth_object_says_so() {
    let store = memory();
    let env = env(1);
    let bucket = Bucket::from_store(store, BucketKind::Remote, &env);
    let opened = env.spawn(drumlin_objects::TaskKind::Test, {
        let (env, bucket) = (env.clone(), bucket.clone());
        async move { MetadataLog::open(&env, &bucket, &OpenOptions::new(1)).await }
    });
    let session = opened.await.expect("is not ended").expect("opens");
    assert!(
        session
            .birth
            .probe
            .starts_with("16 writers raced on each of 50 keys"),
        "{}",
        session.birth.probe
    );
    let before = bucket.stats().get(Operation::PutNew, Reason::Probe).requests;
    assert_eq!(before, 800);
    MetadataLog::open(&env, &bucket, &OpenOptions::new(1))
        .await
        .expect("opens");
    assert_eq!(
        bucket.stats().get(Operation::PutNew, Reason::Probe).requests - before,
        16
    );
}
