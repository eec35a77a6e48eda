//! The broker's configuration as its components take it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use drumlin_records::Depth;

use super::error::ConfigError;
use super::groups::GroupsConfig;
use super::listeners::{HostPort, ListenersConfig};
use super::live::{Live, Overrides};
use super::settings::Settings;
use super::spec::split_list;
use super::store_url::{absolute, store_url};
use super::topic::TopicConfig;

/// A number of bytes. Shown with its unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// As a `usize`, the largest one where it is too big for the machine.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1u64 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        match units
            .iter()
            .find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size))
        {
            Some((size, unit)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// The object store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// `store.url`, a local directory's made absolute: `file:///dir`, `s3://…`, `gs://…`, `az://…`, `memory:`.
    pub url: String,
    /// The directory of a local store, absolute.
    pub local_dir: Option<PathBuf>,
    /// `store.start.timeout.ms`.
    pub start_timeout: Duration,
    /// `local.store.buffered`.
    pub buffered: bool,
    /// `drumlin.test.store.faults`: seed of injected faults.
    pub fault_seed: Option<u64>,
    /// `drumlin.test.store.put.ms`: delay added to each put.
    pub put_delay: Duration,
}

/// The write-ahead log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalConfig {
    /// `wal.flush.bytes`.
    pub flush_bytes: ByteSize,
    /// `wal.linger.max.ms`, by the kind of store where it is -1.
    pub linger_max: Duration,
    /// `wal.puts.per.second`.
    pub puts_per_second: u32,
    /// `wal.window`.
    pub window: u64,
    /// `wal.unflushed.max.bytes`.
    pub unflushed_max: ByteSize,
    /// `hot.memory.bytes`.
    pub hot_memory: ByteSize,
}

/// Sealing of the write-ahead log into segments and bundles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealConfig {
    /// `seal.round.ms`.
    pub round: Duration,
    /// `seal.round.bytes`.
    pub round_bytes: ByteSize,
    /// `seal.segment.min.bytes`.
    pub segment_min_bytes: ByteSize,
    /// `log.roll.ms`, a day at most: how long small data waits in bundles.
    pub bundle_max_age: Duration,
    /// `log.retention.check.interval.ms`.
    pub retention_check: Duration,
}

/// Compaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CleanerConfig {
    /// `log.cleaner.enable`.
    pub enabled: bool,
    /// `log.cleaner.backoff.ms`.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`.
    pub dedupe_buffer: ByteSize,
    /// `log.cleaner.io.max.bytes.per.second`; none where it is beyond what any disk does.
    pub io_max: Option<u64>,
}

/// The block cache and cold reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// `cache.dir`, absolute.
    pub dir: PathBuf,
    /// `cache.disk.bytes`; 0 for no disk.
    pub disk: ByteSize,
    /// `cache.memory.bytes`.
    pub memory: ByteSize,
    /// `cold.read.inflight.bytes`.
    pub cold_inflight: ByteSize,
}

