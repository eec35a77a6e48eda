//! Apache Kafka's own tools for groups, unmodified: `kafka-consumer-groups`,
//! `kafka-groups`, the console consumer with both protocols and with the formatters of
//! `__consumer_offsets`, `kafka-consumer-perf-test`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use drumlin_tests::client::Connection;
use drumlin_tests::members::{Commit, Kind, Member, Plan, wait_until};
use drumlin_tests::stage::{Stage, Topic, patient_groups};
use drumlin_tests::tools::{Tool, java, java_fails, kcat, kcat_produce};
use serde_json::Value;

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

fn run(bootstrap: &str, tool: Tool, arguments: &[&str]) -> String {
    let all = [&["--bootstrap-server", bootstrap], arguments].concat();
    java(tool, &all).expect("the tool succeeds").stdout
}

fn groups(bootstrap: &str, arguments: &[&str]) -> String {
    run(bootstrap, Tool::ConsumerGroups, arguments)
}

/// Runs all of them beside each other, two at a time: most of a tool's time is a JVM's start.
fn beside<T: Send>(jobs: Vec<Box<dyn FnOnce() -> T + Send + '_>>) -> Vec<T> {
    let mut done = Vec::new();
    let mut jobs = jobs.into_iter();
    loop {
        let two: Vec<_> = jobs.by_ref().take(2).collect();
        if two.is_empty() {
            return done;
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = two.into_iter().map(|job| scope.spawn(job)).collect();
            done.extend(running.into_iter().map(|r| r.join().expect("a tool's thread")));
        });
    }
}

/// Adds `count` lines to each partition, with timestamps of now.
fn feed_now(stage: &Stage, topic: &str, count: usize) {
    let file = stage.scratch.join("lines");
    let text: String = (0..count).map(|n| format!("line {n}\n")).collect();
    std::fs::write(&file, text).expect("a file");
    for p in 0..PARTITIONS {
        kcat_produce(&stage.broker.bootstrap(), topic, p, "none", &file).expect("kcat produces");
    }
}

/// Reads everything as a group that is empty afterwards.
fn read_and_leave(stage: &Stage, plan: &Plan, records: usize) {
    let mut member = stage.member(Kind::Confluent, plan, "reader");
    wait_until("everything is read", PATIENCE, &mut [&mut member], |m| {
        m[0].records.len() == records
    })
    .expect("read");
    member.leave().expect("it leaves");
}

/// `NEW-OFFSET` by partition, of what reset-offsets prints: GROUP TOPIC PARTITION NEW-OFFSET.
fn new_offsets(printed: &str, group: &str) -> BTreeMap<i32, i64> {
    printed
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.first() == Some(&group))
        .filter_map(|words| Some((words.get(2)?.parse().ok()?, words.get(3)?.parse().ok()?)))
        .collect()
}

fn everywhere(offset: i64) -> BTreeMap<i32, i64> {
    (0..PARTITIONS).map(|p| (p, offset)).collect()
}

