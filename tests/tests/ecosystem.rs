//! What people build on groups and compacted topics, unmodified from Maven: Kafka
//! Connect with two workers, Kafka Streams, MirrorMaker 2.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use drumlin_tests::client::Connection;
use drumlin_tests::kafka::Kafka;
use drumlin_tests::process::{Process, run_any};
use drumlin_tests::stage::Stage;
use drumlin_tests::tools::{Tool, java_command, kcat_produce};
use drumlin_tests::{input, members, ports};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: time is up");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn started(tool: Tool, arguments: &[&str], log: &Path) -> Process {
    let command = java_command(tool, arguments, None).expect("installed");
    Process::start(&format!("{tool:?}"), command, log).expect("it starts")
}

/// Every record of a topic: key and value.
fn records(connection: &mut Connection, topic: &str, partitions: i32) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    for p in 0..partitions {
        let end = connection.list_offset(topic, p, -1).expect("the end");
        let mut at = 0;
        while at < end {
            let (error, came) = connection.fetch(topic, p, at, 500).expect("an answer");
            assert_eq!(error, 0, "{topic} {p}");
            for r in came {
                at = r.offset + 1;
                found.push((
                    r.key.map(|k| k.to_vec()).unwrap_or_default(),
                    r.value.map(|v| v.to_vec()).unwrap_or_default(),
                ));
            }
        }
    }
    found
}

/// A worker of Kafka Connect and where its REST API is.
struct Worker {
    process: Process,
    port: u16,
}

impl Worker {
    fn start(stage: &Stage, name: &str) -> Worker {
        let port = ports::free().expect("a port");
        let text = format!(
            "bootstrap.servers={}\ngroup.id=connect\nlisteners=http://127.0.0.1:{port}\n\
             key.converter=org.apache.kafka.connect.storage.StringConverter\n\
             value.converter=org.apache.kafka.connect.storage.StringConverter\n\
             offset.storage.topic=connect-offsets\nconfig.storage.topic=connect-configs\n\
             status.storage.topic=connect-status\noffset.storage.replication.factor=1\n\
             config.storage.replication.factor=1\nstatus.storage.replication.factor=1\n\
             offset.storage.partitions=3\nstatus.storage.partitions=2\n\
             offset.flush.interval.ms=500\nsession.timeout.ms=4000\nheartbeat.interval.ms=1000\n\
             scheduled.rebalance.max.delay.ms=1000\nplugin.discovery=service_load\n",
            stage.broker.bootstrap()
        );
        let file = stage.scratch.join(&format!("{name}.properties"));
        std::fs::write(&file, text).expect("a file");
        let log = stage.scratch.join(&format!("{name}.log"));
        let process = started(Tool::ConnectDistributed, &[&file.display().to_string()], &log);
        Worker { process, port }
    }

