//! Disks that are full or read-only, objects that are damaged, foreign or of a newer version, local files that are
//! not what was written: what the broker does then, and that it goes on when the trouble is over.

#[path = "damage/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use disk::Disk;
use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::client::{Connection, answers};
use drumlin_tests::process;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stores::{self, Local, Minio};
use drumlin_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};

const TOPIC: &str = "t";
const PATIENCE: Duration = Duration::from_secs(30);
/// Errors that clients repeat a produce after: leader unknown or moved, out of time, too few replicas, storage.
const RETRIABLE: [i16; 6] = [5, 6, 7, 19, 20, 56];
const REQUEST_TIMED_OUT: i16 = 7;
const KAFKA_STORAGE_ERROR: i16 = 56;
const CORRUPT_MESSAGE: i16 = 2;

fn connect(broker: &Broker) -> Connection {
    Connection::open(&broker.bootstrap(), PATIENCE).expect("a connection")
}

fn wait_for(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// A value that is told from all others, and is mostly padding.
fn value(name: &str, number: usize, size: usize) -> String {
    format!("{name} {number} {}", "x".repeat(size))
}

/// All records of a partition by their offsets. The start, the end, and no offset between them missing.
fn all(broker: &Broker, topic: &str) -> BTreeMap<i64, String> {
    let (read, failed) = readable(broker, topic);
    assert!(failed.is_empty(), "{topic}: cannot be read: {failed:?}");
    read
}

/// What can be read of a partition, and the errors by offset: after one, the next offset is tried.
fn readable(broker: &Broker, topic: &str) -> (BTreeMap<i64, String>, BTreeMap<i64, i16>) {
    let mut connection = connect(broker);
    let end = connection.list_offset(topic, 0, -1).expect("the end");
    let (mut read, mut failed, mut next) = (BTreeMap::new(), BTreeMap::new(), 0);
    while next < end {
        let (error, records) = connection.fetch(topic, 0, next, 1000).expect("an answer");
        if error != 0 {
            failed.insert(next, error);
            next += 1;
            continue;
        }
        assert!(!records.is_empty(), "{topic}: nothing at {next} of {end}");
        for record in records {
            assert_eq!(record.offset, next, "{topic}: the offsets have a gap");
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"")).into_owned();
            read.insert(next, value);
            next += 1;
        }
    }
    (read, failed)
}

fn produce(broker: &Broker, topic: &str, value: &str) -> i64 {
    let (error, offset) = connect(broker)
        .produce(topic, 0, value.as_bytes(), 10_000)
        .expect("an answer");
    assert_eq!(error, 0, "produce {}", &value[..value.len().min(40)]);
    offset
}

fn resident(broker: &mut Broker) -> u64 {
    let id = broker.process().expect("it runs").id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        << 10
}

