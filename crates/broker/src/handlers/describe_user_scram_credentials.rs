//! DescribeUserScramCredentials (key 50): no user has credentials.

use std::collections::BTreeMap;

use drumlin_wire::messages::describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest;
use drumlin_wire::messages::describe_user_scram_credentials_response::{
    DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
};
use drumlin_wire::{ApiKey, Str};

use super::{Words, shown};
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers RESOURCE_NOT_FOUND for each user that was named; asked for all, there are none.
pub async fn handle(
    cx: &Cx,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut named: BTreeMap<Str, usize> = BTreeMap::new();
    for user in request.users.into_iter().flatten() {
        *named.entry(user.name).or_default() += 1;
    }
    let mut words = Words::default();
    let results = named
        .into_iter()
        .map(|(user, count)| {
            let (code, what) = if count > 1 {
                (
                    ErrorCode::DuplicateResource,
                    "Cannot describe SCRAM credentials for the same user twice in a single request: ",
                )
            } else {
                (
                    ErrorCode::ResourceNotFound,
                    "Attempt to describe a user credential that does not exist: ",
                )
            };
            DescribeUserScramCredentialsResult {
                error_code: cx.error(ApiKey::DescribeUserScramCredentials, code),
                error_message: words.give(format!("{what}{}", shown(&user))),
                user,
                ..Default::default()
            }
        })
        .collect();
    DescribeUserScramCredentialsResponse {
        error_message: Some(Str::EMPTY),
        results,
        ..Default::default()
    }
}