    /// Its own name among the workers.
    fn id(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn ask(&self, arguments: &[&str], path: &str) -> Option<Value> {
        let mut curl = Command::new("curl");
        curl.args([
            "-sf",
            "--noproxy",
            "*",
            "-m",
            "20",
            "-H",
            "Content-Type: application/json",
        ])
        .args(arguments)
        .arg(format!("http://127.0.0.1:{}{path}", self.port));
        let output = run_any(curl, Duration::from_secs(30)).expect("curl runs");
        output
            .status
            .success()
            .then(|| serde_json::from_str(&output.stdout).ok())
            .flatten()
    }

    fn put(&self, connector: &str, config: &Value) {
        let path = format!("/connectors/{connector}/config");
        wait_for("a connector is accepted", || {
            self.ask(&["-X", "PUT", "-d", &config.to_string()], &path)
                .is_some()
        });
    }

    /// Workers that run the tasks of a connector, if all of them run.
    fn owners(&self, connector: &str, tasks: usize) -> Option<Vec<String>> {
        let status = self.ask(&[], &format!("/connectors/{connector}/status"))?;
        let all = status["tasks"].as_array()?;
        let running = all.iter().filter(|t| t["state"] == "RUNNING");
        let owners: Vec<String> = running
            .filter_map(|t| Some(t["worker_id"].as_str()?.to_owned()))
            .collect();
        (owners.len() == tasks && all.len() == tasks).then_some(owners)
    }
}

fn append(file: &Path, lines: std::ops::Range<usize>) -> Vec<String> {
    let lines: Vec<String> = lines.map(|n| format!("line {n:06}")).collect();
    let mut out = std::fs::File::options()
        .append(true)
        .create(true)
        .open(file)
        .expect("a file");
    out.write_all((lines.join("\n") + "\n").as_bytes())
        .expect("written");
    lines
}

fn lines_of(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn connect_moves_tasks_and_loses_nothing() {
    let stage = Stage::new("connect");
    let mut topic = stage.topic("lines", 2);
    let (source, sink) = (stage.scratch.join("source"), stage.scratch.join("sink"));
    let mut all: BTreeSet<String> = append(&source, 0..2_000).into_iter().collect();
    let mut workers = vec![Worker::start(&stage, "one"), Worker::start(&stage, "two")];
    workers[0].put(
        "source",
        &json!({"connector.class": "FileStreamSource", "tasks.max": "1", "topic": "lines", "file": source}),
    );
    workers[0].put(
        "sink",
        &json!({"connector.class": "FileStreamSink", "tasks.max": "2", "topics": "lines", "file": sink}),
    );
    wait_for("all lines come through", || lines_of(&sink) == all);
    // Both workers are in, and share two connectors with three tasks.
    let spread = |worker: &Worker| -> Option<BTreeSet<String>> {
        let mut owners = worker.owners("source", 1)?;
        owners.extend(worker.owners("sink", 2)?);
        Some(owners.into_iter().collect())
    };
    let mut victim = None;
    wait_for("two workers share the tasks", || {
        victim = workers[0].owners("source", 1).and_then(|mut of| of.pop());
        victim.is_some() && spread(&workers[0]).is_some_and(|w| w.len() == 2)
    });
    let victim = victim.expect("somebody runs it");
    let dead = workers
        .iter()
        .position(|w| w.id() == victim)
        .expect("one of the two");
    let mut dead = workers.remove(dead);
    all.extend(append(&source, 2_000..4_000));
    dead.process.kill9().expect("killed");
    all.extend(append(&source, 4_000..6_000));
    let survivor = &workers[0];
    wait_for("its tasks move to the other", || {
        spread(survivor).is_some_and(|w| w == BTreeSet::from([survivor.id()]))
    });
    wait_for("no line is lost", || lines_of(&sink) == all);
    let written = records(&mut topic.connection, "lines", 2);
    let written: BTreeSet<String> = written
        .into_iter()
        .map(|(_, v)| String::from_utf8_lossy(&v).into_owned())
        .collect();
    assert_eq!(written, all);
}

/// One run of the word count among Kafka Streams' examples, from nothing but the broker.
fn count_words(stage: &Stage, run: usize) -> Process {
    let text = format!(
        "bootstrap.servers={}\napplication.id=words\nstate.dir={}\ncommit.interval.ms=300\n\
         main.consumer.session.timeout.ms=3000\nmain.consumer.heartbeat.interval.ms=700\n",
        stage.broker.bootstrap(),
        stage.scratch.join(&format!("state-{run}")).display()
    );
    let file = stage.scratch.join(&format!("words-{run}.properties"));
    std::fs::write(&file, text).expect("a file");
    let log = stage.scratch.join(&format!("words-{run}.log"));
    started(Tool::WordCount, &[&file.display().to_string()], &log)
}

/// Words as the example finds them: what is between anything but letters, digits and
/// underscores, in lower case.
fn words(text: &str, counts: &mut BTreeMap<String, i64>) {
    for line in text.lines() {
        let lower = line.to_lowercase();
        let mut parts: Vec<&str> = lower
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        // Java's split gives one empty word before a leading separator and none at the
        // end, and takes separators in a row for one.
        let leading = parts.len() > 1 && parts[0].is_empty();
        parts.retain(|p| !p.is_empty());
        if leading || lower.is_empty() {
            *counts.entry(String::new()).or_default() += 1;
        }
        for word in parts {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
}

fn counted(connection: &mut Connection) -> BTreeMap<String, i64> {
    records(connection, "streams-wordcount-output", 2)
        .into_iter()
        .filter_map(|(k, v)| {
            Some((
                String::from_utf8_lossy(&k).into_owned(),
                i64::from_be_bytes(v.try_into().ok()?),
            ))
        })
        .collect()
}

#[test]
fn streams_counts_the_words_of_real_text() {
    let stage = Stage::new("streams");
    stage.topic("streams-plaintext-input", 2);
    let mut output = stage.topic("streams-wordcount-output", 2);
    let text = stage.scratch.join("text");
    input::write(&text, 200_000).expect("text from the registry");
    let text = std::fs::read_to_string(text).expect("UTF-8");
    let mut expected = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    // The second run has a state of its own: it is restored from the changelog.
    for (run, half) in [first, second].iter().enumerate() {
        let half = half.join("\n") + "\n";
        words(&half, &mut expected);
        let file = stage.scratch.join(&format!("half-{run}"));
        std::fs::write(&file, half).expect("a file");
        kcat_produce(
            &stage.broker.bootstrap(),
            "streams-plaintext-input",
            run as i32,
            "lz4",
            &file,
        )
        .expect("kcat produces");
        let mut process = count_words(&stage, run);
        wait_for("all words are counted", || {
            assert!(process.ended().expect("its state").is_none(), "it runs");
            counted(&mut output.connection) == expected
        });
        process.terminate(Duration::from_secs(30)).expect("it stops");
    }
}

fn mirror_settings(kafka: &str, drumlin: &str, file: &PathBuf) {
    let text = format!(
        "clusters=kafka,drumlin\nkafka.bootstrap.servers={kafka}\ndrumlin.bootstrap.servers={drumlin}\n\
         kafka->drumlin.enabled=true\nkafka->drumlin.topics=out\n\
         drumlin->kafka.enabled=true\ndrumlin->kafka.topics=back\n\
         replication.factor=1\ncheckpoints.topic.replication.factor=1\n\
         heartbeats.topic.replication.factor=1\noffset-syncs.topic.replication.factor=1\n\
         offset.storage.replication.factor=1\nconfig.storage.replication.factor=1\n\
         status.storage.replication.factor=1\nconsumer.auto.offset.reset=earliest\n\
         sync.group.offsets.enabled=true\nsync.group.offsets.interval.seconds=1\n\
         emit.checkpoints.interval.seconds=1\nrefresh.topics.interval.seconds=2\n\
         refresh.groups.interval.seconds=2\noffset.lag.max=0\ntasks.max=1\n\
         emit.heartbeats.enabled=false\n"
    );
    std::fs::write(file, text).expect("a file");
}

#[test]
fn mirror_maker_from_kafka_to_drumlin_and_back() {
    let stage = Stage::new("mirror");
    let quick = ("group.initial.rebalance.delay.ms".to_owned(), "300".to_owned());
    let kafka = Kafka::start(&stage.scratch.join("kafka"), &[quick]).expect("Apache Kafka");
    let mut there = Connection::open(&kafka.bootstrap(), PATIENCE).expect("a connection");
    there.create_topic("out", 2, &[]).expect("a topic");
    let mut back = stage.topic("back", 2);
    let mut sent = BTreeSet::new();
    for p in 0..2 {
        let values: Vec<String> = (0..500).map(|n| format!("out {p} {n}")).collect();
        there.produce_surely("out", p, &values).expect("accepted");
        sent.extend(values);
    }
    back.feed(500);
    // A group at Apache Kafka that has read all, whose offsets are to come along.
    let mut plan = members::Plan::new(&kafka.bootstrap(), "out", "readers");
    plan.session = Duration::from_secs(6);
    let mut reader = stage.member(members::Kind::Confluent, &plan, "reader");
    members::wait_until("the group reads", PATIENCE, &mut [&mut reader], |m| {
        m[0].committed.values().sum::<i64>() == 1_000
    })
    .expect("it reads and commits");
    reader.leave().expect("it leaves");

    let file = stage.scratch.join("mirror.properties");
    mirror_settings(&kafka.bootstrap(), &stage.broker.bootstrap(), &file);
    let log = stage.scratch.join("mirror.log");
    let mut mirror = started(Tool::MirrorMaker, &[&file.display().to_string()], &log);
    let mut here = stage.connect();
    let mut came = |at_kafka: bool, topic: &str| -> BTreeSet<String> {
        let connection = if at_kafka { &mut there } else { &mut here };
        // A topic that was just made has leaders for some of its partitions first.
        let exists = (0..2).all(|p| connection.list_offset(topic, p, -1).is_ok());
        let found = if exists {
            records(connection, topic, 2)
        } else {
            Vec::new()
        };
        found
            .into_iter()
            .map(|(_, v)| String::from_utf8_lossy(&v).into_owned())
            .collect()
    };
    wait_for("Kafka's records come to Drumlin", || {
        came(false, "kafka.out") == sent
    });
    wait_for("Drumlin's records come to Kafka", || {
        came(true, "drumlin.back") == back.fed
    });
    let bootstrap = stage.broker.bootstrap();
    wait_for("the group's offsets come along", || {
        members::committed(&bootstrap, "readers", "kafka.out", 2)
            .is_ok_and(|offsets| offsets == BTreeMap::from([(0, 500), (1, 500)]))
    });
    assert!(mirror.ended().expect("its state").is_none(), "it runs");
    mirror.terminate(Duration::from_secs(30)).expect("it stops");
}