/// Milliseconds since 1970 as reset-offsets wants them, which is in UTC if it says so.
fn date_time(unix_ms: i64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}.{:03}", unix_ms / 1000, unix_ms % 1000)])
        .arg("+%Y-%m-%dT%H:%M:%S.%3N+00:00")
        .output()
        .expect("date runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

#[test]
fn offsets_are_reset_in_every_way() {
    let stage = Stage::new("tools-reset");
    let topic = stage.topic("t", PARTITIONS);
    let bootstrap = stage.broker.bootstrap();
    feed_now(&stage, "t", 60);
    std::thread::sleep(Duration::from_millis(50));
    let between = date_time(now_ms());
    std::thread::sleep(Duration::from_millis(50));
    feed_now(&stage, "t", 40);
    let plan = stage.plan(&topic, "g");
    read_and_leave(&stage, &plan, 300);
    assert_eq!(stage.committed(&plan, PARTITIONS), everywhere(100));

    let reset = |how: &[&str], execute: bool| {
        let end = if execute { "--execute" } else { "--dry-run" };
        let scope = if how.contains(&"--from-file") {
            &[][..]
        } else {
            &["--topic", "t"]
        };
        let all = [&["--reset-offsets", "--group", "g"], scope, how, &[end]].concat();
        new_offsets(&groups(&bootstrap, &all), "g")
    };
    let ways: Vec<(Vec<&str>, i64)> = vec![
        (vec!["--to-earliest"], 0),
        (vec!["--to-latest"], 100),
        (vec!["--to-current"], 100),
        (vec!["--to-offset", "42"], 42),
        (vec!["--shift-by", "-30"], 70),
        (vec!["--to-datetime", &between], 60),
        (vec!["--by-duration", "PT1H"], 0),
    ];
    let dry: Vec<Box<dyn FnOnce() -> BTreeMap<i32, i64> + Send>> = ways
        .iter()
        .map(|(how, _)| -> Box<dyn FnOnce() -> _ + Send> { Box::new(|| reset(how, false)) })
        .collect();
    for ((how, wanted), came) in ways.iter().zip(beside(dry)) {
        assert_eq!(came, everywhere(*wanted), "{how:?}");
    }
    assert_eq!(
        stage.committed(&plan, PARTITIONS),
        everywhere(100),
        "a dry run changes nothing"
    );
    for (how, wanted) in &ways {
        // Relative to what the way before it has left.
        let wanted = match how[0] {
            "--to-current" => 100,
            "--shift-by" => 12,
            _ => *wanted,
        };
        assert_eq!(reset(how, true), everywhere(wanted), "{how:?}");
        assert_eq!(stage.committed(&plan, PARTITIONS), everywhere(wanted), "{how:?}");
    }
    let file = stage.scratch.join("offsets.csv");
    std::fs::write(&file, "t,0,7\nt,1,8\nt,2,9\n").expect("a file");
    let came = reset(&["--from-file", &file.display().to_string()], true);
    assert_eq!(came, BTreeMap::from([(0, 7), (1, 8), (2, 9)]));
    assert_eq!(stage.committed(&plan, PARTITIONS), came);
    // One partition only, and what it has printed can be read back.
    let export = [
        "--reset-offsets",
        "--group",
        "g",
        "--topic",
        "t:1",
        "--to-latest",
        "--dry-run",
        "--export",
    ];
    assert_eq!(
        groups(&bootstrap, &export).trim().replace('"', ""),
        "t,1,100",
        "an export names partition 1 only"
    );

    groups(
        &bootstrap,
        &["--delete-offsets", "--group", "g", "--topic", "t:1"],
    );
    assert_eq!(
        stage.committed(&plan, PARTITIONS),
        BTreeMap::from([(0, 7), (2, 9)])
    );
    let deleted = groups(&bootstrap, &["--delete", "--group", "g"]);
    assert!(deleted.contains("was successful"), "{deleted}");
    assert_eq!(groups(&bootstrap, &["--list"]).trim(), "");
    assert_eq!(stage.committed(&plan, PARTITIONS), BTreeMap::new());
}

/// `kafka-configs` of a group: what its members are told, within the broker's limits.
#[test]
fn groups_have_configs_of_their_own() {
    let stage = Stage::new("tools-configs");
    let bootstrap = stage.broker.bootstrap();
    let group = ["--entity-type", "groups", "--entity-name", "g"];
    let of = |more: &[&str]| run(&bootstrap, Tool::Configs, &[&group[..], more].concat());
    of(&[
        "--alter",
        "--add-config",
        "consumer.session.timeout.ms=5000,consumer.heartbeat.interval.ms=700",
    ]);
    let told = of(&["--describe"]);
    assert!(told.contains("consumer.session.timeout.ms=5000"), "{told}");
    assert!(told.contains("consumer.heartbeat.interval.ms=700"), "{told}");
    let beyond = ["--alter", "--add-config", "consumer.session.timeout.ms=500"];
    let all = [&["--bootstrap-server", &*bootstrap], &group[..], &beyond].concat();
    java_fails(Tool::Configs, &all).expect("less than the broker allows is refused");
    of(&["--alter", "--delete-config", "consumer.session.timeout.ms"]);
    let told = of(&["--describe"]);
    assert!(!told.contains("consumer.session.timeout.ms=5000"), "{told}");
}

/// A group of each protocol with a member at work, and an empty one.
fn cast(stage: &Stage, topic: &Topic) -> Vec<Member> {
    read_and_leave(stage, &stage.plan(topic, "was"), 90);
    let classic = stage.plan(topic, "classic").patient();
    let new = stage.plan(topic, "new").consumer_protocol();
    let mut members = vec![
        stage.member(Kind::Confluent, &classic, "member"),
        stage.member(Kind::Confluent, &new, "member"),
    ];
    for (member, plan) in members.iter_mut().zip([&classic, &new]) {
        wait_until("commits", PATIENCE, &mut [member], |m| {
            m[0].committed == everywhere(30) && stage.committed(plan, PARTITIONS) == everywhere(30)
        })
        .expect("it reads and commits");
    }
    members
}

#[test]
fn groups_are_listed_and_described() {
    let stage = Stage::with("tools-describe", patient_groups);
    let mut topic = stage.topic("t", PARTITIONS);
    topic.feed(30);
    let mut members = cast(&stage, &topic);
    let bootstrap = stage.broker.bootstrap();
    let of = |arguments: &'static [&'static str]| -> Box<dyn FnOnce() -> String + Send + '_> {
        Box::new(|| groups(&bootstrap, arguments))
    };
    let told = beside(vec![
        of(&["--list", "--state"]),
        of(&["--list", "--type", "consumer"]),
        of(&["--describe", "--group", "classic"]),
        of(&["--describe", "--group", "classic", "--members", "--verbose"]),
        of(&["--describe", "--group", "classic", "--state"]),
        of(&["--describe", "--group", "new"]),
        of(&["--describe", "--group", "new", "--members", "--verbose"]),
        of(&["--describe", "--group", "new", "--state", "--verbose"]),
        of(&["--describe", "--all-groups", "--offsets", "--verbose"]),
        Box::new(|| run(&bootstrap, Tool::Groups, &["--list"])),
        Box::new(|| run(&bootstrap, Tool::Groups, &["--list", "--group-type", "classic"])),
    ]);
    let line = |printed: &str, words: &[&str]| {
        let found = printed
            .lines()
            .any(|l| words.iter().all(|w| l.split_whitespace().any(|x| x == *w)));
        assert!(found, "no line with {words:?} in\n{printed}");
    };
    for (group, state) in [("was", "Empty"), ("classic", "Stable"), ("new", "Stable")] {
        line(&told[0], &[group, state]);
    }
    line(&told[1], &["new"]);
    assert!(!told[1].contains("classic"), "{}", told[1]);
    for p in ["0", "1", "2"] {
        // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID
        line(
            &told[2],
            &["classic", "t", p, "30", "0", "/127.0.0.1", "confluent-kafka"],
        );
        line(
            &told[5],
            &["new", "t", p, "30", "0", "/127.0.0.1", "confluent-kafka"],
        );
        line(&told[8], &["was", "t", p, "30", "0"]);
    }
    line(&told[3], &["classic", "3", "t:0,1,2"]);
    line(&told[4], &["classic", "range", "Stable", "1"]);
    line(&told[6], &["new", "3", "t:0,1,2"]);
    line(&told[7], &["new", "uniform", "Stable", "1"]);
    line(&told[9], &["new", "Consumer", "consumer"]);
    line(&told[9], &["classic", "Classic", "consumer"]);
    line(&told[10], &["was", "Classic"]);
    assert!(!told[10].lines().any(|l| l.starts_with("new")), "{}", told[10]);

    // A group that is at work is neither reset nor deleted.
    let refused = |arguments: &[&str]| {
        let all = [&["--bootstrap-server", &*bootstrap], arguments].concat();
        let output = java(Tool::ConsumerGroups, &all).or_else(|_| java_fails(Tool::ConsumerGroups, &all));
        let output = output.expect("the tool ends");
        format!("{}{}", output.stdout, output.stderr)
    };
    let reset = [
        "--reset-offsets",
        "--topic",
        "t",
        "--to-earliest",
        "--execute",
        "--group",
    ];
    let told = beside(vec![
        Box::new(|| refused(&[&reset[..], &["classic"]].concat())) as Box<dyn FnOnce() -> String + Send>,
        Box::new(|| refused(&["--delete", "--group", "new"])),
        Box::new(|| refused(&["--describe", "--group", "nobody"])),
    ]);
    assert!(told[0].contains("inactive"), "{}", told[0]);
    assert!(told[1].contains("not empty"), "{}", told[1]);
    assert!(
        told[2].contains("not found") || told[2].contains("does not exist"),
        "{}",
        told[2]
    );
    for (member, group) in members.iter_mut().zip(["classic", "new"]) {
        let plan = stage.plan(&topic, group);
        assert_eq!(stage.committed(&plan, PARTITIONS), everywhere(30));
        member.leave().expect("it leaves");
    }
}

