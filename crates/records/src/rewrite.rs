//! Rewriting whole batches: into a topic's own codec, and through the cleaner's filter.

use bytes::{Bytes, BytesMut};

use crate::builder::BatchWriter;
use crate::codec::Compression;
use crate::error::{BatchError, Flaw};
use crate::header::{BatchHeader, HEADER_LEN, HORIZON_BIT, NO_TIMESTAMP, TimestampType};
use crate::record::{Limits, RecordReader, RecordView};

/// Puts the records of the batch at the front of `batch` into another codec; all else stays as it was, offsets,
/// timestamps and producer fields included.
///
/// Records are walked on the way: each must be well-formed and its offset delta its index. `level` is the topic's
/// `compression.{gzip,zstd}.level`, clamped to what the codec knows; lz4 has one level here (`lz4_flex` is a fast
/// compressor only), so `compression.lz4.level` has no effect. The result may be larger than the original: whoever has a
/// size limit checks it again.
pub fn recompress(
    batch: &[u8],
    codec: Compression,
    level: Option<i32>,
    limits: Limits,
) -> Result<BytesMut, BatchError> {
    let mut reader = RecordReader::new(batch, limits)?;
    let header = *reader.header();
    let mut out = BatchWriter::new(codec, level)?;
    let mut index = 0;
    while let Some(record) = reader.next_record()? {
        if record.offset_delta != index {
            return Err(Flaw::Record {
                index,
                what: "offset delta is not its index",
            }
            .into());
        }
        out.write(record.raw)?;
        index += 1;
    }
    out.finish(header)
}

/// How [`filter`] treats the batch as such.
#[derive(Debug, Clone, Copy, Default)]
pub struct FilterOptions {
    /// Keep the header when no record stays: it carries a producer's last sequence, or an offset that must not go.
    pub keep_empty: bool,
    /// Stamp the batch with this time, after which its tombstones or marker may go (KIP-534). A batch that has one keeps
    /// it.
    pub delete_horizon_ms: Option<i64>,
    /// Bounds on decompression.
    pub limits: Limits,
}

/// What became of a filtered batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// All records stay: use the batch as it is.
    Unchanged,
    /// A new batch; without records if [`FilterOptions::keep_empty`] was asked for.
    Rewritten(Bytes),
    /// Nothing stays.
    Removed,
}

/// Removes the records of the batch at the front of `batch` that `keep` refuses, as Kafka's cleaner does: the offsets of
/// the rest, base offset, last offset delta, leader epoch, codec, producer fields and flags stay, and `max_timestamp`
/// becomes that of the records that stay. `keep` sees each record once, in order.
///
/// An error means that the batch is not what the format says (a topic that was not compacted before may hold such): the
/// cleaner then keeps it whole.
pub fn filter(
    batch: &[u8],
    options: &FilterOptions,
    mut keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Filtered, BatchError> {
    let mut reader = RecordReader::new(batch, options.limits)?;
    let mut header = *reader.header();
    let codec = header.compression()?;
    let horizon = options.delete_horizon_ms.filter(|_| !header.has_delete_horizon());
    let old_base = header.base_timestamp;
    if let Some(horizon) = horizon {
        header.base_timestamp = horizon;
        header.attributes |= HORIZON_BIT;
    }
    let mut out = BatchWriter::new(codec, None)?;
    let mut max_timestamp = NO_TIMESTAMP;
    let mut kept = 0;
    while let Some(record) = reader.next_record()? {
        if !keep(&record) {
            continue;
        }
        kept += 1;
        max_timestamp = max_timestamp.max(record.timestamp);
        if horizon.is_some() {
            let delta = old_base
                .wrapping_add(record.timestamp_delta)
                .wrapping_sub(header.base_timestamp);
            out.write_shifted(&record, delta)?;
        } else {
            out.write(record.raw)?;
        }
    }
    if kept == header.records_count && horizon.is_none() && kept > 0 {
        return Ok(Filtered::Unchanged);
    }
    if kept == 0 {
        return if options.keep_empty {
            emptied(*reader.header())
        } else {
            Ok(Filtered::Removed)
        };
    }
    if header.timestamp_type() == TimestampType::CreateTime {
        header.max_timestamp = max_timestamp;
    }
    header.records_count = kept;
    Ok(Filtered::Rewritten(out.finish(header)?.freeze()))
}

/// A header without records, as Kafka's cleaner writes it: no codec, no base timestamp, no horizon.
fn emptied(mut header: BatchHeader) -> Result<Filtered, BatchError> {
    if header.records_count == 0 {
        return Ok(Filtered::Unchanged);
    }
    header.attributes &= !HORIZON_BIT;
    header.base_timestamp = NO_TIMESTAMP;
    header.records_count = 0;
    let out = BatchWriter::new(Compression::None, None)?.finish(header)?;
    debug_assert_eq!(out.len(), HEADER_LEN);
    Ok(Filtered::Rewritten(out.freeze()))
}
