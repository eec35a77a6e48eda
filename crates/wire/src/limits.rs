//! How much memory decoding may reserve.
//!
//! A few bytes on the wire can claim many structures: an empty tagged section is one byte and a structure
//! of three arrays is a hundred. So a [`Reader`](crate::Reader) has a budget, charged before memory is
//! reserved: a fixed part and a multiple of the body's length (records are by reference and cost nothing),
//! and never above the cap of its API. A claimed count is also held against the bytes that are left.
//!
//! No client is near these: a structure takes at most four times its bytes where names are names and not
//! empty strings.

/// Part of the budget that even an empty body has.
pub const FIXED: usize = 16 * 1024;
/// Bytes of decoded form that a byte on the wire may cost.
pub const PER_BYTE: usize = 16;
/// The cap where nothing else is said.
pub const DEFAULT_CAP: usize = 16 << 20;

/// The cap of a header: the longest client id with nothing but malformed UTF-8 in it fits.
pub const HEADER_CAP: usize = 128 << 10;

/// The budget for a body of this length under a cap.
pub(crate) const fn budget(len: usize, cap: usize) -> usize {
    let budget = FIXED.saturating_add(len.saturating_mul(PER_BYTE));
    if budget < cap { budget } else { cap }
}

/// The cap of an API, by key. A partition takes about 100 bytes in decoded form, so 64 MiB is more than half
/// a million of them in one request.
pub(crate) const fn decode_cap(key: i16) -> usize {
    match key {
        // Produce, Fetch, ListOffsets, Metadata, OffsetCommit and -Fetch, DeleteRecords,
        // OffsetForLeaderEpoch, TxnOffsetCommit, DescribeLogDirs, DescribeTopicPartitions, ShareFetch
        // and -Acknowledge name many partitions.
        0..=3 | 8 | 9 | 21 | 23 | 28 | 35 | 75 | 78 | 79 => 64 << 20,
        // Before a peer has authenticated: SaslHandshake, ApiVersions, SaslAuthenticate.
        17 | 18 | 36 => 64 << 10,
        _ => DEFAULT_CAP,
    }
}
