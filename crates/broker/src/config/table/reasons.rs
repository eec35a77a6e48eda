//! Why options of Kafka's are kept without effect: one sentence a family.

pub(super) const STORAGE: &str =
    "The log is stored as objects: there are no log directories, index files or file flushes.";
pub(super) const ROLL: &str = "One age holds for all topics: `log.roll.ms`, given at start.";
pub(super) const TIERED: &str = "All data is in the object store from the start: there is no second tier.";
pub(super) const REPLICATION: &str =
    "The object store replicates: there are no followers and no in-sync set.";
pub(super) const QUORUM: &str = "The metadata log is in the object store: there is no controller quorum.";
pub(super) const BROKERS: &str = "A cluster of several brokers is not there yet.";
pub(super) const QUOTAS: &str = "Quotas are not there yet.";
pub(super) const METRICS: &str = "Metrics are served over HTTP by `admin.listener`.";
pub(super) const TELEMETRY: &str =
    "No receiver of client metrics is there: subscriptions are kept, and no client is asked for anything.";
pub(super) const THREADS: &str =
    "One asynchronous runtime does all the work: there are no thread pools or queues to size.";
pub(super) const UNSTABLE: &str = "Nothing unstable is offered.";
pub(super) const GATHERED: &str = "Group coordinators gather what they write while an earlier write is under way, without a delay or a buffer of its own.";
pub(super) const SHARE: &str = "Share groups are not there yet.";
pub(super) const STREAMS: &str = "Streams groups are not there yet.";
pub(super) const TRANSACTIONS: &str = "Transactions are not there yet.";
pub(super) const SECURITY: &str =
    "TLS, SASL and authorization are not there yet: listeners that would need them are refused at start.";
pub(super) const TOKENS: &str = "Delegation tokens are not there yet.";
pub(super) const PLUGINS: &str = "Java classes cannot be loaded.";
