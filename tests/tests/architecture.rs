//! The picture of the crates in `docs/architecture.md` is the truth.
//!
//! It is the fenced block whose lines are edges, `crate -> crate`, by package name;
//! a crate that uses no other stands on a line of its own. Tests' own needs
//! (dev-dependencies, and the packages for tests, benches and xtask) are no part of it.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use drumlin_tests::{cache, process};

/// Packages that are not part of the product.
const OUTSIDE: [&str; 3] = ["drumlin-tests", "drumlin-benches", "xtask"];

type Edges = BTreeSet<(String, Option<String>)>;

fn from_docs() -> Edges {
    let page = cache::repository().join("docs/architecture.md");
    let text = std::fs::read_to_string(&page).expect("docs/architecture.md");
    let mut pictures = Vec::new();
    let mut block: Option<Edges> = None;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            match block.take() {
                Some(edges) if edges.iter().any(|(_, to)| to.is_some()) => pictures.push(edges),
                Some(_) => {}
                None => block = Some(Edges::new()),
            }
        } else if let Some(edges) = &mut block {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [from, "->", ref to @ ..] if !to.is_empty() => {
                    for to in to {
                        edges.insert((from.to_owned(), Some(to.trim_end_matches(',').to_owned())));
                    }
                }
                [alone] if alone.starts_with("drumlin") => {
                    edges.insert((alone.to_owned(), None));
                }
                _ => {}
            }
        }
    }
    assert_eq!(
        pictures.len(),
        1,
        "docs/architecture.md must hold one block with edges `crate -> crate`"
    );
    pictures.remove(0)
}

fn from_cargo() -> Edges {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(cache::repository());
    let output = process::run(command, Duration::from_secs(60)).expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_str(&output.stdout).expect("json");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |p: &serde_json::Value| p["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages
        .iter()
        .map(name)
        .filter(|n| !OUTSIDE.contains(&n.as_str()))
        .collect();
    let mut edges = Edges::new();
    for package in packages.iter().filter(|p| ours.contains(&name(p))) {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let used: Vec<String> = dependencies
            .iter()
            .filter(|d| d["kind"].is_null())
            .map(name)
            .filter(|n| ours.contains(n))
            .collect();
        if used.is_empty() {
            edges.insert((name(package), None));
        }
        edges.extend(used.into_iter().map(|to| (name(package), Some(to))));
    }
    edges
}

#[test]
fn the_picture_shows_the_crates_as_they_are() {
    let (drawn, real) = (from_docs(), from_cargo());
    let shown = |edges: Vec<&(String, Option<String>)>| {
        let line = |(from, to): &(String, Option<String>)| match to {
            Some(to) => format!("{from} -> {to}\n"),
            None => format!("{from}\n"),
        };
        edges.into_iter().map(line).collect::<String>()
    };
    let missing = shown(real.difference(&drawn).collect());
    let wrong = shown(drawn.difference(&real).collect());
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "docs/architecture.md lacks:\n{missing}\nand has, though cargo knows nothing of it:\n{wrong}"
    );
}
