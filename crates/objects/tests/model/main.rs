//! Exhaustive models of the chain (`stateright`): the rules hold, and each of them is needed.
//!
//! Every day a small bound; `DRUMLIN_MODEL=full` takes larger ones, which need minutes in a release build.

mod meta;
mod wal;

use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

fn full() -> bool {
    std::env::var("DRUMLIN_MODEL").is_ok_and(|value| value == "full")
}

/// Explores all states of a model whose properties must hold.
fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync,
{
    let began = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states, {} transitions, depth {}, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker.assert_properties();
}

/// Looks for a violation in a broken variant, and prints the shortest way to it.
fn breaks<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync,
{
    let checker = model
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    assert!(
        !found.is_empty(),
        "{name}: no violation in {} states",
        checker.unique_state_count()
    );
    for (property, path) in found {
        let steps = path.into_actions();
        println!(
            "{name}: breaks \"{property}\" in {} steps: {steps:?}",
            steps.len()
        );
    }
}
