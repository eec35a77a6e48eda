//! `drumlin store check`, `drumlin store probe` and `drumlin store give-up`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use drumlin_broker::config::LogFormat;
use drumlin_broker::startup;
use drumlin_cluster::{Birth, Image, PREFIX};
use drumlin_log::TopicId;
use drumlin_log::check::{CheckOptions, Progress, check as walk};
use drumlin_objects::chain::read_birth;
use drumlin_objects::probe::{FULL_KEYS, FULL_RACERS, probe as race};
use drumlin_objects::{Env, Reason};
use tracing::warn;

use crate::args::Configuration;
use crate::catalog;
use crate::serve::{runtime, start_logging};

/// How often a long check says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Walks the bucket and reports what is wrong with it. The exit code is 1 if anything is.
pub fn check(configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let (config, _) = configuration.load()?;
    start_logging(LogFormat::Text);
    runtime()?.block_on(async {
        let env = Env::real();
        let bucket = startup::open_bucket(&config, &env)?;
        // A damaged metadata log is a finding of the walk, which then takes every topic to exist.
        let topics: Option<BTreeMap<TopicId, String>> = match catalog::read(&bucket).await {
            Ok(topics) => Some(
                topics
                    .into_iter()
                    .map(|(name, topic)| (TopicId(topic.id), name))
                    .collect(),
            ),
            Err(error) => {
                warn!("the topics are not known: {error:#}");
                None
            }
        };
        let meta_body = |body: &Bytes| Image::decode(body).map(|_| ()).map_err(|error| error.to_string());
        let options = CheckOptions {
            topics: topics.as_ref(),
            meta_body: Some(&meta_body),
        };
        let report = walk(&env, &bucket, options, &progress()).await?;
        println!("{report}");
        Ok(if report.is_clean() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

/// Says on stderr how far a long check has come.
fn progress() -> impl Fn(Progress) + Send + Sync {
    let last = Mutex::new(Instant::now());
    move |now| {
        let Ok(mut last) = last.lock() else { return };
        if last.elapsed() >= REPORT_EVERY {
            *last = Instant::now();
            let (read, all) = (now.bytes >> 20, now.bytes_total >> 20);
            eprintln!(
                "{} of {} objects, {read} of {all} MiB",
                now.objects, now.objects_total
            );
        }
    }
}

/// Races writers for fresh keys and says what came of it.
pub fn probe(configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let (config, _) = configuration.load()?;
    start_logging(LogFormat::Text);
    runtime()?.block_on(async {
        let env = Env::real();
        let bucket = startup::open_bucket(&config, &env)?;
        let report = race(&bucket, FULL_KEYS, FULL_RACERS).await?;
        println!(
            "{}: {} writers raced on each of {} keys, one won each: {} puts were refused, {} failed",
            config.store.url, report.racers, report.keys, report.refused, report.failed
        );
        Ok(ExitCode::SUCCESS)
    })
}

/// Goes on without WAL objects that were deleted. A local directory must not be in use.
pub fn give_up(configuration: &Configuration, keys: &[String]) -> anyhow::Result<ExitCode> {
    let (config, _) = configuration.load()?;
    start_logging(LogFormat::Text);
    runtime()?.block_on(async {
        let env = Env::real();
        let bucket = startup::open_bucket(&config, &env)?;
        let _lock = bucket.lock_local()?;
        let Some(entry) = read_birth(&bucket, PREFIX, Reason::Recovery).await? else {
            bail!("the bucket holds no cluster: check store.url");
        };
        let birth = Birth::decode(&entry.body()).context("the bucket's birth object cannot be read")?;
        drumlin_log::give_up(&bucket, &birth.cluster_id.to_string(), keys).await?;
        println!(
            "given up: {}; start the broker, and it goes on without the records that were there",
            keys.join(" ")
        );
        Ok(ExitCode::SUCCESS)
    })
}
