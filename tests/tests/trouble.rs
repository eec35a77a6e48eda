//! What can go wrong around one broker, and what it then has to do.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::client::Connection;
use drumlin_tests::ports;
use drumlin_tests::process;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stores::{self, Local, Minio, S3};

const TOPIC: &str = "t";
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(broker: &Broker) -> Connection {
    Connection::open(&broker.bootstrap(), PATIENCE).expect("a connection")
}

fn produce(broker: &Broker, value: &str) {
    let (error, _) = connect(broker)
        .produce(TOPIC, 0, value.as_bytes(), 10_000)
        .expect("an answer");
    assert_eq!(error, 0, "produce {value}");
}

fn values(broker: &Broker) -> Vec<String> {
    let mut connection = connect(broker);
    let end = connection.list_offset(TOPIC, 0, -1).expect("the end");
    let mut values = Vec::new();
    while (values.len() as i64) < end {
        let (error, records) = connection
            .fetch(TOPIC, 0, values.len() as i64, 1000)
            .expect("an answer");
        assert_eq!(error, 0);
        assert!(!records.is_empty(), "nothing at {} of {end}", values.len());
        values.extend(
            records
                .iter()
                .map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap_or(b"")).into_owned()),
        );
    }
    values
}

/// Runs a broker that is to refuse to start; what it printed.
fn refused(options: Options, patience: Duration) -> String {
    let mut broker = Broker::prepare(options).expect("prepared");
    broker.spawn().expect("spawned");
    let ended = broker
        .process()
        .expect("a process")
        .wait(patience)
        .expect("waited");
    let printed = broker.process().expect("a process").printed();
    assert!(
        ended.is_some(),
        "it should have refused to start, and runs:\n{printed}"
    );
    assert!(
        !ended.is_some_and(|s| s.success()),
        "it ended with success:\n{printed}"
    );
    assert!(!printed.contains("panicked"), "{printed}");
    printed
}

#[test]
fn a_directory_in_use_is_refused() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("in-use").expect("a folder");
    let broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    let second = Options::on(&scratch.join("second"), Local::new(scratch.join("broker/store")));
    let printed = refused(second, PATIENCE);
    assert!(
        printed.contains(&scratch.join("broker/store").display().to_string()),
        "{printed}"
    );
    assert!(printed.contains("use") || printed.contains("lock"), "{printed}");
    connect(&broker)
        .create_topic(TOPIC, 1, &[])
        .expect("the first one goes on");
}

#[test]
fn a_newer_start_on_a_bucket_fences_the_older() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("fence").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let mut older = Broker::start(Options::on(&scratch.join("older"), minio.store("one"))).expect("a broker");
    connect(&older).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&older, "by the older");
    // Paused past the takeover: it must not notice in time by chance.
    older.process().expect("it runs").signal("STOP").expect("paused");
    let newer =
        Broker::start(Options::on(&scratch.join("newer"), minio.store("one"))).expect("a second broker");
    assert_eq!(values(&newer), ["by the older"]);
    produce(&newer, "by the newer");
    older.process().expect("it runs").signal("CONT").expect("resumed");
    if let Ok(mut zombie) = Connection::open(&older.bootstrap(), Duration::from_secs(10))
        && let Ok((error, _)) = zombie.produce(TOPIC, 0, b"by a zombie", 5_000)
    {
        assert_ne!(error, 0, "the fenced broker acknowledged a record");
    }
    let ended = older
        .process()
        .expect("it ran")
        .wait(Duration::from_secs(60))
        .expect("waited");
    let printed = older.process().expect("it ran").printed();
    assert!(
        ended.is_some_and(|s| !s.success()),
        "the fenced broker should end with an error: {ended:?}\n{printed}"
    );
    assert!(printed.contains("fenced"), "it should say why:\n{printed}");
    assert_eq!(values(&newer), ["by the older", "by the newer"]);
}

#[test]
fn an_unreachable_store_ends_the_start_after_its_time() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("unreachable").expect("a folder");
    let nowhere = S3::at(ports::free().expect("a port"), "none");
    let options = Options::on(&scratch.join("broker"), nowhere).set("store.start.timeout.ms", 5_000);
    let began = Instant::now();
    let printed = refused(options, Duration::from_secs(40));
    assert!(
        began.elapsed() > Duration::from_secs(4),
        "it did not try again:\n{printed}"
    );
    assert_eq!(warned(&printed), 1, "the reason does not change:\n{printed}");
    let last = printed.lines().last().expect("a line");
    assert!(last.contains("could not be used within 5 s"), "{printed}");
    assert_eq!(printed.matches("Connection refused").count(), 2, "{printed}");
}

