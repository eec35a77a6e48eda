//! What many groups, members and offsets cost. Only said, not judged: run it with optimisation,
//! `cargo test -p drumlin-coordinator --test scale -- --ignored --nocapture`.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Instant;

use drumlin_coordinator::{GroupConfig, GroupRequest, Shard};
use drumlin_wire::Str;

use common::{World, commit, join, subscription, sync};

/// The memory of this process, in MiB.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|p| p.parse().ok())
        .unwrap_or_default();
    pages * 4096.0 / 1_048_576.0
}

/// A stable group of so many: its members, the leader first.
fn stable(world: &mut World, group: &str, members: usize) -> Vec<Str> {
    let protocols = [
        ("range", subscription(&["a"])),
        ("cooperative-sticky", subscription(&["a"])),
    ];
    let mut ids = Vec::new();
    for _ in 0..members {
        let token = world.join(join(group, &Str::EMPTY, &protocols));
        ids.push(world.joined(token).member_id);
    }
    let tokens: Vec<u64> = ids
        .iter()
        .map(|id| world.join(join(group, id, &protocols)))
        .collect();
    world.pass(2);
    let leader = world.joined(tokens[0]).leader;
    ids.sort_by_key(|id| *id != leader);
    assign(world, group, &ids, 1);
    world.answers.clear();
    ids
}

fn assign(world: &mut World, group: &str, ids: &[Str], generation: i32) {
    for id in &ids[1..] {
        world.ask(GroupRequest::SyncGroup(sync(group, id, generation, &[])));
    }
    let bytes = "x".repeat(60);
    let assignments: Vec<(&Str, &str)> = ids.iter().map(|id| (id, bytes.as_str())).collect();
    let token = world.ask(GroupRequest::SyncGroup(sync(
        group,
        &ids[0],
        generation,
        &assignments,
    )));
    assert_eq!(world.synced(token).error_code, 0);
}

#[test]
#[ignore = "it measures"]
fn figures() {
    let quick = GroupConfig {
        initial_rebalance_delay_ms: 1,
        ..GroupConfig::default()
    };
    let mut world = World::new(quick.clone());
    for members in [250, 500, 1_000, 2_000] {
        let group = format!("big-{members}");
        let ids = stable(&mut world, &group, members);
        let protocols = [
            ("range", subscription(&["a"])),
            ("cooperative-sticky", subscription(&["a"])),
        ];
        let start = Instant::now();
        for id in &ids {
            world.join(join(&group, id, &protocols));
        }
        assign(&mut world, &group, &ids, 2);
        println!("rebalance of {members}: {:?}", start.elapsed());
        world.answers.clear();
    }

    let mut world = World::new(quick);
    let before = resident();
    let mut all = Vec::new();
    for n in 0..1_000 {
        let ids = stable(&mut world, &format!("group-{n}"), 5);
        all.push((Str::from(format!("group-{n}").as_str()), ids));
        world.log.clear();
    }
    assert_eq!(world.shard.figures().members, 5_000);
    println!("1,000 groups of 5: {:.1} MiB", resident() - before);
    let start = Instant::now();
    for (group, ids) in &all {
        for id in ids {
            assert_eq!(world.heartbeat(group, id, 1), 0);
        }
    }
    println!("a heartbeat: {:?}", start.elapsed() / 5_000);

    let mut world = World::new(GroupConfig::default());
    world.topics.create("wide", 1_000);
    let before = resident();
    let start = Instant::now();
    for n in 0..100_000 {
        let group = format!("g{}", n / 1_000);
        world.commit(commit(&group, "", -1, ("wide", n % 1_000), i64::from(n)));
    }
    println!("a commit: {:?}", start.elapsed() / 100_000);
    println!("100,000 offsets and their log: {:.1} MiB", resident() - before);
    let start = Instant::now();
    let shard = world.replayed();
    println!("loading 100,000 offsets by replay: {:?}", start.elapsed());
    let start = Instant::now();
    let snapshot = shard.snapshot(1, 1);
    println!("their snapshot, {} bytes: {:?}", snapshot.len(), start.elapsed());
    let mut shard = Shard::new(0, world.config.clone(), 1);
    let start = Instant::now();
    shard.restore(&snapshot).unwrap();
    println!("loading the snapshot: {:?}", start.elapsed());
    assert_eq!(shard.figures().offsets, 100_000);
}
