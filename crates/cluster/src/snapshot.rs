//! The image's stored form: the body of a metadata checkpoint.
//!
//! | field | bytes |
//! | --- | --- |
//! | magic | `DRMIMAGE` |
//! | version | one byte, 1 |
//! | sections | the eight below in this order, each: tag (one byte), version (one byte, 1), `uint` length, content |
//! | checksum | CRC32C of all before it, 4 bytes, little endian |
//!
//! | tag | section | content |
//! | --- | --- | --- |
//! | 1 | cluster | cluster id, position, epoch, controller, next producer id, features epoch |
//! | 2 | features | list of name, level |
//! | 3 | brokers | list of node, incarnation, registrations, endpoints, optional rack |
//! | 4 | incarnations | list of incarnation, node, optional origin, optional end (fence slot, heir, unpinned) |
//! | 5 | topics | list of id, name, runs of partitions (count, leader, epoch base), configs |
//! | 6 | tombstones | list of id, name, partitions, slot |
//! | 7 | pins | list of topic id, partition, list of (incarnation, end slot) |
//! | 8 | configs | list of kind of resource, name, configs |
//!
//! Lists are in the order of their keys. A partition's leader epoch is its epoch base plus the registrations of
//! the broker that leads it.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::apply::MAX_PARTITIONS;
use crate::codec::{DecodeError, Reader, Write, part};
use crate::ids::{ClusterId, Resource};
use crate::image::{
    Broker, Configs, Image, IncarnationEnd, IncarnationState, PartitionImage, Tombstone, TopicImage,
};
use crate::record::{
    read_endpoints, read_fenced, read_pin, read_resource_kind, write_endpoints, write_fenced, write_pin,
};
use crate::sorted_map::SortedMap;

const MAGIC: &[u8; 8] = b"DRMIMAGE";
const VERSION: u8 = 1;
const SECTION_VERSION: u8 = 1;

impl Image {
    /// The image's stored form.
    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(1024 + self.topics_by_id.len() * 64);
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        section(&mut out, 1, |out| {
            out.put_slice(&self.cluster.0);
            out.uint(self.position);
            out.uint(self.epoch);
            out.int(self.controller.into());
            out.int(self.next_producer_id);
            out.uint(self.features_epoch);
        });
        list(&mut out, 2, &self.features, |out, name, level| {
            out.string(name);
            out.int((*level).into());
        });
        list(&mut out, 3, &self.brokers, |out, node_id, broker| {
            out.int((*node_id).into());
            out.uint(broker.incarnation);
            out.int(broker.registrations.into());
            write_endpoints(out, &broker.endpoints);
            out.option(broker.rack.as_deref(), BytesMut::string);
        });
        list(&mut out, 4, &self.incarnations, |out, incarnation, state| {
            out.uint(*incarnation);
            out.int(state.node_id.into());
            out.option(state.from.as_ref(), write_fenced);
            out.option(state.end, |out, end| {
                out.uint(end.fence_slot);
                out.uint(end.heir);
                out.flag(end.unpinned);
            });
        });
        list(&mut out, 5, &self.topics_by_id, |out, _, topic| {
            write_topic(out, topic)
        });
        list(&mut out, 6, &self.tombstones, |out, id, tombstone| {
            out.put_slice(id);
            out.string(&tombstone.name);
            out.uint(tombstone.partitions.into());
            out.uint(tombstone.slot);
        });
        list(&mut out, 7, &self.pins, |out, (id, partition), pins| {
            out.put_slice(id);
            out.uint((*partition).into());
            out.count(pins.len());
            pins.iter().for_each(|pin| write_pin(out, pin));
        });
        list(&mut out, 8, &self.configs, |out, resource, configs| {
            out.put_u8(resource.kind as u8);
            out.string(&resource.name);
            write_configs(out, configs);
        });
        let checksum = crc32c::crc32c(&out);
        out.put_u32_le(checksum);
        out
    }

    /// Reads the body of a metadata checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(checked(bytes)?, "a metadata checkpoint");
        r.bytes(MAGIC.len() + 1)?;
        let mut head = open_section(&mut r, 1)?;
        let mut image = Self::newborn(ClusterId(head.id()?), 0);
        image.position = head.uint()?;
        image.epoch = head.uint()?;
        image.controller = head.narrow()?;
        image.next_producer_id = head.int()?;
        image.features_epoch = head.uint()?;
        head.end()?;
        image.features = read_list(&mut r, 2, |r| Ok((r.str()?.into(), r.narrow()?)))?;
        image.brokers = read_list(&mut r, 3, |r| {
            let broker = Broker {
                node_id: r.narrow()?,
                incarnation: r.uint()?,
                registrations: r.narrow()?,
                endpoints: read_endpoints(r)?,
                rack: r.option(Reader::string)?,
            };
            Ok((broker.node_id, Arc::new(broker)))
        })?;
        image.incarnations = read_list(&mut r, 4, |r| {
            let incarnation = r.uint()?;
            let node_id = r.narrow()?;
            let from = r.option(read_fenced)?;
            let end = r.option(|r| {
                Ok(IncarnationEnd {
                    fence_slot: r.uint()?,
                    heir: r.uint()?,
                    unpinned: r.flag()?,
                })
            })?;
            Ok((incarnation, Arc::new(IncarnationState { node_id, from, end })))
        })?;
        image.topics_by_id = read_list(&mut r, 5, |r| {
            let topic = read_topic(r)?;
            Ok((topic.id, Arc::new(topic)))
        })?;
        image.tombstones = read_list(&mut r, 6, |r| {
            let id = r.id()?;
            let name = r.str()?.into();
            Ok((
                id,
                Tombstone {
                    name,
                    partitions: r.narrow_uint()?,
                    slot: r.uint()?,
                },
            ))
        })?;
        image.pins = read_list(&mut r, 7, |r| {
            let key = (r.id()?, r.narrow_uint()?);
            Ok((key, r.list(read_pin)?.into()))
        })?;
        image.configs = read_list(&mut r, 8, |r| {
            let resource = Resource::new(read_resource_kind(r)?, r.str()?);
            Ok((resource, Arc::new(read_configs(r)?)))
        })?;
        r.end()?;
        image.index_topics()?;
        Ok(image)
    }

    /// Fills in what is not stored because the topics say it.
    fn index_topics(&mut self) -> Result<(), DecodeError> {
        let mut by_name: Vec<_> = self
            .topics_by_id
            .values()
            .map(|topic| (topic.name.clone(), topic.clone()))
            .collect();
        by_name.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.topics_by_name = by_name.into_iter().collect();
        if self.topics_by_name.len() != self.topics_by_id.len() {
            return Err(DecodeError::Invalid("two topics have the same name"));
        }
        self.partition_count = self
            .topics_by_id
            .values()
            .map(|topic| topic.partitions.len() as u64)
            .sum();
        Ok(())
    }
}

