//! The conformance suite against memory, the local directory, and both with faults.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use drumlin_objects::fault::{FaultStore, Faults};
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::powercut::{PowerCutOptions, PowerCutStore};
use drumlin_objects::testing::{conformance, owner_and_fencer};
use drumlin_objects::{Bucket, BucketKind, BucketOptions, Env, local::LocalStore};

/// The seed of a run, `DRUMLIN_SEED` or a random one, printed so that it can be run again.
fn seed() -> u64 {
    let given = std::env::var("DRUMLIN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| Env::real().random_u64());
    println!("DRUMLIN_SEED={seed}");
    seed
}

#[tokio::test]
async fn memory() {
    let bucket = Bucket::open("memory:", &Env::real(), &BucketOptions::default()).unwrap();
    conformance(&bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    for local_buffered in [false, true] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = BucketOptions {
            local_buffered,
            ..BucketOptions::default()
        };
        let bucket = Bucket::open(
            &format!("file://{}", dir.path().display()),
            &Env::real(),
            &options,
        )
        .unwrap();
        let _guard = bucket.lock_local().unwrap();
        conformance(&bucket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn modelled_directory() {
    let seed = seed();
    let env = Env::simulated(seed, 0);
    let options = PowerCutOptions {
        step: Duration::from_millis(1),
        ..PowerCutOptions::default()
    };
    let store = PowerCutStore::new(seed, options);
    let bucket = Bucket::from_modelled(Arc::new(store.clone()), &store, &env, BucketOptions::default());
    conformance(&bucket).await;
}

#[tokio::test(start_paused = true)]
async fn memory_with_faults() {
    let first = seed();
    for seed in first..first + 4 {
        let env = Env::simulated(seed, 0);
        let store = FaultStore::with_faults(Arc::new(InMemory::new()), seed, nothing_late());
        let bucket = Bucket::from_store_with(Arc::new(store.clone()), BucketKind::Memory, &env, patient());
        conformance(&bucket).await;
        println!("{seed}: {:?}", store.counts());
    }
}

#[tokio::test(start_paused = true)]
async fn owners_and_fencers_in_a_storm() {
    let first = seed();
    let mut counts = std::collections::BTreeMap::new();
    for seed in first..first + 100 {
        let env = Env::simulated(seed, 0);
        let store = FaultStore::with_faults(Arc::new(InMemory::new()), seed, Faults::stormy());
        let bucket = Bucket::from_store_with(Arc::new(store.clone()), BucketKind::Memory, &env, patient());
        println!("DRUMLIN_SEED={seed}");
        owner_and_fencer(&bucket, "wal/00/1/2").await;
        for (kind, count) in store.counts() {
            *counts.entry(kind).or_insert(0) += count;
        }
    }
    println!("{counts:?}");
}

fn nothing_late() -> Faults {
    Faults {
        late_put: 0.0,
        duplicate_put: 0.0,
        ..Faults::stormy()
    }
}

fn patient() -> BucketOptions {
    BucketOptions {
        retry_for: Duration::from_secs(600),
        ..BucketOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn directory_with_faults() {
    let seed = seed();
    let env = Env::simulated(seed, 0);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let local = Arc::new(LocalStore::open(dir.path(), &env, false).unwrap());
    let store = FaultStore::with_faults(local.clone(), seed, nothing_late());
    let bucket = Bucket::from_local(Arc::new(store), local, &env, patient());
    conformance(&bucket).await;
}

/// The suite on a real store: `DRUMLIN_STORE_URL=s3://bucket/prefix` with the usual `AWS_*` variables.
#[tokio::test(flavor = "multi_thread")]
async fn store_of_the_environment() {
    let Ok(url) = std::env::var("DRUMLIN_STORE_URL") else {
        println!("DRUMLIN_STORE_URL is not set, nothing to try");
        return;
    };
    let bucket = Bucket::open(&url, &Env::real(), &BucketOptions::default()).unwrap();
    let report = drumlin_objects::probe::probe(&bucket, 50, 16).await.unwrap();
    println!("{report:?}");
    conformance(&bucket).await;
    for counters in bucket.stats().snapshot() {
        println!("{counters:?}");
    }
}
