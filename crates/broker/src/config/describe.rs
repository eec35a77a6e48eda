//! Answers of DescribeConfigs: each option's value in force, where it comes from, and what else would give one.

use super::live::{ConfigSource, Level, Live, Overrides};
use super::spec::{Dynamic, Kind, OptionSpec};
use super::table;

/// One option in an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConfig {
    /// The option.
    pub name: &'static str,
    /// Its value in force; `None` where it has none, or must not be shown.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// True where it cannot be altered while the broker runs.
    pub read_only: bool,
    /// True where the value must not be shown.
    pub sensitive: bool,
    /// All levels that give a value, the strongest first.
    pub synonyms: Vec<DescribedSynonym>,
    /// Type of the value.
    pub kind: Kind,
    /// What the option means.
    pub documentation: &'static str,
}

/// One level that gives a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedSynonym {
    /// The option at this level.
    pub name: &'static str,
    /// The value there, in that option's unit; `None` where it must not be shown.
    pub value: Option<String>,
    /// Which level.
    pub source: ConfigSource,
}

/// The configuration of a topic with these overrides: the options named, those that exist of them, or all.
pub fn describe_topic(live: &Live, overrides: &Overrides, names: Option<&[&str]>) -> Vec<DescribedConfig> {
    asked(table::topic_options(), names)
        .map(|option| describe(option, live.topic_levels(option, overrides), false))
        .collect()
}

/// The configuration of a group with these overrides: the options named, those that exist of them, or all.
pub fn describe_group(live: &Live, overrides: &Overrides, names: Option<&[&str]>) -> Vec<DescribedConfig> {
    asked(table::group_options(), names)
        .map(|option| describe(option, live.group_levels(option, overrides), false))
        .collect()
}

/// The configuration of a client metrics subscription with these overrides: the options named, those that exist of
/// them, or all.
pub fn describe_client_metrics(
    live: &Live,
    overrides: &Overrides,
    names: Option<&[&str]>,
) -> Vec<DescribedConfig> {
    asked(table::client_metrics_options(), names)
        .map(|option| describe(option, live.client_metrics_levels(option, overrides), false))
        .collect()
}

/// The configuration of this broker: the options named, those that exist of them, or all.
pub fn describe_broker(live: &Live, names: Option<&[&str]>) -> Vec<DescribedConfig> {
    asked(table::broker_options(), names)
        .map(|option| {
            describe(
                option,
                live.broker_levels(option),
                option.dynamic == Dynamic::ReadOnly,
            )
        })
        .collect()
}

/// What was altered for all brokers (the broker resource with an empty name).
pub fn describe_all_brokers(live: &Live, names: Option<&[&str]>) -> Vec<DescribedConfig> {
    asked(table::broker_options(), names)
        .filter(|option| live.cluster().contains_key(option.name))
        .map(|option| {
            let mut levels = live.broker_levels(option);
            levels.retain(|level| level.source == ConfigSource::DynamicDefaultBroker);
            describe(option, levels, option.dynamic == Dynamic::ReadOnly)
        })
        .collect()
}

fn asked(
    options: &'static [&'static OptionSpec],
    names: Option<&[&str]>,
) -> impl Iterator<Item = &'static OptionSpec> {
    options
        .iter()
        .copied()
        .filter(move |option| names.map_or(!option.hidden, |names| names.contains(&option.name)))
}

fn describe(option: &'static OptionSpec, levels: Vec<Level>, read_only: bool) -> DescribedConfig {
    let sensitive = option.sensitive();
    let shown = |value: String| Some(value).filter(|_| !sensitive);
    let (value, source) = match levels.first() {
        Some(level) => (shown(level.converted.clone()), level.source),
        None => (
            option.default.map(str::to_owned).and_then(shown),
            ConfigSource::Default,
        ),
    };
    let synonyms = levels
        .into_iter()
        .map(|level| DescribedSynonym {
            name: level.name,
            value: shown(level.value),
            source: level.source,
        })
        .collect();
    DescribedConfig {
        name: option.name,
        value,
        source,
        read_only,
        sensitive,
        synonyms,
        kind: option.kind,
        documentation: option.meaning(),
    }
}
