//! The tasks of a broker: what each is for, what its failure means, and when it ends in a stop.
//!
//! This is the one table of them, of all crates: [`Env::spawn`](crate::Env::spawn) takes a kind from it. A task fails by
//! a panic, or by its end if it is to run as long as the broker. What follows is its policy, [`OnFailure`]; that a task
//! failed is always logged. `docs/architecture.md` shows the same table.

use std::fmt;

/// What follows when a task fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// The incarnation ends: the log takes no more appends, what waits for a commit fails, the process exits.
    EndsBroker,
    /// The task begins anew after a pause. Only for tasks that keep nothing between two rounds.
    Restarts,
    /// Nothing but its own work is lost.
    IsLogged,
}

/// How long a task runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runs {
    /// Until its work is done.
    Once,
    /// As long as what it belongs to. Its end before that is a failure.
    Always,
}

/// The order in which the parts of a broker stop. A later stage still needs none of an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StopStage {
    /// No more connections are accepted.
    Accepting,
    /// Group coordinators commit and answer what they have written.
    Coordinators,
    /// What is appended is put, and waited for.
    Log,
    /// Connections write their last answers.
    Connections,
    /// The metadata log and its followers.
    Metadata,
    /// The block cache.
    Cache,
    /// The local directory.
    Store,
    /// Health and metrics are there to the last.
    Console,
}

macro_rules! tasks {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal, $owner:literal, $runs:ident, $on_failure:ident, $stage:ident;)+) => {
        /// A kind of task.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum TaskKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl TaskKind {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// Its name in log lines and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// The crate that it belongs to.
            pub const fn owner(self) -> &'static str {
                match self { $(Self::$kind => $owner,)+ }
            }

            /// How long it runs.
            pub const fn runs(self) -> Runs {
                match self { $(Self::$kind => Runs::$runs,)+ }
            }

            /// What its failure means.
            pub const fn on_failure(self) -> OnFailure {
                match self { $(Self::$kind => OnFailure::$on_failure,)+ }
            }

            /// When it ends in a stop.
            pub const fn stops(self) -> StopStage {
                match self { $(Self::$kind => StopStage::$stage,)+ }
            }

            /// What it does.
            pub const fn purpose(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+),)+ }
            }
        }
    };
}

tasks! {
    /// Accepts connections of one listener.
    Listener = "listener", "broker", Always, Restarts, Accepting;
    /// Serves one client's connection. A panic closes that connection.
    Connection = "connection", "broker", Once, IsLogged, Connections;
    /// Coordinates the groups of one partition of `__consumer_offsets`.
    GroupCoordinator = "group-coordinator", "broker", Once, EndsBroker, Coordinators;
    /// Puts one slot of a chain.
    ChainPut = "chain-put", "objects", Once, EndsBroker, Log;
    /// Closes WAL objects and sends them on their way.
    WalFlusher = "wal-flusher", "log", Always, EndsBroker, Log;
    /// Takes commits in order, and settles what waits for them.
    WalCommits = "wal-commits", "log", Always, EndsBroker, Log;
    /// Ends the log when its broker has failed.
    LogEnd = "log-end", "log", Once, EndsBroker, Log;
    /// Seals rounds; retention.
    LogKeeper = "log-keeper", "log", Always, EndsBroker, Log;
    /// Deletes what rounds, retention and topic deletion dropped.
    LogDeleter = "log-deleter", "log", Always, EndsBroker, Log;
    /// Compacts partitions.
    LogCleaner = "log-cleaner", "log", Always, EndsBroker, Log;
    /// Gives memory back.
    LogTidy = "log-tidy", "log", Always, EndsBroker, Log;
    /// Writes the metadata log.
    MetaOwner = "meta-owner", "cluster", Once, EndsBroker, Metadata;
    /// Uploads the body of a metadata checkpoint.
    MetaCheckpoint = "meta-checkpoint", "cluster", Once, EndsBroker, Metadata;
    /// Deletes what a metadata checkpoint replaced.
    MetaTrim = "meta-trim", "cluster", Once, IsLogged, Metadata;
    /// Keeps topics and configuration up to the metadata.
    ImageFollower = "image-follower", "broker", Always, EndsBroker, Metadata;
    /// Takes the tombstones of swept topics out of the metadata.
    SweepFollower = "sweep-follower", "broker", Always, Restarts, Metadata;
    /// Takes swept incarnations out of the metadata.
    ChainFollower = "chain-follower", "broker", Always, Restarts, Metadata;
    /// Opens the block cache's files. Without them it holds blocks in memory only.
    CacheOpen = "cache-open", "broker", Once, IsLogged, Cache;
    /// Looks through the files that an earlier process left half written.
    LocalTmp = "local-tmp", "objects", Once, EndsBroker, Store;
    /// Tends the local directory's journal.
    LocalJournal = "local-journal", "objects", Once, EndsBroker, Store;
    /// Serves health and metrics.
    Console = "console", "drumlin", Always, EndsBroker, Console;
    /// Work of a test or a simulation.
    Test = "test", "tests", Once, IsLogged, Console;
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a broker cannot go on, found by a task or by the store. Final.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// A task panicked whose work cannot be done without.
    #[error("task {task} panicked: {what}")]
    Panicked {
        /// Which.
        task: TaskKind,
        /// Message and place of the panic.
        what: String,
    },
    /// A task ended that should run as long as the broker.
    #[error("task {task} ended before its broker")]
    Ended {
        /// Which.
        task: TaskKind,
    },
    /// An fsync failed: what the disk holds is not known (rule S2).
    #[error("{what}; check the disk and start again")]
    Fsync {
        /// The system's answer, and for which file.
        what: String,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_what_restarts_runs_always() {
        let names: BTreeSet<&str> = TaskKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), TaskKind::ALL.len());
        for kind in TaskKind::ALL {
            let restarts = kind.on_failure() == OnFailure::Restarts;
            assert!(!restarts || kind.runs() == Runs::Always, "{kind}");
        }
    }

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");
        let page = std::fs::read_to_string(page).unwrap();
        for kind in TaskKind::ALL.iter().filter(|kind| **kind != TaskKind::Test) {
            let failure = match kind.on_failure() {
                OnFailure::EndsBroker => "ends the broker",
                OnFailure::Restarts => "is restarted",
                OnFailure::IsLogged => "is logged",
            };
            let stage = kind.stops() as u8 + 1;
            let purpose = kind.purpose().trim();
            let row = format!(
                "| {stage} | `{kind}` | {} | {purpose} | {failure} |",
                kind.owner()
            );
            assert!(page.contains(&row), "docs/architecture.md lacks this row:\n{row}");
        }
    }
}
