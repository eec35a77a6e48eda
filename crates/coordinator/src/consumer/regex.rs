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

use std::collections::BTreeMap;

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
    let mut out = String::with_capacity(expression.len() + 16);
    let mut rest = expression;
    // Two repetitions one after the other are an error in RE2, and none in the crate.
    let mut repeated = false;
    while let Some(first) = rest.chars().next() {
        let before = out.len();
        match first {
            '\\' => rest = escape(rest, &mut out)?,
            '[' => rest = class(rest, &mut out)?,
            '(' if rest.starts_with("(?") => rest = group(rest, &mut out)?,
            '{' => rest = repetition(rest, &mut out)?,
            _ => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        let repeats = first != '\\' && out[before..].starts_with(['*', '+', '?', '{']);
        if repeats && repeated {
            return Err(format!("invalid nested repetition operator: `{first}`"));
        }
        repeated = repeats;
        if repeats && let Some(lazy) = rest.strip_prefix('?') {
            out.push('?');
            rest = lazy;
        }
    }
    Ok(out)
}

/// `\Q…\E` quotes; other escapes are the same, but for those that only the crate has.
fn escape<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let after = &rest[1..];
    if let Some(quoted) = after.strip_prefix('Q') {
        let (literal, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
        out.push_str(&regex::escape(literal));
        return Ok(rest);
    }
    let Some(next) = after.chars().next() else {
        return Err("trailing backslash at end of expression".to_owned());
    };
    if matches!(next, '<' | '>' | 'u' | 'U') || (next == 'b' && after[1..].starts_with('{')) {
        return Err(format!("invalid escape sequence: `\\{next}`"));
    }
    out.push('\\');
    // The braces of `\p{Greek}` and `\x{41}` are no repetition.
    let braced = matches!(next, 'p' | 'P' | 'x') && after[1..].starts_with('{');
    let end = if braced {
        after.find('}').map(|at| at + 1)
    } else {
        None
    };
    let (taken, rest) = after.split_at(end.unwrap_or(next.len_utf8()));
    out.push_str(taken);
    Ok(rest)
}

/// In RE2 a class has no operators and no classes in it but `[:name:]`: `[`, `&&`, `--` and `~~` are the
/// characters themselves.
fn class<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let start = rest;
    let mut rest = &rest[1..];
    out.push('[');
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    let mut first = true;
    while let Some(next) = rest.chars().next() {
        match next {
            ']' if !first => {
                out.push(']');
                return Ok(&rest[1..]);
            }
            '\\' => rest = escape(rest, out)?,
            '[' if rest.starts_with("[:") && rest.contains(":]") => {
                let end = rest.find(":]").map_or(rest.len(), |at| at + 2);
                let name = rest[2..end - 2].trim_start_matches('^');
                if !CLASSES.contains(&name) {
                    return Err(format!("invalid character class range: `{}`", &rest[..end]));
                }
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            '[' | ']' | '&' | '~' => {
                out.push('\\');
                out.push(next);
                rest = &rest[1..];
            }
            '-' if first || rest.starts_with("--") || rest.starts_with("-]") => {
                out.push_str(r"\-");
                rest = &rest[1..];
            }
            _ => {
                out.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        first = false;
    }
    Err(format!("missing closing ]: `{start}`"))
}

/// `(?P<name>`, `(?<name>` and `(?flags)` or `(?flags:` with RE2's flags.
fn group<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let named = rest.starts_with("(?P<") || rest.starts_with("(?<");
    if !named {
        let flags = rest[2..].split([':', ')']).next().unwrap_or_default();
        if !flags.chars().all(|flag| "imsU-".contains(flag)) {
            return Err(format!("invalid or unsupported Perl syntax: `(?{flags}`"));
        }
    }
    out.push_str("(?");
    Ok(&rest[2..])
}

/// `{n}`, `{n,}` and `{n,m}` repeat; any other brace is itself.
fn repetition<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let number = |text: &str| -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let counts = rest[1..].split_once('}').and_then(|(inside, _)| {
        let (low, high) = inside.split_once(',').unwrap_or((inside, inside));
        let low = number(low)?;
        Some((low, if high.is_empty() { low } else { number(high)? }))
    });
    match counts {
        Some((low, high)) if low > MAX_REPEAT || high > MAX_REPEAT => {
            Err(format!("invalid repeat count: more than {MAX_REPEAT}"))
        }
        Some(_) => {
            let end = rest.find('}').map_or(rest.len(), |at| at + 1);
            out.push_str(&rest[..end]);
            Ok(&rest[end..])
        }
        None => {
            out.push_str(r"\{");
            Ok(&rest[1..])
        }
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
            r"\<a",
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
