//! What is known about one option: type, default, valid values, effect; and the reading of its values.

use std::fmt;

/// Type of an option's value, as Kafka names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// 16-bit integer.
    Short,
    /// Floating-point number.
    Double,
    /// Text.
    String,
    /// Comma-separated text.
    List,
    /// Text that is never shown.
    Password,
    /// Name of a Java class.
    Class,
}

impl Kind {
    /// `type` of a config in a DescribeConfigs response.
    pub fn wire_code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }

    /// The kind in words, for tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Short => "short",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::List => "list",
            Kind::Password => "password",
            Kind::Class => "class",
        }
    }
}

/// Whether an option does anything here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It does what its documentation says.
    Effective,
    /// It is taken, kept and answered, and never will do anything, for this reason.
    Kept(&'static str),
    /// It is taken, kept and answered; what it is about does not exist yet.
    Planned(&'static str),
}

/// How an option can be changed while the broker runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dynamic {
    /// Only by a restart.
    ReadOnly,
    /// For a single broker.
    PerBroker,
    /// For a single broker, or for the whole cluster.
    ClusterWide,
}

/// Which values are valid, beyond those of the kind.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Check {
    /// All of the kind.
    Any,
    /// Integers from the first to the second, both included.
    Between(i64, i64),
    /// The same, and -1.
    BetweenOrMinusOne(i64, i64),
    /// Numbers from 0 to 1.
    Ratio,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of these words in upper or lower case.
    OneOfAnyCase(&'static [&'static str]),
    /// A list of these words.
    SubsetOf(&'static [&'static str]),
    /// Any text but none.
    NonEmpty,
    /// A list of `partition:broker` pairs, or `*` for all.
    ThrottledReplicas,
    /// `latest`, `earliest`, or `by_duration:` with a duration as ISO 8601 writes it.
    OffsetReset,
}

/// One option. Built by the constructors named after the kinds, and the methods after them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OptionSpec {
    /// Its name; Kafka's wherever Kafka has the option.
    pub name: &'static str,
    /// Type of its value.
    pub kind: Kind,
    /// Value where none is given, in canonical form; `None` for none.
    pub default: Option<&'static str>,
    /// Which values are valid.
    pub check: Check,
    /// How it can be changed.
    pub dynamic: Dynamic,
    /// Whether it does anything.
    pub effect: Effect,
    /// For a topic's option: the broker's options that give its default, the strongest first, each with the
    /// factor to the topic option's unit.
    pub synonyms: &'static [(&'static str, i64)],
    /// Taken, but neither listed nor described.
    pub hidden: bool,
    words: &'static str,
}

impl OptionSpec {
    const fn new(name: &'static str, kind: Kind) -> OptionSpec {
        OptionSpec {
            name,
            kind,
            default: None,
            check: Check::Any,
            dynamic: Dynamic::ReadOnly,
            effect: Effect::Effective,
            synonyms: &[],
            hidden: false,
            words: "",
        }
    }

