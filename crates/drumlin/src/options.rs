//! `drumlin config`: the table of options.

use std::io::Write;
use std::process::ExitCode;

use drumlin_broker::config::page;

/// Prints every option, for people or as the documentation's page.
pub fn run(markdown: bool) -> anyhow::Result<ExitCode> {
    let text = if markdown { page::markdown() } else { page::text() };
    // A pager that was closed early is no error.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
