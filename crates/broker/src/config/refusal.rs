//! Kafka's words for a value that an option does not take (`ConfigDef`): what clients and tools that alter configs show.

use super::spec::{Check, Kind, OptionSpec, split_list};

/// Says what is wrong with a value that [`OptionSpec::canonical`] refused.
pub(super) fn refusal(option: &OptionSpec, raw: &str) -> String {
    let text = raw.trim();
    let shown = if option.sensitive() { "[hidden]" } else { text };
    let wrong = |value: &str, reason: &str| {
        format!(
            "Invalid value {value} for configuration {}: {reason}",
            option.name
        )
    };
    match option.kind {
        Kind::Boolean => wrong(shown, "Expected value to be either true or false"),
        Kind::Int => wrong(shown, &number_reason::<i32>(option.check, text, "INT")),
        Kind::Long => wrong(shown, &number_reason::<i64>(option.check, text, "LONG")),
        Kind::Short => wrong(shown, &number_reason::<i16>(option.check, text, "SHORT")),
        Kind::Double => match text.parse::<f64>() {
            Ok(number) => wrong(
                &java_double(number),
                if number > 1.0 {
                    "Value must be no more than 1"
                } else {
                    "Value must be at least 0"
                },
            ),
            Err(_) => wrong(shown, "Not a number of type DOUBLE"),
        },
        Kind::List => list_refusal(option, text),
        Kind::String | Kind::Class | Kind::Password => match option.check {
            Check::OneOf(words) => wrong(shown, &format!("String must be one of: {}", words.join(", "))),
            Check::OneOfAnyCase(words) => {
                let words = words.join(", ");
                wrong(
                    shown,
                    &format!("String must be one of (case insensitive): {words}"),
                )
            }
            Check::OffsetReset => wrong(
                shown,
                &format!(
                    "Invalid value `{shown}` for configuration {}. The value must be either 'earliest', 'latest' \
                     or of the format 'by_duration:<PnDTnHnMn.nS>'.",
                    option.name
                ),
            ),
            _ => wrong(shown, "String must be non-empty"),
        },
    }
}

/// A number as Java writes it.
fn java_double(number: f64) -> String {
    if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

fn number_reason<N: std::str::FromStr + Into<i64>>(check: Check, text: &str, kind: &str) -> String {
    let Ok(number) = text.parse::<N>() else {
        return format!("Not a number of type {kind}");
    };
    let number: i64 = number.into();
    match check {
        Check::Between(low, _) if number < low => format!("Value must be at least {low}"),
        Check::Between(_, high) => format!("Value must be no more than {high}"),
        Check::BetweenOrMinusOne(low, high) => {
            format!("Value must be between {low} and {high} or equal to -1")
        }
        _ => format!("Not a number of type {kind}"),
    }
}

fn list_refusal(option: &OptionSpec, text: &str) -> String {
    let name = option.name;
    let items = split_list(text);
    match option.check {
        Check::ThrottledReplicas => format!(
            "Invalid value [{}] for configuration {name}: {name} must be the literal '*' or a list of replicas in the \
             following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            items.join(", ")
        ),
        _ if items.contains(&"") => format!("Configuration '{name}' values must not be empty."),
        Check::SubsetOf(words) => {
            let stranger = items.iter().find(|item| !words.contains(item));
            format!(
                "Invalid value {} for configuration {name}: String must be one of: {}",
                stranger.unwrap_or(&text),
                words.join(", ")
            )
        }
        _ => format!("Invalid value {text} for configuration {name}"),
    }
}
