//! kafka-go: its module comes from the Go module proxy with its tests in it. They name
//! the broker as `localhost:9092` in the text; the port is replaced there, and that of
//! the SASL listener, which does not exist, by one that nobody listens on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::expected::Outcome;
use super::sources::{BUILD, copy, go_module, set_numbers};
use super::{Addresses, Prepared, Suite};
use crate::process::{self, Output};

const MODULE: &str = "github.com/segmentio/kafka-go";
const VERSION: &str = "v0.4.51";

pub(super) const SUITE: Suite = Suite {
    name: "kafka-go",
    patience: Duration::from_secs(120),
    settings: &[("message.max.bytes", "200000000")],
    prepare,
};

/// The packages that talk to a broker.
const PACKAGES: &[&str] = &["", "topics", "sasl"];

struct KafkaGo {
    dir: PathBuf,
}

fn prepare(home: &Path, addresses: &Addresses) -> anyhow::Result<Box<dyn Prepared>> {
    let dir = home.join("sources");
    copy(&go_module(&format!("{MODULE}@{VERSION}"), home)?, &dir)?;
    set_numbers(
        &dir,
        "go",
        &[("9092", addresses.broker), ("9093", addresses.nobody)],
    )?;
    let suite = KafkaGo { dir };
    for package in PACKAGES {
        let mut build = Command::new("go");
        build
            .args(["test", "-mod=mod", "-c", "-o"])
            .arg(suite.program(package))
            .arg(format!("./{package}"))
            .current_dir(&suite.dir);
        process::run(build, BUILD)?;
    }
    Ok(Box::new(suite))
}

impl KafkaGo {
    fn program(&self, package: &str) -> PathBuf {
        self.dir.join(package).join("suite.test")
    }

    fn test(&self, package: &str) -> Command {
        let mut command = Command::new(self.program(package));
        command
            .current_dir(self.dir.join(package))
            // As the authors run it; what is skipped hands a connection to a test of Go's own, which fails by itself.
            .env("KAFKA_SKIP_NETTEST", "1")
            .env("KAFKA_VERSION", "4.0.0");
        command
    }
}

impl Prepared for KafkaGo {
    fn cases(&self) -> anyhow::Result<Vec<String>> {
        let mut cases = Vec::new();
        for package in PACKAGES {
            let mut list = self.test(package);
            list.args(["-test.list", "^Test"]);
            let names = process::run(list, BUILD).context(*package)?.stdout;
            let tests = names.lines().filter(|l| l.starts_with("Test"));
            cases.extend(tests.map(|name| match package.is_empty() {
                true => name.to_owned(),
                false => format!("{package}.{name}"),
            }));
        }
        Ok(cases)
    }

    fn command(&self, case: &str) -> Command {
        let (package, name) = case.split_once('.').unwrap_or(("", case));
        let mut command = self.test(package);
        command.args(["-test.v", "-test.run", &format!("^{name}$")]);
        command
    }

    fn outcomes(&self, case: &str, output: &Output) -> BTreeMap<String, Outcome> {
        let package = case
            .split_once('.')
            .map_or(String::new(), |(p, _)| format!("{p}."));
        let mut found = verdicts(&output.stdout)
            .into_iter()
            .map(|(name, outcome)| (format!("{package}{name}"), outcome))
            .collect::<BTreeMap<_, _>>();
        // A crash ends the process without a verdict, and so does running out of time.
        if !output.status.success() && !found.values().any(|o| *o == Outcome::Failed) {
            found.insert(case.to_owned(), Outcome::Failed);
        }
        found
    }
}

/// Reads `--- PASS: TestName/part (0.01s)`. A test that has parts is told by them, as
/// it fails with any of them.
fn verdicts(printed: &str) -> BTreeMap<String, Outcome> {
    let mut all = BTreeMap::new();
    for line in printed.lines() {
        let Some((word, name)) = line
            .trim_start()
            .strip_prefix("--- ")
            .and_then(|rest| rest.split_once(": "))
        else {
            continue;
        };
        let outcome = match word {
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed,
            "SKIP" => Outcome::Skipped,
            _ => continue,
        };
        let name = name.rsplit_once(" (").map_or(name, |(name, _)| name);
        all.insert(name.to_owned(), outcome);
    }
    let names: Vec<String> = all.keys().cloned().collect();
    all.retain(|name, outcome| {
        let parts = names
            .iter()
            .filter(|n| n.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('/')));
        *outcome == Outcome::Skipped || parts.count() == 0
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_for_the_whole() {
        let printed = "=== RUN TestA\n    --- PASS: TestA/one (0.00s)\n    --- FAIL: TestA/two_(x) (1.00s)\n\
                       --- FAIL: TestA (1.00s)\n--- SKIP: TestB (0.00s)\n--- PASS: TestC (0.00s)\n";
        let expected = [
            ("TestA/one", Outcome::Passed),
            ("TestA/two_(x)", Outcome::Failed),
            ("TestB", Outcome::Skipped),
            ("TestC", Outcome::Passed),
        ];
        assert_eq!(verdicts(printed), expected.map(|(n, o)| (n.to_owned(), o)).into());
    }
}
