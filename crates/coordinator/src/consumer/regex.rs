//! Subscriptions by regular expression: `SubscribedTopicRegex` of heartbeat 1, resolved by the coordinator.
//!
//! Kafka compiles them with RE2J, and a topic's whole name must match. The `regex` crate has RE2's semantics
//! (no back references, no look-around, time linear in the name), but its syntax has a little more, and reads
//! a little of RE2's otherwise: [`compile`] translates what RE2 takes and refuses what RE2 refuses. Topic names are ASCII, so the classes that
//! the crate takes from Unicode match the same.
//!
//! As in Kafka all topics take part, the internal ones too; those that the member may not describe do not.
//! An expression is resolved when the first member comes with it, and all of a group's are resolved again by
//! a heartbeat, at most every ten seconds, when topics have changed or
//! `group.consumer.regex.refresh.interval.ms` is over (grants may have changed).

use std::collections::{BTreeMap, BTreeSet};

use drumlin_wire::Str;
use regex::{Regex, RegexBuilder};

use super::Context;
use super::group::ConsumerGroup;
use super::records::{Change, MAX_KEY_STRING, Resolved};
use crate::Record;

/// Kafka's REGEX_BATCH_REFRESH_MIN_INTERVAL_MS.
const MIN_REFRESH_MS: u64 = 10_000;
/// What an expression may take in memory when compiled. RE2J has no such bound; a topic name has at most
/// 249 bytes, so that nothing sensible comes near.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// RE2's bound for a counted repetition.
const MAX_REPEAT: u32 = 1_000;
/// The classes that have names.
const CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// The expression, to match whole names; or why it is none.
pub fn compile(expression: &str) -> Result<Regex, String> {
    if expression.len() > MAX_KEY_STRING {
        return Err("it is too long".to_owned());
    }
    let translated = translate(expression)?;
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes"),
                error => last_line(&error.to_string()),
            })
    };
    // Alone first: within the group below, `a)|(b` would be balanced.
    build(&translated)?;
    build(&format!(r"\A(?:{translated})\z"))
}

/// The crate draws a picture of several lines with the reason in the last.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or(text).trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// From RE2's syntax to the crate's.
fn translate(expression: &str) -> Result<String, String> {
    let mut translation = Translation {
        rest: expression,
        out: String::with_capacity(expression.len() + 16),
        names: BTreeSet::new(),
    };
    translation.run()?;
    Ok(translation.out)
}

struct Translation<'a> {
    rest: &'a str,
    out: String,
    /// Of groups: they must differ, and mean nothing here.
    names: BTreeSet<&'a str>,
}

impl<'a> Translation<'a> {
    fn run(&mut self) -> Result<(), String> {
        // Two repetitions one after the other are an error in RE2, and none in the crate.
        let mut repeated = false;
        while let Some(first) = self.rest.chars().next() {
            let before = self.out.len();
            match first {
                '\\' => {
                    self.escape(false)?;
                }
                '[' => self.class()?,
                '(' if self.rest.starts_with("(?") => self.group()?,
                '{' => self.repetition()?,
                _ => self.copy(first.len_utf8()),
            }
            let repeats = first != '\\' && self.out[before..].starts_with(['*', '+', '?', '{']);
            if repeats && repeated {
                return Err(format!("invalid nested repetition operator: `{first}`"));
            }
            repeated = repeats;
            if repeats && self.rest.starts_with('?') {
                self.copy(1);
            }
        }
        Ok(())
    }

    fn copy(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        self.out.push_str(taken);
        self.rest = rest;
    }

    /// The character itself, whatever it means to the crate.
    fn literal(&mut self, character: char) {
        self.out
            .push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
    }

