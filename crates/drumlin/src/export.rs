//! `drumlin export TOPIC DIR`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;

use crate::args::Configuration;

/// Writes a topic's log as a directory of a stock broker.
pub fn run(configuration: &Configuration, topic: &str, directory: &Path) -> anyhow::Result<ExitCode> {
    let (_config, _) = configuration.load()?;
    Err(anyhow!(
        "cannot export {topic} to {}: not built in yet",
        directory.display()
    ))
}