fn printed(broker: &mut Broker) -> String {
    let printed = broker.process().expect("a process").printed();
    assert!(!printed.contains("panicked"), "{printed}");
    printed
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // Files come and go under a running broker.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

fn bytes_below(dir: &Path) -> u64 {
    let sizes = files(dir).into_iter().filter_map(|f| f.metadata().ok());
    sizes.map(|m| m.len()).sum()
}

/// The store's directory fills up: what it keeps for itself goes first, then produces fail in a way that clients
/// repeat, in bounded memory, and all else goes on; with space it goes on by itself, and nothing that was
/// acknowledged is lost.
#[test]
fn a_full_store_directory() {
    if against_kafka() {
        return;
    }
    const FLOOD: Duration = Duration::from_secs(4);
    // Too large for the journal, so that its WAL objects have files.
    const RECORD: usize = 1_100_000;
    let scratch = Scratch::new("full").expect("a folder");
    let disk = Disk::new(scratch.path(), 96).expect("a disk");
    let options = Options::on(&scratch.join("broker"), Local::new(disk.path("store")))
        .sealing_often()
        .set("wal.unflushed.max.bytes", 8 << 20)
        .set("message.max.bytes", 2 << 20)
        .set("produce.timeout.min.ms", 0);
    let mut broker = Broker::start(disk.under(options)).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    let mut acknowledged = BTreeMap::new();
    for number in 0..12 {
        let value = value("before", number, RECORD);
        acknowledged.insert(produce(&broker, TOPIC, &value), value);
    }
    let kept = disk.seen("store/.tmp");
    if disk.real {
        // Of the WAL objects that a round has sealed.
        wait_for("files of deleted objects", PATIENCE, || {
            bytes_below(&kept) > 2 << 20
        });
    }
    let memory = resident(&mut broker);
    disk.fill().expect("filled");
    let (mut taken, mut refused, slowest) = flood(&broker, FLOOD, RECORD);
    eprintln!(
        "full: {} taken, {} refused, the slowest took {slowest:?}; {} bytes kept",
        taken.len(),
        refused.len(),
        bytes_below(&kept)
    );
    if disk.real {
        assert!(!taken.is_empty(), "the space of deleted objects was not given up");
        // A round that found room at the end of the flood has deleted objects; the next write that finds none takes
        // their files' space too.
        wait_for("no files are kept on a full disk", PATIENCE, || {
            if bytes_below(&kept) < 2 << 20 {
                return true;
            }
            disk.fill().expect("filled");
            let value = value("more", taken.len(), RECORD);
            let answer = connect(&broker).produce(TOPIC, 0, value.as_bytes(), 1_000);
            match answer.expect("an answer") {
                (0, offset) => drop(taken.insert(offset, value)),
                (error, _) => refused.push(error),
            }
            false
        });
    }
    assert!(!refused.is_empty(), "the disk is not full");
    for error in &refused {
        assert!(
            RETRIABLE.contains(error),
            "error {error} is not one that clients repeat"
        );
    }
    assert!(slowest < Duration::from_secs(8), "one produce took {slowest:?}");
    let grown = resident(&mut broker).saturating_sub(memory);
    assert!(grown < 64 << 20, "memory grew by {} MiB", grown >> 20);
    acknowledged.extend(taken);

    let began = Instant::now();
    let seen = all(&broker, TOPIC);
    assert!(seen.len() >= acknowledged.len(), "reads go on");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "reads took {:?}",
        began.elapsed()
    );
    assert!(stores::http_ok(broker.admin_port(), "/health/live"));
    // Sealing frees space now and then, so that a small object may find room.
    let timed_out = (0..5).any(|turn| {
        disk.fill().expect("filled");
        let error = create_topic(&broker, &format!("topic-{turn}"), 1_500);
        assert!(
            matches!(error, 0 | REQUEST_TIMED_OUT),
            "CreateTopics on a full disk: error {error}"
        );
        error == REQUEST_TIMED_OUT
    });
    assert!(timed_out, "the disk is not full");
    let said = printed(&mut broker);
    assert!(
        said.contains("full") || said.contains("No space"),
        "the log should say why:\n{said}"
    );

    disk.free().expect("space again");
    let last = value("after", 0, 10);
    let end = Instant::now() + PATIENCE;
    let offset = loop {
        let answer = connect(&broker).produce(TOPIC, 0, last.as_bytes(), 3_000);
        match answer.expect("an answer") {
            (0, offset) => break offset,
            (error, _) => assert!(Instant::now() < end, "error {error} long after there was space"),
        }
    };
    acknowledged.insert(offset, last);
    assert_eq!(create_topic(&broker, "another", 10_000), 0);
    intact(&broker, &acknowledged);
    broker.kill9().expect("killed");
    broker.restart().expect("it starts again");
    intact(&broker, &acknowledged);
    broker.terminate().expect("it stops");
    let check = broker.command_of(&["store", "check"]).expect("a command");
    let told = process::run_any(disk.inside(&check), PATIENCE).expect("store check");
    assert!(told.status.success(), "{told:?}");
}

/// A start on a full directory says so and ends, and works when there is space.
#[test]
fn a_start_on_a_full_disk() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("full-start").expect("a folder");
    let disk = Disk::new(scratch.path(), 24).expect("a disk");
    let options = Options::on(&scratch.join("broker"), Local::new(disk.path("store")));
    let mut broker = Broker::start(disk.under(options)).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&broker, TOPIC, "before");
    broker.kill9().expect("killed");
    disk.fill().expect("filled");
    broker.spawn().expect("spawned");
    wait_for("a word about the full disk", PATIENCE, || {
        let said = printed(&mut broker);
        said.contains("full") || said.contains("No space")
    });
    disk.free().expect("space again");
    let mut ended = None;
    wait_for("an end, or a start after all", PATIENCE, || {
        ended = broker.process().expect("a process").ended().expect("asked");
        ended.is_some() || answers(&broker.bootstrap())
    });
    if let Some(status) = ended {
        assert_eq!(status.code(), Some(1), "{}", printed(&mut broker));
        broker.restart().expect("there is space");
    }
    assert_eq!(all(&broker, TOPIC).into_values().collect::<Vec<_>>(), ["before"]);
    produce(&broker, TOPIC, "after");
}

