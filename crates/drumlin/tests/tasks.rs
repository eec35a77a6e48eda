//! Each task of a broker panics in turn, in a process of its own, while a producer is at work: what the task's kind says
//! must follow, the log must name the task, and no acknowledged record may be lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says where")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drumlin_objects::TaskKind;
use drumlin_objects::sabotage::{PANIC_IN, PANIC_WHEN};
use drumlin_objects::task::OnFailure;
use drumlin_records::{BatchBuilder, BatchHeader, Compression, Limits, records};
use drumlin_wire::messages as m;
use drumlin_wire::{Message, Request, ResponseHeader, Str, frame};

const TOPIC: &str = "ledger";
/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// A task that panicked ends its process within this.
const SOON: Duration = Duration::from_secs(10);
/// Processes at a time.
const AT_A_TIME: usize = 3;

/// A broker's process; ends with the test.
struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Arc<Mutex<String>>,
}

impl Process {
    fn start(store: &str, panics: Option<(TaskKind, &Path)>, more: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drumlin"));
        let url = format!("store.url={store}");
        let fixed = [
            "listeners=PLAINTEXT://127.0.0.1:0",
            "admin.listener=127.0.0.1:0",
            &url,
        ];
        for option in fixed.iter().chain(more) {
            command.args(["--set", option]);
        }
        if let Some((kind, when)) = panics {
            command.env(PANIC_IN, kind.name()).env(PANIC_WHEN, when);
        }
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let said = Arc::new(Mutex::new(String::new()));
        let (stderr, all) = (child.stderr.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut all = all.lock().unwrap();
                all.push_str(&line);
                all.push('\n');
            }
        });
        Process { child, lines, said }
    }

    /// The address behind a word of the greeting.
    fn address(&self, word: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no greeting; it said:\n{}", self.said()));
            if let Some((_, address)) = line.split_once(word) {
                return address.to_owned();
            }
        }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn wait_until_said(&self, what: &str) {
        let began = Instant::now();
        while !self.said().contains(what) {
            assert!(
                began.elapsed() < SOON,
                "not said: {what:?}, but:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait(&mut self, patience: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                began.elapsed() < patience,
                "it lives on and said:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: TcpStream,
    next: i32,
}

impl Client {
    fn open(address: &str) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, next: 1 })
    }

    fn call<M: Request>(&mut self, version: i16, request: &M) -> std::io::Result<M::Response> {
        self.next += 1;
        let framed = frame::request(request, version, self.next, Some("test")).unwrap();
        self.stream.write_all(&framed.into_bytes())?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        let body = Bytes::from(body);
        let (_, body) = ResponseHeader::parse(&body, M::KEY, version).unwrap();
        Ok(M::Response::decode(&body, version).unwrap())
    }

    fn create(&mut self, topic: &str) -> std::io::Result<()> {
        use m::create_topics_request::{CreatableTopic, CreateTopicsRequest};
        let topic = CreatableTopic {
            name: Str::from(topic),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        self.call(5, &request).map(drop)
    }

    /// Appends a record durably. `Ok(false)`: refused.
    fn produce(&mut self, value: &str) -> std::io::Result<bool> {
        use m::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
        let data = PartitionProduceData {
            index: 0,
            records: Some(batch.build().unwrap().into()),
            ..Default::default()
        };
        let topic = TopicProduceData {
            name: Str::from(TOPIC),
            partition_data: vec![data],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        let answer = self.call(9, &request)?;
        Ok(answer.responses[0].partition_responses[0].error_code == 0)
    }

    /// Has the topic of groups made, and its coordinator loaded.
    fn find_coordinator(&mut self) -> std::io::Result<()> {
        let request = m::find_coordinator_request::FindCoordinatorRequest {
            key: "group".into(),
            key_type: 0,
            ..Default::default()
        };
        self.call(3, &request).map(drop)
    }

    fn values(&mut self) -> BTreeSet<String> {
        use m::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
        let (mut values, mut offset) = (BTreeSet::new(), 0);
        loop {
            let partition = FetchPartition {
                partition: 0,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            };
            let request = FetchRequest {
                max_bytes: 1 << 20,
                max_wait_ms: 0,
                topics: vec![FetchTopic {
                    topic: Str::from(TOPIC),
                    partitions: vec![partition],
                    ..Default::default()
                }],
                ..Default::default()
            };
            let answer = self.call(11, &request).unwrap();
            let data = answer.responses[0].partitions[0].clone();
            assert_eq!(data.error_code, 0);
            let before = offset;
            let bytes = data
                .records
                .map(|records| records.into_bytes())
                .unwrap_or_default();
            let mut rest: &[u8] = &bytes;
            while let Ok(header) = BatchHeader::parse(rest)
                && header.size_in_bytes() <= rest.len()
            {
                for record in records(rest, Limits::default()) {
                    values.insert(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
                }
                offset = header.last_offset() + 1;
                rest = &rest[header.size_in_bytes()..];
            }
            if offset == before {
                return values;
            }
        }
    }
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What is produced until the connection is closed or an append is refused: the acknowledged ones.
fn produce_on(address: &str, stop: &Path, count: &AtomicUsize) -> BTreeSet<String> {
    let mut acked = BTreeSet::new();
    let Ok(mut client) = Client::open(address) else {
        return acked;
    };
    for n in 0.. {
        let value = format!("value {n}");
        match client.produce(&value) {
            Ok(true) => {
                acked.insert(value);
                count.store(acked.len(), Ordering::Relaxed);
            }
            Ok(false) | Err(_) => break,
        }
        if stop.exists() {
            break;
        }
    }
    acked
}

/// What has to happen for the task to have something to do.
fn give_work(kind: TaskKind, address: &str) {
    let mut client = Client::open(address).unwrap();
    // The broker may be gone in the midst of it.
    let _ = match kind {
        TaskKind::GroupCoordinator => client.find_coordinator(),
        TaskKind::MetaCheckpoint | TaskKind::MetaTrim => {
            (0..1100).try_for_each(|n| client.create(&format!("more-{n}")))
        }
        _ => Ok(()),
    };
}

fn panic_in(kind: TaskKind) {
    let dir = tempfile::tempdir().unwrap();
    let (when, stop) = (dir.path().join("panic"), dir.path().join("stop"));
    let store = dir.path().join("store");
    let local = format!("file://{}", store.display());
    // The block cache has files on remote stores only; a slow one in memory passes for that.
    let cache = format!("cache.dir={}", dir.path().join("cache").display());
    let (store, more): (&str, Vec<&str>) = match kind {
        TaskKind::CacheOpen => ("memory:", vec!["drumlin.test.store.put.ms=1", &cache]),
        _ => (&local, vec![]),
    };
    // Those that run once, at the start.
    let at_start = matches!(kind, TaskKind::CacheOpen | TaskKind::LocalTmp);
    if at_start {
        std::fs::write(&when, "").unwrap();
    }
    let mut process = Process::start(store, Some((kind, &when)), &more);
    if kind == TaskKind::LocalTmp {
        assert_ends(&mut process, kind);
        return;
    }
    let address = process.address("listening on PLAINTEXT://");
    let admin = process.address("admin on ");
    Client::open(&address).unwrap().create(TOPIC).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let producer = std::thread::spawn({
        let (address, stop, count) = (address.clone(), stop.clone(), count.clone());
        move || produce_on(&address, &stop, &count)
    });
    let began = Instant::now();
    while count.load(Ordering::Relaxed) < 10 && !at_start {
        assert!(
            began.elapsed() < PATIENCE,
            "{kind}: nothing is acknowledged:\n{}",
            process.said()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    if kind.on_failure() != OnFailure::EndsBroker {
        give_work_and_see(kind, &process, &address, &admin, &when);
        std::fs::write(&stop, "").unwrap();
        let acked = producer.join().unwrap();
        let values = Client::open(&address).unwrap().values();
        assert!(acked.is_subset(&values), "{kind}: acknowledged and not there");
        return;
    }
    std::fs::write(&when, "").unwrap();
    give_work(kind, &address);
    assert_ends(&mut process, kind);
    let acked = producer.join().unwrap();
    drop(process);
    let process = Process::start(store, None, &more);
    let address = process.address("listening on PLAINTEXT://");
    let values = Client::open(&address).unwrap().values();
    assert!(acked.is_subset(&values), "{kind}: acknowledged and not there");
}

fn give_work_and_see(kind: TaskKind, process: &Process, address: &str, admin: &str, when: &PathBuf) {
    std::fs::write(when, "").unwrap();
    if kind == TaskKind::MetaTrim {
        give_work(kind, address);
    }
    let line = match kind.on_failure() {
        OnFailure::Restarts => "a task panicked and begins anew",
        _ => "a task panicked; its work is lost, all else goes on",
    };
    process.wait_until_said(line);
    assert!(process.said().contains(kind.name()), "{}", process.said());
    std::fs::remove_file(when).unwrap();
    // It goes on; a listener after a pause.
    let began = Instant::now();
    let served = || Client::open(address).and_then(|mut client| client.produce("afterwards"));
    while !served().is_ok_and(|done| done) {
        assert!(
            began.elapsed() < SOON,
            "{kind}: it serves no more:\n{}",
            process.said()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(get(admin, "/health/live").unwrap().contains("200 OK"));
    assert!(get(admin, "/health/ready").unwrap().contains("200 OK"));
}

fn assert_ends(process: &mut Process, kind: TaskKind) {
    let status = process.wait(if kind == TaskKind::MetaCheckpoint {
        PATIENCE
    } else {
        SOON
    });
    let said = process.said();
    assert!(
        !status.success() && status.code().is_some(),
        "{kind}: {status}\n{said}"
    );
    process.wait_until_said(&format!("task {kind} panicked"));
    let said = process.said();
    let lines = said
        .lines()
        .filter(|line| line.contains("this broker cannot go on"));
    assert_eq!(lines.count(), 1, "{kind}: one line says it\n{said}");
}

#[test]
fn a_panic_in_each_task_has_the_consequence_that_its_kind_names() {
    let kinds: Vec<TaskKind> = TaskKind::ALL
        .iter()
        .copied()
        .filter(|kind| *kind != TaskKind::Test)
        .collect();
    let waiting = Mutex::new(kinds);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some(kind) = next else { return };
                    let began = Instant::now();
                    panic_in(kind);
                    println!("{kind}: {:?}, {:?}", kind.on_failure(), began.elapsed());
                }
            });
        }
    });
}
