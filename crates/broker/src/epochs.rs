//! Whether a client's idea of who leads is ours (KIP-320).

use crate::error_code::ErrorCode;

/// Holds the epoch that a client believes in, -1 for none, against the partition's.
pub fn check_epoch(client: i32, current: i32) -> Result<(), ErrorCode> {
    match client {
        client if client < 0 || client == current => Ok(()),
        client if client < current => Err(ErrorCode::FencedLeaderEpoch),
        _ => Err(ErrorCode::UnknownLeaderEpoch),
    }
}
