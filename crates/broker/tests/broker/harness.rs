//! A broker to test, and a client that speaks to it.

use std::cell::Cell;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use drumlin_broker::Broker;
use drumlin_broker::config::BrokerConfig;
use drumlin_objects::object_store::memory::InMemory;
use drumlin_objects::{Bucket, BucketKind, Env};
use drumlin_records::{BatchBuilder, Compression};
use drumlin_wire::messages as m;
use drumlin_wire::{Message, Request, ResponseHeader, Str, Uuid, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The wall clock of every test at its start.
pub const NOW_MS: i64 = 1_700_000_000_000;

thread_local! {
    /// Each test has a thread of its own, on which all of its tasks run.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts panics in tasks, which would else only look like closed connections.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let old = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            old(info);
        }));
    });
}

/// Panics so far, in any task of this test.
pub fn panics() -> usize {
    PANICS.with(Cell::get)
}

/// A broker with what it stands on.
pub struct Test {
    pub env: Env,
    pub store: Arc<InMemory>,
    pub broker: Broker,
}

impl Test {
    /// A broker on an empty bucket.
    pub async fn new(options: &[(&str, &str)]) -> Test {
        Test::on(Arc::new(InMemory::new()), options).await
    }

    /// A broker on a bucket that may have a past.
    pub async fn on(store: Arc<InMemory>, options: &[(&str, &str)]) -> Test {
        watch_panics();
        let env = Env::simulated(7, NOW_MS);
        let bucket = Bucket::from_store(store.clone(), BucketKind::Memory, &env);
        let mut pairs = vec![("store.url", "memory:"), ("wal.linger.max.ms", "1")];
        pairs.extend_from_slice(options);
        let config = BrokerConfig::from_pairs(pairs).expect("a sound configuration");
        let broker = Broker::start(&env, config, bucket).await.expect("a broker");
        Test { env, store, broker }
    }

    pub fn connect(&self) -> Client {
        Client {
            stream: self.broker.connect(),
            next_id: 1,
        }
    }

    /// Ends the process as `kill -9` does, and gives back what lasts.
    pub fn kill(self) -> Arc<InMemory> {
        self.env.kill();
        self.store
    }
}

/// A connection.
pub struct Client {
    pub stream: DuplexStream,
    next_id: i32,
}

impl Client {
    /// Sends a request and does not wait. Gives its correlation id.
    pub async fn send<M: Request>(&mut self, version: i16, request: &M) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        let framed = frame::request(request, version, id, Some("test")).expect("an encodable request");
        self.stream
            .write_all(&framed.into_bytes())
            .await
            .expect("an open connection");
        id
    }

    /// The next frame; nothing when the connection was closed.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let reading = async {
            let length = self.stream.read_i32().await.ok()?;
            let mut body = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut body).await.ok()?;
            Some(Bytes::from(body))
        };
        tokio::time::timeout(Duration::from_secs(600), reading)
            .await
            .expect("an answer or an end in time")
    }

    /// The answer to the request of this id, which must be the next.
    pub async fn receive<M: Request>(&mut self, version: i16, id: i32) -> M::Response {
        let frame = self.frame().await.expect("an answer");
        let (header, body) = ResponseHeader::parse(&frame, M::KEY, version).expect("a header");
        assert_eq!(header.correlation_id, id, "answers come in order");
        M::Response::decode_exact(&body, version).expect("an answer without bytes too many")
    }

    pub async fn call<M: Request>(&mut self, version: i16, request: &M) -> M::Response {
        let id = self.send(version, request).await;
        self.receive::<M>(version, id).await
    }

    /// Creates a topic and gives its id.
    pub async fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        use m::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
        let configs = configs
            .iter()
            .map(|(key, value)| CreatableTopicConfig {
                name: Str::from(*key),
                value: Some(Str::from(*value)),
                ..Default::default()
            })
            .collect();
        let topic = CreatableTopic {
            name: Str::from(name),
            num_partitions: partitions,
            replication_factor: 1,
            configs,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let response = self.call(7, &request).await;
        assert_eq!(
            response.topics[0].error_code, 0,
            "{:?}",
            response.topics[0].error_message
        );
        response.topics[0].topic_id
    }

    /// Produces with acks=all and gives error and base offset.
    pub async fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> (i16, i64) {
        let response = self.call(11, &produce_request(topic, partition, batch, -1)).await;
        let answer = &response.responses[0].partition_responses[0];
        (answer.error_code, answer.base_offset)
    }

    /// Fetches one partition outside of any session.
    pub async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> m::fetch_response::PartitionData {
        let response = self
            .call(11, &fetch_request(topic, &[(partition, offset)], 0, 0))
            .await;
        assert_eq!(response.error_code, 0);
        response.responses[0].partitions[0].clone()
    }
}

/// A batch of these values, in time.
pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(NOW_MS, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    builder.build().expect("a batch")
}

pub fn produce_request(
    topic: &str,
    partition: i32,
    batch: Bytes,
    acks: i16,
) -> m::produce_request::ProduceRequest {
    use m::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
    let data = PartitionProduceData {
        index: partition,
        records: Some(batch.into()),
        ..Default::default()
    };
    let topic = TopicProduceData {
        name: Str::from(topic),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest {
        acks,
        timeout_ms: 5_000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

pub fn fetch_request(
    topic: &str,
    partitions: &[(i32, i64)],
    max_wait_ms: i32,
    min_bytes: i32,
) -> m::fetch_request::FetchRequest {
    use m::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
    let partitions = partitions
        .iter()
        .map(|(partition, offset)| FetchPartition {
            partition: *partition,
            current_leader_epoch: -1,
            fetch_offset: *offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        })
        .collect();
    FetchRequest {
        replica_id: -1,
        max_wait_ms,
        min_bytes,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: Str::from(topic),
            partitions,
            ..Default::default()
        }],
        ..Default::default()
    }
}
