//! DescribeClientQuotas (key 48): there are no quotas, and the filter is checked all the same.

use std::collections::BTreeSet;

use drumlin_wire::messages::describe_client_quotas_request::{ComponentData, DescribeClientQuotasRequest};
use drumlin_wire::messages::describe_client_quotas_response::DescribeClientQuotasResponse;
use drumlin_wire::{ApiKey, Str};

use super::shown;
use crate::dispatch::Cx;
use crate::error_code::{ErrorCode, Told};

/// Types of entities that have quotas.
pub(super) const USER: &str = "user";
pub(super) const CLIENT_ID: &str = "client-id";
pub(super) const IP: &str = "ip";

/// Ways to match an entity: by name, the default one, any.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

/// Answers with an empty list, or with what is wrong with the filter.
pub async fn handle(cx: &Cx, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    match check(&request.components) {
        Ok(()) => DescribeClientQuotasResponse {
            error_message: Some(Str::EMPTY),
            entries: Some(Vec::new()),
            ..Default::default()
        },
        Err(told) => DescribeClientQuotasResponse {
            error_code: cx.error(ApiKey::DescribeClientQuotas, told.code),
            error_message: Some(Str::from(told.message)),
            entries: None,
            ..Default::default()
        },
    }
}

/// Checks a filter in Kafka's words (`ClientQuotasImage`).
fn check(components: &[ComponentData]) -> Result<(), Told> {
    let invalid = |what: String| Err(Told::new(ErrorCode::InvalidRequest, what));
    let mut types = BTreeSet::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if types.contains(kind) {
            let what = format!("Entity type {kind} cannot appear more than once in the filter.");
            return invalid(what);
        }
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            let what = format!("Unsupported entity type {}", shown(&component.entity_type));
            return Err(Told::new(ErrorCode::UnsupportedVersion, what));
        }
        types.insert(kind);
        let named = component.r#match.is_some();
        match component.match_type {
            EXACT if !named => {
                return invalid(
                    "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
                );
            }
            DEFAULT if named => {
                return invalid(
                    "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.".to_owned(),
                );
            }
            SPECIFIED if named => {
                return invalid(
                    "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.".to_owned(),
                );
            }
            EXACT | DEFAULT | SPECIFIED => {}
            unknown => return invalid(format!("Unknown match type {unknown}")),
        }
    }
    if types.contains(IP) && types.len() > 1 {
        return invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or \
             clientId filter component."
                .to_owned(),
        );
    }
    Ok(())
}
