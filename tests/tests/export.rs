//! `drumlin export`: what it writes is Apache Kafka's own format, to its tools and to a stock broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::client::Connection;
use drumlin_tests::kafka::Kafka;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::{input, process, tools};

const BYTES: u64 = 5_000_000;
const TOPIC: &str = "exported";

/// The files in a partition's folder with this ending, in order.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the partition's folder");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == ending));
    files.sort();
    files
}

/// Deep iteration reads every record, its checksum, and the indexes beside the log.
fn dump_accepts(partition: &Path) {
    let logs = files(partition, "log");
    assert!(!logs.is_empty(), "{} holds no log", partition.display());
    for log in logs {
        let name = log.display().to_string();
        let told = tools::java(tools::Tool::DumpLog, &["--deep-iteration", "--files", &name])
            .expect("dump-log")
            .stdout;
        assert!(told.contains("isvalid: true"), "{told:.2000}");
        for complaint in [
            "isvalid: false",
            "Mismatches",
            "Non-consecutive",
            "Could not read",
        ] {
            assert!(!told.contains(complaint), "{complaint} in {name}");
        }
    }
    for ending in ["index", "timeindex"] {
        for index in files(partition, ending) {
            let name = index.display().to_string();
            let told = tools::java(tools::Tool::DumpLog, &["--index-sanity-check", "--files", &name])
                .expect("dump-log");
            assert!(told.stdout.contains("passed sanity check"), "{}", told.stdout);
        }
    }
}

/// Puts the exported partition into a stock broker that has an empty one of the same name.
fn stock_broker_serves(scratch: &Scratch, partition: &Path, text: &Path) {
    let mut kafka = Kafka::start(&scratch.join("stock"), &[]).expect("a stock broker");
    let bootstrap = kafka.bootstrap();
    let patience = Duration::from_secs(30);
    Connection::open(&bootstrap, patience)
        .and_then(|mut c| c.create_topic(TOPIC, 1, &[]))
        .expect("a topic");
    let process = kafka.process().expect("it runs");
    process.terminate(Duration::from_secs(60)).expect("it stops");
    let place = kafka.logs().join(format!("{TOPIC}-0"));
    for ending in ["log", "index", "timeindex", "snapshot"] {
        files(&place, ending)
            .iter()
            .for_each(|f| std::fs::remove_file(f).expect("removed"));
        for file in files(partition, ending) {
            let name = file.file_name().expect("a name");
            std::fs::copy(&file, place.join(name)).expect("copied");
        }
    }
    // The broker stopped cleanly and knows the partition as empty: it is to look again.
    for checkpoint in ["recovery-point-offset-checkpoint", ".kafka_cleanshutdown"] {
        if let Err(e) = std::fs::remove_file(kafka.logs().join(checkpoint)) {
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{checkpoint}: {e}");
        }
    }
    kafka.run().expect("the stock broker starts on it");
    let out = scratch.join("out");
    tools::kcat_consume(&bootstrap, TOPIC, 0, &out).expect("kcat reads from it");
    assert_eq!(
        tools::sha256(text).expect("a sum"),
        tools::sha256(&out).expect("a sum"),
        "what the stock broker serves"
    );
}

#[test]
fn a_stock_broker_takes_an_export_as_its_own() {
    let scratch = Scratch::new("export").expect("a folder");
    let text = scratch.join("text");
    input::write(&text, BYTES).expect("text from the registry");
    let options = Options::local(&scratch.join("broker")).set("log.segment.bytes", 2_000_000);
    let mut broker = Broker::start(options).expect("a broker");
    let bootstrap = broker.bootstrap();
    let patience = Duration::from_secs(30);
    Connection::open(&bootstrap, patience)
        .and_then(|mut c| c.create_topic(TOPIC, 1, &[]))
        .expect("a topic");
    // Idempotent producers leave state that a stock broker rebuilds; two codecs show both kinds of batches.
    let half = scratch.join("half");
    let all = std::fs::read_to_string(&text).expect("text");
    let lines: Vec<&str> = all.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    for (part, codec) in [(first, "none"), (second, "zstd")] {
        std::fs::write(&half, part.join("\n") + "\n").expect("a file");
        tools::kcat_produce(&bootstrap, TOPIC, 0, codec, &half).expect("kcat produces");
    }
    broker.terminate().expect("stopped");
    let partition = if against_kafka() {
        scratch.join(&format!("broker/kafka/logs/{TOPIC}-0"))
    } else {
        let exported = scratch.join("exported");
        let export = broker
            .command_of(&["export", TOPIC, &exported.display().to_string()])
            .expect("a command");
        process::run(export, Duration::from_secs(60)).expect("drumlin export");
        exported.join(format!("{TOPIC}-0"))
    };
    dump_accepts(&partition);
    stock_broker_serves(&scratch, &partition, &text);
}
