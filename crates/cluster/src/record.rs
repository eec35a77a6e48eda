//! The records of the metadata log and their bytes.
//!
//! Body of an entry, after the chain's header:
//!
//! | field | bytes |
//! | --- | --- |
//! | body version | one byte, 1 |
//! | count | `uint`, of records |
//! | records | each: kind (one byte), version (one byte), `uint` length, payload |
//!
//! Payloads are the fields in the order of the variants below, in the primitives of [`codec`](crate::codec).
//! Kinds 20 to 25 are kept for what several brokers need: a conditional change of a partition's leader,
//! a takeover by another node, a controller's progress, a broker's fencing and unregistration, a release.

use bytes::{BufMut, BytesMut};

use crate::codec::{DecodeError, Reader, Write, part};
use crate::ids::{Incarnation, ResourceKind, TopicId};

/// The version of an entry's body.
const BODY_VERSION: u8 = 1;
/// The newest kind of record.
const LAST_KIND: u8 = 14;
/// The version of every kind of record so far.
const RECORD_VERSION: u8 = 1;

/// Where clients or brokers reach a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, e.g. `PLAINTEXT`.
    pub listener: String,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// Kafka's security protocol: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// An incarnation whose WAL was fenced, and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced {
    /// Its node.
    pub node_id: i32,
    /// The incarnation.
    pub incarnation: Incarnation,
    /// The fence's slot in its WAL: readers read [checkpoint, fence).
    pub fence_slot: u64,
    /// The key of the estate that was written on its behalf, if any of its state is left.
    pub estate: Option<String>,
}

/// A chain that still holds data of a partition, up to a slot [D2].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// The incarnation whose chain it is.
    pub incarnation: Incarnation,
    /// The slot of the release or fence that ends what is pinned, itself included.
    pub end_slot: u64,
}