/// Lines that say why the store cannot be used yet.
fn warned(printed: &str) -> usize {
    let lines = printed.lines();
    lines
        .filter(|line| line.contains("WARN") && line.contains("cannot be used yet, trying for"))
        .count()
}

#[test]
fn a_missing_bucket_is_named_at_once_and_waited_for() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("no-bucket").expect("a folder");
    let data = scratch.join("minio");
    std::fs::create_dir_all(&data).expect("a folder");
    let minio = Minio::start_on(&data, &scratch.join("minio.log")).expect("minio");
    let options = Options::on(&scratch.join("broker"), minio.store("one"));
    let mut broker = Broker::prepare(options).expect("prepared");
    broker.spawn().expect("spawned");
    let began = Instant::now();
    let printed = loop {
        let printed = broker.process().expect("it runs").printed();
        if warned(&printed) > 0 || began.elapsed() > PATIENCE {
            break printed;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(
        printed.contains("for 60 s: the bucket does not exist"),
        "{printed}"
    );
    assert!(printed.contains("404 Not Found, NoSuchBucket: "), "{printed}");
    std::fs::create_dir(data.join(stores::BUCKET)).expect("a bucket");
    broker.wait_ready().expect("it goes on");
    let printed = broker.process().expect("it runs").printed();
    assert_eq!(warned(&printed), 1, "{printed}");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&broker, "in a new bucket");
    assert_eq!(values(&broker), ["in a new bucket"]);
}

#[test]
fn wrong_credentials_are_named_in_one_line() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("wrong-key").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let options = Options::on(&scratch.join("broker"), minio.store("one"))
        .set("store.start.timeout.ms", 2_000)
        .env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let printed = refused(options, Duration::from_secs(40));
    assert_eq!(warned(&printed), 1, "{printed}");
    let reason = "check credentials and permissions: http://";
    let told = |line: &str| line.contains(reason) && line.contains("SignatureDoesNotMatch: ");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.iter().filter(|line| told(line)).count(), 2, "{printed}");
    assert!(!printed.contains("<Code>"), "{printed}");
}

#[test]
fn an_unknown_option_is_named_with_its_nearest_neighbour() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("option").expect("a folder");
    let printed = refused(
        Options::local(&scratch.join("a")).set("log.retention.hour", 1),
        PATIENCE,
    );
    assert!(
        printed.contains("log.retention.hour") && printed.contains("log.retention.hours"),
        "{printed}"
    );
    let printed = refused(
        Options::local(&scratch.join("b")).set("message.max.bytes", "many"),
        PATIENCE,
    );
    assert!(printed.contains("message.max.bytes"), "{printed}");
}

/// The store goes away while the broker runs: produce waits, then fails in a way that
/// clients repeat; what is in memory is still read; all is well when it comes back.
#[test]
fn a_store_lost_while_running() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("outage").expect("a folder");
    let mut minio = Minio::start(scratch.path()).expect("minio");
    let broker =
        Broker::start(Options::on(&scratch.join("broker"), minio.store("outage"))).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&broker, "before");
    minio.process().kill9().expect("minio is gone");
    let began = Instant::now();
    let (error, _) = connect(&broker)
        .produce(TOPIC, 0, b"meanwhile", 3_000)
        .expect("an answer");
    let retriable = [6, 7, 19, 20, 56];
    assert!(
        retriable.contains(&error),
        "error {error} is not one that clients repeat"
    );
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        began.elapsed()
    );
    let (error, records) = connect(&broker).fetch(TOPIC, 0, 0, 100).expect("an answer");
    assert_eq!(
        (error, records.len()),
        (0, 1),
        "hot records are read without the store"
    );
    minio.restart().expect("minio is back");
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let (error, _) = connect(&broker)
            .produce(TOPIC, 0, b"after", 5_000)
            .expect("an answer");
        if error == 0 {
            break;
        }
        assert!(
            Instant::now() < end,
            "error {error} long after the store came back"
        );
    }
    let values = values(&broker);
    assert_eq!(values.first().map(String::as_str), Some("before"));
    assert_eq!(values.last().map(String::as_str), Some("after"));
}

fn files_with(dir: &Path, marker: &[u8], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_with(&path, marker, found);
        } else if std::fs::read(&path)
            .expect("a file")
            .windows(marker.len())
            .any(|w| w == marker)
        {
            found.push(path);
        }
    }
}

