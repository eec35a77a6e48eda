//! A test's folder: gone when it passes, kept and named when it fails.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary folder that a failing test leaves behind.
pub struct Scratch {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new folder whose name begins with `name`.
    pub fn new(name: &str) -> anyhow::Result<Scratch> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("drumlin-{name}-"))
            .tempdir()?;
        let path = dir.path().to_owned();
        Ok(Scratch { dir: Some(dir), path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Leaves it behind, and says where.
    pub fn keep(mut self) -> PathBuf {
        if let Some(dir) = self.dir.take() {
            self.path = dir.keep();
        }
        self.path.clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}
