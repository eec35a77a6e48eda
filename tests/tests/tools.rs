//! Apache Kafka's own command-line tools, unmodified.

use drumlin_tests::broker::{Broker, Options};
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stores::Minio;
use drumlin_tests::tools::{Tool, java, java_fails, java_with};

const NODE: &str = "1";

/// The tools against one broker.
struct Tools {
    bootstrap: String,
    scratch: Scratch,
}

impl Tools {
    fn run(&self, tool: Tool, arguments: &[&str]) -> String {
        let mut all = vec!["--bootstrap-server", &self.bootstrap];
        all.extend(arguments);
        java(tool, &all).expect("the tool succeeds").stdout
    }

    fn create(&self, topic: &str, partitions: &str) {
        self.run(
            Tool::Topics,
            &["--create", "--topic", topic, "--partitions", partitions],
        );
    }

    /// `topic:partition:offset` lines of kafka-get-offsets.
    fn offsets(&self, topic: &str, time: &str) -> Vec<String> {
        let out = self.run(Tool::GetOffsets, &["--topic", topic, "--time", time]);
        out.lines().map(str::to_owned).collect()
    }

    fn topics(&self) {
        let create = [
            "--create",
            "--topic",
            "t",
            "--partitions",
            "3",
            "--config",
            "retention.ms=3600000",
        ];
        assert!(self.run(Tool::Topics, &create).contains("Created topic t."));
        let again = ["--bootstrap-server", &self.bootstrap, "--create", "--topic", "t"];
        let refused = java_fails(Tool::Topics, &again).expect("refused");
        assert!(
            format!("{}{}", refused.stdout, refused.stderr).contains("already exists"),
            "{refused:?}"
        );
        self.run(Tool::Topics, &["--create", "--if-not-exists", "--topic", "t"]);
        let described = self.run(Tool::Topics, &["--describe", "--topic", "t"]);
        assert!(described.contains("PartitionCount: 3"), "{described}");
        assert!(described.contains("retention.ms=3600000"), "{described}");
        self.run(Tool::Topics, &["--alter", "--topic", "t", "--partitions", "5"]);
        let described = self.run(Tool::Topics, &["--describe", "--topic", "t"]);
        assert!(described.contains("PartitionCount: 5"), "{described}");
        assert_eq!(described.matches("Leader: 1").count(), 5, "{described}");
        let fewer = [
            "--bootstrap-server",
            &self.bootstrap,
            "--alter",
            "--topic",
            "t",
            "--partitions",
            "2",
        ];
        java_fails(Tool::Topics, &fewer).expect("partitions cannot be taken away");
        assert!(self.run(Tool::Topics, &["--list"]).lines().any(|l| l == "t"));
        self.run(Tool::Topics, &["--delete", "--topic", "t"]);
        assert!(
            !self.run(Tool::Topics, &["--list"]).lines().any(|l| l == "t"),
            "t is still listed"
        );
        let bad = [
            "--bootstrap-server",
            &self.bootstrap,
            "--create",
            "--topic",
            "no/slash",
        ];
        java_fails(Tool::Topics, &bad).expect("a bad name is refused");
    }

    fn console(&self) {
        self.create("console", "1");
        let text: String = (0..200).map(|n| format!("line {n} ä€\n")).collect();
        let file = self.scratch.join("console");
        std::fs::write(&file, &text).expect("a file");
        let produce = ["--bootstrap-server", &self.bootstrap, "--topic", "console"];
        java_with(Tool::ConsoleProducer, &produce, Some(&file)).expect("the console producer");
        let consume = ["--topic", "console", "--partition", "0", "--offset", "earliest"];
        let limits = ["--max-messages", "200", "--timeout-ms", "30000"];
        let came = self.run(Tool::ConsoleConsumer, &[&consume[..], &limits[..]].concat());
        assert_eq!(came, text);
        let consume = ["--topic", "console", "--partition", "0", "--offset", "195"];
        let came = self.run(
            Tool::ConsoleConsumer,
            &[&consume[..], &["--max-messages", "5"]].concat(),
        );
        assert!(came.starts_with("line 195 "), "{came}");
    }

    fn configs(&self) {
        self.create("configured", "1");
        let topic = ["--entity-type", "topics", "--entity-name", "configured"];
        let of = |more: &[&str]| self.run(Tool::Configs, &[&topic[..], more].concat());
        of(&[
            "--alter",
            "--add-config",
            "max.message.bytes=200000,retention.bytes=1000000000",
        ]);
        let described = of(&["--describe"]);
        assert!(described.contains("max.message.bytes=200000"), "{described}");
        assert!(described.contains("retention.bytes=1000000000"), "{described}");
        of(&["--alter", "--delete-config", "max.message.bytes"]);
        let described = of(&["--describe"]);
        assert!(!described.contains("max.message.bytes=200000"), "{described}");
        assert!(of(&["--describe", "--all"]).contains("segment.bytes="));
        let bad = ["--alter", "--add-config", "no.such.config=1"];
        let all = [&["--bootstrap-server", &self.bootstrap], &topic[..], &bad[..]].concat();
        java_fails(Tool::Configs, &all).expect("an unknown config is refused");

        let broker = ["--entity-type", "brokers", "--entity-name", NODE];
        let of = |more: &[&str]| self.run(Tool::Configs, &[&broker[..], more].concat());
        assert!(
            of(&["--describe", "--all"]).contains("node.id=1"),
            "the broker's own options"
        );
        of(&["--alter", "--add-config", "message.max.bytes=2000000"]);
        let described = of(&["--describe"]);
        assert!(described.contains("message.max.bytes=2000000"), "{described}");
        of(&["--alter", "--delete-config", "message.max.bytes"]);
    }

