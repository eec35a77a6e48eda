//! What can be wrong with a configuration, in one readable line, and where a value came from.

use std::fmt;

use thiserror::Error;

/// Where a value of the static configuration came from; later ones go before earlier ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A line of the properties file.
    File {
        /// The file as it was named.
        path: String,
        /// The line on which the property starts, from 1.
        line: usize,
    },
    /// An environment variable of this name.
    Environment(String),
    /// `--set`.
    CommandLine,
    /// The program itself: tests, simulation.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{path} line {line}"),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::CommandLine => f.write_str("--set"),
            Origin::Program => f.write_str("the program"),
        }
    }
}

/// Why a configuration is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// The properties file cannot be read.
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable {
        /// The file as it was named.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// A line that is no property, or a `--set` without a `=`.
    #[error("{origin}: {reason}")]
    Malformed {
        /// Where it stands.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
    /// No option has this name.
    #[error("unknown option `{name}` ({origin}){}", hint(.nearest))]
    Unknown {
        /// The name that was given.
        name: String,
        /// Where it was given.
        origin: Origin,
        /// The option that was probably meant.
        nearest: Option<&'static str>,
    },
    /// An option that Kafka had before 4.0.
    #[error("option `{name}` ({origin}) was removed in Kafka 4 and is not known here either: delete it")]
    Removed {
        /// The name that was given.
        name: String,
        /// Where it was given.
        origin: Origin,
    },
    /// A value that does not fit the option.
    #[error("option `{name}`{}: {reason}", place(.origin))]
    Invalid {
        /// The option.
        name: String,
        /// Where the value was given; `None` when it is the default or several options disagree.
        origin: Option<Origin>,
        /// What is wrong.
        reason: String,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

fn place(origin: &Option<Origin>) -> String {
    origin
        .as_ref()
        .map(|origin| format!(" ({origin})"))
        .unwrap_or_default()
}
