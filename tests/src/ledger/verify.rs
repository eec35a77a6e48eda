//! Reads everything once more and holds it against the account.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;

use super::account::{Account, Acked};
use super::record::{Identity, fingerprint};
use super::{Figures, Plan, TOPIC};
use crate::client::{Connection, decoded};

const PATIENCE: Duration = Duration::from_secs(60);

/// An error if any promise was broken; figures otherwise.
pub fn run(bootstrap: &str, plan: &Plan, account: &Account, acked: &[Acked]) -> anyhow::Result<Figures> {
    let mut connection = Connection::open(bootstrap, PATIENCE)?;
    let (mut total, mut repeated) = (0, 0);
    for partition in 0..plan.partitions {
        let log = read_all(&mut connection, partition, plan.partitions, account)?;
        total += log.len() as u64;
        check_acked(partition, &log, account, acked);
        repeated += check_order(partition, &log, plan, account, acked);
    }
    account.result()?;
    Ok(Figures::from([
        ("records_stored", total),
        ("batches_acked", acked.len() as u64),
        ("plain_records_repeated", repeated),
    ]))
}

/// Everything in a partition, by offset; holds it against what consumers saw.
fn read_all(
    connection: &mut Connection,
    partition: i32,
    partitions: i32,
    account: &Account,
) -> anyhow::Result<Vec<Identity>> {
    let end = connection.list_offset(TOPIC, partition, -1)?;
    let start = connection.list_offset(TOPIC, partition, -2)?;
    if start != 0 {
        account.broken(format!("partition {partition} starts at {start}"));
    }
    let seen = account.seen(partition);
    if (end as usize) < seen.len() {
        account.broken(format!(
            "partition {partition} ends at {end}, though consumers saw up to {}",
            seen.len()
        ));
    }
    let mut log = Vec::new();
    let mut idle = 0;
    while (log.len() as i64) < end {
        let mut request = super::consumer::fetch(&vec![0; partitions as usize], 1000);
        for topic in &mut request.topics {
            topic.partitions.retain(|p| p.partition == partition);
            topic
                .partitions
                .iter_mut()
                .for_each(|p| p.fetch_offset = log.len() as i64);
        }
        let answer = connection.call(&request, 12)?;
        let Some(data) = answer.responses.first().and_then(|t| t.partitions.first()) else {
            bail!("an empty answer to a fetch");
        };
        if data.error_code != 0 {
            bail!(
                "partition {partition}, offset {}: fetch error {}",
                log.len(),
                data.error_code
            );
        }
        let before = log.len();
        let bytes = data.records.clone().map(|r| r.into_bytes()).unwrap_or_default();
        for record in decoded(&bytes)? {
            let at = log.len() as i64;
            if record.offset < at {
                continue;
            }
            if record.offset > at {
                bail!("partition {partition}: a gap from {at} to {}", record.offset);
            }
            if seen
                .get(log.len())
                .is_some_and(|s| s.is_some_and(|s| s != fingerprint(&record)))
            {
                account.broken(format!(
                    "partition {partition}, offset {at}: not what a consumer saw there"
                ));
            }
            let Some(identity) = record.value.as_deref().and_then(Identity::of) else {
                bail!("partition {partition}, offset {at}: no producer made this record");
            };
            if identity.partition != partition {
                account.broken(format!(
                    "partition {partition}, offset {at}: {identity:?} belongs elsewhere"
                ));
            }
            log.push(identity);
        }
        idle = if log.len() == before { idle + 1 } else { 0 };
        if idle > 10 {
            bail!("partition {partition}: nothing comes from offset {before} on, though it ends at {end}");
        }
    }
    Ok(log)
}