/// Four producers at once, until time is up and there was one answer of each kind: what was acknowledged by offset,
/// the errors, the longest wait.
fn flood(broker: &Broker, time: Duration, size: usize) -> (BTreeMap<i64, String>, Vec<i16>, Duration) {
    let results = Mutex::new((BTreeMap::new(), Vec::new(), Duration::ZERO));
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for producer in 0..4 {
            let results = &results;
            scope.spawn(move || {
                for number in 0.. {
                    {
                        let results = results.lock().expect("no panic");
                        let both = !results.0.is_empty() && !results.1.is_empty();
                        if Instant::now() >= end && (both || Instant::now() >= end + PATIENCE) {
                            return;
                        }
                    }
                    let value = value(&format!("flood {producer}"), number, size);
                    let began = Instant::now();
                    let (error, offset) = connect(broker)
                        .produce(TOPIC, 0, value.as_bytes(), 1_000)
                        .expect("an answer");
                    let mut results = results.lock().expect("no panic");
                    results.2 = results.2.max(began.elapsed());
                    if error == 0 {
                        results.0.insert(offset, value);
                    } else {
                        results.1.push(error);
                    }
                }
            });
        }
    });
    results.into_inner().expect("no panic")
}

/// The error code of a CreateTopics request.
fn create_topic(broker: &Broker, name: &str, timeout_ms: i32) -> i16 {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms,
        ..Default::default()
    };
    let answer = connect(broker).call(&request, 7).expect("an answer");
    answer.topics.first().expect("a topic").error_code
}

/// Nothing acknowledged is lost or moved, no offset is missing (that is seen to by `all`), and nothing is there
/// twice at the same producer's word.
fn intact(broker: &Broker, acknowledged: &BTreeMap<i64, String>) {
    let all = all(broker, TOPIC);
    for (offset, value) in acknowledged {
        assert!(
            all.get(offset) == Some(value),
            "what was acknowledged at {offset} is not there"
        );
    }
}

/// The disk of the cache is full from the start, fills up, is read-only from the start, becomes so, or cannot be
/// used at all: everything is served without it, and the log has a few words about it.
#[test]
fn a_cache_that_cannot_be_written() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("cache").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let disk = Disk::new(scratch.path(), 24).expect("a disk");
    let broker = |name: &str, cache: &Path| {
        let options = Options::on(&scratch.join(name), minio.store(name))
            .sealing_often()
            .set("seal.round.ms", 500)
            .set("cache.dir", cache.display())
            .set("cache.disk.bytes", 64 << 20)
            .set("cache.memory.bytes", 1 << 20)
            .set("hot.memory.bytes", 0);
        let broker = Broker::start(disk.under(options)).expect("a broker");
        connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
        broker
    };
    std::fs::write(scratch.join("a file"), "no folder").expect("a file");

    let mut filling = broker("filling", &disk.path("filling"));
    work(&filling, "with a cache");
    disk.fill().expect("filled");
    serves_without(&mut filling);
    let mut full = broker("full", &disk.path("full"));
    serves_without(&mut full);
    let mut unusable = broker("unusable", &scratch.join("a file/cache"));
    serves_without(&mut unusable);
    disk.free().expect("space again");
    if disk.real {
        let mut protected = broker("protected", &disk.path("protected"));
        work(&protected, "with a cache");
        disk.fail().expect("read-only");
        serves_without(&mut protected);
    } else {
        disk.read_only().expect("read-only");
    }
    let mut read_only = broker("read-only", &disk.path("read-only"));
    serves_without(&mut read_only);
}

fn work(broker: &Broker, name: &str) -> Vec<String> {
    let values: Vec<String> = (0..12).map(|n| value(name, n, 150_000)).collect();
    for value in &values {
        produce(broker, TOPIC, value);
    }
    values
}

