//! `drumlin export`: what it writes is Apache Kafka's own format, to its tools and to a stock broker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
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

/// Deep iteration reads every record, its checksum, and the indexes beside the log. Only compaction leaves gaps between
/// offsets.
fn dump_accepts(partition: &Path, has_gaps: bool) {
    // One run of the tool for all files of a kind. Its summary of what is wrong goes to standard error.
    let dump = |check: &str, files: &[PathBuf]| {
        assert!(
            !files.is_empty(),
            "nothing for {check} in {}",
            partition.display()
        );
        let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        let arguments = [check, "--files", &names.join(",")];
        let told = tools::java(tools::Tool::DumpLog, &arguments).expect("dump-log");
        told.stdout + &told.stderr
    };
    let told = dump("--deep-iteration", &files(partition, "log"));
    assert!(told.contains("isvalid: true"), "{told:.2000}");
    for complaint in ["isvalid: false", "Mismatches", "Could not read"] {
        assert!(!told.contains(complaint), "{complaint}: {told:.2000}");
    }
    // It calls the step from nothing to a file's first record one too.
    let is_gap = |line: &str| line.contains(" is followed by ") && !line.trim().starts_with("-1 ");
    let gaps = told.lines().filter(|line| is_gap(line)).count();
    assert_eq!(gaps > 0, has_gaps, "{gaps} gaps in {}", partition.display());
    let indexes = [files(partition, "index"), files(partition, "timeindex")].concat();
    let told = dump("--index-sanity-check", &indexes);
    assert_eq!(
        told.matches("passed sanity check").count(),
        indexes.len(),
        "{told}"
    );
}

/// A stock broker that has the exported partition in the place of its own empty one of the same name.
fn stock_broker_with(scratch: &Scratch, partition: &Path, configs: &[(&str, &str)]) -> Kafka {
    let mut kafka = Kafka::start(&scratch.join("stock"), &[]).expect("a stock broker");
    let bootstrap = kafka.bootstrap();
    let patience = Duration::from_secs(30);
    Connection::open(&bootstrap, patience)
        .and_then(|mut c| c.create_topic(TOPIC, 1, configs))
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
    kafka
}

/// The folder that `drumlin export` writes of the topic's partition, with these options; the broker has stopped.
fn export(scratch: &Scratch, broker: &Broker, options: &[&str]) -> PathBuf {
    if against_kafka() {
        return scratch.join(&format!("broker/kafka/logs/{TOPIC}-0"));
    }
    let exported = scratch.join("exported");
    let export = broker
        .command_of(&[&["export", TOPIC, &exported.display().to_string()], options].concat())
        .expect("a command");
    process::run(export, Duration::from_secs(60)).expect("drumlin export");
    exported.join(format!("{TOPIC}-0"))
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
    let partition = export(&scratch, &broker, &[]);
    dump_accepts(&partition, false);
    let kafka = stock_broker_with(&scratch, &partition, &[]);
    let out = scratch.join("out");
    tools::kcat_consume(&kafka.bootstrap(), TOPIC, 0, &out).expect("kcat reads from it");
    assert_eq!(
        tools::sha256(&text).expect("a sum"),
        tools::sha256(&out).expect("a sum"),
        "what the stock broker serves"
    );
}

const KEYS: usize = 3_000;
/// Keys of which every so many has been deleted.
const DELETED: usize = 10;

/// Sends a value, or none, for each of these keys with `kcat -P`.
fn send(bootstrap: &str, scratch: &Scratch, codec: &str, records: &BTreeMap<String, Option<String>>) {
    let mut lines = String::new();
    for (key, value) in records {
        writeln!(lines, "{key}|{}", value.as_deref().unwrap_or_default()).expect("written");
    }
    let file = scratch.join("records");
    std::fs::write(&file, lines).expect("a file");
    let file = file.display().to_string();
    // -Z: nothing after the key is no value at all. Batches are small, so that segments and indexes have many.
    let record = [
        "-K",
        "|",
        "-Z",
        "-z",
        codec,
        "-X",
        "acks=all",
        "-X",
        "batch.size=65536",
    ];
    let arguments = [&["-P", "-t", TOPIC, "-p", "0", "-l", &file][..], &record].concat();
    tools::kcat(bootstrap, &arguments).expect("kcat produces");
}

/// Every record: offset, key, length of the value or -1, value.
fn listed(bootstrap: &str) -> Vec<String> {
    let format = "%o|%k|%S|%s\n";
    let arguments = [
        "-C",
        "-t",
        TOPIC,
        "-p",
        "0",
        "-o",
        "beginning",
        "-e",
        "-q",
        "-f",
        format,
    ];
    let told = tools::kcat(bootstrap, &arguments).expect("kcat reads").stdout;
    told.lines().map(str::to_owned).collect()
}

