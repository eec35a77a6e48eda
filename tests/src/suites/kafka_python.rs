//! kafka-python: its source distribution comes with its tests; those of the folder
//! `integration` take the broker's address from the environment. Two files that they
//! import are left out of the distribution; [`STAND_IN`] stands in for the one that has
//! content, as far as a broker that runs already needs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::expected::Outcome;
use super::sources::{BUILD, python_sources};
use super::{Addresses, Prepared, Suite};
use crate::process::{self, Output};

const VERSION: &str = "3.0.12";
/// What the tests import beside the client. The codecs are those that the client loads when it finds them.
const NEEDED: &[&str] = &[
    "pytest",
    "pytest-mock",
    "pytest-timeout",
    "py",
    "lz4",
    "python-snappy",
    "zstandard",
];

/// A service that was started by others, and one that cannot be started.
const STAND_IN: &str = "\
class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    def close(self):
        pass


class SpawnedService:
    def __init__(self, *_):
        raise RuntimeError('only a broker that runs already is tested')
";

pub(super) const SUITE: Suite = Suite {
    name: "kafka-python",
    patience: Duration::from_secs(120),
    settings: &[
        ("num.partitions", "4"),
        ("node.id", "0"),
        ("group.initial.rebalance.delay.ms", "0"),
        // A test's consumers have a session timeout of 3 s.
        ("group.min.session.timeout.ms", "1000"),
    ],
    prepare,
};

struct KafkaPython {
    address: String,
    python: PathBuf,
    dir: PathBuf,
}

fn prepare(home: &Path, addresses: &Addresses) -> anyhow::Result<Box<dyn Prepared>> {
    std::fs::create_dir_all(home)?;
    let python = home.join("venv/bin/python");
    if !python.is_file() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(home.join("venv"));
        process::run(venv, BUILD)?;
    }
    let dir = python_sources(&python, "kafka-python", VERSION, home)?;
    std::fs::write(dir.join("test/__init__.py"), "")?;
    std::fs::write(dir.join("test/service.py"), STAND_IN)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
        .args(NEEDED);
    process::run(pip, BUILD)?;
    Ok(Box::new(KafkaPython {
        address: format!("kafka://localhost:{}", addresses.broker),
        python,
        dir,
    }))
}

impl KafkaPython {
    /// The client is taken from its sources, beside the tests.
    fn pytest(&self) -> Command {
        let mut command = Command::new(&self.python);
        command
            .args(["-m", "pytest", "-p", "no:cacheprovider"])
            .current_dir(&self.dir)
            .env("KAFKA_URI", &self.address)
            // Where a broker to start would be; the tests look whether the folder is there.
            .env("KAFKA_ROOT", &self.dir)
            .env("KAFKA_VERSION", "4.3.1");
        command
    }
}

impl Prepared for KafkaPython {
    fn cases(&self) -> anyhow::Result<Vec<String>> {
        let mut list = self.pytest();
        list.args(["--collect-only", "-q", "test/integration"]);
        let printed = process::run(list, BUILD)?.stdout;
        let cases = printed
            .lines()
            .filter_map(|l| l.strip_prefix("test/integration/"));
        Ok(cases.map(str::to_owned).collect())
    }

    fn command(&self, case: &str) -> Command {
        let mut command = self.pytest();
        command.args(["-rs", &format!("test/integration/{case}")]);
        command
    }

    fn outcomes(&self, case: &str, output: &Output) -> BTreeMap<String, Outcome> {
        // Between lines of `=`: `1 skipped in 0.01s`.
        let counts = output
            .stdout
            .lines()
            .rfind(|l| l.starts_with("==") && l.ends_with("=="));
        let counted = |what: &str| counts.is_some_and(|line| line.contains(what));
        let outcome = match output.status.success() {
            true if counted("1 passed") => Outcome::Passed,
            true if counted("1 skipped") => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        BTreeMap::from([(case.to_owned(), outcome)])
    }
}
