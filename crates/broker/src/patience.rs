//! Waiting for a store during a start, and saying so.
//!
//! A remote store may be slow, or come up after the broker, or learn of a key a minute after it was made. A start waits for
//! it as long as `store.start.timeout.ms` says, and tells the operator every three seconds what it waits for and why.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drumlin_objects::{Bucket, BucketKind, Env, Reason, StoreError};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::config::BrokerConfig;
use crate::startup::StartError;

/// How often the operator is told.
const TELL_EVERY: Duration = Duration::from_secs(3);
/// How long a store is left alone between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// How a start waits for its store.
pub(crate) struct Patience<'a> {
    bucket: &'a Bucket,
    url: &'a str,
    limit: Duration,
    is_remote: bool,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    reason: Option<String>,
    at: Option<Instant>,
}

impl<'a> Patience<'a> {
    /// The patience of a configuration.
    pub(crate) fn new(config: &'a BrokerConfig, bucket: &'a Bucket, env: &Env) -> Self {
        Self {
            bucket,
            url: &config.store.url,
            limit: config.store.start_timeout,
            is_remote: bucket.kind() == BucketKind::Remote && !env.is_simulated(),
            told: Mutex::default(),
        }
    }

    /// Warns, unless the same was said less than three seconds ago.
    fn warn(&self, reason: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.reason.as_deref() != Some(reason);
        if is_new || told.at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            let (url, seconds) = (self.url, self.limit.as_secs());
            warn!("the store {url} cannot be used yet, trying for {seconds} s: {reason}");
            told.reason = Some(reason.to_owned());
            told.at = Some(Instant::now());
        }
    }

    /// Waits for the store's first answer. What keeps it from being used is said at once if somebody has to do something
    /// about it, a missing bucket or a wrong key, and otherwise when it has gone on for a while: a store that is started
    /// together with the broker comes up in its own time. It is waited for in either case: whoever creates the bucket or
    /// the user may be about to.
    pub(crate) async fn reach(&self) -> Result<(), StartError> {
        if self.bucket.kind() != BucketKind::Remote {
            return Ok(());
        }
        let key = format!("{}/log/{:020}", drumlin_cluster::PREFIX, 0);
        let began = Instant::now();
        let quiet_until = began + TELL_EVERY.min(self.limit);
        let mut reason = "no answer yet".to_owned();
        let asking = async {
            loop {
                let mut asked = pin!(self.bucket.ask(&key, Reason::Meta));
                let mut tell_at = quiet_until.max(Instant::now());
                let answer = loop {
                    match timeout_at(tell_at, asked.as_mut()).await {
                        Ok(answer) => break answer,
                        Err(_) => self.warn(&reason),
                    }
                    tell_at = Instant::now() + TELL_EVERY;
                };
                let Err(error) = answer else { return };
                reason = error.to_string();
                if error.is_somebodys() || Instant::now() >= quiet_until {
                    self.warn(&reason);
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        match timeout_at(began + self.limit, asking).await {
            Ok(()) => Ok(()),
            Err(_) => Err(StartError::Unusable {
                url: self.url.to_owned(),
                waited: self.limit,
                reason,
            }),
        }
    }

    /// Does a step of the start, and says every three seconds that it takes what it is and how the store answers.
    pub(crate) async fn tell<T>(&self, step: &str, work: impl Future<Output = T>) -> T {
        self.tell_since(step, Instant::now(), work).await
    }

    async fn tell_since<T>(&self, step: &str, began: Instant, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if !self.is_remote {
            return work.await;
        }
        loop {
            if let Ok(outcome) = timeout(TELL_EVERY, work.as_mut()).await {
                return outcome;
            }
            let (url, seconds) = (self.url, began.elapsed().as_secs());
            match self.bucket.last_failure().filter(|failure| failure.at >= began) {
                Some(failure) => warn!(
                    "still {step}, {seconds} s by now: the store {url} failed a request {} s ago: {}",
                    failure.at.elapsed().as_secs(),
                    failure.what
                ),
                None => warn!(
                    "still {step}, {seconds} s by now: the store {url} is slow, or there is much to read; no request \
                     failed"
                ),
            }
        }
    }

    /// Does a step of the start, again and again while the store keeps it from being done, for as long as the store may
    /// take. `cause` tells which failures are the store's.
    pub(crate) async fn insist<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        step: &str,
        work: impl Fn() -> F,
        cause: impl Fn(&E) -> Option<&StoreError>,
    ) -> Result<T, E> {
        let began = Instant::now();
        loop {
            let error = match self.tell_since(step, began, work()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let reason = cause(&error)
                .filter(|error| may_pass(error))
                .map(ToString::to_string);
            let Some(reason) = reason.filter(|_| self.is_remote) else {
                return Err(error);
            };
            if began.elapsed() + AGAIN >= self.limit {
                return Err(error);
            }
            self.warn(&reason);
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Whether the store may answer otherwise when it is asked again: a right may reach it late, as a bucket does.
fn may_pass(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable { .. }
        | StoreError::Full { .. }
        | StoreError::Denied { .. }
        | StoreError::NoBucket { .. }
        | StoreError::NoCredentials { .. } => true,
        StoreError::NotFound { .. } | StoreError::Invalid { .. } | StoreError::FsyncFailed { .. } => false,
    }
}
