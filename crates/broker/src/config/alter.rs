//! Changes of topic, group and broker configs while running: which are valid, and what comes of them.

use std::collections::BTreeSet;

use thiserror::Error;

use super::broker::BrokerConfig;
use super::groups;
use super::live::{Live, Overrides};
use super::spec::{Dynamic, Kind, OptionSpec, split_list};
use super::table;
use super::topic::{self, TopicConfig};

/// What IncrementalAlterConfigs does to an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigOp {
    /// Give it this value.
    Set,
    /// Take its value away, so that the next level's shows.
    Delete,
    /// Add items to a list.
    Append,
    /// Take items from a list.
    Subtract,
}

impl ConfigOp {
    /// From `config_operation` of the request.
    pub fn from_wire(code: i8) -> Option<ConfigOp> {
        match code {
            0 => Some(ConfigOp::Set),
            1 => Some(ConfigOp::Delete),
            2 => Some(ConfigOp::Append),
            3 => Some(ConfigOp::Subtract),
            _ => None,
        }
    }
}

/// One change that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alteration<'a> {
    /// The option.
    pub name: &'a str,
    /// What to do.
    pub op: ConfigOp,
    /// The value; not looked at by `Delete`.
    pub value: Option<&'a str>,
}

/// Why a change is refused, with words for the client.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AlterError {
    /// INVALID_CONFIG.
    #[error("{0}")]
    InvalidConfig(String),
    /// INVALID_REQUEST.
    #[error("{0}")]
    InvalidRequest(String),
}

/// Whose options are altered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A topic's.
    Topic,
    /// A group's.
    Group,
    /// This broker's.
    Broker,
    /// Those of all brokers.
    AllBrokers,
}

/// Checks a whole set of overrides, as CreateTopics and AlterConfigs give it, and puts it in canonical form.
pub fn replace<'a>(
    target: Target,
    configs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    live: &Live,
) -> Result<Overrides, AlterError> {
    let mut overrides = Overrides::new();
    for (name, value) in configs {
        let option = alterable(target, name)?;
        let Some(value) = value else {
            return Err(AlterError::InvalidConfig(format!("config `{name}` has no value")));
        };
        let value = canonical(option, value)?;
        if overrides.insert(name.to_owned(), value).is_some() {
            return Err(AlterError::InvalidRequest(format!(
                "config `{name}` stands in the request twice"
            )));
        }
    }
    check_together(target, &overrides, live)?;
    Ok(overrides)
}

/// What a resource's overrides become by these changes, as IncrementalAlterConfigs gives them.
pub fn alter(
    target: Target,
    current: &Overrides,
    alterations: &[Alteration<'_>],
    live: &Live,
) -> Result<Overrides, AlterError> {
    let mut overrides = current.clone();
    let mut seen = BTreeSet::new();
    for alteration in alterations {
        let Alteration { name, op, value } = *alteration;
        if !seen.insert(name) {
            return Err(AlterError::InvalidRequest(format!(
                "config `{name}` stands in the request twice"
            )));
        }
        if op == ConfigOp::Delete {
            // What an older version set can always be taken away.
            if overrides.remove(name).is_none() {
                alterable(target, name)?;
            }
            continue;
        }
        let option = alterable(target, name)?;
        let Some(value) = value else {
            return Err(AlterError::InvalidRequest(format!(
                "config `{name}` has no value"
            )));
        };
        let value = match op {
            ConfigOp::Set | ConfigOp::Delete => canonical(option, value)?,
            ConfigOp::Append | ConfigOp::Subtract => {
                if option.kind != Kind::List {
                    return Err(AlterError::InvalidConfig(format!(
                        "config `{name}` is not a list: nothing can be appended to it or subtracted from it"
                    )));
                }
                let before = match overrides.get(name) {
                    Some(own) => own.clone(),
                    None if target == Target::Topic => topic::value(name, &overrides, live),
                    None => live.value(name).unwrap_or_default(),
                };
                canonical(option, &changed_list(&before, value, op))?
            }
        };
        overrides.insert(name.to_owned(), value);
    }
    check_together(target, &overrides, live)?;
    Ok(overrides)
}

fn alterable(target: Target, name: &str) -> Result<&'static OptionSpec, AlterError> {
    let (found, whose, nearest): (_, _, fn(&str) -> Option<&'static str>) = match target {
        Target::Topic => (table::topic_option(name), "topic", table::nearest_topic_option),
        Target::Group => (table::group_option(name), "group", table::nearest_group_option),
        Target::Broker | Target::AllBrokers => {
            (table::broker_option(name), "broker", table::nearest_broker_option)
        }
    };
    let Some(option) = found else {
        let hint = nearest(name)
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        return Err(AlterError::InvalidConfig(format!(
            "unknown {whose} config `{name}`{hint}"
        )));
    };
    match (target, option.dynamic) {
        (Target::Topic | Target::Group, _)
        | (_, Dynamic::ClusterWide)
        | (Target::Broker, Dynamic::PerBroker) => Ok(option),
        (_, Dynamic::PerBroker) => Err(AlterError::InvalidConfig(format!(
            "config `{name}` can be altered for single brokers only"
        ))),
        (_, Dynamic::ReadOnly) => Err(AlterError::InvalidConfig(format!(
            "config `{name}` cannot be altered while the broker runs: give it at start"
        ))),
    }
}

fn canonical(option: &OptionSpec, value: &str) -> Result<String, AlterError> {
    option
        .canonical(value)
        .map_err(|reason| AlterError::InvalidConfig(format!("config `{}`: {reason}", option.name)))
}

fn changed_list(before: &str, value: &str, op: ConfigOp) -> String {
    let mut items = split_list(before);
    for item in split_list(value) {
        match op {
            ConfigOp::Subtract => items.retain(|known| *known != item),
            _ if items.contains(&item) => {}
            _ => items.push(item),
        }
    }
    items.join(",")
}

/// What single options cannot say.
fn check_together(target: Target, overrides: &Overrides, live: &Live) -> Result<(), AlterError> {
    match target {
        Target::Topic => {
            let topic = TopicConfig::resolve(overrides, live);
            if topic.min_compaction_lag_ms > topic.max_compaction_lag_ms {
                return Err(AlterError::InvalidConfig(format!(
                    "config `min.compaction.lag.ms` ({}) is more than `max.compaction.lag.ms` ({})",
                    topic.min_compaction_lag_ms, topic.max_compaction_lag_ms
                )));
            }
            Ok(())
        }
        Target::Group => groups::check_group(overrides, live).map_err(AlterError::InvalidConfig),
        Target::Broker | Target::AllBrokers => {
            let altered = if target == Target::Broker {
                live.altered(live.cluster().clone(), overrides.clone())
            } else {
                live.altered(overrides.clone(), live.broker().clone())
            };
            match BrokerConfig::new(altered) {
                Ok(_) => Ok(()),
                Err(error) => Err(AlterError::InvalidConfig(error.to_string())),
            }
        }
    }
}
