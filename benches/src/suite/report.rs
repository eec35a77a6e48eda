//! The files that a comparison leaves.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use crate::suite::Request;
use crate::suite::bench::Bench;
use crate::suite::record::Output;
use crate::suite::table::{markdown, number};

/// Speed of the first write of a gigabyte, through the page cache and down to the disk, in MB/s.
pub fn disk_speed(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("first-write");
    let block = vec![0x5a; 1 << 20];
    let began = Instant::now();
    let mut file = std::fs::File::create(&path)?;
    for _ in 0..1_024 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let speed = (1u64 << 30) as f64 / 1e6 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(speed)
}

/// Keeps what brokers printed, for a look after a group that ended early.
pub fn keep_logs(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut folders = vec![from.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            let is_log = matches!(
                name.as_str(),
                "drumlin.log" | "kafka.log" | "minio.log" | "proxy.log"
            );
            if path.is_dir() && !matches!(name.as_str(), "store" | "logs" | "minio" | "cache") {
                folders.push(path);
            } else if is_log {
                std::fs::copy(&path, to.join(name))?;
            }
        }
    }
    println!("logs are kept in {}", to.display());
    Ok(())
}

/// Writes `DATE-COMMIT.json` and `.md`; the latter's path.
pub fn write(bench: &Bench, request: &Request, disk: f64) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(&request.results)?;
    let partial = if request.only.is_empty() { "" } else { "-part" };
    let stem = format!("{}{partial}", stem(request));
    let figures = json!({
        "command": command(request),
        "date": date(),
        "commit": request.commit,
        "machine": request.machine,
        "disk_first_write_mb_per_second": disk.round(),
        "disk_used_gib": gib(bench.disk_used()),
        "minutes": (bench.seconds() / 6.0).round() / 10.0,
        "plan": format!("{:?}", bench.plan),
        "rows": bench.rows.iter().map(|r| r.json()).collect::<Vec<_>>(),
        "store_requests": bench.requests,
        "notes": bench.notes,
        "runs": bench.runs,
    });
    let json = request.results.join(format!("{stem}.json"));
    std::fs::write(&json, serde_json::to_string_pretty(&figures)? + "\n")
        .with_context(|| json.display().to_string())?;
    let page_path = request.results.join(format!("{stem}.md"));
    std::fs::write(&page_path, page(bench, request, disk))?;
    Ok(page_path)
}

/// How the names of all files of a run begin: `DATE-COMMIT`, then `-quick` and the label.
fn stem(request: &Request) -> String {
    let quick = if request.quick { "-quick" } else { "" };
    let label = request
        .label
        .iter()
        .map(|label| format!("-{label}"))
        .collect::<String>();
    format!("{}-{}{quick}{label}", date(), request.commit)
}

/// Where cases over time write, and what stands on their pages.
pub fn output(request: &Request, bench: &Bench) -> Output {
    Output {
        results: request.results.clone(),
        stem: stem(request),
        head: json!({
            "command": command(request), "date": date(), "commit": request.commit, "machine": request.machine,
            "settings": settings(bench),
        }),
        remark: request.remark.clone(),
    }
}

/// The page for reading.
pub fn page(bench: &Bench, request: &Request, disk: f64) -> String {
    let machine = |key: &str| match &request.machine[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = format!(
        "# Drumlin and Apache Kafka 4.3.1\n\n`{}`, {}, commit {}, {:.0} minutes.\n\
         {} processors ({}), {} of memory, {}; the disk takes {disk:.0} MB/s at first write, buffered. \
         At most {} GiB of it were in use.\n\
         Kafka: one KRaft node, `-Xms1G -Xmx1G`, not flushing unless said. Ours: {}.\n\
         Load: 8 connections × 5 requests in flight (× 64 on MinIO and memory), one partition, acks=all, batches built beforehand; \
         fetches: 4 connections, 1 MiB answers. MB are 10⁶ bytes of batches as on the wire; all on one machine.\n\n",
        command(request),
        date(),
        request.commit,
        bench.seconds() / 60.0,
        machine("processors"),
        machine("model"),
        machine("memory"),
        machine("kernel"),
        gib(bench.disk_used()),
        settings(bench),
    );
    out.push_str(&markdown(&bench.rows));
    if !bench.requests.is_empty() {
        out.push_str("\nRequests to the store per GiB taken in (64 KiB batches, full speed):\n\n");
        out.push_str("| store | operation | reason | requests | MiB |\n| --- | --- | --- | --- | --- |\n");
        for r in &bench.requests {
            let text = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
            let figure = |key: &str| number(r[key].as_f64().unwrap_or_default());
            out.push_str(&format!(
                "| {} | {} | {} | {} | {} |\n",
                text("store"),
                text("operation"),
                text("reason"),
                figure("requests_per_gib"),
                figure("mib_per_gib")
            ));
        }
    }
    if !bench.notes.is_empty() {
        out.push_str("\nNotes:\n");
        bench
            .notes
            .iter()
            .for_each(|note| out.push_str(&format!("- {note}\n")));
    }
    out
}

fn settings(bench: &Bench) -> String {
    match bench.plan.settings.as_slice() {
        [] => "the defaults".to_owned(),
        all => all
            .iter()
            .map(|(k, v)| format!("`{k}={v}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn command(request: &Request) -> String {
    let quick = if request.quick { " --quick" } else { "" };
    let only: String = request.only.iter().map(|o| format!(" --only {o}")).collect();
    let minutes = request
        .minutes
        .iter()
        .map(|m| format!(" --minutes {m}"))
        .collect::<String>();
    format!("cargo xtask bench{quick}{only}{minutes}")
}

fn gib(bytes: u64) -> f64 {
    (bytes as f64 / (1u64 << 30) as f64 * 10.0).round() / 10.0
}

/// Today in UTC, as 2026-01-31.
fn date() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let days = i64::try_from(since.as_secs() / 86_400).unwrap_or_default();
    // Days to a date in the Gregorian calendar, in eras of 400 years that begin on the first of March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
