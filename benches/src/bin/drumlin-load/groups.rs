//! The commands about consumer groups and compaction.

use std::time::Duration;

use clap::{Args, Subcommand};
use drumlin_benches::load::batches::Codec;
use drumlin_benches::load::group::{Group, Protocol, consume, offsets, scenes};
use drumlin_benches::load::keyed;

#[derive(Subcommand)]
pub enum Command {
    /// Start members of a group at once; milliseconds until their first records.
    GroupJoin(Members),
    /// One member leaves, another dies; milliseconds until all partitions are owned again.
    GroupRebalance(Members),
    /// Commit synchronously, each member what it owns.
    GroupCommit {
        #[command(flatten)]
        members: Members,
        /// Commits a second of all together; as fast as answers come without.
        #[arg(long)]
        rate: Option<f64>,
        #[arg(long, default_value_t = 1.0)]
        warmup: f64,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        #[arg(long)]
        pid: Option<u32>,
    },
    /// Read a topic, one member or reader for each partition.
    GroupConsume {
        #[command(flatten)]
        members: Members,
        /// Without a group.
        #[arg(long)]
        by_partition: bool,
        /// How often.
        #[arg(long, default_value_t = 1)]
        passes: u32,
        #[arg(long)]
        pid: Option<u32>,
    },
    /// Commit offsets in many groups of one coordinator.
    OffsetsFill {
        #[arg(long, default_value = "localhost:9092")]
        bootstrap: String,
        #[arg(long)]
        topic: String,
        #[arg(long, default_value_t = 100)]
        partitions: i32,
        #[arg(long, default_value_t = 1_000)]
        groups: usize,
        #[arg(long, default_value_t = 1)]
        offset: i64,
    },
    /// Write records whose keys come again, for compaction.
    Keyed {
        #[arg(long, default_value = "localhost:9092")]
        bootstrap: String,
        #[arg(long)]
        topic: String,
        /// Before compression.
        #[arg(long, default_value_t = 1 << 30)]
        bytes: u64,
        #[arg(long, default_value_t = 1 << 10)]
        record: usize,
        #[arg(long, default_value_t = 10)]
        per_key: u64,
        #[arg(long, value_enum, default_value = "none")]
        codec: Codec,
    },
}

#[derive(Args)]
pub struct Members {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    /// The topic's.
    #[arg(long)]
    partitions: i32,
    #[arg(long)]
    group: String,
    #[arg(long, value_enum, default_value = "classic")]
    protocol: Protocol,
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Of the other protocol than the classic one it is only what a death is counted from.
    #[arg(long, default_value_t = 45_000)]
    session_ms: u64,
    /// Of the classic protocol.
    #[arg(long, default_value_t = 3_000)]
    heartbeat_ms: u64,
}

impl Members {
    fn group(&self) -> Group {
        Group {
            bootstrap: self.bootstrap.clone(),
            name: self.group.clone(),
            topic: self.topic.clone(),
            partitions: self.partitions,
            protocol: self.protocol,
            session: Duration::from_millis(self.session_ms),
            heartbeat: Duration::from_millis(self.heartbeat_ms),
        }
    }
}

pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::GroupJoin(o) => super::print(&scenes::join(&o.group(), o.members)?),
        Command::GroupRebalance(o) => {
            let session = Duration::from_millis(o.session_ms);
            super::print(&scenes::rebalance(&o.group(), o.members, session)?)
        }
        Command::GroupCommit {
            members,
            rate,
            warmup,
            seconds,
            pid,
        } => {
            let how = scenes::Commits {
                consumers: members.members,
                rate,
                warmup: Duration::from_secs_f64(warmup),
                seconds: Duration::from_secs_f64(seconds),
                pid,
            };
            super::print(&scenes::commit(&members.group(), &how)?)
        }
        Command::GroupConsume {
            members,
            by_partition,
            passes,
            pid,
        } => {
            let mut connection = super::connect(&members.bootstrap)?;
            let ends = (0..members.partitions)
                .map(|partition| connection.list_offset(&members.topic, partition, -1))
                .collect::<anyhow::Result<Vec<i64>>>()?;
            super::print(&match by_partition {
                true => consume::by_partition(&members.bootstrap, &members.topic, &ends, passes, pid)?,
                false => consume::grouped(&members.group(), &ends, passes, pid)?,
            })
        }
        Command::OffsetsFill {
            bootstrap,
            topic,
            partitions,
            groups,
            offset,
        } => offsets::fill(&bootstrap, &offsets::groups(groups), &topic, partitions, offset),
        Command::Keyed {
            bootstrap,
            topic,
            bytes,
            record,
            per_key,
            codec,
        } => super::print(&keyed::run(&keyed::Options {
            bootstrap,
            topic,
            bytes,
            record,
            per_key: per_key.max(1),
            codec,
        })?),
    }
}
