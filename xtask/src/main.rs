//! The project's own commands, run as `cargo xtask NAME`.
//!
//! `test` installs what the tests need and runs the everyday suite, `soak` runs
//! the long ones, `bench` compares with Apache Kafka, `codegen` writes the wire
//! codec from Apache Kafka's message schemas. Where things are kept is in
//! [`cache`], what gets installed and how in [`install`].

mod bench;
mod cache;
mod codegen;
mod command;
mod install;
mod results;
mod soak;
mod suite;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need, then run the everyday suite.
    Test(suite::Options),
    /// Install what the tests need, and nothing else.
    Install,
    /// Run one of the long tests, picking up where an earlier run of the same name and seed stopped.
    Soak(soak::Options),
    /// Measure against one Apache Kafka node in alternation.
    Bench(bench::Options),
    /// Write the wire codec from the message schemas of Apache Kafka.
    Codegen {
        /// Change nothing; fail if what is checked in differs.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Test(options) => suite::run(&options),
        Task::Install => install::run(&cache::Cache::open()?),
        Task::Soak(options) => soak::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Codegen { check } => codegen::run(check),
    }
}
