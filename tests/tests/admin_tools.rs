//! Apache Kafka's tools for what a lone broker without authorizer, quotas and users has little of: they say so, and go on.

use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::scratch::Scratch;
use drumlin_tests::tools::{Tool, java, java_fails};

const NODE: &str = "1";

struct Tools {
    bootstrap: String,
}

impl Tools {
    fn run(&self, tool: Tool, arguments: &[&str]) -> String {
        let all = [&["--bootstrap-server", &self.bootstrap], arguments].concat();
        java(tool, &all).expect("the tool succeeds").stdout
    }

    fn configs(&self, kind: &str, arguments: &[&str]) -> String {
        let all = [&["--entity-type", kind], arguments].concat();
        self.run(Tool::Configs, &all)
    }
}

#[test]
fn tools_of_features_that_are_off_go_on() {
    let scratch = Scratch::new("admin-tools").expect("a folder");
    let options = Options::local(&scratch.join("broker")).set("node.id", NODE);
    let broker = Broker::start(options).expect("a broker");
    let tools = Tools {
        bootstrap: broker.bootstrap(),
    };
    tools.run(Tool::Topics, &["--create", "--topic", "t", "--partitions", "3"]);
    replicas(&tools);
    cluster(&tools);
    configs(&tools);
}

fn replicas(tools: &Tools) {
    let preferred = ["--election-type", "preferred"];
    let all = [&preferred[..], &["--all-topic-partitions"]].concat();
    tools.run(Tool::LeaderElection, &all);
    let one = [&preferred[..], &["--topic", "t", "--partition", "0"]].concat();
    let said = tools.run(Tool::LeaderElection, &one);
    assert!(
        said.contains("Valid replica already elected for partitions t-0"),
        "{said}"
    );
    let said = tools.run(Tool::ReassignPartitions, &["--list"]);
    assert!(said.contains("No partition reassignments found."), "{said}");
    let said = tools.run(Tool::LogDirs, &["--describe", "--broker-list", NODE]);
    let json = said.lines().last().unwrap_or_default();
    let found: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let dir = &found["brokers"][0]["logDirs"][0];
    let partitions = dir["partitions"].as_array().expect("a list");
    assert!(partitions.iter().any(|p| p["partition"] == "t-2"), "{said}");
}

fn cluster(tools: &Tools) {
    let arguments = ["--bootstrap-server", &tools.bootstrap, "--list"];
    let said = java_fails(Tool::Acls, &arguments).expect("kafka-acls says why");
    let words = "No Authorizer is configured on the broker";
    assert!(
        format!("{}{}", said.stdout, said.stderr).contains(words),
        "{said:?}"
    );
    let said = tools.run(Tool::MetadataQuorum, &["describe", "--status"]);
    assert!(
        said.lines()
            .any(|line| line.starts_with("LeaderId:") && line.ends_with(" 1")),
        "{said}"
    );
    assert!(said.contains("\"id\": 1"), "{said}");
    let said = tools.run(Tool::MetadataQuorum, &["describe", "--replication"]);
    assert!(said.contains("Leader"), "{said}");
    let said = tools.run(Tool::Features, &["describe"]);
    assert!(said.contains("Feature: group.version"), "{said}");
    let said = tools.run(Tool::Transactions, &["list"]);
    assert!(said.starts_with("TransactionalId"), "{said}");
}

fn configs(tools: &Tools) {
    for kind in ["users", "clients", "ips"] {
        let said = tools.configs(kind, &["--describe"]);
        assert_eq!(said.trim(), "", "{kind}");
    }
    let logger = ["--entity-name", NODE, "--alter", "--add-config", "no.such=INFO"];
    let all = [
        &[
            "--bootstrap-server",
            &tools.bootstrap,
            "--entity-type",
            "broker-loggers",
        ],
        &logger[..],
    ]
    .concat();
    let said = java_fails(Tool::Configs, &all).expect("kafka-configs says why");
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("Invalid broker logger(s): no.such"), "{said}");
    tools.configs("broker-loggers", &["--entity-name", NODE, "--describe"]);
    let set = [
        "--entity-name",
        "m",
        "--alter",
        "--add-config",
        "interval.ms=1000",
    ];
    tools.configs("client-metrics", &set);
    let said = tools.configs("client-metrics", &["--entity-name", "m", "--describe"]);
    assert!(said.contains("interval.ms=1000"), "{said}");
    let unset = ["--entity-name", "m", "--alter", "--delete-config", "interval.ms"];
    tools.configs("client-metrics", &unset);
    let said = tools.configs("client-metrics", &["--describe"]);
    assert!(!said.contains("interval.ms=1000"), "{said}");
}
