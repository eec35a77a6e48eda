//! One connection: requests written, answers read in order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use drumlin_records::{BatchBuilder, Compression, Record};
use drumlin_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use drumlin_wire::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use drumlin_wire::messages::describe_groups_request::DescribeGroupsRequest;
use drumlin_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use drumlin_wire::messages::init_producer_id_request::InitProducerIdRequest;
use drumlin_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use drumlin_wire::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use drumlin_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use drumlin_wire::{ApiKey, Message, Request, ResponseHeader, frame};

const CLIENT: &str = "drumlin-tests";
const MAX_FRAME: usize = 128 << 20;

/// Whether a broker answers an ApiVersions request there.
pub fn answers(bootstrap: &str) -> bool {
    // Key 18, version 0, correlation id 1, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let attempt = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect(bootstrap)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.write_all(&REQUEST)?;
        let mut head = [0; 10];
        socket.read_exact(&mut head)?;
        Ok(head[4..] == [0, 0, 0, 1, 0, 0])
    };
    attempt().unwrap_or(false)
}

/// A connection to a broker. After an error it is of no further use.
pub struct Connection {
    socket: TcpStream,
    next: i32,
    waiting: VecDeque<(i32, ApiKey, i16)>,
}

impl Connection {
    /// Connects; reads and writes that take longer than `patience` are errors.
    pub fn open(bootstrap: &str, patience: Duration) -> anyhow::Result<Connection> {
        let address = bootstrap.to_socket_addrs()?.next().context("no address")?;
        let socket = TcpStream::connect_timeout(&address, patience)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Connection {
            socket,
            next: 0,
            waiting: VecDeque::new(),
        })
    }

    /// Sends a request; its answer is due after those of the requests before it.
    pub fn send<M: Request>(&mut self, message: &M, version: i16) -> anyhow::Result<()> {
        self.next += 1;
        let bytes = frame::request(message, version, self.next, Some(CLIENT))?.into_bytes();
        self.socket.write_all(&bytes)?;
        self.waiting.push_back((self.next, M::KEY, version));
        Ok(())
    }

    /// Reads the next answer, which must be to a request of this kind.
    pub fn receive<M: Request>(&mut self) -> anyhow::Result<M::Response> {
        let (correlation, key, version) = self.waiting.pop_front().context("no request is waiting")?;
        if key != M::KEY {
            bail!("the next answer is to {key:?}");
        }
        let body = self.frame()?;
        let (header, body) = ResponseHeader::parse(&body, key, version)?;
        if header.correlation_id != correlation {
            bail!(
                "{key:?}: answer {} to request {correlation}",
                header.correlation_id
            );
        }
        Ok(M::Response::decode_exact(&body, version)?)
    }

    /// Sends a request and waits for its answer.
    pub fn call<M: Request>(&mut self, message: &M, version: i16) -> anyhow::Result<M::Response> {
        self.send(message, version)?;
        self.receive::<M>()
    }

    /// Writes bytes as they are, for requests that no client would send.
    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// The next frame as it comes, without its length.
    pub fn frame(&mut self) -> anyhow::Result<Bytes> {
        let mut length = [0; frame::LENGTH_BYTES];
        self.socket.read_exact(&mut length)?;
        let mut body = vec![0; frame::length(length, MAX_FRAME)?];
        self.socket.read_exact(&mut body)?;
        Ok(body.into())
    }

    /// Creates a topic.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let config = |&(name, value): &(&str, &str)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer = self.call(&request, 7)?;
        match answer.topics.first() {
            Some(topic) if topic.error_code == 0 => Ok(()),
            other => bail!("topic {name} was not created: {other:?}"),
        }
    }

    /// A new producer id with its epoch.
    pub fn init_producer(&mut self) -> anyhow::Result<(i64, i16)> {
        let request = InitProducerIdRequest {
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let answer = self.call(&request, 4)?;
        if answer.error_code != 0 {
            bail!("InitProducerId: error {}", answer.error_code);
        }
        Ok((answer.producer_id, answer.producer_epoch))
    }

    /// The offset that ListOffsets gives for a timestamp: -1 for the latest, -2 for the earliest.
    pub fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> anyhow::Result<i64> {
        let wanted = ListOffsetsPartition {
            partition_index: partition,
            current_leader_epoch: -1,
            timestamp,
            ..Default::default()
        };
        let topic = ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![wanted],
            ..Default::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let answer = self.call(&request, 7)?;
        match answer.topics.first().and_then(|t| t.partitions.first()) {
            Some(p) if p.error_code == 0 => Ok(p.offset),
            other => bail!("ListOffsets: {other:?}"),
        }
    }

    /// Sends one record with acks=all; the error code and the offset of the answer.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        value: &[u8],
        timeout_ms: i32,
    ) -> anyhow::Result<(i16, i64)> {
        self.produce_all(topic, partition, &[value], timeout_ms)
    }

    /// As [`Connection::produce`], all values in one batch; the offset is that of the first.
    pub fn produce_all<V: AsRef<[u8]>>(
        &mut self,
        topic: &str,
        partition: i32,
        values: &[V],
        timeout_ms: i32,
    ) -> anyhow::Result<(i16, i64)> {
        // Retention goes by the records' own time.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let mut batch = BatchBuilder::new(Compression::None);
        for value in values {
            batch.push(now, None, Some(value.as_ref()), &[]);
        }
        let data = PartitionProduceData {
            index: partition,
            records: Some(batch.build()?.into()),
            ..Default::default()
        };
        let topic = TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms,
            topic_data: vec![topic],
            ..Default::default()
        };
        let answer = self.call(&request, 9)?;
        match answer
            .responses
            .first()
            .and_then(|t| t.partition_responses.first())
        {
            Some(p) => Ok((p.error_code, p.base_offset)),
            None => bail!("Produce: an empty answer"),
        }
    }

    /// As [`Connection::produce_all`], tried again for as long as a partition that was
    /// just created has no leader; any other error is one.
    pub fn produce_surely<V: AsRef<[u8]>>(
        &mut self,
        topic: &str,
        partition: i32,
        values: &[V],
    ) -> anyhow::Result<i64> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match self.produce_all(topic, partition, values, 20_000)? {
                (0, offset) => return Ok(offset),
                // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER
                (3 | 5 | 6, _) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
                (error, _) => bail!("produce to {topic} {partition}: error {error}"),
            }
        }
    }

    /// What a group has committed for the partitions of a topic, those without left
    /// out; the error code in place of it if the coordinator gives one.
    pub fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partitions: i32,
    ) -> anyhow::Result<Result<BTreeMap<i32, i64>, i16>> {
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: topic.into(),
                partition_indexes: (0..partitions).collect(),
                ..Default::default()
            }]),
            ..Default::default()
        };
        let answer = self.call(&request, 7)?;
        let all = || answer.topics.iter().flat_map(|t| &t.partitions);
        let refused = all()
            .map(|p| p.error_code)
            .chain([answer.error_code])
            .find(|e| *e != 0);
        Ok(match refused {
            Some(code) => Err(code),
            None => Ok(all()
                .filter(|p| p.committed_offset >= 0)
                .map(|p| (p.partition_index, p.committed_offset))
                .collect()),
        })
    }

    /// How many members a group of KIP-848 has; nothing if it is none.
    pub fn members_of_consumer_group(&mut self, group: &str) -> anyhow::Result<Option<usize>> {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![group.into()],
            ..Default::default()
        };
        let answer = self.call(&request, 0)?;
        let found = answer.groups.first().filter(|g| g.error_code == 0);
        Ok(found.map(|g| g.members.len()))
    }

    /// How many members a group has, whichever its protocol; 0 if there is no such group.
    pub fn members_of(&mut self, group: &str) -> anyhow::Result<usize> {
        if let Some(count) = self.members_of_consumer_group(group)? {
            return Ok(count);
        }
        let request = DescribeGroupsRequest {
            groups: vec![group.into()],
            ..Default::default()
        };
        let answer = self.call(&request, 5)?;
        Ok(answer.groups.first().map_or(0, |g| g.members.len()))
    }

    /// Fetches from one partition; the error code and whatever records come, from the offset on.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_wait_ms: i32,
    ) -> anyhow::Result<(i16, Vec<Record>)> {
        let partition = FetchPartition {
            partition,
            current_leader_epoch: -1,
            fetch_offset: offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: topic.into(),
                partitions: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = self.call(&request, 12)?;
        if answer.error_code != 0 {
            return Ok((answer.error_code, Vec::new()));
        }
        let Some(data) = answer.responses.first().and_then(|t| t.partitions.first()) else {
            bail!("Fetch: an empty answer");
        };
        let bytes = data.records.clone().map(|r| r.into_bytes()).unwrap_or_default();
        let mut records = super::decoded(&bytes)?;
        records.retain(|r| r.offset >= offset);
        Ok((data.error_code, records))
    }
}
