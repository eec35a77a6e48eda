//! Where the things that tests need are kept, and what is called what in there.
//!
//! The end-to-end tests find the same folder through `DRUMLIN_CACHE`, which
//! [`crate::suite`] sets for them; their side of the layout is
//! `tests/src/cache.rs`.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The folder that installs go into: `DRUMLIN_CACHE`, or `.cache` in the repository.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the folder and creates it where needed.
    pub fn open() -> anyhow::Result<Cache> {
        let root = match std::env::var_os("DRUMLIN_CACHE") {
            Some(path) => std::path::absolute(PathBuf::from(path))?,
            None => repository().join(".cache"),
        };
        std::fs::create_dir_all(root.join("log"))
            .with_context(|| format!("cannot create the cache folder {}", root.display()))?;
        Ok(Cache { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The jars of Apache Kafka: broker, clients and tools.
    pub fn kafka_libs(&self) -> PathBuf {
        self.root.join("kafka-4.3.1/libs")
    }

    /// Programs that were built here.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.root.join("bin").join(name)
    }

    /// The Python environment with the clients in it.
    pub fn venv(&self) -> PathBuf {
        self.root.join("venv")
    }

    /// The Python environment with Quix Streams in it.
    pub fn quix(&self) -> PathBuf {
        self.root.join("quix")
    }

    /// The folder with `node_modules`.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// What a step printed.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
