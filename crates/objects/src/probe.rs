//! The test of put-if-absent (rule S1): stores whose conditional put is not atomic have been shipped.
//!
//! Many connections race on each of many fresh keys; exactly one may win each, and the read-back must be the
//! winner's. Passing is no proof. A local directory needs none.

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::error::{PutNewError, StoreError};
use crate::stats::Reason;

/// Keys of the full probe, run when a bucket is first used.
pub const FULL_KEYS: usize = 50;
/// Racers on each key.
pub const FULL_RACERS: usize = 16;
/// Keys raced at a time.
const KEYS_AT_ONCE: usize = 4;

/// What a probe that passed has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeReport {
    /// Keys raced on.
    pub keys: usize,
    /// Racers on each.
    pub racers: usize,
    /// Puts that were refused because another had won, as they should be.
    pub refused: usize,
    /// Puts that failed otherwise, whose key was judged by its read-back alone.
    pub failed: usize,
}

/// Why a store must not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Put-if-absent let two writers win, or lost the winner's object.
    #[error(
        "this store's put-if-absent is not atomic ({what}); records would be lost, so it cannot be used: \
         choose a store or a version of it with conditional writes"
    )]
    NotAtomic {
        /// What was seen.
        what: String,
    },
    /// The store did not answer.
    #[error("the store could not be tried: {0}")]
    Store(#[from] StoreError),
}

/// Races `racers` puts on each of `keys` fresh keys below `probe/`, and cleans up behind itself.
pub async fn probe(bucket: &Bucket, keys: usize, racers: usize) -> Result<ProbeReport, ProbeError> {
    let run = hex(&bucket.env().random_id());
    let mut report = ProbeReport {
        keys,
        racers,
        refused: 0,
        failed: 0,
    };
    let races: Vec<String> = (0..keys).map(|n| format!("probe/{run}-{n}")).collect();
    let mut results = futures::stream::iter(races)
        .map(|key| async move { race_until_answered(bucket, &key, racers).await })
        .buffered(KEYS_AT_ONCE);
    let mut verdict = Ok(());
    while let Some(result) = results.next().await {
        match result {
            Ok((refused, failed)) => {
                report.refused += refused;
                report.failed += failed;
            }
            Err(error) => verdict = verdict.and(Err(error)),
        }
    }
    verdict.map(|()| report)
}

/// Races until the store has answered some racer: one that asks all of them to slow down is waited for. Each race has a
/// key of its own, since a put that failed may yet take effect.
async fn race_until_answered(
    bucket: &Bucket,
    key: &str,
    racers: usize,
) -> Result<(usize, usize), ProbeError> {
    let began = Instant::now();
    let mut failed = 0;
    loop {
        let fresh = format!("{key}-{failed}");
        let outcome = race(bucket, &fresh, racers).await;
        if !matches!(&outcome, Err(ProbeError::Store(_))) {
            // Litter is harmless, and sweepers know the prefix.
            let _ = bucket.delete(&fresh, Reason::Probe).await;
        }
        let error = match outcome {
            Err(ProbeError::Store(error)) if error.is_transient() => error,
            outcome => return outcome,
        };
        failed += 1;
        let wait = bucket.backoff(failed);
        if began.elapsed() + wait >= bucket.options().retry_for {
            return Err(error.after(failed).into());
        }
        tracing::debug!(%error, failed, ?wait, "no racer was answered, they race again");
        tokio::time::sleep(wait).await;
    }
}

async fn race(bucket: &Bucket, key: &str, racers: usize) -> Result<(usize, usize), ProbeError> {
    let bodies: Vec<Bytes> = (0..racers)
        .map(|_| Bytes::from(hex(&bucket.env().random_id())))
        .collect();
    let puts = bodies
        .iter()
        .map(|body| bucket.put_new(key, body.clone(), Reason::Probe));
    let results = futures::future::join_all(puts).await;
    let mut winners = Vec::new();
    let (mut refused, mut failed, mut last) = (0, 0, None);
    for (body, result) in bodies.iter().zip(results) {
        match result {
            Ok(()) => winners.push(body),
            Err(PutNewError::Exists { .. }) => refused += 1,
            Err(PutNewError::Store(error @ StoreError::Invalid { .. })) => {
                return Err(ProbeError::NotAtomic {
                    what: error.to_string(),
                });
            }
            Err(PutNewError::Store(error)) => {
                failed += 1;
                last = Some(error);
            }
        }
    }
    if failed == racers
        && let Some(error) = last
    {
        return Err(error.into());
    }
    if winners.len() > 1 {
        return Err(ProbeError::NotAtomic {
            what: format!("{} of {racers} writers won one key", winners.len()),
        });
    }
    let held = match bucket.get(key, Reason::Probe).await {
        Ok(held) => held,
        Err(StoreError::NotFound { .. }) if winners.is_empty() => return Ok((refused, failed)),
        Err(StoreError::NotFound { .. }) => {
            return Err(ProbeError::NotAtomic {
                what: "the winner's object is missing".to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    match winners.first() {
        Some(winner) if **winner != held => Err(ProbeError::NotAtomic {
            what: "the object is not the winner's".to_owned(),
        }),
        // A put that failed may have won; a refused one must not have.
        None if failed == 0 => Err(ProbeError::NotAtomic {
            what: "nobody won, yet there is an object".to_owned(),
        }),
        _ => Ok((refused, failed)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
