//! Other people's test suites, run against the broker: unmodified but for addresses.
//!
//! Sources come through the package registries, in pinned versions. Each test (or the
//! smallest piece that a suite can run alone) is a process of its own with a bound in
//! time, so that one that hangs or crashes takes nothing along. How each must end is
//! in `tests/suites` ([`expected`]).
//!
//! aiokafka is not among them: its sources in the registry leave its tests out, in
//! every version. kafka-python, which its tests descend from, brings them.

pub mod expected;
mod kafka_go;
mod kafka_python;
mod librdkafka;
mod rdkafka;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::broker::{Broker, Options, against_kafka};
use crate::process::{self, Output};
use crate::{cache, ports};

use expected::{Expectation, Expectations, Outcome};

/// Where a suite finds the broker, and where it finds nobody.
pub struct Addresses {
    /// The broker's port on localhost.
    pub broker: u16,
    /// A port that nobody listens on, for what the broker does not offer.
    pub nobody: u16,
}

/// A suite whose sources are ready to run.
pub trait Prepared {
    /// The names of what can be run alone.
    fn cases(&self) -> anyhow::Result<Vec<String>>;

    /// The command that runs one of them.
    fn command(&self, case: &str) -> Command;

    /// How the tests in it ended. By default the case is one test, judged by its exit status.
    fn outcomes(&self, case: &str, output: &Output) -> BTreeMap<String, Outcome> {
        let outcome = match output.status.success() {
            true => Outcome::Passed,
            false => Outcome::Failed,
        };
        BTreeMap::from([(case.to_owned(), outcome)])
    }
}

/// A suite.
pub struct Suite {
    /// Its name, and that of its file in `tests/suites`.
    pub name: &'static str,
    /// The most that one case may take.
    patience: Duration,
    /// Options that its authors' own set-up of Apache Kafka has.
    settings: &'static [(&'static str, &'static str)],
    /// Fetches the sources into a folder, sets addresses, builds.
    prepare: fn(&Path, &Addresses) -> anyhow::Result<Box<dyn Prepared>>,
}

/// All suites, in the order in which they run.
pub const SUITES: &[Suite] = &[
    kafka_go::SUITE,
    rdkafka::SUITE,
    kafka_python::SUITE,
    librdkafka::SUITE,
    librdkafka::NO_AUTO_CREATE,
];

impl Suite {
    /// The suite of this name.
    pub fn named(name: &str) -> anyhow::Result<&'static Suite> {
        SUITES.iter().find(|s| s.name == name).with_context(|| {
            let names: Vec<_> = SUITES.iter().map(|s| s.name).collect();
            format!("no suite is called {name:?}; there are {}", names.join(", "))
        })
    }

    /// Runs the suite, or the cases whose names contain `only`, against a broker below
    /// `dir`; returns figures. An error if a test ended otherwise than expected.
    pub fn run(&self, dir: &Path, only: Option<&str>) -> anyhow::Result<BTreeMap<String, u64>> {
        let expectations = self.expectations()?;
        let (mut broker, addresses) = self.start_broker(dir)?;
        let home = cache::root().join("suites").join(self.name);
        let prepared =
            (self.prepare)(&home, &addresses).with_context(|| format!("preparing {}", self.name))?;
        let logs = home.join("output");
        clear(&logs)?;
        let mut outcomes = BTreeMap::new();
        for case in prepared.cases()? {
            if only.is_some_and(|part| !case.contains(part)) || expectations.of(&case) == Expectation::Omitted
            {
                continue;
            }
            let started = Instant::now();
            let output = process::run_any(prepared.command(&case), self.patience)?;
            std::fs::write(
                logs.join(format!("{}.log", case.replace('/', "_"))),
                format!("{}\n{}\n{}", output.stdout, output.stderr, output.status),
            )?;
            let ended = prepared.outcomes(&case, &output);
            let not_passed = ended.iter().filter(|(_, o)| **o != Outcome::Passed);
            let told: String = not_passed.map(|(n, o)| format!("; {n} {o:?}")).collect();
            println!(
                "{}: {case}: {} tests in {:.1} s{told}",
                self.name,
                ended.len(),
                started.elapsed().as_secs_f64()
            );
            outcomes.extend(ended);
        }
        broker.terminate().context("the broker after the suite")?;
        self.judge(&expectations, &outcomes, only.is_some())
    }

    fn expectations(&self) -> anyhow::Result<Expectations> {
        let file = cache::repository().join(format!("tests/suites/{}.txt", self.name));
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Expectations::parse(&text).with_context(|| file.display().to_string())
    }

    fn start_broker(&self, dir: &Path) -> anyhow::Result<(Broker, Addresses)> {
        let mut options = Options::local(&dir.join("broker"));
        for (key, value) in self.settings {
            // Apache Kafka's node has its id from the harness.
            if !(against_kafka() && *key == "node.id") {
                options = options.set(key, value);
            }
        }
        let mut broker = Broker::prepare(options)?;
        let bootstrap = broker.bootstrap();
        let port = bootstrap.rsplit(':').next().context("a port")?.parse()?;
        // The suites compare the name that they are told with the one that they ask.
        let told = (
            "advertised.listeners".to_owned(),
            format!("PLAINTEXT://localhost:{port}"),
        );
        broker.options_mut().settings.push(told);
        broker.restart()?;
        let addresses = Addresses {
            broker: port,
            nobody: ports::free()?,
        };
        Ok((broker, addresses))
    }

    /// Compares with what is expected, unless the broker is Apache Kafka: then the
    /// outcomes are shown, for a look at whose fault a failure is.
    fn judge(
        &self,
        expectations: &Expectations,
        outcomes: &BTreeMap<String, Outcome>,
        partly: bool,
    ) -> anyhow::Result<BTreeMap<String, u64>> {
        let count = |outcome| outcomes.values().filter(|o| **o == outcome).count() as u64;
        let (passed, failed) = (count(Outcome::Passed), count(Outcome::Failed));
        let figures = [
            ("passed", passed),
            ("failed", failed),
            ("skipped", count(Outcome::Skipped)),
        ];
        if against_kafka() {
            for (name, outcome) in outcomes.iter().filter(|(_, o)| **o != Outcome::Passed) {
                println!("{}: on Apache Kafka: {name} {outcome:?}", self.name);
            }
        } else {
            let mut surprises = expectations.compare(outcomes);
            if partly {
                surprises.retain(|s| !s.ends_with("did not run"));
            }
            if passed == 0 {
                surprises.push("no test passed".to_owned());
            }
            if !surprises.is_empty() {
                bail!("{}: not as expected:\n{}", self.name, surprises.join("\n"));
            }
        }
        let name = self.name.replace('-', "_");
        Ok(figures.map(|(what, n)| (format!("{name}_{what}"), n)).into())
    }
}

/// An empty folder in the place of whatever was there.
fn clear(dir: &Path) -> anyhow::Result<PathBuf> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).context(dir.display().to_string());
        }
        _ => {}
    }
    std::fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_file_and_every_file_a_suite() {
        let mut named: Vec<_> = SUITES.iter().map(|s| format!("{}.txt", s.name)).collect();
        named.sort();
        let entries = std::fs::read_dir(cache::repository().join("tests/suites")).expect("the folder");
        let mut files: Vec<_> = entries
            .map(|e| e.expect("a file").file_name().into_string().expect("a name"))
            .collect();
        files.sort();
        assert_eq!(files, named);
        for suite in SUITES {
            suite.expectations().expect("its file can be read");
        }
    }
}