    pub(super) const fn boolean(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::Boolean)
    }

    pub(super) const fn int(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::Int)
    }

    pub(super) const fn long(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::Long)
    }

    pub(super) const fn short(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::Short)
    }

    pub(super) const fn double(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::Double)
    }

    pub(super) const fn string(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::String)
    }

    pub(super) const fn list(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::List)
    }

    pub(super) const fn password(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::Password)
    }

    pub(super) const fn class(name: &'static str) -> OptionSpec {
        OptionSpec::new(name, Kind::Class)
    }

    pub(super) const fn default(mut self, value: &'static str) -> OptionSpec {
        self.default = Some(value);
        self
    }

    pub(super) const fn doc(mut self, words: &'static str) -> OptionSpec {
        self.words = words;
        self
    }

    pub(super) const fn kept(mut self, reason: &'static str) -> OptionSpec {
        self.effect = Effect::Kept(reason);
        self
    }

    pub(super) const fn planned(mut self, reason: &'static str) -> OptionSpec {
        self.effect = Effect::Planned(reason);
        self
    }

    pub(super) const fn per_broker(mut self) -> OptionSpec {
        self.dynamic = Dynamic::PerBroker;
        self
    }

    pub(super) const fn cluster_wide(mut self) -> OptionSpec {
        self.dynamic = Dynamic::ClusterWide;
        self
    }

    pub(super) const fn synonyms(mut self, synonyms: &'static [(&'static str, i64)]) -> OptionSpec {
        self.synonyms = synonyms;
        self
    }

    pub(super) const fn hidden(mut self) -> OptionSpec {
        self.hidden = true;
        self
    }

    const fn checked(mut self, check: Check) -> OptionSpec {
        self.check = check;
        self
    }

    pub(super) const fn at_least(self, low: i64) -> OptionSpec {
        self.checked(Check::Between(low, i64::MAX))
    }

    pub(super) const fn between(self, low: i64, high: i64) -> OptionSpec {
        self.checked(Check::Between(low, high))
    }

    pub(super) const fn between_or_minus_one(self, low: i64, high: i64) -> OptionSpec {
        self.checked(Check::BetweenOrMinusOne(low, high))
    }

    pub(super) const fn ratio(self) -> OptionSpec {
        self.checked(Check::Ratio)
    }

    pub(super) const fn one_of(self, words: &'static [&'static str]) -> OptionSpec {
        self.checked(Check::OneOf(words))
    }

    pub(super) const fn one_of_any_case(self, words: &'static [&'static str]) -> OptionSpec {
        self.checked(Check::OneOfAnyCase(words))
    }

    pub(super) const fn subset_of(self, words: &'static [&'static str]) -> OptionSpec {
        self.checked(Check::SubsetOf(words))
    }

    pub(super) const fn non_empty(self) -> OptionSpec {
        self.checked(Check::NonEmpty)
    }

    pub(super) const fn throttled_replicas(self) -> OptionSpec {
        self.checked(Check::ThrottledReplicas)
    }

    pub(super) const fn offset_reset(self) -> OptionSpec {
        self.checked(Check::OffsetReset)
    }

    /// What it means, in a sentence or two; for one without effect, why it has none.
    pub fn meaning(&self) -> &'static str {
        match self.effect {
            Effect::Effective => self.words,
            Effect::Kept(reason) | Effect::Planned(reason) => reason,
        }
    }

    /// True for a value that must never be shown.
    pub fn sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Unit of its value, empty for none. It follows from the name.
    pub fn unit(&self) -> &'static str {
        if self.name.contains("bytes.per.second") {
            return "bytes/s";
        }
        if self.name.ends_with("per.second") {
            return "1/s";
        }
        if self.check == Check::Ratio {
            return "0–1";
        }
        if !matches!(self.kind, Kind::Int | Kind::Long | Kind::Short | Kind::Double) {
            return "";
        }
        if self.name.ends_with("buffer.size") || self.name.ends_with("receive.size") {
            return "bytes";
        }
        for word in self.name.rsplit('.') {
            match word {
                "ms" | "millis" => return "ms",
                "secs" | "seconds" => return "s",
                "minutes" => return "min",
                "hours" => return "h",
                "bytes" => return "bytes",
                _ => {}
            }
        }
        ""
    }

    /// Reads a value and gives it in the one form in which it is kept and answered, or says what is wrong
    /// with it.
    pub fn canonical(&self, raw: &str) -> Result<String, String> {
        let text = raw.trim();
        let wrong = |what: &str| Err(format!("`{}` is not {what}", self.shown(raw)));
        match self.kind {
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" => Ok("true".to_owned()),
                "false" => Ok("false".to_owned()),
                _ => wrong("true or false"),
            },
            Kind::Short => self.integer(text, i16::MIN.into(), i16::MAX.into()),
            Kind::Int => self.integer(text, i32::MIN.into(), i32::MAX.into()),
            Kind::Long => self.integer(text, i64::MIN, i64::MAX),
            Kind::Double => match text.parse::<f64>() {
                Ok(number) if self.check == Check::Ratio && !(0.0..=1.0).contains(&number) => {
                    wrong("a number from 0 to 1")
                }
                Ok(number) if number.is_finite() => Ok(text.to_owned()),
                _ => wrong("a number"),
            },
            Kind::List => self.list_value(text),
            Kind::Password => Ok(raw.to_owned()),
            Kind::String | Kind::Class => self.word(text),
        }
    }

    fn shown<'a>(&self, raw: &'a str) -> &'a str {
        if self.sensitive() { "[hidden]" } else { raw }
    }

    fn integer(&self, text: &str, low: i64, high: i64) -> Result<String, String> {
        let number: i64 = text
            .parse()
            .ok()
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| {
                let bounds = if self.kind == Kind::Long {
                    String::new()
                } else {
                    format!(" from {low} to {high}")
                };
                format!("`{text}` is not a whole number{bounds}")
            })?;
        let (fits, expected) = match self.check {
            Check::Between(low, i64::MAX) => (number >= low, format!("at least {low}")),
            Check::Between(low, high) => ((low..=high).contains(&number), format!("from {low} to {high}")),
            Check::BetweenOrMinusOne(low, high) => (
                number == -1 || (low..=high).contains(&number),
                format!("from {low} to {high}, or -1"),
            ),
            _ => (true, String::new()),
        };
        if fits {
            Ok(number.to_string())
        } else {
            Err(format!("{number} is out of range: it must be {expected}"))
        }
    }

    fn word(&self, text: &str) -> Result<String, String> {
        let expected = |words: &[&str]| Err(format!("`{text}` is not one of {}", words.join(", ")));
        match self.check {
            Check::OneOf(words) if !words.contains(&text) => expected(words),
            Check::OneOfAnyCase(words) if !words.iter().any(|word| word.eq_ignore_ascii_case(text)) => {
                expected(words)
            }
            Check::NonEmpty if text.is_empty() => Err("it must not be empty".to_owned()),
            Check::OffsetReset if !is_offset_reset(text) => Err(format!(
                "`{text}` is none of latest, earliest, by_duration:PnDTnHnMn.nS"
            )),
            _ => Ok(text.to_owned()),
        }
    }

    fn list_value(&self, text: &str) -> Result<String, String> {
        // Kafka drops items that come again too (KIP-1161).
        let mut items: Vec<&str> = Vec::new();
        for item in split_list(text) {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        if self.check == Check::ThrottledReplicas && items != ["*"] {
            let is_pair = |item: &&str| {
                item.split_once(':')
                    .is_some_and(|(partition, broker)| [partition, broker].map(is_digits) == [true; 2])
            };
            if let Some(wrong) = items.iter().find(|item| !is_pair(item)) {
                return Err(format!("`{wrong}` is not of the form partition:broker"));
            }
        }
        for item in &items {
            if item.is_empty() {
                return Err(format!("`{text}` has an empty item"));
            }
            if let Check::SubsetOf(words) = self.check
                && !words.contains(item)
            {
                return Err(format!("`{item}` is not one of {}", words.join(", ")));
            }
        }
        Ok(items.join(","))
    }

    /// Valid values in words, empty where the kind says it all.
    pub fn valid_values(&self) -> String {
        match self.check {
            Check::Any => String::new(),
            Check::Between(low, i64::MAX) => format!("≥ {low}"),
            Check::Between(low, high) if high == i64::from(i32::MAX) => format!("≥ {low}"),
            Check::Between(low, high) => format!("{low} … {high}"),
            Check::BetweenOrMinusOne(low, high) => format!("{low} … {high}, -1"),
            Check::Ratio => "0 … 1".to_owned(),
            Check::OneOf(words) | Check::OneOfAnyCase(words) | Check::SubsetOf(words) => words.join(", "),
            Check::NonEmpty => "not empty".to_owned(),
            Check::ThrottledReplicas => "partition:broker, …, or *".to_owned(),
            Check::OffsetReset => "latest, earliest, by_duration:PnDTnHnMn.nS".to_owned(),
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// True for what a share group may begin to read at (KIP-932).
fn is_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => is_duration(duration),
        None => matches!(text.to_ascii_lowercase().as_str(), "latest" | "earliest"),
    }
}

/// True for a positive duration of days, hours, minutes and seconds, in this order, with at least one of them.
fn is_duration(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let Some(rest) = text.strip_prefix('P') else {
        return false;
    };
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return false,
        None => (rest, ""),
    };
    if days.is_empty() && time.is_empty() {
        return false;
    }
    let mut rest = time;
    for unit in ["H", "M", "S"] {
        if let Some((number, after)) = rest.split_once(unit) {
            let whole = if unit == "S" {
                number.replacen('.', "", 1)
            } else {
                number.to_owned()
            };
            if !is_digits(&whole) {
                return false;
            }
            rest = after;
        }
    }
    rest.is_empty() && (days.is_empty() || days.strip_suffix('D').is_some_and(is_digits))
}

