//! What a call to the store can end in, and how an `object_store` error is read.

use std::io;
use std::path::PathBuf;

use crate::answer::{in_short, is_no_bucket};
use crate::remote::NoCredentials;

/// Where the errors of the stores beneath come from.
pub(crate) type Source = object_store::Error;

/// A call to the store that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("object {key} does not exist")]
    NotFound {
        /// Key below the store's prefix.
        key: String,
    },
    /// There is not even a bucket. Nothing that is said of an object then means anything.
    #[error("the bucket does not exist, create it: {what}")]
    NoBucket {
        /// The store's answer.
        what: String,
    },
    /// The store has no room left. Worth retrying: somebody may make room.
    #[error("the store is full, {key} was not written: {source}")]
    Full {
        /// Key below the store's prefix.
        key: String,
        /// The system's answer.
        source: io::Error,
    },
    /// An fsync failed, so what is on the disk is unknown. Ends the incarnation (rule S2): the kernel reports
    /// such a failure once and may drop the pages.
    #[error("fsync failed for {key}, its contents on disk are unknown: {source}")]
    FsyncFailed {
        /// Key below the store's prefix.
        key: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Credentials or permissions do not allow it.
    #[error("the store refused to {operation} {key}, check credentials and permissions: {what}")]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// Key below the store's prefix.
        key: String,
        /// The store's answer.
        what: String,
    },
    /// There is nothing to sign requests with, or what was given cannot be used. Worth retrying: an endpoint that gives
    /// credentials may be in trouble.
    #[error("no credentials for the store: {what}")]
    NoCredentials {
        /// What was looked for, and what came of it.
        what: String,
    },
    /// The store said something that makes no sense: a range beyond the object, too few bytes, a bad key.
    #[error("the store gave a wrong answer to {operation} {key}: {what}")]
    Invalid {
        /// What was tried.
        operation: &'static str,
        /// Key below the store's prefix.
        key: String,
        /// What was wrong.
        what: String,
    },
    /// The store failed or did not answer in time. For a write, it may or may not have taken effect.
    #[error("could not {operation} {key} after {attempts} attempts: {what}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// Key below the store's prefix.
        key: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        what: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Full { .. } | Self::NoCredentials { .. } => true,
            Self::NotFound { .. }
            | Self::NoBucket { .. }
            | Self::FsyncFailed { .. }
            | Self::Denied { .. }
            | Self::Invalid { .. } => false,
        }
    }

    /// Whether somebody can do something about it: create the bucket, correct a key. Worth telling at once.
    pub fn is_somebodys(&self) -> bool {
        !self.is_transient() || matches!(self, Self::NoCredentials { .. })
    }

    /// Whether there was no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Reads an error of the store beneath.
    pub(crate) fn read(operation: &'static str, key: &str, error: Source) -> Self {
        let key = key.to_owned();
        match error {
            Source::NotFound { source, .. } => {
                let said = source.to_string();
                if is_no_bucket(&said) {
                    return Self::NoBucket {
                        what: in_short(&said),
                    };
                }
                Self::NotFound { key }
            }
            Source::PermissionDenied { .. } | Source::Unauthenticated { .. } => Self::Denied {
                operation,
                key,
                what: in_short(&whole_text(&error)),
            },
            Source::InvalidPath { .. } | Source::NotSupported { .. } | Source::NotImplemented { .. } => {
                Self::Invalid {
                    operation,
                    key,
                    what: error.to_string(),
                }
            }
            Source::Generic { source, .. } => match source.downcast::<LocalFailure>() {
                Ok(failure) => match *failure {
                    LocalFailure::Full(source) => Self::Full { key, source },
                    LocalFailure::Fsync(source) => Self::FsyncFailed { key, source },
                    LocalFailure::Io(source) => Self::failed(operation, key, source.to_string()),
                    LocalFailure::Range => Self::Invalid {
                        operation,
                        key,
                        what: RANGE.to_owned(),
                    },
                    LocalFailure::Refused(what) => Self::Invalid { operation, key, what },
                },
                Err(source) => match source.downcast::<NoCredentials>() {
                    Ok(none) => Self::NoCredentials { what: none.0 },
                    Err(source) => Self::failed(operation, key, whole_text(&*source)),
                },
            },
            other => Self::failed(operation, key, whole_text(&other)),
        }
    }

    /// A failure after one attempt. The stores tell of a range beyond the object in their texts alone.
    fn failed(operation: &'static str, key: String, what: String) -> Self {
        if what.contains("416 Range Not Satisfiable") || what.contains("Wanted range starting at") {
            return Self::Invalid {
                operation,
                key,
                what: RANGE.to_owned(),
            };
        }
        Self::Unavailable {
            operation,
            key,
            attempts: 1,
            what: in_short(&what),
        }
    }

    /// Sets the number of attempts of a failure after retries.
    pub(crate) fn after(mut self, tried: u32) -> Self {
        if let Self::Unavailable { attempts, .. } = &mut self {
            *attempts = tried;
        }
        self
    }
}

const RANGE: &str = "the object ends before the range begins";

/// The texts of an error and of its causes that say something new.
pub(crate) fn whole_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// A failure of the local file system, carried through `object_store::Error::Generic`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalFailure {
    #[error("no space left: {0}")]
    Full(#[source] io::Error),
    #[error("fsync failed: {0}")]
    Fsync(#[source] io::Error),
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error("range not satisfiable")]
    Range,
    /// Nothing that another attempt would change.
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for LocalFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Io(error),
        }
    }
}

impl From<LocalFailure> for Source {
    fn from(failure: LocalFailure) -> Self {
        Source::Generic {
            store: "local",
            source: Box::new(failure),
        }
    }
}

/// Why one put-if-absent did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum PutNewError {
    /// The store says that there is such an object, or that somebody is writing it. Ambiguous: it may be one's
    /// own earlier attempt, and on S3 (409) there may be none at all. Read it back.
    #[error("object {key} already exists")]
    Exists {
        /// Key below the store's prefix.
        key: String,
    },
    /// It failed; it may have taken effect, or may yet.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address cannot be read.
    #[error(
        "store.url {url:?} is not understood ({what}); use memory:, file:///dir, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The settings of a remote store are incomplete or wrong.
    #[error("cannot use {url}: {what}")]
    Settings {
        /// As given.
        url: String,
        /// What is wrong, with the name of the variable where one is at fault.
        what: String,
    },
    /// The directory cannot be created or written.
    #[error("cannot use directory {}: {source}; create it, or make it writable for this user, or point store.url elsewhere", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why a local store's directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("directory {} is in use by another process{}; stop that one, or give this one a store.url of its own", path.display(), holder(*.pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, where it is known.
        pid: Option<u32>,
    },
    /// The lock file cannot be opened or locked.
    #[error("cannot lock directory {}: {source}; make it writable for this user, on a file system that supports flock", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}