/// Records of before and of now are read hot, sealed, and after a start without the cache.
fn serves_without(broker: &mut Broker) {
    let mut expected: Vec<String> = all(broker, TOPIC).into_values().collect();
    expected.extend(work(broker, "without"));
    assert!(all(broker, TOPIC).into_values().eq(expected.iter().cloned()));
    wait_for("a round of sealing", PATIENCE, || {
        metric(broker, "drumlin_store_requests_total", "segment") > 0.0
    });
    assert!(all(broker, TOPIC).into_values().eq(expected.iter().cloned()));
    broker.kill9().expect("killed");
    broker.restart().expect("it starts");
    assert!(all(broker, TOPIC).into_values().eq(expected.iter().cloned()));
    produce(broker, TOPIC, "still taking");
    // The disk is opened, and looked at, after serving has begun.
    wait_for("a warning about the cache", PATIENCE, || {
        let said = printed(broker);
        said.contains("WARN") && said.contains("cache")
    });
    let said = printed(broker);
    let warnings = said
        .lines()
        .filter(|l| l.contains("WARN") || l.contains("ERROR"))
        .count();
    assert!(warnings < 30, "{warnings} warnings:\n{said}");
}

/// A copy of a bucket in which something is not as it was written.
struct Altered {
    scratch: Scratch,
    source: PathBuf,
    expected: Vec<String>,
}

impl Altered {
    /// The start on a copy of the bucket, altered by `alter`, is refused in one line with all of `words`; with the
    /// bucket as it was the broker starts and has everything.
    fn refused(&self, name: &str, words: &[&str], alter: impl FnOnce(&Path)) {
        let dir = self.scratch.join(name);
        let store = dir.join("store");
        copy(&self.source, &store);
        alter(&store);
        let mut broker = Broker::prepare(Options::local(&dir)).expect("prepared");
        broker.spawn().expect("spawned");
        let ended = broker
            .process()
            .expect("a process")
            .wait(PATIENCE)
            .expect("waited");
        let said = printed(&mut broker);
        assert_eq!(ended.and_then(|s| s.code()), Some(1), "{name}: {ended:?}\n{said}");
        let last = said.lines().last().unwrap_or("");
        eprintln!("{name}: {last}");
        assert!(last.starts_with("drumlin: "), "{name}:\n{said}");
        for word in words {
            assert!(last.contains(word), "{name}: {word:?} is not said:\n{said}");
        }
        let log = std::fs::read_to_string(broker.log()).expect("the log");
        assert!(
            log.lines().filter(|l| l.starts_with("drumlin: ")).count() == 1,
            "{log}"
        );

        // What the refused start left behind harms nothing: put back what was altered, and all is well.
        for file in files(&self.source).into_iter().filter(|f| !own(f)) {
            let target = store.join(file.strip_prefix(&self.source).expect("below"));
            std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
            std::fs::copy(&file, &target).expect("put back");
        }
        let broker = Broker::start(Options::local(&dir));
        let broker = broker.expect(name);
        assert!(
            all(&broker, TOPIC)
                .into_values()
                .eq(self.expected.iter().cloned()),
            "{name}"
        );
    }
}

/// The local store's own two names.
fn own(path: &Path) -> bool {
    path.iter().any(|part| part == ".lock" || part == ".tmp")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    let mut command = Command::new("cp");
    command.arg("-r").arg(from).arg(to);
    process::run(command, PATIENCE).expect("copied");
}

/// The files below `dir` that begin with `magic`, the newest in name last.
fn with_magic(dir: &Path, magic: &[u8]) -> Vec<PathBuf> {
    let begins = |f: &PathBuf| std::fs::read(f).is_ok_and(|b| b.starts_with(magic));
    files(dir).into_iter().filter(|f| !own(f) && begins(f)).collect()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("a file");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// Recomputes the checksums of a chain entry.
fn seal_entry(bytes: &mut [u8]) {
    let body = crc32c::crc32c(&bytes[96..]);
    bytes[72..76].copy_from_slice(&body.to_be_bytes());
    let head = crc32c::crc32c(&bytes[..92]);
    bytes[92..96].copy_from_slice(&head.to_be_bytes());
}

/// A frame of another version, its checksum right.
fn newer_frame(bytes: &mut [u8]) {
    bytes[4] = 9;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_be_bytes());
}