/// Every acknowledged record stands where its acknowledgement said.
fn check_acked(partition: i32, log: &[Identity], account: &Account, acked: &[Acked]) {
    let mut places: BTreeMap<Identity, usize> = BTreeMap::new();
    for (offset, identity) in log.iter().enumerate() {
        places.entry(*identity).or_insert(offset);
    }
    for batch in acked.iter().filter(|a| a.partition == partition) {
        for n in 0..batch.count {
            let identity = Identity {
                producer: batch.producer,
                partition,
                counter: batch.first + n,
            };
            if !places.contains_key(&identity) {
                account.broken(format!(
                    "LOST: {identity:?} was acknowledged at {:?}",
                    batch.offset
                ));
            } else if let Some(offset) = batch.offset
                && log.get(offset as usize + n as usize) != Some(&identity)
            {
                account.broken(format!(
                    "{identity:?} was acknowledged at {}, where {:?} stands",
                    offset + n as i64,
                    log.get(offset as usize + n as usize)
                ));
            }
        }
    }
}

/// Idempotent producers' records stand there once and in order; returns the repeats of plain ones.
fn check_order(partition: i32, log: &[Identity], plan: &Plan, account: &Account, acked: &[Acked]) -> u64 {
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut plain: BTreeMap<Identity, u64> = BTreeMap::new();
    for (offset, identity) in log.iter().enumerate() {
        if identity.producer >= plan.idempotent {
            *plain.entry(*identity).or_insert(0) += 1;
            continue;
        }
        let expected = next.entry(identity.producer).or_insert(0);
        if identity.counter < *expected {
            account.broken(format!(
                "DUPLICATE: {identity:?} again at partition {partition}, offset {offset}"
            ));
        } else if identity.counter > *expected {
            account.broken(format!(
                "{identity:?} at offset {offset}, where its record {expected} is next"
            ));
        }
        *expected = (*expected).max(identity.counter + 1);
    }
    for (producer, end) in next {
        let sent = acked
            .iter()
            .filter(|a| a.partition == partition && a.producer == producer);
        let sent = sent.map(|a| a.first + a.count).max().unwrap_or(0);
        if sent != end {
            account.broken(format!(
                "producer {producer}, partition {partition}: {sent} acknowledged, {end} stored"
            ));
        }
    }
    plain.values().map(|n| n - 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(producer: u32, counter: u64) -> Identity {
        Identity {
            producer,
            partition: 0,
            counter,
        }
    }

    /// Producer 0 is idempotent, producer 1 is not.
    fn broken(log: &[Identity], acked: &[Acked]) -> bool {
        let plan = Plan {
            idempotent: 1,
            plain: 1,
            ..Plan::everyday(0)
        };
        let account = Account::new(1);
        check_acked(0, log, &account, acked);
        check_order(0, log, &plan, &account, acked);
        account.is_broken()
    }

    fn acked(producer: u32, count: u64, offset: i64) -> Acked {
        Acked {
            producer,
            partition: 0,
            first: 0,
            count,
            offset: Some(offset),
        }
    }

    #[test]
    fn what_was_promised_passes() {
        let log = [identity(1, 0), identity(0, 0), identity(0, 1), identity(1, 0)];
        assert!(
            !broken(&log, &[acked(0, 2, 1), acked(1, 1, 3)]),
            "a plain producer may repeat itself"
        );
        assert!(
            !broken(&log, &[acked(0, 2, 1)]),
            "what was not acknowledged may be there"
        );
    }

    #[test]
    fn each_broken_promise_is_found() {
        let two = [acked(0, 2, 0)];
        assert!(broken(&[identity(0, 0)], &two), "an acknowledged record is lost");
        assert!(
            broken(&[identity(0, 1), identity(0, 0)], &two),
            "they change places"
        );
        assert!(
            broken(&[identity(1, 0), identity(0, 0), identity(0, 1)], &two),
            "they are elsewhere"
        );
        assert!(
            broken(&[identity(0, 0), identity(0, 1), identity(0, 1)], &two),
            "one is there twice"
        );
        assert!(
            broken(&[identity(0, 0), identity(0, 1), identity(0, 3)], &two),
            "one in the middle is not there"
        );
    }

    #[test]
    fn what_was_seen_must_stay() {
        let account = Account::new(1);
        account.saw(0, 3, 17);
        account.saw(0, 3, 17);
        assert!(!account.is_broken());
        account.saw(0, 3, 18);
        assert!(account.is_broken());
    }
}
