//! What the broker asks of the kernel before it acknowledges. A small WAL object: one write into a file of the journal,
//! whose blocks are there already, and an fdatasync of it. A larger one: write, fdatasync, the object's name (a rename
//! that replaces nothing, or a link), fsync of the directory. And only then the answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::client::Connection;
use drumlin_tests::scratch::Scratch;

const TOPIC: &str = "durable";
const ROUNDS: usize = 20;
// What the ring would hide from strace has to go through the plain calls.
const CALLS: &str = "trace=openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,fallocate,fdatasync,fsync,\
                     link,linkat,renameat2,close,sendto,sendmsg,io_uring_enter";

/// One system call, put together from its lines where it was interrupted.
#[derive(Debug)]
struct Call {
    name: String,
    text: String,
    begun: f64,
    ended: f64,
}

impl Call {
    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }
}

/// Reads what `strace -f -ttt -T -y` wrote.
fn calls(trace: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(trace).expect("the trace");
    let mut unfinished: BTreeMap<String, (f64, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else {
            continue;
        };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        let Ok(mut time) = time.trim().parse::<f64>() else {
            continue;
        };
        let ended = time;
        let mut rest = rest.trim_start().to_owned();
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread.to_owned(), (time, begin.to_owned()));
            continue;
        }
        let mut resumed = false;
        if let Some((_, tail)) = rest.strip_prefix("<... ").and_then(|r| r.split_once("resumed>")) {
            let Some((begun, begin)) = unfinished.remove(thread) else {
                continue;
            };
            rest = begin + tail;
            time = begun;
            resumed = true;
        }
        let Some((name, _)) = rest.split_once('(') else {
            continue;
        };
        let took = rest
            .rsplit_once('<')
            .and_then(|(_, t)| t.trim_end_matches('>').parse::<f64>().ok())
            .unwrap_or(0.0);
        // Resumed lines carry the time of their end, whole ones that of their beginning.
        let ended = if resumed { ended } else { time + took };
        calls.push(Call {
            name: name.to_owned(),
            text: rest.clone(),
            begun: time,
            ended,
        });
    }
    calls.sort_by(|a, b| a.ended.total_cmp(&b.ended));
    calls
}

fn produce(connection: &mut Connection, round: usize, bytes: usize) {
    let mut value = format!("record-that-must-last-{round:04}");
    value.extend(std::iter::repeat_n('x', bytes));
    let (error, _) = connection
        .produce(TOPIC, 0, value.as_bytes(), 10_000)
        .expect("an answer");
    assert_eq!(error, 0);
}

/// The calls of a broker that takes [`ROUNDS`] batches of that size, one after another, and is killed.
fn traced(scratch: &Scratch, bytes: usize, settings: &[(&str, &str)]) -> Vec<Call> {
    let trace = scratch.join("trace");
    let mut options = Options::local(&scratch.join("broker"));
    for (key, value) in settings {
        options = options.set(key, value);
    }
    options.under = ["strace", "-f", "-ttt", "-T", "-y", "-s", "96", "-e", CALLS, "-o"]
        .map(str::to_owned)
        .to_vec();
    options.under.push(trace.display().to_string());
    let mut broker = Broker::start(options).expect("a broker under strace");
    let mut connection =
        Connection::open(&broker.bootstrap(), Duration::from_secs(30)).expect("a connection");
    connection.create_topic(TOPIC, 1, &[]).expect("a topic");
    let journal = scratch.join("broker/store/.journal");
    // It is made beside the start; until then, and beyond its bounds, objects have files.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !journal.join("0000").exists() {
        assert!(Instant::now() < deadline, "no journal");
        std::thread::sleep(Duration::from_millis(20));
    }
    (0..ROUNDS).for_each(|round| produce(&mut connection, round, bytes));
    // strace writes out what it has and ends when the broker does.
    let strace = broker.process().expect("it runs").id();
    let children =
        std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).expect("its child");
    let killed = std::process::Command::new("kill")
        .arg("-9")
        .args(children.split_whitespace())
        .status();
    assert!(killed.expect("kill").success());
    broker
        .process()
        .expect("it runs")
        .wait(Duration::from_secs(20))
        .expect("strace ends");
    calls(&trace)
}

/// An answer names the topic, and nothing else goes out on a socket meanwhile.
fn is_answer(call: &Call) -> bool {
    call.is(&["write", "writev", "sendto", "sendmsg"])
        && (call.text.contains("<socket:") || call.text.contains("<TCP"))
        && call.text.contains(TOPIC)
}

