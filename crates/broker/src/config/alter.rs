//! Changes of topic, group and broker configs while running: which are valid, and what comes of them.

use std::collections::BTreeSet;

use thiserror::Error;

use super::broker::BrokerConfig;
use super::groups;
use super::live::{Live, Overrides};
use super::refusal::refusal;
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
    /// A client metrics subscription's.
    ClientMetrics,
}

impl Target {
    /// The error for a value or an option that the resource cannot have: Kafka has a code of its own for brokers.
    fn refuse(self, message: String) -> AlterError {
        match self {
            Target::Topic | Target::Group | Target::ClientMetrics => AlterError::InvalidConfig(message),
            Target::Broker | Target::AllBrokers => AlterError::InvalidRequest(message),
        }
    }
}

/// The error for an option without a value.
fn no_value(name: &str) -> AlterError {
    AlterError::InvalidRequest(format!("Null value not supported for : {name}"))
}

/// The error for an option that is named twice.
fn named_twice() -> AlterError {
    AlterError::InvalidRequest("Error due to duplicate config keys".to_owned())
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
            return Err(no_value(name));
        };
        let value = canonical(target, option, value)?;
        if overrides.insert(name.to_owned(), value).is_some() {
            return Err(named_twice());
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
            return Err(named_twice());
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
            return Err(no_value(name));
        };
        let value = match op {
            ConfigOp::Set | ConfigOp::Delete => canonical(target, option, value)?,
            ConfigOp::Append | ConfigOp::Subtract => {
                // Kafka does not take the lists of client metrics for lists here.
                if option.kind != Kind::List || target == Target::ClientMetrics {
                    return Err(not_a_list(target, name, op));
                }
                let before = match overrides.get(name) {
                    Some(own) => own.clone(),
                    None if target == Target::Topic => topic::value(name, &overrides, live),
                    None => live.value(name).unwrap_or_default(),
                };
                canonical(target, option, &changed_list(&before, value, op))?
            }
        };
        overrides.insert(name.to_owned(), value);
    }
    check_together(target, &overrides, live)?;
    Ok(overrides)
}

/// Options that Kafka lets change for one listener only, as `listener.name.NAME.ssl.keystore.location`.
const LISTENER_OPTIONS: [&str; 3] = ["ssl.keystore.", "ssl.truststore.", "ssl.key.password"];

fn alterable(target: Target, name: &str) -> Result<&'static OptionSpec, AlterError> {
    let (found, whose, nearest): (_, _, fn(&str) -> Option<&'static str>) = match target {
        Target::Topic => (table::topic_option(name), "topic", table::nearest_topic_option),
        Target::Group => (table::group_option(name), "group", table::nearest_group_option),
        Target::Broker | Target::AllBrokers => {
            (table::broker_option(name), "broker", table::nearest_broker_option)
        }
        Target::ClientMetrics => {
            let Some(option) = table::client_metrics_option(name) else {
                let what = format!("Unknown client metrics configuration: {name}");
                return Err(AlterError::InvalidRequest(what));
            };
            return Ok(option);
        }
    };
    let Some(option) = found else {
        // Kafka has these words too, up to the hint; only broker configs of any name are taken there.
        let hint = nearest(name)
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        return Err(AlterError::InvalidConfig(format!(
            "Unknown {whose} config name: {name}{hint}"
        )));
    };
    let is_of_listener =
        option.dynamic == Dynamic::PerBroker && LISTENER_OPTIONS.iter().any(|of| name.starts_with(of));
    if is_of_listener && matches!(target, Target::Broker | Target::AllBrokers) {
        return Err(AlterError::InvalidRequest(format!(
            "These security configs can be dynamically updated only per-listener using the listener prefix: [{name}]"
        )));
    }
    match (target, option.dynamic) {
        (Target::Topic | Target::Group | Target::ClientMetrics, _)
        | (_, Dynamic::ClusterWide)
        | (Target::Broker, Dynamic::PerBroker) => Ok(option),
        (_, Dynamic::PerBroker) => Err(AlterError::InvalidRequest(format!(
            "Cannot update these configs at default cluster level, broker id must be specified: [{name}]"
        ))),
        (_, Dynamic::ReadOnly) => Err(AlterError::InvalidRequest(format!(
            "Cannot update these configs dynamically: [{name}]"
        ))),
    }
}

fn not_a_list(target: Target, name: &str, op: ConfigOp) -> AlterError {
    let verb = if op == ConfigOp::Append {
        "append"
    } else {
        "subtract"
    };
    AlterError::InvalidConfig(match target {
        Target::Broker | Target::AllBrokers => {
            format!("Config value {verb} is not allowed for config key: {name}")
        }
        Target::Topic | Target::Group | Target::ClientMetrics => {
            let verb = verb.to_uppercase();
            format!("Can't {verb} to key {name} because its type is not LIST.")
        }
    })
}

fn canonical(target: Target, option: &OptionSpec, value: &str) -> Result<String, AlterError> {
    option
        .canonical(value)
        .map_err(|_| target.refuse(refusal(option, value)))
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
                    "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                    topic.min_compaction_lag_ms, topic.max_compaction_lag_ms
                )));
            }
            if overrides
                .get("remote.storage.enable")
                .is_some_and(|value| value == "true")
            {
                return Err(AlterError::InvalidConfig(
                    "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote \
                     log storage."
                        .to_owned(),
                ));
            }
            Ok(())
        }
        Target::ClientMetrics => check_client_metrics(overrides),
        Target::Group => groups::check_group(overrides, live).map_err(AlterError::InvalidConfig),
        Target::Broker | Target::AllBrokers => {
            let altered = if target == Target::Broker {
                live.altered(live.cluster().clone(), overrides.clone())
            } else {
                live.altered(overrides.clone(), live.broker().clone())
            };
            match BrokerConfig::new(altered) {
                Ok(_) => Ok(()),
                Err(error) => Err(AlterError::InvalidRequest(error.to_string())),
            }
        }
    }
}

/// What a client metrics subscription can ask of clients by (KIP-714).
const CLIENT_MATCHES: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Holds a subscription's interval in its bounds, and its patterns for what they match.
fn check_client_metrics(overrides: &Overrides) -> Result<(), AlterError> {
    let interval = overrides
        .get("interval.ms")
        .and_then(|value| value.parse::<i32>().ok());
    if let Some(interval) = interval.filter(|interval| !(100..=3_600_000).contains(interval)) {
        return Err(AlterError::InvalidRequest(format!(
            "Invalid value {interval} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
        )));
    }
    let patterns = overrides.get("match").map_or("", String::as_str);
    for pattern in split_list(patterns) {
        let sound = pattern.split_once('=').is_some_and(|(what, expression)| {
            CLIENT_MATCHES.contains(&what.trim())
                && !expression.contains('=')
                && drumlin_coordinator::consumer::regex::compile(expression.trim()).is_ok()
        });
        if !sound {
            let what = format!("Illegal client matching pattern: {pattern}");
            return Err(AlterError::InvalidConfig(what));
        }
    }
    Ok(())
}
