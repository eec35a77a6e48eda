//! The static configuration: what the properties file, the environment and `--set` give, each later one
//! winning, checked against the table of options.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::error::{ConfigError, Origin};
use super::properties;
use super::spec::{Effect, OptionSpec};
use super::table;

/// What `serve` was given, unread.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// A properties file: its name, and its text.
    pub file: Option<(String, String)>,
    /// Environment variables, of which those that start with `KAFKA_` are read.
    pub environment: Vec<(String, String)>,
    /// The arguments of `--set`, in their order, each `key=value`.
    pub set: Vec<String>,
}

impl Sources {
    /// The process's own: reads the file that `--config` names, and the environment.
    pub fn of_process(config: Option<&Path>, set: Vec<String>) -> Result<Sources, ConfigError> {
        let file = config.map(|path| {
            let shown = path.display().to_string();
            match std::fs::read(path) {
                Ok(bytes) => Ok((shown, properties::decode(&bytes))),
                Err(error) => Err(ConfigError::Unreadable {
                    path: shown,
                    reason: error.to_string(),
                }),
            }
        });
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        Ok(Sources {
            file: file.transpose()?,
            environment,
            set,
        })
    }
}

/// A value that was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value in canonical form.
    pub value: String,
    /// Where it was given.
    pub origin: Origin,
}

/// The values that were given, by option.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, Setting>,
}

/// The static configuration with what the operator should be told about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub settings: Settings,
    /// One line each, to be logged once at start.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads all sources.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut settings = Settings::default();
        let mut warnings = Vec::new();
        if let Some((path, text)) = &sources.file {
            let at = |line| Origin::File {
                path: path.clone(),
                line,
            };
            let properties = properties::parse(text).map_err(|malformed| ConfigError::Malformed {
                origin: at(malformed.line),
                reason: malformed.reason,
            })?;
            for property in properties {
                settings.insert(&property.key, &property.value, at(property.line))?;
            }
        }
        // Sorted, so that two variables for one option give the same result on every machine.
        let environment: BTreeSet<&(String, String)> = sources.environment.iter().collect();
        for (variable, value) in environment {
            let Some(name) = option_of_variable(variable) else {
                continue;
            };
            match settings.insert(&name, value, Origin::Environment(variable.clone())) {
                Err(ConfigError::Unknown { nearest, .. }) => {
                    let hint = nearest
                        .map(|near| format!(" (near: `{near}`)"))
                        .unwrap_or_default();
                    warnings.push(format!(
                        "{variable} is ignored: there is no option `{name}`{hint}"
                    ));
                }
                Err(ConfigError::Removed { .. }) => {
                    warnings.push(format!("{variable} is ignored: Kafka 4 removed `{name}`"));
                }
                other => other?,
            }
        }
        for argument in &sources.set {
            let (name, value) = argument.split_once('=').ok_or_else(|| ConfigError::Malformed {
                origin: Origin::CommandLine,
                reason: format!("`{argument}` is not of the form key=value"),
            })?;
            settings.insert(name.trim(), value, Origin::CommandLine)?;
        }
        warnings.extend(settings.without_effect());
        Ok(Loaded { settings, warnings })
    }

    /// A configuration from a program: tests, simulation.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.insert(name.as_ref(), value.as_ref(), Origin::Program)?;
        }
        Ok(settings)
    }

    /// What was given for an option.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.values.get(name)
    }

    /// All that was given, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.values.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    fn insert(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        let option = match lookup(name) {
            Named::Option(option) => option,
            Named::PlugIn => {
                self.values.insert(
                    name.to_owned(),
                    Setting {
                        value: value.to_owned(),
                        origin,
                    },
                );
                return Ok(());
            }
            Named::Removed => {
                return Err(ConfigError::Removed {
                    name: name.to_owned(),
                    origin,
                });
            }
            Named::Nothing(nearest) => {
                return Err(ConfigError::Unknown {
                    name: name.to_owned(),
                    origin,
                    nearest,
                });
            }
        };
        match option.canonical(value) {
            Ok(value) => {
                self.values.insert(name.to_owned(), Setting { value, origin });
                Ok(())
            }
            Err(reason) => Err(ConfigError::Invalid {
                name: name.to_owned(),
                origin: Some(origin),
                reason,
            }),
        }
    }

    /// One line a reason, with the options that were given and have no effect for it.
    fn without_effect(&self) -> Vec<String> {
        let mut families: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for name in self.values.keys() {
            let (effect, reason) = match table::broker_option(name).map(|option| option.effect) {
                Some(Effect::Effective) => continue,
                Some(Effect::Kept(reason)) => ("no effect", reason),
                Some(Effect::Planned(reason)) => ("no effect yet", reason),
                None => (
                    "no effect",
                    "Options of single listeners and of plug-ins are kept only.",
                ),
            };
            families.entry((effect, reason)).or_default().push(name);
        }
        families
            .into_iter()
            .map(|((effect, reason), names)| format!("{effect}: {}. {reason}", names.join(", ")))
            .collect()
    }
}

