//! `drumlin export TOPIC DIR`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use drumlin_broker::config::{LogFormat, Overrides, TopicConfig};
use drumlin_broker::startup;
use drumlin_log::TopicId;
use drumlin_log::export::{ExportOptions, SEGMENT_BYTES, export};
use drumlin_objects::Env;

use crate::args::Configuration;
use crate::catalog;
use crate::serve::{runtime, start_logging};

/// Writes a topic's partitions as log directories of a stock broker.
pub fn run(configuration: &Configuration, topic: &str, directory: &Path) -> anyhow::Result<ExitCode> {
    let (config, _) = configuration.load()?;
    start_logging(LogFormat::Text);
    let segment_bytes = match config.live.origin("log.segment.bytes") {
        Some(_) => TopicConfig::resolve(&Overrides::new(), &config.live).segment_bytes,
        None => SEGMENT_BYTES,
    };
    runtime()?.block_on(async {
        let env = Env::real();
        let bucket = startup::open_bucket(&config, &env)?;
        let topics = catalog::read(&bucket).await?;
        let Some(found) = topics.get(topic) else {
            bail!("there is no topic {topic:?} in {}", config.store.url);
        };
        let options = ExportOptions {
            name: topic.to_owned(),
            topic: TopicId(found.id),
            partitions: i32::try_from(found.partitions).unwrap_or(i32::MAX),
            segment_bytes,
        };
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        export(&env, &bucket, &options, directory, &|partition| {
            println!(
                "{}: offsets {} to {}, {} bytes in {} files",
                partition.path.display(),
                partition.log_start,
                partition.log_end,
                partition.bytes,
                partition.files
            );
        })
        .await?;
        Ok(ExitCode::SUCCESS)
    })
}
