//! `drumlin store check` and `drumlin store probe`.

use std::process::ExitCode;

use anyhow::anyhow;
use drumlin_broker::config::LogFormat;
use drumlin_broker::startup;
use drumlin_objects::Env;
use drumlin_objects::probe::{FULL_KEYS, FULL_RACERS, probe as race};

use crate::args::Configuration;
use crate::serve::{runtime, start_logging};

/// Walks the bucket and reports what is wrong with it. The exit code is 1 if anything is.
pub fn check(configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let (_config, _) = configuration.load()?;
    Err(anyhow!("the check of a store is not built in yet"))
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