/// The last entry of a chain that holds data.
fn last_data(log: &Path) -> PathBuf {
    let data = |f: &PathBuf| std::fs::read(f).is_ok_and(|b| b.get(5) == Some(&1));
    files(log).into_iter().rfind(data).expect("a data entry")
}

fn wal(store: &Path) -> PathBuf {
    let birth = |f: &PathBuf| f.ends_with("log/00000000000000000000");
    let found = files(&store.join("wal")).into_iter().find(birth).expect("a WAL");
    found
        .parent()
        .and_then(Path::parent)
        .expect("its folder")
        .to_owned()
}

/// Objects of another cluster, or of a version that is not known: one line that names the object and says what to
/// do, and nothing is changed that would be missed later.
#[test]
fn foreign_and_newer_objects_are_refused() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("foreign").expect("a folder");
    let make = |name: &str, expected: &mut Vec<String>| {
        // Without a journal, so that every object has a file.
        let options = Options::local(&scratch.join(name))
            .set("local.store.buffered", true)
            .set("seal.round.ms", 3_000)
            .set("seal.segment.min.bytes", 1);
        let mut broker = Broker::start(options).expect("a broker");
        connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
        let mut give = |value: String| {
            produce(&broker, TOPIC, &value);
            expected.push(value);
        };
        give(value(name, 0, 1_000));
        let markers = wal(&scratch.join(name).join("store")).join("checkpoint");
        wait_for("a checkpoint", PATIENCE, || !files(&markers).is_empty());
        // No round seals this one: the broker dies long before the next is due.
        give(value(name, 1, 1_000));
        broker.kill9().expect("killed");
        scratch.join(name).join("store")
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let other = make("other", &mut theirs);
    let source = make("ours", &mut ours);
    let altered = Altered {
        scratch,
        source,
        expected: ours,
    };
    let replace = |store: &Path, name: &str| {
        std::fs::remove_dir_all(store.join(name)).expect("removed");
        copy(&other.join(name), &store.join(name));
    };
    let entry = |n: u64| format!("meta/log/{n:020}");
    altered.refused(
        "foreign-wal",
        &["another cluster", "store.url", "restore"],
        |store| replace(store, "wal"),
    );
    altered.refused(
        "foreign-wal-without-checkpoint",
        &["another cluster", "store.url"],
        |store| {
            replace(store, "wal");
            std::fs::remove_dir_all(wal(store).join("checkpoint")).expect("removed");
        },
    );
    altered.refused("foreign-birth", &["another cluster", "store.url"], |store| {
        std::fs::copy(other.join(entry(0)), store.join(entry(0))).expect("copied");
    });
    altered.refused(
        "newer-birth",
        &[&entry(0), "version 9", "start that or a later version"],
        |store| {
            edit(&store.join(entry(0)), |bytes| {
                bytes[96 + 8] = 9;
                seal_entry(bytes);
            });
        },
    );
    let newer = ["version 9", "newer", "start"];
    let newer_entry = |bytes: &mut Vec<u8>| {
        bytes[4] = 9;
        seal_entry(bytes);
    };
    altered.refused("newer-metadata", &newer, |store| {
        edit(&last_data(&store.join("meta/log")), newer_entry)
    });
    altered.refused("newer-wal-entry", &newer, |store| {
        edit(&last_data(&wal(store).join("log")), newer_entry)
    });
    for (name, magic) in [
        ("newer-marker", b"DRMK"),
        ("newer-checkpoint", b"DRCK"),
        ("newer-leaf", b"DRCL"),
    ] {
        altered.refused(name, &newer, |store| {
            let found = with_magic(&store.join("wal"), magic);
            assert!(!found.is_empty(), "no {name}");
            found
                .iter()
                .for_each(|path| edit(path, |bytes| newer_frame(bytes)));
        });
    }
    altered.refused("damaged-checkpoint", &["damaged", "restore"], |store| {
        let found = with_magic(&store.join("wal"), b"DRCK");
        found.iter().for_each(|path| edit(path, |bytes| bytes[10] ^= 1));
    });
}