#[test]
fn consoles_perf_and_the_offsets_topic() {
    // One partition for all groups, so that it can be read without being a member of one.
    let stage = Stage::with("tools-consoles", |options| {
        patient_groups(options).set("offsets.topic.num.partitions", 1)
    });
    let mut topic = stage.topic("t", PARTITIONS);
    topic.feed(30);
    let bootstrap = stage.broker.bootstrap();
    let read_as = |group: &'static str, protocol: &'static str| -> Box<dyn FnOnce() -> String + Send + '_> {
        let protocol = format!("group.protocol={protocol}");
        let bootstrap = &bootstrap;
        Box::new(move || {
            let group = ["--topic", "t", "--group", group, "--from-beginning"];
            let limits = ["--max-messages", "90", "--timeout-ms", "30000"];
            let protocol = ["--command-property", &*protocol];
            run(
                bootstrap,
                Tool::ConsoleConsumer,
                &[&group[..], &limits, &protocol].concat(),
            )
        })
    };
    let perf = || {
        let arguments = [
            "--topic",
            "t",
            "--group",
            "perf",
            "--num-records",
            "90",
            "--hide-header",
        ];
        run(&bootstrap, Tool::ConsumerPerf, &arguments)
    };
    let verifiable = || {
        let plan = stage
            .plan(&topic, "verifiable")
            .commit(Commit::Auto)
            .consumer_protocol();
        read_verifiably(&stage, &plan, 90);
        String::new()
    };
    let came = beside(vec![
        read_as("old", "classic"),
        read_as("new", "consumer"),
        Box::new(perf),
        Box::new(verifiable),
    ]);
    for text in &came[..2] {
        assert!(
            text.lines()
                .map(str::to_owned)
                .collect::<std::collections::BTreeSet<_>>()
                == topic.fed,
            "all of it, each line once: {text}"
        );
    }
    // start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, …
    let records = came[2].trim().lines().last().and_then(|l| l.split(", ").nth(4));
    assert_eq!(records, Some("90"), "{}", came[2]);
    for group in ["old", "new", "verifiable"] {
        let plan = stage.plan(&topic, group);
        assert_eq!(stage.committed(&plan, PARTITIONS), everywhere(30), "{group}");
    }

    // What they left in __consumer_offsets, as Kafka's own formatters read it.
    let records = &everything(&mut topic.connection, "__consumer_offsets").to_string();
    let formatted = |name: &'static str| -> Box<dyn FnOnce() -> Vec<Value> + Send + '_> {
        let bootstrap = &bootstrap;
        Box::new(move || {
            let formatter = format!("org.apache.kafka.tools.consumer.{name}");
            let arguments = [
                "--topic",
                "__consumer_offsets",
                "--partition",
                "0",
                "--offset",
                "earliest",
                "--max-messages",
                records,
                // It is not needed, but where records have been compacted away meanwhile.
                "--timeout-ms",
                "30000",
                "--formatter",
                &formatter,
            ];
            let told = run(bootstrap, Tool::ConsoleConsumer, &arguments);
            // One after another, not one a line; in the end it may tell that its time is up.
            serde_json::Deserializer::from_str(&told)
                .into_iter()
                .map_while(Result::ok)
                .collect()
        })
    };
    let mut told = beside(vec![
        formatted("OffsetsMessageFormatter"),
        formatted("GroupMetadataMessageFormatter"),
    ]);
    let (groups, offsets) = (told.pop().expect("two"), told.pop().expect("two"));
    for group in ["old", "new", "verifiable"] {
        for p in 0..PARTITIONS {
            let last = offsets
                .iter()
                .rev()
                .find(|r| {
                    let key = &r["key"]["data"];
                    key["group"] == group && key["topic"] == "t" && key["partition"] == p
                })
                .unwrap_or_else(|| panic!("no offset of {group} {p} in {offsets:?}"));
            assert_eq!(last["value"]["data"]["offset"], 30, "{last}");
        }
    }
    let of_old: Vec<&Value> = groups
        .iter()
        .filter(|r| r["key"]["data"]["group"] == "old")
        .collect();
    assert!(
        of_old.iter().any(|r| {
            let value = &r["value"]["data"];
            value["protocolType"] == "consumer"
                && value["generation"] == 1
                && value["members"].as_array().is_some_and(|m| m.len() == 1)
        }),
        "the group with its member: {of_old:?}"
    );
    let last = &of_old.last().expect("records of the group")["value"]["data"];
    assert_eq!(last["members"], serde_json::json!([]), "and without: {last}");

    let file = stage.scratch.join("forged");
    std::fs::write(&file, "forged\n").expect("a file");
    assert!(
        forge(&bootstrap, &file).is_err(),
        "clients may not write to __consumer_offsets"
    );
}

/// How many records there are in a topic's first partition.
fn everything(connection: &mut Connection, topic: &str) -> usize {
    let end = connection.list_offset(topic, 0, -1).expect("the end");
    let (mut next, mut count) = (0, 0);
    while next < end {
        let (error, records) = connection.fetch(topic, 0, next, 1_000).expect("an answer");
        assert_eq!(error, 0, "{topic}");
        count += records.len();
        next = records.last().map_or(next, |r| r.offset + 1);
    }
    count
}

fn forge(bootstrap: &str, file: &Path) -> anyhow::Result<()> {
    let file = file.display().to_string();
    kcat(
        bootstrap,
        &["-P", "-t", "__consumer_offsets", "-p", "0", "-l", &file],
    )
    .map(drop)
}

fn read_verifiably(stage: &Stage, plan: &Plan, records: usize) {
    let mut member = stage.member(Kind::Verifiable, plan, "verifiable");
    wait_until("it has read all", PATIENCE, &mut [&mut member], |m| {
        m[0].records.len() == records
    })
    .expect("read");
    member.leave().expect("it leaves");
}
