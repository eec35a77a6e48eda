//! What a check found.

use std::fmt;

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its bytes are not what was written.
    Damaged,
    /// It is named, and not there.
    Missing,
    /// Committed entries or records lack between what is there.
    Gap,
    /// The store did not give it.
    Unreadable,
    /// It holds a batch whose bytes are those that were sent, and whose records cannot be decoded: it was stored
    /// without a look at its records. Consumers stop there.
    Undecodable,
    /// Nothing names it.
    Orphan,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Gap => "gap",
            Self::Unreadable => "unreadable",
            Self::Undecodable => "undecodable",
            Self::Orphan => "orphan",
        })
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The object's key, below the store's prefix; for a gap between objects the partition's or chain's prefix.
    pub key: String,
    /// A sentence for the operator.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.key, self.what)
    }
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects read.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Objects in the bucket.
    pub objects_total: u64,
    /// Bytes in the bucket.
    pub bytes_total: u64,
}

/// The outcome of a check.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Objects in the bucket.
    pub objects: u64,
    /// Their length together.
    pub bytes: u64,
    /// Objects whose contents were verified.
    pub verified: u64,
    /// Bytes that were read for it.
    pub verified_bytes: u64,
    /// Partitions that hold records, or did.
    pub partitions: u64,
    /// Records between their log starts and log ends.
    pub records: u64,
    /// Objects that are not needed any more, or not yet: replaced and in their grace, or uploaded by the newest
    /// start of a node and not named yet. That start, or the next, removes them. Not findings; not verified.
    pub waiting: Vec<String>,
    /// Their length together.
    pub waiting_bytes: u64,
    /// What is wrong, by kind and key.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        writeln!(
            f,
            "{} objects, {}; {} of them verified, {}; {} partitions with {} records",
            self.objects,
            size(self.bytes),
            self.verified,
            size(self.verified_bytes),
            self.partitions,
            self.records
        )?;
        if !self.waiting.is_empty() {
            writeln!(
                f,
                "{} objects, {}, await their deletion or their first mention, which a running broker sees to",
                self.waiting.len(),
                size(self.waiting_bytes)
            )?;
        }
        if self.findings.iter().any(|finding| finding.kind == Kind::Orphan) {
            writeln!(
                f,
                "an orphan may be an upload of a broker that runs now: check again once it has stopped"
            )?;
        }
        match self.findings.len() {
            0 => f.write_str("nothing is wrong"),
            1 => f.write_str("1 thing is wrong"),
            many => write!(f, "{many} things are wrong"),
        }
    }
}

/// Bytes, readable.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}