/// A segment or a manifest that is damaged or of another version: an error for what it leads to, by name, and all
/// else is served.
#[test]
fn damaged_sealed_data() {
    if against_kafka() {
        return;
    }
    const HARMED: &str = "harmed";
    let scratch = Scratch::new("sealed").expect("a folder");
    // A round has enough for whole segments, though each record waits for a slow disk.
    let options = Options::local(&scratch.join("broker"))
        .set("seal.round.ms", 2_000)
        .set("seal.segment.min.bytes", 1)
        .set("log.segment.bytes", 1 << 20);
    let mut broker = Broker::start(options).expect("a broker");
    connect(&broker).create_topic(HARMED, 1, &[]).expect("a topic");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&broker, TOPIC, "whole");
    let mut expected = BTreeMap::new();
    let mut connection = connect(&broker);
    // As many segments as it takes until a manifest folds them.
    for number in 0..700 {
        let value = value("record", number, 100_000);
        let (error, offset) = connection
            .produce(HARMED, 0, value.as_bytes(), 10_000)
            .expect("an answer");
        assert_eq!(error, 0);
        expected.insert(offset, value);
    }
    let store = scratch.join("broker/store");
    let segments = || -> Vec<PathBuf> {
        let all = files(&store.join("topic")).into_iter();
        all.filter(|f| f.extension().is_some_and(|e| e == "log"))
            .collect()
    };
    wait_for("a manifest", PATIENCE, || {
        !with_magic(&store.join("topic"), b"DRMF").is_empty() && segments().len() > 64
    });
    broker.kill9().expect("killed");

    let large = segments()
        .into_iter()
        .filter(|f| f.metadata().is_ok_and(|m| m.len() > 700_000));
    let [first, second, third] = large
        .skip(2)
        .step_by(5)
        .take(3)
        .collect::<Vec<_>>()
        .try_into()
        .expect("segments");
    let unharmed = std::fs::read(&first).expect("a segment");
    edit(&first, |bytes| {
        let middle = bytes.len() * 3 / 4;
        bytes[middle] ^= 0x10;
    });
    // A batch of a format that is not known.
    edit(&second, |bytes| bytes[16] = 9);
    std::fs::remove_file(&third).expect("gone");
    let name = |path: &Path| path.strip_prefix(&store).expect("below").display().to_string();
    let told = checked(&broker);
    for path in [&first, &second, &third] {
        assert!(told.contains(&name(path)), "{} is not named: {told}", name(path));
    }
    broker.restart().expect("it starts all the same");
    let (read, failed) = readable(&broker, HARMED);
    eprintln!(
        "{} of {} records read, errors at {failed:?}",
        read.len(),
        expected.len()
    );
    for (offset, value) in &read {
        assert!(
            expected.get(offset) == Some(value),
            "offset {offset} is not what was written"
        );
    }
    assert_eq!(read.len() + failed.len(), expected.len());
    // A checksum covers 512 KiB, six of these records; a segment holds ten.
    let with = |failed: &BTreeMap<i64, i16>, error| failed.values().filter(|e| **e == error).count();
    assert!((2..=14).contains(&with(&failed, CORRUPT_MESSAGE)), "{failed:?}");
    let gone = with(&failed, KAFKA_STORAGE_ERROR);
    assert!((7..=11).contains(&gone), "{failed:?}");
    assert_eq!(with(&failed, CORRUPT_MESSAGE) + gone, failed.len(), "{failed:?}");
    let said = printed(&mut broker);
    for path in [&first, &second, &third] {
        assert!(
            said.contains(&name(path)),
            "{} is not named in the log",
            name(path)
        );
    }
    assert_eq!(all(&broker, TOPIC).into_values().collect::<Vec<_>>(), ["whole"]);
    assert_eq!(produce(&broker, HARMED, "still taking"), expected.len() as i64);
    std::fs::write(&first, unharmed).expect("restored");
    let (_, failed) = readable(&broker, HARMED);
    assert!(
        (1..=7).contains(&with(&failed, CORRUPT_MESSAGE)),
        "the restored segment is served: {failed:?}"
    );
    broker.kill9().expect("killed");

    let manifests = with_magic(&store.join("topic"), b"DRMF");
    manifests
        .iter()
        .for_each(|path| edit(path, |bytes| newer_frame(bytes)));
    let told = checked(&broker);
    assert!(manifests.iter().any(|path| told.contains(&name(path))), "{told}");
    broker.restart().expect("it starts all the same");
    let (error, _) = connect(&broker)
        .produce(HARMED, 0, b"no", 2_000)
        .expect("an answer");
    assert_eq!(error, KAFKA_STORAGE_ERROR);
    let (error, _) = connect(&broker).fetch(HARMED, 0, 0, 100).expect("an answer");
    assert_eq!(error, KAFKA_STORAGE_ERROR);
    let said = printed(&mut broker);
    assert!(manifests.iter().any(|path| said.contains(&name(path))), "{said}");
    assert!(said.contains("newer"), "{said}");
    assert_eq!(all(&broker, TOPIC).into_values().collect::<Vec<_>>(), ["whole"]);
    produce(&broker, TOPIC, "still taking");
}

