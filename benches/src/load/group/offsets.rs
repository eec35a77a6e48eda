//! A coordinator that holds many offsets, and how long it takes until it serves them after a start.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drumlin_tests::client::Connection;

use super::{AGAIN, PASSING, PATIENCE, commit, commit_request, find_coordinator};

/// `offsets.topic.num.partitions`, the default of both.
const PARTITIONS: i32 = 50;

/// Names of groups that one partition of the offsets topic keeps.
pub fn groups(count: usize) -> Vec<String> {
    (0..)
        .map(|i| format!("load-{i}"))
        .filter(|name| partition(name) == PARTITIONS / 2)
        .take(count)
        .collect()
}

/// Kafka's choice: `Utils.abs(groupId.hashCode()) % partitions`.
fn partition(group: &str) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    (hash & i32::MAX) % PARTITIONS
}

/// Commits `offset` for all partitions of a topic in each of the groups, without members.
pub fn fill(
    bootstrap: &str,
    groups: &[String],
    topic: &str,
    partitions: i32,
    offset: i64,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(bootstrap, PATIENCE)?;
    for (at, group) in groups.iter().enumerate() {
        if at == 0 {
            find_coordinator(&mut connection, group)?;
        }
        let request = commit_request(group, topic, ("", -1), 0..partitions, offset);
        loop {
            match commit(&mut connection, &request)? {
                0 => break,
                code if PASSING.contains(&code) => std::thread::sleep(AGAIN),
                code => bail!("a commit of {group}: error {code}"),
            }
        }
    }
    Ok(())
}

/// Asks for a group's offsets until the coordinator gives them; returns the time since `started`, and that of the first
/// answer of any kind.
pub fn first_fetch(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partitions: i32,
    offset: i64,
    started: Instant,
    patience: Duration,
) -> anyhow::Result<(Duration, Duration)> {
    let (mut answered, mut last) = (None, None);
    while started.elapsed() < patience {
        let Ok(mut connection) = Connection::open(bootstrap, Duration::from_secs(10)) else {
            std::thread::sleep(Duration::from_micros(500));
            continue;
        };
        loop {
            match connection.committed(group, topic, partitions) {
                Ok(Ok(found)) => {
                    let took = started.elapsed();
                    let right = found.len() == usize::try_from(partitions)?
                        && found.values().all(|committed| *committed == offset);
                    if !right {
                        bail!(
                            "{group}: {} of {partitions} offsets after the start: {found:?}",
                            found.len()
                        );
                    }
                    return Ok((took, answered.unwrap_or(took)));
                }
                Ok(Err(code)) => {
                    answered.get_or_insert_with(|| started.elapsed());
                    if started.elapsed() > patience {
                        return Err(anyhow::anyhow!("error {code}")).context("OffsetFetch");
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
                Err(error) => {
                    last = Some(error);
                    break;
                }
            }
        }
    }
    bail!("no offsets within {patience:?}: {last:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_in_java() {
        // "hello".hashCode() is 99162322, "drumlin-load".hashCode() is negative.
        assert_eq!(partition("hello"), 99_162_322 % PARTITIONS);
        let all = groups(20);
        assert!(all.len() == 20 && all.iter().all(|g| partition(g) == PARTITIONS / 2));
    }
}
