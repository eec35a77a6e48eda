//! The crate against batches that Kafka's own library made (`vectors/README.md`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{build, five, found, plain, plains, read};
use drumlin_records::{
    BatchBuilder, BatchHeader, Compression, EndMarker, FilterOptions, Filtered, Limits, TimestampType,
    check_crc, end_marker, end_marker_batch, filter, find_first_since, find_newest, patch_append_time,
    patch_offset_and_epoch, recompress,
};

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("vectors/", $name, ".bin")).as_slice()
    };
}

/// Codec, the five records in it, the forty records in it.
type Vector = (Compression, &'static [u8], Option<&'static [u8]>);

const CODECS: [Vector; 5] = [
    (Compression::None, vector!("none"), None),
    (Compression::Gzip, vector!("gzip"), Some(vector!("large-gzip"))),
    (
        Compression::Snappy,
        vector!("snappy"),
        Some(vector!("large-snappy")),
    ),
    (Compression::Lz4, vector!("lz4"), Some(vector!("large-lz4"))),
    (Compression::Zstd, vector!("zstd"), Some(vector!("large-zstd"))),
];

#[test]
fn headers_and_records_of_every_codec_are_read() {
    for (codec, batch, _) in CODECS {
        let header = check_crc(batch).unwrap();
        assert_eq!(header.compression(), Ok(codec));
        assert_eq!(
            (
                header.base_offset,
                header.last_offset(),
                header.partition_leader_epoch
            ),
            (100, 104, 7)
        );
        assert_eq!(
            (header.producer_id, header.producer_epoch, header.base_sequence),
            (-1, -1, -1)
        );
        assert_eq!(
            (header.base_timestamp, header.max_timestamp),
            (1_700_000_000_000, 1_700_000_000_042)
        );
        assert_eq!((header.records_count, header.size_in_bytes()), (5, batch.len()));
        let records = read(batch);
        assert_eq!(records.iter().map(plain).collect::<Vec<_>>(), five(), "{codec}");
        assert_eq!(
            records.iter().map(|r| r.offset).collect::<Vec<_>>(),
            [100, 101, 102, 103, 104]
        );
        assert_eq!(
            found(find_first_since(batch, 1_700_000_000_004, 0)),
            Ok(Some((101, 1_700_000_000_007)))
        );
        assert_eq!(found(find_first_since(batch, 1_700_000_000_043, 0)), Ok(None));
        assert_eq!(found(find_newest(batch, 0)), Ok(Some((103, 1_700_000_000_042))));
    }
}

#[test]
fn several_blocks_of_every_codec_are_read() {
    for (codec, _, large) in CODECS {
        let Some(batch) = large else { continue };
        let records = read(batch);
        assert_eq!(records.len(), 40, "{codec}");
        for (n, record) in records.iter().enumerate() {
            assert_eq!(
                (record.offset, record.timestamp),
                (n as i64, 1_700_000_000_000 + n as i64)
            );
            assert_eq!(record.key.as_deref(), Some(format!("key {n}").as_bytes()));
            assert_eq!(
                record.value.as_deref(),
                Some(format!("line {n} of drumlin; ").repeat(300).as_bytes())
            );
        }
        for to in Compression::ALL {
            let other = recompress(batch, to, None, Limits::default()).unwrap();
            assert_eq!(check_crc(&other).unwrap().compression(), Ok(to));
            assert_eq!(read(&other), records, "{codec} to {to}");
        }
    }
}

#[test]
fn uncompressed_batches_and_markers_are_byte_for_byte_those_of_java() {
    let builder = || {
        BatchBuilder::new(Compression::None)
            .base_offset(100)
            .leader_epoch(7)
    };
    assert_eq!(build(builder(), &five()), vector!("none"));
    for (marker, vector) in [
        (EndMarker::Commit, vector!("commit")),
        (EndMarker::Abort, vector!("abort")),
    ] {
        let made = end_marker_batch(marker, 4711, 3, 12, 1_700_000_000_000).unwrap();
        let mut made = made.to_vec();
        patch_offset_and_epoch(&mut made, 55, 7);
        assert_eq!(made, vector);
        assert_eq!(end_marker(vector), Ok(Some((marker, 12))));
    }
}

