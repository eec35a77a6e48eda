//! Rules for topic names.

/// Longest name (`Topic.MAX_NAME_LENGTH`).
const MAX_LENGTH: usize = 249;

/// Says what is wrong with a topic name, if anything.
pub fn check(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name {
        "" => Err("a topic name must not be empty".to_owned()),
        "." | ".." => Err("a topic name must not be \".\" or \"..\"".to_owned()),
        name if name.len() > MAX_LENGTH => Err(format!(
            "a topic name must not be longer than {MAX_LENGTH} characters"
        )),
        name if !name.chars().all(legal) => {
            let shown: String = name.chars().take(MAX_LENGTH).collect();
            Err(format!(
                "topic name {shown:?} has characters other than ASCII letters, digits, '.', '_' and '-'"
            ))
        }
        _ => Ok(()),
    }
}

/// The form in which names collide: metrics of Kafka's own could not tell '.' from '_'.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// True where two different names collide.
pub fn may_collide(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// The topic of groups and their offsets.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";

/// Topics that clients hide from people, and that only the broker writes to.
pub fn is_internal(name: &str) -> bool {
    matches!(
        name,
        GROUP_METADATA_TOPIC | "__transaction_state" | "__share_group_state"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kafka_takes() {
        for good in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", "a\0", &"x".repeat(250)] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(collision_key("a.b_c"), collision_key("a_b.c"));
    }
}
