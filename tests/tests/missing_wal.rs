//! A WAL object that somebody deletes while no broker runs: the start is refused and names it, goes on when it is back,
//! and goes on without it when it was given up.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::client::Connection;
use drumlin_tests::process;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stores::{Local, Minio, Store};

const TOPIC: &str = "t";
const PATIENCE: Duration = Duration::from_secs(60);
/// Too large for a local directory's journal, so that each WAL object has a file.
const RECORD: usize = 600_000;
/// So many that the window of appends lies above the first few.
const RECORDS: i64 = 22;
const CORRUPT_MESSAGE: i16 = 2;

fn connect(broker: &Broker) -> Connection {
    Connection::open(&broker.bootstrap(), PATIENCE).expect("a connection")
}

fn value(offset: i64) -> Vec<u8> {
    let mut value = vec![b'x'; RECORD];
    value[..8].copy_from_slice(&offset.to_be_bytes());
    value
}

/// One WAL object for each record.
fn produce(broker: &Broker, from: i64) {
    let mut connection = connect(broker);
    for offset in from..from + RECORDS {
        let answer = connection
            .produce(TOPIC, 0, &value(offset), 30_000)
            .expect("an answer");
        assert_eq!(answer, (0, offset));
    }
}

/// The error of each offset that cannot be read; the others hold what was written.
fn unreadable(broker: &Broker, end: i64) -> Vec<(i64, i16)> {
    let mut connection = connect(broker);
    assert_eq!(connection.list_offset(TOPIC, 0, -1).expect("the end"), end);
    let mut failed = Vec::new();
    for offset in 0..end {
        let (error, records) = connection.fetch(TOPIC, 0, offset, 1000).expect("an answer");
        if error != 0 {
            failed.push((offset, error));
            continue;
        }
        let record = records.first().expect("a record");
        assert_eq!(record.offset, offset);
        assert!(
            record.value.as_deref() == Some(&value(offset)[..]),
            "offset {offset}"
        );
    }
    failed
}

/// Where the store keeps the WAL entries of the newest start, in order. A file each, or a folder.
fn entries(dir: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.parent().is_some_and(|parent| parent.ends_with("log"))
                && path.display().to_string().contains("/wal/")
            {
                found.push(path);
            } else if path.is_dir() {
                walk(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, &mut found);
    let incarnation = |path: &PathBuf| {
        let name = path.parent().and_then(Path::parent).and_then(Path::file_name);
        name.and_then(|name| name.to_str())
            .and_then(|name| name.parse::<u64>().ok())
    };
    let newest = found.iter().filter_map(incarnation).max();
    found.retain(|path| incarnation(path) == newest);
    found.sort();
    found
}

fn key(path: &Path) -> String {
    let path = path.display().to_string();
    let at = path.find("/wal/").expect("a WAL object");
    path[at + 1..].to_owned()
}

fn refused(broker: &mut Broker) -> String {
    broker.spawn().expect("spawned");
    let end = Instant::now() + PATIENCE;
    loop {
        let process = broker.process().expect("a process");
        if let Some(status) = process.ended().expect("asked") {
            let printed = process.printed();
            assert_eq!(status.code(), Some(1), "{printed}");
            return printed;
        }
        assert!(Instant::now() < end, "the start is not refused");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn story(name: &str, scratch: &Scratch, data: &Path, store: impl Store + 'static) {
    let options = Options::on(&scratch.join(name), store).set("seal.round.ms", 3_600_000);
    let mut broker = Broker::start(options).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&broker, 0);
    broker.kill9().expect("killed");

    let aside = scratch.join(&format!("{name}-aside"));
    let holds_record = |path: &PathBuf| {
        let size = |path: &Path| {
            path.metadata()
                .map_or(0, |meta| if meta.is_dir() { u64::MAX } else { meta.len() })
        };
        size(path) > RECORD as u64
    };
    let objects: Vec<PathBuf> = entries(data).into_iter().filter(holds_record).collect();
    let third = &objects[objects.len() - RECORDS as usize + 2];
    std::fs::rename(third, &aside).expect("taken away");
    for _ in 0..2 {
        let printed = refused(&mut broker);
        assert!(
            printed.contains(&key(third)) && printed.contains("drumlin store give-up"),
            "{printed}"
        );
    }
    std::fs::rename(&aside, third).expect("brought back");
    broker.restart().expect("it starts");
    assert_eq!(unreadable(&broker, RECORDS), []);

    produce(&broker, RECORDS);
    broker.kill9().expect("killed");
    let objects: Vec<PathBuf> = entries(data).into_iter().filter(holds_record).collect();
    let third = &objects[objects.len() - RECORDS as usize + 2];
    std::fs::rename(third, &aside).expect("taken away");
    let check = broker.command_of(&["store", "check"]).expect("a command");
    let told = process::run_any(check, PATIENCE).expect("store check");
    assert!(
        !told.status.success() && told.stdout.contains(&key(third)),
        "{told:?}"
    );
    refused(&mut broker);
    let give_up = broker
        .command_of(&["store", "give-up", &key(third)])
        .expect("a command");
    let told = process::run_any(give_up, PATIENCE).expect("store give-up");
    assert!(told.status.success(), "{told:?}");
    for _ in 0..2 {
        broker.restart().expect("it starts");
        assert_eq!(unreadable(&broker, 2 * RECORDS), [(RECORDS + 2, CORRUPT_MESSAGE)]);
        broker.terminate().expect("it stops");
    }
}

#[test]
fn on_a_local_directory() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("missing-wal").expect("a folder");
    let data = scratch.join("store");
    story("broker", &scratch, &data, Local::new(&data));
}

#[test]
fn on_minio() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("missing-wal-minio").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    story("broker", &scratch, minio.data(), minio.store("missing"));
}