/// Of what is not sealed yet, only the damaged object's own records are an error.
#[test]
fn damaged_recent_data() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("recent").expect("a folder");
    // Without a journal, so that every object has a file.
    let options = Options::local(&scratch.join("broker")).set("local.store.buffered", true);
    let mut broker = Broker::start(options).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    // One after the other, so that each has an object of its own.
    for number in 0..10 {
        produce(&broker, TOPIC, &value("record", number, 1_000));
    }
    broker.kill9().expect("killed");
    let holds = |f: &PathBuf| {
        let bytes = std::fs::read(f).expect("a file");
        bytes.windows(9).any(|w| w == b"record 6 ")
    };
    let store = scratch.join("broker/store");
    let harmed = files(&store.join("wal"))
        .into_iter()
        .find(holds)
        .expect("an object");
    edit(&harmed, |bytes| bytes[600] ^= 1);
    broker.restart().expect("it starts all the same");
    let (read, failed) = readable(&broker, TOPIC);
    assert_eq!(read.len(), 9);
    assert_eq!(failed, BTreeMap::from([(6, CORRUPT_MESSAGE)]));
    let key = harmed.strip_prefix(&store).expect("below").display().to_string();
    assert!(printed(&mut broker).contains(&key), "{key} is not named");
    assert_eq!(produce(&broker, TOPIC, "still taking"), 10);

    // Nor does it hold up the sealing of anything else: of the WAL nothing is left but the damaged object.
    connect(&broker).create_topic("other", 1, &[]).expect("a topic");
    produce(&broker, "other", "whole");
    broker.kill9().expect("killed");
    broker
        .options_mut()
        .settings
        .push(("seal.round.ms".into(), "500".into()));
    for life in 0..2 {
        broker.restart().expect("it starts all the same");
        assert_eq!(produce(&broker, TOPIC, "and on"), 11 + life);
        let unsealed = || {
            let data = |f: &PathBuf| std::fs::read(f).is_ok_and(|b| b.starts_with(b"DRML") && b[5] == 1);
            let all = files(&store.join("wal")).into_iter();
            all.filter(|f| data(f)).collect::<Vec<_>>()
        };
        wait_for("all else to be sealed", PATIENCE, || {
            unsealed() == [harmed.clone()]
        });
        let (read, failed) = readable(&broker, TOPIC);
        assert_eq!(read.len() as i64, 11 + life);
        assert_eq!(failed, BTreeMap::from([(6, CORRUPT_MESSAGE)]));
        assert_eq!(all(&broker, "other").into_values().collect::<Vec<_>>(), ["whole"]);
        assert!(checked(&broker).contains(&key), "{key} is not named");
        let said = printed(&mut broker);
        assert!(
            said.contains("is damaged and cannot be sealed") && said.contains(&key),
            "{said}"
        );
        broker.kill9().expect("killed");
    }
    edit(&harmed, |bytes| bytes[600] ^= 1);
    broker.restart().expect("it starts");
    let (read, failed) = readable(&broker, TOPIC);
    assert_eq!((read.len(), failed.len()), (13, 0), "{failed:?}");
}

/// What `store check` says of a bucket with damage in it.
fn checked(broker: &Broker) -> String {
    let check = broker.command_of(&["store", "check"]).expect("a command");
    let told = process::run_any(check, PATIENCE).expect("store check");
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    format!("{}{}", told.stdout, told.stderr)
}

