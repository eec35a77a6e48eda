//! The program: `drumlin serve` and the command-line tools beside it.

mod allocator;
mod args;
mod catalog;
mod check;
mod export;
mod options;
mod serve;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command, StoreCommand};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&arguments.configuration),
        Command::Config { markdown } => options::run(markdown),
        Command::Store(StoreCommand::Check) => check::check(&arguments.configuration),
        Command::Store(StoreCommand::GiveUp { keys }) => check::give_up(&arguments.configuration, &keys),
        Command::Store(StoreCommand::Probe) => check::probe(&arguments.configuration),
        Command::Export { topic, directory } => export::run(&arguments.configuration, &topic, &directory),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("drumlin: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// One line: what is wrong, and what to do. Causes that were told already are not told twice.
fn told(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}
