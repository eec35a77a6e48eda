//! The message schemas as they stand in Kafka's jars: finding, fetching, unpacking and parsing them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The release whose schemas are generated.
pub const KAFKA_VERSION: &str = "4.3.1";

/// Jars that carry schemas, and whether theirs are records of a coordinator rather than messages.
const JARS: [(&str, Family); 4] = [
    ("kafka-clients", Family::Protocol),
    ("kafka-group-coordinator", Family::Coordinator),
    ("kafka-transaction-coordinator", Family::Coordinator),
    ("kafka-share-coordinator", Family::Coordinator),
];

/// Which generated directory a schema belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Requests, responses and data structures of the protocol.
    Protocol,
    /// Keys and values of the coordinators' internal topics.
    Coordinator,
}

/// What a schema describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Request,
    Response,
    Data,
    Header,
    CoordinatorKey,
    CoordinatorValue,
}

/// One schema file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schema {
    pub api_key: Option<i16>,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub name: String,
    pub valid_versions: Versions,
    #[serde(default)]
    pub flexible_versions: Versions,
    #[serde(default)]
    pub latest_version_unstable: bool,
    #[serde(default)]
    pub fields: Vec<Field>,
    #[serde(default)]
    pub common_structs: Vec<CommonStruct>,
}

/// A structure that several fields of a schema share.
#[derive(Clone, Debug, Deserialize)]
pub struct CommonStruct {
    pub name: String,
    pub fields: Vec<Field>,
}

/// One field of a structure.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    pub name: String,
    #[serde(rename = "type")]
    pub type_text: String,
    pub versions: Option<Versions>,
    #[serde(default)]
    pub nullable_versions: Versions,
    #[serde(default)]
    pub tagged_versions: Versions,
    pub tag: Option<u32>,
    #[serde(default)]
    pub default: Value,
    #[serde(default)]
    pub ignorable: bool,
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// An inclusive range of versions; empty when `low > high`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Versions {
    pub low: i16,
    pub high: i16,
}

impl Default for Versions {
    fn default() -> Self {
        Versions { low: 1, high: 0 }
    }
}

impl TryFrom<String> for Versions {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let text = text.trim();
        if text == "none" {
            return Ok(Versions::default());
        }
        if let Some(low) = text.strip_suffix('+') {
            return Ok(Versions {
                low: low.parse()?,
                high: i16::MAX,
            });
        }
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        Ok(Versions {
            low: low.parse()?,
            high: high.parse()?,
        })
    }
}

impl Versions {
    pub fn is_empty(self) -> bool {
        self.low > self.high
    }

    pub fn and(self, other: Versions) -> Versions {
        Versions {
            low: self.low.max(other.low),
            high: self.high.min(other.high),
        }
    }
}

/// Prints as the schemas do: `3+`, `0-4`, `7`, `none`.
impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.low, self.high) {
            (low, high) if low > high => f.write_str("none"),
            (low, i16::MAX) => write!(f, "{low}+"),
            (low, high) if low == high => write!(f, "{low}"),
            (low, high) => write!(f, "{low}-{high}"),
        }
    }
}

/// Every schema of every jar, in the order of their names.
pub fn load() -> Result<Vec<(Family, Schema)>> {
    let mut all = BTreeMap::new();
    for (artifact, family) in JARS {
        let jar = locate(artifact)?;
        for (file, text) in unpack(&jar)? {
            let schema: Schema = serde_json::from_str(&strip_comments(&text))
                .with_context(|| format!("{file} in {}", jar.display()))?;
            let name = schema.name.clone();
            ensure!(
                all.insert(name.clone(), (family, schema)).is_none(),
                "two schemas are called {name}"
            );
        }
    }
    Ok(all.into_values().collect())
}

/// Where the local Maven repository keeps an artifact's jar, fetched or not.
pub fn in_repository(artifact: &str) -> Result<PathBuf> {
    let home =
        std::env::var_os("HOME").context("HOME is not set, so the Maven repository cannot be found")?;
    Ok(Path::new(&home)
        .join(".m2/repository/org/apache/kafka")
        .join(artifact)
        .join(KAFKA_VERSION)
        .join(format!("{artifact}-{KAFKA_VERSION}.jar")))
}

fn locate(artifact: &str) -> Result<PathBuf> {
    let jar = in_repository(artifact)?;
    if !jar.exists() {
        let status = Command::new("mvn")
            .args(["-q", "dependency:get", "-Dtransitive=false"])
            .arg(format!("-Dartifact=org.apache.kafka:{artifact}:{KAFKA_VERSION}"))
            .status()
            .context("mvn could not be started; the schemas come from Kafka's Maven artifacts")?;
        ensure!(
            status.success() && jar.exists(),
            "mvn did not fetch {artifact} {KAFKA_VERSION}"
        );
    }
    Ok(jar)
}

fn unpack(jar: &Path) -> Result<Vec<(String, String)>> {
    let file = File::open(jar).with_context(|| jar.display().to_string())?;
    let mut archive = zip::ZipArchive::new(file)?;
    let mut out = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i)?;
        let name = entry.name()?.into_owned();
        if name.starts_with("common/message/") && name.ends_with(".json") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            out.push((name, text));
        }
    }
    if out.is_empty() {
        bail!("{} holds no schemas", jar.display());
    }
    Ok(out)
}

/// Removes `//` comments, which JSON lacks and the schemas have, outside of strings.
pub fn strip_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let (mut quoted, mut escaped, mut end) = (false, false, line.len());
        for (i, c) in line.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '/' if !quoted && line[i..].starts_with("//") => {
                    end = i;
                    break;
                }
                _ => {}
            }
        }
        out.push_str(&line[..end]);
        out.push('\n');
    }
    out
}