/// Every local file of the caches is damaged, some by flipped bits, some by a cut: what is served is what was
/// written.
#[test]
fn damaged_local_files_are_fetched_again() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("local-files").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    // Nothing stays in memory for long, and nothing is sealed at first.
    let options = Options::on(&scratch.join("broker"), minio.store("damage"))
        .set("hot.memory.bytes", 0)
        .set("cache.memory.bytes", 0)
        .set("cache.disk.bytes", 128 << 20)
        .set("wal.flush.bytes", 65_536)
        .set("log.segment.bytes", 1 << 20)
        .set("seal.segment.min.bytes", 1);
    let mut broker = Broker::start(options).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    let mut expected = Vec::new();
    // A dozen blocks. The cache's memory has eight shards, and each of them keeps the block that it had last, however
    // little it may: of fewer blocks all may stay in memory, and then nothing is ever read from the disk.
    for number in 0..60 {
        let value = value("record", number, 100_000);
        produce(&broker, TOPIC, &value);
        expected.push(value);
    }
    let recent = broker.cache_dir().join("wal");
    wait_for("local copies of recent data", PATIENCE, || {
        bytes_below(&recent) > 1 << 20
    });
    harm(&recent);
    assert!(
        all(&broker, TOPIC).into_values().eq(expected.iter().cloned()),
        "recent data"
    );
    let fetched = metric(&broker, "drumlin_store_requests_total", "cold_read");
    assert!(fetched > 0.0, "the damaged copies were not fetched again");

    broker
        .options_mut()
        .settings
        .push(("seal.round.ms".into(), "500".into()));
    broker.restart().expect("it starts");
    produce(&broker, TOPIC, "one more");
    expected.push("one more".into());
    let blocks = broker.cache_dir().join("blocks");
    wait_for("cached blocks", PATIENCE, || {
        assert!(all(&broker, TOPIC).into_values().eq(expected.iter().cloned()));
        metric(&broker, SERVED, "cold") > 5_000_000.0 && !files(&blocks).is_empty()
    });
    broker.terminate().expect("it stops");
    harm(&blocks);
    broker.restart().expect("it starts");
    wait_for("the disk cache", PATIENCE, || {
        stores::http_ok(broker.admin_port(), "/health/ready")
    });
    for _ in 0..3 {
        assert!(
            all(&broker, TOPIC).into_values().eq(expected.iter().cloned()),
            "sealed data"
        );
    }
    // What was read a moment ago may not be written to the disk cache yet, and then nothing of it is damaged.
    let fetched = metric(&broker, SERVED, "cold");
    wait_for("damaged blocks that are fetched again", PATIENCE, || {
        harm(&blocks);
        assert!(
            all(&broker, TOPIC).into_values().eq(expected.iter().cloned()),
            "sealed data"
        );
        metric(&broker, SERVED, "cold") > fetched
    });
    printed(&mut broker);
}

const SERVED: &str = "drumlin_served_bytes_total";

/// The figure of a metric with a label.
fn metric(broker: &Broker, name: &str, label: &str) -> f64 {
    let metrics = stores::http_get(broker.admin_port(), "/metrics").expect("metrics");
    let mut lines = metrics
        .lines()
        .filter(|l| l.starts_with(name) && l.contains(label));
    let figure = lines.next().and_then(|l| l.rsplit(' ').next());
    figure.and_then(|f| f.parse().ok()).unwrap_or(0.0)
}

/// Flips a bit in every kilobyte of every file, in place; every third is cut in half.
fn harm(dir: &Path) {
    use std::os::unix::fs::FileExt;
    let found = files(dir);
    assert!(!found.is_empty(), "nothing in {}", dir.display());
    for (number, path) in found.iter().enumerate() {
        let bytes = std::fs::read(path).expect("a file");
        let file = std::fs::File::options().write(true).open(path).expect("a file");
        if number % 3 == 2 {
            file.set_len(bytes.len() as u64 / 2).expect("cut");
            continue;
        }
        let last = bytes.iter().rposition(|b| *b != 0).unwrap_or(0);
        for at in (100..=last).step_by(1024) {
            file.write_all_at(&[bytes[at] ^ 0x04], at as u64)
                .expect("damaged");
        }
    }
}
