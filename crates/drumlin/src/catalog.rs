//! The topics of a bucket, read without a broker and without taking anything over.
//!
//! The newest checkpoint of the metadata log and the entries above it say which topics there are. Entries of an epoch
//! below one seen before are void, as the log's own rules have it.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use drumlin_cluster::{Birth, Image, PREFIX, Record, decode_body};
use drumlin_objects::chain::{ChainId, ChainName, EntryKind, newest_checkpoint, read_birth, read_entry};
use drumlin_objects::{Bucket, Reason};

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: [u8; 16],
    /// How many partitions it has.
    pub partitions: u32,
}

/// The live topics of a bucket, by name.
pub async fn read(bucket: &Bucket) -> anyhow::Result<BTreeMap<String, Topic>> {
    let Some(entry) = read_birth(bucket, PREFIX, Reason::Check).await? else {
        bail!("the bucket holds no cluster: check store.url");
    };
    let birth = Birth::decode(&entry.body()).context("the bucket's birth object cannot be read")?;
    let name = ChainName {
        prefix: PREFIX.to_owned(),
        id: ChainId(birth.cluster_id.0),
    };
    let mut topics = BTreeMap::new();
    let (mut slot, mut epoch) = (1, 0);
    if let Some(checkpoint) = newest_checkpoint(bucket, &name, Reason::Check).await? {
        let body = bucket.get(&checkpoint.body_key, Reason::Check).await?;
        let image =
            Image::decode(&body).with_context(|| format!("object {} is damaged", checkpoint.body_key))?;
        for topic in image.topics().values() {
            let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
            topics.insert(
                topic.name.to_string(),
                Topic {
                    id: topic.id,
                    partitions,
                },
            );
        }
        (slot, epoch) = (checkpoint.covers_below, image.epoch);
    }
    while let Some(entry) = read_entry(bucket, &name, slot, Reason::Check).await? {
        slot += 1;
        if entry.header.epoch < epoch {
            continue;
        }
        epoch = entry.header.epoch;
        if entry.header.kind != EntryKind::Data {
            continue;
        }
        let records = decode_body(&entry.body())
            .with_context(|| format!("entry {} of the metadata log is damaged", entry.header.slot))?;
        for record in records {
            follow(&mut topics, record);
        }
    }
    Ok(topics)
}

fn follow(topics: &mut BTreeMap<String, Topic>, record: Record) {
    match record {
        Record::TopicCreated {
            name, id, partitions, ..
        } => {
            topics.insert(name, Topic { id, partitions });
        }
        Record::PartitionsAdded { id, partitions, .. } => {
            for topic in topics.values_mut().filter(|topic| topic.id == id) {
                topic.partitions = partitions;
            }
        }
        Record::TopicDeleted { id } => topics.retain(|_, topic| topic.id != id),
        _ => {}
    }
}
