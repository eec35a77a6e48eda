//! Answers as lines, without what must differ between two brokers.

use std::fmt::Debug;

/// Fields whose values are the brokers' own, and why. Whether they are null, empty or negative is compared still.
const OWN: &[(&str, &str)] = &[
    ("port", "each broker has ports of its own"),
    ("cluster_id", "each cluster has an id of its own"),
    ("topic_id", "chosen at random"),
    ("next_topic_id", "chosen at random"),
    ("member_id", "chosen at random"),
    ("leader", "the id of a member, chosen at random, or a broker's"),
    ("client_instance_id", "chosen at random"),
    ("subscription_id", "derived from what the broker wants to know"),
    ("producer_id", "given out in blocks"),
    ("leader_epoch", "counted from other beginnings"),
    ("current_leader_epoch", "counted from other beginnings"),
    ("committed_leader_epoch", "counted from other beginnings"),
    (
        "member_epoch",
        "counted from other beginnings, but for 0, which says that there is none",
    ),
    ("group_epoch", "counted from other beginnings, but for 0"),
    ("log_append_time_ms", "a time"),
    ("timestamp", "a time"),
    ("throttle_time_ms", "a time"),
    ("push_interval_ms", "set by each broker"),
    ("max_timestamp", "a time"),
    ("session_id", "chosen at random"),
    ("finalized_features_epoch", "counts the changes of each cluster"),
    ("log_dir", "a folder"),
    ("total_bytes", "the disk's"),
    ("usable_bytes", "the disk's"),
    ("size", "bytes on disk, in another format"),
    ("partition_size", "bytes on disk, in another format"),
    ("host", "the same machine may be named otherwise"),
    ("client_host", "the same machine may be named otherwise"),
    (
        "error_message",
        "the words differ; no message beside code 0 is compared still",
    ),
    ("batch_index_error_message", "the words differ"),
];

/// The answer, one line a value.
pub fn plain(answer: &impl Debug) -> Vec<String> {
    let text = format!("{answer:#?}");
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        // An option is printed over three lines.
        let value = match (lines.get(at + 1), lines.get(at + 2)) {
            (Some(value), Some(end)) if line.ends_with("Some(") && end.trim() == ")," => {
                at += 2;
                format!("{line}{})", value.trim().trim_end_matches(','))
            }
            _ => (*line).trim_end_matches(',').to_owned(),
        };
        at += 1;
        // Tagged fields that the schema does not know are in no answer.
        if !value.trim_start().starts_with("unknown:") && !matches!(value.trim(), "None" | ")") {
            out.push(without_own(value));
        }
    }
    out
}

/// The line with the kind of value in place of one that is the broker's own.
fn without_own(line: String) -> String {
    let Some((name, value)) = line.split_once(": ") else {
        return line;
    };
    let own = OWN.iter().any(|(own, _)| *own == name.trim());
    if let ("member_epoch" | "group_epoch", "0") | ("error_message", "Some(\"NONE\")") = (name.trim(), value)
    {
        return line;
    }
    // Null, an empty text, the zero id and numbers that are zero or negative mean something by themselves.
    let means = matches!(
        value,
        "None" | "\"\"" | "Some(\"\")" | "AAAAAAAAAAAAAAAAAAAAAA" | "[]" | "["
    ) || value.starts_with('-')
        || value.ends_with(['{', '(', '[']);
    match value.starts_with("Some(") {
        _ if !own || means => line,
        true => format!("{name}: Some(its own)"),
        false => format!("{name}: its own"),
    }
}

/// Both, where they differ, with the lines around.
pub fn difference(drumlin: &[String], kafka: &[String]) -> String {
    let same = drumlin.iter().zip(kafka).take_while(|(a, b)| a == b).count();
    let back = drumlin
        .iter()
        .rev()
        .zip(kafka.iter().rev())
        .take_while(|(a, b)| a == b)
        .count()
        .min(drumlin.len().min(kafka.len()) - same);
    let part = |lines: &[String]| {
        let (from, to) = (same.saturating_sub(3), (lines.len() - back + 1).min(lines.len()));
        lines.get(from..to).unwrap_or_default().join("\n")
    };
    format!("Drumlin:\n{}\nKafka:\n{}", part(drumlin), part(kafka))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn nulls_and_empty_texts_stay_and_words_go() {
        #[derive(Debug)]
        struct Answer {
            #[allow(dead_code, reason = "read by Debug")]
            error_message: Option<&'static str>,
        }
        let lines = |error_message| plain(&Answer { error_message })[1].trim().to_owned();
        assert_eq!(lines(None), "error_message: None");
        assert_eq!(lines(Some("")), "error_message: Some(\"\")");
        assert_eq!(lines(Some("broken")), "error_message: Some(its own)");
    }
}
