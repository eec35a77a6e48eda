//! What a run leaves in `docs/results/`: which commit, on what machine, with what figures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::cache::repository;
use crate::command::first_line;

/// The commit that is checked out; `-dirty` when tracked files differ from it.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let out = Command::new("git")
            .args(arguments)
            .current_dir(repository())
            .output()
            .ok()?;
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    if changed { format!("{head}-dirty") } else { head }
}

/// Processors, memory, kernel and compiler, in one line each.
pub fn machine() -> Value {
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib: u64 = text.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
        Some(format!("{} GiB", kib / (1 << 20)))
    });
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    });
    json!({
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "model": model,
        "memory": memory,
        "kernel": first_line("uname", &["-sr"]),
        "rustc": first_line("rustc", &["--version"]),
    })
}

/// Where a slice with this log puts its picture, if it draws one.
pub fn picture(log: &Path) -> PathBuf {
    let name = log.with_extension("svg");
    let folder = repository().join("docs/results");
    name.file_name().map_or(folder.clone(), |name| folder.join(name))
}

/// Writes `docs/results/{stem}.json` and, for reading, `{stem}.md`; returns the latter's path.
pub fn write(stem: &str, title: &str, report: &Value) -> anyhow::Result<PathBuf> {
    let dir = repository().join("docs/results");
    std::fs::create_dir_all(&dir)?;
    let json = dir.join(format!("{stem}.json"));
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(&json, text + "\n").with_context(|| json.display().to_string())?;
    let page = dir.join(format!("{stem}.md"));
    let mut lines = format!("# {title}\n\n| | |\n| --- | --- |\n");
    if let Some(fields) = report.as_object() {
        rows(&mut lines, "", fields);
    }
    std::fs::write(&page, lines).with_context(|| page.display().to_string())?;
    Ok(page)
}

fn rows(out: &mut String, prefix: &str, fields: &Map<String, Value>) {
    for (key, value) in fields {
        let name = format!("{prefix}{}", key.replace('_', " "));
        match value {
            Value::Object(inner) => rows(out, &format!("{name}: "), inner),
            Value::String(text) => out.push_str(&format!("| {name} | {text} |\n")),
            other => out.push_str(&format!("| {name} | {other} |\n")),
        }
    }
}