/// The items of a list value, trimmed; none for an empty one.
pub fn split_list(text: &str) -> Vec<&str> {
    if text.trim().is_empty() {
        Vec::new()
    } else {
        text.split(',').map(str::trim).collect()
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Effective => "yes",
            Effect::Kept(_) => "none",
            Effect::Planned(_) => "not yet",
        })
    }
}

impl fmt::Display for Dynamic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dynamic::ReadOnly => "read-only",
            Dynamic::PerBroker => "per broker",
            Dynamic::ClusterWide => "cluster-wide",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_one_form() {
        assert_eq!(
            OptionSpec::boolean("a").canonical(" TRUE "),
            Ok("true".to_owned())
        );
        assert_eq!(OptionSpec::int("a").canonical(" +007 "), Ok("7".to_owned()));
        assert_eq!(OptionSpec::list("a").canonical(" x , y"), Ok("x,y".to_owned()));
        assert_eq!(OptionSpec::list("a").canonical("x,y,x"), Ok("x,y".to_owned()));
        for replicas in ["*", "", "0:1", "0:1,12:2"] {
            let option = OptionSpec::list("a").throttled_replicas();
            assert_eq!(option.canonical(replicas), Ok(replicas.to_owned()));
        }
        for reset in ["latest", "earliest", "by_duration:P1D", "by_duration:PT1H2.5S"] {
            let option = OptionSpec::string("a").offset_reset();
            assert_eq!(option.canonical(reset), Ok(reset.to_owned()));
        }
        assert_eq!(OptionSpec::list("a").canonical(""), Ok(String::new()));
        assert_eq!(OptionSpec::double("a").canonical("0.5"), Ok("0.5".to_owned()));
        assert_eq!(OptionSpec::string("a").canonical(" x "), Ok("x".to_owned()));
        assert_eq!(OptionSpec::password("a").canonical(" x "), Ok(" x ".to_owned()));
    }

    #[test]
    fn wrong_values_are_told() {
        for (option, raw, message) in [
            (OptionSpec::boolean("a"), "yes", "`yes` is not true or false"),
            (
                OptionSpec::int("a"),
                "2147483648",
                "`2147483648` is not a whole number from -2147483648 to 2147483647",
            ),
            (
                OptionSpec::int("a"),
                "",
                "`` is not a whole number from -2147483648 to 2147483647",
            ),
            (OptionSpec::long("a"), "1k", "`1k` is not a whole number"),
            (
                OptionSpec::int("a").at_least(1),
                "0",
                "0 is out of range: it must be at least 1",
            ),
            (
                OptionSpec::int("a").between_or_minus_one(1, 9),
                "0",
                "0 is out of range: it must be from 1 to 9, or -1",
            ),
            (
                OptionSpec::double("a").ratio(),
                "1.5",
                "`1.5` is not a number from 0 to 1",
            ),
            (OptionSpec::double("a"), "NaN", "`NaN` is not a number"),
            (
                OptionSpec::string("a").one_of(&["x", "y"]),
                "z",
                "`z` is not one of x, y",
            ),
            (
                OptionSpec::list("a").subset_of(&["x", "y"]),
                "x,z",
                "`z` is not one of x, y",
            ),
            (OptionSpec::list("a"), "x,,y", "`x,,y` has an empty item"),
            (
                OptionSpec::list("a").throttled_replicas(),
                "0:1,*",
                "`*` is not of the form partition:broker",
            ),
            (
                OptionSpec::string("a").offset_reset(),
                "by_duration:1h",
                "`by_duration:1h` is none of latest, earliest, by_duration:PnDTnHnMn.nS",
            ),
            (OptionSpec::string("a").non_empty(), " ", "it must not be empty"),
        ] {
            assert_eq!(option.canonical(raw), Err(message.to_owned()), "{raw}");
        }
    }

    #[test]
    fn units_follow_from_names() {
        for (name, unit) in [
            ("log.retention.hours", "h"),
            ("log.retention.ms", "ms"),
            ("message.max.bytes", "bytes"),
            ("offsets.load.buffer.size", "bytes"),
            ("quota.window.size.seconds", "s"),
            ("log.cleaner.io.max.bytes.per.second", "bytes/s"),
            ("wal.puts.per.second", "1/s"),
            ("metadata.log.max.record.bytes.between.snapshots", "bytes"),
            ("max.connections", ""),
        ] {
            assert_eq!(OptionSpec::long(name).unit(), unit, "{name}");
        }
    }
}