    /// `\Q…\E` quotes, octal numbers are characters, and so is what is no letter or digit; other escapes are
    /// the same, but for those that only the crate has. Whether it stands for several characters.
    fn escape(&mut self, in_class: bool) -> Result<bool, String> {
        let after = &self.rest[1..];
        let Some(next) = after.chars().next() else {
            return Err("trailing backslash at end of expression".to_owned());
        };
        match next {
            'Q' if !in_class => {
                let quoted = &after[1..];
                let (literal, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
                self.out.push_str(&regex::escape(literal));
                self.rest = rest;
            }
            // A digit alone would be a back reference.
            '0'..='7' if next == '0' || after[1..].starts_with(|c| ('0'..='7').contains(&c)) => {
                let digits = after
                    .bytes()
                    .take(3)
                    .take_while(|b| (b'0'..=b'7').contains(b))
                    .count();
                let number = after[..digits]
                    .bytes()
                    .fold(0, |n, digit| n * 8 + u32::from(digit - b'0'));
                self.out.push_str(&format!(r"\x{{{number:X}}}"));
                self.rest = &after[digits..];
            }
            'p' | 'P' | 'x' if after[1..].starts_with('{') => {
                // These braces are no repetition.
                let end = after.find('}').map_or(after.len(), |at| at + 1);
                self.copy(1 + end);
            }
            'u' | 'U' | 'Q' => return Err(format!(r"invalid escape sequence: `\{next}`")),
            'b' if after[1..].starts_with('{') => return Err("invalid escape sequence: `\\b{`".to_owned()),
            _ if !next.is_ascii_alphanumeric() => {
                self.literal(next);
                self.rest = &after[next.len_utf8()..];
            }
            _ => self.copy(2),
        }
        Ok(matches!(next, 'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'p' | 'P'))
    }

    /// In RE2 a class has no operators and no classes in it but `[:name:]`: `[`, `&&`, `--` and `~~` are the
    /// characters themselves, or the ends of ranges.
    fn class(&mut self) -> Result<(), String> {
        let start = self.rest;
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut first = true;
        while let Some(next) = self.rest.chars().next() {
            if next == ']' && !first {
                self.copy(1);
                return Ok(());
            }
            first = false;
            let named = self.rest.strip_prefix("[:").and_then(|rest| rest.find(":]"));
            if let Some(length) = named {
                self.named_class(length)?;
                continue;
            }
            let several = self.member(next)?;
            let ranges = self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]");
            if !several && ranges {
                self.copy(1);
                if let Some(end) = self.rest.chars().next() {
                    self.member(end)?;
                }
            }
        }
        Err(format!("missing closing ]: `{start}`"))
    }

    /// One member of a class. Whether it stands for several characters.
    fn member(&mut self, next: char) -> Result<bool, String> {
        if next == '\\' {
            return self.escape(true);
        }
        self.literal(next);
        self.rest = &self.rest[next.len_utf8()..];
        Ok(false)
    }

    fn named_class(&mut self, length: usize) -> Result<(), String> {
        let end = 2 + length + 2;
        let name = &self.rest[2..2 + length];
        if !CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("invalid character class range: `{}`", &self.rest[..end]));
        }
        self.copy(end);
        Ok(())
    }

    /// `(?P<name>`, `(?<name>`, and `(?flags)` or `(?flags:` with RE2's flags.
    fn group(&mut self) -> Result<(), String> {
        let inside = &self.rest[2..];
        if let Some(named) = inside.strip_prefix("P<").or(inside.strip_prefix('<')) {
            let (name, rest) = named.split_once('>').ok_or("invalid named capture")?;
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) || !self.names.insert(name) {
                return Err(format!("invalid named capture: `{name}`"));
            }
            self.out.push('(');
            self.rest = rest;
            return Ok(());
        }
        let flags = inside.split([':', ')']).next().unwrap_or_default();
        if !flags.chars().all(|flag| "imsU-".contains(flag)) {
            return Err(format!("invalid or unsupported Perl syntax: `(?{flags}`"));
        }
        match self.rest.strip_prefix("(?)") {
            Some(rest) => self.rest = rest,
            None => self.copy(2),
        }
        Ok(())
    }

    /// `{n}`, `{n,}` and `{n,m}` repeat; any other brace is itself.
    fn repetition(&mut self) -> Result<(), String> {
        let number = |text: &str| -> Option<u32> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().unwrap_or(u32::MAX))
        };
        let counts = self.rest[1..].split_once('}').and_then(|(inside, _)| {
            let (low, high) = inside.split_once(',').unwrap_or((inside, inside));
            let low = number(low)?;
            let high = if high.is_empty() { low } else { number(high)? };
            Some((low.max(high), inside.len() + 2))
        });
        match counts {
            Some((count, _)) if count > MAX_REPEAT => {
                return Err(format!("invalid repeat count: more than {MAX_REPEAT}"));
            }
            Some((_, length)) => self.copy(length),
            None => {
                self.literal('{');
                self.rest = &self.rest[1..];
            }
        }
        Ok(())
    }
}

