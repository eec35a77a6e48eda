//! What the broker asks of the kernel before it acknowledges: write, fdatasync, the object's name (a rename that
//! replaces nothing, or a link), fsync of the directory, and only then the answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

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

fn produce(connection: &mut Connection, round: usize) {
    let value = format!("record-that-must-last-{round:04}");
    let (error, _) = connection
        .produce(TOPIC, 0, value.as_bytes(), 10_000)
        .expect("an answer");
    assert_eq!(error, 0);
}

#[test]
fn an_ack_follows_write_fdatasync_name_and_directory_fsync() {
    if against_kafka() {
        return; // It acknowledges before it writes to disk.
    }
    let scratch = Scratch::new("power").expect("a folder");
    let trace = scratch.join("trace");
    let mut options = Options::local(&scratch.join("broker"));
    options.under = ["strace", "-f", "-ttt", "-T", "-y", "-s", "96", "-e", CALLS, "-o"]
        .map(str::to_owned)
        .to_vec();
    options.under.push(trace.display().to_string());
    let mut broker = Broker::start(options).expect("a broker under strace");
    let mut connection =
        Connection::open(&broker.bootstrap(), Duration::from_secs(30)).expect("a connection");
    connection.create_topic(TOPIC, 1, &[]).expect("a topic");
    (0..ROUNDS).for_each(|round| produce(&mut connection, round));
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

    let calls = calls(&trace);
    let store = format!("{}/wal/", scratch.join("broker/store").display());
    // An answer names the topic, and nothing else goes out on a socket meanwhile.
    let socket = |c: &Call| {
        c.is(&["write", "writev", "sendto", "sendmsg"])
            && (c.text.contains("<socket:") || c.text.contains("<TCP"))
            && c.text.contains(TOPIC)
    };
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
        let writes = calls
            .iter()
            .filter(of_file)
            .filter(|c| c.is(&["write", "pwrite64", "pwritev", "pwritev2", "writev"]));
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
        if let Some(ack) = calls.iter().filter(|c| socket(c)).find(|c| c.begun > link.begun) {
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
