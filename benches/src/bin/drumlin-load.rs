//! The load generator by hand: each command prints its figures as one line of JSON.

// A program's modules lie beside it; a folder of its name keeps this one from being taken for a program.
#[path = "drumlin-load/groups.rs"]
mod groups;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use drumlin_benches::load::batches::{self, Codec, Shape};
use drumlin_benches::load::{fetch, first, idle, produce, proxy};
use drumlin_benches::process;
use drumlin_benches::suite::memory;
use drumlin_tests::client::Connection;

#[derive(Parser)]
#[command(name = "drumlin-load", about = "A light load generator for Kafka brokers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a topic.
    Topic(Topic),
    /// Print a partition's first offset and the one behind its last.
    Offsets(Offsets),
    /// Produce batches that were built beforehand, acks=all.
    Produce(Produce),
    /// Fetch a range of offsets and throw it away.
    Fetch(Fetch),
    /// Wait until a broker that starts acknowledges a record; prints milliseconds.
    First {
        #[arg(long, default_value = "localhost:9092")]
        bootstrap: String,
        #[arg(long, default_value = "first")]
        topic: String,
        #[arg(long, default_value_t = 60.0)]
        patience: f64,
    },
    /// Hold idle connections and print what each costs the broker in bytes.
    Connections {
        #[arg(long, default_value = "localhost:9092")]
        bootstrap: String,
        #[arg(long, default_value_t = 10_000)]
        count: usize,
        #[arg(long)]
        pid: u32,
    },
    /// Create topics of 1,000 partitions each.
    Partitions {
        #[arg(long, default_value = "localhost:9092")]
        bootstrap: String,
        #[arg(long, default_value_t = 100_000)]
        count: usize,
    },
    /// Serve the segments of a store over bare sockets; prints its address first.
    Proxy {
        #[arg(long)]
        store: String,
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: String,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Stop after so many bytes of segments.
        #[arg(long, default_value_t = u64::MAX)]
        bytes: u64,
    },
    /// Members of consumer groups.
    #[command(flatten)]
    Groups(groups::Command),
    /// Run a soak, as `cargo xtask soak` calls it: what it needs is in the environment.
    Soak {
        #[command(subcommand)]
        soak: Soak,
    },
    /// Read from a proxy until it ends.
    Drain {
        #[arg(long)]
        address: String,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        #[arg(long)]
        pid: Option<u32>,
    },
}

#[derive(Subcommand)]
enum Soak {
    /// Watch a broker's memory under steady load.
    Memory {
        #[arg(long, env = "DRUMLIN_SOAK_SECONDS", default_value_t = 7_200)]
        seconds: u64,
        /// Where the picture goes.
        #[arg(long, env = "DRUMLIN_SOAK_PICTURE", default_value = "memory.svg")]
        picture: PathBuf,
        /// For the broker's and MinIO's data.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Topic {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// `key=value`
    #[arg(long)]
    config: Vec<String>,
}

#[derive(Args)]
struct Offsets {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long, default_value_t = 0)]
    partition: i32,
}

#[derive(Args)]
struct Produce {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    /// Partitions of the topic, over which the connections are spread.
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Bytes of a batch.
    #[arg(long, default_value_t = 64 << 10)]
    batch: usize,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1 << 10)]
    record: usize,
    #[arg(long, value_enum, default_value = "none")]
    codec: Codec,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Requests in flight for each connection.
    #[arg(long, default_value_t = 5)]
    depth: usize,
    /// Requests a second, whether or not answers keep up.
    #[arg(long)]
    rate: Option<f64>,
    /// The same in millions of bytes a second.
    #[arg(long, conflicts_with = "rate")]
    rate_mb: Option<f64>,
    /// Seconds that are not counted.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds that are, at least.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Go on until so many bytes were acknowledged,
    #[arg(long, default_value_t = 0)]
    bytes: u64,
    /// but no longer than this.
    #[arg(long, default_value_t = 600.0)]
    max_seconds: f64,
    /// The broker's process, for CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// A file for the figures of each second.
    #[arg(long)]
    seconds_to: Option<PathBuf>,
}