/// Names that start like this belong to plug-ins, which know what they mean.
const PLUG_INS: &[&str] = &["config.providers.", "rlmm.config.", "rsm.config."];

/// Shows no value that must not be shown.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.values.iter().map(|(name, setting)| match lookup(name) {
            Named::Option(option) if !option.sensitive() => (name, setting.value.as_str()),
            _ => (name, "[hidden]"),
        });
        f.debug_map().entries(shown).finish()
    }
}

/// Options of Kafka 3 that a file from there may still have.
const REMOVED: &[&str] = &[
    "broker.id.generation.enable",
    "control.plane.listener.name",
    "inter.broker.protocol.version",
    "log.message.downconversion.enable",
    "log.message.format.version",
    "log.message.timestamp.difference.max.ms",
    "offsets.commit.required.acks",
    "password.encoder.secret",
    "reserved.broker.max.id",
];

/// What a name that was given stands for.
enum Named {
    /// This option, for all or for a single listener.
    Option(&'static OptionSpec),
    /// Something of a plug-in's own.
    PlugIn,
    /// An option of Kafka 3.
    Removed,
    /// Nothing that is known; the nearest option, if one is near.
    Nothing(Option<&'static str>),
}

fn lookup(name: &str) -> Named {
    if let Some(option) = table::broker_option(name) {
        return Named::Option(option);
    }
    if PLUG_INS.iter().any(|prefix| name.starts_with(prefix)) {
        return Named::PlugIn;
    }
    if REMOVED.contains(&name) || name.starts_with("zookeeper.") {
        return Named::Removed;
    }
    // listener.name.{listener}.{option}, or with a SASL mechanism between the two.
    let Some((_, inner)) = name
        .strip_prefix("listener.name.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return Named::Nothing(table::nearest_broker_option(name));
    };
    let beyond_mechanism = || table::broker_option(inner.split_once('.')?.1);
    match table::broker_option(inner).or_else(beyond_mechanism) {
        Some(option) => Named::Option(option),
        None => Named::Nothing(table::nearest_broker_option(inner)),
    }
}

/// `KAFKA_LOG_RETENTION_MS` → `log.retention.ms`, by the rule of Kafka's container images: one underscore is a
/// dot, two are an underscore, three a dash.
fn option_of_variable(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix("KAFKA_")?.to_lowercase();
    Some(
        rest.replace("___", "-")
            .replace("__", "\u{0}")
            .replace('_', ".")
            .replace('\u{0}', "_"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Loaded, ConfigError> {
        Settings::load(&Sources {
            file: Some(("server.properties".to_owned(), file.to_owned())),
            environment: environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            set: set.iter().map(|s| (*s).to_owned()).collect(),
        })
    }

    fn value(loaded: &Loaded, name: &str) -> Option<String> {
        loaded.settings.get(name).map(|setting| setting.value.clone())
    }

    #[test]
    fn later_sources_win() {
        let file = "num.partitions=2\nnum.partitions=3\nmessage.max.bytes = 1000 \nlog.retention.ms=5";
        let loaded = load(
            file,
            &[
                ("KAFKA_MESSAGE_MAX_BYTES", "2000"),
                ("KAFKA_LOG_RETENTION_MS", "6"),
            ],
            &["log.retention.ms=7"],
        )
        .unwrap();
        assert_eq!(value(&loaded, "num.partitions").as_deref(), Some("3"));
        assert_eq!(value(&loaded, "message.max.bytes").as_deref(), Some("2000"));
        assert_eq!(value(&loaded, "log.retention.ms").as_deref(), Some("7"));
        assert_eq!(value(&loaded, "node.id"), None);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn variables_follow_the_container_images() {
        for (variable, name) in [
            ("KAFKA_LISTENERS", Some("listeners")),
            ("KAFKA_STORE_URL", Some("store.url")),
            ("KAFKA_A_B__C___D", Some("a.b_c-d")),
            ("HOME", None),
        ] {
            assert_eq!(option_of_variable(variable).as_deref(), name);
        }
    }

    #[test]
    fn unknown_and_malformed_options_are_named() {
        let message = |result: Result<Loaded, ConfigError>| result.unwrap_err().to_string();
        assert_eq!(
            message(load("a=1", &[], &[])),
            "unknown option `a` (server.properties line 1)"
        );
        assert_eq!(
            message(load("#\nlog.retention.hour=1", &[], &[])),
            "unknown option `log.retention.hour` (server.properties line 2); did you mean `log.retention.hours`?"
        );
        assert_eq!(
            message(load("", &[], &["wal.flush.byte=1"])),
            "unknown option `wal.flush.byte` (--set); did you mean `wal.flush.bytes`?"
        );
        assert_eq!(
            message(load("", &[("KAFKA_NUM_PARTITIONS", "many")], &[])),
            "option `num.partitions` (environment variable KAFKA_NUM_PARTITIONS): \
             `many` is not a whole number from -2147483648 to 2147483647"
        );
        assert_eq!(
            message(load("", &[], &["num.partitions"])),
            "--set: `num.partitions` is not of the form key=value"
        );
        assert_eq!(
            message(load("listener.name.x.ssl.keystore.locatio=1", &[], &[])),
            "unknown option `listener.name.x.ssl.keystore.locatio` (server.properties line 1); \
             did you mean `ssl.keystore.location`?"
        );
        assert_eq!(
            message(load("zookeeper.connect=x:1", &[], &[])),
            "option `zookeeper.connect` (server.properties line 1) was removed in Kafka 4 and is not known here \
             either: delete it"
        );
        assert_eq!(
            message(load("a=\\u1", &[], &[])),
            "server.properties line 1: `\\u1` is not \\u and four hexadecimal digits"
        );
    }

    #[test]
    fn unknown_variables_only_warn() {
        let loaded = load(
            "",
            &[("KAFKA_HEAP_OPTS", "-Xmx1G"), ("KAFKA_NUM_PARTITION", "3")],
            &[],
        )
        .unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "KAFKA_HEAP_OPTS is ignored: there is no option `heap.opts`",
                "KAFKA_NUM_PARTITION is ignored: there is no option `num.partition` (near: `num.partitions`)",
            ]
        );
    }

    #[test]
    fn options_without_effect_are_kept_and_warned_about_once() {
        let loaded = load(
            "log.dirs=/tmp/a,/tmp/b\nlog.flush.interval.ms=5\nnum.io.threads=3\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=secret\nrsm.config.x=y\ngroup.share.max.size=5",
            &[("KAFKA_NUM_IO_THREADS", "4")],
            &[],
        )
        .unwrap();
        assert_eq!(value(&loaded, "log.dirs").as_deref(), Some("/tmp/a,/tmp/b"));
        assert_eq!(value(&loaded, "num.io.threads").as_deref(), Some("4"));
        assert_eq!(loaded.warnings.len(), 4, "{:?}", loaded.warnings);
        assert!(
            loaded
                .warnings
                .iter()
                .any(|w| w.starts_with("no effect: log.dirs, log.flush.interval.ms. The log"))
        );
        assert!(
            loaded
                .warnings
                .iter()
                .any(|w| w.starts_with("no effect yet: group.share.max.size. Share groups"))
        );
    }
}
