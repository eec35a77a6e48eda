//! Which partition of `__consumer_offsets` a group lives in.

/// The partition of `__consumer_offsets` that coordinates the group: Java's hash of the id, without its sign,
/// modulo the number of partitions, as Kafka's `Utils.abs(groupId.hashCode()) % n`. Java hashes UTF-16 units.
///
/// `partitions` must be above zero.
pub fn partition_for(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // Kafka's `abs` is zero for the one number that has no positive counterpart.
    let positive = if hash == i32::MIN { 0 } else { hash.abs() };
    positive % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::partition_for;

    /// Values of `Math.abs("…".hashCode()) % 50` from a Java shell.
    #[test]
    fn agrees_with_java() {
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("a", 50), 97 % 50);
        assert_eq!(partition_for("hello", 50), 99162322 % 50);
        // hashCode() of this string is Integer.MIN_VALUE.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
    }
}
