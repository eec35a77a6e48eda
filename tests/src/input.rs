//! Real input: the lines of the Rust files in the Cargo registry, numbered, since
//! kcat skips empty lines.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Writes numbered lines to `file` until it holds `bytes` or the sources are used up; returns the number of lines.
pub fn write(file: &Path, bytes: u64) -> anyhow::Result<u64> {
    let mut sources = Vec::new();
    let registry = registry()?;
    gather(&registry, &mut sources)?;
    sources.sort();
    let mut out = BufWriter::new(File::create(file)?);
    let (mut written, mut lines) = (0, 0);
    'all: for source in sources {
        let mut reader = BufReader::new(File::open(&source)?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                line.pop();
            }
            let number = format!("{lines:08} ");
            out.write_all(number.as_bytes())?;
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            written += (number.len() + line.len() + 1) as u64;
            lines += 1;
            line.clear();
            if written >= bytes {
                break 'all;
            }
        }
    }
    out.flush()?;
    if lines == 0 {
        bail!("no Rust files under {}", registry.display());
    }
    Ok(lines)
}

fn registry() -> anyhow::Result<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?)
            .join(".cargo"),
    };
    Ok(home.join("registry/src"))
}

fn gather(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            gather(&entry.path(), found)?;
        } else if kind.is_file() && entry.path().extension().is_some_and(|e| e == "rs") {
            found.push(entry.path());
        }
    }
    Ok(())
}
