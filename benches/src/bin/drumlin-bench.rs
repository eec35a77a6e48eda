//! Runs the comparison; `cargo xtask bench` builds what it needs and calls it.

use std::path::PathBuf;

use clap::Parser;
use drumlin_benches::{process, suite};

#[derive(Parser)]
#[command(
    name = "drumlin-bench",
    about = "Measures Drumlin against Apache Kafka; use `cargo xtask bench`"
)]
struct Arguments {
    /// Within ten minutes.
    #[arg(long)]
    quick: bool,
    /// Run one group only, such as local, tools or sustained; an unknown name lists all.
    #[arg(long)]
    only: Vec<String>,
    /// Leave Drumlin out, to try the comparison itself.
    #[arg(long)]
    kafka_only: bool,
    /// For brokers' data; on the disk that is to be measured.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// For figures.
    #[arg(long)]
    results: Option<PathBuf>,
    /// The commit that is measured.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// What is known of the machine, as JSON.
    #[arg(long, default_value = "{}")]
    machine: String,
    /// Another length of the main part of cases that run over time.
    #[arg(long)]
    minutes: Option<f64>,
    /// Goes into the names of files, such as `before`.
    #[arg(long)]
    label: Option<String>,
    /// Said on the pages of cases that run over time.
    #[arg(long)]
    remark: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    process::raise_file_limit();
    let load = std::env::current_exe()?.with_file_name("drumlin-load");
    let repository = drumlin_tests::cache::repository();
    let dir = arguments
        .dir
        .unwrap_or_else(|| drumlin_tests::cache::root().join("bench"));
    suite::run(&suite::Request {
        quick: arguments.quick,
        only: arguments.only,
        kafka_only: arguments.kafka_only,
        load,
        dir,
        results: arguments
            .results
            .unwrap_or_else(|| repository.join("benches/results")),
        commit: arguments.commit,
        machine: serde_json::from_str(&arguments.machine)?,
        minutes: arguments.minutes,
        label: arguments.label,
        remark: arguments.remark,
    })
}
