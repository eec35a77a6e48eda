//! The configuration in force: the static one under what was altered while running.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::error::{ConfigError, Origin};
use super::settings::Settings;
use super::spec::OptionSpec;
use super::table;

/// Altered values by option, in canonical form: of a topic, of a broker, or of all brokers.
pub type Overrides = BTreeMap<String, String>;

/// Where a value in force comes from, with the codes of DescribeConfigs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i8)]
pub enum ConfigSource {
    /// Altered for the topic.
    Topic = 1,
    /// Altered for this broker.
    DynamicBroker = 2,
    /// Altered for all brokers.
    DynamicDefaultBroker = 3,
    /// Given at start.
    StaticBroker = 4,
    /// The option's default.
    Default = 5,
    /// Altered for the client metrics subscription.
    ClientMetrics = 7,
    /// Altered for the group.
    Group = 8,
}

impl ConfigSource {
    /// `config_source` in a DescribeConfigs response.
    pub fn wire_code(self) -> i8 {
        self as i8
    }
}

/// One level that gives a value to an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Level {
    /// The option at this level: the option itself, or a synonym.
    pub name: &'static str,
    /// The value as it was given there.
    pub value: String,
    /// What it is in the unit of the option that was asked for.
    pub converted: String,
    /// Which level.
    pub source: ConfigSource,
}

/// The static configuration, and what was altered for this broker and for all. Cheap to clone.
#[derive(Clone, Default)]
pub struct Live {
    settings: Arc<Settings>,
    cluster: Arc<Overrides>,
    broker: Arc<Overrides>,
}

impl Live {
    /// Nothing altered yet.
    pub fn new(settings: Settings) -> Live {
        Live {
            settings: Arc::new(settings),
            cluster: Arc::default(),
            broker: Arc::default(),
        }
    }

    /// The same static configuration under other alterations: those for all brokers, and those for this one.
    pub fn altered(&self, cluster: Overrides, broker: Overrides) -> Live {
        Live {
            settings: self.settings.clone(),
            cluster: Arc::new(cluster),
            broker: Arc::new(broker),
        }
    }

    /// The static configuration.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was altered for all brokers.
    pub fn cluster(&self) -> &Overrides {
        &self.cluster
    }

    /// What was altered for this broker.
    pub fn broker(&self) -> &Overrides {
        &self.broker
    }

    /// Where the static value of an option was given.
    pub fn origin(&self, name: &str) -> Option<Origin> {
        self.settings.get(name).map(|setting| setting.origin.clone())
    }

    /// The error that an option's value is refused with.
    pub(super) fn invalid(&self, name: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            name: name.to_owned(),
            origin: self.origin(name),
            reason: reason.into(),
        }
    }

    /// The levels that give a broker option its value, the strongest first.
    pub fn broker_levels(&self, option: &'static OptionSpec) -> Vec<Level> {
        self.levels(&[(option.name, 1)])
    }

    /// The levels that give a topic option its value, the strongest first.
    pub fn topic_levels(&self, option: &'static OptionSpec, overrides: &Overrides) -> Vec<Level> {
        self.resource_levels(option, overrides, ConfigSource::Topic)
    }

    /// The levels that give a group option its value, the strongest first.
    pub fn group_levels(&self, option: &'static OptionSpec, overrides: &Overrides) -> Vec<Level> {
        self.resource_levels(option, overrides, ConfigSource::Group)
    }

    /// The levels that give an option of a client metrics subscription its value.
    pub fn client_metrics_levels(&self, option: &'static OptionSpec, overrides: &Overrides) -> Vec<Level> {
        self.resource_levels(option, overrides, ConfigSource::ClientMetrics)
    }

    fn resource_levels(
        &self,
        option: &'static OptionSpec,
        overrides: &Overrides,
        source: ConfigSource,
    ) -> Vec<Level> {
        let mut levels = Vec::new();
        if let Some(value) = overrides
            .get(option.name)
            .and_then(|raw| option.canonical(raw).ok())
        {
            levels.push(Level {
                name: option.name,
                converted: value.clone(),
                value,
                source,
            });
        }
        levels.extend(self.levels(option.synonyms));
        levels
    }

    /// A broker option's value in force; `None` where it has none.
    pub fn value(&self, name: &str) -> Option<String> {
        let option = table::broker_option(name)?;
        self.broker_levels(option)
            .into_iter()
            .next()
            .map(|level| level.converted)
    }

    fn levels(&self, synonyms: &[(&'static str, i64)]) -> Vec<Level> {
        let mut levels = Vec::new();
        let known: Vec<_> = synonyms
            .iter()
            .filter_map(|(name, factor)| Some((table::broker_option(name)?, *factor)))
            .collect();
        for source in [
            ConfigSource::DynamicBroker,
            ConfigSource::DynamicDefaultBroker,
            ConfigSource::StaticBroker,
            ConfigSource::Default,
        ] {
            for (option, factor) in &known {
                let given = match source {
                    ConfigSource::DynamicBroker => self.broker.get(option.name).map(String::as_str),
                    ConfigSource::DynamicDefaultBroker => self.cluster.get(option.name).map(String::as_str),
                    ConfigSource::StaticBroker => self
                        .settings
                        .get(option.name)
                        .map(|setting| setting.value.as_str()),
                    _ => option.default,
                };
                // What another version altered and this one cannot read must not stop a broker.
                let Some(value) = given.and_then(|raw| option.canonical(raw).ok()) else {
                    continue;
                };
                let converted = convert(&value, *factor);
                levels.push(Level {
                    name: option.name,
                    value,
                    converted,
                    source,
                });
            }
        }
        levels
    }
}

/// What was altered is told by name only: values may be secrets.
impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |overrides: &Overrides| overrides.keys().cloned().collect::<Vec<String>>();
        f.debug_struct("Live")
            .field("settings", &self.settings)
            .field("cluster", &names(&self.cluster))
            .field("broker", &names(&self.broker))
            .finish()
    }
}

/// A synonym's value in the option's unit. Negative values mean "none" in every unit.
fn convert(value: &str, factor: i64) -> String {
    match value.parse::<i64>() {
        Ok(number) if factor != 1 && number < 0 => "-1".to_owned(),
        Ok(number) if factor != 1 => number.saturating_mul(factor).to_string(),
        _ => value.to_owned(),
    }
}