/// Checks magic, version and checksum; returns all but the checksum.
fn checked(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(DecodeError::Magic("drumlin metadata checkpoint"));
    };
    let version = *rest
        .first()
        .ok_or(DecodeError::Truncated("a metadata checkpoint"))?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion {
            what: "a metadata checkpoint",
            version: version.into(),
            newest: VERSION.into(),
        });
    }
    let (content, stored) = bytes
        .split_last_chunk::<4>()
        .ok_or(DecodeError::Truncated("a metadata checkpoint"))?;
    let (stored, computed) = (u32::from_le_bytes(*stored), crc32c::crc32c(content));
    if stored == computed {
        Ok(content)
    } else {
        Err(DecodeError::Checksum { stored, computed })
    }
}

fn section(out: &mut BytesMut, tag: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    out.put_u8(SECTION_VERSION);
    part(out, write);
}

fn open_section<'a>(r: &mut Reader<'a>, tag: u8) -> Result<Reader<'a>, DecodeError> {
    let (found, version) = (r.u8()?, r.u8()?);
    if found != tag {
        return Err(DecodeError::UnknownSection(found));
    }
    if version != SECTION_VERSION {
        return Err(DecodeError::UnknownVersion {
            what: "a section of a metadata checkpoint",
            version: version.into(),
            newest: SECTION_VERSION.into(),
        });
    }
    r.part("a section of a metadata checkpoint")
}

fn list<K, V>(out: &mut BytesMut, tag: u8, map: &SortedMap<K, V>, write: impl Fn(&mut BytesMut, &K, &V)) {
    section(out, tag, |out| {
        out.count(map.len());
        map.iter().for_each(|(key, value)| write(out, key, value));
    });
}

fn read_list<K: Ord + Clone, V: Clone>(
    r: &mut Reader<'_>,
    tag: u8,
    read: impl FnMut(&mut Reader<'_>) -> Result<(K, V), DecodeError>,
) -> Result<SortedMap<K, V>, DecodeError> {
    let mut section = open_section(r, tag)?;
    let entries = section.list(read)?;
    section.end()?;
    if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(DecodeError::Invalid("a list is not in the order of its keys"));
    }
    Ok(entries.into_iter().collect())
}

fn write_topic(out: &mut BytesMut, topic: &TopicImage) {
    out.put_slice(&topic.id);
    out.string(&topic.name);
    let runs = topic.partitions.chunk_by(|a, b| a == b);
    out.count(runs.clone().count());
    for run in runs {
        out.count(run.len());
        for partition in run.iter().take(1) {
            out.int(partition.leader.into());
            out.int(partition.epoch_base.into());
        }
    }
    write_configs(out, &topic.configs);
}

fn read_topic(r: &mut Reader<'_>) -> Result<TopicImage, DecodeError> {
    let id = r.id()?;
    let name = r.str()?.into();
    let mut partitions = Vec::new();
    for _ in 0..r.count()? {
        let run = r.narrow_uint::<u32>()?;
        let partition = PartitionImage {
            leader: r.narrow()?,
            epoch_base: r.narrow()?,
        };
        let room = MAX_PARTITIONS as usize - partitions.len();
        if run as usize > room {
            return Err(DecodeError::Invalid("a topic has too many partitions"));
        }
        partitions.extend(std::iter::repeat_n(partition, run as usize));
    }
    Ok(TopicImage {
        id,
        name,
        partitions: partitions.into(),
        configs: read_configs(r)?,
    })
}

fn write_configs(out: &mut BytesMut, configs: &Configs) {
    out.count(configs.len());
    for (key, value) in configs {
        out.string(key);
        out.string(value);
    }
}

fn read_configs(r: &mut Reader<'_>) -> Result<Configs, DecodeError> {
    Ok(r.list(|r| Ok((r.string()?, r.string()?)))?.into_iter().collect())
}

#[cfg(test)]
mod tests;
