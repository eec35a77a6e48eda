//! How the sources of suites come to be: fetched by the package clients, copied to a
//! folder of ours, their addresses set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process;

/// The most that fetching or building may take.
pub const BUILD: Duration = Duration::from_secs(900);

/// The folder with the sources of a Go module.
pub fn go_module(module: &str, home: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(home)?;
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", module]).current_dir(home);
    let output = process::run(go, BUILD)?;
    let told: Value = serde_json::from_str(&output.stdout).context("go mod download")?;
    let dir = told["Dir"]
        .as_str()
        .with_context(|| format!("{module} has no folder"))?;
    Ok(dir.into())
}

/// The folders with the sources of `crates` after a package that depends on `name` was
/// fetched. The package is made in `home`, outside of any workspace.
pub fn cargo_packages(
    name: &str,
    version: &str,
    crates: &[&str],
    home: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let dir = home.join("fetch");
    std::fs::create_dir_all(dir.join("src"))?;
    std::fs::write(dir.join("src/lib.rs"), "")?;
    std::fs::write(
        dir.join("Cargo.toml"),
        format!(
            "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [dependencies]\n{name} = \"={version}\"\n[workspace]\n"
        ),
    )?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["metadata", "--format-version", "1"])
        .current_dir(&dir);
    let output = process::run(cargo, BUILD)?;
    let told: Value = serde_json::from_str(&output.stdout).context("cargo metadata")?;
    let packages = told["packages"].as_array().context("no packages")?;
    let folder = |wanted: &&str| {
        let package = packages.iter().find(|p| p["name"] == **wanted);
        let manifest = package.and_then(|p| p["manifest_path"].as_str());
        let folder = manifest.and_then(|m| Path::new(m).parent());
        folder
            .map(Path::to_owned)
            .with_context(|| format!("{wanted} was not fetched"))
    };
    crates.iter().map(folder).collect()
}

/// The unpacked source distribution of a Python package, in a folder below `home`.
pub fn python_sources(python: &Path, package: &str, version: &str, home: &Path) -> anyhow::Result<PathBuf> {
    let archives = super::clear(&home.join("archive"))?;
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
    ])
    .args(["--no-binary", ":all:", "-d"])
    .arg(&archives)
    .arg(format!("{package}=={version}"));
    process::run(pip, BUILD)?;
    let archive = only_entry(&archives)?;
    let unpacked = super::clear(&home.join("sources"))?;
    let mut tar = Command::new("tar");
    tar.arg("xzf").arg(archive).arg("-C").arg(&unpacked);
    process::run(tar, BUILD)?;
    only_entry(&unpacked)
}

fn only_entry(dir: &Path) -> anyhow::Result<PathBuf> {
    let mut entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) => Ok(entry.path()),
        _ => bail!("{} does not hold one thing", dir.display()),
    }
}

/// Copies a folder of sources, which package clients make read-only, to be written to.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    super::clear(to)?;
    let mut cp = Command::new("cp");
    cp.args(["-r", "--no-preserve=mode"]).arg(from.join(".")).arg(to);
    process::run(cp, BUILD).map(drop)
}

/// Replaces a text in a file; an error if it is not there.
pub fn replace(file: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    if !text.contains(from) {
        bail!("{} does not have {from:?}", file.display());
    }
    Ok(std::fs::write(file, text.replace(from, to))?)
}

/// Replaces whole numbers, such as ports, in all files with this ending.
pub fn set_numbers(dir: &Path, ending: &str, numbers: &[(&str, u16)]) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            set_numbers(&path, ending, numbers)?;
        } else if path.extension().is_some_and(|e| e == ending) {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let new = numbers
                .iter()
                .fold(text.clone(), |text, (from, to)| replace_number(&text, from, *to));
            if new != text {
                std::fs::write(&path, new)?;
            }
        }
    }
    Ok(())
}

fn replace_number(text: &str, from: &str, to: u16) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let part_of_more = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        out.push_str(before);
        if part_of_more(before.chars().next_back()) || part_of_more(after.chars().next()) {
            out.push_str(from);
        } else {
            out.push_str(&to.to_string());
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_replaced() {
        let text = "localhost:9092, Port: 9092; 19092 90921 x9092 \"9092\"";
        let new = "localhost:17, Port: 17; 19092 90921 x9092 \"17\"";
        assert_eq!(replace_number(text, "9092", 17), new);
    }
}
