//! librdkafka: the crate `rdkafka-sys` carries its sources with its tests, which read
//! the broker's address from a file. Only those that talk to a broker are run; the
//! others bring a mock of one along.
//!
//! One test covers all requests of the admin client and ends at the first that fails,
//! so that its parts are run one by one. Tests for a broker that makes no topics by
//! itself are a suite of their own, built from the same sources.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::expected::Outcome;
use super::sources::{BUILD, cargo_packages, copy};
use super::{Addresses, Prepared, Suite};
use crate::cache;
use crate::process::{self, Output};

/// The version of the crate; that of librdkafka in it is 2.12.1.
const VERSION: &str = "4.10.0";
/// Parts of librdkafka that look for libraries which may be missing, and that no broker without TLS and SASL meets.
const LEFT_OUT: &[&str] = &["ssl", "gssapi", "sasl", "curl", "zstd"];

/// The test of the admin client, and its parts.
const ADMIN: &str = "0081_admin";
const ADMIN_PARTS: &[&str] = &[
    "CreateTopics",
    "DeleteTopics",
    "CreatePartitions",
    "CreateAcls",
    "DescribeAcls",
    "DeleteAcls",
    "AlterConfigs",
    "IncrementalAlterConfigs",
    "DescribeConfigs",
    "DescribeConfigs_groups",
    "DeleteRecords",
    "ListConsumerGroups",
    "DescribeConsumerGroups",
    "DescribeTopics",
    "DescribeCluster",
    "DescribeConsumerGroups_with_authorized_ops",
    "DeleteGroups",
    "DeleteConsumerGroupOffsets",
    "ListOffsets",
    "AlterConsumerGroupOffsets",
    "ListConsumerGroupOffsets",
    "UserScramCredentials",
];

/// With the broker that most tests are for.
pub(super) const SUITE: Suite = Suite {
    name: "librdkafka",
    patience: Duration::from_secs(180),
    settings: &[("num.partitions", "4")],
    prepare: |home, addresses| prepare(home, addresses, "default"),
};

/// With a broker that makes no topics by itself.
pub(super) const NO_AUTO_CREATE: Suite = Suite {
    name: "librdkafka-no-auto-create",
    patience: Duration::from_secs(180),
    settings: &[("num.partitions", "4"), ("auto.create.topics.enable", "false")],
    prepare: |home, addresses| prepare(&home.with_file_name("librdkafka"), addresses, "noautocreate"),
};

struct Librdkafka {
    home: PathBuf,
    broker: String,
    scenario: &'static str,
}

fn prepare(home: &Path, addresses: &Addresses, scenario: &'static str) -> anyhow::Result<Box<dyn Prepared>> {
    let found = cargo_packages("rdkafka-sys", VERSION, &["rdkafka-sys"], home)?;
    let sources = found.first().context("rdkafka-sys")?.join("librdkafka");
    let dir = home.join("sources");
    if !dir.join("tests/test-runner").is_file() {
        copy(&sources, &dir)?;
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(&dir);
            process::run(command, BUILD)
        };
        let without: Vec<String> = LEFT_OUT.iter().map(|part| format!("--disable-{part}")).collect();
        let mut configure = vec!["configure"];
        configure.extend(without.iter().map(String::as_str));
        run("chmod", &["-R", "u+x", "."])?;
        run("bash", &configure)?;
        run("make", &["-j2", "libs"])?;
        run("make", &["-C", "tests", "build"])?;
    }
    let broker = format!("localhost:{}", addresses.broker);
    let configuration = format!("metadata.broker.list={broker}\ntest.topic.random=true\n");
    std::fs::write(home.join("test.conf"), configuration)?;
    install_topics_tool(home)?;
    Ok(Box::new(Librdkafka {
        home: home.to_owned(),
        broker,
        scenario,
    }))
}

