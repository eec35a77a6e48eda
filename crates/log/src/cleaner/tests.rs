use super::*;
use crate::manifest::tests::sample_segment;
use crate::manifest::{Segment, SegmentDetail, Span};

const NOW: i64 = 1_700_000_000_000;

/// Ten segments of 100 offsets and 100 bytes, sealed a minute apart, and a bundle span of the last minute.
fn sealed(cleaned_to: i64) -> Sealed {
    let segment = |n: i64| Segment {
        base_offset: 100 * n,
        end_offset: 100 * n + 100,
        size: 100,
        max_timestamp: NOW - 60_000 * (10 - n),
        sealed_ms: NOW - 60_000 * (10 - n) + 1,
        ..sample_segment(1)
    };
    let span = Span {
        bundle: "bundle".into(),
        sealed_ms: NOW,
        base_offset: 1000,
        end_offset: 1100,
        position: 0,
        length: 100,
        max_timestamp: -1,
        detail: SegmentDetail::default(),
    };
    Sealed {
        folded: (0..5).map(|n| Arc::new(segment(n))).collect(),
        added: (5..10).map(|n| Arc::new(segment(n))).collect(),
        spans: vec![Arc::new(span)],
        cleaned_to,
        tombstones_from: 0,
        ..Sealed::default()
    }
}

fn config() -> PartitionConfig {
    PartitionConfig {
        compact: true,
        ..PartitionConfig::default()
    }
}

#[test]
fn the_dirty_part_ends_where_records_are_too_young_or_not_stable() {
    let of = |config: &PartitionConfig, cleaned_to, log_start, stable| {
        let found = Prospect::of(config, &sealed(cleaned_to), log_start, stable, NOW)?;
        Some((found.first_dirty, found.until, found.dirty_bytes, found.ratio))
    };
    let plain = config();
    assert_eq!(of(&plain, 0, 0, 1100), Some((0, 1100, 1100, 1.0)));
    assert_eq!(of(&plain, 550, 0, 1100), Some((550, 1100, 600, 600.0 / 1100.0)));
    assert_eq!(
        of(&plain, 550, 720, 1100),
        Some((720, 1100, 400, 1.0)),
        "what is deleted does not count"
    );
    assert_eq!(of(&plain, 1100, 0, 1100), None);
    assert_eq!(of(&plain, 500, 0, 800), Some((500, 800, 300, 300.0 / 800.0)));
    let lagging = PartitionConfig {
        min_compaction_lag_ms: 150_000,
        ..config()
    };
    assert_eq!(of(&lagging, 500, 0, 1100), Some((500, 800, 300, 300.0 / 800.0)));
}

#[test]
fn a_leaf_without_timestamps_is_not_young() {
    let leaf = crate::manifest::LeafPointer {
        key: "leaf".into(),
        base_offset: 0,
        end_offset: 500,
        max_timestamp: -1,
        bytes: 500,
        segments: 5,
        table_length: 1,
        length: 2,
    };
    let sealed = Sealed {
        leaves: vec![Arc::new(leaf)],
        folded: Vec::new(),
        ..sealed(0)
    };
    let lagging = PartitionConfig {
        min_compaction_lag_ms: 10_000,
        ..config()
    };
    let found = Prospect::of(&lagging, &sealed, 0, 1100, NOW).unwrap();
    assert_eq!((found.until, found.dirty_bytes), (1000, 1000));
}

#[test]
fn a_pass_is_due_by_ratio_by_age_and_when_it_is_worth_its_requests() {
    let prospect = |cleaned_to| Prospect::of(&config(), &sealed(cleaned_to), 0, 1100, NOW).unwrap();
    assert!(prospect(0).is_due(&config(), None, NOW));
    assert!(!prospect(900).is_due(&config(), None, NOW), "a fifth is dirty");
    let urgent = PartitionConfig {
        max_compaction_lag_ms: 60_000,
        ..config()
    };
    assert!(prospect(900).is_due(&urgent, None, NOW + 1));
    assert!(!prospect(1000).is_due(&urgent, None, NOW));
    let small = Some((10_000, Duration::from_secs(600)));
    assert!(
        !prospect(500).is_due(&config(), small, NOW),
        "little, and not for long"
    );
    assert!(prospect(500).is_due(&config(), small, NOW + 301_000));
    assert!(prospect(500).is_due(&config(), Some((500, Duration::MAX)), NOW));
}
