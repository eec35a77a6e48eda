//! The README's tour does what it says, word for word.
//!
//! The tour is the section whose heading contains "tour". Its first ```` ```sh ````
//! block is what the first terminal runs and leaves running; the others are typed
//! one after another into a second one. A ```` ```text ```` block after one of those
//! shows what it prints: each line of it must come, `…` standing for anything.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drumlin_tests::broker::{against_kafka, program};
use drumlin_tests::process::Process;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::{cache, client, process};

/// `cargo run` would build what is built already, and start it in the repository. In the
/// first terminal the shell becomes the broker, so that it ends with the test.
fn prelude(run: &str) -> String {
    let skip = "while [ $# -gt 0 ] && [ \"$1\" != -- ]; do shift; done; [ $# -eq 0 ] || shift";
    format!("cargo() {{ {skip}; {run} \"$DRUMLIN_BIN\" \"$@\"; }}\n")
}

#[derive(Debug)]
struct Block {
    script: String,
    prints: Vec<String>,
}

fn tour(readme: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut within = false;
    let mut fence: Option<String> = None;
    for line in readme.lines() {
        match (&fence, line.trim().strip_prefix("```")) {
            (None, Some(kind)) => {
                fence = Some(kind.trim().to_owned());
                if within && kind.trim() == "sh" {
                    blocks.push(Block {
                        script: String::new(),
                        prints: Vec::new(),
                    });
                }
            }
            (Some(_), Some(_)) => fence = None,
            (None, None) if line.starts_with('#') => within = line.to_lowercase().contains("tour"),
            (None, None) => {}
            (Some(_), None) if !within => {}
            (Some(kind), None) => match (kind.as_str(), blocks.last_mut()) {
                ("sh", Some(block)) => block.script.extend([line, "\n"]),
                ("text", Some(block)) => block.prints.push(line.trim().to_owned()),
                _ => {}
            },
        }
    }
    blocks
}

/// Whether the line comes, with anything in the place of each `…`.
fn printed(output: &str, wanted: &str) -> bool {
    let matches = |line: &str| {
        let mut rest = line;
        wanted.split('…').all(|part| match rest.find(part.trim()) {
            Some(at) => {
                rest = &rest[at + part.trim().len()..];
                true
            }
            None => false,
        })
    };
    output.lines().any(matches)
}

fn shell(run: &str, script: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    let path = std::env::var("PATH").unwrap_or_default();
    let programs = cache::root().join("bin");
    command
        .args(["-euc", &format!("{}{script}", prelude(run))])
        .current_dir(dir)
        .env("DRUMLIN_BIN", program().expect("the broker's program"))
        .env("PATH", format!("{path}:{}", programs.display()));
    command
}

#[test]
fn the_tour_does_what_it_says() {
    if against_kafka() {
        return;
    }
    let readme = std::fs::read_to_string(cache::repository().join("README.md")).expect("README.md");
    let blocks = tour(&readme);
    assert!(
        blocks.len() >= 2,
        "README.md must have a tour with a start and something to type then"
    );
    let scratch = Scratch::new("tour").expect("a folder");
    let log = scratch.join("first-terminal");
    let start = shell("exec", &blocks[0].script, scratch.path());
    let mut broker = Process::start("the first terminal", start, &log).expect("it starts");
    let all_printed = |p: &Process| {
        let printed_yet = p.printed();
        let mut lines = blocks[0].prints.iter().filter(|l| !l.is_empty());
        client::answers("localhost:9092") && lines.all(|l| printed(&printed_yet, l))
    };
    broker
        .wait_ready(Duration::from_secs(60), all_printed)
        .expect("it answers, and says what the README says");
    for block in &blocks[1..] {
        let output = process::run(shell("", &block.script, scratch.path()), Duration::from_secs(60))
            .expect("it succeeds");
        let all = format!("{}\n{}", output.stdout, output.stderr);
        for line in block.prints.iter().filter(|l| !l.is_empty()) {
            assert!(
                printed(&all, line),
                "{line:?} was not printed by\n{}\nbut\n{all}",
                block.script
            );
        }
    }
}

#[test]
fn a_tour_is_read() {
    let text = "# X\n```sh\nno\n```\n## A five-minute tour\n```sh\na\nb\n```\nthen\n```sh\nc\n```\n```text\nd … e\n```\n## Y\n```sh\nno\n```\n";
    let blocks = tour(text);
    assert_eq!(blocks.len(), 2);
    assert_eq!(
        (blocks[0].script.as_str(), blocks[1].script.as_str()),
        ("a\nb\n", "c\n")
    );
    assert_eq!(blocks[1].prints, ["d … e"]);
    assert!(printed("x\nd 12 e\n", "d … e"));
    assert!(!printed("e 12 d\n", "d … e"));
}
