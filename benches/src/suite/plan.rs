//! How long and how large everything is, in a quick run and in a full one.

use std::time::Duration;

/// Sizes and lengths.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A quick run.
    pub quick: bool,
    /// How often each produce and fetch case is repeated, in alternation; the median counts.
    pub repetitions: usize,
    /// Seconds before a window.
    pub warmup: f64,
    /// Window of a run at full speed.
    pub peak_seconds: f64,
    /// Bytes that a run of ours at full speed sends at least: three rounds and a bit.
    pub peak_bytes: u64,
    /// Longest window of a run at full speed.
    pub peak_max_seconds: f64,
    /// Windows at a fixed rate: of 60 MB/s, of 1,000 small requests, of half the lower peak.
    pub rate_seconds: [f64; 3],
    /// Bytes in the topic that fetches read.
    pub fill_bytes: u64,
    /// The larger of the hot ranges.
    pub hot_bytes: u64,
    /// Bytes that a cold fetch reads.
    pub cold_bytes: u64,
    /// Window of a hot fetch.
    pub fetch_seconds: f64,
    /// Records of 1 KiB that Kafka's producer tool sends.
    pub tool_records: u64,
    /// How long a broker is left alone to count its requests.
    pub idle_seconds: u64,
    /// How long after the load memory is looked at again.
    pub after_seconds: u64,
    /// How often ours is started for one figure; Kafka once.
    pub starts: usize,
    /// Options of ours that are not the defaults.
    pub settings: Vec<(&'static str, String)>,
    /// Longest wait for a sealing round.
    pub seal_patience: Duration,
    /// Bytes of a run against MinIO and memory, which keep what was uploaded for a grace period.
    pub remote_bytes: u64,
    /// Idle partitions.
    pub partitions: usize,
    /// How often groups are joined, left and read for one figure.
    pub group_repetitions: usize,
    /// Window of commits.
    pub commit_seconds: f64,
    /// Bytes of the topic that groups read.
    pub group_bytes: u64,
    /// How often each reader of it reads all, so that a run takes a second or more.
    pub group_passes: u32,
    /// Bytes that are compacted, before compression.
    pub compaction_bytes: u64,
    /// Lengths of the cases over time.
    pub over_time: OverTime,
}

/// Lengths of the cases that run over time, in seconds unless said.
#[derive(Clone, Copy, Debug)]
pub struct OverTime {
    /// `sustained`: at full speed.
    pub full_speed: f64,
    /// `sustained`: at 60 MB/s.
    pub at_rate: f64,
    /// `turns`: all rounds together.
    pub turns: f64,
    /// `delete-topic`: segments of the topic on the local directory, and on MinIO.
    pub segments: [u64; 2],
    /// `delete-topic`: before the deletion, and after it was asked for.
    pub around_deletion: [f64; 2],
    /// `tool-rounds`: all rounds together.
    pub tool_rounds: f64,
    /// `tool-rounds`: records of 1 KiB in a round.
    pub tool_records: u64,
    /// `minio-cost`: each of both loads.
    pub minio_cost: f64,
}

impl OverTime {
    fn quick() -> OverTime {
        OverTime {
            full_speed: 20.0,
            at_rate: 10.0,
            turns: 64.0,
            segments: [500, 100],
            around_deletion: [8.0, 20.0],
            tool_rounds: 40.0,
            tool_records: 200_000,
            minio_cost: 20.0,
        }
    }

    fn full() -> OverTime {
        OverTime {
            full_speed: 300.0,
            at_rate: 60.0,
            turns: 256.0,
            segments: [10_000, 1_000],
            around_deletion: [30.0, 90.0],
            tool_rounds: 600.0,
            tool_records: 1_500_000,
            minio_cost: 180.0,
        }
    }

    /// Gives the main part of each case another length.
    pub fn last(&mut self, minutes: f64) {
        let seconds = minutes * 60.0;
        self.full_speed = seconds;
        self.turns = seconds;
        self.tool_rounds = seconds;
        self.minio_cost = seconds;
    }
}

impl Plan {
    /// Some nine minutes, and ten at most: rounds are made small, so that short runs still span three.
    pub fn quick() -> Plan {
        Plan {
            quick: true,
            repetitions: 1,
            warmup: 1.0,
            peak_seconds: 3.5,
            peak_bytes: 0,
            peak_max_seconds: 5.0,
            rate_seconds: [5.0, 5.0, 4.0],
            fill_bytes: 1536 << 20,
            hot_bytes: 1 << 30,
            cold_bytes: 768 << 20,
            fetch_seconds: 2.0,
            tool_records: 500_000,
            idle_seconds: 7,
            after_seconds: 5,
            starts: 2,
            settings: vec![
                ("seal.round.ms", "3000".to_owned()),
                ("seal.round.bytes", (256 << 20).to_string()),
            ],
            seal_patience: Duration::from_secs(12),
            remote_bytes: 0,
            partitions: 20_000,
            group_repetitions: 1,
            commit_seconds: 1.5,
            group_bytes: 512 << 20,
            group_passes: 4,
            compaction_bytes: 256 << 20,
            over_time: OverTime::quick(),
        }
    }

    /// Up to an hour, with the defaults.
    pub fn full() -> Plan {
        Plan {
            quick: false,
            repetitions: 2,
            warmup: 3.0,
            peak_seconds: 12.0,
            peak_bytes: 7 << 30,
            peak_max_seconds: 40.0,
            rate_seconds: [110.0, 185.0, 60.0],
            fill_bytes: 6 << 30,
            hot_bytes: 4 << 30,
            cold_bytes: 2 << 30,
            fetch_seconds: 8.0,
            tool_records: 7_000_000,
            idle_seconds: 180,
            after_seconds: 30,
            starts: 5,
            settings: Vec::new(),
            seal_patience: Duration::from_secs(90),
            remote_bytes: 7 << 30,
            partitions: 100_000,
            group_repetitions: 3,
            commit_seconds: 15.0,
            group_bytes: 1 << 30,
            group_passes: 8,
            compaction_bytes: 1 << 30,
            over_time: OverTime::full(),
        }
    }

    /// Disk that must be free before a group of cases starts.
    pub fn disk_needed(&self) -> u64 {
        if self.quick { 12 << 30 } else { 30 << 30 }
    }

    /// The same for a case over time, which stops by itself when little is left.
    pub fn disk_needed_over_time(&self) -> u64 {
        if self.quick { 6 << 30 } else { 12 << 30 }
    }
}
