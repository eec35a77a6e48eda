//! The table of options for people: the text of `drumlin config`, and the page in the docs.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::spec::{Effect, OptionSpec};
use super::table;

/// Options of one chapter.
struct Chapter {
    title: &'static str,
    options: Vec<&'static OptionSpec>,
}

/// Options that do something, by chapter.
fn chapters() -> [Chapter; 4] {
    let effective = |options: &[&'static OptionSpec]| -> Vec<&'static OptionSpec> {
        options
            .iter()
            .copied()
            .filter(|o| !o.hidden && o.effect == Effect::Effective)
            .collect()
    };
    let (own, kafka) = effective(table::broker_options())
        .into_iter()
        .partition(|o| table::is_own(o));
    [
        Chapter {
            title: "Drumlin's own options",
            options: own,
        },
        Chapter {
            title: "Kafka's broker options",
            options: kafka,
        },
        Chapter {
            title: "Topic options",
            options: effective(table::topic_options()),
        },
        Chapter {
            title: "Group options",
            options: effective(table::group_options()),
        },
    ]
}

/// A family of options without effect: whether that will change, and why.
type Family = (&'static str, &'static str);

/// Options without effect, by family, each with what it is an option of.
fn families() -> BTreeMap<Family, Vec<(&'static OptionSpec, &'static str)>> {
    let mut families: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (options, whose) in [
        (table::broker_options(), "broker"),
        (table::topic_options(), "topic"),
        (table::group_options(), "group"),
        (table::client_metrics_options(), "client metrics"),
    ] {
        for option in options.iter().filter(|option| !option.hidden) {
            let family = match option.effect {
                Effect::Effective => continue,
                Effect::Kept(reason) => ("No effect", reason),
                Effect::Planned(reason) => ("No effect yet", reason),
            };
            families.entry(family).or_default().push((*option, whose));
        }
    }
    families
}

fn default_of(option: &OptionSpec) -> &'static str {
    match option.default {
        None => "–",
        Some("") => "(empty)",
        Some(value) => value,
    }
}

/// Every option with type, default, unit and meaning, for a terminal.
pub fn text() -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    for chapter in chapters() {
        line(format!("{}\n", chapter.title.to_uppercase()));
        for option in chapter.options {
            line(format!(
                "{:<44} {:<8} {:<7} {}",
                option.name,
                option.kind.name(),
                option.unit(),
                default_of(option)
            ));
            let valid = option.valid_values();
            let valid = if valid.is_empty() {
                valid
            } else {
                format!(" Valid: {valid}.")
            };
            for part in wrapped(&format!("{}{valid}", option.meaning()), 96) {
                line(format!("    {part}"));
            }
        }
        line(String::new());
    }
    line("KAFKA'S OPTIONS THAT ARE TAKEN AND DO NOTHING\n".to_owned());
    for ((effect, reason), options) in families() {
        line(format!("{effect}: {reason}"));
        for (option, whose) in options {
            let name = match whose {
                "broker" => option.name.to_owned(),
                whose => format!("{} ({whose})", option.name),
            };
            line(format!(
                "    {name:<56} {:<8} {:<7} {}",
                option.kind.name(),
                option.unit(),
                default_of(option)
            ));
        }
        line(String::new());
    }
    out
}

/// Words in lines of at most `width` characters, where that can be had.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `drumlin config --markdown`; a test holds it equal to the program. -->

Options are read from four places, and a later one wins over an earlier one:

1. the defaults below;
2. `--config server.properties`, in Java's properties syntax;
3. environment variables: `KAFKA_` and the option's name in upper case, with `_` for `.`, `__` for `_` and `___` \
for `-`. `KAFKA_LOG_RETENTION_MS=3600000` is `log.retention.ms=3600000`;
4. `--set key=value`, as often as needed.

An option that does not exist, or a value that does not fit, ends the start with a line that names it and what was \
probably meant. An environment variable that names no option is only warned about. Kafka's options without effect \
here are taken, answered to DescribeConfigs, and warned about once at start.

Names, types and defaults are those of Apache Kafka 4.3.1 wherever Kafka has the option, so a `server.properties` \
from there starts. Other defaults than Kafka's have only `listeners` (localhost instead of every interface), \
`log.segment.bytes` and `segment.bytes` (64 MiB instead of 1 GiB), `queued.max.request.bytes` (256 MiB instead of no \
bound), `log.dir` (none), and `node.id`, `process.roles` and `controller.listener.names`, which Kafka has no \
default for.

A topic option that the topic does not override takes its value from the broker option beside it: as altered for \
this broker, else as altered for all brokers, else as given at start, else its default. So does a group option \
(`kafka-configs --entity-type groups`). *Change* says whether a \
broker option can be altered while the broker runs, for a single broker or for all of them; topic and group \
options always can.
";

/// The page of the docs.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    for chapter in chapters() {
        push(&mut out, format_args!("\n## {}\n", chapter.title));
        let of_resource = chapter
            .options
            .first()
            .is_some_and(|option| !option.synonyms.is_empty());
        let column = if of_resource { "broker option" } else { "change" };
        push(
            &mut out,
            format_args!("| option | type | default | unit | valid values | {column} | meaning |"),
        );
        push(
            &mut out,
            format_args!("| --- | --- | --- | --- | --- | --- | --- |"),
        );
        for option in chapter.options {
            let origin = if of_resource {
                let names: Vec<String> = option
                    .synonyms
                    .iter()
                    .map(|(name, _)| format!("`{name}`"))
                    .collect();
                names.join(", ")
            } else {
                option.dynamic.to_string()
            };
            push(
                &mut out,
                format_args!(
                    "| `{}` | {} | {} | {} | {} | {origin} | {} |",
                    option.name,
                    option.kind.name(),
                    cell(default_of(option)),
                    option.unit(),
                    option.valid_values(),
                    option.meaning(),
                ),
            );
        }
    }
    push(
        &mut out,
        format_args!("\n## Kafka's options that are taken and do nothing"),
    );
    for ((effect, reason), options) in families() {
        push(&mut out, format_args!("\n**{effect}.** {reason}\n"));
        push(
            &mut out,
            format_args!("| option | of | type | default | unit |\n| --- | --- | --- | --- | --- |"),
        );
        for (option, whose) in options {
            push(
                &mut out,
                format_args!(
                    "| `{}` | {} | {} | {} | {} |",
                    option.name,
                    whose,
                    option.kind.name(),
                    cell(default_of(option)),
                    option.unit(),
                ),
            );
        }
    }
    out
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a string does not fail");
}

/// A value in a table's cell.
fn cell(value: &str) -> String {
    match value {
        "–" | "(empty)" => value.to_owned(),
        _ => format!("`{value}`"),
    }
}
