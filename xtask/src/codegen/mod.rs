//! `cargo xtask codegen`: the codec of every message of Kafka, generated from the schemas in its jars.
//!
//! Reads the schemas ([`schema`]), adds what clients still send and Kafka dropped ([`legacy`]), renders a module for each ([`emit`], with [`read`] and [`write`]), the
//! tables over all of them ([`tables`]) and what the tests need ([`samples`]), formats the lot with rustfmt, and then writes it into the tree or, to check, compares.
//! Names, types and versions are taken from the schemas; their texts and comments are not.

mod emit;
mod legacy;
mod read;
mod samples;
mod schema;
mod tables;
mod types;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use schema::{Family, Kind, Schema, Versions};

/// Generated directories and files, relative to the root of the workspace. Only these are ever removed.
const MESSAGES: &str = "crates/wire/src/messages";
const COORDINATOR: &str = "crates/wire/src/coordinator_records";
const DISPATCH: &str = "crates/wire/tests/dispatch";

/// Generates the codec; with `check`, fails unless the checked-in files are what would be generated.
pub fn run(check: bool) -> Result<()> {
    let root = workspace_root()?;
    let files = format(&root, render()?)?;
    let present = checked_in(&root)?;
    let mut stale = Vec::new();
    for (path, text) in &files {
        if present.get(path) != Some(text) {
            stale.push(path.clone());
        }
    }
    let gone: Vec<_> = present
        .keys()
        .filter(|path| !files.contains_key(*path))
        .cloned()
        .collect();
    if check {
        if stale.is_empty() && gone.is_empty() {
            println!(
                "{} generated files are up to date with Kafka {}",
                files.len(),
                schema::KAFKA_VERSION
            );
            return Ok(());
        }
        for path in stale.iter().chain(&gone) {
            println!("out of date: {path}");
        }
        bail!("the generated codec is out of date: run `cargo xtask codegen`");
    }
    for path in &gone {
        std::fs::remove_file(root.join(path)).with_context(|| path.clone())?;
    }
    for path in &stale {
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &files[path]).with_context(|| path.clone())?;
    }
    println!(
        "{} generated files, {} written, {} removed",
        files.len(),
        stale.len(),
        gone.len()
    );
    Ok(())
}

fn workspace_root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest
        .parent()
        .context("xtask stands in the workspace")?
        .to_path_buf())
}

/// A schema that takes part, with the range of versions that is generated.
struct Entry {
    family: Family,
    schema: Schema,
    valid: Versions,
}

fn render() -> Result<BTreeMap<String, String>> {
    let mut entries = Vec::new();
    for (family, mut schema) in schema::load()? {
        // Headers are written by hand: a client id stays non-compact in a flexible header.
        if schema.kind == Kind::Header || schema.valid_versions.is_empty() {
            continue;
        }
        legacy::restore(&mut schema)?;
        let valid = Versions {
            low: legacy::oldest(&schema),
            ..schema.valid_versions
        };
        ensure!(valid.high < i16::MAX, "{} has no latest version", schema.name);
        entries.push(Entry {
            family,
            schema,
            valid,
        });
    }
    let mut files = BTreeMap::new();
    for entry in &entries {
        let dir = match entry.family {
            Family::Protocol => MESSAGES,
            Family::Coordinator => COORDINATOR,
        };
        let text = emit::Module::new(&entry.schema, entry.valid)
            .and_then(emit::Module::render)
            .with_context(|| format!("schema {}", entry.schema.name))?;
        files.insert(format!("{dir}/{}.rs", types::snake(&entry.schema.name)), text);
    }
    files.insert(format!("{MESSAGES}/mod.rs"), tables::messages_mod(&entries)?);
    files.insert(format!("{MESSAGES}/api_key.rs"), tables::api_key(&entries)?);
    files.insert(
        format!("{COORDINATOR}/mod.rs"),
        tables::coordinator_mod(&entries)?,
    );
    files.insert(format!("{DISPATCH}/mod.rs"), tables::dispatch(&entries)?);
    files.insert(format!("{DISPATCH}/samples.rs"), samples::render(&entries)?);
    Ok(files)
}

/// Formats the files in a scratch directory, since rustfmt takes files rather than texts.
fn format(root: &Path, files: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let scratch = std::env::temp_dir().join(format!("drumlin-codegen-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let formatted = (|| {
        let mut paths = Vec::new();
        for (i, text) in files.values().enumerate() {
            let path = scratch.join(format!("f{i}.rs"));
            // A module declaration would make rustfmt look for the file beside this one.
            std::fs::write(&path, text.replace("pub mod ", "pub use crate::"))?;
            paths.push(path);
        }
        let status = Command::new("rustfmt")
            .args(["--edition", "2024", "--config-path"])
            .arg(root.join("rustfmt.toml"))
            .args(&paths)
            .status()
            .context("rustfmt could not be started")?;
        ensure!(
            status.success(),
            "rustfmt refused what was generated, in {}",
            scratch.display()
        );
        let mut out = BTreeMap::new();
        for (name, path) in files.keys().zip(&paths) {
            out.insert(
                name.clone(),
                std::fs::read_to_string(path)?.replace("pub use crate::", "pub mod "),
            );
        }
        Ok(out)
    })();
    std::fs::remove_dir_all(&scratch)?;
    formatted
}

fn checked_in(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for dir in [MESSAGES, COORDINATOR, DISPATCH] {
        let Ok(entries) = std::fs::read_dir(root.join(dir)) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            out.insert(format!("{dir}/{name}"), std::fs::read_to_string(entry.path())?);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