/// Some tests call `bin/kafka-topics.sh` of a distribution of Apache Kafka; ours are jars only.
fn install_topics_tool(home: &Path) -> anyhow::Result<()> {
    let bin = home.join("kafka/bin");
    std::fs::create_dir_all(&bin)?;
    let file = bin.join("kafka-topics.sh");
    let class_path = cache::kafka_class_path()?;
    let text =
        format!("#!/bin/sh\nexec java -cp '{class_path}' org.apache.kafka.tools.TopicCommand \"$@\"\n");
    std::fs::write(&file, text)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

impl Prepared for Librdkafka {
    fn cases(&self) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(self.home.join("sources/tests/test.c"))?;
        let mut tests = broker_tests(&text, self.scenario);
        // Tests are picked by number; those that share one run together, under the name of the first.
        tests.dedup_by_key(|name| number_of(name).to_owned());
        if tests.is_empty() {
            bail!("no test is listed in test.c");
        }
        let whole = |name: &str| vec![name.to_owned()];
        let parts = || ADMIN_PARTS.iter().map(|part| format!("{ADMIN}/{part}")).collect();
        let cases = tests
            .iter()
            .map(|name| if name == ADMIN { parts() } else { whole(name) });
        Ok(cases.flatten().collect())
    }

    fn command(&self, case: &str) -> Command {
        let (test, part) = case.split_once('/').unwrap_or((case, ""));
        let mut command = Command::new("./test-runner");
        command
            .args(["-p1", "-Q", "-L", "-s", self.scenario])
            .current_dir(self.home.join("sources/tests"))
            .env("LD_LIBRARY_PATH", "../src:../src-cpp")
            .env("RDKAFKA_TEST_CONF", self.home.join("test.conf"))
            .env("KAFKA_PATH", self.home.join("kafka"))
            .env("BROKERS", &self.broker)
            .env("TEST_KAFKA_VERSION", "4.0.0")
            .env("TESTS", number_of(test));
        if !part.is_empty() {
            command.env("SUBTESTS", format!("do_test_{part}:"));
        }
        command
    }

    fn outcomes(&self, case: &str, output: &Output) -> BTreeMap<String, Outcome> {
        let skipped = format!("Test {case} SKIPPED");
        let outcome = match output.status.success() {
            true if output.stdout.contains(&skipped) || output.stderr.contains(&skipped) => Outcome::Skipped,
            true => Outcome::Passed,
            false => Outcome::Failed,
        };
        BTreeMap::from([(case.to_owned(), outcome)])
    }
}

/// `0045` of `0045_subscribe_update`.
fn number_of(name: &str) -> &str {
    name.split_once('_').map_or(name, |(number, _)| number)
}

/// The names in the table of tests, `_TEST(name, flags, …)`, that are for this set-up of
/// the broker, but for those that need no broker or are started by hand.
fn broker_tests(text: &str, scenario: &str) -> Vec<String> {
    let table = text.split("struct test tests[] = {").nth(1).unwrap_or_default();
    let table = table.split("{NULL}").next().unwrap_or_default();
    let entries = table.split("_TEST(").skip(1);
    let named = entries.filter_map(|entry| {
        let (name, rest) = entry.split_once(',')?;
        let flags = rest.split([',', ')']).next()?;
        let alone = ["LOCAL", "MANUAL"].iter().any(|f| flags.contains(f)) || name.ends_with("_mock");
        let set_ups = rest
            .split(".scenario = \"")
            .nth(1)
            .and_then(|s| s.split('"').next());
        let fits = set_ups.unwrap_or("default").split(',').any(|s| s == scenario);
        (!alone && fits).then(|| name.trim().to_owned())
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::broker_tests;

    #[test]
    fn tests_without_a_broker_are_passed_over() {
        let text = "_TEST(before, 0)\nstruct test tests[] = {\n _TEST(0001_a, 0),\n _TEST(0002_b,\n TEST_F_LOCAL,\n x),\n\
                    _TEST(0003_c,\n 0,\n /* why */ _THRES(.ucpu = 1)), _TEST(0004_mock, 0),\n\
                    _TEST(0005_d, 0, .scenario = \"other\"), _TEST(0006_e, 0, .scenario = \"default,x\"), {NULL}};";
        assert_eq!(broker_tests(text, "default"), ["0001_a", "0003_c", "0006_e"]);
        assert_eq!(broker_tests(text, "other"), ["0005_d"]);
    }
}