const WRITES: [&str; 5] = ["write", "pwrite64", "pwritev", "pwritev2", "writev"];

#[test]
fn an_ack_of_a_small_batch_follows_write_and_fdatasync_in_the_journal() {
    if against_kafka() {
        return; // It acknowledges before it writes to disk.
    }
    let scratch = Scratch::new("power-journal").expect("a folder");
    let calls = traced(&scratch, 10, &[]);
    let journal = format!("{}/.journal/", scratch.join("broker/store").display());
    // An object's record; the header of a file is its first block.
    let records: Vec<&Call> = calls
        .iter()
        .filter(|c| c.is(&WRITES) && c.text.contains(&journal) && !c.text.contains("new>"))
        .filter(|c| c.text.contains("DRMJDATA"))
        .collect();
    assert!(
        records.len() >= ROUNDS - 1,
        "{} records for {ROUNDS} batches",
        records.len()
    );
    let mut shown = 0;
    for record in records {
        let file = record.text.split(['<', '>']).nth(1).expect("its file");
        let synced = calls
            .iter()
            .filter(|c| c.is(&["fdatasync"]) && c.text.contains(&format!("<{file}>")))
            .find(|c| c.begun >= record.ended);
        let synced = synced.unwrap_or_else(|| panic!("no fdatasync of {file} after {}", record.text));
        // One batch at a time is in flight: the first answer after the write is its acknowledgement.
        if let Some(ack) = calls
            .iter()
            .filter(|c| is_answer(c))
            .find(|c| c.begun > record.begun)
        {
            assert!(
                ack.begun >= synced.ended,
                "acknowledged before the journal was synced: {}",
                ack.text
            );
            shown += 1;
        }
    }
    assert!(shown >= ROUNDS - 1, "only {shown} acknowledgements were found");
}

#[test]
fn an_ack_follows_write_fdatasync_name_and_directory_fsync() {
    if against_kafka() {
        return; // It acknowledges before it writes to disk.
    }
    let scratch = Scratch::new("power").expect("a folder");
    // Too large for the journal.
    let calls = traced(&scratch, 2 << 20, &[("message.max.bytes", "4194304")]);

    let store = format!("{}/wal/", scratch.join("broker/store").display());
    let links: Vec<&Call> = calls
        .iter()
        .filter(|c| c.is(&["link", "linkat"]) || c.is(&["renameat2"]) && c.text.contains("NOREPLACE"))
        .filter(|c| c.text.contains(&store))
        .collect();
    assert!(
        links.len() >= ROUNDS,
        "{} WAL objects named for {ROUNDS} batches",
        links.len()
    );
    let mut shown = 0;
    for link in links.iter().rev().take(ROUNDS) {
        let names: Vec<&str> = link.text.split('"').skip(1).step_by(2).collect();
        let &[from, to] = &names[..] else {
            panic!("two names in {}", link.text)
        };
        let of_file = |c: &&Call| {
            let named =
                |name: &str| c.text.contains(&format!("<{name}>")) || c.text.contains(&format!("\"{name}\""));
            named(from) || named(to)
        };
        let before = |c: &&Call| c.ended <= link.begun;
        let synced = calls
            .iter()
            .filter(of_file)
            .filter(before)
            .rfind(|c| c.is(&["fdatasync", "fsync"]));
        let synced = synced.unwrap_or_else(|| panic!("no fdatasync of {from} before {}", link.text));
        let writes = calls.iter().filter(of_file).filter(|c| c.is(&WRITES));
        let last_write = writes.map(|c| c.ended).fold(0.0, f64::max);
        assert!(last_write > 0.0, "no write to {from}");
        assert!(
            last_write <= synced.begun,
            "{from} is written to after its fdatasync"
        );
        let dir = Path::new(to).parent().expect("a folder").display().to_string();
        let of_dir = |c: &&Call| c.text.contains(&format!("<{dir}>")) && c.is(&["fsync", "fdatasync"]);
        let dir_synced = calls.iter().filter(of_dir).find(|c| c.begun >= link.ended);
        let dir_synced = dir_synced.unwrap_or_else(|| panic!("no fsync of {dir} after {}", link.text));
        // One batch at a time is in flight: the first answer after the link is its acknowledgement.
        if let Some(ack) = calls
            .iter()
            .filter(|c| is_answer(c))
            .find(|c| c.begun > link.begun)
        {
            assert!(
                ack.begun >= dir_synced.ended,
                "acknowledged before the directory was synced: {}",
                ack.text
            );
            shown += 1;
        }
    }
    assert!(shown >= ROUNDS - 1, "only {shown} acknowledgements were found");
}