/// A change of the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Kind 1, the only record of a fence entry: a new controller has begun. The entry's epoch is its own.
    NewController {
        /// Its node.
        node_id: i32,
    },
    /// Kind 2. Registers a broker: the entry's slot becomes its incarnation. With `previous`, every partition
    /// that the fenced incarnation led is the new one's, its leader epoch raised by one [I3].
    BrokerRegistered {
        /// Its node.
        node_id: i32,
        /// Where it is reached.
        endpoints: Vec<Endpoint>,
        /// Its rack.
        rack: Option<String>,
        /// The incarnation whose partitions it takes over.
        previous: Option<Fenced>,
    },
    /// Kind 3. Creates a topic; every partition starts at leader epoch 0.
    TopicCreated {
        /// Its name, which no other live topic has.
        name: String,
        /// Its id.
        id: TopicId,
        /// How many partitions.
        partitions: u32,
        /// The node that leads them all at first.
        leader: i32,
        /// Its own configs, by name.
        configs: Vec<(String, String)>,
    },
    /// Kind 4. Adds partitions to a topic.
    PartitionsAdded {
        /// The topic.
        id: TopicId,
        /// How many it has from now on.
        partitions: u32,
        /// The node that leads the new ones at first.
        leader: i32,
    },
    /// Kind 5. Deletes a topic: its name is free, its tombstone stays until [`Record::TopicSwept`] [M3].
    TopicDeleted {
        /// The topic.
        id: TopicId,
    },
    /// Kind 6. Nothing of a deleted topic is left in the bucket.
    TopicSwept {
        /// The topic.
        id: TopicId,
    },
    /// Kind 7. Sets a config, or with no value deletes it. A topic must exist; others need not.
    ConfigSet {
        /// What kind of resource.
        resource: ResourceKind,
        /// Which one.
        name: String,
        /// The config.
        key: String,
        /// Its new value.
        value: Option<String>,
    },
    /// Kind 8. Producer ids below `end` are given out.
    ProducerIdsAllocated {
        /// To which node.
        node_id: i32,
        /// The first that is still free.
        end: i64,
    },
    /// Kind 9. Finalises a feature at a level; 0 takes it back.
    FeatureFinalised {
        /// Its name.
        name: String,
        /// Its level.
        level: i16,
    },
    /// Kind 10. A partition's data in a chain must stay, beyond what leadership itself pins.
    PartitionPinned {
        /// The topic.
        id: TopicId,
        /// The partition.
        partition: u32,
        /// What holds its data.
        pin: Pin,
    },
    /// Kind 11. A partition's leader has sealed what it inherited from a chain. Conditional on its epoch [D2].
    PartitionUnpinned {
        /// The topic.
        id: TopicId,
        /// The partition.
        partition: u32,
        /// The incarnation whose chain it was.
        incarnation: Incarnation,
        /// The epoch at which the leader did so.
        leader_epoch: i32,
    },
    /// Kind 12. The heir of a fenced incarnation has sealed all that it inherited from its chain.
    ChainUnpinned {
        /// The incarnation whose chain it was.
        incarnation: Incarnation,
        /// The heir, which must be alive.
        heir: Incarnation,
    },
    /// Kind 13. Nothing of a chain is left in the bucket but its slot 0 and its fences, which stay for ever: who wrote
    /// it may be asleep, and must find its slot taken.
    ChainSwept {
        /// The incarnation whose chain it was.
        incarnation: Incarnation,
    },
    /// Kind 14, the only record of a checkpoint entry: the image below a slot stands in an object of its own.
    Checkpoint {
        /// Entries below this are in it.
        covers_below: u64,
        /// Its key.
        body: String,
    },
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Self::NewController { .. } => 1,
            Self::BrokerRegistered { .. } => 2,
            Self::TopicCreated { .. } => 3,
            Self::PartitionsAdded { .. } => 4,
            Self::TopicDeleted { .. } => 5,
            Self::TopicSwept { .. } => 6,
            Self::ConfigSet { .. } => 7,
            Self::ProducerIdsAllocated { .. } => 8,
            Self::FeatureFinalised { .. } => 9,
            Self::PartitionPinned { .. } => 10,
            Self::PartitionUnpinned { .. } => 11,
            Self::ChainUnpinned { .. } => 12,
            Self::ChainSwept { .. } => 13,
            Self::Checkpoint { .. } => 14,
        }
    }

    /// Appends kind, version, length and payload.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.kind());
        out.put_u8(RECORD_VERSION);
        part(out, |out| self.encode_payload(out));
    }

    fn encode_payload(&self, out: &mut BytesMut) {
        match self {
            Self::NewController { node_id } => out.int((*node_id).into()),
            Self::BrokerRegistered {
                node_id,
                endpoints,
                rack,
                previous,
            } => {
                out.int((*node_id).into());
                write_endpoints(out, endpoints);
                out.option(rack.as_deref(), BytesMut::string);
                out.option(previous.as_ref(), write_fenced);
            }
            Self::TopicCreated {
                name,
                id,
                partitions,
                leader,
                configs,
            } => {
                out.string(name);
                out.put_slice(id);
                out.uint((*partitions).into());
                out.int((*leader).into());
                out.count(configs.len());
                for (key, value) in configs {
                    out.string(key);
                    out.string(value);
                }
            }
            Self::PartitionsAdded {
                id,
                partitions,
                leader,
            } => {
                out.put_slice(id);
                out.uint((*partitions).into());
                out.int((*leader).into());
            }
            Self::TopicDeleted { id } | Self::TopicSwept { id } => out.put_slice(id),
            Self::ConfigSet {
                resource,
                name,
                key,
                value,
            } => {
                out.put_u8(*resource as u8);
                out.string(name);
                out.string(key);
                out.option(value.as_deref(), BytesMut::string);
            }
            Self::ProducerIdsAllocated { node_id, end } => {
                out.int((*node_id).into());
                out.int(*end);
            }
            Self::FeatureFinalised { name, level } => {
                out.string(name);
                out.int((*level).into());
            }
            Self::PartitionPinned { id, partition, pin } => {
                out.put_slice(id);
                out.uint((*partition).into());
                write_pin(out, pin);
            }
            Self::PartitionUnpinned {
                id,
                partition,
                incarnation,
                leader_epoch,
            } => {
                out.put_slice(id);
                out.uint((*partition).into());
                out.uint(*incarnation);
                out.int((*leader_epoch).into());
            }
            Self::ChainUnpinned { incarnation, heir } => {
                out.uint(*incarnation);
                out.uint(*heir);
            }
            Self::ChainSwept { incarnation } => out.uint(*incarnation),
            Self::Checkpoint { covers_below, body } => {
                out.uint(*covers_below);
                out.string(body);
            }
        }
    }

    fn decode(kind: u8, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            1 => Self::NewController { node_id: r.narrow()? },
            2 => Self::BrokerRegistered {
                node_id: r.narrow()?,
                endpoints: read_endpoints(r)?,
                rack: r.option(Reader::string)?,
                previous: r.option(read_fenced)?,
            },
            3 => Self::TopicCreated {
                name: r.string()?,
                id: r.id()?,
                partitions: r.narrow_uint()?,
                leader: r.narrow()?,
                configs: r.list(|r| Ok((r.string()?, r.string()?)))?,
            },
            4 => Self::PartitionsAdded {
                id: r.id()?,
                partitions: r.narrow_uint()?,
                leader: r.narrow()?,
            },
            5 => Self::TopicDeleted { id: r.id()? },
            6 => Self::TopicSwept { id: r.id()? },
            7 => Self::ConfigSet {
                resource: read_resource_kind(r)?,
                name: r.string()?,
                key: r.string()?,
                value: r.option(Reader::string)?,
            },
            8 => Self::ProducerIdsAllocated {
                node_id: r.narrow()?,
                end: r.int()?,
            },
            9 => Self::FeatureFinalised {
                name: r.string()?,
                level: r.narrow()?,
            },
            10 => Self::PartitionPinned {
                id: r.id()?,
                partition: r.narrow_uint()?,
                pin: read_pin(r)?,
            },
            11 => Self::PartitionUnpinned {
                id: r.id()?,
                partition: r.narrow_uint()?,
                incarnation: r.uint()?,
                leader_epoch: r.narrow()?,
            },
            12 => Self::ChainUnpinned {
                incarnation: r.uint()?,
                heir: r.uint()?,
            },
            13 => Self::ChainSwept {
                incarnation: r.uint()?,
            },
            14 => Self::Checkpoint {
                covers_below: r.uint()?,
                body: r.string()?,
            },
            _ => return Err(DecodeError::UnknownKind(kind)),
        })
    }
}

