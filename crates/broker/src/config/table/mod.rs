//! The one table of options: every broker, topic and group option that Apache Kafka 4.3.1 knows, and our own.
//!
//! Names, types, defaults and valid values are Kafka's wherever Kafka has the option. All else (loading,
//! validation, DescribeConfigs, `drumlin config`, the docs page) is derived from here.

mod client_metrics;
mod cluster;
mod group;
mod groups;
mod network;
mod own;
mod reasons;
mod security;
mod storage;
mod topic;

use std::sync::LazyLock;

use super::spec::OptionSpec;

/// Options of the broker, sorted by name.
static BROKER: LazyLock<Vec<&'static OptionSpec>> = LazyLock::new(|| {
    sorted(&[
        own::OWN,
        network::NETWORK,
        storage::STORAGE_OPTIONS,
        groups::COORDINATION,
        security::SECURITY_OPTIONS,
        cluster::CLUSTER,
    ])
});

/// Options of a topic, sorted by name.
static TOPIC: LazyLock<Vec<&'static OptionSpec>> = LazyLock::new(|| sorted(&[topic::TOPIC]));

/// Options of a group, sorted by name.
static GROUP: LazyLock<Vec<&'static OptionSpec>> = LazyLock::new(|| sorted(&[group::GROUP]));

/// Options of a client metrics subscription, sorted by name.
static CLIENT_METRICS: LazyLock<Vec<&'static OptionSpec>> =
    LazyLock::new(|| sorted(&[client_metrics::CLIENT_METRICS]));

fn sorted(parts: &[&'static [OptionSpec]]) -> Vec<&'static OptionSpec> {
    let mut all: Vec<&'static OptionSpec> = parts.iter().flat_map(|part| part.iter()).collect();
    all.sort_by_key(|option| option.name);
    all
}

/// Every option of the broker, hidden ones included, sorted by name.
pub fn broker_options() -> &'static [&'static OptionSpec] {
    &BROKER
}

/// Every option of a topic, hidden ones included, sorted by name.
pub fn topic_options() -> &'static [&'static OptionSpec] {
    &TOPIC
}

/// Every option of a group, hidden ones included, sorted by name.
pub fn group_options() -> &'static [&'static OptionSpec] {
    &GROUP
}

/// Every option of a client metrics subscription, sorted by name.
pub fn client_metrics_options() -> &'static [&'static OptionSpec] {
    &CLIENT_METRICS
}

/// True for an option that Kafka does not have.
pub fn is_own(option: &OptionSpec) -> bool {
    own::OWN.iter().any(|own| own.name == option.name)
}

/// The broker option of this exact name.
pub fn broker_option(name: &str) -> Option<&'static OptionSpec> {
    find(&BROKER, name)
}

/// The topic option of this exact name.
pub fn topic_option(name: &str) -> Option<&'static OptionSpec> {
    find(&TOPIC, name)
}

/// The group option of this exact name.
pub fn group_option(name: &str) -> Option<&'static OptionSpec> {
    find(&GROUP, name)
}

/// The option of a client metrics subscription of this exact name.
pub fn client_metrics_option(name: &str) -> Option<&'static OptionSpec> {
    find(&CLIENT_METRICS, name)
}

fn find(options: &[&'static OptionSpec], name: &str) -> Option<&'static OptionSpec> {
    options
        .binary_search_by_key(&name, |option| option.name)
        .ok()
        .map(|at| options[at])
}

/// The broker option that was probably meant by a name that is none.
pub fn nearest_broker_option(name: &str) -> Option<&'static str> {
    let by_topic = topic_option(name).and_then(|option| option.synonyms.first());
    by_topic
        .map(|(synonym, _)| *synonym)
        .or_else(|| nearest(&BROKER, name))
}

/// The topic option that was probably meant by a name that is none.
pub fn nearest_topic_option(name: &str) -> Option<&'static str> {
    let given_by_broker = |option: &&&OptionSpec| option.synonyms.iter().any(|(synonym, _)| *synonym == name);
    TOPIC
        .iter()
        .find(given_by_broker)
        .map(|option| option.name)
        .or_else(|| nearest(&TOPIC, name))
}

/// The group option that was probably meant by a name that is none.
pub fn nearest_group_option(name: &str) -> Option<&'static str> {
    let given_by_broker = |option: &&&OptionSpec| option.synonyms.iter().any(|(synonym, _)| *synonym == name);
    GROUP
        .iter()
        .find(given_by_broker)
        .map(|option| option.name)
        .or_else(|| nearest(&GROUP, name))
}

/// The visible option whose name is nearest by edit distance, unless none is near.
fn nearest(options: &[&'static OptionSpec], name: &str) -> Option<&'static str> {
    let bound = (name.chars().count() / 3).max(2);
    options
        .iter()
        .filter(|option| !option.hidden)
        .map(|option| (distance(name, option.name), option.name))
        .min()
        .filter(|(distance, _)| *distance <= bound)
        .map(|(_, name)| name)
}

/// Edits (insertions, deletions, replacements, swaps of neighbours) between two names.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().take(200).collect();
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let mut cost = (last[j] + usize::from(l != r))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_sound() {
        for (options, other) in [
            (broker_options(), None),
            (topic_options(), Some(broker_options())),
            (group_options(), Some(broker_options())),
            (client_metrics_options(), None),
        ] {
            for pair in options.windows(2) {
                assert!(pair[0].name < pair[1].name, "{} stands twice", pair[1].name);
            }
            for option in options {
                assert!(!option.meaning().is_empty(), "{} has no words", option.name);
                if let Some(default) = option.default {
                    let canonical = option.canonical(default);
                    assert_eq!(canonical.as_deref(), Ok(default), "default of {}", option.name);
                }
                for (synonym, _) in option.synonyms {
                    assert!(
                        find(other.expect("only topics have them"), synonym).is_some(),
                        "{synonym}"
                    );
                }
            }
        }
    }

    #[test]
    fn neighbours_are_found() {
        let near = nearest_broker_option;
        assert_eq!(near("log.retention.hour"), Some("log.retention.hours"));
        assert_eq!(near("lisetners"), Some("listeners"));
        assert_eq!(near("store.uri"), Some("store.url"));
        assert_eq!(near("max.message.bytes"), Some("message.max.bytes"));
        assert_eq!(near("quite.another.thing.altogether"), None);
        assert_eq!(nearest_topic_option("log.retention.hours"), Some("retention.ms"));
        assert_eq!(nearest_topic_option("Retention.MS"), Some("retention.ms"));
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