/// Waits until compaction has come to an end, as far as that can be seen.
fn wait_compacted(bootstrap: &str, written: usize) {
    let began = std::time::Instant::now();
    let mut before = listed(bootstrap);
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let now = listed(bootstrap);
        if now == before && now.len() < written * 2 / 3 {
            return;
        }
        before = now;
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{} of {written} are left",
            before.len()
        );
    }
}

#[test]
fn a_stock_broker_takes_an_export_of_a_compacted_topic() {
    let scratch = Scratch::new("export-compacted").expect("a folder");
    let options = Options::local(&scratch.join("broker"))
        .sealing_often()
        .set("seal.round.ms", 500)
        .set("log.cleaner.backoff.ms", 300);
    let mut broker = Broker::start(options).expect("a broker");
    let bootstrap = broker.bootstrap();
    let connect = |to: &str| Connection::open(to, Duration::from_secs(30)).expect("a connection");
    let policy = ("cleanup.policy", "compact");
    let eager = [
        policy,
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.bytes", "1048576"),
    ];
    connect(&bootstrap)
        .create_topic(TOPIC, 1, &eager)
        .expect("a topic");

    // Three values for each key, but for those that are deleted; what is left is more than a segment holds.
    let mut expected = BTreeMap::new();
    let mut written = 0;
    for (round, codec) in ["none", "zstd", "lz4", "none"].into_iter().enumerate() {
        let records = (0..KEYS).filter(|n| round < 2 || n % DELETED > 0).map(|n| {
            let deleted = round == 1 && n % DELETED == 0;
            let value = format!("{n}-{round}-").repeat(160);
            (format!("key-{n:05}"), (!deleted).then_some(value))
        });
        let records: BTreeMap<String, Option<String>> = records.collect();
        send(&bootstrap, &scratch, codec, &records);
        written += records.len();
        expected.extend(records);
    }
    wait_compacted(&bootstrap, written);
    // A pass may have been under way all the while: none changes what is left from here on.
    broker.terminate().expect("stopped");
    let settings = &mut broker.options_mut().settings;
    settings.push(("log.cleaner.enable".into(), "false".into()));
    broker.restart().expect("started again");
    let left = listed(&bootstrap);
    let end = connect(&bootstrap).list_offset(TOPIC, 0, -1).expect("the end");
    assert_eq!(usize::try_from(end).expect("an offset"), written);
    let fields: Vec<Vec<&str>> = left.iter().map(|line| line.split('|').collect()).collect();
    let offsets: Vec<usize> = fields.iter().map(|f| f[0].parse().expect("an offset")).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b));
    assert!(
        fields.iter().any(|f| f[2] == "-1"),
        "tombstones are kept for a day"
    );
    let latest: BTreeMap<String, Option<String>> = fields
        .iter()
        .map(|f| (f[1].to_owned(), (f[2] != "-1").then(|| f[3].to_owned())))
        .collect();
    assert_eq!(latest, expected);

    broker.terminate().expect("stopped");
    let partition = export(&scratch, &broker, &["--set", "log.segment.bytes=1048576"]);
    assert!(files(&partition, "log").len() > 1, "one segment shows less");
    dump_accepts(&partition, true);
    // The stock broker is to serve it, not to compact it further.
    let kafka = stock_broker_with(
        &scratch,
        &partition,
        &[policy, ("min.cleanable.dirty.ratio", "1")],
    );
    let bootstrap = kafka.bootstrap();
    assert_eq!(listed(&bootstrap), left, "what the stock broker serves");
    assert_eq!(
        connect(&bootstrap).list_offset(TOPIC, 0, -1).expect("the end"),
        end
    );
    // A record that is gone is found as the next one that is there, the first of the log too.
    assert_eq!(
        connect(&bootstrap).list_offset(TOPIC, 0, -2).expect("the start"),
        0
    );
    assert!(offsets[0] > 0, "the first record is gone");
    let gap = (offsets[0]..written)
        .find(|n| !offsets.contains(n))
        .expect("a gap");
    for gone in [0, gap] {
        let next = offsets.iter().find(|n| **n > gone).expect("another");
        let at = gone.to_string();
        let arguments = [
            "-C", "-t", TOPIC, "-p", "0", "-o", &at, "-c", "1", "-e", "-q", "-f", "%o",
        ];
        let told = tools::kcat(&bootstrap, &arguments).expect("kcat reads").stdout;
        assert_eq!(told, next.to_string());
    }
}