/// Connections and requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    /// `socket.request.max.bytes`.
    pub request_max: ByteSize,
    /// `queued.max.request.bytes`; `None` for no bound.
    pub queued_max: Option<ByteSize>,
    /// `max.connections`.
    pub max_connections: usize,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: usize,
    /// `max.connections.per.ip.overrides`.
    pub per_ip_overrides: BTreeMap<IpAddr, usize>,
    /// `connections.max.idle.ms`; `None` for ever.
    pub max_idle: Option<Duration>,
    /// `socket.send.buffer.bytes`; `None` for the system's own.
    pub send_buffer: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` for the system's own.
    pub receive_buffer: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub backlog: u32,
}

/// Bounds of fetch and other requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestsConfig {
    /// `fetch.max.bytes`.
    pub fetch_max: ByteSize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions: usize,
    /// `max.request.partition.size.limit`.
    pub describe_partitions_max: usize,
    /// `request.timeout.ms`.
    pub timeout: Duration,
}

/// Creation and deletion of topics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicsConfig {
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub auto_create: bool,
    /// `delete.topic.enable`.
    pub delete_enable: bool,
}

/// Form of the broker's own log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Where to listen.
    pub listeners: ListenersConfig,
    /// Connections and requests.
    pub network: NetworkConfig,
    /// Bounds of requests.
    pub requests: RequestsConfig,
    /// Creation and deletion of topics.
    pub topics: TopicsConfig,
    /// Groups and their offsets.
    pub groups: GroupsConfig,
    /// What a topic without overrides has.
    pub topic_defaults: TopicConfig,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration: Duration,
    /// The object store.
    pub store: StoreConfig,
    /// The write-ahead log.
    pub wal: WalConfig,
    /// Sealing and retention.
    pub seal: SealConfig,
    /// Compaction.
    pub cleaner: CleanerConfig,
    /// The block cache and cold reads.
    pub cache: CacheConfig,
    /// `admin.listener`; `None` where it is empty.
    pub admin: Option<HostPort>,
    /// `log.format`.
    pub log_format: LogFormat,
    /// `produce.timeout.min.ms`.
    pub produce_timeout_min: Duration,
    /// `record.validation`.
    pub record_validation: Depth,
    /// `shutdown.timeout.ms`.
    pub shutdown_timeout: Duration,
    /// What this was made of: answers DescribeConfigs and resolves topics.
    pub live: Live,
}

impl BrokerConfig {
    /// Reads and checks a configuration. Relative directories are taken from the working directory.
    pub fn new(live: Live) -> Result<BrokerConfig, ConfigError> {
        let read = Reader { live: &live };
        let store = read.store()?;
        Ok(BrokerConfig {
            node_id: read.node_id()?,
            rack: live.value("broker.rack").filter(|rack| !rack.is_empty()),
            listeners: ListenersConfig::new(&live)?,
            network: read.network()?,
            requests: read.requests()?,
            topics: read.topics()?,
            groups: read.groups()?,
            topic_defaults: TopicConfig::resolve(&Overrides::new(), &live),
            producer_id_expiration: read.duration("producer.id.expiration.ms")?,
            wal: read.wal(store.local_dir.is_some())?,
            seal: read.seal()?,
            cleaner: read.cleaner()?,
            cache: read.cache()?,
            admin: read.admin()?,
            log_format: match read.text("log.format").as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            produce_timeout_min: read.duration("produce.timeout.min.ms")?,
            record_validation: match read.text("record.validation").as_str() {
                "header" => Depth::Header,
                _ => Depth::Records,
            },
            shutdown_timeout: read.duration("shutdown.timeout.ms")?,
            store,
            live,
        })
    }

    /// A configuration from a program: tests, simulation.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::new(Live::new(Settings::from_pairs(pairs)?))
    }
}

/// Options by name, as the types that components want.
pub(super) struct Reader<'a> {
    live: &'a Live,
}

impl Reader<'_> {
    pub(super) fn refuse<T>(&self, name: &str, reason: impl Into<String>) -> Result<T, ConfigError> {
        Err(self.live.invalid(name, reason))
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.live.value(name).unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, ConfigError> {
        let text = self.text(name);
        match text
            .parse::<i64>()
            .ok()
            .and_then(|number| T::try_from(number).ok())
        {
            Some(number) => Ok(number),
            None => self.refuse(name, format!("`{text}` is out of range")),
        }
    }

    /// A number, or `None` where it is negative.
    fn bound<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        if self.number::<i64>(name)? < 0 {
            Ok(None)
        } else {
            self.number(name).map(Some)
        }
    }

    pub(super) fn size(&self, name: &str) -> Result<ByteSize, ConfigError> {
        self.number(name).map(ByteSize)
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        self.number(name).map(Duration::from_millis)
    }

    fn node_id(&self) -> Result<i32, ConfigError> {
        let roles = self.text("process.roles");
        if !split_list(&roles).contains(&"broker") {
            return self.refuse(
                "process.roles",
                "it must have `broker`: there are no processes without that role",
            );
        }
        let older: i32 = self.number("broker.id")?;
        let node_id: i32 = self.number("node.id")?;
        if older < 0 || older == node_id {
            return Ok(node_id);
        }
        if self.live.origin("node.id").is_some() {
            return self.refuse(
                "broker.id",
                format!("{older} differs from `node.id`, which is {node_id}"),
            );
        }
        Ok(older)
    }

    fn network(&self) -> Result<NetworkConfig, ConfigError> {
        Ok(NetworkConfig {
            request_max: self.size("socket.request.max.bytes")?,
            queued_max: self
                .bound("queued.max.request.bytes")?
                .filter(|bytes| *bytes > 0)
                .map(ByteSize),
            max_connections: self.number("max.connections")?,
            max_connections_per_ip: self.number("max.connections.per.ip")?,
            per_ip_overrides: self.per_ip_overrides()?,
            max_idle: self.bound("connections.max.idle.ms")?.map(Duration::from_millis),
            send_buffer: self.bound("socket.send.buffer.bytes")?,
            receive_buffer: self.bound("socket.receive.buffer.bytes")?,
            backlog: self.number("socket.listen.backlog.size")?,
        })
    }

    fn per_ip_overrides(&self) -> Result<BTreeMap<IpAddr, usize>, ConfigError> {
        const NAME: &str = "max.connections.per.ip.overrides";
        let text = self.text(NAME);
        let mut overrides = BTreeMap::new();
        for item in split_list(&text) {
            let parsed = item.rsplit_once(':').and_then(|(host, count)| {
                let host = host.trim_matches(['[', ']']);
                let address = if host == "localhost" { "127.0.0.1" } else { host };
                Some((address.parse().ok()?, count.trim().parse().ok()?))
            });
            let Some((address, count)) = parsed else {
                return self.refuse(NAME, format!("`{item}` is not of the form address:count"));
            };
            overrides.insert(address, count);
        }
        Ok(overrides)
    }

    fn requests(&self) -> Result<RequestsConfig, ConfigError> {
        Ok(RequestsConfig {
            fetch_max: self.size("fetch.max.bytes")?,
            fetch_sessions: self.number("max.incremental.fetch.session.cache.slots")?,
            describe_partitions_max: self.number("max.request.partition.size.limit")?,
            timeout: self.duration("request.timeout.ms")?,
        })
    }

    fn topics(&self) -> Result<TopicsConfig, ConfigError> {
        Ok(TopicsConfig {
            num_partitions: self.number("num.partitions")?,
            replication_factor: self.number("default.replication.factor")?,
            auto_create: self.flag("auto.create.topics.enable"),
            delete_enable: self.flag("delete.topic.enable"),
        })
    }

    fn store(&self) -> Result<StoreConfig, ConfigError> {
        let (url, local_dir) = match store_url(&self.text("store.url")) {
            Ok(url) => url,
            Err(reason) => return self.refuse("store.url", reason),
        };
        let seed = self.text("drumlin.test.store.faults");
        let fault_seed = match seed.parse() {
            Ok(seed) => Some(seed),
            Err(_) if seed.is_empty() => None,
            Err(_) => return self.refuse("drumlin.test.store.faults", format!("`{seed}` is not a seed")),
        };
        Ok(StoreConfig {
            url,
            local_dir,
            start_timeout: self.duration("store.start.timeout.ms")?,
            buffered: self.flag("local.store.buffered"),
            fault_seed,
            put_delay: self.duration("drumlin.test.store.put.ms")?,
        })
    }

    fn wal(&self, local: bool) -> Result<WalConfig, ConfigError> {
        let linger = self
            .bound("wal.linger.max.ms")?
            .unwrap_or(if local { 5 } else { 100 });
        let (flush_bytes, unflushed_max) = (
            self.size("wal.flush.bytes")?,
            self.size("wal.unflushed.max.bytes")?,
        );
        if unflushed_max < flush_bytes {
            let reason = format!("{unflushed_max} is less than `wal.flush.bytes`, which is {flush_bytes}");
            return self.refuse("wal.unflushed.max.bytes", reason);
        }
        Ok(WalConfig {
            flush_bytes,
            linger_max: Duration::from_millis(linger),
            puts_per_second: self.number("wal.puts.per.second")?,
            window: self.number("wal.window")?,
            unflushed_max,
            hot_memory: self.size("hot.memory.bytes")?,
        })
    }

    fn seal(&self) -> Result<SealConfig, ConfigError> {
        let roll_ms = match self.live.value("log.roll.ms") {
            Some(_) => self.number("log.roll.ms")?,
            None => self.number::<u64>("log.roll.hours")?.saturating_mul(3_600_000),
        };
        Ok(SealConfig {
            round: self.duration("seal.round.ms")?,
            round_bytes: self.size("seal.round.bytes")?,
            segment_min_bytes: self.size("seal.segment.min.bytes")?,
            bundle_max_age: Duration::from_millis(roll_ms).min(Duration::from_secs(24 * 3600)),
            retention_check: self.duration("log.retention.check.interval.ms")?,
        })
    }

    fn cleaner(&self) -> Result<CleanerConfig, ConfigError> {
        // The table has seen to it that it is a number.
        let io_max: f64 = self
            .text("log.cleaner.io.max.bytes.per.second")
            .parse()
            .unwrap_or(f64::MAX);
        if io_max.is_nan() || io_max < 1.0 {
            return self.refuse(
                "log.cleaner.io.max.bytes.per.second",
                "it is less than 1".to_owned(),
            );
        }
        Ok(CleanerConfig {
            enabled: self.flag("log.cleaner.enable"),
            // Looking costs a walk over the partitions' figures.
            backoff: self
                .duration("log.cleaner.backoff.ms")?
                .max(Duration::from_millis(100)),
            dedupe_buffer: self.size("log.cleaner.dedupe.buffer.size")?,
            io_max: (io_max < 1e15).then_some(io_max as u64),
        })
    }

    fn cache(&self) -> Result<CacheConfig, ConfigError> {
        let dir = match absolute(&self.text("cache.dir")) {
            Ok(dir) => dir,
            Err(reason) => return self.refuse("cache.dir", reason),
        };
        Ok(CacheConfig {
            dir,
            disk: self.size("cache.disk.bytes")?,
            memory: self.size("cache.memory.bytes")?,
            cold_inflight: self.size("cold.read.inflight.bytes")?,
        })
    }

    fn admin(&self) -> Result<Option<HostPort>, ConfigError> {
        let text = self.text("admin.listener");
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .or_else(|reason: String| self.refuse("admin.listener", reason))
    }
}