    fn offsets_and_delete_records(&self) {
        self.create("offsets", "2");
        let file = self.scratch.join("offsets");
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        std::fs::write(&file, text).expect("a file");
        drumlin_tests::tools::kcat_produce(&self.bootstrap, "offsets", 0, "lz4", &file).expect("kcat");
        assert_eq!(self.offsets("offsets", "-1"), ["offsets:0:100", "offsets:1:0"]);
        assert_eq!(self.offsets("offsets", "-2"), ["offsets:0:0", "offsets:1:0"]);
        assert_eq!(
            self.offsets("offsets", "earliest"),
            ["offsets:0:0", "offsets:1:0"]
        );
        let max = self.offsets("offsets", "-3");
        assert!(max.iter().any(|l| l.starts_with("offsets:0:")), "{max:?}");
        assert_eq!(self.offsets("offsets", "-4"), ["offsets:0:0", "offsets:1:0"]);
        self.offsets("offsets", "-5");
        assert_eq!(self.offsets("offsets", "1")[0], "offsets:0:0");

        let json = self.scratch.join("delete.json");
        let wanted = r#"{"version":1,"partitions":[{"topic":"offsets","partition":0,"offset":40}]}"#;
        std::fs::write(&json, wanted).expect("a file");
        let told = self.run(
            Tool::DeleteRecords,
            &["--offset-json-file", &json.display().to_string()],
        );
        assert!(told.contains("low_watermark: 40"), "{told}");
        assert_eq!(self.offsets("offsets", "-2")[0], "offsets:0:40");
        assert_eq!(self.offsets("offsets", "-1")[0], "offsets:0:100");
        let out = self.scratch.join("left");
        drumlin_tests::tools::kcat_consume(&self.bootstrap, "offsets", 0, &out).expect("kcat");
        let left = std::fs::read_to_string(out).expect("a file");
        assert!(
            left.lines()
                .map(str::to_owned)
                .eq((40..100).map(|n| n.to_string())),
            "{left}"
        );
    }

    fn cluster(&self) {
        let dirs = self.run(
            Tool::LogDirs,
            &["--describe", "--broker-list", NODE, "--topic-list", "offsets"],
        );
        assert!(dirs.contains("\"offsets-0\""), "{dirs}");
        let versions = self.run(Tool::BrokerApiVersions, &[]);
        assert!(versions.contains("Produce(0): 0 to 13"), "{versions}");
        assert!(versions.contains("Fetch(1): 4 to 18"), "{versions}");
        let cluster = java(
            Tool::Cluster,
            &["cluster-id", "--bootstrap-server", &self.bootstrap],
        );
        let told = cluster.expect("kafka-cluster").stdout;
        assert!(told.contains("Cluster ID: "), "{told}");
    }

    fn producers(&self) {
        self.create("perf", "3");
        let server = format!("bootstrap.servers={}", self.bootstrap);
        let perf = [
            "--topic",
            "perf",
            "--num-records",
            "50000",
            "--record-size",
            "1024",
            "--throughput",
            "-1",
        ];
        let props = ["--producer-props", &server, "acks=all"];
        let told = java(Tool::ProducerPerf, &[&perf[..], &props[..]].concat())
            .expect("perf")
            .stdout;
        assert!(told.contains("50000 records sent"), "{told}");
        let sent: i64 = self
            .offsets("perf", "-1")
            .iter()
            .filter_map(|l| l.rsplit(':').next()?.parse::<i64>().ok())
            .sum();
        assert_eq!(sent, 50_000);
        let told = self.run(
            Tool::VerifiableProducer,
            &["--topic", "perf", "--max-messages", "1000"],
        );
        assert_eq!(told.matches("\"producer_send_success\"").count(), 1000, "{told}");
    }
}

fn tools_on(scratch: Scratch, options: Options) -> (Tools, Broker) {
    let broker = Broker::start(options.set("node.id", NODE)).expect("a broker");
    (
        Tools {
            bootstrap: broker.bootstrap(),
            scratch,
        },
        broker,
    )
}

#[test]
fn every_tool_on_minio() {
    let scratch = Scratch::new("tools-minio").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let options = Options::on(&scratch.join("broker"), minio.store("tools"));
    let (tools, _broker) = tools_on(scratch, options);
    tools.topics();
    tools.console();
    tools.configs();
    tools.offsets_and_delete_records();
    tools.cluster();
    tools.producers();
}

#[test]
fn some_tools_on_a_local_directory() {
    let scratch = Scratch::new("tools-local").expect("a folder");
    let options = Options::local(&scratch.join("broker"));
    let (tools, mut broker) = tools_on(scratch, options);
    tools.console();
    tools.offsets_and_delete_records();
    tools.producers();
    broker.terminate().expect("stopped");
    broker.restart().expect("started again");
    assert_eq!(tools.offsets("offsets", "-2")[0], "offsets:0:40");
    assert_eq!(tools.offsets("offsets", "-1")[0], "offsets:0:100");
}