/// Bytes that the body's own fields take at most, beside its records.
pub(crate) const BODY_OVERHEAD: usize = 1 + 10;

/// Appends an entry's body: `count` records that were encoded one after another.
pub(crate) fn encode_body(out: &mut BytesMut, count: usize, records: &[u8]) {
    out.put_u8(BODY_VERSION);
    out.count(count);
    out.put_slice(records);
}

/// Appends the body of an entry that holds one record.
pub(crate) fn encode_single(out: &mut BytesMut, record: &Record) {
    let mut bytes = BytesMut::new();
    record.encode(&mut bytes);
    encode_body(out, 1, &bytes);
}

/// Reads an entry's body.
pub fn decode_body(body: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut reader = Reader::new(body, "a metadata entry");
    let version = reader.u8()?;
    if version != BODY_VERSION {
        return Err(unknown_version("a metadata entry", version, BODY_VERSION));
    }
    let records = reader.list(|reader| {
        let (kind, version) = (reader.u8()?, reader.u8()?);
        let mut payload = reader.part("a metadata record")?;
        if kind == 0 || kind > LAST_KIND {
            return Err(DecodeError::UnknownKind(kind));
        }
        if version != RECORD_VERSION {
            return Err(unknown_version("a metadata record", version, RECORD_VERSION));
        }
        let record = Record::decode(kind, &mut payload)?;
        payload.end()?;
        Ok(record)
    })?;
    reader.end()?;
    Ok(records)
}

fn unknown_version(what: &'static str, version: u8, newest: u8) -> DecodeError {
    DecodeError::UnknownVersion {
        what,
        version: version.into(),
        newest: newest.into(),
    }
}

pub(crate) fn write_endpoints(out: &mut BytesMut, endpoints: &[Endpoint]) {
    out.count(endpoints.len());
    for endpoint in endpoints {
        out.string(&endpoint.listener);
        out.string(&endpoint.host);
        out.uint(endpoint.port.into());
        out.int(endpoint.security_protocol.into());
    }
}

pub(crate) fn read_endpoints(r: &mut Reader<'_>) -> Result<Vec<Endpoint>, DecodeError> {
    r.list(|r| {
        Ok(Endpoint {
            listener: r.string()?,
            host: r.string()?,
            port: r.narrow_uint()?,
            security_protocol: r.narrow()?,
        })
    })
}

pub(crate) fn write_fenced(out: &mut BytesMut, fenced: &Fenced) {
    out.int(fenced.node_id.into());
    out.uint(fenced.incarnation);
    out.uint(fenced.fence_slot);
    out.option(fenced.estate.as_deref(), BytesMut::string);
}

pub(crate) fn read_fenced(r: &mut Reader<'_>) -> Result<Fenced, DecodeError> {
    Ok(Fenced {
        node_id: r.narrow()?,
        incarnation: r.uint()?,
        fence_slot: r.uint()?,
        estate: r.option(Reader::string)?,
    })
}

pub(crate) fn write_pin(out: &mut BytesMut, pin: &Pin) {
    out.uint(pin.incarnation);
    out.uint(pin.end_slot);
}

pub(crate) fn read_pin(r: &mut Reader<'_>) -> Result<Pin, DecodeError> {
    Ok(Pin {
        incarnation: r.uint()?,
        end_slot: r.uint()?,
    })
}

pub(crate) fn read_resource_kind(r: &mut Reader<'_>) -> Result<ResourceKind, DecodeError> {
    ResourceKind::from_code(r.u8()?).ok_or(DecodeError::Invalid(
        "a config belongs to an unknown kind of resource",
    ))
}

#[cfg(test)]
mod tests;