/// A damaged object is an error for its own range, is found by `store check`, and hides nothing else.
#[test]
fn a_damaged_object() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("damage").expect("a folder");
    let mut broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    let mut connection = connect(&broker);
    connection.create_topic("harmed", 1, &[]).expect("a topic");
    connection.create_topic(TOPIC, 1, &[]).expect("a topic");
    let marker = b"a value that will be damaged";
    assert_eq!(
        connection
            .produce("harmed", 0, marker, 10_000)
            .expect("an answer"),
        (0, 0)
    );
    produce(&broker, "whole");
    // Until then the journal of a directory cannot tell damage to its last records from puts that were cut off.
    std::thread::sleep(Duration::from_secs(1));
    broker.kill9().expect("killed");
    let mut found = Vec::new();
    files_with(&scratch.join("broker/store"), marker, &mut found);
    assert!(!found.is_empty(), "the record is in no object");
    for path in &found {
        let mut bytes = std::fs::read(path).expect("a file");
        let at = bytes
            .windows(marker.len())
            .position(|w| w == marker)
            .expect("the marker");
        bytes[at + 3] ^= 0x40;
        std::fs::write(path, bytes).expect("damaged");
    }
    let check = broker.command_of(&["store", "check"]).expect("a command");
    let told = process::run_any(check, Duration::from_secs(60)).expect("store check");
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(
        format!("{}{}", told.stdout, told.stderr).contains("/log/0"),
        "the damaged object is not named: {told:?}"
    );

    broker.restart().expect("it starts all the same");
    assert_eq!(values(&broker), ["whole"]);
    if let Ok((error, records)) = connect(&broker).fetch("harmed", 0, 0, 500) {
        assert!(records.is_empty(), "damaged bytes were served: {records:?}");
        assert_ne!(error, 0, "a damaged range is an error");
    }
    produce(&broker, "still taking");
}

/// Ones that ask for much and read nothing cost others nothing.
#[test]
fn slow_and_idle_connections_cost_others_nothing() {
    let scratch = Scratch::new("slow").expect("a folder");
    let mut broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    let value = "x".repeat(500_000);
    (0..20).for_each(|_| produce(&broker, &value));
    let mut healthy = connect(&broker);
    let mut next = 20;
    // What a turn takes on this machine, beside whatever else it does.
    let alone = slowest_of(50, &mut healthy, &mut next);
    let positions = fetches();
    let mut slow: Vec<Connection> = (0..20).map(|_| connect(&broker)).collect();
    for connection in &mut slow {
        for request in &positions {
            if connection.send_raw(request).is_err() {
                break; // Closed already, which is as well.
            }
        }
    }
    let _idle: Vec<Connection> = (0..500).map(|_| connect(&broker)).collect();
    let slowest = slowest_of(200, &mut healthy, &mut next);
    assert!(
        slowest < Duration::from_secs(2).max(10 * alone),
        "one turn took {slowest:?}, and {alone:?} without them"
    );
    assert!(
        broker
            .process()
            .expect("it runs")
            .ended()
            .expect("asked")
            .is_none()
    );
}

/// Writes one record and reads it, so many times; the longest that took.
fn slowest_of(turns: usize, connection: &mut Connection, next: &mut i64) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..turns {
        let began = Instant::now();
        let (error, offset) = connection
            .produce(TOPIC, 0, b"healthy", 10_000)
            .expect("an answer");
        assert_eq!((error, offset), (0, *next));
        let (error, records) = connection.fetch(TOPIC, 0, offset, 1000).expect("an answer");
        assert_eq!((error, records.len()), (0, 1));
        slowest = slowest.max(began.elapsed());
        *next += 1;
    }
    slowest
}

/// Fetches of a megabyte each, far more than a socket's buffers hold.
fn fetches() -> Vec<Vec<u8>> {
    use drumlin_wire::frame;
    use drumlin_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
    let partition = FetchPartition {
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let request = FetchRequest {
        replica_id: -1,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: TOPIC.into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    let bytes = |n| {
        frame::request(&request, 12, n, None)
            .expect("a request")
            .into_bytes()
            .to_vec()
    };
    (0..50).map(bytes).collect()
}

#[test]
fn health_and_metrics_are_served() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("health").expect("a folder");
    let broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&broker, "counted");
    for path in ["/health/live", "/health/ready"] {
        assert!(stores::http_ok(broker.admin_port(), path), "{path}");
    }
    let metrics = stores::http_get(broker.admin_port(), "/metrics").expect("metrics");
    assert!(metrics.lines().any(|l| l.starts_with("drumlin_")), "{metrics}");
    for (number, line) in metrics.lines().skip_while(|l| !l.is_empty()).enumerate() {
        let fields = line.rsplit(' ').next().unwrap_or("");
        let sound = line.is_empty() || line.starts_with('#') || fields.parse::<f64>().is_ok();
        assert!(sound, "line {number} of the metrics: {line:?}");
    }
}
