//! Real text through kcat and back, byte for byte: in each codec, after `kill -9`, after the cache is lost, and from a
//! copy of the bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::broker::{Broker, Options, against_kafka};
use crate::stores::{Local, Minio};
use crate::{input, process, tools};

/// What kcat can compress with.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// The longest that a copy of a bucket may take.
const COPYING: Duration = Duration::from_secs(600);

/// The text that is sent, and what it took so far.
pub struct Text {
    file: PathBuf,
    sum: String,
    /// Lines and bytes sent for each codec, and milliseconds by what was done.
    pub figures: BTreeMap<String, u64>,
}

impl Text {
    /// Writes up to `bytes` of the registry's sources into `dir`.
    pub fn write(dir: &Path, bytes: u64) -> anyhow::Result<Self> {
        let file = dir.join("text");
        let lines = input::write(&file, bytes)?;
        let figures = [("lines", lines), ("bytes", file.metadata()?.len())];
        Ok(Self {
            sum: tools::sha256(&file)?,
            figures: figures.map(|(name, value)| (name.to_owned(), value)).into(),
            file,
        })
    }

    /// Through a broker on a directory.
    pub fn on_local(&mut self, dir: &Path) -> anyhow::Result<()> {
        let mut broker = Broker::start(Options::local(&dir.join("broker")))?;
        self.produce(&broker, "local")?;
        self.compare(&broker, dir, "local", "at once")?;
        broker.kill9()?;
        broker.restart()?;
        self.compare(&broker, dir, "local", "after kill -9")?;
        broker.terminate()?;
        if against_kafka() {
            return Ok(());
        }
        copy(&dir.join("broker/store"), &dir.join("copy"))?;
        let fresh = Options::on(&dir.join("fresh"), Local::new(dir.join("copy")));
        let broker = Broker::start(fresh).context("a fresh broker on a copy of the directory")?;
        self.compare(&broker, dir, "local", "from a copy")
    }

    /// Through a broker on MinIO.
    pub fn on_minio(&mut self, dir: &Path) -> anyhow::Result<()> {
        let mut minio = Minio::start(dir)?;
        let options = Options::on(&dir.join("broker"), minio.store("text")).sealing_often();
        let mut broker = Broker::start(options)?;
        self.produce(&broker, "minio")?;
        self.compare(&broker, dir, "minio", "at once")?;
        broker.kill9()?;
        broker.delete_cache()?;
        broker.restart()?;
        self.compare(&broker, dir, "minio", "after kill -9 without the cache")?;
        broker.kill9()?;
        if against_kafka() {
            return Ok(());
        }
        minio.process().kill9()?;
        copy(minio.data(), &dir.join("copied"))?;
        let minio = Minio::start_on(&dir.join("copied"), &dir.join("copied.log"))?;
        let fresh = Options::on(&dir.join("fresh"), minio.store("text"));
        let broker = Broker::start(fresh).context("a fresh broker on a copy of the bucket")?;
        self.compare(&broker, dir, "minio", "from a copy")
    }

    fn produce(&mut self, broker: &Broker, store: &str) -> anyhow::Result<()> {
        for codec in CODECS {
            let began = Instant::now();
            tools::kcat_produce(&broker.bootstrap(), &topic(codec), 0, codec, &self.file)?;
            self.took(began, format!("{store} {codec} in"));
        }
        Ok(())
    }

    fn compare(&mut self, broker: &Broker, dir: &Path, store: &str, when: &str) -> anyhow::Result<()> {
        let out = dir.join("out");
        for codec in CODECS {
            let began = Instant::now();
            tools::kcat_consume(&broker.bootstrap(), &topic(codec), 0, &out)?;
            self.took(began, format!("{store} {codec} out {when}"));
            if tools::sha256(&out)? != self.sum {
                bail!("{store}, {codec}, {when}: what came back is not what was sent");
            }
        }
        Ok(())
    }

    fn took(&mut self, began: Instant, what: String) {
        let took = began.elapsed().as_millis() as u64;
        self.figures.insert(format!("{what} ms"), took);
    }
}

fn topic(codec: &str) -> String {
    format!("text-{codec}")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(from).arg(to);
    process::run(cp, COPYING).map(drop)
}