#[test]
fn append_time_is_patched_as_java_writes_it() {
    let vector = vector!("append-time");
    let header = check_crc(vector).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert!(
        read(vector)
            .iter()
            .all(|record| record.timestamp == 1_700_000_001_000)
    );
    for (codec, batch, _) in CODECS {
        let mut patched = batch.to_vec();
        patch_append_time(&mut patched, 1_700_000_001_000);
        let header = check_crc(&patched).unwrap();
        assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(
            (header.max_timestamp, header.compression()),
            (1_700_000_001_000, Ok(codec))
        );
        let times: Vec<_> = read(&patched).iter().map(|record| record.timestamp).collect();
        assert_eq!(times, [1_700_000_001_000; 5]);
        assert_eq!(
            found(find_first_since(&patched, 1_700_000_001_000, 0)),
            Ok(Some((100, 1_700_000_001_000)))
        );
        assert_eq!(
            found(find_newest(&patched, 0)),
            Ok(Some((100, 1_700_000_001_000)))
        );
    }
}

#[test]
fn producer_fields_are_read_and_survive_another_codec() {
    let batch = vector!("transactional-lz4");
    let header = check_crc(batch).unwrap();
    assert!(header.is_transactional() && !header.is_control());
    assert_eq!((header.producer_id, header.producer_epoch), (4711, 3));
    assert_eq!((header.base_sequence, header.last_sequence()), (2_147_483_645, 1));
    let other = recompress(batch, Compression::Zstd, Some(19), Limits::default()).unwrap();
    let after = check_crc(&other).unwrap();
    let same = BatchHeader {
        attributes: after.attributes,
        batch_length: after.batch_length,
        crc: after.crc,
        ..header
    };
    assert_eq!(after, same);
    assert!(after.is_transactional());
    assert_eq!(after.compression(), Ok(Compression::Zstd));
    assert_eq!(plains(&other), five());
}

#[test]
fn an_emptied_batch_is_that_of_the_cleaner() {
    let made = build(
        BatchBuilder::new(Compression::Gzip)
            .base_offset(100)
            .leader_epoch(7)
            .producer(4711, 3, 17)
            .transactional(),
        &five(),
    );
    let options = FilterOptions {
        keep_empty: true,
        ..FilterOptions::default()
    };
    let Filtered::Rewritten(empty) = filter(&made, &options, |_| false).unwrap() else {
        panic!("not rewritten");
    };
    assert_eq!(empty, vector!("emptied"));
    assert_eq!(read(&empty), []);
    assert_eq!(filter(&empty, &options, |_| false), Ok(Filtered::Unchanged));
    assert_eq!(
        filter(&empty, &FilterOptions::default(), |_| false),
        Ok(Filtered::Removed)
    );
}

/// Writes batches of this crate where `DRUMLIN_FOR_JAVA` says, for `Vectors.java read`.
#[test]
#[ignore = "needs a JVM to read what it writes; run by hand"]
fn for_java() {
    let dir = std::path::PathBuf::from(std::env::var("DRUMLIN_FOR_JAVA").unwrap());
    for (codec, vector, large) in CODECS {
        let builder = BatchBuilder::new(codec)
            .base_offset(100)
            .leader_epoch(7)
            .producer(4711, 3, 17);
        std::fs::write(dir.join(format!("built-{codec}.bin")), build(builder, &five())).unwrap();
        let large = large.unwrap_or(vector!("large-zstd"));
        let recompressed = recompress(large, codec, None, Limits::default()).unwrap();
        std::fs::write(dir.join(format!("recompressed-{codec}.bin")), recompressed).unwrap();
        let mut patched = vector.to_vec();
        patch_append_time(&mut patched, 1_700_000_002_000);
        std::fs::write(dir.join(format!("patched-{codec}.bin")), patched).unwrap();
        let horizon = FilterOptions {
            delete_horizon_ms: Some(1_800_000_000_000),
            ..FilterOptions::default()
        };
        for (name, options) in [("filtered", FilterOptions::default()), ("horizon", horizon)] {
            let Filtered::Rewritten(out) =
                filter(vector, &options, |r| r.offset != 101 && r.offset != 104).unwrap()
            else {
                panic!("not rewritten");
            };
            std::fs::write(dir.join(format!("{name}-{codec}.bin")), out).unwrap();
        }
    }
    let commit = end_marker_batch(EndMarker::Commit, 1, 2, 3, 4).unwrap();
    std::fs::write(dir.join("commit.bin"), commit).unwrap();
}