impl ConsumerGroup {
    /// Resolves the expressions that are due: a new one at once, all of them when a refresh is due. Writes
    /// those whose topics have changed, and removes those that nobody is subscribed by any more. Whether what
    /// any expression matches has changed.
    pub(super) fn update_regexes(&mut self, ctx: &Context<'_>, records: &mut Vec<Record>) -> bool {
        let gone: Vec<Str> = self
            .state
            .regexes
            .keys()
            .filter(|regex| !self.state.regex_members.contains_key(*regex))
            .cloned()
            .collect();
        let mut changed = !gone.is_empty();
        for regex in gone {
            self.emit(Change::Regex(regex, None), records);
        }
        if self.state.regex_members.is_empty() {
            self.soft.resolved = None;
            return changed;
        }

        let refresh = self.refresh_is_due(ctx);
        let wanted = self.state.regex_members.keys();
        let due: Vec<Str> = wanted
            .filter(|regex| refresh || !self.state.regexes.contains_key(*regex))
            .cloned()
            .collect();
        if refresh {
            self.soft.resolved = Some((ctx.now.mono_ms, ctx.topics.version()));
        }
        if due.is_empty() {
            return changed;
        }
        for (regex, resolved) in self.resolve(ctx, &due) {
            let old = self.state.regexes.get(&regex);
            if old.is_some_and(|old| old.topics == resolved.topics) {
                continue;
            }
            changed |= old.is_none_or(|old| old.topics != resolved.topics);
            self.emit(Change::Regex(regex, Some(resolved)), records);
        }
        changed
    }

    /// The versions in records are another broker's, perhaps: after loading everything is resolved again.
    fn refresh_is_due(&self, ctx: &Context<'_>) -> bool {
        let Some((at, version)) = self.soft.resolved else {
            return true;
        };
        let since = ctx.now.mono_ms.saturating_sub(at);
        let interval = u64::try_from(ctx.config.consumer_regex_refresh_interval_ms).unwrap_or(0);
        since >= MIN_REFRESH_MS && (version != ctx.topics.version() || since > interval)
    }

    fn resolve(&self, ctx: &Context<'_>, expressions: &[Str]) -> BTreeMap<Str, Resolved> {
        let empty = Resolved {
            version: i64::try_from(ctx.topics.version()).unwrap_or(i64::MAX),
            timestamp: ctx.now.wall_ms,
            ..Resolved::default()
        };
        let mut compiled = Vec::with_capacity(expressions.len());
        let mut resolved = BTreeMap::new();
        for expression in expressions {
            resolved.insert(expression.clone(), empty.clone());
            // Checked when it came; one that another broker accepted and this one does not matches nothing.
            match compile(expression) {
                Ok(regex) => compiled.push((expression, regex)),
                Err(error) => {
                    tracing::warn!(group = %self.id, %expression, error, "regular expression is ignored");
                }
            }
        }
        for topic in ctx.topics.names() {
            let mut matching = compiled
                .iter()
                .filter(|(_, regex)| regex.is_match(&topic))
                .peekable();
            if matching.peek().is_none() || !(ctx.may_describe)(&topic) {
                continue;
            }
            for (expression, _) in matching {
                if let Some(resolved) = resolved.get_mut(*expression) {
                    resolved.topics.insert(topic.detach());
                }
            }
        }
        resolved
    }
}

#[cfg(test)]
mod tests {
    use super::compile;

