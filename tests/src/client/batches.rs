//! From the bytes of a fetch to records.

use bytes::Bytes;
use drumlin_records::{BatchHeader, Limits, Record, check_crc, records};

/// The records of whole batches; one that is cut off at the end, as Kafka allows, is left out.
pub fn decoded(bytes: &Bytes) -> anyhow::Result<Vec<Record>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|r| r.len() >= 61) {
        let header = BatchHeader::parse(rest).map_err(|e| anyhow::anyhow!("batch at {at}: {e}"))?;
        let Some(batch) = rest.get(..header.size_in_bytes()) else {
            break;
        };
        check_crc(batch).map_err(|e| anyhow::anyhow!("batch at offset {}: {e}", header.base_offset))?;
        for record in records(batch, Limits::default()) {
            found.push(record.map_err(|e| anyhow::anyhow!("batch at offset {}: {e}", header.base_offset))?);
        }
        at += header.size_in_bytes();
    }
    Ok(found)
}
