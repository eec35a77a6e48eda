//! Where `cargo xtask test` (or `cargo xtask install`) has put what the tests need.
//! The other side of this layout is `xtask/src/cache.rs`.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// The repository's root.
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cache folder: `DRUMLIN_CACHE`, or `.cache` in the repository.
pub fn root() -> PathBuf {
    std::env::var_os("DRUMLIN_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from)
}

/// The class path of Apache Kafka's broker and tools.
pub fn kafka_class_path() -> anyhow::Result<String> {
    let libs = present(root().join("kafka-4.3.1/libs"))?;
    Ok(format!("{}/*", libs.display()))
}

/// MinIO's server.
pub fn minio() -> anyhow::Result<PathBuf> {
    present(root().join("bin/minio"))
}

/// SeaweedFS.
pub fn weed() -> anyhow::Result<PathBuf> {
    present(root().join("venv/bin/weed"))
}

/// The Python interpreter that has the clients.
pub fn python() -> anyhow::Result<PathBuf> {
    present(root().join("venv/bin/python"))
}

/// The folder that holds the Node clients.
pub fn node_modules() -> anyhow::Result<PathBuf> {
    present(root().join("node/node_modules"))
}

/// The command around sarama.
pub fn sarama() -> anyhow::Result<PathBuf> {
    present(root().join("bin/sarama-client"))
}

/// The command around kafka-go.
pub fn kafka_go() -> anyhow::Result<PathBuf> {
    present(root().join("bin/kafka-go-client"))
}

/// The Python interpreter that has Quix Streams.
pub fn quix() -> anyhow::Result<PathBuf> {
    present(root().join("quix/bin/python"))
}

fn present(path: PathBuf) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        bail!("{} is missing: run `cargo xtask install` first", path.display());
    }
    Ok(path)
}
