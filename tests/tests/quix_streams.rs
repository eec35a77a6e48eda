//! Quix Streams, unmodified from PyPI: a word count whose state is rebuilt from its
//! changelog after the program and the broker were killed and the state was deleted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use drumlin_tests::cache;
use drumlin_tests::client::Connection;
use drumlin_tests::process::Process;
use drumlin_tests::stage::{Stage, Topic};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of every topic: what Quix Streams makes takes the count from `lines`.
const PARTITIONS: i32 = 2;

/// What each word has to come to: every line has its own number, and three words that all lines share.
fn counts_of(lines: usize) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = (0..lines).map(|n| (format!("n{n}"), 1)).collect();
    for word in ["to", "be"] {
        counts.insert(word.to_owned(), 2 * lines);
    }
    counts.insert("or".to_owned(), lines);
    counts
}

/// Adds lines `from..to`, in turn to each partition.
fn feed(topic: &mut Topic, lines: std::ops::Range<usize>) {
    for p in 0..PARTITIONS {
        let mine = lines.clone().filter(|n| n % PARTITIONS as usize == p as usize);
        let values: Vec<String> = mine.map(|n| format!("to be or n{n} to be")).collect();
        topic
            .connection
            .produce_surely(&topic.name, p, &values)
            .expect("records are accepted");
    }
}

/// Every count that came out, for each word in its order.
fn counted(connection: &mut Connection) -> BTreeMap<String, Vec<usize>> {
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for p in 0..PARTITIONS {
        let end = connection.list_offset("counts", p, -1).unwrap_or(0);
        let mut at = 0;
        while at < end {
            let (error, came) = connection.fetch("counts", p, at, 500).expect("an answer");
            assert_eq!(error, 0, "counts {p}");
            for r in came {
                at = r.offset + 1;
                let text =
                    |b: Option<bytes::Bytes>| String::from_utf8(b.expect("a value").to_vec()).expect("text");
                let count = text(r.value).parse().expect("a count");
                found.entry(text(r.key)).or_default().push(count);
            }
        }
    }
    found
}

fn start(stage: &Stage, state: &Path, log: &str) -> Process {
    let mut command = Command::new(cache::quix().expect("installed"));
    command
        .arg(cache::repository().join("tests/clients/python/word_count.py"))
        .arg(stage.broker.bootstrap())
        .arg(state);
    Process::start("Quix Streams", command, &stage.scratch.join(log)).expect("it starts")
}

/// Waits until the counts of so many lines have come out, and until all that was read is committed.
fn wait_counted(stage: &Stage, app: &mut Process, topic: &mut Topic, lines: usize) {
    let end = Instant::now() + PATIENCE;
    let sum = |counts: &BTreeMap<String, Vec<usize>>| counts.values().map(Vec::len).sum::<usize>();
    while sum(&counted(&mut topic.connection)) < 5 * lines || !all_committed(stage, topic) {
        assert!(
            app.ended().expect("its state").is_none(),
            "it has ended:\n{}",
            app.printed()
        );
        assert!(Instant::now() < end, "time is up:\n{}", app.printed());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn all_committed(stage: &Stage, topic: &mut Topic) -> bool {
    let between = "repartition__word-count--lines--word";
    ["lines", between].iter().all(|name| {
        let mut plan = stage.plan(topic, "word-count");
        plan.topic = (*name).to_owned();
        let committed = stage.committed(&plan, PARTITIONS);
        (0..PARTITIONS).all(|p| {
            let end = topic.connection.list_offset(name, p, -1);
            end.is_ok_and(|end| end == committed.get(&p).copied().unwrap_or(0))
        })
    })
}

#[test]
fn a_word_count_finds_its_state_again() {
    let mut stage = Stage::new("quix");
    let mut topic = stage.topic("lines", PARTITIONS);
    let mut connection = stage.connect();
    connection
        .create_topic("counts", PARTITIONS, &[])
        .expect("a topic");
    feed(&mut topic, 0..100);
    let state = stage.scratch.join("state");
    let mut app = start(&stage, &state, "first.log");
    wait_counted(&stage, &mut app, &mut topic, 100);

    app.kill9().expect("killed");
    std::fs::remove_dir_all(&state).expect("there was a state");
    stage.broker.kill9().expect("killed");
    stage.broker.restart().expect("it starts");
    topic.reconnect(&stage);
    feed(&mut topic, 100..150);
    let mut app = start(&stage, &state, "second.log");
    wait_counted(&stage, &mut app, &mut topic, 150);

    // Nothing was counted twice, and no count began anew.
    let found = counted(&mut topic.connection);
    for (word, count) in counts_of(150) {
        let expected: Vec<usize> = (1..=count).collect();
        assert_eq!(found.get(&word), Some(&expected), "{word}");
    }
    assert!(app.ended().expect("its state").is_none(), "it runs");
    app.terminate(Duration::from_secs(30)).expect("it stops");
}
