//! rust-rdkafka, over librdkafka: its crate comes with its tests, which take the
//! broker's address from the environment, but for two files that have it in their text.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::sources::{BUILD, cargo_packages, copy, replace, set_numbers};
use super::{Addresses, Prepared, Suite};
use crate::process;

const VERSION: &str = "0.39.0";

pub(super) const SUITE: Suite = Suite {
    name: "rust-rdkafka",
    patience: Duration::from_secs(150),
    settings: &[("num.partitions", "3"), ("node.id", "0")],
    prepare,
};

struct RustRdkafka {
    address: String,
    dir: PathBuf,
    /// Each file of tests with the program that it was built into.
    programs: Vec<(String, PathBuf)>,
}

fn prepare(home: &Path, addresses: &Addresses) -> anyhow::Result<Box<dyn Prepared>> {
    let found = cargo_packages("rdkafka", VERSION, &["rdkafka"], home)?;
    let dir = home.join("sources");
    copy(found.first().context("rdkafka")?, &dir)?;
    let address = format!("localhost:{}", addresses.broker);
    replace(
        &dir.join("tests/test_high_producers.rs"),
        "\"bootstrap.servers\", \"localhost\"",
        &format!("\"bootstrap.servers\", \"{address}\""),
    )?;
    set_numbers(&dir.join("tests"), "rs", &[("9092", addresses.broker)])?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args([
            "test",
            "--tests",
            "--no-run",
            "--locked",
            "--message-format",
            "json-render-diagnostics",
        ])
        .arg("--target-dir")
        .arg(home.join("target"))
        .current_dir(&dir);
    let output = process::run(build, BUILD)?;
    let mut programs = Vec::new();
    for line in output.stdout.lines() {
        let told: Value = serde_json::from_str(line).context("cargo")?;
        let test = told["target"]["kind"]
            .as_array()
            .is_some_and(|k| k.iter().any(|k| k == "test"));
        if let (true, Some(name), Some(path)) =
            (test, told["target"]["name"].as_str(), told["executable"].as_str())
        {
            programs.push((name.to_owned(), path.into()));
        }
    }
    programs.sort();
    Ok(Box::new(RustRdkafka {
        address,
        dir,
        programs,
    }))
}

impl RustRdkafka {
    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command
            .current_dir(&self.dir)
            .env("KAFKA_HOST", &self.address)
            .env("KAFKA_VERSION", "4.0.0");
        command
    }
}

impl Prepared for RustRdkafka {
    fn cases(&self) -> anyhow::Result<Vec<String>> {
        let mut cases = Vec::new();
        for (file, path) in &self.programs {
            let mut list = self.program(path);
            list.args(["--list", "--format", "terse"]);
            for line in process::run(list, BUILD)?.stdout.lines() {
                // What every file brings along tests the tests.
                if let Some(test) = line.strip_suffix(": test").filter(|t| !t.starts_with("utils::")) {
                    cases.push(format!("{file}.{test}"));
                }
            }
        }
        Ok(cases)
    }

    fn command(&self, case: &str) -> Command {
        let (file, test) = case.split_once('.').unwrap_or((case, ""));
        let path = self.programs.iter().find(|(name, _)| name == file);
        let mut command = self.program(path.map_or(Path::new(""), |(_, path)| path));
        command.args(["--exact", test, "--nocapture"]);
        command
    }
}
