//! Options of a client metrics subscription (ConfigResource CLIENT_METRICS, KIP-714).

use super::reasons::TELEMETRY;
use crate::config::spec::OptionSpec;

// One row an option, so that rows can be compared and searched.
#[rustfmt::skip]
pub(super) const CLIENT_METRICS: &[OptionSpec] = &[
    OptionSpec::int("interval.ms").default("300000").kept(TELEMETRY),
    OptionSpec::list("match").default("").kept(TELEMETRY),
    OptionSpec::list("metrics").default("").kept(TELEMETRY),
];