#[derive(Args)]
struct Fetch {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long, default_value_t = 0)]
    partition: i32,
    /// First offset; the partition's first without.
    #[arg(long)]
    from: Option<i64>,
    /// Offset behind the last; the partition's without.
    #[arg(long)]
    to: Option<i64>,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    #[arg(long, default_value_t = 1 << 20)]
    max_bytes: i32,
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Read the range again and again for so long; once without.
    #[arg(long)]
    seconds: Option<f64>,
    /// The broker's process, for CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    process::raise_file_limit();
    match Arguments::parse().command {
        Command::Topic(o) => {
            let configs: Vec<(&str, &str)> = o.config.iter().filter_map(|c| c.split_once('=')).collect();
            connect(&o.bootstrap)?.create_topic(&o.topic, o.partitions, &configs)
        }
        Command::Offsets(o) => {
            let (first, end) = offsets(&o.bootstrap, &o.topic, o.partition)?;
            println!("{first} {end}");
            Ok(())
        }
        Command::Produce(o) => print(&produce::run(&produce_options(o)?)?),
        Command::Fetch(o) => print(&fetch::run(&fetch_options(o)?)?),
        Command::First {
            bootstrap,
            topic,
            patience,
        } => {
            let took = first::acknowledged(
                &bootstrap,
                &topic,
                Instant::now(),
                Duration::from_secs_f64(patience),
            )?;
            println!("{:.1}", took.as_secs_f64() * 1e3);
            Ok(())
        }
        Command::Connections {
            bootstrap,
            count,
            pid,
        } => {
            let before = process::resident(pid)?;
            let held = idle::connections(&bootstrap, count)?;
            std::thread::sleep(Duration::from_secs(2));
            let after = process::resident(pid)?;
            println!("{}", after.saturating_sub(before) / held.len().max(1) as u64);
            Ok(())
        }
        Command::Partitions { bootstrap, count } => idle::partitions(&bootstrap, count),
        Command::Proxy {
            store,
            listen,
            connections,
            bytes,
        } => proxy::serve(&store, &listen, connections, bytes),
        Command::Groups(command) => groups::run(command),
        Command::Soak {
            soak:
                Soak::Memory {
                    seconds,
                    picture,
                    dir,
                },
        } => {
            let dir = dir.unwrap_or_else(|| drumlin_tests::cache::root().join("bench"));
            memory::soak(&dir, &std::env::current_exe()?, seconds, &picture)
        }
        Command::Drain {
            address,
            connections,
            pid,
        } => print(&proxy::drain(&address, connections, pid)?),
    }
}

fn connect(bootstrap: &str) -> anyhow::Result<Connection> {
    Connection::open(bootstrap, Duration::from_secs(30))
}

fn offsets(bootstrap: &str, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
    let mut connection = connect(bootstrap)?;
    Ok((
        connection.list_offset(topic, partition, -2)?,
        connection.list_offset(topic, partition, -1)?,
    ))
}

fn produce_options(o: Produce) -> anyhow::Result<produce::Options> {
    let shape = Shape {
        batch: o.batch,
        record: o.record,
        codec: o.codec,
    };
    // A batch is smaller than its bound: its records are whole, and compressed.
    let size = batches::build(shape, 0)?.bytes.len();
    let rate = o.rate.or(o.rate_mb.map(|mb| mb * 1e6 / size as f64));
    Ok(produce::Options {
        bootstrap: o.bootstrap,
        topic: o.topic,
        partitions: o.partitions.max(1),
        shape,
        connections: o.connections.max(1),
        depth: o.depth.max(1),
        rate,
        warmup: Duration::from_secs_f64(o.warmup),
        seconds: Duration::from_secs_f64(o.seconds),
        bytes: o.bytes,
        max_seconds: Duration::from_secs_f64(o.max_seconds),
        pid: o.pid,
        seconds_to: o.seconds_to,
    })
}

fn fetch_options(o: Fetch) -> anyhow::Result<fetch::Options> {
    let (first, end) = offsets(&o.bootstrap, &o.topic, o.partition)?;
    Ok(fetch::Options {
        bootstrap: o.bootstrap,
        topic: o.topic,
        partition: o.partition,
        from: o.from.unwrap_or(first),
        to: o.to.unwrap_or(end),
        connections: o.connections.max(1),
        max_bytes: o.max_bytes,
        warmup: Duration::from_secs_f64(o.warmup),
        seconds: o.seconds.map(Duration::from_secs_f64),
        pid: o.pid,
    })
}

fn print(summary: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(summary)?);
    Ok(())
}
