use super::legacy;
use super::schema::{Field, Schema, Versions, in_repository, strip_comments};
use super::types::{Default, Type, When, ident, snake};

fn versions(text: &str) -> Versions {
    Versions::try_from(text.to_string()).unwrap()
}

#[test]
fn versions_read_and_print() {
    for text in ["none", "0", "7", "0-4", "3+"] {
        assert_eq!(versions(text).to_string(), text);
    }
    assert!(Versions::try_from("x".to_string()).is_err());
}

#[test]
fn conditions_say_no_more_than_needed() {
    let given = versions("2-9");
    let when = |text| When::of(versions(text), given);
    assert_eq!(when("0+"), When::Always);
    assert_eq!(when("2-9"), When::Always);
    assert_eq!(when("0-1"), When::Never);
    assert_eq!(when("none"), When::Never);
    assert_eq!(when("5+"), When::If("v >= 5".into()));
    assert_eq!(when("9"), When::If("v >= 9".into()));
    assert_eq!(when("0-4"), When::If("v <= 4".into()));
    assert_eq!(when("4"), When::If("v == 4".into()));
    assert_eq!(when("4-6"), When::If("(4..=6).contains(&v)".into()));
}

#[test]
fn comments_go_and_strings_stay() {
    let text = "// head\n{ \"a\": \"b // c \\\" // d\", // tail\n \"e\": 1 }";
    assert_eq!(
        strip_comments(text),
        "\n{ \"a\": \"b // c \\\" // d\", \n \"e\": 1 }\n"
    );
}

#[test]
fn names_become_rust() {
    assert_eq!(snake("TopicId"), "topic_id");
    assert_eq!(snake("protocolType"), "protocol_type");
    assert_eq!(ident("Type"), "r#type");
}

#[test]
fn defaults_are_javas() {
    let default = |json: &str| {
        let field: Field = serde_json::from_str(json).unwrap();
        let ty = Type::parse(&field.type_text).unwrap();
        Default::of(&field, &ty, !field.nullable_versions.is_empty())
    };
    let int = r#"{"name":"X","type":"int32","versions":"0+","default":"0x7fffffff"}"#;
    assert_eq!(default(int).unwrap(), Default::Literal("2147483647".into()));
    let null = r#"{"name":"X","type":"string","versions":"0+","nullableVersions":"0+","default":"null"}"#;
    assert_eq!(default(null).unwrap(), Default::Null);
    // A JSON null is not the text "null".
    let absent = r#"{"name":"X","type":"string","versions":"0+","nullableVersions":"0+","default":null}"#;
    assert_eq!(default(absent).unwrap(), Default::Zero);
    let records = r#"{"name":"X","type":"records","versions":"0+","nullableVersions":"0+"}"#;
    assert_eq!(default(records).unwrap(), Default::Null);
    assert!(default(r#"{"name":"X","type":"string","versions":"0+","default":"null"}"#).is_err());
}

#[test]
fn removed_fields_come_back_in_their_place() {
    let schema = |partitions: &str| -> Schema {
        let text = format!(
            r#"{{"apiKey":8,"type":"request","name":"OffsetCommitRequest","validVersions":"2-10","fields":[
            {{"name":"Topics","type":"[]T","versions":"0+","fields":[
            {{"name":"Partitions","type":"[]P","versions":"0+","fields":[{partitions}]}}]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    let field = |name: &str| format!(r#"{{"name":"{name}","type":"int64","versions":"0+"}}"#);
    let names = |schema: &Schema| -> Vec<String> {
        let partitions = &schema.fields[0].fields[0].fields;
        partitions.iter().map(|f| f.name.clone()).collect()
    };
    let (epoch, metadata) = (field("CommittedLeaderEpoch"), field("CommittedMetadata"));
    let mut whole = schema(&format!("{epoch},{metadata}"));
    legacy::restore(&mut whole).unwrap();
    let expected = ["CommittedLeaderEpoch", "CommitTimestamp", "CommittedMetadata"];
    assert_eq!(names(&whole), expected);
    assert_eq!(legacy::oldest(&whole), 0);
    // A newer Kafka that has it again, or has moved its neighbour, is looked at by somebody.
    assert!(legacy::restore(&mut whole).is_err());
    assert!(legacy::restore(&mut schema(&metadata)).is_err());
}

/// The command itself fetches the jars; here, where they were never fetched, there is nothing to compare with.
#[test]
fn checked_in_codec_is_what_the_schemas_give() {
    if in_repository("kafka-clients").unwrap().exists() {
        super::run(true).unwrap();
    } else {
        println!("skipped: Kafka's jars are not in the local Maven repository");
    }
}
