//! Versions that Kafka 4 dropped from its schemas and that clients still send: where each schema begins for us,
//! and the fields that went away with the versions.
//!
//! A field that is still described for an old version (`"versions": "0+"`) needs nothing but its row in
//! [`OLDEST`]; one that was removed is put back by [`FIELDS`].

use anyhow::{Context, Result, ensure};

use super::schema::{Field, Schema};

/// The first version that is generated, where that is below the schema's valid range.
///
/// - Produce 0-2 must be advertised (KAFKA-18659); they and Fetch 0-3 are served again once the legacy record
///   formats are.
/// - OffsetCommit 1 is what Sarama sent by default before 1.41, whatever the broker (`Consumer.Offsets.Retention` 0),
///   pykafka always, with a time of its own, and Sarama and kafka-python to this day when told of a broker older
///   than 0.9.
/// - OffsetCommit and OffsetFetch 0 are kafka-node's and kafka_ex's, and kafka-python's for 0.8.1.
const OLDEST: [(&str, i16); 8] = [
    ("ProduceRequest", 0),
    ("ProduceResponse", 0),
    ("FetchRequest", 0),
    ("FetchResponse", 0),
    ("OffsetCommitRequest", 0),
    ("OffsetCommitResponse", 0),
    ("OffsetFetchRequest", 0),
    ("OffsetFetchResponse", 0),
];

/// A field that Kafka 4 removed.
struct Removed {
    schema: &'static str,
    /// The fields that lead to its structure.
    path: &'static [&'static str],
    /// The field that it follows on the wire.
    after: &'static str,
    /// As Kafka 3.9's schema has it.
    field: &'static str,
}

const FIELDS: [Removed; 1] = [Removed {
    schema: "OffsetCommitRequest",
    path: &["Topics", "Partitions"],
    after: "CommittedLeaderEpoch",
    field: r#"{ "name": "CommitTimestamp", "type": "int64", "versions": "1", "default": "-1" }"#,
}];

/// The first version of a schema that is generated.
pub fn oldest(schema: &Schema) -> i16 {
    let listed = OLDEST.iter().find(|(name, _)| *name == schema.name);
    listed.map_or(schema.valid_versions.low, |(_, low)| *low)
}

/// Puts the removed fields of a schema back.
pub fn restore(schema: &mut Schema) -> Result<()> {
    for removed in FIELDS.iter().filter(|removed| removed.schema == schema.name) {
        let field: Field = serde_json::from_str(removed.field)?;
        insert(&mut schema.fields, removed.path, removed.after, field)
            .with_context(|| format!("a removed field of {}", schema.name))?;
    }
    Ok(())
}

fn insert(fields: &mut Vec<Field>, path: &[&str], after: &str, field: Field) -> Result<()> {
    let named = |name: &str| fields.iter().position(|f| f.name == name);
    let Some((first, rest)) = path.split_first() else {
        ensure!(named(&field.name).is_none(), "{} is there already", field.name);
        let at = named(after).with_context(|| format!("there is no {after}"))?;
        fields.insert(at + 1, field);
        return Ok(());
    };
    let at = named(first).with_context(|| format!("there is no {first}"))?;
    insert(&mut fields[at].fields, rest, after, field)
}
