//! AlterClientQuotas (key 49): quotas are not enforced, so none can be set.
//!
//! What is malformed is refused as Kafka refuses it. A quota that Kafka would keep is refused too: one that is kept and
//! not enforced would tell an operator that clients are held back while they are not.

use std::collections::BTreeMap;

use drumlin_wire::messages::alter_client_quotas_request::{
    AlterClientQuotasRequest, EntityData as Asked, EntryData as Entry, OpData,
};
use drumlin_wire::messages::alter_client_quotas_response::{
    AlterClientQuotasResponse, EntityData, EntryData,
};
use drumlin_wire::{ApiKey, Str};

use super::describe_client_quotas::{CLIENT_ID, IP, USER};
use super::{Words, shown};
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};

/// Quotas of users and clients, and whether each may be a fraction.
const USER_KEYS: [(&str, bool); 4] = [
    ("producer_byte_rate", false),
    ("consumer_byte_rate", false),
    ("request_percentage", true),
    ("controller_mutation_rate", true),
];
/// Quotas of addresses.
const IP_KEYS: [(&str, bool); 1] = [("connection_creation_rate", false)];

/// Answers each entry for itself.
pub async fn handle(cx: &Cx, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let mut words = Words::default();
    let entries = request
        .entries
        .into_iter()
        .map(|entry| {
            let (code, error_message) = match check(&entry) {
                Ok(()) => (ErrorCode::None, None),
                Err(told) => (told.code, words.give(told.message)),
            };
            EntryData {
                error_code: cx.error(ApiKey::AlterClientQuotas, code),
                error_message,
                entity: named(entry.entity),
                ..Default::default()
            }
        })
        .collect();
    AlterClientQuotasResponse {
        entries,
        ..Default::default()
    }
}

/// The entity in the answer: a type that was given twice counts with its last name.
fn named(asked: Vec<Asked>) -> Vec<EntityData> {
    let parts: BTreeMap<Str, Option<Str>> = asked
        .into_iter()
        .map(|part| (part.entity_type, part.entity_name))
        .collect();
    // Users come before addresses and clients after them, as from the hash map of Kafka.
    parts
        .into_iter()
        .rev()
        .map(|(entity_type, entity_name)| EntityData {
            entity_type,
            entity_name,
            ..Default::default()
        })
        .collect()
}

/// Checks one entry, in the order and the words of Kafka (`ClientQuotaControlManager`).
fn check(entry: &Entry) -> Result<(), Told> {
    let keys = keys_of(&entry.entity)?;
    for op in &entry.ops {
        check_op(op, keys)?;
    }
    if entry.ops.iter().any(|op| !op.remove) {
        let what = "client quotas are not enforced by this broker yet: none can be set";
        return Err(Told::new(ErrorCode::UnsupportedVersion, what));
    }
    Ok(())
}

/// Which quotas an entity may have.
fn keys_of(entity: &[Asked]) -> Result<&'static [(&'static str, bool)], Told> {
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidRequest, what));
    if entity.is_empty() {
        return invalid("Invalid empty client quota entity".to_owned());
    }
    let mut of_ip = false;
    let mut of_user = false;
    for part in entity {
        match part.entity_type.as_str() {
            USER | CLIENT_ID => of_user = true,
            IP => of_ip = true,
            _ => {
                let kind = shown(&part.entity_type);
                return invalid(format!("Unhandled client quota entity type: {kind}"));
            }
        }
        if part.entity_name.as_ref().is_some_and(|name| name.is_empty()) {
            return invalid(format!("Empty {} not supported", part.entity_type));
        }
    }
    if of_ip && of_user {
        return invalid(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId"
                .to_owned(),
        );
    }
    if !of_ip {
        return Ok(&USER_KEYS);
    }
    let names = entity.iter().filter_map(|part| part.entity_name.as_ref());
    for name in names {
        // Kafka takes names of hosts and looks them up; nothing here waits for a name server.
        if name.parse::<std::net::IpAddr>().is_err() {
            let name = shown(name);
            return invalid(format!("{name} is not a valid IP or resolvable host."));
        }
    }
    Ok(&IP_KEYS)
}

fn check_op(op: &OpData, keys: &[(&str, bool)]) -> Result<(), Told> {
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidRequest, what));
    let Some((key, may_be_fraction)) = keys.iter().find(|(key, _)| op.key == **key) else {
        return invalid(format!("Invalid configuration key {}", shown(&op.key)));
    };
    if op.remove {
        return Ok(());
    }
    if op.value.is_nan() || op.value <= 0.0 {
        return invalid(format!("Quota {key} must be greater than 0"));
    }
    if !may_be_fraction && op.value.fract() != 0.0 {
        return invalid(format!("{key} cannot be a fractional value."));
    }
    Ok(())
}