    fn matches(expression: &str, topic: &str) -> bool {
        compile(expression)
            .unwrap_or_else(|e| panic!("{expression}: {e}"))
            .is_match(topic)
    }

    #[test]
    fn whole_names_match() {
        assert!(matches("orders-.*", "orders-eu"));
        assert!(!matches("orders", "orders-eu"));
        assert!(!matches("eu", "orders-eu"));
        assert!(matches("a|ab", "ab"), "not the leftmost alternative alone");
        assert!(matches("", ""));
        assert!(!matches("^$", "x"));
        assert!(matches("(?i)ORDERS", "orders"));
        assert!(matches("(?:a|b)+", "abba"));
        assert!(matches("(?P<name>x)(?<other>y)", "xy"));
    }

    #[test]
    fn re2_syntax_is_read_as_re2_reads_it() {
        assert!(matches(r"\Qa.b[\E.", "a.b[x"));
        assert!(!matches(r"\Qa.b\E", "axb"));
        assert!(matches(r"\Q*", "*"));
        assert!(matches("[[]", "["));
        assert!(matches("[a[b]+", "a[b"));
        assert!(matches("[a&&b]+", "a&b"));
        assert!(matches("[]a]+", "]a"));
        assert!(matches("[^]a]", "b"));
        assert!(matches("[a-]+", "-a"));
        assert!(matches("[[:alpha:]_]+", "ab_"));
        assert!(matches("[[:^alpha:]]+", "12"));
        assert!(matches("a{,2}", "a{,2}"), "not a repetition in RE2");
        assert!(matches("a{x}", "a{x}"));
        assert!(matches("a{2,3}", "aaa"));
        assert!(matches("a+?b*?c??d{1,2}?", "aad"));
        assert!(matches(r"\**", "**"));
        assert!(matches(r"\d+\.\w*", "12.ab"));
        assert!(matches(r"[\d\-x]+", "1-x"));
        assert!(matches(r"\p{Lu}[\p{Ll}]\x{41}\x41", "XyAA"));
    }

    proptest::proptest! {
        /// Whatever a client sends is an expression or an error.
        #[test]
        fn anything(expression in r"[a-c\[\](){}|*+?.^$:,<>=!&~0-9QEpPxdDbBiüsU\\-]{0,16}") {
            let _ = compile(&expression);
        }
    }

    /// What RE2J 1.8, which Kafka 4.3.1 has, gave for each expression: an error, or which of these it matches.
    #[test]
    fn as_re2j() {
        let names = [
            "",
            "a",
            "aa",
            "aaa",
            "ab",
            "a-b",
            "a.b",
            "A",
            "orders-eu",
            "orders.us",
            "_x",
            "x1",
            "12",
            "[",
            "a[b",
            "a&b",
            "a{2}",
            "{",
            "]",
            "a]",
            "-",
            "a{,2}",
            "t-",
            "^a",
            "\\",
            "*",
            "a\\b",
        ];
        for line in include_str!("tests/re2j.txt").lines() {
            let (expected, expression) = line.split_once(' ').expect("a result and an expression");
            let found = match compile(expression) {
                Err(_) => "error".to_owned(),
                Ok(regex) => names
                    .iter()
                    .map(|n| if regex.is_match(n) { '1' } else { '0' })
                    .collect(),
            };
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for expression in [
            "[",
            "(",
            ")",
            "a)|(b",
            "*",
            "a**b(",
            r"\",
            r"(a)\1",
            "(?=a)",
            "(?!a)",
            "(?<=a)b",
            "(?x)a b",
            "(?u)a",
            "a{1001}",
            "a{1,2000}",
            "[b-a]",
            r"\y",
            "(?P=n)",
            "[[:nope:]]",
            "a**",
            "a+*",
            "a{2}*",
            "a???",
        ] {
            assert!(compile(expression).is_err(), "{expression}");
        }
        assert!(compile(&"a".repeat(40_000)).is_err());
        assert!(compile("((a{1000}){1000}){1000}").is_err(), "memory is bounded");
        let error = compile("(a").expect_err("unclosed");
        assert!(!error.contains('\n'), "{error}");
    }
}
