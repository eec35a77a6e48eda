//! Killed processes and power cuts, over and over, on the modelled directory: what was committed stays, for any
//! seed; and a store that leaves out one of the fsyncs is caught.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use drumlin_objects::chain::{
    self, ChainId, ChainName, ChainOptions, ChainWriter, ENTRY_HEADER_LEN, EntryKind,
};
use drumlin_objects::fault::{FaultStore, Faults, Latency};
use drumlin_objects::powercut::{PowerCutOptions, PowerCutStore};
use drumlin_objects::{Bucket, BucketOptions, Env, Reason, TaskKind};

const LIVES: u64 = 12;

fn seed() -> u64 {
    let given = std::env::var("DRUMLIN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| Env::real().random_u64() >> 1)
}

fn buf(body: &[u8]) -> BytesMut {
    let mut buf = BytesMut::zeroed(ENTRY_HEADER_LEN);
    buf.put_slice(body);
    buf
}

/// One incarnation: writes, checkpoints and trims until it is killed. Returns what it saw committed.
async fn live(env: &Env, bucket: &Bucket, name: &ChainName, until: Duration) -> BTreeMap<u64, Bytes> {
    let writer = Arc::new(ChainWriter::start(
        env,
        bucket,
        name.clone(),
        1,
        ChainOptions::default(),
    ));
    let appended = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let state = writer.state();
    env.spawn(TaskKind::Test, {
        let (writer, appended) = (writer.clone(), appended.clone());
        async move {
            for n in 0_u64.. {
                if writer.ready().await.is_err() {
                    return;
                }
                let Ok(entry) = writer.append(EntryKind::Data, 1, buf(&n.to_be_bytes()), 0) else {
                    return;
                };
                appended.lock().unwrap().insert(entry.slot, entry.bytes);
                if n % 40 == 39 {
                    let covers = writer.state().borrow().committed;
                    let _ = writer.checkpoint(covers, "body", 1, buf(b"")).await;
                    let _ = writer.trim(covers).await;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
    });
    tokio::time::sleep(until).await;
    let committed = state.borrow().committed;
    env.kill();
    let appended = appended.lock().unwrap();
    appended
        .range(..committed)
        .map(|(slot, bytes)| (*slot, bytes.clone()))
        .collect()
}

/// Lives and deaths of one seed: how many names power cuts and kills undid. An error tells of something committed
/// that is gone.
async fn run(seed: u64, options: PowerCutOptions) -> Result<(u64, u64), String> {
    let store = PowerCutStore::new(seed, options);
    let faulty = FaultStore::new(Arc::new(store.clone()), seed);
    let rng = Env::simulated(seed ^ 1, 0);
    let mut back = 0;
    for life in 0..LIVES {
        let env = Env::simulated(seed.wrapping_add(life), 0);
        let options = BucketOptions {
            retry_for: Duration::from_secs(600),
            ..BucketOptions::default()
        };
        let bucket = Bucket::from_modelled(Arc::new(faulty.clone()), &store, &env, options);
        let name = ChainName {
            prefix: format!("wal/00/1/{life}"),
            id: ChainId(env.random_id()),
        };
        chain::put_birth(&bucket, &name, 1, buf(b""), Reason::Wal)
            .await
            .unwrap();
        faulty.set(Faults {
            error_before: 0.02,
            error_after: 0.02,
            duplicate_put: 0.02,
            latency: Latency::Uniform(Duration::ZERO..Duration::from_millis(2)),
            ..Faults::none()
        });
        let committed = live(&env, &bucket, &name, rng.jitter(Duration::from_millis(200))).await;
        faulty.set(Faults::none());
        if rng.random_u64().is_multiple_of(2) {
            store.power_cut().await;
        } else {
            back += store.process_killed();
        }
        let env = Env::simulated(seed.wrapping_add(1000 + life), 0);
        let bucket = Bucket::from_modelled(Arc::new(faulty.clone()), &store, &env, BucketOptions::default());
        let fenced = chain::fence(&env, &bucket, &name, 2, b"", Reason::Recovery).await;
        let fenced = fenced.map_err(|error| format!("seed {seed}: {error}"))?;
        let from = fenced.checkpoint.map_or(1, |checkpoint| checkpoint.covers_below);
        for (slot, bytes) in committed.range(from..) {
            if *slot >= fenced.end {
                return Err(format!(
                    "seed {seed}: slot {slot} was committed, fenced at {}",
                    fenced.end
                ));
            }
            match chain::read_entry(&bucket, &name, *slot, Reason::Recovery).await {
                Ok(Some(entry)) if entry.bytes == *bytes => {}
                other => return Err(format!("seed {seed}: committed slot {slot} is now {other:?}")),
            }
        }
    }
    Ok((store.lost(), back))
}

fn step() -> PowerCutOptions {
    PowerCutOptions {
        step: Duration::from_millis(1),
        ..PowerCutOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_survives_kills_and_power_cuts() {
    let (first, mut lost, mut back) = (seed(), 0, 0);
    println!("DRUMLIN_SEED={first}");
    for seed in first..first + 30 {
        let (by_cuts, by_kills) = run(seed, step()).await.unwrap();
        (lost, back) = (lost + by_cuts, back + by_kills);
    }
    println!("30 seeds, {LIVES} lives each, {lost} names undone by power cuts, {back} by kills");
    assert!(lost > 0 && back > 0, "the cuts or the kills hit nothing");
}

async fn is_caught(what: &str, options: PowerCutOptions) {
    for seed in 1..200 {
        if let Err(violation) = run(seed, options.clone()).await {
            println!("{what}: {violation}");
            return;
        }
    }
    panic!("{what}: not caught");
}

#[tokio::test(start_paused = true)]
async fn a_put_without_the_directorys_fsync_is_caught() {
    is_caught(
        "no directory fsync",
        PowerCutOptions {
            skip_directory_fsync: true,
            ..step()
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_given_before_the_bytes_are_durable_is_caught() {
    let options = PowerCutOptions {
        skip_data_sync: true,
        ..step()
    };
    is_caught("no fdatasync", options).await;
}
